"""The loader of resident images: order, shards, augmentation and normalisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import normalize

from bnnbench.data import sharding
from bnnbench.data.device_loader import Augmentation, DeviceLoader

PLAIN = Augmentation(mean=(0.0,) * 3, std=(1 / 255,) * 3)  # batches hold the pixels' own values
SHAKEN = Augmentation(mean=(0.0,) * 3, std=(1 / 255,) * 3, pad=2, flip=True)


def images(count: int, channels: int = 3, height: int = 6, width: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (count, channels, height, width)
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator)


def loader(count: int, batch_size: int, train: bool = True, **options: Any) -> DeviceLoader:
    """Labels are the images' numbers, so that a batch tells what it holds."""
    options = {"augmentation": SHAKEN} | options
    return DeviceLoader(
        images(count), torch.arange(count), batch_size=batch_size, train=train, **options
    )


def read(source: DeviceLoader) -> tuple[Tensor, Tensor]:
    """One epoch: images and their numbers."""
    batches = list(source)
    assert len(batches) == len(source)
    return torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])


@pytest.mark.parametrize(("count", "batch_size"), [(64, 16), (70, 16), (10, 16), (17, 1)])
def test_a_training_epoch_holds_each_image_once_up_to_the_last_short_batch(count, batch_size):
    pixels, numbers = read(loader(count, batch_size, augmentation=PLAIN))
    expected = count if count < batch_size else count - count % batch_size
    assert len(numbers) == expected == len(numbers.unique())
    assert torch.allclose(pixels, images(count)[numbers].float(), atol=1e-3)
    if count > batch_size:
        assert not torch.equal(numbers, numbers.sort().values)  # shuffled


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize(("count", "batch_size"), [(64, 16), (65, 16), (97, 16), (8, 3)])
def test_evaluation_over_ranks_covers_each_image_once_in_equally_many_batches(
    count, batch_size, world_size
):
    ranks = [
        loader(count, batch_size, train=False, rank=r, world_size=world_size)
        for r in range(world_size)
    ]
    parts = [read(rank) for rank in ranks]
    numbers = torch.cat([part[1] for part in parts])
    assert torch.equal(numbers.sort().values, torch.arange(count))
    assert len({len(rank) for rank in ranks}) == 1
    assert all(0 < len(y) <= batch_size for rank in ranks for _, y in rank)
    # neither cropped nor mirrored, although the augmentation says so
    pixels = torch.cat([part[0] for part in parts])
    assert torch.allclose(pixels, images(count)[numbers].float(), atol=1e-3)


@pytest.mark.parametrize("count", [50, 31])
@pytest.mark.parametrize("world_size", [2, 3])
def test_training_shards_are_disjoint_and_together_one_larger_batch(count, world_size):
    ranks = [loader(count, 4, rank=r, world_size=world_size) for r in range(world_size)]
    whole = loader(count, 4 * world_size)
    assert {len(rank) for rank in ranks} == {len(whole)}
    for *shards, (_, together) in zip(*ranks, whole, strict=True):
        numbers = torch.cat([shard[1] for shard in shards])
        assert torch.equal(numbers.sort().values, together.sort().values)


def test_too_few_images_for_the_ranks_is_an_error():
    with pytest.raises(ValueError, match="3 images are too few for 4 processes"):
        loader(3, 2, rank=0, world_size=4)
    with pytest.raises(ValueError, match="too few"):
        loader(5, 1, train=False, rank=0, world_size=2)


def test_an_epoch_depends_on_seed_epoch_and_rank_alone():
    def epoch(seed: int = 0, epoch: int = 3, rank: int = 0) -> Tensor:
        return read(loader(64, 16, seed=seed, epoch_fn=lambda: epoch, rank=rank, world_size=2))[0]

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = epoch()
    assert torch.equal(torch.get_rng_state(), state)  # the network's own draws are not touched
    torch.manual_seed(6)
    assert torch.equal(first, epoch())
    others = (epoch(seed=1), epoch(epoch=4), epoch(rank=1), epoch(seed=3, epoch=0))
    assert not any(torch.equal(first, other) for other in others)


def test_ranks_augment_differently():
    same = torch.full((64, 3, 6, 5), 7, dtype=torch.uint8)
    drawn = [
        DeviceLoader(same, torch.arange(64), SHAKEN, 32, True, rank=rank, world_size=2)._draw(0)
        for rank in (0, 1)
    ]
    assert not torch.equal(drawn[0][1], drawn[1][1])


def test_no_rank_augments_with_the_numbers_of_the_shuffle(monkeypatch):
    used = []
    original = sharding.generator
    monkeypatch.setattr(sharding, "generator", lambda *of: used.append(of) or original(*of))
    for rank in (0, 1):
        read(loader(64, 16, rank=rank, world_size=2))
    assert used[:2] == used[2:]  # all ranks draw for the images of all
    assert len(set(used)) == 2


def test_a_new_loader_goes_on_where_an_old_one_stopped():
    now = 0
    old = loader(64, 16, epoch_fn=lambda: now)
    for now in range(4):  # noqa: B007
        last = read(old)
    now = 3
    resumed = read(loader(64, 16, epoch_fn=lambda: now))
    assert all(torch.equal(a, b) for a, b in zip(last, resumed, strict=True))


def test_without_an_epoch_function_every_pass_is_the_next_epoch():
    counting = loader(64, 16)
    for epoch in range(3):
        expected = read(loader(64, 16, epoch_fn=lambda epoch=epoch: epoch))
        assert torch.equal(read(counting)[0], expected[0])


def crops(image: Tensor, pad: int, flip: bool) -> dict[tuple[int, int, bool], Tensor]:
    """Every result augmentation may have for one image, by loops (shift down, shift right)."""
    height, width = image.shape[1:]
    result = {}
    for down in range(-pad, pad + 1):
        for right in range(-pad, pad + 1):
            crop = torch.zeros_like(image)
            for row in range(height):
                for column in range(width):
                    if 0 <= row - down < height and 0 <= column - right < width:
                        crop[:, row, column] = image[:, row - down, column - right]
            result[down, right, False] = crop
            if flip:
                result[down, right, True] = crop.flip(2)
    return result


@pytest.mark.parametrize(("pad", "flip"), [(0, False), (2, False), (0, True), (1, True)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_augmentation_is_a_shift_and_a_mirroring_and_all_are_equally_likely(
    pad, flip, channels_last
):
    augmentation = Augmentation(PLAIN.mean, PLAIN.std, pad, flip)
    source = loader(32, 32, augmentation=augmentation, channels_last=channels_last)
    possible = [crops(image, pad, flip) for image in source.images]
    counts = dict.fromkeys(possible[0], 0)
    epochs = 40
    for _ in range(epochs):
        for image, number in zip(*read(source), strict=True):
            matches = [
                key
                for key, crop in possible[int(number)].items()
                if torch.allclose(image, crop.float(), atol=1e-3)
            ]
            assert len(matches) == 1
            counts[matches[0]] += 1
    mean = 32 * epochs / len(counts)
    assert all(abs(count - mean) < 6 * mean**0.5 for count in counts.values()), counts


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_normalisation_is_torchvisions(train, channels_last):
    mean, std = (0.49, 0.48, 0.44), (0.24, 0.25, 0.26)
    source = loader(
        32, 16, train, augmentation=Augmentation(mean, std), channels_last=channels_last
    )
    for batch, numbers in source:
        expected = normalize(source.images[numbers].float() / 255, list(mean), list(std))
        assert torch.allclose(batch, expected, atol=1e-5)
        assert batch.dtype == torch.float32
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        assert batch.is_contiguous(memory_format=memory_format)


def test_padding_is_black_before_normalisation():
    white = torch.full((64, 1, 4, 4), 255, dtype=torch.uint8)
    augmentation = Augmentation((0.5,), (0.25,), pad=3)
    pixels, _ = next(iter(DeviceLoader(white, torch.arange(64), augmentation, 64, True)))
    assert pixels.unique().tolist() == pytest.approx([-2.0, 2.0])
