"""Controllers of sparse training: each decides when which weights of a model are in use."""

from cl_powerprop.sparsity.controllers.base import Controller
from cl_powerprop.sparsity.controllers.dynamic import RigL, SparseEvolutionaryTraining, StaticRandom
from cl_powerprop.sparsity.controllers.pruning import GradualPruning, IterativePruning, OneShotPruning
from cl_powerprop.sparsity.controllers.top_kast import TopKAST

__all__ = [
    "Controller",
    "GradualPruning",
    "IterativePruning",
    "OneShotPruning",
    "RigL",
    "SparseEvolutionaryTraining",
    "StaticRandom",
    "TopKAST",
]
