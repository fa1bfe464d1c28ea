"""``bnnbench.export``: a trained network to a packed file that was compared with it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnnbench.packing.document import Facts, packed
from bnnbench.packing.proof import prove
from bnnbench.packing.sides import NotPackable
from bnnbench.records.provenance import git_state, versions
from bnnbench.runs.trained import Trained
from bnnbench.runtime import format
from bnnbench.runtime.check import check_images, flat, kept
from bnnbench.runtime.format import BadPackedFile
from bnnbench.runtime.graph import PackedNetwork, built

# Groups of a run's config that an evaluation of the packed file needs.
_GROUPS = ("quantizer", "loss", "backbone", "dataset", "recipe", "channels_last", "seed")
IMAGES = 4  # of the proof
RULES = ("score_thresh", "topk_candidates", "nms_thresh", "detections_per_img")


def export(
    net: nn.Module,
    path: Path | str,
    input_size: Sequence[int] | None = None,
    *,
    class_names: Sequence[str] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    half: bool = False,
) -> Path:
    """Write ``net`` as a packed file, once what that computes is what ``net`` computes.

    Args:
        net: what ``bnnbench.load`` gives, which says the rest itself, or any network with layers
            of ``bnnbench.layers``; it is left as it is.
        path: the file to write.
        input_size: (C, H, W) of one image.
        class_names: in the order of the logits.
        mean, std: per channel, of pixels scaled to [0, 1].
        half: weights of float layers in half precision, which changes the outputs a little.

    Raises:
        NotPackable: it cannot be packed, or the packed network differs; nothing is written.
        ValueError: no ``input_size``.
    """
    facts = Facts(type(net).__name__, "classification", class_names, mean, std)
    if isinstance(net, Trained):
        facts, input_size, net = facts_of(net), image_of(net), net.net
    if input_size is None:
        raise ValueError("give input_size=(channels, height, width), the shape of one image")
    content = content_of(net, tuple(input_size), facts, half)
    file = Path(path).expanduser()
    format.write(file, content)
    return file


def image_of(trained: Trained) -> tuple[int, int, int]:
    """The shape of its images."""
    return trained.in_channels, trained.image_size, trained.image_size


def facts_of(trained: Trained) -> Facts:
    """What a run's network says of itself."""
    signature = trained.signature
    config = {key: signature.config[key] for key in _GROUPS if key in signature.config}
    config["trainer"] = {"max_epochs": signature.config["trainer"]["max_epochs"]}
    run = {
        "fingerprint": signature.fingerprint,
        "stage": signature.stage,
        "data_stamp": signature.data_stamp,
        "config": config,
    }
    more = {"crops": trained.crops, "run": run}
    names = trained.class_names, signature.mean, signature.std
    return Facts(trained.name, trained.task, *names, more)


@torch.no_grad()
def content_of(net: nn.Module, size: tuple[int, ...], facts: Facts, half: bool) -> bytes:
    """The file of ``net``. Raises NotPackable where it would compute something else."""
    net = copy.deepcopy(net).cpu().float().eval()
    made = versions() | git_state()
    more = {**facts.more, "made": made, "half": half}
    if hasattr(net, "anchor_generator"):
        more["boxes"] = _boxes(net)
    document, tensors = packed(net, size, replace(facts, more=more), half)
    network = _built(document, tensors, facts.name)
    images = check_images(size, IMAGES)
    prove(net, network, images, half)
    chosen = int((flat(net(images)) - flat(network(images))).abs().amax(1).argmin())
    document["check"] = {
        "seed": chosen,
        "outputs": kept(network(check_images(size, 1, chosen))),
    }
    content = format.encoded(document, tensors)
    built(*format.decoded(content, facts.name), facts.name)
    return content


def _built(document: dict[str, Any], tensors: dict[str, Tensor], name: str) -> PackedNetwork:
    try:
        return built(document, tensors, name)
    except BadPackedFile as error:
        raise NotPackable(f"{name} cannot be packed: {error.__cause__}") from error


def _boxes(net: Any) -> dict[str, Any]:
    """How a detector's default boxes are made, and by which rules boxes are chosen."""
    generator = net.anchor_generator
    return {
        "aspect_ratios": generator.aspect_ratios,
        "scales": generator.scales,
        "steps": generator.steps,
        "sides": net.backbone.sides,
        "size": net.image_shape[0],
        "rules": {key: getattr(net, key) for key in RULES},
    }
