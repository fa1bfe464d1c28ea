"""Any network binarized: what is converted, what stays, and that nothing else changes."""

import copy
import re
import warnings
from pathlib import Path

import lightning as L
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, StdConv2d
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import googlenet, resnet18, resnet50, squeezenet1_1

import bnnbench
from bnnbench.backbones.convert import PerChannel, SameConv2d, default_keep
from bnnbench.config import load_quantizer, options
from bnnbench.layers import BinaryConv2d, BinaryLinear, binary_layers
from bnnbench.losses import task_loss
from bnnbench.metrics import count_operations
from bnnbench.optim.recipe import Recipe
from bnnbench.quantizers import Maxout
from bnnbench.tasks.classification import Classification

SIZE = (3, 16, 16)
CONVERTIBLE = sorted({*options("quantizer")} - {"wage"})
SIGNS = [name for name in options("quantizer") if load_quantizer(name).activation(1).symmetric]


class Tiny(nn.Module):
    """Every kind of layer: grouped, dilated, depthwise, strided, same-padded, over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.act6 = nn.ReLU6()
        self.grouped = nn.Conv2d(8, 12, 3, 2, 1, groups=4, padding_mode="reflect")
        self.same = Conv2dSame(12, 12, 3, stride=2)
        self.norm = nn.LayerNorm(12)
        self.fc1 = timm.layers.Linear(12, 20)
        self.act_tokens = nn.ReLU()
        self.fc2 = nn.Linear(20, 12, bias=False)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.act(self.stem(x)))
        x = self.same(self.grouped(self.act6(self.bn(x))))
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        return self.head(self.fc2(self.act_tokens(self.fc1(tokens))).mean(dim=1))


TINY = ["depthwise", "grouped", "same", "fc1", "fc2"]


def _tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny()


def _binarize(net: nn.Module, *args, **kwargs) -> nn.Module:
    return bnnbench.binarize(net, *args, **{"input_size": SIZE} | kwargs)


def _names(net: nn.Module) -> list[str]:
    return [name for name, _ in binary_layers(net)]


def test_a_method_with_a_start_of_its_own_is_refused():
    with pytest.raises(ValueError, match="quantizer=wage starts the weights in its own way"):
        _binarize(_tiny(), "wage")


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_every_quantizer_trains_every_kind_of_layer(name):
    net = _tiny()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _binarize(net, name) is net
    assert _names(net) == TINY
    assert all(net.get_submodule(path).training for path in TINY)
    logits = net(torch.randn(4, *SIZE))
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    for path, parameter in net.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
    for path, layer in binary_layers(net):
        assert layer.weight.grad.abs().max() > 0, path


def test_full_precision_is_the_same_function_exactly():
    net, x = _tiny(), torch.randn(2, *SIZE)
    plain = copy.deepcopy(net)
    _binarize(net, "fp32")
    assert _names(net) == TINY
    assert torch.equal(net(x), plain(x))
    net.eval(), plain.eval()
    assert torch.equal(net(x), plain(x))


def test_a_converted_layer_is_the_convolution_of_its_two_sides():
    """Written out: groups, dilation, stride, reflection, and zeros around the binarized map."""
    net = _tiny().double()
    _binarize(net, "bnn")
    x = torch.randn(2, 8, 7, 7, dtype=torch.float64)
    code, w = (torch.where(t >= 0, 1.0, -1.0).double() for t in (x, net.depthwise.weight))
    expected = F.conv2d(code, w, None, 1, 2, 2, 8)
    torch.testing.assert_close(net.depthwise(x), expected, rtol=0, atol=0)
    padded = F.pad(code, (1, 1, 1, 1), mode="reflect")
    w = torch.where(net.grouped.weight >= 0, 1.0, -1.0).double()
    expected = F.conv2d(padded, w, net.grouped.bias, 2, 0, 1, 4)
    torch.testing.assert_close(net.grouped(x), expected)
    x = torch.randn(2, 12, 8, 8, dtype=torch.float64)
    w = torch.where(net.same.weight >= 0, 1.0, -1.0).double()
    padded = F.pad(torch.where(x >= 0, 1.0, -1.0).double(), (0, 1, 0, 1))  # 8 to 4: one at the end
    expected = F.conv2d(padded, w, net.same.bias, 2)
    assert type(net.same) is SameConv2d
    torch.testing.assert_close(net.same(x), expected)
    x = torch.randn(2, 3, 4, 12, dtype=torch.float64)
    code, w = (torch.where(t >= 0, 1.0, -1.0).double() for t in (x, net.fc1.weight))
    torch.testing.assert_close(net.fc1(x), code @ w.t() + net.fc1.bias)


@pytest.mark.parametrize("shape", [(3, 12), (3, 5, 12), (3, 2, 5, 12)])
def test_thresholds_of_linear_layers_lie_along_the_last_axis(shape):
    net = _tiny()
    _binarize(net, "reactnet")
    threshold = torch.linspace(-1, 1, 12)
    net.fc1.activation_quantizer.threshold.data = threshold
    x, w = torch.randn(*shape), net.fc1.weight.detach()
    w = torch.where(w >= 0, 1.0, -1.0) * w.abs().mean(dim=1, keepdim=True)
    expected = torch.where(x >= threshold, 1.0, -1.0) @ w.t() + net.fc1.bias
    torch.testing.assert_close(net.fc1(x), expected)


def test_weights_names_modes_and_placement_stay():
    net = _tiny().double()
    net.grouped.eval()
    net.fc1.weight.requires_grad_(False)
    parameters, before = dict(net.named_parameters()), copy.deepcopy(net.state_dict())
    _binarize(net, "adabin")
    after = dict(net.named_parameters())
    assert all(after[name] is parameter for name, parameter in parameters.items())
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())
    assert not any(module.training for module in net.grouped.modules())
    assert all(module.training for module in net.depthwise.modules())
    floats = [t for t in net.state_dict().values() if t.is_floating_point()]
    assert {t.dtype for t in floats} == {torch.float64}
    assert not net.fc1.weight.requires_grad
    missing, unexpected = net.load_state_dict(before, strict=False)
    assert unexpected == []
    assert all(re.search(r"_quantizer\.|act\w*\.act\.", key) for key in missing)


def test_scales_start_from_the_copied_weight():
    net = _tiny()
    magnitude = net.grouped.weight.detach().abs().mean(dim=(1, 2, 3))
    _binarize(net, "siman")
    torch.testing.assert_close(net.grouped.output.scale.detach(), magnitude)


def test_resnet18_keeps_stem_shortcuts_and_classifier():
    net = resnet18()
    _binarize(net, "xnor", input_size=(3, 32, 32))
    assert len(_names(net)) == 16
    kept = ["conv1", *(f"layer{i}.0.downsample.0" for i in (2, 3, 4)), "fc"]
    kinds = nn.Conv2d | nn.Linear
    assert [n for n, m in net.named_modules() if isinstance(m, kinds)] == [
        name for name, m in net.named_modules() if name in kept or name in _names(net)
    ]
    assert not set(kept) & set(_names(net))
    assert not any(isinstance(m, nn.ReLU) for m in net.modules())
    cost = count_operations(net, (3, 32, 32))
    # 32 pixels: stage maps of 8, 4, 2, 1; a block's convolutions have 9 c_in c_out weights
    widths, maps = [64, 128, 256, 512], [8, 4, 2, 1]
    ins = [64, *widths[:3]]
    macs = sum(9 * m * m * (i * w + 3 * w * w) for i, w, m in zip(ins, widths, maps, strict=True))
    assert cost.binary_macs == macs
    assert sum(layer.is_binary for layer in cost.layers) == 16


@pytest.mark.parametrize(
    ("make", "kept"),
    [
        (lambda: squeezenet1_1(), ["features.0", "classifier.1"]),  # a convolution ends it
        (
            lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=1),
            ["patch_embed.proj", "head", "head_dist"],
        ),
        (lambda: timm.create_model("resnet10t", num_classes=0), None),  # no classifier to keep
        (lambda: nn.Conv2d(3, 4, 1), [""]),
        (  # strided, under whatever name
            lambda: nn.Sequential(
                *(nn.Conv2d(4, 4, k, s) for k, s in ((3, 2),) * 2 + ((1, 2),) * 2)
            ),
            ["0", "2", "3"],
        ),
    ],
)
def test_default_keep(make, kept):
    if kept is None:
        kept = ["conv1.0", *(f"layer{i}.0.downsample.1" for i in (2, 3, 4))]
    assert default_keep(make()) == kept


@pytest.mark.parametrize(
    ("keep", "converted"),
    [
        (["stem", "head"], TINY),
        (["*"], []),
        (["stem", "g*", "fc[12]", "head"], ["depthwise", "same"]),
        ("[sh]*", ["depthwise", "grouped", "fc1", "fc2"]),
        ([], ["stem", *TINY, "head"]),
        (lambda name, module: isinstance(module, nn.Linear), ["stem", *TINY[:3]]),
    ],
)
def test_keep(keep, converted):
    net = _tiny()
    if not converted:
        with pytest.raises(ValueError, match="no layer to binarize"):
            _binarize(net, "dorefa", keep=keep)
    else:
        _binarize(net, "dorefa", keep=keep)
    assert _names(net) == converted


def test_a_pattern_that_names_nothing_is_refused():
    with pytest.raises(ValueError, match=r"keep=\['heads'\] names no layer; there are stem, act,"):
        _binarize(_tiny(), "xnor", keep=["stem", "heads"])


def test_a_root_layer_and_shared_layers():
    root = bnnbench.binarize(nn.Linear(4, 3), "bnn", keep=[])
    assert isinstance(root, BinaryLinear)
    conv = nn.Conv2d(4, 4, 3, padding=1)
    stem = nn.Conv2d(3, 4, 1)
    net = nn.Sequential(stem, conv, nn.Sequential(conv, nn.Flatten(), nn.Linear(64, 2)))
    _binarize(net, "bnn", input_size=(3, 4, 4))
    assert net[1] is net[2][0]
    assert isinstance(net[1], BinaryConv2d)


# ------------------------------------------------------------------ nonlinearities


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_relus_give_way_to_the_quantizers_nonlinearity_before_signs_alone(name):
    net, wanted = _tiny(), load_quantizer(name).config["nonlinearity"]
    _binarize(net, name)
    relus = [isinstance(act, nn.ReLU | nn.ReLU6) for act in (net.act, net.act6, net.act_tokens)]
    assert set(relus) == {name not in SIGNS}
    kinds = {"hardtanh": nn.Hardtanh, "identity": nn.Identity}
    if name in SIGNS:
        assert all(
            isinstance(act, kinds.get(wanted, PerChannel))
            for act in (net.act, net.act6, net.act_tokens)
        )


def test_nonlinearities_per_channel_know_their_axis():
    net = _tiny()
    _binarize(net, "adabin")
    acts = [net.act, net.act6, net.act_tokens]
    assert [act.channels_last for act in acts] == [False, False, True]
    assert [len(act.act.positive) for act in acts] == [8, 8, 20]
    net.act_tokens.act.positive.data = torch.arange(1.0, 21.0)
    net.act_tokens.act.negative.data = torch.full((20,), 0.5)
    x = torch.randn(3, 7, 20)
    expected = torch.where(x > 0, x * torch.arange(1.0, 21.0), 0.5 * x)
    torch.testing.assert_close(net.act_tokens(x), expected)
    net.act.act.positive.data = torch.arange(1.0, 9.0)
    x = torch.randn(3, 8, 5, 5)
    expected = torch.where(x > 0, x * torch.arange(1.0, 9.0).view(8, 1, 1), 0.25 * x)
    torch.testing.assert_close(net.act(x), expected)


def test_maps_with_channels_last_are_known_by_the_linear_layer_before_them():
    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.fc1, self.act = nn.Conv2d(3, 6, 1), nn.Linear(6, 9), nn.ReLU()
            self.fc2, self.head = nn.Linear(9, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc2(self.act(self.fc1(self.stem(x).permute(0, 2, 3, 1))))
            return self.head(x.mean(dim=(1, 2)))

    net = Mlp()
    _binarize(net, "adabin", input_size=(3, 4, 4))
    assert (net.act.channels_last, len(net.act.act.positive)) == (True, 9)


def test_a_replacement_works_in_place_only_where_the_relu_did():
    net = _tiny()
    _binarize(net, "xnor")
    assert (net.act.inplace, net.act6.inplace) == (True, False)


def test_one_relu_at_two_widths_needs_a_nonlinearity_without_channels():
    with pytest.raises(ValueError, match=r"layer1\.0\.relu .*widths, .*64.*256.*hardtanh"):
        _binarize(resnet50(), "adabin", input_size=(3, 32, 32))
    shared = nn.ReLU()
    net = nn.Sequential(nn.Conv2d(3, 4, 1), shared, nn.Conv2d(4, 4, 1), shared)
    net.extend([nn.Flatten(), nn.Linear(64, 2)])
    _binarize(net, "adabin", input_size=(3, 4, 4))
    assert isinstance(net[1].act, Maxout)
    assert net[1] is net[3]


def test_nonlinearity_by_name_and_none():
    net = _tiny()
    _binarize(net, "dorefa", nonlinearity="hardtanh")
    assert isinstance(net.act, nn.Hardtanh)
    net = _tiny()
    with pytest.warns(UserWarning, match="signs say nothing: depthwise, grouped, fc2; see"):
        _binarize(net, "xnor", nonlinearity=None)
    assert isinstance(net.act, nn.ReLU)
    net = _tiny()
    with pytest.warns(UserWarning, match="signs say nothing: depthwise; see"):
        _binarize(net, "xnor", keep=["stem", "act", "head"])
    assert isinstance(net.act, nn.ReLU)


def test_nonlinearities_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"nonlinearity='gelu': choose one of .*'auto', None"):
        _binarize(_tiny(), "xnor", nonlinearity="gelu")
    with pytest.raises(ValueError, match=r"relu before quantizer=xnor.*constant"):
        _binarize(_tiny(), "xnor", nonlinearity="relu")


def test_a_relu_that_is_no_module_is_found():
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(F.relu(self.stem(x))).mean(dim=(2, 3)))

    with pytest.warns(UserWarning, match="signs say nothing: conv; see nonlinearity= and keep="):
        _binarize(Functional(), "xnor")


# ------------------------------------------------------------------ what cannot be converted


def test_layers_of_other_kinds_stay_with_a_warning():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.std = nn.Conv2d(3, 4, 1), StdConv2d(4, 4, 3)
            self.normed = parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
            self.hooked = torch.nn.utils.weight_norm(nn.Conv2d(4, 4, 1))
            self.conv = nn.Conv2d(4, 4, 1)
            self.read, self.aux = nn.Linear(4, 4), nn.Linear(4, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = (
                self.conv(self.hooked(self.normed(self.std(self.stem(x)))))
                .flatten(2)
                .transpose(1, 2)
            )
            x = F.linear(x, self.read.weight) + (self.aux(x) if self.training else 0)
            return self.head(x.mean(dim=1))

    net, x = Odd().eval(), torch.randn(2, *SIZE)
    expected = net(x)
    kinds = r"fp32: std \(StdConv2d\), normed \(P.*, hooked \(Conv2d\)$"
    with (
        pytest.warns(UserWarning, match=kinds),
        pytest.warns(UserWarning, match="read past them: read, aux$"),
    ):
        _binarize(net, "fp32")
    assert _names(net) == ["conv"]
    assert torch.equal(net(x), expected)


class Attends(nn.Module):
    """Attention of torch's own, which reads its weights past its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(self.stem(x)).flatten(2).transpose(1, 2)
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(dim=1))


def test_attention_that_reads_its_weights_itself_is_refused_unless_it_is_kept():
    net = Attends()
    with pytest.raises(
        ValueError,
        match=r"^attention\.out_proj of attention \(MultiheadAttention\) cannot be .*\*out_proj\]",
    ):
        _binarize(net, "xnor")
    assert _names(net) == []
    _binarize(net, "xnor", keep=[*default_keep(net), "*out_proj"])
    assert _names(net) == ["conv"]
    beit = timm.create_model("beit_base_patch16_224", depth=1, embed_dim=24, img_size=32)
    with pytest.raises(ValueError, match=r"^blocks\.0\.attn\.qkv of blocks\.0\.attn .*\*qkv\]"):
        bnnbench.binarize(beit, "reactnet", input_size=(3, 32, 32))
    bnnbench.binarize(beit, "reactnet", [*default_keep(beit), "*qkv"], input_size=(3, 32, 32))
    assert _names(beit) == [f"blocks.0.{part}" for part in ("attn.proj", "mlp.fc1", "mlp.fc2")]


def test_networks_that_do_not_run_and_networks_without_layers():
    with pytest.raises(ValueError, match=r"Sequential does not run on inputs of shape \(7,\)"):
        bnnbench.binarize(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)), "bnn", input_size=(7,))
    with pytest.raises(ValueError, match="ReLU has neither convolutions nor linear layers"):
        bnnbench.binarize(nn.ReLU(), "bnn")


def test_a_network_that_fails_is_left_as_it_was():
    net = _tiny()
    before = copy.deepcopy(net.state_dict())
    hooks = [len(m._forward_pre_hooks) for m in net.modules()]
    with pytest.raises(ValueError, match="does not run"):
        _binarize(net, "adabin", input_size=(4, 8, 8))
    assert _names(net) == []
    assert net.training
    assert [len(m._forward_pre_hooks) for m in net.modules()] == hooks
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_the_trial_run_uses_no_random_number_of_ours():
    net = _tiny()
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    _binarize(net, "bnn")
    assert torch.equal(torch.rand(1), expected)


def test_default_sizes():
    """timm's own of its models, else the first layer's channels at 224 pixels."""
    mlp = bnnbench.binarize(
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2)), "adabin"
    )
    assert _names(mlp) == ["2"]
    vit = timm.create_model("vit_tiny_patch16_384", depth=1)  # it takes no other size
    assert len(_names(bnnbench.binarize(vit, "bnn"))) == 4
    flat = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"\(1, 224, 224\).*give the shape of one input"):
        bnnbench.binarize(flat, "bnn")


def test_layers_that_are_binary_already_stay_as_they_are():
    net = _tiny()
    _binarize(net, "xnor", keep=["stem", "fc*", "head"])
    sides = [layer.weight_quantizer for _, layer in binary_layers(net)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _binarize(net, "bnn", keep=["stem", "head"])
    assert [layer.weight_quantizer for _, layer in binary_layers(net)][:3] == sides
    assert _names(net) == TINY


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_auxiliary_heads_stay():
    net = googlenet(init_weights=False)
    _binarize(net, "dorefa", input_size=(3, 64, 64))
    assert not any(name.startswith("aux") for name in _names(net))


def test_in_anybodys_trainer():
    """A plain module: forward takes images alone; schedules and hooks run."""
    data = TensorDataset(torch.randn(8, *SIZE), torch.arange(8) % 5)
    net = _binarize(_tiny(), "irnet")
    task = Classification(net, task_loss("classification"), Recipe("adam", lr=1e-2), 5)
    before = net.grouped.weight.detach().clone()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_epochs=3, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(task, DataLoader(data, batch_size=4), DataLoader(data, batch_size=4))
    assert not torch.equal(net.grouped.weight, before)
    assert float(net.fc1.weight_quantizer.schedule.t) > 0.1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_pages_examples_run():
    page = Path(__file__).parents[2] / "docs" / "any_network.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    names: dict = {}
    for block in blocks:
        exec(block, names)
        assert _names(names["net"])
