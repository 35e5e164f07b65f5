"""A mask that is learned: the top share of a weight by scores, which are trained by straight-through gradients.

Ramanujan et al., "What's Hidden in a Randomly Weighted Neural Network?" (edge-popup), CVPR 2020, arXiv:1911.13299,
section 3.2. SupSup and Winning SubNetworks learn their masks in this way; as in their published code, a score ranks by
its absolute value. Without a share, a mask has the weights with a score above a threshold, as in Mallya et al.,
"Piggyback", ECCV 2018, arXiv:1801.06519, section 3.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from cl_powerprop.sparsity.bits import keep, keep_, to_bits
from cl_powerprop.sparsity.powerprop import magnitude_power
from cl_powerprop.sparsity.topk import kth_largest, largest


class ScoredWeightFunction(torch.autograd.Function):
    """Computes ``theta * mask`` from ``phi`` and scores in one autograd node; the mask is the top ``count`` by ``|s|``.

    Without a count, it has the free weights and those with a score above 0.

    Inputs of :meth:`forward`: ``phi`` (any shape); ``scores``, float32 of the same shape; ``alpha``; ``count`` or None;
    ``gate``, None or bits of the weights that may get a gradient (see :func:`to_bits`); ``theta_gradient``, whether to
    return dL/dtheta instead of dL/dphi. Of equal scores at the threshold all are in the mask. Without a count, the
    gate tells the free weights, which are all if it is None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        phi: Tensor,
        scores: Tensor,
        alpha: float,
        count: int | None,
        gate: Tensor | None,
        theta_gradient: bool,
    ) -> Tensor:
        """Return the effective weight, shaped like ``phi``."""
        scale = None if alpha == 1.0 else magnitude_power(phi, alpha)
        theta = phi if scale is None else phi * scale
        if count is not None:
            magnitude = scores.abs()
            shown = to_bits(magnitude >= kth_largest(magnitude, count), phi.dtype)
        elif gate is not None:
            shown = to_bits(scores > 0.0, phi.dtype) | gate
        else:
            shown = to_bits(torch.ones_like(scores, dtype=torch.bool), phi.dtype)
        ctx.by_magnitude = count is not None
        # Nothing changes these tensors before the backward pass: the checks of save_for_backward would only cost time.
        ctx.alpha, ctx.scale, ctx.theta, ctx.scores = alpha, None if theta_gradient else scale, theta, scores
        ctx.gate = shown if gate is None else shown & gate
        return keep(theta, shown)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        """Return dL/dphi of the weights in the mask, and dL/ds of all scores: that of the mask, as if it were ``|s|``.

        Without a count, as if it were ``s``.
        """
        of_phi = of_scores = None
        if ctx.needs_input_grad[1]:
            of_scores = (grad * ctx.theta).to(ctx.scores.dtype)
            if ctx.by_magnitude:
                of_scores.mul_(ctx.scores.sign())
        if ctx.needs_input_grad[0]:
            if ctx.scale is not None:
                of_phi = keep_((grad * ctx.scale).mul_(ctx.alpha), ctx.gate)
            else:
                of_phi = keep(grad.contiguous(), ctx.gate)
        return of_phi, of_scores, None, None, None, None


class ScoredMask:
    """The scores of one weight, and the mask that they choose in each forward pass.

    Args:
        weight: the weight.
        density: share of its elements in the mask, in (0, 1]; at least one is. None: the free weights, and those with a
            score above 0.

    Attributes:
        scores: float32 parameter, shaped like the weight. It is no parameter of the model: whoever trains gives it to
            the optimizer.
        count: number of elements in the mask; None if that is not given.
    """

    def __init__(self, weight: Tensor, density: float | None) -> None:
        self.scores = nn.Parameter(torch.zeros(weight.shape, dtype=torch.float32, device=weight.device))
        self.count = None if density is None else max(1, round(density * weight.numel()))

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Draw the scores anew, uniformly in +-1/sqrt(fan_in) as in the published code; ``generator`` is on the CPU.

        Without a density all begin at 1: nothing is hidden.
        """
        if self.count is None:
            self.scores.fill_(1.0)
            return
        draws = nn.init.kaiming_uniform_(torch.empty(self.scores.shape), a=math.sqrt(5), generator=generator)
        self.scores.copy_(draws)

    def weight(self, phi: Tensor, alpha: float, gate: Tensor | None, theta_gradient: bool) -> Tensor:
        """Return the effective weight (see :class:`ScoredWeightFunction`)."""
        weight: Tensor = ScoredWeightFunction.apply(phi, self.scores, alpha, self.count, gate, theta_gradient)
        return weight

    def mask(self) -> Tensor:
        """Return the mask, boolean, shaped like the weight; of equal scores, earlier elements come first.

        Without a density, it has the weights with a score above 0, and not yet those that are free.
        """
        if self.count is None:
            return self.scores.detach() > 0.0
        return largest(self.scores.detach().abs(), self.count)
