"""Snow, frost, fog, spatter. Images are float (H, W, C) in [0, 1]; C is 3, or 1 of grey ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from bnnbench.data.corruption_blurs import Image, gaussian, streaked, zoomed

LUMA = np.array([0.299, 0.587, 0.114])
ICE = np.array([0.80, 0.90, 1.0])  # the tint of frost
WATER, MUD = np.array([175, 238, 238]) / 255, np.array([63, 42, 20]) / 255


def grey(image: Image) -> Image:
    """Rec. 601's luma (H, W, 1)."""
    return image if image.shape[-1] == 1 else (image @ LUMA)[..., None]


def tinted(colour: Image, image: Image) -> Image:
    """A colour as many channels as an image has."""
    return colour if image.shape[-1] == 3 else colour @ LUMA[:, None]


def plasma(shape: tuple[int, int], decay: float, rng: Generator) -> Image:
    """A cloud from 0 to 1, (H, W): diamond-square on a torus of the next power of two.

    Random parts are uniform up to the square of an amplitude, divided by ``decay`` each halving.
    """
    side = 1 << (max(shape) - 1).bit_length()
    cloud, step, amplitude = np.zeros((side, side)), side, 100.0

    def mean(total: Image) -> Image:
        return total / 4 + amplitude * rng.uniform(-amplitude, amplitude, total.shape)

    while step > 1:
        half = step // 2
        corners = cloud[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        centres = mean(pairs + np.roll(pairs, -1, 1))
        cloud[half::step, half::step] = centres
        beside, above = corners + np.roll(corners, -1, 1), corners + np.roll(corners, -1, 0)
        cloud[::step, half::step] = mean(centres + np.roll(centres, 1, 0) + beside)
        cloud[half::step, ::step] = mean(centres + np.roll(centres, 1, 1) + above)
        step, amplitude = half, amplitude / decay
    cloud -= cloud.min()
    return (cloud / (cloud.max() or 1.0))[: shape[0], : shape[1]]


def fog(image: Image, constants: tuple[float, float], rng: Generator) -> Image:
    """A cloud added; the brightest value stays."""
    strength, decay = constants
    brightest = image.max()
    foggy = image + strength * plasma(image.shape[:2], decay, rng)[..., None]
    return foggy * brightest / (brightest + strength)


def ice(shape: tuple[int, int], rng: Generator) -> Image:
    """A texture of our own in the place of the authors' photographs of frost, (H, W, 3)."""
    ridges = 1 - np.abs(2 * plasma(shape, 1.8, rng) - 1)
    needles = streaked(rng.random(shape), 4, 2.0, rng.uniform(-180, 180))
    needles = (needles - needles.min()) / (np.ptp(needles) or 1.0)
    return (0.2 + 0.5 * ridges**2 + 0.3 * needles)[..., None] * ICE


def frost(image: Image, constants: tuple[float, float], rng: Generator) -> Image:
    """The image and a texture of ice, added."""
    kept, added = constants
    return kept * image + added * tinted(ice(image.shape[:2], rng), image)


def snow(image: Image, constants: tuple[float, ...], rng: Generator) -> Image:
    """A paler image with flakes, streaked, and the same flakes turned by 180 degrees."""
    mean, deviation, zoom, threshold, radius, sigma, kept = constants
    flakes = zoomed(rng.normal(mean, deviation, image.shape[:2]), zoom)
    flakes = np.where(flakes < threshold, 0, flakes).clip(0, 1)
    flakes = streaked(flakes, radius, sigma, rng.uniform(-135, -45))[..., None]
    pale = kept * image + (1 - kept) * np.maximum(image, 1.5 * grey(image) + 0.5)
    return pale + flakes + np.rot90(flakes, 2)


def spatter(image: Image, constants: tuple[Any, ...], rng: Generator) -> Image:
    """Drops of water, or of mud."""
    mean, deviation, sigma, threshold, strength, is_mud = constants
    liquid = gaussian(rng.normal(mean, deviation, image.shape[:2]), sigma)
    liquid[liquid < threshold] = 0
    if is_mud:
        cover = gaussian((liquid > threshold).astype(float), strength)[..., None]
        cover[cover < 0.8] = 0
        return image * (1 - cover) + tinted(MUD, image) * cover
    water = liquid * _relief(liquid > 0)
    water *= strength / (water.max() or 1.0)
    return image + water[..., None] * tinted(WATER, image)


def _relief(drops: Any) -> Image:
    """How light falls on drops (H, W): distance to their edges, equalised and embossed.

    Edges are those of the drops themselves, where the authors look for them with Canny's detector.
    """
    edges = drops & np.logical_not(ndimage.binary_erosion(drops, border_value=1))
    if not edges.any():
        return np.zeros(drops.shape)
    distance = np.asarray(ndimage.distance_transform_edt(np.logical_not(edges))).clip(max=20)
    levels = np.floor(ndimage.uniform_filter(distance, 3, mode="mirror")).astype(int)
    share = np.bincount(levels.ravel()).cumsum() / levels.size
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    light = ndimage.correlate(255 * share[levels], emboss, mode="mirror").clip(0, 255)
    return ndimage.uniform_filter(light, 3, mode="mirror")
