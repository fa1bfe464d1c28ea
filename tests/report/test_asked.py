"""One figure of one table: where it goes, in which format, and what a mistake is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bnnbench.report.asked import _NEEDS, Places, draw_asked
from bnnbench.report.render import FIGURES
from bnnbench.sweep.expand import TABLE_FIGURES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def places(tmp_path: Path, make_written, make_result, write, hexed) -> Places:
    """A committed sweep of three, of which one result is damaged, and one of the logs."""
    found = Places(tmp_path / "results", tmp_path / "sweeps", tmp_path / "runs")
    cells = [f"quantizer={q}" for q in ("bnn", "xnor", "irnet")]
    manifest = make_written(*cells)
    write(found.results / "sweeps" / "three.json", manifest)
    for cell in cells[:2]:
        result = make_result(cell[10:], fingerprint=hexed(cell))
        write(found.results / "runs" / f"{cell}.json", result)
    (found.results / "runs" / f"{cells[2]}.json").write_text("{")
    write(found.sweeps / "own" / "sweep.json", make_written(cells[0]))
    config = {"trainer": {"max_epochs": 2}}
    result = make_result("bnn", fingerprint=hexed(cells[0]), config=config) | {"schema": 1}
    for key in ("headline", "ended", "planned_epochs", "data_stamp"):
        del result[key]
    write(found.runs / cells[0] / "result.json", result)
    return found


@pytest.mark.parametrize(
    ("name", "stem"), [("curves", "three"), ("scores", "three_scores"), ("pareto", "three_pareto")]
)
def test_a_damaged_result_is_named_and_the_others_are_drawn(
    places: Places, name: str, stem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = draw_asked([name], "three", ("pdf", "svg", "png"), places)
    assert files == [places.results / "figures" / f"{stem}.{end}" for end in ("pdf", "svg", "png")]
    starts = [file.read_bytes()[:5] for file in files]
    assert starts == [b"%PDF-", b"<?xml", b"\x89PNG\r"]
    told = capsys.readouterr().err
    assert told.startswith(f"left out: {places.results}/runs/quantizer=irnet.json: damaged")
    again = draw_asked([name], "three", ("pdf",), places)
    assert [file.read_bytes() for file in again] == [files[0].read_bytes()]
    assert b"/Type /Font" in files[0].read_bytes()  # letters, not outlines
    assert b"CreationDate" not in files[0].read_bytes()


def test_a_figure_of_the_logs_lies_beside_its_table(places: Places) -> None:
    """Results of an older version are drawn as others are."""
    (file,) = draw_asked(["scores"], "own", ("svg",), places)
    assert file == places.sweeps / "own" / "scores.svg"
    assert file.is_file()


@pytest.mark.parametrize(
    ("names", "table", "formats", "told"),
    [
        (["curvs"], "three", ["png"], "figure: there is no curvs; choose of curves, scores"),
        (["curves"], "three", ["jpg"], "format=jpg: choose of png, svg, pdf"),
        (["curves"], "tree", ["png"], "table=tree: no sweep has this name; there are: own, three"),
        (["curves"], "../three", ["png"], r"table=\.\./three: no sweep has this name"),
        (["curves"], "", ["png"], "table=: no sweep has this name"),
        (["curves"], None, ["png"], "figure=curves: of which table. there are: own, three"),
        (["classes"], "three", ["png"], "none of its results has an average precision by class"),
        (["ranks"], "three", ["png"], "none of its results has two seeds"),
        (["kernels"], "three", ["png"], "none of its results has histograms"),
        (["curves"], "efficiency", ["png"], "has the figure pareto alone"),
        (["pareto"], "own", ["png"], "none of its results has a score and costs, two rows"),
    ],
)
def test_a_mistake_is_one_line_with_the_choices(
    places: Places, names: list[str], table: str | None, formats: list[str], told: str
) -> None:
    with pytest.raises(ValueError, match=told) as error:
        draw_asked(names, table, formats, places)
    assert "\n" not in str(error.value)
    assert not (places.results / "figures").exists()


def test_an_older_sweep_says_what_to_do(places: Places, write) -> None:
    write(places.sweeps / "own" / "sweep.json", {"schema": 1})
    with pytest.raises(ValueError, match=r"is of version 1: python tools/rekey\.py"):
        draw_asked(["curves"], "own", ("png",), places)


def test_the_command(places: Places, tmp_path: Path) -> None:
    """A table may be called what Hydra would take for a number; nothing else is rendered."""
    (places.results / "sweeps" / "three.json").rename(places.results / "sweeps" / "3.json")

    def report(*words: str) -> Any:
        command = [sys.executable, str(ROOT / "src" / "report.py"), f"paths.root_dir={tmp_path}"]
        command += [f"paths.sweeps_dir={places.sweeps}", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = report("figure=curves", "table=3", "format=[svg,pdf]")
    assert done.returncode == 0, done.stderr
    names = [Path(line).name for line in done.stdout.splitlines()]
    assert names == ["3.svg", "3.pdf"]
    assert not (places.results / "tables").exists()
    refused = report("figure=curve", "table=3")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: figure: there is no curve; choose of curves, ")


def test_every_figure_can_be_asked_for_by_a_table_and_says_what_it_needs() -> None:
    assert TABLE_FIGURES == set(FIGURES) == set(_NEEDS)
