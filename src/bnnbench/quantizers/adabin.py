"""AdaBin: adaptive binary sets (Tu et al., ECCV 2022, arXiv 2208.08084).

Code: huawei-noah/Efficient-Computing, BinaryNetworks/AdaBin. Weights take the two values
``beta_w -+ alpha_w``: mean and (biased) standard deviation of each filter, recomputed at every
forward with their gradients; the sign uses IR-Net's error decay estimator. Activations take two
learned values per layer: ``alpha * s + beta`` in the paper (``center=paper``) and
``alpha * (s + beta)`` in the released code (``center=reference``, needed by its weights), with
``s = sign((x - beta) / alpha)`` and ApproxSign. Changed: sign(0) = +1, an eps under alpha_w, one
filter's own size for grouped convolutions, the form is stored in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnnbench.quantizers.base import Decomposition, EDESchedule, Side, per_filter, scaled_sign
from bnnbench.quantizers.parts import column, in_parts, moments, parts, rounded_mean, to_signs
from bnnbench.quantizers.surrogate import approx_sign, ede, sign_ste

EPS = 1e-12  # a constant filter has alpha_w = 0, and alpha_a may meet 0 on its way
CENTERS = ("paper", "reference")


class _TwoValues(torch.autograd.Function):
    """``AdaBinWeight._plain`` in parts: its value and, operation by operation, its gradient.

    ``again`` is None, or the weight once more: that input gets what comes through the statistics.
    """

    @staticmethod
    def forward(ctx, weight: Tensor, again: Tensor | None, k: Tensor, t: Tensor) -> Tensor:
        value, alpha, beta = torch.empty_like(weight), column(weight), column(weight)
        for w, out, a, b in parts(weight, value, alpha, beta):
            variance, mean = moments(w)
            a.copy_(variance).add_(EPS**2).sqrt_()
            b.copy_(rounded_mean(w, variance, mean))
            to_signs(torch.sub(w, b, out=out)).mul_(a).add_(b)
        ctx.save_for_backward(weight, alpha, beta, k, t)
        return value

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, alpha, beta, k, t = ctx.saved_tensors
        grad_weight, axes, count = torch.empty_like(weight), per_filter(weight), weight[0].numel()
        grad_again = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        slope = k * t

        def total(x: Tensor) -> Tensor:
            return x.sum(dim=axes, keepdim=True)

        rest = grad_weight if grad_again is None else grad_again
        for w, g, out, more, a, b in parts(weight, grad, grad_weight, rest, alpha, beta):
            u = (w - b).div_(a)
            through = torch.mul(u, t, out=out).tanh_().square_().neg_().add_(1)
            other = to_signs(u.clone()).mul_(g)
            grad_alpha = total(other)
            through.mul_(torch.mul(g, a, out=other)).mul_(slope)
            grad_alpha = grad_alpha - total(u.div_(a).mul_(through))
            grad_beta = total(g) - total(through.div_(a))
            centred = torch.sub(w, w.mean(dim=axes, keepdim=True), out=other)
            centred.mul_(2 / count * (grad_alpha / (2 * a))).add_(grad_beta / count)
            through.add_(centred) if grad_again is None else more.copy_(centred)
        return grad_weight, grad_again, None, None


class AdaBinWeight(Side):
    """``alpha_w * sign((w - beta_w) / alpha_w) + beta_w`` per filter."""

    def __init__(self, shape: Sequence[int], t_min: float, t_max: float) -> None:
        super().__init__()
        self.schedule = EDESchedule(t_min, t_max)

    @staticmethod
    def _statistics(weight: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(weight, dim=per_filter(weight), correction=0, keepdim=True)
        return torch.sqrt(variance + EPS**2), mean

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights, same shape as ``weight``."""
        if in_parts(weight):
            again = weight if self.has_readers else None
            return _TwoValues.apply(  # pyright: ignore[reportReturnType]
                weight, again, self.schedule.k, self.schedule.t
            )
        return self._plain(weight)

    def _plain(self, weight: Tensor) -> Tensor:
        alpha, beta = self._statistics(weight)
        code = sign_ste((weight - beta) / alpha, ede, self.schedule.k, self.schedule.t)
        return torch.addcmul(beta, alpha, code)

    def decompose(self, x: Tensor) -> Decomposition:
        alpha, beta = self._statistics(x)
        return scaled_sign(x - beta, alpha, beta)


class _AdaptiveSign(torch.autograd.Function):
    """``alpha * s + offset`` in one pass each way; ``u`` is recomputed instead of kept."""

    @staticmethod
    def forward(ctx, x: Tensor, alpha: Tensor, beta: Tensor, reference: bool) -> Tensor:
        ctx.save_for_backward(x, alpha, beta)
        ctx.reference = reference
        code = (x - beta).div_(alpha + EPS).sign_().add_(0.5).sign_()
        return code.add_(beta).mul_(alpha) if reference else code.mul_(alpha).add_(beta)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, alpha, beta = ctx.saved_tensors
        u = (x - beta).div_(alpha + EPS)
        grad_x = approx_sign(grad, u)
        total, through = grad.sum(), grad_x.sum()
        slope = (grad_x * u).sum()
        grad_alpha = u.sign_().add_(0.5).sign_().mul_(grad).sum() - slope
        if ctx.reference:
            return grad_x, grad_alpha + beta * total, alpha * total - through, None
        return grad_x, grad_alpha, total - through, None


class AdaBinActivation(Side):
    """Two learned activation values per layer; initially {-1, +1}."""

    symmetric = True
    reference: Tensor

    def __init__(self, channels: int, center: str) -> None:
        super().__init__()
        if center not in CENTERS:
            raise ValueError(f"quantizer.activation_center={center!r}: choose one of {CENTERS}")
        self.is_reference = center == "reference"
        self.alpha = nn.Parameter(torch.ones(()))
        self.beta = nn.Parameter(torch.zeros(()))
        self.register_buffer("reference", torch.tensor(self.is_reference))

    def forward(self, x: Tensor) -> Tensor:
        """One of two values for each element of ``x``, same shape."""
        return _AdaptiveSign.apply(  # pyright: ignore[reportReturnType]
            x, self.alpha, self.beta, self.is_reference
        )

    def decompose(self, x: Tensor) -> Decomposition:
        offset = self.alpha * self.beta if self.is_reference else self.beta
        return scaled_sign((x - self.beta) / (self.alpha + EPS), self.alpha, offset)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        stored = state_dict.get(prefix + "reference")
        if stored is not None and bool(stored) != self.is_reference:
            form = CENTERS[int(stored)]
            raise ValueError(
                f"these AdaBin weights were trained with activation_center={form}: they are "
                f"useless in the other form; set quantizer.activation_center={form}"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
