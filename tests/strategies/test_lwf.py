"""Learning without Forgetting: the distillation loss against its formula, and what it holds."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cl_powerprop.training.tensor_data import find_tensors

from .learners import look_after, make_parts, train

pytestmark = pytest.mark.slow

WORDS = {
    "shared": ("model.heads=shared",),
    "heads": ("model.heads=per_task",),
    "classes": ("benchmark=split", "benchmark.n_tasks=5", "benchmark.scenario=class", "model.heads=shared"),
    "heads of several sizes": ("benchmark=split", "benchmark.classes=[[0,1,2],[3,4],[5,6,7,8]]", "benchmark.n_tasks=3"),
}


def distillation(answers: Tensor, before: Tensor, temperature: float) -> Tensor:
    """Mean over samples of the Kullback-Leibler divergence of the softened answers."""
    held, now = (torch.softmax(each / temperature, dim=1) for each in (before, answers))
    return (held * (held.log() - now.log())).sum(1).mean()


@pytest.mark.parametrize("name", WORDS)
def test_the_loss_has_a_term_for_each_earlier_head_or_for_all_classes_so_far(name: str) -> None:
    parts = make_parts("strategy=lwf", "strategy.alpha=0.4", "strategy.temperature=3", *WORDS[name])
    plugin = parts.strategy.plugin  # type: ignore[attr-defined]
    compared = []

    def compare(learner: Any) -> None:
        if plugin.teacher is None:
            return
        model, teacher = learner.model, plugin.teacher
        features, before = (each.features(learner.mb_x).flatten(1) for each in (model, teacher))
        task = learner.experience.current_experience
        if "heads" in name:
            own = model.output.heads[task](features)
            pairs = [(model.output.heads[k](features), teacher.output.heads[k](before)) for k in range(task)]
        else:
            own = model.output(features)
            known = 2 * task if name == "classes" else 10
            pairs = [(own[:, :known], teacher.output(before)[:, :known])]
        expected = cross_entropy(own, learner.mb_y) + 0.4 * sum(distillation(*pair, 3.0) for pair in pairs)
        assert torch.allclose(learner.loss, expected, atol=1e-5)
        assert learner.mb_output.shape == own.shape
        compared.append(task)

    look_after(parts, "LearningWithoutForgetting", before_backward=compare)
    for task in range(3):
        train(parts, task)
    assert set(compared) == {1, 2}


@pytest.mark.parametrize("heads", ["shared", "per_task"])
def test_the_answers_of_the_network_before_the_task_are_held(heads: str) -> None:
    distances = []
    for alpha in (0.0, 5.0):
        parts = make_parts("strategy=lwf", f"strategy.alpha={alpha}", "train.epochs=2", f"model.heads={heads}")
        train(parts, 0)
        plugin = parts.strategy.plugin  # type: ignore[attr-defined]
        teacher, model = plugin.teacher, parts.learner.model
        kept = [value.clone() for value in teacher.parameters()]
        train(parts, 1)
        assert all(torch.equal(one, other) for one, other in zip(kept, teacher.parameters(), strict=True))
        images = _images(parts, 1)
        with torch.no_grad():
            first = [each.output.heads[0] if heads == "per_task" else each.output for each in (model, teacher)]
            answers = [
                head(each.features(images).flatten(1)) for head, each in zip(first, (model, teacher), strict=True)
            ]
        distances.append(float(distillation(*answers, 2.0)))
    assert 0 < distances[1] < 0.5 * distances[0]


def _images(parts: Any, task: int) -> Tensor:
    found = find_tensors(parts.benchmark.streams["train"][task].dataset)
    assert found is not None
    return found.samples.images()
