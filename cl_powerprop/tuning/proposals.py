"""Which values a trial may have next: what Optuna's sampler proposes, and any combination of finitely many."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cl_powerprop.seeding import derive_seed
from cl_powerprop.tuning.space import Space

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy

    from cl_powerprop.tuning.ranges import Value

RANDOM_TRIALS = 10  # before the sampler looks at what the ones before have reached

_MOST_SEEDS = 2**32  # numpy's


def proposals(
    study: OptunaStudy, distributions: Mapping[str, Any], seed: int, count: int
) -> Iterator[dict[str, Value]]:
    """Yield values, as the TPE sampler proposes them; nothing is written to the study.

    Args:
        study: with the trials that the sampler is to learn from.
        distributions: of the values.
        seed: of the study.
        count: how many trials there are; a study that was killed and went on proposes the same.
    """
    import optuna

    known = study.get_trials(deepcopy=False)
    draft = optuna.create_study(storage=optuna.storages.InMemoryStorage(), directions=study.directions)
    draft.add_trials(known)
    for attempt in itertools.count():
        draft.sampler = optuna.samplers.TPESampler(
            seed=derive_seed(seed, "tune", count, attempt) % _MOST_SEEDS,
            n_startup_trials=RANDOM_TRIALS,
            constant_liar=True,  # keeps away from trials that are running, and from what was proposed before
        )
        yield draft.ask(dict(distributions)).params


def combinations(space: Space, seed: int, count: int) -> Iterator[dict[str, Value]]:
    """Yield all combinations of finitely many values, from a random one on, neighbours far from each other.

    Args:
        space: of the values.
        seed: of the study.
        count: how many trials there are.
    """
    size = int(space.size)
    index = derive_seed(seed, "untried", count) % size
    # All are met if the step has no divisor with their number in common.
    step = next(each for each in itertools.count(max(1, round(0.618 * size))) if math.gcd(each, size) == 1)
    for _ in range(size):
        yield space.combination(index)
        index = (index + step) % size
