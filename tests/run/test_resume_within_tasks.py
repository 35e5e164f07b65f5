"""A run that is cut off within a task goes on from the last epoch that was finished, to the bit."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cl_powerprop import checkpoint_files
from cl_powerprop.checkpoint import FILE, Checkpoint, read_checkpoint
from cl_powerprop.config import RunConfig
from cl_powerprop.experiment import run

from .conftest import RUNS, TINY, Command, compose_config
from .test_resume import MORE, assert_same, cut_off

pytestmark = pytest.mark.slow

EPOCHS = ("train.epochs=4", "benchmark.n_tasks=2")
MASKED = ("strategy.retrain_epochs=2",)
CUTS = (1, 2, 3)  # in which epoch: of masked strategies, before the mask is chosen, right after that, and in retraining
OTHERS = {
    "joint": ("strategy=joint", "model.heads=per_task"),
    "augmented": ("strategy=naive", "train.shift=2", "train.rotate=10", "optimizer=adam", "optimizer.lr=0.01"),
    "within": ("strategy=ewc", "evaluation.every_steps=15", "model.alpha=3", "optimizer=adamw", "optimizer.lr=0.01"),
    "wsn": (
        "strategy=wsn",
        "strategy.density=0.3",
        "optimizer=adam",
        "optimizer.lr=0.01",
        "strategy.reset_scores=true",
    ),
    "saliency": ("strategy=epn", "strategy.criterion=saliency", "train.warmup=0.1", "model.bias=per_task"),
}

# Each is in the middle of its schedule when it is cut off.
SPARSE = ("strategy=naive", "sparsity.target=0.9", "optimizer.momentum=0.9", "optimizer.weight_decay=1e-3")
OTHERS |= {
    "one-shot": (*SPARSE, "sparsity=one_shot"),
    "iterative": (*SPARSE, "benchmark.n_tasks=1", "sparsity=iterative", "sparsity.rounds=4"),
    "rewinding": (*SPARSE, "benchmark.n_tasks=1", "sparsity=iterative", "sparsity.rounds=4", "sparsity.rewind_to=20"),
    "gradual": (*SPARSE, "sparsity=gradual", "sparsity.every=13", "model.alpha=3"),
    "static": (*SPARSE, "sparsity=static"),
    "set": (*SPARSE, "sparsity=set", "sparsity.every=13"),
    "rigl": (*SPARSE, "sparsity=rigl", "sparsity.every=13", "model.alpha=2"),
    "rigl-adamw": (*SPARSE[:2], "sparsity=rigl", "sparsity.every=13", "optimizer=adamw", "optimizer.lr=0.01"),
    "top_kast": (*SPARSE, "sparsity=top_kast", "sparsity.every=13"),
    "steps": ("strategy=naive", "train.steps=130"),
}


def config_of(name: str) -> RunConfig:
    words = {**RUNS, **MORE, **OTHERS}[name]
    masked = MASKED if set(words) & {"strategy=epn", "strategy=hat", "strategy=packnet", "strategy=wsn"} else ()
    small = [word for word in TINY if not (word.startswith("model.hidden") and "model=convnet" in words)]
    shares = ("strategy.shares=[0.2,0.5]",) if any("shares" in word for word in words) else ()
    tasks = ("benchmark.n_tasks=5",) if "benchmark=split_mnist" in words else ()
    return compose_config(*small, *EPOCHS, *words, *masked, *shares, *tasks)


# Of the runs that are also cut off between tasks, every third: each takes five runs.
@pytest.mark.parametrize(
    "name",
    [*(pytest.param(name, marks=pytest.mark.thorough) for name in list(RUNS)[::3]), *list(MORE)[::3], *OTHERS],
)
def test_a_run_that_is_cut_off_in_one_epoch_after_the_other(name: str, tmp_path: Path) -> None:
    whole = run(config_of(name), tmp_path / "whole").path
    last = 0 if name == "joint" else config_of(name).benchmark.n_tasks - 1
    begun: Checkpoint | None = None
    for epoch in CUTS:
        with cut_off(min(last, 1), epoch):
            run(config_of(name), tmp_path / "run")
        begun = read_checkpoint(tmp_path / "run", pytest.fail)
        assert begun is not None
        assert begun.task["epochs"] == epoch
    run(config_of(name), tmp_path / "run")
    assert_same(tmp_path / "run", whole)


def test_the_first_task_is_resumed_and_not_tested_before(tmp_path: Path) -> None:
    words = (*TINY, *EPOCHS, "strategy=naive", "model.heads=shared")
    with cut_off(0, 2):
        run(compose_config(*words), tmp_path / "run")
    begun = read_checkpoint(tmp_path / "run", pytest.fail)
    assert begun is not None
    assert begun.results["run"]["trained_tasks"] == 0
    run(compose_config(*words), tmp_path / "run")
    assert_same(tmp_path / "run", run(compose_config(*words), tmp_path / "whole").path)


def test_a_run_of_one_task_that_was_killed(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process is killed at an arbitrary moment, without time to write anything."""
    words = ["strategy=naive", "benchmark.n_tasks=1", "train.epochs=40", "model.hidden=[400,400]", "progress=false"]
    call = [sys.executable, "-m", "cl_powerprop", "run", *words, "run_dir=killed"]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not Path("killed", FILE).exists():
        time.sleep(0.02)
        assert process.poll() is None, "it ended too soon"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads(Path("killed/run.json").read_text())["trained_tasks"] == 0
    assert command("resume", "killed") == 0
    assert re.search(
        "^killed: going on after 0 of 1 tasks and [0-9]+ epochs of the next$", capsys.readouterr().out, re.M
    )
    assert command("run", *words, "run_dir=whole") == 0
    assert_same(Path("killed"), Path("whole"))


def test_a_strategy_that_does_not_say_so_is_not_resumed_within_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cl_powerprop.strategies.naive import Naive

    monkeypatch.setattr(Naive, "resumable_within_tasks", False)
    with cut_off(0, 2):
        run(compose_config(*TINY, *EPOCHS, "strategy=naive"), tmp_path / "run")
    assert read_checkpoint(tmp_path / "run", pytest.fail) is None


def test_a_state_that_lacks_something_is_one_line(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with cut_off(0, 2):
        run(compose_config(*TINY, *EPOCHS, "strategy=naive"), tmp_path / "run")
    found = checkpoint_files.read(tmp_path / "run", pytest.fail)
    assert found is not None
    tensors, metadata = found
    del tensors["task/generator/order"], metadata["sha256"], metadata["format"]
    checkpoint_files.write(tmp_path / "run", tensors, metadata)
    assert command("resume", "run") == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "generator/order" in line
