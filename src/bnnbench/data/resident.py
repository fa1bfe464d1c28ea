"""Random augmentation of many resident images at once, on their device.

torchvision's transforms draw for one image. Here each image has drawn its own numbers, in tensors
made on the CPU, and those that drew the same operation share one call of the library: thousands of
images need hundreds of calls. The pixels are those of one call an image.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bnnbench.data.augmentation import policy

TRIES = 10  # torchvision's: rectangles that do not fit are drawn again so often
CROP = ((0.08, 1.0), (3 / 4, 4 / 3))  # shares of the area and ratios of RandomResizedCrop
ERASED = ((0.02, 0.33), (0.3, 3.3))  # those of RandomErasing


def rectangles(
    count: int,
    size: tuple[int, int],
    shares: tuple[float, float],
    ratios: tuple[float, float],
    generator: torch.Generator,
    spare: int = 0,
) -> tuple[Tensor, Tensor]:
    """Random rectangles in an image, as torchvision draws them.

    The share of the area is uniform, the ratio of the height to the width uniform in its logarithm;
    the first of ten counts that leaves ``spare`` rows and columns at least.

    Returns:
        top, left, height and width, int64 (count, 4), and whether any of the ten fits, (count,).
    """
    rows, columns = size
    drawn = torch.rand(4, count, TRIES, generator=generator, dtype=torch.float64)
    area = (shares[0] + (shares[1] - shares[0]) * drawn[0]) * rows * columns
    low, high = map(math.log, ratios)
    ratio = (low + (high - low) * drawn[1]).exp()
    height, width = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (height > 0) & (width > 0) & (height <= rows - spare) & (width <= columns - spare)
    top = (drawn[2] * (rows - height + 1)).floor()
    left = (drawn[3] * (columns - width + 1)).floor()
    first = fits.to(torch.uint8).argmax(dim=1)  # the first of the largest
    chosen = torch.stack((top, left, height, width), dim=2)[torch.arange(count), first]
    return chosen.long(), fits.any(dim=1)


class ResizedCrop:
    """A random part of each image, resized to the whole: ``RandomResizedCrop``.

    Args:
        size: height and width of the images.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Top, left, height and width of each image's part, int64 (count, 4).

        Where none of ten fits it is torchvision's: the largest centred part of a fitting ratio.
        """
        parts, fits = rectangles(count, self.size, *CROP, generator)
        rows, columns = self.size
        height = min(rows, round(columns / CROP[1][0]))
        width = min(columns, round(rows * CROP[1][1]))
        centre = torch.tensor([(rows - height) // 2, (columns - width) // 2, height, width])
        return torch.where(fits[:, None], parts, centre)

    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        """The parts of uint8 images (N, C, H, W)."""
        from torchvision.transforms.v2 import functional

        result = torch.empty_like(images)
        code = drawn[:, 2] * (self.size[1] + 1) + drawn[:, 3]
        for members in groups(code):
            height, width = drawn[members[0], 2:].tolist()
            index = window(height, width, self.size[1], drawn[members, :2]).to(images.device)
            members = members.to(images.device)
            index = index[:, None].expand(-1, images.shape[1], -1)
            parts = images[members].flatten(2).gather(2, index)
            parts = parts.unflatten(2, (height, width))
            result[members] = functional.resize(parts, list(self.size), antialias=True)
        return result


class Policy:
    """RandAugment or TrivialAugment: operations of torchvision's with the magnitude that it gives.

    Args:
        kind: ``randaugment`` or ``trivialaugment``.
        size: height and width of the images, which some magnitudes follow.
    """

    def __init__(self, kind: str, size: tuple[int, int]) -> None:
        self.policy: Any = policy(kind)
        self.rounds = getattr(self.policy, "num_ops", 1)
        self.fixed: int | None = getattr(self.policy, "magnitude", None)
        self.bins = self.policy.num_magnitude_bins
        self.operations: list[tuple[str, list[float], bool]] = []
        for name, (magnitudes, signed) in self.policy._AUGMENTATION_SPACE.items():
            values = magnitudes(self.bins, *size)
            self.operations.append((name, [] if values is None else values.tolist(), signed))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Operation, bin of its magnitude and sign of each round, int64 (count, rounds, 3)."""
        shape = count, self.rounds
        operation = torch.randint(len(self.operations), shape, generator=generator)
        if self.fixed is None:
            bins = torch.randint(self.bins, shape, generator=generator)
        else:
            bins = torch.full(shape, self.fixed)
        sign = torch.randint(2, shape, generator=generator)
        plain = torch.tensor([not values for _, values, _ in self.operations])
        signed = torch.tensor([signed for _, _, signed in self.operations])
        bins = bins.masked_fill(plain[operation], 0)  # so that equal operations stay together
        return torch.stack((operation, bins, sign.masked_fill(~signed[operation], 0)), dim=2)

    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        """The operations on uint8 images (N, 1 or 3, H, W), round by round."""
        for chosen in drawn.unbind(1):
            code = (chosen[:, 0] * self.bins + chosen[:, 1]) * 2 + chosen[:, 2]
            result = images.clone()
            for members in groups(code):
                operation, bin_, negative = chosen[members[0]].tolist()
                name, values, _ = self.operations[operation]
                if name == "Identity":
                    continue
                magnitude = float(values[bin_]) * (1 - 2 * negative) if values else 0.0
                members = members.to(images.device)
                result[members] = self.policy._apply_image_or_video_transform(
                    images[members], name, magnitude, self.policy.interpolation, self.policy._fill
                )
            images = result
        return images


class Erasing:
    """A rectangle of some normalised images set to 0, the mean colour: ``RandomErasing``.

    Args:
        probability: of an image to lose one.
        size: height and width of the images.
    """

    def __init__(self, probability: float, size: tuple[int, int]) -> None:
        self.probability, self.size = probability, size

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Top, left, height and width, int64 (count, 4); of height 0 where nothing is erased."""
        erased = torch.rand(count, generator=generator) < self.probability
        parts, fits = rectangles(count, self.size, *ERASED, generator, spare=1)
        return parts * (erased & fits)[:, None]

    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Normalised images (N, C, H, W), changed in place."""
        drawn = drawn.to(images.device)
        top, left, height, width = (drawn[:, i, None] for i in range(4))
        rows = torch.arange(self.size[0], device=images.device)
        columns = torch.arange(self.size[1], device=images.device)
        down = (rows >= top) & (rows < top + height)
        across = (columns >= left) & (columns < left + width)
        return images.masked_fill_((down[:, :, None] & across[:, None])[:, None], 0)


def groups(code: Tensor) -> list[Tensor]:
    """Positions of equal values of ``code`` (N,), each group in its order."""
    order = code.argsort(stable=True)
    counts = code[order].unique_consecutive(return_counts=True)[1]
    return list(order.split(counts.tolist()))


def window(height: int, width: int, row: int, starts: Tensor) -> Tensor:
    """Pixel numbers (N, height * width) of windows that start at (N, 2) in rows of ``row``."""
    first = torch.arange(height)[:, None] * row + torch.arange(width)
    return first.flatten() + (starts[:, 0] * row + starts[:, 1])[:, None]
