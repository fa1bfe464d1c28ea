"""How a trainer writes its checkpoints: whole files of finite numbers, the one before kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from bnnbench.records.durable import write_whole
from bnnbench.records.signature import not_finite
from bnnbench.runs.signals import held


class WholeCheckpoints(TorchCheckpointIO):
    """Writes beside the file, syncs and moves; ``last.ckpt`` leaves the one before it.

    Lightning's own goes through ``TMPDIR``, from where a move to another file system is a copy: a
    kill in the middle, or a full disk, takes the only good file. It also passes over a
    ``PermissionError``, and a run ends without a checkpoint and without a word.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            FloatingPointError: a weight, or the optimiser's state, is no finite number; nothing is
                written.
            OSError: it could not be written; the file before stands.
        """
        file = Path(path)
        if (place := not_finite(checkpoint)) is not None:
            raise FloatingPointError(
                f"{file} is not written, {place} holds values that are no finite numbers: lower "
                "recipe.lr or set trainer.gradient_clip_val"
            )
        keep = file.with_name("previous.ckpt") if file.name == "last.ckpt" else None
        with held():
            write_whole(file, lambda opened: _save(checkpoint, opened), keep)


class _Watched:
    """An open file that remembers why it could not be written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.flush = file, file.flush
        self.error: OSError | None = None

    def write(self, part: Any) -> int:
        """As of a file; torch puts an error of its own in the place of what this raises."""
        try:
            return self.file.write(part)
        except OSError as error:
            self.error = self.error or error
            raise


def _save(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    """Write straight into the file: a copy in memory costs as much time as all the rest.

    Raises:
        OSError: it could not be written.
    """
    watched = _Watched(file)
    try:
        torch.save(checkpoint, cast(BinaryIO, watched))
    except Exception as error:
        if watched.error is not None:
            raise watched.error from error
        raise
