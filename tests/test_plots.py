"""The style of all drawings: colours told apart, names that do not lie on one another."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.lines import Line2D

from bnnbench.plots import (
    COLUMN,
    DISTINCT,
    STYLE,
    End,
    apart,
    legend_above,
    name_lines,
    name_points,
    row_colours,
    save,
    within,
    wrapped,
)

# Linear RGB as eyes without long-wave or medium-wave cones see it (Vienot, Brettel, Mollon 1999).
DICHROMATS = {
    "protan": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
    "deutan": [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
}


def luminance(colour: np.ndarray) -> float:
    return float(colour @ np.array([0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("eye", DICHROMATS)
def test_the_colour_blind_tell_colours_apart(eye: str) -> None:
    colours = [np.array(c) ** 2.2 for c in row_colours([str(i) for i in range(DISTINCT)]).values()]
    seen = [(np.array(DICHROMATS[eye]) @ c).clip(0, 1) ** (1 / 2.2) for c in colours]
    assert min(float(np.abs(a - b).max()) for a, b in combinations(seen, 2)) > 0.1
    contrasts = [1.05 / (luminance(c) + 0.05) for c in colours]
    assert min(contrasts) > 2  # on white


def test_names_are_moved_as_little_as_keeps_them_apart() -> None:
    assert apart([0.0, 100.0], [10, 10]) == [0, 100]
    assert apart([50.0, 50.0, 50.0], [10, 10, 10]) == [40, 50, 60]
    assert apart([0.0, 0.0, 100.0], [10, 30, 10]) == [-10, 10, 100]
    assert apart([], []) == []
    moved = apart([0.0, 3.0, 4.0, 20.0, 21.0], [6, 12, 6, 6, 6])
    gaps = [b - a for a, b in pairwise(moved)]
    assert all(gap >= least - 1e-9 for gap, least in zip(gaps, [9, 9, 6, 6], strict=True))


def test_names_stay_within_a_panel() -> None:
    assert within([0.0, 0.0], [10, 10], 0, 100) == [5, 15]
    assert within([100.0, 100.0], [10, 10], 0, 100) == [85, 95]
    assert within([50.0], [10], 0, 100) == [50]


def test_long_names_stand_on_lines() -> None:
    assert wrapped("one two three", 7) == "one two\nthree"
    assert (
        wrapped("nonlinearity=hardtanh x", 16) == "nonlinearity=hardtanh\nx"
    )  # a few more letters
    assert max(map(len, wrapped("a" * 90, 16).splitlines())) == 22
    assert wrapped("x timm/vit_tiny_patch16 9", 17) == "x timm/\nvit_tiny_patch16\n9"


def test_text_is_readable_at_the_width_of_a_column(tmp_path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure((COLUMN, 2.0), layout="constrained")
        panel = figure.subplots()
        panel.plot([0, 1], [0, 1])
        panel.plot([0, 1], [0.9, 1])
        ends = [End(1, 1, "one", "#000000"), End(1, 1, "another of many words", "#000000")]
        name_lines(panel, ends)
        name_points(panel, [End(0.5, 0.5, "a", "#000000"), End(0.5, 0.5, "b", "#000000")])
        texts = figure.findobj(lambda artist: hasattr(artist, "get_fontsize"))
        assert min(text.get_fontsize() for text in texts) >= 6
        names = [t for t in panel.texts if t.get_text() in ("one", "another of many\nwords")]
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in names]
        assert len(boxes) == 2
        assert not boxes[0].overlaps(boxes[1])
        assert all(box.x1 <= figure.bbox.x1 + 1 for box in boxes)
        save(figure, tmp_path / "a", ("png", "svg", "pdf"))
    assert {file.suffix for file in tmp_path.iterdir()} == {".png", ".svg", ".pdf"}
    assert math.isclose(COLUMN, 3.3)


@pytest.mark.parametrize("upside_down", [False, True])
def test_names_stand_beside_their_own_lines(upside_down: bool) -> None:
    """On an axis of ranks, whose first is above, as well."""
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure((COLUMN, 1.5), layout="constrained")
        panel = figure.subplots()
        panel.set_ylim(*((3.5, 0.5) if upside_down else (0.5, 3.5)))
        ends = [End(1, place, str(place), "#000000") for place in (2, 3, 1)]
        name_lines(panel, ends)
        figure.draw_without_rendering()
        found = {text.get_text(): text.get_window_extent() for text in panel.texts}
        for end in ends:
            line = panel.transData.transform((1, end.y))[1]
            assert found[end.name].y0 < line < found[end.name].y1


@pytest.mark.parametrize(("letters", "columns"), [(4, 4), (12, 3), (20, 2), (40, 1), (90, 1)])
def test_a_legend_has_as_many_columns_as_fit(letters: int, columns: int) -> None:
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure((COLUMN, 2.0), layout="constrained")
        figure.subplots()
        handles = [Line2D([], [], marker="o") for _ in range(4)]
        legend = legend_above(figure, handles, ["n" * letters] * 4, columns=4)
        figure.draw_without_rendering()
    assert figure.legends == [legend]
    assert legend._ncols == columns
    assert letters == 90 or legend.get_window_extent().x0 >= 0
