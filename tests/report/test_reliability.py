"""Reliability diagrams from results: hand-made bins."""

from pathlib import Path
from typing import Any

import pytest

from bnnbench.report.reliability import bins_of, expected_error, reliability
from bnnbench.report.rows import Row

ONE = {"images": [10, 0, 30], "confidence": [0.6, None, 0.9], "accuracy": [1.0, None, 0.7]}
OTHER = {"images": [30, 5, 0], "confidence": [0.2, 0.5, None], "accuracy": [0.6, 0.4, None]}


def row(*found: dict[str, Any] | None) -> Row:
    return Row({}, results=[{"reliability": each} for each in found])


def test_bins_of_seeds_are_added_up_and_empty_ones_left_out() -> None:
    assert bins_of(row(ONE)) == [(10, 0.6, 1.0), (30, 0.9, 0.7)]
    both = [(40, 0.3, 0.7), (5, 0.5, 0.4), (30, 0.9, 0.7)]
    assert bins_of(row(ONE, None, OTHER)) == [pytest.approx(each) for each in both]
    assert bins_of(row(None)) == []


def test_the_error_is_the_mean_distance_from_the_diagonal() -> None:
    assert expected_error(bins_of(row(ONE))) == pytest.approx((10 * 0.4 + 30 * 0.2) / 40)


def test_errors_of_seeds_do_not_cancel_out(tmp_path: Path, make_manifest, make_result) -> None:
    cells = ["quantizer=xnor seed=0", "quantizer=xnor seed=1"]
    sure, unsure = ({"images": [9], "confidence": [0.5], "accuracy": [a]} for a in (0.4, 0.6))
    results = {
        cell: make_result("xnor", seed=seed, reliability=bins)
        for seed, (cell, bins) in enumerate(zip(cells, (sure, unsure), strict=True))
    }
    assert reliability(make_manifest(*cells), results, tmp_path / "bins", ("svg",))
    assert "<!-- ECE 10.0 % -->" in (tmp_path / "bins.svg").read_text()


def test_each_row_with_bins_has_a_panel(tmp_path: Path, make_manifest, make_result) -> None:
    cells = ["quantizer=xnor", "quantizer=adabin", "quantizer=bnn"]
    results = {
        cells[0]: make_result("xnor", reliability=ONE),
        cells[1]: make_result("adabin", reliability=OTHER),
        cells[2]: make_result("bnn"),
    }
    assert reliability(make_manifest(*cells), results, tmp_path / "bins", ("svg",))
    text = (tmp_path / "bins.svg").read_text()
    errors = [f"<!-- ECE {value} % -->" for value in ("25.0", "35.7")]
    assert [text.count(words) for words in errors] == [1, 1]
    assert "<!-- bnn -->" not in text
    old = {cells[2]: results[cells[2]]}
    assert not reliability(make_manifest(cells[2]), old, tmp_path / "none", ("svg",))
