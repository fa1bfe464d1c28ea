"""A term is attached once to its module, whoever brings it and however many trainers follow."""

from __future__ import annotations

import copy
from collections.abc import Callable

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import bnnbench
from bnnbench.layers import binary_layers
from bnnbench.losses import task_loss
from bnnbench.losses.bayesian_kernel import BayesianKernel
from bnnbench.losses.distillation import AttentionMatching
from bnnbench.losses.distribution import Distribution
from bnnbench.losses.projection import Projection
from bnnbench.losses.regularizer import Regularizer
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification
from bnnbench.tasks.teacher import FrozenTeacher

Build = Callable[[], Regularizer]
# Each with its quantizer; all but the first put hooks on the network.
TERMS: list[tuple[Build, str]] = [
    (lambda: BayesianKernel(0.1, 0.1), "xnor"),
    (lambda: Distribution(2.0, until=1.0), "rad"),
    (lambda: Projection(1e-2, eta=0.1), "pcnn"),
    (lambda: AttentionMatching(1.0, "norm"), "xnor"),
]
every_term = pytest.mark.parametrize(("build", "quantizer"), TERMS)


def task(quantizer: str, *terms: Regularizer) -> Classification:
    """A small network, with a teacher for the terms that ask one."""
    torch.manual_seed(0)
    nets = [
        bnnbench.build_backbone("wrn22", name, image_size=8, widths=[4, 4, 6, 8])
        for name in (quantizer, "fp32")
    ]
    named, teacher = {term.name: term for term in terms}, FrozenTeacher(nets[1])
    recipe = Recipe("sgd", 0.01, schedule="cosine")
    loss = task_loss("classification")
    if not any(isinstance(term, AttentionMatching) for term in terms):
        return Classification(nets[0], loss, recipe, 10, terms=named)
    return Classification(nets[0], loss, recipe, 10, terms=named, teacher=teacher)


def fit(module: Classification, *callbacks: L.Callback) -> list[torch.Tensor]:
    """Two epochs of two batches; the latent weights behind them."""
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(4, 3, 8, 8, generator=generator), torch.arange(4)) for _ in range(2)]
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=None))  # pyright: ignore
    return [layer.weight.detach().clone() for _, layer in binary_layers(module.net)]


def hooks(module: Classification) -> int:
    """Of the whole network and of its teacher's."""
    nets = [module.net] + ([module.teacher.net] if module.teacher else [])
    inner = [each for net in nets for each in net.modules()]
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in inner)


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names under which terms were added to a task, in order."""
    names: list[str] = []
    original = Classification.add_loss_term

    def add(self: Classification, name: str, term: Regularizer) -> None:
        names.append(name)
        original(self, name, term)

    monkeypatch.setattr(Classification, "add_loss_term", add)
    return names


@every_term
def test_a_term_of_the_module_is_attached_as_it_is_built(
    build: Build, quantizer: str, attached: list[str]
) -> None:
    module = task(quantizer, term := build())
    assert attached == [term.name]
    before = hooks(module)
    fit(module)
    fit(module)
    assert attached == [term.name]
    assert hooks(module) == before


@pytest.mark.parametrize(("build", "quantizer"), TERMS[:3])
def test_a_plain_callback_is_attached_by_the_first_trainer(
    build: Build, quantizer: str, attached: list[str]
) -> None:
    module, own = task(quantizer), task(quantizer, build())
    attached.clear()
    assert hooks(module) <= hooks(own)
    term = build()
    for _ in range(2):  # the second fit goes on from where the first has ended
        pairs = zip(fit(module, term), fit(own), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert attached == [term.name]
    assert hooks(module) == hooks(own)


def test_a_second_module_is_another_one(attached: list[str]) -> None:
    term = Distribution(2.0, until=1.0)
    first, second = task("rad"), task("rad")
    for module in (first, second):
        fit(module, term)
        assert module.terms == {"distribution": term}
    assert attached == ["distribution"] * 2


@every_term
def test_a_copy_trains_with_its_own_terms(
    build: Build, quantizer: str, attached: list[str]
) -> None:
    module = task(quantizer, build())
    twin = copy.deepcopy(module)
    term = twin.regularizers[0]
    assert term is not module.regularizers[0]
    pairs = zip(fit(module), fit(twin), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert attached == [term.name]
    assert twin.terms[term.name] is term


def test_weight_0_attaches_nothing(attached: list[str]) -> None:
    module = task("rad", Distribution(0.0, until=1.0))
    fit(module, Projection(0.0, eta=0.1))
    assert attached == []
    assert not any(
        isinstance(each, nn.Hardtanh) and each._forward_pre_hooks for each in module.net.modules()
    )
