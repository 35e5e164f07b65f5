"""What options can be, asked by a config before anything is loaded, and by what it makes. Imports no torch."""

import math
import os
import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from cl_powerprop.errors import ConfigurationError, at_least, check_choice

SCHEDULES = ("constant", "cosine")
PRECISIONS = ("fp32", "bf16")
CUDA_GRAPHS = ("auto", "true", "false")
NORMS = ("none", "batch", "group", "layer")
SEARCHES = ("grid", "raise", "bisect", "gallop")
SCOPES = ("layer", "global")
CRITERIA = ("magnitude", "saliency", "both", "scores")
REUSES = ("all", "chosen", "none")
JUDGES = ("accuracy", "loss")
TRAIN_THROUGH = ("all", "free", "scored")
FIXED_WEIGHTS = ("signed_constant", "kaiming_normal")
INITS = ("default", "truncated_normal")
DISTRIBUTIONS = ("uniform", "erk", "global")
SHARES_OF = ("masked", "all")
DECAYS = ("cosine", "constant", "linear")
SCORES = ("magnitude", "random", "gradient", "saliency")
GRADIENT_SCORES = ("gradient", "saliency")
GROW_SCORES = ("random", "gradient")
REPARAMS = ("powerprop", "product")

MOST_TASKS = 10_000  # of a sequence: an accuracy matrix has the square of it
MOST_LAYERS = 1000  # that an option can list

_LARGEST_ALPHA = 100.0
_NORM_GROUPS = 8
_LARGEST_SEED = 10**18
_LARGEST = 1e18
_LARGEST_WHOLE = 10**15  # products with the number of batches fit into 64 bits
_THREADS = 256  # that are allowed on any machine, so that a config of a larger one can be repeated
_THREADS_A_CORE = 4
_ROUNDING = 1e-9


def check_device(name: str) -> None:
    """Refuse what names no device; whether there is one of that name is another question.

    Raises:
        ConfigurationError: naming the choices.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", name):
        raise ConfigurationError(f"device={name}: unknown device {name!r}; choose from: auto, cpu, cuda, cuda:N")


def check_numbers(section: str, options: Any) -> None:
    """Refuse numbers that are infinite, no numbers, or larger than any that means something.

    The seed has a bound of its own, and an option may have its default, whatever that is.

    Args:
        section: its name, "" for the options of the run itself.
        options: a dataclass; sections within it are left alone.

    Raises:
        ConfigurationError: naming the option.
    """
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name == "seed" or value == option.default:
            continue
        name = f"{section}.{option.name}".lstrip(".")
        for number in _numbers(value):
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigurationError(f"{name} must be a finite number, not {number}")
            most = _LARGEST_WHOLE if isinstance(number, int) else _LARGEST
            if abs(number) > most:
                shown = number if isinstance(number, float) else reprlib.repr(number)
                raise ConfigurationError(f"{name} must be at most {most:,.0f} either way, not {shown}")


def _numbers(value: Any) -> Iterator[int | float]:
    match value:
        case bool():
            return
        case int() | float():
            yield value
        case list() | tuple():
            for item in value:
                yield from _numbers(item)


def check_seed(seed: int) -> None:
    """Refuse a seed that not every reader of a run folder could hold.

    Raises:
        ConfigurationError: if it is too large.
    """
    if abs(seed) > _LARGEST_SEED:
        raise ConfigurationError(f"seed must be at most {_LARGEST_SEED:,} either way, not {seed}")


def check_alpha(alpha: float) -> float:
    """Return ``alpha`` as a float.

    Raises:
        ConfigurationError: if it is not a finite number of at least 1, or so large that nothing is left of a weight.
    """
    alpha = float(alpha)
    if not math.isfinite(alpha) or alpha < 1.0:
        raise ConfigurationError(f"alpha must be a finite number >= 1, not {alpha}")
    if alpha > _LARGEST_ALPHA:
        raise ConfigurationError(f"alpha must be at most {_LARGEST_ALPHA:g}, not {alpha:g}")
    return alpha


def check_reparam(reparam: str, alpha: float) -> None:
    """Refuse a reparameterisation that does not exist, or a product of other than two factors.

    Raises:
        ConfigurationError: naming the choices or the fix.
    """
    check_choice("model.reparam", reparam, REPARAMS)
    if reparam == "product" and alpha != 2.0:
        raise ConfigurationError(f"a product has two factors: model.reparam=product needs model.alpha=2, not {alpha:g}")


def check_power(power: float | None, alpha: float) -> None:
    """Refuse an exponent of the step's scale that is not from 0 to alpha - 1; None is Powerpropagation's.

    Raises:
        ConfigurationError: if it is not.
    """
    if power is not None and not 0.0 <= power <= alpha - 1.0:
        raise ConfigurationError(f"optimizer.power must be from 0 to model.alpha - 1 = {alpha - 1:g}, not {power}")


def check_init_scale(init_scale: float) -> None:
    """Refuse a factor of the initial weights that is not finite and above 0.

    Raises:
        ConfigurationError: if it is not.
    """
    if not math.isfinite(init_scale) or init_scale <= 0:
        raise ConfigurationError(f"init_scale must be a finite number > 0, not {init_scale}")


def check_sparsity(option: str, sparsity: float) -> None:
    """Refuse a sparsity that leaves nothing, or is none.

    Raises:
        ConfigurationError: if it is not in [0, 1).
    """
    try:
        is_possible = 0.0 <= sparsity < 1.0
    except TypeError:
        raise ConfigurationError(f"{option} must be a number in [0, 1), not {sparsity!r}") from None
    if not is_possible:
        raise ConfigurationError(f"{option} must be in [0, 1), not {sparsity:g}: it is the share that is not used")


def check_share(option: str, share: float) -> None:
    """Refuse what is no share.

    Raises:
        ConfigurationError: if it is not in [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise ConfigurationError(f"{option} must be in [0, 1], not {share:g}")


def check_drop_fraction(option: str, drop_fraction: float) -> None:
    """Refuse a share of the weights in use that cannot be exchanged.

    Raises:
        ConfigurationError: if it is not in (0, 1).
    """
    if not 0.0 < drop_fraction < 1.0:
        raise ConfigurationError(f"{option} must be in (0, 1), not {drop_fraction:g}")


def check_hidden(hidden: Sequence[int]) -> None:
    """Refuse hidden layers as :func:`check_widths` does."""
    check_widths("model.hidden", hidden)


def check_widths(option: str, widths: Sequence[int]) -> None:
    """Refuse a layer without units or channels, and more layers than anybody trains.

    Raises:
        ConfigurationError: for a width below 1, or too many of them.
    """
    if len(widths) > MOST_LAYERS:
        raise ConfigurationError(f"{option} can list {MOST_LAYERS:,} layers at most, not {len(widths):,}")
    if any(not isinstance(width, int) or width < 1 for width in widths):
        raise ConfigurationError(f"{option} needs widths of at least 1, not {list(widths)}")


def check_width(width: int) -> None:
    """Refuse a network without channels.

    Raises:
        ConfigurationError: for a width below 1.
    """
    if width < 1:
        raise ConfigurationError(f"model.width must be at least 1, not {width}")


def norm_groups(name: str, channels: int) -> int:
    """Return in how many groups of channels a norm divides a feature map.

    Args:
        name: one of :data:`NORMS`.
        channels: of the feature map.

    Raises:
        ConfigurationError: for an unknown name, or channels that do not divide into groups.
    """
    check_choice("model.norm", name, NORMS)
    groups = min(_NORM_GROUPS, channels) if name == "group" else 1
    if channels % groups:
        raise ConfigurationError(f"model.norm=group: {channels} channels do not divide into {groups} groups")
    return groups


def check_threads(option: str, threads: int, least: int = 1) -> None:
    """Refuse a number of threads or processes that no machine is helped by: torch crashes at a million.

    Raises:
        ConfigurationError: naming the option and how many there may be.
    """
    most = max(_THREADS, _THREADS_A_CORE * (os.cpu_count() or 1))
    if threads < least:
        raise ConfigurationError(f"{option} must be at least {least}, not {threads}")
    if threads > most:
        raise ConfigurationError(
            f"{option} must be at most {most} here, not {threads}: there are {os.cpu_count()} cores"
        )


def check_schedule(schedule: str, warmup: float) -> None:
    """Refuse an unknown learning-rate schedule, or a warm-up that takes a whole phase.

    Raises:
        ConfigurationError: naming the option and what it can be.
    """
    check_choice("train.schedule", schedule, SCHEDULES)
    if not 0.0 <= warmup < 1.0:
        raise ConfigurationError(f"train.warmup must be in [0, 1), not {warmup}")


def check_clip_norm(clip_norm: float) -> None:
    """Refuse a norm to which every gradient would be clipped away.

    Raises:
        ConfigurationError: if it is not above 0.
    """
    if not clip_norm > 0:
        raise ConfigurationError(f"train.clip_norm must be > 0, not {clip_norm}")


def check_augmentation(shift: float, rotate: float, crop: float) -> None:
    """Refuse a largest shift or rotation that is negative or not finite, and a crop without area.

    Raises:
        ConfigurationError: naming the option.
    """
    for option, value in (("shift", shift), ("rotate", rotate)):
        if not 0 <= value < math.inf:
            raise ConfigurationError(f"train.{option} must be a finite number of at least 0, not {value}")
    if not 0.0 < crop <= 1.0:
        raise ConfigurationError(f"train.crop must be in (0, 1], not {crop}; 1 is for no crops")


def check_label_smoothing(share: float) -> None:
    """Refuse to give less than nothing, or all, of a label to the other classes.

    Raises:
        ConfigurationError: for a share outside [0, 1).
    """
    if not 0.0 <= share < 1.0:
        raise ConfigurationError(f"train.label_smoothing must be in [0, 1), not {share}")


def check_epn(
    gamma: float, sparsities: Sequence[float], search: str, scope: str, criterion: str, train_through: str
) -> None:
    """Refuse what EfficientPackNet cannot do.

    Raises:
        ConfigurationError: naming the option and what it can be.
    """
    if not 0.0 < gamma <= 1.0:
        raise ConfigurationError(f"strategy.gamma must be in (0, 1], not {gamma}")
    if not sparsities or any(not 0.0 <= sparsity < 1.0 for sparsity in sparsities):
        raise ConfigurationError(f"strategy.sparsities must be numbers in [0, 1), not {list(sparsities)}")
    check_choice("strategy.search", search, SEARCHES)
    check_choice("strategy.scope", scope, SCOPES)
    check_choice("strategy.criterion", criterion, CRITERIA)
    check_choice("strategy.train_through", train_through, TRAIN_THROUGH)


def check_scored_epn(criterion: str, scope: str, train_through: str, density: float, lr: float) -> None:
    """Refuse what EfficientPackNet cannot combine with learned scores.

    Raises:
        ConfigurationError: naming the option and what it can be.
    """
    if not 0.0 < density <= 1.0:
        raise ConfigurationError(f"strategy.score_density must be in (0, 1], not {density}")
    at_least("strategy.score_lr", lr, 0)
    if criterion == "scores" and (scope, train_through) != ("layer", "all"):
        raise ConfigurationError(
            "strategy.criterion=scores ranks within layers, frozen weights included; it needs strategy.scope=layer and "
            "strategy.train_through=all"
        )
    if train_through == "scored" and criterion != "magnitude":
        raise ConfigurationError(
            f"strategy.criterion={criterion} needs the gradients of all frozen weights, and "
            "strategy.train_through=scored hides some; use strategy.criterion=magnitude"
        )


def check_judging(judge: str, slack: float) -> None:
    """Refuse impossible ways to judge EfficientPackNet's masks.

    Raises:
        ConfigurationError: naming the option and what it can be.
    """
    check_choice("strategy.judge", judge, JUDGES)
    if not 0.0 <= slack < math.inf:
        raise ConfigurationError(f"strategy.slack must be at least 0 standard errors, not {slack}")


def check_pruning(rounds: int, retrain_epochs: int, max_new: float, reuse_bonus: float) -> None:
    """Refuse impossible options of what EfficientPackNet's masks keep.

    Raises:
        ConfigurationError: naming the option and what it can be.
    """
    if not 1 <= rounds <= max(1, retrain_epochs):
        raise ConfigurationError(
            f"strategy.rounds must be from 1 to {max(1, retrain_epochs)}, as many as epochs of retraining can follow "
            f"(strategy.retrain_epochs), not {rounds}"
        )
    if not 0.0 < max_new <= 1.0:
        raise ConfigurationError(f"strategy.max_new must be a share in (0, 1], not {max_new}")
    at_least("strategy.reuse_bonus", reuse_bonus, 0)


def check_scores(density: float, score_lr: float) -> None:
    """Refuse what masks by learned scores cannot be.

    Raises:
        ConfigurationError: naming the option and what it can be.
    """
    if not 0.0 < density <= 1.0:
        raise ConfigurationError(f"strategy.density must be in (0, 1], not {density}")
    at_least("strategy.score_lr", score_lr, 0)


def check_hat(c: float, s_max: float, gate_lr: float) -> None:
    """Refuse impossible options of HAT.

    Raises:
        ConfigurationError: naming the option and what it can be.
    """
    at_least("strategy.c", c, 0)
    if not 1.0 <= s_max < math.inf:
        raise ConfigurationError(f"strategy.s_max must be a finite number of at least 1, not {s_max}")
    at_least("strategy.gate_lr", gate_lr, 0)


def check_shares(shares: Any, reuse: str = "all") -> float | list[float]:
    """Return PackNet's shares of a layer: one number for all tasks, or a list with one for each.

    Raises:
        ConfigurationError: for a share outside (0, 1], or shares that add up to more than the whole layer.
    """
    try:
        checked = shares if isinstance(shares, int | float) else [float(share) for share in shares]
    except (TypeError, ValueError):
        raise ConfigurationError(f"strategy.shares must be a number or a list of numbers, not {shares!r}") from None
    listed = checked if isinstance(checked, list) else [checked]
    if not listed or any(not 0.0 < share <= 1.0 for share in listed):
        raise ConfigurationError(f"strategy.shares must be in (0, 1], not {shares}")
    check_choice("strategy.reuse", reuse, REUSES)
    if reuse != "chosen" and sum(listed) > 1.0 + _ROUNDING:
        raise ConfigurationError(f"strategy.shares add up to {sum(listed):g} of each layer; there is only 1")
    return checked


def check_shares_of_tasks(shares: Any, n_tasks: int, reuse: str = "all") -> None:
    """Refuse shares that are too few for the tasks, or exceed what is left by the last one.

    Args:
        shares: one number for all tasks, or a list.
        n_tasks: number of tasks.
        reuse: see :class:`PackNetPlugin`; with "chosen" nothing can be exceeded.

    Raises:
        ConfigurationError: saying what is possible.
    """
    if isinstance(shares, str | dict):
        raise ConfigurationError(f"strategy.shares must be a number or a list of numbers, not {shares!r}")
    if not isinstance(shares, int | float):
        if len(shares) != n_tasks:
            raise ConfigurationError(f"strategy.shares lists {len(shares)} shares for {n_tasks} tasks")
    elif reuse != "chosen" and shares * n_tasks > 1.0 + _ROUNDING:
        raise ConfigurationError(
            f"strategy.shares={shares:g} of each layer for {n_tasks} tasks exceed what is left after task "
            f"{int((1.0 + _ROUNDING) / shares)}; at most {1.0 / n_tasks:g} each"
        )
