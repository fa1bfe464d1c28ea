"""Loss terms that compare the network with its teacher."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bnnbench.losses.context import StepContext
from bnnbench.losses.distillation import (
    NORMALIZE,
    attention_loss,
    hint_loss,
    soft_target_loss,
)
from bnnbench.losses.regularizer import Regularizer


class TeacherTerm(Regularizer):
    """A term that needs a teacher; ``logits_only``: nothing of it but its logits."""

    task = "classification"
    logits_only = True

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
        self._hooks = [module.register_forward_hook(self._keep) for module in modules]
        self.count = len(modules)

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.latest[module] = output

    def take(self) -> list[Tensor]:
        """The maps in the order of the modules in the network; they are kept no longer."""
        maps, self.latest = list(self.latest.values()), {}
        return maps

    def remove(self) -> None:
        """Leave the modules as they were."""
        for hook in self._hooks:
            hook.remove()


class MapTerm(TeacherTerm):
    """A term over maps inside both networks."""

    logits_only = False
    compared = slice(0)  # the dimensions in which maps of both networks have to agree

    def __init__(self) -> None:
        self.maps: list[Maps] = []

    def modules(self, net: nn.Module) -> list[nn.Module]:
        """The modules whose outputs are compared."""
        raise NotImplementedError

    def attach(self, pl_module: Any) -> None:
        super().attach(pl_module)
        for maps in self.maps:  # every trainer attaches once more
            maps.remove()
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
