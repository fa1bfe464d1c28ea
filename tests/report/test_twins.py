"""Which full-precision row is a method's twin, and the gap to it, paired over seeds."""

import statistics
from typing import Any

import pytest

from bnnbench.report.markup import MISSING
from bnnbench.report.rows import group_cells
from bnnbench.report.tables import GAP, comparison
from bnnbench.report.twins import gaps, paired

BLOCK = "backbone.shortcut=block backbone.nonlinearity=hardtanh backbone.head_norm=false"
CONV = "backbone.shortcut=conv backbone.nonlinearity=identity backbone.head_norm=false"
RELU = CONV.replace("identity", "relu")


@pytest.fixture
def built(make_manifest, make_result):
    """A manifest and results from cells with their accuracies; None for a cell not run."""

    def build(cells: dict[str, float | None], **entries: Any) -> tuple[dict, dict]:
        results = {
            cell: make_result(
                cell.split()[0].removeprefix("quantizer="),
                acc=acc,
                seed=int(cell.rpartition("seed=")[2]) if "seed=" in cell else 0,
                **entries.get(cell, {}),
            )
            for cell, acc in cells.items()
            if acc is not None
        }
        names = {"backbone": "resnet20", "dataset": "cifar10", "recipe": "unified"}
        settings = {f"{group}.name": name for group, name in names.items()}
        return make_manifest(*cells, settings=settings), results

    return build


def test_the_gap_is_paired_over_seeds_and_has_a_spread(built, column) -> None:
    fp32, xnor = (0.90, 0.92, 0.91), (0.80, 0.83, 0.80)
    cells = {f"quantizer=fp32 {BLOCK} seed={s}": acc for s, acc in enumerate(fp32)}
    cells |= {f"quantizer=xnor {BLOCK} seed={s}": acc for s, acc in enumerate(xnor)}
    table = comparison(*built(cells), {})
    points = [100 * (a - b) for a, b in zip(fp32, xnor, strict=True)]
    text = f"{statistics.mean(points):.2f} ± {statistics.stdev(points):.2f}"
    assert text == "10.00 ± 1.00"  # of the differences: the rows themselves spread by 1 and 1.73
    assert column(table, GAP) == [MISSING, text]


def test_only_seeds_that_both_have_count(built, column) -> None:
    cells = {f"quantizer=fp32 {BLOCK} seed=1": 0.9, f"quantizer=fp32 {BLOCK} seed=2": 0.95}
    cells |= {f"quantizer=xnor {BLOCK} seed={seed}": 0.8 for seed in (0, 2)}
    assert column(comparison(*built(cells), {}), GAP) == [MISSING, "15.00"]


def test_each_structure_has_its_own_twin_and_signs_alone_the_relu(built, column) -> None:
    cells = {
        f"quantizer=xnor {BLOCK}": 0.70,
        f"quantizer=fp32 {BLOCK}": 0.80,
        f"quantizer=birealnet {CONV}": 0.65,
        f"quantizer=fp32 {CONV}": 0.40,  # linear: nobody's twin
        f"quantizer=fp32 {RELU}": 0.85,
    }
    table = comparison(*built(cells), {})
    assert column(table, GAP) == ["10.00", MISSING, "20.00", MISSING, MISSING]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({f"quantizer=fp32 {RELU}": 0.9, f"quantizer=xnor {BLOCK}": 0.8}, "no fp32 row of its"),
        ({f"quantizer=fp32 {BLOCK}": None, f"quantizer=xnor {BLOCK}": 0.8}, "fp32 row is not"),
        ({f"quantizer=fp32 {BLOCK}": 0.9, f"quantizer=xnor {BLOCK}": None}, "not measured"),
        (
            {f"quantizer=fp32 {BLOCK} seed=0": 0.9, f"quantizer=xnor {BLOCK} seed=1": 0.8},
            "no seed in common",
        ),
        (
            {f"quantizer=fp32 {BLOCK} mine={x}": 0.9 for x in "ab"}
            | {f"quantizer=xnor {BLOCK} mine=c": 0.8},
            "several fp32 rows",
        ),
        (
            {
                f"quantizer=fp32 {BLOCK} backbone=resnet18": 0.9,
                f"quantizer=xnor {BLOCK} backbone=resnet20": 0.8,
            },
            "no fp32 row of its structure",
        ),
    ],
)
def test_no_twin_or_no_seed_is_a_dash_with_its_reason(built, column, cells, reason) -> None:
    whole = {f"quantizer=fp32 {CONV.replace('identity', 'prelu')}": 0.9}
    whole |= {f"quantizer=irnet {CONV.replace('identity', 'prelu')}": 0.8}
    table = comparison(*built(whole | cells), {})
    assert column(table, GAP)[-1] == MISSING
    assert [note for note in table.notes if reason in note and note.endswith(": xnor")]


@pytest.mark.parametrize(
    "other", [{"epochs": 1}, {"data_stamp": f"sha256:{'b' * 64}"}, {"test_images": 10}]
)
def test_other_data_or_another_length_is_no_pair(built, other) -> None:
    cells = {f"quantizer=fp32 {BLOCK}": 0.9, f"quantizer=xnor {BLOCK}": 0.8}
    manifest, results = built(cells, **{f"quantizer=xnor {BLOCK}": other})
    rows = group_cells(manifest, results, {})
    assert paired(*rows) == {}
    assert gaps(rows)[1].reason == "other epochs or data than its fp32 row"


def test_swept_options_choose_among_twins(built) -> None:
    cells = {f"quantizer=fp32 {BLOCK} recipe.lr={lr}": 0.9 + lr for lr in (0.01, 0.02)}
    cells |= {f"quantizer=xnor {BLOCK} recipe.lr={lr}": 0.8 for lr in (0.01, 0.02)}
    manifest, results = built(cells)
    found = gaps(group_cells(manifest, results, {}), manifest["swept"])
    assert [round(gap.points[0], 6) for gap in found[2:]] == [11.0, 12.0]


WIDE, NARROW = (f"{BLOCK} backbone.width={width}" for width in ("1.0", "0.25"))
SLOW, FAST = (f"{BLOCK} recipe.lr={rate}" for rate in ("1e-3", "1e-1"))


@pytest.mark.parametrize(("own", "other"), [(NARROW, WIDE), (FAST, SLOW)])
def test_another_width_or_rate_is_another_twin(built, column, own: str, other: str) -> None:
    cells = {f"quantizer=fp32 {other}": 0.9, f"quantizer=xnor {own}": 0.7}
    cells |= {f"quantizer=xnor {other}": 0.6}
    table = comparison(*built(cells), {})
    assert column(table, GAP) == [MISSING, MISSING, "30.00"]
    assert f"{GAP} {MISSING}: no fp32 row of its structure and settings: xnor" in table.notes
    own_twin = comparison(*built(cells | {f"quantizer=fp32 {own}": 0.8}), {})
    assert column(own_twin, GAP) == [MISSING, "10.00", "30.00", MISSING]


def test_a_recipe_of_another_name_and_the_same_values_is_the_twins(built) -> None:
    """The authors' recipe beside unified with their values typed; epochs are the results' own."""
    cells = {f"quantizer=fp32 {BLOCK} recipe=unified": 0.9}
    cells |= {f"quantizer=xnor {BLOCK} recipe=native": 0.8}
    manifest, results = built(cells)
    names = manifest["shared"].pop("recipe.name"), "native"

    def gap(**values: dict[str, Any]) -> dict[int, float]:
        """Of recipes with these values, those of unified first."""
        for cell, name, own in zip(manifest["cells"], names, values.values(), strict=True):
            own_epochs = {"recipe.epochs.cifar10": {"unified": 200}.get(name, 400)}
            cell["settings"] = {"recipe.name": name} | (own and own | own_epochs)
        return gaps(group_cells(manifest, results, {}), manifest["swept"])[1].points

    typed = {"recipe.lr": 0.1, "dataset.batch_size": 128}
    assert gap(unified=typed, native=typed) == {0: pytest.approx(10.0)}
    assert gap(unified=typed, native=typed | {"recipe.lr": 0.01}) == {}
    assert gap(unified=typed, native=typed | {"dataset.batch_size": 64}) == {}
    assert gap(unified={}, native={}) == {}  # nobody knows


def test_another_folder_of_images_is_another_twin(built, column) -> None:
    cells = {
        f"quantizer={method} {BLOCK} dataset=image_folder dataset.name={name}": acc
        for method, name, acc in (
            ("fp32", "birds", 0.9),
            ("xnor", "birds", 0.7),
            ("xnor", "bees", 0.6),
        )
    }
    manifest, results = built(cells)
    del manifest["shared"]["dataset.name"]
    assert column(comparison(manifest, results, {}), GAP) == [MISSING, "20.00", MISSING]


def test_a_table_without_a_gap_has_no_such_column(built) -> None:
    manifest, results = built({"quantizer=xnor": 0.8, "quantizer=bnn": 0.7})
    assert GAP not in comparison(manifest, results, {}).header
