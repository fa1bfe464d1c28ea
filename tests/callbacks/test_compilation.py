"""When a network is compiled."""

import shutil

import pytest
import torch

from bnnbench.callbacks.compilation import Compilation

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_gpus_and_long_runs_compile() -> None:
    auto = Compilation("auto")
    assert auto.pays(GPU, steps=1)
    assert not auto.pays(CPU, steps=100)
    assert auto.pays(CPU, steps=10**6) == (shutil.which("g++") is not None)
    assert Compilation(True).pays(CPU, steps=1)
    assert not Compilation(False).pays(GPU, steps=10**6)


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="compile='maybe'"):
        Compilation("maybe")
