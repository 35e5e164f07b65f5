"""Several processes train one run: its numbers are those of a single process, and they fail together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from filelock import FileLock

from cl_powerprop.checkpoint import FILE, read_checkpoint
from cl_powerprop.composition import compose
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.experiment import run
from cl_powerprop.torchrun import Place, check_batch, place
from cl_powerprop.training.batches import Share, divide

from .conftest import tree
from .test_resume import assert_same

pytestmark = pytest.mark.slow

RANKS = 2
SMALL = ("device=cpu", "data=digits", "benchmark.n_tasks=2", "train.epochs=2", "model.hidden=[20,20]")
SMALL += ("train.batch_size=24", "progress=false")
# Rates are low: sums in another order differ in their last bits, and high rates make these differences grow.
GENTLE = ("strategy=naive", "optimizer.lr=0.05", "optimizer.momentum=0.9", "optimizer.weight_decay=1e-3")
SPARSE = (*GENTLE, "sparsity.target=0.9")
RUNS = {
    "naive": GENTLE,
    "augmented": ("strategy=naive", "train.shift=1", "train.rotate=10", "optimizer=adamw", "optimizer.lr=0.001"),
    "ewc": ("strategy=ewc", "model.heads=shared", "evaluation.every_steps=20"),
    "epn": ("strategy=epn", "strategy.criterion=both"),
    "packnet": ("strategy=packnet", "model.bias=per_task"),
    "wsn": ("strategy=wsn", "strategy.density=0.3", "optimizer.lr=0.05"),
    "hat": ("strategy=hat", "optimizer.lr=0.05", "model.alpha=1"),
    "joint": ("strategy=joint", "model.heads=shared"),
    "convnet": (
        *GENTLE,
        "optimizer.lr=0.002",
        "benchmark.n_tasks=1",
        "train.epochs=1",
        "data=mnist5k",
        "train.shift=1",
        "model=convnet",
        "model.width=4",
        "model.norm=group",
    ),
    "rigl": (*SPARSE, "sparsity=rigl", "sparsity.every=13", "model.alpha=2"),
    "set": (*SPARSE, "sparsity=set", "sparsity.every=13"),
    "gradual": (*SPARSE, "sparsity=gradual", "sparsity.every=13", "model.alpha=3"),
    "top_kast": (*SPARSE, "sparsity=top_kast", "sparsity.every=13"),
}
SLOW = ("device=cpu", "strategy=naive", "benchmark.n_tasks=1", "train.epochs=20", "model.hidden=[300,300]")
SLOW += ("sparsity=rigl", "optimizer.momentum=0.9", "progress=false")


def launch(*words: str, ranks: int = RANKS, **options: Any) -> "subprocess.Popen[str]":
    """Start several processes, as torchrun does."""
    call = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        call,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill torchrun and its processes, which are in sessions of their own, without time to write anything."""
    for each in (*psutil.Process(process.pid).children(recursive=True), process):
        each.kill()


def output_of(process: "subprocess.Popen[str]", seconds: float = 500) -> tuple[int, str, list[str]]:
    """Exit code, what was printed, and the lines of errors of ours."""
    try:
        printed, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    return process.returncode, printed, [line for line in errors.splitlines() if line.startswith("cl-powerprop:")]


def words_of(name: str) -> Sequence[str]:
    small = [word for word in SMALL if not (name == "convnet" and word.startswith(("model.hidden", "data=")))]
    return [*small, *RUNS[name]]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of all runs, trained by two processes, once for all workers of the tests."""
    folder = tmp_path_factory.getbasetemp() / "together"
    if worker_id != "master":
        folder = tmp_path_factory.getbasetemp().parent / "together"
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            return folder
        making = folder.with_name("making")
        making.mkdir()
        runs = {name: words_of(name) for name in RUNS} | {"whole": SLOW}
        (making / "runs.json").write_text(json.dumps(runs))
        process = launch(str(Path(__file__).with_name("several_ranks.py")), str(making))
        _, errors = process.communicate(timeout=1000)
        assert process.returncode == 0, errors
        making.rename(folder)
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_the_numbers_are_those_of_one_process(name: str, together: Path, tmp_path: Path) -> None:
    alone = run(words_of(name), tmp_path / "alone", quiet=True).path
    found, expected = (pd.read_csv(folder / "curves.csv") for folder in (together / name, alone))
    keys = ["trained_tasks", "epoch", "step", "eval_task", "split", "metric"]
    pd.testing.assert_frame_equal(found[keys], expected[keys])
    losses = expected.metric == "loss"
    np.testing.assert_allclose(found.value[losses], expected.value[losses], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.value, expected.value, rtol=0, atol=1e-3)  # a prediction may be on the edge
    record = json.loads((together / name / "run.json").read_text())
    assert (record["status"], record["ranks"], record["device"]) == ("complete", RANKS, "cpu")
    assert {path.name for path in (together / name).iterdir()} == {path.name for path in alone.iterdir()}


def test_all_processes_have_the_same_masks_after_every_change(together: Path) -> None:
    first, second = (json.loads((together / f"masks-{rank}.json").read_text()) for rank in range(RANKS))
    assert first == second
    changes = {name: len(set(masks)) for name, masks in first.items()}
    assert all(changes[name] > 2 for name in ("rigl", "set", "gradual", "top_kast"))


def test_a_run_that_was_killed_is_resumed_to_the_bit(together: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    process = launch("-m", "cl_powerprop", "run", *SLOW, "run_dir=killed")
    while not Path("killed", FILE).exists():
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()
    kill(process)
    process.communicate()
    assert json.loads(Path("killed/run.json").read_text())["status"] == "running"
    code, printed, errors = output_of(launch("-m", "cl_powerprop", "resume", "killed"))
    assert (code, errors) == (0, [])
    assert printed.count("killed: going on after 0 of 1 tasks and") == 1
    assert_same(Path("killed"), together / "whole")


@pytest.mark.thorough
@pytest.mark.parametrize("told", ["torchrun", "one"])
def test_a_signal_stops_all_at_the_same_moment_and_the_same_command_goes_on(
    told: str, together: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("-m", "cl_powerprop", "run", *SLOW, "run_dir=run")
    process = launch(*words)
    while not Path("run", FILE).exists():
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()
    target = process.pid if told == "torchrun" else psutil.Process(process.pid).children()[-1].pid
    os.kill(target, signal.SIGTERM)
    code, _, (line,) = output_of(process)
    assert code != 0, "torchrun's own, which says that it was told to stop, or that its processes were"
    assert "interrupted by SIGTERM; cl-powerprop resume run goes on from its last checkpoint" in line
    assert json.loads(Path("run/run.json").read_text())["status"] == "interrupted"
    begun = read_checkpoint(Path("run"), pytest.fail)
    assert begun is not None
    code, printed, errors = output_of(launch(*words))
    assert (code, errors) == (0, [])
    assert f"run: going on after 0 of 1 tasks and {begun.task['epochs']} epochs of the next" in printed
    assert_same(Path("run"), together / "whole")


FAILING = """
import os
import signal
from typing import Any

from avalanche.core import SupervisedPlugin

from cl_powerprop import Strategy, StrategyConfig, register_strategy


class Fail(SupervisedPlugin):
    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        if strategy.clock.train_iterations == 20 and os.environ["RANK"] == os.environ["FAILS"]:
            if os.environ["HOW"] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("the disk is full")


@register_strategy("failing", StrategyConfig)
class Failing(Strategy):
    def plugins(self, context: Any) -> list[Any]:
        return [Fail(), *super().plugins(context)]
"""


@pytest.mark.parametrize(
    ("fails", "how"), [("1", "raises"), pytest.param("0", "raises", marks=pytest.mark.thorough), ("1", "killed")]
)
def test_all_fail_together_and_one_says_why(fails: str, how: str, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    for name, value in {"PYTHONPATH": str(tmp_path), "FAILS": fails, "HOW": how}.items():
        monkeypatch.setenv(name, value)
    words = ("--import", "failing", "run", *SMALL, "strategy=failing", "run_dir=run")
    code, _, errors = output_of(launch("-m", "cl_powerprop", *words, cwd=tmp_path))
    assert code != 0
    said = "the disk is full" if how == "raises" else "another process of the run is gone"
    (line,) = errors
    assert said in line
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "failed"
    assert said in record["error"]


REFUSED = {
    "batch": (("train.batch_size=25",), "train.batch_size=25 does not divide among 2 processes"),
    "multirun": (("-m", "seed=0,1"), "call it once for each run, without -m"),
    "references": (
        ("references=[untrained]",),
        "several processes train no references; run this once without torchrun",
    ),
    "heads": (("strategy=joint", "model.heads=per_task"), "the heads of single tasks"),
    # The last one: the first process alone refuses it, and the other one sees that it has ended.
    "settings": ((*SLOW, "seed=1", "run_dir=whole"), "seed was 0 and is 1; choose another run_dir"),
}


@pytest.fixture(scope="module")
def ended(together: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[int], str, list[str]]]:
    """How commands of two processes ended: the exit codes of both, and what they printed, errors line by line."""
    folder = tmp_path_factory.mktemp("ended")
    shutil.copytree(together / "whole", folder / "whole")
    before = tree(folder / "whole")
    commands = {"complete": ["run", *SLOW, "run_dir=whole"]}
    commands |= {name: ["run", *SMALL, *words] for name, (words, _) in REFUSED.items()}
    (folder / "commands.json").write_text(json.dumps(commands))
    process = launch(str(Path(__file__).with_name("several_commands.py")), ".", cwd=folder)
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    assert tree(folder / "whole") == before
    found = {}
    for name in commands:
        each = [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(RANKS)]
        codes, printed, complaints = zip(*each, strict=True)
        found[name] = ([*codes], "".join(printed), "".join(complaints).splitlines())
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_what_several_processes_cannot_do_is_one_line(name: str, ended: Any) -> None:
    codes, printed, errors = ended[name]
    assert 0 not in codes
    (line,) = errors
    assert REFUSED[name][1] in line
    assert "task 1" not in printed


def test_a_complete_run_is_left_as_it_is(ended: Any) -> None:
    codes, printed, errors = ended["complete"]
    assert (codes, errors) == ([0, 0], [])
    assert printed.count("whole: complete") == 1


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("samples", [24, 25, 31, 48])
def test_parts_make_up_every_batch(ranks: int, samples: int) -> None:
    for batch in divide(samples, 24):
        parts = [Share(rank, ranks).of(batch) for rank in range(ranks)]
        assert [i for part in parts for i in range(samples)[part]] == list(range(samples)[batch])
        sizes = {part.stop - part.start for part in parts}
        assert max(sizes) - min(sizes) <= 1


def test_the_environment_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place() == Place(0, 1, 0)
    monkeypatch.setenv("RANK", "5")
    assert place() == Place(0, 1, 0), "torchrun sets all three"
    monkeypatch.setenv("WORLD_SIZE", "6")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert place() == Place(5, 6, 1)
    assert not place().is_first
    check_batch(12)
    with pytest.raises(ConfigurationError, match=r"batch_size=256 does not divide among 6 .* use 252 or 258"):
        check_batch(256)
    with pytest.raises(ConfigurationError, match=r"use 6$"):
        check_batch(4)


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from cl_powerprop import assemble

    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(assemble.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(assemble.torch.cuda, "device_count", lambda: 2)
    assert str(assemble.choose_device("auto")) == str(assemble.choose_device("cuda")) == "cuda:1"
    with pytest.raises(ConfigurationError, match="device=cuda:0 is one GPU for 2 processes"):
        assemble.choose_device("cuda:0")
    monkeypatch.setattr(assemble.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigurationError, match="device=cuda:1: torch finds 1 CUDA device"):
        assemble.choose_device("cuda")
    assert str(assemble.choose_device("cpu")) == "cpu"
    assert compose(["train.batch_size=32"]).train.batch_size == 32
