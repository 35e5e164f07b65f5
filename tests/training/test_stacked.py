"""Several seeds that train together against each of them alone.

In float64 nothing but the order of sums differs, so that a wrong term would stand out from rounding.
"""

from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cl_powerprop.training.loaders import TensorLoader

from .seeds import HIDDEN, Run, assert_equal, assert_same, train

pytestmark = pytest.mark.cuda

SEEDS = (0, 1, 2)
EXACT = 1e-9  # in float64
MOMENTUM = ("optimizer=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.9", "optimizer.weight_decay=1e-3")
ROUNDS = ("strategy.retrain_epochs=2", "strategy.rounds=2")
NESTEROV = (*MOMENTUM, "optimizer.nesterov=true")
ADAM = ("optimizer=adam", "optimizer.lr=0.01")
ADAMW = ("optimizer=adamw", "optimizer.lr=0.01", "optimizer.weight_decay=0.1")
CONVNET = (
    "model=convnet",
    "model.width=4",
    "data=mnist5k",
    "train.epochs=2",
    "benchmark.validation=0.4",
    "train.batch_size=500",
    *MOMENTUM,
)
RESNET = ("model=resnet18", "model.width=3", "train.epochs=2", "optimizer.lr=0.05", "train.batch_size=300")


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load images in float64; return what makes a learner's network one of float64."""
    hold = TensorLoader.hold

    def hold_double(loader: TensorLoader, images: Tensor) -> None:
        loader.first_image = images[:1].double()
        hold(loader, images.double())

    monkeypatch.setattr(TensorLoader, "hold", hold_double)

    def change(learner: Any) -> None:
        learner.model.double()

    return change


def both(*words: str, change: Any = None, seeds: tuple[int, ...] = SEEDS) -> list[tuple[Run, Run]]:
    """Return each seed's run alone, and together with the others."""
    options = {} if change is None else {"change": change}
    alone, together = (train(seeds, *words, together=at_once, **options) for at_once in (False, True))
    return list(zip(alone, together, strict=True))


def assert_frozen(run: Run) -> None:
    """Frozen weights have the bits that they had when their task ended, and earlier tasks have the same logits."""
    for before, after in zip(run.frozen, run.frozen[1:], strict=False):
        assert any(frozen.any() for _, frozen in before.values())
        for name, (phi, frozen) in before.items():
            assert torch.equal(bits(phi)[frozen], bits(after[name][0])[frozen])
    for task, last in run.hashes[-1].items():
        assert last == run.hashes[task][task]


def searches(run: Run) -> list[Any]:
    return getattr(getattr(run.parts.strategy, "plugin", None), "searches", [])


def bits(values: Tensor) -> Tensor:
    return values.view(torch.int64 if values.dtype == torch.float64 else torch.int32)


@pytest.mark.parametrize(
    "words",
    [
        ("strategy=naive", HIDDEN, "model.alpha=2", "optimizer.lr=0.5"),
        ("strategy=naive", HIDDEN, "train.clip_norm=0.05", "optimizer.lr=0.5"),
        ("strategy=naive", HIDDEN, "train.clip_norm=null", "train.label_smoothing=0.1", "model.heads=shared"),
        ("strategy=naive", HIDDEN, "benchmark.scenario=domain", "model.heads=shared", *ADAM),
        ("strategy=naive", HIDDEN, "model.reparam=powerprop", "optimizer.power=0", "model.alpha=2", *ADAM),
        ("strategy=naive", HIDDEN, "train.steps=20", "train.schedule=cosine", "train.warmup=0.1"),
        ("strategy=packnet", HIDDEN, "model.alpha=1", "model.bias=frozen", *NESTEROV),
        ("strategy=packnet", HIDDEN, "model.alpha=2", "model.bias=per_task", *ADAMW),
        ("strategy=packnet", HIDDEN, "model.bias=none", "model.heads=shared", *MOMENTUM),
        ("strategy=epn", HIDDEN, "model.alpha=2", "model.bias=frozen", *MOMENTUM),
        ("strategy=epn", HIDDEN, "model.alpha=1.5", "strategy.retrain_epochs=0", *ADAM),
        ("strategy=epn", HIDDEN, "strategy.train_through=free", "strategy.scope=global", *ROUNDS, *NESTEROV),
        ("strategy=epn", HIDDEN, "benchmark=split", "benchmark.n_tasks=2", *ADAM),
    ],
    ids=" ".join,
)
def test_each_seed_is_what_it_is_alone(words: tuple[str, ...], double: Any) -> None:
    assert_same_runs(both(*words, change=double))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("strategy=naive", *RESNET),
        ("strategy=packnet", "model.norm=layer", *RESNET),
        ("strategy=epn", "model.bias=frozen", *RESNET),
        ("strategy=independent", *RESNET),
        ("strategy=epn", *CONVNET),
    ],
    ids=" ".join,
)
def test_convolutions(words: tuple[str, ...], double: Any) -> None:
    assert_same_runs(both(*words, change=double, seeds=(0, 1)))


def assert_same_runs(runs: list[tuple[Run, Run]]) -> None:
    for alone, together in runs:
        assert together.together == len(together.epochs) > 1
        assert_same(alone.state, together.state, EXACT)
        assert searches(alone) == searches(together)
        assert [(each.loss, each.accuracy, each.majority) for each in together.epochs] == [
            (pytest.approx(each.loss), each.accuracy, each.majority) for each in alone.epochs
        ]
        if alone.moments:
            assert_same(alone.moments, together.moments, EXACT)
        if alone.frozen[0]:
            assert_frozen(together)


@pytest.mark.parametrize(
    "words",
    [
        ("strategy=naive",),
        ("strategy=packnet", *ADAM),
        ("strategy=epn", *MOMENTUM),
        ("strategy=naive", "train.shift=1", "train.rotate=10"),
    ],
    ids=" ".join,
)
def test_single_precision_differs_by_rounding_alone(words: tuple[str, ...]) -> None:
    for alone, together in both(HIDDEN, "benchmark.n_tasks=1", "train.epochs=2", *words):
        assert together.together == 2
        assert_same(alone.state, together.state, 1e-5)


def test_half_precision() -> None:
    for alone, together in both(HIDDEN, "strategy=packnet", "train.precision=bf16", "train.epochs=2"):
        assert together.together == 4
        assert_same(alone.state, together.state, 1e-2)
        assert_frozen(together)


def test_seeds_that_meet_only_one_other(double: Any) -> None:
    """A learner that stops early leaves the others, who go on together."""

    class StopsEarly(SupervisedPlugin):
        def after_training_epoch(self, strategy: Any, **_: Any) -> None:
            if strategy.seed == 1:
                strategy.stop_training()

    def change(learner: Any) -> None:
        double(learner)
        learner.plugins.append(StopsEarly())

    runs = both(HIDDEN, "strategy=naive", *ADAM, change=change)
    assert [len(together.epochs) for _, together in runs] == [6, 2, 6]
    for alone, together in runs:
        assert together.together == len(together.epochs)
        assert_same(alone.state, together.state, EXACT)


class OwnPlugin(SupervisedPlugin):
    """Acts in a step, and does not say how for several learners."""

    def before_backward(self, strategy: Any, **_: Any) -> None:
        strategy.loss = strategy.loss * 2


def with_plugin(learner: Any) -> None:
    learner.plugins.append(OwnPlugin())


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (("strategy=ewc",), None),
        (("strategy=joint",), None),
        (("strategy=naive", "sparsity=rigl"), None),
        (("strategy=naive", "model.reparam=product"), None),
        (("strategy=naive",), with_plugin),
    ],
    ids=["ewc", "joint", "sparse training", "product", "own plugin"],
)
def test_others_train_alone_to_the_bit(words: tuple[str, ...], change: Any) -> None:
    for alone, together in both(HIDDEN, "train.epochs=2", *words, change=change):
        assert together.together == 0
        assert_equal(alone.state, together.state)
        assert together.epochs == alone.epochs


def test_saliencies_are_summed_alone_and_all_else_together(double: Any) -> None:
    for alone, together in both(HIDDEN, "strategy=epn", "strategy.criterion=both", change=double):
        assert together.together == 4  # all but the epoch before each task's search
        assert_same(alone.state, together.state, EXACT)
