"""Ray: two nodes on this machine, workers that die, and what is refused."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cl_powerprop.launching.engine import Call, outcomes
from cl_powerprop.launching.ray_cluster import RayEngine

from ..docs.documents import ROOT
from . import stubs
from .conftest import Serial
from .sweeps import LONG, QUICK, ended, numbers, start, wait_for_checkpoint
from .test_sweeps import record

pytestmark = pytest.mark.slow

RAY = "hydra/launcher=ray"
STORE = 80_000_000


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": STORE, "env_vars": {"PYTHONPATH": str(ROOT)}}
    before = signal.getsignal(signal.SIGTERM)
    nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        nodes.add_node(**node)
        signal.signal(signal.SIGTERM, before)  # Ray's handler would end this process in tests of signals
        yield nodes.address
    finally:
        nodes.shutdown()


def test_eight_runs_on_two_nodes_are_those_of_a_serial_sweep(cluster: str, serial: Serial) -> None:
    words = (*QUICK, "seed=range(8)")
    on_ray = (*words, "run_dir=sweep", RAY, f"hydra.launcher.address={cluster}")
    code, printed, errors = ended(*on_ray)
    assert (code, errors) == (0, "")
    assert "pid=" not in printed, "nothing of Ray's own"
    assert numbers("sweep") == serial(QUICK, 8)
    code, printed, errors = ended(*on_ray)
    assert (code, errors) == (0, "")
    assert "0 of 8 jobs are left to run" in printed


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.thorough)])
def test_a_worker_that_is_gone_goes_on_from_its_checkpoint(cluster: str, number: int, serial: Serial) -> None:
    words = (*LONG, "seed=0,1", "run_dir=sweep", RAY, f"hydra.launcher.address={cluster}")
    process = start(*words)
    run = wait_for_checkpoint("sweep", process)
    os.kill(int(str(record(run)["process"])), number)
    printed, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert re.search(rf"job {run.name}: naive, seed {run.name}: .*; it is tried again", printed)
    assert len(record(run)["resumed"]) == 1  # type: ignore[arg-type]
    assert numbers("sweep") == serial(LONG, 2)


@pytest.mark.thorough
def test_no_process_outlives_the_command() -> None:
    process = start(*LONG, "seed=0,1,2", "run_dir=sweep", RAY, "+hydra.launcher.init.num_cpus=2")
    wait_for_checkpoint("sweep", process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    process.communicate(timeout=20)
    assert process.returncode == 143
    code, _, errors = ended(*LONG, "seed=0,1,2", "run_dir=sweep")
    assert (code, errors) == (0, "")


@pytest.mark.thorough
def test_failures_are_named_and_the_rest_is_complete(cluster: str) -> None:
    words = (*QUICK, "optimizer.lr=0.1,1e6,-1", "run_dir=sweep", RAY, f"hydra.launcher.address={cluster}")
    code, _, errors = ended(*words)
    assert code == 1
    lines = errors.splitlines()
    assert len(lines) == 2
    assert re.match(r"cl-powerprop: error: job 1: naive, lr 1000000, seed 0: .*diverged", lines[0])
    assert "job 2: naive, lr -1, seed 0: optimizer.lr, the learning rate" in lines[1]
    code, printed, _ = ended(*words, "--retry-failed")
    assert code == 1
    assert "2 of 3 jobs failed before, and run again" in printed


def test_calls_on_a_cluster_end_alone(cluster: str, tmp_path: Path) -> None:
    """By the engine, without the command: as on a machine that does not see the command's files."""
    engine, told = RayEngine(address=cluster), []
    kinds = ["fine", "dies", "dies once", "is stopped once"]
    calls = [Call((kind, str(tmp_path)), kind) for kind in kinds]
    found = {outcome.index: outcome for outcome in outcomes(engine, stubs.call, calls, told.append)}
    assert [found[index].result for index in (0, 2, 3)] == [("fine", 0), ("dies once", 1), ("is stopped once", 1)]
    assert found[1].died
    assert "\n" not in found[1].died
    assert "is stopped once: its process was interrupted by SIGTERM; it is tried again" in told
    assert sorted(line.partition(":")[0] for line in told) == ["dies", "dies once", "is stopped once"]


def test_calls_are_told_to_stop(cluster: str, tmp_path: Path) -> None:
    engine = RayEngine(address=cluster)
    futures = engine.start(stubs.wait_for_a_signal, [(str(tmp_path), 0)])
    while not Path("begun").exists():
        time.sleep(0.05)
    engine.end(futures)
    assert Path("stopped").exists()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:1",
        *(
            pytest.param(each, marks=pytest.mark.thorough)
            for each in ("10.255.255.1:6379", "no-such-host.invalid:6379")
        ),
    ],
)
def test_an_address_without_ray_is_one_line(address: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    code, printed, errors = ended(*QUICK, "seed=0,1", "run_dir=sweep", RAY, f"hydra.launcher.address={address}")
    assert time.monotonic() - begun < 10
    assert (code, printed) == (2, "")
    (line,) = errors.splitlines()
    assert f"no Ray cluster can be reached at hydra.launcher.address={address}: " in line
    assert not list(tmp_path.iterdir())
