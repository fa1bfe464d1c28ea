"""The common corruptions of Hendrycks and Dietterich (arXiv 1903.12261), by numpy and scipy.

The same image, corruption and severity give the same pixels in any batch and process. They are not
the published arrays: random numbers are others, frost is a generated texture and not photographs,
drops of water have other edges, and blurs of other libraries differ in the last digit.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image as Pillow

from bnnbench.data import corruption_blurs as blurs
from bnnbench.data import corruption_weather as weather
from bnnbench.data.corruption_blurs import Image
from bnnbench.data.corruption_names import ALL, SEVERITIES, constants

Pixels = NDArray[np.uint8]
Corruption = Callable[[Image, Any, Generator], Image]


def corrupted(image: Pixels, name: str, severity: int, index: int) -> Pixels:
    """A corrupted image.

    Args:
        image: uint8 (H, W, C); C is 3, or 1 of a grey image.
        name: one of ``corruption_names.ALL``.
        severity: 1 to 5.
        index: the image's number in its set, which with the other two seeds the random numbers.

    Raises:
        ValueError: no such corruption or severity, or pixels of another kind.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"corruption {name}: choose from {', '.join(ALL)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity}: choose from 1 to 5")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"an image is uint8 (H, W, 1 or 3), not {image.dtype} {image.shape}")
    rng = np.random.default_rng([ALL.index(name), severity, index])
    chosen = constants(name, severity, min(image.shape[:2]))
    out = CORRUPTIONS[name](image / 255, chosen, rng)
    return np.floor(out.clip(0, 1) * 255 + 1e-6).astype(np.uint8)  # cut off, as the authors do


def gaussian_noise(image: Image, deviation: float, rng: Generator) -> Image:
    """Normal noise."""
    return image + rng.normal(0, deviation, image.shape)


def shot_noise(image: Image, photons: float, rng: Generator) -> Image:
    """Poisson's noise."""
    return rng.poisson(image * photons) / photons


def impulse_noise(image: Image, share: float, rng: Generator) -> Image:
    """A share of values, each channel for itself, becomes black or white."""
    hit, white = rng.random(image.shape) <= share, rng.random(image.shape) < 0.5
    return np.where(hit, white, image)


def speckle_noise(image: Image, deviation: float, rng: Generator) -> Image:
    """Normal noise in proportion to the value."""
    return image + image * rng.normal(0, deviation, image.shape)


def brightness(image: Image, added: float, _: Generator) -> Image:
    """Value of HSV raised, hue and saturation kept."""
    value = image.max(2, keepdims=True)
    raised = (value + added).clip(0, 1)
    return np.where(value > 0, image * raised / np.where(value > 0, value, 1), raised)


def saturate(image: Image, constants: tuple[float, float], _: Generator) -> Image:
    """Saturation of HSV scaled and raised; a grey pixel's hue is red. One channel stays."""
    if image.shape[2] == 1:
        return image
    factor, added = constants
    value, low = image.max(2, keepdims=True), image.min(2, keepdims=True)
    chroma = value - low
    saturation = chroma / np.where(value > 0, value, 1)
    below = np.where(chroma > 0, (value - image) / np.where(chroma > 0, chroma, 1), [0, 1, 1])
    return value * (1 - below * (saturation * factor + added).clip(0, 1))


def contrast(image: Image, kept: float, _: Generator) -> Image:
    """Nearer to the mean colour."""
    means = image.mean((0, 1), keepdims=True)
    return (image - means) * kept + means


def jpeg_compression(image: Image, quality: int, _: Generator) -> Image:
    """Written as JPEG and read again."""
    file = BytesIO()
    _pillow(image).save(file, "JPEG", quality=quality)
    return _array(Pillow.open(file), image)


def pixelate(image: Image, share: float, _: Generator) -> Image:
    """Means over boxes, enlarged again."""
    height, width, _channels = image.shape
    small = _pillow(image).resize((int(width * share), int(height * share)), Pillow.Resampling.BOX)
    return _array(small.resize((width, height), Pillow.Resampling.BOX), image)


def _pillow(image: Image) -> Pillow.Image:
    pixels = np.rint(image * 255).astype(np.uint8)
    return Pillow.fromarray(pixels[..., 0] if image.shape[2] == 1 else pixels)


def _array(picture: Pillow.Image, like: Image) -> Image:
    return np.asarray(picture).reshape(like.shape) / 255


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": blurs.defocus_blur,
    "glass_blur": blurs.glass_blur,
    "motion_blur": blurs.motion_blur,
    "zoom_blur": blurs.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": blurs.elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
    "speckle_noise": speckle_noise,
    "gaussian_blur": blurs.gaussian_blur,
    "spatter": weather.spatter,
    "saturate": saturate,
}
