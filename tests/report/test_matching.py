"""Which run claims which published number, on the files of the BONN paper."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bnnbench.report.matching import with_published
from bnnbench.report.published import load_published
from bnnbench.report.rows import group_cells
from bnnbench.report.tables import comparison

FOLDER = Path(__file__).parents[2] / "results" / "published"
WIDE = "backbone.widths=[64,64,128,256] backbone.dropout=0.3"
BONN = "backbone=wrn22 quantizer=bonn loss=bonn"


def published(stem: str) -> dict[str, Any]:
    return load_published(FOLDER / f"{stem}.yaml")


def claimed(make_manifest, stem: str, *cells: str, results: dict[str, Any] | None = None):
    """Number beside each cell, None where there is none."""
    manifest, numbers = make_manifest(*cells), published(stem)
    rows = with_published(group_cells(manifest, results or {}, {}), numbers, manifest)
    words = {frozenset(f"{k}={v}" for k, v in row.options.items()): row for row in rows}
    found = (words[frozenset(cell.split())].published for cell in cells)
    key = numbers["metric"]["name"]
    return [entry["values"][key] if entry else None for entry in found]


def test_widths_tell_the_networks_of_a_method_apart(make_manifest):
    narrow = "backbone.widths=[16,16,32,64]"
    cells = [f"{BONN} dataset=cifar10 {w}" for w in (narrow, WIDE)]
    cells += [f"backbone=wrn22 quantizer=xnor dataset=cifar10 {w}" for w in (narrow, WIDE)]
    cells += [f"{BONN} dataset=cifar10 backbone.widths=[32,32,64,128]"]
    assert claimed(make_manifest, "bonn_cifar", *cells) == [87.34, 92.36, 81.9, 88.52, None]


def test_shortcuts_and_losses_tell_the_detectors_apart(make_manifest):
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
    cells.append(f"{network} quantizer=fp32 loss=task")
    found = claimed(make_manifest, "adabin_voc", *cells)
    assert found == [64.0, 69.4, 63.8, None, 52.4, 66.0, None, 72.4]


def test_another_network_is_no_vgg16(make_manifest):
    cells = [
        f"backbone=ssd300_resnet18 quantizer=adabin backbone.shortcut={shortcut}"
        for shortcut in ("conv", "block")
    ]
    assert claimed(make_manifest, "adabin_voc", *cells) == [None, None]


def test_widths_come_from_the_results_config_too(make_manifest, make_result):
    cell = "backbone=wrn22 quantizer=xnor dataset=cifar10"
    assert claimed(make_manifest, "bonn_cifar", cell) == [None]  # narrow or wide: not known yet
    choices = {"backbone": "wrn22", "dataset": "cifar10", "loss": "task"}
    config = {"backbone": {"widths": [64, 64, 128, 256]}}
    result = make_result("xnor", choices=choices, config=config)
    assert claimed(make_manifest, "bonn_cifar", cell, results={cell: result}) == [88.52]


def test_bonns_number_is_not_claimed_without_its_losses(make_manifest):
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
    numbers = claimed(make_manifest, "bonn_cifar", *cells)
    assert numbers == [None, None, 55.38, None, 60.91, None, 53.17]


SWEEP = [("1e-3", "0"), ("1e-4", "0"), ("1e-5", "0"), ("0", "0")]
SWEEP += [("1e-4", theta) for theta in ("1e-2", "1e-3", "1e-4")]


def test_the_28_settings_have_a_number_each_and_repeats_are_not_appended(make_manifest):
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
    assert claimed(make_manifest, "bonn_lambda_theta", *cells) == expected
    numbers = published("bonn_lambda_theta")
    assert (len(numbers["rows"]), len(cells)) == (32, 28)
    assert len(comparison(make_manifest(*cells), {}, {}, numbers).rows) == 28
    assert len(comparison(make_manifest(*cells[:5]), {}, {}, numbers).rows) == 28


def test_an_unmeasured_setting_stands_in_the_columns_of_its_weights(make_manifest, column):
    cell = f"{BONN} dataset=digits loss.lambda=1e-4 loss.theta=0"
    table = comparison(make_manifest(cell), {}, {}, published("bonn_lambda_theta"))
    assert table.header[:5] == ["quantizer", "backbone", "dataset", "loss.lambda", "loss.theta"]
    assert set(column(table, "quantizer")) == {"bonn"}
    weights = zip(column(table, "loss.lambda"), column(table, "loss.theta"), strict=True)
    assert set(Counter(weights).values()) == {4, 5}  # four columns, and the cell on digits
    assert len(table.rows) == 29


def test_settings_match_the_weights_that_a_run_had(make_manifest, make_result):
    cell = f"{BONN} dataset=cifar10"
    assert claimed(make_manifest, "bonn_lambda_theta", cell) == [None]  # weights not known yet
    choices = {"backbone": "wrn22", "dataset": "cifar10", "loss": "bonn"}
    config = {"loss": {"lambda": 1e-4, "theta": 0.001}}
    result = make_result("bonn", choices=choices, config=config)
    results = {cell: result}
    assert claimed(make_manifest, "bonn_lambda_theta", cell, results=results) == [86.49]
    task = "backbone=wrn22 quantizer=bonn dataset=cifar10 loss=task"
    assert claimed(make_manifest, "bonn_lambda_theta", task) == [None]


@pytest.mark.parametrize(
    ("weights", "number"),
    [
        ("loss.lambda=0 loss.theta=0", 56.3),
        ("loss.lambda=1e-4 loss.theta=0", 58.3),
        ("loss.lambda=0 loss.theta=1e-3", 58.4),
        ("loss.lambda=1e-3 loss.theta=1e-2", 59.3),
    ],
)
def test_the_ablation_goes_by_the_losses_that_are_on(make_manifest, weights, number):
    cell = f"backbone=resnet18 quantizer=bonn loss=bonn {weights}"
    assert claimed(make_manifest, "bonn_ablation", cell) == [number]
    rows = comparison(make_manifest(cell), {}, {}, published("bonn_ablation")).rows
    assert len(rows) == 4


def test_dropout_changes_no_structure_but_a_swept_shortcut_does(make_manifest):
    network = "backbone=wrn22 quantizer=xnor dataset=cifar10"
    cells = [f"{network} {WIDE}", f"{network} {WIDE} backbone.shortcut=conv"]
    assert claimed(make_manifest, "bonn_cifar", *cells) == [88.52, None]
