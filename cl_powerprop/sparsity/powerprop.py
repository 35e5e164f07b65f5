"""Powerpropagation: train ``phi``, compute with ``theta = phi * |phi|^(alpha - 1)``.

Schwarz et al., "Powerpropagation: A sparsity inducing weight reparameterisation", NeurIPS 2021,
arXiv:2110.00296, section 2. The gradient with respect to ``phi`` is the one with respect to ``theta``, scaled by
``alpha * |phi|^(alpha - 1)``: large weights move fast and small ones hardly at all, so training itself makes the
weights sparse.
"""

from typing import Any

import torch
from torch import Tensor

from cl_powerprop.sparsity.bits import keep, keep_


def magnitude_power(phi: Tensor, alpha: float) -> Tensor:
    """Return ``|phi|^(alpha - 1)``, shaped like ``phi``; by multiplication if alpha is a whole number.

    On a CPU, a general ``pow`` of every weight in every step takes a noticeable share of the training time.
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
    """Return the weight ``theta = phi * |phi|^(alpha - 1)`` (paper, eq. 1)."""
    return phi if alpha == 1.0 else phi * magnitude_power(phi, alpha)


def to_phi(theta: Tensor, alpha: float) -> Tensor:
    """Return the ``phi`` that gives the weight ``theta``: ``sign(theta) * |theta|^(1 / alpha)``."""
    return theta if alpha == 1.0 else theta.sign() * theta.abs().pow(1.0 / alpha)


class SparseWeightFunction(torch.autograd.Function):
    """Computes ``theta * mask`` from ``phi`` in one autograd node, with the gradient scaled and gated.

    Inputs of :meth:`forward`: ``phi`` (any shape); ``alpha``; ``visible`` and ``gate``, each None or bits shaped like
    ``phi`` (see :func:`to_bits`), for the weights that are used and those that get a gradient; ``theta_gradient``,
    whether to return dL/dtheta instead of dL/dphi.
    """

    @staticmethod
    def forward(
        ctx: Any, phi: Tensor, alpha: float, visible: Tensor | None, gate: Tensor | None, theta_gradient: bool
    ) -> Tensor:
        """Return the effective weight, shaped like ``phi``."""
        scale = None if alpha == 1.0 else magnitude_power(phi, alpha)
        # Nothing changes these tensors before the backward pass: the checks of save_for_backward would only cost time.
        ctx.alpha, ctx.scale, ctx.gate = alpha, None if theta_gradient else scale, visible if gate is None else gate
        if scale is not None:
            theta = phi * scale
            return theta if visible is None else keep_(theta, visible)
        return phi.view_as(phi) if visible is None else keep(phi, visible)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Return the gradient for the optimizer.

        Raises:
            RuntimeError: if the gradient itself is to be differentiated.
        """
        if torch.is_grad_enabled():  # like torch's once_differentiable, at a tenth of its cost
            raise RuntimeError("a Powerpropagation weight is differentiable once only; create_graph=True asks for more")
        scale, gate = ctx.scale, ctx.gate
        if scale is not None:
            grad = (grad * scale).mul_(ctx.alpha)
            return grad if gate is None else keep_(grad, gate), None, None, None, None
        return grad if gate is None else keep(grad.contiguous(), gate), None, None, None, None
