"""Robustness files to a table and a heat map; without torch.

Errors are summed over severities, a corruption at a time, and set in relation to those of the
network's own twin in full precision, which stands in the place of the authors' AlexNet.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from bnnbench.data.corruption_names import ALL, GROUPS, MAIN
from bnnbench.plots import PAGE, STYLE, literal, save
from bnnbench.report.markup import MISSING, Table
from bnnbench.report.render import write_table

Network = Mapping[str, Any]
FLOAT = "fp32"
# What a network shares with its twin; packed files of before do not say their epochs.
LIKE = ("backbone", "structure", "recipe", "epochs", "seed")
NAMED = ("name", "method", *LIKE, "start", "clean", "accuracy")  # what a network has
KEYS = ("dataset", "source", "images", "of", "severities", "networks", "command", "device", "git")


class Losses(NamedTuple):
    """What corruptions cost: (own, twin's) accuracy by method and corruption; and whose files."""

    by_method: dict[str, dict[str, tuple[float, float]]]
    files: list[str]


def read(file: Path) -> dict[str, Any]:
    """The content of a robustness file. Raises ValueError where it is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        missing = [key for key in KEYS if key not in content]
        networks = [] if missing else list(content["networks"])
        missing += [key for key in NAMED if any(key not in network for network in networks)]
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{file} cannot be read ({error}): delete it or make it again") from error
    if missing or not networks:
        lacking = ", ".join(missing or ["networks"])
        raise ValueError(f"{file} lacks {lacking}: make it again with bnnbench robustness")
    return content


def readable(files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """The contents of files by their stems; one that cannot be used is named on stderr."""
    found = {}
    for file in files:
        try:
            found[file.stem] = read(file)
        except ValueError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def twin_of(network: Network, networks: Sequence[Network]) -> Network | None:
    """The network in full precision of the same structure, recipe, seed and epochs.

    Where there is none of its recipe and that starts from the twin, it is the one of unified.
    """
    recipes = [network["recipe"], *(["unified"] if network["start"] == "twin" else [])]
    wanted = ({**network, "structure": _twins(network), "recipe": recipe} for recipe in recipes)
    return next((each for like in wanted for each in networks if _is_twin(each, like)), None)


def _twins(network: Network) -> dict[str, Any]:
    """The structure of a network's twin, which would be linear without any nonlinearity."""
    built = dict(network["structure"])
    signs_alone = built.get("nonlinearity") == "identity" and network["method"] != FLOAT
    return built | ({"nonlinearity": "relu"} if signs_alone else {})


def _is_twin(network: Network, like: Network) -> bool:
    known = [key for key in LIKE if key != "epochs" or None not in (network[key], like[key])]
    return network["method"] == FLOAT and all(network[key] == like[key] for key in known)


def losses(contents: Mapping[str, Mapping[str, Any]], runs: Collection[str]) -> Losses:
    """Clean minus corrupted accuracy, the mean over severities, of networks that are among runs.

    Args:
        contents: of robustness files, by their names.
        runs: names of runs; the first network of a method with a twin in its file counts.
    """
    found: dict[str, dict[str, tuple[float, float]]] = {}
    files = []
    for name, content in contents.items():
        for network in content["networks"]:
            twin = twin_of(network, content["networks"])
            new = network["method"] not in (FLOAT, *found)
            if twin is not None and new and network["name"] in runs:
                both = [each for each in network["accuracy"] if each in MAIN]
                pairs = zip(_lost(network, both), _lost(twin, both), strict=True)
                found[network["method"]] = dict(zip(both, pairs, strict=True))
                files += [name] * (name not in files)
    return Losses(found, files)


def _lost(network: Network, names: Sequence[str]) -> list[float]:
    return [error - (1 - network["clean"]) for error in errors(network, names)]


def errors(network: Network, names: Sequence[str]) -> list[float]:
    """The mean error over severities of each corruption."""
    return [1 - mean(network["accuracy"][name]) for name in names]


def mce(network: Network, twin: Network, names: Sequence[str] = MAIN) -> float | None:
    """Mean over corruptions of error / twin's error; None where the twin makes none."""
    pairs = list(zip(errors(network, names), errors(twin, names), strict=True))
    return mean(own / other for own, other in pairs) if all(o for _, o in pairs) else None


def relative_mce(network: Network, twin: Network, names: Sequence[str] = MAIN) -> float | None:
    """Mean over corruptions of how much error is added, over what is added to the twin's.

    None where a corruption does not add to the twin's error.
    """
    added = list(zip(_lost(network, names), _lost(twin, names), strict=True))
    return mean(own / other for own, other in added) if all(o > 0 for _, o in added) else None


def table(content: Mapping[str, Any], name: str) -> Table:
    """One row a network; ``name`` is the file's."""
    networks = content["networks"]
    main = [each for each in MAIN if each in networks[0]["accuracy"]]
    groups = {group: [n for n in names if n in main] for group, names in GROUPS.items()}
    groups = {group: names for group, names in groups.items() if names}
    header = ["method", "backbone", "shortcut", "nonlinearity", "recipe", "clean %", "corrupted %"]
    header += [f"{group} %" for group in groups] + ["mCE / twin", "relative mCE / twin"]
    rows = [_row(network, networks, main, list(groups.values())) for network in networks]
    title = f"Robustness to common corruptions: {content['dataset']}"
    return Table(title, header, rows, _notes(content, main, name))


def _row(
    network: Network, networks: Sequence[Network], main: Sequence[str], groups: list[list[str]]
) -> list[str]:
    twin = twin_of(network, networks)
    ratios = [twin and main and ratio(network, twin, main) for ratio in (mce, relative_mce)]
    shares = [
        network["clean"],
        *(1 - mean(errors(network, n)) if n else None for n in [main, *groups]),
    ]
    length = f", {network['epochs']} epochs" if network["epochs"] else ""
    return [
        network["method"],
        network["backbone"],
        *(network["structure"].get(key) or MISSING for key in ("shortcut", "nonlinearity")),
        f"{network['recipe']}{length}, seed {network['seed']}",
        *(MISSING if share is None else f"{100 * share:.2f}" for share in shares),
        *(f"{ratio:.3f}" if ratio else MISSING for ratio in ratios),
    ]


def _notes(content: Mapping[str, Any], main: Sequence[str], name: str) -> list[str]:
    images, of = content["images"], content["of"]
    part = "all" if images == of else f"{images} of the"
    state = content["git"]
    severities = ", ".join(map(str, content["severities"]))
    made = {
        "generated": "generated by this package from the clean test set: these are not the "
        "published arrays, and frost is a generated texture; compare rows of this table alone",
        "published": "the published arrays",
    }[content["source"]]
    return [
        f"corrupted images: {made}",
        f"{part} {of} test images{', every class in its share' * (images != of)}; severities "
        f"{severities}; means over {len(main)} of the {len(MAIN)} corruptions of Hendrycks and "
        "Dietterich, arXiv 1903.12261",
        "mCE / twin: mean over corruptions of the error, summed over severities, over that of the "
        "network's own twin in full precision; relative: of what each adds to the error on clean "
        f"images; 1 is the twin's, below 1 better; {MISSING} where there is no twin of the same "
        "structure, recipe, epochs and seed (of the recipe unified where one starts from the "
        "twin), or a corruption adds nothing to its error",
        f"{content['command']} on {content['device']}, commit {str(state['commit'])[:8]}"
        f"{' with changes' * bool(state['dirty'])}; {name}",
    ]


def heat_map(content: Mapping[str, Any], stem: Path, formats: Sequence[str] = ("png",)) -> None:
    """Accuracy by network and corruption, mean over severities, and on clean images."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    networks = content["networks"]
    names = [name for name in ALL if name in networks[0]["accuracy"]]
    cells = [[100 * n["clean"], *(100 - 100 * e for e in errors(n, names))] for n in networks]
    with rc_context(STYLE):
        figure = Figure(figsize=(PAGE, 1.3 + 0.2 * len(networks)), layout="constrained")
        FigureCanvasAgg(figure)
        panel = figure.add_subplot()
        shown = panel.imshow(cells, aspect="auto", cmap="cividis", vmin=0, vmax=100)
        for row, line in enumerate(cells):
            for column, value in enumerate(line):
                colour = "white" if value < 50 else "black"
                panel.text(column, row, f"{value:.0f}", color=colour, ha="center", va="center")
        labels = ["clean", *(name.replace("_", " ") for name in names)]
        panel.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        panel.set_yticks(range(len(networks)), _row_names(networks))
        panel.grid(False)
        figure.colorbar(shown, ax=panel, label="accuracy, %", pad=0.01)
        generated = " (generated, not the published arrays)" * (content["source"] == "generated")
        panel.set_title(literal(f"{content['dataset']}{generated}: mean over severities"))
        save(figure, stem, formats)


def _row_names(networks: Sequence[Network]) -> list[str]:
    """Methods; of several networks of one method also what these differ in."""
    told = []
    for network in networks:
        like = [_flat(other) for other in networks if other["method"] == network["method"]]
        own = _flat(network)
        keys = [key for key in own if len({str(other[key]) for other in like}) > 1]
        told.append(literal(", ".join([network["method"], *(str(own[key]) for key in keys)])))
    return told


def _flat(network: Network) -> dict[str, Any]:
    return {key: network[key] for key in LIKE if key != "structure"} | network["structure"]


def write(file: Path, tables: Path, figures: Path) -> Table:
    """Table and heat map of a robustness file, under its name, into two folders."""
    content = read(file)
    made = table(content, file.name)
    write_table(tables / file.stem, made)
    heat_map(content, figures / file.stem)
    return made
