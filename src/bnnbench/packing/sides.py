"""What a packed network needs to know of a quantizer's two sides.

An activation side of one bit is a threshold of its input, or of a function of it that stays an
ordinary operation. Which, is declared here class by class from the equations; it is compared with
the side itself before it is used, and a side that nobody declared is computed as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from bnnbench.layers import BinaryLayer
from bnnbench.packing.ir import Weight, compact
from bnnbench.quantizers.abcnet import ABCNetActivation
from bnnbench.quantizers.adabin import EPS, AdaBinActivation
from bnnbench.quantizers.base import Side
from bnnbench.quantizers.birealnet import ApproxSignActivation
from bnnbench.quantizers.bnn import SignActivation
from bnnbench.quantizers.dorefa import DoReFaActivation
from bnnbench.quantizers.dsq import DSQActivation
from bnnbench.quantizers.fda import FDAActivation
from bnnbench.quantizers.irnet import IRNetActivation
from bnnbench.quantizers.rbnn import RBNNActivation
from bnnbench.quantizers.reactnet import RSign
from bnnbench.quantizers.recu import ReCUActivation
from bnnbench.quantizers.reste import ReSTEActivation
from bnnbench.quantizers.sibnn import SiBNNActivation
from bnnbench.quantizers.siman import SiMaNActivation
from bnnbench.quantizers.standardise import unit_spread, unit_std


class NotPackable(ValueError):
    """A network that a packed file cannot hold; the message names the layer and the reason."""


@dataclass(frozen=True)
class Cut:
    """``value = scale * c + offset``, c +1 where ``compared(x) >= edge`` and -1 below.

    Attributes:
        edge: one number, or one a channel.
        scale, offset: of the whole tensor.
        flip: where c is turned round; None nowhere.
        compared: None for the input itself.
    """

    edge: Tensor
    scale: float = 1.0
    offset: float = 0.0
    flip: Tensor | None = None
    compared: Callable[[Tensor], Tensor] | None = None


@singledispatch
def cut(side: Side) -> Cut | None:
    """The threshold that an activation side is in evaluation; None where it is none."""
    return None


def _at(edge: Tensor | float, scale: float = 1.0, offset: float = 0.0) -> Cut:
    return Cut(torch.as_tensor(edge, dtype=torch.float32).detach().clone(), scale, offset)


def _sloped(edge: Tensor, slope: Tensor, scale: float, offset: float) -> Cut:
    """Of ``sign(slope * (x - edge))``: below a slope of 0 the code is +1 up to the edge."""
    edge, slope = torch.broadcast_tensors(edge.detach().float(), slope.detach().float())
    after = torch.nextafter(edge, torch.full_like(edge, torch.inf))
    edge = torch.where(slope < 0, after, edge).masked_fill(slope == 0, -torch.inf)
    return Cut(edge, scale, offset, slope < 0 if bool((slope < 0).any()) else None)


@cut.register(SignActivation)
@cut.register(ApproxSignActivation)
@cut.register(IRNetActivation)
@cut.register(ReSTEActivation)
@cut.register(FDAActivation)
@cut.register(ReCUActivation)
def _(side: Side) -> Cut:
    return _at(0.0)


@cut.register
def _(side: SiMaNActivation) -> Cut:
    return Cut(torch.tensor(0.0), compared=unit_spread)


@cut.register
def _(side: RBNNActivation) -> Cut:
    return Cut(torch.tensor(0.0), compared=unit_std)


@cut.register
def _(side: RSign) -> Cut:
    return _at(side.threshold)


@cut.register
def _(side: DoReFaActivation) -> Cut | None:
    return _at(0.5, 0.5, 0.5) if side.bits == 1 else None


@cut.register
def _(side: ABCNetActivation) -> Cut | None:
    return _at(0.5 - side.v, side.beta.item()) if side.bases == 1 else None


@cut.register
def _(side: SiBNNActivation) -> Cut:
    return _sloped(side.threshold, side.slope, 0.5, 0.5)


@cut.register
def _(side: AdaBinActivation) -> Cut:
    offset = side.alpha * side.beta if side.is_reference else side.beta
    return _sloped(side.beta, side.alpha + EPS, side.alpha.item(), offset.item())


@cut.register
def _(side: DSQActivation) -> Cut:
    width, centre = side._range()
    return _at(centre, width.item() / 2, centre.item())


@torch.no_grad()
def checked_cut(side: Side, channels: int) -> Cut | None:
    """The declared cut, where the side agrees on numbers around every edge and far from it."""
    found = cut(side)
    if found is None or side.bits != 1 or side.bases != 1:
        return None
    if found.compared is not None:  # of the whole sample: the network's own check sees it
        return found
    x = grid(found.edge.expand(channels) if found.edge.numel() == 1 else found.edge)
    if not torch.allclose(side(x), value(found, x), rtol=1e-5, atol=1e-6):
        return None
    return found


def grid(edge: Tensor) -> Tensor:
    """Numbers (M, C) for edges (C,): around each, itself and its neighbours, and far from it."""
    middle = edge.nan_to_num(posinf=1.0, neginf=-1.0)
    infinity = torch.full_like(middle, torch.inf)
    near = [middle, torch.nextafter(middle, infinity), torch.nextafter(middle, -infinity)]
    steps = torch.tensor([1e-6, 1e-3, 0.1, 0.5, 1.0, 2.0, 10.0])
    far = middle + torch.cat([-steps, steps]).view(-1, 1)
    return torch.cat(
        [torch.stack(near), far, torch.linspace(-3, 3, 61).view(-1, 1).expand(-1, len(edge))]
    )


def value(found: Cut, x: Tensor) -> Tensor:
    """What the cut says of ``x`` (M, C)."""
    high = x >= found.edge
    high = high if found.flip is None else high ^ found.flip
    return torch.where(high, found.scale + found.offset, found.offset - found.scale)


@torch.no_grad()
def weight_of(name: str, layer: BinaryLayer) -> Weight | Tensor:
    """The evaluated weight of a layer: packed, or as it is where its side has full precision.

    Raises:
        NotPackable: a side of several bits or bases, or one whose ``decompose`` is not its value.
    """
    side, latent = layer.weight_quantizer, layer.weight
    expected = side(latent).float()
    if side.bits >= 32:
        return expected.clone()
    what = f"{side.bases} bases" if side.bits == 1 else f"{side.bits} bits"
    if side.bits != 1 or side.bases != 1:
        raise NotPackable(
            f"{name} ({type(side).__name__}) has weights of {what}: a packed file holds those of "
            "one bit and one base; choose another quantizer"
        )
    parts = side.decompose(latent)
    offset = parts.offset.float().clone() if bool(parts.offset.any()) else None
    rank = latent.dim()
    scale, offset = (_with_rank(part, rank) for part in (parts.scale.float().clone(), offset))
    assert scale is not None
    weight = Weight(name, parts.code.float().contiguous(), scale, offset)
    if not torch.allclose(weight.dense, expected, rtol=1e-5, atol=1e-7):
        raise NotPackable(
            f"{name}: decompose of {type(side).__name__} gives other weights than the side itself; "
            "see docs/adding_a_quantizer.md"
        )
    return weight


def _with_rank(part: Tensor | None, rank: int) -> Tensor | None:
    """``part``, which broadcasts against the weight, with as many axes and no number twice."""
    if part is None:
        return None
    return compact(part.reshape((1,) * (rank - part.dim()) + tuple(part.shape))).clone()
