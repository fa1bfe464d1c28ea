"""Accuracy of trained networks on corrupted test images: a table, a heat map, a JSON file.

bnnbench robustness networks=<checkpoints and packed files> [...]
bnnbench robustness sweep=<name> [...]
  networks=[a.ckpt,b.safetensors]   or as bare words, as a shell writes them for *.safetensors
  sweep=<name>              the networks of a sweep in logs/sweeps as well, last epochs
  logs=logs                 where that lies
  dataset=cifar10c          cifar10c, cifar100c, imagenetc or digits
  data_dir=data             where the set lies, and CIFAR-10-C, CIFAR-100-C or ImageNet-C
  images=1000               of the test set, every class in its share; all unless given
  corruptions=<names>       the 15 unless given; all: and the 4 extra ones; or a list
  severities=1,2,3,4,5      which of the five
  out=logs/robustness       folder of what is written
  name=robustness_cifar10   of the files; after the data set unless given. Files that hold more
                            than the new ones would are not written over
  trust=[mypkg]             packages whose classes a checkpoint may name beside this one

The authors' arrays are read where they lie in the data folder, else images are generated, which
the table says. Give a network's twin in full precision as well: mCE is relative to it.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnnbench.commands.words import answered, meant, names
from bnnbench.data.corruption_names import ALL, MAIN, SEVERITIES
from bnnbench.data.known import DatasetMissing
from bnnbench.records.names import absent
from bnnbench.records.store import trained
from bnnbench.report.reading import read_json

KEYS = ("networks", "dataset", "data_dir", "images", "corruptions", "severities", "out", "name")
KEYS += ("sweep", "logs", "trust")
DATASETS = {
    "cifar10c": "robustness_cifar10",
    "cifar100c": "robustness_cifar100",
    "imagenetc": "robustness_imagenet",
    "digits": "robustness_digits",
}


@dataclass
class Options:
    """What was typed."""

    networks: list[str] = field(default_factory=list)
    sweep: str = ""
    logs: str = "logs"
    dataset: str = "cifar10c"
    data_dir: str = field(default_factory=lambda: os.environ.get("BNNBENCH_DATA", "data"))
    images: int | None = None
    corruptions: list[str] = field(default_factory=lambda: list(MAIN))
    severities: list[int] = field(default_factory=lambda: list(SEVERITIES))
    out: str = "logs/robustness"
    name: str = ""
    trust: list[str] = field(default_factory=list)


def run() -> None:
    """The command with the arguments of ``sys.argv``."""
    answered(__doc__, lambda words: measured(parsed(words)))


def parsed(words: Sequence[str]) -> Options:
    """The options that words give; bare words are networks. Raises ValueError."""
    found = Options()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or (key not in KEYS and Path(word).exists()):
            found.networks.append(word)
        elif key not in KEYS:
            raise ValueError(f"{word}: no such key; {meant(key, KEYS)}")
        elif key == "networks":
            found.networks += names(value)
        elif key == "images":
            found.images = _whole(key, value)
        elif key in ("corruptions", "severities", "trust"):
            setattr(found, key, _LISTS[key](names(value)))
        else:
            setattr(found, key, value)
    if found.sweep:
        found.networks += of_sweep(found.sweep, Path(found.logs).expanduser())
    _check(found)
    return found


def of_sweep(name: str, logs: Path) -> list[str]:
    """The last checkpoints of a sweep's finished runs; others are named on stderr.

    Raises ValueError for a sweep that is not in the logs, or of which nothing is finished.
    """
    manifest = logs / "sweeps" / name / "sweep.json"
    if not manifest.is_file():
        known = sorted(path.parent.name for path in logs.glob("sweeps/*/sweep.json"))
        told = meant(name, known) if known else "there are no sweeps"
        raise ValueError(f"sweep={name}: {told} in {logs / 'sweeps'}; logs=<folder> is another")
    found = []
    for run in dict.fromkeys(cell["run"] for cell in read_json(manifest)["cells"]):
        try:
            found.append(str(trained(logs / "runs" / run)[1]))
        except ValueError:
            print(f"left out: {run} is not finished", file=sys.stderr)
    if not found:
        raise ValueError(f"sweep={name}: none of its runs is finished")
    return found


def _whole(key: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{key}={value}: give a whole number from 1 on")
    return int(value)


def _corruptions(chosen: list[str]) -> list[str]:
    if chosen == ["all"]:
        return list(ALL)
    for each in chosen:
        if each not in ALL:
            raise ValueError(f"corruptions={each}: there is none such; {meant(each, ALL)}")
    return [name for name in ALL if name in chosen]


def _severities(chosen: list[str]) -> list[int]:
    for each in chosen:
        if each not in map(str, SEVERITIES):
            raise ValueError(f"severities={each}: choose from 1, 2, 3, 4, 5")
    return sorted(set(map(int, chosen)))


_LISTS = {"corruptions": _corruptions, "severities": _severities, "trust": list}


def _check(options: Options) -> None:
    if not options.networks:
        raise ValueError("give networks=<checkpoint of a run or packed file>, or sweep=<name>")
    for path in options.networks:
        if not Path(path).expanduser().is_file():
            raise ValueError(f"networks={path}: {absent(path)}")
    if options.dataset not in DATASETS:
        raise ValueError(f"dataset={options.dataset}: {meant(options.dataset, list(DATASETS))}")
    for key in ("corruptions", "severities"):
        if not getattr(options, key):
            raise ValueError(f"{key}= holds nothing: leave it out for all, or name some")
    if Path(options.name).name != options.name:
        raise ValueError(f"name={options.name}: give a name without folders; out=<folder> is one")
    for key in ("data_dir", "out"):
        if Path(getattr(options, key)).expanduser().is_file():
            raise ValueError(f"{key}={getattr(options, key)} is a file: give a folder")


def check_standing(file: Path, new: Mapping[str, Any], corruptions: Sequence[str]) -> None:
    """Refuse to write over an evaluation that holds more. Raises ValueError.

    Args:
        file: where it would lie.
        new: the content of the one that is to come, without accuracies.
        corruptions: its own.
    """
    from bnnbench.report.robustness import read

    try:
        old = read(file) if file.is_file() else None
    except ValueError:  # a damaged one, of no use to anybody
        return
    if old is None:
        return
    networks = old["networks"]
    fingerprints = [{network["fingerprint"] for network in each["networks"]} for each in (old, new)]
    lost = {
        "networks": fingerprints[0] - fingerprints[1],
        "corruptions": {name for n in networks for name in n["accuracy"]} - set(corruptions),
        "severities": set(old["severities"]) - set(new["severities"]),
    }
    more = [key for key, values in lost.items() if values]
    same = old["dataset"] == new["dataset"] and old["source"] == new["source"]
    if more or not same or old["images"] > new["images"]:
        raise ValueError(
            f"{file} holds {len(networks)} networks on {old['images']} images of {old['dataset']}, "
            f"{', '.join(more) or 'images'} that this would lose: set name=<another>, or delete it"
        )


def measured(options: Options) -> Path:
    """Evaluate, print the table, write all; the path of the JSON file."""
    from bnnbench.report.robustness import write
    from bnnbench.runs.robustness import evaluated

    out = Path(options.out).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    content = {"command": shlex.join(["bnnbench", "robustness", *sys.argv[1:]])}
    file = out / f"{options.name or DATASETS[options.dataset]}.json"
    try:
        content |= evaluated(
            [str(Path(path).expanduser()) for path in options.networks],
            options.dataset,
            Path(options.data_dir).expanduser(),
            options.images,
            options.corruptions,
            options.severities,
            options.trust,
            lambda new: check_standing(file, new, options.corruptions),
        )
    except DatasetMissing as error:  # which speaks of trainings' key
        raise DatasetMissing(str(error).replace("paths.data_dir=", "data_dir=")) from error
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(write(file, out, out).markdown())
    print(f"Written to {file}, with table and heat map beside it")
    return file
