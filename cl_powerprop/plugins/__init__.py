"""Avalanche plugins, which also work in a plain Avalanche script: per-task masks, per-task heads, task inference."""

from cl_powerprop.plugins.epn import EPNPlugin
from cl_powerprop.plugins.hat import HATPlugin
from cl_powerprop.plugins.learner_file import load_learner, save_learner
from cl_powerprop.plugins.packnet import PackNetPlugin
from cl_powerprop.plugins.supsup import SupSupPlugin
from cl_powerprop.plugins.task_selection import TaskSelection
from cl_powerprop.plugins.wsn import WSNPlugin

__all__ = [
    "EPNPlugin",
    "HATPlugin",
    "PackNetPlugin",
    "SupSupPlugin",
    "TaskSelection",
    "WSNPlugin",
    "load_learner",
    "save_learner",
]
