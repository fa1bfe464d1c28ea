"""The scores of tracks against values worked out by hand."""

import math

import pytest

from bnnbench.report import tracks


def test_a_quadratic_mean_is_not_the_mean_and_nothing_has_none() -> None:
    assert tracks.quadratic_mean([3.0, 4.0]) == pytest.approx(math.sqrt(12.5))
    assert tracks.quadratic_mean([0.7]) == pytest.approx(0.7)
    with pytest.raises(ValueError, match="nothing"):
        tracks.quadratic_mean([])


def test_one_bad_task_weighs_less_than_in_the_mean() -> None:
    """Within a task ratios are averaged plainly, between tasks quadratically."""
    parts = {"a": [(0.8, 1.0), (0.3, 0.5)], "b": [(0.1, 0.5)]}  # 0.7 and 0.2
    assert tracks.relative(parts) == pytest.approx(math.sqrt((0.49 + 0.04) / 2))
    assert tracks.relative(parts) > (0.7 + 0.2) / 2
    assert tracks.relative({"a": [(0.9, 0.9)], "b": [(0.2, 0.2)]}) == pytest.approx(1.0)


def test_who_loses_twice_as_much_to_corruptions_has_half() -> None:
    assert tracks.robustness({"fog": (0.4, 0.2), "snow": (0.2, 0.1)}) == pytest.approx(0.5)
    assert tracks.robustness({"fog": (0.1, 0.3), "snow": (0.2, 0.2)}) == pytest.approx(
        math.sqrt((9 + 1) / 2)
    )


def test_training_is_of_time_and_of_the_spread_over_settings() -> None:
    """Sample deviations: of 1, 3 it is sqrt 2, of 1, 5 twice that."""
    score = tracks.training([(4.0, 2.0), (2.0, 2.0)], [1.0, 5.0], [1.0, 3.0])
    assert score == pytest.approx(math.sqrt((0.75**2 + 0.5**2) / 2))
    assert tracks.training([(1.0, 1.0)], [0.5, 0.5], [0.4, 0.5]) is None  # of no spread
    assert tracks.training([(1.0, 1.0)], [0.5], [0.4, 0.5]) is None


def test_two_ratios_are_averaged_over_networks_first() -> None:
    assert tracks.two_ratios([20.0, 30.0], [40.0]) == pytest.approx(math.sqrt((625 + 1600) / 2))


def test_no_formula_claims_to_have_been_read() -> None:
    """Until somebody reads the paper's Sec. 4: then this test names which."""
    assert [name for name, formula in tracks.FORMULAS.items() if formula.verified] == []
    assert tracks.TRACKS[0] == "task"
    assert len(tracks.TRACKS) == 6
