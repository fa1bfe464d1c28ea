"""Which stem a network has, by the size of its images. Imports lightly: fingerprints ask.

The cost of a network is that of the maps behind its stem. ``auto`` takes the stem behind which
they have 25 to 48 pixels a side, for images of 25 to 192 pixels: up to four times the cost of
CIFAR's 32, never more. Smaller images keep their own size, larger ones are ImageNet's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Largest image, in pixels, that stem=auto takes each stem for, and how often it halves the map.
LARGEST = {"small": 48, "half": 96, "imagenet": None}
HALVINGS = {"small": 0, "half": 1, "imagenet": 2}
STEMS = ("auto", *LARGEST)
FORMER_SMALL = 64  # the largest image that stem=auto took the small stem for in earlier versions


def chosen_stem(stem: str, image_size: int) -> str:
    """``small`` (3x3), ``half`` (3x3, stride 2) or ``imagenet`` (7x7, stride 2, max pool).

    Raises:
        ValueError: ``stem`` is none of ``STEMS``.
    """
    if stem not in STEMS:
        raise ValueError(f"backbone.stem={stem!r}: choose one of {STEMS}")
    if stem != "auto":
        return stem
    sizes = LARGEST.items()
    return next(name for name, most in sizes if most is None or image_size <= most)


def map_side(stem: str, image_size: int) -> int:
    """Pixels a side of the map behind a stem, which has to be one that was chosen."""
    for _ in range(HALVINGS[stem]):
        image_size = -(-image_size // 2)
    return image_size


def told(backbone: Mapping[str, Any]) -> str | None:
    """What ``stem=auto`` chose for a resolved ``cfg.backbone``, in a line; None without it."""
    if backbone.get("stem") != "auto":
        return None
    size = backbone["image_size"]
    stem = chosen_stem("auto", size)
    name, side = backbone["name"], map_side(stem, size)
    return f"{name} at {size} pixels: stem={stem} (maps of {side} pixels)"


def identified(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved ``cfg.backbone`` as the identity of a run has it.

    Where ``auto`` means another stem than it did in earlier versions, that stem stands there, so
    that no run is taken for one of another network.
    """
    node, size = dict(backbone), backbone.get("image_size")
    if node.get("stem") == "auto" and isinstance(size, int):
        stem = chosen_stem("auto", size)
        node["stem"] = stem if stem != "small" and size <= FORMER_SMALL else "auto"
    return node


def as_stored(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """``cfg.backbone`` as a file holds it, with the stem that its network was built with."""
    node, size = dict(backbone), backbone.get("image_size")
    if node.get("stem") == "auto" and isinstance(size, int) and size <= FORMER_SMALL:
        node["stem"] = "small"
    return node
