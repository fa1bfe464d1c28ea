"""A table's conclusions as a page to read, a file of numbers, and a line under the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bnnbench.report.conclusions import Conclusions, Pair, as_json, names_of
from bnnbench.report.markup import MISSING, grid, markdown
from bnnbench.report.orders import Order, bits_text, structure_text
from bnnbench.report.rows import Row, option_keys
from bnnbench.report.significance import LEAST_ROWS, LEVEL, least_t

ENDING = "conclusions"
_FEW = 15  # pairs that are listed whatever they say
_ONE_SEED = (
    "One seed: nothing can be concluded about differences between rows, whatever their size. "
    "Nothing here says how far another seed would have moved them."
)
_TESTED = (
    "Differences are taken seed by seed: a seed fixes the order of the data, the augmentation and, "
    "where layers are the same, the initial weights. The interval and p are Student's, of "
    "differences taken as independent and normal; p by Holm holds for all pairs of one "
    "network, data set, length and number of bits together, and decides."
)
_TAU = (
    "tau-b: 1 where all pairs of rows stand in the same order, 0 where as many do as do not, -1 "
    f"where none does. 95 % interval: bootstrap over rows, from {LEAST_ROWS} rows on, and none "
    "where all pairs agree. p: how often chance is as far from 0; of four rows never below 0.08."
)
_PRINTED = (
    "Published numbers have recipes, lengths and, in part, structures of their own, and several "
    "are the best epoch on the test set: asked is whether the order agrees, not the numbers. Only "
    "those read in a source count, of several of one method the first; of a method's several rows "
    "here the first in the table."
)
_LENGTHS = (
    "here: the table beside this file; means over seeds. A length is too short to rank methods "
    "where its tau is not clearly above 0, or well below that of single seeds. Where recipes are "
    "named they differ as well, and what a tau says is of both."
)

_SETTINGS = (
    "Whether the order hangs on whose learning rate was used: each method at the best of its own "
    "settings against all at a common one. The best of several is chosen by the numbers shown."
)


def summary(what: Conclusions, file: str) -> str:
    """The line under the table that names the file."""
    if what.one_seed:
        return f"one seed: no difference between rows can be told from noise; {file}"
    decided = sum(pair.decided for pair in what.pairs)
    return f"larger than the noise: {decided} of {len(what.pairs)} differences between rows; {file}"


def write(
    what: Conclusions, title: str, manifest: dict[str, Any], rows: list[Row], stem: Path
) -> None:
    """Write `<stem>.md` and `<stem>.json`."""
    names = names_of(rows, option_keys(manifest))
    text = "\n".join(_markdown(what, names, title)) + "\n"
    stem.with_name(f"{stem.name}.md").write_text(text, encoding="utf-8")
    content = json.dumps(as_json(what, names, manifest, rows), indent=1) + "\n"
    stem.with_name(f"{stem.name}.json").write_text(content, encoding="utf-8")


def _markdown(what: Conclusions, names: dict[int, str], title: str) -> list[str]:
    lines = [f"# What may be concluded: {markdown(title)}", "", "## Differences between rows", ""]
    lines += [_ONE_SEED] if what.one_seed else [*_differences(what.pairs, names), _TESTED]
    for heading, orders, note in (
        ("Order of measured and published numbers", what.published, _PRINTED),
        ("Order at other lengths", what.lengths, _LENGTHS),
        ("Order by single seeds", what.seeds, "What noise alone leaves of an order."),
        ("Order at other settings", what.settings, _SETTINGS),
    ):
        if orders:
            lines += ["", f"## {heading}", "", _orders_grid(orders), "", f"- {note}"]
            lines += [f"- {line}" for line in _members(orders, names)]
    orders = [*what.published, *what.lengths, *what.seeds, *what.settings]
    lines += ["", _TAU] if orders else []
    return lines


def _differences(pairs: list[Pair], names: dict[int, str]) -> list[str]:
    """Few pairs, or those whose own interval leaves out 0, the largest first; what they tell."""
    few = len(pairs) <= _FEW
    apart = [p for p in pairs if few or (p.found.p is not None and p.found.p < LEVEL)]
    apart.sort(key=lambda pair: -abs(pair.found.mean))
    header = [
        "row",
        "minus row",
        "seeds",
        "points",
        "95 % interval",
        "p",
        "p by Holm",
        "larger than noise",
    ]
    body = [
        [
            markdown(names[id(pair.first)]),
            markdown(names[id(pair.second)]),
            str(len(pair.seeds)),
            f"{pair.found.mean:+.2f}",
            _interval(pair.found.interval),
            _p(pair.found.p),
            _p(pair.p_holm),
            "yes" if pair.decided else "no",
        ]
        for pair in apart
    ]
    decided, rest = sum(pair.decided for pair in pairs), len(pairs) - len(apart)
    told = f"{decided} of {len(pairs)} pairs of rows of equal bits differ by more than the noise."
    if rest:
        told += f" {rest} have intervals that include 0, or none: see the JSON beside this file."
    if any(structure_text(pair.first) != structure_text(pair.second) for pair in pairs):
        told += " Between rows of two structures a difference is the method's and the structure's."
    told += _hardest(pairs)
    return [told, "", *([grid([header, *body]), ""] if body else [])]


def _hardest(pairs: list[Pair]) -> str:
    """What the clearest pair of the largest family has to reach: few seeds decide little."""
    tested = [pair for pair in pairs if pair.found.p is not None]
    if not tested:
        return ""
    tests, seeds = max((pair.family, len(pair.seeds)) for pair in tested)
    return (
        f" Of {tests} pairs over {seeds} seeds the clearest has to be "
        f"{least_t(seeds, tests):.1f} times its standard error."
    )


def _orders_grid(orders: list[Order]) -> str:
    header = ["against", "within", "rows", "tau-b", "95 % interval", "p"]
    body = [
        [
            markdown(order.against),
            markdown(order.within),
            str(order.agreement.rows),
            MISSING if order.agreement.tau is None else f"{order.agreement.tau:+.2f}",
            _interval(order.agreement.interval),
            _p(order.agreement.p),
        ]
        for order in orders
    ]
    return grid([header, *body])


def _members(orders: list[Order], names: dict[int, str]) -> list[str]:
    """Both numbers of each row, of the orders that are no part of another."""
    whole: dict[tuple[str, str], Order] = {}
    for order in orders:
        whole.setdefault((order.against, bits_text(order.rows)), order)
    return [
        f"{markdown(order.against)}, here / there: "
        + "; ".join(f"{markdown(names[id(r)])} {h:.2f} / {t:.2f}" for r, h, t in order.rows)
        for order in whole.values()
    ]


def _interval(ends: tuple[float, float] | None) -> str:
    return MISSING if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"


def _p(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
