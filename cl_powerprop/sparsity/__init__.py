"""Powerpropagation and per-task masks for any torch model. Pure torch: nothing here depends on Avalanche."""

from cl_powerprop.sparsity.allocator import LayerCapacity, MaskAllocator
from cl_powerprop.sparsity.controllers import (
    Controller,
    GradualPruning,
    IterativePruning,
    OneShotPruning,
    RigL,
    SparseEvolutionaryTraining,
    StaticRandom,
    TopKAST,
)
from cl_powerprop.sparsity.distributions import Distribution, ErdosRenyiKernel, Global, Uniform
from cl_powerprop.sparsity.maskable import maskable_weights, powerpropagate
from cl_powerprop.sparsity.masked_weight import MaskedWeight
from cl_powerprop.sparsity.scores import Gradient, Magnitude, Random, Saliency, Score
from cl_powerprop.sparsity.sparse_weight import LayerDensity
from cl_powerprop.sparsity.task_aware import TaskAware, select_task
from cl_powerprop.sparsity.theta_space import ThetaSpaceStep, is_adaptive
from cl_powerprop.sparsity.topk import rank, rank_global, top_share

__all__ = [
    "Controller",
    "Distribution",
    "ErdosRenyiKernel",
    "Global",
    "Gradient",
    "GradualPruning",
    "IterativePruning",
    "LayerCapacity",
    "LayerDensity",
    "Magnitude",
    "MaskAllocator",
    "MaskedWeight",
    "OneShotPruning",
    "Random",
    "RigL",
    "Saliency",
    "Score",
    "SparseEvolutionaryTraining",
    "StaticRandom",
    "TaskAware",
    "ThetaSpaceStep",
    "TopKAST",
    "Uniform",
    "is_adaptive",
    "maskable_weights",
    "powerpropagate",
    "rank",
    "rank_global",
    "select_task",
    "top_share",
]
