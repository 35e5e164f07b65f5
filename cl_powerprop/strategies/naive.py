"""Fine-tuning: learn one task after the other and do nothing against forgetting. The lower baseline."""

from cl_powerprop.strategies.base import Strategy, StrategyConfig, register_strategy


@register_strategy("naive", StrategyConfig)
class Naive(Strategy):
    """The loop as it is."""

    resumable = resumable_within_tasks = resumable_anywhere = True
    takes_sparsity = True
    # All weights go on changing in every task; with a shared head they would grow until they diverge.
    clip_norm = 1.0
