"""Which figures of a folder are already drawn of these results by this code.

Drawing takes nearly all the time of a report, and most sweeps have not changed since the last one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bnnbench.records.store import write_json

FILE = ".drawn.json"  # in the sweep's folder
CODE = Path(__file__).parents[1]


class Drawn:
    """What is known of the figures of a folder.

    Args:
        folder: of the sweep; what is known is kept there, in `FILE`.
        what: all that figures are drawn from, of what JSON holds.
    """

    def __init__(self, folder: Path, what: Any) -> None:
        self._file = folder / FILE
        content = json.dumps([what, code()], sort_keys=True, default=str)
        self._digest = hashlib.sha256(content.encode()).hexdigest()
        self._figures = self._read()
        if not self._figures:  # what is drawn from now on is of other results
            self._file.unlink(missing_ok=True)

    def outcome(self, name: str, stem: Path, formats: Sequence[str]) -> bool | None:
        """Whether there was anything to draw for a figure; None if it has to be drawn."""
        known = self._figures.get(name)
        files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]
        return known if all(file.is_file() == known for file in files) else None

    def write(self, figures: dict[str, bool]) -> None:
        """Keep which figures were asked for, and whether there was anything to draw."""
        write_json(self._file, {"of": self._digest, "figures": figures})

    def _read(self) -> dict[str, bool]:
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
            return known["figures"] if known["of"] == self._digest else {}
        except (OSError, ValueError, KeyError, TypeError):  # none, or not ours
            return {}


@cache
def code() -> str:
    """A hash of the code that draws, and of matplotlib's version."""
    found = hashlib.sha256(version("matplotlib").encode())
    for path in [CODE / "plots.py", *sorted((CODE / "report").glob("*.py"))]:
        found.update(path.read_bytes())
    return found.hexdigest()
