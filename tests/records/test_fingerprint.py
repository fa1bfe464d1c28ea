"""The identity of a run: what it depends on, what it does not, and that it stays what it was."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from bnnbench import resolvers
from bnnbench.records import identity_keys as module
from bnnbench.records.fingerprint import (
    canonical,
    digest,
    fingerprint,
    fingerprinted,
    flattened,
    run_name,
    world_size,
)
from bnnbench.runs.twin import twin_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "results.md"
Compose = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def composed() -> Iterator[Compose]:
    resolvers.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield lambda *overrides: compose("train", overrides=list(overrides))


@pytest.fixture(scope="module")
def plain(composed: Compose) -> str:
    """Fingerprint of the defaults."""
    return fingerprint(composed())


def decisions() -> list[tuple[str, bool, str]]:
    """The rows of the page's table: key, whether it counts, an example."""
    lines = PAGE.read_text().split("## The fingerprint")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    rows = [row for row in rows if row[1] in ("yes", "no")]
    return [(key.strip("`"), counts == "yes", words.strip("`")) for key, counts, words, _ in rows]


@pytest.mark.parametrize(("key", "counts", "example"), decisions(), ids=lambda value: str(value))
def test_every_row_of_the_page(
    composed: Compose, plain: str, tmp_path: Path, key: str, counts: bool, example: str
) -> None:
    file = tmp_path / "a.ckpt"
    file.write_bytes(b"weights")
    words = example.replace("{file}", str(file))
    overrides = [words] if "{" in words else words.split()
    assert (fingerprint(composed(*overrides)) != plain) is counts


def test_the_page_decides_for_every_key(composed: Compose) -> None:
    rows = {key: counts for key, counts, _ in decisions()}
    counted = ("trainer.devices", "trainer.num_nodes")  # as world_size
    for pattern in set(module.OUTSIDE) - set(counted):
        matching = [key for key in rows if fnmatchcase(key, pattern)]
        assert matching, f"no row says of {pattern}"
        assert not any(rows[key] for key in matching)
    for key in (str(key) for key in composed()):
        assert key in rows or f"{key}.*" in rows or key == "trainer", f"no row says of {key}"


# You are about to orphan results: a run that was finished under such a name is looked up by it. Add
# a key with its neutral value in records/identity_keys.py instead.
GOLDEN = {
    "": "digits_resnet18_adabin_task_unified_s0_e2e42ad1",
    "quantizer=xnor backbone=resnet20 dataset=cifar10 seed=1": (
        "cifar10_resnet20_xnor_task_unified_s1_9e4a8329"
    ),
    "quantizer=bonn loss=bonn backbone=wrn22 dataset=cifar10 recipe=native": (
        "cifar10_wrn22_bonn_bonn_native_s0_7aa3669e"
    ),
    "quantizer=adabin backbone=resnet20 dataset=cifar10 recipe=native": (
        "cifar10_resnet20_adabin_task_native_s0_f1c0673f"
    ),
    "quantizer=tbn backbone=vgg7 recipe=native": "digits_vgg7_tbn_task_unified_s0_5869fde0",
    "quantizer=wage backbone=vgg7 recipe=native": "digits_vgg7_wage_task_native_s0_2d872bce",
    "quantizer=dorefa quantizer.activation_bits=2 backbone=resnet20 compile=true": (
        "digits_resnet20_dorefa_task_unified_s0_8f86e850"
    ),
    "quantizer=reactnet backbone=resnet20 recipe=two_step loss=distributional teacher=timm "
    "teacher.model=resnet18 teacher.pretrained=true": (
        "digits_resnet20_reactnet_distributional_two_step_s0_147891cf"
    ),
    "quantizer=birealnet backbone=ssd300_resnet18 dataset=shapes": (
        "shapes_ssd300_resnet18_birealnet_task_unified_s0_d2111cba"
    ),
    "quantizer=xnor backbone=timm backbone.name=resnet18 dataset=imagenet trainer.devices=4": (
        "imagenet_timm-resnet18_xnor_task_unified_s0_749cb289"
    ),
}


@pytest.mark.parametrize(("command", "name"), GOLDEN.items())
def test_names_stay(composed: Compose, command: str, name: str) -> None:
    assert run_name(composed(*command.split())) == name


def test_is_the_hash_of_the_canonical_values() -> None:
    groups = {g: {"name": g} for g in ("quantizer", "loss", "backbone", "recipe")}
    rest = {
        "dataset": {"name": "digits", "data_dir": "${nowhere}", "shape": (1, 8.0)},
        "trainer": {"max_epochs": "${.accumulate}", "accumulate": 2.0, "enable_bar": True},
        "seed": 0,
        "init_from": None,
    }
    text = (
        '{"backbone":{"name":"backbone"},"callbacks":{"reseed":null},"dataset":{"name":"digits","shape":[1,8]},'
        '"loss":{"name":"loss"},"quantizer":{"name":"quantizer"},"recipe":{"name":"recipe"},'
        '"seed":0,"trainer":{"accumulate":2,"max_epochs":2}}'
    )
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert fingerprint(OmegaConf.create(groups | rest)) == expected


@pytest.mark.parametrize(
    "override",
    [
        "quantizer=adabin",
        "seed=0",
        "trainer.max_epochs=16.0",
        "recipe.lr=1e-2",
        "recipe.lr=0.010",
        "backbone.shortcut=conv",  # AdaBin's own
        "quantizer.weight.t_min=1e-3",
        "recipe.epochs.cifar10=7",  # another data set's
        "trainer.devices=[0]",
        "compile=auto",
        "callbacks.reseed._target_=elsewhere.EpochSeed",  # it may move
        "+trainer.max_time=null",
        "+trainer.max_steps=-1",
        "+trainer.accumulate_grad_batches=1",
        "+trainer.overfit_batches=0.0",
    ],
)
def test_another_spelling_is_the_same_run(composed: Compose, plain: str, override: str) -> None:
    assert fingerprint(composed(override)) == plain


def test_one_batch_is_not_all_of_them(composed: Compose, plain: str) -> None:
    """Lightning reads 1 as one batch and 1.0 as the whole set."""
    limit = "+trainer.limit_train_batches"
    assert fingerprint(composed(f"{limit}=1")) != plain
    assert fingerprint(composed(f"{limit}=1.0")) == plain
    assert fingerprint(composed(f"{limit}=1")) != fingerprint(composed(f"{limit}=2"))


def test_a_key_added_later_renames_nothing_at_its_neutral_value(
    composed: Compose, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.NEUTRAL, "backbone.new_option", "old")
    assert fingerprint(composed("+backbone.new_option=old")) == plain
    assert fingerprint(composed("+backbone.new_option=new")) != plain
    assert fingerprint(composed("+dataset.new_option=old")) != plain


AUGMENTED = ("none", "crop_flip", "inception", "randaugment", "trivialaugment")


@pytest.mark.parametrize(
    ("dataset", "usual", "bare"),
    [
        ("cifar10", "crop_flip", "9e4a8329"),
        ("digits", "crop_flip", ""),
        ("imagenet", "inception", ""),
    ],
)
def test_augmentation_counts_unless_it_is_the_set_s_own(
    composed: Compose, dataset: str, usual: str, bare: str
) -> None:
    line = ["quantizer=xnor", "backbone=resnet20", f"dataset={dataset}", "seed=1"]
    plain = fingerprint(composed(*line))
    assert plain.startswith(bare)
    prints = {a: fingerprint(composed(*line, f"dataset.augmentation={a}")) for a in AUGMENTED}
    assert prints.pop(usual) == plain
    more = ("mixup=0.2", "mixup=1", "cutmix=1.0", "cutmix=0.2", "erasing=0.25", "mixup=0.1")
    found = [fingerprint(composed(*line, f"dataset.{word}")) for word in more]
    assert len({plain, *prints.values(), *found}) == 1 + 4 + len(more)
    off = ["dataset.mixup=0", "dataset.cutmix=0.0", "dataset.erasing=0"]
    assert fingerprint(composed(*line, *off)) == plain
    if dataset == "imagenet":
        assert fingerprint(composed(*line, "dataset.flip=true")) == plain
    assert fingerprint(composed(*line, f"dataset.flip={dataset == 'digits'}")) != plain


def test_augmentation_of_detectors_always_counts(composed: Compose) -> None:
    """There ``flip`` and the like were chosen before: nothing of theirs is left out."""
    line = ["dataset=shapes", "backbone=ssd300_resnet18"]
    for choice in ("ssd", "flip", "none"):
        config = fingerprinted(composed(*line, f"dataset.augmentation={choice}"))
        assert canonical(config)["dataset"]["augmentation"] == choice


def test_what_is_not_set_is_neutral_nowhere(composed: Compose, plain: str) -> None:
    assert fingerprint(composed("dataset=cifar10", "+dataset.new=null")) != fingerprint(
        composed("dataset=cifar10")
    )


def test_a_class_may_move(composed: Compose) -> None:
    config = fingerprinted(composed("loss=bonn", "backbone=wrn22"))
    moved = {
        "loss": config["loss"]
        | {
            "terms": {
                name: node | {"_target_": f"elsewhere.{node['_target_'].rpartition('.')[2]}"}
                for name, node in config["loss"]["terms"].items()
            }
        }
    }
    assert digest(config | moved) == digest(config)
    renamed = {"loss": config["loss"] | {"terms": {"kernel": {"_target_": "a.OtherLoss"}}}}
    assert digest(config | renamed) != digest(config)


def test_what_a_result_stores_gives_its_fingerprint_again(composed: Compose) -> None:
    cfg = composed("quantizer=r2b", "recipe=native", "+trainer.max_steps=7")
    assert digest(fingerprinted(cfg)) == fingerprint(cfg)
    assert digest(canonical(fingerprinted(cfg))) == fingerprint(cfg)


@pytest.mark.parametrize(
    ("overrides", "processes"),
    [
        (["trainer.devices=4"], 4),
        (["trainer.devices=[1,3]", "+trainer.num_nodes=2"], 4),
        (["trainer.devices='0,1,'"], 2),
        (["trainer=ddp", "trainer.accelerator=cpu"], 1),
        (["trainer=ddp"], 3),
    ],
)
def test_devices_and_nodes_count_as_processes(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, overrides: list[str], processes: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert world_size(composed(*overrides)) == processes


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


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], ""),
        (["+trainer.limit_val_batches=2"], "limited_"),
        (["+trainer.limit_train_batches=1"], "limited_"),
        (["+trainer.max_steps=1"], "limited_"),
        (["+trainer.fast_dev_run=true"], "limited_"),
        (["+trainer.max_time=00:00:01:00"], "limited_"),
        (["+trainer.limit_train_batches=1.0"], ""),
        (["+callbacks.ema={_target_: lightning.pytorch.callbacks.EMAWeightAveraging}"], "ema_"),
        (["+callbacks.bar={_target_: lightning.pytorch.callbacks.TQDMProgressBar}"], ""),
    ],
)
def test_the_name_is_readable_and_says_what_is_unusual(
    composed: Compose, overrides: list[str], words: str
) -> None:
    cfg = composed("backbone=resnet20", "dataset=cifar10", *overrides)
    digits = fingerprint(cfg)[:8]
    assert run_name(cfg) == f"cifar10_resnet20_adabin_task_unified_{words}s0_{digits}"
    OmegaConf.update(cfg, "paths.data_mark", "abcd1234")
    assert run_name(cfg).endswith(f"{digits}_dataabcd1234")


def test_a_callback_s_folder_is_no_part_of_it(composed: Compose) -> None:
    words = "lightning.pytorch.callbacks.Timer, duration: '00:01:00:00'"
    timer = f"+callbacks.timer={{_target_: {words}, folder: '${{paths.output_dir}}'}}"
    assert fingerprinted(composed(timer))["callbacks"] == {
        "timer": {"_target_": "lightning.pytorch.callbacks.Timer", "duration": "00:01:00:00"}
    }


def test_what_stands_beside_a_folder_counts(composed: Compose) -> None:
    def named(decay: str) -> str:
        inner = f"a: {{decay: {decay}, folder: '${{paths.output_dir}}'}}"
        return fingerprint(composed(f"+callbacks.e={{_target_: x.E, {inner}}}"))

    assert named("0.9") != named("0.5")


def test_random_numbers_without_their_seeding_are_others(composed: Compose, plain: str) -> None:
    found = {fingerprint(composed(word)) for word in ("~callbacks.reseed", "callbacks.reseed=null")}
    assert len(found) == 1
    assert plain not in found | {fingerprint(composed("~callbacks"))}


def test_what_is_no_callback_is_refused(composed: Compose) -> None:
    with pytest.raises(ValueError, match=r"callbacks\.e=5: a callback is"):
        fingerprint(composed("+callbacks.e=5"))


def test_resolver_names_the_run_from_any_depth(composed: Compose) -> None:
    cfg = composed("+paths.somewhere=${run_name:}")
    assert cfg.paths.somewhere == run_name(composed())


def test_a_group_left_out_is_named(composed: Compose) -> None:
    with pytest.raises(ValueError, match="loss=<name>"):
        fingerprint(composed("~loss"))


def test_leaves_have_dotted_keys() -> None:
    nested = {"a": {"b": {"c": 1}, "d": []}, "e": {}}
    assert flattened(nested) == {"a.b.c": 1, "a.d": [], "e": {}}


def test_imports_lightly() -> None:
    names = [f"sweep.{name}" for name in ("cli", "devices", "expand", "manifest", "progress")]
    names += [f"records.{name}" for name in ("fingerprint", "provenance", "store")]
    names += ["runs.reuse"]
    modules = ", ".join(f"bnnbench.{name}" for name in names)
    heavy = "{'torch', 'lightning', 'hydra', 'pydantic', 'numpy'}"
    code = f"import sys, {modules}; sys.exit(bool({heavy} & {{*sys.modules}}))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "src")


# Results of a default that is another one now, which their rows say: they are of no present option.
OF_FORMER_DEFAULTS = {"cifar10_resnet20_irnet_task_unified_s0_b10d0b44": "irnet's t_min is 0.1"}


def committed() -> list[dict[str, Any]]:
    """Results whose command needs no file that is not committed."""
    found = [json.loads(file.read_text()) for file in (ROOT / "results" / "runs").glob("*.json")]
    elsewhere = ("teacher.folder", "dataset=image_folder")  # whose classes its folder says
    return [r for r in found if not any(words in str(r["overrides"]) for words in elsewhere)]


def typed(result: dict[str, Any]) -> list[str]:
    """A result's overrides, and what a tree of VOC's layout says by itself."""
    if "dataset=voc_folder" not in result["overrides"]:
        return result["overrides"]
    data = result["config"]["dataset"]
    lists = [f"dataset.{key}=[{','.join(data[key])}]" for key in ("classes", "train", "test")]
    return [*result["overrides"], *lists, f"dataset.bad_boxes={data['bad_boxes']}"]


@pytest.mark.parametrize("result", committed(), ids=lambda result: result["name"])
def test_the_command_of_a_committed_result_is_still_that_run(composed: Compose, result) -> None:
    cfg = composed(*typed(result))
    own = twin_of(cfg).cfg if result.get("twin_of") else cfg
    same = fingerprint(own) == result["fingerprint"]
    assert same is (result["name"] not in OF_FORMER_DEFAULTS)
