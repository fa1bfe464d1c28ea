"""Types and ranges of a composed config, by the values that a person may type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from bnnbench.checks.values import check_config

Compose = Callable[..., DictConfig]
CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = ("recipe", "dataset", "trainer", "callbacks", "logger")
BASE = ["backbone=resnet20", "dataset=digits"]


@pytest.mark.parametrize(
    "words",
    [
        "dataset.batch_size=64.0",
        "++dataset.classes=[true,cat]",
        "++dataset.classes=[cat,null]",
        "++dataset.classes=cat",
        "dataset.batch_size=1",
        "dataset.batch_size=true",
        "trainer.max_epochs=abc",
        "trainer.max_epochs=1.5",
        "trainer.max_epochs=-1",
        "trainer.max_epochs=null",
        "trainer.max_epochs=1e3",
        "+trainer.limit_train_batches=0",
        "+trainer.limit_val_batches=0",
        "+trainer.limit_test_batches=0.0",
        "+trainer.limit_train_batches=1.5",
        "seed=1.5",
        "seed=null",
        "seed=-1",
        "seed=lucky",
        "seed=99999999999",
        "train=perhaps",
        "train=1",
        "force=perhaps",
        "recipe.lr=fast",
        "recipe.lr=0",
        "recipe.lr=nan",
        "recipe.epochs=7",
        "recipe.epochs.digits=2.5",
        "recipe.milestones=0.5",
        "recipe.nesterov=maybe",
        "dataset.val_fraction=some",
        "dataset.val_fraction=1",
        "dataset.mean=0.3",
        "tags=abc",
        "callbacks.history=null",
        "callbacks.last=abc",
        "callbacks.best.mode=up",
        "trainer.gradient_clip_val=-1",
        "trainer.devices=0",
        "trainer.devices=two",
        "trainer.precision=12bit",
        "trainer.accelerator=quantum",
        "trust=mypkg",
        "trust=[os.path]",
        "quantizer.weight=null",
        "+trainer.overfit_batches=1.5",
        "trainer.accelerator=GPU",
        "+trainer.max_time=later",
        "compile=ture",
        "channels_last=3",
        "init_from=5",
        "quantizer.head_norm=perhaps",
        "quantizer.padding_value=0.5",
        "backbone.padding_value=2",
        "backbone.num_classes=ten",
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_key(compose: Compose, words: str) -> None:
    key = words.lstrip("+").partition("=")[0]
    with pytest.raises(ValueError, match=rf"^{re.escape(key)}=[^;]*: (give|leave)") as error:
        check_config(compose(*BASE, words))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        "seed=0",
        "seed=4294967295",
        "trainer.max_epochs=0",
        "trainer.devices=auto",
        "trainer.devices=-1",
        "trainer.devices=2",
        "trainer.devices=[0]",
        "trainer.devices='0,1'",
        "trainer.precision=bf16-mixed",
        "trainer.precision=32",
        "trainer.accelerator=cuda",
        "trust=[mypkg,timm]",
        "+trainer.overfit_batches=0.5",
        "+trainer.overfit_batches=0",
        "+trainer.max_time=00:01:00:00",
        "+trainer.max_time={hours: 1}",
        "trainer.gradient_clip_val=null",
        "trainer.gradient_clip_val=1",
        "+trainer.limit_train_batches=0.5",
        "+trainer.limit_val_batches=3",
        "+trainer.limit_val_batches=1.0",
        "dataset.data_dir='~/data'",
        "+dataset.workers=auto",
        "dataset.val_fraction=0",
        "recipe.lr=1",
        "quantizer.padding_value=1.0",
        "backbone.padding_value=-1",
        "recipe.milestones=[]",
        "tags=[a,b]",
        "compile=true",
        "callbacks.best=null",
        "callbacks.progress_bar=null",
        "recipe=two_step",
        "logger=wandb",
    ],
)
def test_unusual_values_stay_possible(compose: Compose, words: str) -> None:
    check_config(compose(*BASE, words))


@pytest.mark.parametrize("limit", ["+recipe.steps=5", "+trainer.max_steps=5"])
@pytest.mark.parametrize("epochs", ["null", "-1"])
def test_a_run_may_be_limited_by_its_steps_alone(compose: Compose, limit: str, epochs: str) -> None:
    check_config(compose(*BASE, f"trainer.max_epochs={epochs}", limit))


def test_all_mistakes_are_told_at_once(compose: Compose) -> None:
    with pytest.raises(ValueError, match=r"seed=lucky: .*; tags=abc: "):
        check_config(compose(*BASE, "seed=lucky", "tags=abc"))


def leaves(node: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{place}.{key}")
    else:
        yield place, node


def wrong(value: Any) -> list[Any]:
    """Values of other types than this one's; of a text a list."""
    if isinstance(value, bool):
        return ["word", [1], 0.5, 7]
    if isinstance(value, int):
        return ["word", ["word"], True]
    if isinstance(value, float):
        return ["word", [1], True]
    return ["word", 3] if isinstance(value, list) else [[1]]


def refused(cfg: Any) -> str:
    try:
        check_config(cfg)
    except ValueError as error:
        return str(error)
    return ""


OPTIONS = [
    (group, file.stem)
    for group in GROUPS
    for file in sorted((CONF / group).glob("*.yaml"))
    if (group, file.stem) != ("recipe", "native")  # follows the method's own file
]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=map("=".join, OPTIONS))
def test_every_value_of_every_option_has_its_type(
    compose: Compose, group: str, option: str
) -> None:
    """Of what is written in the file as a value, not as what follows from another one."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml"), resolve=False)
    assert isinstance(node, dict)
    node.pop("defaults", None)
    raw = OmegaConf.to_container(compose(*BASE, f"{group}={option}"), resolve=False)
    assert isinstance(raw, dict)
    raw[group] |= node  # also what the fixture leaves out
    raw[group] |= {key: "given" for key, value in node.items() if value == "???"}
    taken = []
    for key, value in leaves(node, group):
        if value is None or "${" in str(value) or value == {} or "stages" in key:
            continue
        whole = isinstance(value, int) and not re.search(r"warmup|effective_size", key)
        lists = value == "auto" and key in ("dataset.mean", "dataset.std")  # [1] is one as well
        for other in ["word", 3] if lists else [*wrong(value), *([0.5] if whole else [])]:
            changed = OmegaConf.create(raw)
            OmegaConf.update(changed, key, other)
            if not refused(changed).startswith(f"{key}="):
                taken.append((key, other))
    assert not taken
