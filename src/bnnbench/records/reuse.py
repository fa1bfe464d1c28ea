"""Which folder a run has: its own, or one beside it where the first holds other data's run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from bnnbench.records.fingerprint import fingerprint, run_name
from bnnbench.records.stamps import stamp_of
from bnnbench.records.store import DamagedResult, logged_by, read_identity

MARK = "paths.data_mark"
_ELSEWHERE = "choose another folder, or replace that run with force=true"


def check_start(cfg: DictConfig) -> None:
    """Refuse to train from what is only evaluated. Raises ValueError."""
    if cfg.train and cfg.get("ckpt_path") is not None:
        raise ValueError(
            f"ckpt_path={cfg.ckpt_path} is for train=false, which evaluates it: start a training "
            "from its weights with init_from=<file>"
        )


def check_owner(folder: Path, cfg: DictConfig) -> None:
    """Refuse a folder that holds a run of another config. Raises ValueError."""
    found = read_identity(folder)
    if found is not None and found["fingerprint"] != fingerprint(cfg):
        raise ValueError(f"{folder} holds another run, {found['name']}: {_ELSEWHERE}")


def check_data(folder: Path, stamp: str | None) -> None:
    """Refuse a folder whose run was trained on other data. Raises ValueError."""
    found = read_identity(folder)
    if found is not None and differs(found["data_stamp"], stamp):
        raise ValueError(f"{folder} holds this run on other data of the same name: {_ELSEWHERE}")


def differs(known: str | None, stamp: str | None) -> bool:
    """Whether two stamps are of different data; nothing can be said of an unknown one."""
    return known is not None and stamp is not None and known != stamp


def dataset_of(cfg: DictConfig) -> dict[str, Any]:
    """The resolved data set of ``cfg``."""
    node = OmegaConf.to_container(cfg.dataset, resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def stamp_cache(cfg: DictConfig) -> Path:
    """The file that remembers the stamps of data sets that were read before."""
    return Path(cfg.paths.log_dir) / "stamps.json"


def data_mark(folder: Path, cfg: DictConfig) -> str | None:
    """What tells the run of ``cfg`` from the one in ``folder``; None where they are one.

    It is the start of the stamp of the data that are there now, where the folder's run was trained
    on others.
    """
    try:
        found = read_identity(folder)
    except DamagedResult:  # shown as such, and never written over
        return None
    if found is None or found["data_stamp"] is None:
        return None
    stamp = stamp_of(dataset_of(cfg), stamp_cache(cfg))
    return mark_of(str(stamp)) if differs(found["data_stamp"], stamp) else None


def mark_of(stamp: str) -> str:
    """Eight digits of a stamp, for names."""
    return stamp.rpartition(":")[2][:8]


def settled_marks(cfgs: Sequence[DictConfig], names: Sequence[str]) -> list[str | None]:
    """For each run of a sweep, by its config and name, what tells it from one on other data.

    The others are those that stand in the runs' folder, and those before it in the sweep.
    """
    taken: dict[str, str | None] = {}
    marks: list[str | None] = []
    several = len({str(OmegaConf.select(cfg, "dataset.data_dir")) for cfg in cfgs}) > 1
    for cfg, name in zip(cfgs, names, strict=True):
        mark = data_mark(Path(cfg.paths.runs_dir) / name, cfg)
        if mark is None and several:
            stamp = stamp_of(dataset_of(cfg), stamp_cache(cfg))
            if differs(taken.setdefault(name, stamp), stamp):
                mark = mark_of(str(stamp))
        marks.append(mark)
    return marks


def settle(cfg: DictConfig, folder: Path) -> Path:
    """The folder of a single run, where its own holds it on other data another; ``cfg.paths`` too.

    Raises:
        ValueError: a folder that the user chose holds another run.
    """
    if cfg.force:
        return folder
    check_owner(folder, cfg)
    mark = data_mark(folder, cfg)
    if mark is None:
        return folder
    if folder.resolve() != (Path(cfg.paths.runs_dir) / run_name(cfg)).resolve():
        raise ValueError(f"{folder} holds this run on other data of the same name: {_ELSEWHERE}")
    with open_dict(cfg):
        OmegaConf.update(cfg, MARK, mark)
        cfg.paths.output_dir = str(folder.with_name(run_name(cfg)))
    return Path(cfg.paths.output_dir)


def reused(result: dict[str, Any]) -> str:
    """A reused result in words."""
    key = result["headline"]
    score = result["metrics"]["last"].get(key) if key else None
    return "counted before" if score is None else f"{100 * score:.2f} %, trained before"


def needs_replay(cfg: DictConfig, folder: Path) -> bool:
    """Whether the logger of ``cfg`` has not seen the finished run in ``folder``."""
    return "_target_" in cfg.logger and cfg.logger.name not in logged_by(folder)
