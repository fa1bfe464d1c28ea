"""Training steps of a method on a device, compared and timed; what ``gpu_check.py`` asks."""

from __future__ import annotations

import copy
import time
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnnbench
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification

CLASSES = 10


@dataclass(frozen=True)
class Size:
    """How large the steps are.

    Attributes:
        pixels: side of an image.
        batch: images a step.
        seconds: that a way of training is timed for, at least.
    """

    pixels: int
    batch: int
    seconds: float


@dataclass(frozen=True)
class Speed:
    """Of one way to train: milliseconds a step, images a second, and the most memory it took."""

    step_ms: float
    images_per_s: float
    memory_mb: float


def network(method: str, size: Size) -> nn.Module:
    """A ResNet-20 of the method, the same weights on every call."""
    torch.manual_seed(0)
    return bnnbench.build_backbone(
        "resnet20", quantizer=method, num_classes=CLASSES, image_size=size.pixels
    )


def batch_of(size: Size, images: int) -> tuple[Tensor, Tensor]:
    """Random images and labels, the same on every call."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(images, 3, size.pixels, size.pixels, generator=generator)
    return x.contiguous(memory_format=torch.channels_last), torch.arange(images) % CLASSES


def draws(net: nn.Module, images: Tensor) -> bool:
    """Whether a method draws random numbers in training, which differ from device to device."""
    found = []
    with torch.no_grad():
        for seed in (0, 1):
            torch.manual_seed(seed)
            found.append(copy.deepcopy(net).train()(images))
    return not torch.equal(*found)


def gradients(net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and all gradients of a step, on the CPU, the latter in one row."""
    net.zero_grad()
    logits = net(images)
    F.cross_entropy(logits.float(), labels).backward()
    rows = [p.grad.flatten().float() for p in net.parameters() if p.grad is not None]
    return logits.detach().float().cpu(), torch.cat(rows).cpu()


def likeness(method: str, device: torch.device, size: Size) -> tuple[float, float]:
    """Cosines of logits and of gradients on the CPU and on ``device``, in 32 bits; nan where
    something is not finite.

    They are no 1: where a sum rounds otherwise a sign may turn. What draws is compared in
    evaluation.
    """
    images, labels = batch_of(size, min(size.batch, 32))
    net = network(method, size)
    net.train(not draws(net, images))
    there = copy.deepcopy(net).to(device)
    own = gradients(net, images, labels)
    others = gradients(there, images.to(device), labels.to(device))
    pairs = zip(own, others, strict=True)
    logits, gradient = (_cosine(a, b) for a, b in pairs)
    return logits, gradient


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


class Steps:
    """Training steps of a method with Adam, forwards in bfloat16 and compiled where asked for."""

    def __init__(
        self, method: str, device: torch.device, size: Size, bf16: bool, compiled: bool
    ) -> None:
        self.device, self.bf16 = device, bf16
        self.net = network(method, size).to(device, memory_format=torch.channels_last)  # pyright: ignore
        self.images, self.labels = (part.to(device) for part in batch_of(size, size.batch))
        self.optimizer = torch.optim.Adam(self.net.parameters(), 1e-3)
        if compiled:  # a dry run traces and compiles nothing: that takes minutes on a CPU
            self.net.compile(backend="inductor" if device.type == "cuda" else "eager")

    def step(self) -> Tensor:
        """One step; its loss, which nobody has waited for."""
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = F.cross_entropy(self.net(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def timed(self, seconds: float) -> Speed:
        """Steps for so long, after three that do not count. FloatingPointError for a bad loss."""
        for _ in range(3):
            self.step()
        wait(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        begun, count = time.perf_counter(), 0
        while count < 2 or time.perf_counter() - begun < seconds:
            loss = self.step()
            count += 1
            if count % 10 == 0:  # else a thousand of them wait behind the clock
                wait(self.device)
        wait(self.device)
        took = time.perf_counter() - begun
        if not bool(loss.isfinite()):
            raise FloatingPointError(f"the loss became {float(loss)}")
        memory = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0
        return Speed(1e3 * took / count, count * len(self.labels) / took, memory / 1e6)


def wait(device: torch.device) -> None:
    """For all that a GPU has still to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def synchronisations(method: str, device: torch.device, size: Size) -> list[str]:
    """What a training step of the task makes a GPU wait for, as torch tells it; none on a CPU."""
    if device.type != "cuda":
        return []
    recipe = Recipe("adam", 1e-3, schedule="constant")
    task: Any = Classification(network(method, size), nn.CrossEntropyLoss(), recipe, CLASSES)
    task.to(device)
    batch = tuple(part.to(device) for part in batch_of(size, size.batch))
    task.training_step(batch, 0).backward()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            task.training_step(batch, 1).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sorted({f"{w.filename}:{w.lineno}" for w in told if "synchroniz" in str(w.message)})
