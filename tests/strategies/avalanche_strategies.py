"""Every strategy of Avalanche that runs on this stack, made for one small benchmark of classes in five experiences."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.models import PNN, MTSimpleMLP, SCRModel, SimpleMLP
from avalanche.models.packnet import packnet_simple_mlp
from avalanche.training import supervised
from avalanche.training.losses import MaskedCrossEntropy
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised.lamaml_v2 import LaMAML as LaMAMLv2
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.utils.data import TensorDataset

FEATURES, HIDDEN, CLASSES, EXPERIENCES = 6, 10, 10, 5
BATCH = 12


def seed_all(seed: int = 0) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def vectors(count: int, seed: int, shape: tuple[int, ...] = (FEATURES,)) -> TensorDataset:
    """Noisy copies of one point for each class."""
    means = 2 * torch.randn(CLASSES, *shape, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(count) % CLASSES
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(means[labels] + noise, labels)


def stock_benchmark(labels: bool = False, count: int = 120, shape: tuple[int, ...] = (FEATURES,)) -> Any:
    """Two classes in each experience, in an order that is not their own."""
    return nc_benchmark(
        vectors(count, 0, shape), vectors(count, 1, shape), EXPERIENCES, task_labels=labels, shuffle=True, seed=3
    )


def evaluator(*metrics: Any) -> EvaluationPlugin:
    every = {"epoch": True, "experience": True, "stream": True}
    return EvaluationPlugin(accuracy_metrics(**every), loss_metrics(**every), *metrics, loggers=[])


def mlp() -> SimpleMLP:
    return SimpleMLP(input_size=FEATURES, hidden_size=HIDDEN, num_classes=CLASSES, drop_rate=0.0)


def multi_head() -> MTSimpleMLP:
    return MTSimpleMLP(input_size=FEATURES, hidden_size=HIDDEN)


class Heads(nn.Module):
    """What DER, ER-AML and SCR read as `feature_extractor`; its outputs are unit vectors, as SCR wants them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, HIDDEN)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(self.layer(images))


def make(kind: type[SupervisedTemplate], model: nn.Module, lr: float = 0.05, **options: Any) -> SupervisedTemplate:
    settings = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": BATCH,
        "eval_mb_size": 50,
        "train_epochs": 2,
        "evaluator": evaluator(),
    }
    return kind(**(settings | options))


def _without(name: str, kind: type[SupervisedTemplate], **options: Any) -> SupervisedTemplate:
    """Make a strategy whose constructor lacks one of the usual arguments."""

    class Lenient(kind):  # type: ignore[misc, valid-type]
        def __init__(self, **given: Any) -> None:
            given.pop(name)
            super().__init__(**given)

    return make(Lenient, **options)


def _icarl(kind: type[SupervisedTemplate]) -> SupervisedTemplate:
    whole = mlp()
    return kind(
        feature_extractor=whole.features,
        classifier=whole.classifier,
        optimizer=torch.optim.SGD(whole.parameters(), lr=0.05),
        memory_size=20,
        buffer_transform=None,
        fixed_memory=True,
        train_mb_size=BATCH,
        train_epochs=2,
        eval_mb_size=50,
        evaluator=evaluator(),
    )


def _er_aml(kind: type[SupervisedTemplate]) -> SupervisedTemplate:
    whole = mlp()
    return make(kind, whole, feature_extractor=whole.features, mem_size=100, train_mb_size=4)


def _scr(kind: type[SupervisedTemplate]) -> SupervisedTemplate:
    model = SCRModel(feature_extractor=Heads(), projection=nn.Linear(HIDDEN, 8))
    # Its outputs in training are pairs, which have no accuracy.
    metrics = EvaluationPlugin(accuracy_metrics(stream=True), loggers=[])
    return _without("criterion", kind, model=model, mem_size=20, batch_size_mem=10, evaluator=metrics)


def _slda(kind: type[SupervisedTemplate]) -> SupervisedTemplate:
    return kind(
        slda_model=mlp(),
        criterion=nn.CrossEntropyLoss(),
        input_size=HIDDEN,
        num_classes=CLASSES,
        output_layer_name="features",
        train_mb_size=7,
        eval_mb_size=7,
        evaluator=evaluator(),
    )


def _l2p(kind: type[SupervisedTemplate]) -> SupervisedTemplate:
    return kind(
        model_name="simpleMLP",
        criterion=nn.CrossEntropyLoss(),
        num_classes=CLASSES,
        use_cls_features=False,
        use_mask=False,
        use_vit=False,
        train_mb_size=BATCH,
        eval_mb_size=50,
        evaluator=evaluator(),
    )


Make = Callable[[type[SupervisedTemplate]], SupervisedTemplate]

# By the name of Avalanche's class: how to make it, or a class derived from it.
STRATEGIES: dict[str, Make] = {
    "Naive": lambda kind: make(kind, mlp()),
    "Cumulative": lambda kind: make(kind, mlp()),
    "JointTraining": lambda kind: make(kind, mlp()),
    "FromScratchTraining": lambda kind: make(kind, mlp()),
    "CWRStar": lambda kind: make(kind, mlp(), cwr_layer_name="classifier"),
    "Replay": lambda kind: make(kind, mlp(), mem_size=20),
    "GDumb": lambda kind: make(kind, mlp(), mem_size=30),
    "GSS_greedy": lambda kind: make(kind, mlp(), mem_size=200, input_size=[FEATURES]),
    "LwF": lambda kind: make(kind, mlp(), alpha=1.0, temperature=2.0),
    "AGEM": lambda kind: make(kind, mlp(), patterns_per_exp=10, sample_size=10),
    "GEM": lambda kind: make(kind, mlp(), patterns_per_exp=10),
    "EWC": lambda kind: make(kind, mlp(), ewc_lambda=0.4),
    "SynapticIntelligence": lambda kind: make(kind, mlp(), si_lambda=0.1),
    "MAS": lambda kind: make(kind, mlp()),
    "LFL": lambda kind: make(kind, mlp(), lambda_e=0.1),
    "CoPE": lambda kind: make(kind, mlp(), mem_size=20, n_classes=CLASSES, p_size=CLASSES),
    "BiC": lambda kind: make(kind, mlp(), mem_size=30, val_percentage=0.3, T=2, stage_2_epochs=3, lamb=-1, lr=0.01),
    "MIR": lambda kind: make(kind, mlp(), mem_size=30, subsample=20, batch_size_mem=8),
    "ER_ACE": lambda kind: make(kind, mlp(), mem_size=30),
    "ER_AML": _er_aml,
    "DER": lambda kind: make(kind, mlp(), mem_size=30),
    "MER": lambda kind: make(kind, mlp(), mem_size=30),
    "SCR": _scr,
    "ICaRL": _icarl,
    "StreamingLDA": _slda,
    "FeatureReplay": lambda kind: make(kind, mlp(), criterion=MaskedCrossEntropy(), mem_size=30),
    "LearningToPrompt": _l2p,
    # These need task labels.
    "LaMAMLv2": lambda kind: make(kind, multi_head(), n_inner_updates=2, max_buffer_size=30),
    "PackNet": lambda kind: make(
        kind,
        packnet_simple_mlp(input_size=FEATURES, hidden_size=HIDDEN, num_classes=CLASSES, drop_rate=0.0),
        prune_proportion=0.5,
        post_prune_epochs=1,
    ),
    "PNNStrategy": lambda kind: make(kind, PNN(num_layers=2, in_features=FEATURES, hidden_features_per_column=4)),
}
WITH_TASK_LABELS = ("LaMAMLv2", "PackNet", "PNNStrategy")


def avalanche_class(name: str) -> type[SupervisedTemplate]:
    return getattr(supervised, name, LaMAMLv2)


def outcome(name: str, benchmark: Any, mixin: type[SupervisedTemplate] | None = None, **options: Any) -> Any:
    """Train on every experience and evaluate after each; return all weights and all metrics at the end."""
    seed_all()
    kind = avalanche_class(name)
    strategy = STRATEGIES[name](kind if mixin is None else type(f"Fast{name}", (kind, mixin), {}))
    stream = benchmark.train_stream
    for experiences in [stream] if name == "JointTraining" else stream:
        strategy.train(experiences, num_workers=0, **options)
        if name not in WITH_TASK_LABELS:  # else future tasks cannot be evaluated
            strategy.eval(benchmark.test_stream[:])
    results = strategy.eval(benchmark.test_stream)
    weights = {key: value.clone() for key, value in strategy.model.state_dict().items()}
    return strategy, weights, results
