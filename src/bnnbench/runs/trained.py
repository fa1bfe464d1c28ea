"""A trained network rebuilt from its checkpoint alone, to be used and not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnnbench import runtime
from bnnbench.records.checkpoints import load_weights
from bnnbench.records.signature import BadCheckpoint, Signature
from bnnbench.runtime.format import is_packed
from bnnbench.runtime.graph import PackedNetwork
from bnnbench.tasks.rebuilt import NETWORK, Described, building, described, network_of


class Trained(nn.Module):
    """A trained network with what its images need; it begins in eval mode, on the CPU.

    Args:
        net: normalised images (N, C, S, S) to logits (N, K), or a detector.
        found: what its checkpoint says of itself.

    Attributes:
        name: the run's.
        task: ``classification`` or ``detection``.
        class_names: in the order of the logits; a detector's labels count them from 1.
        in_channels, image_size: C and S.
        mean, std: per channel, of pixels scaled to [0, 1].
        crops: whether its images are the centre of larger ones, as in ImageNet's evaluation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, found: Described) -> None:
        super().__init__()
        self.net, self.signature = net, found.signature
        signature, dataset = found.signature, found.config["dataset"]
        self.name, self.class_names, self.task = signature.name, found.class_names, found.task
        self.in_channels, self.image_size = dataset["in_channels"], dataset["image_size"]
        self.crops = str(dataset["_target_"]).endswith("FolderDataModule")
        self.register_buffer("mean", torch.tensor(signature.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(signature.std).view(-1, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> Any:
        """What the network says of images uint8, or float in [0, 1], (N, C, S, S).

        Logits float (N, K); of a detector class logits (N, A, K + 1) and offsets (N, A, 4).

        Raises:
            ValueError: images of another shape.
        """
        shape = self.in_channels, self.image_size, self.image_size
        if images.dim() != 4 or tuple(images.shape[1:]) != shape:
            raise ValueError(
                f"{self.name} takes images (N, {', '.join(map(str, shape))}), not "
                f"{tuple(images.shape)}"
            )
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        return self.net((scaled - self.mean) / self.std)


def load(path: Path | str, trust: Sequence[str] = ()) -> Trained:
    """The network of a checkpoint of this suite, with its normalisation and class names.

    Args:
        path: a checkpoint that a run has written, or the packed file of one.
        trust: packages whose classes the checkpoint may name beside this one.

    Raises:
        BadCheckpoint: no such file, a damaged one, or one that does not say what network it is.
        Untrusted: it names code of packages that ``trust`` does not.
    """
    if is_packed(path):
        net = runtime.load(path, verify=True)
        signature = packed_signature(net, path)
        return Trained(net, Described({}, signature, signature.config))
    found = described(path, NETWORK, trust)
    if not isinstance(found, Described):
        raise BadCheckpoint(
            f"{path} does not say what network it is: build that with bnnbench.build_backbone and "
            "load its state_dict, or evaluate it with bnnbench evaluate quantizer=... backbone=... "
            "dataset=..."
        )
    with building(path, "load it with the version that wrote it"):
        net = network_of(found.config)
        load_weights(net, path)
        return Trained(net, found)


def packed_signature(net: PackedNetwork, path: Path | str) -> Signature:
    """Whose packed file it is.

    Raises:
        BadCheckpoint: it was exported from a network, not from a run's checkpoint.
    """
    run = net.document.get("run")
    if not isinstance(run, dict):
        raise BadCheckpoint(
            f"{path} does not say on what it was trained: use bnnbench.runtime.load, or export "
            "the checkpoint of a run"
        )
    parts = net.name, run["fingerprint"], run["stage"], run["config"], run["data_stamp"]
    return Signature(*parts, net.class_names, net.mean, net.std)
