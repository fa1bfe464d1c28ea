"""What of Lightning a run takes, and what is refused before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback, ProgressBar
from omegaconf import DictConfig

from bnnbench.runs import run
from bnnbench.runs.build import build_trainer
from bnnbench.runs.preflight import check_settings, preflight

Compose = Callable[..., DictConfig]
LIGHTNING = "lightning.pytorch.callbacks"


def added(name: str, arguments: str = "") -> str:
    return f"+callbacks.mine={{_target_: {LIGHTNING}.{name}{arguments}}}"


REFUSED = {
    added("LearningRateFinder"): "recipe.lr=0.1,0.01",
    added("BatchSizeFinder"): "dataset.batch_size=64,128",
    added("ModelPruning", ", pruning_fn: l1_unstructured"): "leave it out",
    added("BackboneFinetuning"): "recipe=two_step",
    added("StochasticWeightAveraging", ", swa_lrs: 0.1"): "EMAWeightAveraging",
    added("GradientAccumulationScheduler", ", scheduling: {0: 2}"): "accumulate_grad_batches",
    added("LearningRateMonitor", ", logging_interval: epoch"): "logger=csv",
    added("DeviceStatsMonitor"): "logger=csv",
    added("LambdaCallback", ", on_train_start: {_target_: builtins.print}"): "on_train_start",
    added("Nothing"): "callbacks.mine._target_=",
    "+callbacks.mine={_target_: nowhere.Nothing}": "nowhere",
    "+trainer.logger=true": "logger=csv",
    "+trainer.default_root_dir=/tmp": "paths.log_dir",
    "+trainer.barebones=true": "no result",
    "+trainer.strategy=ddp_spawn": "choose from auto, ddp",
    "+trainer.strategy=fsdp": "choose from auto, ddp",
    "+trainer.strategy=deepspeed_stage_2": "choose from auto, ddp",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_a_run_cannot_have_is_refused_at_once(
    compose: Compose, short: list[str], override: str
) -> None:
    cfg = compose(*short, override)
    with pytest.raises(ValueError, match=REFUSED[override]):
        run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    with pytest.raises(ValueError, match=REFUSED[override]):
        preflight([cfg])
    assert not (Path(cfg.paths.output_dir) / "identity.json").exists()


def test_a_sweep_s_cells_are_checked_before_their_folders_are_known(compose: Compose) -> None:
    check_settings(compose("paths.output_dir=${hydra:runtime.output_dir}"))


def test_two_bars_are_refused(compose: Compose) -> None:
    bar = f"callbacks.progress_bar={{_target_: {LIGHTNING}.RichProgressBar}}"
    with pytest.raises(ValueError, match=r"callbacks.progress_bar and callbacks.mine"):
        check_settings(compose(bar, added("TQDMProgressBar")))


@pytest.mark.parametrize(
    "override", ["+trainer.fast_dev_run=true", "+trainer.enable_checkpointing=false"]
)
def test_stages_need_the_checkpoint_of_the_one_before(compose: Compose, override: str) -> None:
    with pytest.raises(ValueError, match="which the next stage starts from"):
        check_settings(compose("recipe=two_step", "trainer.max_epochs=2", override))


@pytest.mark.parametrize(
    "override",
    [
        "+trainer.enable_checkpointing=false",
        "+trainer.overfit_batches=1",
        "trainer.num_sanity_val_steps=1",
        "+trainer.val_check_interval=2",
        added("ModelSummary"),
        added("Timer", ", duration: '00:01:00:00'"),
    ],
)
def test_what_a_run_can_have_gives_a_result(
    compose: Compose, short: list[str], override: str
) -> None:
    few = [] if "overfit" in override else short[3:4]
    cfg = compose(*short[:3], *few, "logger=none", "trainer.max_epochs=1", override)
    folder = Path(cfg.paths.output_dir)
    run.execute(cfg, folder, quiet=True)
    assert json.loads((folder / "result.json").read_text())["epochs"] == 1
    assert bool(list(folder.rglob("*.ckpt"))) is ("checkpointing" not in override)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+trainer.limit_test_batches=0"], "limit_test_batches=0 of 1"),
        (["+trainer.limit_test_batches=0.5"], "limit_test_batches=0.5 of 1"),
        (["dataset.val_fraction=0.2", "+trainer.limit_val_batches=0"], "limit_val_batches=0 of 1"),
    ],
)
def test_an_evaluation_of_nothing_is_refused_before_the_training(
    compose: Compose, short: list[str], overrides: list[str], message: str
) -> None:
    cfg = compose(*short, *overrides)
    with pytest.raises(ValueError, match=message):
        run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    assert not (Path(cfg.paths.output_dir) / "progress.json").exists()


@pytest.mark.parametrize(
    ("overrides", "quiet", "bars"),
    [
        ([f"callbacks.progress_bar={{_target_: {LIGHTNING}.RichProgressBar}}"], False, 1),
        ([f"callbacks.progress_bar={{_target_: {LIGHTNING}.RichProgressBar}}"], True, 0),
        (["trainer.enable_progress_bar=false"], False, 0),
        (["callbacks.progress_bar=null"], False, 0),
        ([added("TQDMProgressBar")], False, 1),
    ],
)
def test_the_bar_is_the_one_that_was_asked_for(
    compose: Compose, tmp_path: Path, overrides: list[str], quiet: bool, bars: int
) -> None:
    trainer: Any = build_trainer(compose("logger=none", *overrides), tmp_path, quiet)
    assert sum(isinstance(callback, ProgressBar) for callback in trainer.callbacks) == bars


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [added("EarlyStopping", ", monitor: val/acc")],
            r"^callbacks\.mine\.monitor=val/acc: nothing is held out; set "
            r"dataset\.val_fraction=0\.1 \(monitor=test/acc would choose on test data\)$",
        ),
        (["callbacks.best.monitor=val/loss"], "nothing is held out"),
        ([added("EarlyStopping", ", monitor: val_loss")], "choose from test/acc, test/loss, train"),
        ([added("EarlyStopping", ", monitor: test/nll")], "choose from test/acc"),
        ([added("EarlyStopping", ", monitor: test/acc"), "dataset.val_fraction=0.1"], "val/acc,"),
        (["callbacks.best.monitor=train/kernel"], "train/loss, .*epoch, step$"),
        (["loss=bonn", "loss.lambda=0", "callbacks.best.monitor=train/kernel"], "train/feature"),
        (["dataset=shapes", added("EarlyStopping", ", monitor: test/acc")], "test/map"),
        (
            [
                "recipe.stages=[{name: a}, {name: b, set: {loss: kurtosis}}]",
                "callbacks.best.monitor=train/kurtosis",
            ],
            "nothing logs it",
        ),
    ],
)
def test_what_nothing_logs_is_not_monitored(
    compose: Compose, overrides: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_settings(compose(*overrides))
    counts = ["backbone=resnet20", "trainer.max_epochs=0"]
    with pytest.raises(ValueError, match=message):
        preflight([compose(*counts, *overrides)])


@pytest.mark.parametrize(
    "overrides",
    [
        [added("EarlyStopping", ", monitor: val/acc"), "dataset.val_fraction=0.1"],
        [added("EarlyStopping", ", monitor: train/kernel"), "quantizer=bonn", "loss=bonn"],
        ["callbacks.best.monitor=kernel/sigma", "quantizer=bonn", "loss=bonn"],
        ["callbacks.best.monitor=train/kd", "loss=distributional", "teacher=joint"],
        ["callbacks.best.monitor=train/teacher", "loss=kd", "teacher=joint"],
        ["callbacks.best.monitor=step"],
        ["callbacks.best.monitor=null"],
        [
            "logger=csv",
            added("LearningRateMonitor", ", logging_interval: epoch"),
            "callbacks.best.monitor=lr-Adam",
        ],
    ],
)
def test_what_is_logged_is_monitored(
    compose: Compose, short: list[str], overrides: list[str]
) -> None:
    cfg = compose(*short[:-1], "logger=none", "trainer.max_epochs=1", *overrides)
    run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)


def test_what_somebody_s_own_callback_logs_is_not_known(compose: Compose) -> None:
    own = f"+callbacks.own={{_target_: {__name__}.Own}}"
    check_settings(compose(own, "callbacks.best.monitor=mine"))
    with pytest.raises(ValueError, match="nothing is held out"):
        check_settings(compose(own, "callbacks.best.monitor=val/mine"))


class Own(Callback):
    """Somebody's own."""
