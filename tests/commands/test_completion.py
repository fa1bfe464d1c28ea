"""Tab completion, driven as bash drives it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bnnbench import commands
from bnnbench.commands import completion

ROOT = Path(__file__).resolve().parents[2]
BASH = shutil.which("bash")
DRIVE = """
eval "$({install})"
while IFS= read -r line; do
    COMP_LINE="$line"; COMP_POINT=${{#line}}; COMPREPLY=()
    _bnnbench
    echo "${{COMPREPLY[*]}}"
done
"""
LINES = {
    "bnnbench tr": {"train"},
    "bnnbench train quantizer=ad": {"quantizer=adabin", "quantizer=admm"},
    "bnnbench train -m quantizer=xnor recipe.l": {"recipe.lr=", "recipe.label_smoothing="},
    "bnnbench train -m quantizer=xnor,ad": {"quantizer=xnor,adabin", "quantizer=xnor,admm"},
    "bnnbench train logger=[csv,wa": {"logger=[csv,wandb"},
    "bnnbench train logger=[wa": {"logger=[wandb"},
    "bnnbench report prom": {"promote="},
    "bnnbench predict in": {"input="},
    "bnnbench data ": {"check"},
    "bnnbench nothing ": set(),
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which ``bnnbench`` is this checkout's."""
    program = tmp_path / "bnnbench"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bnnbench "$@"\n')
    program.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.skipif(BASH is None, reason="needs bash")
@pytest.mark.parametrize(
    "install", ["bnnbench completion bash", "bnnbench train --shell-completion install=bash"]
)
def test_bash_completes(path: str, install: str) -> None:
    done = subprocess.run(
        [str(BASH), "-c", DRIVE.format(install=install)],
        input="".join(f"{line}\n" for line in LINES),
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    found = [set(line.split()) for line in done.stdout.splitlines()]
    assert dict(zip(LINES, found, strict=True)) == LINES


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    commands.main(["completion", shell])
    assert "bnnbench completion query" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]])
def test_another_shell_is_told_which_there_are(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="give one of bash, zsh, fish"):
        commands.main(["completion", *words])


def test_commands_of_hydra_are_those_there_are() -> None:
    known = {*completion.HYDRAS, *completion.WORDS, "predict"}
    assert known <= set(commands.COMMANDS)
