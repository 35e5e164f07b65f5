"""One file a method: each a plugin for any Avalanche strategy of the `SupervisedTemplate` family."""

from cl_powerprop.strategies.epn import EPNPlugin
from cl_powerprop.strategies.naive import NaivePlugin
from cl_powerprop.strategies.packnet import PackNetPlugin

__all__ = ["EPNPlugin", "NaivePlugin", "PackNetPlugin"]
