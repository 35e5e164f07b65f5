"""cl-powerprop: continual-learning benchmarks with Powerpropagation, PackNet and EfficientPackNet on Avalanche.

The public names are imported when they are first used: `import cl_powerprop` alone costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("cl-powerprop")

_HOMES = {
    "EPNPlugin": "cl_powerprop.strategies",
    "FastSupervisedTemplate": "cl_powerprop.training.fast",
    "MaskAllocator": "cl_powerprop.sparsity",
    "NaivePlugin": "cl_powerprop.strategies",
    "PackNetPlugin": "cl_powerprop.strategies",
    "ThetaSpaceStep": "cl_powerprop.sparsity",
    "in_memory": "cl_powerprop.training.benchmark",
    "load": "cl_powerprop.saving",
    "powerpropagate": "cl_powerprop.sparsity",
    "select_task": "cl_powerprop.sparsity",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
