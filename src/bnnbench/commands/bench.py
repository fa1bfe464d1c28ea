"""How fast packed networks are here, beside the best float and int8 that torch has.

bnnbench bench [...]                about 10 minutes on an idle machine
  parts=networks,layers     whole networks, and layers by shape
  networks=resnet20,vgg_small,resnet18_32,resnet18_224,ssd300_resnet18
  methods=xnor,xnor_k,birealnet,reactnet,adabin      xnor_k: with the paper's K map
  batch=<1,64>              each network's own unless given: of SSD300 1 alone
  threads=1,2               one is timed by its CPU time, two by the clock: on an idle machine
  ways=eager,compiled,int8,simulated                 beside the packed network
  seconds=15                of a network's batch and threads, at least 5 rounds
  out=logs/bench            folder of the JSON; in results/bench tables show it

All contenders take turns in one process; medians, and ratios by round. Weights are random.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bnnbench.commands.words import answered, meant, names
from bnnbench.cores import cores

PARTS = ("networks", "layers")
WAYS = {"eager": "float, eager", "compiled": "float, compiled", "int8": "int8"} | {
    "simulated": "simulated"
}


@dataclass
class Options:
    """What was typed; None: the default, which the code that measures knows."""

    parts: tuple[str, ...] = PARTS
    networks: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    batch: tuple[int, ...] | None = None
    threads: tuple[int, ...] = (1, 2)
    ways: tuple[str, ...] = tuple(WAYS)
    seconds: float = 15.0
    out: str = "logs/bench"


KEYS = tuple(field.name for field in fields(Options))
NUMBERS = ("batch", "threads")


def run() -> None:
    """The command with the arguments of ``sys.argv``."""
    answered(__doc__, lambda words: benched(parsed(words)), bare=True)


def parsed(words: Sequence[str]) -> Options:
    """The options that ``key=value`` words give. Raises ValueError."""
    found = Options()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in KEYS:
            raise ValueError(f"{word}: no such key; {meant(key, KEYS)}")
        if key == "out":
            found.out = value
        elif key == "seconds":
            found.seconds = _number(key, value, float)
        elif key in NUMBERS:
            setattr(found, key, tuple(_number(key, each, int) for each in _words(key, value)))
            if key == "threads":
                _check_threads(max(found.threads))
        else:
            setattr(found, key, tuple(_words(key, value)))
    _check_choices("parts", found.parts, PARTS)
    _check_choices("ways", found.ways, tuple(WAYS))
    return found


def _words(key: str, value: str) -> list[str]:
    found = names(value)
    if not found:
        raise ValueError(f"{key}= holds nothing: leave it out for all, or name some")
    return list(dict.fromkeys(found))


def _number(key: str, value: str, kind: type) -> Any:
    try:
        number = kind(value)
    except ValueError:
        number = 0
    if not 0 < number < 1e6:
        raise ValueError(
            f"{key}={value}: give {'a whole number from 1 on' * (kind is int)}"
            f"{'seconds above 0' * (kind is float)}"
        )
    return number


def _check_threads(most: int) -> None:
    if most > (there := cores()):
        raise ValueError(f"threads={most}: there are {there} cores here: give as many at most")


def _check_choices(key: str, chosen: Sequence[str], valid: Sequence[str]) -> None:
    for each in chosen:
        if each not in valid:
            raise ValueError(f"{key}={each}: there is none such; {meant(each, valid)}")


def benched(options: Options) -> Path:
    """Measure, print the tables, write the file; returns its path."""
    from bnnbench.bench.networks import METHODS, NETWORKS, Setting

    networks, methods = options.networks or tuple(NETWORKS), options.methods or tuple(METHODS)
    _check_choices("networks", networks, tuple(NETWORKS))
    _check_choices("methods", methods, tuple(METHODS))
    folder = Path(options.out).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    ways = [WAYS[way] for way in options.ways]
    setting = Setting(networks, methods, options.batch, options.threads, ways, options.seconds)
    content = measured(options, setting)
    file = folder / f"{slug(content['machine'])}.json"
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    from bnnbench.report.efficiency import tables

    print("\n\n".join(table.markdown() for _, table in tables(content, str(file))))
    print(f"Written to {file}")
    return file


def measured(options: Options, setting: Any) -> dict[str, Any]:
    """The content of a bench file, checked."""
    from bnnbench.bench import layers, networks
    from bnnbench.bench.limits import limits
    from bnnbench.bench.machine import described
    from bnnbench.records.speeds import SCHEMA, checked
    from bnnbench.runs.allocator import keep_freed_memory

    keep_freed_memory()  # or each output is a new page fault, of whoever makes it
    command = shlex.join(["bnnbench", "bench", *sys.argv[1:]])
    content: dict[str, Any] = {"schema": SCHEMA, "command": command, **described()}
    content |= {"subjects": [], "timings": [], "left_out": [], "limits": {}, "layers": []}
    if "layers" in options.parts:
        content["limits"] = limits()
        most = content["limits"].get("look_ups", 0.0)
        content["layers"] = list(layers.measure(setting.threads, setting.seconds, most))
    if "networks" in options.parts:
        for found in networks.measure(setting):
            print(f"timed {found.subjects[0]['network']}", file=sys.stderr, flush=True)
            for key, value in found._asdict().items():
                content[key] += value
    return checked(content, "what was measured")


def slug(machine: dict[str, Any]) -> str:
    """A file's name from CPU and kernel."""
    words = f"{machine['cpu']} {machine['kernel'].partition(':')[0]}"
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
