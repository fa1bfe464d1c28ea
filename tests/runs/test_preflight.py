"""What is found before the first job of a sweep starts."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig

from bnnbench.runs import preflight as checks
from bnnbench.runs.preflight import preflight

Compose = Callable[..., DictConfig]


def test_a_disk_without_room_for_a_run_is_told(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checkpoints of a ResNet-18 with Adam's moments are 270 MB."""
    cfg = compose("backbone=resnet20", "trainer.max_epochs=0")
    for free, full in ((100e6, True), (1e9, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        if full:
            with pytest.raises(OSError, match=r"100 MB left: set paths\.log_dir"):
                preflight([cfg])
        else:
            preflight([cfg])


def test_what_a_trainer_cannot_be_built_with_is_told(compose: Compose) -> None:
    """Of the second setting, too; the first alone is fine."""
    counts = ["backbone=resnet20", "trainer.max_epochs=0"]
    for bad, told in (
        ("+trainer.profiler=nosuch", "profiler"),
        ("+trainer.strategy=nosuch", "nosuch"),
        ("callbacks.best.mode=up", "mode"),
        ("+trainer.nosuch=1", "nosuch"),
        ("compile=ture", "compile"),
    ):
        with pytest.raises(Exception, match=told):
            preflight([compose(*counts), compose(*counts, bad)])


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        ("{_target_:lightning.pytorch.callbacks.EarlyStopping}", r"callbacks\.own: .*'monitor'"),
        (
            "{_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:test/acc,mode:up}",
            r"callbacks\.own: .*got up",
        ),
        ("{_target_:builtins.dict}", r"callbacks\.own\._target_=builtins\.dict: .* no callback"),
    ],
)
def test_a_callback_that_cannot_be_built_is_told_by_its_key(
    compose: Compose, callback: str, message: str
) -> None:
    counts = ["backbone=resnet20", "trainer.max_epochs=0", "trainer.accelerator=cpu"]
    with pytest.raises(ValueError, match=f"^{message}"):
        preflight([compose(*counts, f"+callbacks.own={callback}")])


def test_each_setting_is_built_once_and_leaves_nothing(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built: list[str] = []
    build = checks.build_trainer

    def spy(*arguments: Any, **options: Any) -> Any:
        built.extend(arguments[0].logger)
        return build(*arguments, **options)

    monkeypatch.setattr(checks, "build_trainer", spy)
    counts = ["backbone=resnet20", "trainer.max_epochs=0"]
    methods = [f"quantizer={name}" for name in ("xnor", "dorefa", "bnn")]
    preflight([compose(*counts, method) for method in methods])
    assert built == ["csv"]
    preflight([compose(*counts, "logger=wandb")])
    assert built == ["csv", "wandb"]
    assert not list(tmp_path.rglob("wandb"))


def test_the_folders_of_the_runs_are_probed(compose: Compose, tmp_path: Path) -> None:
    cfg = compose("backbone=resnet20", "trainer.max_epochs=0")
    (tmp_path / "one").mkdir()
    (tmp_path / "two").write_text("in the way")
    preflight([cfg], [tmp_path / "one", tmp_path / "none"])
    with pytest.raises(OSError, match=r"two cannot be written .*set paths\.log_dir"):
        preflight([cfg], [tmp_path / "one", tmp_path / "two"])
    assert not (tmp_path / "none").exists()


def test_a_temporary_folder_that_is_gone_is_told(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    with pytest.raises(OSError, match=r"^TMPDIR=.*gone cannot be written"):
        preflight([compose("backbone=resnet20", "trainer.max_epochs=0")])


def test_values_of_a_stage_are_checked(compose: Compose) -> None:
    stages = "recipe.stages=[{name: a},{name: b,init_from: previous,set: {recipe.lr: fast}}]"
    with pytest.raises(ValueError, match=r"recipe\.lr=fast: give a number"):
        preflight([compose("backbone=resnet20", "trainer.max_epochs=1", stages)])


def test_what_lightning_says_of_a_machine_is_not_repeated(
    compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    preflight([compose("backbone=resnet20", "trainer.max_epochs=0")])
    assert not [each for each in caplog.records if each.name.startswith("lightning")]


def test_trainers_of_a_cluster_s_machines_are_checked_here(compose: Compose) -> None:
    cfg = compose("backbone=resnet20", "trainer.max_epochs=0", "trainer=gpu")
    preflight([cfg], here=False)
    assert cfg.trainer.accelerator == "gpu"


def test_what_a_stem_is_is_told_once(compose: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    checks._say_once.cache_clear()
    cfg = compose("backbone=resnet20", "trainer.max_epochs=0")
    for _ in range(2):
        preflight([cfg, cfg])
    assert capsys.readouterr().err.count("stem=small (maps of 8 pixels)") == 1
