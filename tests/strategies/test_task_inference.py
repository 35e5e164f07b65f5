"""Task inference by entropy, against a direct computation on a model with two masks."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.plugins.task_inference import EntropyTaskInference
from cl_powerprop.sparsity import select_task


class Fixed(nn.Module):
    """A model with fixed logits for each task."""

    def __init__(self, logits: list[Tensor]) -> None:
        super().__init__()
        self.heads = TaskHeads(1, [1] * len(logits))
        self.logits = logits

    def forward(self, rows: Tensor) -> Tensor:
        return self.logits[self.heads.selected][rows]


def entropy(logits: list[float]) -> float:
    total = sum(math.exp(value) for value in logits)
    shares = [math.exp(value) / total for value in logits]
    return -sum(share * math.log(share) for share in shares)


def evaluate(model: Fixed, true: int, group: int, size: int) -> tuple[Tensor, float]:
    """The predictions for all rows in evaluation batches of ``size``, and the share identified."""
    tasks = len(model.logits)
    masking: Any = SimpleNamespace(
        allocator=SimpleNamespace(model=model, tasks=tasks), task_of=lambda experience: experience.task_label
    )
    inference = EntropyTaskInference(masking, group)
    experience = SimpleNamespace(task_label=true, current_experience=true)
    strategy = SimpleNamespace(experience=experience)
    inference.before_eval(strategy)
    inference.before_eval_exp(strategy)
    outputs = []
    for rows in torch.arange(len(model.logits[0])).split(size):
        strategy.mb_x = rows
        select_task(model, true)
        strategy.mb_output = model(rows)
        inference.after_eval_forward(strategy)
        assert model.heads.selected == true, "the view of the known task is back"
        outputs.append(strategy.mb_output)
    inference.after_eval_exp(strategy)
    return torch.cat(outputs), inference.identified[true]


@pytest.mark.parametrize("group", [1, 3, 4, 100])
@pytest.mark.parametrize("size", [8, 30])
@pytest.mark.parametrize("true", [0, 2])
def test_the_lowest_entropy_of_a_group_wins(group: int, size: int, true: int) -> None:
    model = Fixed([3 * torch.randn(30, 4) for _ in range(3)])
    outputs, identified = evaluate(model, true, group, size)
    right = 0
    for start in range(0, 30, size):
        batch = range(start, min(start + size, 30))
        for first in range(0, len(batch), group):
            members = batch[first : first + group]
            sums = [sum(entropy(logits[row].tolist()) for row in members) for logits in model.logits]
            winner = sums.index(min(sums))
            right += len(members) * (winner == true)
            for row in members:
                assert torch.equal(outputs[row], model.logits[winner][row])
    assert identified == pytest.approx(right / 30)


def test_heads_of_different_width_are_padded() -> None:
    model = Fixed([torch.zeros(6, 5), torch.tensor([9.0, 0.0]).repeat(6, 1)])
    outputs, identified = evaluate(model, 1, 1, 6)
    assert outputs.shape == (6, 5)
    assert outputs.argmax(1).tolist() == [0] * 6
    assert outputs.isfinite().all()
    assert identified == 1.0
    assert evaluate(model, 0, 1, 6)[1] == 0.0
