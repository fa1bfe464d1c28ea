"""Spread over settings and its heat map: hand-made sweeps, statistics of the standard library."""

import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from bnnbench.report.markup import MISSING
from bnnbench.report.render import render
from bnnbench.report.rows import group_cells
from bnnbench.report.sensitivity import grid_of, sensitivity, spread_table

SETTINGS = [
    "recipe.optimizer=adam recipe.lr=0.001 recipe.weight_decay=0.0",
    "recipe.optimizer=adam recipe.lr=0.0001 recipe.weight_decay=0.0",
    "recipe.optimizer=sgd recipe.lr=0.1 recipe.weight_decay=0.0001",
]
SCORES = {"xnor": (0.6, 0.5, 0.2), "adabin": (0.7, 0.69, None), "irnet": (None, None, None)}


@pytest.fixture
def sweep(make_manifest, make_result) -> tuple[dict[str, Any], dict[str, Any]]:
    results, cells = {}, []
    for method, accuracies in SCORES.items():
        for setting, acc in zip(SETTINGS, accuracies, strict=True):
            cells.append(cell := f"quantizer={method} {setting}")
            if acc is not None:
                results[cell] = make_result(method, acc)
    return make_manifest(*cells, figures=["sensitivity"]), results


def test_a_row_a_method_with_its_best_its_worst_and_the_spread(sweep, column) -> None:
    table = spread_table(sweep[0], group_cells(sweep[0], sweep[1], {}), "A table")
    assert table is not None
    assert column(table, "method") == ["xnor", "adabin", "irnet"]
    assert column(table, "settings") == ["3 of 3", "2 of 3", "0 of 3"]
    assert column(table, "best accuracy") == ["60.00", "70.00", MISSING]
    assert column(table, "best setting") == ["adam 0.001", "adam 0.001", MISSING]
    assert column(table, "worst setting") == ["sgd 0.1", "adam 0.0001", MISSING]
    assert column(table, "range") == ["40.00", "1.00", MISSING]
    deviation = statistics.stdev([60.0, 50.0, 20.0])
    assert column(table, "standard deviation")[0] == f"{deviation:.2f}"
    assert any("without some setting" in note for note in table.notes)


def test_seeds_of_a_setting_are_averaged(make_manifest, make_result) -> None:
    cells = [f"quantizer=xnor recipe.lr={lr} seed={s}" for lr in ("0.1", "0.2") for s in (0, 1)]
    accuracies = zip(cells, (0.1, 0.3, 0.5, 0.5), strict=True)
    results = {c: make_result("xnor", a, seed=int(c[-1])) for c, a in accuracies}
    manifest = make_manifest(*cells)
    grid = grid_of(manifest, group_cells(manifest, results, {}))
    assert grid is not None
    assert grid.of("xnor") == pytest.approx({"0.1": 20.0, "0.2": 50.0})


def test_a_setting_is_named_by_no_more_than_tells_it_apart(sweep) -> None:
    """The weight decay follows from the optimizer; without two settings there is no grid."""
    grid = grid_of(sweep[0], group_cells(sweep[0], sweep[1], {}))
    assert grid is not None
    assert grid.settings == ["adam 0.001", "adam 0.0001", "sgd 0.1"]


def test_a_sweep_of_methods_alone_has_no_grid(
    tmp_path: Path, make_manifest, make_result, sweep
) -> None:
    cells = ["quantizer=xnor", "quantizer=adabin"]
    manifest, results = make_manifest(*cells), {cell: make_result() for cell in cells}
    assert spread_table(manifest, group_cells(manifest, results, {}), "A table") is None
    assert not sensitivity(manifest, results, tmp_path / "none")
    assert not sensitivity(sweep[0], {}, tmp_path / "none")  # nothing was measured
    assert not list(tmp_path.iterdir())


def test_the_heat_map_has_each_score_in_its_cell(tmp_path: Path, sweep) -> None:
    assert sensitivity(sweep[0], sweep[1], tmp_path / "map", ("svg", "png"))
    told = re.findall("<!-- (.*?) -->", (tmp_path / "map.svg").read_text())
    for text in ("60.0", "50.0", "20.0", "70.0", "69.0", "xnor", "adabin", "irnet", "sgd 0.1"):
        assert told.count(text) == 1
    assert told.count(MISSING) == 4
    assert "test accuracy %, last epoch" in told


def test_the_table_that_asks_has_the_spread_beside_it(tmp_path: Path, sweep, write, hexed) -> None:
    manifest, results = sweep
    for cell in manifest["cells"]:
        cell["fingerprint"] = hexed(cell["fingerprint"])
    for run, result in results.items():
        result["fingerprint"] = hexed(run)
        write(tmp_path / "runs" / run / "result.json", result)
    path = write(tmp_path / "sweep" / "sweep.json", manifest)
    where = [tmp_path / "runs"], tmp_path / "sweep", tmp_path / "published"
    table = render(path, *where, formats=("png",))
    (note,) = [note for note in table.notes if note.startswith("over the settings")]
    assert "xnor 20.00 to 60.00, adabin 69.00 to 70.00; sensitivity.md has which" in note
    for name in ("sensitivity.md", "sensitivity.csv", "sensitivity.png"):
        assert (tmp_path / "sweep" / name).is_file()
    write(path, manifest | {"figures": ["curves"]})
    (tmp_path / "sweep" / "sensitivity.png").unlink()  # as long as it is there, it is asked for
    plain = render(path, *where, formats=("png",))
    assert not [note for note in plain.notes if "settings" in note]
    assert not (tmp_path / "sweep" / "sensitivity.png").exists()
