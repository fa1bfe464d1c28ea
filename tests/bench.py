"""Speed and memory as ratios of one run: `make bench`.

Variants are interleaved step by step in one process on one thread, so that a noisy host slows all
of them alike; medians and quartiles of step time are printed, ratios are of medians. ResNet-20,
32 x 32 pixels; each method against its twin: full precision in the same structure. A step is
forward, backward, SGD and what the method does to its weights around them.

python tests/bench.py --parts eager --methods adabin,xnor --rounds 5   # some methods, one part
make bench PARTS=floor   # parts by name, see --help
"""

from __future__ import annotations

import argparse
import logging
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.io import write_jpeg

import bnnbench
from bnnbench.config import options
from bnnbench.data import FolderDataModule
from bnnbench.data.augmentation import KINDS, Augmentation, mixing
from bnnbench.data.device_loader import DeviceLoader
from bnnbench.data.file_loader import FileLoader
from bnnbench.layers import binary_layers
from bnnbench.losses.bayesian_feature import BayesianFeature
from bnnbench.losses.bayesian_kernel import BayesianKernel
from bnnbench.losses.distillation import (
    AttentionMatching,
    Distillation,
    Hints,
    TeacherTerm,
)
from bnnbench.optim.recipe import Recipe
from bnnbench.quantizers.base import overridden
from bnnbench.runs.allocator import keep_freed_memory
from bnnbench.tasks.classification import Classification
from bnnbench.tasks.teacher import FrozenTeacher, JointTeacher, Teacher

Step = Callable[[], None]
STEP_BAR, MEMORY_BAR, LOOP_BAR = 1.25, 2.0, 1.05
REGULARIZER_BAR = 1.1
# Why a method may cost more than STEP_BAR.
WHY = {
    "abcnet": "five bases a side: five signs of every weight and activation, least squares a layer",
    "abbnn": "weight statistics, power-of-two RPReLU, adaptive gradient clipping",
    "adabin": "weight statistics, gradients of two learned levels",
    "bayesbinn": "weights are sampled, logarithms and tanh each step",
    "biper": "sine of the weights, std of every sample",
    "dsq": "learned ranges: five gradients through tanh, on both sides",
    "fda": "noise branch: two linear layers and a sine on every activation",
    "ienet": "two bases, std of every sample of both, output scale",
    "irnet": "weight statistics, tanh in the backward of every activation",
    "ovsw": "norms of each filter's gradient, flips counted, std of every sample",
    "pcnn": "products with every element of the projection",
    "r2b": "gates: mean of every map, a factor on every output",
    "rbnn": "weights are rotated, activations standardised with gradient, output scale",
    "rbonn": "learned thresholds, bilinear gradient and backtracking",
    "reactnet": "a learned threshold per channel on top of ApproxSign",
    "rebnn": "learned thresholds, reconstruction gradient, flips counted",
    "recu": "weight statistics, std of every sample inside the gradient, output scale",
    "reste": "powers in the backward of every activation",
    "sibnn": "learned threshold and slope per channel",
    "siman": "median and percentiles of the weights, activations centred by sample",
    "tbn": "mean of every activation, two comparisons",
    "wage": "every error and update rounded to a grid of the layer's largest",
    "xnorpp": "output map times an outer product of learned vectors",
    "zhuang": "tanh of the weights, every activation clipped and rounded",
}


def twin(quantizer: str) -> dict[str, object]:
    """The structure of ``quantizer`` for full precision."""
    config = bnnbench.load_quantizer(quantizer).config
    keys = ("shortcut", "nonlinearity", "head_norm")
    structure = {key: config[key] for key in keys}
    if structure["nonlinearity"] == "identity":  # a real network needs one
        structure["nonlinearity"] = "relu"
    return structure


def network(quantizer: str, like: str | None = None) -> nn.Module:
    """ResNet-20 of ``quantizer``, in the structure of ``like`` where that is given."""
    overrides = twin(like) if like else {}
    return bnnbench.build_backbone("resnet20", quantizer=quantizer, **overrides)


def make_step(net: nn.Module, batch: int, channels_last: bool, compiled: bool) -> Step:
    """One training step: forward, backward, SGD."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = net.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    prepare, finish = hooks(net, "after_backward"), hooks(net, "after_step")
    images = torch.randn(batch, 3, 32, 32).to(memory_format=layout)
    labels = torch.randint(10, (batch,))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    if compiled:
        net.compile()

    def step() -> None:
        F.cross_entropy(net(images), labels).backward()
        prepare()
        optimizer.step()
        finish()
        optimizer.zero_grad()

    return step


def hooks(net: nn.Module, name: str) -> Step:
    """What the weight sides of ``net`` do at ``name``, as ``callbacks/progress.py`` calls it."""
    layers = [layer for _, layer in binary_layers(net) if overridden(layer.weight_quantizer, name)]

    @torch.no_grad()
    def call() -> None:
        for layer in layers:
            getattr(layer.weight_quantizer, name)(layer.weight)

    return call


def interleaved(
    steps: dict[str, Step], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each step, measured round by round in turn."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            start = clock()
            step()
            times[name].append(clock() - start)
    return times


def row(name: str, times: list[float], base: list[float], why: str = "") -> None:
    """Print one line: median, quartiles, ratio to ``base``; ``why`` above the bar."""
    low, median, high = statistics.quantiles(times, n=4)
    ratio = median / statistics.median(base)
    print(
        f"  {name:<12} {median * 1e3:7.0f} ms ({low * 1e3:.0f}-{high * 1e3:.0f})"
        f"  {ratio:5.2f}  {why if ratio > STEP_BAR else ''}",
        flush=True,
    )


def bench_steps(arguments: argparse.Namespace, channels_last: bool, compiled: bool) -> None:
    """Step cost of every method over its full-precision twin, step by step in turn."""
    layout = "channels last" if channels_last else "NCHW"
    print(
        f"\nStep time over the full-precision twin, {'compiled' if compiled else 'eager'}, "
        f"{layout}, batch {arguments.batch}\n  method       median (quartiles)   ratio  "
        f"why (above {STEP_BAR})"
    )
    for quantizer in arguments.methods:
        nets = {"twin": network("fp32", like=quantizer), quantizer: network(quantizer)}
        steps = {
            name: make_step(net, arguments.batch, channels_last, compiled)
            for name, net in nets.items()
        }
        times = interleaved(steps, arguments.rounds)
        row(quantizer, times[quantizer], times["twin"], WHY.get(quantizer, "not known"))


def saved_bytes(net: nn.Module, batch: int) -> int:
    """Distinct bytes that autograd keeps for the backward of one step, parameters left out."""
    storages: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in [*net.parameters(), *net.buffers()]}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = net(torch.randn(batch, 3, 32, 32)).sum()
    loss.backward()
    return sum(storages.values())


def bench_memory(arguments: argparse.Namespace) -> None:
    """Memory kept for backward over the twin's."""
    print(f"\nMemory kept for backward over the full-precision twin (bar {MEMORY_BAR})")
    for quantizer in arguments.methods:
        own = saved_bytes(network(quantizer), arguments.batch)
        base = saved_bytes(network("fp32", like=quantizer), arguments.batch)
        print(f"  {quantizer:<12} {own / 2**20:6.0f} MiB  {own / base:5.2f}")


class BooleanSign(torch.autograd.Function):
    """The surrogate as reference repositories write it: boolean indexing in the backward."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sign(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        grad = grad.clone()
        grad[x.ge(1)] = 0
        grad[x.le(-1)] = 0
        return grad


def published_polynomial(x: Tensor) -> Tensor:
    """ApproxSign as published code writes it: masks and a chain of detached terms."""
    code = torch.sign(x)
    masks = [(x < bound).float() for bound in (-1, 0, 1)]
    first = -masks[0] + (x * x + 2 * x) * (1 - masks[0])
    second = first * masks[1] + (-x * x + 2 * x) * (1 - masks[1])
    smooth = second * masks[2] + (1 - masks[2])
    return code.detach() - smooth.detach() + smooth


def bench_surrogates(arguments: argparse.Namespace) -> None:
    """Our surrogates against the forms of published code, on one activation map."""
    from bnnbench.quantizers.surrogate import approx_sign, clip, sign_ste

    print(
        "\nSurrogate forward and backward on one 128 x 16 x 32 x 32 map, published form over ours"
    )
    x = torch.randn(128, 16, 32, 32, requires_grad=True)
    grad = torch.randn_like(x)
    pairs: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
        "clip": (lambda x: sign_ste(x, clip), BooleanSign.apply),
        "polynomial": (lambda x: sign_ste(x, approx_sign), published_polynomial),
    }
    for name, functions in pairs.items():
        steps = {
            key: (lambda function=function: function(x).backward(grad))
            for key, function in zip(("ours", "published"), functions, strict=True)
        }
        times = interleaved(steps, 5 * arguments.rounds)
        ours, published = (statistics.median(times[key]) for key in ("ours", "published"))
        print(
            f"  {name:<12} {ours * 1e3:5.1f} ms, published {published * 1e3:5.1f} ms"
            f"  {published / ours:5.2f}"
        )


def bench_loop(arguments: argparse.Namespace) -> None:
    """Lightning's training loop over a bare loop of the same steps."""
    print(f"\nLightning loop over a bare PyTorch loop of the same step (bar {LOOP_BAR})")
    count = 12 * arguments.batch
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(10, (count,))
    augmentation = Augmentation((0.5,) * 3, (0.25,) * 3, 4, True)
    loader = DeviceLoader(images, labels, augmentation, arguments.batch, train=True)
    recipe = Recipe("adam", 1e-3)
    times: dict[str, list[float]] = {"bare": [], "lightning": []}
    for _ in range(max(3, arguments.rounds // 2)):
        task = Classification(network("xnor"), nn.CrossEntropyLoss(), recipe, 10)
        trainer = quiet_trainer()
        times["lightning"].append(_seconds(lambda: trainer.fit(task, loader)))  # noqa: B023
        times["bare"].append(_seconds(lambda: bare_loop(network("xnor"), loader, recipe)))
    row("lightning", times["lightning"], times["bare"])


def quiet_trainer(*callbacks: L.Callback) -> L.Trainer:
    """One epoch on the CPU with nothing but ``callbacks``."""
    return L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class Stopwatch(L.Callback):
    """Seconds of each training step, from batch start to batch end, callbacks included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_before_zero_grad(self, *_: object) -> None:
        now = time.perf_counter()
        if self._start:
            self.seconds.append(now - self._start)
        self._start = now


def bench_regularizers(arguments: argparse.Namespace) -> None:
    """Step time with the Bayesian losses over the task's loss alone: both in Lightning."""
    print(f"\nWRN-22 step with the Bayesian losses over without (bar {REGULARIZER_BAR})")
    batch = (torch.randn(arguments.batch, 3, 32, 32), torch.randint(10, (arguments.batch,)))
    loader = DataLoader([batch] * 5, batch_size=None)
    for quantizer in ("bonn", "xnor", "adabin"):
        times: dict[str, list[float]] = {"task": [], "bonn": []}
        for _ in range(max(3, arguments.rounds)):
            for loss, seconds in times.items():
                terms = {"kernel": BayesianKernel(), "feature": BayesianFeature()}
                net = bnnbench.build_backbone("wrn22", quantizer=quantizer)
                used = terms if loss == "bonn" else {}
                task = Classification(
                    net, nn.CrossEntropyLoss(), Recipe("adam", 1e-3), 10, "test", used
                )
                seconds += seconds_of_steps(task, loader)
        row(quantizer, times["bonn"], times["task"])


def seconds_of_steps(task: Classification, loader: DataLoader) -> list[float]:
    """Of one epoch in Lightning, the first step left out."""
    watch = Stopwatch()
    quiet_trainer(watch).fit(task, loader)
    return watch.seconds[1:]


TEACHERS: dict[str, tuple[type[Teacher] | None, dict[str, Callable[[], TeacherTerm]]]] = {
    "none": (None, {}),
    "kd": (FrozenTeacher, {"kd": lambda: Distillation(0.9, 4.0)}),
    "attention": (
        FrozenTeacher,
        {"attention": lambda: AttentionMatching(30.0, "norm"), "kd": lambda: Distillation(3.0)},
    ),
    "joint, hints": (JointTeacher, {"hints": lambda: Hints(100.0, 32)}),
}


def bench_teachers(arguments: argparse.Namespace) -> None:
    """Step time with a full-precision ResNet-20 as teacher over without: both in Lightning."""
    print("\nResNet-20 step of adabin with its full-precision twin as teacher, over without")
    images, labels = torch.randn(arguments.batch, 3, 32, 32), torch.randint(10, (arguments.batch,))
    times: dict[str, list[float]] = {name: [] for name in TEACHERS}
    for _ in range(max(3, arguments.rounds)):
        for name, (kind, terms) in TEACHERS.items():
            loader = DataLoader([(images, labels)] * 5, batch_size=None)
            teacher = kind(network("fp32", like="adabin")) if kind else None
            used = {term: build() for term, build in terms.items()}
            loss, recipe = nn.CrossEntropyLoss(), Recipe("adam", 1e-3)
            task = Classification(network("adabin"), loss, recipe, 10, "test", used, teacher)
            times[name] += seconds_of_steps(task, loader)
    for name in list(TEACHERS)[1:]:
        row(name, times[name], times["none"])


MIXED: dict[str, dict[str, float]] = {
    "erasing 0.25": {"erasing": 0.25},
    "mixup 0.2": {"mixup": 0.2},
    "cutmix 1.0": {"cutmix": 1.0},
}


def bench_augmentation(arguments: argparse.Namespace) -> None:
    """Images of both loaders alone a second of one core's time: an epoch each in turn."""
    print("\nImages a core-second of the loaders alone, and time over the set's own augmentation")
    with TemporaryDirectory() as folder:
        for name, images, build, usual in (
            ("resident, 32 x 32", 8192, resident_loader, "crop_flip"),
            ("files, 500 x 375 to 224 x 224", 64, partial(file_loader, Path(folder)), "inception"),
        ):
            steps = {kind: _epoch_of(build(kind)) for kind in KINDS}
            steps |= {key: _epoch_of(build(usual, **value)) for key, value in MIXED.items()}
            times = interleaved(steps, max(3, arguments.rounds // 2), time.process_time)
            print(f"  {name}")
            for key, seconds in times.items():
                ratio = statistics.median(seconds) / statistics.median(times[usual])
                speed = images / statistics.median(seconds)
                print(f"    {key:<16} {speed:9,.0f} images/s  {ratio:5.2f}", flush=True)


def resident_loader(kind: str, erasing: float = 0.0, **mixed: float) -> DeviceLoader:
    """8192 random images of CIFAR's size in batches of 128."""
    images = torch.randint(0, 256, (8192, 3, 32, 32), dtype=torch.uint8)
    augmentation = Augmentation((0.5,) * 3, (0.25,) * 3, 4, True, kind, erasing)
    mix = mixing(**{"mixup": 0.0, "cutmix": 0.0} | mixed, num_classes=10, seed=0)
    labels = torch.randint(10, (8192,))
    return DeviceLoader(images, labels, augmentation, 128, train=True, mixing=mix)


def file_loader(folder: Path, kind: str, **options: float) -> FileLoader:
    """64 JPEG files of the size of a photograph, in batches of 32."""
    for split in ("train", "val"):
        if not (folder / split).is_dir():
            write_photographs(folder / split)
    data = FolderDataModule(
        str(folder), "", kind, name="bench", num_classes=2, in_channels=3, image_size=224,
        mean=[0.5] * 3, std=[0.25] * 3, batch_size=32, seed=0, workers=0, **options,
    )  # fmt: skip
    data.setup()
    return data.train_dataloader()


def write_photographs(folder: Path) -> None:
    """Smooth noise in two classes."""
    random = torch.Generator().manual_seed(0)
    for number in range(64):
        coarse = torch.rand(1, 3, 24, 32, generator=random)
        pixels = F.interpolate(coarse, size=(375, 500), mode="bicubic").clamp(0, 1)[0] * 255
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        write_jpeg(pixels.to(torch.uint8), str(folder / "ab"[number % 2] / f"{number}.jpg"))


def _epoch_of(loader: Iterable[object]) -> Step:
    def step() -> None:
        for _ in loader:
            pass

    return step


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bare_loop(net: nn.Module, loader: DeviceLoader, recipe: Recipe) -> None:
    """One epoch without Lightning: the same loader, optimiser, schedule and accuracy."""
    built = recipe.build({"other": list(net.parameters())}, len(loader))
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    correct, total = torch.zeros(()), torch.zeros(())
    for images, labels in loader:
        logits = net(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        correct += (logits.argmax(1) == labels).sum()
        total += loss.detach()


def methods(names: str) -> list[str]:
    """The methods of a list with commas; ``all`` is every option but fp32."""
    known = [name for name in options("quantizer") if name != "fp32"]
    chosen = known if names == "all" else names.split(",")
    if unknown := sorted(set(chosen) - set(known)):
        raise argparse.ArgumentTypeError(f"unknown {unknown}; choose among {known}")
    return chosen


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = ("eager", "channels_last", "compiled", "memory", "surrogates", "loop")
    parts += ("regularizers", "teachers", "augmentation", "input", "floor")
    parser.add_argument("--images", type=Path, help="folder of JPEG files, of input")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--methods", type=methods, default="all", help="a,b,...")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    modes, nets = ("eager", "compiled"), ("resnet20_32", "resnet18_8", "resnet18_32")
    parser.add_argument("--modes", nargs="+", choices=modes, default=modes, help="of floor")
    parser.add_argument("--networks", nargs="+", choices=nets, default=nets, help="of floor")
    parser.add_argument("--out", type=Path, help="JSON file for what floor measures")
    arguments = parser.parse_args()
    from bench_floor import bench_floor  # which takes its tools from here
    from bench_input import bench_input

    keep_freed_memory()  # as every run of the suite does
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(f"torch {torch.__version__}, one thread; ratios within one run, 1.00 = no extra cost")
    work: dict[str, Callable[[], None]] = {
        "surrogates": lambda: bench_surrogates(arguments),
        "eager": lambda: bench_steps(arguments, channels_last=False, compiled=False),
        "channels_last": lambda: bench_steps(arguments, channels_last=True, compiled=False),
        "compiled": lambda: bench_steps(arguments, channels_last=True, compiled=True),
        "memory": lambda: bench_memory(arguments),
        "loop": lambda: bench_loop(arguments),
        "regularizers": lambda: bench_regularizers(arguments),
        "teachers": lambda: bench_teachers(arguments),
        "augmentation": lambda: bench_augmentation(arguments),
        "input": lambda: bench_input(arguments),
        "floor": lambda: bench_floor(arguments),
    }
    for part, function in work.items():
        if part == "compiled" and shutil.which("g++") is None:
            print("\ncompiled: skipped, torch.compile on CPU needs g++")
        elif part in arguments.parts:
            function()


if __name__ == "__main__":
    main()
