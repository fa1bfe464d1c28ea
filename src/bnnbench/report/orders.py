"""The orders that a table's rows can be put in, side by side: printed, at another length, by seed.

Only rows of equal bits on one backbone and one data set stand in one order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from statistics import mean
from typing import Any, NamedTuple

from bnnbench.report.matching import PRINTED, entry_dataset, matches
from bnnbench.report.published import distinct, is_plain, is_verified
from bnnbench.report.rows import OF_SETTINGS, Row, dataset_of, lookup, plain, settings_of
from bnnbench.report.significance import Agreement, agreement
from bnnbench.report.twins import scores, structure

SHOWN = 3  # rows that make an order worth printing
_LENGTH = {"seed", "trainer.max_epochs"}
_METHOD = ("quantizer.", "backbone.", "teacher.", "dataset.val_fraction")
_TRAINING = ("recipe.", "loss.", "dataset.")  # much of which a recipe sets


class Order(NamedTuple):
    """Two orders of the same rows: what the other one is, which rows, both numbers of each."""

    against: str
    within: str
    rows: list[tuple[Row, float, float]]
    agreement: Agreement


class Other(NamedTuple):
    """Another sweep of the same table: its name, its swept keys and its rows."""

    name: str
    swept: list[str]
    rows: Sequence[Row]


def groups(rows: Sequence[Row], length: bool = True) -> list[list[Row]]:
    """Measured rows whose numbers may be compared: equal bits, bases, network, data and headline.

    length: and equally many epochs.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        if scores(row):
            first = row.results[0]
            keys = ("bits", "bases", "headline", *(("epochs",) if length else ()))
            same = [first.get(key) for key in keys]
            key = repr([row.choice("backbone"), dataset_of(row), *same])
            found.setdefault(key, []).append(row)
    return list(found.values())


def published_orders(rows: Sequence[Row], sources: Sequence[dict[str, Any]]) -> list[Order]:
    """Measured order against printed numbers, over all rows and within each structure.

    Numbers of the rows' own backbone; where fewer than three rows have one, of each other backbone
    that three have one of: the order of methods there, not the same networks. A method that several
    rows belong to is its first row. Recalled numbers, those of several steps or of a teacher, and
    rows trained so are left out.
    """
    found = []
    for group in groups(rows):
        first = {row.choice("quantizer"): row for row in reversed(group) if _one_step(row)}
        named = [(row, printed(row, sources)) for row in group if row in first.values()]
        backbones = dict.fromkeys(name for _, values in named for name in values)
        own = str(group[0].choice("backbone"))
        enough = [name for name in backbones if sum(name in v for _, v in named) >= SHOWN]
        for name in [own] if own in enough else enough:
            pairs = [(row, _mean(row), values[name]) for row, values in named if name in values]
            found += _orders(f"published, {name}", pairs)
    return found


def printed(row: Row, sources: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What is published of a row's method on its data in its bits, by backbone.

    Of several numbers of a backbone the first counts. A row's structure counts where a published
    row names one.
    """
    metric = PRINTED.get(str(row.results[0].get("headline")).removeprefix("test/"), "")
    values: dict[str, float] = {}
    for source in sources:
        for entry in distinct(source["rows"]):
            usable = is_plain(entry) and metric in entry["values"] and is_verified(entry, metric)
            if usable and _is_of(row, entry, source):
                values.setdefault(entry["backbone"], entry["values"][metric])
    return values


def length_orders(
    rows: Sequence[Row], swept: Sequence[str], others: Sequence[Other]
) -> list[Order]:
    """The order here against that of the same rows trained for another number of epochs.

    The same rows: equal in all that their configs have, but where a whole recipe was another one,
    which the order then says, in what recipes set.
    """
    found = []
    for other in others:
        keys = sorted({*swept, *other.swept} - _LENGTH)
        parts = product(_by_epochs(rows).items(), _by_epochs(other.rows).items())
        for (epochs, part), (length, rest) in parts:
            told_before = other.rows is rows and length > epochs
            if length and length != epochs and not told_before:
                theirs = _unique(rest, keys)
                ours = _unique(part, keys).items()
                pairs = [(row, theirs[name]) for name, row in ours if name in theirs]
                found += _against(pairs, epochs, length, other.name)
    return found


def _against(
    pairs: Sequence[tuple[Row, Row]], epochs: int, length: int, name: str
) -> Iterator[Order]:
    for recipes, same in _by_recipes(pairs).items():
        here, there = (f" of {each}" * (recipes[0] != recipes[1]) for each in recipes)
        mates = {id(row): mate for row, mate in same}
        for group in groups([row for row, _ in same]):
            means = [(row, _mean(row), _mean(mates[id(row)])) for row in group]
            yield from _orders(f"here {epochs} epochs{here}, {length}{there} in {name}", means)


def _by_recipes(
    pairs: Sequence[tuple[Row, Row]],
) -> dict[tuple[str | None, str | None], list[tuple[Row, Row]]]:
    """Pairs of rows that differ in length and recipe alone, by the names of both recipes."""
    found: dict[tuple[str | None, str | None], list[tuple[Row, Row]]] = {}
    for pair in pairs:
        first, second = (row.choice("recipe") for row in pair)
        alike = _alike(*pair, _METHOD + (_TRAINING if first == second else ()))
        if alike and len(groups(pair, length=False)) == 1:
            found.setdefault((first, second), []).append(pair)
    return found


def _alike(one: Row, other: Row, kinds: tuple[str, ...]) -> bool:
    """Whether settings of these kinds are equal, as far as the configs of both have them."""
    keys = one.settings.keys() & other.settings.keys()
    told = [k for k in keys if k.startswith(kinds) and not k.endswith(("seed", "_target_"))]
    choices = [(row.text("loss"), row.text("teacher")) for row in (one, other)]
    return choices[0] == choices[1] and all(one.settings[k] == other.settings[k] for k in told)


def setting_orders(rows: Sequence[Row], swept: Sequence[str]) -> list[Order]:
    """The order at each method's own best setting of the recipe against that at each common one.

    That is whether the order hangs on whose learning rate was used. A method, which is what all
    else that was swept says, counts where it was trained with two settings.
    """
    others = [key for key in swept if not key.startswith(OF_SETTINGS) and key != "seed"]
    found = []
    for group in groups(rows):
        settings = settings_of(group, [key for key in swept if key not in others])
        methods: dict[tuple[str | None, ...], dict[str, Row]] = {}
        for row, setting in zip(group, settings, strict=True):
            methods.setdefault(_identity(row, others), {})[setting] = row
        several = [known for known in methods.values() if len(known) > 1]
        tuned = [(max(known.values(), key=_mean), known) for known in several]
        for setting in dict.fromkeys(settings):
            pairs = [
                (best, _mean(best), _mean(known[setting]))
                for best, known in tuned
                if setting in known
            ]
            found += _orders(f"each method at its best here, all at {setting}", pairs, parts=False)
    return found


def seed_orders(rows: Sequence[Row]) -> list[Order]:
    """The order by one seed against that by the next: how far noise alone changes it.

    The last seed is held against the first; of three seeds these are all pairs, of many, whose
    pairs would be thousands, as many orders as seeds.
    """
    found = []
    for group in groups(rows):
        known = [(row, scores(row)) for row in group]
        for one, two in _neighbours(sorted({seed for _, own in known for seed in own})):
            both = [
                (row, own[one][0], own[two][0]) for row, own in known if {one, two} <= own.keys()
            ]
            found += _orders(f"here seed {one}, seed {two}", both, parts=False)
    return found


def _neighbours(seeds: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Each seed with the next, in a ring from three on."""
    ring = [(seeds[0], seeds[-1])] if len(seeds) > 2 else []
    return sorted([*pairwise(seeds), *ring])


def _orders(against: str, pairs: list[tuple[Row, float, float]], parts: bool = True) -> list[Order]:
    """The order of all pairs, and with parts of each structure that three of them have."""
    built: dict[str, list[tuple[Row, float, float]]] = {}
    for pair in pairs:
        built.setdefault(structure_text(pair[0]), []).append(pair)
    within = built if len(built) == 1 else {bits_text(pairs): pairs} | (built if parts else {})
    return [
        Order(against, name, part, agreement([h for _, h, _ in part], [t for _, _, t in part]))
        for name, part in within.items()
        if len(part) >= SHOWN
    ]


def bits_text(pairs: list[tuple[Row, float, float]]) -> str:
    """What all rows of an order have in common: "all of 1/1 bits"."""
    bits = (pairs[0][0].results[0].get("bits") or {}) if pairs else {}
    return f"all of {bits.get('w', 32)}/{bits.get('a', 32)} bits"


def structure_text(row: Row) -> str:
    """A structure in words, as the columns of a table have them."""
    built = structure(row)
    names = {"head_norm": "head norm"}
    usual = {"width": (None, 1), "kwargs": (None, {})}
    known = {k: v for k, v in built.items() if k != "backbone" and v not in usual.get(k, (None,))}
    words = [f"{names.get(key, key)} {plain(value)}" for key, value in known.items()]
    return ", ".join([str(built["backbone"]), *words])


def _is_of(row: Row, entry: dict[str, Any], source: dict[str, Any]) -> bool:
    run, bits = entry.get("run"), row.results[0].get("bits")
    if run is None or entry_dataset(entry, source) != row.choice("dataset"):
        return False
    if bits and any(bits.get(side) != entry["bits"].get(side) for side in ("w", "a")):
        return False
    return all(_fits(row, key, wanted) for key, wanted in run.items())


def _fits(row: Row, key: str, wanted: Any) -> bool:
    """Backbone and recipe may differ; of a structure only what the row's network has too."""
    if key in ("backbone", "recipe", "dataset"):
        return True
    value = row.setting(key)
    return (key.startswith("backbone.") and value is None) or matches(wanted, value)


def _one_step(row: Row) -> bool:
    taught = row.choice("teacher") not in (None, "none")
    return not taught and not row.settings.get("recipe.stages")


def _mean(row: Row) -> float:
    return mean(value for value, _ in scores(row).values())


def _by_epochs(rows: Sequence[Row]) -> dict[Any, list[Row]]:
    """Rows by the epochs of all their results; those of several lengths are left out."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        lengths = {lookup(result, "epochs") for result in row.results}
        if len(lengths) == 1:
            found.setdefault(lengths.pop(), []).append(row)
    return found


def _unique(rows: Sequence[Row], keys: Sequence[str]) -> dict[tuple[str | None, ...], Row]:
    """Rows by what the swept keys say of them, without those that they do not tell apart."""
    names = [_identity(row, keys) for row in rows]
    return {name: row for name, row in zip(names, rows, strict=True) if names.count(name) == 1}


def _identity(row: Row, keys: Sequence[str]) -> tuple[str | None, ...]:
    return tuple(row.text(key) for key in keys)
