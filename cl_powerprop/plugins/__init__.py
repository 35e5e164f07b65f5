"""Avalanche plugins that also work in a plain script: masks for each task, heads for each task, task inference."""

from cl_powerprop.plugins.epn import EPNPlugin
from cl_powerprop.plugins.packnet import PackNetPlugin
from cl_powerprop.plugins.task_selection import TaskSelection

__all__ = ["EPNPlugin", "PackNetPlugin", "TaskSelection"]
