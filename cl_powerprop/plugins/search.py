"""Ways to search a grid of sparsities, the sparsest first, for the one that a task takes.

Where accuracy falls as sparsity rises, all of them find the sparsest that holds the target; they differ in what they
find where it does not, and in how many sparsities they measure (docs/methods.md).
"""

from collections.abc import Callable

Holds = Callable[[int], bool]
"""Whether the mask at an index of the grid reaches the target accuracy; the mask is measured at each call."""

SearchFunction = Callable[[int, Holds, int | None], int | None]
"""``(size of the grid, holds, index that the last task took, if any) -> index``; None if no sparsity was found."""


def grid(size: int, holds: Holds, last: int | None) -> int | None:
    """Return the sparsest that holds: measure from the sparsest down, and stop at the first that holds."""
    return next((index for index in range(size) if holds(index)), None)


def rise(size: int, holds: Holds, last: int | None) -> int | None:
    """Return the last that holds before one fails: raise the sparsity from the lowest, and stop at the first failure.

    This is the search of algorithm 1 in Schwarz et al. 2021.
    """
    failed = next((index for index in reversed(range(size)) if not holds(index)), -1)
    return failed + 1 if failed + 1 < size else None


def bisect(size: int, holds: Holds, last: int | None) -> int | None:
    """Return one that holds whose next sparser one fails: halve the grid. None only if the lowest sparsity fails."""
    return _halve(0, size, size, holds)


def gallop(size: int, holds: Holds, last: int | None) -> int | None:
    """Return what :func:`bisect` describes, near the sparsity of the last task: few measurements if tasks are alike.

    From there, go in steps that double until the outcome changes, then halve the last step. Without a last task,
    bisect.
    """
    if last is None:
        return bisect(size, holds, last)
    held = holds(last)
    near, end = last, 0 if held else size - 1  # `near` has the outcome of `last`, `far` the other one
    far, step = (-1, -1) if held else (size, 1)
    while near != end:
        index = min(max(near + step, 0), size - 1)
        if holds(index) != held:
            far = index
            break
        near, step = index, 2 * step
    return _halve(far + 1, near, size, holds) if held else _halve(near + 1, far, size, holds)


def _halve(low: int, high: int, size: int, holds: Holds) -> int | None:
    """Return the boundary between ``low - 1``, which fails, and ``high``, which holds; either may be off the grid."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return high if high < size else None


SEARCH_BY_NAME: dict[str, SearchFunction] = {"grid": grid, "raise": rise, "bisect": bisect, "gallop": gallop}
"""The choices of ``strategy.search``."""
