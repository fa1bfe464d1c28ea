"""Columns that compare a row with its full-precision twin: hand-made results, ratios by hand."""

from typing import Any

import pytest

from bnnbench.report.efficiency import Bench
from bnnbench.report.markup import MISSING
from bnnbench.report.tables import comparison

NAMES = ["relative", "train_time", "train_memory", "smaller", "fewer_ops", "smaller_file"]
CELLS = [
    f"quantizer={method} backbone.nonlinearity={kind} seed={seed}"
    for method, kind in (("fp32", "relu"), ("xnor", "identity"), ("adabin", "maxout"))
    for seed in (0, 1)
]
COST: dict[str, Any] = {"wall_s": 1.0, "images_per_s": 1.0}


@pytest.fixture
def results(make_result) -> dict[str, dict[str, Any]]:
    """fp32 and xnor at two seeds, of one structure; AdaBin's has no twin."""
    found = {}
    for cell, acc, train_s in zip(CELLS, (0.8, 0.5, 0.6, 0.4, 0.9, 0.9), (10, 20) * 3, strict=True):
        method = cell.split()[0][10:]
        plain = method == "fp32"
        found[cell] = make_result(
            method,
            acc,
            seed=int(cell[-1]),
            time=COST
            | {
                "train_s": train_s * (1 if plain else 1.5),
                "train_memory_mb": 100 if plain else 250,
            },
            operations={"ops": 6.4e7 if plain else 1e6, "packed_bytes": 3200 if plain else 100},
        )
    return found


def table_of(make_manifest, results, bench=None, columns=None) -> Any:
    names = {"backbone": "resnet20", "dataset": "cifar10", "recipe": "unified"}
    settings = {f"{group}.name": name for group, name in names.items()}
    table = {"name": "t", "columns": NAMES if columns is None else columns}
    return comparison(make_manifest(*CELLS, settings=settings, table=table), results, {}, None)


def test_each_seed_is_divided_by_its_own_twin(make_manifest, results, column) -> None:
    """60/80 and 40/50 %: 75 and 80; AdaBin, whose structure has no fp32 row, has dashes."""
    table = table_of(make_manifest, results)
    assert column(table, "% of twin") == [MISSING, "77.50 ± 3.54", MISSING]
    assert column(table, "train time") == [MISSING, "1.50 ± 0.00", MISSING]
    assert column(table, "train memory") == [MISSING, "2.50 ± 0.00", MISSING]
    assert column(table, "x smaller than twin") == [MISSING, "32.00 ± 0.00", MISSING]
    assert column(table, "x fewer OPs") == [MISSING, "64.00 ± 0.00", MISSING]
    assert "not measured of any row and its twin: x smaller file" in table.notes
    (seconds,) = [note for note in table.notes if note.startswith("train time / twin: ")]
    assert "train s is by the clock" in seconds


def test_a_table_that_does_not_ask_has_none_of_them(make_manifest, results) -> None:
    header = table_of(make_manifest, results, columns=[]).header
    assert not [name for name in header if "twin" in name and name != "gap to twin"]


@pytest.mark.parametrize("fact", ["device", "precision", "compiled"])
def test_times_of_unlike_machines_are_not_compared(
    make_manifest, results, column, fact: str
) -> None:
    """Scores and counted costs are."""
    for cell in CELLS[2:4]:
        results[cell][fact] = "other"
    table = table_of(make_manifest, results)
    assert not [name for name in table.header if name.startswith("train time")]
    unmeasured = "train time / twin, train memory / twin, x smaller file"
    assert f"not measured of any row and its twin: {unmeasured}" in table.notes
    assert column(table, "% of twin")[1] == "77.50 ± 3.54"
    assert column(table, "x fewer OPs")[1] == "64.00 ± 0.00"


def test_processor_time_is_compared_where_both_have_it(make_manifest, results, column) -> None:
    """The clock has run twice as long for the method as its processor: something else ran."""
    for cell, cpu_s in zip(CELLS[:3], (10, 20, 12), strict=True):
        results[cell]["time"]["cpu_s"] = cpu_s
    table = table_of(make_manifest, results)
    assert column(table, "train time")[1] == "1.35 ± 0.21"  # 12 / 10, and by the clock 1.5
    assert "train s" in table.header
    for cell in CELLS:
        results[cell]["time"]["cpu_s"] = 10
    table = table_of(make_manifest, results)
    assert column(table, "train time")[1] == "1.00 ± 0.00"
    assert column(table, "train CPU s") == ["10.0"] * 3
    assert "train s" not in table.header


def test_a_run_of_other_data_or_length_is_compared_with_no_twin(
    make_manifest, results, column
) -> None:
    results[CELLS[2]]["epochs"] = 5
    assert column(table_of(make_manifest, results), "% of twin")[1] == "80.00"


def test_the_file_against_the_float_network(make_manifest, make_result, make_speeds, column):
    config = {
        "quantizer": {"name": "adabin", "t_max": 10.0},
        "backbone": {"name": "resnet20"},
        "dataset": {"in_channels": 3, "image_size": 32},
    }
    manifest = make_manifest("quantizer=adabin", table={"name": "t", "columns": ["smaller_file"]})
    results = {"quantizer=adabin": make_result(config=config)}
    bench = Bench("bench/cpu.json", make_speeds())
    table = comparison(manifest, results, {}, bench=bench)
    assert column(table, "x smaller file") == ["17.7"]  # 1085048 / 61256
    assert "x smaller file" not in comparison(manifest, results, {}).header
