"""The package as it was at older commits, and the code hash of a run there."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from bnnbench.records.source import source_hash

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src", "conf")


class Checkouts:
    """``with Checkouts() as old: old.at(commit)``: a folder a commit, all removed at the end.

    Only ``src`` and ``conf`` are written; the repository itself learns nothing of them.
    """

    def __init__(self, repository: Path = ROOT) -> None:
        self.repository = repository
        self._temporary = tempfile.TemporaryDirectory(prefix="bnnbench-commits-")
        self._folders: dict[str, Path] = {}

    def __enter__(self) -> Checkouts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._temporary.cleanup()

    def at(self, commit: str) -> Path:
        """The top of a checkout of ``commit``. Raises LookupError where git does not have it."""
        if not re.fullmatch("[0-9a-f]{7,64}", commit):  # of a result: git would take it for options
            raise LookupError(f"{commit!r} is no commit's hash")
        if commit not in self._folders:
            folder = Path(self._temporary.name) / commit
            git = ["git", "-C", str(self.repository), "archive", commit, *FOLDERS]
            run = subprocess.run(git, capture_output=True)
            if run.returncode:
                raise LookupError(f"commit {commit}: {run.stderr.decode().strip()}")
            with tarfile.open(fileobj=io.BytesIO(run.stdout)) as archive:
                archive.extractall(folder, filter="data")
            self._folders[commit] = folder
        return self._folders[commit]

    def hash_at(self, commit: str, config: Mapping[str, Any]) -> str:
        """The code hash, as it is taken today, of a run's config at ``commit``."""
        return source_hash(config, self.at(commit) / "src" / "bnnbench")
