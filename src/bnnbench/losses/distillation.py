"""What a student learns from its teacher: soft targets, attention maps, hints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnbench.losses.context import StepContext
from bnnbench.losses.regularizer import Regularizer
from bnnbench.quantizers.dorefa import DoReFaActivation

NORMALIZE = ("norm", "max")


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))``, mean over the images.

    arXiv 1503.02531, Sec. 2. At T = 1 its gradient, ``(softmax(student) - softmax(teacher)) / N``,
    is that of ReActNet's distributional loss (arXiv 2003.03488, Eq. 6), which lacks the teacher's
    entropy, a constant.

    Args:
        student, teacher: logits (N, classes).
        temperature: T, above 0.
    """
    ours = F.log_softmax(student / temperature, dim=1)
    theirs = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def attention_map(x: Tensor, normalize: str) -> Tensor:
    """``Q = sum_c x_c^2`` of each image, flattened and divided by its norm or maximum; (N, H W).

    Real-to-Binary, arXiv 2003.11535, Sec. 4.2; larq/zoo divides by the maximum.
    """
    q = x.square().sum(dim=1).flatten(1)
    size = q.norm(dim=1, keepdim=True) if normalize == "norm" else q.amax(dim=1, keepdim=True)
    return q / size.clamp(min=1e-12)


def attention_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], normalize: str) -> Tensor:
    """Mean of ``(Q_s - Q_t)^2`` over positions, pairs of maps (N, C, H, W) and images.

    With ``max`` it is that of larq/zoo. The numbers of channels may differ, sizes may not.
    """
    pairs = zip(student, teacher, strict=True)
    differences = [attention_map(s, normalize) - attention_map(t, normalize) for s, t in pairs]
    return torch.stack([d.square().mean() for d in differences]).mean()


def hint_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], bits: int) -> Tensor:
    """Mean of ``|q(F_s) - q(F_t)|`` over all elements, averaged over pairs of equal maps.

    Guided training, arXiv 1711.00205, Sec. 3.3, in the form of nowgood/QuantizeCNNModel. q clips to
    [0, 1] and rounds to ``bits``, straight-through (DoReFa); at 32 bits it is the identity.
    Gradients reach both sides.
    """
    q = DoReFaActivation(1, bits)
    pairs = zip(student, teacher, strict=True)
    return torch.stack([(q(s) - q(t)).abs().mean() for s, t in pairs]).mean()


class TeacherTerm(Regularizer):
    """A term that needs a teacher."""

    task = "classification"

    def attach(self, pl_module: Any) -> None:
        """Register the term. Raises ValueError without a teacher."""
        if getattr(pl_module, "teacher", None) is None:
            raise ValueError(
                f"the loss term {self.name} needs a teacher: choose teacher=run with "
                "teacher.folder=<a finished run>, timm, stage or joint; or loss=task"
            )
        super().attach(pl_module)


class Distillation(TeacherTerm):
    """``weight * T^2 KL(softmax(teacher / T) || softmax(student / T))``."""

    name = "kd"

    def __init__(self, weight: float, temperature: float = 1.0) -> None:
        if weight < 0 or temperature <= 0:
            raise ValueError(
                "loss: lambda must not be negative and temperature above 0; got "
                f"{weight}, {temperature}"
            )
        self.weight, self.temperature = weight, temperature

    def __call__(self, context: StepContext) -> Tensor:
        assert context.teacher is not None
        loss = soft_target_loss(context.logits.float(), context.teacher.float(), self.temperature)
        return self.weight * loss


class Maps:
    """The outputs of ``modules`` in the latest forward, and of no other: evaluations are long."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self.latest: dict[nn.Module, Tensor] = {}
        self.count = len(modules)
        for module in modules:
            module.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.latest[module] = output

    def take(self) -> list[Tensor]:
        """The maps in the order of the modules in the network; they are kept no longer."""
        maps, self.latest = list(self.latest.values()), {}
        return maps


class MapTerm(TeacherTerm):
    """A term over maps inside both networks."""

    compared = slice(0)  # the dimensions in which maps of both networks have to agree

    def __init__(self) -> None:
        self.maps: list[Maps] = []

    def modules(self, net: nn.Module) -> list[nn.Module]:
        """The modules whose outputs are compared."""
        raise NotImplementedError

    def attach(self, pl_module: Any) -> None:
        super().attach(pl_module)
        self.maps = [Maps(self.modules(net)) for net in (pl_module.net, pl_module.teacher.net)]
        counts = [maps.count for maps in self.maps]
        if counts[0] != counts[1]:
            raise ValueError(
                f"loss={self.name} compares map by map: the network has {counts[0]} of them and "
                f"its teacher {counts[1]}; choose a teacher of the same backbone"
            )

    def check_maps(self) -> None:
        """Raise ValueError where the maps of both networks' latest forward cannot be compared."""
        found = [[tuple(map_.shape[self.compared]) for map_ in maps.take()] for maps in self.maps]
        for student, teacher in zip(*found, strict=True):
            if student != teacher:
                raise ValueError(
                    f"loss={self.name} compares maps of equal size: the network has {student}, its "
                    f"teacher {teacher}; choose a teacher of the same backbone"
                )


class AttentionMatching(MapTerm):
    """``weight`` times ``attention_loss`` at the output of every residual block."""

    name = "attention"
    compared = slice(2, 4)  # height and width

    def __init__(self, weight: float, normalize: str) -> None:
        super().__init__()
        if weight < 0 or normalize not in NORMALIZE:
            raise ValueError(
                f"loss: lambda must not be negative and normalize one of {NORMALIZE}; got "
                f"{weight}, {normalize}"
            )
        self.weight, self.normalize = weight, normalize

    def modules(self, net: nn.Module) -> list[nn.Module]:
        """Every residual block."""
        return [block for stage in residual_stages(net) for block in stage.children()]

    def __call__(self, context: StepContext) -> Tensor:
        student, teacher = (maps.take() for maps in self.maps)
        return self.weight * attention_loss(student, teacher, self.normalize)


class Hints(MapTerm):
    """``weight`` times ``hint_loss`` before and after the last stage."""

    name = "hints"
    compared = slice(1, 4)

    def __init__(self, weight: float, bits: int) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"loss.lambda={weight} must not be negative")
        if bits not in (*range(1, 9), 32):
            raise ValueError(f"loss.bits={bits}: choose 1 to 8, or 32 to compare maps as they are")
        self.weight, self.bits = weight, bits

    def modules(self, net: Any) -> list[nn.Module]:
        """Two of them, as the backbone says."""
        return net.hint_modules()

    def __call__(self, context: StepContext) -> Tensor:
        student, teacher = (maps.take() for maps in self.maps)
        return self.weight * hint_loss(student, teacher, self.bits)


def residual_stages(net: nn.Module) -> list[nn.Module]:
    """The stages of a ResNet, in order. Raises ValueError for other networks."""
    stages = getattr(net, "stages", None)
    if not isinstance(stages, nn.Sequential):
        raise ValueError(
            f"{type(net).__name__} has no stages of residual blocks: choose a ResNet (resnet*, "
            "wrn*), for the teacher as well"
        )
    return list(stages.children())
