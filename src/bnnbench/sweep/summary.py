"""A sweep in its loggers: one summary run a sweep, which holds its table, its runs and figures.

wandb has a report of it besides.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from bnnbench.report.efficiency import bench_of
from bnnbench.report.reading import collect, read_json
from bnnbench.report.render import drawings_of, quoted_by
from bnnbench.report.rows import CHOICES
from bnnbench.runs.loggers import as_tags, build_loggers
from bnnbench.runs.mlflow import MlflowLog
from bnnbench.runs.run_log import About, RunLog, survives
from bnnbench.runs.tensorboard import TensorBoardLog
from bnnbench.runs.wandb import WandbLog, link_of
from bnnbench.sweep.expand import bare
from bnnbench.sweep.wandb_upload import (
    MISSING,
    command_of,
    has_package,
    make_report,
    place_of_link,
    remember_summary,
)

if TYPE_CHECKING:
    from bnnbench.report.tables import Table

GROUPS = ("quantizer", "loss", "backbone", "dataset", "recipe", "table", "scale")
LINK = "wandb"  # the column of runs' addresses
TEXTS = ("run", "fingerprint", "commit", "data_stamp")  # whatever digits they are of
_MISSING, _MARKS = ("", "-"), "†^*§"
_NUMBER = re.compile(r"(-?\d+(?:\.\d*)?(?:e-?\d+)?)(?: ± (\d+(?:\.\d*)?))?[†^*§]*")
Columns = dict[str, list[Any]]


def log_summary(cfg: DictConfig, sweep_name: str, table: Table) -> None:
    """Give the sweep's table, runs and figures to its loggers, as a run named after the sweep.

    The same sweep goes on with the same run. In wandb the table is ``comparison``, the runs are
    ``runs``, with their addresses where they are known, and each PNG of the sweep's folder stands
    under its own name, as do the figures that the results have data for; MLflow has the files as
    artifacts, TensorBoard the table as text and the figures. A logger that breaks leaves the sweep
    without it, with a warning.
    """
    folder = Path(cfg.paths.sweeps_dir) / sweep_name
    folder.mkdir(parents=True, exist_ok=True)
    own = cfg.copy()
    OmegaConf.set_readonly(own, False)
    OmegaConf.set_struct(own, False)
    own.paths.output_dir = str(folder)
    own.logger.pop("csv", None)  # table.csv and runs.csv stand there
    if "wandb" in own.logger:
        own.logger.wandb.group = sweep_name
    about = About(f"table {sweep_name}", "summary", as_tags(cfg.tags))
    for logger in build_loggers(own, about).values():
        if isinstance(logger, RunLog):
            logger.begin(1)  # goes on where it was
            logger.attempt(lambda logger=logger: _log(logger, cfg, folder, table))
            logger.close("failed" if logger.broken else "success")
            if isinstance(logger, WandbLog) and not logger.broken:
                survives(lambda: _report(cfg, folder), "its W&B report")


def _log(logger: RunLog, cfg: DictConfig, folder: Path, table: Table) -> None:
    logger.log_hyperparams(shared_config(cfg, folder / "sweep.json"))
    figures = sorted(folder.glob("*.png"))
    if isinstance(logger, WandbLog):
        _to_wandb(logger, cfg, folder, table)
    elif isinstance(logger, MlflowLog):
        for file in (*sorted(folder.glob("table.*")), *sorted(folder.glob("*runs.csv")), *figures):
            logger.experiment.log_artifact(logger.run_id, str(file))
    elif isinstance(logger, TensorBoardLog):
        logger.log_pictures({file.stem: file for file in figures}, 0)
        logger.experiment.add_text("comparison", table.markdown(), 0)


def shared_config(cfg: DictConfig, manifest: Path) -> dict[str, Any]:
    """What all cells of a sweep have; a key that is swept has the words that were typed for it.

    A group of which a key is swept stands as composed, apart from that key.
    """
    config: Any = {key: OmegaConf.to_container(cfg[key], resolve=False) for key in GROUPS}
    config["seed"] = cfg.seed
    told = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
    typed = [{bare(k): v for k, v in cell["overrides"].items()} for cell in told.get("cells", ())]
    for key in told.get("swept", ()):
        values = list(dict.fromkeys(words[key] for words in typed if key in words))
        *groups, last = key.split(".")
        node = config
        for group in groups:
            node = node.get(group) if isinstance(node, dict) else None
        if values and isinstance(node, dict):
            node[last] = values
        elif values:  # its group is swept as well
            config[key] = values
    return config


def _to_wandb(logger: WandbLog, cfg: DictConfig, folder: Path, table: Table) -> None:
    import wandb

    def as_table(columns: Columns) -> Any:
        lines = [list(line) for line in zip(*columns.values(), strict=True)]
        return wandb.Table(columns=list(columns), data=lines)

    runs_dir = Path(cfg.paths.runs_dir)
    comparison = typed({n: [row[i] for row in table.rows] for i, n in enumerate(table.header)})
    runs = runs_of(folder, runs_dir)
    tables = {"comparison": comparison | links_of(runs, table)} | ({"runs": runs} if runs else {})
    with TemporaryDirectory() as drawn:
        figures = sorted([*folder.glob("*.png"), *_more_figures(cfg, folder, Path(drawn))])
        images = {file.stem: wandb.Image(str(file)) for file in figures}
        logger.experiment.log({name: as_table(each) for name, each in tables.items()} | images)
    remember_summary(folder, cfg.logger.wandb.project, list(tables), list(images))


def _more_figures(cfg: DictConfig, folder: Path, place: Path) -> list[Path]:
    """Draw what a sweep's results have data for and its folder has no picture of."""
    file = folder / "sweep.json"
    if not file.exists():
        return []
    manifest, results = read_json(file), Path(cfg.paths.results_dir)
    found = collect(manifest, [Path(cfg.paths.runs_dir)])
    quoted, _ = quoted_by(manifest, file, results / "published")
    for name, draw in drawings_of(quoted, bench_of(results)).items():
        if not (folder / f"{name}.png").exists():
            draw(manifest, found.results, place / name, ("png",))
    return sorted(place.glob("*.png"))


def _report(cfg: DictConfig, folder: Path) -> None:
    """Make the sweep's report: wandb gets it where the runs went there, else a line tells how."""
    if not (folder / "sweep.json").exists() or os.environ.get("WANDB_MODE") == "disabled":
        return
    if not has_package():
        print(f"no W&B report: it {MISSING}", flush=True)
        return
    where = folder, Path(cfg.paths.runs_dir), Path(cfg.paths.results_dir)
    online = os.environ.get("WANDB_MODE") == "online"
    place = place_of_link(link_of(folder)) if online else None
    print(make_report(*where, place), flush=True)
    if place is None:
        typed = OmegaConf.select(cfg, "hydra.overrides.task") or []
        files = [f"{each}/wandb/offline-run-*" for each in (f"{cfg.paths.runs_dir}/*", folder)]
        print(f"upload the runs, then the report:\n  wandb sync {' '.join(files)}")
        print(f"  {command_of(folder.name, cfg.logger.wandb.project, typed)}", flush=True)


def runs_of(folder: Path, runs_dir: Path) -> Columns:
    """The runs of a sweep as its ``runs.csv`` has them, with their addresses where any is known."""
    file = folder / "runs.csv"
    if not file.exists():
        return {}
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    columns = typed({name: [row[name] for row in rows] for name in (rows[0] if rows else ())})
    links = [link_of(runs_dir / row["run"]) for row in rows]
    return columns | ({LINK: links} if any(links) else {})


def links_of(runs: Columns, table: Table) -> Columns:
    """A column for the comparison: the address of a run of each row; {} where none is known.

    Rows and runs have the names and values of a setting in common.
    """
    if LINK not in runs:
        return {}
    shared = [n for n in table.header if n in runs and (n in CHOICES or "." in n)]
    if not shared:
        return {}
    places = [table.header.index(name) for name in shared]
    lines = [[str(v) for v in line] for line in zip(*(runs[n] for n in shared), strict=True)]
    addresses = dict(zip(map(tuple, reversed(lines)), reversed(runs[LINK]), strict=True))
    return {LINK: [addresses.get(tuple(row[i] for i in places)) for row in table.rows]}


def typed(columns: Mapping[str, list[str]]) -> Columns:
    """Columns of texts as numbers or truth values where all that is in one is such, else as texts.

    What is missing is None. The spread of ``97.50 ± 0.21`` is a column of its own, marks go.
    """
    found: Columns = {}
    for marked, texts in columns.items():
        name = marked.rstrip(_MARKS)
        given = [text for text in texts if text not in _MISSING]
        parts = {text: _NUMBER.fullmatch(text) for text in given}
        if given and all(text in ("true", "false") for text in given):
            found[name] = [None if text in _MISSING else text == "true" for text in texts]
        elif given and all(parts.values()) and name not in TEXTS:
            found[name] = [_part(parts.get(text), 1) for text in texts]
            spread = [_part(parts.get(text), 2) for text in texts]
            if any(value is not None for value in spread):
                found[f"{name} ±"] = spread
        else:
            found[name] = [None if text in _MISSING else text for text in texts]
    return found


def _part(match: re.Match[str] | None, number: int) -> float | int | None:
    text = match[number] if match else None
    if text is None:
        return None
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
