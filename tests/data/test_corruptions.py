"""The common corruptions beside closed forms and other implementations."""

from __future__ import annotations

import colorsys
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from bnnbench.data import corruption_blurs as blurs
from bnnbench.data import corruption_weather as weather
from bnnbench.data.corruption_names import ALL, CIFAR, EXTRA, IMAGENET, MAIN, SEVERITIES
from bnnbench.data.corruptions import CORRUPTIONS, brightness, corrupted, saturate


@pytest.fixture
def image() -> np.ndarray:
    """Smooth colours (32, 32, 3) with an edge."""
    row, column = np.mgrid[:32, :32]
    colours = np.stack([8 * row, 8 * column, 4 * (row + column)], -1)
    colours[8:20, 10:22] = (250, 30, 90)
    return colours.astype(np.uint8)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_there_are_15_and_4_with_five_severities_each() -> None:
    assert (len(MAIN), len(EXTRA), set(CORRUPTIONS)) == (15, 4, set(ALL))
    for constants in (CIFAR, IMAGENET):
        assert {name: len(each) for name, each in constants.items()} == dict.fromkeys(ALL, 5)


@pytest.mark.parametrize("name", ALL)
def test_kind_of_pixels_stays_and_an_image_is_the_same_again(name: str, image: np.ndarray) -> None:
    for severity in SEVERITIES:
        for each in (image, image[:8, :8, :1]):
            out = corrupted(each, name, severity, 3)
            assert (out.dtype, out.shape) == (np.uint8, each.shape)
            assert np.array_equal(out, corrupted(each.copy(), name, severity, 3))


@pytest.mark.parametrize("name", ["gaussian_noise", "glass_blur", "motion_blur", "fog", "frost"])
def test_images_have_random_numbers_of_their_own(name: str, image: np.ndarray) -> None:
    assert not np.array_equal(corrupted(image, name, 5, 0), corrupted(image, name, 5, 1))


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "speckle_noise"])
def test_noise_has_the_deviation_of_its_formula(name: str) -> None:
    grey = np.full((128, 128, 3), 0.5)
    for constant in CIFAR[name]:
        spread = {"shot_noise": np.sqrt(0.5 / constant), "speckle_noise": constant / 2}
        found = CORRUPTIONS[name](grey, constant, rng()) - grey
        assert found.std() == pytest.approx(spread.get(name, constant), rel=0.03)
        assert abs(found.mean()) < 3e-3


def test_impulses_are_a_share_of_values_half_of_them_white() -> None:
    out = CORRUPTIONS["impulse_noise"](np.full((200, 200, 3), 0.5), 0.07, rng())
    assert (out == 0).mean() == pytest.approx(0.035, rel=0.05)
    assert (out == 1).mean() == pytest.approx(0.035, rel=0.05)


@pytest.mark.parametrize("sigma", CIFAR["gaussian_blur"])
def test_gaussian_blur_is_torchvisions_inside(sigma: float, image: np.ndarray) -> None:
    radius = int(4 * sigma + 0.5)
    ours = blurs.gaussian(image / 255, sigma)
    theirs = F.gaussian_blur(
        torch.from_numpy(image / 255).permute(2, 0, 1), [2 * radius + 1] * 2, [sigma] * 2
    )
    inner = slice(radius, 32 - radius)
    assert np.allclose(ours[inner, inner], theirs.permute(1, 2, 0)[inner, inner], atol=1e-6)


def test_a_point_out_of_focus_becomes_the_disk() -> None:
    point = np.zeros((41, 41, 1))
    point[20, 20] = 1
    out = blurs.defocus_blur(point, (3, 0.1), rng())[..., 0]
    row, column = np.mgrid[-20:21, -20:21]
    inside = row**2 + column**2 <= 9
    assert np.allclose(out, inside / inside.sum(), atol=1e-6)


def test_a_point_in_motion_becomes_half_a_gaussian() -> None:
    point = np.zeros((1, 40, 1))
    point[0, 30] = 1
    out = blurs.streaked(point, 6, 2.0, 0.0)[0, :, 0]
    weights = np.exp(-(np.arange(13) ** 2) / 8)
    assert np.allclose(out[18:31][::-1], weights / weights.sum())
    assert np.allclose(blurs.streaked(np.full((9, 9, 1), 0.3), 6, 2.0, 33.0), 0.3)


def test_glass_takes_pixels_from_no_further_than_its_reach() -> None:
    column = np.tile(np.arange(32.0)[:, None, None], (1, 32, 1)) / 255
    out = blurs.glass_blur(column, (0.01, 1, 1), rng()) * 255
    steps = np.rint(out - column * 255)
    assert set(np.unique(steps[2:])) == {-1, 0}
    assert np.array_equal(np.rint(out[:2]), np.rint(column[:2] * 255))


def test_zoom_of_a_ramp_is_a_flatter_ramp() -> None:
    ramp = np.tile(np.linspace(0, 1, 33)[:, None, None], (1, 33, 1))
    out = blurs.zoomed(ramp, 1.2)
    assert out.shape == ramp.shape
    slopes = np.diff(out[..., 0], axis=0)
    assert slopes.mean() == pytest.approx(1 / 32 / 1.2, rel=0.05)
    assert out[16, 16, 0] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("constants", [*CIFAR["zoom_blur"], (2.1, 1.0)])
def test_zoom_blur_of_a_ramp_has_the_mean_of_their_slopes(constants: tuple[float, float]) -> None:
    ramp = np.tile(np.linspace(0, 1, 65)[:, None, None], (1, 65, 1))
    out = blurs.zoom_blur(ramp, constants, rng())
    slope = np.polyfit(np.arange(20, 45), out[20:45, 32, 0], 1)[0]
    factors = np.r_[1, np.arange(1, *constants)]
    assert slope == pytest.approx((1 / factors).mean() / 64, rel=0.03)


def test_elastic_moves_three_points_by_an_affine_map() -> None:
    """A picture of coordinates says where each pixel comes from."""
    places = np.stack(np.indices((33, 33)), -1).astype(float)
    came = blurs.elastic_transform(places, (0, 0, 0.05), rng())
    inside = np.s_[8:25, 8:25]
    one = np.c_[places[inside].reshape(-1, 2), np.ones(17 * 17)]
    affine, *_ = np.linalg.lstsq(one, came[inside].reshape(-1, 2), rcond=None)
    assert np.allclose(one @ affine, came[inside].reshape(-1, 2), atol=1e-8)
    points = 16 + 11 * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + rng().uniform(-0.05 * 33, 0.05 * 33, (3, 2))
    assert np.allclose(np.c_[moved, np.ones(3)] @ affine, points)


def test_elastic_shifts_are_torchvisions(image: np.ndarray) -> None:
    strength, sigma = 0.08, 0.1
    ours = blurs.elastic_transform(image / 255, (strength, sigma, 0), rng())
    generator = rng()
    generator.uniform(0, 0, (3, 2))  # of the points
    shifts = [
        blurs.gaussian_reflected(shift, 32 * sigma) * 32 * strength * 2 / 32
        for shift in generator.uniform(-1, 1, (2, 32, 32))
    ]
    field = torch.from_numpy(np.stack(shifts[::-1], -1))[None]
    theirs = F.elastic(torch.from_numpy(image / 255).permute(2, 0, 1), field)
    inside = np.s_[4:28, 4:28]
    assert np.allclose(ours[inside], theirs.permute(1, 2, 0).numpy()[inside], atol=1e-5)
    assert np.abs(ours - image / 255).max() > 0.01


def test_elastic_without_strength_is_the_image(image: np.ndarray) -> None:
    pixels = image / 255
    assert np.allclose(blurs.elastic_transform(pixels, (0, 0, 0), rng()), pixels)
    assert not np.allclose(blurs.elastic_transform(pixels, (0, 0, 0.05), rng()), pixels)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_and_saturation_are_the_standard_librarys(severity: int) -> None:
    pixels = np.r_[rng().random((30, 1, 3)), np.full((1, 1, 3), 0.4), np.zeros((1, 1, 3))]
    added = CIFAR["brightness"][severity - 1]
    factor, more = CIFAR["saturate"][severity - 1]
    brighter = brightness(pixels, added, rng())
    deeper = saturate(pixels, (factor, more), rng())
    for before, up, strong in zip(pixels[:, 0], brighter[:, 0], deeper[:, 0], strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before)
        assert np.allclose(up, colorsys.hsv_to_rgb(h, s, min(1, v + added)))
        assert np.allclose(strong, colorsys.hsv_to_rgb(h, min(1, s * factor + more), v))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_pixels_and_contrast_are_pillows_and_numpys(severity: int, image: np.ndarray) -> None:
    file, picture = BytesIO(), Image.fromarray(image)
    picture.save(file, "JPEG", quality=CIFAR["jpeg_compression"][severity - 1])
    assert np.array_equal(
        corrupted(image, "jpeg_compression", severity, 0), np.asarray(Image.open(file))
    )
    side = int(32 * CIFAR["pixelate"][severity - 1])
    boxes = picture.resize((side, side), Image.Resampling.BOX).resize(
        (32, 32), Image.Resampling.BOX
    )
    assert np.array_equal(corrupted(image, "pixelate", severity, 0), np.asarray(boxes))
    kept = CIFAR["contrast"][severity - 1]
    mean = image.mean((0, 1))
    out = corrupted(image, "contrast", severity, 0).astype(float)
    assert np.abs(out - (kept * image + (1 - kept) * mean)).max() <= 1


def test_a_cloud_that_decays_at_once_is_smooth() -> None:
    """Beyond the first level each point is the mean of its four neighbours on the torus."""
    cloud = weather.plasma((16, 16), 1e9, rng())
    corners = cloud[::2, ::2]
    pairs = corners + np.roll(corners, -1, 0)
    assert np.allclose(cloud[1::2, 1::2], (pairs + np.roll(pairs, -1, 1)) / 4, atol=1e-6)
    assert np.ptp(cloud) == 1
    rough = weather.plasma((16, 16), 1.0, rng())
    assert np.abs(np.diff(rough, axis=0)).mean() > 1.5 * np.abs(np.diff(cloud, axis=0)).mean()


def test_fog_is_a_cloud_and_keeps_what_is_brightest(image: np.ndarray) -> None:
    cloud = weather.plasma((20, 30), 2.0, rng())
    assert cloud.shape == (20, 30)
    full = weather.plasma((32, 32), 2.0, rng())
    assert (full.min(), full.max()) == (0, 1)
    pixels = image / 255
    out = weather.fog(pixels, (1.0, 2), rng())
    ceiling = pixels.max()
    assert out.max() <= ceiling
    assert np.allclose(
        out, (pixels + weather.plasma((32, 32), 2, rng())[..., None]) * ceiling / (ceiling + 1)
    )


def test_frost_adds_its_share_of_ice(image: np.ndarray) -> None:
    out = weather.frost(image / 255, (0.9, 0.4), rng())
    assert np.allclose(out, 0.9 * image / 255 + 0.4 * weather.ice((32, 32), rng()))


def test_snow_without_flakes_is_a_paler_image(image: np.ndarray) -> None:
    pixels = image / 255
    out = weather.snow(pixels, (0, 0.1, 1, 9.0, 8, 3, 0.9), rng())
    luma = pixels @ [0.299, 0.587, 0.114]
    pale = np.maximum(pixels, 1.5 * luma[..., None] + 0.5)
    assert np.allclose(out, 0.9 * pixels + 0.1 * pale)


def test_flakes_fall_twice(image: np.ndarray) -> None:
    """The same ones, streaked, once more turned: of flakes everywhere both add their height."""
    pixels = image / 255
    bare = weather.snow(pixels, (0, 0, 1.5, 9.0, 8, 3, 0.9), rng())
    assert np.allclose(weather.snow(pixels, (0.25, 0, 1.5, 0.1, 8, 3, 0.9), rng()), bare + 0.5)
    few = weather.snow(pixels, (0.1, 0.3, 1.5, 0.5, 8, 3, 0.9), rng()) - bare
    assert (few >= -1e-9).all()
    assert np.allclose(few, np.rot90(few, 2))


@pytest.mark.parametrize("is_mud", [True, False])
def test_liquid_covers_all_or_nothing(image: np.ndarray, is_mud: bool) -> None:
    """Everywhere above its threshold mud hides the image, and water has no edge; below is none."""
    pixels, constants = image / 255, (0.7, 0.6, is_mud)
    flooded = weather.spatter(pixels, (0.8, 0, 1, *constants), rng())
    assert np.allclose(flooded, weather.MUD if is_mud else pixels)
    assert np.allclose(weather.spatter(pixels, (0.6, 0, 1, *constants), rng()), pixels)


def test_large_images_have_the_constants_of_imagenet() -> None:
    grey = np.full((224, 224, 3), 128, np.uint8)
    noisy = corrupted(grey, "gaussian_noise", 1, 0)
    assert noisy.std() / 255 == pytest.approx(IMAGENET["gaussian_noise"][0], rel=0.02)
    assert IMAGENET["gaussian_noise"][0] != CIFAR["gaussian_noise"][0]
    picture = np.tile(np.arange(224, dtype=np.uint8)[:, None, None], (1, 224, 3))
    file = BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=IMAGENET["jpeg_compression"][4])
    assert np.array_equal(
        corrupted(picture, "jpeg_compression", 5, 0), np.asarray(Image.open(file))
    )


def test_mud_is_brown_and_water_brightens(image: np.ndarray) -> None:
    dark, light = np.full((64, 64, 3), 0.9), np.full((64, 64, 3), 0.2)
    mud = weather.spatter(dark, (0.65, 0.3, 1, 0.69, 0.5, True), rng())
    assert (mud <= 0.9 + 1e-9).all()
    assert np.allclose(mud[mud[..., 0] < 0.3].min(0), [63 / 255, 42 / 255, 20 / 255], atol=0.1)
    water = weather.spatter(light, (0.65, 0.3, 1, 0.69, 0.5, False), rng())
    assert (water >= 0.2).all()
    assert (water > 0.3).any()


@pytest.mark.parametrize(
    ("name", "severity", "told"),
    [("rain", 1, "corruption rain: choose from gaussian_noise"), ("fog", 6, "severity 6")],
)
def test_a_wrong_word_is_told(name: str, severity: int, told: str, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=told):
        corrupted(image, name, severity, 0)


def test_other_pixels_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 1 or 3\), not float64"):
        corrupted(image / 255, "fog", 1, 0)
