"""A forced run beside the old one: the old files go when the new result stands.

With ``force=true`` a run trains in ``.forced`` inside its folder, so that a mistake, a failure or a
kill costs nothing that was there; cut, it goes on there when it is forced again. Its result,
written last, decides: from then on the new files take the places of the old ones, by renaming
alone, and ``result.json`` comes last. A process that dies in between leaves the folder without a
``result.json`` and the new one in ``.forced``; the next start finishes the exchange. So nobody ever
reads a result beside files of another one. Imports lightly.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bnnbench.records.lock import locked
from bnnbench.records.ranks import rank
from bnnbench.records.store import DamagedResult, read_identity, read_result
from bnnbench.runs.reuse import Run, data_mark

FOLDER = ".forced"
# What a run leaves in its folder and a new one may not have: pictures, stages of another config.
OWN = ("checkpoints", "stage*_*", "identity.json", "logged.json", "progress.json", "metrics.csv")
OWN += ("hparams.yaml", "summary.csv", "packed.json", "links.json", "*.png")
OWN += ("events.out.tfevents.*",)
CLEARED = "cleared"  # marks that no old file is left, whatever stands there now


def workspace(folder: Path) -> Path:
    """Where the forced run of ``folder`` trains."""
    return folder / FOLDER


def finish_cut_exchange(folder: Path, fingerprint: str) -> None:
    """What a start does first that does not force: the exchange goes on where it was cut.

    It holds the folder's lock, which the caller may not have: another process may be at it.
    """
    if rank() == 0 and (workspace(folder) / "result.json").exists():
        with locked(folder, fingerprint, replaces=True):
            finish_exchange(folder)


def finish_exchange(folder: Path) -> bool:
    """Put a forced run that has its result in the place of the old one; False where none has.

    The caller holds the folder's lock.
    """
    new = workspace(folder)
    if not (new / "result.json").exists():
        return False
    (folder / "result.json").unlink(missing_ok=True)  # from here on the new result is the run's
    if not (new / CLEARED).exists():
        for old in (path for pattern in OWN for path in folder.glob(pattern)):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        (new / CLEARED).touch()
    for entry in sorted(new.iterdir()):
        if entry.name not in ("result.json", CLEARED):
            _move(entry, folder / entry.name)
    (new / "result.json").replace(folder / "result.json")
    shutil.rmtree(new)
    return True


def _move(source: Path, place: Path) -> None:
    """Rename; a folder that is there already, as a logger's, gains what is in the new one."""
    if source.is_dir() and place.is_dir():
        for entry in source.iterdir():
            _move(entry, place / entry.name)
    else:
        source.replace(place)


def prepare(run: Run) -> None:
    """Make the workspace ``run.folder``; what a run of another config or data left there goes."""
    if not _is_own(run):
        shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / CLEARED).unlink(missing_ok=True)


def standing(run: Run) -> dict[str, Any] | None:
    """The run's result where the workspace ``run.folder`` has it: it was cut in the exchange."""
    return read_result(run.folder) if _is_own(run) else None


def _is_own(run: Run) -> bool:
    try:
        found = read_identity(run.folder)
    except DamagedResult:
        return False
    if found is None or found["fingerprint"] != run.fingerprint:
        return False
    return data_mark(run.folder, run.cfg) is None
