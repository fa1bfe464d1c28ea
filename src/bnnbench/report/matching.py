"""Which published number belongs beside which row of a sweep.

A number belongs to a row with its method, backbone, bits, widths (`stages`) and, in a file with
several, data set, trained with the losses it was published with: `results/published/README.md`.
"""

from __future__ import annotations

from typing import Any

from bnnbench.report.published import datasets, distinct, is_matchable, is_plain
from bnnbench.report.rows import Row, by_backbone

_WIDTHS, _LOSS_WEIGHTS = "backbone.widths", ("loss.lambda", "loss.theta")
# `stages` tells the widths, dropout is a regulariser; the shortcut is what `variant` tells
_NO_STRUCTURE = (_WIDTHS, "backbone.dropout")
_SHORTCUT = "backbone.shortcut"
_IN_STEPS = ("two_step", "reactnet")  # recipes for any method; native is a method's own


def with_published(
    rows: list[Row], published: dict[str, Any], manifest: dict[str, Any]
) -> list[Row]:
    """Attach to each row its published number; append the numbers that no row measures.

    The appended ones stand after the last row of their backbone.
    """
    entries = distinct(published["rows"])
    told = [*_NO_STRUCTURE, *([_SHORTCUT] if any("variant" in entry for entry in entries) else [])]
    structural = [
        key for key in manifest["swept"] if key.startswith("backbone.") and key not in told
    ]
    matched: list[int] = []
    for row in rows:
        # A row that changes a network's structure is not the network that was published.
        if not any(key in row.options for key in structural):
            row.published = _match(row, entries, published)
            matched.append(id(row.published))
    rest = [entry for entry in entries if id(entry) not in matched]
    names = [_identity(entry) for entry in entries]
    return by_backbone(
        [*rows, *(_unmeasured(entry, names.count(_identity(entry)) > 1) for entry in rest)]
    )


def published_options(options: list[str], published: dict[str, Any]) -> list[str]:
    """The columns that name a row, with those that the published rows need as well."""
    rows = published["rows"]
    needed = ["quantizer"]
    needed += ["backbone"] if len({row["backbone"] for row in rows}) > 1 else []
    needed += [_WIDTHS] if len({row.get("stages") for row in rows} - {None}) > 1 else []
    needed += ["dataset"] if len(datasets(published)) > 1 else []
    needed += _LOSS_WEIGHTS if any(_has_weights(row) for row in rows) else ()
    return [*needed, *(key for key in options if key not in needed)]


def entry_dataset(entry: dict[str, Any], published: dict[str, Any]) -> str | None:
    """The data set of a published row; None where its file leaves it open."""
    whole = published["protocol"]["dataset"]
    return entry.get("dataset", whole if isinstance(whole, str) else None)


def _match(
    row: Row, entries: list[dict[str, Any]], published: dict[str, Any]
) -> dict[str, Any] | None:
    several = len(datasets(published)) > 1
    found = [
        entry
        for entry in entries
        if is_matchable(entry)
        and entry["method"] == _method(row)
        and entry["backbone"] == row.choice("backbone")
        and (not several or entry_dataset(entry, published) == row.choice("dataset"))
        and all(_same_bits(entry, result) for result in row.results)
        and _same_stages(entry, row)
        and _same_variant(entry, row)
        and _same_losses(entry, row)
    ]
    found = _same_training(found, row)
    # Two candidates (a network whose widths are not known) cannot be told apart: none is claimed.
    return found[0] if len(found) == 1 else None


def _method(row: Row) -> str | None:
    """The quantizer; BiDet is Bi-Real Net's with losses of its own."""
    pair = row.choice("quantizer"), row.choice("loss")
    return "bidet" if pair == ("birealnet", "multibox_bidet") else pair[0]


def _same_variant(entry: dict[str, Any], row: Row) -> bool:
    """SC: a VGG-16 with shortcuts. Other networks have no such variant."""
    if not str(row.choice("backbone")).endswith("vgg16"):
        return "variant" not in entry
    return (entry.get("variant") == "sc") == (row.setting(_SHORTCUT) == "conv")


def _same_bits(entry: dict[str, Any], result: dict[str, Any]) -> bool:
    one = {"w": 1, "a": 1}
    return entry["bits"] == result["bits"] and entry.get("bases", one) == result["bases"]


def _same_stages(entry: dict[str, Any], row: Row) -> bool:
    return row.stages() in (None, entry.get("stages", row.stages()))


def _same_losses(entry: dict[str, Any], row: Row) -> bool:
    """A number that says nothing of losses is BONN's with both of its own, any other's without."""
    bayesian = row.choice("loss") == "bonn"
    weights = [row.setting(key) for key in _LOSS_WEIGHTS]  # None: the option's own, both are on
    on = [bayesian and (weight is None or float(weight) > 0) for weight in weights]
    if "hyper" in entry or "varied" in entry:
        if not (bayesian and _has_weights(entry)) or None in weights:
            return False
        return [float(w) for w in weights] == [entry["hyper"]["lambda"], entry["hyper"]["theta"]]
    if "losses" in entry:
        return bayesian and on == [entry["losses"]["kernel"], entry["losses"]["feature"]]
    return all(on) if entry["method"] == "bonn" else not any(on)


def _same_training(entries: list[dict[str, Any]], row: Row) -> list[dict[str, Any]]:
    """Numbers of one step, or of several steps and a teacher, as the row's recipe has them.

    A method's own recipe is the one it was published with, in one step where there are both.
    """
    recipe = row.choice("recipe")
    plain = [entry for entry in entries if "training" not in entry]
    if recipe in _IN_STEPS or (recipe == "native" and not plain):
        return [entry for entry in entries if "training" in entry]
    return plain


def _has_weights(entry: dict[str, Any]) -> bool:
    return set(entry.get("hyper") or {}) == {"lambda", "theta"}


def _identity(entry: dict[str, Any]) -> tuple[Any, ...]:
    named = ("method", "backbone", "dataset", "stages", "bits", "hyper")
    return tuple(str(entry.get(key)) for key in named)


def _unmeasured(entry: dict[str, Any], ambiguous: bool) -> Row:
    named = entry["method"]
    if ambiguous or not (is_plain(entry) or _has_weights(entry)):
        named = f"{named}: {entry['label']}"
    options = {"quantizer": named, "backbone": entry["backbone"]}
    if "dataset" in entry:
        options["dataset"] = entry["dataset"]
    if "stages" in entry:
        options[_WIDTHS] = entry["stages"]
    if _has_weights(entry):
        values = (entry["hyper"]["lambda"], entry["hyper"]["theta"])
        options |= {key: str(value) for key, value in zip(_LOSS_WEIGHTS, values, strict=True)}
    return Row(options, published=entry)
