"""The precision that a run takes where it is not typed."""

import time

import pytest
import torch

from bnnbench.runs import precision
from bnnbench.runs.precision import gain, resolved

CPU = {"accelerator": "cpu", "devices": 1}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch):
    """Says how many times as fast bfloat16 is."""

    def say(factor: float) -> None:
        monkeypatch.setattr(precision, "gain", lambda: factor)

    return say


@pytest.mark.parametrize("typed", ["32-true", "bf16-mixed", "64-true", 32, None])
def test_what_is_typed_stays(typed, measured) -> None:
    measured(9.0)
    assert resolved({**CPU, "precision": typed}) == typed


@pytest.mark.parametrize(
    ("factor", "taken"), [(1.5, "bf16-mixed"), (1.05, "32-true"), (0.4, "32-true")]
)
def test_fastest_is_bfloat16_only_where_it_gains(factor, taken, measured) -> None:
    measured(factor)
    assert resolved({**CPU, "precision": "fastest"}) == taken
    assert resolved({**CPU, "precision": "auto"}) == "32-true"


@pytest.mark.parametrize("many", [{"devices": 2}, {"devices": [0, 1]}, {"num_nodes": 2}])
def test_several_processes_measure_nothing(many, measured) -> None:
    measured(9.0)
    assert resolved({**CPU, **many, "precision": "fastest"}) == "32-true"


@pytest.mark.parametrize("typed", ["auto", "fastest"])
@pytest.mark.parametrize(("has", "taken"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu_has_it_or_not(typed, has, taken, measured, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has)
    measured(0.1)
    assert resolved({**CPU, "accelerator": "auto", "precision": typed}) == taken
    assert resolved({**CPU, "precision": typed}) == "32-true"  # on its CPU


@pytest.mark.parametrize(
    ("slowed", "low", "high"), [(torch.float32, 2, 99), (torch.bfloat16, 0, 0.5)]
)
def test_the_gain_is_a_ratio_of_both(slowed, low, high, monkeypatch) -> None:
    """With one of both made so slow that the machine's own ratio does not matter."""

    def turn(_, dtype: torch.dtype) -> float:
        start = time.perf_counter()
        time.sleep(0.02 if dtype == slowed else 0.001)
        return time.perf_counter() - start

    monkeypatch.setattr(precision, "_turn", turn)
    gain.cache_clear()
    assert low < gain() < high
    gain.cache_clear()


def test_measuring_takes_no_random_numbers() -> None:
    gain.cache_clear()
    before = torch.random.get_rng_state()
    assert gain() > 0
    assert torch.equal(torch.random.get_rng_state(), before)
