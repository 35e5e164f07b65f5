"""Small groups of seeds, and what disturbs them."""

import csv
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cl_powerprop
from cl_powerprop.config import RunConfig
from cl_powerprop.training import fast
from cl_powerprop.training.fast import FastSupervisedTemplate
from cl_powerprop.training.lockstep import Lockstep
from cl_powerprop.training.measure import Measure
from cl_powerprop.training.stacked import train_together

from ..conftest import compose_config, tree

DIGITS = (
    "data=digits",
    "benchmark.n_tasks=3",
    "train.epochs=2",
    "model.hidden=[20]",
    "progress=false",
    "checkpoint.max_share=1",
)


KINDS = {
    "naive": ("strategy=naive", "optimizer.momentum=0.9"),
    "packnet": ("strategy=packnet", "strategy.retrain_epochs=1", "optimizer=adam", "optimizer.lr=0.01"),
    "epn": ("strategy=epn", "model.alpha=2", "train.clip_norm=1"),
    "ewc": ("strategy=ewc",),
    "wsn": ("strategy=wsn",),
    "sparse": ("strategy=naive", "benchmark=single", "benchmark.n_tasks=1", "sparsity=rigl", "sparsity.target=0.8"),
    "augmented": ("strategy=naive", "train.shift=1", "train.rotate=5", "evaluation.every_epochs=1"),
}


def digits(*overrides: str) -> RunConfig:
    return compose_config(*DIGITS, *overrides)


@pytest.fixture
def taking_turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let seeds meet before every epoch and every measurement, but do nothing at once: runs are those alone to the bit.

    Returns the seeds in the order in which they have trained epochs.
    """
    turns: list[int] = []
    meet, train, measure = Lockstep.meet, FastSupervisedTemplate.training_epoch, Measure.__call__

    def meet_alone(self: Lockstep, key: Any, item: Any, work: Any, position: tuple[int, ...] = ()) -> Any:
        return meet(self, (key, threading.get_ident()), item, work)

    def training_epoch(self: FastSupervisedTemplate, **options: Any) -> None:
        if self.lockstep is not None:
            self.lockstep.meet("epoch", None, lambda items: items)
        turns.append(self.seed)
        train(self, **options)

    def measured(self: Measure, *arguments: Any) -> Any:
        if self._learner.lockstep is not None:
            self._learner.lockstep.meet("measure", None, lambda items: items)
        return measure(self, *arguments)

    monkeypatch.setattr(Lockstep, "meet", meet_alone)
    monkeypatch.setattr(FastSupervisedTemplate, "training_epoch", training_epoch)
    monkeypatch.setattr(Measure, "__call__", measured)
    return turns


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The seeds that train each epoch as one."""
    found: list[list[int]] = []

    def train(epochs: Any) -> list[bool]:
        done = train_together(epochs)
        found.append([epoch.learner.seed for epoch, is_done in zip(epochs, done, strict=True) if is_done])
        return done

    monkeypatch.setattr(fast, "train_together", train)
    return found


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the training of some seeds fail in an epoch."""
    train = FastSupervisedTemplate.training_epoch

    def fail(make: Callable[[int], BaseException], *seeds: int, epoch: int = 3) -> None:
        begun: dict[int, int] = {}

        def training_epoch(self: FastSupervisedTemplate, **options: Any) -> None:
            begun[self.seed] = begun.get(self.seed, 0) + 1
            if self.seed in seeds and begun[self.seed] >= epoch:
                raise make(self.seed)
            train(self, **options)

        monkeypatch.setattr(FastSupervisedTemplate, "training_epoch", training_epoch)

    return fail


def numbers(folder: Path) -> dict[str, Any]:
    """What a run has found out: its files, without its id and what differs from process to process."""
    content: dict[str, Any] = tree(folder)
    record = json.loads(content.pop("run.json"))
    for name in ("curves.csv", "sparsity.csv", "pruning.csv"):
        if name in content:
            rows = list(csv.DictReader(content[name].decode().splitlines()))
            content[name] = [{key: value for key, value in row.items() if key != "run_id"} for row in rows]
    kept = ("status", "seed", "metrics", "zero_forgetting_verified", "searches", "diverged_tasks", "error", "job")
    return content | {key: record[key] for key in kept}


def record(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text())


def assert_close(result: Path, alone: Path) -> None:
    """Two runs of one seed are the same but for rounding; one more or less of the test samples may be right."""
    together, apart = record(result), record(alone)
    assert together["zero_forgetting_verified"] == apart["zero_forgetting_verified"]
    for name in ("average_accuracy", "average_forgetting", "capacity_used", "validation_accuracy"):
        assert together["metrics"][name] == pytest.approx(apart["metrics"][name], abs=0.01), name
    assert (result / "config.yaml").read_bytes() == (alone / "config.yaml").read_bytes()
    weights = cl_powerprop.load(alone).state_dict()
    for name, value in cl_powerprop.load(result).state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, weights[name], atol=2e-2, rtol=2e-2)  # training amplifies rounding
        else:
            assert torch.equal(value, weights[name]), name


def stop_at(monkeypatch: pytest.MonkeyPatch, seed: int, epoch: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal as a seed begins an epoch."""
    train, begun = FastSupervisedTemplate.training_epoch, [0]

    def training_epoch(self: FastSupervisedTemplate, **options: Any) -> None:
        begun[0] += self.seed == seed
        if self.seed == seed and begun[0] == epoch:
            os.kill(os.getpid(), number)
            time.sleep(0.05)  # the main thread takes it
        train(self, **options)

    monkeypatch.setattr(FastSupervisedTemplate, "training_epoch", training_epoch)
