"""The residual block of ResNet-18: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, figure 2."""

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
