"""Runs on disk: which are finished, and their results, written once, last and atomically."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bnnbench.records.durable import write_whole
from bnnbench.records.names import check_name

SCHEMA = 2
# A list of numbers: hundreds of lines of a result, if each had its own.
_NUMBERS = re.compile(r"\[\s+(?:[-+.\dEe]+|null)(?:,\s+(?:[-+.\dEe]+|null))*\s+\]")
NAMED = ("name", "fingerprint")
IDENTITY = (*NAMED, "data_stamp")
# Where the headline of a run may stand in its metrics; runs with held-out data have val/*.
HEADLINES = ("test/acc", "test/map", "val/acc", "val/map")
State = Literal["finished", "failed", "interrupted", "missing", "damaged"]


class DamagedResult(ValueError):
    """A result file that is there but cannot be used."""


@dataclass(frozen=True)
class Cell:
    """One line of a sweep, and the run that fills it.

    overrides: what was typed for it, without settings that change no number.
    run: the name of its folder; cells that were told apart may name the same run.
    settings: dotted keys of the run's resolved config.
    headline: the metric that stands for the run.
    """

    overrides: dict[str, str]
    run: str
    fingerprint: str
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    headline: str | None = None


def read_result(run_dir: Path | str) -> dict[str, Any] | None:
    """The run's result, None where it has not finished; DamagedResult where it cannot be read."""
    file = Path(run_dir) / "result.json"
    return read_result_file(file) if file.exists() else None


def read_result_file(file: Path) -> dict[str, Any]:
    """A result in the present form, whatever its version. DamagedResult where it is none."""
    return _load(file)


def read_record(file: Path) -> dict[str, Any] | None:
    """A stage's record, of the form of a result; None where there is none."""
    return _load(file, stage=True) if file.exists() else None


def headline_key(metrics: Mapping[str, Any]) -> str | None:
    """Name of the headline among a run's metrics, such as "test/acc"; None without one."""
    return next((key for key in HEADLINES if key in metrics), None)


def score_of(result: Mapping[str, Any]) -> float:
    """The headline of a result's last epoch; nan where it only counted, or that is undefined."""
    score = result["metrics"]["last"].get(result["headline"])
    return math.nan if score is None else score


def read_error(run_dir: Path | str) -> str | None:
    """The traceback a failed run left, None where there is none."""
    file = Path(run_dir) / "error.txt"
    return file.read_text(errors="replace") if file.exists() else None


def last_weights(run_dir: Path | str) -> Path:
    """Where a run without stages, or a stage of one, keeps its last epoch's weights."""
    return Path(run_dir).expanduser() / "checkpoints" / "last.ckpt"


def previous_weights(run_dir: Path | str) -> Path:
    """Where a run that has not finished keeps the checkpoint before its last one."""
    return last_weights(run_dir).with_name("previous.ckpt")


def trained(run_dir: Path | str) -> tuple[dict[str, Any], Path]:
    """Record and weights of what a finished run has trained: in stages, those of the last.

    Raises:
        ValueError: the run has not finished, or its weights are gone.
    """
    folder = Path(run_dir).expanduser()
    record = read_result(folder)
    if record and (stages := record.get("stages")):
        check_name(f"{folder}/result.json: stages.name", stages[-1]["name"])
        folder /= stage_folder(len(stages), stages[-1]["name"])
        record = read_record(folder / "stage.json")
    if record is None or not last_weights(folder).exists():
        raise ValueError(
            f"{run_dir} is no finished run: it needs result.json and checkpoints/last.ckpt, as a "
            "run, or the last of its stages, leaves them"
        )
    return record, last_weights(folder)


def stage_folder(number: int, name: str) -> str:
    """Name of a stage's folder inside its run's; the first stage has number 1."""
    return f"stage{number}_{name}"


def read_identity(run_dir: Path | str) -> dict[str, Any] | None:
    """Name, fingerprint and data stamp of the run that has a folder; None of an unused one."""
    folder = Path(run_dir)
    found = read_result(folder) or _load_json(folder / "identity.json")
    return None if found is None else {key: found.get(key) for key in IDENTITY}


def write_identity(run_dir: Path | str, identity: Mapping[str, Any]) -> None:
    """Say whose a folder is, before anything is trained in it."""
    write_json(Path(run_dir) / "identity.json", {key: identity[key] for key in IDENTITY})


def logged_by(run_dir: Path | str) -> list[str]:
    """Names of the loggers that a finished run has reached."""
    try:
        names = json.loads((Path(run_dir) / "logged.json").read_text())
    except (OSError, ValueError, RecursionError):  # none, or damaged: a logger is told once more
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def mark_logged(run_dir: Path | str, logger: str) -> None:
    """Remember that a finished run has reached ``logger``."""
    write_json(Path(run_dir) / "logged.json", sorted({*logged_by(run_dir), logger}))


def cell_state(runs_dir: Path | str, cell: Cell) -> State:
    """What the cell's run folder says; a result of another fingerprint is not the cell's."""
    run_dir = Path(runs_dir) / cell.run
    try:
        result = read_result(run_dir)
    except DamagedResult:
        return "damaged"
    if result is not None and result["fingerprint"] == cell.fingerprint:
        return "finished"
    if (run_dir / "error.txt").exists():
        return "failed"
    if (run_dir / "progress.json").exists() or last_weights(run_dir).exists():
        return "interrupted"
    return "missing"


def write_json(path: Path | str, obj: Any) -> None:
    """Write JSON so that a reader, or a crash in the middle, sees the old file or the new one.

    Raises:
        OSError: it could not be written; the message names the file.
    """
    text = json.dumps(obj, indent=1, allow_nan=False)
    write_whole(Path(path), (_NUMBERS.sub(_one_line, text) + "\n").encode())


def _one_line(numbers: re.Match[str]) -> str:
    return " ".join(numbers[0].split()).replace("[ ", "[").replace(" ]", "]")


def _load_json(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise DamagedResult(f"{file}: damaged ({error}); delete the file") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(k), str) for k in NAMED):
        raise DamagedResult(f"{file}: damaged (it names no run); delete the file")
    return content


def _load(file: Path, stage: bool = False) -> dict[str, Any]:
    from bnnbench.records import schema  # with pydantic, for those who read a result

    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedResult(
            f"{file}: damaged ({error}); delete the file to run it again"
        ) from error
    return (schema.check_record if stage else schema.check_result)(content, str(file))
