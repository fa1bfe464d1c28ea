"""A new run says where a shorter one of the same config could go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from bnnbench.records.fingerprint import fingerprinted, run_name
from bnnbench.runs import longer
from bnnbench.runs.reuse import Run

Compose = Callable[..., DictConfig]


def finished(cfg: DictConfig, **parts: object) -> Path:
    """A run's folder as a training of all its epochs leaves it."""
    folder = Path(cfg.paths.runs_dir) / run_name(cfg)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    result = {"config": fingerprinted(cfg), "epochs": cfg.trainer.max_epochs, "ended": None}
    (folder / "result.json").write_text(json.dumps(result | parts))
    return folder


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(folder: Path) -> dict[str, object] | None:
        file = folder / "result.json"
        return json.loads(file.read_text()) if file.exists() else None

    monkeypatch.setattr(longer, "read_result", read)


def advised(cfg: DictConfig) -> str | None:
    return longer.advice(Run(cfg, Path(cfg.paths.runs_dir) / run_name(cfg)))


def test_the_longest_shorter_one_is_named(compose: Compose) -> None:
    assert advised(compose("trainer.max_epochs=9")) is None
    folders = [finished(compose(f"trainer.max_epochs={epochs}")) for epochs in (2, 5, 12)]
    finished(compose("trainer.max_epochs=8", "recipe.lr=0.5"))
    finished(compose("trainer.max_epochs=7"), ended="early_stop: test/acc")
    finished(compose("trainer.max_epochs=6"), stages=[{}])
    told = advised(compose("trainer.max_epochs=9"))
    assert told is not None
    assert "the same run of 5 epochs has finished" in told
    assert told.endswith(f"add ckpt_path={folders[1]}/checkpoints/last.ckpt")


def test_one_that_has_begun_or_goes_on_is_told_nothing(compose: Compose) -> None:
    folder = finished(compose("trainer.max_epochs=2"))
    assert advised(compose("trainer.max_epochs=1")) is None
    start = f"ckpt_path={folder}/checkpoints/last.ckpt"
    assert advised(compose("trainer.max_epochs=9", start)) is None
    begun = compose("trainer.max_epochs=9")
    assert advised(begun) is not None
    own = Path(begun.paths.runs_dir) / run_name(begun) / "checkpoints"
    own.mkdir(parents=True)
    (own / "last.ckpt").touch()
    assert advised(begun) is None
