"""Augmentation of classification sets, against torchvision called image by image, and counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from bnnbench.data.augmentation import KINDS, Augmentation, Mixing, mixing, training_transform
from bnnbench.data.device_loader import DeviceLoader
from bnnbench.data.resident import CROP, ERASED, Erasing, Policy, ResizedCrop, groups, rectangles

ZERO, ONE = (0.0,) * 3, (1 / 255,) * 3  # batches hold the pixels' own values
CROPPED = ("crop_flip", "randaugment", "trivialaugment")


def images(count: int, channels: int = 3, height: int = 16, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (count, channels, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def loader(count: int = 70, batch: int = 16, **options: Any) -> DeviceLoader:
    keys = ("kind", "erasing", "pad", "flip")
    chosen = {key: options.pop(key) for key in keys if key in options}
    augmentation = Augmentation(ZERO, ONE, **chosen)
    return DeviceLoader(images(count), torch.arange(count), augmentation, batch, True, **options)


def one_by_one(name: str, image: Tensor, magnitude: float) -> Tensor:
    """An operation of the policies by the functions that torchvision documents."""
    affine: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    slope = math.degrees(math.atan(magnitude))
    calls = {
        "ShearX": lambda: F.affine(image, **affine | {"shear": [slope, 0.0], "center": [0, 0]}),
        "ShearY": lambda: F.affine(image, **affine | {"shear": [0.0, slope], "center": [0, 0]}),
        "TranslateX": lambda: F.affine(image, **affine | {"translate": [int(magnitude), 0]}),
        "TranslateY": lambda: F.affine(image, **affine | {"translate": [0, int(magnitude)]}),
        "Rotate": lambda: F.rotate(image, magnitude),
        "Brightness": lambda: F.adjust_brightness(image, 1 + magnitude),
        "Color": lambda: F.adjust_saturation(image, 1 + magnitude),
        "Contrast": lambda: F.adjust_contrast(image, 1 + magnitude),
        "Sharpness": lambda: F.adjust_sharpness(image, 1 + magnitude),
        "Posterize": lambda: F.posterize(image, int(magnitude)),
        "Solarize": lambda: F.solarize(image, 255 * magnitude),
        "AutoContrast": lambda: F.autocontrast(image),
        "Equalize": lambda: F.equalize(image),
        "Identity": lambda: image,
    }
    return calls[name]()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["randaugment", "trivialaugment"])
def test_a_policy_of_many_images_is_that_of_each(kind: str, channels: int) -> None:
    source = images(300, channels, 16, 12)
    policy = Policy(kind, (16, 12))
    drawn = policy.draw(300, torch.Generator().manual_seed(2))
    found = policy(source, drawn)
    seen = set()
    for image, rounds, result in zip(source, drawn.tolist(), found, strict=True):
        for operation, bin_, negative in rounds:
            name, values, _ = policy.operations[operation]
            magnitude = values[bin_] * (-1 if negative else 1) if values else 0.0
            image = one_by_one(name, image, magnitude)
            seen.add(name)
        assert torch.equal(image, result)
    assert len(seen) == 14


@pytest.mark.parametrize("kind", ["randaugment", "trivialaugment"])
def test_a_policy_is_drawn_as_torchvision_draws_it(kind: str, monkeypatch) -> None:
    """Counts of operations with their magnitudes, against as many images of the library's class."""
    count, reference = 6000, v2.RandAugment() if kind == "randaugment" else v2.TrivialAugmentWide()
    calls: list[tuple[str, float]] = []
    monkeypatch.setattr(
        type(reference),
        "_apply_image_or_video_transform",
        lambda self, image, name, magnitude, **_: calls.append((name, magnitude)) or image,
    )
    torch.manual_seed(3)
    for _ in range(count):
        reference(torch.zeros(3, 16, 12, dtype=torch.uint8))
    policy = Policy(kind, (16, 12))
    drawn = policy.draw(count, torch.Generator().manual_seed(4)).flatten(0, 1).tolist()
    ours = []
    for operation, bin_, negative in drawn:
        name, values, _ = policy.operations[operation]
        ours.append((name, values[bin_] * (-1 if negative else 1) if values else 0.0))
    assert len(ours) == len(calls) == count * (2 if kind == "randaugment" else 1)
    names = sorted({name for name, _ in calls})
    assert {magnitude + 0.0 for _, magnitude in ours} == {m + 0.0 for _, m in calls}
    for name in names:
        for pick in (lambda m: True, lambda m: m < 0, lambda m: m > 0.5):
            theirs, own = (sum(n == name and pick(m) for n, m in x) for x in (calls, ours))
            assert abs(theirs - own) < 6 * math.sqrt(2 * max(theirs, 4)), (name, theirs, own)


@pytest.mark.parametrize("size", [(16, 16), (16, 11)])
def test_a_resized_crop_of_many_images_is_that_of_each(size: tuple[int, int]) -> None:
    source = images(200, 3, *size)
    crop = ResizedCrop(size)
    drawn = crop.draw(200, torch.Generator().manual_seed(2))
    for image, part, result in zip(source, drawn.tolist(), crop(source, drawn), strict=True):
        assert torch.equal(F.resized_crop(image, *part, list(size), antialias=True), result)


def moments(parts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of top, left, height, width and area of rectangles (n, 4)."""
    values = torch.cat((parts, parts[:, 2:].prod(1, keepdim=True)), dim=1).double()
    return values.mean(0), values.std(0)


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (20, 48), (8, 8), (6, 60)])
@pytest.mark.parametrize("what", ["crop", "erase"])
def test_rectangles_are_drawn_as_torchvision_draws_them(what: str, rows: int, columns: int) -> None:
    count, image = 4000, torch.zeros(3, rows, columns, dtype=torch.uint8)
    reference = v2.RandomResizedCrop(8) if what == "crop" else v2.RandomErasing(1.0)
    keys = ("top", "left", "height", "width") if what == "crop" else ("i", "j", "h", "w")
    torch.manual_seed(1)
    theirs = [reference.make_params([image]) for _ in range(count)]
    expected = torch.tensor(
        [[p[k] for k in keys] if p.get("v", 0) is not None else [0] * 4 for p in theirs]
    )
    generator = torch.Generator().manual_seed(5)
    size = rows, columns
    step = ResizedCrop(size) if what == "crop" else Erasing(1.0, size)
    drawn = step.draw(count, generator)
    (mean, std), (other_mean, other_std) = moments(drawn), moments(expected)
    error = 5 * (other_std + 0.05) * math.sqrt(2 / count)
    assert bool(((mean - other_mean).abs() < error).all()), (mean, other_mean)
    assert bool(((std - other_std).abs() < error).all()), (std, other_std)
    assert bool((drawn[:, 0] + drawn[:, 2] <= rows).all())
    assert bool((drawn[:, 1] + drawn[:, 3] <= columns).all())


def test_rectangles_reach_every_border() -> None:
    parts, fits = rectangles(3000, (8, 8), *ERASED, torch.Generator().manual_seed(0), spare=1)
    assert bool(fits.all())
    ends = parts[:, :2] + parts[:, 2:]
    assert (parts[:, :2].amin(0).tolist(), ends.amax(0).tolist()) == ([0, 0], [8, 8])
    assert int(parts[:, 2:].max()) < 8
    assert (v2.RandomResizedCrop(8).scale, v2.RandomResizedCrop(8).ratio) == CROP


def test_erased_rectangles_are_zero_and_all_else_is_kept() -> None:
    erasing = Erasing(0.5, (16, 12))
    drawn = erasing.draw(400, torch.Generator().manual_seed(1))
    source = torch.rand(400, 3, 16, 12) + 1
    result = erasing(source.clone(), drawn)
    for image, (top, left, height, width), erased in zip(
        source, drawn.tolist(), result, strict=True
    ):
        value = torch.zeros(3, 1, 1)
        assert torch.equal(F.erase(image, top, left, height, width, value), erased)
    assert 150 < int((drawn[:, 2] > 0).sum()) < 250
    assert int((Erasing(1.0, (16, 12)).draw(99, torch.Generator())[:, 2] > 0).sum()) == 99


def test_groups_hold_every_position_once() -> None:
    code = torch.tensor([3, 1, 3, 2, 1])
    assert [group.tolist() for group in groups(code)] == [[1, 4], [3], [0, 2]]


@pytest.mark.parametrize("erasing", [0.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mixed", [False, True])
def test_an_epoch_follows_seed_epoch_and_rank_alone(kind: str, erasing: float, mixed: bool) -> None:
    """And a loader that begins with epoch 3 gives what one gives that comes there."""

    def epoch(number: int = 3, **options: Any) -> list[Tensor]:
        mix = mixing(0.2, 1.0, 70, options.get("seed", 0)) if mixed else None
        options = {"world_size": 2, "kind": kind, "erasing": erasing, "pad": 2} | options
        source = loader(epoch_fn=lambda: number, mixing=mix, flip=True, **options)
        return [torch.cat(part) for part in zip(*source, strict=True)]  # type: ignore[arg-type]

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = epoch()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert all(map(torch.equal, first, epoch()))
    for other in (epoch(seed=1), epoch(number=4), epoch(rank=1)):
        assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("kind", KINDS[1:])
def test_equal_images_are_augmented_otherwise_in_each_epoch_and_rank(kind: str) -> None:
    """So that no order of theirs can tell epochs apart."""
    same = images(1).expand(40, -1, -1, -1)
    augmentation = Augmentation(ZERO, ONE, 2, True, kind)
    pixels = []
    for seed, epoch, rank in ((0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0)):
        ranks = {"rank": rank, "world_size": 2}
        at = {"seed": seed, "epoch_fn": lambda epoch=epoch: epoch}
        source = DeviceLoader(same, torch.arange(40), augmentation, 20, True, **at, **ranks)
        pixels.append(next(iter(source))[0])
    assert not any(torch.equal(pixels[0], other) for other in pixels[1:])


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_together_see_the_pixels_of_one_process(kind: str, ranks: int) -> None:
    """In each step, bit for bit; 70 images are no multiple of four ranks."""
    options: dict[str, Any] = {"kind": kind, "pad": 2, "flip": True, "erasing": 0.5}
    options |= {"epoch_fn": lambda: 3}

    def of(rank: int) -> DeviceLoader:
        share = {"batch": 16 // ranks, "rank": rank, "world_size": ranks}
        return loader(**options, **share)

    whole = list(loader(batch=16, **options))
    shards = [list(of(rank)) for rank in range(ranks)]
    assert {len(shard) for shard in shards} == {len(whole)} == {4}
    for (pixels, numbers), *parts in zip(whole, *shards, strict=True):
        for rank, (own, own_numbers) in enumerate(parts):
            assert torch.equal(own_numbers, numbers[rank::ranks])
            assert torch.equal(own, pixels[rank::ranks])


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [image for image, _ in loader(kind=kind, pad=2, flip=True, erasing=0.5)]
    monkeypatch.setattr("bnnbench.data.device_loader.CHUNK", 16)
    assert all(
        map(torch.equal, whole, (x for x, _ in loader(kind=kind, pad=2, flip=True, erasing=0.5)))
    )


def test_none_is_the_image_and_the_others_say_what_they_change() -> None:
    pixels = images(70)
    for kind in KINDS:
        kept = total = 0
        for batch, numbers in loader(kind=kind, pad=2, flip=True):
            kept += int((batch - pixels[numbers]).abs().flatten(1).amax(1).lt(1e-3).sum())
            total += len(numbers)
        assert total == 64
        assert kept == 64 if kind == "none" else kept < 16


def test_pad_and_flip_are_of_the_kinds_that_crop_and_mirror() -> None:
    for kind in KINDS:
        augmentation = Augmentation(ZERO, ONE, 2, True, kind)
        assert augmentation.padding == (2 if kind in CROPPED else 0)
        assert augmentation.mirrors is (kind != "none")
        assert not Augmentation(ZERO, ONE, 2, False, kind).mirrors


def test_a_part_of_a_white_image_is_white_and_a_crop_of_it_has_the_padding() -> None:
    white = torch.full((64, 3, 16, 16), 255, dtype=torch.uint8)
    for kind in ("none", "inception", "crop_flip"):
        augmentation = Augmentation(ZERO, ONE, 4, True, kind)
        pixels, _ = next(iter(DeviceLoader(white, torch.arange(64), augmentation, 64, True)))
        assert bool((pixels < 200).any()) is (kind == "crop_flip")


def test_evaluation_is_not_augmented() -> None:
    augmentation = Augmentation(ZERO, ONE, 2, True, "trivialaugment", 1.0)
    source = DeviceLoader(images(20), torch.arange(20), augmentation, 8, False)
    assert torch.allclose(torch.cat([x for x, _ in source]), images(20).float(), atol=1e-3)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_is_torchvisions_of_a_documented_seed(kind: str, channels_last: bool) -> None:
    alpha = {"mixup": 0.0, "cutmix": 0.0} | {kind: 0.7}
    mix = mixing(**alpha, num_classes=70, seed=4)
    plain, mixed = (
        list(loader(seed=4, rank=1, world_size=2, mixing=m, channels_last=channels_last))
        for m in (None, mix)
    )
    for index, ((pixels, numbers), (found, shares)) in enumerate(zip(plain, mixed, strict=True)):
        seed = np.random.SeedSequence((4, 0, index, 1, 1)).generate_state(1)[0]
        torch.manual_seed(int(seed))
        share = float(torch.distributions.Beta(torch.tensor([0.7]), torch.tensor([0.7])).sample())
        if kind == "mixup":
            expected = share * pixels + (1 - share) * pixels.roll(1, 0)
            assert torch.allclose(found, expected, atol=1e-3)
            labels = share * torch.eye(70)[numbers] + (1 - share) * torch.eye(70)[numbers.roll(1)]
            assert torch.allclose(shares, labels)
        torch.manual_seed(int(seed))
        library = (v2.MixUp if kind == "mixup" else v2.CutMix)(alpha=0.7, num_classes=70)
        assert all(map(torch.equal, (found, shares), library(pixels, numbers)))
        assert torch.allclose(shares.sum(1), torch.ones(len(shares)))
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("alpha", [1, 1e-3, 1e-8, 1e4])
@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_any_alpha_gives_shares(key: str, alpha: float) -> None:
    mix = mixing(**{"mixup": 0.0, "cutmix": 0.0} | {key: alpha}, num_classes=5, seed=0)
    assert mix is not None
    for index in range(50):
        found, shares = mix(torch.rand(5, 1, 8, 8), torch.arange(5), 0, index, 0)
        assert bool(found.isfinite().all())
        assert torch.allclose(shares.sum(1), torch.ones(5))
        assert bool(((shares >= 0) & (shares <= 1)).all())


def test_of_mixup_and_cutmix_each_batch_gets_one() -> None:
    mix = Mixing(1.0, 1.0, 10, 0)
    pixels, labels = torch.rand(4, 3, 16, 16) + 1, torch.arange(4)
    cut = 0
    for index in range(200):
        found, _ = mix(pixels, labels, 0, index, 0)
        cut += bool(torch.equal(found.minimum(pixels.roll(1, 0)), found) is False) and bool(
            ((found == pixels) | (found == pixels.roll(1, 0))).all()
        )
    assert 70 < cut < 130


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flip", [True, False])
def test_files_go_through_torchvisions_own_transforms(kind: str, flip: bool) -> None:
    image = images(1, 3, 40, 50)[0]
    steps: list[Any] = {
        "none": [v2.Resize(18, antialias=True), v2.CenterCrop(16)],
        "crop_flip": [v2.Resize(18, antialias=True), v2.RandomCrop(16)],
    }.get(kind, [v2.RandomResizedCrop(16, antialias=True)])
    steps += [v2.RandomHorizontalFlip()] if flip and kind != "none" else []
    steps += [v2.RandAugment()] if kind == "randaugment" else []
    steps += [v2.TrivialAugmentWide()] if kind == "trivialaugment" else []
    steps += [v2.RandomErasing(0.5, value=[124, 116, 104])]
    mean = (0.485, 0.456, 0.406)
    ours = training_transform(16, Augmentation(mean, ONE, flip=flip, kind=kind, erasing=0.5))
    for seed in range(20):
        found = []
        for transform in (v2.Compose(steps), ours):
            torch.manual_seed(seed)
            found.append(transform(image, 7))
        assert torch.equal(found[0][0], found[1][0])
        assert (found[1][1], found[1][0].shape, found[1][0].dtype) == (7, (3, 16, 16), torch.uint8)


def test_defaults_draw_nothing_more() -> None:
    transform = training_transform(16, Augmentation(ZERO, ONE, flip=True, kind="inception"))
    assert [type(step) for step in transform.transforms] == [  # type: ignore[attr-defined]
        v2.RandomResizedCrop,
        v2.RandomHorizontalFlip,
    ]
    assert mixing(0.0, 0.0, 10, 0) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "autoaugment"}, "dataset.augmentation=autoaugment: choose one of none, crop_fl"),
        ({"erasing": 1.5}, "dataset.erasing=1.5: give a probability"),
        ({"kind": "randaugment", "mean": (0.5,) * 4}, "these have 4: choose none, crop_flip or"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**{"mean": ZERO, "std": ONE} | options)


def test_negative_alphas_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dataset\.cutmix=-1\.0: give an alpha"):
        mixing(0.0, -1.0, 10, 0)
