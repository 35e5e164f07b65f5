"""Whether a network has learned anything of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cl_powerprop.training.meters import Measured

# An accuracy counts as having learned nothing if it exceeds guessing by less than a fifth of what that reaches, and by
# less than a tenth of what that misses.
_OF_REACHED, _OF_MISSED = 0.2, 0.1


def only_guesses(learned: Measured, trained: Measured) -> bool:
    """Return whether an accuracy is no better than always answering the most frequent class.

    Args:
        learned: what the network reached after its training.
        trained: what it reached in its last epoch.
    """
    # A test of one class, say, is no guess for a network that was trained on many.
    guess = min(trained.majority, learned.majority)
    if guess == 1.0:  # one class: there is nothing to tell apart
        return False
    margin = min(_OF_REACHED * guess, _OF_MISSED * (1.0 - guess))
    return learned.accuracy < 1.0 and learned.accuracy <= guess + margin
