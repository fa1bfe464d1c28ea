"""The identity of a run: what it depends on, and what it does not."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from bnnbench.records.fingerprint import fingerprint, fingerprinted, register_resolvers, run_name

Compose = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def composed(conf: Path) -> Iterator[Compose]:
    with initialize_config_dir(str(conf), version_base="1.3"):
        yield lambda *overrides: compose("train", overrides=list(overrides))


@pytest.fixture(scope="module")
def plain(composed: Compose) -> str:
    """Fingerprint of the defaults."""
    return fingerprint(composed())


def test_is_the_hash_of_the_canonical_values() -> None:
    groups = {g: {"name": g} for g in ("quantizer", "loss", "backbone", "recipe")}
    rest = {
        "dataset": {"name": "digits", "data_dir": "${nowhere}", "shape": (1, 8.0)},
        "trainer": {"max_epochs": "${.accumulate}", "accumulate": 2.0, "enable_bar": True},
        "seed": 0,
    }
    text = (
        '{"backbone":{"name":"backbone"},"dataset":{"name":"digits","shape":[1,8]},'
        '"init_from":null,"loss":{"name":"loss"},"quantizer":{"name":"quantizer"},'
        '"recipe":{"name":"recipe"},"seed":0,"trainer":{"accumulate":2,"max_epochs":2}}'
    )
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert fingerprint(OmegaConf.create(groups | rest)) == expected


@pytest.mark.parametrize(
    "override",
    [
        "quantizer=adabin",
        "seed=0",
        "trainer.max_epochs=10",
        "trainer.max_epochs=10.0",
        "recipe.lr=3e-3",
        "recipe.lr=0.0030",
        "backbone.shortcut=conv",  # AdaBin's own
        "quantizer.weight.low=1e-3",
        "backbone.betas=[9e-1,0.999]",
        "recipe.epochs.cifar10=7",  # another data set's
        "trainer.accelerator=gpu",
        "paths.log_dir=/elsewhere",
        "dataset.data_dir=/data",
        "force=true",
        "tags=[mine]",
        "table=small",
        "scale=full",
    ],
)
def test_same_run(composed: Compose, plain: str, override: str) -> None:
    assert fingerprint(composed(override)) == plain


@pytest.mark.parametrize(
    "override",
    [
        "quantizer=xnor",
        "seed=1",
        "seed=null",
        "trainer.max_epochs=11",
        "dataset=cifar10",
        "recipe=native",
        "recipe.lr=0.0031",
        "backbone.shortcut=block",
        "backbone=resnet20",
        "loss.label_smoothing=0.1",
        "+trainer.gradient_clip_val=1",
        "train=false",
    ],
)
def test_another_run(composed: Compose, plain: str, override: str) -> None:
    assert fingerprint(composed(override)) != plain


@pytest.mark.parametrize("key", ["init_from", "ckpt_path"])
def test_a_checkpoint_counts_by_its_content(composed: Compose, tmp_path: Path, key: str) -> None:
    first, copy = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    first.write_bytes(b"weights")
    copy.write_bytes(b"weights")
    before = fingerprint(composed(f"{key}={first}"))
    assert before == fingerprint(composed(f"{key}={copy}"))
    copy.write_bytes(b"other weights")
    assert len({before, fingerprint(composed(f"{key}={copy}")), fingerprint(composed())}) == 3
    with pytest.raises(FileNotFoundError, match=f"{key}=nowhere.ckpt"):
        fingerprint(composed(f"{key}=nowhere.ckpt"))


def test_run_name_is_readable(composed: Compose) -> None:
    cfg = composed("backbone=resnet20", "dataset=cifar10")
    digits = fingerprint(cfg)[:8]
    assert run_name(cfg) == f"cifar10_resnet20_adabin_task_unified_s0_{digits}"


def test_resolver_names_the_run_from_any_depth(composed: Compose) -> None:
    register_resolvers()
    cfg = composed("+somewhere.deep=${run_name:}")
    assert cfg.somewhere.deep == run_name(composed())


def test_a_group_left_out_is_named(composed: Compose) -> None:
    with pytest.raises(ValueError, match="recipe=<name>"):
        fingerprint(composed("~recipe", "trainer.max_epochs=1"))


def test_the_subset_is_plain(composed: Compose) -> None:
    subset = fingerprinted(composed())
    assert subset["trainer"] == {"max_epochs": 10}
    assert subset["quantizer"]["weight"] == {"low": 0.001}


def test_imports_lightly() -> None:
    names = [f"sweep.{name}" for name in ("cli", "devices", "expand", "manifest", "progress")]
    names += [f"records.{name}" for name in ("fingerprint", "provenance", "store")]
    modules = ", ".join(f"bnnbench.{name}" for name in names)
    heavy = "{'torch', 'lightning', 'hydra'}"
    code = f"import sys, {modules}; sys.exit(bool({heavy} & {{*sys.modules}}))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2] / "src")
