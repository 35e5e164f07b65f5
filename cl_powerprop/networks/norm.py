"""Normalisation layers by name, for feature maps."""

from torch import nn

from cl_powerprop.errors import ConfigurationError

NORMS = ("none", "batch", "group", "layer")
_GROUPS = 8


def make_norm(name: str, channels: int, affine: bool) -> nn.Module:
    """Return a normalisation layer for ``[n, channels, height, width]``.

    Args:
        name: one of :data:`NORMS`. "layer" normalises all values of a sample together, "group" in up to 8 groups of
            channels.
        channels: number of channels of the feature map.
        affine: whether it has a learned scale and shift per channel.

    Raises:
        ConfigurationError: for an unknown name, or channels that do not divide into groups.
    """
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm2d(channels, affine=affine)
    if name not in NORMS:
        raise ConfigurationError(f"model.norm must be one of {', '.join(NORMS)}, not {name!r}")
    groups = 1 if name == "layer" else min(_GROUPS, channels)
    if channels % groups:
        raise ConfigurationError(f"model.norm=group: {channels} channels do not divide into {groups} groups")
    return nn.GroupNorm(groups, channels, affine=affine)
