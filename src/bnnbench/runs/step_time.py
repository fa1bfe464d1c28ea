"""Seconds of training steps, for an estimate: ``python -m bnnbench.runs.step_time`` in a process.

What comes in is a pickled list of the fields of a ``lengths.Cell`` each. What goes out is a JSON
object a line, each as soon as it is known, so that a process that is stopped has told what it had:

    {"device": "cpu: ..., 1 thread", "threads": 1, "kinds": [{"label": ..., "alike": ...}, ...],
     "runs": [[[kind, steps], ...], ...], "left_out": ["why", ...]}
    {"kind": 0, "step_s": 0.21}
    {"kind": 1, "why": "ValueError: ..."}

Steps are the run's own, by Lightning, on random images: network, losses, optimiser and precision
without callbacks, evaluation, data and compilation.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, open_dict

from bnnbench import resolvers
from bnnbench.records import provenance
from bnnbench.runs.build import build_task, build_trainer
from bnnbench.runs.hushed import hush
from bnnbench.runs.lengths import Cell, Kind, Part, parts, with_twins
from bnnbench.runs.teacher import build_teacher

STEPS = 5  # that are timed, after those that warm up
WARM_UP = 2
FEW = 2  # images of a step on a CPU that says how many the timed ones may have
STEP_S = 1.0  # seconds of a timed step on a CPU, about
KIND_S = 6.0  # seconds after which no further step of a kind is timed
MORE_S = 20.0  # seconds after which no further method of a network is timed


class Batches:
    """Random batches; how long a step takes is how long it is until the next one is asked for.

    Attributes:
        step_s: seconds of a step of the whole batch; known after a pass.
    """

    step_s = float("nan")

    def __init__(self, cfg: DictConfig, side: int, device: torch.device) -> None:
        self.dataset, self.side, self.device = cfg.dataset, side, device
        self.layout = torch.channels_last if cfg.channels_last else torch.contiguous_format

    def __len__(self) -> int:
        """More than there are, so that Lightning asks until the last step is timed."""
        return 2 * WARM_UP + STEPS + 1

    def __iter__(self) -> Iterator[Any]:
        size = whole = int(self.dataset.batch_size)
        if self.device.type != "cuda":
            start = 0.0
            for _ in range(WARM_UP):  # the first one also builds what later ones find
                start = self._now()
                yield self._batch(FEW)
            size = int(FEW * STEP_S / max(self._now() - start, 1e-9))
            size = max(FEW, min(whole, size))
        batch = self._batch(size)
        for _ in range(WARM_UP if self.device.type == "cuda" else 1):
            yield batch
        start, begun, count = self._now(), time.monotonic(), 0
        while count < STEPS and (count == 0 or time.monotonic() - begun < KIND_S):
            yield batch
            count += 1
        self.step_s = (self._now() - start) / count * whole / size

    def _now(self) -> float:
        """Seconds of wall time, of the CPU's where that is one thread: others do not count."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif torch.get_num_threads() == 1:
            return time.process_time()
        return time.perf_counter()

    def _batch(self, images: int) -> tuple[torch.Tensor, Any]:
        shape = images, self.dataset.in_channels, self.side, self.side
        pixels = torch.randn(shape, device=self.device).contiguous(memory_format=self.layout)
        classes = int(self.dataset.num_classes)
        if self.dataset.get("task", "classification") == "classification":
            return pixels, torch.arange(images, device=self.device) % classes
        return pixels, [self._objects(classes) for _ in range(images)]

    def _objects(self, classes: int) -> dict[str, torch.Tensor]:
        """Three boxes, as on a photograph."""
        corners = torch.rand(3, 2, device=self.device) * 0.5
        boxes = torch.cat([corners, corners + 0.4], 1) * self.side
        labels = 1 + torch.arange(3, device=self.device) % classes
        return {"boxes": boxes, "labels": labels, "difficult": torch.zeros_like(labels).bool()}


class Random(L.LightningDataModule):
    """Those batches, as a run's data."""

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self.batches, self.spec = batches, SimpleNamespace(batch_size=batches.dataset.batch_size)

    def train_dataloader(self) -> Batches:
        return self.batches


def step_s(part: Part) -> float:
    """Seconds of a training step of that kind on this machine. Raises what training raises."""
    cfg = deepcopy(part.cfg)
    with TemporaryDirectory() as folder, open_dict(cfg):
        cfg.callbacks, cfg.compile, cfg.init_from = {}, False, None
        cfg.paths.output_dir = folder
        if "class_weights" in cfg.dataset:  # which may be counted in images
            cfg.dataset.class_weights = None
        cfg.trainer.update(max_epochs=1, max_steps=-1, limit_train_batches=1.0, overfit_batches=0)
        cfg.trainer.update(limit_val_batches=0, num_sanity_val_steps=0)
        cfg.trainer.update(devices=1, num_nodes=1, strategy="auto")
        cfg.trainer.update(enable_progress_bar=False, enable_checkpointing=False)
        task = build_task(cfg, teacher=build_teacher(cfg, part.earlier, untrained=True))
        trainer = build_trainer(cfg, Path(folder), quiet=True, name="estimate")
        batches = Batches(cfg, part.kind.side, trainer.strategy.root_device)
        trainer.fit(task, Random(batches))
    return batches.step_s


def in_turn(found: dict[Kind, Part]) -> tuple[list[Part], list[Part]]:
    """One method of each network, a binary one where there is one; and all others.

    The smallest images come first: large ones may take what time there is.
    """
    first: dict[tuple[object, ...], Part] = {}
    for kind, part in sorted(found.items(), key=lambda each: each[0].method[0] == "fp32"):
        first.setdefault(kind.alike, part)
    others = [part for part in found.values() if part not in first.values()]
    return sorted(first.values(), key=_side), sorted(others, key=_side)


def _side(part: Part) -> int:
    return part.kind.side


def described(cells: Sequence[Cell], found: dict[Kind, Part]) -> dict[str, Any]:
    """What all runs consist of; fills ``found`` with one part of each kind."""
    runs, left_out = [], []
    for cell in with_twins(cells):
        try:
            own = parts(cell)
        except ValueError as error:
            left_out.append(str(error))
            continue
        for part in own:
            found.setdefault(part.kind, part)
        runs.append([(part.kind, part.steps) for part in own])
    numbers = {kind: number for number, kind in enumerate(found)}
    return {
        "kinds": [{"label": kind.label, "alike": str(kind.alike)} for kind in found],
        "runs": [[(numbers[kind], steps) for kind, steps in run] for run in runs],
        "left_out": left_out,
    }


def tell(cells: Sequence[Cell], out: Any) -> None:
    """Write all lines."""
    began = time.monotonic()
    found: dict[Kind, Part] = {}
    runs = described(cells, found)
    numbers = {kind: number for number, kind in enumerate(found)}
    print(json.dumps(runs | _device(found)), file=out, flush=True)
    first, others = in_turn(found)
    for part in [*first, *others]:
        if part in others and time.monotonic() - began > MORE_S:
            break
        line: dict[str, Any] = {"kind": numbers[part.kind]}
        try:
            line["step_s"] = step_s(part)
        except Exception as error:  # others may be timed all the same
            line["why"] = f"{type(error).__name__}: {error}".partition("\n")[0]
        print(json.dumps(line), file=out, flush=True)


def _device(found: dict[Kind, Part]) -> dict[str, Any]:
    accelerators = {str(part.cfg.trainer.accelerator) for part in found.values()}
    cuda = torch.cuda.is_available() and accelerators != {"cpu"}
    device = torch.device("cuda" if cuda else "cpu")
    return {"device": provenance.device(device), "threads": torch.get_num_threads()}


def main() -> None:
    """From stdin to stdout, which nothing else writes to."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    resolvers.register()
    hush()
    tell([Cell(*each) for each in pickle.load(sys.stdin.buffer)], out)


if __name__ == "__main__":
    main()
