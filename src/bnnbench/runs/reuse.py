"""A run and its folder: its own, or one beside it where the first holds the run on other data.

Imports lightly: whether there is anything to do is known before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from bnnbench.records.fingerprint import digest, fingerprinted, run_name
from bnnbench.records.lock import holder
from bnnbench.records.stamps import PACKAGE, stamp_of
from bnnbench.records.store import DamagedResult, logged_by, read_identity

MARK = "paths.data_mark"
PLACE = (
    "data_dir",
    "folder",
    "file",
    "images",
    "labels",
    "test_images",
    "test_labels",
)  # keys of a data set that say where it lies
_ELSEWHERE = "choose another folder, or replace that run with force=true"


@dataclass(frozen=True)
class Run:
    """A config, where it runs, and what follows from the config: each is worked out once.

    Attributes:
        cfg: the composed config; of a stage, the stage's.
        folder: where its result and checkpoints go.
    """

    cfg: DictConfig
    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """What of the config identifies the run, resolved."""
        return fingerprinted(self.cfg)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of that."""
        return digest(self.config)

    @cached_property
    def name(self) -> str:
        """Readable, with eight digits of the fingerprint."""
        return run_name(self.cfg, self.config)

    @property
    def dataset(self) -> dict[str, Any]:
        """The resolved data set."""
        return dataset_of(self.cfg)


def check_start(cfg: DictConfig) -> None:
    """Refuse an evaluation of nothing, and a run that cannot go on from a finished one.

    Raises ValueError.
    """
    if not cfg.train and cfg.get("ckpt_path") is None:
        raise ValueError("an evaluation needs a checkpoint: set ckpt_path=<file>")
    if not cfg.train or cfg.get("ckpt_path") is None:
        return
    steps = (cfg.recipe.get("steps"), cfg.trainer.get("max_steps"))
    for wrong, why in (
        (cfg.recipe.get("stages"), f"recipe={cfg.recipe.name} trains in stages"),
        (set(steps) - {None, -1}, "its length is given in steps"),
        ((cfg.trainer.max_epochs or 0) < 1, f"trainer.max_epochs={cfg.trainer.max_epochs}"),
    ):
        if wrong:
            raise ValueError(
                f"ckpt_path={cfg.ckpt_path} goes on from a finished run for a number of epochs, "
                f"and {why}: start from its weights with init_from=<file>"
            )


def check_owner(run: Run) -> None:
    """Refuse a folder that holds a run of another config. Raises ValueError."""
    found = read_identity(run.folder)
    if found is not None and found["fingerprint"] != run.fingerprint:
        who = holder(run.folder)
        now = "" if who is None else f", which {who} is training"
        raise ValueError(f"{run.folder} holds another run, {found['name']}{now}: {_ELSEWHERE}")


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


class Stamps:
    """The stamps of configs' data sets as they are now, each set looked at once."""

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {}

    def of(self, cfg: DictConfig) -> str | None:
        """None where there are no such data."""
        dataset, cache = dataset_of(cfg), stamp_cache(cfg)
        own = str(dataset.get("_target_")).startswith(PACKAGE)  # its seed says the order alone
        key = f"{cache} {[(k, v) for k, v in dataset.items() if k != 'seed' or not own]}"
        if key not in self._known:
            self._known[key] = stamp_of(dataset, cache)
        return self._known[key]


def data_mark(folder: Path, cfg: DictConfig, stamps: Stamps | None = None) -> str | None:
    """What tells the run of ``cfg`` from the one in ``folder``; None where they are one.

    It is the start of the stamp of the data that are there now, where the folder's run was trained
    on others. ``stamps`` are those of other runs, so that no data set is looked at again.
    """
    try:
        found = read_identity(folder)
    except DamagedResult:  # shown as such, and never written over
        return None
    if found is None or found["data_stamp"] is None:
        return None
    stamp = (Stamps() if stamps is None else stamps).of(cfg)
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
    stamps = Stamps()
    places = [[OmegaConf.select(cfg, f"dataset.{key}") for key in PLACE] for cfg in cfgs]
    several = len(set(map(str, places))) > 1
    for cfg, name in zip(cfgs, names, strict=True):
        mark = data_mark(Path(cfg.paths.runs_dir) / name, cfg, stamps)
        if mark is None and several:
            stamp = stamps.of(cfg)
            if differs(taken.setdefault(name, stamp), stamp):
                mark = mark_of(str(stamp))
        marks.append(mark)
    return marks


def settle(run: Run) -> Run:
    """A single run in the folder that is its own, beside one of the same run on other data.

    Raises:
        ValueError: a folder that the user chose holds another run.
    """
    cfg, folder = run.cfg, run.folder
    chosen = folder.resolve() != (Path(cfg.paths.runs_dir) / run.name).resolve()
    if chosen and cfg.force:
        return run
    if not cfg.force:
        check_owner(run)
    mark = data_mark(folder, cfg)
    if mark is None:
        return run
    if chosen:
        raise ValueError(f"{folder} holds this run on other data of the same name: {_ELSEWHERE}")
    with open_dict(cfg):
        OmegaConf.update(cfg, MARK, mark)
        cfg.paths.output_dir = str(folder.with_name(run_name(cfg, run.config)))
    return Run(cfg, Path(cfg.paths.output_dir))


def reused(result: dict[str, Any]) -> str:
    """A reused result in words."""
    key = result["headline"]
    score = result["metrics"]["last"].get(key) if key else None
    return "counted before" if score is None else f"{100 * score:.2f} %, trained before"


def needs_replay(run: Run) -> bool:
    """Whether a logger of a finished run's config has not seen it."""
    chosen = {str(key) for key, node in run.cfg.logger.items() if node}
    return bool(chosen - set(logged_by(run.folder)))
