"""Which options and callbacks of Lightning's a run takes, and why it takes no others."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import lightning as L
import torch
from lightning.pytorch import callbacks as pl
from omegaconf import DictConfig, OmegaConf

from bnnbench.checks.packages import check_packages
from bnnbench.checks.signatures import check_arguments
from bnnbench.config import target, to_dict
from bnnbench.data.base import ImageData
from bnnbench.data.sharding import count_batches

_SEARCH = "the config would no longer say what was trained: sweep over"
_NAMES = "renames parameters, which binary layers and checkpoints know by their names"
# By class, what a callback does that a run cannot have, and what to type instead.
REFUSED: dict[type, str] = {
    pl.LearningRateFinder: f"{_SEARCH} recipe.lr instead, recipe.lr=0.1,0.01,0.001",
    pl.BatchSizeFinder: f"{_SEARCH} dataset.batch_size instead, dataset.batch_size=64,128,256",
    pl.ModelPruning: f"it {_NAMES}: leave it out",
    pl.BackboneFinetuning: "no network here has the parts it looks for: train in stages, as "
    "recipe=two_step does, or start from weights with init_from=<file>",
    pl.StochasticWeightAveraging: "it replaces the recipe's schedule and trains an epoch more than "
    "the config says: use lightning.pytorch.callbacks.EMAWeightAveraging",
    pl.GradientAccumulationScheduler: "the recipe's schedule counts steps that are equally long: "
    "use +trainer.accumulate_grad_batches=<n>",
}
NEED_LOGGER = (pl.LearningRateMonitor, pl.DeviceStatsMonitor, pl.ThroughputMonitor)
# Options that would be without effect, or leave no result.
OPTIONS = {
    "logger": "choose one with logger=csv, wandb, tensorboard, mlflow or none",
    "callbacks": "add one with +callbacks.<name>={_target_: <class>}",
    "default_root_dir": "a run's files lie in its folder: choose where with paths.log_dir=<folder>",
    "model_registry": "checkpoints lie in the run's folder; leave it out",
    "barebones": "it logs nothing, so that there would be no result; logger=none and "
    "callbacks.progress_bar=null leave out what costs time",
}
OURS = ("bnnbench.", "lightning.")  # what these packages log is known
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")


def check_options(cfg: DictConfig) -> None:
    """Refuse what a run cannot have, before anything is read or built.

    Raises:
        ValueError: an option of the trainer or a callback; the message says what to type instead.
    """
    options = {str(key): cfg.trainer[key] for key in cfg.trainer}
    for key, instead in OPTIONS.items():
        if options.get(key):
            raise ValueError(f"trainer.{key}={options[key]}: {instead}")
    _check_strategy(options.get("strategy", "auto"))
    kinds = callback_kinds(cfg)
    for key, kind in kinds.items():
        _check_callback(cfg, key, kind)
    bars = [f"callbacks.{key}" for key, kind in kinds.items() if issubclass(kind, pl.ProgressBar)]
    if len(bars) > 1:
        raise ValueError(f"{' and '.join(bars)} are progress bars: set all but one to null")
    _check_stages(cfg)
    check_packages(cfg.logger)


def callback_kinds(cfg: DictConfig) -> dict[str, type]:
    """The class of each callback that is a class, by its key; nothing is built.

    Raises:
        ValueError: there is no such class.
    """
    nodes: Mapping[Any, Any] = cfg.get("callbacks") or {}
    kinds: dict[str, type] = {}
    for key, node in nodes.items():
        if not node or "_target_" not in node:
            continue
        try:
            kind = target({"_target_": node["_target_"]}).func
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"callbacks.{key}._target_={node['_target_']}: {error}") from error
        if isinstance(kind, type):
            kinds[str(key)] = kind
    return kinds


def on_gpu(options: Mapping[str, Any]) -> bool:
    """Whether a trainer of these options trains on a GPU of CUDA's."""
    return options["accelerator"] != "cpu" and torch.cuda.is_available()


def _check_strategy(strategy: Any) -> None:
    if strategy not in STRATEGIES:
        raise ValueError(
            f"trainer.strategy={strategy}: choose from {', '.join(STRATEGIES)}; others split the "
            "parameters, or leave what a run records in processes that end before it is written"
        )


def _check_callback(cfg: DictConfig, key: str, kind: type) -> None:
    for refused, reason in REFUSED.items():
        if issubclass(kind, refused):
            raise ValueError(f"callbacks.{key}: {refused.__name__}: {reason}")
    # unresolved: folders are known only to a running job
    arguments: Any = OmegaConf.to_container(cfg.callbacks[key], resolve=False)
    for name, value in arguments.items():
        if isinstance(value, dict) and "_target_" in value:
            raise ValueError(
                f"callbacks.{key}.{name}: arguments of a callback are values, and none is built "
                f"for it: write a class of your own and give it as callbacks.{key}._target_"
            )
    check_arguments(f"callbacks.{key}", kind, arguments)
    if issubclass(kind, NEED_LOGGER) and not any(cfg.logger.values()):
        raise ValueError(
            f"callbacks.{key}: {kind.__name__} writes to a logger: choose logger=csv or wandb, or "
            f"leave it out with callbacks.{key}=null"
        )


def check_monitors(cfg: DictConfig) -> None:
    """Refuse a callback that decides by what a run, or its stage of this config, does not log.

    Raises:
        ValueError: the message lists what is logged, or says how to hold data out.
    """
    kinds, terms = callback_kinds(cfg), _terms(cfg)
    logged = _logged(cfg, terms, kinds)
    # somebody's own callback or loss term may log anything
    known = all(kind.__module__.startswith(OURS) for kind in [*kinds.values(), *terms.values()])
    for key, kind in kinds.items():
        monitor = OmegaConf.select(cfg, f"callbacks.{key}.monitor")
        if not isinstance(monitor, str):
            continue
        if monitor.startswith("val/") and cfg.dataset.val_fraction == 0:
            raise ValueError(
                f"callbacks.{key}.monitor={monitor}: nothing is held out; set "
                f"dataset.val_fraction=0.1 (monitor=test/{monitor[4:]} would choose on test data)"
            )
        names = [*logged, *(("epoch", "step") if issubclass(kind, pl.ModelCheckpoint) else ())]
        if known and not any(fnmatchcase(monitor, name) for name in names):
            raise ValueError(
                f"callbacks.{key}.monitor={monitor}: nothing logs it while a run trains; choose "
                f"from {', '.join(names)}"
            )


def _terms(cfg: DictConfig) -> dict[str, Any]:
    """The classes of the loss terms with a weight, by the names that these are logged under."""
    found: dict[str, Any] = {}
    for key, node in to_dict(cfg.loss).get("terms", {}).items():
        kind: Any = target({"_target_": node["_target_"]}).func
        if node.get("weight", 1) != 0:
            found[getattr(kind, "name", key)] = kind
    return found


def _logged(cfg: DictConfig, terms: Mapping[str, Any], kinds: Mapping[str, type]) -> list[str]:
    """What is logged in every epoch; a star stands for part of a name."""
    part = "val" if cfg.dataset.val_fraction > 0 else "test"
    if cfg.dataset.get("task") == "detection":
        names = [f"{part}/map", f"{part}/loss", f"{part}/ap/*"]
        names += ["train/loss", "train/classification", "train/localization"]
    else:
        names = [f"{part}/acc", f"{part}/loss", "train/acc", "train/loss"]
    for term in (*terms, *(["teacher"] if cfg.teacher.name == "joint" else [])):
        names += [f"train/{term}"]
    names += [f"{term}/*" for term in terms if term in ("kernel", "feature")]
    names += ["epoch_s", "images_per_s"]
    rates = any(issubclass(kind, pl.LearningRateMonitor) for kind in kinds.values())
    probed = any(kind.__name__ == "BinaryDiagnostics" for kind in kinds.values())
    names += ["diagnostics/*"] if probed else []
    return names + (["lr-*"] if rates else [])


def _check_stages(cfg: DictConfig) -> None:
    """A stage starts from the checkpoint of the one before, and a run from its twin's."""
    if OmegaConf.select(cfg, "recipe.stages"):
        whose = "which the next stage starts from"
    elif OmegaConf.select(cfg, "recipe.start"):
        whose = "and the run starts from its twin's"
    else:
        return
    check_checkpoints(cfg, whose)


def check_checkpoints(cfg: DictConfig, whose: str) -> None:
    """Refuse a run that would leave no ``last.ckpt``; whose: who needs it. Raises ValueError."""
    options = cfg.trainer
    if options.get("fast_dev_run"):
        raise ValueError(f"trainer.fast_dev_run writes no checkpoint, {whose}: use debug=fdr")
    if options.get("enable_checkpointing") is False:
        raise ValueError(
            f"trainer.enable_checkpointing=false writes no checkpoint, {whose}: leave it out"
        )
    if cfg.callbacks is None or cfg.callbacks.get("last") is None:
        raise ValueError(
            f"without callbacks.last there is no checkpoint, {whose}: leave callbacks=default"
        )


def check_evaluation(trainer: L.Trainer, data: ImageData) -> None:
    """Refuse a limit that would leave the last evaluation without a batch, before the training.

    Raises:
        ValueError: the message names the limit.
    """
    part = data.evaluates_on
    limit = getattr(trainer, f"limit_{part}_batches")
    size, ranks = data.spec.eval_batch_size, trainer.world_size
    batches = count_batches(data.eval_images, size, ranks, train=False)
    if int(limit * batches if isinstance(limit, float) else limit) < 1:
        raise ValueError(
            f"trainer.limit_{part}_batches={limit} of {batches} batches leaves none to evaluate: "
            "give a number of batches from 1 on, or set dataset.eval_batch_size below "
            f"{size}"
        )
