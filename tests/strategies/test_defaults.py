"""The defaults of the baselines help, or at least work; recorded recipes have what they were recorded with."""

from pathlib import Path
from typing import Any

import pytest

from cl_powerprop import compose, run

pytestmark = pytest.mark.slow

SMALL = ("data=digits", "benchmark.n_tasks=3", "progress=false", "save_model=false")


def record(path: Path, *words: str) -> dict[str, Any]:
    return run([*SMALL, *words], path, quiet=True).record


@pytest.mark.parametrize("strategy", ["naive", "ewc"])
def test_a_shared_head_learns_at_the_default_rate(strategy: str, tmp_path: Path) -> None:
    found = record(tmp_path / "run", f"strategy={strategy}", "model.heads=shared")
    assert found["metrics"]["learning_accuracy"] > 0.8
    assert found["diverged_tasks"] == []


@pytest.mark.parametrize("benchmark", ["split", "rotated"])
def test_ewc_keeps_more_than_naive(benchmark: str, tmp_path: Path) -> None:
    words = (f"benchmark={benchmark}", "benchmark.n_tasks=5")
    naive, ewc = (record(tmp_path / name, f"strategy={name}", *words)["metrics"] for name in ("naive", "ewc"))
    assert ewc["validation_accuracy"] > naive["validation_accuracy"] + 0.01
    assert ewc["average_forgetting"] < 0.8 * naive["average_forgetting"]
    assert ewc["learning_accuracy"] > 0.9, "it still learns"


def test_the_limit_of_the_gradient_is_the_strategys_own() -> None:
    def limit(*words: str) -> float | None:
        return compose(words).train.clip_norm

    assert [limit(f"strategy={name}") for name in ("naive", "ewc", "epn", "packnet", "joint")] == [
        1,
        1,
        None,
        None,
        None,
    ]
    assert limit("strategy=naive", "train.clip_norm=null") is None
    assert limit("strategy=epn", "train.clip_norm=2") == 2


def test_recorded_recipes_are_as_they_were() -> None:
    for name in ("quickstart/naive", "permuted_mnist_10/naive", "permuted_mnist_10/ewc"):
        assert compose([f"experiment={name}"]).train.clip_norm is None
    assert vars(compose(["experiment=permuted_mnist_10/ewc"]).strategy)["penalty"] == 1000


@pytest.mark.parametrize("epochs", [1, 2])
def test_few_epochs_are_enough_for_the_default_retraining(epochs: int) -> None:
    for strategy in ("epn", "packnet"):
        compose([f"strategy={strategy}", f"train.epochs={epochs}"]).check()
