"""Figures that somebody asks for: of one table, in the formats that papers take."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bnnbench.plots import FORMATS
from bnnbench.report.efficiency import bench_of
from bnnbench.report.pareto import pareto
from bnnbench.report.reading import all_results, collect, read_json
from bnnbench.report.render import check_figures, drawings_of, figure_stem, quoted_by

EFFICIENCY = "efficiency"  # the table of a bench file, whose figure is of all committed results


class Places(NamedTuple):
    """Folders: of committed results, and of the sweeps and runs of the logs."""

    results: Path
    sweeps: Path
    runs: Path

    def known(self) -> list[str]:
        """Names of all sweeps, those of the logs first."""
        logs = sorted(path.parent.name for path in self.sweeps.glob("*/sweep.json"))
        committed = sorted(path.stem for path in (self.results / "sweeps").glob("*.json"))
        return list(dict.fromkeys([*logs, *committed]))

    def manifest_of(self, table: str) -> tuple[Path, list[Path]]:
        """A sweep's manifest and the folders of its runs: of the logs, else the committed ones.

        Raises ValueError, listing those there are, for a name that no sweep has.
        """
        own, committed = self.sweeps / table / "sweep.json", self.results / "sweeps"
        if table in self.known():
            if own.is_file():
                return own, [self.runs]
            return committed / f"{table}.json", [self.results / "runs"]
        raise ValueError(f"table={table}: no sweep has this name; {_listed(self.known())}")


def draw_asked(
    names: Sequence[str], table: str | None, formats: Sequence[str], places: Places
) -> list[Path]:
    """Draw figures of one table and return their files.

    They go beside the table: to the sweep's folder, or to `figures/` of the committed results. A
    damaged result is named on stderr and left out.

    Raises:
        ValueError: there is no such figure, format or table, or it has nothing to draw.
    """
    check_figures(names, "figure")
    check_formats(formats)
    if table is None:
        raise ValueError(f"figure={','.join(names)}: of which table? {_listed(places.known())}")
    drawn = [_draw(name, table, formats, places) for name in names]
    return [file for files in drawn for file in files]


def check_formats(formats: Sequence[str]) -> None:
    """Refuse formats that figures are not written in, with a ValueError that lists those."""
    if unknown := sorted(set(formats) - set(FORMATS)):
        raise ValueError(f"format={','.join(unknown)}: choose of {', '.join(FORMATS)}")


def _draw(name: str, table: str, formats: Sequence[str], places: Places) -> list[Path]:
    bench = bench_of(places.results)
    if table == EFFICIENCY and table not in places.known():
        if name != "pareto":
            raise ValueError(f"figure={name} table={table}: that table has the figure pareto alone")
        stem = places.results / "figures" / table
        done = pareto(all_results(places.results / "runs"), bench, stem, formats)
    else:
        file, folders = places.manifest_of(table)
        manifest = read_json(file)
        found = collect(manifest, folders)
        _tell_damaged(found.damaged)
        quoted, _ = quoted_by(manifest, file, places.results / "published")
        committed = figure_stem(places.results / "figures" / table, name)
        stem = file.parent / name if file.name == "sweep.json" else committed
        done = drawings_of(quoted, bench)[name](manifest, found.results, stem, formats)
    if not done:
        raise ValueError(f"figure={name} table={table}: none of its results has {_NEEDS[name]}")
    return [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]


_NEEDS = {
    "curves": "a history",
    "scores": "a score",
    "ranks": "two seeds, with those of another row of equal bits, backbone and epochs",
    "classes": "an average precision by class: that is of detectors",
    "pareto": "a score and costs, two rows of one data set and budget",
    "kernels": "histograms of latent weights",
    "layers": "histograms of latent weights",
    "binarized": "statistics of latent weights",
    "diagnostics": "logged diagnostics: train with callbacks=diagnostics",
    "reliability": "bins of confidence: classifiers trained from now on have them",
    "sensitivity": "two settings of the recipe that were swept, with scores",
}


def _tell_damaged(damaged: Mapping[str, str]) -> None:
    for text in damaged.values():
        print(f"left out: {text}", file=sys.stderr)


def _listed(names: Sequence[Any]) -> str:
    return f"there are: {', '.join(names) or 'none'}"
