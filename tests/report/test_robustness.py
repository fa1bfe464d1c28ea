"""Robustness files to tables: mCE on numbers made by hand, and files that are none."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from bnnbench.report.markup import MISSING
from bnnbench.report.overall_page import Where, page
from bnnbench.report.robustness import (
    _row_names,
    losses,
    mce,
    read,
    readable,
    relative_mce,
    table,
    twin_of,
    write,
)

ROOT = Path(__file__).parents[2]
CELL: dict[str, Any] = {"overrides": {}, "fingerprint": "f", "settings": {}, "choices": {}}


def network(method: str, clean: float, **accuracy: list[float]) -> dict[str, Any]:
    same = {"backbone": "resnet20", "recipe": "unified", "epochs": None, "seed": 0, "start": None}
    built = {"shortcut": "conv", "nonlinearity": "relu" if method == "fp32" else "identity"}
    named = {"name": f"run_of_{method}", "method": method, "structure": built}
    return named | same | {"clean": clean, "accuracy": accuracy}


TWIN = network("fp32", 0.9, fog=[0.8, 0.6], snow=[0.7, 0.7])  # errors 0.3 and 0.3
BINARY = network("xnor", 0.8, fog=[0.5, 0.3], snow=[0.7, 0.5])  # errors 0.6 and 0.4


def content_of(*networks: dict[str, Any]) -> dict[str, Any]:
    content = {"dataset": "cifar10c", "source": "generated", "images": 10, "of": 20}
    content |= {"severities": [1, 5], "networks": networks, "command": "c", "device": "d"}
    return content | {"git": {"commit": "0123456789", "dirty": True}}


def test_mce_is_the_mean_ratio_of_errors_to_the_twins() -> None:
    names = ["fog", "snow"]
    assert mce(BINARY, TWIN, names) == pytest.approx((2 + 4 / 3) / 2)
    assert mce(TWIN, TWIN, names) == pytest.approx(1)
    assert relative_mce(BINARY, TWIN, names) == pytest.approx((0.4 / 0.2 + 0.2 / 0.2) / 2)
    assert mce(BINARY, network("fp32", 1.0, fog=[1.0], snow=[1.0]), names) is None
    assert relative_mce(BINARY, network("fp32", 0.5, fog=[0.6], snow=[0.4]), names) is None


def test_a_twin_is_alike_in_all_that_is_known() -> None:
    assert twin_of(BINARY, [BINARY, TWIN]) is TWIN
    assert twin_of(BINARY | {"epochs": 3}, [TWIN]) is TWIN
    assert twin_of(BINARY | {"epochs": 3}, [TWIN | {"epochs": 4}]) is None
    assert twin_of(BINARY | {"backbone": "vgg_small"}, [TWIN]) is None
    built = BINARY["structure"] | {"nonlinearity": "hardtanh"}
    assert twin_of(BINARY | {"structure": built}, [TWIN]) is None
    assert twin_of(BINARY | {"structure": built}, [TWIN | {"structure": built}])


def test_a_start_from_the_twin_makes_that_the_twin_where_no_other_is() -> None:
    fast = BINARY | {"recipe": "fast"}
    own = TWIN | {"recipe": "fast", "start": "twin"}
    assert twin_of(fast, [TWIN]) is None
    assert twin_of(fast | {"start": "twin"}, [TWIN]) is TWIN
    assert twin_of(fast | {"start": "twin"}, [TWIN, own]) is own


def test_a_table_has_groups_and_says_what_its_images_are() -> None:
    content = content_of(BINARY, TWIN)
    made = table(content, "x.json")
    row = dict(zip(made.header, made.rows[0], strict=True))
    assert (row["clean %"], row["corrupted %"], row["weather %"]) == ("80.00", "50.00", "50.00")
    assert (row["mCE / twin"], row["relative mCE / twin"]) == ("1.667", "1.500")
    assert "noise %" not in made.header
    notes = "\n".join(made.notes)
    assert "not the published arrays" in notes
    assert "2 of the 15" in notes
    assert "commit 01234567 with changes" in notes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read"),
        ("[]", "lacks dataset"),
        ("{}", "lacks dataset"),
        (json.dumps(content_of()), "lacks networks"),
        (json.dumps(content_of({"name": "x"})), "lacks method"),
        (json.dumps(content_of(TWIN) | {"git": None}), "which commit"),
        (json.dumps(content_of(TWIN) | {"source": "elsewhere"}), "whose images"),
        (json.dumps(content_of(TWIN, network("bnn", 0.5, fog=[0.1]))), "different corruptions"),
    ],
)
def test_a_file_without_results_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=told):
        read(tmp_path / "x.json")


def test_a_loss_is_clean_minus_the_mean_over_severities_of_both() -> None:
    """Of networks that are runs asked for, over the corruptions that count."""
    extra = {"spatter": [0.1, 0.1]}
    tested = [
        BINARY | {"accuracy": BINARY["accuracy"] | extra},
        network("adabin", 0.5, fog=[0.4, 0.4]) | {"epochs": 7},  # without a twin
        TWIN | {"epochs": 3, "accuracy": TWIN["accuracy"] | extra},
    ]
    contents = {"a": content_of(*tested), "b": content_of(BINARY | {"clean": 0.7}, TWIN)}
    found = losses(contents, {"run_of_xnor", "run_of_adabin", "run_of_fp32"})
    pairs = {"fog": pytest.approx((0.4, 0.2)), "snow": pytest.approx((0.2, 0.2))}
    assert found == ({"xnor": pairs}, ["a (10 of 20 images, generated)"])
    assert losses(contents, {"run_of_adabin"}) == ({}, [])


@pytest.mark.parametrize(
    ("key", "value"),
    [("dataset", "cifar100c"), ("severities", [1]), ("source", "published"), ("images", 3)],
)
def test_losses_are_of_one_set_of_images(key: str, value: Any) -> None:
    """The one that most methods were tested on; more methods of it may lie in another file."""
    bnn = BINARY | {"name": "run_of_bnn", "method": "bnn"}
    contents = {"a": content_of(bnn, TWIN) | {key: value}, "b": content_of(BINARY, TWIN)}
    contents |= {"c": content_of(BINARY | {"name": "run_of_adabin", "method": "adabin"}, TWIN)}
    found = losses(contents, {"run_of_bnn", "run_of_xnor", "run_of_adabin"})
    assert set(found.by_method) == {"xnor", "adabin"}
    assert [file.split()[0] for file in found.files] == ["b", "c"]


def test_a_network_that_loses_nothing_has_a_ratio_of_zero() -> None:
    collapsed = network("xnor", 0.1, fog=[0.1, 0.1], snow=[0.1, 0.1])
    made = table(content_of(collapsed, TWIN), "x.json")
    assert dict(zip(made.header, made.rows[0], strict=True))["relative mCE / twin"] == "0.000"


def test_the_page_of_scores_has_the_track_of_runs_of_its_scale(tmp_path: Path) -> None:
    """Half and all of the twin's loss kept: the mean of 1/4 and 1 under a root."""
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content_of(BINARY, TWIN)))
    manifest = tmp_path / "sweep.json"
    sweep = {"schema": 2, "name": "s", "command": "c", "table": None, "scale": "quick"}
    sweep |= {"swept": [], "shared": {}, "figures": [], "scale_notes": None}
    sweep |= {"headline": "test/acc", "cells": [CELL | {"run": "run_of_xnor"}]}
    manifest.write_text(json.dumps(sweep))
    where = Where([manifest], tmp_path, f"{tmp_path}/{{}}", f"{tmp_path}/{{}}_dots", [file])
    assert page(where, None, "demo", ("svg",)) is None
    written = page(where, None, None, ("svg",))
    assert written is not None
    assert written[1].rows == [["xnor", *[MISSING] * 2, "0.791", *[MISSING] * 3]]
    note, lost = [n for n in written[1].notes if n.startswith("corruption robustness:")]
    assert note.endswith("over fog, snow; from a (10 of 20 images, generated)")
    assert lost.endswith("xnor loses 30.0 points in the mean over corruptions, its twin 20.0")


def test_files_that_cannot_be_used_are_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "good.json").write_text(json.dumps(content_of(BINARY, TWIN)))
    assert list(readable([tmp_path / f"{n}.json" for n in ("bad", "good", "none")])) == ["good"]
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(" cannot")[0] for line in told] == [
        f"left out: {tmp_path / name}" for name in ("bad.json", "none.json")
    ]


def test_a_file_becomes_a_table_and_a_heat_map(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(content_of(BINARY, TWIN)))
    write(tmp_path / "x.json", tmp_path, tmp_path)
    assert all((tmp_path / f"x.{end}").stat().st_size > 100 for end in ("md", "csv", "tex", "png"))


def test_rows_of_one_method_are_told_apart_by_what_differs() -> None:
    built = BINARY["structure"] | {"nonlinearity": "hardtanh"}
    other = BINARY | {"structure": built, "seed": 1}
    assert _row_names([BINARY, other, TWIN]) == ["xnor, 0, identity", "xnor, 1, hardtanh", "fp32"]


# Whose constants are no order: reach against repetitions of glass, more against larger flakes,
# from water to mud, from paler colours to deeper ones.
UNORDERED = {"glass_blur", "snow", "spatter", "saturate"}


def test_more_severity_costs_full_precision_more() -> None:
    """Of the committed evaluation, but for two standard errors of an accuracy."""
    content = read(ROOT / "results" / "robustness" / "robustness_cifar10.json")
    (twin,) = (each for each in content["networks"] if each["method"] == "fp32")
    error = 2 * math.sqrt(0.25 / content["images"])
    for name, found in twin["accuracy"].items():
        if name not in UNORDERED:
            assert found[-1] < found[0] <= twin["clean"] + error
            assert all(after <= before + error for before, after in pairwise(found)), name
    means = [mean(found) for found in zip(*twin["accuracy"].values(), strict=True)]
    assert means == sorted(means, reverse=True)
