"""From a table and a scale to cells."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest

from bnnbench.sweep.expand import distinct, expand_plain, expand_table, layered, scale_notes

DEMO = {"name": "demo", "overrides": ["dataset=digits"], "seeds": [0], "note": "digits"}
FULL = {"name": "full", "overrides": [], "seeds": [0, 1, 2], "note": None}
TABLE: dict[str, Any] = {
    "name": "small",
    "title": "a table",
    "published": None,
    "notes": [],
    "common": ["dataset=cifar10"],
    "sweep": ["backbone=resnet18 quantizer=fp32,adabin", "backbone=resnet20 quantizer=xnor"],
}


def split(words: Sequence[str]) -> list[dict[str, str]]:
    """The part of Hydra's grammar that these tests use."""
    pairs = [word.split("=", 1) for word in words]
    values = product(*(value.split(",") for _, value in pairs))
    return [dict(zip([key for key, _ in pairs], choice, strict=True)) for choice in values]


def test_lines_seeds_and_order() -> None:
    cells = expand_table(TABLE, FULL, [], split)
    rows = [(c["backbone"], c["quantizer"], c["seed"]) for c in cells]
    pairs = [("resnet18", "fp32"), ("resnet18", "adabin"), ("resnet20", "xnor")]
    assert rows == [(*pair, seed) for pair in pairs for seed in "012"]
    assert {c["dataset"] for c in cells} == {"cifar10"}


def test_lines_of_a_scales_own_sweep_stand_over_the_scale_and_below_the_command_line() -> None:
    """Two data sets at a scale that has one; `common` of the table and of the scale still count."""
    own = ["dataset=digits backbone=a", "dataset=shapes backbone=b"]
    table = TABLE | {"scales": {"demo": {"own_sweep": own, "common": ["trainer.max_epochs=3"]}}}
    scale = DEMO | {"overrides": ["dataset=digits", "trainer.max_epochs=6"]}
    cells = expand_table(table, scale, [], split)
    keys = ("dataset", "backbone", "trainer.max_epochs")
    pairs = [("digits", "a", "3"), ("shapes", "b", "3")]
    assert [tuple(cell[key] for key in keys) for cell in cells] == pairs
    typed = expand_table(table, scale, ["trainer.max_epochs=1", "dataset=shapes"], split)
    assert [tuple(cell[key] for key in keys) for cell in typed] == [("shapes", "b", "1")]
    plain = TABLE | {"scales": {"demo": {"sweep": own}}}
    assert {cell["dataset"] for cell in expand_table(plain, scale, [], split)} == {"digits"}


def test_later_layers_win() -> None:
    """Five layers set the key, each leaves out the one above it in turn."""
    table = TABLE | {"common": ["key=common"], "sweep": ["key=line"]}
    scale = DEMO | {"overrides": ["key=scale"]}
    own = {"demo": {"common": ["key=own"]}}

    def value(table: dict[str, Any], scale: dict[str, Any], *user: str) -> str:
        (cell,) = expand_table(table, scale, user, split)
        return cell["key"]

    assert value(table | {"scales": own}, scale, "key=user") == "user"
    assert value(table | {"scales": own}, scale) == "own"
    assert value(table, scale) == "scale"
    assert value(table, DEMO) == "line"
    assert value(table | {"sweep": ["quantizer=fp32"]}, DEMO) == "common"


def test_a_scale_of_the_table_replaces_its_lines() -> None:
    table = TABLE | {"scales": {"demo": {"sweep": ["quantizer=bnn"], "note": "one row"}}}
    assert [c["quantizer"] for c in expand_table(table, DEMO, [], split)] == ["bnn"]
    assert len(expand_table(table, FULL, [], split)) == 9
    assert scale_notes(table, DEMO) == "digits one row"
    assert scale_notes(TABLE, FULL) is None
    assert scale_notes(TABLE | {"scales": {"demo": {"own_note": "no digits"}}}, DEMO) == "no digits"


def test_the_user_can_sweep_and_fix_seeds() -> None:
    cells = expand_table(TABLE, FULL, ["table=small", "scale=full", "seed=5,6"], split)
    assert sorted({c["seed"] for c in cells}) == ["5", "6"]
    assert len(cells) == 6
    assert not {"table", "scale"} & {key for c in cells for key in c}


def test_a_fixed_column_leaves_no_duplicates() -> None:
    cells = expand_table(TABLE, DEMO, ["quantizer=bnn"], split)
    assert [(c["backbone"], c["quantizer"]) for c in cells] == [
        ("resnet18", "bnn"),
        ("resnet20", "bnn"),
    ]


def test_a_choice_that_lines_have_keeps_those_lines_with_their_options() -> None:
    table = TABLE | {"sweep": ["quantizer=irnet quantizer.t_min=1,2", "quantizer=fp32,adabin"]}
    (cell,) = expand_table(table, DEMO, ["quantizer=adabin"], split)
    assert cell["quantizer"] == "adabin"
    assert "quantizer.t_min" not in cell
    cells = expand_table(table, DEMO, ["quantizer=irnet"], split)
    assert [c["quantizer.t_min"] for c in cells] == ["1", "2"]


def test_a_line_that_leaves_a_group_alone_has_its_default() -> None:
    table = TABLE | {"sweep": ["quantizer=rad loss=rad", "quantizer=fp32,adabin"]}
    usual = {"loss": "task", "dataset": "digits", "recipe": "unified"}
    for word, kept in (
        ("loss=task", ["fp32", "adabin"]),
        ("loss=rad", ["rad"]),
        ("loss=kd", ["rad", "fp32", "adabin"]),
        ("recipe=unified", ["rad", "fp32", "adabin"]),
        ("recipe=native", ["rad", "fp32", "adabin"]),
        ("dataset=digits", ["rad", "fp32", "adabin"]),
    ):
        cells = expand_table(table, FULL | {"seeds": [0]}, [word], split, usual)
        assert [c["quantizer"] for c in cells] == kept, word


def test_what_a_scale_sets_is_what_its_lines_have() -> None:
    table = TABLE | {
        "sweep": ["quantizer=fp32 recipe=ssd", "quantizer=adabin recipe=long"],
        "scales": {"full": {"common": ["recipe=unified"]}},
    }
    for word in ("recipe=ssd", "recipe=unified"):  # no line has the first at this scale, each this
        cells = expand_table(table, FULL | {"seeds": [0]}, [word], split)
        assert [(c["quantizer"], c["recipe"]) for c in cells] == [
            ("fp32", word.removeprefix("recipe=")),
            ("adabin", word.removeprefix("recipe=")),
        ]


def test_repeated_cells_are_one_whatever_their_order() -> None:
    cells = [{"a": "1", "b": "2"}, {"b": "2", "a": "1"}, {"a": "1"}, {"a": "1", "b": "2"}]
    assert [list(cell) for cell in distinct(cells)] == [["a", "b"], ["a"]]


def test_an_added_key_is_the_same_key() -> None:
    assert layered([[{"+a.b": "1"}], [{"++a.b": "2"}]]) == [{"++a.b": "2"}]


@pytest.mark.parametrize(
    ("table", "scale", "message"),
    [
        (TABLE | {"comon": []}, DEMO, r"table small: no such key \['comon'\].*'common'"),
        (TABLE, DEMO | {"seed": 1}, r"scale demo: no such key \['seed'\].*'seeds'"),
        (TABLE | {"scales": {"demo": {"rows": []}}}, DEMO, r"scales.demo: no such key \['rows'\]"),
        (
            TABLE | {"columns": ["compresion"]},
            DEMO,
            r"columns: no such key \['compresion'\].*scales",
        ),
        (TABLE | {"sweep": []}, DEMO, "no lines"),
    ],
)
def test_a_mistyped_table_is_refused(
    table: dict[str, Any], scale: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        expand_table(table, scale, [], split)


def test_a_table_may_ask_for_further_columns() -> None:
    table = TABLE | {"columns": ["compression", "compression_with_scales"]}
    assert expand_table(table, DEMO, [], split) == expand_table(TABLE, DEMO, [], split)


def test_plain_ignores_the_scale() -> None:
    assert expand_plain(["quantizer=a,b", "scale=full"], split) == [
        {"quantizer": "a"},
        {"quantizer": "b"},
    ]
