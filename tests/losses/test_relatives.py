"""The loss terms of PCNN, MCN, kurtosis regularization and Bayes by Backprop in a training."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.utils.data import DataLoader

import bnnbench
from bnnbench.layers import binary_layers
from bnnbench.losses import StepContext, task_loss
from bnnbench.losses.kurtosis import Kurtosis, kurtosis
from bnnbench.losses.mcn import Compactness, FilterLoss
from bnnbench.losses.projection import Projection
from bnnbench.losses.variational import KLDivergence
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification

PRIOR: dict[str, Any] = {
    "prior": "scale_mixture",
    "pi": 0.5,
    "sigma1": 1.0,
    "sigma2": 2.5e-3,
    "mu": 0.05,
}
OPTIONS: dict[Any, dict[str, Any]] = {
    Projection: {"eta": 0.0},
    FilterLoss: {},
    Compactness: {"center_lr": 0.5},
    Kurtosis: {"target": 1.4},
    KLDivergence: PRIOR,
}
TERMS: list[tuple[Any, str]] = [
    (Projection, "pcnn"),
    (FilterLoss, "mcn"),
    (Compactness, "mcn"),
    (Kurtosis, "xnor"),
    (KLDivergence, "bbb"),
]


def weighted(term: Any, weight: float) -> Any:
    """The term with its paper's options."""
    return term(weight, **OPTIONS[term])


def task(quantizer: str, *terms: Any) -> Classification:
    torch.manual_seed(0)
    net = bnnbench.build_backbone("wrn22", quantizer, image_size=8, widths=[4, 4, 6, 8])
    named = {term.name: term for term in terms}
    return Classification(
        net, task_loss("classification"), Recipe("sgd", 0.01, schedule="cosine"), 10, terms=named
    )


def fit(module: Classification, *callbacks: L.Callback) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 6, 3, 8, 8, generator=generator)
    batches = [(image, torch.arange(6)) for image in images]
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(1)
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def weights(module: Classification) -> torch.Tensor:
    return torch.cat([layer.weight.detach().flatten() for _, layer in binary_layers(module)])


@pytest.mark.parametrize(("term", "quantizer"), TERMS)
def test_changes_the_training_and_is_logged(term: Any, quantizer: str) -> None:
    plain, off, on = (
        task(quantizer),
        task(quantizer, weighted(term, 0.0)),
        task(quantizer, weighted(term, 5.0)),
    )
    metrics = [fit(module) for module in (plain, off, on)]
    name = f"train/{term.name}"
    assert name not in metrics[1]
    assert math.isfinite(metrics[2][name])
    assert torch.equal(weights(plain), weights(off))
    moved = [on.net.state_dict()[key] for key in plain.net.state_dict()]
    pairs = zip(plain.net.state_dict().values(), moved, strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("term", "quantizer"), TERMS)
def test_works_in_anybodys_trainer(term: Any, quantizer: str) -> None:
    own, added = task(quantizer, weighted(term, 5.0)), task(quantizer)
    assert fit(own) == fit(added, weighted(term, 5.0))
    assert torch.equal(weights(own), weights(added))


@pytest.mark.parametrize(
    ("term", "quantizer", "message"),
    [
        (Projection, "bonn", "loss=pcnn needs .* only quantizer=pcnn learns"),
        (FilterLoss, "pcnn", "loss=mcn needs .* only quantizer=mcn learns"),
        (KLDivergence, "fp32", "loss=bbb needs .* only quantizer=bbb learns"),
        (Kurtosis, "bbb", "loss=kurtosis needs binarized layers"),
    ],
)
def test_networks_it_makes_no_sense_for_are_refused(
    term: Any, quantizer: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        task(quantizer, weighted(term, 1.0))


def test_kurtosis_averages_over_layers_not_weights() -> None:
    module = task("xnor", term := Kurtosis(2.0, target=1.4))
    layers = [layer.weight.flatten()[None] for _, layer in binary_layers(module)]
    expected = sum((float(kurtosis(w).detach()) - 1.4) ** 2 for w in layers) / len(layers)
    value = term(None)  # pyright: ignore
    assert float(value.detach()) == pytest.approx(2 * expected, rel=1e-5)


def test_kurtosis_pulls_towards_its_target() -> None:
    module = task("xnor", term := Kurtosis(1.0, target=1.2))
    parameters = [layer.weight for _, layer in binary_layers(module)]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        term(None).backward()  # pyright: ignore
        optimizer.step()
    values = [float(kurtosis(w.detach().flatten()[None])) for w in parameters]
    assert values == pytest.approx([1.2] * len(values), abs=0.05)


def test_pcnn_remembers_the_gradient_of_the_step_before() -> None:
    module = task("pcnn", term := Projection(1e-3, eta=0.1))
    assert term.state_dict() == {"deltas": {}}
    fit(module)
    shapes = [layer.weight.shape for _, layer in binary_layers(module)]
    assert [term.deltas[i].shape for i in range(len(shapes))] == shapes


@pytest.mark.parametrize("eta", [0.0, 0.1])
def test_projection_is_half_lambda_times_equation_3_42(eta: float) -> None:
    """One amplitude a layer, J = 2 matrices, the gradient at each projection is g / 2."""
    term = Projection(0.3, eta=eta)
    net = bnnbench.build_backbone(
        "wrn22",
        bnnbench.load_quantizer("pcnn", projections=2),
        image_size=8,
        widths=[4, 4, 6, 8],
    )
    recipe = Recipe("sgd", 0.01, schedule="cosine")
    module = Classification(net, task_loss("classification"), recipe, 10, terms={"p": term})
    layers = [layer for _, layer in binary_layers(module)]
    gradients = [torch.randn_like(layer.weight) for layer in layers]
    expected = 0.0
    for layer, g in zip(layers, gradients, strict=True):
        layer.weight_quantizer(layer.weight).backward(g)
        c, shift = layer.weight.detach(), eta / 2 * g
        for matrix in layer.weight_quantizer.matrices.detach():
            binary = c.abs().mean() * torch.sign(matrix) * torch.sign(c)
            expected += float((binary - matrix * (c + shift)).square().sum())
    value = term(None)  # pyright: ignore
    assert float(value.detach()) == pytest.approx(0.3 / 2 * expected, rel=1e-5)


def test_filter_loss_is_half_theta_times_equation_3_18() -> None:
    module = task("mcn", term := FilterLoss(0.3))
    expected = 0.0
    for _, layer in binary_layers(module):
        c, m = layer.weight.detach(), layer.weight_quantizer.m.detach()
        for output, kernel in enumerate(c):
            expected += float((kernel - torch.sign(kernel) * m[output % 4]).square().sum())
    value = term(None)  # pyright: ignore
    assert float(value.detach()) == pytest.approx(0.3 / 2 * expected, rel=1e-5)


def test_compactness_is_a_mean_over_the_batch_and_survives_a_resume() -> None:
    term, resumed = Compactness(0.3, 0.5), Compactness(0.3, 0.5)
    resumed.load_state_dict(term.state_dict() | {"center": torch.full((3, 2), 0.5)})
    assert resumed.center is resumed.state_dict()["center"]
    features, targets = torch.tensor([[1.0, 2.0], [0.0, 0.5]]), torch.tensor([0, 2])
    context = StepContext(torch.zeros(2, 3), features, targets, [])
    squared = (0.5**2 + 1.5**2) + 0.5**2
    assert float(resumed(context)) == pytest.approx(0.3 / 2 * squared / 2)


@pytest.mark.parametrize("prior", ["scale_mixture", "location_mixture"])
def test_sampled_divergence_is_that_of_its_prior(prior: str) -> None:
    """E_q[log q - log p] from samples of torch's distributions, over thousands of weights."""
    term = KLDivergence(1.0, prior, pi=0.3, sigma1=0.2, sigma2=0.02, mu=0.5)
    module = task("bbb", term)
    means, sigmas = weights(module), []
    for _, layer in binary_layers(module):
        sigmas.append(torch.nn.functional.softplus(layer.weight_quantizer.rho.detach()).flatten())
    located = prior == "location_mixture"
    shares, modes = ([0.5, 0.5], [0.5, -0.5]) if located else ([0.3, 0.7], [0.0, 0.0])
    widths = torch.tensor([0.2, 0.2] if located else [0.2, 0.02])
    density = MixtureSameFamily(
        Categorical(torch.tensor(shares)), Normal(torch.tensor(modes), widths)
    )
    q = Normal(means, torch.cat(sigmas))
    sample = q.sample()
    expected = float((q.log_prob(sample) - density.log_prob(sample)).sum())
    assert float(term.divergence().detach()) == pytest.approx(expected, rel=0.05)


def test_class_means_follow_center_loss() -> None:
    module = task("mcn", term := Compactness(1e-3, center_lr=0.5))
    features: list[torch.Tensor] = []
    module.add_loss_term(
        "spy", lambda c: features.append(c.features.detach()) or c.logits.sum() * 0
    )
    fit(module)
    expected = torch.zeros(10, features[0].shape[1])
    for batch in features:
        expected[:6] += 0.5 * (batch - expected[:6]) / 2  # one image a class: 1 + n = 2
    assert term.center is not None
    torch.testing.assert_close(term.center, expected)


def test_kl_is_spread_over_the_batches_of_an_epoch() -> None:
    module = task("bbb", KLDivergence(3.0, **PRIOR | {"pi": 1.0, "sigma1": 0.5}))
    start = weights(module)
    sigma = torch.cat([s.weight_quantizer.sigma().flatten() for _, s in binary_layers(module)])
    ratio = (sigma.detach() / 0.5) ** 2
    expected = ((start / 0.5) ** 2 + ratio - 1 - ratio.log()).sum() / 2
    term = module.regularizers[0]
    metrics = fit(module)
    assert metrics["train/kl"] == pytest.approx(3 * float(expected) / (2 * 6), rel=0.05)
    assert term.batches == 2  # pyright: ignore


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Projection(-1.0, eta=0.0), "must not be negative"),
        (lambda: FilterLoss(-1.0), "theta"),
        (lambda: Compactness(1.0, center_lr=0.0), "center_lr"),
        (lambda: Kurtosis(1.0, target=0.5), "at least 1"),
        (lambda: KLDivergence(1.0, **PRIOR | {"prior": "flat"}), "loss.prior='flat'"),
        (lambda: KLDivergence(1.0, **PRIOR | {"pi": 0.0}), "pi in"),
    ],
)
def test_bad_options_are_named(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
