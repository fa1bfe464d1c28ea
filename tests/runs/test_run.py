"""Runs: what they leave behind, and what happens to them."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from bnnbench.layers import binary_layers
from bnnbench.records.checkpoints import BadCheckpoint
from bnnbench.records.fingerprint import fingerprint, run_name
from bnnbench.records.store import read_result
from bnnbench.runs import build, run
from bnnbench.runs.preflight import preflight

Compose = Callable[..., DictConfig]


def execute(cfg: DictConfig) -> dict[str, Any]:
    folder = Path(cfg.paths.output_dir)
    run.execute(cfg, folder, quiet=True)
    result = read_result(folder)
    assert result is not None
    return result


def last_weights(cfg: DictConfig) -> dict[str, torch.Tensor]:
    path = Path(cfg.paths.output_dir) / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


FailAt = Callable[[pytest.MonkeyPatch, int, BaseException], None]
Untimed = Callable[[dict[str, Any]], dict[str, Any]]


class Cut(Exception):
    """Stands for a power failure."""


def test_result_holds_what_the_table_needs(compose: Compose, short: list[str]) -> None:
    cfg = compose("quantizer=adabin", *short)
    result = execute(cfg)
    assert result["name"] == run_name(cfg)
    assert result["fingerprint"] == fingerprint(cfg)
    assert result["choices"]["quantizer"] == "adabin"
    assert result["structure"]["shortcut"] == "conv"
    assert (result["bits"], result["bases"]) == ({"w": 1, "a": 1}, {"w": 1, "a": 1})
    assert result["epochs"] == 3
    assert (result["train_images"], result["test_images"]) == (192, 360)  # of three batches
    assert (result["ended"], result["planned_epochs"]) == ("limit_train_batches=3", 3)
    time = result["time"]
    assert time["images_per_s"] * time["train_s"] == pytest.approx(3 * 192)
    assert set(result["metrics"]["last"]) >= {"test/nll", "test/brier", "test/ece", "test/top5"}
    classes = result["classes"]
    assert classes["names"] == list("0123456789")
    digits = [35, 37, 35, 37, 36, 36, 37, 36, 34, 37]  # of each in the test set
    right = sum(n * a for n, a in zip(digits, classes["accuracy"], strict=True))
    assert right / 360 == pytest.approx(result["metrics"]["last"]["test/acc"])
    assert result["history"]["epoch"] == [0, 1, 2]
    accuracies = result["history"]["test/acc"]
    assert result["metrics"]["last"]["test/acc"] == pytest.approx(accuracies[-1])
    best = result["metrics"]["best"]
    assert best["test/acc"] == max(accuracies)
    assert accuracies[best["epoch"]] == best["test/acc"]
    assert result["operations"]["params"] > 270_000
    assert len(result["git"]["commit"] or "0" * 40) == 40
    json.dumps(result)  # plain data all through


def test_a_checkpoint_knows_the_best_epoch_up_to_its_own(
    compose: Compose, short: list[str]
) -> None:
    """A resumed run would replace best.ckpt by that of a worse epoch otherwise."""
    cfg = compose(*short, "trainer.max_epochs=1")
    (accuracy,) = execute(cfg)["history"]["test/acc"]
    content = torch.load(
        Path(cfg.paths.output_dir) / "checkpoints" / "last.ckpt", weights_only=True
    )
    states = [s for s in content["callbacks"].values() if s.get("monitor") == "test/acc"]
    (judged,) = (state["best_model_score"] for state in states)
    assert float(judged) == pytest.approx(accuracy)


def test_epochs_without_an_evaluation_repeat_none(compose: Compose, short: list[str]) -> None:
    result = execute(compose(*short, "+trainer.check_val_every_n_epoch=2"))
    accuracies = result["history"]["test/acc"]
    assert [value is None for value in accuracies] == [True, False, True]
    assert result["metrics"]["best"] == {"test/acc": accuracies[1], "epoch": 1}
    never = execute(compose(*short, "+trainer.check_val_every_n_epoch=5", "force=true"))
    assert never["metrics"]["best"] == {}
    assert never["metrics"]["last"]["test/acc"] > 0


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(
    compose: Compose, short: list[str]
) -> None:
    def losses(*overrides: str) -> list[float]:
        return execute(compose(*short, "trainer.max_epochs=1", *overrides))["history"]["test/loss"]

    first = losses()
    assert losses("force=true") == first
    assert losses("force=true", "seed=1") != first


def test_a_cut_run_continues_bit_for_bit(
    compose: Compose,
    short: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fail_at: FailAt,
    untimed: Untimed,
) -> None:
    arguments = ["quantizer=irnet", *short]  # its estimator follows the progress of the run
    whole = compose(*arguments, f"paths.output_dir={tmp_path}/whole")
    Path(whole.paths.output_dir).mkdir()
    expected = execute(whole)
    cfg = compose(*arguments)
    with monkeypatch.context() as patch:
        fail_at(patch, 2, Cut())
        with pytest.raises(Cut):
            run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    assert read_result(cfg.paths.output_dir) is None
    assert "Cut" in (Path(cfg.paths.output_dir) / "error.txt").read_text()
    resumed = execute(cfg)
    assert not (Path(cfg.paths.output_dir) / "error.txt").exists()
    assert untimed(resumed["history"]) == untimed(expected["history"])
    for name, tensor in last_weights(whole).items():
        assert torch.equal(tensor, last_weights(cfg)[name]), name


def test_a_run_cut_before_its_result_only_evaluates(compose: Compose, short: list[str]) -> None:
    cfg = compose(*short)
    first = execute(cfg)
    (Path(cfg.paths.output_dir) / "result.json").unlink()
    again = execute(cfg)
    assert again["metrics"] == first["metrics"]
    assert again["history"] == first["history"]


def test_force_starts_anew(compose: Compose, short: list[str]) -> None:
    first = execute(compose(*short))
    again = execute(compose(*short, "force=true"))
    assert again["history"]["train/loss"] == first["history"]["train/loss"]
    assert len(again["history"]["epoch"]) == 3


def test_checkpoints_load_without_pickled_code(compose: Compose, short: list[str]) -> None:
    cfg = compose(*short, "trainer.max_epochs=1")
    execute(cfg)
    for name in ("last", "best"):
        path = Path(cfg.paths.output_dir) / "checkpoints" / f"{name}.ckpt"
        assert torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.parametrize("bad", [(1, 1), (1, 2), (2, 0)])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_training_went_on_from(
    compose: Compose, short: list[str], monkeypatch: pytest.MonkeyPatch, bad: tuple[int, int]
) -> None:
    from bnnbench.tasks.classification import Classification

    original = Classification.training_step

    def poisoned(self: Classification, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = original(self, batch, batch_idx)
        return loss * torch.nan if (self.current_epoch, batch_idx) == bad else loss

    monkeypatch.setattr(Classification, "training_step", poisoned)
    cfg = compose(*short)
    said = f"nan in epoch {bad[0]}, step {bad[1]} .*; the checkpoint of epoch 0 is kept"
    with pytest.raises(FloatingPointError, match=said):
        run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    assert all(torch.isfinite(x).all() for x in last_weights(cfg).values())
    assert "recipe.lr" in (Path(cfg.paths.output_dir) / "error.txt").read_text()


def test_a_failure_is_told_also_where_its_traceback_cannot_be_kept(tmp_path: Path) -> None:
    told = pytest.raises(OSError, match=r"last\.ckpt cannot be written")
    with told, run.recorded_failure(tmp_path / "gone"):
        raise OSError("last.ckpt cannot be written")


def test_a_damaged_checkpoint_is_named_and_training_starts_anew(
    compose: Compose, short: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    cfg = compose(*short)
    folder = Path(cfg.paths.output_dir)
    last = folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    last.write_bytes(b"not a checkpoint")
    assert execute(cfg)["epochs"] == 3
    assert f"{last} cannot be read as a checkpoint" in caplog.text


def test_a_checkpoint_of_another_run_is_refused(compose: Compose, short: list[str]) -> None:
    other, cfg = compose(*short, "seed=1"), compose(*short)
    execute(other)
    folder = Path(cfg.paths.output_dir)
    for name in ("result.json", "identity.json"):
        (folder / name).unlink()
    with pytest.raises(BadCheckpoint, match="belongs to another run"):
        run.execute(cfg, folder, quiet=True)
    assert (folder / "checkpoints" / "last.ckpt").exists()


def test_a_binary_run_starts_from_full_precision(
    compose: Compose, short: list[str], tmp_path: Path
) -> None:
    full = compose("quantizer=fp32", *short, "trainer.max_epochs=1")
    execute(full)
    start = Path(full.paths.output_dir) / "checkpoints" / "last.ckpt"
    task = build.build_task(compose("quantizer=adabin", *short, f"init_from={start}"))
    own = task.net.state_dict()["stages.1.0.conv1.weight"]
    assert torch.equal(own, last_weights(full)["net.stages.1.0.conv1.weight"])


def test_a_checkpoint_is_evaluated_without_training(
    compose: Compose, short: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cfg = compose(*short)
    trained = execute(cfg)
    path = Path(cfg.paths.output_dir) / "checkpoints" / "last.ckpt"
    evaluation = compose(*short, "train=false", f"ckpt_path={path}")
    accuracy = run.execute(evaluation, tmp_path, quiet=True)
    assert accuracy == pytest.approx(trained["metrics"]["last"]["test/acc"])
    assert "360 test images" in capsys.readouterr().out
    with pytest.raises(ValueError, match="ckpt_path"):
        run.execute(compose(*short, "train=false"), tmp_path, quiet=True)


def test_a_held_out_part_replaces_the_test_set(compose: Compose, short: list[str]) -> None:
    result = execute(compose(*short, "dataset.val_fraction=0.25", "trainer.max_epochs=1"))
    names = {"acc", "loss", "top5", "nll", "brier", "ece"}
    assert set(result["metrics"]["last"]) == {f"val/{name}" for name in names}
    assert result["headline"] == "val/acc"
    assert not any(name.startswith("test") for name in result["history"])
    assert result["test_images"] == 359


def fails_at_once(cfg: DictConfig, folder: Path) -> None:
    with pytest.raises(ValueError, match="ckpt_path"):
        run.execute(cfg, folder, quiet=True)


def test_a_finished_job_s_modules_are_freed_before_the_next_one(
    compose: Compose, tmp_path: Path
) -> None:
    """A network that a trainer and a callback hold in a circle, which only a collection ends."""
    network = torch.nn.Linear(1, 1)
    object.__setattr__(network, "trainer", {"network": network})
    alive = weakref.ref(network)
    cfg = compose("backbone=resnet20", "train=false")
    gc.disable()  # else chance may do it
    try:
        del network
        assert alive() is not None
        fails_at_once(cfg, tmp_path)
        assert alive() is None
    finally:
        gc.enable()


def test_every_run_keeps_the_memory_it_frees(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called = []
    monkeypatch.setattr(run, "keep_freed_memory", lambda: called.append(True))
    fails_at_once(compose("backbone=resnet20", "train=false"), tmp_path)
    assert called == [True]


def test_no_epochs_only_count(compose: Compose) -> None:
    """Operations and sizes without any data: the folder of the set does not exist."""
    cfg = compose("backbone=resnet20", "dataset=cifar100", "trainer.max_epochs=0", "logger=none")
    preflight([cfg])
    result = execute(cfg)
    assert result["operations"]["params"] > 270_000
    assert (result["metrics"], result["epochs"]) == ({"last": {}, "best": {}}, 0)


def test_kernels_start_where_the_recipe_says(compose: Compose) -> None:
    task = build.build_task(compose("quantizer=bonn", "backbone=wrn22", "recipe.init_std=0.01"))
    for _, layer in binary_layers(task.net):
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert float(task.net.conv1.weight.detach().std()) > 0.05  # the stem is Kaiming's
    with pytest.raises(ValueError, match=r"recipe\.init_std=0"):
        build.build_task(compose("recipe.init_std=0"))


def test_loss_bonn_needs_binarized_layers(compose: Compose) -> None:
    with pytest.raises(ValueError, match="needs binarized layers"):
        preflight([compose("quantizer=fp32", "loss=bonn", "backbone=resnet20")])


def test_a_cut_run_with_dropout_and_bayesian_losses_continues_bit_for_bit(
    compose: Compose,
    short: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fail_at: FailAt,
    untimed: Untimed,
) -> None:
    arguments = ["quantizer=bonn", "loss=bonn", *short, "backbone=wrn22", "backbone.dropout=0.3"]
    whole = compose(*arguments, f"paths.output_dir={tmp_path}/whole")
    Path(whole.paths.output_dir).mkdir()
    expected = execute(whole)
    cfg = compose(*arguments)
    with monkeypatch.context() as patch:
        fail_at(patch, 1, Cut())
        with pytest.raises(Cut):
            run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    resumed = execute(cfg)
    assert untimed(resumed["history"]) == untimed(expected["history"])
    assert resumed["statistics"] == expected["statistics"]


AUGMENTED = {
    "none": ["dataset.augmentation=none", "dataset.mixup=0.2"],
    "inception": ["dataset.augmentation=inception", "dataset.cutmix=1"],
    "randaugment": ["dataset.augmentation=randaugment", "dataset.erasing=0.5"],
    "trivialaugment": [
        "dataset.augmentation=trivialaugment",
        "loss=squared_hinge",
        "dataset.mixup=1",
        "dataset.cutmix=1",
    ],
}


@pytest.mark.parametrize("choice", AUGMENTED)
def test_a_cut_run_goes_on_bit_for_bit_with_every_augmentation(
    compose: Compose,
    short: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fail_at: FailAt,
    untimed: Untimed,
    caplog: pytest.LogCaptureFixture,
    choice: str,
) -> None:
    caplog.set_level("INFO")
    arguments = [*short, *AUGMENTED[choice], "quantizer=xnor", "trainer.max_epochs=2"]
    whole = compose(*arguments, f"paths.output_dir={tmp_path}/whole")
    Path(whole.paths.output_dir).mkdir()
    expected = execute(whole)
    lines = [line for line in caplog.messages if "waiting for images" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"dataset.augmentation={choice} dataset.")
    cfg = compose(*arguments)
    with monkeypatch.context() as patch:
        fail_at(patch, 1, Cut())
        with pytest.raises(Cut):
            run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    assert untimed(execute(cfg)["history"]) == untimed(expected["history"])
    found, right = last_weights(cfg), last_weights(whole)
    assert all(torch.equal(found[key], right[key]) for key in right)


def test_the_usual_augmentation_is_not_talked_about(
    compose: Compose, short: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    execute(compose(*short, "quantizer=xnor", "trainer.max_epochs=1", "dataset.mixup=0"))
    assert not [line for line in caplog.messages if "waiting for images" in line]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dataset.mixup=0.2 loss=sse", "loss.kind=sse of loss=sse wants one class an image"),
        ("dataset.cutmix=1 loss=bonn quantizer=bonn", "loss.terms.feature of loss=bonn wants one"),
        ("dataset.cutmix=1 loss=mcn quantizer=mcn", "loss.terms.* of loss=mcn wants one class"),
    ],
)
def test_mixed_images_and_a_loss_of_one_class_are_refused(
    compose: Compose, words: str, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"dataset\..*gives images shares in two.*{message}"):
        build.build_task(compose("backbone=resnet20", *words.split()))
