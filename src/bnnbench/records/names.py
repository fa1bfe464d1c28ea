"""Names that become a file or a folder: one part of a path, so that none leaves its place."""

from __future__ import annotations

import re
from pathlib import Path

ADDRESS = re.compile(r"[a-zA-Z][\w+.-]+:/")  # pathlib leaves one of its two strokes
PLACES = ("*.ckpt", "checkpoints/*.ckpt", "*/checkpoints/*.ckpt")  # in a run's folder


def is_name(text: object) -> bool:
    """Whether ``text`` can name a file or folder: printable, without separators, not ``..``."""
    if not isinstance(text, str) or text.strip() in ("", ".", ".."):
        return False
    return text.isprintable() and not set(text) & set("/\\")


def check_name(key: str, text: object) -> None:
    """Refuse what is no name; ``key`` stands in the message. Raises ValueError."""
    if not is_name(text):
        raise ValueError(f"{key}={text!r} is no name: write letters and digits, without / and ..")


def absent(path: Path | str) -> str:
    """Why there is no checkpoint at ``path``, and after a colon what to give instead."""
    if ADDRESS.match(str(path)):
        return "it is a web address: download it, and give the path of the file"
    file = Path(path).expanduser()
    if not file.is_dir():
        return "there is no such file"
    below = [str(found.relative_to(file)) for place in PLACES for found in file.glob(place)]
    which = f" in it, such as {max(below)}" if below else ""
    return f"it is a folder: give a checkpoint{which}"
