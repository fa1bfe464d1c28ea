"""Augmentation of classification sets: what is chosen, image by image in files, batch by batch.

``none``, ``crop_flip``, ``inception`` (GoogLeNet's random part of the image, arXiv 1409.4842),
``randaugment`` (arXiv 1909.13719) and ``trivialaugment`` (arXiv 2103.10158), with random erasing
(arXiv 1708.04896), mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899): torchvision's v2 with
its own defaults. As in torchvision's references the policies follow crop and flip, erasing comes
last, and of mixup and CutMix together each batch gets one. ``resident`` does the same to arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bnnbench.data import sharding

if TYPE_CHECKING:
    from torchvision.transforms import v2

KINDS = ("none", "crop_flip", "inception", "randaugment", "trivialaugment")
POLICIES = ("randaugment", "trivialaugment")
RESIZED = 256 / 224  # the resized image's shorter side over the crop's, ImageNet's custom
_MIXING = 1  # last of the numbers that mixing is drawn from: no image has a stream of this length


@dataclass(frozen=True)
class Augmentation:
    """Normalisation, and what is done to training images besides.

    Attributes:
        mean, std: per channel, of pixels scaled to [0, 1].
        pad: zero pixels (before normalisation) on each side of a resident image that is then
            cropped, in ``crop_flip`` and the policies on top of it.
        flip: mirror each image with probability 1/2, unless ``kind`` is ``none``.
        kind: one of ``KINDS``.
        erasing: probability of a rectangle in the mean colour.

    Raises:
        ValueError: a value out of range, or a policy for images that are neither grey nor RGB.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int = 0
    flip: bool = False
    kind: str = "crop_flip"
    erasing: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"dataset.augmentation={self.kind}: choose one of {', '.join(KINDS)}")
        if not 0 <= self.erasing <= 1:
            raise ValueError(f"dataset.erasing={self.erasing}: give a probability, 0 to 1")
        if self.kind in POLICIES and len(self.mean) not in (1, 3):
            raise ValueError(
                f"dataset.augmentation={self.kind} is for images of 1 or 3 channels, these have "
                f"{len(self.mean)}: choose none, crop_flip or inception"
            )

    @property
    def padding(self) -> int:
        """Pixels that ``kind`` really pads by."""
        return 0 if self.kind in ("none", "inception") else self.pad

    @property
    def mirrors(self) -> bool:
        """Whether ``kind`` really mirrors."""
        return self.flip and self.kind != "none"


class Mixing:
    """Mixup or CutMix of whole batches, drawn from (seed, epoch, batch, rank).

    Args:
        mixup, cutmix: alpha of the Beta distribution of shares; 0: off. With both each batch gets
            one of them, with equal probability.
        num_classes: length of the soft labels.
        seed: not negative.

    Raises:
        ValueError: a negative alpha.
    """

    def __init__(self, mixup: float, cutmix: float, num_classes: int, seed: int) -> None:
        from torchvision.transforms import v2  # a second, that runs without mixing do not wait

        for key, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if alpha < 0:
                raise ValueError(f"dataset.{key}={alpha}: give an alpha above 0, or 0 for none")
        kinds = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
        chosen = [kind(alpha=float(a), num_classes=num_classes) for kind, a in kinds if a]
        self.transform = chosen[0] if len(chosen) == 1 else v2.RandomChoice(chosen)
        self.seed = seed

    def __call__(
        self, images: Tensor, labels: Tensor, epoch: int, index: int, rank: int
    ) -> tuple[Tensor, Tensor]:
        """Mixed images (N, C, H, W) and the labels' shares (N, classes), from labels (N,)."""
        with torch.random.fork_rng(devices=[]):
            seed = sharding.hashed(self.seed, epoch, index, rank, _MIXING)
            torch.default_generator.manual_seed(seed)
            return self.transform(images, labels)


def mixing(mixup: float, cutmix: float, num_classes: int, seed: int) -> Mixing | None:
    """``Mixing``, or None where both are off."""
    return Mixing(mixup, cutmix, num_classes, seed) if mixup or cutmix else None


def evaluation_transform(size: int) -> v2.Transform:
    """The centre of an image whose shorter side was resized to 256 / 224 of ``size``."""
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(round(size * RESIZED), antialias=True), v2.CenterCrop(size)])


def training_transform(size: int, augmentation: Augmentation) -> v2.Compose:
    """What a decoded image goes through in training; square, uint8.

    ``crop_flip`` crops the resized image of evaluation at random, ``inception`` and the policies
    on top of it take a random part of 8 to 100 % of the area.
    """
    from torchvision.transforms import v2

    if augmentation.kind == "none":
        steps: list[Any] = [evaluation_transform(size)]
    elif augmentation.kind == "crop_flip":
        steps = [v2.Resize(round(size * RESIZED), antialias=True), v2.RandomCrop(size)]
    else:
        steps = [v2.RandomResizedCrop(size, antialias=True)]
    if augmentation.mirrors:
        steps.append(v2.RandomHorizontalFlip())
    if augmentation.kind in POLICIES:
        steps.append(policy(augmentation.kind))
    if augmentation.erasing:
        value = [round(255 * mean) for mean in augmentation.mean]  # 0 once it is normalised
        steps.append(v2.RandomErasing(augmentation.erasing, value=value))  # pyright: ignore[reportArgumentType]
    return v2.Compose(steps)


def policy(kind: str) -> Any:
    """torchvision's policy of that name, with its defaults."""
    from torchvision.transforms import v2

    return v2.RandAugment() if kind == "randaugment" else v2.TrivialAugmentWide()
