"""The data module: options, splits, loaders, and what a Trainer sees of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from bnnbench.data import ImageDataModule, sources
from bnnbench.data.device_loader import Augmentation

CONF = Path(__file__).resolve().parents[2] / "conf" / "dataset"
DIGITS: dict[str, Any] = {
    "name": "digits",
    "data_dir": "nowhere",
    "batch_size": 64,
    "num_classes": 10,
    "in_channels": 1,
    "image_size": 8,
    "mean": [0.5],
    "std": [0.25],
    "pad": 0,
    "flip": False,
    "val_fraction": 0.0,
    "seed": 0,
}


def module(**options: Any) -> ImageDataModule:
    data = ImageDataModule(**DIGITS | options)
    data.prepare_data()
    data.setup("fit")
    return data


def option(name: str, **options: Any) -> ImageDataModule:
    """The data module of one yaml file."""
    root = {"recipe": {"batch_size": {name: 16}}, "paths": {"data_dir": "nowhere"}, "seed": 3}
    cfg = OmegaConf.merge(root, {"dataset": OmegaConf.load(CONF / f"{name}.yaml")})
    plain: dict[str, Any] = OmegaConf.to_container(cfg.dataset, resolve=True)  # type: ignore
    assert plain.pop("_target_") == "bnnbench.data.ImageDataModule"
    return ImageDataModule(**plain | options)


def test_every_source_has_its_option():
    assert {path.stem for path in CONF.glob("*.yaml")} >= set(sources.SOURCES)


@pytest.mark.parametrize("name", sources.SOURCES)
def test_every_option_builds(name):
    data = option(name)
    assert (data.task, data.evaluates_on, data.spec.seed) == ("classification", "test", 3)


# Mean and spread of the training pixels; crops and mirroring of He et al. (arXiv 1512.03385, Sec.
# 4.2) for CIFAR, in proportion for smaller images. A digit or a letter is not mirrored.
PUBLISHED = {
    "digits": ([0.2878], [0.3542], 1, False),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], 4, True),
    "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762], 4, True),
    "fashion_mnist": ([0.2860], [0.3530], 2, True),
}


@pytest.mark.parametrize("name", sources.SOURCES)
def test_statistics_and_augmentation_are_the_published(name):
    mean, std, pad, flip = PUBLISHED[name]
    assert option(name).augmentation == Augmentation(tuple(mean), tuple(std), pad, flip)


def test_the_options_of_digits_are_its_statistics():
    data = option("digits")
    data.setup()
    pixels = data.parts["train"][0].double() / 255
    assert data.augmentation.mean == pytest.approx([float(pixels.mean())], abs=5e-5)
    assert data.augmentation.std == pytest.approx([float(pixels.std())], abs=5e-5)
    batches = torch.cat([images for images, _ in data.test_dataloader()])
    assert abs(float(batches.mean())) < 0.02
    assert abs(float(batches.std()) - 1) < 0.03


def test_without_hold_out_the_whole_training_set_is_trained_on():
    data = module()
    assert (data.train_images, data.test_images, data.evaluates_on) == (1437, 360, "test")
    assert len(data.train_dataloader()) == 1437 // 64
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert torch.equal(loader.images, data.parts["test"][0])


def test_the_held_out_part_is_stratified_disjoint_and_the_same_for_every_run():
    whole, data, other = module(), module(val_fraction=0.2), module(val_fraction=0.2, seed=9)
    assert (data.train_images, data.test_images, data.evaluates_on) == (1150, 360, "val")
    images, labels = data.parts["val"]
    assert len(labels) == 287
    assert torch.equal(images, other.parts["val"][0])
    together = torch.cat((images, data.parts["train"][0])).flatten(1)
    assert sorted(together.tolist()) == sorted(whole.parts["train"][0].flatten(1).tolist())
    share = whole.parts["train"][1].bincount() * 0.2
    assert (labels.bincount() - share).abs().max() <= 1
    assert torch.equal(data.val_dataloader().images, images)
    assert len(torch.cat([y for _, y in data.test_dataloader()])) == 360


def test_loaders_share_the_one_copy():
    data = module()
    for part, loader in (("train", data.train_dataloader()), ("test", data.test_dataloader())):
        assert loader.images.dtype == torch.uint8
        assert loader.images.data_ptr() == data.parts[part][0].data_ptr()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 1.0}, r"val_fraction=1.0 must be in \[0, 1\)"),
        ({"val_fraction": -0.1}, "val_fraction"),
        ({"name": "cifar"}, "choose from digits, cifar10, cifar100, fashion_mnist"),
        ({"num_classes": 9}, "digits has 10 classes"),
        ({"image_size": 32}, r"\(1, 8, 8\).*\(1, 32, 32\)"),
        ({"mean": [0.5, 0.5]}, "mean=.*needs 1 values"),
        ({"std": [0.0]}, "must be positive"),
        ({"batch_size": 1}, "batch_size=1: batch norm"),
        ({"batch_size": 12.5}, "batch_size=12.5"),
        ({"eval_batch_size": 0}, "eval_batch_size=0"),
        ({"pad": -1}, "pad=-1"),
        ({"pad": "two"}, "pad=two"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ImageDataModule(**DIGITS | options)


def test_a_hold_out_of_no_image_is_an_error():
    with pytest.raises(ValueError, match="would hold out 0 of 1437"):
        module(val_fraction=1e-4)


class Recorder(L.LightningModule):
    """Trains one weight and remembers which batches it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, Tensor, Tensor]] = []
        self.validated = 0

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.seen.append((self.current_epoch, *batch))
        return (self.weight - batch[0].mean()) ** 2

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.validated += len(batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(epochs: int, ckpt_path: Path | None = None) -> tuple[Recorder, L.Trainer]:
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    task = Recorder()
    data = ImageDataModule(**DIGITS | {"batch_size": 200, "pad": 1, "flip": True})
    trainer.fit(task, data, ckpt_path=ckpt_path)
    return task, trainer


def test_a_resumed_training_sees_what_an_uninterrupted_one_sees(tmp_path):
    whole, _ = fit(4)
    _, first = fit(2)
    first.save_checkpoint(tmp_path / "last.ckpt")
    rest, _ = fit(4, tmp_path / "last.ckpt")
    expected = [seen for seen in whole.seen if seen[0] >= 2]
    assert [seen[0] for seen in rest.seen] == [2] * 7 + [3] * 7
    for (_, *before), (_, *after) in zip(expected, rest.seen, strict=True):
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1])
    assert torch.equal(whole.weight, rest.weight)
    assert whole.validated == 4 * 360


def test_a_read_set_follows_the_trainers_device(monkeypatch):
    data = module()
    device = torch.device("meta")  # stands in for a GPU

    class Strategy:
        root_device = device

    class Trainer:
        strategy, current_epoch, global_rank, world_size = Strategy(), 5, 1, 2
        overfit_batches = 0

    monkeypatch.setattr(data, "trainer", Trainer())
    monkeypatch.setattr(sources, "read", None)  # not read again
    data.setup("fit")
    assert {tensor.device for part in data.parts.values() for tensor in part} == {device}
    loader = data.train_dataloader()
    assert (loader.rank, loader.world_size, loader.epoch_fn()) == (1, 2, 5)


@pytest.fixture(scope="session")
def real_cifar10(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the real ``cifar10.npz``."""
    import runpy
    import sys

    folder = tmp_path_factory.mktemp("cifar10")
    argv, sys.argv = sys.argv, ["unpack.py", "cifar10", "--out", str(folder)]
    try:
        runpy.run_path(str(shared_data / "unpack.py"), run_name="__main__")
    finally:
        sys.argv = argv
    return folder


def test_the_real_cifar10_has_the_counts_and_statistics_of_its_option(real_cifar10):
    data = option("cifar10", data_dir=str(real_cifar10), val_fraction=0.1)
    data.prepare_data()
    data.setup()
    assert (data.train_images, data.test_images) == (45_000, 10_000)
    assert data.parts["train"][1].bincount().tolist() == [4500] * 10
    assert data.parts["val"][1].bincount().tolist() == [500] * 10
    assert data.parts["test"][1].bincount().tolist() == [1000] * 10
    pixels = torch.cat((data.parts["train"][0], data.parts["val"][0]))
    counts = np.array([pixels[:, c].flatten().bincount(minlength=256).tolist() for c in range(3)])
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    std = (counts @ values**2 / counts.sum(1) - mean**2) ** 0.5
    assert data.augmentation.mean == pytest.approx(mean, abs=5.1e-5)
    assert data.augmentation.std == pytest.approx(std, abs=5.1e-5)
    batch, _ = next(iter(data.test_dataloader()))
    assert batch.shape == (1000, 3, 32, 32)


def test_a_published_checkpoint_scores_its_published_accuracy(real_cifar10, shared_data):
    """akamaster's ResNet-20: 8.27 % error on all 10,000 images, with ImageNet's mean and std."""
    import bnnbench
    from bnnbench.records.checkpoints import load_weights

    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    data = option("cifar10", data_dir=str(real_cifar10), mean=mean, std=std)
    data.prepare_data()
    data.setup()
    net = bnnbench.build_backbone("resnet20", quantizer="fp32").eval()
    load_weights(net, shared_data / "checkpoints" / "resnet20_fp32_cifar10.th")
    with torch.inference_mode():
        hits = sum(int((net(x).argmax(1) == y).sum()) for x, y in data.test_dataloader())
    assert abs(hits - 9173) <= 2  # sums in another order may move an image on the boundary


def test_overfitting_keeps_its_images_and_an_ordinary_run_does_not():
    """With Lightning's own count of epochs, through one loader."""
    for overfit, same in ((1, True), (0, False)):
        data = module(pad=1, flip=True)
        recorder = Recorder()
        options = {"overfit_batches": overfit} if overfit else {"limit_train_batches": 1}
        trainer = L.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        trainer.fit(recorder, data)
        (_, first, _), (_, second, _) = recorder.seen
        assert torch.equal(first, second) is same
