"""Any image classifier of timm, binarized by ``bnnbench.binarize``: docs/any_network.md."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import timm
from timm.models import get_pretrained_cfg, model_entrypoint
from torch import Tensor, nn

from bnnbench.backbones.base import Backbone
from bnnbench.backbones.convert import NEVER_NEGATIVE, Keep, binarize, replacement
from bnnbench.layers import BinaryConv2d, BinaryLinear, QuantizerSpec


@dataclass(frozen=True)
class OwnStructure:
    """What a converted network is built of, as reports ask for it.

    Attributes:
        quantizer: the method.
        nonlinearity: what stands where ReLUs stood; ``own`` where nothing was replaced.
        first, last: ``fp32`` or ``binary``, of the first and last layer registered.
        padding_value: zeros around binarized maps.
    """

    quantizer: QuantizerSpec
    nonlinearity: str
    first: str
    last: str
    padding_value: float = 0

    def as_dict(self) -> dict[str, Any]:
        """The facts, without the method."""
        return {key: value for key, value in vars(self).items() if key != "quantizer"}


class TimmBackbone(Backbone):
    """A model of timm by its name; options: the keys of conf/backbone/timm.yaml.

    Its parameters are those of timm's model under ``model.``, initialised as timm does.
    """

    def __init__(
        self,
        quantizer: QuantizerSpec,
        model: str,
        num_classes: int,
        in_channels: int,
        image_size: int,
        pretrained: bool,
        keep: Keep | None,
        nonlinearity: str | None,
        kwargs: dict[str, Any] | None,
    ) -> None:
        nn.Module.__init__(self)
        options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
        name = model.removeprefix("timm/")
        try:
            net = _create(name, image_size, pretrained, options | (kwargs or {}))
        except TypeError as error:
            raise ValueError(f"backbone.kwargs={kwargs} does not fit {name}: {error}") from error
        replaced = any(isinstance(module, NEVER_NEGATIVE) for module in net.modules())
        own = replacement(quantizer, nonlinearity) if replaced else None
        size = (in_channels, image_size, image_size)
        self.model = binarize(net, quantizer, keep, nonlinearity, size)
        layers = [m for m in self.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        ends = [_precision(layers[0]), _precision(layers[-1])]
        self.structure = OwnStructure(quantizer, own or "own", *ends)  # pyright: ignore
        self.num_features: int = self.model.head_hidden_size  # pyright: ignore

    @property
    def fc(self) -> nn.Module:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The classifier. Raises ValueError for the few models that have several."""
        classifier = self.model.get_classifier()  # pyright: ignore[reportCallIssue]
        if not isinstance(classifier, nn.Module):
            raise ValueError(f"{type(self.model).__name__} has no one classifier to take apart")
        return classifier

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to the model's last map or tokens."""
        return self.model.forward_features(x)  # pyright: ignore[reportCallIssue]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map to logits (N, classes), or to penultimate features (N, num_features)."""
        return self.model.forward_head(features, pre_logits=pre_logits)  # pyright: ignore

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (N, classes); with ``return_features`` also the penultimate features."""
        return super().forward(x, True) if return_features else self.model(x)


def _precision(layer: nn.Module) -> str:
    return "binary" if isinstance(layer, BinaryConv2d | BinaryLinear) else "fp32"


def _create(name: str, image_size: int, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """timm's model; ``image_size`` reaches those that are built for one size."""
    if not timm.is_model(name):
        close = _nearest(name, timm.list_models())
        meant = f"did you mean {', '.join(close)}? " if close else ""
        raise ValueError(f"timm has no model {name}; {meant}timm.list_models() has them all")
    config = get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        options = {"img_size": image_size} | options
    if not pretrained:
        return _built(name, options)
    try:
        net = _built(name, options | {"pretrained": True})
    except Exception as error:
        raise OSError(
            f"pretrained=true: the weights of {name} cannot be had ({error}); they come "
            "from the Hugging Face hub or its local cache; pretrained=false starts at random"
        ) from error
    _check_finite(net, name)
    return net


def _nearest(name: str, models: list[str]) -> list[str]:
    """The names most like ``name``, as a whole and by their beginnings."""
    starts = {model[: len(name)]: model for model in reversed(models)}
    whole = get_close_matches(name, models, n=3)
    begin = [starts[start] for start in get_close_matches(name, starts, n=3)]
    return list(dict.fromkeys([*whole, *begin]))[:5]


def _built(name: str, options: dict[str, Any]) -> nn.Module:
    """``timm.create_model``, also of arguments that a model's own function sets (MLP-Mixers')."""
    entry = model_entrypoint(name)
    creators = [used for used in entry.__code__.co_names if used.startswith("_create_")]
    module = sys.modules[entry.__module__]
    try:
        return timm.create_model(name, **options)
    except TypeError as error:
        if "multiple values for keyword" not in str(error) or len(creators) != 1:
            raise
    create = getattr(module, creators[0])
    setattr(module, creators[0], lambda *args, **own: create(*args, **own | options))
    try:
        return timm.create_model(name)
    finally:
        setattr(module, creators[0], create)


def _check_finite(net: nn.Module, name: str) -> None:
    """Refuse weights that came broken: a binary layer would hide them, the sign of NaN is +1."""
    for key, value in net.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(
                f"pretrained=true: {key} of {name} holds values that are no finite numbers: "
                "delete timm's copy in the Hugging Face cache, or take pretrained=false"
            )
