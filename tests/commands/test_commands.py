"""The command line's front door: which command runs with which arguments, and what help tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_module

from bnnbench import __version__, commands, resolvers
from bnnbench.commands import COMMANDS, main
from bnnbench.commands.help import GROUPS, of_train, overview, titles
from bnnbench.config import options

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, list[str]]]]:
    """The modules that were run, each with its ``sys.argv``."""
    found: list[tuple[str, list[str]]] = []

    def module(name: str) -> SimpleNamespace:
        return SimpleNamespace(run=lambda: found.append((name.rpartition(".")[2], sys.argv)))

    monkeypatch.setattr(commands, "import_module", module)
    monkeypatch.setattr("sys.argv", ["bnnbench"])
    handler = signal.getsignal(signal.SIGINT)
    yield found
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize(
    ("typed", "module", "arguments"),
    [
        ("train", "train", []),
        ("train -m quantizer=a,b", "train", ["-m", "quantizer=a,b"]),
        ("evaluate ckpt_path=x", "train", ["train=false", "ckpt_path=x"]),
        ("report promote=x", "report", ["promote=x"]),
        ("data check x", "data", ["check", "x"]),
    ],
)
def test_a_command_runs_with_its_arguments(
    ran: list[tuple[str, list[str]]], typed: str, module: str, arguments: list[str]
) -> None:
    main(typed.split())
    assert ran == [(module, [f"bnnbench {typed.split()[0]}", *arguments])]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("trian", "no such command; did you mean train?"),
        ("xyz", f"no such command; there are {', '.join(COMMANDS)}"),
        ("quantizer=adabin", "type a command first: bnnbench train quantizer=adabin ..."),
        ("-m quantizer=a,b", "type a command first: bnnbench train -m ..."),
        ("--verbose", "no such command"),
    ],
)
def test_what_is_no_command_says_what_to_type(
    ran: list[tuple[str, list[str]]], typed: str, told: str
) -> None:
    with pytest.raises(SystemExit, match=told.replace("?", r"\?")):
        main(typed.split())
    assert ran == []


@pytest.mark.parametrize("typed", ["", "-h", "--help", "help"])
def test_help_names_every_command(
    ran: list[tuple[str, list[str]]], typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(typed.split())
    told = capsys.readouterr().out
    assert told == f"{overview()}\n"
    assert all(f"\n  bnnbench {name} " in told for name in COMMANDS)
    lines = told.splitlines()
    assert len(lines) <= 14
    assert max(map(len, lines)) <= 100
    methods = set(options("quantizer")) - {"fp32"}
    assert f"train --help has a word on each of {len(methods)} methods" in told
    assert ran == []


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"bnnbench {__version__}\n"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("evaluate", "bnnbench evaluate ckpt_path=<file> "),
        ("report", "bnnbench report "),
        ("completion", 'eval "$(bnnbench completion bash)" '),
    ],
)
def test_the_help_of_a_command_is_its_own(
    command: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["bnnbench"])
    main([command, "--help"])
    assert capsys.readouterr().out.startswith(told)


@pytest.mark.parametrize("group", GROUPS)
def test_the_help_of_train_has_a_word_on_every_option(
    group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    told = of_train()
    assert all(len(line) <= 100 for line in told.splitlines())
    for name in options(group):
        assert f"\n  {name} " in told
    assert all(title for _, title in titles(group))


def test_a_title_is_the_first_sentence_whole() -> None:
    found = dict(titles("quantizer")) | dict(titles("loss"))
    assert found["bonn"] == "The dataset's own loss and the two Bayesian losses of BONN, " + (
        "arXiv 1908.06314, for any quantizer"
    )
    assert found["distributional"].startswith(
        "ReActNet's distributional loss (arXiv 2003.03488, Eq"
    )
    assert found["distributional"].endswith("labels")


def test_the_configs_are_importable_for_hydras_compose() -> None:
    resolvers.register()
    with initialize_config_module("bnnbench.conf", version_base="1.3"):
        cfg = compose("train", ["quantizer=xnor", "backbone=resnet20"])
    assert (cfg.quantizer.name, cfg.backbone.name) == ("xnor", "resnet20")


@pytest.mark.parametrize(
    "typed", ["--help", "train --help", "evaluate --help", "report --help", "completion bash"]
)
def test_a_reader_who_leaves_sees_no_traceback(typed: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "bnnbench", *typed.split()],
            stdout=nobody,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            text=True,
            check=False,
        )
    assert (done.stderr, done.returncode) == ("", commands.UNREAD)
