"""Blurs, and what moves pixels. Images are float (H, W, C) in [0, 1], or layers (H, W)."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float64]


def gaussian(image: Image, sigma: float, truncate: float = 4.0) -> Image:
    """Gaussian blur of height and width; the border repeats."""
    sigmas = (sigma, sigma, *(0,) * (image.ndim - 2))
    return ndimage.gaussian_filter(image, sigmas, mode="nearest", truncate=truncate)


def gaussian_blur(image: Image, sigma: float, _: Generator) -> Image:
    """A Gaussian blur."""
    return gaussian(image, sigma)


def disk(radius: float, sigma: float) -> Image:
    """A disk of sum 1 with edges smoothed by a Gaussian of 3 x 3, above radius 8 of 5 x 5."""
    reach, half = (8, 1) if radius <= 8 else (math.ceil(radius), 2)
    line = np.arange(-reach, reach + 1)
    inside = (line[:, None] ** 2 + line**2 <= radius**2).astype(float)
    bell = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    kernel = np.outer(bell, bell) / bell.sum() ** 2
    return ndimage.convolve(inside / inside.sum(), kernel, mode="mirror")


def defocus_blur(image: Image, constants: tuple[float, float], _: Generator) -> Image:
    """Each point becomes a disk."""
    kernel = disk(*constants)[..., None]
    return ndimage.correlate(image, kernel, mode="mirror")


def glass_blur(image: Image, constants: tuple[float, int, int], rng: Generator) -> Image:
    """Blur, pixels taken from near ones, blur.

    The authors' script writes a pixel over another where it means to swap them; so does this.
    """
    sigma, reach, passes = constants
    height, width, channels = image.shape
    pixels = np.floor(gaussian(image, sigma) * 255).reshape(-1, channels)
    rows, columns = (range(side - reach, reach, -1) for side in (height, width))
    places = list(range(height * width))  # where each pixel's value stood at first
    for _ in range(passes):
        steps = rng.integers(-reach, reach, (len(rows), len(columns), 2))
        sources = (steps[..., 0] * width + steps[..., 1]).tolist()
        for row, line in zip(rows, sources, strict=True):
            for column, step in zip(columns, line, strict=True):
                places[row * width + column] = places[row * width + column + step]
    return gaussian(pixels[places].reshape(image.shape) / 255, sigma)


def streaked(image: Image, radius: float, sigma: float, degrees: float) -> Image:
    """Motion blur: the mean over points on a ray, with half a Gaussian's weights."""
    length = 2 * int(radius) + 1
    weights = np.exp(-(np.arange(length) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    down, right = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    rows, columns = (np.arange(side) for side in image.shape[:2])
    out = np.zeros_like(image)
    for step, weight in enumerate(weights):
        row = np.clip(rows + math.ceil(step * down - 0.5), 0, len(rows) - 1)
        column = np.clip(columns + math.ceil(step * right - 0.5), 0, len(columns) - 1)
        out += weight * image[row[:, None], column]
    return out


def motion_blur(image: Image, constants: tuple[float, float], rng: Generator) -> Image:
    """A streak of random direction, at most 45 degrees from the horizontal."""
    return streaked(image, *constants, degrees=rng.uniform(-45, 45))


def zoomed(image: Image, factor: float) -> Image:
    """The centre enlarged to the size of the whole, linearly."""
    sides = image.shape[:2]
    crops = [math.ceil(side / factor) for side in sides]
    starts = [(side - crop) // 2 for side, crop in zip(sides, crops, strict=True)]
    (top, left), (high, wide) = starts, crops
    centre = image[top : top + high, left : left + wide]
    factors = factor, factor, *(1,) * (image.ndim - 2)
    large = np.asarray(ndimage.zoom(centre, factors, order=1))
    (top, left) = ((got - side) // 2 for got, side in zip(large.shape, sides, strict=False))
    return large[top : top + sides[0], left : left + sides[1]]


def zoom_blur(image: Image, constants: tuple[float, float], _: Generator) -> Image:
    """The mean of the image and of enlarged ones."""
    factors = np.arange(1, *constants)
    return np.stack([image, *(zoomed(image, factor) for factor in factors)]).mean(0)


def elastic_transform(image: Image, constants: tuple[float, float, float], rng: Generator) -> Image:
    """Three points moved at random, which is an affine map; then a smooth random shift a pixel."""
    strength, sigma, reach = (min(image.shape[:2]) * constant for constant in constants)
    image = _moved(image, reach, rng)
    shifts = rng.uniform(-1, 1, (2, *image.shape[:2]))
    shifts = np.stack([gaussian_reflected(shift, sigma) * strength for shift in shifts])
    places = np.indices(image.shape[:2]).astype(float) + shifts
    return _sampled(image, places, "reflect")


def gaussian_reflected(layer: Image, sigma: float) -> Image:
    """Gaussian blur out to 3 sigma; the border reflects."""
    return ndimage.gaussian_filter(layer, sigma, mode="reflect", truncate=3)


def _moved(image: Image, reach: float, rng: Generator) -> Image:
    centre, part = np.array(image.shape[:2]) // 2, min(image.shape[:2]) // 3
    points = centre + part * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + rng.uniform(-reach, reach, points.shape)
    back = np.linalg.solve(np.c_[moved, np.ones(3)], points)  # (3, 2): moved to original places
    rows, columns = np.indices(image.shape[:2])
    places = np.stack([rows, columns, np.ones_like(rows)], -1) @ back
    return _sampled(image, np.moveaxis(places, -1, 0), "mirror")


def _sampled(image: Image, places: NDArray[np.float64], mode: str) -> Image:
    layers = np.moveaxis(image, -1, 0)
    found = [ndimage.map_coordinates(layer, places, order=1, mode=mode) for layer in layers]
    return np.stack(found, -1)
