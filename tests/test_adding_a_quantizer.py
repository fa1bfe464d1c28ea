"""docs/adding_a_quantizer.md: its file and its yaml, as printed, are a method that trains."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import nn

import bnnbench.quantizers
from bnnbench import config
from bnnbench.callbacks.progress import HOOKS
from bnnbench.layers import QuantizerSpec, binary_layers

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "adding_a_quantizer.md"
NAME = "mynet"


def block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(found) == 1, f"one {language} block expected, found {len(found)}"
    return found[0]


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuantizerSpec]:
    """The page's method, its two files where the page says but in temporary folders."""
    package = tmp_path / "quantizers"
    options = tmp_path / "conf" / "quantizer"
    for folder in (package, options):
        folder.mkdir(parents=True)
    (package / f"{NAME}.py").write_text(block("python"), encoding="utf-8")
    (options / f"{NAME}.yaml").write_text(block("yaml"), encoding="utf-8")
    (tmp_path / "conf" / "backbone").symlink_to(ROOT / "conf" / "backbone")
    paths = [*bnnbench.quantizers.__path__, str(package)]
    monkeypatch.setattr(bnnbench.quantizers, "__path__", paths)
    monkeypatch.setattr(config, "conf_dir", lambda: tmp_path / "conf")
    importlib.invalidate_caches()
    yield config.load_quantizer(NAME)
    sys.modules.pop(f"bnnbench.quantizers.{NAME}", None)
    vars(bnnbench.quantizers).pop(NAME, None)


def test_value_and_gradient(spec):
    """max|w| of each filter times the sign; the clipped estimator, times that constant."""
    weight = torch.tensor([[0.5, -1.5, 0.25], [-0.1, 0.3, 0.0]], dtype=torch.float64)
    weight = weight.view(2, 3, 1, 1).requires_grad_()
    value = spec.weight((2, 3, 1, 1))(weight)
    value.backward(torch.arange(1.0, 7, dtype=torch.float64).view(2, 3, 1, 1))
    assert value.flatten().tolist() == [1.5, -1.5, 1.5, -0.3, 0.3, 0.3]
    expected = [1 * 1.5, 0, 3 * 1.5, 4 * 0.3, 5 * 0.3, 6 * 0.3]
    assert weight.grad.flatten().tolist() == pytest.approx(expected)


def test_it_decomposes_as_the_page_says(spec):
    conv = spec.conv2d(4, 6, 3)
    parts = conv.weight_quantizer.decompose(conv.weight)
    value = conv.weight_quantizer(conv.weight).detach()
    torch.testing.assert_close(parts.scale * parts.code + parts.offset, value)
    assert set(parts.code.unique().tolist()) == {-1.0, 1.0}


def test_it_trains_one_step(spec):
    torch.manual_seed(0)
    net = nn.Sequential(spec.conv2d(3, 4, 3), nn.Flatten(), spec.linear(4 * 36, 10))
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    F.cross_entropy(net(torch.randn(8, 3, 8, 8)), torch.arange(8)).backward()
    optimizer.step()
    for old, new in zip(before, net.parameters(), strict=True):
        assert new.isfinite().all()
        assert not torch.equal(old, new)


def test_a_backbone_takes_its_structure_from_the_yaml(spec):
    net = config.build_backbone("resnet20", quantizer=spec)
    assert len(list(binary_layers(net))) == 18
    assert any(isinstance(module, nn.PReLU) for module in net.modules())
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_the_yaml_has_the_keys_of_every_other_one(spec):
    plain = OmegaConf.load(ROOT / "conf" / "quantizer" / "birealnet.yaml")
    assert set(spec.config) == set(plain) - {"magnitude_aware"}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("quantizers.surrogate", "sign_ste"),
        ("quantizers.base", "Schedule"),
        ("losses.context", "StepContext"),
        ("losses.regularizer", "Regularizer"),
    ],
)
def test_what_the_page_offers_exists(module, name):
    assert f"`{name}" in PAGE.read_text("utf-8")
    assert hasattr(importlib.import_module(f"bnnbench.{module}"), name)


def test_the_page_names_every_hook():
    text = PAGE.read_text("utf-8")
    assert all(f"`{hook}(weight)`" in text for hook in HOOKS)
