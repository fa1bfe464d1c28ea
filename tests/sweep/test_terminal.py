"""A sweep in a terminal: what is painted, what is left at the end, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

App = Any  # the fixture's class stands in conftest.py, which is not to be imported
THREE = ("-m", "quantizer=adabin,xnor,boom")


@dataclass
class Screen:
    """A pseudo terminal that somebody reads."""

    process: subprocess.Popen[bytes]
    leader: int
    chunks: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All that was written, without colours."""
        return re.sub(r"\x1b\[[\d;]*m", "", b"".join(self.chunks).decode())

    @property
    def left(self) -> list[str]:
        """The lines after what was painted last was taken away."""
        return self.text.rpartition("\x1b[2K")[2].split("\r\n")

    def read(self) -> None:
        with contextlib.suppress(OSError):  # the last writer has gone
            while chunk := os.read(self.leader, 65536):
                self.chunks.append(chunk)

    def wait_for(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, self.text
            time.sleep(0.05)


@contextlib.contextmanager
def terminal(app: App, *arguments: str, columns: int = 100, **extra: str) -> Iterator[Screen]:
    """The command in a terminal of its own, whose Ctrl-C reaches it."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def begin() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for signum in (signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)

    environment = app.environment(**{"TERM": "xterm-256color", "CI": "", **extra})
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    process = subprocess.Popen(
        app.command(*arguments),
        env=environment,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        preexec_fn=begin,
    )
    os.close(follower)
    screen = Screen(process, leader)
    reader = threading.Thread(target=screen.read, daemon=True)
    reader.start()
    try:
        yield screen
    finally:
        process.kill()
        process.wait()
        reader.join(10)
        os.close(leader)


def test_a_sweep_is_painted_and_ends_in_a_table_that_fits(app: App) -> None:
    app.run("-m", "quantizer=adabin", "hydra/launcher=basic")
    with terminal(app, *THREE, columns=60) as screen:
        assert screen.process.wait(60) == 1
    text = screen.text
    assert re.search(r"cell +state +epoch", text)
    assert re.search(r"adabin +reused", text)
    assert re.search(r"xnor +(waiting|starting|training)", text)
    assert "chatter of a run" not in text
    assert "is launching" not in text
    assert screen.left[0].startswith("[1/2 done, 1 failed] elapsed 0:")
    assert [line.split() for line in screen.left[2:9]] == [
        ["states"],
        [],
        ["quantizer", "state"],
        ["---------", "--------"],
        ["adabin", "finished"],
        ["xnor", "finished"],
        ["boom", "failed"],
    ]
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("extra", "colours", "painted"),
    [
        ({"NO_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, False, False),
        ({"CI": "1"}, False, False),
        ({}, True, True),
    ],
)
def test_what_the_environment_asks_for(
    app: App, extra: dict[str, str], colours: bool, painted: bool
) -> None:
    app.run("-m", "quantizer=adabin", "hydra/launcher=basic")  # its row is green
    with terminal(app, "-m", "quantizer=adabin,xnor", columns=40, **extra) as screen:
        assert screen.process.wait(60) == 0
    raw = b"".join(screen.chunks)
    assert (re.search(rb"\x1b\[[\d;]*32m", raw) is not None) is colours
    assert (b"\x1b[2K" in raw) is painted
    assert ("finished: xnor" in screen.text) is not painted
    assert "| xnor" not in screen.text  # the table is no Markdown here


def test_ctrl_c_leaves_what_there_is(app: App) -> None:
    with terminal(app, "-m", "quantizer=adabin,xnor,fp32", APP_SLOW="xnor,fp32") as screen:
        for seen in (r"adabin +finished", r"xnor +training"):  # two workers, in either order
            screen.wait_for(lambda: re.search(seen, screen.text))  # noqa: B023
        os.write(screen.leader, b"\x03")
        assert screen.process.wait(60) == -signal.SIGINT
    hidden, shown = (screen.text.rfind(f"\x1b[?25{letter}") for letter in "lh")
    assert shown > hidden  # the cursor
    assert screen.left[0].split("]")[0] in ("[1/3 done", "[1/3 done, 1 failed")
    assert any(line.split() == ["xnor", "interrupted"] for line in screen.left)
    told = [line for line in screen.left if line.strip()][-1]
    assert told.startswith("ended by SIGINT in sweep adabin-xnor-fp32_")


def test_jobs_of_the_basic_launcher_print_as_they_like(app: App) -> None:
    with terminal(app, "-m", "quantizer=adabin", "hydra/launcher=basic") as screen:
        assert screen.process.wait(60) == 0
    assert "chatter of a run" in screen.text
    assert "\x1b[2K" not in screen.text


def test_a_sweep_without_a_worker_of_its_own_is_painted_too(app: App) -> None:
    """Its jobs run in its own process, and their output goes to their logs."""
    with terminal(app, "-m", "quantizer=adabin,xnor", BNNBENCH_WORKERS="1") as screen:
        assert screen.process.wait(60) == 0
    assert "\x1b[2K" in screen.text
    assert "chatter" not in screen.text
    logs = list(app.logs.glob("runs/*/output.log"))
    assert ["chatter of a run" in log.read_text() for log in logs] == [True, True]
