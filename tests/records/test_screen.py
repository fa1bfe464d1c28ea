"""Which streams are painted, and how large they are."""

from __future__ import annotations

import fcntl
import io
import os
import struct
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from bnnbench.records.screen import can_repaint, size


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    for name in ("CI", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as stream:
        yield stream
    os.close(leader)


@pytest.mark.parametrize(
    ("name", "value", "paints"),
    [
        ("TERM", "dumb", False),
        ("TERM", "unknown", False),
        ("TERM", "", False),
        ("TERM", "screen", True),
        ("CI", "1", False),
        ("CI", "true", False),
        ("CI", "", True),
        ("CI", "false", True),
        ("NO_COLOR", "1", True),
    ],
)
def test_a_terminal_is_painted_unless_the_environment_says_otherwise(
    terminal: TextIO, monkeypatch: pytest.MonkeyPatch, name: str, value: str, paints: bool
) -> None:
    monkeypatch.setenv(name, value)
    assert can_repaint(terminal) is paints
    assert not can_repaint(io.StringIO())


def test_a_closed_stream_is_none() -> None:
    stream = io.StringIO()
    stream.close()
    assert not can_repaint(stream)


def test_the_size_is_the_terminals_now(terminal: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, lines in ((100, 30), (40, 12)):
        packed = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, packed)
        assert size(terminal) == (columns, lines)
    monkeypatch.setenv("COLUMNS", "72")
    assert size(terminal) == (72, 12)
    monkeypatch.setenv("COLUMNS", "wide")
    assert size(terminal) == (40, 12)


def test_what_has_no_size_has_the_usual_one(
    terminal: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    assert size(terminal) == size(io.StringIO()) == (80, 24)
