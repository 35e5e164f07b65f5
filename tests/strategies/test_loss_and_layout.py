"""train.label_smoothing and train.channels_last, in training and in evaluation."""

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import nn

from cl_powerprop.assemble import assemble
from cl_powerprop.composition import compose
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.limits import check_label_smoothing
from cl_powerprop.networks.heads import TaskHeads, is_padded, select_samples
from cl_powerprop.sequences.permuted import permuted
from cl_powerprop.tasks import Pixels
from cl_powerprop.training.benchmark import to_avalanche
from cl_powerprop.training.fast import FastSupervisedTemplate
from cl_powerprop.training.smoothing import smoothed_loss


class Watch(SupervisedPlugin):  # type: ignore[misc]
    """Notes loss, logits, labels and the memory format of the images of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]]] = {"train": [], "eval": []}

    def after_backward(self, strategy: Any, **_: Any) -> None:
        self._note("train", strategy)

    def after_eval_iteration(self, strategy: Any, **_: Any) -> None:
        self._note("eval", strategy)

    def _note(self, when: str, strategy: Any) -> None:
        last = strategy.mb_x.is_contiguous(memory_format=torch.channels_last)
        self.seen[when].append((strategy.loss.detach(), strategy.mb_output.detach(), strategy.mb_y, last))


def watched(**options: Any) -> tuple[Watch, nn.Module]:
    """Train and evaluate a convolution on random images of three colours."""
    torch.manual_seed(0)
    pixels = Pixels(torch.randint(0, 256, (40, 3, 6, 6), dtype=torch.uint8), torch.arange(40) % 5, 0.5, 0.5)
    sequence = permuted(pixels, pixels, 5, n_tasks=1, scenario="task", permute_first=False, validation=0.1, seed=0)
    benchmark = to_avalanche(sequence)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    watch = Watch()
    learner = FastSupervisedTemplate(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        train_mb_size=8,
        eval_mb_size=40,
        plugins=[watch],
        evaluator=None,
        **options,
    )
    learner.train(benchmark.streams["train"][0], eval_streams=[])
    learner.eval(benchmark.streams["test"])
    return watch, model


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """The mean over samples of minus the sum over classes of target times log-probability."""
    targets = torch.full_like(logits, smoothing / logits.shape[1])
    targets[torch.arange(len(labels)), labels] += 1 - smoothing
    return -(targets * logits.log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_training_labels_are_smoothed_and_an_evaluation_s_are_not(smoothing: float) -> None:
    watch, _ = watched(label_smoothing=smoothing)
    for when, share in (("train", smoothing), ("eval", 0.0)):
        assert watch.seen[when]
        for loss, logits, labels, _ in watch.seen[when]:
            torch.testing.assert_close(loss, cross_entropy(logits, labels, share))


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_labels_are_spread_over_the_classes_of_the_sample_s_own_head(smoothing: float) -> None:
    torch.manual_seed(0)
    heads = TaskHeads(6, [2, 5, 3])
    features, tasks = torch.randn(9, 6), torch.tensor([0, 1, 2, 2, 1, 0, 0, 1, 2])
    labels = torch.tensor([0, 4, 2, 1, 3, 1, 0, 2, 0])
    select_samples(heads, tasks)
    assert is_padded(heads)
    each = [
        cross_entropy(heads.heads[task](features[row : row + 1]), labels[row : row + 1], smoothing)
        for row, task in enumerate(tasks.tolist())
    ]
    loss = smoothed_loss(heads(features), labels, smoothing)
    torch.testing.assert_close(loss, torch.stack(each).mean())
    heads.select_task(1)
    assert not is_padded(heads)


@pytest.mark.parametrize("strategy", ["joint", "replay", "derpp", "agem"])
def test_smoothing_with_samples_of_several_heads(strategy: str) -> None:
    config = compose(
        [
            *(f"strategy={strategy}", "data=digits", "benchmark=split", "benchmark.n_tasks=3"),
            *("benchmark.scenario=task", "benchmark.classes=[[0,1],[2,3,4],[5,6,7,8,9]]", "model.heads=per_task"),
            *("train.epochs=2", "train.label_smoothing=0.2", "optimizer=adam", "optimizer.lr=0.01", "model.alpha=1"),
        ]
    )
    parts, watch = assemble(config), Watch()
    parts.learner.plugins.append(watch)
    for _, experience in parts.curriculum:
        parts.train(experience)
    assert watch.seen["train"]
    assert max(float(loss) for loss, *_ in watch.seen["train"]) < 20.0, "the padding is -10,000"


def test_channels_last_is_the_layout_of_every_batch_and_changes_no_value() -> None:
    (rows, model), (columns, other) = watched(), watched(channels_last=True)
    assert all(not last for batches in rows.seen.values() for *_, last in batches)
    assert all(last for batches in columns.seen.values() for *_, last in batches)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)
        assert two.is_contiguous(), "weights are saved as they are"


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_impossible_smoothing(share: float) -> None:
    with pytest.raises(ConfigurationError, match=r"train.label_smoothing must be in \[0, 1\)"):
        check_label_smoothing(share)
