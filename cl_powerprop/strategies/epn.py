"""EfficientPackNet: each task finds its own sparsity and reuses earlier weights (Schwarz et al. 2021, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_powerprop.limits import check_epn, check_judging, check_pruning, check_scored_epn
from cl_powerprop.strategies.base import Context, register_strategy
from cl_powerprop.strategies.masking import MaskingConfig, MaskingStrategy

if TYPE_CHECKING:
    from cl_powerprop.plugins import EPNPlugin


@dataclass(kw_only=True)
class EPNConfig(MaskingConfig):
    """`strategy=epn`: the arguments of :class:`EPNPlugin`."""

    gamma: float
    sparsities: list[float] | None
    search: str
    scope: str
    criterion: str
    train_through: str
    judge: str = "accuracy"
    slack: float = 0.0
    rounds: int = 1
    max_new: float = 1.0
    reuse_bonus: float = 1.0
    score_density: float = 0.3
    score_lr: float = 100.0

    def check(self, epochs: int) -> None:
        super().check(epochs)
        sparsities = (0.0,) if self.sparsities is None else self.sparsities
        check_epn(self.gamma, sparsities, self.search, self.scope, self.criterion, self.train_through)
        check_scored_epn(self.criterion, self.scope, self.train_through, self.score_density, self.score_lr)
        check_judging(self.judge, self.slack)
        check_pruning(self.rounds, self.retraining, self.max_new, self.reuse_bonus)


@register_strategy("epn", EPNConfig)
class EPN(MaskingStrategy):
    """:class:`EPNPlugin`, which chooses masks on the run's validation samples."""

    config: EPNConfig

    def make_plugin(self, context: Context, **shared: Any) -> EPNPlugin:
        from cl_powerprop.plugins import EPNPlugin
        from cl_powerprop.plugins.epn import DEFAULT_SPARSITIES

        config = self.config
        return EPNPlugin(
            gamma=config.gamma,
            sparsities=DEFAULT_SPARSITIES if config.sparsities is None else config.sparsities,
            search=config.search,  # type: ignore[arg-type]
            scope=config.scope,  # type: ignore[arg-type]
            criterion=config.criterion,  # type: ignore[arg-type]
            judge=config.judge,  # type: ignore[arg-type]
            slack=config.slack,
            rounds=config.rounds,
            max_new=config.max_new,
            reuse_bonus=config.reuse_bonus,
            score_density=config.score_density,
            score_lr=config.score_lr,
            train_through=config.train_through,  # type: ignore[arg-type]
            validation=context.validation,
            **shared,
        )
