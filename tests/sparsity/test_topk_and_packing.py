"""Selection and storage of masks against Python's own sorting and counting."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_powerprop.sparsity import rank, rank_global, top_share
from cl_powerprop.sparsity.bits import held, overwrite_
from cl_powerprop.sparsity.packing import pack, packed_size, unpack

# Few values, so that most scores tie.
tied_scores = st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=60)
shapes = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def places(scores: list[float]) -> list[int]:
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    return [order.index(index) for index in range(len(scores))]


@settings(max_examples=100, deadline=None)
@given(tied_scores)
def test_rank(scores: list[float]) -> None:
    assert rank(torch.tensor(scores)).tolist() == places(scores)


@settings(max_examples=100, deadline=None)
@given(tied_scores, st.floats(0.0, 1.0))
def test_top_share_has_exactly_its_size(scores: list[float], share: float) -> None:
    mask = top_share(torch.tensor(scores), share)
    size = round(share * len(scores))
    assert mask.dtype == torch.bool
    assert int(mask.sum()) == size
    assert mask.tolist() == [place < size for place in places(scores)]


@settings(max_examples=60, deadline=None)
@given(shapes)
def test_rank_keeps_the_shape(shape: list[int]) -> None:
    score = torch.randint(3, shape).float()
    ranked = rank(score)
    assert ranked.shape == score.shape
    assert ranked.flatten().tolist() == places(score.flatten().tolist())


@settings(max_examples=60, deadline=None)
@given(st.lists(tied_scores, min_size=1, max_size=4))
def test_rank_global(layers: list[list[float]]) -> None:
    ranked = rank_global({str(index): torch.tensor(scores) for index, scores in enumerate(layers)})
    assert list(ranked) == [str(index) for index in range(len(layers))]
    joined = [place for part in ranked.values() for place in part.tolist()]
    assert joined == places([score for scores in layers for score in scores])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_all_equal_scores(share: float) -> None:
    assert int(top_share(torch.zeros(7, 11), share).sum()) == round(share * 77)


@settings(max_examples=100, deadline=None)
@given(shapes, st.floats(0.0, 1.0), st.integers(0, 2**31))
def test_packing_round_trip_at_one_bit_a_weight(shape: list[int], density: float, seed: int) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density
    packed = pack(mask)
    assert packed.dtype == torch.uint8
    assert packed.shape == (-(-mask.numel() // 8),) == (packed_size(mask.numel()),)
    assert sum(bin(byte).count("1") for byte in packed.tolist()) == int(mask.sum())  # nothing in the padding
    unpacked = unpack(packed, mask.shape)
    assert unpacked.dtype == torch.bool
    assert torch.equal(unpacked, mask)


def test_packing_a_strided_mask() -> None:
    mask = (torch.rand(6, 10) < 0.5).t()[::2]
    assert torch.equal(unpack(pack(mask), mask.shape), mask)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_values_are_restored_to_the_bit_by_bits_and_by_booleans(dtype: torch.dtype) -> None:
    integer = {torch.float64: torch.int64, torch.float32: torch.int32, torch.bfloat16: torch.int16}[dtype]
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 1e-40], dtype=dtype)
    values = torch.cat([torch.randn(94, dtype=dtype), special]).reshape(10, 10)
    mask = torch.rand(10, 10) < 0.5
    now = torch.randn(10, 10, dtype=dtype)
    now[0, :6] = special
    expected = torch.where(mask, values.view(integer), now.view(integer))
    by_booleans = (~mask, values.masked_fill(~mask, 0.0))  # as on a GPU
    for kept, replacement in (held(values, mask), by_booleans):
        restored = now.clone()
        assert overwrite_(restored, kept, replacement) is restored
        assert torch.equal(restored.view(integer), expected)
