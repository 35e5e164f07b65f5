"""Compressed masks: what they take against their entropy, the same masks back, and damaged streams."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cl_powerprop.sparsity import mask_coding
from cl_powerprop.sparsity.mask_coding import decode_masks, encode_masks
from cl_powerprop.sparsity.packing import pack, packed_size

SHAPES = [(100, 784), (64, 32, 3, 3), (5, 3, 7), (1000,), (1, 1), (9, 1, 1, 1, 2)]


def entropy(share: float) -> float:
    return -sum(part * math.log2(part) for part in (share, 1 - share) if part > 0)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def packed(masks: Tensor) -> Tensor:
    rows = [pack(mask) for mask in masks]
    return torch.stack(rows) if rows else torch.empty(0, packed_size(masks.shape[1:].numel()), dtype=torch.uint8)


def coded_bits(masks: Tensor) -> int:
    """Return what boolean masks ``[tasks, *shape]`` take, after they were decoded again."""
    shape = masks.shape[1:]
    stream = encode_masks(packed(masks), shape)
    assert torch.equal(decode_masks(stream, shape, len(masks)), packed(masks))
    return 8 * len(stream)


@pytest.mark.parametrize("density", [0.5, 0.3, 0.1, 0.03, 0.01])
def test_random_masks_take_their_entropy(density: float) -> None:
    masks = draws(10, 100, 784) < density
    bits = entropy(density) * masks.numel()
    assert 0.98 * bits < coded_bits(masks) < 1.02 * bits + 8 * 32


def test_masks_that_hold_all_earlier_weights_take_nothing_for_them() -> None:
    """PackNet's: task t has a tenth of the weights more than the task before."""
    order = draws(100, 300)
    masks = torch.stack([order < (task + 1) / 10 for task in range(10)])
    free = [masks[0].numel() * (10 - task) / 10 for task in range(10)]  # what a task chooses from
    expected = sum(size * entropy(1 / (10 - task)) for task, size in enumerate(free))
    assert coded_bits(masks) < 1.02 * expected + 8 * 32
    assert expected < 0.7 * sum(entropy(float(mask.float().mean())) * mask.numel() for mask in masks)


@pytest.mark.parametrize("rest", [(), (3, 3)])
def test_masks_of_units_take_bits_a_unit(rest: tuple[int, ...]) -> None:
    """HAT's: a weight is used if both of its units are."""
    outputs, inputs = draws(10, 200, seed=1) < 0.3, draws(10, 300, seed=2) < 0.5
    masks = (outputs.unsqueeze(2) & inputs.unsqueeze(1)).view(10, 200, 300, *[1] * len(rest)).expand(-1, -1, -1, *rest)
    assert coded_bits(masks) < 10 * (200 * entropy(0.3) + 300 * entropy(0.5)) + 10 * 8 * 32


def test_inputs_that_no_task_uses_take_bits_an_input() -> None:
    masks = draws(10, 100, 784) < 0.1
    masks[:, :, 400:] = False
    bits = entropy(0.1) * 10 * 100 * 400
    assert coded_bits(masks) < 1.02 * bits + 784 * 2 + 8 * 32


def test_the_same_mask_again_takes_next_to_nothing() -> None:
    masks = (draws(1, 100, 784) < 0.2).expand(50, -1, -1)
    assert coded_bits(masks) < 1.02 * entropy(0.2) * 78400 + 50 * 64


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tasks", [0, 1, 7])
def test_every_shape_comes_back(shape: tuple[int, ...], tasks: int) -> None:
    for density in (0.0, 0.2, 1.0):
        assert coded_bits(draws(tasks, *shape) < density) <= 1.1 * tasks * math.prod(shape) + 8 * 8 * (tasks + 1)


def test_blocks_of_rows_change_nothing_but_a_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = draws(4, 50, 21) < 0.3
    whole = coded_bits(masks)
    monkeypatch.setattr(mask_coding, "_WEIGHTS_AT_A_TIME", 100)
    assert whole < coded_bits(masks) < whole + 7 * 4 * 7 * 12  # a number for each block, task and context


def test_numbers_beyond_one_digit_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_coding, "_DIGIT", 3)
    assert coded_bits(draws(3, 2, 3) < 0.5) > 0


def test_a_stream_of_today_can_be_read_tomorrow() -> None:
    """A fixed one: another version of the coder must read the same masks from it."""
    masks = packed(draws(3, 6, 10, seed=5) < torch.tensor([0.1, 0.3, 0.5]).view(3, 1, 1))
    stream = bytes(encode_masks(masks, torch.Size((6, 10))).tolist())
    assert stream.hex() == STREAM
    again = torch.frombuffer(bytearray.fromhex(STREAM), dtype=torch.uint8)
    assert torch.equal(decode_masks(again, torch.Size((6, 10)), 3), masks)


STREAM = "44abe1e1c2081d4fe91a2c59fef09cecc006142df83e41fc"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_stands_in_a_stream_is_masks_or_a_value_error(data: st.DataObject) -> None:
    shape = torch.Size(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4)))
    tasks = data.draw(st.integers(0, 4))
    stream = bytearray(encode_masks(packed(draws(tasks, *shape) < 0.3), shape).tolist()) if tasks else bytearray()
    for _ in range(data.draw(st.integers(0, 3)) if stream else 0):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    stream += data.draw(st.binary(max_size=12))
    try:
        masks = decode_masks(torch.tensor(list(stream), dtype=torch.uint8), shape, data.draw(st.integers(0, 5)))
    except ValueError as error:
        message = str(error)
    else:
        message, width = "compressed masks", masks.shape[1]
        assert width == packed_size(shape.numel())
    assert message.startswith("compressed masks")


def test_no_memory_is_taken_for_a_stream_that_is_longer_than_its_masks() -> None:
    with pytest.raises(ValueError, match="longer"):
        decode_masks(torch.randint(256, (400,), dtype=torch.uint8), torch.Size((2, 2)), 1)
