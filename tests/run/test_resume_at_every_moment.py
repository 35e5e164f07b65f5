"""A run that is stopped at any moment goes on from there, and ends with the same numbers, to the bit: strategies."""

from pathlib import Path

import pytest

from .conftest import compose_config
from .every_moment import ADAM, DIGITS, MASKED, TINY, check_every_moment

pytestmark = [pytest.mark.slow, pytest.mark.cuda]

NORM = ("data=mnist5k", "train.batch_size=2000", "model=convnet", "model.width=2", "model.norm=batch")
RUNS = {
    "naive": (*DIGITS, "strategy=naive", *ADAM, "train.shift=2", "train.warmup=0.1"),
    "ewc": (*DIGITS, "strategy=ewc", "strategy.mode=separate", "train.precision=bf16"),
    "packnet": (*DIGITS, "strategy=packnet", *MASKED, *ADAM, "model.bias=per_task"),
    "inference": (
        *(*DIGITS, "strategy=packnet", *MASKED, "strategy.task_inference=entropy"),
        "benchmark.scenario=domain",
    ),
    "epn": (*DIGITS, "strategy=epn", *MASKED, *ADAM, "strategy.criterion=saliency", "model.bias=frozen"),
    "epn-norm": (*TINY, "strategy=epn", *MASKED, *NORM, "model.bias=per_task", "train.shift=1"),
    "wsn": (*DIGITS, "strategy=wsn", *MASKED, *ADAM, "strategy.density=0.3", "model.bias=frozen"),
    "supsup": (*DIGITS, "strategy=supsup", "optimizer.momentum=0.9", "model.bias=per_task"),
    "epn-scores": (*DIGITS, "strategy=epn", *MASKED, "strategy.criterion=scores", "optimizer.momentum=0.9"),
    "epn-scored": (
        *(*DIGITS, "strategy=epn", "strategy.train_through=scored", "strategy.score_lr=2000"),
        *("optimizer.momentum=0.9", "train.epochs=3", "strategy.retrain_epochs=2", "strategy.rounds=2"),
    ),
    "hat": (*DIGITS, "strategy=hat", *MASKED, "optimizer.momentum=0.9", "model.bias=per_task"),
    "joint": (*DIGITS, "strategy=joint", "model.heads=per_task", "train.rotate=10"),
    "si": (*DIGITS, "strategy=si", *ADAM),
    "rwalk": (*DIGITS, "strategy=rwalk", "strategy.interval=2", "model.heads=shared"),
    "lwf": (*DIGITS, "strategy=lwf"),
    "derpp": (*DIGITS, "strategy=derpp", "strategy.mem_size=30", "strategy.mem_batch=20", "train.shift=1"),
    "agem": (*DIGITS, "strategy=agem", "strategy.mem_size=20", "strategy.mem_batch=20"),
    "independent": (*DIGITS, "strategy=independent", "train.clip_norm=1"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_strategy_that_is_stopped_at_each_of_its_moments(name: str, tmp_path: Path) -> None:
    check_every_moment(compose_config(*RUNS[name]), tmp_path, 20)


def test_the_untrained_network_that_is_stopped_between_its_tests(tmp_path: Path) -> None:
    check_every_moment(compose_config(*DIGITS, "strategy=untrained"), tmp_path, 4)
