"""Residual blocks.

That of ResNet-18: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, figure 2. That of wide residual
networks: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, figure 1.
"""

from typing import Any

from torch import Tensor, nn

from cl_powerprop.networks.norm import make_norm


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: the input, or a 1 x 1 convolution of it where the shape changes.

    Args:
        inputs, outputs: number of channels before and after the block.
        stride: stride of the first convolution (and of the shortcut's).
        norm: see :func:`make_norm`.
        bias: whether norms are affine; without norms, whether convolutions have biases.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, bias: bool) -> None:
        super().__init__()

        def convolution(channels: int, size: int, step: int) -> list[nn.Module]:
            padding, own_bias = size // 2, bias and norm == "none"
            return [
                nn.Conv2d(channels, outputs, size, step, padding, bias=own_bias),
                make_norm(norm, outputs, affine=bias),
            ]

        self.body = nn.Sequential(*convolution(inputs, 3, stride), nn.ReLU(), *convolution(outputs, 3, 1))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*convolution(inputs, 1, stride))
        self.register_load_state_dict_pre_hook(_rename_shortcut)

    def forward(self, maps: Tensor) -> Tensor:
        return (self.body(maps) + self.shortcut(maps)).relu()  # type: ignore[no-any-return]


def _rename_shortcut(_: nn.Module, state: dict[str, Any], prefix: str, *unused: object) -> None:
    """Accept a state dict that was saved when the shortcut was called ``around``."""
    for key in [key for key in state if key.startswith(f"{prefix}around.")]:
        state[f"{prefix}shortcut.{key.removeprefix(prefix + 'around.')}"] = state.pop(key)


class PreactivationBlock(nn.Module):
    """Two 3 x 3 convolutions, each after a norm and ReLU, and a shortcut.

    The shortcut is the input or, where the shape changes, a 1 x 1 convolution of the input after its norm and ReLU.

    Args:
        inputs, outputs, stride, norm, bias: see :class:`ResidualBlock`.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, bias: bool) -> None:
        super().__init__()
        own_bias = bias and norm == "none"
        self.activation = nn.Sequential(make_norm(norm, inputs, affine=bias), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=own_bias),
            make_norm(norm, outputs, affine=bias),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=own_bias),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=own_bias)

    def forward(self, maps: Tensor) -> Tensor:
        active = self.activation(maps)
        around = maps if self.shortcut is None else self.shortcut(active)
        return self.body(active) + around  # type: ignore[no-any-return]
