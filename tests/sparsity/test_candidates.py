"""The masks that a task can choose from, against references of a few lines."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cl_powerprop.sparsity import MaskAllocator
from cl_powerprop.sparsity.candidates import CandidateMasks

SHAPES = {"0": (6, 8), "1": (4, 6)}


def covered(seed: int, hidden: bool = False) -> MaskAllocator:
    """Two layers of which an earlier task has frozen some weights."""
    allocator = MaskAllocator(nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4)), "frozen")
    draws = torch.Generator().manual_seed(seed)
    allocator.begin_task(draws)
    allocator.propose({name: torch.rand(shape, generator=draws) < 0.3 for name, shape in SHAPES.items()})
    allocator.end_task(0)
    allocator.begin_task(draws)
    if hidden:
        allocator.hide_frozen()
    return allocator


def flat(tensors: Any) -> np.ndarray:
    """All layers' values in one row."""
    return np.concatenate([np.asarray(tensors[name]).ravel() for name in SHAPES])


def frozen_of(allocator: MaskAllocator) -> np.ndarray:
    """Whether each weight is frozen."""
    return flat({name: weight.frozen for name, weight in allocator.weights.items()})


def scores_of(seed: int) -> dict[str, torch.Tensor]:
    """Scores above 0, all different."""
    draws = torch.Generator().manual_seed(seed)
    order = (torch.randperm(72, generator=draws) + 1.0).split([48, 24])
    return {name: values.view(shape) for (name, shape), values in zip(SHAPES.items(), order, strict=True)}


CASES = {
    "scope": st.sampled_from(["layer", "global"]),
    "bonus": st.sampled_from([1.0, 2.5]),
    "max_new": st.sampled_from([1.0, 0.2]),
    "hidden": st.booleans(),
    "seed": st.integers(0, 100),
}


@settings(max_examples=60, deadline=None)
@given(**CASES, sparsity=st.floats(0.0, 0.99))
def test_the_best_weights_are_taken(
    scope: Any, bonus: float, max_new: float, hidden: bool, seed: int, sparsity: float
) -> None:
    allocator = covered(seed, hidden)
    scores = scores_of(seed)
    masks = CandidateMasks(allocator, [scores], scope, bonus, max_new).at(sparsity)
    groups = [list(SHAPES)] if scope == "global" else [[name] for name in SHAPES]
    for names in groups:
        frozen = np.concatenate([allocator.weights[name].frozen.numpy().ravel() for name in names])
        score = np.concatenate([scores[name].numpy().ravel() for name in names])
        score = np.where(frozen, -1.0 if hidden else bonus * score, score)
        size = len(score)
        best = np.argsort(-score, kind="stable")[: round((1 - sparsity) * size)]
        expected = np.isin(np.arange(size), best) & ~(frozen & hidden)
        most = round(max_new * int((~frozen).sum()))
        allowed = sorted(np.flatnonzero(~frozen), key=lambda place: -score[place])[:most]
        expected &= frozen | np.isin(np.arange(size), allowed)
        got = np.concatenate([masks[name].numpy().ravel() for name in names])
        np.testing.assert_array_equal(got, expected)


@settings(max_examples=60, deadline=None)
@given(**CASES, output=st.sampled_from([None, "1"]), both=st.booleans())
def test_a_sparser_mask_is_part_of_a_denser_one(
    scope: Any, bonus: float, max_new: float, hidden: bool, seed: int, output: str | None, both: bool
) -> None:
    criteria = [scores_of(seed), scores_of(seed + 1)] if both else [scores_of(seed)]
    candidates = CandidateMasks(covered(seed, hidden), criteria, scope, bonus, max_new, output)
    masks = [flat(candidates.at(sparsity)) for sparsity in (0.0, 0.3, 0.6, 0.9, 0.99)]
    for denser, sparser in itertools.pairwise(masks):
        assert not (sparser & ~denser).any()


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_output_layer_has_half_the_sparsity(scope: Any) -> None:
    masks = CandidateMasks(covered(0), [scores_of(0)], scope, output_layer="1").at(0.5)
    assert int(masks["1"].sum()) == 18


def test_two_criteria_rank_by_the_sum_of_their_ranks() -> None:
    first, second = scores_of(1), scores_of(2)
    masks = CandidateMasks(covered(0), [first, second], "layer").at(0.5)
    for name in SHAPES:
        ranks = [(-each[name].numpy().ravel()).argsort().argsort() for each in (first, second)]
        best = np.argsort(ranks[0] + ranks[1], kind="stable")[: masks[name].numel() // 2]
        np.testing.assert_array_equal(np.flatnonzero(masks[name].numpy()), np.sort(best))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_limit_counts_free_weights_only(scope: Any) -> None:
    allocator = covered(3)
    mask = flat(CandidateMasks(allocator, [scores_of(3)], scope, max_new=0.25).at(0.0))
    frozen = frozen_of(allocator)
    assert mask[frozen].all()
    assert (mask & ~frozen).sum() == pytest.approx(0.25 * (~frozen).sum(), abs=1)
