"""Runs on other data, told without a look at the same data for every run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from bnnbench.runs import reuse


def test_each_data_set_is_looked_at_once(
    compose: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the seed: of a large folder each look takes minutes."""
    looked: list[dict[str, Any]] = []
    monkeypatch.setattr(
        reuse, "stamp_of", lambda dataset, _: looked.append(dataset) or dataset["data_dir"]
    )
    cfgs = [
        compose(f"seed={seed}", f"dataset.data_dir={tmp_path}/{folder}")
        for folder in "ab"
        for seed in range(3)
    ]
    marks = reuse.settled_marks(cfgs, [f"run{cfg.seed}" for cfg in cfgs])
    assert [mark is None for mark in marks] == [True] * 3 + [False] * 3
    assert [dataset["data_dir"][-1] for dataset in looked] == ["a", "b"]


def test_the_seed_of_anybodys_own_data_may_make_them(
    compose: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "stamp_of", lambda dataset, _: f"sha256:{dataset['seed']}")
    stamps = reuse.Stamps()
    for seed in (1, 2):
        cfg = compose(f"seed={seed}")
        OmegaConf.update(cfg, "dataset._target_", "mypackage.Drawn")
        assert stamps.of(cfg) == f"sha256:{seed}"
