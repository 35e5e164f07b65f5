"""train.compile: one compilation serves all tasks, and trains the same network as no compilation does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cl_powerprop.experiment import run

from .conftest import MOMENTUM, compose_config
from .test_whole_runs import read_matrix, read_record

pytestmark = [pytest.mark.slow, pytest.mark.cuda]

DIGITS = ("data=digits", "train.epochs=2", "progress=false")
SPLIT = (*DIGITS, "benchmark=split")
EPN, PACKNET = (f"strategy={name}" for name in ("epn", "packnet"))
CASES: dict[str, tuple[str, ...]] = {
    "epn, frozen biases": (*SPLIT, EPN, "model.hidden=[16]", "model.bias=frozen", *MOMENTUM),
    "epn, all": (
        *(*DIGITS, "benchmark.n_tasks=4", EPN, "model.hidden=[16]", "model.heads=shared", "model.bias=per_task"),
        *("strategy.criterion=both", "strategy.train_through=free", "optimizer=adamw", "optimizer.lr=0.01"),
        *("evaluation.every_epochs=1", "train.clip_norm=1"),
    ),
    "packnet, batch norm": (
        *SPLIT,
        PACKNET,
        "model=resnet18",
        "model.width=1",
        "train.epochs=1",
        "strategy.retrain_epochs=0",
    ),
    "packnet, classes differ": (
        *(*SPLIT, PACKNET, "benchmark.n_tasks=3", "benchmark.classes=[[0,1],[2,3,4],[5,6,7,8]]"),
        *("model.hidden=[16]", "model.alpha=1", "train.batch_size=13"),
    ),
    "naive": (*SPLIT, "strategy=naive", "model.hidden=[16]", "model.bias=frozen"),
    "ewc": (*SPLIT, "strategy=ewc", "model.hidden=[16]"),
    "naive, rigl": (
        *(*DIGITS, "benchmark=single", "strategy=naive", "model.hidden=[16]", "sparsity=rigl", "sparsity.every=7"),
        "sparsity.target=0.5",
    ),
    "naive, top_kast": (*SPLIT, "strategy=naive", "model.hidden=[16]", "sparsity=top_kast", "sparsity.every=7"),
    "joint": (*SPLIT, "strategy=joint", "model.hidden=[16]"),
    "independent": (*SPLIT, "strategy=independent", "model.hidden=[16]"),
}

ALWAYS = ("epn, all", "packnet, classes differ", "naive, rigl")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every graph that is compiled; it runs without torch's C++ compiler."""
    seen: list[Any] = []
    real = torch.compile

    def backend(graph: Any, _: Any) -> Any:
        seen.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend=backend))
    torch._dynamo.reset()
    yield seen
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.thorough) for name in CASES]
)
def test_one_compilation_serves_all_tasks(
    name: str, tmp_path: Path, graphs: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    plain = run(compose_config(*CASES[name]), tmp_path / "plain")
    compiled = run(compose_config(*CASES[name], "train.compile=true"), tmp_path / "compiled")
    assert len(graphs) == (0 if name == "independent" else 1), "networks of single tasks are left out"
    assert not [record for record in caplog.records if record.name.startswith("torch._dynamo")]
    losses = [pd.read_csv(each.path / "curves.csv").query("split == 'train'").value for each in (plain, compiled)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(read_matrix(plain.path), read_matrix(compiled.path), atol=0.01)
    for key in ("zero_forgetting_verified", "status"):
        assert read_record(plain.path)[key] == read_record(compiled.path)[key]
    frozen = [[parameter.requires_grad for parameter in each.model.parameters()] for each in (plain, compiled)]
    assert frozen[0] == frozen[1], "what is frozen is, though its gradient was computed"
