"""Times in tables: whose they are, where there are none, and the tables of a bench file."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bnnbench.report.efficiency import Bench, bench_of, tables, times_of
from bnnbench.report.tables import comparison

DASH = "\N{EN DASH}"


@pytest.fixture
def adabin(make_result) -> dict:
    """A result of what the bench file has timed."""
    config = {
        "quantizer": {"name": "adabin", "t_max": 10.0},
        "backbone": {"name": "resnet20"},
        "dataset": {"in_channels": 3, "image_size": 32},
    }
    return make_result(config=config)


def changed(result: dict, *path: str, to: object) -> dict:
    """The result with one value of it changed."""
    made = copy.deepcopy(result)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return made


def test_times_are_those_of_the_same_network(adabin: dict, make_speeds) -> None:
    times = times_of(adabin, Bench("a.json", make_speeds()))
    assert times == (0.5, 3.0, 2.0)


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("config", "quantizer", "name"), "xnor"),
        (("config", "quantizer", "t_max"), 20.0),
        (("config", "backbone", "name"), "resnet18"),
        (("config", "dataset", "image_size"), 8),
        (("config", "dataset", "in_channels"), 1),
        (("operations", "params"), 70000),  # a quarter of the width
        (("structure", "shortcut"), "block"),
        (("structure",), {"norm": "none"}),
        (("export",), {"work": "f" * 16, "bytes": 1}),
    ],
)
def test_another_network_has_none(adabin: dict, make_speeds, path: tuple, to: object) -> None:
    assert times_of(changed(adabin, *path, to=to), Bench("a.json", make_speeds())) is None


def test_an_exported_network_has_those_of_equal_work_whatever_it_is_called(
    make_result, make_speeds
) -> None:
    other = make_result("irnet", export={"work": "0123456789abcdef", "bytes": 1})
    times = times_of(other, Bench("a.json", make_speeds()))
    assert times is not None
    assert times.ms == 0.5


def test_full_precision_has_the_faster_of_its_ways(adabin: dict, make_speeds) -> None:
    plain = changed(adabin, "config", "quantizer", "name", to="fp32")
    times = times_of(plain, Bench("a.json", make_speeds()))
    assert times is not None
    assert (times.ms, times.x_float) == (1.5, 1.0)


def test_without_a_bench_file_there_are_none(adabin: dict) -> None:
    assert times_of(adabin, None) is None


def test_a_table_shows_times_and_measured_sizes(
    adabin: dict, make_manifest, make_result, make_speeds, column
) -> None:
    export = {"bytes": 61256, "header_bytes": 1, "sha256": "", "work": "0123456789abcdef"}
    manifest = make_manifest("quantizer=adabin", "quantizer=xnor")
    results = {"quantizer=adabin": adabin | {"export": export}}
    results |= {"quantizer=xnor": make_result("xnor")}
    table = comparison(manifest, results, {}, bench=Bench("bench/a.json", make_speeds()))
    assert column(table, "CPU ms") == ["0.500", DASH]
    assert column(table, "x float") == ["3.00", DASH]
    assert column(table, "x int8") == ["2.00", DASH]
    assert column(table, "packed MB") == ["0.0613", DASH]
    assert column(table, "counted MB") == ["0.0490", "0.0490"]
    (note,) = (note for note in table.notes if note.startswith("CPU ms"))
    assert "A CPU (avx2), bench/a.json" in note
    assert any(note.startswith("packed MB: of the exported file") for note in table.notes)


def test_a_table_of_which_nothing_was_timed_or_exported_is_what_it_was(
    make_manifest, make_result, make_speeds
) -> None:
    manifest, results = make_manifest("quantizer=xnor"), {"quantizer=xnor": make_result("xnor")}
    with_bench = comparison(manifest, results, {}, bench=Bench("a.json", make_speeds()))
    assert with_bench == comparison(manifest, results, {})
    assert "packed MB" in with_bench.header


def test_the_table_of_a_bench_file(make_speeds, column) -> None:
    ((name, table),) = tables(make_speeds(), "results/bench/a.json")
    assert name == "efficiency"
    assert column(table, "method") == ["fp32", "int8", "adabin"]
    assert column(table, "W/A bits") == ["32/32", "8/8", "1/1"]
    assert column(table, "file MB") == ["1.09", DASH, "0.0613"]
    assert column(table, "ms,") == ["1.5", "1", "0.5"]
    assert column(table, "x float") == [
        "1.00 (0.00 to 2.00)",
        "1.50 (0.50 to 2.50)",
        "3.00 (2.00 to 4.00)",
    ]
    assert column(table, "x simulated") == [DASH, DASH, "12.00 (11.00 to 13.00)"]
    notes = " ".join(table.notes)
    assert "A CPU, 2 cores, load 0.5 as it began; kernel avx2" in notes
    assert "no ratio of them a speed" in notes


def test_contenders_that_were_not_timed_are_named(make_speeds) -> None:
    left = {"network": "resnet20", "way": "int8", "batch": 1, "why": "a trace gave up"}
    (_, table), *_ = tables(make_speeds(left_out=[left]), "a.json")
    assert "not timed: int8 of resnet20, batch 1: a trace gave up" in table.notes


def test_the_newest_bench_file_counts_and_a_damaged_one_stops_no_table(
    tmp_path: Path, make_speeds, write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_of(tmp_path) is None
    write(tmp_path / "bench" / "a.json", make_speeds(date="2026-03-01T00:00:00+00:00"))
    write(tmp_path / "bench" / "b.json", make_speeds())
    found = bench_of(tmp_path)
    assert found is not None
    assert found.name == f"{tmp_path.name}/bench/a.json"
    write(tmp_path / "bench" / "b.json", {"schema": 2})
    assert bench_of(tmp_path) is None
    assert "b.json is no bench file" in capsys.readouterr().err


def test_no_torch_is_needed(tmp_path: Path, make_speeds, write) -> None:
    file = write(tmp_path / "a.json", make_speeds())
    program = (
        "import json, sys; from bnnbench.report.efficiency import tables; "
        "from bnnbench.report import pareto; "
        f"tables(json.load(open({str(file)!r})), 'a'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_layers_have_a_row_each(make_speeds, column) -> None:
    row = {
        "layer": "64 x 56²",
        "microseconds": {"1 bit": [1.0, 2.0, 3.0], "int8": [3.0, 4.0, 5.0]},
        "x float": [4.0, 5.0, 6.0],
        "x int8": [1.0, 2.0, 3.0],
        "of the limit": None,
    }
    part = {"set": "a set", "threads": 2, "rows": [row]}
    (_, _), (name, table) = tables(make_speeds(layers=[part]), "a.json")
    assert name == "efficiency_layers"
    assert column(table, "layer") == ["a set"]
    assert column(table, "1 bit") == ["2"]
    assert column(table, "of the register") == [DASH]
    assert json.dumps(table.rows)
