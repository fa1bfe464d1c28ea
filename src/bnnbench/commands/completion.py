"""Tab completion of ``bnnbench``: commands, and the keys and options that Hydra knows of each.

    eval "$(bnnbench completion bash)"

Hydra's own script (``--shell-completion install=bash``) is for programs of one word: it would ask
``bnnbench`` where ``bnnbench train`` knows the answer. So the script is ours, and the answers are
Hydra's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from io import StringIO

from bnnbench import commands

BASH = """\
_bnnbench() {
    local line="${COMP_LINE:0:COMP_POINT}"
    local found="$(COMP_LINE="$line" bnnbench completion query 2> /dev/null)"
    COMPREPLY=($(compgen -W "$found" -- "${line##* }"))
}
complete -o nospace -o default -F _bnnbench bnnbench"""
SCRIPTS = {
    # bash would part a word at its =, and put the key there twice
    "bash": "COMP_WORDBREAKS=${COMP_WORDBREAKS//=}\n" + BASH,
    "zsh": "autoload -U +X bashcompinit && bashcompinit\n" + BASH,
    "fish": """\
function _bnnbench
    COMP_LINE=(commandline -cp) bnnbench completion query 2> /dev/null | string split ' '
end
complete -c bnnbench -f -a '(_bnnbench)'""",
}
HELP = """\
eval "$(bnnbench completion bash)"          in ~/.bashrc; zsh likewise in ~/.zshrc
bnnbench completion fish | source           in ~/.config/fish/config.fish"""
HYDRAS = ("train", "evaluate", "report")  # their words are overrides
WORDS = {"data": ("check",), "completion": tuple(SCRIPTS)}


def run() -> None:
    """The command with the arguments of ``sys.argv``."""
    words = sys.argv[1:]
    if words == ["query"]:
        answer(os.environ.get("COMP_LINE", ""))
    elif len(words) == 1 and words[0] in SCRIPTS:
        print(SCRIPTS[words[0]])
    elif words in (["-h"], ["--help"]):
        print(HELP)
    else:
        typed = " ".join(["bnnbench completion", *words])
        raise SystemExit(f"error: {typed}: give one of {', '.join(SCRIPTS)}")


def answer(line: str) -> None:
    """Print what may stand in the place of the last word of a line."""
    program, *words = line.split(" ")
    if len(words) < 2:
        _show(commands.COMMANDS)
    elif words[0] in HYDRAS:
        before, words[-1] = _parted(words[-1])
        os.environ["COMP_LINE"] = " ".join([program, *words[1:]])
        sys.argv = [f"bnnbench {words[0]}", "--shell-completion", "query=bash"]
        with redirect_stdout(StringIO()) as found:
            commands.run(words[0])
        _show(_joined(before, word) for word in found.getvalue().split())
    elif words[0] == "predict":
        from bnnbench.commands.predict import KEYS

        _show(f"{key}=" for key in KEYS)
    else:
        _show(WORDS.get(words[0], ()))


def _parted(word: str) -> tuple[str, str]:
    """What of a list of options, ``a=b,c`` or ``a=[b,c``, stays, and ``a=c``, which Hydra knows."""
    key, equals, values = word.partition("=")
    first, comma, last = values.rpartition(",")
    bracket = "[" if not comma and values.startswith("[") else ""
    stays = f"{key}={first}{comma}{bracket}" if comma or bracket else ""
    return stays, f"{key}{equals}{last.removeprefix(bracket)}"


def _joined(before: str, word: str) -> str:
    return before + word.partition("=")[2] if before else word


def _show(words: Iterable[str]) -> None:
    print(" ".join(words))
