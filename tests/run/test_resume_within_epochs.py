"""The same for what else has a state within an epoch: sparse training, tests within tasks, steps, streamed pictures."""

from pathlib import Path

import pytest

from ..data.picture_folder import write_pictures
from .conftest import compose_config
from .every_moment import DIGITS, TINY, check_every_moment

pytestmark = pytest.mark.slow

SPARSE = (*DIGITS, "strategy=naive", "sparsity.target=0.8", "optimizer.momentum=0.9", "sparsity.every=3")
AT_ONCE = (*DIGITS, "strategy=epn", "strategy.retrain_epochs=0")
RUNS = {
    "steps": (*DIGITS, "strategy=naive", "train.steps=5", "evaluation.every_steps=2"),
    "within": (*DIGITS, "strategy=naive", "evaluation.every_epochs=1", "model.heads=shared"),
    "epn-at-once": (*AT_ONCE, "strategy.criterion=both", "model.bias=per_task"),
    "epn-steps": (*AT_ONCE, "train.steps=4", "model.bias=frozen"),
    "rigl": (*SPARSE, "sparsity=rigl", "model.alpha=2"),
    "top_kast": (*SPARSE, "sparsity=top_kast"),
    "gradual": (*SPARSE, "sparsity=gradual", "benchmark.n_tasks=1", "sparsity.curve=[0.5,0.1]"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_stopped_at_each_of_its_moments(name: str, tmp_path: Path) -> None:
    check_every_moment(compose_config(*RUNS[name]), tmp_path, 18)


def test_streamed_pictures_with_random_crops(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", classes=4, train=14)
    words = ("strategy=naive", "benchmark=split", "train.epochs=1", "train.batch_size=10", "model.hidden=[8]")
    pictures = ("data=folder", f"data.root={tmp_path / 'data'}", "data.size=12", "data.in_memory=false")
    changes = ("data.workers=0", "train.crop=0.5", "train.flip=true")
    check_every_moment(compose_config(*TINY, *words, *pictures, *changes), tmp_path, 12)
