"""The W&B Report of a sweep: over what its runs have logged, as the library's own model has it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import combinations
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from omegaconf import DictConfig

from bnnbench.records.fingerprint import run_name
from bnnbench.records.store import Cell, mark_logged, read_result, write_json
from bnnbench.report.markup import Table
from bnnbench.report.render import render
from bnnbench.runs import run
from bnnbench.sweep.manifest import manifest
from bnnbench.sweep.summary import links_of, log_summary
from bnnbench.sweep.wandb_report import Logged, Subject, build, question
from bnnbench.sweep.wandb_upload import (
    FILE,
    command_of,
    make_reports,
    place_of,
    place_of_link,
    written,
)

from .. import reading

pytest.importorskip("wandb_workspaces", reason="bnnbench[reports] is not installed")

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef0123456789abcdef01234567"
Compose = Callable[..., DictConfig]
SHAPES = ["dataset=shapes", "backbone=ssd300_resnet18", "quantizer=xnor", "trainer.max_epochs=1"]
SHAPES += ["++dataset.generate.trainval=8", "++dataset.generate.test=4", "dataset.batch_size=2"]
SHAPES += ["+trainer.limit_test_batches=1"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without a key."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def trained(compose: Compose, *lines: list[str]) -> DictConfig:
    """A finished sweep of runs, each logged to wandb offline, with its summary run and report."""
    cells, cfg = [], compose()
    for words in lines:
        cfg = compose(*words, "logger=wandb")
        name = run_name(cfg)
        cfg.paths.output_dir = str(Path(cfg.paths.runs_dir) / name)
        Path(cfg.paths.output_dir).mkdir(parents=True)
        run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
        result = read_result(cfg.paths.output_dir) or {}
        quantizer = result["choices"]["quantizer"]
        settings = {"quantizer.name": quantizer}
        overrides = {"quantizer": quantizer, "seed": "0"}
        cells.append(Cell(overrides, name, result["fingerprint"], settings, result["headline"]))
    folder = Path(cfg.paths.sweeps_dir) / "a_sweep"
    write_json(folder / "sweep.json", manifest("a_sweep", cells))
    runs, nothing = Path(cfg.paths.runs_dir), Path(cfg.paths.results_dir) / "published"
    log_summary(cfg, "a_sweep", render(folder / "sweep.json", [runs], folder, nothing))
    return cfg


def blocks(folder: Path) -> list[dict[str, Any]]:
    return written(folder)["report"]["spec"]["blocks"]


def panels(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """The kind and config of every panel, in the order of the page."""
    grids = [block["metadata"] for block in blocks(folder) if block["type"] == "panel-grid"]
    of_grids = [grid["panelBankSectionConfig"]["panels"] for grid in grids]
    return [(panel["viewType"], panel["config"]) for each in of_grids for panel in each]


def metrics_of(kind: str, config: dict[str, Any]) -> set[str]:
    """The names that a panel takes from runs."""
    if kind == "Run History Line Plot":
        return {config["xAxis"], *config["metrics"]}
    if kind == "Scatter Plot":
        return {config[axis].removeprefix("summary:") for axis in ("xAxis", "yAxis")}
    if kind == "Parameter Importance":
        return {config["targetKey"]}
    if kind == "Media Browser":
        return set(config["mediaKeys"])
    text = json.dumps(config)
    if kind == "Weave":
        return set(re.findall(r'"type": "string", "val": "(\w+)"', text)) & {"comparison", "runs"}
    assert kind == "Vega2", kind
    return set(re.findall(r'"name": "tableKey", "value": "(\w+)"', text))


def logged_names(folder: Path) -> set[str]:
    """What wandb's own files of the runs below a folder name, the parts of media under one name."""
    names: set[str] = set()
    for each in reading.wandb_runs(folder):
        for row in (*each.history, each.summary):
            names |= {re.sub(r"\._type$", "", name) for name in row}
    return names


def check(cfg: DictConfig) -> dict[str, int]:
    """That each panel stands over names that were logged; how many there are of each kind."""
    from wandb_workspaces.reports.v2 import Report, internal

    folder = Path(cfg.paths.sweeps_dir) / "a_sweep"
    model = internal.ReportViewspec.model_validate(written(folder)["report"])
    read = Report._from_model(model).blocks  # as the library reads what its server has
    parts = [*read, *(panel for block in read for panel in getattr(block, "panels", ()))]
    assert not [part for part in parts if type(part).__name__.startswith("Unknown")]
    assert len([part for part in parts if hasattr(part, "layout")]) == len(panels(folder))
    names = {"train": logged_names(Path(cfg.paths.runs_dir)), "summary": logged_names(folder)}
    counted: dict[str, int] = {}
    for kind, config in panels(folder):
        wanted = metrics_of(kind, config)
        assert wanted
        assert wanted <= names["train"] or wanted <= names["summary"], (kind, wanted)
        counted[kind] = counted.get(kind, 0) + 1
    return counted


def test_every_panel_stands_over_what_the_runs_logged(
    compose: Compose, short: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    short = [*short, "trainer.max_epochs=1"]
    cfg = trained(compose, [*short, "quantizer=xnor"], [*short, "quantizer=bonn", "loss=bonn"])
    counted = check(cfg)
    assert counted.pop("Media Browser") >= 4 + 4  # a layer each; figures of scores and weights
    assert counted == {
        "Weave": 2,  # the comparison and the runs
        "Run History Line Plot": 4,
        "Scatter Plot": 2,
        "Parameter Importance": 1,
    }
    folder = Path(cfg.paths.sweeps_dir) / "a_sweep"
    (first, *_) = [b["metadata"] for b in blocks(folder) if b["type"] == "panel-grid"][1:]
    (runs,) = first["runSets"]
    assert runs["grouping"] == [{"section": "config", "name": "quantizer.value.name"}]
    ids, job, state = (each["value"] for each in runs["filters"]["filters"])
    written_runs = reading.wandb_runs(Path(cfg.paths.runs_dir))
    assert sorted(ids) == sorted(each.run.run_id for each in written_runs)
    assert (job, state) == ("train", "finished")
    assert all(each.config["quantizer"]["name"] for each in written_runs)
    told = capsys.readouterr().out
    assert f"W&B report: {folder / FILE}" in told
    assert "report.py wandb=<entity>/bnnbench table=a_sweep" in told


def test_boxes_of_detectors_have_their_panels(compose: Compose, short: list[str]) -> None:
    cfg = trained(compose, [*short, *SHAPES])
    assert check(cfg)["Run History Line Plot"] >= 3
    shown = [c["mediaKeys"] for k, c in panels(Path(cfg.paths.sweeps_dir) / "a_sweep") if "M" in k]
    assert ["pictures/boxes"] in shown
    assert ["classes"] in shown


def subject(**logged: Any) -> Subject:
    cells = [
        Cell({"quantizer": q, "seed": "0"}, f"run {q}", "0" * 64, {"quantizer.name": q}, "test/acc")
        for q in ("xnor", "bnn")
    ]
    choices = {"backbone": "resnet20", "dataset": "digits", "loss": "task", "recipe": "unified"}
    results = {
        cell.run: {
            "headline": "test/acc",
            "choices": choices | {"quantizer": cell.overrides["quantizer"]},
            "metrics": {"last": {"test/acc": 0.5}, "best": {}},
            "git": {"commit": "abc"},
        }
        for cell in cells
    }
    header = ["quantizer", "published %", "accuracy % (last epoch)"]
    table = Table("<b>T</b>", header, [["xnor", "80", "50"]], ["a note", "[x](http://x.x)"])
    return Subject(manifest("a sweep", cells), table, results, ["run 3"], Logged(**logged))


def dumped(report: Any) -> str:
    return report._to_model().model_dump_json(by_alias=True, exclude_none=True)


def test_it_asks_what_differs_and_says_what_does_not() -> None:
    assert question(subject()) == (
        "How does the test accuracy depend on quantizer (xnor, bnn), with dataset digits, "
        "backbone resnet20, loss task, recipe unified?"
    )


def test_what_nobody_logged_has_no_panel() -> None:
    """Each metric that goes takes its panels along; words stay."""
    every = {
        "history": frozenset({"test/acc", "train/loss"}),
        "summary": frozenset({"last/test/acc", "operations/ops"}),
        "tables": ("comparison",),
        "histograms": ("weights/a",),
    }
    whole = dumped(build(subject(**every), "p"))
    for name in ("test/acc", "train/loss", "operations/ops", "weights/a", "tableKey"):
        assert name in whole
    assert '"train/acc"' not in whole
    assert "operations/packed_bytes" not in whole
    empty = dumped(build(subject(), "p"))
    assert '"viewType"' not in empty
    for words in ("a note", "not in wandb: run 3", "How does the test accuracy", "abc"):
        assert words in empty
    for name in every:
        less = dumped(build(subject(**{k: v for k, v in every.items() if k != name}), "p"))
        assert less.count('"viewType"') < whole.count('"viewType"')


def test_panels_lie_beside_one_another() -> None:
    names = frozenset({"test/acc", "train/acc", "test/loss", "train/loss"})
    pictures = ("pictures/boxes", "pictures/precision_recall")
    report = build(subject(history=names, pictures=pictures, tables=("comparison", "runs")), "p")
    grids = [block for block in report.blocks if hasattr(block, "panels")]
    assert len(grids) >= 3
    for grid in grids:
        boxes = [panel.layout for panel in grid.panels]
        for a, b in combinations(boxes, 2):
            apart = a.x + a.w <= b.x or b.x + b.w <= a.x or a.y + a.h <= b.y or b.y + b.h <= a.y
            assert apart, (a, b)


def test_a_published_column_has_its_chart() -> None:
    text = dumped(build(subject(tables=("comparison",)), "p"))
    assert '"x":"published %"' in text
    assert '"y":"accuracy % (last epoch)"' in text
    one = subject(tables=("comparison",))
    table = Table("t", ["quantizer", "accuracy % (last epoch)"], [["xnor", "50"]], [])
    told = dumped(build(replace(one, table=table), "p"))
    assert "No published numbers" in told
    assert "tableKey" not in told


def test_words_of_others_are_shown_and_not_followed() -> None:
    report = build(subject(), "p")
    assert report.title == "<b>T</b>"  # plain text there
    (markdown,) = [b.text for b in report.blocks if type(b).__name__ == "MarkdownBlock"]
    assert "<b>" not in markdown
    (notes,) = [b.items for b in report.blocks if type(b).__name__ == "UnorderedList"]
    assert notes[1] == "[x](http://x.x)"  # the same


def test_rows_of_the_comparison_have_the_address_of_a_run() -> None:
    table = Table("t", ["quantizer", "seeds"], [["xnor", "2"], ["bnn", "1"], ["slb", "-"]], [])
    runs = {"quantizer": ["xnor", "xnor", "bnn"], "wandb": ["https://a", "https://b", None]}
    assert links_of(runs, table) == {"wandb": ["https://a", None, None]}
    assert links_of({"quantizer": ["xnor"]}, table) == {}


@pytest.mark.parametrize("text", ["", "me", "me/", "/p", "a/b/c", "a b/c", "https://x/y", "me/p?x"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give an entity and a project"):
        place_of(text)


def test_places() -> None:
    assert place_of("my-team/bnn.bench") == ("my-team", "bnn.bench")
    assert place_of_link("https://wandb.ai/me/p/runs/abc") == ("me", "p")
    assert place_of_link("https://wandb.ai/me") is None
    assert place_of_link(None) is None
    typed = ["quantizer=xnor", "paths.log_dir=/tmp/x"]
    command = command_of("a", "p", typed)
    assert command.endswith("wandb=<entity>/p table=a paths.log_dir=/tmp/x")
    assert "train" not in command


class Server(BaseHTTPRequestHandler):
    """Answers as wandb's would, or refuses; `asked` has what it was given."""

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        try:
            body = json.loads(content)
        except ValueError:  # of the client's own reports
            body = {"query": ""}
        code, answer = self.answer(body["query"], body.get("variables") or {}, server.refuses)
        text = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def answer(self, query: str, given: dict[str, Any], refuses: str) -> tuple[int, Any]:
        denied = {"errors": [{"message": "permission denied"}], "data": None}
        if "upsertView" in query:
            self.server.asked.append(given)  # type: ignore[attr-defined]
            project = {"id": "x", "name": given["projectName"], "entityName": given["entityName"]}
            view = {"id": "Vmlldzox", "type": "runs", "name": given["name"], "description": ""}
            view |= {"displayName": given["displayName"], "project": project, "updatedAt": None}
            found = {"upsertView": {"view": view | {"spec": given["spec"]}, "inserted": True}}
            return 200, denied if refuses == "report" else {"data": found}
        if "rojects" in query:
            page = {"edges": [], "pageInfo": {"endCursor": None, "hasNextPage": False}}
            return 200, {"data": {"models": None if refuses == "entity" else page}}
        if "viewer" in query:
            me = {"id": "x", "entity": "me", "username": "me", "name": "me", "flags": "{}"}
            me |= {"teams": {"edges": []}}
            return (403, denied) if refuses == "key" else (200, {"data": {"viewer": me}})
        return 200, {"data": {}}

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    found: Any = HTTPServer(("127.0.0.1", 0), Server)
    found.asked, found.refuses = [], ""
    Thread(target=found.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{found.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def logs(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The sweeps, runs and results of a user with a sweep that has not been trained."""
    one = subject()
    sweeps, runs = tmp_path / "sweeps", tmp_path / "runs"
    write_json(sweeps / "a_sweep" / "sweep.json", dict(one.manifest) | {"name": "a_sweep"})
    write_json(sweeps / "b" / "sweep.json", dict(one.manifest) | {"name": "b"})
    return sweeps, runs, tmp_path / "results"


def test_it_is_uploaded_and_the_next_time_replaced(
    server: Any, logs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    make_reports("a_sweep", *logs, "me/p")
    (first,) = server.asked
    assert (first["entityName"], first["projectName"], first["id"]) == ("me", "p", None)
    sent, kept = json.loads(first["spec"]), written(logs[0] / "a_sweep")["report"]
    assert [b["type"] for b in sent["blocks"]] == [b["type"] for b in kept["spec"]["blocks"]]
    assert "/me/p/reports/a_sweep--Vmlldzox" in capsys.readouterr().out
    make_reports("a_sweep", *logs, "me/p")
    assert server.asked[1]["id"] == "Vmlldzox"
    assert not (logs[0] / "b" / FILE).exists()


@pytest.mark.parametrize("refuses", ["key", "entity", "report"])
def test_a_server_that_refuses_costs_the_upload_alone(
    server: Any, logs: tuple[Path, Path, Path], refuses: str
) -> None:
    server.refuses = refuses
    with pytest.raises(ValueError, match="A key sees its own entities alone") as told:
        make_reports(None, *logs, "other/p")
    lines = str(told.value).splitlines()
    assert len(lines) == 2  # a line for each sweep
    assert all(line.startswith("wandb=other/p: the server did not take") for line in lines)
    for name in ("a_sweep", "b"):
        assert written(logs[0] / name)["report"]["project"]["entityName"] == "other"


@pytest.mark.parametrize(
    ("key", "said"),
    [(None, "there is no key for"), ("abc", "has 3 characters"), (KEY, "cannot be reached")],
)
def test_without_key_or_network_the_files_are_written(
    logs: tuple[Path, Path, Path], key: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    write_json(logs[0] / "damaged" / "sweep.json", {"schema": 1})
    with pytest.raises(ValueError, match=said) as told:
        make_reports(None, *logs, "me/p")
    assert "is of version 1" in str(told.value)
    assert all((logs[0] / name / FILE).is_file() for name in ("a_sweep", "b"))


def test_runs_of_another_project_are_told(server: Any, logs: tuple[Path, Path, Path]) -> None:
    write_json(logs[0] / "b" / FILE, {"project": "bnnbench"})
    with pytest.raises(ValueError, match="type wandb=me/bnnbench"):
        make_reports("b", *logs, "me/p")
    assert server.asked == []


def test_a_sweep_that_never_met_wandb_says_what_brings_it_there(
    logs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="no key"):
        make_reports("b", *logs, "me/p")
    assert "logger=wandb` changes, without training again" in capsys.readouterr().out


def test_a_damaged_file_of_before_is_written_anew(logs: tuple[Path, Path, Path]) -> None:
    for text in ("{", "[]", "\x00"):
        (logs[0] / "b" / FILE).write_text(text)
        with pytest.raises(ValueError, match="no key"):
            make_reports("b", *logs, "me/p")
        assert written(logs[0] / "b")["sweep"] == "b"


def test_a_mistyped_sweep_and_a_missing_package(
    logs: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="there are: a_sweep, b"):
        make_reports("a_swep", *logs, "me/p")
    monkeypatch.setattr("bnnbench.sweep.wandb_upload.PACKAGE", "no_such_package")
    with pytest.raises(ValueError, match=r"pip install 'bnnbench\[reports\]'"):
        make_reports("b", *logs, "me/p")


def test_the_command(logs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """It makes the reports alone, and its exit code says that they were not uploaded."""
    sweeps, runs, results = logs
    command = [sys.executable, str(ROOT / "src" / "report.py"), f"paths.root_dir={tmp_path}"]
    command += [f"paths.sweeps_dir={sweeps}", f"paths.runs_dir={runs}"]
    command += [f"paths.results_dir={results}"]
    command += ["wandb=me/bnnbench", "table=b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: wandb=me/bnnbench: there is no key")
    assert done.stdout.startswith(f"W&B report: {sweeps}/b/{FILE}")
    assert not (sweeps / "b" / "table.md").exists()


def test_a_run_that_wandb_lacks_is_told(
    logs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mark_logged(logs[1] / "run xnor", "wandb")  # without a result
    with pytest.raises(ValueError, match="no key"):
        make_reports("b", *logs, "me/p")
    assert written(logs[0] / "b")["absent"] == ["run xnor", "run bnn"]
