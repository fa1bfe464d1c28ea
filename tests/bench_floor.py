"""What a training step is made of: `make bench PARTS=floor`.

The floor is forward and backward of the same network with its quantizers and nonlinearities taken
out: convolutions, batch norms and the shortcuts' additions. Put back in turn, the nonlinearities
and the quantizers are what the step gets longer by; the optimiser is timed by itself; the loop is
what a step in Lightning takes beyond all of these: data, metrics, the guard and the callbacks of
schedules. All of it is CPU time of the one thread that computes, of steps in turn.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnnbench
from bench import interleaved, quiet_trainer, twin
from bnnbench.bench.machine import described
from bnnbench.callbacks.guard import FiniteLoss
from bnnbench.data.augmentation import Augmentation
from bnnbench.data.device_loader import DeviceLoader
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification

METHODS = ("fp32", "xnor", "reactnet", "adabin", "irnet")
NETWORKS = (("resnet20", 32, 128), ("resnet18", 8, 64), ("resnet18", 32, 64))
PARTS = ("nonlinearities", "quantizers", "optimiser", "loop")
BARS = {"eager": 0.25, "compiled": 0.15}  # of a step, everything beside the floor
STEPS = 4  # of a pass in Lightning, the first left out


class Clock(L.Callback):
    """CPU seconds from step to step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_before_zero_grad(self, *_: object) -> None:
        now = time.thread_time()
        if self._start:
            self.seconds.append(now - self._start)
        self._start = now


def passes(net: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Forward and backward, without an optimiser."""

    def step() -> None:
        F.cross_entropy(net(images), labels).backward()
        net.zero_grad()

    return step


def without_relu(net: nn.Module) -> None:
    """Take the nonlinearities out: the suite builds no linear network."""
    for name in [name for name, module in net.named_modules() if isinstance(module, nn.ReLU)]:
        net.set_submodule(name, nn.Identity())


def fitted(task: Classification, loader: DeviceLoader) -> list[float]:
    """CPU seconds of steps in Lightning."""
    clock = Clock()
    quiet_trainer(FiniteLoss(), clock).fit(task, loader)
    return clock.seconds[1:]


def optimised(net: nn.Module, rounds: int) -> float:
    """CPU seconds of the optimiser's step on gradients that are there."""
    optimizer = Recipe("adam", 1e-6).build({"other": list(net.parameters())}, 100)["optimizer"]
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    step = lambda: optimizer.step() and None  # noqa: E731
    return statistics.median(interleaved({"": step}, rounds, time.thread_time)[""])


def shares(method: str, where: tuple[str, int, int], compiled: bool, rounds: int) -> list[float]:
    """CPU seconds of a step: of all of it, of its floor, and of each of ``PARTS``."""
    backbone, size, batch = where
    structure = twin(method)
    if method == "fp32":
        structure["nonlinearity"] = "relu"
    nets = {
        "floor": ("fp32", structure | {"nonlinearity": "relu"}),
        "nonlinearities": ("fp32", structure),
        "quantizers": (method, {} if method != "fp32" else structure),
    }
    images = torch.randint(0, 256, (STEPS * batch, 3, size, size), dtype=torch.uint8)
    labels = torch.randint(10, (len(images),))
    augmentation = Augmentation((0.5,) * 3, (0.25,) * 3, 4 if size > 8 else 1, True)
    loader = DeviceLoader(images, labels, augmentation, batch, True, channels_last=True)
    first = next(iter(loader))
    built, steps = {}, {}
    for name, (quantizer, options) in nets.items():
        net = bnnbench.build_backbone(backbone, quantizer=quantizer, image_size=size, **options)
        built[name] = net.to(memory_format=torch.channels_last)  # pyright: ignore
        if name == "floor":
            without_relu(net)
        if compiled:
            net.compile()
        steps[name] = passes(net, *first)
    times = {name: statistics.median(t) for name, t in _in_turn(steps, rounds).items()}
    task = Classification(built["quantizers"], nn.CrossEntropyLoss(), Recipe("adam", 1e-6), 10)
    whole = statistics.median([s for _ in range(max(1, rounds // 2)) for s in fitted(task, loader)])
    optimiser = optimised(built["quantizers"], rounds)
    parts = [
        times["nonlinearities"] - times["floor"],
        times["quantizers"] - times["nonlinearities"],
        optimiser,
    ]
    return [whole, times["floor"], *parts, whole - times["quantizers"] - optimiser]


def _in_turn(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    return interleaved(steps, rounds, time.thread_time)


def measured(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row a method, of every network and mode that was asked for."""
    modes = ["eager"] + (["compiled"] if shutil.which("g++") else [])
    for where in NETWORKS:
        name = f"{where[0]}_{where[1]}"
        for mode in [mode for mode in modes if mode in arguments.modes]:
            for method in METHODS if name in arguments.networks else ():
                whole, floor, *parts = shares(method, where, mode == "compiled", arguments.rounds)
                torch.compiler.reset()
                times = dict(zip(("floor", *PARTS), (floor, *parts), strict=True))
                cell = {"network": where[0], "pixels": where[1], "batch": where[2], "mode": mode}
                taken = {part: round(seconds / whole, 3) for part, seconds in times.items()}
                yield cell | {"method": method, "step_ms": round(whole * 1e3, 1)} | taken


def bench_floor(arguments: argparse.Namespace) -> None:
    """Shares of a step, eager and compiled, printed and, with ``--out``, written row by row."""
    content: dict[str, Any] = {"command": shlex.join(["python", *sys.argv]), **described()}
    content |= {"torch_threads": torch.get_num_threads(), "rounds": arguments.rounds, "rows": []}
    title = ""
    for row in measured(arguments):
        bar = BARS[row["mode"]]
        cell = "{network}, {pixels} pixels, batch {batch}, {mode}".format(**row)
        if cell != title:
            print(f"\nShares of a step: {cell} (bar beside the floor {bar:.0%})")
            print(f"  {'':<10} {'step':>7}  floor " + " ".join(f"{p:>14}" for p in PARTS))
        title = cell
        cells = " ".join(f"{row[part]:14.0%}" for part in PARTS)
        beside = 1 - row["floor"]
        mark = "" if beside <= bar else f"  beside it {beside:.0%}"
        head = f"{row['method']:<10} {row['step_ms']:4.0f} ms {row['floor']:6.0%}"
        print(f"  {head} {cells}{mark}", flush=True)
        content["rows"].append(row)
        if arguments.out:  # what is measured stays, however this ends
            arguments.out.write_text(json.dumps(content, indent=1) + "\n")
