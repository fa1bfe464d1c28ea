"""Labels in other forms than PASCAL VOC's, known well enough to be refused by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

MOST_FILES = 2000  # looked at
HEAD = 65536  # bytes of a file
_YOLO = re.compile(r"\s*\d+(\s+-?[\d.]+(e-?\d+)?){4,}\s*", re.IGNORECASE)


def named_format(root: Path) -> str | None:
    """What labels a folder holds, with a file as an example; None where none are known."""
    for file in islice(_files(root), MOST_FILES):
        kind = _kind(file)
        if kind is not None:
            return f"{kind} ({file.relative_to(root)})"
    return None


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))


def _kind(file: Path) -> str | None:
    suffix = file.suffix.lower()
    if suffix not in (".json", ".txt", ".csv"):
        return None
    try:
        with file.open("rb") as stream:
            head = stream.read(HEAD).decode("utf-8", errors="replace")
    except OSError:
        return None
    return {".json": _json, ".txt": _text, ".csv": _table}[suffix](file.name, head)


def _json(name: str, head: str) -> str | None:
    if name.startswith("instances_") or "coco" in name or '"annotations"' in head:
        return "annotations in COCO's form"
    return "labels in LabelMe's form" if '"shapes"' in head else None


def _text(name: str, head: str) -> str | None:
    lines = [line for line in head.splitlines()[:5] if line.strip()]
    fits = bool(lines) and all(map(_YOLO.fullmatch, lines))
    return "labels in YOLO's form" if fits else None


def _table(name: str, head: str) -> str | None:
    first = head.partition("\n")[0].lower()
    return "labels in a CSV table" if "xmin" in first or "x1" in first else None
