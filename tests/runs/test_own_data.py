"""A run on class folders of one's own: what it writes down, and its evaluation elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from bnnbench.records.signature import read_checkpoint, signature_of
from bnnbench.records.store import read_result
from bnnbench.runs import evaluation, run

Compose = Callable[..., DictConfig]


def draw(folder: Path, classes: str, brightest: int) -> Path:
    """Ten images a class, of noise from 0 to ``brightest``."""
    pixels = np.random.default_rng(0)
    for name in classes.split():
        (folder / name).mkdir(parents=True)
        for number in range(10):
            image = pixels.integers(0, brightest, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / name / f"{number}.png")
    return folder


def test_an_evaluation_elsewhere_has_the_normalisation_of_the_training(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "data" / "insects", "ant bee", 256)
    own = ["dataset=image_folder", "dataset.image_size=8", "+dataset.eval_batch_size=8"]
    small = ["backbone=resnet20", "quantizer=xnor", "logger=none", "trainer.accelerator=cpu"]
    words = [*own, "dataset.workers=0", *small, "trainer.max_epochs=1"]
    run.execute(compose(*words, "dataset.folder=insects"), tmp_path / "run", quiet=True)
    result = read_result(tmp_path / "run")
    assert result is not None
    assert (result["choices"]["dataset"], result["train_images"]) == ("insects", 16)
    assert result["classes"]["names"] == ["ant", "bee"]
    assert result["config"]["dataset"]["mean"] == "auto"
    used = result["normalisation"]
    assert np.allclose(used["mean"], 0.5, atol=0.05)

    (last,) = (tmp_path / "run").rglob("last.ckpt")
    signature = signature_of(read_checkpoint(last))
    assert signature is not None
    assert {"mean": signature.mean, "std": signature.std} == used

    seen = []
    build = evaluation.build_datamodule
    monkeypatch.setattr(
        evaluation, "build_datamodule", lambda cfg: seen.append(build(cfg)) or seen[-1]
    )
    for split in ("train", "test"):
        dark = draw(tmp_path / "dark" / split, "ant bee", 64 if split == "test" else 32)
    typed = ["train=false", f"ckpt_path={last}", *own[:1], f"dataset.folder={dark.parent}"]
    run.execute(compose(*small, *typed), tmp_path / "evaluation", quiet=True, typed=typed)
    assert {"mean": seen[0].spec.mean, "std": seen[0].spec.std} == used
    images = torch.cat([images for images, _ in seen[0].test_dataloader()])
    assert images.max() < 0  # darker than what was trained on
    assert len(images) == 20

    other = draw(tmp_path / "other", "ant cat", 256)
    typed[-1] = f"dataset.folder={other}"
    with pytest.raises(ValueError, match=r"knows 2 classes \(ant, bee\), the images .*\(ant, cat"):
        run.execute(compose(*small, *typed), tmp_path / "evaluation", quiet=True, typed=typed)
