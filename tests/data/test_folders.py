"""Image files in class folders: what is read, in which order, by which rank; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from bnnbench.data import DatasetDamaged, DatasetMissing, FolderDataModule, file_loader

CONF = Path(__file__).resolve().parents[2] / "conf" / "dataset" / "imagenet.yaml"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = {"bee": 7, "cat": 5, "ant": 6}  # training images; "val" has four of each


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Noise of 40 x 50 pixels in three classes: 18 training images, 12 to test on."""
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, count in CLASSES.items():
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            for number in range(count if split == "train" else 4):
                pixels = draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.JPEG", quality=95)
    return tmp_path


def unread(data_dir: Path, **options: Any) -> FolderDataModule:
    """The data module of the yaml file, for small images."""
    small = {"image_size": 28, "num_classes": 3, "workers": 0, "channels_last": True}
    root = {"recipe": {"batch_size": {"imagenet": 4}}, "paths": {"data_dir": str(data_dir)}}
    root["seed"] = 3  # type: ignore[assignment]
    cfg = OmegaConf.merge(root, {"dataset": OmegaConf.load(CONF)})
    plain: dict[str, Any] = OmegaConf.to_container(cfg.dataset, resolve=True)  # type: ignore
    assert plain.pop("_target_") == "bnnbench.data.FolderDataModule"
    return FolderDataModule(**plain | small | options)


def module(data_dir: Path, **options: Any) -> FolderDataModule:
    data = unread(data_dir, **options)
    data.prepare_data()
    data.setup("fit")
    return data


def place(data: FolderDataModule, monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    """Make a module believe that it is one of several processes, in epoch 5."""

    class Strategy:
        root_device = torch.device("cpu")

    class Trainer:
        strategy, current_epoch, num_devices, overfit_batches = Strategy(), 5, size, 0
        global_rank, world_size = rank, size

    monkeypatch.setattr(data, "trainer", Trainer())


def test_classes_are_numbered_by_name_and_counted(tree):
    data = module(tree)
    assert (data.task, data.evaluates_on) == ("classification", "test")
    assert (data.train_images, data.test_images, data.eval_images) == (18, 12, 12)
    assert data.parts["train"][1].bincount().tolist() == [6, 7, 5]  # ant, bee, cat
    assert data.parts["test"][1].bincount().tolist() == [4, 4, 4]


def test_evaluation_is_pillows_image_resized_cropped_and_normalised(tree):
    """Against Pillow's decoder, bilinear resize to 32 and slices, written out."""
    images, labels = next(iter(module(tree, eval_batch_size=12).test_dataloader()))
    assert (images.shape, images.dtype) == ((12, 3, 28, 28), torch.float32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    files = sorted((tree / "imagenet" / "val").glob("*/*.JPEG"))
    for file, image, label in zip(files, images, labels, strict=True):
        assert ["ant", "bee", "cat"][label] == file.parent.name
        resized = Image.open(file).resize((40, 32), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized)[2:30, 6:34] / 255
        expected = torch.from_numpy((pixels - MEAN) / STD).permute(2, 0, 1).float()
        assert (image - expected).abs().max() < 2.6 / 255 / min(STD)  # two grey levels of rounding


def test_training_is_torchvisions_crop_and_flip_of_a_seeded_generator(tree, monkeypatch):
    """One image of one epoch, with the seed of (seed, epoch, 1 + image) as it is documented."""
    data = module(tree, image_size=8, batch_size=18)
    images, labels = next(iter(data.train_dataloader()))
    order = np.random.SeedSequence((3, 0, 0)).generate_state(1)[0]
    numbers = torch.randperm(18, generator=torch.Generator().manual_seed(int(order)))
    assert torch.equal(labels, data.parts["train"][1][numbers])
    first = int(numbers[0])
    torch.manual_seed(int(np.random.SeedSequence((3, 0, 1 + first)).generate_state(1)[0]))
    file = Path(data.parts["train"][0][first].decode())
    raw = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    expected = v2.Compose([v2.RandomResizedCrop(8), v2.RandomHorizontalFlip()])(raw)
    expected = v2.functional.normalize(expected / 255, list(MEAN), list(STD))
    assert (images[0] - expected).abs().max() < 2.6 / 255 / min(STD)


def epochs(data: FolderDataModule, count: int = 2) -> list[tuple[Tensor, Tensor]]:
    """Whole epochs of training images and labels."""
    loader = data.train_dataloader()
    passes = [list(loader) for _ in range(count)]
    return [tuple(torch.cat(part) for part in zip(*batches, strict=True)) for batches in passes]  # type: ignore[misc]


CHOICES: list[dict[str, Any]] = [
    {},
    {"augmentation": "none", "mixup": 0.2},
    {"augmentation": "crop_flip", "cutmix": 1.0},
    {"augmentation": "randaugment", "erasing": 0.5},
    {"augmentation": "trivialaugment", "erasing": 1.0, "mixup": 0.2, "cutmix": 1.0},
]


@pytest.mark.parametrize("choice", CHOICES[1:], ids=lambda choice: choice["augmentation"])
def test_every_augmentation_follows_seed_and_epoch_but_not_workers(tree, choice):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    alone = epochs(module(tree, **choice))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    shared = epochs(module(tree, workers=2, **choice))
    assert all(map(torch.equal, sum(alone, ()), sum(shared, ())))
    assert not torch.equal(alone[0][0], alone[1][0])
    plain = epochs(module(tree), 1)[0][0]
    assert not torch.equal(alone[0][0], plain)
    if choice.get("mixup") or choice.get("cutmix"):
        assert alone[0][1].shape == (16, 3)
        assert torch.allclose(alone[0][1].sum(1), torch.ones(16))


def test_images_follow_seed_and_epoch_but_not_workers_or_the_global_generator(tree):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    alone = epochs(module(tree))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    shared = epochs(module(tree, workers=2))
    for (images, labels), (others, other_labels) in zip(alone, shared, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)
    assert not torch.equal(alone[0][0], alone[1][0])
    assert not torch.equal(alone[0][0], epochs(module(tree, seed=4), 1)[0][0])
    assert len(alone[0][1]) == 16  # the last short batch is dropped


@pytest.mark.parametrize("size", [1, 2, 5])
def test_ranks_read_each_test_image_once_in_equally_many_batches(tree, monkeypatch, size):
    found, counts = [], []
    for rank in range(size):
        data = module(tree, eval_batch_size=2)
        place(data, monkeypatch, rank, size)
        batches = list(data.val_dataloader())
        counts.append(len(batches))
        found += [image for images, _ in batches for image in images]
    assert len(set(counts)) == 1
    assert len(found) == 12 == len({tuple(image.flatten()[:50].tolist()) for image in found})


def test_two_ranks_cut_one_permutation(tree, monkeypatch):
    parts = []
    for rank in range(2):
        data = module(tree)
        place(data, monkeypatch, rank, 2)
        parts.append([image for images, _ in data.train_dataloader() for image in images])
    whole = module(tree, batch_size=8)
    place(whole, monkeypatch, 0, 1)
    together = [image for images, _ in whole.train_dataloader() for image in images]
    assert [len(part) for part in parts] == [8, 8]
    for index in range(8):  # image for image: augmentation does not depend on the rank
        assert torch.equal(parts[0][index], together[2 * index])
        assert torch.equal(parts[1][index], together[2 * index + 1])


def test_held_out_images_are_stratified_and_seen_as_in_evaluation(tree):
    data = module(tree, val_fraction=1 / 3, eval_batch_size=6)
    assert (data.evaluates_on, data.train_images, data.eval_images) == ("val", 12, 6)
    assert data.parts["val"][1].bincount().tolist() == [2, 2, 2]
    assert not set(data.parts["val"][0].tolist()) & set(data.parts["train"][0].tolist())
    loader = data.val_dataloader()
    first, second = next(iter(loader))[0], next(iter(loader))[0]
    assert torch.equal(first, second)  # no random crop
    with pytest.raises(ValueError, match="would hold out 0 of 18"):
        module(tree, val_fraction=0.01)


class Recorder(L.LightningModule):
    """Trains nothing and remembers its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Tensor] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.seen += batch
        return self.weight * batch[0].mean()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    tree: Path, epochs: int, ckpt_path: Path | None = None, **choice: Any
) -> tuple[Recorder, L.Trainer]:
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    task = Recorder()
    trainer.fit(task, unread(tree, workers=1, **choice), ckpt_path=ckpt_path)
    return task, trainer


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.get("augmentation"))
def test_a_resumed_training_sees_what_an_uninterrupted_one_sees(tree, tmp_path, choice):
    whole, _ = fit(tree, 3, **choice)
    _, first = fit(tree, 2, **choice)
    first.save_checkpoint(tmp_path / "last.ckpt")
    rest, _ = fit(tree, 3, tmp_path / "last.ckpt", **choice)
    assert len(rest.seen) == 8  # images and labels of four batches
    assert all(map(torch.equal, whole.seen[16:], rest.seen))


def remove(path: str) -> Callable[[Path], object]:
    import shutil

    return lambda root: shutil.rmtree(root / path)


def move(path: str, to: str) -> Callable[[Path], object]:
    return lambda root: (root / path).rename(root / to)


BAD = {
    "no split": (remove("val"), DatasetMissing, r"no folder .*val\. Put .*data/README\.md"),
    "no set": (move(".", "../else"), DatasetMissing, "dataset.folder="),
    "no class": (
        lambda root: [remove(f"train/{name}")(root) for name in CLASSES],
        DatasetDamaged,
        r"train holds no class folders: it needs train/<class>/\*\.JPEG",
    ),
    "other class": (move("val/ant", "val/dog"), DatasetDamaged, "only one of them has ant, dog"),
    "empty class": (
        lambda root: [file.unlink() for file in (root / "val" / "cat").iterdir()],
        DatasetDamaged,
        "val/cat holds no image files",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_tree_that_cannot_be_used_is_refused(tree, name):
    damage, kind, message = BAD[name]
    damage(tree / "imagenet")
    with pytest.raises(kind, match=message):
        module(tree)


def test_a_set_may_lie_where_its_folder_is_typed(tree, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tree / "imagenet").rename(tmp_path / "here" / "mine")
    monkeypatch.chdir(tmp_path / "here")
    assert module(tmp_path / "data", folder="mine").train_images == 18
    with pytest.raises(DatasetMissing, match=r"data/other/train or \S+here/other/train\. Put"):
        module(tmp_path / "data", folder="other")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_named(tree, workers):
    file = tree / "imagenet" / "val" / "bee" / "2.JPEG"
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(DatasetDamaged, match=r"val/bee/2\.JPEG cannot be read .*truncated"):
        list(module(tree, workers=workers).test_dataloader())


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_images_become_rgb(tree, mode):
    file = tree / "imagenet" / "val" / "ant" / "0.JPEG"
    Image.open(file).convert(mode).save(file)
    assert next(iter(module(tree).test_dataloader()))[0].shape == (12, 3, 28, 28)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1000}, "holds 3 classes.* 1000: set dataset.num_classes=3"),
        ({"in_channels": 1}, "in_channels=1: .*RGB"),
        ({"workers": -1}, "workers=-1: use auto or"),
        ({"workers": "many"}, "workers=many: use auto or"),
        ({"image_size": 0}, "image_size=0"),
        ({"mean": [0.5]}, "mean=.*needs 3 values"),
        ({"eval_batch_size": 0}, "eval_batch_size=0"),
        ({"batch_size": 1}, "batch_size=1: batch norm"),
        ({"seed": -1}, "seed=-1"),
        ({"val_fraction": 1.0}, "val_fraction=1.0 must be in"),
        ({"augmentation": "ssd"}, "augmentation=ssd: choose one of none, crop_flip, inception"),
        ({"mixup": -0.1}, "mixup=-0.1: give an alpha"),
    ],
)
def test_arguments_are_checked(tree, options, message):
    with pytest.raises(ValueError, match=message):
        module(tree, **options)


def test_real_images_are_read_and_normalised(shared_data):
    folder = shared_data / "imagenette_mini"
    data = module(
        shared_data, folder=str(folder), num_classes=10, image_size=224, eval_batch_size=50
    )
    assert (data.train_images, data.test_images) == (1200, 500)
    assert data.parts["train"][1].bincount().tolist() == [120] * 10
    images = torch.cat([images for images, _ in islice(data.test_dataloader(), 2)])
    assert images.shape == (100, 3, 224, 224)
    # two classes are not ImageNet: its statistics hold roughly
    assert images.mean().item() == pytest.approx(0, abs=0.3)
    assert images.std().item() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    ("jobs", "devices", "share"), [(1, 1, 8), (2, 1, 4), (2, 2, 2), (16, 1, 1)]
)
def test_devices_and_jobs_share_the_cores(monkeypatch, jobs, devices, share):
    class Trainer:
        num_devices = devices

    monkeypatch.setattr(file_loader, "cores", lambda: 8)
    monkeypatch.setenv(file_loader.JOBS, str(jobs))
    assert file_loader.worker_count("auto", Trainer()) == share  # type: ignore[arg-type]
    assert file_loader.worker_count(3, Trainer()) == 3  # type: ignore[arg-type]


def test_overfitting_keeps_its_images(tree, monkeypatch):
    data = module(tree)
    place(data, monkeypatch, rank=0, size=1)
    trainer: Any = data.trainer
    epochs = []
    for overfit in (1, 0):
        trainer.overfit_batches = overfit
        loader = data.train_dataloader()
        for epoch in (5, 6):
            trainer.current_epoch = epoch
            epochs.append(next(iter(loader)))
    kept, other = epochs[:2], epochs[2:]
    assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True))
    assert not torch.equal(other[0][0], other[1][0])


def test_a_reloaded_loader_ends_the_workers_of_the_one_before(tree):
    data = module(tree, workers=1)
    first = data.train_dataloader()
    next(iter(first))
    workers = first.loader._iterator._workers
    data.train_dataloader()
    assert not any(worker.is_alive() for worker in workers)
    data.teardown()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("gone", ["train", "train/cat"])
def test_a_folder_that_vanishes_while_a_run_trains_is_named(
    tree: Path, workers: int, gone: str
) -> None:
    """In a later epoch, in one line, whoever reads the images."""
    data = module(tree, workers=workers)
    loader = data.train_dataloader()
    assert len(list(loader)) > 0
    place, away = tree / "imagenet" / gone, tree / "away"
    place.rename(away)
    try:
        with pytest.raises(DatasetDamaged) as told:
            list(loader)
        assert str(told.value).startswith(f"{place} is gone since this process began: bring it")
        assert len(str(told.value).splitlines()) == 1
        away.rename(place)
        assert len(list(data.train_dataloader())) > 0
    finally:
        data.teardown()
