"""Which run claims which published number, on the files of the BONN paper."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from bnnbench.report.matching import matches, with_published
from bnnbench.report.published import load_published
from bnnbench.report.rows import group_cells
from bnnbench.report.tables import comparison

FOLDER = Path(__file__).parents[2] / "results" / "published"
WIDE = "backbone.widths=[64,64,128,256] backbone.dropout=0.3"
BONN = "backbone=wrn22 quantizer=bonn loss=bonn"
NARROW = [16, 16, 32, 64]
DEFAULTS = {"recipe.name": "unified", "loss.name": "task", "backbone.widths": NARROW}
WEIGHTS = {"loss.lambda": 1e-4, "loss.theta": 1e-3}  # of loss=bonn where none are typed


def published(stem: str) -> dict[str, Any]:
    return load_published(FOLDER / f"{stem}.yaml")


@pytest.fixture
def sweep(make_manifest):
    """A manifest whose cells have the settings that the config gives them."""

    def make(*cells: str) -> dict[str, Any]:
        manifest = make_manifest(*cells, settings=DEFAULTS)
        for cell in manifest["cells"]:
            own = WEIGHTS if cell["overrides"].get("loss") == "bonn" else {}
            cell["settings"] = own | cell["settings"]
        return manifest

    return make


def claimed(sweep, stem: str, *cells: str, results: dict[str, Any] | None = None):
    """Number beside each cell, None where there is none."""
    manifest, numbers = sweep(*cells), published(stem)
    rows = with_published(group_cells(manifest, results or {}, {}), numbers, manifest)
    words = {
        frozenset(f"{k}={v}" for k, v in row.options.items()): row for row in rows if row.cells
    }
    found = (words[frozenset(cell.split())].published for cell in cells)
    key = numbers["metric"]["name"]
    return [entry["values"][key] if entry else None for entry in found]


def test_widths_tell_the_networks_of_a_method_apart(sweep):
    narrow = "backbone.widths=[16,16,32,64]"
    cells = [f"{BONN} dataset=cifar10 {w}" for w in (narrow, WIDE)]
    cells += [f"backbone=wrn22 quantizer=xnor dataset=cifar10 {w}" for w in (narrow, WIDE)]
    cells += [f"{BONN} dataset=cifar10 backbone.widths=[32,32,64,128]"]
    assert claimed(sweep, "bonn_cifar", *cells) == [87.34, 92.36, 81.9, 88.52, None]


def test_shortcuts_and_losses_tell_the_detectors_apart(sweep):
    network = "backbone=ssd300_vgg16 dataset=voc0712"
    cells = [
        f"{network} quantizer={quantizer} loss={loss} backbone.shortcut={shortcut}"
        for quantizer, loss, shortcut in (
            ("adabin", "task", "none"),
            ("adabin", "task", "conv"),
            ("birealnet", "task", "conv"),
            ("birealnet", "task", "none"),
            ("birealnet", "multibox_bidet", "none"),
            ("birealnet", "multibox_bidet", "conv"),
            ("xnor", "multibox_bidet", "conv"),
        )
    ]
    cells.append(f"{network} quantizer=fp32 loss=task backbone.shortcut=none")
    found = claimed(sweep, "adabin_voc", *cells)
    assert found == [64.0, 69.4, 63.8, None, 52.4, 66.0, None, 72.4]


def test_another_network_is_no_vgg16(sweep):
    cells = [
        f"backbone=ssd300_resnet18 quantizer=adabin backbone.shortcut={shortcut}"
        for shortcut in ("conv", "block")
    ]
    assert claimed(sweep, "adabin_voc", *cells) == [None, None]


def test_the_widths_of_a_run_that_types_none_are_its_configs(sweep):
    cell = "backbone=wrn22 quantizer=xnor dataset=cifar10"
    assert claimed(sweep, "bonn_cifar", cell) == [81.9]
    numbers, manifest = published("bonn_cifar"), sweep(cell)
    for widths, number in (([64, 64, 128, 256], 88.52), ([32, 32, 64, 128], None)):
        manifest["shared"]["backbone.widths"] = widths
        row = with_published(group_cells(manifest, {}, {}), numbers, manifest)[0]
        assert (row.published or {"values": {"top1": None}})["values"]["top1"] == number


def test_bonns_number_is_not_claimed_without_its_losses(sweep):
    network = "backbone=wrn22 backbone.widths=[16,16,32,64] dataset=cifar100"
    cells = [
        f"{network} quantizer=bonn loss=task",
        f"{network} quantizer=bonn",
        f"{network} quantizer=bonn loss=bonn loss.lambda=0 loss.theta=0",
        f"{network} quantizer=bonn loss=bonn loss.theta=0",
        f"{network} quantizer=bonn loss=bonn",
        f"{network} quantizer=xnor loss=bonn",  # nor XNOR-Net's with them
        f"{network} quantizer=xnor loss=task",
    ]
    numbers = claimed(sweep, "bonn_cifar", *cells)
    assert numbers == [None, None, 55.38, None, 60.91, None, 53.17]


SWEEP = [("1e-3", "0"), ("1e-4", "0"), ("1e-5", "0"), ("0", "0")]
SWEEP += [("1e-4", theta) for theta in ("1e-2", "1e-3", "1e-4")]


def test_the_28_settings_have_a_number_each_and_repeats_are_not_appended(sweep):
    """The columns of Table 3.4 of the book, typed off again."""
    table = {
        ("wrn22", "cifar10"): [85.82, 86.23, 85.74, 84.97, 87.34, 86.49, 86.27],
        ("wrn22", "cifar100"): [59.32, 59.77, 57.73, 55.38, 60.31, 60.37, 60.91],
        ("wrn40", "cifar10"): [85.79, 87.12, 86.22, 84.61, 87.23, 87.18, 87.41],
        ("wrn40", "cifar100"): [58.84, 60.32, 59.93, 56.03, 60.83, 61.25, 61.03],
    }
    cells = [
        f"quantizer=bonn loss=bonn backbone={b} dataset={d} loss.lambda={x} loss.theta={y}"
        for b, d in table
        for x, y in SWEEP
    ]
    expected = [number for column in table.values() for number in column]
    assert claimed(sweep, "bonn_lambda_theta", *cells) == expected
    numbers = published("bonn_lambda_theta")
    assert (len(numbers["rows"]), len(cells)) == (32, 28)
    assert len(comparison(sweep(*cells), {}, {}, numbers).rows) == 28
    assert len(comparison(sweep(*cells[:5]), {}, {}, numbers).rows) == 28


def test_an_unmeasured_setting_stands_in_the_columns_of_its_weights(sweep, column):
    cell = f"{BONN} dataset=digits loss.lambda=1e-4 loss.theta=0"
    table = comparison(sweep(cell), {}, {}, published("bonn_lambda_theta"))
    assert table.header[:4] == ["backbone", "dataset", "loss.lambda", "loss.theta"]
    assert "all rows: quantizer bonn" in table.notes
    weights = zip(column(table, "loss.lambda"), column(table, "loss.theta"), strict=True)
    assert set(Counter(weights).values()) == {4, 5}  # four columns, and the cell on digits
    assert len(table.rows) == 29


def test_settings_match_the_weights_that_a_run_had(sweep, make_result):
    cell = f"{BONN} dataset=cifar10"
    assert claimed(sweep, "bonn_lambda_theta", cell) == [86.49]  # the config's own weights
    choices = {"backbone": "wrn22", "dataset": "cifar10", "loss": "bonn", "recipe": "native"}
    results = {cell: make_result("bonn", choices=choices)}
    assert claimed(sweep, "bonn_lambda_theta", cell, results=results) == [86.49]
    task = "backbone=wrn22 quantizer=bonn dataset=cifar10 loss=task"
    assert claimed(sweep, "bonn_lambda_theta", task) == [None]


@pytest.mark.parametrize(
    ("weights", "number"),
    [
        ("loss.lambda=0 loss.theta=0", 56.3),
        ("loss.lambda=1e-4 loss.theta=0", 58.3),
        ("loss.lambda=0 loss.theta=1e-3", 58.4),
        ("loss.lambda=1e-3 loss.theta=1e-2", 59.3),
    ],
)
def test_the_ablation_goes_by_the_losses_that_are_on(sweep, weights, number):
    cell = f"backbone=resnet18 quantizer=bonn loss=bonn {weights}"
    assert claimed(sweep, "bonn_ablation", cell) == [number]
    rows = comparison(sweep(cell), {}, {}, published("bonn_ablation")).rows
    assert len(rows) == 4


def test_dropout_changes_no_structure_but_a_swept_shortcut_does(sweep):
    network = "backbone=wrn22 quantizer=xnor dataset=cifar10"
    cells = [f"{network} {WIDE}", f"{network} {WIDE} backbone.shortcut=conv"]
    assert claimed(sweep, "bonn_cifar", *cells) == [88.52, None]


def test_bits_tell_the_numbers_of_a_method_apart_before_anything_is_trained(make_manifest):
    """DoReFa-Net on ImageNet: 52.5 with 1/1 bits, 53.4 with 1/2, 59.2 with 1/4."""
    cells = [
        f"quantizer=dorefa backbone=resnet18 dataset=imagenet quantizer.activation_bits={bits}"
        for bits in (1, 2, 4)
    ]
    settings = DEFAULTS | {"quantizer.weight_bits": 1, "quantizer.gradient_bits": 32}
    manifest = make_manifest(*cells, settings=settings)

    def numbers(stem: str) -> list[float | None]:
        rows = with_published(group_cells(manifest, {}, {}), published(stem), manifest)
        values = [(row.published or {}).get("values", {}) for row in rows if row.cells]
        return [value.get("top1") for value in values]

    assert numbers("extra_methods") == [52.5, 53.4, None]
    assert numbers("bonn_imagenet") == [None, None, 59.2]


@pytest.mark.parametrize(
    ("wanted", "value", "expected"),
    [
        ("xnor", "xnor", True),
        ("xnor", None, False),
        (["task", "pcnn"], "pcnn", True),
        (["task", "pcnn"], "bonn", False),
        (1, 1.0, True),
        (1e-4, 0.0001, True),
        (1, True, False),
        (False, 0, False),
        ([16, 16, 32, 64], [16, 16, 32, 64], True),
        ([16, 16, 32, 64], [64, 64, 128, 256], False),
        ([16, 32], 16, True),
        ({"above": 0}, 1e-4, True),
        ({"above": 0}, 0, False),
        ({"above": 0}, None, False),
    ],
)
def test_settings_are_compared_as_they_stand(wanted, value, expected):
    assert matches(wanted, value) is expected


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_runs_name_options_and_keys_that_there_are(path):
    """Read off the files of the config groups, not through the suite."""
    conf = FOLDER.parents[1] / "conf"
    runs = [row["run"] for row in load_published(path)["rows"] if "run" in row]
    assert runs
    for run in runs:
        choices = {key: value for key, value in run.items() if "." not in key}
        for group, names in choices.items():
            for name in names if isinstance(names, list) else [names]:
                assert (conf / group / f"{name}.yaml").is_file(), (group, name)
        for key in run.keys() - choices.keys():
            group, name = key.split(".")
            assert name in yaml.safe_load((conf / group / f"{run[group]}.yaml").read_text()), run


def test_a_row_without_a_run_stands_beside_none(sweep):
    numbers = published("adabin_cifar10")
    cell = "quantizer=adabin backbone=resnet20"
    manifest = sweep(cell)
    for entry in numbers["rows"]:
        entry.pop("run", None)
    rows = with_published(group_cells(manifest, {}, {}), numbers, manifest)
    assert rows[0].published is None
    assert len(rows) == 1 + len(numbers["rows"])


def test_a_structure_typed_for_the_whole_table_is_another_network(make_manifest):
    """What the table's own lines set is the network that was published."""
    numbers = published("adabin_cifar10")
    lines = {
        "name": "t",
        "common": ["backbone=resnet20"],
        "sweep": ["backbone.shortcut=conv,block"],
    }

    def beside(*words: str) -> list[float | None]:
        cells = [" ".join([f"quantizer={q} backbone=resnet20", *words]) for q in ("slb", "dsq")]
        settings = {"recipe.name": "unified", "loss.name": "task"}
        manifest = make_manifest(*cells, settings=settings, table=lines)
        rows = with_published(group_cells(manifest, {}, {}), numbers, manifest)
        found = [row.published for row in rows if row.cells]
        return [entry["values"]["top1"] if entry else None for entry in found]

    assert None not in beside()
    assert beside("backbone.shortcut=conv") == beside()
    assert beside("backbone.shortcut=none") == [None, None]
    assert beside("backbone.width=0.25") == [None, None]
