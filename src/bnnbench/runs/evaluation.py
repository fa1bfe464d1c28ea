"""Evaluate a checkpoint: of this suite, which says itself what it is, or of anybody else's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from bnnbench import runtime
from bnnbench.backbones.ssd import HeadOutputs
from bnnbench.checks.keys import arguments, has_default
from bnnbench.config import load_option
from bnnbench.data.array_survey import FILES
from bnnbench.records.checkpoints import Normalisation, load_weights, warn_of_normalisation
from bnnbench.records.fingerprint import choice, run_name
from bnnbench.records.foreign import taken, trusted_packages
from bnnbench.records.schema import finite
from bnnbench.records.signature import (
    BadCheckpoint,
    Signature,
    full_config,
    read_checkpoint,
    signature_of,
)
from bnnbench.records.store import read_identity
from bnnbench.resolvers import ARRAYS, CLASS_FOLDERS, COUNTED
from bnnbench.runs.build import build_datamodule, build_task, build_trainer
from bnnbench.runs.evaluated import write_down
from bnnbench.runs.loggers import as_tags, opened, tell
from bnnbench.runs.run_log import About, Outcome, pictures_in
from bnnbench.runs.stages import stages
from bnnbench.runs.trained import packed_signature
from bnnbench.runtime.format import is_packed
from bnnbench.runtime.graph import PackedNetwork
from bnnbench.tasks.base import Task
from bnnbench.tasks.rebuilt import building

# What a command line may say beside a checkpoint of the suite: where data lie, how they are read.
_OF_THIS_MACHINE = ("dataset.data_dir", "dataset.folder", "dataset.workers", "dataset.batch_size")
_OF_THIS_MACHINE += tuple(f"dataset.{key}" for key in FILES)
_OF_THIS_MACHINE += ("dataset.test_fraction",)  # another folder has another layout
_STORED = ("quantizer", "loss", "backbone", "dataset", "recipe")
OPTIONS = {CLASS_FOLDERS: "image_folder", ARRAYS: "image_arrays"}  # called as their folder is
_UNUSED = ("init_from", "teacher")
_ANY_METHOD = ("recipe=native",)  # of the checkpoint's method, not of the one that is composed


def evaluate(cfg: DictConfig, folder: Path, quiet: bool, typed: Sequence[str] = ()) -> float:
    """Evaluate ``cfg.ckpt_path`` on the test set; returns its headline.

    A checkpoint of the suite says what network it is and what data it is for. ``typed`` are the
    overrides of the command line: one that says otherwise is refused. Any other checkpoint is read
    as the network that ``cfg`` describes.

    Raises:
        ValueError: an override that contradicts the checkpoint, or a checkpoint
            that names code of packages which ``cfg.trust`` does not.
        BadCheckpoint: it cannot be read, or belongs to another network.
    """
    if read_identity(folder) is not None:
        raise ValueError(f"{folder} holds a run: choose another folder for the evaluation")
    packed = runtime.load(cfg.ckpt_path, verify=True) if is_packed(cfg.ckpt_path) else None
    if packed is None:
        signature = signature_of(read_checkpoint(cfg.ckpt_path))
    else:
        signature = packed_signature(packed, cfg.ckpt_path)
    if signature is not None:
        keys, source = (*_STORED, "channels_last", "seed"), f"ckpt_path={cfg.ckpt_path}"
        known = taken(signature.config, keys, source, trusted_packages(cfg))
        _check_typed(cfg, signature, typed)
        cfg = _as_trained(cfg, replace(signature, config=known), typed)
    with building(cfg.ckpt_path, "evaluate it with the version that wrote it"):
        data = build_datamodule(cfg)
        task = last_task(cfg)
    with _named(cfg, signature):
        seen = _with_weights(task, cfg, packed)
    with _found(cfg, signature):
        data.prepare_data()
        data.setup("test")
    if signature and signature.classes and signature.classes != list(data.class_names):
        raise ValueError(
            f"ckpt_path={cfg.ckpt_path} knows {_few(signature.classes)}, the images are of "
            f"{_few(data.class_names)}: the data need class folders of the same names"
        )
    warn_of_normalisation(f"ckpt_path={cfg.ckpt_path}", seen, data.spec.mean, data.spec.std)
    name = run_name(cfg)
    with opened(cfg, About(name, "evaluate", as_tags(cfg.tags))) as loggers:
        for logger in loggers.values():
            logger.log_hyperparams({"ckpt_path": str(cfg.ckpt_path), **full_config(cfg)})
        trainer = build_trainer(cfg, folder, quiet, name, loggers.values())
        found = trainer.test(task, data, verbose=False)
        if not found:
            raise ValueError("trainer.limit_test_batches=0 leaves no image to evaluate")
        metrics = found[0]
        tell(loggers, _outcome(metrics, task, folder, signature))
    score = metrics[f"test/{task.headline}"]
    write_down(cfg, signature, task, data, trainer, metrics, folder)
    return score


def _with_weights(
    task: Task, cfg: DictConfig, packed: PackedNetwork | None
) -> Normalisation | None:
    """Give ``task`` what ``cfg.ckpt_path`` holds; the normalisation that others' weights want."""
    if packed is None:
        return load_weights(task.net, cfg.ckpt_path, named=cfg.get("checkpoint_map"))
    compute_packed(task.net, packed)
    return None


def compute_packed(net: nn.Module, packed: PackedNetwork) -> None:
    """Let ``net`` say what the packed network does, wherever a task calls it."""
    outputs = HeadOutputs if packed.task == "detection" else None

    def forward(images: Tensor) -> Any:
        found = packed(images.cpu())
        if outputs is None:
            return found.to(images.device)
        return outputs(*(each.to(images.device) for each in found))

    net.forward = forward


@contextmanager
def _named(cfg: DictConfig, signature: Signature | None) -> Iterator[None]:
    """Say as what a checkpoint was read that does not say what it is, where that went wrong."""
    try:
        yield
    except BadCheckpoint as error:
        if signature is not None:
            raise
        chosen = " ".join(f"{g}={choice(cfg, g)}" for g in ("quantizer", "backbone", "dataset"))
        raise BadCheckpoint(
            f"{error}; it does not say what network it is, and was read as {chosen}: type those "
            "that it was trained with"
        ) from error


@contextmanager
def _found(cfg: DictConfig, signature: Signature | None) -> Iterator[None]:
    """Say how to name the place of a checkpoint's data that are not where they were."""
    try:
        yield
    except FileNotFoundError as error:
        if signature is None:
            raise
        option = OPTIONS.get(str(cfg.dataset._target_), choice(cfg, "dataset"))
        place = next((key for key in ("folder", *FILES) if cfg.dataset.get(key)), "data_dir")
        raise type(error)(
            f"{error}; for a checkpoint whose data lie elsewhere now, type "
            f"dataset={option} dataset.{place}=<where>"
        ) from error


def _outcome(
    metrics: Mapping[str, float], task: Task, folder: Path, signature: Signature | None
) -> Outcome:
    """What a logger is given of an evaluation."""
    numbers = {f"last/{name}": value for name, value in finite(dict(metrics)).items()}
    known = {name: value for name, value in numbers.items() if value is not None}
    of = {"run": signature.name} if signature else {}
    return Outcome(known | {"test_images": task.eval_images} | of, pictures=pictures_in(folder))


def _few(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:5])}{', ...' * (len(names) > 5)})"


def last_task(cfg: DictConfig) -> Task:
    """What the last stage trains, without what only training needs: loss terms and a teacher."""
    last = deepcopy(stages(cfg)[-1].cfg)
    last.teacher = load_option("teacher", "none", {})
    OmegaConf.update(last, "loss.terms", {}, merge=False)
    return build_task(last)


def _as_trained(cfg: DictConfig, signature: Signature, typed: Sequence[str]) -> DictConfig:
    """``cfg`` with the network, the data set and the loss that a checkpoint was trained with."""
    trained = deepcopy(cfg)
    with open_dict(trained):
        for group in _STORED:
            trained[group] = OmegaConf.create(signature.config[group])
        trained.recipe.stages = []  # the config is that of the stage which wrote the checkpoint
        # as they were measured, where the config says auto
        trained.dataset.mean, trained.dataset.std = signature.mean, signature.std
        if _takes_place(str(trained.dataset._target_), typed):
            trained.dataset.data_dir = cfg.dataset.get("data_dir", cfg.paths.data_dir)
        trained.channels_last = signature.config["channels_last"]
        trained.seed = signature.config["seed"]
        trained.init_from = None
        if trained.dataset.get("workers"):
            trained.dataset.workers = "auto"  # the number was another machine's
        for key in ("folder", "test_fraction", "workers", "batch_size", *FILES):
            if key in cfg.dataset and _same_set(cfg, trained):
                trained.dataset[key] = cfg.dataset[key]
    return trained


def _takes_place(kind: str, typed: Sequence[str]) -> bool:
    """Whether the data folder is handed to a class, which of one's own may need none.

    One that has a place of its own, as the default of ``data_dir``, keeps it unless it is typed.
    """
    known = arguments(kind)
    if known is not None and "data_dir" not in known:
        return False
    said = any(word.lstrip("+").startswith("dataset.data_dir=") for word in typed)
    return said or not has_default(kind, "data_dir")


def _same_set(cfg: DictConfig, stored: DictConfig) -> bool:
    """Whether two configs are of one set; one's own is called as its folder or file is."""
    kinds = {str(node.dataset.get("_target_")) for node in (cfg, stored)}
    own = len(kinds) == 1 and kinds <= set(COUNTED)
    return own or choice(cfg, "dataset") == choice(stored, "dataset")


def _check_choices(cfg: DictConfig, stored: DictConfig, override: str) -> None:
    for group in ("quantizer", "backbone", "dataset"):
        if (said := choice(cfg, group)) != (known := choice(stored, group)):
            raise ValueError(
                f"{override} sets {group}={said}: the checkpoint was trained with {group}={known}; "
                "leave this override out, the checkpoint says what it is"
            )


def _check_typed(cfg: DictConfig, signature: Signature, typed: Sequence[str]) -> None:
    stored = OmegaConf.create(signature.config)
    for override in typed:
        key = override.lstrip("+~").partition("=")[0]
        group = key.partition(".")[0]
        if group in _UNUSED:
            raise ValueError(f"{override}: an evaluation trains nothing; leave this override out")
        if group in ("experiment", "debug"):
            _check_choices(cfg, stored, override)
        if group not in (*_STORED, "seed") or key in _OF_THIS_MACHINE or override in _ANY_METHOD:
            continue
        if key == "dataset" and _same_set(cfg, stored):
            continue
        if key in _STORED:
            said, known = choice(cfg, key), choice(stored, key)
        else:
            said, known = (OmegaConf.select(node, key) for node in (cfg, stored))
        if said != known:
            raise ValueError(
                f"{override}: the checkpoint {cfg.ckpt_path} was trained with {key}={known}; leave "
                "this override out, the checkpoint says what it is"
            )
