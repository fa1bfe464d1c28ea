"""Pixels of any kind of number as the bytes that they stand for, exactly, or not at all."""

from __future__ import annotations

import numpy as np

from bnnbench.data.known import DatasetDamaged

CHUNK = 2**22  # numbers that are looked at together
CLOSE = 1 / 8  # of a step of 1/255: what float16 leaves of one
_ADVICE = "save them as uint8, from 0 to 255"


def as_bytes(images: np.ndarray, name: str, top: float | None = None) -> tuple[np.ndarray, float]:
    """``images`` as uint8, and the number that stands for the brightest pixel, 1 or 255.

    Floats up to 1 are taken for pixels over 255, other numbers for the pixels themselves. Only
    where all of them are such pixels does nothing get lost.

    Args:
        images: of any shape.
        name: of the array, for messages.
        top: as it was of the training images; None where these are they.

    Raises:
        DatasetDamaged: numbers that are no pixels of 8 bits, or no numbers.
    """
    if images.dtype == np.uint8:
        _check_bits(images, name, top)
        return images, 255.0
    if images.dtype.kind not in "iuf":
        raise DatasetDamaged(f"{name} is {images.dtype}, which is no pixel: {_ADVICE}")
    least, most = (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)
    if not (np.isfinite(least) and np.isfinite(most)):
        raise DatasetDamaged(f"{name} holds numbers that are not finite: {_ADVICE}")
    first = top is None
    if top is None:
        top = 1.0 if images.dtype.kind == "f" and most <= 1 else 255.0
    if least < 0 or most > top:
        raise DatasetDamaged(
            f"{name} ({images.dtype}) runs from {least:g} to {most:g}, pixels from 0 to {top:g}: "
            f"undo what was done to them, and {_ADVICE}"
        )
    if images.dtype.kind != "f":
        _check_bits(images, name, None if first else top)
    found = np.empty(images.shape, np.uint8)
    source, into = images.reshape(-1), found.reshape(-1)
    for start in range(0, source.size, CHUNK):
        part = source[start : start + CHUNK].astype(np.float64) * (255 / top)
        whole = np.rint(part)
        if np.abs(part - whole).max() > CLOSE:
            step = "whole numbers" if top > 1 else "multiples of 1/255"
            raise DatasetDamaged(
                f"{name} ({images.dtype}, up to {most:g}) holds more than 8 bits, not only {step}: "
                f"{_ADVICE}, with np.rint(x{'' if top > 1 else ' * 255'}).astype('uint8')"
            )
        into[start : start + CHUNK] = whole
    return found, top


def _check_bits(images: np.ndarray, name: str, top: float | None) -> None:
    """Refuse whole numbers of which only 0 and 1 occur, or others than the training images'."""
    if top == 1.0:
        raise DatasetDamaged(
            f"{name} is {images.dtype} and the training images are floats up to 1: save both alike"
        )
    if images.size and top is None and int(images.max()) <= 1:
        raise DatasetDamaged(
            f"{name} ({images.dtype}) holds nothing above 1, which would be black: {_ADVICE}"
        )
