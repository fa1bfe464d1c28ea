"""One line for a whole sweep, read from the run folders while its jobs run, wherever they run.

[3/12 done, 1 failed] resnet18 adabin s0 4/10 97.2 % | ... elapsed 2:31
"""

import json
import shutil
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from bnnbench.records.store import headline_key
from bnnbench.runs.forced import workspace

POLL = 1.0  # seconds between two looks at the folders
LOG_EVERY = 30.0  # seconds between two lines where the output is not a terminal
_WATCHED = ("result.json", "error.txt", "progress.json")


@dataclass(eq=False)
class Watched:
    """A job's run folder; files that stood there before count only once they change.

    A forced run writes its progress into a folder of its own until its result stands.
    """

    label: str
    folder: Path
    before: dict[str, int | None] = field(init=False)

    def __post_init__(self) -> None:
        self.before = {name: self._stamp(name) for name in _WATCHED}

    def new(self, name: str) -> bool:
        """Whether the file was written since the sweep began."""
        stamp = self._stamp(name)
        return stamp is not None and stamp != self.before[name]

    def running(self) -> str:
        """The job's share of the line: finished epochs and the latest accuracy."""
        try:
            state = json.loads(self._file("progress.json").read_text())
            epochs = f"{state['epoch']}/{state['max_epochs']}"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return self.label  # on its way; the job itself reports what is wrong
        return " ".join([self.label, epochs, *_accuracy(state.get("metrics") or {})])

    def _stamp(self, name: str) -> int | None:
        try:
            return self._file(name).stat().st_mtime_ns
        except OSError:
            return None

    def _file(self, name: str) -> Path:
        forced = workspace(self.folder) / name
        return forced if name == "progress.json" and forced.exists() else self.folder / name


class Progress:
    """A thread that prints the line while the `with` block runs: in place on a terminal."""

    def __init__(self, jobs: list[Watched], stream: TextIO | None = None) -> None:
        self.jobs = jobs
        self.stream = stream if stream is not None else sys.stderr
        self.start = self.last = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        end = "\r\x1b[2K" if self.stream.isatty() else ""
        print(f"{end}{self.line()}", file=self.stream, flush=True)

    def line(self, width: int | None = None) -> str:
        """The sweep's state now; only the running jobs are cut where it is longer than `width`."""
        failed = [job for job in self.jobs if job.new("error.txt")]
        done = [job for job in self.jobs if job.new("result.json") and job not in failed]
        running = [
            job.running()
            for job in self.jobs
            if job not in failed and job not in done and job.new("progress.json")
        ]
        seconds = int(time.monotonic() - self.start)
        count = f"{len(done)}/{len(self.jobs)} done"
        head = f"[{count}, {len(failed)} failed]" if failed else f"[{count}]"
        tail = f"elapsed {seconds // 60}:{seconds % 60:02d}"
        room = None if width is None else max(0, width - len(head) - len(tail) - 2)
        return " ".join(filter(None, [head, " | ".join(running)[:room].strip(), tail]))

    def _watch(self) -> None:
        while not self._stop.wait(POLL):
            if self.stream.isatty():
                width = shutil.get_terminal_size().columns - 1
                self.stream.write(f"\r\x1b[2K{self.line(width)}")
                self.stream.flush()
            elif time.monotonic() - self.last >= LOG_EVERY:
                self.last = time.monotonic()
                print(self.line(), file=self.stream, flush=True)


def _accuracy(metrics: dict[str, Any]) -> list[str]:
    key = headline_key(metrics)
    return [] if key is None else [f"{100 * metrics[key]:.1f} %"]
