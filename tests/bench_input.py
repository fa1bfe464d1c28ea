"""What a worker process does to ImageNet's training images: `make bench PARTS=input`.

The floor is libjpeg-turbo decoding the same files from memory, as torchvision calls it. Beside it
stands all that a worker does, from the file to a batch: reading, decoding of the random part,
resizing, mirroring, collation; and the same of whole files, as it is done where no compiler or
header of libjpeg-turbo is installed. Normalisation is the device's. CPU time of one thread, batches
of 64 in turn. ``--images <folder>`` measures JPEG files of your own; without, the 100 original
photographs of VOC where ../shared/data has them, else smooth noise of that size.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2

from bench import interleaved, write_photographs
from bnnbench.data import regions
from bnnbench.data.augmentation import Augmentation, training_transform
from bnnbench.data.cropped import CroppedFiles
from bnnbench.data.file_loader import ImageFiles

BATCH, BAR = 64, 1.15
VOC = Path(__file__).resolve().parents[2] / "shared" / "data" / "voc2012_mini"


def decoding(contents: list[Tensor]) -> Callable[[], None]:
    """The floor, of one batch."""

    def step() -> None:
        for content in contents:
            decode_jpeg(content, mode=ImageReadMode.RGB)

    return step


def working(images: ImageFiles, indices: list[int]) -> Callable[[], None]:
    """What a worker does for one batch, in one epoch after the other."""
    epochs = count()

    def step() -> None:
        epoch = next(epochs)
        keys = [(epoch, index) for index in indices]
        batch = getattr(images, "__getitems__", lambda keys: [images[key] for key in keys])
        images.collate(batch(keys))

    return step


def bench_input(arguments: argparse.Namespace) -> None:
    """Milliseconds an image and images a core-second, as ratios of the floor."""
    with TemporaryDirectory() as made:
        folder = arguments.images or (VOC if VOC.is_dir() else Path(made))
        if folder == Path(made):
            write_photographs(folder)
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
        names = np.array([os.fsencode(file) for file in files])
        indices = [n % len(files) for n in range(BATCH)]
        chain = training_transform(
            224, Augmentation((0.5,) * 3, (0.25,) * 3, flip=True, kind="inception")
        )
        crop, *rest = chain.transforms
        assert isinstance(crop, v2.RandomResizedCrop)
        labels = torch.zeros(len(files), dtype=torch.int64)
        steps = {
            "floor": decoding([read_file(str(files[n])) for n in indices]),
            "random part": working(CroppedFiles(names, labels, crop, v2.Compose(rest), 0), indices),
            "whole files": working(ImageFiles(names, labels, chain, 0), indices),
        }
        print(
            f"\nTraining images of {len(files)} JPEG files at 224 pixels, over decoding (bar {BAR})"
        )
        if reason := regions.why_not():
            print(f"  whole files alone are decoded: {reason}")
        times = interleaved(steps, max(7, arguments.rounds), time.process_time)
        for name, seconds in times.items():
            each = statistics.median(seconds) / BATCH
            ratio = statistics.median(a / b for a, b in zip(seconds, times["floor"], strict=True))
            print(
                f"  {name:<12} {1e3 * each:5.2f} ms {1 / each:6,.0f} images/s {ratio:5.2f}",
                flush=True,
            )
