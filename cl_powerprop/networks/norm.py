"""Normalisation layers by name, for feature maps."""

from torch import nn

from cl_powerprop.limits import norm_groups


def make_norm(name: str, channels: int, affine: bool) -> nn.Module:
    """Return a normalisation layer for ``[n, channels, height, width]``.

    Args:
        name: one of :data:`~cl_powerprop.limits.NORMS`. "layer" normalises all values of a sample together, "group" in
            up to 8 groups of channels.
        channels: number of channels of the feature map.
        affine: whether it has a learned scale and shift per channel.

    Raises:
        ConfigurationError: for an unknown name, or channels that do not divide into groups.
    """
    groups = norm_groups(name, channels)
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm2d(channels, affine=affine)
    return nn.GroupNorm(groups, channels, affine=affine)
