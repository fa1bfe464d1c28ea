"""Ranks over seeds: by hand, and only among rows that may be ranked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bnnbench.report.ranks import ranked, ranks, same_order


def test_ranks_count_from_the_best_and_equal_ones_share() -> None:
    found = [{0: 0.5, 1: 0.9}, {0: 0.7, 1: 0.9}, {0: 0.5, 1: 0.1}]
    assert ranked(found, 0) == [2.5, 1, 2.5]
    assert ranked(found, 1) == [1.5, 1.5, 3]


def test_an_order_lasts_where_every_seed_has_it() -> None:
    a, b, c = {0: 3.0, 1: 3.0}, {0: 2.0, 1: 1.0}, {0: 1.0, 1: 2.0}
    assert same_order([a, b, c], [0, 1]) == (2, 3)  # b and c change places
    assert same_order([a, a], [0, 1]) == (1, 1)
    assert same_order([a], [0, 1]) == (0, 0)


def words(file: Path) -> str:
    return "\n".join(re.findall("<!-- (.*?) -->", file.read_text(encoding="utf-8")))


def test_rows_of_other_bits_or_epochs_are_not_ranked_against_these(
    tmp_path: Path, make_manifest, make_result
) -> None:
    kinds = {"adabin": {}, "xnor": {}, "fp32": {"bits": {"w": 32, "a": 32}}, "long": {"epochs": 9}}
    cells = [f"quantizer={q} seed={s}" for q in kinds for s in (0, 1)]
    results = {
        cell: make_result(name, acc=0.5 + 0.01 * i, seed=i % 2, **kinds[name])
        for i, cell in enumerate(cells)
        for name in [cell.split()[0][10:]]
    }
    assert ranks(make_manifest(*cells), results, tmp_path / "r", ("svg",))
    told = words(tmp_path / "r.svg")
    assert "1 of 1 pairs in one order at every seed" in told
    assert "W/A 1/1" in told
    assert "adabin" in told
    assert not {"fp32", "long"} & set(told.splitlines())


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_one_seed_or_one_row_has_no_ranks(
    tmp_path: Path, make_manifest, make_result, seeds: tuple[int, ...]
) -> None:
    methods = ("adabin", "xnor") if len(seeds) == 1 else ("adabin",)
    cells = [f"quantizer={q} seed={s}" for q in methods for s in seeds]
    results = {c: make_result(c.split()[0][10:], seed=int(c[-1])) for c in cells}
    assert not ranks(make_manifest(*cells), results, tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_seeds_that_not_all_rows_have_do_not_count(
    tmp_path: Path, make_manifest, make_result
) -> None:
    cells = ["quantizer=a seed=0", "quantizer=a seed=1", "quantizer=b seed=1", "quantizer=b seed=2"]
    results = {c: make_result(c[10], seed=int(c[-1])) for c in cells}
    assert not ranks(make_manifest(*cells), results, tmp_path / "none")
