"""Dot plots: means, spreads and published numbers where they are comparable, read from the SVG."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bnnbench.report.dots import classes, scores


def words(file: Path) -> list[str]:
    """The texts of a drawing, in its order."""
    return re.findall("<!-- (.*?) -->", file.with_suffix(".svg").read_text(encoding="utf-8"))


def test_rows_have_their_dots_and_seeds_their_spread(
    tmp_path: Path, make_manifest, make_result
) -> None:
    cells = [f"quantizer={q} seed={s}" for q in ("adabin", "xnor") for s in (0, 1)]
    results = {c: make_result(acc=0.8 + 0.02 * i, seed=i % 2) for i, c in enumerate(cells)}
    assert scores(make_manifest(*cells), results, tmp_path / "two", ("svg",))
    told = words(tmp_path / "two")
    assert {"adabin", "xnor", "test accuracy %, last epoch"} <= set(told)
    assert "measured, ± standard deviation over seeds" in told
    one = {cells[0]: results[cells[0]]}
    assert scores(make_manifest(cells[0]), one, tmp_path / "one", ("svg",))
    assert "measured" in words(tmp_path / "one")


def test_published_numbers_stand_beside_comparable_ones_alone(
    tmp_path: Path, make_manifest, make_result, published: dict[str, Any]
) -> None:
    cell = "quantizer=adabin backbone=resnet20"
    settings = {"dataset.name": "cifar10"}

    def drawn(name: str, **entries: Any) -> list[str]:
        choices = make_result()["choices"] | entries.pop("choices", {})
        more = entries.pop("more", {})
        manifest = make_manifest(cell, settings=settings, **entries)
        results = {cell: make_result(choices=choices, **more)}
        assert scores(manifest, results, tmp_path / name, ("svg",), published)
        return words(tmp_path / name)

    told = drawn("same")
    assert {"published", "published, recalled, not read"} <= set(told)
    assert {"adabin", "slb"} <= set(told)  # measured by nobody, of the same data and backbone
    others = [
        drawn("demo", scale="demo"),
        drawn("held_out", more={"headline": "val/acc", "metrics": {"last": {"val/acc": 0.5}}}),
    ]
    settings["dataset.name"] = "digits"
    others.append(drawn("digits", choices={"dataset": "digits"}))
    for told in others:
        assert "published numbers are not comparable: not drawn" in told
        assert "slb" not in told


def test_nothing_measured_draws_nothing(tmp_path: Path, make_manifest, make_result) -> None:
    manifest = make_manifest("quantizer=adabin")
    counted = make_result()
    counted["metrics"] = {"last": {}, "best": {}}
    for results in ({}, {"quantizer=adabin": counted}):
        assert not scores(manifest, results, tmp_path / "none")
        assert not classes(manifest, results, tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_each_class_has_its_line_and_rows_beyond_the_marks_are_counted(
    tmp_path: Path, make_manifest, make_result
) -> None:
    last = {"test/map": 0.5, "test/ap/cat": 0.25, "test/ap/a/dog": 0.75, "test/loss": 1.0}
    cells = [f"quantizer=method{i}" for i in range(9)]
    results = {c: make_result(c[10:], headline="test/map") for c in cells}
    for result in results.values():
        result["metrics"]["last"] = last
    assert classes(make_manifest(*cells), results, tmp_path / "ap", ("svg",))
    told = words(tmp_path / "ap")
    assert {"cat", "a/dog", "2 more rows not drawn", "method6"} <= set(told)
    assert "method7" not in told
    assert not {"map", "loss"} & set(told)


def test_names_are_words(tmp_path: Path, make_manifest, make_result) -> None:
    """A dollar is no formula, HTML no tag, and a long name stands on lines of its own."""
    name = "$x^ <b>" + "a" * 40
    manifest = make_manifest("quantizer=q")
    manifest["cells"][0]["overrides"]["quantizer"] = name
    result = make_result(name)
    assert scores(manifest, {"quantizer=q": result}, tmp_path / "odd", ("svg", "pdf", "png"))
    assert any("$x^" in word for word in words(tmp_path / "odd"))
