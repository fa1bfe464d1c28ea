"""Added keys: what is read is accepted, what nothing reads is refused with the valid ones."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable

import lightning as L
import pytest
from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from bnnbench.checks import keys
from bnnbench.checks.keys import arguments, check_added, check_added_to_hydra
from bnnbench.tasks import rebuilt

Compose = Callable[..., DictConfig]
STOPPING = "_target_: lightning.pytorch.callbacks.EarlyStopping"
KURTOSIS = "_target_: bnnbench.losses.kurtosis.Kurtosis"


@pytest.mark.parametrize(
    "words",
    [
        "+trainer.limit_train_batches=2",
        "+trainer.reload_dataloaders_every_n_epochs=1",
        "++trainer.max_epochs=1",
        "+dataset.eval_batch_size=3",
        "+dataset={eval_batch_size: 3}",
        "++seed=3",
        "+recipe.steps=3",
        "+recipe.groups.latent.lr=0.3",
        "++recipe.epochs.digits=3",
        "+quantizer.norm_start=0.5",
        "+loss.task_weight=0.5",
        f"+loss.terms.x={{{KURTOSIS}, weight: 1, target: 1.8}}",
        f"+callbacks.own={{{STOPPING}, monitor: test/acc}}",
        "+callbacks.best.save_top_k=3",
        "++callbacks.best=null",
        "+width=3 trainer.max_epochs='${width}'",  # a variable of the user's own
        "loss=hints +quantizer.activation_bits=3",  # read by an interpolation of the loss
        "recipe=two_step ++recipe.first=0.3",
        "backbone=timm backbone.name=resnet10t ++backbone.kwargs.stem_width=4",
        "experiment=cifar10_short",
    ],
)
def test_keys_that_are_read_may_be_added(compose: Compose, words: str) -> None:
    typed = [words] if "{_target_" in words or "{eval" in words else words.split(" ")
    check_added(compose(*typed), typed)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("+dataset.batchsize=3", "Did you mean 'dataset.batch_size'.*eval_batch_size"),
        ("++dataset.batchsize=3", "Did you mean 'dataset.batch_size'"),
        ("+dataset={batchsize: 3}", "Did you mean 'dataset.batch_size'"),
        ("+dataset.workers=3", "nothing reads workers of dataset=digits"),
        ("+dataset.spec=3", "nothing reads spec"),
        ("+trainer.max_epoch=3", "Did you mean 'trainer.max_epochs'.*limit_train_batches"),
        ("+trainer.logger=false", "the run sets trainer.logger itself; use logger="),
        ("+trainer.default_root_dir=x", "use paths.output_dir="),
        ("+trainer.callbacks=[]", r"use \+callbacks"),
        ("+dataset.channels_last=true", "use channels_last="),
        ("+recipe.lrr=1", "Did you mean 'recipe.lr'.*weight_decay"),
        ("+recipe.groups.latnt.lr=1", "Did you mean 'recipe.groups.latent'"),
        ("+recipe.groups.latent.lrr=1", "Did you mean 'recipe.groups.latent.lr'"),
        ("+recipe.epochs.digitss=1", "Did you mean 'recipe.epochs.digits'"),
        ("recipe=two_step +recipe.frist=0.3", "Did you mean 'recipe.first'"),
        ("+foo=1", "nothing reads foo of the top level.*quantizer, recipe"),
        ("+sed=1", "Did you mean 'seed'"),
        ("+debug.x=1", "nothing reads debug"),
        ("+quantizer@second=bonn", "nothing reads second"),
        ("+callbacks.histroy.x=1", "Did you mean 'callbacks.history'.*a new callback is"),
        ("+callbacks.history.x=1", "callbacks.history has no keys"),
        (f"+callbacks.own={{{STOPPING}, monitr: x}}", "Did you mean 'callbacks.own.monitor'"),
        (f"+callbacks.own={{{STOPPING}x}}", "has no attribute 'EarlyStoppingx'"),
        ("+callbacks.own={_target_: nowhere.X}", "No module named 'nowhere'"),
        ("+loss.lamda=1", "nothing reads lamda of loss=task.*terms"),
        ("loss=bonn +loss.lamda=1", "Did you mean 'loss.lambda'"),
        ("loss=bonn +loss.terms.kernel.momentun=1", "Did you mean 'loss.terms.kernel.momentum'"),
        ("+loss.terms.x={weight: 1}", "a new term is"),
        ("backbone=resnet20 +backbone.depht=3", "Valid keys of backbone=resnet20: downsample"),
        ("quantizer=xnor +quantizer.t_min=1", "nothing reads t_min of quantizer=xnor"),
        ("quantizer=xnor +quantizer.weight.foo=1", "Valid keys of quantizer.weight: gradient"),
        ("quantizer=xnor +quantizer.activation.foo=1", "quantizer.activation has no keys"),
        ("+teacher.x=1", "teacher=none has no keys"),
        ("+logger.prject=x", "nothing reads prject of logger. Valid keys of logger: csv"),
        ("logger=wandb +logger.wandb.prject=x", "Did you mean 'logger.wandb.project'"),
        ("+paths.log_dri=x", "Did you mean 'paths.log_dir'"),
        ("+table.title=x", "table=none has no keys"),
        (
            "dataset=shapes backbone=ssd300_resnet18 +dataset.generate.siz=4",
            "Did you mean 'dataset.generate.size'",
        ),
    ],
)
def test_a_key_that_nothing_reads_is_refused(compose: Compose, words: str, told: str) -> None:
    typed = [words] if "{" in words else words.split(" ")
    with pytest.raises(ValueError, match=told) as error:
        check_added(compose(*typed), typed)
    assert "\n" not in str(error.value)


def test_hydras_own_keys_are_those_of_its_classes() -> None:
    hydra = OmegaConf.structured(HydraConf)
    check_added_to_hydra(hydra, ["+hydra.job.env_set.X=1", "++hydra.verbose=true"])
    for word, told in (
        ("+hydra.verbos=1", "Did you mean 'hydra.verbose'"),
        ("+hydra.job.nam=1", "Did you mean 'hydra.job.name'"),
        ("+hydra.run.folder=1", "Valid keys of hydra.run: dir"),
    ):
        with pytest.raises(ValueError, match=told):
            check_added_to_hydra(hydra, [word])


def test_what_is_known_by_heart_is_what_the_code_reads() -> None:
    trainer = set(inspect.signature(L.Trainer).parameters)
    assert set(keys.USUAL["trainer"]) <= trainer == arguments("lightning.Trainer")
    assert {*rebuilt.LOSS_KEYS, "terms", "task_weight"} == set(keys.READ["loss"])
    for name in keys.USUAL["dataset"]:
        assert name in (arguments("bnnbench.data.ImageDataModule") or ())


def test_the_usual_keys_cost_no_import() -> None:
    code = (
        "import sys; from omegaconf import OmegaConf\n"
        "from bnnbench.checks.keys import check_added\n"
        "cfg = OmegaConf.create({'trainer': {'limit_train_batches': 2}})\n"
        "check_added(cfg, ['+trainer.limit_train_batches=2'])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class Placed:
    def __init__(self, data_dir: str = "/here", *, folder: str, **rest: object) -> None: ...


class Handing(Placed):
    def __init__(self, size: int = 1, **rest: object) -> None:
        super().__init__(**rest)  # pyright: ignore


class Asking(Placed):
    def __init__(self, data_dir: str) -> None:
        super().__init__(data_dir, folder="")


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (Placed, "data_dir", True),
        (Placed, "folder", False),
        (Handing, "data_dir", True),
        (Handing, "size", True),
        (Asking, "data_dir", False),
        (Asking, "nothing", False),
    ],
)
def test_whether_a_class_says_a_default(kind: type, name: str, said: bool) -> None:
    assert keys.has_default(f"{__name__}.{kind.__name__}", name) is said
