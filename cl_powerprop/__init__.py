"""cl-powerprop: continual-learning benchmarks with Powerpropagation, PackNet and EfficientPackNet on Avalanche.

The public names are imported when they are first used: `import cl_powerprop` alone costs nothing.
"""

import warnings
from importlib import import_module
from importlib.metadata import version
from typing import Any

# Avalanche imports a package that warns of a missing solver, which only its GEM needs.
warnings.filterwarnings("ignore", "no QP solver found")

__version__ = version("cl-powerprop")

_NAMES = {
    # A run, and what it leaves.
    "cl_powerprop.experiment": ("Result", "run"),
    "cl_powerprop.seeds_together": ("run_together",),
    "cl_powerprop.learning": ("learn",),
    "cl_powerprop.parts": ("Parts",),
    "cl_powerprop.results.results": ("Results",),
    "cl_powerprop.config": ("RunConfig",),
    "cl_powerprop.composition": ("compose",),
    "cl_powerprop.task_data": ("load_benchmark", "load_task"),
    "cl_powerprop.saving": ("load", "save"),
    "cl_powerprop.exporting.export": ("export",),
    "cl_powerprop.exporting.files": ("load_exported",),
    "cl_powerprop.analysis": ("load_runs",),
    # The doors, and what is registered at them.
    "cl_powerprop.strategies.base": (
        "Context",
        "Strategy",
        "StrategyConfig",
        "Summary",
        "TaskReport",
        "register_strategy",
    ),
    "cl_powerprop.sequences.base": ("SequenceConfig", "register_sequence"),
    "cl_powerprop.source": ("DataSource",),
    "cl_powerprop.tasks": ("Pixels", "Split", "Task", "TaskSequence", "same_images"),
    "cl_powerprop.data.dataset": ("DataConfig", "Dataset", "ImageDataset", "Images", "register_dataset"),
    "cl_powerprop.models.base": ("ModelConfig", "register_model"),
    "cl_powerprop.optimizers.base": ("OptimizerConfig", "register_optimizer"),
    "cl_powerprop.sparse_training.base": ("SparseConfig", "SparsityConfig", "register_sparsity"),
    "cl_powerprop.evaluation.metrics": ("Measurements", "Metric", "register_metric"),
    "cl_powerprop.tracking.stream": ("Row", "RunView", "SinkConfig", "register_sink"),
    # For a plain Avalanche or torch script.
    "cl_powerprop.plugins": (
        "EPNPlugin",
        "HATPlugin",
        "PackNetPlugin",
        "SupSupPlugin",
        "TaskSelection",
        "WSNPlugin",
        "load_learner",
        "save_learner",
    ),
    "cl_powerprop.recording": ("RecordingPlugin",),
    "cl_powerprop.sparsity": (
        "GradualPruning",
        "IterativePruning",
        "MaskAllocator",
        "OneShotPruning",
        "RigL",
        "SparseEvolutionaryTraining",
        "StaticRandom",
        "ThetaSpaceStep",
        "TopKAST",
        "powerpropagate",
        "select_task",
    ),
    "cl_powerprop.training.benchmark": ("in_memory",),
    "cl_powerprop.training.fast": ("FastSupervisedTemplate",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
