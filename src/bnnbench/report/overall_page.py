"""The overall scores as a page: methods x tracks as a table, and a panel of dots a method."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bnnbench.plots import COLUMN, GREY, SMALL, STYLE, literal, save
from bnnbench.report.efficiency import Bench
from bnnbench.report.markup import MISSING, Table
from bnnbench.report.overall import TABLES, Sweep, Track, overall
from bnnbench.report.reading import collect, read_json
from bnnbench.report.render import write_table
from bnnbench.report.robustness import losses, readable
from bnnbench.report.rows import Result
from bnnbench.report.tracks import FORMULAS, SOURCE, TRACKS

NAME = "overall_scores"
SCALES = ("full", "quick", "demo")  # the first that there is, where none is typed
TITLES = {
    "task": "learning task",
    "architecture": "neural architecture",
    "robustness": "corruption robustness",
    "training": "training consumption",
    "complexity": "theoretical complexity",
    "inference": "hardware inference",
}
_PANEL, _COLUMNS = 0.95, 2  # height of a method's panel, inches, and panels a line
_OWN = "#0072b2"
_SHOWN = 8  # parts of a track that are named in full


class Where(NamedTuple):
    """Where sweeps and their results lie, and where the page goes: its table and its figure.

    robustness: files of evaluations on corrupted images.
    """

    manifests: Sequence[Path]
    runs: Path
    table: str
    figure: str
    robustness: Sequence[Path] = ()

    def stems(self, scale: str) -> tuple[Path, Path]:
        """The files of a scale, without their endings."""
        return Path(self.table.format(scale)), Path(self.figure.format(scale))


def page(
    where: Where, bench: Bench | None, scale: str | None, formats: Sequence[str]
) -> tuple[Path, Table] | None:
    """Write the scores of the sweeps of one scale; the stem of their table, and the table.

    None is returned where there are no results of any track, at the scale if one is given.
    """
    scored = scores_of(where, bench, scale)
    if scored is None:
        return None
    name, found = scored
    table, figure = where.stems(name)
    made = table_of(found, name)
    write_table(table, made)
    draw(found, figure, formats)
    return table, made


def scores_of(
    where: Where, bench: Bench | None, scale: str | None = None
) -> tuple[str, dict[str, Track]] | None:
    """The scale, the largest with results where none is given, and its tracks."""
    manifests, corrupted = read_manifests(where.manifests), readable(where.robustness)
    sweeps = sweeps_of(manifests, where.runs)
    scales = [scale] if scale else [*SCALES, *{str(sweep.manifest["scale"]) for sweep in sweeps}]
    for name in scales:
        own = [sweep for sweep in sweeps if sweep.manifest["scale"] == name]
        at_scale = (each for each in manifests if each["scale"] == name)
        runs = {cell["run"] for manifest in at_scale for cell in manifest["cells"]}
        found = overall(own, bench, *losses(corrupted, runs))
        if set(found) - {"inference"}:
            return name, found
    return None


def committed(results: Path) -> Where:
    """Where the committed sweeps lie and their scores go."""
    manifests = sorted((results / "sweeps").glob("*.json"))
    made = (f"{results / folder}/{NAME}_{{}}" for folder in ("tables", "figures"))
    tested = sorted((results / "robustness").glob("*.json"))
    return Where(manifests, results / "runs", *made, robustness=tested)


def nothing(scale: str | None) -> ValueError:
    """What is told where there is nothing to score."""
    at = f" at scale={scale}" if scale else ""
    if scale and scale not in SCALES:
        return ValueError(f"scores: no results of any track{at}; scales are {', '.join(SCALES)}")
    return ValueError(
        f"scores: no finished results of any track{at}: train one with its twins first, such as "
        f"python src/train.py table=tasks scale={scale or 'quick'}; tracks are measured by the "
        f"tables {', '.join(TABLES.values())}"
    )


def read_manifests(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The manifests of sweeps; a damaged file is named and left out."""
    found = []
    for path in paths:
        try:
            found.append(read_json(path))
        except ValueError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def sweeps_of(manifests: Iterable[dict[str, Any]], runs: Path) -> list[Sweep]:
    """The sweeps of tables that tracks are measured with.

    Runs that ended early, saw a part of the data or were tested on held-out images are left out.
    """
    found = []
    for manifest in manifests:
        if (manifest["table"] or {}).get("name") in TABLES.values():
            results = collect(manifest, [runs]).results.items()
            whole = {run: result for run, result in results if _is_whole(result)}
            found.append(Sweep(manifest["name"], manifest, whole))
    return found


def _is_whole(result: Result) -> bool:
    return not result.get("ended") and str(result.get("headline")).startswith("test/")


def table_of(found: Mapping[str, Track], scale: str) -> Table:
    """A row a method, a column a track, whether it was measured or not."""
    methods = methods_of(found)
    rows = [[method, *(_cell(found, name, method) for name in TRACKS)] for method in methods]
    notes = [
        "1 is as good as the full-precision twin, more is better in every track; a score over "
        "other parts would be another number, so who lacks a part that another method has has none",
        f"scores in the manner of BiBench ({SOURCE}); not one of its numbers: data, networks and "
        "budgets are others",
        *(note for name in TRACKS for note in _notes(found, name)),
    ]
    title = f"Overall scores of methods in six tracks (scale={scale})"
    return Table(title, ["method", *(TITLES[name] for name in TRACKS)], rows, notes)


def methods_of(found: Mapping[str, Track]) -> list[str]:
    """Everybody who has a score, in the order of the tracks."""
    return list(dict.fromkeys(method for track in found.values() for method in track.scores))


def draw(found: Mapping[str, Track], stem: Path, formats: Sequence[str]) -> None:
    """A panel a method: its score in every track on one logarithmic axis, the others in grey."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    methods = methods_of(found)
    lines = math.ceil(len(methods) / _COLUMNS)
    with rc_context(STYLE):
        figure = Figure((COLUMN, _PANEL * lines + 0.35), layout="constrained")
        axes = figure.subplots(lines, _COLUMNS, sharex=True, sharey=True, squeeze=False)
        panels = list(axes.flat)
        for panel, method in zip(panels, methods, strict=False):
            _draw(panel, method, found)
        _scale(panels[0], [s for track in found.values() for s in track.scores.values()])
        for number, panel in enumerate(panels):
            panel.set_visible(number < len(methods))
            if len(methods) - _COLUMNS <= number < len(methods):  # the last of its column
                panel.tick_params(labelbottom=True)
        figure.supxlabel("score (1: full precision, grey: other methods)", fontsize=7)
        save(figure, stem, formats)


def _draw(panel: Any, method: str, found: Mapping[str, Track]) -> None:
    panel.axvline(1, color=GREY, linewidth=0.7, zorder=1)
    for place, name in enumerate(TRACKS):
        scores = found[name].scores if name in found else {}
        others = [value for other, value in scores.items() if other != method]
        panel.plot(others, [place] * len(others), "|", color="#b0b0b0", ms=4, mew=0.8)
        if method in scores:
            panel.plot(scores[method], place, "o", color=_OWN, zorder=3)
        text = _cell(found, name, method)
        right = {"xycoords": ("axes fraction", "data"), "ha": "left", "va": "center"}
        panel.annotate(text, (1.03, place), fontsize=SMALL, color=_OWN, **right)
    panel.set_yticks(range(len(TRACKS)), [TITLES[name] for name in TRACKS], fontsize=SMALL)
    panel.set_ylim(len(TRACKS) - 0.5, -0.8)
    panel.tick_params(axis="y", length=0)
    panel.set_title(literal(method), loc="left", fontweight="bold", pad=2)


def _scale(panel: Any, scores: Sequence[float]) -> None:
    """Logarithmic, with plain numbers: from accuracies below 1 to tens of times fewer bytes."""
    from matplotlib.ticker import LogLocator, NullLocator

    panel.set_xscale("log")
    panel.set_xlim(min([0.8, *scores]) / 1.3, 1.5 * max([1.25, *scores]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    panel.xaxis.set_major_formatter("{x:g}")


def _cell(found: Mapping[str, Track], name: str, method: str) -> str:
    value = found[name].scores.get(method) if name in found else None
    return MISSING if value is None else f"{value:#.3g}"


def _notes(found: Mapping[str, Track], name: str) -> list[str]:
    """A track's formula, what it was measured on and from what, and who lacks which part."""
    formula = FORMULAS[name]
    read = "" if formula.verified else "; recalled, not read in the source (verified: false)"
    head = f"{TITLES[name]}: {formula.text}{read}"
    if name not in found:
        return [f"{head}; not measured"]
    track = found[name]
    notes = [f"{head}; over {_listed(track.parts)}; from {', '.join(track.sources)}"]
    for method, parts in track.lacking.items():
        notes.append(f"{TITLES[name]} {MISSING}: {method} lacks {_listed(parts)}")
    told = {*track.scores, *track.lacking}
    if absent := [method for method in methods_of(found) if method not in told]:
        notes.append(f"{TITLES[name]} {MISSING}: {', '.join(absent)} not measured")
    return [*notes, *(f"{TITLES[name]}: {line}" for line in track.details)]


def _listed(parts: Sequence[str]) -> str:
    shown = ", ".join(parts[:_SHOWN])
    return shown if len(parts) <= _SHOWN else f"{shown} and {len(parts) - _SHOWN} more"
