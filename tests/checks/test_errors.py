"""What is seen of a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bnnbench.checks.errors import Several, is_told, message, messages
from bnnbench.data.known import DatasetMissing
from bnnbench.records.checkpoints import BadCheckpoint
from bnnbench.records.store import DamagedResult


@pytest.fixture
def cfg(tmp_path: Path) -> DictConfig:
    return OmegaConf.create({"paths": {"output_dir": str(tmp_path)}})


@pytest.mark.parametrize(
    "error",
    [
        ValueError("what and why"),
        OSError("what and why"),
        FileNotFoundError("what and why"),
        FloatingPointError("what and why"),
        BadCheckpoint("what and why"),
        DamagedResult("what and why"),
        DatasetMissing("what and why"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_mistake_is_its_message_alone(cfg: DictConfig, tmp_path: Path, error: Exception) -> None:
    with pytest.raises(SystemExit, match=r"^what and why$"), messages(cfg):
        raise error
    assert not (tmp_path / "error.txt").exists()


@pytest.mark.parametrize("kind", [TypeError, AssertionError, KeyError, RuntimeError])
def test_a_bug_names_the_file_that_has_its_traceback(
    cfg: DictConfig, tmp_path: Path, kind: type[Exception]
) -> None:
    """In the folder that the run has by then: data of the same name move it."""
    cfg.paths.output_dir = str(tmp_path / "settled")
    (tmp_path / "settled").mkdir()
    with pytest.raises(SystemExit) as ended, messages(cfg):
        raise kind("deep")
    file = tmp_path / "settled" / "error.txt"
    assert str(ended.value).startswith(f"{kind.__name__}: ")
    assert str(ended.value).endswith(f"; the traceback is in {file}")
    assert "Traceback" in file.read_text()


def test_a_traceback_is_shown_where_it_is_asked_for(
    cfg: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="what and why"), messages(cfg):
        raise ValueError("what and why")


def test_lines_of_a_message_become_one() -> None:
    assert message(ValueError("one\n   two\n")) == "one two"
    assert message(TypeError()) == "TypeError"
    assert message(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_memory_that_is_too_small_says_what_to_lower(error: Exception) -> None:
    assert is_told(error)
    assert message(error).startswith("out of memory: lower dataset.batch_size")


def test_an_interpolation_that_fails_names_its_key() -> None:
    broken = OmegaConf.create({"a": {"b": "${c.d}"}})
    with pytest.raises(OmegaConfBaseException) as error:
        _ = broken.a.b
    assert message(error.value).startswith("a.b: ")
    assert "full_key" not in message(error.value)


def test_mistakes_of_several_runs_have_a_line_each() -> None:
    assert message(Several("quantizer=a: no\nquantizer=b: nor")).count("\n") == 1
    assert message(ValueError("no\n  nor")) == "no nor"
