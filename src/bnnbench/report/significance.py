"""Paired differences, Holm's decisions and Kendall's tau: numbers in, numbers out.

What is assumed. Two rows with one seed share the order of the data, the augmentation and, where
their layers are the same, the initial weights; so their difference is taken seed by seed, and a
good seed for both cancels. The differences of several seeds are taken for independent draws of one
normal distribution; if sharing a seed does not make rows alike, the test stays valid and only
loses degrees of freedom against an unpaired one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from statistics import mean, stdev
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.05
LEAST_ROWS = 5  # no order of four rows is rarer than 2 in 24 by chance
_ENUMERATED = 7  # rows up to which all their orders are counted
_DRAWS = 10_000
_AT_ONCE = 10**7  # numbers of one array


class Difference(NamedTuple):
    """A mean of paired differences, its t interval at 95 % and the two-sided p of no difference.

    None where the differences do not say how much they scatter: one seed, or all alike.
    """

    mean: float
    interval: tuple[float, float] | None
    p: float | None


class Agreement(NamedTuple):
    """Kendall's tau-b of two orders of the same rows.

    tau: None where one of the two has all rows alike. interval: at 95 %, None for less than
    `LEAST_ROWS` rows, and where all pairs agree or none does, as then all draws are alike. p: how
    often chance alone is as far from 0, None where tau is.
    """

    rows: int
    tau: float | None
    interval: tuple[float, float] | None
    p: float | None


def difference(values: Sequence[float]) -> Difference:
    """Student's paired t of at least one difference (Student 1908, Biometrika 6, 1-25)."""
    center, count = mean(values), len(values)
    spread = stdev(values) if count > 1 else 0.0
    if spread <= 1e-9:  # rounding, not scatter
        return Difference(center, None, None)
    from scipy.special import stdtr, stdtrit  # whose import tables of one seed need not wait for

    error = spread / math.sqrt(count)
    half = float(stdtrit(count - 1, 1 - LEVEL / 2)) * error
    p = 2 * float(stdtr(count - 1, -abs(center) / error))
    return Difference(center, (center - half, center + half), p)


def holm(values: Sequence[float]) -> list[float]:
    """Adjusted p values of a family: whichever are below a level can all be believed at that level.

    Holm 1979, Scandinavian Journal of Statistics 6, 65-70. Nothing is assumed of how the tests
    depend on each other, and pairs that share a row do.
    """
    adjusted, least = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = least
    return adjusted


def least_t(count: int, tests: int) -> float:
    """Standard errors that a mean of count differences has to reach as the clearest of tests."""
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, 1 - LEVEL / (2 * tests)))


def agreement(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Agreement:
    """Tau-b (ties count in the denominator: Kendall 1945, Biometrika 33, 239-251) of two lists.

    The interval is the percentile bootstrap over rows (Efron and Tibshirani 1993, An Introduction
    to the Bootstrap, ch. 13): 10,000 tables of as many rows, drawn with replacement by a fixed
    generator. Rows, not seeds, are drawn, because published numbers have one value a method and a
    handful of methods says little of how two orders agree, however many seeds each of them has;
    a row that is drawn twice is tied with itself and counts for nothing. p is exact up to 7 rows,
    of all orders of one list; beyond, of 10,000 drawn ones and the observed one, so that it is
    never 0 (Phipson and Smyth 2010, Statistical Applications in Genetics 9, article 39).
    """
    import numpy as np

    a, b = _signs(first), _signs(second)
    rows, generator = len(first), np.random.default_rng(seed)
    whole = _tau(np.ones((1, rows)), a, b)[0]
    if math.isnan(whole):
        return Agreement(rows, None, None, None)
    interval = None
    if rows >= LEAST_ROWS:
        taus = _tau(generator.multinomial(rows, [1 / rows] * rows, _DRAWS), a, b)
        low, high = np.nanpercentile(taus, [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
        interval = (float(low), float(high)) if low < high else None
    return Agreement(rows, float(whole), interval, _chance(a, b, generator))


def _signs(values: Sequence[float]) -> np.ndarray:
    """Sign of every difference of two values, (n, n)."""
    import numpy as np

    column = np.asarray(values, dtype=float)
    return np.sign(column[:, None] - column[None, :])


def _tau(counts: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Tau-b of tables that hold each row as often as counts (k, n) say; nan where undefined."""
    import numpy as np

    sums = [((counts @ m) * counts).sum(1) for m in (a * b, a * a, b * b)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[0] / np.sqrt(sums[1] * sums[2])


def _chance(a: np.ndarray, b: np.ndarray, generator: np.random.Generator) -> float:
    """Share of the orders of b's rows that agree or disagree with a at least as much."""
    import numpy as np

    rows, (a, b) = len(a), (a.astype(np.int8), b.astype(np.int8))
    exact = rows <= _ENUMERATED
    if exact:
        orders = np.array(list(permutations(range(rows))))
    else:
        orders = np.argsort(generator.random((_DRAWS, rows)), axis=1)
    extreme, least = 0, abs((a * b).sum(dtype=int))
    for part in np.array_split(orders, -(-len(orders) * rows**2 // _AT_ONCE)):
        found = (a * b[part[:, :, None], part[:, None, :]]).sum((1, 2), dtype=int)
        extreme += int((np.abs(found) >= least).sum())
    return extreme / len(orders) if exact else (extreme + 1) / (len(orders) + 1)
