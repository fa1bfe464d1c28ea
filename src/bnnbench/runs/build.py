"""The objects of a run, from its composed config: data, network with loss and recipe, trainer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig
from torch import nn

from bnnbench.callbacks.compilation import Compilation
from bnnbench.callbacks.gradient_norm import GradientNorm
from bnnbench.callbacks.loading import LoadingTime
from bnnbench.callbacks.pulse import Pulse
from bnnbench.callbacks.throughput import Throughput
from bnnbench.callbacks.together import Together
from bnnbench.checks.keys import arguments
from bnnbench.checks.options import on_gpu
from bnnbench.checks.signatures import check_arguments
from bnnbench.config import backbone_from_config, quantizer_from_config, target, to_dict
from bnnbench.data.base import ImageData
from bnnbench.layers import binary_layers
from bnnbench.optim.recipe import Recipe
from bnnbench.records.checkpoints import load_weights, warn_of_normalisation
from bnnbench.records.fingerprint import run_name
from bnnbench.records.identity_keys import is_neutral
from bnnbench.runs.checkpoint_io import WholeCheckpoints
from bnnbench.runs.cut import Cut
from bnnbench.runs.metrics_file import EpochRow
from bnnbench.runs.peers import Peers
from bnnbench.runs.precision import resolved
from bnnbench.runs.refusals import check_mixing, check_optimizer, check_terms
from bnnbench.tasks.base import Task
from bnnbench.tasks.classification import Classification
from bnnbench.tasks.rebuilt import loss_of, recipe_of, terms_of
from bnnbench.tasks.teacher import Teacher

T = TypeVar("T")
WRITERS = (ModelCheckpoint, OnExceptionCheckpoint)  # callbacks that write checkpoints
LACKING = re.compile(r"__init__\(\) missing \d+ required \S+ arguments?: (.+)")  # as Python says it


def build_datamodule(cfg: DictConfig) -> ImageData:
    """The data of ``cfg.dataset``. Raises ValueError for a class that a run cannot train on."""
    build = _own("dataset", to_dict(cfg.dataset), ImageData)
    return build(channels_last=bool(cfg.channels_last))


def _own(place: str, node: dict[str, Any], base: type[T]) -> Callable[..., T]:
    """The class that a node names, which may be anybody's, with the node's keys.

    Raises:
        ValueError: there is none, it does not inherit from ``base``, or takes other keys.
    """
    where = f"{place}._target_={node['_target_']}"
    try:
        build = target(node)
    except (ImportError, AttributeError, ValueError) as error:
        missing = isinstance(error, ModuleNotFoundError)
        advice = "; its folder has to be on PYTHONPATH" if missing else ""
        raise ValueError(f"{where}: {error}{advice}") from error
    if not (isinstance(build.func, type) and issubclass(build.func, base)):
        raise ValueError(
            f"{where}: a run needs a class that inherits from {base.__module__}.{base.__name__}; "
            "others are trained from Python, with trainer.fit"
        )
    check_arguments(place, build.func, build.keywords)
    taken = arguments(str(node["_target_"]))
    unread = sorted(set(build.keywords) - taken) if taken is not None else []
    if unread:
        raise ValueError(f"{where} takes no {', '.join(unread)}: leave out {place}.{unread[0]}")
    return partial(_built, build, place, taken)


def _built(build: partial[T], place: str, taken: set[str] | None, *parts: Any, **further: Any) -> T:
    """An object of the class; ValueError where its node lacks arguments that it has to have."""
    try:
        return build(*parts, **further)
    except TypeError as error:
        lacking = LACKING.search(str(error))
        names = re.findall(r"'(\w+)'", lacking[1]) if lacking else []
        if not names or (taken is not None and not taken.issuperset(names)):
            raise  # a mistake in the class
        raise ValueError(
            f"{place}._target_={_name(build.func)} needs {', '.join(names)}: add it to the yaml, "
            f"or type +{place}.{names[0]}=<value>"
        ) from error


def _name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def build_task(cfg: DictConfig, evaluates_on: str = "test", teacher: Teacher | None = None) -> Task:
    """Network, loss and recipe of ``cfg``, started from ``cfg.init_from`` where that is set."""
    task = _task_of(cfg)
    net = backbone_from_config(cfg.backbone, quantizer_from_config(cfg.quantizer))
    if cfg.recipe.init_std is not None:
        start_small(net, cfg.recipe.init_std)
    if cfg.init_from is not None:
        known = load_weights(net, cfg.init_from, strict=False, named=cfg.get("checkpoint_map"))
        data = cfg.dataset
        warn_of_normalisation(f"init_from={cfg.init_from}", known, data.mean, data.std)
    loss, recipe = loss_of(task, cfg.loss), recipe_of(to_dict(cfg.recipe))
    check_optimizer(net, recipe)
    terms = terms_of(to_dict(cfg.loss))
    check_terms(terms, recipe, cfg.loss.name)
    check_mixing(cfg, terms)
    module = _task(cfg, net, loss, recipe, evaluates_on, terms, teacher)
    layout = torch.channels_last if cfg.channels_last else torch.contiguous_format
    return module.to(memory_format=layout)  # pyright: ignore[reportCallIssue]


def _task_of(cfg: DictConfig) -> str:
    """What data and network are for. Raises ValueError where they differ."""
    wanted, built = (node.get("task", "classification") for node in (cfg.dataset, cfg.backbone))
    if wanted != built:
        raise ValueError(
            f"backbone={cfg.backbone.name} is for {built}, dataset={cfg.dataset.name} for "
            f"{wanted}: ssd300_* go with shapes, voc0712 and voc_folder, and nothing else does"
        )
    return wanted


def _task(
    cfg: DictConfig,
    net: Any,
    loss: Any,
    recipe: Recipe,
    evaluates_on: str,
    terms: dict[str, Any],
    teacher: Teacher | None,
) -> Task:
    dataset = cfg.dataset
    class_weights = to_dict(dataset).get("class_weights")
    if net.task == "classification":
        weight = cfg.loss.get("task_weight", 1.0)
        if class_weights is not None and weight == 0:
            raise ValueError(
                f"dataset.class_weights={class_weights} would be without effect: loss="
                f"{cfg.loss.name} uses no label; set dataset.class_weights=null, or loss=kd"
            )
        rest = dataset.num_classes, evaluates_on, terms, teacher, weight, class_weights
        return _class_of_task(cfg, Classification)(net, loss, recipe, *rest)
    if class_weights is not None:
        raise ValueError(f"dataset.class_weights={class_weights} is for classification: set null")
    if teacher is not None:
        raise ValueError(f"teacher={cfg.teacher.name} is for classification: set teacher=none")
    from bnnbench.tasks.detection import Detection  # with torchvision and torchmetrics' COCO

    names = to_dict(dataset)["classes"]
    build = _class_of_task(cfg, Detection)
    return build(net, loss, recipe, names, evaluates_on, dataset.interpolation, terms)


def _class_of_task(cfg: DictConfig, usual: type[T]) -> Callable[..., T]:
    """What ``cfg.task`` names, or the usual one. Raises ValueError where it cannot be built."""
    node = to_dict(cfg.task) if cfg.get("task") else {}
    return _own("task", node, usual) if node.get("_target_") else usual


def start_small(net: nn.Module, std: float) -> None:
    """Start the latent weights of all binarized layers at N(0, std^2).

    Raises:
        ValueError: ``std`` is not above 0.
    """
    if std <= 0:
        raise ValueError(f"recipe.init_std={std} must be above 0, or null for Kaiming's")
    for _, layer in binary_layers(net):
        nn.init.normal_(layer.weight, std=std)


def build_trainer(
    cfg: DictConfig,
    folder: Path,
    quiet: bool,
    name: str | None = None,
    loggers: Iterable[Logger] = (),
    later_epochs: int | None = 0,
) -> L.Trainer:
    """The trainer of ``cfg`` with the callbacks of their group, and with ``loggers``.

    Args:
        cfg: of a run, or of a stage of it.
        folder: of what the trainer itself writes.
        quiet: without a bar.
        name: what an end by a signal calls it; by default the run's.
        loggers: that are told of it.
        later_epochs: of the stages that follow, None where nobody knows.
    """
    compilation = Compilation(cfg.compile, static=bool(cfg.dataset.get("resize")))
    peers = Peers(cfg.paths.output_dir)
    own = [Together(), peers, Cut(name or run_name(cfg)), compilation, Throughput(), GradientNorm()]
    own += [EpochRow(), Pulse(cfg.paths.output_dir, cfg.paths.stage, later_epochs)]
    if what := augmented(cfg.dataset):
        own.append(LoadingTime(what))
    callbacks = [*own, *_callbacks(cfg)]
    if quiet or not cfg.trainer.enable_progress_bar:
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    options = to_dict(cfg.trainer)
    options["enable_progress_bar"] = any(isinstance(c, ProgressBar) for c in callbacks)
    if steps := cfg.recipe.get("steps"):
        options.setdefault("max_steps", steps)
    options["precision"] = resolved(options)
    if options.get("enable_checkpointing") is False:
        callbacks = [c for c in callbacks if not isinstance(c, WRITERS)]
        del options["enable_checkpointing"]  # Lightning takes History for a checkpoint as well
    if not on_gpu(options):
        _adapt_to_cpu(options)
    logger = list(loggers) or False
    plugins = [*(options.pop("plugins", None) or []), WholeCheckpoints()]
    build = target(options)
    return build(callbacks=callbacks, logger=logger, plugins=plugins, default_root_dir=folder)


def _callbacks(cfg: DictConfig) -> Iterator[L.Callback]:
    """Those of the group. Raises ValueError, which names the key, where one cannot be built."""
    for key, node in (cfg.callbacks or {}).items():
        if not node:
            continue
        try:
            callback = target(to_dict(node))()
        except (TypeError, ValueError, AttributeError, MisconfigurationException) as error:
            raise ValueError(f"callbacks.{key}: {error}") from error
        if not isinstance(callback, L.Callback):
            raise ValueError(
                f"callbacks.{key}._target_={node._target_}: what it makes is no callback; give a "
                "class that inherits from lightning.Callback"
            )
        yield callback


def augmented(dataset: DictConfig) -> str:
    """How a classification set is augmented, as it is typed; empty where it is as usual."""
    if dataset.get("task", "classification") != "classification":
        return ""
    kind = str(dataset.get("_target_"))
    chosen = {key: dataset.get(key) for key in ("augmentation", "mixup", "cutmix", "erasing")}
    return " ".join(
        f"dataset.{key}={value}"
        for key, value in chosen.items()
        if value and not is_neutral(f"dataset.{key}", value, kind)
    )


def _adapt_to_cpu(options: dict[str, Any]) -> None:
    """Several devices are several processes there, and batch norm is each one's own."""
    if str(options["devices"]) in ("-1", "auto"):
        options["devices"] = 1  # as the fingerprint counts them
    if options.pop("sync_batchnorm", False) and str(options["devices"]) != "1":
        rank_zero_warn(
            "trainer.sync_batchnorm needs GPUs: here each process normalises its own batches"
        )
