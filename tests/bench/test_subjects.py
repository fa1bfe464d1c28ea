"""The networks that are timed are those that they say, and compute the same in every way."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bnnbench
from bnnbench.bench import contenders, networks, subjects
from bnnbench.bench.subjects import METHODS, NETWORKS, Network, plain, subject, twin
from bnnbench.config import options
from bnnbench.layers import BinaryConv2d
from bnnbench.packing.work import work_of


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """A network on small images."""
    monkeypatch.setitem(subjects.NETWORKS, "tiny", Network("resnet20", 8))
    return "tiny"


def test_the_names_are_those_of_the_suite() -> None:
    assert {network.backbone for network in NETWORKS.values()} <= set(options("backbone"))
    assert {quantizer for quantizer, _ in METHODS.values()} <= set(options("quantizer"))


def test_the_twin_computes_what_the_suites_network_does_by_plain_layers(tiny: str) -> None:
    net, facts = twin(tiny)
    assert not any(isinstance(module, BinaryConv2d) for module in net.modules())
    assert (facts["bits"], facts["work"]) == ({"w": 32, "a": 32}, None)
    original = bnnbench.build_backbone("resnet20", image_size=8).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = original(x)
        torch.testing.assert_close(plain(original)(x), expected)


def test_all_ways_of_a_network_agree(tiny: str) -> None:
    net, _ = twin(tiny)
    x = contenders.images((3, 8, 8), 4)
    expected = contenders.eager(net, x)()
    found = contenders.int8(net, x)()
    assert not torch.equal(found, expected)
    assert (found - expected).abs().max() < 0.2 * expected.abs().max()
    one = subject(tiny, "reactnet")
    simulated = contenders.eager(one.simulation, x)()
    torch.testing.assert_close(contenders.eager(one.packed, x)(), simulated, rtol=1e-3, atol=1e-3)


def test_the_int8_network_has_int8_layers_alone(tiny: str) -> None:
    net, _ = twin(tiny)
    quantized = contenders.quantized(net, contenders.images((3, 8, 8), 2))
    kinds = {type(module) for module in quantized.modules()}
    assert not kinds & {nn.Conv2d, nn.Linear, nn.BatchNorm2d}
    assert sum("quantized" in type(m).__module__ for m in quantized.modules()) >= 20


def test_equal_work_has_one_name_and_other_work_another(tiny: str) -> None:
    names = {method: subject(tiny, method).facts["work"] for method in ("xnor", "xnor_k")}
    assert names["xnor"] != names["xnor_k"]
    document = subject(tiny, "xnor").packed.document
    assert work_of(document) == names["xnor"]
    assert work_of({**document, "image": [1, 8, 8]}) != names["xnor"]


def test_a_contender_that_cannot_be_made_costs_its_own_row(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no such kernel\nsecond line")

    monkeypatch.setattr(contenders, "int8", fails)
    net, _ = twin(tiny)
    x = contenders.images((3, 8, 8), 1)
    ways = (contenders.EAGER, contenders.INT8)
    calls, left = networks.calls_of(net, [], x, ways, {})
    assert list(calls) == [contenders.EAGER]
    assert left == [{"way": "int8", "why": "RuntimeError: no such kernel"}]


def test_a_simulation_that_takes_too_long_is_left_out(tiny: str) -> None:
    net, _ = twin(tiny)
    one = subject(tiny, "birealnet")
    ways, took = (networks.SIMULATED,), {"simulated birealnet": networks.LONGEST}
    x = contenders.images((3, 8, 8), 2)
    calls, left = networks.calls_of(net, [one], x, ways, took)
    assert list(calls) == ["packed birealnet"]
    assert [each["way"] for each in left] == ["simulated birealnet"]


@pytest.mark.filterwarnings("ignore")
def test_the_compiled_way_computes_the_same(tiny: str) -> None:
    net, _ = twin(tiny)
    x = contenders.images((3, 8, 8), 2)
    expected = contenders.eager(net, x)()
    torch.testing.assert_close(contenders.compiled(net, x)(), expected, rtol=1e-3, atol=1e-3)
