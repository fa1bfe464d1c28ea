"""What a result says of the machine and of what was typed."""

from types import SimpleNamespace

import pytest
from hydra.core.hydra_config import HydraConfig

from bnnbench.records import provenance


def test_folders_of_this_machine_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = SimpleNamespace(overrides=SimpleNamespace(task=["seed=1", "paths.log_dir=/x"]))
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: typed)
    assert provenance.task_overrides() == ["seed=1"]
