"""Powerpropagation: train ``phi``, compute with ``theta = phi * |phi|^(alpha - 1)``.

Schwarz et al., "Powerpropagation: A sparsity inducing weight reparameterisation", NeurIPS 2021,
arXiv:2110.00296, section 2. The gradient reaches ``phi`` scaled by ``alpha * |phi|^(alpha - 1)``, so
large weights move fast and small ones hardly: training itself pushes weights towards zero.
"""

import math
from typing import Any

import torch
from torch import Tensor

from cl_powerprop.errors import ConfigurationError


def check_alpha(alpha: float) -> float:
    """Return ``alpha`` as a float.

    Raises:
        ConfigurationError: if it is not a finite number of at least 1.
    """
    alpha = float(alpha)
    if not math.isfinite(alpha) or alpha < 1.0:
        raise ConfigurationError(f"alpha must be a finite number >= 1, not {alpha}")
    return alpha


def magnitude_power(phi: Tensor, alpha: float) -> Tensor:
    """Return ``|phi|^(alpha - 1)``, by multiplication where alpha is a whole number.

    A general ``pow`` over every weight in every step is a visible cost on a CPU.
    """
    if not alpha.is_integer():
        return phi.abs().pow_(alpha - 1.0)
    if alpha == 1.0:
        return torch.ones_like(phi)
    magnitude = phi.abs()
    result = magnitude
    for _ in range(int(alpha) - 2):
        result = result * magnitude
    return result


def to_theta(phi: Tensor, alpha: float) -> Tensor:
    """Return the weight in use, ``phi * |phi|^(alpha - 1)`` (paper, eq. 1)."""
    return phi if alpha == 1.0 else phi * magnitude_power(phi, alpha)


def to_phi(theta: Tensor, alpha: float) -> Tensor:
    """Return the trained parameter whose weight is ``theta``: ``sign(theta) * |theta|^(1/alpha)``."""
    return theta if alpha == 1.0 else theta.sign() * theta.abs().pow(1.0 / alpha)


class SparseWeightFunction(torch.autograd.Function):
    """``theta * mask`` from ``phi`` in one node, with the gradient scaled and gated.

    Inputs of :meth:`forward`: ``phi`` (any shape); ``alpha``; ``mask``, a boolean tensor like ``phi`` or None
    (everything visible); ``gate``, a float tensor like ``phi`` or None, that multiplies the gradient (0 for a
    weight that may not learn); ``theta_gradient``, whether to hand back dL/dtheta instead of dL/dphi.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, phi: Tensor, alpha: float, mask: Tensor | None, gate: Tensor | None, theta_gradient: bool
    ) -> Tensor:
        if alpha == 1.0:
            scale, theta = None, phi
        else:
            scale = magnitude_power(phi, alpha)
            theta = phi * scale
        if mask is not None:
            # `where`, not a product: a free weight that diverged (inf, nan) must not leak through its zero.
            theta = torch.where(mask, theta, 0.0)
            gate = mask if gate is None else gate
        ctx.alpha, ctx.scaled = alpha, scale is not None and not theta_gradient
        ctx.save_for_backward(scale if ctx.scaled else None, gate)
        return theta.view_as(theta)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        scale, gate = ctx.saved_tensors
        if ctx.scaled:
            grad = (grad * scale).mul_(ctx.alpha)
        if gate is not None:
            grad = grad * gate
        return grad, None, None, None, None
