"""Robustness files to tables: mCE on numbers made by hand, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bnnbench.report.robustness import mce, read, relative_mce, table, twin_of


def network(method: str, clean: float, **accuracy: list[float]) -> dict[str, Any]:
    same = {"backbone": "resnet20", "recipe": "unified", "epochs": None, "seed": 0}
    return {"method": method, **same, "clean": clean, "accuracy": accuracy}


TWIN = network("fp32", 0.9, fog=[0.8, 0.6], snow=[0.7, 0.7])  # errors 0.3 and 0.3
BINARY = network("xnor", 0.8, fog=[0.5, 0.3], snow=[0.7, 0.5])  # errors 0.6 and 0.4


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


def test_a_table_has_groups_and_says_what_its_images_are() -> None:
    content = {"dataset": "cifar10c", "source": "generated", "images": 10, "of": 20}
    content |= {"severities": [1, 5], "networks": [BINARY, TWIN], "command": "c", "device": "d"}
    content |= {"git": {"commit": "0123456789", "dirty": True}}
    made = table(content, "x.json")
    row = dict(zip(made.header, made.rows[0], strict=True))
    assert (row["clean %"], row["corrupted %"], row["weather %"]) == ("80.00", "50.00", "50.00")
    assert (row["mCE / twin"], row["relative mCE / twin"]) == ("1.667", "1.500")
    assert "noise %" not in made.header
    notes = "\n".join(made.notes)
    assert "not the published arrays" in notes
    assert "2 of the 15" in notes
    assert "commit 01234567 with changes" in notes


@pytest.mark.parametrize(("text", "told"), [("{", "cannot be read"), ("{}", "lacks dataset")])
def test_a_file_without_results_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=told):
        read(tmp_path / "x.json")
