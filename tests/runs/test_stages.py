"""Runs in stages: overrides, weights that carry over, resumes, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from bnnbench.records.fingerprint import fingerprint, run_name
from bnnbench.records.store import read_result
from bnnbench.runs import run, training
from bnnbench.runs.preflight import preflight
from bnnbench.runs.stages import stages

Compose = Callable[..., DictConfig]
Untimed = Callable[[dict[str, Any]], dict[str, Any]]
TWO = (
    "recipe.stages=[{name: first, set: {loss.theta: 0.0}}, {name: second, init_from: previous, "
    "set: {loss.theta: 0.01, recipe.lr: 0.001, trainer.max_epochs: 1}}]"
)
ARGUMENTS = ["quantizer=bonn", "loss=bonn", "trainer.max_epochs=2", TWO]


def weights(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)["state_dict"]


def execute(cfg: DictConfig) -> dict[str, Any]:
    folder = Path(cfg.paths.output_dir)
    run.execute(cfg, folder, quiet=True)
    result = read_result(folder)
    assert result is not None
    return result


def test_stages_override_the_config_in_order(compose: Compose, short: list[str]) -> None:
    first, second = stages(compose(*short, *ARGUMENTS))
    assert (first.name, second.name) == ("first", "second")
    assert (first.continues, second.continues) == (False, True)
    assert (first.cfg.loss.theta, second.cfg.loss.theta) == (0.0, 0.01)
    assert (first.cfg.trainer.max_epochs, second.cfg.trainer.max_epochs) == (2, 1)
    assert second.cfg.loss.terms.feature.weight == 0.01  # interpolations follow
    assert first.folder.name == "stage1_first"


def test_another_option_of_a_group(compose: Compose) -> None:
    staged = stages(
        compose("recipe.stages=[{name: a}, {name: b, set: {loss: bonn, quantizer: xnor}}]")
    )
    assert [stage.cfg.loss.name for stage in staged] == ["task", "bonn"]
    assert [stage.cfg.quantizer.name for stage in staged] == ["adabin", "xnor"]


def test_a_run_without_stages_is_its_own_only_one(compose: Compose) -> None:
    cfg = compose()
    (only,) = stages(cfg)
    assert only.cfg is cfg
    assert only.folder == Path(cfg.paths.output_dir)


R2B = ["quantizer=r2b", "recipe=native", "backbone=resnet20"]


def test_a_structure_typed_as_it_is_is_the_same_run_in_all_its_stages(compose: Compose) -> None:
    """The first stage is a network in full precision, which has fp32's own structure."""
    plain = compose(*R2B)
    typed = compose(
        *R2B,
        f"backbone.shortcut={plain.backbone.shortcut}",
        f"backbone.nonlinearity={plain.backbone.nonlinearity}",
    )
    assert run_name(typed) == run_name(plain)
    names = [[run_name(stage.cfg) for stage in stages(cfg)] for cfg in (plain, typed)]
    assert names[0] == names[1]
    full = stages(typed)[0].cfg.backbone
    assert (full.shortcut, full.nonlinearity) == ("block", "relu")
    other = compose(*R2B, "backbone.shortcut=none")
    assert run_name(other) != run_name(plain)
    assert stages(other)[0].cfg.backbone.shortcut == "none"


def test_one_result_with_every_stage_inside(
    compose: Compose, short: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, torch.Tensor]] = []
    original = training.build_trainer

    def spy(*given: Any) -> Any:
        trainer = original(*given)
        fit = trainer.fit

        def recorded(task: Any, *arguments: Any, **options: Any) -> None:
            started.append({k: v.clone() for k, v in task.state_dict().items()})
            fit(task, *arguments, **options)

        trainer.fit = recorded
        return trainer

    monkeypatch.setattr(training, "build_trainer", spy)
    cfg = compose(*short, *ARGUMENTS)
    result, folder = execute(cfg), Path(cfg.paths.output_dir)
    assert [(stage["name"], stage["epochs"]) for stage in result["stages"]] == [
        ("first", 2),
        ("second", 1),
    ]
    assert result["epochs"] == 3
    assert (result["name"], result["fingerprint"]) == (run_name(cfg), fingerprint(cfg))
    assert [stage["config"]["loss"]["theta"] for stage in result["stages"]] == [0, 0.01]
    assert result["config"]["loss"]["theta"] == cfg.loss.theta == 1e-3
    assert result["history"]["epoch"] == [0, 1, 2]
    assert result["history"]["step"] == [2, 5, 9]  # three an epoch, and one for an evaluation
    assert result["history"]["train/feature"][:2] == [None, None]
    assert result["metrics"]["last"] == result["stages"][1]["metrics"]["last"]
    best = result["metrics"]["best"]
    assert result["history"]["test/acc"][best["epoch"]] == best["test/acc"]
    assert best["epoch"] >= result["stages"][0]["epochs"]
    seconds = sum(stage["time"]["train_s"] for stage in result["stages"])
    assert result["time"]["train_s"] == pytest.approx(seconds)
    carried = weights(folder / "stage1_first" / "checkpoints" / "last.ckpt")
    for name, value in started[1].items():
        if name.startswith("net."):
            assert torch.equal(value, carried[name]), name


def test_a_killed_run_goes_on_in_its_stage_bit_for_bit(
    compose: Compose,
    short: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    untimed: Untimed,
) -> None:
    arguments = [*short, *ARGUMENTS, TWO.replace("max_epochs: 1", "max_epochs: 2")]
    whole = compose(*arguments, f"paths.output_dir={tmp_path}/whole")
    Path(whole.paths.output_dir).mkdir()
    expected = execute(whole)
    from bnnbench.callbacks.progress import QuantizerProgress

    original = QuantizerProgress.on_train_epoch_start
    starts: list[float] = []

    def hook(self: Any, trainer: Any, module: Any) -> None:
        starts.append(module.recipe.lr)
        if len(starts) == 4:
            raise KeyError("cut")
        original(self, trainer, module)

    monkeypatch.setattr(QuantizerProgress, "on_train_epoch_start", hook)
    cfg = compose(*arguments)
    with pytest.raises(KeyError, match="cut"):
        run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    resumed = execute(cfg)
    assert starts == [0.01, 0.01, 0.001, 0.001, 0.001]  # the first stage is not run again
    assert untimed(resumed["history"]) == untimed(expected["history"])
    assert resumed["metrics"] == expected["metrics"]
    files = [
        Path(c.paths.output_dir) / "stage2_second" / "checkpoints" / "last.ckpt"
        for c in (whole, cfg)
    ]
    for name, value in weights(files[0]).items():
        assert torch.equal(value, weights(files[1])[name]), name


def test_force_runs_every_stage_again(compose: Compose, short: list[str], untimed: Untimed) -> None:
    first = execute(compose(*short, *ARGUMENTS))
    again = execute(compose(*short, *ARGUMENTS, "force=true"))
    assert untimed(again["history"]) == untimed(first["history"])
    assert again["time"] != first["time"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[{name: a, init_from: previous}]", "first stage has no previous one"),
        ("[{name: a}, {name: b, init_from: best}]", "only choice is previous"),
        ("[{set: {recipe.lr: 1}}]", "needs a name"),
        ("[{name: a}, {name: a}]", "needs a name of its own"),
        ("[{name: a, sets: {}}]", "no such key \\['sets'\\]"),
        ("[{name: a, set: {recipe.lrr: 1}}]", "no key recipe.lrr"),
        ("[{name: a, set: {loss.theta: 1}}]", "no key loss.theta"),
        ("[{name: a, set: {loss: bon}}]", "loss='bon' does not exist"),
    ],
)
def test_what_makes_no_sense_is_named(compose: Compose, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stages(compose(f"recipe.stages={value}"))


def test_another_network_is_refused_before_any_training(compose: Compose) -> None:
    change = "[{name: a}, {name: b, init_from: previous, set: {backbone: resnet18}}]"
    with pytest.raises(ValueError, match="the stage before b is of another network"):
        preflight([compose("backbone=resnet20", f"recipe.stages={change}")])
    shape = "[{name: a}, {name: b, init_from: previous, set: {backbone.widths: [16, 16, 32, 48]}}]"
    with pytest.raises(ValueError, match="other shape"):
        preflight([compose("backbone=wrn22", f"recipe.stages={shape}")])
    preflight([compose("backbone=resnet20", "recipe.stages=[{name: a}, {name: b}]")])


@pytest.mark.parametrize(
    ("typed", "change", "key"),
    [
        (["loss=bonn", "loss.lambda=0.1"], "loss: bonn", "loss=bonn, so loss.lambda"),
        (["loss=bonn", "loss.terms.kernel.error=magnitude"], "loss: bonn", "loss.terms.kernel.err"),
        (["+loss.task_weight=0.5"], "loss: bonn", "loss.task_weight"),
        (["loss.label_smoothing=0.1"], "loss: bonn", "loss.label_smoothing"),
        (["loss=bonn", "~loss.terms.feature"], "loss: bonn", "~loss.terms.feature"),
        (
            ["+loss.terms.mine={_target_: bnnbench.losses.mcn.FilterLoss, weight: 1}"],
            "loss.terms: {}",
            "loss.terms={}, so loss.terms.mine would",
        ),
        (
            ["loss=bonn", "loss.terms.kernel.nu=1"],
            "loss.terms.kernel: {_target_: bnnbench.losses.bayesian_kernel.BayesianKernel}",
            "loss.terms.kernel.nu",
        ),
        (["teacher=joint", "teacher.nonlinearity=hardtanh"], "teacher: joint", "teacher.nonlin"),
    ],
)
def test_a_stage_that_replaces_part_of_what_was_typed_is_refused(
    compose: Compose, typed: list[str], change: str, key: str
) -> None:
    """By what a run and a sweep check first."""
    change = f"recipe.stages=[{{name: a}}, {{name: b, set: {{{change}}}}}]"
    counts = ["quantizer=bonn", "backbone=resnet20", "trainer.max_epochs=0", "logger=none"]
    cfg = compose(*counts, change, *typed)
    with pytest.raises(ValueError, match=re.escape(key)):
        run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    with pytest.raises(ValueError, match=re.escape(key)):
        preflight([cfg])
    with pytest.raises(ValueError, match=r"^recipe\.stages, b: this stage has"):
        stages(cfg)


def test_a_key_that_every_stage_sets_is_not_typed(compose: Compose) -> None:
    with pytest.raises(ValueError, match=r"every stage sets loss\.theta"):
        stages(compose(*ARGUMENTS, "loss.theta=0.5"))


@pytest.mark.parametrize(
    "typed",
    [
        ["recipe=finetune", "loss=bonn", "loss.lambda=1e-4", "loss.theta=1e-2"],
        ["recipe=two_step", "loss=bonn", "loss.theta=1e-2", "trainer.max_epochs=2"],
        ["loss=bonn", "loss.theta=1", "recipe.stages=[{name: a}, {name: b, set: {loss: task}}]"],
    ],
)
def test_what_some_stage_has_of_a_typed_loss_is_kept(compose: Compose, typed: list[str]) -> None:
    planned = stages(compose("quantizer=bonn", *typed))
    thetas = [stage.cfg.loss.get("theta", 0.0) for stage in planned]
    assert compose("quantizer=bonn", *typed).loss.theta in thetas


def test_a_resolved_config_has_the_same_stages(compose: Compose) -> None:
    """As a result or a checkpoint holds it, where loss.label_smoothing is a number."""
    cfg = compose("quantizer=wage", "backbone=vgg7", "dataset=digits", "recipe=native")
    named = [stage.name for stage in stages(cfg)]
    cfg.loss.label_smoothing = 0.0
    assert [stage.name for stage in stages(cfg)] == named != [""]
    cfg.loss.label_smoothing = 0.1
    with pytest.raises(ValueError, match=r"loss\.label_smoothing would be without effect"):
        stages(cfg)
