"""Tables and figures from folders of runs; the report script end to end."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bnnbench.records.source import source_hash
from bnnbench.report import drawn
from bnnbench.report import render as render_module
from bnnbench.report.reading import collect
from bnnbench.report.render import FIGURES, render

ROOT = Path(__file__).parents[2]
WEIGHTS = ("kernels", "layers", "binarized")
CONFIG = {
    "quantizer": {"weight": {"_target_": "bnnbench.quantizers.bnn.BNNWeight"}},
    "trainer": {"max_epochs": 2},
    "seed": 0,
}


@pytest.fixture
def sweep(tmp_path, make_written, make_result, write, hexed):
    """A sweep of three on disk: finished, failed, and one with a result of another config."""
    cells = ["quantizer=bnn", "quantizer=xnor", "quantizer=irnet"]
    manifest = make_written(*cells)
    config = {"config": CONFIG, "source_hash": source_hash(CONFIG)}
    result = make_result("bnn", fingerprint=hexed(cells[0]), **config)
    write(tmp_path / "logs/runs/quantizer=bnn/result.json", result)
    failed = tmp_path / "logs/runs/quantizer=xnor/error.txt"
    failed.parent.mkdir()
    failed.write_text("Traceback\nValueError: no such thing\n")
    write(
        tmp_path / "logs/runs/quantizer=irnet/result.json",
        make_result(fingerprint=hexed("another")),
    )
    return write(tmp_path / "logs/sweeps/a_sweep/sweep.json", manifest)


def test_renders_next_to_the_manifest(sweep: Path, column) -> None:
    runs, out = sweep.parents[2] / "runs", sweep.parent
    table = render(sweep, [runs], out, ROOT / "results" / "published")
    assert column(table, "accuracy") == ["90.00", "failed", "\N{EN DASH}"]
    assert (out / "table.md").read_text() == table.markdown()
    assert (out / "table.csv").read_text() == table.csv()
    assert (out / "table.tex").read_text() == table.latex()
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "curves.svg").read_text().startswith("<?xml")
    assert not any((out / f"{name}.png").exists() for name in WEIGHTS)


def recorded() -> dict:
    """Statistics of one layer, all of whose weights are +-1."""
    ends = {"range": 1.0, "counts": [9, 9], "mean_abs": 1.0, "std_abs": 0.0, "kurtosis": 1.0}
    snapshots = [{"fraction": 1.0, "step": 2, "epoch": 1.0} | ends]
    values = {"binarized": [1.0], "mean_abs": [1.0], "kurtosis": [1.0]}
    layer = {"name": "conv", "index": 2, "snapshots": snapshots} | values
    return {"epochs": [1], "layers": [layer]}


def test_weights_are_drawn_where_a_result_has_them(sweep: Path, make_result, write, hexed) -> None:
    runs, out = sweep.parents[2] / "runs", sweep.parent
    file, fingerprint = runs / "quantizer=bnn/result.json", {"fingerprint": hexed("quantizer=bnn")}
    write(file, make_result("bnn", statistics=recorded(), **fingerprint))
    where = sweep, [runs], out, ROOT / "results" / "published"
    render(*where)
    assert not any((out / f"{name}.png").exists() for name in WEIGHTS)  # nobody asked for them
    render(*where, names=("curves", *WEIGHTS))
    drawn = {f"{name}.{suffix}" for name in ("curves", *WEIGHTS) for suffix in ("png", "svg")}
    tables = {"table.md", "table.csv", "table.tex", "runs.csv", "sweep.json", ".drawn.json"}
    assert {path.name for path in out.iterdir()} == drawn | tables
    write(file, make_result("bnn", **fingerprint))  # what can no longer be drawn goes
    render(*where, names=("curves", *WEIGHTS))
    assert {path.name for path in out.iterdir()} == {"curves.png", "curves.svg"} | tables
    write(file, make_result("bnn", statistics=recorded(), **fingerprint))
    write(sweep, json.loads(sweep.read_text()) | {"figures": ["layers"]})
    render(*where)  # as the sweep asks, and what has been asked for
    drawn = {f"{name}.{suffix}" for name in ("curves", "layers") for suffix in ("png", "svg")}
    assert {path.name for path in out.iterdir()} == drawn | tables
    with pytest.raises(ValueError, match=r"there is no.*layer"):
        render(*where, names=("layer",))


@pytest.fixture
def render_figures(sweep: Path, make_result, write, hexed, monkeypatch) -> Callable[..., list]:
    """Renders the sweep with an accuracy and options; which figures were drawn."""
    runs, made = sweep.parents[2] / "runs", []

    def counted(name: str) -> Callable:
        def draw(*args, **more) -> bool:
            made.append(name)
            return FIGURES[name](*args, **more)

        return draw

    counters = {name: counted(name) for name in FIGURES}

    def call(accuracy: float = 0.9, **options) -> list[str]:
        made.clear()
        result = make_result("bnn", acc=accuracy, fingerprint=hexed("quantizer=bnn"))
        write(runs / "quantizer=bnn/result.json", result)
        monkeypatch.setattr(render_module, "drawings_of", lambda *_: counters)
        published = ROOT / "results" / "published"
        options = {"names": ("curves", "layers"), "formats": ("png",), **options}
        render(sweep, [runs], sweep.parent, published, **options)
        return [*made]

    return call


def test_figures_are_drawn_anew_only_of_other_results(sweep: Path, render_figures) -> None:
    curves = sweep.with_name("curves.png")
    assert render_figures() == ["curves", "layers"]  # which has nothing to draw
    first = curves.stat().st_mtime_ns
    assert render_figures() == []
    assert curves.stat().st_mtime_ns == first
    assert render_figures(accuracy=0.8) == ["curves", "layers"]
    assert render_figures(accuracy=0.8) == []


def test_figures_that_are_gone_or_of_another_form_are_drawn(sweep: Path, render_figures) -> None:
    render_figures()
    sweep.with_name("curves.png").unlink()
    assert render_figures() == ["curves"]
    assert render_figures(formats=("png", "svg")) == ["curves"]
    assert render_figures(names=("curves",)) == []
    assert render_figures() == ["layers"]  # which was not asked for the last time
    assert render_figures(names=()) == []
    assert not sweep.with_name("curves.png").exists()
    assert render_figures() == ["curves", "layers"]


def test_a_figure_that_was_asked_for_once_goes_with_the_results(
    sweep: Path, render_figures
) -> None:
    render_figures(names=("curves", "scores"))
    assert sweep.with_name("scores.png").exists()
    render_figures(names=("curves",), accuracy=0.8)
    assert sweep.with_name("scores.png").exists()
    assert "scores" in render_figures(names=("curves",), accuracy=0.7)


def test_figures_of_older_code_are_drawn_anew(render_figures, monkeypatch) -> None:
    render_figures()
    monkeypatch.setattr(drawn, "code", lambda: "another")
    assert render_figures() == ["curves", "layers"]


@pytest.mark.parametrize("content", ["", "[]", '{"of": 1}', '{"figures": {"curves": true}}'])
def test_a_damaged_list_of_figures_costs_a_drawing(sweep: Path, render_figures, content) -> None:
    render_figures()
    sweep.with_name(drawn.FILE).write_text(content)
    assert render_figures() == ["curves", "layers"]


def test_finds_results_in_flat_folders_too(
    tmp_path, make_written, make_result, write, hexed
) -> None:
    fingerprint = hexed("quantizer=bnn")
    write(tmp_path / "quantizer=bnn.json", make_result("bnn", fingerprint=fingerprint))
    found = collect(make_written("quantizer=bnn"), [tmp_path / "none", tmp_path])
    assert set(found.results) == {"quantizer=bnn"}
    assert (found.failures, found.damaged) == ({}, {})


def test_a_result_older_than_its_code_is_marked(
    sweep: Path, make_result, write, column, hexed
) -> None:
    runs = sweep.parents[2] / "runs"
    gone = {"quantizer": {"weight": {"_target_": "bnnbench.quantizers.removed.Weight"}}}
    for config, accuracy in ((CONFIG, "90.00*"), (gone, "90.00*"), ({}, "90.00")):
        entries = {"fingerprint": hexed("quantizer=bnn"), "config": config}
        write(runs / "quantizer=bnn/result.json", make_result("bnn", **entries))
        table = render(sweep, [runs], sweep.parent, ROOT / "results" / "published")
        assert column(table, "accuracy")[0] == accuracy


def test_an_emptied_results_folder_costs_the_published_column_only(
    sweep: Path, tmp_path: Path, write, column
) -> None:
    manifest = json.loads(sweep.read_text()) | {"table": {"published": "adabin_cifar10"}}
    write(sweep, manifest)
    runs = sweep.parents[2] / "runs"
    table = render(sweep, [runs], sweep.parent, tmp_path / "results" / "published")
    assert column(table, "accuracy")[0] == "90.00"
    assert any("adabin_cifar10.yaml" in note for note in table.notes)
    manifest["table"]["published"] = "mistyped"
    write(sweep, manifest)
    with pytest.raises(FileNotFoundError, match="adabin_cifar10"):
        render(sweep, [runs], sweep.parent, ROOT / "results" / "published")


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": 2',
        '{"schema": 99}',
        "[]",
        "",
        "\x00\x01",
        '{"schema": 2, "fingerprint": "quantizer=bnn", "choices": {}}',
        '{"schema": 2, "fingerprint": "x", "choices": {}, "metrics": {"last": {"test/acc": "a"}}}',
    ],
)
def test_a_damaged_result_costs_its_own_cell_only(sweep: Path, column, text: str) -> None:
    result = sweep.parents[2] / "runs" / "quantizer=bnn" / "result.json"
    result.write_text(text)
    table = render(sweep, [result.parents[1]], sweep.parent, ROOT / "results" / "published")
    assert column(table, "accuracy") == ["damaged", "failed", "\N{EN DASH}"]
    (note,) = [note for note in table.notes if note.startswith("damaged: quantizer=bnn: ")]
    assert str(result) in note
    state = [row["state"] for row in csv.DictReader((sweep.parent / "runs.csv").open())]
    assert state == ["damaged", "failed", "missing"]


def test_a_result_that_lies_whole_in_the_second_folder_is_taken(
    sweep: Path, tmp_path: Path, column
) -> None:
    runs = sweep.parents[2] / "runs"
    (tmp_path / "first" / "quantizer=bnn").mkdir(parents=True)
    (tmp_path / "first" / "quantizer=bnn" / "result.json").write_text("{")
    table = render(sweep, [tmp_path / "first", runs], sweep.parent, ROOT / "results" / "published")
    assert column(table, "accuracy")[0] == "90.00"


def test_an_error_that_is_no_text_is_still_one_line(sweep: Path) -> None:
    file = sweep.parents[2] / "runs" / "quantizer=xnor" / "error.txt"
    file.write_bytes(b"\xff\x00ValueError: \x1b[31mno\n")
    table = render(sweep, [file.parents[1]], sweep.parent, ROOT / "results" / "published")
    (note,) = [note for note in table.notes if note.startswith("failed: ")]
    assert note.isprintable()
    assert "ValueError:" in note


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (lambda m: m["cells"][0].pop("run"), r"cells\.0\.run"),
        (lambda m: m.update(cells={}), "cells: "),
        (lambda m: m.update(swept=None), "swept: "),
        (lambda m: m.pop("shared"), "shared: "),
    ],
)
def test_a_wrongly_shaped_manifest_is_named(sweep: Path, write, damage, place: str) -> None:
    manifest = json.loads(sweep.read_text())
    damage(manifest)
    write(sweep, manifest)
    with pytest.raises(ValueError, match=rf"sweep\.json is damaged \({place}"):
        render(sweep, [], sweep.parent, ROOT / "results" / "published")


def test_a_result_of_schema_1_is_still_shown(sweep: Path, write, column) -> None:
    result = sweep.parents[2] / "runs" / "quantizer=bnn" / "result.json"
    old = json.loads(result.read_text()) | {"schema": 1}
    for key in ("headline", "ended", "planned_epochs", "data_stamp"):
        del old[key]
    write(result, old)
    table = render(sweep, [result.parents[1]], sweep.parent, ROOT / "results" / "published")
    assert column(table, "accuracy") == ["90.00", "failed", "\N{EN DASH}"]
    assert "data stamp unknown: 1 of 1 results" in table.notes


def test_a_sweep_of_schema_1_says_what_to_do(sweep: Path, write) -> None:
    write(sweep, json.loads(sweep.read_text()) | {"schema": 1})
    with pytest.raises(ValueError, match=r"is of version 1: python tools/rekey\.py"):
        render(sweep, [], sweep.parent, ROOT / "results" / "published")


def test_imports_lightly() -> None:
    code = (
        "import sys, bnnbench.report.render, bnnbench.report.promote\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "src")


def report(root: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "src" / "report.py"), f"paths.root_dir={root}"]
    return subprocess.run(
        [*command, *overrides], capture_output=True, text=True, cwd=root, check=False
    )


def test_the_script_promotes_and_renders_everything(sweep: Path, tmp_path: Path, write) -> None:
    file = sweep.parents[2] / "runs" / "quantizer=bnn" / "result.json"
    write(file, json.loads(file.read_text()) | {"statistics": recorded()})
    done = report(tmp_path, "promote=a_sweep", "figures=[curves,kernels,layers,binarized]")
    assert done.returncode == 0, done.stderr
    assert "promoted a_sweep: 1 results" in done.stdout
    assert (sweep.parent / "table.md").is_file()
    files = {str(p.relative_to(tmp_path)) for p in (tmp_path / "results").rglob("*.*")}
    rendered = {f"results/tables/a_sweep{end}" for end in (".md", ".csv", ".tex", "_runs.csv")}
    assert files == rendered | {
        "results/tables/index.md",
        "results/figures/a_sweep.png",
        *(f"results/figures/a_sweep_{name}.png" for name in WEIGHTS),
        "results/sweeps/a_sweep.json",
        "results/runs/quantizer=bnn.json",
    }
    index = (tmp_path / "results/tables/index.md").read_text()
    assert "- [a_sweep](a_sweep.md)\n" in index
    assert index.startswith("# Tables\n\nBehind these tables: 1 training of ")
    assert list((tmp_path / "logs" / "report").iterdir()) == []  # Hydra leaves nothing behind
    assert {p.name for p in tmp_path.iterdir()} == {"logs", "results"}


def test_the_script_says_what_is_wrong(sweep: Path, tmp_path: Path) -> None:
    done = report(tmp_path, "promote=a_swep")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no sweep 'a_swep'")
    assert done.stderr.rstrip().endswith("there are: a_sweep")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("figures=[curves,rank]", "figures: there is no rank; choose of"),
        ("format=pdf", "format=pdf: of one figure, or of scores"),
    ],
)
def test_what_no_figure_is_of_renders_nothing(
    sweep: Path, tmp_path: Path, word: str, told: str
) -> None:
    done = report(tmp_path, word)
    assert (done.returncode, done.stderr.startswith(f"error: {told}")) == (1, True), done.stderr
    assert not (tmp_path / "results").exists()
    assert not (sweep.parent / "table.md").exists()


def test_promotion_is_not_passed_over_for_a_figure(sweep: Path, tmp_path: Path) -> None:
    for beside in (["figure=curves", "table=a_sweep"], ["table=a_sweep"]):
        done = report(tmp_path, "promote=a_sweep", *beside)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: promote=a_sweep: alone: leave ")


def test_the_script_promotes_under_a_telling_name(sweep: Path, tmp_path: Path) -> None:
    words = ("promote=a_sweep", "as=three_methods", "title='Three methods, briefly'")
    done = report(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert "promoted a_sweep as three_methods: 1 results" in done.stdout
    promoted = json.loads((tmp_path / "results/sweeps/three_methods.json").read_text())
    assert promoted["name"] == "three_methods"
    assert promoted["command"] == json.loads(sweep.read_text())["command"]
    page = (tmp_path / "results/tables/three_methods.md").read_text()
    assert page.startswith("# Three methods, briefly\n")
    index = (tmp_path / "results/tables/index.md").read_text()
    assert "- [Three methods, briefly](three_methods.md)\n" in index
    refused = report(tmp_path, "promote=[a_sweep,a_sweep]", "as=both")
    assert (refused.returncode, refused.stderr.startswith("error: as=, title= and")) == (1, True)


def test_a_sweep_that_cannot_be_rendered_costs_the_others_nothing(
    sweep: Path, tmp_path: Path, write
) -> None:
    bad = tmp_path / "logs/sweeps/a_bad_one/sweep.json"
    bad.parent.mkdir()
    bad.write_text("{")
    missing = json.loads(sweep.read_text()) | {"table": {"published": "nowhere"}}
    write(tmp_path / "logs/sweeps/another/sweep.json", missing)
    (tmp_path / "results" / "published").mkdir(parents=True)
    write(tmp_path / "results/sweeps/a_promoted_one.json", {"schema": 2, "cells": []})
    done = report(tmp_path)
    assert done.returncode == 1
    assert (sweep.parent / "table.md").is_file()
    named = [line for line in done.stderr.splitlines() if line.startswith("not rendered: ")]
    assert [Path(line.split(": ")[1]) for line in named] == [
        bad,
        tmp_path / "logs/sweeps/another/sweep.json",
        tmp_path / "results/sweeps/a_promoted_one.json",
    ]
    assert str(bad) in done.stderr.splitlines()[-1]
