"""How many cases there are of each kind: 500 in all, always the same ones; `make fuzz` draws 10,000 others."""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

VARIABLE = "CL_POWERPROP_FUZZ"  # how many cases there are in all
_USUAL = 500
SHARES = {  # of all cases; those that take longer are fewer
    **{"run folders": 0.2, "reports": 0.006, "configs": 0.12, "config folders": 0.024, "checkpoints": 0.12},
    **{"models": 0.16, "exported": 0.1, "data": 0.15, "answers": 0.07, "downloads": 0.05},
}


def cases(kind: str, /, **strategies: Any) -> Callable[[Any], Any]:
    """Return the decorator of a test that is called once for each case of a kind."""
    wanted = os.environ.get(VARIABLE)
    chosen = settings(
        max_examples=max(1, round(SHARES[kind] * int(wanted or _USUAL))),
        derandomize=wanted is None,
        database=None,
        deadline=None,
        print_blob=True,
        phases=[
            phase for phase in Phase if phase is not Phase.explain
        ],  # which traces every line, and takes ten times as long
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: chosen(given(**strategies)(test))
