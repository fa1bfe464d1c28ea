"""The Bayesian regularizers: their statistics, their floor, their state, anybody's Trainer."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException
from torch.utils.data import DataLoader

import bnnbench
from bnnbench.layers import binary_layers
from bnnbench.losses import task_loss
from bnnbench.losses.bayesian_feature import BayesianFeature
from bnnbench.losses.bayesian_kernel import BayesianKernel
from bnnbench.optim.recipe import Recipe
from bnnbench.tasks.classification import Classification

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


class Net(nn.Module):
    """One binarized layer of each of two sizes, and a classifier of three classes."""

    def __init__(self, quantizer: str = "bonn") -> None:
        super().__init__()
        spec = bnnbench.load_quantizer(quantizer)
        self.conv1, self.conv2 = spec.conv2d(2, 4, 3), spec.conv2d(4, 5, 3)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor, return_features: bool = False) -> Any:
        features = self.conv2(self.conv1(x)).mean(dim=(2, 3))
        logits = self.fc(features)
        return (logits, features) if return_features else logits


def batches(count: int = 4, size: int = 6) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, size, 2, 8, 8, generator=generator)
    labels = torch.randint(0, 3, (count, size), generator=generator)
    return DataLoader(list(zip(images, labels, strict=True)), batch_size=None)


def task(quantizer: str = "bonn", lr: float = 0.01, **terms: Any) -> Classification:
    torch.manual_seed(0)
    return Classification(
        Net(quantizer),
        task_loss("classification"),
        Recipe("sgd", lr, schedule="cosine"),
        3,
        terms=terms,
    )


def fit(module: Classification, epochs: int = 1, callbacks: Any = (), **options: Any) -> L.Trainer:
    trainer = L.Trainer(max_epochs=epochs, callbacks=list(callbacks), **QUIET | options)
    trainer.fit(module, batches())
    return trainer


def magnitudes(module: Classification) -> list[Tensor]:
    return [layer.weight.detach().abs().flatten(1) for _, layer in binary_layers(module.net)]


def test_starts_at_the_minimizers_per_kernel() -> None:
    kernel = BayesianKernel()
    module = task(kernel=kernel)
    before = magnitudes(module)
    fit(module, limit_train_batches=0)
    assert [len(mu) for mu in kernel.mu] == [4, 5]
    for mu, sigma, x in zip(kernel.mu, kernel.sigma, before, strict=True):
        torch.testing.assert_close(mu, x.mean(dim=1))
        torch.testing.assert_close(sigma, ((x - x.mean(1, keepdim=True)) ** 2).mean(1).sqrt())


def test_closed_form_statistics_follow_a_moving_average() -> None:
    kernel = BayesianKernel(momentum=0.5)
    module = task(kernel=kernel)
    start = [x.mean(dim=1) for x in magnitudes(module)]
    fit(module, limit_train_batches=1)
    for mu, old, x in zip(kernel.mu, start, magnitudes(module), strict=True):
        torch.testing.assert_close(mu, 0.5 * old + 0.5 * x.mean(dim=1))


def test_sgd_takes_the_steps_of_equations_17_and_18() -> None:
    lam, nu, lr = 1.0, 0.05, 0.01
    kernel = BayesianKernel(lam, nu, statistics="sgd", mu_lr=2.0, sigma_lr=0.5)
    module = task(lr=lr, kernel=kernel)
    start = [(x.mean(dim=1), x.std(dim=1, correction=0)) for x in magnitudes(module)]
    fit(module, limit_train_batches=1)
    rate = module.optimizers().param_groups[0]["lr"]
    for (mu, sigma), new_mu, new_sigma, x in zip(
        start, kernel.mu, kernel.sigma, magnitudes(module), strict=True
    ):
        size, m, s = x.shape[1], mu[:, None], sigma[:, None]
        eq17 = lam * nu / size * ((m - x) / s**2).sum(dim=1)
        eq18 = lam * nu / size * (1 / s - (x - m) ** 2 / s**3).sum(dim=1)
        torch.testing.assert_close(new_mu, mu - 2.0 * rate * eq17)
        torch.testing.assert_close(new_sigma, sigma - 0.5 * rate * eq18)


def test_the_term_is_lambda_half_times_equation_7() -> None:
    kernel = BayesianKernel(weight=0.02, nu=0.3)
    module = task(kernel=kernel)
    fit(module, limit_train_batches=0)
    layers = [layer for _, layer in binary_layers(module.net)]
    module.net(torch.randn(2, 2, 8, 8))
    expected = sum(
        bnnbench.losses.bayesian_kernel_loss(
            layer.weight, mu, sigma, layer.weight_quantizer.w[0, 0], 0.3
        )
        for layer, mu, sigma in zip(layers, kernel.mu, kernel.sigma, strict=True)
    )
    torch.testing.assert_close(kernel(None), 0.01 * expected)  # pyright: ignore


@pytest.mark.parametrize("quantizer", ["xnor", "birealnet", "adabin"])
def test_other_quantizers_compare_their_codes_with_the_latent_weights(quantizer: str) -> None:
    kernel = BayesianKernel(weight=2.0, nu=0.0)
    module = task(quantizer, kernel=kernel)
    fit(module, limit_train_batches=0)
    module.net(torch.randn(2, 2, 8, 8))
    expected = 0.0
    for _, layer in binary_layers(module.net):
        binary = layer.weight_quantizer(layer.weight).detach()
        expected += float((binary - layer.weight.detach()).square().sum())
    loss = kernel(None)  # pyright: ignore
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert all(layer.weight.grad is not None for _, layer in binary_layers(module.net))


def test_magnitude_error_has_no_pull_on_the_modulation() -> None:
    kernel = BayesianKernel(weight=2.0, nu=0.0, error="magnitude")
    module = task(kernel=kernel)
    fit(module, limit_train_batches=0)
    module.net(torch.randn(2, 2, 8, 8))
    module.zero_grad()
    loss = kernel(None)  # pyright: ignore
    loss.backward()
    expected = sum(float((x - x.mean(1, keepdim=True)).square().sum()) for x in magnitudes(module))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert all(layer.weight_quantizer.w.grad is None for _, layer in binary_layers(module.net))


def prior_only(floor: float, steps: int) -> tuple[BayesianKernel, Tensor]:
    """SGD with momentum on the prior alone, sigma in closed form, as in a long training."""
    torch.manual_seed(0)
    module = task()
    net = bnnbench.load_quantizer("bonn").conv2d(16, 16, 3)
    nn.init.normal_(net.weight, std=0.01)
    module.net = net
    kernel = BayesianKernel(weight=1.0, nu=1e-4, sigma_floor=floor, error="magnitude", momentum=0)
    kernel.attach(module)
    kernel._estimate()
    net.quantized = net.weight.detach()
    optimizer = torch.optim.SGD([net.weight], lr=0.01, momentum=0.9)
    trainer: Any = type("T", (), {"optimizers": [optimizer]})
    for _ in range(steps):
        optimizer.zero_grad()
        parts = kernel._parts()
        (0.5 * sum(kernel.nu * part.prior for part in parts)).backward()  # pyright: ignore
        kernel.on_before_optimizer_step(trainer, module, optimizer)
        optimizer.step()
        kernel.on_train_batch_end(trainer, module, None, None, 0)
    return kernel, net.weight.detach()


def test_sigma_never_falls_below_its_floor_in_a_run_that_diverges_without() -> None:
    """As the weights contract to their modes sigma follows, until the pull passes SGD's limit."""
    kernel, weight = prior_only(floor=0.25, steps=200)
    for sigma, least in zip(kernel.sigma, kernel.sigma_min, strict=True):
        torch.testing.assert_close(sigma, least)  # it did fall that far, and no further
    assert float(weight.abs().max()) < 0.05
    _, thrown = prior_only(floor=1e-9, steps=200)
    assert float(thrown.abs().max()) > 1  # from 0.04 at the start


def test_feature_statistics_by_hand() -> None:
    feature = BayesianFeature(weight=0.1, center_lr=0.5, momentum=0.9, sigma_floor=0.1)
    module = task(feature=feature)
    images, labels = next(iter(batches()))
    module.train()
    _, f = module.net(images, return_features=True)
    fit(module, limit_train_batches=1)
    assert feature.center is not None
    assert feature.sigma is not None
    for label in range(3):
        own = f[labels == label].detach()
        if len(own) == 0:
            assert feature.center[label].abs().max() == 0
            continue
        torch.testing.assert_close(feature.center[label], 0.5 * own.mean(0) / len(labels))
        variance = 0.9 * 1 + 0.1 * own.square().mean(0)
        torch.testing.assert_close(feature.sigma[label], variance.sqrt().clamp(min=0.1))


def test_wen_rule_divides_by_one_more_than_the_count() -> None:
    feature = BayesianFeature(weight=0.1, centers="wen", center_lr=0.5)
    module = task(feature=feature)
    images, labels = next(iter(batches()))
    _, f = module.net(images, return_features=True)
    fit(module, limit_train_batches=1)
    assert feature.center is not None
    label = int(labels[0])
    own = f[labels == label].detach()
    torch.testing.assert_close(feature.center[label], 0.5 * own.sum(0) / (1 + len(own)))


def test_every_part_is_logged_on_its_own() -> None:
    module = task(kernel=BayesianKernel(), feature=BayesianFeature())
    metrics = fit(module).callback_metrics
    names = {"train/kernel", "train/feature", "train/loss", "kernel/error", "kernel/prior"}
    names |= {"kernel/log_det", "kernel/mu", "kernel/sigma", "kernel/stiffness"}
    assert names | {"feature/sigma", "feature/center_norm"} <= set(metrics)
    assert all(math.isfinite(float(value)) for value in metrics.values())


def test_stiffness_at_the_start_and_now() -> None:
    kernel = BayesianKernel(weight=0.1, nu=0.2)
    module = task(kernel=kernel)
    variances = torch.cat([x.var(dim=1, correction=0) for x in magnitudes(module)])
    metrics = fit(module).callback_metrics
    start = float(metrics["kernel/stiffness_start"])
    assert start == pytest.approx(float((0.02 / variances).mean()), rel=1e-4)
    now = torch.cat(kernel.sigma).square()
    assert float(metrics["kernel/stiffness"]) == pytest.approx(float((0.02 / now).mean()), rel=1e-4)


def test_works_in_anybodys_trainer() -> None:
    """Added by the user instead of by the module: the same numbers."""
    own, added = task(kernel=BayesianKernel(0.1, 0.1)), task()
    fit(own)
    fit(added, callbacks=[BayesianKernel(0.1, 0.1)])
    for (_, a), (_, b) in zip(binary_layers(own.net), binary_layers(added.net), strict=True):
        torch.testing.assert_close(a.weight, b.weight, rtol=0, atol=0)
    plain = task()
    fit(plain)
    assert not torch.equal(plain.net.conv1.weight, own.net.conv1.weight)


def test_the_module_returns_its_regularizers() -> None:
    kernel, feature = BayesianKernel(), BayesianFeature()
    assert {kernel, feature} <= set(task(kernel=kernel, feature=feature).configure_callbacks())


def test_weight_zero_leaves_the_training_as_it_is() -> None:
    plain, weighted = task(), task(kernel=BayesianKernel(0.0), feature=BayesianFeature(0.0))
    fit(plain)
    fit(weighted)
    assert not weighted.terms
    for a, b in zip(plain.parameters(), weighted.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_state_survives_a_resume_bit_for_bit(tmp_path: Path) -> None:
    def module() -> tuple[Classification, list[Any]]:
        terms = [BayesianKernel(0.1, 0.1), BayesianFeature(0.1)]
        return task(kernel=terms[0], feature=terms[1]), terms

    (whole, expected), (resumed, after) = (module() for _ in range(2))
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(whole, 3, [saver], enable_checkpointing=True)
    cut = tmp_path / "epoch=0.ckpt"
    torch.load(cut, weights_only=True)
    L.Trainer(max_epochs=3, **QUIET).fit(resumed, batches(), ckpt_path=cut)
    assert whole.global_step == resumed.global_step == 12
    for one, two in zip(expected, after, strict=True):
        for key, value in one.state_dict().items():
            pairs = zip(value, two.state_dict()[key], strict=True)
            assert all(torch.equal(a, b) for a, b in pairs), key


class Statistics(L.Callback):
    """Gathers both ranks' statistics at the end and keeps how far they are apart."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        kernel, feature = pl_module.regularizers  # pyright: ignore
        for tensors in (kernel.mu, kernel.sigma, [feature.center, feature.sigma]):
            for tensor in tensors:
                both = [torch.empty_like(tensor) for _ in range(2)]
                torch.distributed.all_gather(both, tensor)
                assert torch.equal(*both)
        if trainer.is_global_zero:
            torch.save([feature.center, feature.sigma], self.file)


def test_two_processes_keep_the_same_statistics(tmp_path: Path) -> None:
    """And those of one process that sees the batches of both at once (by feature statistics)."""
    module = task(kernel=BayesianKernel(0.1, 0.1), feature=BayesianFeature(0.1))
    single = copy.deepcopy(module)
    images, labels = next(iter(batches()))
    halves = [(images[part], labels[part]) for part in (slice(0, 3), slice(3, 6))]
    trainer = L.Trainer(
        max_epochs=1,
        callbacks=[Statistics(tmp_path / "state.pt")],
        **QUIET | {"devices": 2, "strategy": "ddp_spawn"},
    )
    try:
        trainer.fit(module, DataLoader(halves, batch_size=None))
    except ProcessExitedException as error:  # gloo's threads may abort a process that is leaving
        if error.signal_name != "SIGABRT" or not (tmp_path / "state.pt").exists():
            raise
    L.Trainer(max_epochs=1, **QUIET).fit(single, DataLoader([(images, labels)], batch_size=None))
    state = torch.load(tmp_path / "state.pt")
    feature = single.regularizers[1]
    torch.testing.assert_close(state, [feature.center, feature.sigma])  # pyright: ignore


def test_a_network_without_binarized_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"none: choose another quantizer, or loss.lambda=0"):
        task("fp32", kernel=BayesianKernel())
    task("fp32", feature=BayesianFeature())


def test_a_module_that_takes_no_terms_is_named() -> None:
    with pytest.raises(TypeError, match=r"needs a module with add_loss_term.*Net"):
        BayesianFeature().attach(Net())


@pytest.mark.parametrize(
    ("regularizer", "options", "message"),
    [
        (BayesianKernel, {"mixture": "sum"}, "mixture='sum'"),
        (BayesianKernel, {"error": "l1"}, "error='l1'"),
        (BayesianKernel, {"weight": -1.0}, "must not be negative"),
        (BayesianKernel, {"sigma_floor": 0.0}, "sigma_floor"),
        (BayesianFeature, {"features": "stem"}, "features='stem'"),
        (BayesianFeature, {"centers": "mean"}, "centers='mean'"),
        (BayesianFeature, {"momentum": 1.0}, "momentum"),
    ],
)
def test_bad_options_are_named(regularizer: Any, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        regularizer(**options)
