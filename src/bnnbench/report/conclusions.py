"""What may be concluded of a table: which differences exceed the noise, and which orders agree.

With one seed there is no noise to compare a difference with: nothing is decided then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from bnnbench.report.orders import (
    Order,
    Other,
    groups,
    length_orders,
    published_orders,
    seed_orders,
    setting_orders,
)
from bnnbench.report.rows import Row, option_keys
from bnnbench.report.significance import LEVEL, Difference, difference, holm
from bnnbench.report.twins import gaps, paired, scores

SCHEMA = 1


@dataclass(frozen=True)
class Pair:
    """Two rows, the first minus the second, and p with all pairs of the family in mind.

    family: how many pairs of rows of these bits, this network, data and length have a p.
    """

    first: Row
    second: Row
    seeds: list[int]
    found: Difference
    p_holm: float | None
    family: int

    @property
    def decided(self) -> bool:
        """Whether the difference is larger than the noise."""
        return self.p_holm is not None and self.p_holm < LEVEL


@dataclass
class Conclusions:
    """Pairs of rows of equal bits, and the orders that this table's was held against."""

    pairs: list[Pair]
    published: list[Order] = field(default_factory=list)
    lengths: list[Order] = field(default_factory=list)
    seeds: list[Order] = field(default_factory=list)
    settings: list[Order] = field(default_factory=list)

    @property
    def one_seed(self) -> bool:
        """Whether no two rows share a second seed."""
        return all(len(pair.seeds) == 1 for pair in self.pairs)


def conclude(
    rows: Sequence[Row],
    swept: Sequence[str],
    sources: Sequence[dict[str, Any]] = (),
    others: Sequence[Other] = (),
) -> Conclusions | None:
    """What the rows of a table allow to conclude; None for less than two rows to compare.

    sources: published numbers; others: sweeps of the same table. Lengths within the table are
    compared as well.
    """
    pairs = [pair for group in groups(rows) for pair in compared(group)]
    lengths = length_orders(rows, swept, [Other("this table", [*swept], rows), *others])
    if not pairs and not lengths:
        return None
    settings = setting_orders(rows, swept)
    published = published_orders(rows, sources)
    return Conclusions(pairs, published, lengths, seed_orders(rows), settings)


def compared(group: Sequence[Row]) -> list[Pair]:
    """All pairs of comparable rows that share a seed, one family of tests."""
    both = [(a, b, points) for a, b in combinations(group, 2) if (points := paired(a, b))]
    found = [difference([*points.values()]) for _, _, points in both]
    known = [index for index, one in enumerate(found) if one.p is not None]
    adjusted = dict(zip(known, holm([found[i].p or 0.0 for i in known]), strict=True))
    return [
        Pair(a, b, [*points], found[index], adjusted.get(index), len(known))
        for index, (a, b, points) in enumerate(both)
    ]


def as_json(
    what: Conclusions, names: dict[int, str], manifest: dict[str, Any], rows: list[Row]
) -> dict[str, Any]:
    """Every number: of each measured row by seed, each pair, and each order with its rows."""
    below = gaps(rows, option_keys(manifest))
    return {
        "schema": SCHEMA,
        "sweep": manifest["name"],
        "level": LEVEL,
        "rows": [
            {
                "row": names[id(row)],
                "percent": {str(seed): value for seed, (value, _) in scores(row).items()},
                "gap_to_twin": {str(seed): value for seed, value in gap.points.items()},
                "no_gap": gap.reason or None,
            }
            for row, gap in zip(rows, below, strict=True)
            if row.results
        ],
        "differences": [
            {"first": names[id(pair.first)], "second": names[id(pair.second)], "seeds": pair.seeds}
            | pair.found._asdict()
            | {"p_holm": pair.p_holm, "family": pair.family, "larger_than_noise": pair.decided}
            for pair in what.pairs
        ],
        **{
            kind: [_order_json(order, names) for order in getattr(what, kind)]
            for kind in ("published", "lengths", "seeds", "settings")
        },
    }


def _order_json(order: Order, names: dict[int, str]) -> dict[str, Any]:
    rows = [
        {"row": names[id(row)], "here": here, "there": there} for row, here, there in order.rows
    ]
    found = order.agreement._asdict() | {"rows": rows}
    return {"against": order.against, "within": order.within} | found


def names_of(rows: Sequence[Row], keys: Sequence[str]) -> dict[int, str]:
    """The method of each row, and of what was swept only what tells rows of one name apart."""
    names = [[str(row.text(key)) for key in keys[:1]] for row in rows]
    for key in keys[1:]:
        said = [tuple(name) for name in names]
        texts = [row.text(key) for row in rows]
        for name, mine, own in zip(names, said, texts, strict=True):
            alike = {text for text, other in zip(texts, said, strict=True) if other == mine}
            if len(alike) > 1 and own is not None:
                name.append(f"{key.rpartition('.')[2]}={own}" if "." in key else own)
    return {id(row): " ".join(name) for row, name in zip(rows, names, strict=True)}
