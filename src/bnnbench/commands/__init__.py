"""The command ``bnnbench``; the scripts in src/ are doors to the same code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import NamedTuple

from bnnbench import __version__


class Command(NamedTuple):
    """What is typed, what it does, its module, and the arguments that it puts before others."""

    words: str
    line: str
    module: str
    first: tuple[str, ...] = ()


COMMANDS = {
    "train": Command(
        "train -m quantizer=adabin,xnor backbone=resnet20",
        "a comparison, which ends in its table",
        "train",
    ),
    "evaluate": Command(
        "evaluate ckpt_path=<file>", "a checkpoint on its test set", "train", ("train=false",)
    ),
    "robustness": Command(
        "robustness networks=<files>", "accuracy on corrupted test images", "robustness"
    ),
    "predict": Command(
        "predict ckpt_path=<file> input=<images>",
        "what images, or a folder, show",
        "predict",
    ),
    "export": Command("export ckpt_path=<file>", "a packed 1-bit file, or ONNX", "export"),
    "bench": Command("bench", "times of packed networks on this CPU", "bench"),
    "data": Command("data check <folder>", "what training would read there", "data"),
    "report": Command("report promote=<sweep>", "keeps a sweep, renders all tables", "report"),
    "completion": Command(
        "completion bash", 'completes words with Tab: eval "$(...)"', "completion"
    ),
}
HYDRAS_COMPLETION = ("-sc", "--shell-completion", "--shell_completion")
UNREAD = 128 + signal.SIGPIPE  # the exit code that shells have of it


def main(typed: Sequence[str] | None = None) -> None:
    """Run ``bnnbench <command> <arguments>``; SystemExit with a line where there is none such."""
    words = list(sys.argv[1:] if typed is None else typed)
    if words[:1] in (["--version"], ["-V"]):
        print(f"bnnbench {__version__}")
    elif not words or words[0] in ("-h", "--help", "help"):
        from bnnbench.commands.help import overview

        with _for_a_reader():
            print(overview())
    elif words[0] in COMMANDS:
        command, *arguments = words
        sys.argv = [f"bnnbench {command}", *COMMANDS[command].first, *arguments]
        run(command)
    else:
        raise SystemExit(_refusal(words[0]))


def run(command: str) -> None:
    """Run a command with the arguments of ``sys.argv``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C within the imports: no traceback
    if any(word in HYDRAS_COMPLETION for word in sys.argv[1:-1]) and "install" in sys.argv[-1]:
        command, sys.argv = "completion", [sys.argv[0], sys.argv[-1].partition("=")[2]]
    with _for_a_reader():
        import_module(f"{__name__}.{COMMANDS[command].module}").run()


@contextmanager
def _for_a_reader() -> Iterator[None]:
    """End quietly where nobody reads on, as in ``bnnbench train --help | head``."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        ended = error.__context__
        raise (ended if isinstance(ended, SystemExit) else SystemExit(UNREAD)) from None


def _refusal(word: str) -> str:
    if "=" in word or word in ("-m", "--multirun"):
        return f"bnnbench {word}: type a command first: bnnbench train {word} ..."
    from bnnbench.commands.words import meant  # only where one is mistyped

    return f"bnnbench {word}: no such command; {meant(word, list(COMMANDS))}"
