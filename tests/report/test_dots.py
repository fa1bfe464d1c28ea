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


def test_names_of_rows_leave_the_classes_their_room(
    tmp_path: Path, make_manifest, make_result
) -> None:
    """Those of a table with many options: short ones, on lines of their own above the panel."""
    cells = [
        f"quantizer=fp32 backbone=ssd300_resnet18 backbone.shortcut={shortcut} "
        f"backbone.nonlinearity={kind} dataset.folder=cells trainer.precision=fastest"
        for shortcut in ("block", "conv")
        for kind in ("hardtanh", "rprelu", "maxout")
    ]
    results = {cell: make_result("fp32", headline="test/map") for cell in cells}
    for result in results.values():
        result["metrics"]["last"] = {"test/map": 0.5, "test/ap/cat": 0.2, "test/ap/dog": 0.7}
    heights = []
    for shown in (cells[:2], cells):
        assert classes(make_manifest(*shown), results, tmp_path / "ap", ("svg",))
        heights.append(float(re.findall(r'viewBox="0 0 \S+ ([\d.]+)"', svg(tmp_path))[0]))
    assert "folder" not in svg(tmp_path)
    assert heights[1] > heights[0] + 10


def svg(folder: Path) -> str:
    return (folder / "ap.svg").read_text()


def test_several_metrics_share_one_label(tmp_path: Path, make_manifest, make_result) -> None:
    results = {
        "quantizer=a dataset=x": make_result(),
        "quantizer=b dataset=y": make_result(headline="test/map"),
    }
    results["quantizer=b dataset=y"]["metrics"]["last"] = {"test/map": 0.5}
    assert scores(make_manifest(*results), results, tmp_path / "two", ("svg",))
    assert "test accuracy % or mAP %, last epoch" in words(tmp_path / "two")
