"""A weight as the product of two trained factors, ``theta = phi * factor``: Powerpropagation's neighbour.

Ziyin & Wang, "spred: Solving L1 Penalty with SGD", ICML 2023, arXiv:2210.01212: weight decay on both factors is an L1
penalty on ``theta``, since ``(phi^2 + factor^2) / 2 >= |theta|``. Jacobs & Burkholz, "Mask in the Mirror: Implicit
Sparsification" (PILoT), ICLR 2025, arXiv:2408.09966: gradient flow keeps ``factor^2 - phi^2``, and decay shrinks it.
Where it is 0, the product is Powerpropagation with alpha 2, which confines a weight to its sign. PILoT starts it at a
constant, for which we take 1, so that a weight can change its sign until decay has made the balance small.
"""

import torch
from torch import Tensor, nn

from cl_powerprop.sparsity.masked_weight import Initializer, MaskedWeight, torch_default_init

BALANCE = 1.0  # factor^2 - phi^2 of a new weight


def _factor(theta: Tensor) -> Tensor:
    """Return the second factor of new weights; it is above 0, so that ``phi`` has the sign of ``theta``."""
    return ((BALANCE + torch.hypot(2 * theta, torch.full_like(theta, BALANCE))) / 2).sqrt()


class ProductWeight(MaskedWeight):
    """Maps ``phi`` to ``phi * factor`` under a mask; both are trained.

    Attributes:
        factor: the second factor, shaped like ``phi``.
    """

    def __init__(
        self,
        shape: torch.Size,
        alpha: float = 2.0,
        init_scale: float = 1.0,
        initializer: Initializer = torch_default_init,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(shape, alpha, init_scale, initializer, device)
        self.factor = nn.Parameter(torch.ones(shape, device=device))

    def forward(self, phi: Tensor) -> Tensor:
        return self._in_use(phi * self.factor, 1.0)

    @torch.no_grad()
    def right_inverse(self, theta: Tensor) -> Tensor:
        self.factor.copy_(_factor(theta))
        return theta / self.factor

    def theta(self, phi: Tensor) -> Tensor:
        return phi.detach() * self.factor.detach()

    def place(self, phi: Tensor, where: Tensor, theta: Tensor) -> None:
        factor = _factor(theta)
        phi.copy_(torch.where(where, theta / factor, phi))
        self.factor.data.copy_(torch.where(where, factor, self.factor.detach()))

    def stack_key(self) -> None:
        """Networks of products are not computed at once."""
        return None

    @property
    def factors(self) -> tuple[nn.Parameter, ...]:
        return (self.factor,)
