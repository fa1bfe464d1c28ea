"""Comparison tables of hand-written sweeps; statistics against the standard library."""

import statistics
from typing import Any

import pytest

from bnnbench.report.markup import MISSING
from bnnbench.report.relative import COLUMNS
from bnnbench.report.tables import _EXTRA_COLUMNS, comparison, scientific, significant, spread
from bnnbench.sweep.expand import TABLE_COLUMNS


def notes_with(table: Any, text: str) -> list[str]:
    return [note for note in table.notes if text in note]


def test_seeds_are_one_row_with_mean_and_sample_deviation(make_manifest, make_result, column):
    cells = [f"quantizer=adabin seed={s}" for s in (0, 1, 2)] + ["quantizer=xnor seed=0"]
    accuracies = [0.9, 0.925, 0.91]
    results = {c: make_result(acc=a) for c, a in zip(cells, accuracies, strict=False)}
    results[cells[3]] = make_result("xnor", acc=0.85123)
    table = comparison(make_manifest(*cells), results, {})
    percent = [100 * a for a in accuracies]
    expected = f"{statistics.mean(percent):.2f} ± {statistics.stdev(percent):.2f}"
    assert table.header[0] == "quantizer"
    assert column(table, "quantizer") == ["adabin", "xnor"]
    assert column(table, "accuracy") == [expected, "85.12"]
    assert column(table, "best epoch") == ["91.00 ± 0.00", "91.00"]
    assert column(table, "seeds") == ["3", "1"]
    assert notes_with(table, "selected on test data")


def test_number_formats(make_manifest, make_result, column):
    table = comparison(make_manifest("quantizer=adabin"), {"quantizer=adabin": make_result()}, {})
    assert column(table, "W/A") == ["1/1"]
    assert column(table, "OPs") == ["1.070e6"]
    assert column(table, "params") == ["0.271"]
    assert column(table, "packed MB") == ["0.0490"]
    assert column(table, "train s") == ["12.3"]
    assert column(table, "epochs") == ["2"]


@pytest.mark.parametrize(
    ("value", "text"), [(2.1604, "2.16"), (45.1, "45.1"), (123.4, "123"), (999.7, "1000")]
)
def test_significant_digits(value, text):
    assert significant(value) == text


def test_scientific_and_spread():
    assert [scientific(v) for v in (1.662e7, 999.96)] == ["1.662e7", "1.000e3"]
    assert spread([]) == MISSING


def test_missing_and_failed_cells(make_manifest, make_result, column):
    cells = [f"quantizer={q} seed={s}" for q in ("adabin", "xnor", "irnet") for s in (0, 1)]
    failures = dict.fromkeys(cells[3:5], "Traceback ...\n  more\nRuntimeError: loss is nan\n\n")
    table = comparison(make_manifest(*cells), {cells[2]: make_result("xnor")}, failures)
    assert column(table, "accuracy") == [MISSING, "90.00", "failed"]
    assert column(table, "seeds") == [MISSING, "1 of 2", MISSING]
    assert column(table, "OPs") == [MISSING, "1.070e6", MISSING]
    assert notes_with(table, "failed: ") == [
        "failed: quantizer=xnor seed=1: RuntimeError: loss is nan",
        "failed: quantizer=irnet seed=0: RuntimeError: loss is nan",
    ]


def test_a_sweep_of_nothing_and_a_bare_result_do_not_crash(make_manifest):
    assert comparison(make_manifest(), {}, {}).rows == []
    bare = {"schema": 2, "choices": {}, "metrics": {"last": {}}, "bits": None, "history": None}
    table = comparison(make_manifest("quantizer=adabin"), {"quantizer=adabin": bare}, {})
    assert table.header == ["quantizer", "W/A bits", "seeds"]  # no column of dashes
    assert table.rows == [["adabin", MISSING, "1"]]


def test_varying_keys_are_columns_quantizer_first(make_manifest, make_result, column):
    cells = [
        f"recipe.lr={lr} backbone={b} quantizer={q}"
        for lr in ("0.1",)
        for b in ("resnet20", "vgg_small")
        for q in ("adabin", "xnor")
    ]
    table = comparison(make_manifest(*cells), {cells[0]: make_result()}, {})
    assert table.header[:3] == ["quantizer", "backbone", "W/A bits"]
    assert column(table, "backbone") == ["resnet20"] * 2 + ["vgg_small"] * 2
    only = comparison(make_manifest("backbone=a", "backbone=b"), {}, {})
    assert only.header[0] == "backbone"


def test_rows_keep_their_order_within_a_backbone(make_manifest, column):
    cells = [f"quantizer={q} backbone={b}" for q in ("z", "a") for b in ("resnet20", "vgg_small")]
    table = comparison(make_manifest(*cells), {}, {})
    assert column(table, "backbone") == ["resnet20", "resnet20", "vgg_small", "vgg_small"]
    assert column(table, "quantizer") == ["z", "a", "z", "a"]


def test_a_run_that_stands_twice_counts_once(make_manifest, make_result, column):
    manifest = make_manifest("quantizer=adabin", "quantizer=adabin")
    table = comparison(manifest, {"quantizer=adabin": make_result()}, {})
    assert column(table, "seeds") == ["1"]


def test_shared_facts_are_a_note_and_differing_ones_columns(make_manifest, make_result, column):
    other = {"shortcut": "block", "nonlinearity": "maxout", "head_norm": False}
    results = {
        "quantizer=adabin": make_result(),
        "quantizer=fp32": make_result("fp32", structure=other, bits={"w": 32, "a": 32}),
    }
    table = comparison(make_manifest(*results), results, {})
    assert column(table, "shortcut") == ["conv", "block"]
    assert column(table, "head norm") == ["yes", "no"]
    assert "nonlinearity" not in table.header
    (shared,) = notes_with(table, "all rows: ")
    for fact in ("nonlinearity maxout", "recipe unified", "device cpu: a processor, 1 thread"):
        assert fact in shared
    assert column(table, "W/A") == ["1/1", "32/32"]
    assert notes_with(table, "not ranked")


def test_another_nonlinearity_behind_the_stem_is_a_column(make_manifest, make_result, column):
    """Results say nothing of it where it is the blocks' own."""
    own = make_result()
    none = make_result("reactnet", structure=own["structure"] | {"stem_nonlinearity": "identity"})
    results = {"quantizer=adabin": own, "quantizer=reactnet": none}
    table = comparison(make_manifest(*results), results, {})
    assert column(table, "behind the stem") == ["same", "identity"]


def test_option_columns_hold_resolved_values_of_cells_not_run_too(
    make_manifest, make_result, column
):
    cells = ["quantizer=fp32", "quantizer=fp32 backbone.nonlinearity=prelu", "quantizer=bwn"]
    manifest = make_manifest(*cells)
    manifest["cells"][0]["settings"] |= {"backbone.nonlinearity": "maxout"}
    for results in ({}, {cells[0]: make_result("fp32")}):
        table = comparison(manifest, results, {})
        assert column(table, "backbone.nonlinearity") == ["maxout", "prelu", MISSING]
        assert "nonlinearity" not in table.header  # the fact behind it needs no second column
        assert "default" not in table.markdown()


def test_values_of_options_have_one_form(make_manifest, column):
    cells = [f"quantizer=a{i}" for i in range(5)]
    values = [True, False, None, 1e-4, [1, 2]]
    manifest = make_manifest(*cells)
    manifest["swept"].append("loss.x")
    for cell, value in zip(manifest["cells"], values, strict=True):
        cell["settings"]["loss.x"] = value
    table = comparison(manifest, {}, {})
    assert column(table, "loss.x") == ["yes", "no", "none", "0.0001", "1-2"]


def test_a_swept_group_of_values_is_told_by_its_leaves(make_manifest, column):
    manifest = make_manifest("quantizer=a recipe.groups=x", "quantizer=b")
    manifest["cells"][0]["settings"] = {"recipe.groups.scale.lr": 0.1, "recipe.groups.norm.lr": 1}
    table = comparison(manifest, {}, {})
    assert column(table, "recipe.groups") == ["scale.lr=0.1 norm.lr=1", MISSING]


def test_options_in_which_all_rows_agree_are_a_note(make_manifest, make_result, column):
    cells = ["quantizer=adabin recipe=native", "quantizer=xnor recipe=unified"]
    manifest = make_manifest(*cells, settings={"loss.name": "task"})
    manifest["cells"][0]["settings"]["recipe.name"] = "unified"  # there is no native file
    table = comparison(manifest, {}, {})
    assert table.header[:2] == ["quantizer", "W/A bits"]
    assert "all rows: recipe unified" in table.notes
    alone = comparison(make_manifest("quantizer=adabin"), {}, {})
    assert column(alone, "quantizer") == ["adabin"]  # something has to name a row
    assert not notes_with(alone, "quantizer adabin")


def test_rows_without_a_native_recipe_are_named(make_manifest, make_result):
    cells = [f"quantizer={q} dataset=cifar10 recipe=native seed={s}" for q in "ab" for s in (0, 1)]
    cells.append("quantizer=c dataset=cifar10 recipe=unified")
    manifest = make_manifest(*cells)
    for cell in manifest["cells"][2:4]:
        cell["settings"]["recipe.name"] = "unified"
    table = comparison(manifest, {}, {})
    (note,) = notes_with(table, "no native recipe")
    assert note.endswith(": b cifar10")
    choices = make_result()["choices"] | {"recipe": "unified"}
    ran = {cells[2]: make_result("b", choices=choices)}
    (note,) = notes_with(comparison(manifest, ran, {}), "no native recipe")
    assert note.endswith(": b cifar10 resnet20")


def test_cells_that_share_a_run_keep_their_rows(make_manifest, make_result, column):
    manifest = make_manifest("quantizer=adabin loss=task", "quantizer=adabin loss=same")
    first, second = manifest["cells"]
    second |= {key: first[key] for key in ("run", "fingerprint")}
    results = {first["run"]: make_result()}
    assert column(comparison(manifest, results, {}), "accuracy") == ["90.00", "90.00"]


def test_runs_on_data_of_two_folders_keep_their_numbers(make_manifest, make_result, column):
    """They have one fingerprint: what the data hold is no part of it, and names tell them apart."""
    manifest = make_manifest("dataset.folder=a/set", "dataset.folder=b/set")
    first, second = manifest["cells"]
    second |= {"run": f"{first['run']}_data1234", "fingerprint": first["fingerprint"]}
    results = {first["run"]: make_result(acc=0.9), second["run"]: make_result(acc=0.8)}
    assert column(comparison(manifest, results, {}), "accuracy") == ["90.00", "80.00"]


def test_optimiser_and_schedule_are_facts(make_manifest, make_result, column):
    recipe = {"optimizer": "adam", "schedule": "cosine"}
    results = {
        "quantizer=adabin": make_result(config={"recipe": recipe}),
        "quantizer=wage": make_result("wage", config={"recipe": recipe | {"optimizer": "wage"}}),
    }
    table = comparison(make_manifest(*results), results, {})
    assert column(table, "optimizer") == ["adam", "wage"]
    assert "schedule cosine" in notes_with(table, "all rows: ")[0]


def test_a_run_that_ended_early_says_so(make_manifest, make_result, column):
    early = {"ended": "max_time", "epochs": 3, "planned_epochs": 10, "train_images": 7680}
    limited = {"ended": "limit_train_batches=3", "epochs": 10, "planned_epochs": 10}
    results = {
        "quantizer=adabin": make_result(epochs=10, planned_epochs=10),
        "quantizer=xnor": make_result("xnor", **early),
        "quantizer=bnn": make_result("bnn", **limited),
    }
    table = comparison(make_manifest(*results), results, {})
    assert column(table, "epochs") == ["10", "3 of 10", "10"]
    assert column(table, "ended") == [MISSING, "max_time", "limit_train_batches=3"]
    assert column(table, "training images") == ["50000", "7680", "50000"]
    results = {"quantizer=xnor": results["quantizer=xnor"]}
    alone = comparison(make_manifest(*results), results, {})
    assert "ended max_time" in notes_with(alone, "all rows: ")[0]


def test_results_without_a_data_stamp_are_counted_in_one_note(make_manifest, make_result):
    results = {f"quantizer={q}": make_result(q, data_stamp=None) for q in ("adabin", "xnor")}
    results["quantizer=bnn"] = make_result("bnn")
    table = comparison(make_manifest(*results), results, {})
    assert notes_with(table, "data stamp") == ["data stamp unknown: 2 of 3 results"]
    assert not notes_with(table, "not comparable")


def test_rows_on_other_data_of_the_same_name_are_told(make_manifest, make_result) -> None:
    cells = ["quantizer=bnn", "quantizer=xnor"]
    results = {
        cell: make_result(cell[10:], data_stamp=f"sha256:{letter * 64}", name=cell[10:])
        for cell, letter in zip(cells, "ab", strict=True)
    }
    (note,) = notes_with(comparison(make_manifest(*cells), results, {}), "not comparable")
    assert "sha256:aaaaaaaa: bnn; sha256:bbbbbbbb: xnor" in note
    known = {"quantizer=bnn": results["quantizer=bnn"]}
    assert not notes_with(comparison(make_manifest(*known), known, {}), "data stamp")


def test_a_damaged_cell_is_named_and_stops_nothing(make_manifest, make_result, column):
    cells = ["quantizer=adabin", "quantizer=xnor"]
    damaged = {cells[1]: "runs/xnor/result.json is damaged (line 3)"}
    table = comparison(make_manifest(*cells), {cells[0]: make_result()}, {}, damaged=damaged)
    assert column(table, "accuracy") == ["90.00", "damaged"]
    assert notes_with(table, "damaged: ") == [f"damaged: quantizer=xnor: {damaged[cells[1]]}"]


def test_a_sweep_that_failed_whole_has_its_own_headline(make_manifest, column):
    cells = ["quantizer=adabin", "quantizer=xnor"]
    manifest = make_manifest(*cells, headline="test/map")
    table = comparison(manifest, {}, dict.fromkeys(cells, "KeyError: 1"))
    assert column(table, "mAP % (last epoch)") == ["failed", "failed"]
    assert not [name for name in table.header if "accuracy" in name]
    assert "COCO mAP %" in table.header
    table = comparison(make_manifest(*cells), {}, dict.fromkeys(cells, "KeyError: 1"))
    assert "COCO mAP %" not in table.header


def test_undefined_and_absent_headlines_are_dashes(make_manifest, make_result, column):
    results = {f"quantizer={q}": make_result(q) for q in ("adabin", "xnor", "bnn")}
    results["quantizer=xnor"]["metrics"]["last"]["test/acc"] = None
    results["quantizer=xnor"]["metrics"]["best"]["test/acc"] = None
    results["quantizer=bnn"] |= {"headline": None, "metrics": {"last": {}, "best": {}}}
    table = comparison(make_manifest(*results), results, {})
    assert column(table, "accuracy") == ["90.00", MISSING, MISSING]
    assert column(table, "best epoch") == ["91.00", MISSING, MISSING]


def test_metrics_that_a_table_asks_for(make_manifest, make_result, column):
    asked = {"title": "T", "columns": ["nll", "brier", "ece", "top5"]}
    manifest = make_manifest("quantizer=adabin", "quantizer=xnor", table=asked)
    result = make_result()
    values = {"nll": 0.4321, "brier": 0.15, "ece": 0.0321, "top5": None}
    result["metrics"]["last"] |= {f"test/{name}": value for name, value in values.items()}
    table = comparison(manifest, {"quantizer=adabin": result}, {})
    assert column(table, "NLL") == ["0.43", MISSING]
    assert column(table, "Brier") == ["0.15", MISSING]
    assert column(table, "ECE %") == ["3.21", MISSING]
    assert not [name for name in table.header if name.startswith("top-5")]  # nothing to show
    plain = comparison(make_manifest("quantizer=adabin"), {"quantizer=adabin": result}, {})
    assert not {"NLL", "Brier", "ECE %"} & set(plain.header)


def test_bases_are_shown_when_not_one(make_manifest, make_result, column):
    result = make_result("ienet", bases={"w": 1, "a": 2})
    table = comparison(make_manifest("quantizer=ienet"), {"quantizer=ienet": result}, {})
    assert column(table, "W/A") == ["1/1x2"]


def test_published_numbers_and_difference(make_manifest, make_result, published, column):
    cells = ["quantizer=adabin backbone=resnet20", "quantizer=bnn backbone=resnet20"]
    manifest = make_manifest(*cells, table={"title": "T", "published": "t", "notes": ["mind"]})
    table = comparison(manifest, {cells[0]: make_result(acc=0.87)}, {}, published)
    assert table.title == "T"
    assert column(table, "quantizer") == ["adabin", "bnn", "slb"]  # slb: published only
    assert column(table, "published") == ["88.2", MISSING, "85.5†"]
    assert column(table, "delta") == ["-1.20", MISSING, MISSING]
    assert column(table, "accuracy") == ["87.00", MISSING, MISSING]
    assert column(table, "W/A") == ["1/1", MISSING, "1/1"]
    assert notes_with(table, "† recalled")
    assert notes_with(table, "400 epochs")
    assert notes_with(table, "results/published/t.yaml")
    assert "mind" in table.notes


def test_no_dagger_no_footnote(make_manifest, make_result, published):
    published["rows"].pop()
    table = comparison(make_manifest("quantizer=adabin"), {}, {}, published)
    assert not notes_with(table, "†")


def test_demo_gives_no_difference_and_says_why(make_manifest, make_result, published, column):
    cell = "quantizer=adabin backbone=resnet20"
    choices = make_result()["choices"] | {"dataset": "digits"}
    manifest = make_manifest(cell, scale="demo", scale_notes="demo: digits stand in")
    table = comparison(manifest, {cell: make_result(choices=choices)}, {}, published)
    assert "delta" not in table.header
    assert column(table, "published") == ["88.2", "85.5†"]
    assert table.title.endswith("(scale=demo)")
    assert "demo: digits stand in" in table.notes
    assert notes_with(table, "measured on digits, published on cifar10: not comparable")
    same = comparison(manifest, {cell: make_result()}, {}, published)
    assert "delta" not in same.header
    assert notes_with(same, "scale=demo is far shorter")
    manifest["scale"] = "full"  # still another data set
    table = comparison(manifest, {cell: make_result(choices=choices)}, {}, published)
    assert "delta" not in table.header


def test_no_difference_to_held_out_data(make_manifest, make_result, published):
    cell = "quantizer=adabin backbone=resnet20"
    metrics = {"last": {"val/acc": 0.8}, "best": {"val/acc": 0.9, "epoch": 0}}
    result = make_result()
    result |= {"metrics": metrics, "headline": "val/acc"}
    table = comparison(make_manifest(cell), {cell: result}, {}, published)
    assert "delta" not in table.header
    assert notes_with(table, "evaluated on val")
    assert notes_with(table, "selected on held-out data")


def test_published_rows_that_are_not_the_plain_method_stay_apart(
    make_manifest, make_result, published, column
):
    adabin = published["rows"][0]
    others = {key: value for key, value in adabin.items() if key != "run"}
    two_step = others | {"training": "two_step", "label": "AdaBin (two-step)"}
    weights = others | {"bits": {"w": 1, "a": 32}, "values": {"top1": 90.0}}
    published["rows"] = [two_step, adabin, weights]
    cell = "quantizer=adabin backbone=resnet20"
    table = comparison(make_manifest(cell), {cell: make_result()}, {}, published)
    named = dict(zip(column(table, "quantizer"), column(table, "W/A"), strict=True))
    assert named == {"adabin": "1/32", "adabin: AdaBin (two-step)": "1/1"}
    assert column(table, "published") == ["88.2", "88.2", "90.0"]


def test_a_number_of_several_steps_stands_beside_a_run_of_several_steps(
    make_manifest, make_result, published, column
):
    adabin = published["rows"][0] | {"values": {"top1": 63.1}}
    adabin["run"] |= {"recipe": ["unified", "native"]}
    two_step = adabin | {"training": "two_step", "values": {"top1": 66.4}}
    two_step["run"] = adabin["run"] | {"recipe": ["two_step", "reactnet"]}
    stages = adabin | {"method": "r2b", "training": "multi_stage", "values": {"top1": 65.4}}
    stages["run"] = adabin["run"] | {"quantizer": "r2b", "recipe": ["two_step", "native"]}
    published["rows"] = [adabin, two_step, stages]
    cells = [
        "quantizer=adabin backbone=resnet20 recipe=native",  # its own, in one step
        "quantizer=adabin backbone=resnet20 recipe=two_step",
        "quantizer=adabin backbone=resnet20 recipe=reactnet",
        "quantizer=r2b backbone=resnet20 recipe=native",
        "quantizer=r2b backbone=resnet20 recipe=unified",  # not as it was published
    ]
    table = comparison(make_manifest(*cells), {}, {}, published)
    assert column(table, "published") == ["63.1", "66.4", "66.4", "65.4", MISSING]


def test_what_is_usual_is_said_where_another_row_differs(make_manifest, make_result, column):
    taught = make_result("xnor")
    taught["choices"] = taught["choices"] | {"teacher": "joint"}
    taught["structure"] = taught["structure"] | {"norm": "none"}
    results = {"quantizer=adabin": make_result(), "quantizer=xnor": taught}
    table = comparison(make_manifest(*results), results, {})
    assert column(table, "teacher") == ["none", "joint"]
    assert column(table, "norms") == ["batch", "none"]
    cells = ["quantizer=adabin", "quantizer=xnor teacher=joint"]
    results = dict(zip(cells, results.values(), strict=True))
    table = comparison(make_manifest(*cells), results, {})
    assert column(table, "teacher") == ["none", "joint"]


def test_results_older_than_the_code_are_marked(make_manifest, make_result, column):
    names = [f"quantizer={q}" for q in ("adabin", "xnor", "irnet")]
    results = {name: make_result(name.split("=")[1], fingerprint=name) for name in names}
    hashes = {names[0]: "bbb", names[1]: "aaa"}  # the results say aaa
    table = comparison(make_manifest(*results), results, {}, source_hashes=hashes)
    assert column(table, "accuracy") == ["90.00*", "90.00", "90.00"]
    assert notes_with(table, "force=true")


def test_uncommitted_changes_are_named(make_manifest, make_result):
    git = {"commit": "abcdef0123456", "dirty": True}
    results = {"quantizer=xnor": make_result("xnor", git=git), "quantizer=bnn": make_result("bnn")}
    table = comparison(make_manifest(*results), results, {})
    (note,) = notes_with(table, "measured at commit")
    assert note.endswith("abcdef0123 with uncommitted changes, 0123456789")


def test_a_table_that_trained_nothing_shows_the_columns_it_asked_for(
    make_manifest, make_result, published, column
):
    sizes = {"params": 100, "fp32_bytes": 400, "packed_bytes": 40, "scale_bytes": 10}
    cells = ["quantizer=adabin backbone=resnet20", "quantizer=xnor backbone=resnet20"]
    result = make_result(operations=sizes, time={"train_s": None})
    result["metrics"] = {"last": {}, "best": {}}
    published["metric"] = {"name": "compression", "unit": "ratio", "higher_is_better": True}
    published["rows"] = [published["rows"][0] | {"values": {"compression": 9.5}}]
    named = {"title": "T", "columns": ["compression", "compression_with_scales"]}
    manifest = make_manifest(*cells, table=named, scale="demo")
    table = comparison(manifest, {cells[0]: result}, {}, published)
    assert not notes_with(table, "not comparable")
    assert column(table, "published compression") == ["9.5", MISSING]
    assert column(table, "compression") == ["10.00", MISSING]
    assert column(table, "compression with scales") == ["8.00", MISSING]
    absent = ("accuracy", "best epoch", "published %", "train s", "delta")
    assert not [name for name in table.header if name.startswith(absent)]
    trained = comparison(manifest, {cells[0]: make_result(acc=0.87)}, {}, published)
    assert column(trained, "accuracy") == ["87.00", MISSING]


def test_the_columns_a_table_may_ask_for_are_those_there_are():
    assert {*_EXTRA_COLUMNS, *COLUMNS, "smaller_file"} == TABLE_COLUMNS


def test_a_published_best_of_a_sweep_is_marked(make_manifest, published, column):
    published["rows"][1]["best_of_sweep"] = True
    table = comparison(make_manifest(), {}, {}, published)
    assert column(table, "published") == ["88.2", "85.5^†"]
    assert notes_with(table, "^ as published, the best cell of a sweep")


def test_loss_weights_and_widths_have_one_spelling(make_manifest, make_result, column):
    cells = [
        "quantizer=bonn loss=bonn loss.lambda=1e-4 backbone.widths=[16,16,32,64]",
        "quantizer=bonn loss=bonn loss.lambda=1e-3 backbone.widths=[16,16,32,64]",
        "quantizer=xnor",
    ]
    manifest = make_manifest(*cells)
    manifest["cells"][2]["settings"]["backbone.widths"] = [64, 64, 128, 256]
    table = comparison(manifest, {}, {})
    assert column(table, "loss.lambda") == ["0.0001", "0.001", MISSING]
    assert column(table, "backbone.widths") == ["16-16-32-64"] * 2 + ["64-64-128-256"]


@pytest.mark.parametrize("term", ["kernel", "own_prior"])
def test_weights_of_the_losses_and_the_priors_stiffness_are_shown(
    term, make_manifest, make_result, column
):
    cells = ["quantizer=bonn loss=task", "quantizer=bonn loss=bonn"]
    plain, bayesian = make_result("bonn"), make_result("bonn")
    bayesian["config"] = {"loss": {"lambda": 1e-4, "theta": 0, "nu": 0.0034}}
    stiffness = {
        f"{term}/stiffness_start": [None, 0.0094, 0.0094],
        f"{term}/stiffness": [None, 0.02, 0.21],
    }
    bayesian["history"] = bayesian["history"] | stiffness
    table = comparison(make_manifest(*cells), dict(zip(cells, (plain, bayesian), strict=True)), {})
    assert column(table, "nu") == [MISSING, "0.0034"]
    assert column(table, "lambda") == [MISSING, "0.0001"]
    assert column(table, "prior stiffness") == [MISSING, "9e-03 to 2e-01"]
    alone = comparison(make_manifest(cells[1]), {cells[1]: bayesian}, {})
    (note,) = notes_with(alone, "all rows")
    assert "theta 0, nu 0.0034, prior stiffness 9e-03 to 2e-01" in note


def test_bits_of_gradients_and_errors_have_their_columns(make_manifest, make_result, column):
    bits = {
        "quantizer=wage": {"w": 2, "a": 8, "g": 8, "e": 8},
        "quantizer=dorefa": {"w": 1, "a": 2, "g": 6},
        "quantizer=adabin": {"w": 1, "a": 1},
    }
    results = {cell: make_result(cell[10:], bits=own) for cell, own in bits.items()}
    results["quantizer=adabin"]["bases"] = {"w": 1, "a": 5}
    table = comparison(make_manifest(*bits), results, {})
    assert column(table, "W/A/G/E bits") == ["2/8/8/8", "1/2/6/32", "1/1x5/32/32"]
    assert any(note.startswith("G: gradients as the method quantizes them") for note in table.notes)
    assert "rows with different bits are not ranked against each other" in table.notes
    plain = comparison(make_manifest("quantizer=adabin"), results, {})
    assert column(plain, "W/A bits") == ["1/1x5"]


def test_the_model_of_a_library_names_its_network(make_manifest, make_result, column):
    cells = ["backbone=timm backbone.name=resnet10t", "backbone=resnet18"]
    manifest = make_manifest(*cells)
    manifest["cells"][0]["settings"] |= {"backbone.model": "timm/resnet10t"}
    choices = make_result()["choices"] | {"backbone": "timm/resnet10t"}
    for results in ({}, {cells[0]: make_result(choices=choices)}):
        table = comparison(manifest, results, {})
        assert column(table, "backbone")[0] == "timm/resnet10t"
