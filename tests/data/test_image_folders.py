"""Somebody's own class folders, from what is typed to what is trained on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from bnnbench import resolvers
from bnnbench.checks.errors import message
from bnnbench.checks.values import check_config
from bnnbench.data import DatasetDamaged, ImageFolderDataModule, kept, statistics
from bnnbench.records.fingerprint import fingerprint, run_name
from bnnbench.records.stamps import stamp_of
from bnnbench.runs.build import build_datamodule
from bnnbench.runs.reuse import settled_marks

CONF = Path(__file__).resolve().parents[2] / "conf"
CLASSES = {"ant": 10, "bee": 7, "cat": 5}
Compose = Callable[..., DictConfig]


def draw(folder: Path, classes: dict[str, int] | None = None, seed: int = 0) -> Path:
    """Noise of 20 x 24 pixels, a folder a class."""
    pixels = np.random.default_rng(seed)
    for name, count in (classes or CLASSES).items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            image = pixels.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compose]:
    """The config of a command line, with data in ``data``, typed in ``here``."""
    resolvers.register()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def make(folder: object, *overrides: str) -> DictConfig:
        small = ["dataset.workers=0", "dataset.image_size=14", "backbone=resnet20"]
        typed = ["dataset=image_folder", f"dataset.folder='{folder}'", *small, *overrides]
        cfg = compose("train", overrides=[f"paths.data_dir={tmp_path}/data", *typed])
        check_config(cfg)
        return cfg

    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield make


def module(cfg: DictConfig) -> Any:
    data = build_datamodule(cfg)
    assert isinstance(data, ImageFolderDataModule)
    data.prepare_data()
    data.setup("fit")
    return data


def test_a_folder_is_enough(composed: Compose, tmp_path: Path) -> None:
    draw(tmp_path / "data" / "insects")
    cfg = composed("insects")
    assert (cfg.dataset.name, cfg.dataset.num_classes, cfg.backbone.num_classes) == (
        "insects",
        3,
        3,
    )
    assert (cfg.dataset.batch_size, cfg.trainer.max_epochs) == (16, 200)
    assert run_name(cfg).startswith("insects_resnet20_adabin_")
    data = module(cfg)
    assert data.class_names == ["ant", "bee", "cat"]
    assert (data.train_images, data.test_images) == (8 + 6 + 4, 2 + 1 + 1)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("my insects (v1.2)", "my_insects_v1_2"),
        ("imagenet", "imagenet_folder"),  # it is not ImageNet
        ("cifar10", "cifar10_folder"),
        ("käfer-2024", "käfer-2024"),
        ("a/b", "b"),
    ],
)
def test_a_set_is_named_after_its_folder(
    composed: Compose, tmp_path: Path, folder: str, name: str
) -> None:
    draw(tmp_path / "data" / folder, {"a": 2, "b": 2})
    assert composed(folder).dataset.name == name
    assert composed(folder, "dataset.name=beetles").dataset.name == "beetles"


def test_what_a_recipe_states_goes_before_what_follows_from_the_size(
    composed: Compose, tmp_path: Path
) -> None:
    draw(tmp_path / "data" / "insects")
    cfg = composed("insects", "+recipe.epochs.insects=7", "+recipe.batch_size.insects=4")
    assert (cfg.trainer.max_epochs, cfg.dataset.batch_size) == (7, 4)
    bayesian = composed("insects", "quantizer=bayesbinn", "recipe=bayesbinn")
    assert bayesian.recipe.groups.latent.effective_size == 10 * 18


def test_a_set_that_no_recipe_knows_still_needs_its_numbers(composed: Compose) -> None:
    """The rules are for class folders: of others the size is not known before they are read."""
    with pytest.raises(ValueError, match=r"recipe\.epochs has none for mine: give \+recipe"):
        check_config(compose("train", overrides=["dataset.name=mine"]))


def test_one_tree_is_parted_by_class_and_the_same_for_every_seed(
    composed: Compose, tmp_path: Path
) -> None:
    draw(tmp_path / "data" / "insects")
    first, second = (module(composed("insects", f"seed={seed}")) for seed in (0, 5))
    for part in ("train", "test"):
        assert first.parts[part][0].tolist() == second.parts[part][0].tolist()
    train, test = (set(first.parts[part][0].tolist()) for part in ("train", "test"))
    assert not train & test
    assert len(train | test) == sum(CLASSES.values())
    for file, label in zip(*first.parts["test"], strict=True):
        assert Path(os.fsdecode(file)).parent.name == ["ant", "bee", "cat"][label]
    half = module(composed("insects", "dataset.test_fraction=0.5"))
    assert half.parts["test"][1].bincount().tolist() == [5, 4, 2]  # halves to even


def test_a_part_to_test_on_is_asked_for_or_refused(composed: Compose, tmp_path: Path) -> None:
    draw(tmp_path / "data" / "one")
    for seed, split in enumerate(("train", "val")):
        draw(tmp_path / "data" / "two" / split, seed=seed)
    assert composed("one").dataset.test_fraction == 0.2
    assert composed("two").dataset.test_fraction is None
    with pytest.raises(ValueError, match=r"no split to test on: give dataset\.test_fraction=0\.2"):
        module(composed("one", "dataset.test_fraction=null"))
    with pytest.raises(ValueError, match=r"test_fraction=0\.3: .*in val; leave test_fraction out"):
        module(composed("two", "dataset.test_fraction=0.3"))
    with pytest.raises(ValueError, match=r"test_fraction=1: give a number above 0 and below 1"):
        composed("one", "dataset.test_fraction=1")


def pixels_of(data: Any) -> np.ndarray:
    """Training images as Pillow resizes and crops them for evaluation at 14 pixels."""
    seen = []
    for file in data.parts["train"][0]:
        image = Image.open(os.fsdecode(file)).convert("RGB")
        image = image.resize((round(16 * 24 / 20), 16), Image.Resampling.BILINEAR)
        left = round((image.width - 14) / 2)
        seen.append(np.asarray(image)[1:15, left : left + 14] / 255)
    return np.stack(seen).reshape(-1, 3)


def test_mean_and_deviation_are_those_of_the_training_images(
    composed: Compose, tmp_path: Path
) -> None:
    draw(tmp_path / "data" / "insects")
    data = module(composed("insects"))
    pixels = pixels_of(data)
    assert np.allclose(data.spec.mean, pixels.mean(0), atol=2e-3)  # a grey level is 4e-3
    assert np.allclose(data.spec.std, pixels.std(0), atol=2e-3)
    images = torch.cat([images for images, _ in data.test_dataloader()])
    assert images.mean().abs() < 0.3
    assert abs(images.std() - 1) < 0.2


def test_they_may_be_given_one_by_one(composed: Compose, tmp_path: Path) -> None:
    draw(tmp_path / "data" / "insects")
    measured = module(composed("insects")).spec
    shutil.rmtree(tmp_path / "data" / kept.FOLDER)
    given = module(composed("insects", "dataset.mean=[0.1,0.2,0.3]")).spec
    assert (given.mean, given.std) == ([0.1, 0.2, 0.3], measured.std)
    given = module(composed("insects", "dataset.std=[0.1,0.2,0.3]")).spec
    assert (given.mean, given.std) == (measured.mean, [0.1, 0.2, 0.3])


def test_they_are_measured_once(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = draw(tmp_path / "data" / "insects")
    calls = []
    measure = statistics.of_batches
    monkeypatch.setattr(statistics, "of_batches", lambda b: calls.append(1) or measure(b))
    first = module(composed("insects")).spec
    again = module(composed("insects", "seed=3", "quantizer=xnor")).spec
    assert (calls, again.mean, again.std) == ([1], first.mean, first.std)
    module(composed("insects", "dataset.image_size=16"))
    assert len(calls) == 2
    for file in folder.glob("*/*.png"):  # other pixels of the same names and sizes
        pixels = np.asarray(Image.open(file))
        size = file.stat().st_size
        Image.fromarray(np.flip(pixels, 2).copy()).save(file)
        os.truncate(file, max(size, file.stat().st_size))
    other = module(composed("insects")).spec
    assert len(calls) == 3
    assert other.mean != first.mean
    for cached in (tmp_path / "data" / kept.FOLDER).iterdir():
        cached.write_text('{"mean": [1], "std":')
    assert module(composed("insects")).spec.mean == other.mean


def test_where_nothing_can_be_kept_it_is_measured_again(composed: Compose, tmp_path: Path) -> None:
    folder = draw(tmp_path / "elsewhere" / "insects")
    (tmp_path / "data").touch()  # a file: no folder can be made in it
    first, second = (module(composed(folder)).spec for _ in range(2))
    assert first.mean == second.mean


def test_a_large_set_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SAMPLE", 50)
    chosen = statistics.sample(1000).tolist()
    assert len(set(chosen)) == 50
    assert chosen == sorted(chosen) == statistics.sample(1000).tolist()
    assert 300 < np.mean(chosen) < 700  # not the first classes alone
    assert statistics.sample(3).tolist() == [0, 1, 2]


def test_an_image_without_contrast_can_be_trained_on() -> None:
    found = statistics.of_batches([torch.zeros(2, 3, 4, 4)])
    assert found["mean"] == [0.0] * 3
    assert min(found["std"]) > 0


def test_where_a_folder_lies_is_no_part_of_a_run(composed: Compose, tmp_path: Path) -> None:
    folder = draw(tmp_path / "data" / "insects")
    shutil.copytree(folder, tmp_path / "here" / "moved" / "insects")
    cfgs = [composed(place) for place in ("insects", folder, "moved/insects", "./moved/insects/")]
    assert len(set(map(fingerprint, cfgs))) == 1
    cache = tmp_path / "stamps.json"
    stamps = {stamp_of(OmegaConf.to_container(c.dataset, resolve=True), cache) for c in cfgs}  # type: ignore[arg-type]
    assert stamps == {module(cfgs[0]).stamp}
    assert fingerprint(composed("insects", "dataset.name=other")) != fingerprint(cfgs[0])
    plain = compose("train", overrides=["dataset=imagenet", "dataset.folder=a"])
    other = compose("train", overrides=["dataset=imagenet", "dataset.folder=b"])
    assert fingerprint(plain) != fingerprint(other)  # as it always was


def test_one_sweep_over_two_folders_of_one_name_has_two_runs(
    composed: Compose, tmp_path: Path
) -> None:
    for seed, place in enumerate("ab"):
        draw(tmp_path / "data" / place / "insects", CLASSES | {"ant": 10 + seed})
    cfgs = [composed(f"{place}/insects", f"paths.log_dir={tmp_path}/logs") for place in "aab"]
    same, again, other = settled_marks(cfgs, list(map(run_name, cfgs)))
    assert (same, again) == (None, None)
    assert other == module(cfgs[2]).stamp.removeprefix("sha256:")[:8]


def test_a_stamp_follows_what_is_read_alone(composed: Compose, tmp_path: Path) -> None:
    root = tmp_path / "data" / "insects"
    for seed, split in enumerate(("train", "test")):
        draw(root / split, seed=seed)
    before = module(composed("insects")).stamp
    draw(root / "val", {"ant": 1, "bee": 1, "cat": 1}, seed=3)
    assert module(composed("insects")).stamp == before
    (root / "test" / "ant" / "0.png").unlink()
    assert module(composed("insects")).stamp != before


def test_images_that_are_tested_and_trained_on_are_told(
    composed: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "data" / "insects"
    draw(root / "train")
    draw(root / "test", seed=1)
    for number in (1, 2):
        shutil.copy(root / "train" / "bee" / f"{number}.png", root / "test" / "bee")
    module(composed("insects"))
    assert "test/bee/1.png is trained on as well, and 1 more images" in caplog.text
    shutil.rmtree(root / "test")
    (root / "test").symlink_to("train")
    with pytest.raises(DatasetDamaged, match="every image of test is in train as well: put"):
        module(composed("insects"))


def test_a_mistake_is_one_line_that_names_the_folder(composed: Compose, tmp_path: Path) -> None:
    for folder, told in (("absent", f"no {tmp_path}/data/absent nor {tmp_path}/here/absent"),):
        with pytest.raises(Exception, match="absent") as caught:
            composed(folder)
        line = message(caught.value)
        assert line.startswith("dataset.folder=absent: there is ")
        assert told in line
    with pytest.raises(ValueError, match=r"dataset\.folder has no value: give"):
        check_config(compose("train", overrides=["dataset=image_folder"]))


def test_other_sets_have_to_be_given_numbers(tmp_path: Path) -> None:
    resolvers.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=["dataset=digits", "dataset.mean=auto"])
    with pytest.raises(ValueError, match=r"dataset\.mean=auto: give a list of 1.*not measured"):
        build_datamodule(cfg)


def test_kept_numbers_are_plain(composed: Compose, tmp_path: Path) -> None:
    draw(tmp_path / "data" / "insects")
    data = module(composed("insects"))
    (file,) = (tmp_path / "data" / kept.FOLDER).glob("normalisation-*")
    assert json.loads(file.read_text()) == {"mean": data.spec.mean, "std": data.spec.std}
