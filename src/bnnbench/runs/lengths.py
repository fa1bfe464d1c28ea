"""How many training steps runs have, and of which kinds; nothing is built and no data are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from bnnbench.data.resizing import side_at
from bnnbench.data.sharding import count_batches
from bnnbench.records.fingerprint import choice, world_size
from bnnbench.records.position import read_position
from bnnbench.runs.ending import planned_epochs
from bnnbench.runs.stages import stages
from bnnbench.runs.twin import is_finished, starts_from_twin, twin_of


@dataclass(frozen=True)
class Cell:
    """A run that is to be trained.

    Attributes:
        cfg: its composed config.
        images: that it trains on; None where nobody knows.
        folder: where it goes on, if it has begun.
    """

    cfg: DictConfig
    images: int | None
    folder: Path


@dataclass(frozen=True)
class Kind:
    """What the time of a step is taken to follow from.

    Attributes:
        network: by its name.
        side: of the images that it is trained on, in pixels.
        batch: images a step.
        device: accelerator and precision as they are typed.
        method: quantizer, loss and teacher.
    """

    network: str
    side: int
    batch: int
    device: str
    method: tuple[str, str, str]

    @property
    def label(self) -> str:
        """The network as a reader knows it."""
        return f"{self.network} at {self.side} px"

    @property
    def alike(self) -> tuple[str, int, int, str]:
        """The same of all methods on one network."""
        return self.network, self.side, self.batch, self.device


@dataclass(frozen=True)
class Part:
    """So many steps of one kind, by the config of a run or of a stage, with its earlier stages'."""

    kind: Kind
    steps: int
    cfg: DictConfig = field(compare=False)
    earlier: dict[str, DictConfig] = field(compare=False)


def with_twins(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, and the twins that they start from, each once, unless those are trained."""
    known = {cell.folder.name for cell in cells}
    found = list(cells)
    for cell in cells:
        if not starts_from_twin(cell.cfg):
            continue
        twin = twin_of(cell.cfg)
        if twin.name not in known and not is_finished(twin):
            found.append(Cell(twin.cfg, cell.images, twin.folder))
        known.add(twin.name)
    return found


def parts(cell: Cell) -> list[Part]:
    """What a run has still to train; nothing where it only counts.

    Raises:
        ValueError: its number of steps cannot be known.
    """
    cfg, found, earlier = cell.cfg, [], {}
    staged = stages(cfg)
    position = None if cfg.get("force") or len(staged) > 1 else read_position(cell.folder)
    done = position.epoch if position else 0
    for stage in staged:
        same = stage.cfg.dataset.name == cfg.dataset.name
        counted = _steps(stage.cfg, cell.images if same else None, done)
        for side, steps in counted.items():
            found.append(Part(_kind(stage.cfg, side), steps, stage.cfg, dict(earlier)))
        earlier[str(stage.name)] = stage.cfg
    return found


def _kind(cfg: DictConfig, side: int) -> Kind:
    device = f"{cfg.trainer.accelerator} {cfg.trainer.precision}"
    method = str(cfg.quantizer.name), str(cfg.loss.name), str(cfg.teacher.name)
    return Kind(choice(cfg, "backbone"), side, cfg.dataset.batch_size, device, method)


def _steps(cfg: DictConfig, images: int | None, done: int) -> Counter[int]:
    """Training batches by the side of their images, after so many epochs."""
    dataset, epochs, most = cfg.dataset, planned_epochs(cfg), _most_steps(cfg)
    if epochs is None:
        if most is None:
            raise ValueError("a run without an end in epochs or steps")
        return Counter({dataset.image_size: most})
    if epochs <= done:
        return Counter()
    if images is None:
        raise ValueError(f"dataset={dataset.name}: it is unknown how many images it has")
    batches = _batches(cfg, images)
    if most is not None:
        return Counter({dataset.image_size: min(most, batches * (epochs - done))})
    found: Counter[int] = Counter()
    for epoch in range(done, epochs):
        found[side_at(dataset.get("resize") or (), dataset.image_size, epoch, epochs)] += batches
    return found


def _batches(cfg: DictConfig, images: int) -> int:
    """Training batches of an epoch, of one process."""
    whole = count_batches(images, cfg.dataset.batch_size, world_size(cfg), train=True)
    limit = cfg.trainer.get("overfit_batches") or cfg.trainer.get("limit_train_batches", 1.0)
    return min(limit, whole) if isinstance(limit, int) else int(limit * whole)


def _most_steps(cfg: DictConfig) -> int | None:
    """Batches after which a run ends by its steps, if it does."""
    steps = cfg.trainer.get("max_steps", cfg.recipe.get("steps"))
    limited = steps is not None and steps >= 0
    return steps * cfg.trainer.get("accumulate_grad_batches", 1) if limited else None
