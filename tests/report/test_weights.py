"""Weight figures: densities and mixtures by hand, and who is drawn where."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest

from bnnbench.report.weights import binarized, density, kernels, layers, mixture

FIGURES = (kernels, layers, binarized)
Results = dict[str, dict[str, Any]]


def snapshot(fraction: float, epoch: float, modes: float) -> dict[str, Any]:
    """Two modes of 80 bins, counted from a normal distribution's quantiles."""
    two = [NormalDist(mode, 0.02) for mode in (modes, -modes)]
    edges = [-0.2 + 0.005 * i for i in range(81)]
    shares = [sum(d.cdf(b) - d.cdf(a) for d in two) for a, b in pairwise(edges)]
    counts = [round(1152 * share) for share in shares]
    fit = {"mean_abs": modes, "std_abs": 0.02, "kurtosis": 1.5}
    return {"fraction": fraction, "step": 0, "epoch": epoch, "range": 0.2, "counts": counts} | fit


def statistics(indices: tuple[int, ...] = (2, 3, 8, 14), scale: float = 1.0) -> dict[str, Any]:
    moments = ((0.0, 0.0), (0.01, 2.0), (0.1, 20.0), (1.0, 200.0))
    return {
        "epochs": [0, 100, 200],
        "layers": [
            {
                "name": f"conv{index}",
                "index": index,
                "snapshots": [snapshot(f, e, 0.01 + 0.08 * f) for f, e in moments],
                "binarized": [0.05 * scale, 0.2 * scale, 0.1 * scale],
                "mean_abs": [0.05, 0.03, 0.01],
                "kurtosis": [3.0, 2.0, 1.5],
            }
            for index in indices
        ],
    }


@pytest.fixture
def sweep(make_manifest, make_result) -> tuple[dict[str, Any], Results]:
    """fp32 without layers, xnor, adabin from before there were statistics, bonn."""
    cells = [f"quantizer={q}" for q in ("fp32", "xnor", "adabin", "bonn")]
    results = {cell: make_result(cell.split("=")[1]) for cell in cells}
    results[cells[0]]["statistics"] = {"layers": []}
    results[cells[1]]["statistics"] = statistics()
    results[cells[3]]["statistics"] = statistics(scale=2.0)
    results[cells[3]]["config"] = {"loss": {"name": "bonn", "lambda": 1e-4, "nu": 0.2}}
    return make_manifest(*cells), results


def texts(path: Path) -> list[str]:
    """What an SVG says: matplotlib notes each text as a comment beside its outlines."""
    return re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"))


def test_the_mixture_is_two_halves_of_normal_densities() -> None:
    for mean, spread in ((0.0076, 0.004), (0.0, 0.03), (1.0, 0.2)):
        step = spread / 50
        grid = [i * step for i in range(-1000, 1001)]
        assert sum(mixture(x, mean, spread) for x in grid) * step == pytest.approx(1, abs=1e-6)
        normal = NormalDist(mean, spread), NormalDist(-mean, spread)
        for x in (-0.01, 0.0, 0.004, 1.0):
            halves = sum(d.pdf(x) for d in normal) / 2
            assert mixture(x, mean, spread) == pytest.approx(halves, rel=1e-9, abs=1e-300)


def test_the_density_has_area_one() -> None:
    heights, edges = density({"counts": [1, 0, 0, 3], "range": 0.5})
    assert edges == pytest.approx([-0.5, -0.25, 0, 0.25, 0.5])
    assert heights == pytest.approx([1.0, 0, 0, 3.0])  # 1 and 3 of 4 weights in bins of 0.25


def test_rows_with_statistics_are_drawn_with_their_loss(sweep, tmp_path: Path) -> None:
    for draw in FIGURES:
        stem = tmp_path / "new" / draw.__name__
        assert draw(*sweep, stem, ("png", "svg"))
        png = (tmp_path / "new" / f"{draw.__name__}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert len(png) < 100_000
        said = texts(tmp_path / "new" / f"{draw.__name__}.svg")
        assert {"xnor", "bonn"} <= set(said)
        assert not {"fp32", "adabin"} & set(said)
        assert "λ=0.0001, \N{GREEK SMALL LETTER NU}=0.2" in said


def test_panels_of_the_papers_figures(sweep, tmp_path: Path) -> None:
    for draw in FIGURES:
        draw(*sweep, tmp_path / draw.__name__, ("svg",))
    said = {draw.__name__: texts(tmp_path / f"{draw.__name__}.svg") for draw in FIGURES}
    epochs = [f"epoch {e}" for e in (0, 2, 20, 200)]
    assert [text for text in said["kernels"] if text.startswith("epoch")] == epochs * 2
    titles = [text for text in said["layers"] if text.startswith("conv")]
    assert titles == [f"conv{i}   kurtosis 1.5" for i in (2, 8, 14)] * 2
    titles = [text for text in said["binarized"] if text.startswith("conv")]
    assert titles == [f"conv{i}" for i in (2, 3, 8, 14)]


def test_swept_settings_are_named_once(make_manifest, make_result, tmp_path: Path) -> None:
    cells = [f"quantizer=bonn loss.lambda={x}" for x in ("0", "1e-4")]
    results = {cell: make_result("bonn", statistics=statistics()) for cell in cells}
    for cell, weight in zip(cells, (0, 1e-4), strict=True):
        results[cell]["config"] = {"loss": {"lambda": weight, "nu": 0.2}}
    layers(make_manifest(*cells), results, tmp_path / "layers", ("svg",))
    said = texts(tmp_path / "layers.svg")
    assert {"lambda=0", "lambda=0.0001", "\N{GREEK SMALL LETTER NU}=0.2"} <= set(said)
    assert not any("λ" in text for text in said)


@pytest.mark.parametrize(("count", "note"), [(8, None), (9, "1 more row is"), (11, "3 more rows")])
def test_figures_of_panels_say_what_they_leave_out(
    make_manifest, make_result, tmp_path: Path, count: int, note: str | None
) -> None:
    cells = [f"quantizer=q{i}" for i in range(count)]
    results = {cell: make_result(statistics=statistics((2, 3))) for cell in cells}
    layers(make_manifest(*cells), results, tmp_path / "layers", ("svg",))
    said = texts(tmp_path / "layers.svg")
    assert [f"q{i}" for i in range(count) if f"q{i}" in said] == [f"q{i}" for i in range(8)]
    notes = [text for text in said if text.endswith("not drawn")]
    assert notes == [] if note is None else notes[0].startswith(note)


def test_the_first_seed_with_statistics_counts(make_manifest, make_result, tmp_path: Path) -> None:
    cells = [f"quantizer=xnor seed={seed}" for seed in (0, 1, 2)]
    results = {cell: make_result("xnor") for cell in cells}
    results[cells[1]]["statistics"] = statistics((2, 5))
    results[cells[2]]["statistics"] = statistics((2, 7))
    binarized(make_manifest(*cells), results, tmp_path / "binarized", ("svg",))
    said = texts(tmp_path / "binarized.svg")
    assert "conv5" in said
    assert "conv7" not in said


def test_rows_of_different_depth_and_length(make_manifest, make_result, tmp_path: Path) -> None:
    short = statistics((2,))
    short["layers"][0]["snapshots"] = short["layers"][0]["snapshots"][-1:]
    short["layers"][0]["snapshots"][0] |= {"std_abs": 0.0, "mean_abs": 0.2, "counts": [5, 0, 5]}
    cells = {"quantizer=bnn": short, "quantizer=xnor": statistics((2, 3, 7, 12))}
    results = {cell: make_result(statistics=s) for cell, s in cells.items()}
    for draw in FIGURES:
        assert draw(make_manifest(*cells), results, tmp_path / draw.__name__, ("svg",))
    panels = re.findall(r'id="axes_', (tmp_path / "kernels.svg").read_text(encoding="utf-8"))
    assert len(panels) == 1 + 4  # no empty ones


def test_the_same_bytes_every_time(sweep, tmp_path: Path) -> None:
    for name in ("a", "b"):
        kernels(*sweep, tmp_path / name, ("png", "svg"))
    for suffix in ("png", "svg"):
        first, second = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
        assert first == second


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize("entry", [{}, {"statistics": None}, {"statistics": {"layers": []}}])
def test_nothing_to_draw(
    draw: Callable[..., bool], entry: dict, make_manifest, make_result, tmp_path: Path
) -> None:
    manifest = make_manifest("quantizer=fp32")
    for results in ({}, {"quantizer=fp32": make_result("fp32", **entry)}):
        assert not draw(manifest, results, tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
