"""RAD's loss: one map against its terms written out; in a training which maps, until when."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader

import bnnbench
from bnnbench.losses import task_loss
from bnnbench.losses.distribution import Distribution, distribution_loss
from bnnbench.optim.recipe import Recipe
from bnnbench.runs import build
from bnnbench.tasks.classification import Classification

Compose = Callable[..., DictConfig]


def written_out(x: Tensor) -> float:
    """The mean over channels of ``relu(min(2-m-s, 2+m-s))^2 + relu(s-4)^2 + relu(m^2-s^2)``."""
    total = 0.0
    for channel in x.transpose(0, 1).flatten(1).tolist():
        m = sum(channel) / len(channel)
        s = math.sqrt(sum((value - m) ** 2 for value in channel) / len(channel))
        total += max(min(2 - m - s, 2 + m - s), 0.0) ** 2
        total += max(s - 4, 0.0) ** 2 + max(m**2 - s**2, 0.0)
    return total / x.shape[1]


def maps(*shape: int) -> Tensor:
    """Channels that are narrow, well spread, wide, and on either side of 0."""
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spread, centre = torch.tensor([[0.3, 2.5, 6.0, 0.5, 0.5], [0.0, 0.0, 0.1, 3.0, -3.0]]).double()
    return x * spread.view(1, 5, *(1,) * (x.dim() - 2)) + centre.view(1, 5, *(1,) * (x.dim() - 2))


@pytest.mark.parametrize("shape", [(4, 5, 6, 7), (30, 5)])
def test_every_term(shape: tuple[int, ...]) -> None:
    x = maps(*shape)
    assert float(distribution_loss(x)) == pytest.approx(written_out(x), rel=1e-9)
    for channel in range(5):  # one map a channel: each has its own term
        alone = x[:, channel : channel + 1]
        assert float(distribution_loss(alone)) == pytest.approx(written_out(alone), rel=1e-9)
        assert (written_out(alone) > 0) == (channel != 1)


def test_gradient() -> None:
    assert torch.autograd.gradcheck(distribution_loss, maps(3, 5, 2, 2).requires_grad_())


def test_a_constant_map_has_a_finite_gradient() -> None:
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    distribution_loss(x).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_half_precision_is_summed_in_single() -> None:
    x = maps(4, 5, 6, 7).bfloat16()
    assert distribution_loss(x).dtype == torch.float32
    assert float(distribution_loss(x)) == pytest.approx(written_out(x.double()), rel=1e-5)


def task(quantizer: str, term: Distribution | None, backbone: str = "resnet20") -> Classification:
    torch.manual_seed(0)
    narrow = {"widths": [4, 4, 6, 8]} if backbone == "wrn22" else {}
    net = bnnbench.build_backbone(backbone, quantizer, image_size=8, **narrow)
    terms = {} if term is None else {"distribution": term}
    return Classification(
        net, task_loss("classification"), Recipe("sgd", 0.01, schedule="cosine"), 10, terms=terms
    )


class Log(L.Callback):
    """The loss of every step, whether the term was on, and how many maps are left."""

    def __init__(self, term: Distribution) -> None:
        self.term, self.losses = term, []
        self.on: list[bool] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        self.on.append(self.term.on)
        assert self.term.maps == []


def fit(module: Classification, log: Log, epochs: int, checkpoint: str | None = None) -> L.Trainer:
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(4, 3, 8, 8, generator=generator), torch.arange(4)) for _ in range(4)]
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        max_epochs=3, accelerator="cpu", enable_checkpointing=False, callbacks=[log], **silent
    )
    loader = DataLoader(data, batch_size=None)  # pyright: ignore
    stop = LambdaCallback(
        on_train_epoch_end=lambda t, _: setattr(t, "should_stop", t.current_epoch + 1 >= epochs)
    )
    trainer.callbacks.append(stop)  # pyright: ignore
    trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    return trainer


def inputs_of(net: nn.Module, kind: Callable[[nn.Module], bool], x: Tensor) -> list[Tensor]:
    """What enters the modules of ``kind`` in one training forward."""
    found: list[Tensor] = []
    modules = [module for module in net.modules() if kind(module)]
    hooks = [m.register_forward_pre_hook(lambda _, a: found.append(a[0].clone())) for m in modules]
    net.train()(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(
    ("quantizer", "kind", "count"),
    [
        ("rad", lambda m: isinstance(m, nn.Hardtanh), 19),  # behind a clip no map is wide
        ("birealnet", lambda m: getattr(m, "symmetric", False) and m.bits == 1, 18),
    ],
)
def test_is_the_weighted_mean_over_the_maps_before_their_signs(
    quantizer: str, kind: Callable[[nn.Module], bool], count: int
) -> None:
    module = task(quantizer, term := Distribution(3.0, until=0.9))
    x = torch.randn(4, 3, 8, 8)
    maps = inputs_of(module.net, kind, x)
    assert len(maps) == count
    term.on = True
    module.net.train()(x)
    expected = 3 * sum(float(distribution_loss(m).detach()) for m in maps) / count
    assert float(term(None).detach()) == pytest.approx(expected, rel=1e-5)  # pyright: ignore
    assert term.maps == []
    module.net.eval()(x)
    assert term.maps == []


def test_widens_maps_that_are_narrow() -> None:
    module = task("rad", term := Distribution(1.0, until=0.9), "wrn22")
    x, values = torch.randn(16, 3, 8, 8), []
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    term.on = True
    for _ in range(15):
        module.net.train()(x)
        value = term(None)  # pyright: ignore
        values.append(float(value.detach()))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert values[-1] < 0.7 * values[0]


def test_is_off_behind_its_part_of_the_run_as_after_a_resume(tmp_path: Any) -> None:
    """Half of 3 epochs of 4 steps: steps 0 to 5. A run cut in epoch 1 of 3 ends bit for bit."""
    whole = Log(term := Distribution(2.0, until=0.5))
    fit(task("rad", term, "wrn22"), whole, 3)
    assert whole.on == [True] * 6 + [False] * 6
    first = Log(term := Distribution(2.0, until=0.5))
    fit(task("rad", term, "wrn22"), first, 1).save_checkpoint(tmp_path / "cut.ckpt")
    second = Log(term := Distribution(2.0, until=0.5))
    fit(task("rad", term, "wrn22"), second, 3, str(tmp_path / "cut.ckpt"))
    assert first.on + second.on == whole.on
    assert first.losses + second.losses == whole.losses


def test_compiled_networks_give_the_same_losses() -> None:
    logs = []
    for compiled in (False, True):
        logs.append(log := Log(term := Distribution(2.0, until=0.5)))
        module = task("rad", term, "vgg_small")
        if compiled:
            module.net.compile(backend="eager")  # pyright: ignore
        fit(module, log, 3)
    assert logs[1].losses == pytest.approx(logs[0].losses, rel=1e-4)
    assert logs[1].on == logs[0].on


def test_weight_0_hooks_nothing() -> None:
    plain, off = task("rad", None), task("rad", Distribution(0.0, until=0.9))
    assert list(off.terms) == []
    for net in (plain.net, off.net):
        assert not any(module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("quantizer", ["fp32", "bwn"])
def test_real_activations_are_refused(quantizer: str) -> None:
    with pytest.raises(ValueError, match="loss=rad needs binarized activations"):
        task(quantizer, Distribution(1.0, until=0.9))


@pytest.mark.parametrize("arguments", [(-1.0, 0.5), (1.0, 0.0), (1.0, 1.5)])
def test_bad_options_are_named(arguments: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="lambda must not be negative and until in"):
        Distribution(*arguments)


def test_detectors_have_it_as_well(compose: Compose) -> None:
    arguments = ["backbone=ssd300_resnet18", "dataset=shapes", "dataset.image_size=64"]
    module = build.build_task(compose(*arguments, "quantizer=rad", "loss=rad"))
    (term,) = module.regularizers
    assert isinstance(term, Distribution)
    term.on = True
    module.net.train()(torch.randn(2, 3, 64, 64))
    value = term(None)  # pyright: ignore
    value.backward()
    assert float(value.detach()) > 0
