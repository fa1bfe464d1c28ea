"""Why a training saw less than its config asked for, in words for its result."""

from __future__ import annotations

from datetime import timedelta

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, Timer
from omegaconf import DictConfig

from bnnbench.callbacks.history import History
from bnnbench.records.limits import LIMITS, limited


def training_limits(
    trainer: L.Trainer, history: History, cfg: DictConfig, batches: int
) -> list[str]:
    """What kept a training from its planned length or from part of the training set.

    ``batches``: of an epoch of the whole set.
    """
    options = {key: value for key, value in _limits(trainer).items() if _of_training(key)}
    if trainer.num_training_batches >= batches:
        options.pop("limit_train_batches", None)
    return [f"{key}={value}" for key, value in options.items()] + _stops(trainer, history, cfg)


def evaluation_limits(trainer: L.Trainer, part: str, whole: bool) -> list[str]:
    """What kept evaluations from part of their images.

    Args:
        trainer: after the final evaluation.
        part: ``test`` or ``val``, what that one was on.
        whole: whether it was on all of it.
    """
    options = {key: value for key, value in _limits(trainer).items() if not _of_training(key)}
    if whole:
        options.pop(f"limit_{part}_batches", None)
    return [f"{key}={value}" for key, value in options.items()]


def planned_epochs(cfg: DictConfig) -> int | None:
    """How many epochs the config asks for, None where it limits a run by steps alone."""
    epochs = cfg.trainer.max_epochs
    return epochs if epochs is not None and epochs >= 0 else None


def _limits(trainer: L.Trainer) -> dict[str, object]:
    return limited({key: getattr(trainer, key) for key in LIMITS})


def _of_training(key: str) -> bool:
    return key not in ("limit_val_batches", "limit_test_batches")


def _stops(trainer: L.Trainer, history: History, cfg: DictConfig) -> list[str]:
    epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    if 0 <= epochs <= len(history.epochs) and not history.cut:
        return []
    if 0 <= trainer.max_steps <= trainer.global_step:
        steps = cfg.recipe.get("steps")
        planned = epochs < 0 if steps is None else trainer.max_steps >= steps
        return [] if planned else [f"max_steps={trainer.max_steps}"]
    callbacks: list[L.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return [reason for callback in callbacks if (reason := _stop(callback))] or ["stopped"]


def _stop(callback: L.Callback) -> str | None:
    """What this callback stopped the training for, None if it did not."""
    if isinstance(callback, EarlyStopping) and callback.stopping_reason_message is not None:
        return f"early_stop: {callback.monitor}"
    if (
        isinstance(callback, Timer)
        and (left := callback.time_remaining()) is not None
        and left <= 0
    ):
        return f"max_time={_clock(left + callback.time_elapsed())}"
    return None


def _clock(seconds: float) -> str:
    """Days, hours, minutes and seconds as ``trainer.max_time`` has them."""
    whole = timedelta(seconds=round(seconds))
    minutes, rest = divmod(whole.seconds, 60)
    return f"{whole.days:02d}:{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"
