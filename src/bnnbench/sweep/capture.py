"""Keeps what a process and its children print from tearing a screen that is being painted."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# What launchers say of each job that they start: the live table has it.
LAUNCHERS = ("hydra_plugins.hydra_joblib_launcher", "hydra_plugins.hydra_submitit_launcher")


@contextmanager
def captured(say: Callable[[str], None]) -> Iterator[None]:
    """Give every line that comes to a terminal by stdout or stderr to ``say`` while this lasts.

    Also what children and libraries of C print: the descriptors themselves are replaced. One that
    is no terminal stays as it is.
    """
    numbers = [number for number in (1, 2) if os.isatty(number)]
    source, sink = os.pipe()
    kept = {number: os.dup(number) for number in numbers}
    reader = threading.Thread(target=_read, args=(source, say), name="captured", daemon=True)
    reader.start()
    _flush()
    for number in numbers:
        os.dup2(sink, number)
    try:
        with _silent_launchers():
            yield
    finally:
        _flush()
        for number, terminal in kept.items():
            os.dup2(terminal, number)
            os.close(terminal)
        os.write(sink, _END)  # workers that live on hold the other end open
        os.close(sink)
        reader.join()


_END = b"\0\0captured\0\n"


def _read(source: int, say: Callable[[str], None]) -> None:
    with os.fdopen(source, "rb") as stream:
        for line in stream:
            text = line.removesuffix(_END)
            if text.strip():
                say(text.decode(errors="replace").rstrip("\r\n"))
            if line.endswith(_END):
                return


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


@contextmanager
def _silent_launchers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LAUNCHERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
