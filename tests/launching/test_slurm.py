"""SLURM by submitit: on this machine alone, and with programs that stand in for SLURM's own."""

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from cl_powerprop.launching.engine import Call, outcomes
from cl_powerprop.launching.slurm import SlurmEngine

from ..docs.documents import ROOT
from . import slurm_stand_in, stubs
from .conftest import Serial
from .sweeps import LONG, QUICK, ended, numbers, start, wait_for_checkpoint
from .test_sweeps import record

pytestmark = pytest.mark.slow

SLURM = "hydra/launcher=slurm"
LOCAL = (SLURM, "hydra.launcher.cluster=local")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "stand in"
    folder.mkdir()
    slurm_stand_in.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STAND_IN", str(folder))
    return folder


def submitted(process: psutil.Process) -> list[psutil.Process]:
    """The processes that SLURM would start and tell of its signals."""
    return [each for each in process.children(recursive=True) if "submitit.core._submit" in each.cmdline()]


def test_eight_runs_are_those_of_a_serial_sweep(serial: Serial) -> None:
    words = (*QUICK, "seed=range(8)")
    code, printed, errors = ended(*words, *LOCAL, "hydra.launcher.runs_per_job=4", "run_dir=sweep")
    assert (code, errors) == (0, "")
    assert "2 local jobs are queued" in printed
    assert not list(Path("sweep").rglob("*.pkl")), "they would hold what the command was given"
    assert numbers("sweep") == serial(QUICK, 8)
    code, printed, errors = ended(*words, *LOCAL, "run_dir=sweep")
    assert (code, errors) == (0, "")
    assert "0 of 8 jobs are left to run" in printed


def test_a_job_whose_time_is_up_is_queued_again(serial: Serial) -> None:
    process = start(*LONG, "seed=0,1", "run_dir=sweep", *LOCAL, "hydra.launcher.runs_per_job=2")
    run = wait_for_checkpoint("sweep", process)
    (job,) = submitted(psutil.Process(process.pid))
    job.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=150)
    assert (process.returncode, errors) == (0, "")
    assert len(record(run)["resumed"]) == 1  # type: ignore[arg-type]
    (log,) = Path("sweep/.submitit").rglob("*_log.out")
    assert "Requeued job" in log.read_text()
    assert numbers("sweep") == serial(LONG, 2)


@pytest.mark.thorough
def test_a_job_whose_time_was_up_too_often_has_failed() -> None:
    process = start(
        *LONG, "seed=0,1", "run_dir=sweep", *LOCAL, "hydra.launcher.max_num_timeout=0", "hydra.launcher.timeout_min=9"
    )
    run = wait_for_checkpoint("sweep", process)
    job = next(each for each in psutil.process_iter() if each.pid == record(run)["process"])
    owner = next(each for each in submitted(psutil.Process(process.pid)) if job in each.children(recursive=True))
    owner.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=150)
    assert process.returncode == 1
    (line,) = errors.splitlines()
    number = run.name
    assert f"job {number}: naive, seed {number}: its time was up too often: raise hydra.launcher.timeout_min" in line
    assert record(run)["status"] == "interrupted"
    code, printed, _ = ended(*LONG, "seed=0,1", "run_dir=sweep", *LOCAL, "--retry-failed")
    assert code == 0
    assert "1 of 2 jobs failed before, and run again" in printed
    assert len(record(run)["resumed"]) == 1  # type: ignore[arg-type]


def test_what_is_submitted(stand_in: Path, serial: Serial) -> None:
    words = (
        *("partition=gpu", "account=lab", "timeout_min=90", "gpus_per_node=1", "mem_gb=8", "cpus_per_run=2"),
        *("runs_per_job=2", "array_parallelism=3", "signal_delay_s=60", "setup=['module load cuda']"),
    )
    settings = [f"hydra.launcher.{word}" for word in words]
    code, printed, errors = ended(
        *(*QUICK, "seed=range(8)", "run_dir=sweep", SLURM, *settings),
        "+hydra.launcher.additional_parameters.mail-type=END",
    )
    assert (code, errors) == (0, "")
    assert "4 slurm jobs are queued, from 123_0 on" in printed
    lines = (stand_in / "script.sh").read_text().splitlines()
    expected = {
        *("array=0-3%3", "partition=gpu", "account=lab", "time=90", "gpus-per-node=1", "mem=8GB", "cpus-per-task=4"),
        *("signal=USR1@60", "requeue", "mail-type=END", "job-name=cl-powerprop", "open-mode=append", "nodes=1"),
    }
    assert {f"#SBATCH --{option}" for option in expected} <= set(lines)
    assert lines.index("export SUBMITIT_PREEMPT_SIGNAL=USR1") + 1 == lines.index("module load cuda")
    assert numbers("sweep") == serial(QUICK, 8)


@pytest.mark.parametrize(
    "signals", [pytest.param((signal.SIGUSR1,), marks=pytest.mark.thorough), (signal.SIGTERM, signal.SIGUSR1)]
)
def test_a_preempted_job_is_queued_again(stand_in: Path, signals: tuple[int, ...], serial: Serial) -> None:
    """Every process of the job gets the signal, as SLURM has it."""
    process = start(*LONG, "seed=0", "run_dir=sweep", SLURM)
    run = wait_for_checkpoint("sweep", process)
    leader = int((stand_in / "123.pid").read_text())
    everyone = psutil.Process(leader).children(recursive=True)
    for number in signals:
        for each in everyone:
            each.send_signal(number)
        time.sleep(0.1)
    _, errors = process.communicate(timeout=150)
    assert (process.returncode, errors) == (0, "")
    assert "scontrol requeue 123" in (stand_in / "calls").read_text()
    assert len(record(run)["resumed"]) == 1  # type: ignore[arg-type]
    assert numbers("sweep") == serial(LONG, 1)


def test_calls_are_cancelled(stand_in: Path, tmp_path: Path) -> None:
    engine = SlurmEngine(folder=str(tmp_path / "%j"))
    futures = engine.start(stubs.wait_for_a_signal, [(str(tmp_path), 0)] * 2)
    while not Path("begun").exists():
        time.sleep(0.05)
    engine.end(futures)
    calls = (stand_in / "calls").read_text()
    assert "scancel 123_0" in calls
    assert "scancel 123_1" in calls
    deadline = time.monotonic() + 15
    while not Path("stopped").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert Path("stopped").exists()
    assert "requeue" not in (stand_in / "calls").read_text()
    for file in stand_in.glob("*.pid"):
        os.killpg(int(file.read_text()), signal.SIGKILL)  # as SLURM does after half a minute


def test_what_sbatch_refuses_is_one_line(stand_in: Path) -> None:
    code, _, errors = ended(*QUICK, "seed=0,1", "run_dir=sweep", SLURM, "hydra.launcher.partition=nowhere")
    assert code == 2
    (line,) = errors.splitlines()
    assert re.search("sbatch has refused the jobs: .*invalid partition specified: nowhere", line)


def test_no_process_outlives_the_command() -> None:
    process = start(*LONG, "seed=0,1", "run_dir=sweep", *LOCAL)
    wait_for_checkpoint("sweep", process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive
    process.communicate()
    assert process.returncode == 143
    code, _, errors = ended(*LONG, "seed=0,1", "run_dir=sweep", *LOCAL, "hydra.launcher.runs_per_job=2")
    assert (code, errors) == (0, "")


def test_calls_end_alone(tmp_path: Path) -> None:
    """By the engine, without the command: as on a machine that does not see the command's files."""
    engine, told = SlurmEngine(cluster="local", runs_per_job=4, folder=str(tmp_path / "of submitit" / "%j")), []
    kinds = ["fine", "dies", "dies once", "is stopped once", "fine"]
    calls = [Call((kind, str(tmp_path)), kind) for kind in kinds]
    found = {outcome.index: outcome for outcome in outcomes(engine, stubs.call, calls, told.append)}
    assert [found[index].result for index in (0, 2, 3, 4)] == [
        *(("fine", 0), ("dies once", 1), ("is stopped once", 1), ("fine", 0))
    ]
    assert str(found[1].error) == "its process was killed by SIGKILL, as the system does when memory runs out"
    assert told == [], "the SLURM job has tried again itself"
    assert {path.name for path in tmp_path.glob("*-1")} == {"dies-1", "dies once-1", "is stopped once-1"}
