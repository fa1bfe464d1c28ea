"""What a result says of the machine, of the code's state and of what was typed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from bnnbench.records import provenance

STATUS = Path("/proc/self/status")


def test_folders_of_this_machine_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = SimpleNamespace(overrides=SimpleNamespace(task=["seed=1", "paths.log_dir=/x"]))
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: typed)
    assert provenance.task_overrides() == ["seed=1"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one commit, with a file that it ignores and one that it does not know."""
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / ".gitignore").write_text("logs\n")
    (tmp_path / "train.py").write_text("one")
    name = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    commit = [*name, "commit", "--quiet", "--message", "code"]
    for arguments in (["init", "--quiet"], ["add", "--all"], commit):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run.log").touch()
    (tmp_path / "notes.txt").touch()
    return tmp_path


def test_a_tree_is_dirty_by_changes_of_what_was_committed_alone(checkout: Path) -> None:
    state = provenance.git_state()
    assert re.fullmatch("[0-9a-f]{40}", state["commit"])
    assert state["dirty"] is False
    (checkout / "train.py").write_text("two")
    assert provenance.git_state() == state | {"dirty": True}


def test_outside_a_checkout_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.git_state() == {"commit": None, "dirty": None}


@pytest.mark.skipif(not STATUS.exists(), reason="the kernel's own count is Linux'")
def test_peak_memory_is_the_kernels_in_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    assert found
    megabytes = int(found[1]) * 1024 / 1e6
    # the process that this one was started by may have been larger
    assert 0.99 * megabytes < provenance.peak_memory_mb() < 10 * megabytes


@pytest.mark.skipif(not STATUS.exists(), reason="the kernel's own count is Linux'")
def test_a_peak_that_is_started_again_is_of_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    np.ones(10**9, np.uint8)
    before = provenance.peak_memory_mb()
    assert provenance.restart_peak_memory()
    resident = provenance.peak_memory_mb()
    assert resident < before - 800
    np.ones(3 * 10**8, np.uint8)
    assert 290 < provenance.peak_memory_mb() - resident < 400


def test_a_system_with_one_peak_a_process_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(provenance, "PEAKS", tmp_path / "nowhere" / "clear_refs")
    assert not provenance.restart_peak_memory()
