"""The command ``bnnbench``; the scripts in src/ are doors to the same code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from bnnbench import __version__

# What each does, and the arguments that it puts before those that are typed.
COMMANDS = {
    "train": ("train a run, or a sweep that ends in its comparison table", ()),
    "evaluate": ("evaluate a checkpoint: ckpt_path=<file>", ("train=false",)),
    "predict": ("say what images show: ckpt_path=<file> input=<image, folder or pattern>", ()),
    "export": ("write a packed 1-bit file, or ONNX: ckpt_path=<file>", ()),
    "bench": ("time packed networks beside float and int8 ones on this CPU", ()),
    "data": ("say what a folder of images holds: data check <folder>", ()),
    "report": ("render every table and figure again, promote results", ()),
}
MODULES = {"evaluate": "train"}  # where a command is no module of its own


def main(typed: Sequence[str] | None = None) -> None:
    """Run ``bnnbench <command> <arguments>``; SystemExit with a line where there is none such."""
    words = list(sys.argv[1:] if typed is None else typed)
    if words[:1] in (["--version"], ["-V"]):
        print(f"bnnbench {__version__}")
    elif not words or words[0] in ("-h", "--help", "help"):
        from bnnbench.commands.help import overview

        print(overview())
    elif words[0] in COMMANDS:
        command, *arguments = words
        sys.argv = [f"bnnbench {command}", *COMMANDS[command][1], *arguments]
        run(command)
    else:
        raise SystemExit(_refusal(words[0]))


def run(command: str) -> None:
    """Run a command with the arguments of ``sys.argv``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C within the imports: no traceback
    import_module(f"{__name__}.{MODULES.get(command, command)}").run()


def _refusal(word: str) -> str:
    if "=" in word or word in ("-m", "--multirun"):
        return f"bnnbench {word}: type a command first: bnnbench train {word} ..."
    close = get_close_matches(word, COMMANDS, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"bnnbench {word}: no such command; {meant}There are {', '.join(COMMANDS)}"
