"""Forced runs: the old files go when the new result stands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from bnnbench.records.store import read_result
from bnnbench.runs import forced, run
from bnnbench.runs.forced import finish_cut_exchange, finish_exchange, workspace

Compose = Callable[..., DictConfig]
FailAt = Callable[[pytest.MonkeyPatch, int, BaseException], None]


class Cut(BaseException):
    """Stands for a power failure."""


def files(folder: Path) -> dict[str, bytes]:
    """What a finished run is: its result, checkpoints and curves."""
    kept = ("result.json", "metrics.csv", "identity.json", "checkpoints/last.ckpt")
    return {name: (folder / name).read_bytes() for name in kept if (folder / name).exists()}


def test_a_failed_forced_run_costs_nothing_and_goes_on(
    compose: Compose, short: list[str], monkeypatch: pytest.MonkeyPatch, fail_at: FailAt
) -> None:
    cfg = compose(*short, "logger=csv", "trainer.max_epochs=2")
    folder = Path(cfg.paths.output_dir)
    run.execute(cfg, folder, quiet=True)
    old = files(folder)
    assert len(old) == 4
    cfg.force = True
    with monkeypatch.context() as patch:
        fail_at(patch, 1, ValueError("in the second epoch"))
        with pytest.raises(ValueError, match="second epoch"):
            run.execute(cfg, folder, quiet=True)
    assert files(folder) == old
    assert "in the second epoch" in (folder / "error.txt").read_text()
    begun = (workspace(folder) / "progress.json").read_text()
    assert json.loads(begun)["epoch"] == 1
    with monkeypatch.context() as patch:
        fail_at(patch, 0, AssertionError("it began anew"))
        run.execute(cfg, folder, quiet=True)
    assert not workspace(folder).exists()
    assert not (folder / "error.txt").exists()
    new = files(folder)
    assert new.keys() == old.keys()
    assert new["result.json"] != old["result.json"]  # times at least
    before, after = (json.loads(each["result.json"]) for each in (old, new))
    assert after["metrics"]["last"] == pytest.approx(before["metrics"]["last"])


def test_options_that_cannot_be_built_cost_nothing(compose: Compose, short: list[str]) -> None:
    cfg = compose(*short, "trainer.max_epochs=1")
    folder = Path(cfg.paths.output_dir)
    run.execute(cfg, folder, quiet=True)
    old = files(folder)
    bad = compose(*short, "trainer.max_epochs=1", "force=true", "+trainer.profiler=nosuch")
    with pytest.raises(Exception, match="profiler"):
        run.execute(bad, folder, quiet=True)
    assert files(folder) == old


def test_a_forced_run_of_another_config_takes_no_checkpoint_of_it(
    compose: Compose, short: list[str], monkeypatch: pytest.MonkeyPatch, fail_at: FailAt
) -> None:
    one = compose(*short, "trainer.max_epochs=2", "force=true")
    folder = Path(one.paths.output_dir)
    with monkeypatch.context() as patch:
        fail_at(patch, 1, ValueError("cut"))
        with pytest.raises(ValueError, match="cut"):
            run.execute(one, folder, quiet=True)
    other = compose(*short, "trainer.max_epochs=2", "force=true", "seed=1")
    run.execute(other, folder, quiet=True)
    result = read_result(folder)
    assert result is not None
    assert result["config"]["seed"] == 1
    assert not workspace(folder).exists()


def stand(folder: Path, what: str, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(what)


def exchanged(folder: Path) -> None:
    """An old run of two stages, and a forced one of one stage that has its result."""
    old = (
        "checkpoints/last.ckpt",
        "stage1_a/stage.json",
        "boxes.png",
        "metrics.csv",
        "packed.json",
    )
    stand(folder, "old", "result.json", *old, ".hydra/config.yaml", "wandb/run-1/log")
    new = ("checkpoints/last.ckpt", "metrics.csv", "identity.json", "wandb/run-2/log")
    stand(workspace(folder), "new", "result.json", *new)


def whole(folder: Path) -> dict[str, str]:
    outside = (".hydra", forced.FOLDER, "wandb", "lock")
    found = [path for path in folder.rglob("*") if path.is_file()]
    named = {str(path.relative_to(folder)): path.read_text() for path in found}
    return {name: text for name, text in named.items() if name.split("/")[0] not in outside}


def cut_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Die before the change to the file system after ``steps`` of them."""
    left = [steps]

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **options: Any) -> Any:
            if left[0] == 0:
                raise Cut
            left[0] -= 1
            return change(*arguments, **options)

        return counting

    for owner, name in ((Path, "unlink"), (Path, "replace"), (Path, "touch"), (shutil, "rmtree")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


def test_an_exchange_cut_anywhere_is_never_a_mix_and_is_finished(tmp_path: Path) -> None:
    exchanged(reference := tmp_path / "reference")
    old = whole(reference)
    assert finish_exchange(reference)
    new = whole(reference)
    assert set(new.values()) == {"new"}
    assert len(new) == 4
    assert {path.parent.name for path in reference.glob("wandb/*/log")} == {"run-1", "run-2"}
    ends, steps = False, 0
    while not ends:
        exchanged(folder := tmp_path / str(steps))
        with pytest.MonkeyPatch.context() as patch:
            cut_after(patch, steps)
            try:
                finish_exchange(folder)
                ends = True
            except Cut:
                pass
        if (folder / "result.json").exists():
            assert whole(folder) in (old, new)
        finish_exchange(folder)
        assert whole(folder) == new
        assert not workspace(folder).exists() or not (workspace(folder) / "result.json").exists()
        steps += 1
    assert steps > 8


def test_a_start_finishes_an_exchange_under_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanged(tmp_path)
    held: list[bool] = []

    def watched(folder: Path) -> bool:
        held.append((folder / "lock").exists())
        return finish_exchange(folder)

    monkeypatch.setattr(forced, "finish_exchange", watched)
    monkeypatch.setenv("RANK", "1")
    finish_cut_exchange(tmp_path, "f")
    assert held == []  # the first process's alone
    monkeypatch.delenv("RANK")
    finish_cut_exchange(tmp_path, "f")
    finish_cut_exchange(tmp_path, "f")
    assert held == [True]
    assert (tmp_path / "result.json").read_text() == "new"
