"""What all classification backbones share: the head, the initialisation, the call."""

from __future__ import annotations

from torch import Tensor, nn

from bnnbench.backbones.structure import Structure
from bnnbench.layers import BinaryConv2d, BinaryLinear


def initialize(net: nn.Module, structure: Structure) -> None:
    """Kaiming-normal weights for all layers, full precision and binary alike (fan out).

    Scales of batch norms start where the method says, and weights whose side has a ``start``.
    """
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, structure.norm_start)
        if isinstance(module, nn.Conv2d | nn.Linear):
            mode = "fan_out" if isinstance(module, nn.Conv2d) else "fan_in"
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, BinaryConv2d | BinaryLinear):
            module.weight_quantizer.start(module.weight)


class Backbone(nn.Module):
    """A classifier with timm's ``forward_features`` / ``forward_head``.

    Attributes:
        num_features: length of the penultimate feature vector.
        structure: what the network was built of.
    """

    task = "classification"
    fc: nn.Module

    def __init__(self, num_features: int, num_classes: int, structure: Structure) -> None:
        super().__init__()
        self.structure = structure
        self.num_features = num_features
        self.head_norm = nn.BatchNorm1d(num_features) if structure.head_norm else nn.Identity()
        self.fc = structure.classifier(num_features, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to the last feature map (N, F, h, w)."""
        raise NotImplementedError

    def pool(self, features: Tensor) -> Tensor:
        """The last feature map to one vector an image, (N, num_features)."""
        return features.mean(dim=(2, 3))

    def hint_modules(self) -> list[nn.Module]:
        """Whose outputs guided training compares: the maps before and after the last stage.

        Raises ValueError where a network has no stages.
        """
        stages = getattr(self, "stages", None)
        if isinstance(stages, nn.Sequential | nn.ModuleList):
            return list(stages.children())[-2:]
        raise ValueError(
            f"{type(self).__name__} has no stages to compare: choose a ResNet, vgg_small or vgg7, "
            "for the teacher as well"
        )

    def remove_head(self) -> None:
        """Leave the body alone, for a detector."""
        self.head_norm, self.fc = nn.Identity(), nn.Identity()

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """The last feature map to logits (N, classes), or to penultimate features (N, F)."""
        vector = self.head_norm(self.pool(features))
        return vector if pre_logits else self.fc(vector)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (N, classes); with ``return_features`` also the penultimate features (N, F)."""
        features = self.forward_head(self.forward_features(x), pre_logits=True)
        logits = self.fc(features)
        return (logits, features) if return_features else logits


def check_image_size(image_size: int, name: str, low: int = 8, high: int | None = 64) -> None:
    """Refuse sizes that a network was not made for; without ``high`` none is too large."""
    if image_size < low or (high is not None and image_size > high):
        sizes = f"{low} to {high} pixels" if high is not None else f"{low} pixels and more"
        nearest = low if image_size < low else high
        other = "" if image_size < low else ", or choose resnet18, resnet20, wrn22 or vgg16"
        raise ValueError(
            f"backbone={name} is for images of {sizes}, got {image_size}: set "
            f"dataset.image_size={nearest}{other}"
        )
