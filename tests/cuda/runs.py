"""Small runs on a GPU: every strategy, and what else decides which work a training step does."""

from pathlib import Path
from typing import Any

from cl_powerprop.experiment import run

from ..run.conftest import compose_config

TINY = (
    *("device=cuda", "data=digits", "benchmark.n_tasks=3", "train.epochs=3", "model.hidden=[24,24]"),
    *("train.batch_size=50", "progress=false", "checkpoint.every_epochs=null", "checkpoint.every_seconds=null"),
)
MASKED = ("strategy.retrain_epochs=1",)
MOMENTUM = ("optimizer=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.9", "optimizer.weight_decay=1e-3")
ADAM = ("optimizer=adam", "optimizer.lr=0.01")

RUNS: dict[str, tuple[str, ...]] = {
    "naive": ("strategy=naive", "model.alpha=1", "model.heads=shared", "train.clip_norm=null"),
    "naive, clipped": ("strategy=naive", *MOMENTUM, "train.clip_norm=0.5", "train.warmup=0.2"),
    "naive, bf16": ("strategy=naive", *MOMENTUM, "train.precision=bf16"),
    "naive, rigl": ("strategy=naive", "sparsity=rigl", "sparsity.every=7", "sparsity.target=0.5"),
    "packnet": ("strategy=packnet", *MASKED, *MOMENTUM, "train.schedule=constant"),
    "packnet, adamw": ("strategy=packnet", *MASKED, "optimizer=adamw", "optimizer.lr=0.01", "model.bias=per_task"),
    "epn": ("strategy=epn", *MASKED, *MOMENTUM, "model.bias=frozen"),
    "epn, adam": ("strategy=epn", *MASKED, *ADAM, "strategy.criterion=both", "train.clip_norm=1"),
    "epn, bf16": ("strategy=epn", *MASKED, *ADAM, "train.precision=bf16", "model.heads=shared"),
    "ewc": ("strategy=ewc", "strategy.penalty=1", "strategy.decay=0.9", "model.heads=shared"),
    "ewc, separate": ("strategy=ewc", "strategy.penalty=1", "strategy.mode=separate"),
    "joint": ("strategy=joint", *MOMENTUM),
    "independent": ("strategy=independent", *ADAM),
    "epn, batch norm": (
        *("strategy=epn", *MASKED, "model=convnet", "model.width=4", "model.norm=batch", "model.bias=per_task"),
        *("data=mnist5k", "train.batch_size=200"),
    ),
    "packnet, split": ("strategy=packnet", *MASKED, "benchmark=split", "benchmark.n_tasks=5", "train.batch_size=20"),
}
FORGETTING = ("naive", "ewc", "joint", "independent")  # strategies that do not promise zero forgetting


def words_of(name: str, *more: str) -> tuple[str, ...]:
    words = RUNS[name]
    given = {word.partition("=")[0] for word in words} | ({"model.hidden"} if "model=convnet" in words else set())
    return (*(word for word in TINY if word.partition("=")[0] not in given), *words, *more)


def train(folder: Path, name: str, *more: str) -> Any:
    """Return the result of a run, which lies in ``folder``."""
    return run(compose_config(*words_of(name, *more)), folder, quiet=True)
