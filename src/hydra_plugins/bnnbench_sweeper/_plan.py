"""What a sweep will do: its cells, composed and named before anything runs."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from bnnbench import resolvers
from bnnbench.checks.errors import message
from bnnbench.checks.keys import check_added, check_added_to_hydra
from bnnbench.checks.mistakes import Mistakes, Several
from bnnbench.checks.values import check_config
from bnnbench.records.fingerprint import digest, fingerprinted, flattened, run_name
from bnnbench.records.store import Cell, State, cell_state
from bnnbench.runs.counted import counted
from bnnbench.runs.reuse import MARK, check_start, dataset_of, settled_marks
from bnnbench.sweep.expand import distinct, expand_plain, expand_table, scale_notes
from bnnbench.sweep.manifest import manifest, sweep_name, table_name, telling

from ._compose import Composer, composed

# Where one run lies, which a sweep works out for each.
OF_EACH_RUN = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "paths.output_dir")
OF_EACH_RUN += ("paths.stage", "paths.stage_dir", "paths.data_mark")


@dataclass(eq=False)
class Planned:
    """A cell with its composed config and the overrides that a launcher composes it from."""

    cell: Cell
    cfg: DictConfig
    overrides: list[str]

    @property
    def label(self) -> str:
        return f"{self.cfg.backbone.name} {self.cfg.quantizer.name} s{self.cfg.seed}"

    @property
    def kind(self) -> str:
        """The same of runs that differ in nothing but the seed, and in no file that it names."""
        typed = [word for word in self.overrides if not word.startswith("seed=")]
        files = [v for k, v in self.cell.settings.items() if k.startswith(("teacher", "init_from"))]
        return f"{typed} {files}"


@dataclass
class Sweep:
    """A composed sweep: nothing has been written yet.

    `planned` holds every cell that the user told apart, also where two are one run.
    """

    config: DictConfig
    planned: list[Planned]
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return self.manifest["name"]

    @property
    def folder(self) -> Path:
        return Path(self.config.paths.sweeps_dir) / self.name

    @cached_property
    def runs_dir(self) -> Path:
        return Path(self.config.paths.runs_dir)

    @cached_property
    def runs(self) -> list[Planned]:
        """The runs that fill the cells, each once."""
        return list({planned.cell.run: planned for planned in reversed(self.planned)}.values())[
            ::-1
        ]

    def state(self, planned: Planned) -> State:
        return cell_state(self.runs_dir, planned.cell)

    def pending(self) -> list[Planned]:
        """What has to run: everything that is not finished, or all of it with force=true."""
        done = ("finished", "damaged")  # a damaged result is shown, never written over
        return [p for p in self.runs if p.cfg.get("force") or self.state(p) not in done]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Mistakes of the user's are shown as their message; HYDRA_FULL_ERROR=1 shows the rest."""
    try:
        yield
    except (OSError, ValueError, OmegaConfBaseException) as error:
        if isinstance(error, CompactHydraException):
            raise
        # Hydra would print the whole of a cause that is no mistyped key
        cause = None if isinstance(error, InterpolationResolutionError) else error
        raise CompactHydraException(message(error)) from cause


def plan(config: DictConfig, arguments: list[str], loader: ConfigLoader) -> Sweep:
    """Expand and compose every cell, so that a mistyped key or option fails before the first job.

    config: the composed command line itself; arguments: its overrides, without Hydra's own.
    """
    table, scale = (_container(config, group) for group in ("table", "scale"))
    with clear_errors():
        _check_folders(config, arguments)
        check_added_to_hydra(config.hydra, config.hydra.overrides.hydra)
        split = splitter(loader)
        if table["name"] == "none":
            overrides = expand_plain(arguments, split)
            planned = compose_cells(config, loader, overrides)
            cells = [p.cell for p in planned]
            return Sweep(config, planned, manifest(sweep_name(telling(overrides)), cells))
        defaults = _defaults(config, loader)
        overrides, usual = (
            expand_table(table, scale, words, split, defaults) for words in (arguments, [])
        )
        with _choices_told(table["name"], arguments, usual):
            planned = compose_cells(config, loader, overrides)
        cells = [p.cell for p in planned]
        name = table_name(table["name"], scale["name"], telling(overrides), telling(usual))
        notes = scale_notes(table, scale)
        return Sweep(config, planned, manifest(name, cells, table, scale["name"], notes))


def _defaults(config: DictConfig, loader: ConfigLoader) -> dict[str, str]:
    """The option of each group that a command line without a word chooses."""
    name = config.hydra.job.config_name
    choices = loader.load_configuration(name, [], RunMode.RUN).hydra.runtime.choices
    return {str(group): str(option) for group, option in choices.items()}


@contextmanager
def _choices_told(
    table: str, arguments: Sequence[str], usual: Sequence[dict[str, str]]
) -> Iterator[None]:
    """Where a typed choice lacks an option that the table types, tell the table's choices."""
    try:
        yield
    except (CompactHydraException, Several) as told:
        error = told.__cause__ or told
        found = re.match(r"Could not override '(([^.']+)\.[^']+)'", str(error))
        key, group = found.groups() if found else ("", "")
        typed = [word for word in arguments if word.startswith(f"{group}=")]
        if not typed or any(word.startswith(f"{key}=") for word in arguments):
            raise
        choices = sorted({cell[group] for cell in usual if group in cell})
        raise ValueError(
            f"{typed[-1]} has no {key}, which table={table} types; that table's choices of "
            f"{group}: {', '.join(choices)}"
        ) from error


def _check_folders(config: DictConfig, arguments: list[str]) -> None:
    """Refuse one folder for all runs, which a sweep cannot honour."""
    typed = [*arguments, *config.hydra.overrides.hydra]
    for word in typed:
        key = word.lstrip("+~").partition("=")[0]
        if key in OF_EACH_RUN or key in ("hydra.sweep", "hydra.run", "hydra", "paths"):
            raise ValueError(
                f"{word}: a sweep gives each run a folder of its own; choose where they lie with "
                "paths.runs_dir=<folder>, or paths.log_dir=<folder> for tables as well"
            )


def _check_places(cfgs: Sequence[DictConfig]) -> None:
    """Refuse runs of one sweep that lie in several places: its table looks in one."""
    for key in ("runs_dir", "sweeps_dir"):
        if len(found := {str(cfg.paths[key]) for cfg in cfgs}) > 1:
            raise ValueError(f"paths.{key} is one place a sweep, not {', '.join(sorted(found))}")


def compose_cells(
    config: DictConfig, loader: ConfigLoader, cells: Sequence[dict[str, str]]
) -> list[Planned]:
    """Every cell, in the folder of its run; cells that were told apart stay apart."""
    cells = distinct(cells)
    words = [[f"{key}={value}" for key, value in overrides.items()] for overrides in cells]
    cfgs = composed(Composer(config, loader), words)
    _check_cells(cfgs, words)
    _check_places(cfgs)
    identities = [fingerprinted(cfg) for cfg in counted(cfgs, "resolving", "cells")]
    names = [run_name(cfg, identity) for cfg, identity in zip(cfgs, identities, strict=True)]
    for number, mark in enumerate(settled_marks(cfgs, names)):
        if mark is not None:
            words[number].append(f"++{MARK}={mark}")
            OmegaConf.update(cfgs[number], MARK, mark, force_add=True)
            names[number] = run_name(cfgs[number], identities[number])
    rows = zip(telling(cells), cfgs, names, identities, words, strict=True)
    return [Planned(_cell(told, cfg, name, it), cfg, typed) for told, cfg, name, it, typed in rows]


def _check_cells(cfgs: Sequence[DictConfig], words: Sequence[list[str]]) -> None:
    """Refuse values of a wrong kind and added keys that nothing reads, of all cells at once."""
    mistakes = Mistakes(cfgs)
    for number, (cfg, typed) in enumerate(zip(cfgs, words, strict=True)):
        with mistakes.of(number):
            check_config(cfg)
            dataset_of(cfg)  # which may follow from a folder
            if not cfg.train:
                raise ValueError(
                    "train=false evaluates one checkpoint, without a table: leave out -m"
                )
            check_start(cfg)
            check_added(cfg, typed)
    mistakes.tell()


def _cell(shown: dict[str, str], cfg: DictConfig, name: str, identity: dict[str, Any]) -> Cell:
    return Cell(
        overrides=shown | {"seed": str(cfg.seed)},
        run=name,
        fingerprint=digest(identity),
        settings=flattened(identity),
        headline=resolvers.headline(cfg),
    )


def splitter(loader: ConfigLoader) -> Callable[[Sequence[str]], list[dict[str, str]]]:
    parser = OverridesParser.create(config_loader=loader)

    def split(words: Sequence[str]) -> list[dict[str, str]]:
        overrides = parser.parse_overrides(list(words))
        for override in overrides:
            if override.is_interval_sweep():
                raise ValueError(
                    f"{override.input_line}: list the values, {override.key_or_group}=<a>,<b>; "
                    "intervals are searched by hparams_search=recipe, which docs/searches.md tells"
                )
            if override.is_sweep_override() and not [*override.sweep_iterator()]:
                raise ValueError(
                    f"{override.input_line}: it stands for no value at all, so that "
                    "there is nothing to run"
                )
            if override.is_sweep_override() and override.key_or_group in ("table", "scale"):
                raise ValueError(f"{override.input_line}: one table at one scale a call")
        (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
        return [dict(word.split("=", 1) for word in job) for job in jobs]

    return split


def _container(config: DictConfig, key: str) -> dict[str, Any]:
    node = OmegaConf.to_container(config[key], resolve=True)
    assert isinstance(node, dict)
    return {str(k): v for k, v in node.items()}
