"""What a sweep will do: its cells, composed and named before anything runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from bnnbench.records.fingerprint import fingerprint, run_name
from bnnbench.records.store import Cell, State, cell_state
from bnnbench.sweep.expand import expand_plain, expand_table, scale_notes
from bnnbench.sweep.manifest import manifest, sweep_name, telling


@dataclass
class Planned:
    """A cell with its composed config and the overrides that a launcher composes it from."""

    cell: Cell
    cfg: DictConfig
    overrides: list[str]

    @property
    def label(self) -> str:
        return f"{self.cfg.backbone.name} {self.cfg.quantizer.name} s{self.cfg.seed}"


@dataclass
class Sweep:
    """A composed sweep: nothing has been written yet."""

    config: DictConfig
    planned: list[Planned]
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return self.manifest["name"]

    @property
    def folder(self) -> Path:
        return Path(self.config.paths.sweeps_dir) / self.name

    @property
    def runs_dir(self) -> Path:
        return Path(self.config.paths.runs_dir)

    def state(self, planned: Planned) -> State:
        with clear_errors():
            return cell_state(self.runs_dir, planned.cell)

    def pending(self) -> list[Planned]:
        """What has to run: everything that is not finished, or all of it with force=true."""
        return [p for p in self.planned if p.cfg.get("force") or self.state(p) != "finished"]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Mistakes of the user's are shown as their message; HYDRA_FULL_ERROR=1 shows the rest."""
    try:
        yield
    except (OSError, ValueError, OmegaConfBaseException) as error:
        if isinstance(error, CompactHydraException):
            raise
        raise CompactHydraException(str(error)) from error


def plan(config: DictConfig, arguments: list[str], loader: ConfigLoader) -> Sweep:
    """Expand and compose every cell, so that a mistyped key or option fails before the first job.

    config: the composed command line itself; arguments: its overrides, without Hydra's own.
    """
    table, scale = (_container(config, group) for group in ("table", "scale"))
    with clear_errors():
        split = _splitter(loader)
        if table["name"] == "none":
            planned = _compose(config, loader, expand_plain(arguments, split))
            cells = [p.cell for p in planned]
            return Sweep(config, planned, manifest(sweep_name(cells), cells))
        overrides = expand_table(table, scale, arguments, split)
        planned = _compose(config, loader, overrides)
        cells = [p.cell for p in planned]
        name = sweep_name(cells, table["name"], scale["name"])
        notes = scale_notes(table, scale)
        return Sweep(config, planned, manifest(name, cells, table, scale["name"], notes))


def _compose(
    config: DictConfig, loader: ConfigLoader, cells: Sequence[dict[str, str]]
) -> list[Planned]:
    """Every cell once: two spellings of one run are one cell, the first."""
    planned: dict[str, Planned] = {}
    for overrides in cells:
        typed = [f"{key}={value}" for key, value in overrides.items()]
        cfg = loader.load_sweep_config(config, typed)
        if not cfg.train:
            raise ValueError("train=false evaluates one checkpoint, without a table: leave out -m")
        with open_dict(cfg):
            del cfg["hydra"]  # its interpolations exist only inside a job
        shown = telling(overrides) | {"seed": str(cfg.seed)}
        cell = Cell(shown, run_name(cfg), fingerprint(cfg))
        planned.setdefault(cell.fingerprint, Planned(cell, cfg, typed))
    return list(planned.values())


def _splitter(loader: ConfigLoader) -> Callable[[Sequence[str]], list[dict[str, str]]]:
    parser = OverridesParser.create(config_loader=loader)

    def split(words: Sequence[str]) -> list[dict[str, str]]:
        overrides = parser.parse_overrides(list(words))
        for override in overrides:
            if override.is_sweep_override() and override.key_or_group in ("table", "scale"):
                raise ValueError(f"{override.input_line}: one table at one scale a call")
        (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
        return [dict(word.split("=", 1) for word in job) for job in jobs]

    return split


def _container(config: DictConfig, key: str) -> dict[str, Any]:
    node = OmegaConf.to_container(config[key], resolve=True)
    assert isinstance(node, dict)
    return {str(k): v for k, v in node.items()}
