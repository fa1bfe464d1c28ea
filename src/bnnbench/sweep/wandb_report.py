"""A sweep as a W&B Report: what is asked, the table, panels over what its runs have logged.

A panel stands over metrics that the runs have logged and no others. The report is one of
wandb-workspaces; nothing is asked of a server until it is saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnnbench.report.markup import Table, one_line
from bnnbench.report.rows import METRIC_NAMES, Result, group_cells, lookup
from bnnbench.runs.run_log import outcome_of, rows_of
from bnnbench.runs.wandb import run_id

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import Layout, PanelGrid, Report, Runset

LONGEST_TITLE = 128  # letters that wandb takes
COSTS = {"operations/ops": "operations", "operations/packed_bytes": "packed bytes"}
WEIGHTS = ("kernels", "layers", "binarized")  # figures of latent weights
SCORES = ("curves", "scores", "ranks", "pareto", "classes")  # figures of what was measured
WIDE, HIGH = 24, 10  # of a panel: the page's width, and a height, in wandb's units
_NAMED = 8  # values that a question names


@dataclass(frozen=True)
class Logged:
    """Names of what is in wandb: of the runs, and of the sweep's summary run.

    Attributes:
        history: metrics with a value an epoch. summary: those with one value a run.
        histograms: of latent weights, one a layer. pictures: of detectors.
        tables, figures: of the summary run.
    """

    history: frozenset[str] = frozenset()
    summary: frozenset[str] = frozenset()
    histograms: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
        manifest: the sweep's `sweep.json`.
        table: its comparison.
        results: those that are in wandb, by run.
        absent: runs without a result, or whose result is not in wandb.
        logged: what is there.
    """

    manifest: Mapping[str, Any]
    table: Table
    results: Mapping[str, Result]
    absent: Sequence[str] = ()
    logged: Logged = field(default_factory=Logged)

    @property
    def summary_run(self) -> str:
        """The id of the summary run."""
        return run_id(f"table {self.manifest['name']}")

    @property
    def headlines(self) -> list[str]:
        """Such as ``test/acc``, each once."""
        found = (result.get("headline") for result in self.results.values())
        return list(dict.fromkeys(str(name) for name in found if name))


def logged_of(
    results: Mapping[str, Result],
    runs_dir: Path,
    tables: Iterable[str] = (),
    figures: Iterable[str] = (),
) -> Logged:
    """The names under which wandb has these results, whose runs lie in ``runs_dir``."""
    history, summary, histograms, pictures = set(), set(), {}, {}
    for run, result in results.items():
        history |= {name for row, _ in rows_of(result) for name in row}
        outcome = outcome_of(result, runs_dir / run)
        summary |= set(outcome.summary)
        histograms |= dict.fromkeys(each.name for each in outcome.histograms)
        pictures |= dict.fromkeys(f"pictures/{name}" for name in outcome.pictures)
    names = frozenset(history), frozenset(summary), tuple(histograms), tuple(pictures)
    return Logged(*names, tuple(tables), tuple(figures))


def question(subject: Subject) -> str:
    """What the sweep asks, in a sentence: what was measured, what differs, what does not."""
    rows = group_cells(dict(subject.manifest), dict(subject.results), {})
    asked = [METRIC_NAMES.get(h.split("/")[1], h.split("/")[1]) for h in subject.headlines]
    splits = [h.split("/")[0] for h in subject.headlines]
    swept = []
    for key in subject.manifest["swept"]:
        values = list(dict.fromkeys(text for row in rows if (text := row.text(key))))
        more = f" and {len(values) - _NAMED} more" if len(values) > _NAMED else ""
        swept.append(f"{key} ({', '.join(values[:_NAMED])}{more})")
    groups = ("dataset", "backbone", "quantizer", "loss", "recipe")
    alike = {group: {row.choice(group) for row in rows} for group in groups}
    fixed = [f"{group} {names.copy().pop()}" for group, names in alike.items() if len(names) == 1]
    what = f"{' or '.join(dict.fromkeys(splits))} {' or '.join(dict.fromkeys(asked))}".strip()
    depends = f"depend on {', '.join(swept)}" if swept else "come out"
    return (
        f"How does the {what or 'score'} {depends}, with {', '.join(fixed) or 'no choice shared'}?"
    )


def build(subject: Subject, project: str, entity: str = "") -> Report:
    """The report, for a project of an entity that may be left open until it is saved."""
    import wandb_workspaces.reports.v2.interface as wr

    title = one_line(subject.table.title)[:LONGEST_TITLE] or "A sweep"
    blocks: list[Any] = [wr.P(question(subject)), wr.TableOfContents()]
    for heading, parts in _sections(subject):
        known = [part for part in parts if part is not None]
        if known:
            blocks += [wr.H2(heading), *known]
    return wr.Report(project=project, entity=entity, title=title, blocks=blocks, width="fluid")


def _sections(subject: Subject) -> Iterator[tuple[str, list[Any]]]:
    """Headings and what stands below them; what is None is left out."""
    import wandb_workspaces.reports.v2.interface as wr

    table = subject.table
    plain = Table(table.title, table.header, table.rows).markdown().partition("\n\n")[2]
    yield "Comparison", [_tables(subject), wr.MarkdownBlock(plain)]
    yield "Accuracy and loss", [_curves(subject), _images(subject, SCORES)]
    yield "Accuracy and cost", [_costs(subject)]
    yield "What matters of what was swept", [_importance(subject)]
    yield "Latent weights", [_histograms(subject), _images(subject, WEIGHTS)]
    yield "Detections", [_detections(subject)]
    yield "Published beside measured", [_published(subject)]
    notes = [one_line(note) for note in table.notes]
    absent = [f"not in wandb: {run}" for run in subject.absent]
    yield "What is comparable", [wr.UnorderedList([*notes, *absent]) if notes or absent else None]
    commits = ", ".join(_commits(subject)) or "none recorded"
    command = wr.CodeBlock(subject.manifest["command"], language=None)
    yield "How to repeat it", [wr.P(f"Measured at commit {commits}, by"), command]


def runs_of(subject: Subject, name: str = "runs", grouped: bool = True) -> Runset:
    """The sweep's runs, grouped by quantizer, the best first, with filters that can be edited."""
    import wandb_workspaces.reports.v2.interface as wr

    ids = ", ".join(f"'{run_id(run)}'" for run in subject.results)
    scores = [f"last/{headline}" for headline in subject.headlines]
    shown = [*scores, *COSTS, "time/train_s", "commit"]
    return wr.Runset(
        name=name,
        filters=f"ID in [{ids}] and JobType = 'train' and State = 'finished'",
        groupby=["config.quantizer.name"] if grouped else [],
        order=[wr.OrderBy(wr.SummaryMetric(score)) for score in scores[:1]],
        pinned_columns=["run:displayName", "config:quantizer.value.name"],
        visible_columns=[f"summary:{name}" for name in shown if name in subject.logged.summary],
    )


def _grid(subject: Subject, panels: Sequence[Any], grouped: bool = True) -> PanelGrid | None:
    import wandb_workspaces.reports.v2.interface as wr

    if not panels or not subject.results:
        return None
    return wr.PanelGrid(runsets=[runs_of(subject, grouped=grouped)], panels=list(panels))


def _size(wide: int = WIDE, high: int = HIGH) -> Layout:
    """A layout for one panel: the library moves it to a place of its own."""
    import wandb_workspaces.reports.v2.interface as wr

    return wr.Layout(w=wide, h=high)


def _of_summary(subject: Subject, panels: Sequence[Any]) -> PanelGrid | None:
    """A grid over the summary run alone."""
    import wandb_workspaces.reports.v2.interface as wr

    if not panels:
        return None
    filters = f"ID in ['{subject.summary_run}']"
    runs = wr.Runset(name="summary", filters=filters)
    return wr.PanelGrid(runsets=[runs], panels=list(panels), hide_run_sets=True)


def _tables(subject: Subject) -> PanelGrid | None:
    """The comparison and its runs, whose columns sort and filter."""
    import wandb_workspaces.reports.v2.interface as wr

    names = subject.logged.tables
    return _of_summary(
        subject, [wr.WeavePanelSummaryTable(table_name=n, layout=_size()) for n in names]
    )


def _images(subject: Subject, names: Sequence[str]) -> PanelGrid | None:
    import wandb_workspaces.reports.v2.interface as wr

    shown = [name for name in names if name in subject.logged.figures]
    panels = [wr.MediaBrowser(title=n, media_keys=[n], layout=_size(WIDE // 2)) for n in shown]
    return _of_summary(subject, panels)


def _curves(subject: Subject) -> PanelGrid | None:
    import wandb_workspaces.reports.v2.interface as wr

    names: dict[str, None] = {}
    for headline in subject.headlines:
        split, metric = headline.split("/", 1)
        wanted = (headline, f"train/{metric}", f"{split}/loss", "train/loss")
        names |= dict.fromkeys(name for name in wanted if name in subject.logged.history)
    size = WIDE // 2, 8
    return _grid(
        subject, [wr.LinePlot(title=n, x="epoch", y=[n], layout=_size(*size)) for n in names]
    )


def _costs(subject: Subject) -> PanelGrid | None:
    """Accuracy against each cost that is known, for the eye to find what nothing cheaper beats."""
    import wandb_workspaces.reports.v2.interface as wr

    summary, panels = subject.logged.summary, []
    for score in (f"last/{headline}" for headline in subject.headlines):
        for cost, words in COSTS.items():
            if {score, cost} <= summary:
                axes: dict[str, Any] = {"x": wr.SummaryMetric(cost), "y": wr.SummaryMetric(score)}
                axes |= {"title": f"{score} against {words}", "layout": _size(WIDE // 2, 8)}
                panels.append(wr.ScatterPlot(log_x=True, **axes))
    return _grid(subject, panels, grouped=False)


def _importance(subject: Subject) -> PanelGrid | None:
    import wandb_workspaces.reports.v2.interface as wr

    scores = [f"last/{headline}" for headline in subject.headlines]
    known = [s for s in scores if s in subject.logged.summary and subject.manifest["swept"]]
    panels = [wr.ParameterImportancePlot(with_respect_to=score, layout=_size()) for score in known]
    return _grid(subject, panels, grouped=False)


def _histograms(subject: Subject) -> PanelGrid | None:
    import wandb_workspaces.reports.v2.interface as wr

    names = subject.logged.histograms
    return _grid(subject, [wr.MediaBrowser(title=n, media_keys=[n]) for n in names], grouped=False)


def _detections(subject: Subject) -> PanelGrid | None:
    import wandb_workspaces.reports.v2.interface as wr

    names = subject.logged.pictures
    panels = [wr.MediaBrowser(title=n, media_keys=[n], layout=_size()) for n in names]
    return _grid(subject, panels, grouped=False)


def _published(subject: Subject) -> Any:
    """The chart of both numbers; a sentence where no number is quoted."""
    import wandb_workspaces.reports.v2.interface as wr

    header = subject.table.header
    published = next((name for name in header if name.startswith("published ")), None)
    measured = next((name for name in header if name.endswith("(last epoch)")), None)
    if published is None or measured is None or "comparison" not in subject.logged.tables:
        return wr.P("No published numbers are quoted beside these.")
    chart = wr.CustomChart(
        query={"summaryTable": {"tableKey": "comparison"}},
        chart_name="wandb/scatter/v0",
        chart_fields={"x": published, "y": measured},
        chart_strings={"title": "Published and measured", "xName": published, "yName": measured},
        layout=_size(),
    )
    return _of_summary(subject, [chart])


def _commits(subject: Subject) -> list[str]:
    found = (lookup(result, "git", "commit") for result in subject.results.values())
    return list(dict.fromkeys(str(commit) for commit in found if commit))
