"""Hash of a method's code: changes with the code, not with its words."""

from pathlib import Path

import pytest

from bnnbench.config import load_option, options, to_dict
from bnnbench.records import provenance


def test_every_quantizer_has_its_own_hash() -> None:
    hashes = {
        provenance.source_hash(to_dict(load_option("quantizer", name, {})))
        for name in options("quantizer")
    }
    assert len(hashes) == len(options("quantizer"))


def test_comments_and_docstrings_do_not_count(tmp_path: Path) -> None:
    versions = {
        "a": 'def f(x):\n    """Words."""\n    return x\n',
        "b": "def f(x):\n    # other words\n    return x\n",
        "c": "def f(x):\n    return 2 * x\n",
    }
    for name, text in versions.items():
        (tmp_path / f"{name}.py").write_text(text)
    code = {name: provenance._code(tmp_path / f"{name}.py") for name in versions}
    assert code["a"] == code["b"] != code["c"]


def test_folders_of_this_machine_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from hydra.core.hydra_config import HydraConfig

    typed = SimpleNamespace(overrides=SimpleNamespace(task=["seed=1", "paths.log_dir=/x"]))
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: typed)
    assert provenance.task_overrides() == ["seed=1"]
