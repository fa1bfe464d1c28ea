"""The report of a sweep as a file beside it, and its way to wandb's server."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bnnbench.paths import program
from bnnbench.records.store import logged_by, write_json
from bnnbench.report.efficiency import bench_of
from bnnbench.report.reading import collect, read_json
from bnnbench.report.render import table_of
from bnnbench.runs.wandb import why_offline
from bnnbench.sweep.wandb_report import Subject, build, logged_of

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import Report

FILE = "wandb_report.json"  # in a sweep's folder
PACKAGE = "wandb_workspaces"
MISSING = f"needs {PACKAGE}, which this installation has not: pip install 'bnnbench[reports]'"
_PLACE = re.compile(r"([\w.-]+)/([\w.-]+)")


class Place(NamedTuple):
    """Where a report goes: an entity, of a person or a team, and its project."""

    entity: str
    project: str


def has_package() -> bool:
    """Whether reports can be built here."""
    return find_spec(PACKAGE) is not None


def place_of(text: str) -> Place:
    """`<entity>/<project>` in parts. Raises ValueError for what is none."""
    match = _PLACE.fullmatch(text.strip("/"))
    if match is None:
        raise ValueError(
            f"wandb={text}: give an entity and a project, as in wandb=my-team/bnnbench"
        )
    return Place(*match.groups())


def place_of_link(link: str | None) -> Place | None:
    """The place of a run by its address, such as `https://wandb.ai/<entity>/<project>/runs/...`."""
    match = re.search(r"//[^/]+/([\w.-]+)/([\w.-]+)/runs/", link or "")
    return match and Place(*match.groups())


def subject_of(folder: Path, runs_dir: Path, results_dir: Path) -> Subject:
    """What the report of a sweep is about, from what lies on disk.

    A run counts that has a result which has reached wandb; what the summary run has was written
    down when it was logged. Raises ValueError if the manifest cannot be used.
    """
    manifest = read_json(folder / "sweep.json")
    found = collect(manifest, [runs_dir])
    published, bench = results_dir / "published", bench_of(results_dir)
    table = table_of(manifest, folder / "sweep.json", found, published, bench).table
    there = {run: r for run, r in found.results.items() if "wandb" in logged_by(runs_dir / run)}
    absent = [cell["run"] for cell in manifest["cells"] if cell["run"] not in there]
    summary = written(folder).get("summary") or {}
    logged = logged_of(there, runs_dir, summary.get("tables") or (), summary.get("figures") or ())
    return Subject(manifest, table, there, list(dict.fromkeys(absent)), logged)


def written(folder: Path) -> dict[str, Any]:
    """What an earlier call left in the sweep's folder; {} where that is nothing, or damaged."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def remember_summary(
    folder: Path, project: str, tables: Sequence[str], figures: Sequence[str]
) -> None:
    """Write down what the sweep's summary run has of it, and in which project."""
    summary = {"tables": list(tables), "figures": list(figures)}
    write_json(folder / FILE, written(folder) | {"project": project, "summary": summary})


def write_report(folder: Path, report: Report, subject: Subject) -> Path:
    """Write the report's specification, as the library has it, beside the sweep."""
    model = report._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    own = {"sweep": subject.manifest["name"], "runs": list(subject.results)}
    write_json(folder / FILE, written(folder) | own | {"absent": subject.absent, "report": model})
    return folder / FILE


def make_report(folder: Path, runs_dir: Path, results_dir: Path, place: Place | None) -> str:
    """Write the report of a sweep, and give it to wandb where a place is named.

    Returns what to tell: the report's address, or its file. One that was given to the same place
    before is replaced there.

    Raises:
        ValueError: wandb does not take it; the message says why, and where the file lies.
    """
    subject, before = subject_of(folder, runs_dir, results_dir), written(folder)
    project = before.get("project") or (place.project if place else "bnnbench")
    report = build(subject, project, place.entity if place else "")
    report.id = _known_id(before, report)
    file = write_report(folder, report, subject)
    if place is None:
        return f"W&B report: {file}{_hint(subject)}"
    if place.project != project:
        raise ValueError(
            f"wandb={'/'.join(place)}: the runs of this sweep are in project {project}, and a "
            f"report of another one shows none of them: type wandb={place.entity}/{project}; the "
            f"report is in {file}"
        )
    try:
        report.save()
    except Exception as error:  # of libraries, of a server: they name no common class
        text = " ".join(str(error).split())[:300]
        raise ValueError(
            f"wandb={'/'.join(place)}: the server did not take the report "
            f"({type(error).__name__}: {text}). A key sees its own entities alone: name one of "
            f"them, or `wandb login --relogin`; the report is in {file}"
        ) from error
    write_report(folder, report, subject)
    return f"W&B report: {report.url}{_hint(subject)}"


def _hint(subject: Subject) -> str:
    """What brings a sweep's runs to wandb, where none of them is there."""
    if subject.results:
        return ""
    command = f"{subject.manifest['command']} logger=wandb"
    return f" (no run of it is in wandb, which `{command}` changes, without training again)"


def _known_id(before: dict[str, Any], report: Report) -> str:
    """The id under which the server has the report of this place; "" where it has none."""
    old = before.get("report") or {}
    place = old.get("project") or {}
    same = (place.get("entityName"), place.get("name")) == (report.entity, report.project)
    return str(old.get("id") or "") if same or not report.entity else ""


def make_reports(
    name: str | None, sweeps_dir: Path, runs_dir: Path, results_dir: Path, wandb: str
) -> None:
    """Give wandb the report of a sweep of the logs, or of each that has a run there.

    A printed line tells of each. Without a key or a server the files are written all the same.

    Raises:
        ValueError: there is no such sweep, no such place, a package is missing, or a report was
            not taken; the message has a line for each.
    """
    place = place_of(wandb)
    if not has_package():
        raise ValueError(f"wandb={wandb} {MISSING}")
    known = sorted(path.parent for path in sweeps_dir.glob("*/sweep.json"))
    chosen = [folder for folder in known if name in (None, folder.name)]
    if not chosen:
        there = ", ".join(folder.name for folder in known) or "none"
        words = "no sweep" if name is None else f"table={name}: no sweep of this name"
        raise ValueError(f"wandb={wandb}: {words} in {sweeps_dir}; there are: {there}")
    reason, failed = _reason(), []
    for folder in chosen:
        try:
            where = folder, runs_dir, results_dir
            print(make_report(*where, None if reason else place), flush=True)
        except ValueError as error:
            failed.append(str(error))
    if reason:
        failed.append(f"wandb={wandb}: {reason}; the same command uploads what is written")
    if failed:
        raise ValueError("\n".join(failed))


def _reason() -> str | None:
    """Why nothing can be uploaded now, a key that is none among it; None where it can."""
    try:
        return why_offline()
    except ValueError as error:
        return str(error)


def command_of(sweep: str, project: str, typed: Sequence[str]) -> str:
    """What uploads a report later; typed: words of the command line that say where things lie."""
    name = re.sub(r"\btrain(?=\.py|$)", "report", program())
    where = [word for word in typed if word.startswith("paths.")]
    return " ".join([name, f"wandb=<entity>/{project}", f"table={sweep}", *where])
