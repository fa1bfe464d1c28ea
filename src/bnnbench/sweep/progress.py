"""Signs of life of a sweep, read from the run folders while its jobs run, wherever they run.

On a terminal a table that is painted anew; elsewhere lines, one for each cell that ends and one
every few minutes:

[3/12 done, 1 failed] resnet18 adabin s0 4/10 test acc 97.2 % | ... elapsed 2:31, left 6:40
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TextIO

from bnnbench.records.screen import can_repaint, size
from bnnbench.records.words import clock
from bnnbench.sweep.capture import captured
from bnnbench.sweep.estimate import time_left
from bnnbench.sweep.watched import AT_WORK, ENDED, Seen, Watched, epoch_of

POLL = 1.0  # seconds between two looks at the folders
LOG_EVERY = (30.0, 300.0)  # seconds between two lines, at the beginning and in the end


class Progress:
    """Shows the jobs of a sweep while the `with` block runs, from a thread.

    Args:
        jobs: what is run, in the order of the sweep.
        stream: where to; stderr if None.
        others: cells that are not run, because there is a result.
        workers: how many jobs run side by side.
        paint: whether a terminal may be painted anew: jobs must not write to it themselves.
    """

    def __init__(
        self,
        jobs: Sequence[Watched],
        stream: TextIO | None = None,
        others: Sequence[Seen] = (),
        workers: int = 1,
        paint: bool = True,
    ) -> None:
        self.jobs, self.others, self.workers = list(jobs), others, workers
        self.stream = stream if stream is not None else sys.stderr
        self.paints = paint and can_repaint(self.stream)
        self.start = self.last = time.monotonic()
        self._told = set[Watched]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._screen = ExitStack()

    def __enter__(self) -> Progress:
        try:
            if self.paints:
                self._begin_painting()
            self._thread.start()
        except BaseException:  # a signal
            self._screen.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._screen.close()
        if not self.paints:
            self._tell_ended(self.look())
        self._print(self.line())

    def look(self) -> list[Seen]:
        """The jobs now."""
        return [job.look() for job in self.jobs]

    def line(self, cells: Sequence[Seen] | None = None) -> str:
        """The sweep's state in one line."""
        cells = self.look() if cells is None else cells
        failed = [cell for cell in cells if cell.state == "failed"]
        done = [cell for cell in cells if cell.state == "finished"]
        working = [cell for cell in cells if cell.state in AT_WORK]
        count = f"{len(done)}/{len(cells)} done"
        head = f"[{count}, {len(failed)} failed]" if failed else f"[{count}]"
        tail = f"elapsed {clock(time.monotonic() - self.start)}"
        if working:
            tail += f", left {clock(time_left(cells, self.workers))}"
        return " ".join(filter(None, [head, " | ".join(map(_running, working)), tail]))

    def _watch(self) -> None:
        while not self._stop.wait(POLL):
            if self.paints:
                self._paint()
            else:
                self._log()

    def _begin_painting(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self.stream, force_terminal=True)
        # It redirects nothing: jobs that run in this process have their own log.
        live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live = self._screen.enter_context(live)
        console.show_cursor(True)  # so that whatever ends the process leaves one
        self._screen.enter_context(captured(self._above))
        self._paint()

    def _paint(self) -> None:
        from bnnbench.sweep.live import LiveTable

        cells = self.look()
        left = time_left(cells, self.workers)
        console = self._live.console
        console.width, console.height = size(self.stream)
        elapsed = time.monotonic() - self.start
        table = LiveTable([*self.others, *cells], elapsed, left)
        self._live.update(table, refresh=True)

    def _above(self, text: str) -> None:
        """Print a line that came from elsewhere above the table."""
        from rich.text import Text

        self._live.console.print(Text.from_ansi(text))

    def _log(self) -> None:
        cells = self.look()
        self._tell_ended(cells)
        now = time.monotonic()
        shortest, longest = LOG_EVERY
        if now - self.last >= min(longest, max(shortest, (now - self.start) / 10)):
            self.last = now
            self._print(self.line(cells))

    def _tell_ended(self, cells: Sequence[Seen]) -> None:
        for job, cell in zip(self.jobs, cells, strict=True):
            if cell.state in ENDED and job not in self._told:
                self._told.add(job)
                self._print(ended(cell))

    def _print(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


def ended(cell: Seen) -> str:
    """The line of a cell that has ended: "finished: xnor: test acc 30.0 %, 2 epochs in 0:05"."""
    if cell.state == "failed":
        return ": ".join(filter(None, ["failed", cell.label, cell.why]))
    epochs = "" if cell.epochs is None else f"{cell.epochs} epoch{'s' * (cell.epochs != 1)}"
    took = f"{epochs} in {clock(cell.train_s)}" if epochs and cell.train_s is not None else epochs
    what = ", ".join(filter(None, [cell.metric, took]))
    return ": ".join(filter(None, [cell.state, cell.label, what]))


def _running(cell: Seen) -> str:
    state = "" if cell.state == "training" else cell.state
    where = epoch_of(cell) if cell.position is not None else ""
    return " ".join(filter(None, [cell.label, where, state, cell.metric]))
