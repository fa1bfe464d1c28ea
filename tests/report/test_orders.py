"""Which rows stand in one order, and which numbers are held against theirs."""

from typing import Any

import pytest

from bnnbench.report.orders import (
    Other,
    groups,
    length_orders,
    printed,
    published_orders,
    seed_orders,
    setting_orders,
)
from bnnbench.report.rows import Row, group_cells, settings_of

Sweep = tuple[list[Row], list[str]]


@pytest.fixture
def measured(make_manifest, make_result):
    """Rows and swept keys of cells with their accuracies; `entries` are of every result."""

    def measure(cells: dict[str, float], **entries: Any) -> Sweep:
        names = {"backbone": "resnet20", "dataset": "cifar10", "recipe": "unified", "loss": "task"}
        settings = {f"{group}.name": name for group, name in names.items()}
        manifest = make_manifest(*cells, settings=settings)
        results = {}
        for cell, acc in cells.items():
            options = dict(word.split("=") for word in cell.split())
            extra = {"seed": int(options.get("seed", 0))} | entries
            results[cell] = make_result(options["quantizer"], acc=acc, **extra)
        return group_cells(manifest, results, {}), manifest["swept"]

    return measure


@pytest.fixture
def source():
    """A published file of one-bit methods: keywords are a method and its top-1 on ResNet-20."""

    def make(backbone: str = "resnet20", **top1: float) -> dict[str, Any]:
        rows = [
            {
                "method": method,
                "label": method,
                "bits": {"w": 1, "a": 1},
                "backbone": backbone,
                "values": {"top1": value},
                "source": "a paper",
                "source_kind": "own",
                "verified": True,
                "run": {"quantizer": method, "backbone": backbone},
            }
            for method, value in top1.items()
        ]
        metric = {"name": "top1", "unit": "percent", "higher_is_better": True}
        return {"metric": metric, "protocol": {"dataset": "cifar10"}, "rows": rows}

    return make


FOUR = {f"quantizer={q}": acc for q, acc in {"a": 0.6, "b": 0.7, "c": 0.8, "d": 0.9}.items()}
PAPER = {"a": 80.0, "b": 85.0, "c": 84.0, "d": 90.0}


def test_measured_against_published(measured, source) -> None:
    rows, _ = measured(FOUR)
    (order,) = published_orders(rows, [source(**PAPER)])
    assert order.against == "published, resnet20"
    assert [(here, there) for _, here, there in order.rows] == [
        (pytest.approx(60.0), 80.0),
        (pytest.approx(70.0), 85.0),
        (pytest.approx(80.0), 84.0),
        (pytest.approx(90.0), 90.0),
    ]
    assert order.agreement.tau == pytest.approx(4 / 6)  # one pair of six the other way round


def test_each_structure_has_an_order_of_its_own(measured, source) -> None:
    cells = {
        f"quantizer={q} backbone.shortcut=conv": acc
        for q, acc in zip("abc", (1, 2, 3), strict=True)
    }
    cells |= {
        f"quantizer={q} backbone.shortcut=block": acc
        for q, acc in zip("de", (0.5, 0.6), strict=True)
    }
    rows, _ = measured({cell: acc / 4 for cell, acc in cells.items()})
    found = published_orders(rows, [source(a=83.0, b=82.0, c=81.0, d=80.0, e=80.5)])
    assert [(o.within.split(",")[0], o.agreement.rows) for o in found] == [
        ("all of 1/1 bits", 5),
        ("resnet20", 3),  # two of the other structure make no order
    ]
    assert found[1].within.startswith("resnet20, shortcut conv")
    assert found[1].agreement.tau == -1


@pytest.mark.parametrize(
    "change",
    [
        {"verified": False},
        {"training": "two_step"},
        {"source_kind": "reproduction"},
        {"bits": {"w": 1, "a": 2}},
        {"dataset": "cifar100"},
        {"run": None},
        {"run": {"quantizer": "a", "backbone": "resnet20", "loss": "rad"}},
        {"run": {"quantizer": "a", "backbone": "resnet20", "backbone.shortcut": "block"}},
    ],
)
def test_numbers_of_something_else_do_not_count(measured, source, change) -> None:
    rows, _ = measured({"quantizer=a backbone.shortcut=conv": 0.5})
    file = source(a=80.0)
    assert printed(rows[0], [file]) == {"resnet20": 80.0}
    file["rows"][0] |= change
    assert printed(rows[0], [file]) == {}


def test_another_backbone_stands_in_where_ones_own_has_no_numbers(measured, source) -> None:
    rows, _ = measured(FOUR)
    other, own = source("resnet18", **PAPER), source(a=80.0, b=81.0)
    assert [o.against for o in published_orders(rows, [own, other])] == ["published, resnet18"]
    own = source(a=80.0, b=81.0, c=82.0)
    assert [o.against for o in published_orders(rows, [own, other])] == ["published, resnet20"]


def test_a_method_counts_once_and_teachers_not_at_all(measured, source) -> None:
    cells = {f"quantizer={q} x={x}": 0.1 * i for i, q in enumerate("abc") for x in "12"}
    rows, _ = measured(cells)
    rows[-1].settings["recipe.stages"] = ["one"]
    (order,) = published_orders(rows, [source(**PAPER)])
    assert [row.options["x"] for row, _, _ in order.rows] == ["1", "1", "1"]
    rows[0].settings["recipe.stages"] = ["one"]
    (order,) = published_orders(rows, [source(**PAPER)])
    assert [row.options["x"] for row, _, _ in order.rows] == ["2", "1", "1"]


def test_rows_of_other_bits_stand_in_no_order_together(measured) -> None:
    one, _ = measured({"quantizer=a": 0.5, "quantizer=b": 0.6})
    two, _ = measured({"quantizer=fp32": 0.9}, bits={"w": 32, "a": 32})
    long, _ = measured({"quantizer=c": 0.9}, epochs=9)
    assert [len(group) for group in groups([*one, *two, *long])] == [2, 1, 1]


def test_two_lengths_of_a_table(measured) -> None:
    short = {"quantizer=d": 0.55, "quantizer=a": 0.5, "quantizer=b": 0.6, "quantizer=c": 0.7}
    rows, swept = measured(FOUR, epochs=16)
    others, theirs = measured(short, epochs=10)
    (order,) = length_orders(rows, swept, [Other("ten", theirs, others)])
    assert order.against == "here 16 epochs, 10 in ten"
    assert {row.options["quantizer"]: there for row, _, there in order.rows} == {
        key.removeprefix("quantizer="): pytest.approx(100 * acc) for key, acc in short.items()
    }
    assert order.agreement.tau == pytest.approx((4 - 2) / 6)  # d falls behind b and c
    assert length_orders(rows, swept, [Other("same", swept, rows)]) == []


def test_lengths_swept_in_one_table_are_told_once(measured) -> None:
    cells = {f"{cell} trainer.max_epochs=16": acc for cell, acc in FOUR.items()}
    rows, swept = measured(cells, epochs=16)
    less, _ = measured({c.replace("16", "10"): 1 - a for c, a in cells.items()}, epochs=10)
    both = [*rows, *less]
    (order,) = length_orders(both, swept, [Other("this table", swept, both)])
    assert (order.against, order.agreement.tau) == ("here 16 epochs, 10 in this table", -1)


def test_another_recipe_is_named_and_other_settings_are_other_rows(measured) -> None:
    rows, swept = measured(FOUR, epochs=16)
    others, theirs = measured(FOUR, epochs=10)

    def told(key: str, value: object) -> list[str]:
        for row in others:
            row.settings[key] = value
        found = length_orders(rows, swept, [Other("ten", theirs, others)])
        return [order.against for order in found]

    plain = ["here 16 epochs, 10 in ten"]
    assert told("recipe.name", "unified") == plain
    for row in rows:
        row.settings |= {"recipe.lr": 0.1, "dataset.val_fraction": 0, "teacher.name": "none"}
        row.settings["dataset.seed"] = 0
    assert told("dataset.seed", 3) == plain  # and the older ones say nothing of a teacher
    assert told("recipe.lr", 0.2) == []
    other = ["here 16 epochs of unified, 10 of fast in ten"]
    assert told("recipe.name", "fast") == other  # whose rate is its own
    assert told("dataset.val_fraction", 0.1) == []


def test_folders_of_images_stand_in_no_common_order(measured) -> None:
    cells = {f"{cell} dataset.name={name}": acc for cell, acc in FOUR.items() for name in "ab"}
    rows, _ = measured(cells)
    assert [len(group) for group in groups(rows)] == [4, 4]


def test_single_seeds_against_each_other(measured) -> None:
    cells = {f"{cell} seed=0": acc for cell, acc in FOUR.items()}
    cells |= {f"{cell} seed=1": acc for cell, acc in zip(FOUR, (0.6, 0.8, 0.7, 0.9), strict=True)}
    rows, _ = measured(cells)
    (order,) = seed_orders(rows)
    assert (order.against, order.agreement.tau) == ("here seed 0, seed 1", pytest.approx(4 / 6))


@pytest.mark.parametrize(
    ("seeds", "pairs"),
    [(2, ["01"]), (3, ["01", "02", "12"]), (5, ["01", "04", "12", "23", "34"])],
)
def test_many_seeds_make_as_many_orders_and_not_all_pairs(measured, seeds, pairs) -> None:
    rows, _ = measured(
        {f"{cell} seed={s}": acc for cell, acc in FOUR.items() for s in range(seeds)}
    )
    found = [order.against for order in seed_orders(rows)]
    assert found == [f"here seed {one}, seed {two}" for one, two in pairs]


def test_the_best_of_each_methods_settings_against_a_common_one(measured) -> None:
    """At the small rate the order is a < b < c; tuned, a is the best of all."""
    small = {"a": 0.5, "b": 0.6, "c": 0.7, "d": 0.8}
    large = {"a": 0.9, "b": 0.5, "c": 0.6}
    cells = {f"quantizer={q} recipe.lr=0.1": acc for q, acc in small.items()}
    cells |= {f"quantizer={q} recipe.lr=1.0": acc for q, acc in large.items()}
    rows, swept = measured(cells)
    first, second = setting_orders(rows, swept)
    assert first.against == "each method at its best here, all at 0.1"
    assert [(h, t) for _, h, t in first.rows] == [(90.0, 50.0), (60.0, 60.0), (70.0, 70.0)]  # no d
    assert first.agreement.tau == pytest.approx(-1 / 3)
    assert [row.setting("recipe.lr") for row, _, _ in first.rows] == [1.0, 0.1, 0.1]
    assert second.against == "each method at its best here, all at 1"
    assert [(h, t) for _, h, t in second.rows] == [(90.0, 90.0), (60.0, 50.0), (70.0, 60.0)]
    assert second.agreement.tau == 1


def test_settings_of_one_method_and_methods_of_one_setting_have_no_such_order(measured) -> None:
    rows, swept = measured(FOUR)
    assert setting_orders(rows, swept) == []
    rows, swept = measured({f"quantizer=a recipe.lr={lr}": lr for lr in (0.1, 0.2, 0.3)})
    assert setting_orders(rows, swept) == []


def test_settings_of_several_numbers_are_named(measured) -> None:
    ones = ("recipe.lr=0.1 recipe.weight_decay=0.0", "recipe.lr=1.0 recipe.weight_decay=0.1")
    other = "recipe.lr=0.1 recipe.weight_decay=0.1"
    rows, swept = measured({f"quantizer=a {setting}": 0.5 for setting in (*ones, other)})
    assert settings_of(rows, swept) == [
        "lr=0.1 weight_decay=0",
        "lr=1 weight_decay=0.1",
        "lr=0.1 weight_decay=0.1",
    ]
    rows, swept = measured({f"quantizer=a {setting}": 0.5 for setting in ones})
    assert settings_of(rows, swept) == ["0.1", "1"]  # which tell the decay
