"""Training images that start small: which size when, and that nothing else changes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from bnnbench.checks.values import check_config
from bnnbench.data.resizing import is_schedule, resized, side_at, sides
from bnnbench.records.fingerprint import fingerprint
from bnnbench.runs import run
from bnnbench.runs.preflight import check_settings, check_stages
from bnnbench.tasks.classification import Classification

Compose = Callable[..., DictConfig]
STEPS = [[0.5, 0.3], [0.75, 0.6]]
TYPED = "dataset.resize=[[0.5,0.34],[0.75,0.67]]"


def test_the_epoch_alone_says_how_large() -> None:
    assert sides(STEPS, 32) == [16, 24, 32]
    assert [side_at(STEPS, 32, epoch, 10) for epoch in range(10)] == [16] * 3 + [24] * 3 + [32] * 4
    assert [side_at([[0.5, 0.7]], 32, epoch, 10) for epoch in (6, 7)] == [16, 32]
    assert [side_at([[0.5, 0.99]], 32, epoch, 3) for epoch in range(3)] == [16, 16, 32]
    assert side_at(STEPS, 32, 0, 1) == 32
    assert [side_at([], 32, epoch, 5) for epoch in range(5)] == [32] * 5


def test_never_below_eight_pixels_nor_above_the_image() -> None:
    assert sides(STEPS, 8) == [8, 8, 8]
    assert sides(STEPS, 12) == [8, 9, 12]
    assert sides(STEPS, 6) == [6, 6, 6]


@pytest.mark.parametrize("fine", [[], STEPS, [[0.5, 0.5]], [[0.75, 0.2], [0.5, 0.9]]])
def test_schedules(fine: Any) -> None:
    assert is_schedule(fine)


@pytest.mark.parametrize(
    "wrong",
    [
        *("0.5", 0.5, None, [0.5, 0.3], [[0.5]], [[1.0, 0.3]], [[0.5, 1]], [[16, 0.3]]),
        *([[0.5, 0.6], [0.75, 0.3]], [[0.5, 0.3], [0.75, 0.3]], [["a", 0.3]], [[0.5, True]]),
    ],
)
def test_what_is_no_schedule_is_told(compose: Compose, wrong: Any) -> None:
    assert not is_schedule(wrong)
    cfg = compose()
    cfg.recipe.resize = wrong
    with pytest.raises(ValueError, match=r"recipe\.resize=.*: give a list of \[part of the side"):
        check_config(cfg)


def test_pixels_are_those_of_an_image_library() -> None:
    image = np.random.default_rng(0).random((20, 20), dtype=np.float32)
    ours = resized(torch.from_numpy(image)[None, None], 11)[0, 0].numpy()
    theirs = Image.fromarray(image).resize((11, 11), Image.Resampling.BILINEAR)
    assert np.allclose(ours, np.asarray(theirs), atol=1e-5)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_memory_format_stays(layout: torch.memory_format) -> None:
    images = torch.randn(2, 3, 16, 16).contiguous(memory_format=layout)
    assert resized(images, 8).is_contiguous(memory_format=layout)
    assert resized(images, 16) is images


@pytest.fixture
def arguments(tmp_path: Path, short: list[str]) -> list[str]:
    """A run of three epochs on images of 16 pixels."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (96, 16, 16, 1), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.arange(96) % 3)
    data = ["dataset=image_arrays", f"dataset.file={tmp_path}/set.npz", "dataset.batch_size=16"]
    return [*short, *data, "quantizer=xnor"]


def weights(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_epochs_grow_and_evaluations_are_whole(
    compose: Compose, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []
    original = Classification._run

    def recorded(self: Any, images: Tensor, targets: Any) -> Any:
        seen.append((self.training, images.shape[3]))
        return original(self, images, targets)

    monkeypatch.setattr(Classification, "_run", recorded)
    cfg = compose(*arguments, TYPED)
    run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    assert [side for training, side in seen if training] == [8] * 3 + [12] * 3 + [16] * 3
    assert {side for training, side in seen if not training} == {16}


def test_a_cut_run_goes_on_with_its_sizes(
    compose: Compose,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fail_at: Callable[[pytest.MonkeyPatch, int, BaseException], None],
) -> None:
    whole, cut = (
        compose(*arguments, TYPED, f"paths.output_dir={tmp_path}/{name}")
        for name in ("whole", "cut")
    )
    run.execute(whole, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        fail_at(patch, 1, RuntimeError("cut"))
        with pytest.raises(RuntimeError, match="cut"):
            run.execute(cut, tmp_path / "cut", quiet=True)
    run.execute(cut, tmp_path / "cut", quiet=True)
    uncut = weights(tmp_path / "whole")
    assert all(torch.equal(uncut[k], value) for k, value in weights(tmp_path / "cut").items())


def test_a_recipe_s_and_a_set_s_are_one_run(compose: Compose, arguments: list[str]) -> None:
    plain = fingerprint(compose(*arguments))
    ours = fingerprint(compose(*arguments, TYPED))
    assert ours == fingerprint(compose(*arguments, TYPED.replace("dataset", "recipe"))) != plain
    assert plain == fingerprint(compose(*arguments, "recipe.resize=[]"))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["+trainer.max_steps=5"], "limits it otherwise: set trainer.max_epochs alone"),
        (["+recipe.steps=5"], "recipe.steps=5 limits it otherwise"),
        (["trainer.max_epochs=-1", "+trainer.max_steps=5"], "trainer.max_steps=5"),
    ],
)
def test_runs_of_steps_are_refused(
    compose: Compose, arguments: list[str], typed: list[str], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        check_settings(compose(*arguments, TYPED, *typed))


def test_detectors_and_networks_of_one_size_are_refused(
    compose: Compose, arguments: list[str]
) -> None:
    shapes = ["backbone=ssd300_resnet18", "dataset=shapes", TYPED.replace("dataset", "recipe")]
    with pytest.raises(ValueError, match="dataset=shapes takes no smaller images"):
        check_settings(compose(*shapes))
    with pytest.raises(ValueError, match="images of 8 pixels, and the network takes 16 alone"):
        check_stages(compose(*arguments, "backbone=vgg_small", TYPED))
