"""Packed layers against torch's best float and int8, as ratios of one run: `make bench-runtime`.

Contenders are interleaved in one process, so that a noisy host slows all of them alike; each is
called twice in a round, and the second call is timed, with its own weights and maps in the caches.
What is compared are ratios of each round, of which medians and quartiles are printed. One thread is
timed by its own CPU time, several by the clock, which wants an idle machine. A packed layer is
charged for the codes of its input, the convolution and its float output; int8 and float find their
activations quantized. Each layer is held against the limit of its core as well: the look-ups that
the registers allow.

ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python tests/bench_runtime.py   # as if AVX2 alone
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bnnbench.runs.allocator import keep_freed_memory
from bnnbench.runtime import build, kernel
from bnnbench.runtime.convolution import PackedConv2d, pack_bits
from bnnbench.runtime.epilogue import Activation, Binarizer, Epilogue

Call = Callable[[], Any]
# Batch, channels (in and out) and pixels on a side of 3x3 convolutions, stride 1, padding 1.
SETS = {
    "ResNet-18, 224 pixels, batch 1": ((1, 64, 56), (1, 128, 28), (1, 256, 14), (1, 512, 7)),
    "CIFAR, batch 64": ((64, 16, 32), (64, 32, 16), (64, 64, 8)),
}
FLOATS = ("float eager", "float prepacked")
ONES = [1, 1]  # stride, padding and dilation


@dataclass
class Layer:
    """One shape: how it is called by everybody, and its multiply-accumulates."""

    name: str
    calls: dict[str, Call]
    work: float


def layer(batch: int, channels: int, pixels: int) -> Layer:
    """All contenders on one shape, once all of them have given the same sums."""
    torch.manual_seed(0)
    x = torch.randn(batch, channels, pixels, pixels).contiguous(memory_format=torch.channels_last)
    weight = torch.where(torch.randn(channels, channels, 3, 3) >= 0, 1.0, -1.0)
    calls = {**float_calls(x, weight), **int8_call(x, weight), **packed_calls(x, weight)}
    expected = calls["float eager"]()
    for name, call in calls.items():
        assert name == "1 bit, a block" or torch.equal(call().float(), expected), name
    work = batch * pixels**2 * channels**2 * 9
    return Layer(f"{channels} x {pixels}²", calls, work)


def float_calls(x: Tensor, weight: Tensor) -> dict[str, Call]:
    """torch's convolution of the codes, and oneDNN's with the weight in the order it likes."""
    codes, mkldnn = torch.where(x >= 0, 1.0, -1.0), torch.ops.mkldnn
    ours = weight.contiguous(memory_format=torch.channels_last)
    packed = mkldnn._reorder_convolution_weight(weight, ONES, ONES, ONES, 1, list(x.shape))
    after = ("none", [], "")
    return {
        FLOATS[0]: lambda: F.conv2d(codes, ours, None, 1, 1),
        FLOATS[1]: lambda: mkldnn._convolution_pointwise(
            codes, packed, None, ONES, ONES, ONES, 1, *after
        ),
    }


def int8_call(x: Tensor, weight: Tensor) -> dict[str, Call]:
    """oneDNN's int8 convolution with float outputs: activations are 0 and 2 around 1."""
    codes, onednn = ((x >= 0) * 2).to(torch.uint8), torch.ops.onednn
    scales, zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int64)
    packed = onednn.qconv_prepack(
        weight.to(torch.int8), scales, 1.0, 1, ONES, ONES, ONES, 1, list(x.shape)
    )
    after = (1.0, 0, torch.float32, "none", [], "")
    return {
        "int8": lambda: onednn.qconv_pointwise(
            codes, 1.0, 1, packed, scales, zeros, None, ONES, ONES, ONES, 1, *after
        )
    }


def packed_calls(x: Tensor, weight: Tensor) -> dict[str, Call]:
    """The packed layer alone, from codes, and as a block that makes the next one's codes."""
    count = len(weight)
    first, second = (
        PackedConv2d(pack_bits(weight), weight.shape, activation=Binarizer(), padding=1)
        for _ in range(2)
    )
    codes, after = first.encode(x), Activation(1.0, torch.rand(count))
    epilogue = Epilogue(torch.rand(count), torch.rand(count), None, after)
    return {
        "1 bit": lambda: first(x),
        "1 bit, from codes": lambda: first(codes),
        "1 bit, a block": lambda: first.fused(codes, epilogue=epilogue, add=x, next=(second,))[0],
    }


def timed(layers: Sequence[Layer], threads: int, rounds: int) -> list[dict[str, np.ndarray]]:
    """Seconds of each call of each round, layer by layer."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    torch.set_num_threads(threads)
    times = [{name: np.zeros(rounds) for name in one.calls} for one in layers]
    for round in range(-1, rounds):  # the first is not counted
        for one, found in zip(layers, times, strict=True):
            for name, call in one.calls.items():
                call()
                start = clock()
                call()
                found[name][round] = clock() - start
    return times


def quartiles(values: np.ndarray) -> list[float]:
    """Lower quartile, median and upper quartile."""
    return [float(f"{v:.4g}") for v in np.quantile(values, [0.25, 0.5, 0.75])]


def summary(name: str, work: float, times: dict[str, np.ndarray], limit: float) -> dict[str, Any]:
    """One row: microseconds, ratios to the packed layer, and its share of the core's limit."""
    best = min(FLOATS, key=lambda f: np.median(times[f]))
    codes, ours = times["1 bit, from codes"], times["1 bit"]
    return {
        "layer": name,
        "microseconds": {call: quartiles(t * 1e6) for call, t in times.items()},
        "best float": best,
        "x float": quartiles(times[best] / ours),
        "x int8": quartiles(times["int8"] / ours),
        "GMAC/s from codes": quartiles(work / codes / 1e9),
        "of the limit": quartiles(work / codes / 1e9 / limit) if limit else None,
    }


def rows(layers: Sequence[Layer], threads: int, rounds: int, limit: float) -> list[dict[str, Any]]:
    """A row for each layer, and one for their sum."""
    times = timed(layers, threads, rounds)
    found = [
        summary(one.name, one.work, t, threads * limit)
        for one, t in zip(layers, times, strict=True)
    ]
    for one, row in zip(times, found, strict=True):  # the sum takes the best float of each layer
        one.update(dict.fromkeys(FLOATS, one[row["best float"]]))
    total = {name: sum((t[name] for t in times), np.zeros(rounds)) for name in times[0]}
    return [*found, summary("sum", sum(one.work for one in layers), total, threads * limit)]


def limits(path: str) -> dict[str, float]:
    """G multiply-accumulates a second of one core out of its registers: medians of 15."""
    source = Path(__file__).parent / "runtime" / "limits.c"
    flags = [*build.COMMON, *build.FLAGS[path], f"-I{build.SOURCES[0].parent}"]
    if "avx512" in path and "avx512_vnni" in cpu()["flags"]:
        flags.append("-mavx512vnni")
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/limits.so"
        command = [*next(build.compilers()), *flags, "-o", file, str(source)]
        subprocess.run(command, check=True, capture_output=True)
        library = ctypes.CDLL(file)
    library.initialise()
    return {name: limit(getattr(library, name)) for name in ("look_ups", "floats", "bytes")}


def limit(loop: Any) -> float:
    """G a second of one loop."""
    loop.restype, loop.argtypes, found = ctypes.c_double, [ctypes.c_long], []
    for _ in range(15):
        start = time.thread_time()
        done = loop(1_000_000)
        found.append(done / (time.thread_time() - start) / 1e9)
    return float(f"{np.median(found):.4g}")


def cpu() -> dict[str, Any]:
    """The CPU's name and flags."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {"name": platform.processor() or platform.machine(), "flags": []}
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    name = fields.get("model name", platform.machine())
    return {"name": name, "flags": fields.get("flags", fields.get("Features", "")).split()}


def markdown(threads: int, title: str, found: Sequence[dict[str, Any]]) -> str:
    """One table."""
    heads = ("1 bit µs", "from codes", "a block", *FLOATS, "int8")
    lines = [f"\n{title}, {threads} thread{'s' * (threads > 1)}\n"]
    lines += [f"| layer | {' | '.join(heads)} | x float | x int8 | of the limit |"]
    lines += ["|" + "---|" * (len(heads) + 4)]
    calls = ("1 bit", "1 bit, from codes", "1 bit, a block", *FLOATS, "int8")
    for row in found:
        cells = [f"{row['microseconds'][call][1]:.0f}" for call in calls]
        cells += ["{1:.1f} ({0:.1f}-{2:.1f})".format(*row[key]) for key in ("x float", "x int8")]
        cells += [f"{row['of the limit'][1]:.2f}" if row["of the limit"] else "-"]
        lines.append(f"| {row['layer']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Time all sets, print their tables and write everything as JSON where asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    keep_freed_memory()  # or each output is a new page fault, of whoever makes it
    active, path = kernel.active()
    most = limits(path) if active else {}
    machine = {**cpu(), "torch": torch.__version__, "kernel": path, "limits": most}
    print(f"{machine['name']}, torch {torch.__version__}, kernel {path}, GMAC/s of a core: {most}")
    found = []
    for title, shapes in SETS.items():
        layers = [layer(*shape) for shape in shapes]
        for threads in options.threads:
            table = rows(layers, threads, options.rounds, most.get("look_ups", 0.0))
            print(markdown(threads, title, table))
            found.append({"set": title, "threads": threads, "rows": table})
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "sets": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
