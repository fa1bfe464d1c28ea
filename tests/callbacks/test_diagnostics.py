"""Diagnostics of binary layers: against arithmetic of the test's own, and without any trace."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F

import bnnbench
from bnnbench.callbacks.diagnostics_figure import draw
from bnnbench.callbacks.probe import (
    MEANS,
    VALUES,
    Probed,
    entropy,
    probe,
    watched_layers,
    weight_codes,
)
from bnnbench.config import options
from bnnbench.records.fingerprint import fingerprint
from bnnbench.records.store import read_result
from bnnbench.runs import run

Compose = Callable[..., DictConfig]
ON = "callbacks=diagnostics"
TIMED = ("epoch_s", "images_per_s")  # differ from run to run


class Around(nn.Module):
    """A binary convolution with a shortcut around it, between full precision."""

    def __init__(self, quantizer: str, **options: Any) -> None:
        super().__init__()
        spec = bnnbench.load_quantizer(quantizer, **options)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.binary = spec.conv2d(8, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        return self.head((x + self.binary(x)).mean((2, 3)))


def probed(net: Around, images: Tensor, labels: Tensor, **before: Tensor) -> Probed:
    return probe(net, lambda: F.cross_entropy(net(images), labels), before)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(6, 3, 7, 7), torch.randint(0, 5, (6,))


def row(found: Probed, layer: int = 0) -> dict[str, float]:
    return dict(zip(VALUES, found.values[layer].tolist(), strict=True))


def test_every_value_is_what_it_says(batch: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    net, (images, labels) = Around("bnn"), batch
    with torch.no_grad():
        net.norm.bias[3] = 9.0  # a channel that is always above the window
        net.binary.weight[0].abs_()  # and a filter of one sign
    found = row(probed(net, images, labels, binary=net.binary.weight < 0))

    x = net.norm(net.stem(images)).detach().requires_grad_()
    real = x.detach()
    signs = torch.where(real >= 0, 1.0, -1.0).requires_grad_()
    latent = net.binary.weight.detach()
    weight = torch.where(latent >= 0, 1.0, -1.0).requires_grad_()
    logits = net.head((x + F.conv2d(signs, weight, padding=1)).mean((2, 3)))
    behind, of_weight = torch.autograd.grad(F.cross_entropy(logits, labels), [signs, weight])

    inside = real.abs() < 1
    assert found["saturated"] == pytest.approx(float((~inside).float().mean()), abs=1e-6)
    assert found["dead"] == 1 / 8
    assert found["flipped"] == 1.0  # every sign is another than the one that was given
    shares = (real >= 0).float().mean((0, 2, 3)).clamp(1e-12, 1 - 1e-7).double()
    bits = -(shares * shares.log2() + (1 - shares) * (1 - shares).log2())
    assert found["activation_entropy"] == pytest.approx(float(bits.mean()), abs=1e-4)
    assert found["activation_grad_quantized"] == pytest.approx(float(behind.norm()), rel=1e-5)
    # the shortcut's gradient is not the sign's
    assert found["activation_grad_real"] == pytest.approx(float((behind * inside).norm()), rel=1e-5)
    assert found["weight_grad_quantized"] == pytest.approx(float(of_weight.norm()), rel=1e-5)
    own = of_weight * (latent.abs() < 1)
    assert found["weight_grad_latent"] == pytest.approx(float(own.norm()), rel=1e-5)


def test_entropy_is_of_rows() -> None:
    halves = torch.tensor([[True, False], [False, True]])
    assert float(entropy(halves)) == 1.0
    assert float(entropy(torch.tensor([[True, True], [False, True]]))) == 0.5
    assert float(entropy(torch.tensor([[True, True], [False, False]]))) == 0.0
    assert float(entropy(torch.tensor([[True, False, False, False]]))) == pytest.approx(
        0.81128, abs=1e-5
    )


@pytest.mark.parametrize("name", options("quantizer"))
def test_it_leaves_no_trace(name: str, batch: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    stochastic = {"stochastic": True} if name == "bnn" else {}
    net = Around(name, **stochastic).train()
    F.cross_entropy(net(batch[0]), batch[1]).backward()
    state, random = deepcopy(net.state_dict()), torch.get_rng_state()
    gradients = [None if p.grad is None else p.grad.clone() for p in net.parameters()]

    found = probed(net, *batch)

    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())
    for before, parameter in zip(gradients, net.parameters(), strict=True):
        after = parameter.grad
        assert before is after is None or torch.equal(before, after)  # type: ignore[arg-type]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert (
        list(watched_layers(net)) == found.names == ([] if name in ("fp32", "bbb") else ["binary"])
    )
    for layer in watched_layers(net).values():
        weights, activations = layer.weight_quantizer.bits, layer.activation_quantizer.bits
        values = row(found)
        assert all(values[k] > 0 for k in values if "weight_grad" in k) == (weights < 32)
        assert (values["saturated"] >= 0) == (activations < 32)
        assert (0 <= values["weight_entropy"] <= 1) == (weights == 1)
        assert (0 <= values["activation_entropy"] <= 1) == (activations == 1)


def test_all_layers_are_weighted_by_what_they_have() -> None:
    both = Probed(["wide", "narrow", "real"])
    both.put(0, {"flipped": 0.1, "weight_grad_latent": 3.0}, {"flipped": 900})
    both.put(1, {"flipped": 0.5, "weight_grad_latent": 4.0}, {"flipped": 100})
    together = both.together()
    assert together["flipped"] == pytest.approx(0.14)
    assert together["weight_grad_latent"] == 5.0
    assert all(together[key] != together[key] for key in (*MEANS[1:], "activation_grad_real"))


def test_tokens_have_their_channels_last() -> None:
    torch.manual_seed(0)
    layer = bnnbench.load_quantizer("xnor").linear(4, 4)
    tokens = torch.randn(3, 5, 4)
    tokens[..., 2] = -7.0
    found = row(probe(layer, lambda: layer.forward(tokens).square().mean(), weight_codes({})))
    assert found["dead"] == 0.25


def execute(cfg: DictConfig) -> dict[str, Any]:
    run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    result = read_result(cfg.paths.output_dir)
    assert result is not None
    return result


def weights(cfg: DictConfig) -> dict[str, Tensor]:
    file = Path(cfg.paths.output_dir) / "checkpoints" / "last.ckpt"
    return torch.load(file, weights_only=True)["state_dict"]


RUNS = {
    "adabin": ["quantizer=adabin"],
    "stochastic": ["quantizer=bnn", "quantizer.stochastic=true"],
    "ternary": ["quantizer=tbn"],
    "rotated": ["quantizer=rbnn", "loss=kurtosis"],
    "watched": ["quantizer=pcnn", "loss=pcnn", "loss.eta=0.1"],
    "taught": ["quantizer=xnor", "loss=attention", "teacher=joint"],
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_with_it_is_bit_for_bit_the_run_without(
    compose: Compose, short: list[str], tmp_path: Path, name: str
) -> None:
    arguments = [*short, *RUNS[name]]
    plain, watched = (
        compose(*arguments, f"paths.output_dir={tmp_path}/{kind}", *extra)
        for kind, extra in (("plain", []), ("watched", [ON]))
    )
    assert fingerprint(plain) == fingerprint(watched)
    results = execute(plain), execute(watched)
    before, after = weights(plain), weights(watched)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert "diagnostics" not in results[0]
    plain, watched = (
        {k: v for k, v in result["history"].items() if not k.startswith(("diagnostics/", *TIMED))}
        for result in results
    )
    assert watched == plain
    assert len(results[1]["history"]["diagnostics/flipped"]) == 3
    last = results[1]["diagnostics"]
    assert last["epoch"] == 2
    assert all(len(last[value]) == len(last["layers"]) == 18 for value in VALUES)
    assert (tmp_path / "watched" / "diagnostics.png").stat().st_size > 1000
    assert not (tmp_path / "plain" / "diagnostics.png").exists()


def test_a_cut_run_has_the_values_of_an_uncut_one(
    compose: Compose,
    short: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fail_at: Callable[[pytest.MonkeyPatch, int, BaseException], None],
) -> None:
    arguments = [*short, "quantizer=adabin", ON]
    whole = execute(compose(*arguments, f"paths.output_dir={tmp_path}/whole"))
    cut = compose(*arguments, f"paths.output_dir={tmp_path}/cut")
    with monkeypatch.context() as patch:
        fail_at(patch, 2, RuntimeError("cut"))
        with pytest.raises(RuntimeError, match="cut"):
            execute(cut)
    result = execute(cut)
    assert result["diagnostics"] == whole["diagnostics"]
    kept = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
        for name in ("whole", "cut")
    ]
    assert kept[1]["BinaryDiagnostics"] == kept[0]["BinaryDiagnostics"]
    assert [row["epoch"] for row in kept[1]["BinaryDiagnostics"]["epochs"]] == [0, 1, 2]
    values = [f"diagnostics/{value}" for value in VALUES]
    assert [result["history"][v] for v in values] == [whole["history"][v] for v in values]


def test_full_precision_has_nothing_to_tell(compose: Compose, short: list[str]) -> None:
    result = execute(compose(*short, "quantizer=fp32", "trainer.max_epochs=1", ON))
    assert result["diagnostics"] == {"layers": []}
    assert not any(name.startswith("diagnostics/") for name in result["history"])


def test_a_detector_is_probed_as_well(compose: Compose) -> None:
    small = ["dataset.image_size=64", "dataset.batch_size=4", "dataset.generate.trainval=8"]
    cfg = compose(
        *("backbone=ssd300_resnet18", "dataset=shapes", "quantizer=xnor", *small, ON),
        *("dataset.generate.test=4", "trainer.max_epochs=1", "trainer.accelerator=cpu"),
        *("logger=none", "callbacks.pictures=null"),
    )
    last = execute(cfg)["diagnostics"]
    assert len(last["layers"]) > 15
    assert all(value > 0 for value in last["activation_grad_quantized"][:10])


def test_two_images_at_least(compose: Compose, short: list[str]) -> None:
    with pytest.raises(ValueError, match=r"callbacks\.diagnostics.*images=1: at least 2"):
        execute(compose(*short, ON, "callbacks.diagnostics.images=1"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("missing", [None, 0.0])
def test_a_figure_of_layers_that_lack_values(tmp_path: Path, missing: float | None) -> None:
    """Norms of zero have no place on a scale of powers."""
    none = {value: [missing, missing] for value in VALUES}
    epochs = [{"epoch": 0, **none}, {"epoch": 1, **none, "flipped": [0.5, missing]}]
    assert draw(["a", "b$"], epochs, tmp_path / "figure").stat().st_size > 1000
