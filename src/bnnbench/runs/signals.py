"""How a process ends by a signal: with the signal's code, and one line that says where it was cut.

Ctrl-C, SIGTERM, SIGHUP and SIGUSR1, which SLURM sends before the time is over, raise `Ended` where
the main thread is. Nothing takes it for a failure, since it is no ``Exception``; what it passes is
tidied up, and at the very end the process sends itself the signal, so that a shell sees 128 + n.
A second signal ends it at once. Imports lightly.
"""

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from bnnbench.records.ranks import rank, started_by_lightning

Handler = Callable[[int, FrameType | None], None]
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
ONCE = 0.5  # seconds in which signals are one: timeout(1) sends its own to process and group


class Ended(BaseException):
    """A signal ends this process."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@dataclass
class _State:
    """Of this process, which has one set of handlers."""

    pid: int = 0
    signum: int | None = None
    leaving: SystemExit | None = None  # of a cluster's handler, once the job is queued again
    held: list[Callable[[], object]] | None = None  # what came while none may be raised
    since: float = 0.0
    place: str = "before anything was trained"
    told: bool = False


_state = _State()


def at(place: str) -> None:
    """Where the process is from now on, as the line that tells of its end will say."""
    _state.place = place


def check() -> None:
    """Raise `Ended` where a signal has come, also if the first one was lost or hid in an error.

    Where a cluster's handler has answered it and put the job into the queue again, raise the
    SystemExit it left by.
    """
    if _state.leaving is not None:
        raise SystemExit(_state.leaving.code)
    if _state.signum is not None:
        raise Ended(_state.signum)


def is_ending() -> bool:
    """Whether a signal has come, so that what fails now may fail by it."""
    return _state.signum is not None or _state.leaving is not None


@contextmanager
def held() -> Iterator[None]:
    """Around what must not be left in the middle: a signal is answered when it is over.

    Such is C++ code that writes by Python's: it would write on into a file that is closed by then,
    and abort the process. A second signal ends the process at once here too.
    """
    if _state.held is not None:
        yield
        return
    _state.held = answers = []
    try:
        yield
    finally:
        _state.held = None
        for answer in answers:
            answer()


def tell(rest: str = "the same command goes on") -> None:
    """The one line of an end by a signal, which is not told again: which, where, and the rest."""
    if _state.signum is None or _state.told or rank() > 0:
        return
    _state.told = True
    with suppress(OSError, ValueError, RuntimeError):  # no terminal (SIGHUP), or amid a print
        line = f"ended by {Ended(_state.signum)} {_state.place}; {rest}"
        print(line, file=sys.stderr, flush=True)


def ended_by(signum: int, rest: str) -> Ended:
    """The end by a signal that somebody else's handler has taken, told here; raise it."""
    if _state.signum is None:
        _state.signum, _state.since = signum, time.monotonic()
    tell(rest)
    return Ended(signum)


def answered_here_alone(rest: str) -> None:
    """Keep a cluster's handlers from forked children, which its signals reach as well.

    Where such a handler raises an error instead of putting the job into the queue again, that is
    the end by its signal, which is no failure; ``rest`` is what is told of it.
    """
    for signum in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT):
        handler = signal.getsignal(signum)
        if callable(handler) and handler is not signal.default_int_handler:
            signal.signal(signum, _of_this_process(handler, rest))


def _of_this_process(handler: Callable[[int, FrameType | None], object], rest: str) -> Handler:
    pid = os.getpid()

    def answer(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != pid:
            return _end_now(signum) if signum == signal.SIGTERM else None
        if _state.held is not None:
            return _state.held.append(lambda: answer(signum, None))
        try:
            handler(signum, frame)
        except SystemExit as leaving:
            _state.leaving = leaving
            raise
        except Exception as error:
            raise ended_by(signum, f"{error} {rest}") from error
        return None

    return answer


@contextmanager
def ending() -> Iterator[None]:
    """Around ``main()``: signals end what it does as this page says.

    A handler that stands there before is left alone, and so is an ignored signal (``nohup``).
    """
    if started_by_lightning():
        leave_to_parent(*ENDING)
        yield
        return
    atexit.register(_end_by_signal)  # first of all, and so run last
    _state.pid = os.getpid()
    handled = [s for s in ENDING if signal.getsignal(s) in _DEFAULTS]
    for signum in handled:
        signal.signal(signum, _handle)
    try:
        yield
    except BaseException:
        if _state.signum is None:
            raise
        tell()
        raise SystemExit(128 + _state.signum) from None
    else:
        _state.signum = None  # one that was lost has ended nothing
    finally:
        for signum in handled:
            signal.signal(signum, signal.SIG_DFL)


def leave_to_parent(*signals: signal.Signals) -> None:
    """In a process that another one ends: a signal to the whole group is that one's alone."""
    for signum in signals:
        if signal.getsignal(signum) in _DEFAULTS:
            signal.signal(signum, _ignore)  # unlike SIG_IGN it is not passed on to programs


_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


def _handle(signum: int, frame: FrameType | None) -> None:
    if os.getpid() != _state.pid:  # a forked child, which its parent ends by SIGTERM
        return _end_now(signum) if signum == signal.SIGTERM else None
    if _state.signum is None:
        _state.signum, _state.since = signum, time.monotonic()
        if _state.held is not None:
            return _state.held.append(check)
        raise Ended(signum)
    if time.monotonic() - _state.since > ONCE:
        _end_now(signum)
    return None


def _ignore(signum: int, frame: FrameType | None) -> None:
    pass


def _end_by_signal() -> None:
    if _state.signum is not None and os.getpid() == _state.pid:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        _end_now(_state.signum)


def _end_now(signum: int) -> None:
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
