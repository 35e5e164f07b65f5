"""Multiruns whose processes die, are told to stop, or fail: nothing is lost, and the same command runs what is left."""

import functools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ..run.conftest import tree
from . import sweeps
from .sweeps import numbers

pytestmark = pytest.mark.slow

WORDS = (
    *("data=digits", "strategy=naive", "benchmark.n_tasks=3", "train.epochs=8", "model.hidden=[20]"),
    *("progress=false", "checkpoint.max_share=1", "hydra.launcher.n_jobs=2"),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


start = functools.partial(sweeps.start, common=WORDS)
ended = functools.partial(sweeps.ended, common=WORDS)


def record(folder: Path) -> dict[str, object]:
    try:
        found: dict[str, object] = json.loads((folder / "run.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def trainers(sweep: str) -> Iterator[int]:
    """The processes that train just now."""
    for folder in Path(sweep).glob("*"):
        values = record(folder) if folder.is_dir() else {}
        if values.get("status") == "running":
            yield int(str(values["process"]))


def wait_for_checkpoints(sweep: str, count: int, process: "subprocess.Popen[str]") -> None:
    while len(list(Path(sweep).glob("*/checkpoint.safetensors"))) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    sweep = tmp_path_factory.mktemp("serial") / "sweep"
    words = [word for word in WORDS if "n_jobs" not in word]
    call = [sys.executable, "-m", "cl_powerprop", "run", "-m", *words, "hydra/launcher=basic", "seed=range(4)"]
    subprocess.run([*call, f"run_dir={sweep}"], check=True, capture_output=True)
    return numbers(str(sweep))


@pytest.mark.parametrize("seed", range(2))
def test_killed_processes_cost_nothing(seed: int, serial: dict[int, bytes]) -> None:
    process = start("seed=range(4)", "run_dir=sweep")
    wait_for_checkpoints("sweep", 1, process)
    time.sleep(random.Random(seed).uniform(0, 0.5))
    victim = next(trainers("sweep"))
    os.kill(victim, signal.SIGKILL)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert re.search(r"job \d: naive, seed \d: its process was killed by SIGKILL, .*; it is tried again", printed)
    assert numbers("sweep") == serial


def test_a_job_that_dies_each_time_costs_no_other_one(serial: dict[int, bytes]) -> None:
    process = start("seed=range(4)", "run_dir=sweep", "hydra.launcher.retries=0")
    wait_for_checkpoints("sweep", 1, process)
    os.kill(next(trainers("sweep")), signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    (line,) = errors.splitlines()
    match = re.fullmatch(r"cl-powerprop: error: job (\d): naive, seed \1: its process was killed by SIGKILL, .*", line)
    assert match, line
    code, printed, errors = ended("seed=range(4)", "run_dir=sweep")
    assert (code, errors) == (0, "")
    assert "1 of 4 jobs are left to run" in printed
    assert numbers("sweep") == serial


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_command(number: int, serial: dict[int, bytes]) -> None:
    process = start("seed=range(4)", "run_dir=sweep")
    wait_for_checkpoints("sweep", 1, process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive
    process.communicate()
    assert process.returncode == (143 if number == signal.SIGTERM else -9)
    begun = len(numbers_begun("sweep"))
    time.sleep(1)
    assert len(numbers_begun("sweep")) == begun <= 3, "none begins another job"
    code, _, errors = ended("seed=range(4)", "run_dir=sweep")
    assert (code, errors) == (0, "")
    assert numbers("sweep") == serial


def numbers_begun(sweep: str) -> list[Path]:
    return [path for path in Path(sweep).iterdir() if path.is_dir()]


def test_exactly_the_jobs_that_failed_run_again() -> None:
    quick = ("train.epochs=1", "benchmark.n_tasks=1")
    words = [*quick, "optimizer.lr=0.1,0.2,1e6,1e7,1e8,1e9,-1", "run_dir=sweep"]
    code, _, errors = ended(*words)
    assert code == 1
    for part in ("job 2: naive, lr 1000000, seed 0", "job 6: naive, lr -1, seed 0: optimizer.lr, the learning rate"):
        assert part in errors
    before = tree(Path("sweep"))
    code, printed, _ = ended(*words)
    assert code == 1
    assert "5 of 7 jobs are left to run" in printed
    code, printed, _ = ended(*words[:-2], "optimizer.lr=0.05,1e6,0.1,-1", "run_dir=sweep", "--retry-failed")
    assert "2 of 4 jobs failed before, and run again" in printed
    code, printed, errors = ended(*words[:-2], "optimizer.lr=0.2,0.05,0.1", "run_dir=sweep")
    assert (code, errors) == (0, "")
    assert "1 of 3 jobs are left to run" in printed
    after = tree(Path("sweep"))
    done = [name for name in before if name.startswith(("0/", "1/"))]
    assert len(done) > 5
    assert all(after[name] == before[name] for name in done), "what is complete is not touched"
