"""Curves: means over seeds by hand, small files, and nothing to draw is no error."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bnnbench.report.figures import curves, mean_curve, row_name, short_names
from bnnbench.report.rows import Row


def test_mean_over_the_seeds_that_reached_an_epoch() -> None:
    first = {"history": {"epoch": [0, 1, 2], "test/acc": [0.5, 0.7, 0.9]}}
    second = {"history": {"epoch": [0, 1], "test/acc": [0.7, None]}}
    diverged = {"history": {"epoch": [0], "test/acc": [float("nan")]}}
    without = [{}, {"history": None}, {"history": {"epoch": [0]}}]
    curve = mean_curve([first, second, diverged, *without], "test/acc")
    assert [epoch for epoch, _ in curve] == [1, 2, 3]
    assert [value for _, value in curve] == pytest.approx([0.6, 0.7, 0.9])


def test_a_large_sweep_makes_a_small_file_the_same_every_time(
    tmp_path: Path, make_manifest, make_result
) -> None:
    cells = [
        f"quantizer=q{q} backbone={b} seed={s}"
        for q in range(12)
        for b in ("resnet18", "resnet20", "vgg_small")
        for s in (0, 1)
    ]
    results = {}
    for i, cell in enumerate(cells):
        history = {
            "epoch": list(range(100)),
            "test/acc": [0.9 - (i + 1) / (e + 90) - (7 * i * e % 11) / 500 for e in range(100)],
            "train/loss": [1 / (e + 1) for e in range(100)],
        }
        choices = make_result()["choices"] | {"backbone": cell.split()[1].split("=")[1]}
        results[cell] = make_result(history=history, choices=choices)
    manifest = make_manifest(*cells)
    assert curves(manifest, results, tmp_path / "new" / "a")
    assert curves(manifest, results, tmp_path / "b")
    drawn = (tmp_path / "new" / "a.png").read_bytes()
    assert drawn == (tmp_path / "b.png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) < 200_000


def test_many_rows_have_a_panel_each(tmp_path: Path, make_manifest, make_result) -> None:
    """Named by what tells them apart, on one page."""
    history = {"epoch": [0, 1], "test/acc": [0.5, 0.6]}
    cells = [f"quantizer=method{i} backbone.shortcut=conv" for i in range(32)]
    cells += [f"quantizer=irnet backbone.shortcut={kind}" for kind in ("conv", "block")]
    results = {cell: make_result(cell.split()[0][10:], history=history) for cell in cells}
    assert curves(make_manifest(*cells), results, tmp_path / "many", ("svg",))
    page = ET.parse(tmp_path / "many.svg").getroot()
    text = (tmp_path / "many.svg").read_text()
    names = [f"method{i}" for i in range(32)] + ["irnet shortcut=conv", "irnet shortcut=block"]
    told = " ".join(re.findall("<!-- (.*?) -->", text))  # what is long stands on two lines
    for name in names:
        assert f" {name} 60.0 " in told
    panels = [g for g in page.iter() if re.fullmatch(r"axes_\d+", g.get("id") or "")]
    assert len(panels) == len(names)
    assert "legend_1" not in text


def test_few_rows_share_a_panel_with_names_at_their_ends(
    tmp_path: Path, make_manifest, make_result
) -> None:
    history = {"epoch": [0, 1], "test/acc": [0.5, 0.6]}
    cells = [f"quantizer=method{i}" for i in range(7)]
    results = {cell: make_result(cell[10:], history=history) for cell in cells}
    assert curves(make_manifest(*cells), results, tmp_path / "few", ("svg",))
    text = (tmp_path / "few.svg").read_text()
    assert "legend_1" not in text
    assert "axes_3" not in text  # accuracy and loss
    for cell in cells:
        assert text.count(f"<!-- {cell[10:]} -->") == 1  # no line of loss, so no name there


def test_a_published_number_is_a_line_with_its_value(
    tmp_path: Path, make_manifest, make_result, published
) -> None:
    """In its row's colour, with a dagger where nobody read it; never beside a demo's budget."""
    history = {"epoch": [0, 1], "test/acc": [0.5, 0.6]}

    def told(name: str, more: int = 0, **entries: str) -> list[str]:
        cells = [f"quantizer={q}" for q in ("adabin", "slb", *(f"m{i}" for i in range(more)))]
        results = {cell: make_result(cell[10:], history=history) for cell in cells}
        manifest = make_manifest(*cells) | entries
        assert curves(manifest, results, tmp_path / name, ("svg",), published)
        return re.findall("<!-- (.*?) -->", (tmp_path / f"{name}.svg").read_text())

    few = told("few")
    assert [word for word in few if word in ("published 88.2", "published 85.5†")] == [
        "published 88.2",
        "published 85.5†",
    ]
    assert "epoch (solid: test, dashed: train, dotted: published)" in few
    assert [word for word in told("many", 12) if word in ("88.2", "85.5†")] == ["88.2", "85.5†"]
    assert "published" not in " ".join(told("demo", scale="demo"))


def test_nothing_to_draw(tmp_path: Path, make_manifest, make_result) -> None:
    manifest = make_manifest("quantizer=adabin")
    for results in ({}, {"quantizer=adabin": make_result(history={})}):
        assert not curves(manifest, results, tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_curves_are_named_by_what_tells_those_apart_that_are_drawn(
    tmp_path: Path, make_manifest, make_result
) -> None:
    cells = [f"quantizer={q} backbone.nonlinearity=identity" for q in ("adabin", "xnor")]
    never = "quantizer=bnn backbone.nonlinearity=relu"
    results = {cell: make_result(cell.split()[0][10:]) for cell in cells}
    assert curves(make_manifest(*cells, never), results, tmp_path / "few", ("svg",))
    text = (tmp_path / "few.svg").read_text()
    assert [name in text for name in ("adabin", "xnor", "identity")] == [True, True, False]


def test_one_epoch_and_missing_curves_draw(tmp_path: Path, make_manifest, make_result) -> None:
    history = {"epoch": [0], "test/acc": [0.5]}
    results = {"quantizer=adabin": make_result(history=history)}
    assert curves(make_manifest(*results), results, tmp_path / "one", ("png", "svg"))
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "one.svg"}


def test_a_row_is_named_by_its_choices_and_by_the_values_within_a_group() -> None:
    row = Row({"quantizer": "bonn", "backbone": "wrn22", "loss.nu": "0.2"})
    keys = ["quantizer", "backbone", "loss.nu"]
    assert row_name(row, keys) == "bonn wrn22 nu=0.2"
    assert row_name(Row({}, {"quantizer.name": "xnor"}), ["quantizer"]) == "xnor"


def test_short_names_have_what_tells_rows_apart_and_no_more() -> None:
    """A width goes with its backbone, so it tells nothing; backbone and shortcut do."""
    keys = ["quantizer", "backbone", "backbone.width", "backbone.shortcut"]
    values = [
        ("xnor", "vgg", "0.25", "conv"),
        ("xnor", "resnet", "1", "conv"),
        ("xnor", "resnet", "1", "block"),
        ("bnn", "vgg", "0.25", "conv"),
    ]
    rows = [Row(dict(zip(keys, each, strict=True))) for each in values]
    assert short_names(rows, keys) == [
        "xnor vgg shortcut=conv",
        "xnor resnet shortcut=conv",
        "xnor resnet shortcut=block",
        "bnn",
    ]


def test_rows_of_several_data_sets_all_name_theirs() -> None:
    """A folder of images by its own name, also where a method has one row alone."""
    keys = ["quantizer", "dataset", "backbone.shortcut"]
    values = [
        ("xnor", "cifar10", "conv"),
        ("xnor", "digits", "conv"),
        ("bnn", "image_folder", "block"),
    ]
    rows = [Row(dict(zip(keys, each, strict=True))) for each in values]
    rows[2].settings["dataset.name"] = "birds"
    assert short_names(rows, keys) == ["xnor cifar10", "xnor digits", "bnn birds"]
