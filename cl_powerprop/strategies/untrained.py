"""The network as it is drawn, never trained: what guessing reaches, and the ``b_j`` of forward transfer."""

from collections.abc import Sequence
from typing import Any

from cl_powerprop.strategies.base import Strategy, StrategyConfig, register_strategy


@register_strategy("untrained", StrategyConfig)
class Untrained(Strategy):
    """Trains nothing, and is tested once."""

    tests_unseen = False
    resumable = resumable_within_tasks = resumable_anywhere = True

    def curriculum(self, stream: Sequence[Any], n_tasks: int) -> list[tuple[int, Any]]:
        return [(n_tasks - 1, None)]
