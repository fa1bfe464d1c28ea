"""The bar of a single run, painted and as lines."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from rich.console import Console
from torch.utils.data import DataLoader

from bnnbench.callbacks import bar as module
from bnnbench.callbacks import pulse
from bnnbench.callbacks.bar import RunBar, line, painted
from bnnbench.callbacks.pulse import Pulse
from bnnbench.losses import task_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.records.position import Position
from bnnbench.tasks.classification import Classification

HALFWAY = Position(
    epoch=2,
    max_epochs=10,
    batch=14,
    batches=22,
    metrics={"test/acc": 0.511},
    running={"loss": 1.234, "acc": 0.456},
    left_s=83.0,
)
DETECTOR = Position(
    0, None, 5, 0, True, {"val/map": 0.25}, {"loss": 12345.6}, "stage1_binary_activations"
)


def shown(position: Position, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(painted(position, width))
    file: Any = console.file
    return file.getvalue()


def test_what_it_shows() -> None:
    text = shown(HALFWAY, 120)
    assert text.startswith("epoch 3/10 ━")
    assert text.rstrip().endswith("14/22  loss 1.234  acc 45.6 %  test acc 51.1 %  1:23 left")
    assert line(HALFWAY) == (
        "epoch 3/10, batch 14/22, loss 1.234, acc 45.6 %, test acc 51.1 %, 1:23 left"
    )
    assert line(DETECTOR) == (
        "stage1_binary_activations: epoch 1 evaluating, batch 5, loss 12345.600, val mAP 25.0 %"
    )


@pytest.mark.parametrize("position", [HALFWAY, DETECTOR, Position()])
def test_it_is_one_line_that_fits(position: Position) -> None:
    for width in range(10, 201):
        (text,) = shown(position, width).splitlines()
        assert len(text) <= width
    assert "1:23 left" in shown(HALFWAY, 40)


def fit(bar: RunBar, folder: Path) -> L.Trainer:
    torch.manual_seed(0)
    pairs = [(torch.randn(3), torch.tensor(n % 3)) for n in range(16)]
    loader: Any = DataLoader(pairs, batch_size=4)  # type: ignore[arg-type]
    recipe = Recipe("sgd", lr=0.1, schedule="constant")
    task = Classification(torch.nn.Linear(3, 3), task_loss("classification"), recipe, 3)
    quiet: dict[str, Any] = {"logger": False, "accelerator": "cpu", "enable_model_summary": False}
    callbacks = [bar, Pulse(folder)]
    trainer = L.Trainer(**quiet, max_epochs=2, callbacks=callbacks, default_root_dir=folder)
    trainer.fit(task, loader, loader)
    trainer.test(task, loader, verbose=False)
    return trainer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_is_painted_and_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    for each in (module, pulse):
        monkeypatch.setattr(each, "EVERY", 0.0)
    monkeypatch.setattr(module, "size", lambda stream: (100, 24))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fit(RunBar(), tmp_path)
    assert sys.stderr is terminal
    text = terminal.getvalue()
    assert "epoch 1/2 " in text
    assert "4/4  loss " in text
    assert "%  test acc " in text
    assert "epoch 2/2 evaluating" in text
    assert text.endswith("\x1b[2K")  # of the line that was painted last
    assert "epoch" not in capsys.readouterr().out


def test_in_a_log_it_is_a_line_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in (module, pulse):
        monkeypatch.setattr(each, "EVERY", 0.0)
    fit(RunBar(), tmp_path)
    assert "epoch" not in capsys.readouterr().out  # nothing new within half a minute
    monkeypatch.setattr(module, "LINE_EVERY", 0.0)
    fit(RunBar(), tmp_path)
    out = capsys.readouterr().out
    assert "epoch 2/2, batch 3/4, loss " in out
    assert "\x1b" not in out


def test_a_bar_that_is_off_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("EVERY", "LINE_EVERY"):
        monkeypatch.setattr(module, name, 0.0)
    bar = RunBar()
    bar.disable()
    fit(bar, tmp_path)
    assert "epoch" not in capsys.readouterr().out
