"""What a GPU is good for here, and what is wrong: ``make gpu-check``, five minutes on one GPU.

In turn: every method's logits and gradients held against the CPU's, what a training step waits for,
how long steps take in 32 bits, in bfloat16 and compiled, and how many runs at a time train most
images a second. It ends in what was found in plain words, and fails where that is anything. Without
a GPU it does the same on the CPU with small steps, which says that the check itself works.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "src")]

from bnnbench.config import options  # noqa: E402
from gpu_steps import Size, Speed, Steps, likeness, synchronisations  # noqa: E402

FULL, DRY = Size(32, 128, 2.0), Size(8, 8, 0.05)
LOGITS, GRADIENTS = 0.99, 0.9  # least cosines: signs turn where a sum of the other device rounds
TIMED = ("fp32", "xnor", "adabin")  # compiling each takes most of a minute
TOGETHER = (1, 2, 4, 8)  # runs on the GPU at a time
EPOCHS, IMAGES = 400, 50_000  # AdaBin's on CIFAR-10
WAYS = {"32 bits": (False, False), "bfloat16": (True, False), "bfloat16, compiled": (True, True)}


def device_of(name: str) -> torch.device:
    """``auto`` is the GPU where torch sees one."""
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(auto if name == "auto" else name)


def about(device: torch.device) -> tuple[str, list[str]]:
    """The device in a line, and what about it is wrong."""
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    if device.type != "cuda":
        return f"no GPU: a dry run on the CPU ({versions})", []
    kind = torch.cuda.get_device_properties(device)
    free, whole = (size / 1e9 for size in torch.cuda.mem_get_info(device))
    line = f"{kind.name}, {whole:.0f} GB, {free:.0f} GB of them free ({versions})"
    wrong = []
    if free < whole / 2:
        wrong.append(f"somebody uses the GPU: {free:.0f} of {whole:.0f} GB are free")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        wrong.append("it has no bfloat16: runs train in 32 bits, at less than half the speed")
    return line, wrong


def compared(methods: Sequence[str], device: torch.device, size: Size) -> Iterator[str]:
    """Print how like the CPU's every method's step is; yields what is not."""
    print(f"\n{'method':10}  logits  gradients   (cosines with the CPU's; waits of a step)")
    for method in methods:
        try:
            logits, gradient = likeness(method, device, size)
            waits = synchronisations(method, device, size)
        except Exception as error:  # each method is asked, whatever another does
            yield f"{method} does not train on this device: {_first_line(error)}"
            continue
        print(f"{method:10}  {logits:.4f}  {gradient:9.4f}   {', '.join(waits)}", flush=True)
        if not (logits >= LOGITS and gradient >= GRADIENTS):
            yield (
                f"{method} computes other numbers than on the CPU: cosines {logits:.4f} of logits, "
                f"{gradient:.4f} of gradients, at least {LOGITS} and {GRADIENTS} are usual"
            )
        if waits:
            yield f"a step of {method} waits for the GPU at {', '.join(waits)}"


def timed(methods: Sequence[str], device: torch.device, size: Size) -> Iterator[str]:
    """Print the speed of every way to train; yields what fails, or is slower than it should be."""
    print(f"\n{'method':10}  {'way':18}  ms/step  images/s   MB   minutes of {EPOCHS} epochs")
    for method in methods:
        known: dict[str, Speed] = {}
        for way, (bf16, compiled) in WAYS.items():
            try:
                found = known[way] = Steps(method, device, size, bf16, compiled).timed(size.seconds)
            except Exception as error:
                yield f"{method} does not train in {way}: {_first_line(error)}"
                continue
            minutes = EPOCHS * IMAGES / found.images_per_s / 60 if device.type == "cuda" else 0
            print(
                f"{method:10}  {way:18}  {found.step_ms:7.1f}  {found.images_per_s:8,.0f}  "
                f"{found.memory_mb:4.0f}  {minutes:7,.0f}",
                flush=True,
            )
        if device.type == "cuda" and len(known) == len(WAYS):
            eager, fast = known["bfloat16"], known["bfloat16, compiled"]
            if fast.step_ms > eager.step_ms:
                yield f"{method} is slower compiled than not: try compile=false"


def together(device: torch.device, size: Size, method: str = "adabin") -> Iterator[str]:
    """Print the images a second of several runs at a time; yields what fails."""
    if device.type != "cuda":
        return
    print("\nruns at a time  images/s of all   (processes of one GPU, adabin, bfloat16)")
    speeds: dict[int, float] = {}
    for count in TOGETHER:
        command = [sys.executable, __file__, "--worker", method, "--device", str(device)]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        told = [process.communicate()[0] for process in running]
        if any(process.returncode for process in running):
            yield f"{count} runs at a time do not fit on this GPU"
            break
        speeds[count] = sum(map(float, told))
        print(f"{count:14}  {speeds[count]:15,.0f}", flush=True)
    if speeds:
        best = max(speeds, key=lambda n: speeds[n])
        print(f"sweeps on this GPU: BNNBENCH_WORKERS={best}")


def worker(method: str, device: torch.device, size: Size) -> None:
    """One of several runs: its images a second, while the others last."""
    print(
        Steps(method, device, size, bf16=True, compiled=False).timed(4 * size.seconds).images_per_s
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def check(methods: Sequence[str], device: torch.device, size: Size) -> list[str]:
    """All of it, printed; returns what is wrong."""
    begun = time.perf_counter()
    line, wrong = about(device)
    print(line)
    wrong += compared(methods, device, size)
    wrong += timed([m for m in TIMED if m in methods], device, size)
    wrong += together(device, size)
    print(f"\n{(time.perf_counter() - begun) / 60:.1f} minutes")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n>")
    parser.add_argument("--methods", nargs="*", default=options("quantizer"), help="all by default")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if unknown := sorted({*asked.methods} - {*options("quantizer")}):
        parser.error(f"--methods {unknown[0]}: choose from {', '.join(options('quantizer'))}")
    device = device_of(asked.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {asked.device}: torch sees no GPU; leave it out for a dry run")
    size = DRY if device.type == "cpu" else FULL
    if asked.worker:
        worker(asked.worker, device, size)
        return 0
    wrong = check(asked.methods, device, size)
    print("\n".join(["what is wrong:", *wrong] if wrong else ["nothing is wrong"]))
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
