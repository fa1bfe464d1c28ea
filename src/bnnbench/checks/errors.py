"""What a person sees of a failure: its message in one line; the traceback stands in a file.

``HYDRA_FULL_ERROR=1`` shows all of it, as Hydra's users expect.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from bnnbench.records.ranks import rank

# What the messages of this suite, of the system and of the libraries' own checks are raised as.
# By name, because torch and Lightning are imported only where there is something to train.
TOLD = (OSError, ValueError, FloatingPointError, MemoryError, OmegaConfBaseException)
TOLD_BY_NAME = ("MisconfigurationException", "OutOfMemoryError", "CompactHydraException")
RESOLVING = re.compile(r"^(ValueError|\w*NotFoundError) raised while resolving interpolation: ")
# These name a folder: through which key it was looked at is of no interest.
OF_DATA = re.compile(r"^Dataset(Missing|Damaged) raised while resolving interpolation: ")
MEMORY = "out of memory: lower dataset.batch_size, or choose a smaller backbone"


class Several(ValueError):
    """What is wrong with several runs, a line each."""


def full_error() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def is_told(error: BaseException) -> bool:
    """Whether the message of an error says all there is to know: it is no bug of the suite's."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, TOLD) or not names.isdisjoint(TOLD_BY_NAME) or _is_memory(error)


def message(error: BaseException) -> str:
    """An error in one line, of several runs in one each; before a bug its class has its name."""
    if isinstance(error, Several):
        return str(error)
    text = " ".join(_text(error).split())
    if _is_memory(error):
        return f"{MEMORY}{f' ({text})' if text else ''}"
    return text if text and is_told(error) else f"{type(error).__name__}: {text}".removesuffix(": ")


@contextmanager
def messages(cfg: DictConfig) -> Iterator[None]:
    """End the process with the message of what fails in the block, and exit code 1.

    The folder of the run of ``cfg``, as it is then, keeps the traceback of an error that may be a
    bug in its ``error.txt``.
    """
    try:
        yield
    except Exception as error:
        if full_error():
            raise
        line = message(error)
        if not is_told(error):
            file = Path(cfg.paths.output_dir) / "error.txt"
            with suppress(OSError):
                if rank() == 0 or not file.exists():  # another process's reason is this one's
                    file.write_text(traceback.format_exc())
            line += f"; the traceback is in {file}"
        raise SystemExit(line) from error


def _text(error: BaseException) -> str:
    """Of OmegaConf's errors their key and what happened there, without its other lines."""
    if not isinstance(error, OmegaConfBaseException):
        return str(error)
    what = RESOLVING.sub("", str(error).partition("\n    full_key:")[0])
    if OF_DATA.match(what):
        return OF_DATA.sub("", what)
    return f"{error.full_key}: {what}" if error.full_key else what


def _is_memory(error: BaseException) -> bool:
    """Also where torch raises no class of its own for it: on CPU."""
    return isinstance(error, MemoryError) or any(
        sign in str(error) for sign in ("out of memory", "can't allocate memory")
    )
