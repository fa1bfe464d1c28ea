"""The check of a GPU on a machine without one: it runs, and it says what is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gpu_check
import gpu_steps

from ..small import shrink


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


def test_a_dry_run_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--device", "cpu", "--methods", "xnor", "bnn"]) == 0
    out = capsys.readouterr().out
    assert "no GPU: a dry run on the CPU" in out
    for way in gpu_check.WAYS:
        assert f"xnor        {way}" in out
    assert out.splitlines()[-1] == "nothing is wrong"


def test_other_numbers_are_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device on which every convolution is another one's."""

    def elsewhere(net: nn.Module, device: torch.device) -> nn.Module:
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.data.mul_(-1)
        return net

    monkeypatch.setattr(gpu_check, "TIMED", ())
    monkeypatch.setattr(nn.Module, "to", elsewhere)
    assert gpu_check.main(["--device", "cpu", "--methods", "xnor"]) == 1
    wrong = capsys.readouterr().out.partition("what is wrong:\n")[2]
    assert wrong.startswith("xnor computes other numbers than on the CPU: cosines ")


def test_a_failure_stops_no_other_method(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(method: str, device: torch.device, size: gpu_steps.Size) -> tuple[float, float]:
        if method == "bnn":
            raise RuntimeError("no kernel image\nsecond line")
        return 1.0, 1.0

    monkeypatch.setattr(gpu_check, "TIMED", ())
    monkeypatch.setattr(gpu_check, "likeness", fails)
    assert gpu_check.main(["--device", "cpu", "--methods", "bnn", "xnor"]) == 1
    out = capsys.readouterr().out
    assert "xnor        1.0000" in out
    assert "bnn does not train on this device: RuntimeError: no kernel image\n" in out


def test_what_waits_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "TIMED", ())
    monkeypatch.setattr(gpu_check, "synchronisations", lambda *asked: ["siman.py:32"])
    assert gpu_check.main(["--device", "cpu", "--methods", "xnor"]) == 1
    assert "a step of xnor waits for the GPU at siman.py:32" in capsys.readouterr().out


def test_what_draws_is_compared_where_it_does_not() -> None:
    images = gpu_steps.batch_of(gpu_check.DRY, 8)[0]
    assert gpu_steps.draws(gpu_steps.network("bbb", gpu_check.DRY), images)
    assert not gpu_steps.draws(gpu_steps.network("xnor", gpu_check.DRY), images)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--methods", "adabinn"], "--methods adabinn: choose from abbnn, "),
        (["--device", "cuda"], "--device cuda: torch sees no GPU"),
    ],
)
def test_what_there_is_not_is_refused(
    capsys: pytest.CaptureFixture[str], asked: list[str], told: str
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(SystemExit):
        gpu_check.main(asked)
    assert told in capsys.readouterr().err
