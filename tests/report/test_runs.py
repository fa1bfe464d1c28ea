"""The tidy table of runs, read back by another library's reader."""

import csv
import io
import json

from bnnbench.report.reading import Found
from bnnbench.report.runs import runs_csv, runs_name

CELLS = ["quantizer=adabin seed=0", "quantizer=adabin seed=1", "quantizer=xnor loss.lambda=1e-4"]


def records(text: str) -> list[dict]:
    """Rows of CSV; what JSON reads as a number, true or false is one, "" is unknown."""

    def value(cell: str):
        try:
            return json.loads(cell) if cell else None
        except ValueError:
            return cell

    return [{k: value(v) for k, v in row.items()} for row in csv.DictReader(io.StringIO(text))]


def test_a_row_a_run_with_numbers_as_numbers(make_manifest, make_result, published):
    manifest = make_manifest(*CELLS, "quantizer=bnn", settings={"backbone.name": "resnet20"})
    accuracy = 0.6978999972343445
    result = make_result(acc=accuracy, fingerprint=CELLS[0], source_hash="old")
    result["metrics"]["last"] |= {"test/nll": 0.25, "test/ece": None}
    found = Found({CELLS[0]: result}, {CELLS[1]: "Error"}, {CELLS[2]: "damaged"})
    rows = records(runs_csv(manifest, found, published, {CELLS[0]: "new"}))
    assert [row["state"] for row in rows] == ["finished", "failed", "damaged", "missing"]
    assert [row["run"] for row in rows] == [cell["run"] for cell in manifest["cells"]]
    assert [row["seed"] for row in rows] == [0, 1, None, None]
    assert [row["loss.lambda"] for row in rows] == [None, None, 1e-4, None]
    assert [row["published"] for row in rows] == [88.2, 88.2, None, None]
    first = rows[0]
    assert first["last_percent"] == 100 * accuracy
    assert first["test/acc"] == accuracy
    assert (first["test/nll"], first["test/ece"]) == (0.25, None)
    assert (first["best_percent"], first["best_epoch"]) == (91.0, 1)
    assert (first["epochs"], first["planned_epochs"], first["ended"]) == (2, 2, None)
    assert (first["params"], first["ops"]) == (271262, 1.07e6)
    assert (first["dirty"], first["stale"]) == (False, True)
    assert (first["headline"], first["published_metric"]) == ("test/acc", "top1")
    assert (first["quantizer"], first["teacher"], first["recipe"]) == ("adabin", "none", "unified")
    assert rows[3]["backbone"] == "resnet20"  # known although it was not run
    assert (rows[1]["last_percent"], rows[1]["stale"]) == (None, None)


def test_cells_that_share_a_run_have_a_row_each(make_manifest, make_result):
    manifest = make_manifest("quantizer=adabin loss=task", "quantizer=adabin loss=same")
    first, second = manifest["cells"]
    second |= {key: first[key] for key in ("run", "fingerprint")}
    results = {first["run"]: make_result()}
    rows = records(runs_csv(manifest, Found(results, {}, {}), None, {}))
    assert [row["last_percent"] for row in rows] == [90.0, 90.0]


def test_lists_and_what_was_not_resolved(make_manifest):
    manifest = make_manifest("backbone.widths=[16,16,32,64]", "backbone.widths=[32,32,64,128]")
    rows = records(runs_csv(manifest, Found({}, {}, {}), None, {}))
    assert [row["backbone.widths"] for row in rows] == ["16-16-32-64", "32-32-64-128"]


def test_no_cells_are_no_rows(make_manifest):
    assert records(runs_csv(make_manifest(), Found({}, {}, {}), None, {})) == []


def test_the_file_beside_a_table():
    assert [runs_name(stem) for stem in ("table", "adabin")] == ["runs.csv", "adabin_runs.csv"]
