"""Mistakes of several runs: each once, with its runs, and how to leave these out."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig, OmegaConf

from bnnbench.checks.mistakes import Mistakes, labels
from bnnbench.data.known import DatasetMissing


def runs(*quantizers: str) -> list[DictConfig]:
    return [
        OmegaConf.create({"quantizer": {"name": q}, "loss": {"name": "task"}}) for q in quantizers
    ]


def test_runs_are_named_by_what_tells_them_apart() -> None:
    assert labels(runs("xnor", "bnn")) == ["quantizer=xnor", "quantizer=bnn"]
    assert labels(runs("xnor", "xnor")) == ["all runs", "all runs"]


def test_all_are_told_at_once() -> None:
    mistakes = Mistakes(runs("a", "b", "c", "b"))
    for number, text in ((0, "one"), (1, "two"), (3, "two")):
        with mistakes.of(number):
            raise OSError(text)
    with mistakes.of(2):
        pass
    with pytest.raises(ValueError, match="quantizer=a: one") as error:
        mistakes.tell()
    assert str(error.value).splitlines() == [
        "quantizer=a: one",
        "quantizer=b: two",
        "The others: 'quantizer=glob(*,exclude=[a,b])'",
    ]


def test_what_all_runs_have_stays_as_it_is() -> None:
    mistakes = Mistakes(runs("a", "b"))
    error = OSError("the disk is full")
    for number in (0, 1):
        mistakes.add(number, error)
    with pytest.raises(OSError, match=r"^the disk is full$"):
        mistakes.tell()
    Mistakes(runs("a")).tell()


def test_many_runs_are_counted() -> None:
    mistakes = Mistakes(runs(*"abcdef"))
    for number in range(5):
        mistakes.add(number, ValueError("no"))
    with pytest.raises(ValueError, match="quantizer=a, quantizer=b, quantizer=c and 2 more: no"):
        mistakes.tell()


def test_what_does_not_resolve_is_a_line_as_well() -> None:
    """Without OmegaConf's own lines of key and type."""

    def refused() -> None:
        raise DatasetMissing("there is no /x: give another")

    OmegaConf.register_new_resolver("refused", refused, replace=True)
    mistakes = Mistakes(runs("a", "b"))
    with mistakes.of(1):
        _ = OmegaConf.create({"x": "${refused:}"}).x
    with pytest.raises(ValueError, match="there is no /x") as error:
        mistakes.tell()
    assert str(error.value) == "quantizer=b: there is no /x: give another"
