"""Tests of pairs and of orders, against SciPy, textbook numbers and answers counted by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from bnnbench.report import significance
from bnnbench.report.significance import LEAST_ROWS, agreement, difference, holm

# Student's own example (1908): additional hours of sleep of ten patients, hyoscines D and L.
SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]


def test_the_paired_t_of_students_sleep_data() -> None:
    found = difference(SLEEP)
    assert found.mean == pytest.approx(1.58)
    assert found.interval == pytest.approx((0.7001142, 2.4598858), abs=1e-6)  # R's t.test
    assert found.p == pytest.approx(0.002833, abs=1e-6)


@pytest.mark.parametrize("count", [2, 3, 5, 30])
def test_the_paired_t_is_scipys(count: int) -> None:
    values = np.random.default_rng(count).normal(0.5, 1.0, count)
    theirs = stats.ttest_1samp(values, 0.0)
    found = difference(values.tolist())
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval()), rel=1e-9)


def test_three_seeds_by_hand() -> None:
    found = difference([1.0, 2.0, 3.0])  # mean 2, error 1/sqrt(3); two degrees of freedom: closed
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    q = 4.302652729911275
    assert found.interval == pytest.approx((2 - q / math.sqrt(3), 2 + q / math.sqrt(3)))


@pytest.mark.parametrize("values", [[2.0], [1.5, 1.5, 1.5]])
def test_without_scatter_nothing_is_tested(values: list[float]) -> None:
    assert difference(values) == (pytest.approx(values[0]), None, None)


def test_holms_own_steps() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_tau_by_hand() -> None:
    assert agreement([1, 2, 3, 4], [1, 2, 3, 4])[:3] == (4, 1.0, None)
    assert agreement([1, 2, 3, 4], [1, 2, 3, 4]).p == pytest.approx(2 / 24)
    assert agreement([1, 2, 3], [3, 2, 1]) == (3, -1.0, None, pytest.approx(2 / 6))
    one_swap = agreement([1, 2, 3, 4, 5], [2, 1, 3, 4, 5])
    assert one_swap.tau == pytest.approx(0.8)  # 9 pairs for, 1 against, of 10
    assert one_swap.p == pytest.approx(2 * (1 + 4) / 120)  # orders of 0 or 1 inversions, both ends


def test_all_alike_has_no_order() -> None:
    assert agreement([1, 1, 1], [1, 2, 3]) == (3, None, None, None)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [3, 5, 7, 9, 20])
def test_tau_is_scipys(count: int, ties: bool) -> None:
    generator = np.random.default_rng(count)
    first, second = generator.normal(size=(2, count))
    second = first + second
    if ties:
        first, second = np.round(first), np.round(second)
    found, theirs = agreement(first.tolist(), second.tolist()), stats.kendalltau(first, second)
    assert found.tau == pytest.approx(theirs.statistic)
    if not ties:
        exact = stats.kendalltau(first, second, method="exact").pvalue
        assert found.p == pytest.approx(exact, abs=1e-9 if count <= 7 else 0.02)


def test_the_interval_is_the_same_each_time_and_shrinks_with_rows() -> None:
    generator = np.random.default_rng(1)
    noise = generator.normal(size=40)
    widths = []
    for count in (8, 40):
        first = list(range(count))
        second = [i + count / 2 * e for i, e in zip(first, noise, strict=False)]
        found = agreement(first, second)
        assert found == agreement(first, second)
        assert found.interval is not None
        assert found.interval[0] < found.tau < found.interval[1]
        widths.append(found.interval[1] - found.interval[0])
    assert widths[1] < widths[0] / 1.5


def test_the_interval_is_that_of_a_bootstrap_row_by_row() -> None:
    first, second = [1, 2, 3, 4, 5, 6, 7, 8], [2, 1, 4, 3, 6, 8, 5, 7]
    generator, taus = np.random.default_rng(7), []
    for _ in range(4000):
        drawn = generator.integers(0, 8, 8)
        taus.append(stats.kendalltau(np.take(first, drawn), np.take(second, drawn)).statistic)
    expected = np.nanpercentile(taus, [2.5, 97.5])
    assert agreement(first, second).interval == pytest.approx(tuple(expected), abs=0.05)


def test_chance_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = [3.0, 1, 4, 1, 5, 9, 2, 6], [2.0, 7, 1, 8, 2, 8, 1, 8]
    whole = agreement(first, second)
    monkeypatch.setattr(significance, "_AT_ONCE", 1000)
    assert agreement(first, second) == whole


def test_too_few_rows_and_one_order_have_no_interval() -> None:
    few = list(range(LEAST_ROWS - 1))
    assert agreement(few, [1, 0, *few[2:]]).interval is None
    enough = list(range(LEAST_ROWS))
    assert agreement(enough, [1, 0, *enough[2:]]).interval is not None
    assert agreement(enough, enough)[1:3] == (1.0, None)  # a draw of these has this order too
