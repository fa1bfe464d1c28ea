"""The bar of a single run: epoch, batches, loss and accuracy so far, time left.

epoch 3/10 ━━━━━━━━━━━━━ 14/22  loss 1.234  acc 45.6 %  test acc 51.1 %  0:23 left
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import replace
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar as Stripe
from rich.table import Table

from bnnbench.callbacks.pulse import Pulse
from bnnbench.records.position import Position
from bnnbench.records.screen import can_repaint, size
from bnnbench.records.words import clock, score, so_far

EVERY = 0.5  # seconds between two paintings
LINE_EVERY = 30.0  # seconds between two lines where nothing can be painted
WIDEST, NARROWEST = 40, 4  # columns of the stripe


class RunBar(ProgressBar):
    """A line that is painted anew on a terminal; elsewhere a line every half minute.

    What it knows beside the batches it has from the run's ``Pulse``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._on, self._live = True, None
        self._painted, self._said = 0.0, time.monotonic()
        self._streams: list[tuple[logging.StreamHandler, Any]] = []

    def disable(self) -> None:
        self._on = False

    def enable(self) -> None:
        self._on = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        print(*args, **kwargs)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        self._show(trainer, i + 1, trainer.num_training_batches)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking:
            batches = trainer.num_val_batches[dataloader_idx]
            self._show(trainer, batch_idx + 1, batches, evaluating=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit":
            self._start(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._show(
            trainer, batch_idx + 1, trainer.num_test_batches[dataloader_idx], evaluating=True
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit":
            self._stop()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._stop()

    def _start(self, trainer: L.Trainer) -> None:
        self._said = time.monotonic()
        if not self._on or not trainer.is_global_zero or not can_repaint(sys.stderr):
            return
        before = (sys.stdout, sys.stderr)
        console = Console(stderr=True)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()
        console.show_cursor(True)  # so that whatever ends the process leaves one
        # Handlers know the streams that were there before, and would write into the bar.
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in before:
                stream = sys.stdout if handler.stream is before[0] else sys.stderr
                self._streams.append((handler, handler.setStream(stream)))

    def _stop(self) -> None:
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._streams.clear()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show(
        self, trainer: L.Trainer, batch: int, batches: float, evaluating: bool = False
    ) -> None:
        now = time.monotonic()
        if not self._on or now - self._painted < EVERY or not trainer.is_global_zero:
            return
        self._painted = now
        whole = int(batches) if batches < float("inf") else 0
        here = replace(_known(trainer), batch=batch, batches=whole, evaluating=evaluating)
        if self._live is not None:
            self._live.console.width, self._live.console.height = size(sys.__stderr__ or sys.stderr)
            width = self._live.console.width - len("^C ")  # which must not begin a line
            self._live.update(painted(here, width), refresh=True)
        elif now - self._said >= LINE_EVERY:
            self._said = now
            print(line(here), flush=True)


def _known(trainer: L.Trainer) -> Position:
    """What the run's pulse says."""
    callbacks: list[L.Callback] = trainer.callbacks  # pyright: ignore
    found = (each.position for each in callbacks if isinstance(each, Pulse))
    return next(found, Position(epoch=trainer.current_epoch, max_epochs=trainer.max_epochs))


def parts(position: Position) -> tuple[str, str, list[str]]:
    """What is being done, how many batches of it are done, and what is known by now."""
    of_all = "" if position.max_epochs is None else f"/{position.max_epochs}"
    what = f"epoch {position.current}{of_all}"
    if position.evaluating:
        what += " evaluating"
    if position.stage:
        what = f"{position.stage}: {what}"
    batches = f"/{position.batches}" if position.batches else ""
    known = [*so_far(position.running), score(position.metrics)]
    left = "" if position.left_s is None else f"{clock(position.left_s)} left"
    return what, f"{position.batch}{batches}", [text for text in (*known, left) if text]


def line(position: Position) -> str:
    """The position as a line of a log."""
    what, batch, known = parts(position)
    return ", ".join([f"{what}, batch {batch}", *known])


def painted(position: Position, width: int) -> Table:
    """The position as one line of at most ``width`` columns; what does not fit is left out.

    The time left stays longest, then what stands on the left of the others.
    """
    what, batch, known = parts(position)
    while known and len("  ".join([what, batch, *known])) + NARROWEST + 2 > width:
        known.pop(-2 if len(known) > 1 else -1)
    text = "  ".join([batch, *known])
    room = min(WIDEST, width - len(what) - len(text) - 2)
    grid = Table.grid(padding=(0, 1, 0, 0))
    stripe = [Stripe(total=max(position.batches, 1), completed=position.batch, width=room)]
    cells = [what, *(stripe if room >= NARROWEST else []), text]
    for _ in cells:
        grid.add_column(no_wrap=True, overflow="crop")
    grid.add_row(*cells)
    return grid
