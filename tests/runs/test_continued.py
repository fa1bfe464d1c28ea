"""A finished run that goes on for longer, against closed forms and runs of that length."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from bnnbench.callbacks import progress
from bnnbench.records.fingerprint import fingerprint, run_name
from bnnbench.records.store import read_result
from bnnbench.report.notes import facts_of
from bnnbench.report.rows import Row
from bnnbench.runs.reuse import check_start
from bnnbench.runs.run import execute
from bnnbench.tasks.base import Task

Compose = Callable[..., DictConfig]
LR, TOTAL = 0.01, 12  # 4 epochs of 3 steps


def computed(result: dict[str, Any]) -> dict[str, Any]:
    """The history without what differs from run to run."""
    timed = ("epoch_s", "images_per_s")
    return {name: values for name, values in result["history"].items() if name not in timed}


@pytest.fixture
def tiny(compose: Compose, short: list[str], tmp_path: Path) -> Callable[..., DictConfig]:
    """Runs of 3 steps an epoch, each in a folder of its own: ``tiny("a", 2, "recipe.lr=1")``."""

    def composed(folder: str, epochs: int, *overrides: str) -> DictConfig:
        one_batch = ("quantizer=xnor", f"trainer.max_epochs={epochs}", f"recipe.lr={LR}")
        cfg = compose(*short, *one_batch, "dataset.batch_size=8", *overrides)
        cfg.paths.output_dir = str(tmp_path / folder)
        return cfg

    return composed


def run(cfg: DictConfig) -> dict[str, Any]:
    folder = Path(cfg.paths.output_dir)
    folder.mkdir(exist_ok=True)
    execute(cfg, folder, quiet=True)
    result = read_result(folder)
    assert result is not None
    return result


def last(cfg: DictConfig) -> Path:
    return Path(cfg.paths.output_dir) / "checkpoints" / "last.ckpt"


def weights(cfg: DictConfig) -> dict[str, Any]:
    return torch.load(last(cfg), weights_only=True)["state_dict"]


STEPS = ("recipe.schedule=step", "recipe.milestones=[5,8]")


@pytest.mark.parametrize(
    "schedule",
    [("recipe.schedule=constant",), (*STEPS, "recipe.warmup=2")],
    ids=["constant", "step"],
)
def test_a_schedule_that_knows_no_end_goes_on_bit_for_bit(
    tiny: Callable[..., DictConfig], schedule: tuple[str, ...]
) -> None:
    whole = tiny("whole", 4, *schedule)
    expected = run(whole)
    first = tiny("first", 2, *schedule)
    run(first)
    second = tiny("second", 3, *schedule, f"ckpt_path={last(first)}")
    run(second)
    third = tiny("third", 4, *schedule, f"ckpt_path={last(second)}")
    found = run(third)
    assert computed(found) == computed(expected)
    assert found["metrics"] == expected["metrics"]
    own = weights(third)
    assert all(torch.equal(tensor, own[key]) for key, tensor in weights(whole).items())
    assert found["fingerprint"] != expected["fingerprint"]
    assert found["continued"]["lr"][0] == found["continued"]["lr"][1]
    assert found["continued"]["epochs"] == 3


def onecycle(step: int, low: float, high: float) -> float:
    """Torch's second phase, by cosine, from its end_step of ``0.3 * total - 1``."""
    share = (step - (0.3 * TOTAL - 1)) / (TOTAL - 1 - (0.3 * TOTAL - 1))
    return low + (high - low) / 2 * (1 + math.cos(math.pi * share))


@pytest.mark.parametrize(
    ("schedule", "rate"),
    [
        (("cosine",), lambda s: LR * (1 + math.cos(math.pi * s / TOTAL)) / 2),
        (("linear",), lambda s: LR * (1 - s / TOTAL)),
        (("onecycle",), lambda s: onecycle(s, LR / 25 / 1e4, LR)),
        (
            ("step", "recipe.milestones=[0.25,0.75]"),
            lambda s: LR * 0.1 ** ((s >= TOTAL / 4) + (s >= 3 * TOTAL / 4)),
        ),
    ],
    ids=["cosine", "linear", "onecycle", "step"],
)
def test_all_others_go_on_as_in_a_run_of_the_longer_length(
    tiny: Callable[..., DictConfig],
    schedule: tuple[str, ...],
    rate: Callable[[int], float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed = (f"recipe.schedule={schedule[0]}", *schedule[1:])
    first = tiny("first", 2, *typed)
    before = run(first)
    seen: list[tuple[float, float]] = []

    def spy(task: Task, optimizer: torch.optim.Optimizer) -> None:
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["betas"][0]))

    monkeypatch.setattr(Task, "on_before_optimizer_step", spy)
    longer = tiny("longer", 4, *typed, f"ckpt_path={last(first)}")
    found = run(longer)
    assert [lr for lr, _ in seen] == pytest.approx([rate(s) for s in range(6, 12)], rel=1e-9)
    if schedule[0] == "onecycle":  # which cycles Adam's first beta against the rate
        assert [beta for _, beta in seen] == pytest.approx(
            [onecycle(s, 0.95, 0.85) for s in range(6, 12)], rel=1e-9
        )
    assert found["continued"]["lr"][1] == pytest.approx(rate(6), rel=1e-9)
    assert found["continued"]["name"] == before["name"]
    assert found["epochs"] == 4
    assert found["history"]["train/loss"][:2] == before["history"]["train/loss"]
    assert "_continued_" in run_name(longer)
    assert fingerprint(longer) != fingerprint(tiny("other", 4, *typed))
    column = facts_of([Row({}, results=[before]), Row({}, results=[found])], [])[0]
    told = {name: fact(found) for name, fact in column}
    assert told["continued"] == f"from epoch 2 of {before['name']}"


def test_scheduled_quantizers_move_as_in_the_longer_run(
    tiny: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny("first", 2, "quantizer=irnet")
    run(first)
    places: list[tuple[float, float]] = []
    real = progress.set_progress

    def spy(module: Any, epoch: float, max_epochs: float) -> None:
        places.append((epoch, max_epochs))
        real(module, epoch, max_epochs)

    monkeypatch.setattr(progress, "set_progress", spy)
    run(tiny("longer", 4, "quantizer=irnet", f"ckpt_path={last(first)}"))
    assert places == [(2, 4), (3, 4)]


def test_a_cut_one_goes_on_where_it_was(
    tiny: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny("first", 2)
    run(first)
    whole = tiny("whole", 4, f"ckpt_path={last(first)}")
    expected = run(whole)
    cut = tiny("cut", 4, f"ckpt_path={last(first)}")

    def fail(task: Task) -> None:
        if task.current_epoch == 3:
            raise RuntimeError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(Task, "on_train_epoch_start", fail)
        with pytest.raises(RuntimeError, match="cut"):
            run(cut)
    assert torch.load(last(cut), weights_only=True)["epoch"] == 2
    found = run(cut)
    assert computed(found) == computed(expected)
    assert found["continued"] == expected["continued"]


def test_what_cannot_go_on_says_why(tiny: Callable[..., DictConfig], tmp_path: Path) -> None:
    first = tiny("first", 2)
    run(first)
    start = f"ckpt_path={last(first)}"
    content = torch.load(last(first), weights_only=True)
    torch.save(content["state_dict"], tmp_path / "bare.pt")
    for typed, said in (
        ((2, start), "has been trained for 2 epochs: give a larger trainer.max_epochs than 2"),
        (
            (4, start, "seed=3"),
            r"whose config is another one \(.*seed=0, here 3\): type that run's",
        ),
        ((4, start, "recipe.weight_decay=0.1"), "recipe.weight_decay=0.0, here 0.1"),
        ((4, start, "compile=true"), r"another one \(callbacks, compile, or what it started from"),
        (
            (4, f"ckpt_path={tmp_path}/bare.pt"),
            "does not say which run it belongs to: .*init_from=",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            run(tiny("refused", *typed))
    for typed, said in (
        ((0, start), "trainer.max_epochs=0: start from its weights with init_from="),
        ((4, start, "+trainer.max_steps=9"), "its length is given in steps"),
        ((4, start, "recipe=two_step"), "recipe=two_step trains in stages"),
    ):
        with pytest.raises(ValueError, match=said):
            check_start(tiny("refused", *typed))


def test_only_a_finished_run_on_the_same_data_goes_on(
    tiny: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny("first", 3)

    def fail(task: Task) -> None:
        if task.current_epoch == 1:
            raise RuntimeError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(Task, "on_train_epoch_start", fail)
        with pytest.raises(RuntimeError, match="cut"):
            run(first)
    with pytest.raises(ValueError, match="holds 1 of the 3 epochs of digits_resnet20_xnor_"):
        run(tiny("refused", 4, f"ckpt_path={last(first)}"))
    run(first)
    content = torch.load(last(first), weights_only=True)
    content["bnnbench"]["data_stamp"] = f"sha256:{'0' * 64}"
    torch.save(content, last(first))
    with pytest.raises(ValueError, match="other data of the same name: restore those"):
        run(tiny("refused_data", 4, f"ckpt_path={last(first)}"))
