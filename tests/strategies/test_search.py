"""The searches for a sparsity against brute force: where accuracy falls as sparsity rises, and where it does not."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cl_powerprop.limits import SEARCHES
from cl_powerprop.plugins.search import SEARCH_BY_NAME

MONOTONE = st.tuples(st.integers(0, 50), st.integers(0, 50)).map(
    lambda counts: [False] * counts[0] + [True] * counts[1]
)
ANY = st.lists(st.booleans(), min_size=1, max_size=60)
LAST = st.none() | st.integers(0, 10**6)


class Masks:
    """Masks of which is known whether each holds; keeps the indices that are measured."""

    def __init__(self, outcomes: list[bool]) -> None:
        self.outcomes = outcomes
        self.measured: list[int] = []

    def __call__(self, index: int) -> bool:
        assert 0 <= index < len(self.outcomes)
        assert index not in self.measured, "no mask is measured twice"
        self.measured.append(index)
        return self.outcomes[index]


def search(name: str, outcomes: list[bool], last: int | None) -> tuple[int | None, list[int]]:
    masks = Masks(outcomes)
    index = SEARCH_BY_NAME[name](len(outcomes), masks, None if last is None else last % len(outcomes))
    assert index is None or index in masks.measured, "what is taken was measured"
    return index, masks.measured


@given(MONOTONE.filter(len), LAST)
@pytest.mark.parametrize("name", SEARCH_BY_NAME)
def test_all_find_the_sparsest_where_accuracy_is_monotone(name: str, outcomes: list[bool], last: int | None) -> None:
    index, _ = search(name, outcomes, last)
    assert index == (outcomes.index(True) if any(outcomes) else None)


@given(ANY, LAST)
def test_grid_takes_the_sparsest_that_holds(outcomes: list[bool], last: int | None) -> None:
    index, measured = search("grid", outcomes, last)
    assert index == (outcomes.index(True) if any(outcomes) else None)
    assert measured == list(range(len(outcomes) if index is None else index + 1))


@given(ANY, LAST)
def test_raise_stops_at_the_first_that_fails(outcomes: list[bool], last: int | None) -> None:
    """As algorithm 1 in the paper has it: one sparsity after the other, from the lowest."""
    taken, measured = None, []
    for index in range(len(outcomes) - 1, -1, -1):
        measured.append(index)
        if not outcomes[index]:
            break
        taken = index
    assert search("raise", outcomes, last) == (taken, measured)


@given(ANY, LAST)
@example([True, False, True, False], 0)
@pytest.mark.parametrize("name", ["bisect", "gallop"])
def test_bisect_and_gallop_take_one_whose_next_sparser_one_fails(
    name: str, outcomes: list[bool], last: int | None
) -> None:
    index, measured = search(name, outcomes, last)
    if index is None:
        assert not outcomes[-1]
    else:
        assert outcomes[index]
        assert index == 0 or not outcomes[index - 1]
        assert index == 0 or index - 1 in measured
    if name == "bisect":
        assert len(measured) <= math.floor(math.log2(len(outcomes))) + 1


@given(MONOTONE.filter(len), st.integers(0, 10**6))
def test_gallop_is_quick_near_the_last_sparsity(outcomes: list[bool], last: int) -> None:
    index, measured = search("gallop", outcomes, last)
    distance = abs((len(outcomes) if index is None else index) - last % len(outcomes))
    assert len(measured) <= 2 * math.log2(distance + 1) + 2


def test_where_they_differ() -> None:
    """Sparsest first: two sparse masks hold by chance, denser ones do not."""
    outcomes = [False, True, True, False, False, True, True, True, False, True, True, True]
    taken = {name: search(name, outcomes, 7)[0] for name in SEARCH_BY_NAME}
    assert taken == {"grid": 1, "raise": 9, "bisect": 5, "gallop": 5}
    assert search("gallop", outcomes, 1)[0] == 1
    assert search("gallop", outcomes, None)[0] == 5


def test_the_choices_are_those_that_a_config_knows() -> None:
    assert tuple(SEARCH_BY_NAME) == SEARCHES
