"""The notes under a table: what its rows share, what its marks mean, what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bnnbench.records.identity_keys import is_neutral
from bnnbench.report.efficiency import TIMES, Bench, note_of
from bnnbench.report.markup import MISSING
from bnnbench.report.matching import entry_dataset
from bnnbench.report.rows import CHOICES, Result, Row, lookup

Fact = tuple[str, Callable[[Result], Any]]

MARKS = {"unverified": "†", "swept": "^", "stale": "*", "best": "§"}
STRUCTURE = {
    "shortcut": "shortcut",
    "downsample": "downsample",
    "nonlinearity": "nonlinearity",
    "stem_nonlinearity": "behind the stem",
    "head_norm": "head norm",
    "norm": "norms",
    "norm_start": "norms start at",
    "block": "block",
    "padding_value": "padding",
    "first": "first layer",
    "last": "last layer",
    "projection": "1x1 shortcuts",
    "conv7": "conv7",
    "extras": "extra maps",
}
# Results leave it out.
USUAL = {
    "behind the stem": "same",
    "norms": "batch",
    "norms start at": 1.0,
    "teacher": "none",
    "augmentation": "the set's own",
    "mixup": 0,
    "CutMix": 0,
    "erasing": 0,
}

_IF_DIFFERENT = ("processes", "torch")  # no table needs to say that these are equal
# Settings that make rows incomparable where they differ, by their key in the config.
_SETTINGS = {
    "backbone.stem": "stem",
    "backbone.width": "width",
    "dataset.batch_size": "batch size",
    "dataset.augmentation": "augmentation",
    "dataset.mixup": "mixup",
    "dataset.cutmix": "CutMix",
    "dataset.erasing": "erasing",
    "dataset.interpolation": "average precision",
    "dataset.train_difficult": "difficult objects trained on",
    "recipe.optimizer": "optimizer",
    "recipe.schedule": "schedule",
    "recipe.init_std": "kernels start at std",
    "loss.lambda": "lambda",
    "loss.theta": "theta",
    "loss.nu": "nu",
    "loss.beta": "beta",
    "loss.gamma": "gamma",
    "loss.task_weight": "weight of the labels' loss",
    "loss.temperature": "temperature",
}


def facts_of(rows: list[Row], options: list[str]) -> tuple[list[Fact], list[str]]:
    """What makes rows incomparable if it differs.

    Returns the facts that differ between measured rows, for a column each, and the shared ones
    as texts ("recipe unified"). Facts that name the rows anyway (options) are in neither.
    """
    measured = [row for row in rows if row.results]
    different: list[Fact] = []
    shared: list[str] = []
    for name, fact in _facts(options):
        words = {row.words(fact) for row in measured}
        if len(words) > 1:
            different.append((name, _told(name, fact)))
        elif any(words) and name not in _IF_DIFFERENT:
            shared.append(f"{name} {words.pop()}")
    return different, shared


def _told(name: str, fact: Callable[[Result], Any]) -> Callable[[Result], Any]:
    def told(result: Result) -> Any:
        value = fact(result)
        return USUAL.get(name) if value is None else value

    return told


def is_stale(row: Row, hashes: dict[str, str]) -> bool:
    """Whether any result of the row was measured with other code than there is now."""
    return any(is_stale_result(result, hashes) for result in row.results)


def is_stale_result(result: Result, hashes: dict[str, str]) -> bool:
    """Whether a result's code has changed; hashes: of the code as it is now, by fingerprint."""
    current = hashes.get(str(result.get("fingerprint")))
    return current is not None and result.get("source_hash") != current


def notes_of(
    manifest: dict[str, Any],
    rows: list[Row],
    header: list[str],
    texts: list[list[str]],
    alike: list[str],
    shared: list[str],
    published: dict[str, Any] | None,
    bench: Bench | None = None,
) -> list[str]:
    """All notes of a table, the most needed first.

    alike: options in which all rows agree; shared: facts in which all measured rows do.
    """
    table = manifest.get("table") or {}
    notes = []
    if manifest.get("scale_notes"):
        notes.append(str(manifest["scale_notes"]))
    if published:
        notes += _stand_in(manifest, rows, published)
    if all(row.results for row in rows):
        alike, shared = [*alike, *shared], []
    elif manifest.get("not_run"):
        notes.append(f"rows without a result: not run: {manifest['not_run']}")
    if alike:
        notes.append(f"all rows: {', '.join(alike)}")
    if shared:
        notes.append(f"all measured rows: {', '.join(shared)}")
    notes += [str(note) for note in table.get("notes") or []]
    notes += _legend(rows, header, texts)
    if "counted MB" in header:
        notes.append(
            "packed MB: of the exported file; counted MB: binarized weights at one bit, the rest "
            "in 4 bytes, without scales"
        )
    if "train CPU s" in header:
        notes.append("train CPU s: processor time of training, without what else the machine did")
    if bench is not None and set(header) & TIMES.keys():
        notes.append(note_of(bench))
    if published:
        notes += _published_notes(published, table.get("published"))
    notes += _without_native(rows)
    notes += [f"failed: {run}: {line}" for row in rows for run, line in row.errors.items()]
    notes += [f"damaged: {run}: {line}" for row in rows for run, line in row.damaged.items()]
    return notes + _stamps(rows) + _commits(rows)


def _facts(options: list[str]) -> list[Fact]:
    shown = {key.removeprefix("quantizer.").removeprefix("backbone.") for key in options}
    shown |= {"backbone"} if "backbone.name" in options else set()
    facts: list[Fact] = [(g, lambda r, g=g: lookup(r, "choices", g)) for g in CHOICES]
    facts += [(name, lambda r, k=k: lookup(r, "structure", k)) for k, name in STRUCTURE.items()]
    facts = [
        fact for fact, key in zip(facts, [*CHOICES, *STRUCTURE], strict=True) if key not in shown
    ]
    return [
        *facts,
        *_settings(options),
        ("prior stiffness", _stiffness),
        ("training images", lambda r: r.get("train_images")),
        ("test images", lambda r: r.get("test_images")),
        ("evaluated on", lambda r: (r.get("headline") or "nothing").split("/")[0]),
        ("ended", lambda r: r.get("ended")),
        ("continued", _continued),
        ("precision", lambda r: r.get("precision")),
        ("compiled", lambda r: r.get("compiled")),
        ("device", lambda r: r.get("device")),
        ("processes", lambda r: r.get("world_size")),
        ("torch", lambda r: lookup(r, "versions", "torch")),
    ]


def _settings(options: list[str]) -> list[Fact]:
    return [
        (name, lambda r, key=key: _setting(r, key))
        for key, name in _SETTINGS.items()
        if key not in options
    ]


def _setting(result: Result, key: str) -> Any:
    """The value of a key; None at what results without the key, older ones, were trained with."""
    value = lookup(result, "config", *key.split("."))
    if not key.startswith("dataset."):
        return value
    kind = str(lookup(result, "config", "dataset", "_target_"))
    return None if is_neutral(key, value, kind) else value


def _continued(result: Result) -> str | None:
    """The run that one went on from, and where; its schedules may have jumped there."""
    origin = result.get("continued")
    return origin and f"from epoch {origin['epochs']} of {origin['name']}"


def _stiffness(result: Result) -> str | None:
    """The pull of a loss term's prior, over the run; of terms that log ``<term>/stiffness``."""
    history = result.get("history") or {}
    key = next((key for key in history if key.endswith("/stiffness")), "")
    start, values = history.get(f"{key}_start"), history.get(key)
    known = [value for value in values or [] if value is not None]
    if not start or not known:
        return None
    first = next(value for value in start if value is not None)
    return f"{first:.0e} to {known[-1]:.0e}"


def _stand_in(manifest: dict[str, Any], rows: list[Row], published: dict[str, Any]) -> list[str]:
    """Why rows with both numbers have no difference: other data, or the demo's budget."""
    both = [row for row in rows if row.headline("last") and row.published]
    theirs = sorted({str(entry_dataset(row.published or {}, published)) for row in both})
    ours = sorted({str(row.choice("dataset")) for row in both})
    if not both or (theirs == ours and manifest.get("scale") != "demo"):
        return []
    how = f"measured on {', '.join(ours)}, published on {', '.join(theirs)}"
    if theirs == ours:
        how = "scale=demo is far shorter than what was published"
    return [f"{how}: not comparable, so no difference is given"]


def _legend(rows: list[Row], header: list[str], texts: list[list[str]]) -> list[str]:
    """What the marks mean, for those that are used."""
    cells = [cell for line in texts for cell in line]
    legend = []
    if any(" ± " in cell for cell in cells):
        legend.append("±: sample standard deviation over the seeds")
    if any(row.headline("best") for row in rows):
        keys = {str(result.get("headline")) for row in rows for result in row.results}
        data = "test data" if any(key.startswith("test/") for key in keys) else "held-out data"
        legend.append(
            f"{MARKS['best']} the authors' protocol, selected on {data}; "
            "the headline is the last epoch, which selects nothing"
        )
    if "delta" in header:
        legend.append("delta: last epoch minus published; recipes and epochs may differ")
    if "gap to twin" in header:
        legend.append(
            "gap to twin: points below the fp32 row of the same shortcut, downsample, nonlinearity "
            "and head norm (a ReLU where a row has none), of the same seeds"
        )
    if "train time / twin" in header:
        legend.append(
            "train time / twin: of processor time where row and twin have measured it; train s is "
            "by the clock"
        )
    if any((row.published or {}).get("best_of_sweep") for row in rows):
        legend.append(
            f"{MARKS['swept']} as published, the best cell of a sweep, so selected on test data"
        )
    if any(cell.endswith(MARKS["unverified"]) for cell in cells):
        legend.append(f"{MARKS['unverified']} recalled, not read in any source")
    if any(cell.endswith(MARKS["stale"]) for cell in cells):
        legend.append(
            f"{MARKS['stale']} older than the code of its method as it is now: "
            "run it again with force=true"
        )
    (bits,) = (column for column, name in enumerate(header) if name.endswith(" bits"))
    if len({line[bits] for line in texts} - {MISSING}) > 1:
        legend.append("rows with different bits are not ranked against each other")
    if header[bits] == "W/A/G/E bits":
        legend.append("G: gradients as the method quantizes them; E: errors, those of activations")
    if MISSING in cells:
        legend.append(f"{MISSING}: not run, not finished, not known, or no option of the row")
    return legend


def _published_notes(published: dict[str, Any], stem: str | None) -> list[str]:
    where = f"; the source of each number: results/published/{stem}.yaml" if stem else ""
    first = f"published: {published['title']} ({published['paper']}){where}"
    return [first, *(f"published: {known}" for known in published["protocol"]["known"])]


def _without_native(rows: list[Row]) -> list[str]:
    """The rows that asked for their method's own recipe where the suite has none."""
    asked = [row for row in rows if row.options.get("recipe") == "native"]
    named = [
        " ".join(
            filter(None, (row.choice(group) for group in ("quantizer", "dataset", "backbone")))
        )
        for row in asked
        if row.choice("recipe") == "unified"
    ]
    if not named:
        return []
    return [f"no native recipe, so trained by unified: {', '.join(dict.fromkeys(named))}"]


def _stamps(rows: list[Row]) -> list[str]:
    """How many results cannot say which content their data had, and which had another."""
    results = [result for row in rows for result in row.results]
    unknown = sum(result.get("data_stamp") is None for result in results)
    notes = [f"data stamp unknown: {unknown} of {len(results)} results"] if unknown else []
    runs: dict[str, dict[str, list[str]]] = {}
    for result in results:
        if stamp := result.get("data_stamp"):
            of_set = runs.setdefault(str(lookup(result, "choices", "dataset")), {})
            of_set.setdefault(stamp, []).append(str(result.get("name")))
    for dataset, stamps in runs.items():
        if len(stamps) > 1:
            groups = "; ".join(f"{s[:15]}: {', '.join(names)}" for s, names in stamps.items())
            notes.append(f"not comparable: data of other content are called {dataset} ({groups})")
    return notes


def _commits(rows: list[Row]) -> list[str]:
    names = []
    for result in (result for row in rows for result in row.results):
        commit = lookup(result, "git", "commit")
        dirty = " with uncommitted changes" if lookup(result, "git", "dirty") else ""
        names.append(f"{commit[:10]}{dirty}" if commit else "none recorded")
    return [f"measured at commit: {', '.join(dict.fromkeys(names))}"] if names else []
