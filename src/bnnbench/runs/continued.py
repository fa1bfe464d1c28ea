"""A finished run that goes on for longer: ``ckpt_path=<its last.ckpt> trainer.max_epochs=<more>``.

It is a run of its own, with what it started from in its fingerprint. Every schedule, of the
learning rate and of the quantizers alike, goes on as it is in a run of the longer length: a
constant rate and steps at given steps as if nothing had ended, all others from the value that they
have at that place of the longer run, which is told. Weights, the optimiser's moments and the
history are kept.
"""

from __future__ import annotations

import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, open_dict

from bnnbench.optim.roles import parameters_by_role
from bnnbench.records.fallback import Start
from bnnbench.records.fingerprint import digest, fingerprinted
from bnnbench.records.signature import (
    Signature,
    differences,
    full_config,
    not_finite,
    read_checkpoint,
    sign,
    signature_of,
)
from bnnbench.records.store import last_weights
from bnnbench.runs.checkpoint_io import WholeCheckpoints
from bnnbench.runs.reuse import differs
from bnnbench.tasks.base import Task

INSTEAD = "start another run from its weights with init_from=<file>"


@dataclass(frozen=True)
class Origin:
    """The finished run that another one goes on from.

    Attributes:
        source: key and file, for messages.
        content: of its checkpoint, on the CPU.
        signature: whose it is.
        epochs: that it was trained for.
        steps: of the schedule in that time.
    """

    source: str
    content: dict[str, Any]
    signature: Signature
    epochs: int
    steps: int

    def total(self, max_epochs: int) -> int:
        """Steps of the schedule of a run of ``max_epochs``."""
        return self.steps // self.epochs * max_epochs

    def described(self, task: Task, max_epochs: int) -> dict[str, Any]:
        """What the result of ``task``, the longer run's, says of it, and the rate's jump."""
        before = rate_at(task, self.steps, self.steps - 1)
        after = rate_at(task, self.total(max_epochs), self.steps)
        known = self.signature
        return {
            "name": known.name,
            "fingerprint": known.fingerprint,
            "epochs": self.epochs,
            "lr": [before, after],
        }


def origin_of(cfg: DictConfig) -> Origin | None:
    """The run that ``cfg.ckpt_path`` is the end of, if the one of ``cfg`` can go on from there.

    None of a run that starts from the beginning, and of an evaluation.

    Raises:
        BadCheckpoint: it cannot be read.
        ValueError: it is no finished run, or one of another config, or not shorter; the message
            says what to type instead.
    """
    if not cfg.train or cfg.get("ckpt_path") is None:
        return None
    source = f"ckpt_path={cfg.ckpt_path}"
    content = read_checkpoint(cfg.ckpt_path)
    signature = signature_of(content)
    if signature is None:
        raise ValueError(f"{source} does not say which run it belongs to: {INSTEAD}")
    epochs = signature.config.get("trainer", {}).get("max_epochs")
    done = len(content.get("callbacks", {}).get("History", {}).get("epochs", ()))
    if signature.stage is not None or not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"{source} is of a run in stages, or limited by steps: {INSTEAD}")
    if done != epochs:
        raise ValueError(
            f"{source} holds {done} of the {epochs} epochs of {signature.name}: give the last.ckpt "
            f"of a run that has finished them, or {INSTEAD}"
        )
    _check_same(cfg, source, signature, epochs)
    if cfg.trainer.max_epochs <= epochs:
        raise ValueError(
            f"{source} has been trained for {epochs} epochs: give a larger trainer.max_epochs than "
            f"{cfg.trainer.max_epochs}"
        )
    steps = content["lr_schedulers"][0]["last_epoch"]
    if steps % epochs:
        raise ValueError(f"{source}: {steps} steps are no whole {epochs} epochs: {INSTEAD}")
    if (place := not_finite(content)) is not None:
        raise ValueError(f"{source}: {place} holds values that are no finite numbers: {INSTEAD}")
    return Origin(source, content, signature, epochs, steps)


def _check_same(cfg: DictConfig, source: str, signature: Signature, epochs: int) -> None:
    """Refuse a run whose config differs in more than its length. Raises ValueError."""
    shorter = deepcopy(cfg)
    with open_dict(shorter):
        shorter.ckpt_path, shorter.trainer.max_epochs = None, epochs
    identity = fingerprinted(shorter)
    own = full_config(shorter)
    if "ckpt_path" in signature.config:  # it has been continued itself
        identity["ckpt_path"] = own["ckpt_path"] = signature.config["ckpt_path"]
    if digest(identity) == signature.fingerprint:
        return
    others = "callbacks, compile, or what it started from"
    different = "; ".join(differences(signature.config, own)) or others
    raise ValueError(
        f"{source} is of {signature.name}, whose config is another one ({different}): type that "
        f"run's own words and a larger trainer.max_epochs, or {INSTEAD}"
    )


def begin(origin: Origin, task: Task, max_epochs: int, folder: Path) -> Start:
    """Write the ``last.ckpt`` in ``folder`` that the longer run starts from.

    Args:
        origin: what it goes on from.
        task: of the longer run, signed; its weights are of no interest.
        max_epochs: its length.
        folder: its own.

    Raises:
        ValueError: the data are not those of the shorter run.
    """
    assert task.signature is not None
    if differs(origin.signature.data_stamp, task.signature.data_stamp):
        raise ValueError(
            f"{origin.source} was trained on other data of the same name: restore those, or "
            f"{INSTEAD}"
        )
    start = Start(last_weights(folder), int(origin.content["global_step"]))
    _write(stretched(origin, task, origin.total(max_epochs)), task.signature, start)
    return start


@rank_zero_only
def _write(content: dict[str, Any], signature: Signature, start: Start) -> None:
    assert start.file is not None
    sign(content, signature)
    start.file.parent.mkdir(parents=True, exist_ok=True)
    WholeCheckpoints().save_checkpoint(content, start.file)


def stretched(origin: Origin, task: Task, total: int) -> dict[str, Any]:
    """The content of the shorter run's checkpoint as one of a run of ``total`` steps."""
    optimizer, scheduler = _built(task, total)
    optimizer.load_state_dict(origin.content["optimizer_states"][0])
    _move(optimizer, scheduler, origin.steps)
    callbacks = {  # checkpoints of another folder are none of this one's
        key: state
        for key, state in origin.content["callbacks"].items()
        if not key.startswith("ModelCheckpoint")
    }
    own = {"optimizer_states": [optimizer.state_dict()], "callbacks": callbacks}
    return origin.content | own | {"lr_schedulers": [scheduler.state_dict()]}


def told(found: dict[str, Any], max_epochs: int) -> str:
    """The same in a line."""
    before, after = found["lr"]
    jump = "" if before == after else f"; the learning rate goes from {before:.3g} to {after:.3g}"
    return (
        f"continues {found['name']} after its {found['epochs']} epochs, as epoch "
        f"{found['epochs'] + 1} of {max_epochs}, with all schedules as in a run of that length"
        f"{jump}"
    )


def rate_at(task: Task, total: int, step: int) -> float:
    """The learning rate of step ``step``, from 0, of a run of ``total`` steps."""
    optimizer, scheduler = _built(task, total)
    _move(optimizer, scheduler, step)
    return float(optimizer.param_groups[0]["lr"])


def _built(task: Task, total: int) -> tuple[torch.optim.Optimizer, Any]:
    with warnings.catch_warnings():  # the training itself tells what the recipe says
        warnings.simplefilter("ignore")
        built = task.recipe.build(parameters_by_role(task), total)
    return built["optimizer"], built["lr_scheduler"]["scheduler"]


def _move(optimizer: torch.optim.Optimizer, scheduler: Any, step: int) -> None:
    """Set what ``scheduler`` rules in ``optimizer`` to its values at ``step``."""
    scheduler.last_epoch = step - 1
    with warnings.catch_warnings():  # the optimiser has made its steps elsewhere
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        scheduler.step()
