"""``recipe.start=twin``: a run that starts from the weights of its full-precision twin.

The twin has the run's structure (a ReLU where only the signs are not linear), data, seed and
length, and is trained by ``recipe=unified`` with
the plain loss, but for what ``recipe.twin`` says otherwise. It is a run of its own, in its own
folder and under its own lock: whoever needs it first trains it, and all others share it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from bnnbench.config import load_option, to_dict
from bnnbench.quantizers import NONLINEARITIES
from bnnbench.records.checkpoints import load_weights
from bnnbench.records.fingerprint import flattened, run_name
from bnnbench.records.launches import to_train
from bnnbench.records.position import Position, write_position
from bnnbench.records.ranks import rank
from bnnbench.records.store import last_weights, previous_weights, read_result, trained
from bnnbench.runs import signals
from bnnbench.runs.reuse import Run, settle
from bnnbench.runs.stages import Stage, override

log = logging.getLogger(__name__)
_BY_DATASET = ("epochs", "batch_size")


def twin_of(cfg: DictConfig) -> Run:
    """The twin of a run. ValueError for a key of ``recipe.twin`` that there is not."""
    twin = deepcopy(cfg)
    with open_dict(twin):
        twin.backbone = OmegaConf.create(to_dict(cfg.backbone))  # the structure of the method
        if twin.backbone.get("nonlinearity") == "identity":  # without signs it would be linear
            twin.backbone.nonlinearity = "relu"
        twin.trainer.max_epochs = cfg.trainer.max_epochs
        for group, name in (("quantizer", "fp32"), ("loss", "task"), ("teacher", "none")):
            twin[group] = load_option(group, name, {})
        twin.recipe = load_option("recipe", "unified", {})
        for key in _BY_DATASET:  # those of a data set that was added
            twin.recipe[key] = to_dict(cfg.recipe).get(key, {}) | to_dict(twin.recipe)[key]
        for key, value in _following(twin).items():
            OmegaConf.update(twin, key, value)
        if (steps := cfg.recipe.get("steps")) is not None:
            twin.recipe.steps = steps
        if "block" in cfg.quantizer:
            twin.quantizer.block = cfg.quantizer.block
        twin.force, twin.init_from, twin.checkpoint_map = False, None, None
        twin.paths.stage, twin.paths.data_mark = "", None
    for key, value in flattened(to_dict(cfg.recipe).get("twin", {})).items():
        override(twin, key, value, "recipe.twin")
    twin.paths.output_dir = str(Path(cfg.paths.runs_dir) / run_name(twin))
    return Run(twin, Path(twin.paths.output_dir))


def _following(twin: DictConfig) -> dict[str, str]:
    """What follows recipe and seed, whether it was typed for the run or not.

    So the twin depends on what the run's settings are alone, as the run's name does.
    """
    keys = {"dataset.seed": "${seed}", "callbacks.reseed.seed": "${seed}"}
    keys["trainer.gradient_clip_val"] = "${oc.select:recipe.gradient_clip_val,null}"
    keys["dataset.resize"] = "${oc.select:recipe.resize,[]}"
    keys["dataset.batch_size"] = "${recipe.batch_size.${dataset.name}}"
    if twin.dataset.name not in twin.recipe.batch_size:
        del keys["dataset.batch_size"]  # which an own data set has
    written: Any = OmegaConf.to_container(twin, resolve=False)
    known = flattened(written)
    return {key: value for key, value in keys.items() if key in known}


def starts_from_twin(cfg: DictConfig) -> bool:
    """Whether a run starts from its twin; one that goes on from a finished run has done so."""
    return bool(cfg.recipe.get("start")) and cfg.get("ckpt_path") is None


def check_twin(cfg: DictConfig) -> None:
    """Refuse what contradicts a start from the twin, or would be without it. Raises ValueError."""
    start, changes = cfg.recipe.get("start"), cfg.recipe.get("twin")
    if start is None and changes:
        raise ValueError(
            f"recipe.twin={to_dict(changes)} would be without effect: set recipe.start=twin"
        )
    if start is not None and cfg.init_from is not None:
        raise ValueError(
            f"recipe.start={start} and init_from={cfg.init_from} are two starts: leave one out"
        )


def twin_for(planned: Sequence[Stage], cfg: DictConfig, train: Callable[[Run], object]) -> Run:
    """The twin of a run of these stages; trained, unless the first has weights of its own."""
    first = planned[0].folder
    own = (first / "stage.json", last_weights(first), previous_weights(first))
    return settle(twin_of(cfg)) if any(f.exists() for f in own) else trained_twin(cfg, train)


def trained_twin(cfg: DictConfig, train: Callable[[Run], object]) -> Run:
    """The twin of a run, trained by ``train`` unless it has been, here or by another process."""
    run = settle(twin_of(cfg))
    if not is_finished(run):
        rank_zero_only(log.info)(f"the full-precision twin is trained first, {run.name}")
        rank_zero_only(write_position)(Path(cfg.paths.output_dir), Position(first=str(run.folder)))
        signals.at(f"while it waited for {run.folder}")
        with to_train(run.folder, run.fingerprint, lambda: is_finished(run)) as is_ours:
            if is_ours:
                train(run)
    if rank() == 0:  # others may come here before its result is written
        weights_of(run)
    return run


def weights_of(twin: Run) -> Path:
    """The weights of a trained twin. ValueError says what to do where they are gone."""
    try:
        return trained(twin.folder)[1]
    except ValueError as error:
        raise ValueError(
            f"{error}. The run would start from its weights: delete {twin.folder}, so that it is "
            "trained again"
        ) from error


def start_from(net: nn.Module, weights: Path, fresh: bool) -> None:
    """Give a network the weights of its twin.

    Args:
        net: of the twin's structure.
        weights: the twin's checkpoint.
        fresh: leave slopes and shifts of nonlinearities as they begin. In full precision a
            channel's Maxout or PReLU may learn a slope below zero, an absolute value; behind it
            every sign is +1, and a binary network has nothing to learn from.
    """
    kinds = tuple({type(make(1)) for make in NONLINEARITIES.values()})
    own = [module for module in net.modules() if isinstance(module, kinds)] if fresh else []
    before = [deepcopy(module.state_dict()) for module in own]
    load_weights(net, weights, strict=False)
    for module, state in zip(own, before, strict=True):
        module.load_state_dict(state)


def is_finished(run: Run) -> bool:
    """Whether a twin has been trained."""
    result = read_result(run.folder)
    return result is not None and result["fingerprint"] == run.fingerprint
