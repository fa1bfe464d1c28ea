"""Training images of which a random part is seen: that part alone is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from bnnbench.data import regions
from bnnbench.data.file_loader import ImageFiles, Key, Transform

TOGETHER = 64  # images that are held between two steps: some 20 MB


class Drawn(NamedTuple):
    """What is decoded of an image.

    Attributes:
        whole: all of it, where it is no plain file.
        size: its height and width, where it is.
        window: top, left, height and width of the part.
        state: of the random numbers after that was drawn.
    """

    whole: Tensor | None
    size: regions.Size | None
    window: regions.Window
    state: Tensor


class CroppedFiles(ImageFiles):
    """Images whose first transform is ``RandomResizedCrop``: the same numbers in less time.

    A batch is drawn, decoded and changed in turn, because each of these steps is faster a second
    time than after another one.

    Args:
        files, truths, seed: see ``ImageFiles``.
        crop: draws the part of an image and says how it is resized.
        rest: what is done to it afterwards.
    """

    def __init__(
        self,
        files: np.ndarray,
        truths: Tensor,
        crop: v2.RandomResizedCrop,
        rest: Transform,
        seed: int,
    ) -> None:
        super().__init__(files, truths, rest, seed)
        self.crop = crop
        regions.reader()  # compiled and tried here, before worker processes are forked

    def __getitem__(self, key: Key) -> tuple[Tensor, Any]:
        """Image uint8 (3, size, size) and truth; raises DatasetDamaged, which names the file."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Tensor, Any]]:
        """Those of a batch."""
        found = []
        with torch.random.fork_rng(devices=[]):
            for start in range(0, len(keys), TOGETHER):
                found += self._examples(keys[start : start + TOGETHER])
        return found

    def _examples(self, keys: Sequence[Key]) -> list[tuple[Tensor, Any]]:
        drawn, parts, found, index = [], [], [], 0
        try:
            for epoch, index in keys:
                self.seeded(epoch, index)
                drawn.append(self._draw(index))
            for (_, index), each in zip(keys, drawn, strict=True):
                parts.append(self._part(index, each))
        except (ValueError, FileNotFoundError) as error:
            raise self.damaged(index, error) from error
        crop = self.crop
        for (_, index), each, part in zip(keys, drawn, parts, strict=True):
            size = list(crop.size)  # pyright: ignore[reportArgumentType]: height and width
            image = functional.resize(part, size, crop.interpolation, antialias=crop.antialias)
            torch.default_generator.set_state(each.state)
            found.append(self.transform(image, self.truth(index, image)))
        return found

    def _draw(self, index: int) -> Drawn:
        size = self.plain_size(index)
        whole = None if size else self.picture(index)
        shape = torch.empty((3, *size), device="meta") if size else whole
        found = self.crop.make_params([shape])
        window = found["top"], found["left"], found["height"], found["width"]
        return Drawn(whole, size, window, torch.default_generator.get_state())

    def _part(self, index: int, drawn: Drawn) -> Tensor:
        whole, size, window, _ = drawn
        if size and (reader := regions.reader()):
            part = reader.read(self.files[index], size, window)
            if part is not None:
                return part
        whole = self.picture(index) if whole is None else whole
        top, left, height, width = window
        return whole[:, top : top + height, left : left + width]
