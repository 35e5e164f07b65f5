import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cl_powerprop.errors import RunFolderError
from cl_powerprop.launching.job_list import NAME, ListedJob, add_jobs
from cl_powerprop.run_lock import RunLock, holder_of
from cl_powerprop.status import RunStatus, as_text, show, statuses


def write(folder: Path, **content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"status": "running", "trained_tasks": 2, "n_tasks": 10, "seconds": {"total": 20.0}, "messages": []}
    (folder / "run.json").write_text(json.dumps(usual | content))
    return folder


def listed(sweep: Path, number: int, **content: Any) -> ListedJob:
    job = ListedJob(**{"job": number, "config": "c", "name": f"epn, seed {number}", "folder": str(number), **content})
    sweep.mkdir(exist_ok=True)
    add_jobs(sweep, [job])
    return job


def test_each_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        listed(tmp_path, number)
    listed(tmp_path, 4, state="failed", message="no data")
    listed(tmp_path, 6, state="complete")  # whose folder was removed
    write(tmp_path / "0", status="complete", trained_tasks=10, messages=["one", "two"])
    running = write(tmp_path / "1")
    write(tmp_path / "2", status="failed", error="loss is nan")
    write(tmp_path / "3", status="interrupted")
    write(tmp_path / "extra", trained_tasks="x")
    with RunLock(running).hold():
        found = {run.name: run for run in statuses(tmp_path)}
    assert list(found.values()) == [
        RunStatus("extra", "cut off"),
        RunStatus("0: epn, seed 0", "complete", "task 10/10", None, "two"),
        RunStatus("1: epn, seed 1", "running", "task 2/10", 80.0),
        RunStatus("2: epn, seed 2", "failed", "task 2/10", None, "loss is nan"),
        RunStatus("3: epn, seed 3", "cut off", "task 2/10"),
        RunStatus("4: epn, seed 4", "failed", message="no data"),
        RunStatus("5: epn, seed 5", "waiting"),
        RunStatus("6: epn, seed 6", "waiting"),
    ]
    assert as_text(list(found.values())).endswith("8 runs: 1 complete, 1 running, 2 waiting, 2 cut off, 2 failed")
    assert show(tmp_path) == 1
    assert "1: epn, seed 1  cut off" in capsys.readouterr().out, "its process has let go of it"


def test_a_run_that_was_killed_is_cut_off(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    code = (
        "import os, sys; from pathlib import Path; from cl_powerprop.run_lock import RunLock\n"
        "with RunLock(Path(sys.argv[1])).hold(): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(run)], check=False)
    assert (run / ".run.lock").exists()
    assert holder_of(run) is None
    assert [each.state for each in statuses(run)] == ["cut off"]
    with RunLock(run).hold():
        holder = holder_of(run)
        assert holder is not None
        assert holder.process == os.getpid()


def test_seeds_together_have_a_line_each(tmp_path: Path) -> None:
    listed(tmp_path, 0)
    for seed in (10, 9):
        write(tmp_path / "0" / f"seed_{seed}", status="complete")
    assert [run.name for run in statuses(tmp_path)] == ["0/seed_10: epn", "0/seed_9: epn"]


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["complete"], 0),
        (["complete", "interrupted"], 3),
        (["interrupted", "failed"], 1),
        (["complete", "pruned"], 0),
        (["pruned", "interrupted"], 3),
    ],
)
def test_exit_codes(tmp_path: Path, states: list[str], code: int) -> None:
    for number, state in enumerate(states):
        write(tmp_path / str(number), status=state)
    assert show(tmp_path) == code


def test_trials_that_are_pruned_are_done(tmp_path: Path) -> None:
    listed(tmp_path, 0, state="pruned")
    listed(tmp_path, 1, state="pruned", message="training diverged")
    write(tmp_path / "0", status="pruned", error="in the worse half")
    write(tmp_path / "1", status="failed", error="training diverged")
    assert statuses(tmp_path) == [
        RunStatus("0: epn, seed 0", "pruned", "task 2/10", None, "in the worse half"),
        RunStatus("1: epn, seed 1", "pruned", "task 2/10", None, "training diverged"),
    ]
    assert as_text(statuses(tmp_path)).endswith("2 runs: 2 pruned")
    listed(tmp_path, 1)  # as it is tried again
    assert [run.state for run in statuses(tmp_path)] == ["pruned", "failed"]


def test_a_trial_that_was_complete_and_failed_all_the_same_has_failed(tmp_path: Path) -> None:
    """As by an objective that the run has no value of; a job of a multirun may have been finished by `resume`."""
    for number, config in enumerate(["", "c"]):
        listed(tmp_path, number, config=config, state="failed", message="the run has no sparsity")
        write(tmp_path / str(number), status="complete", trained_tasks=10)
    trial, job = statuses(tmp_path)
    assert (trial.state, trial.message) == ("failed", "the run has no sparsity")
    assert job.state == "complete"
    assert show(tmp_path) == 1


def test_nothing_strange_reaches_the_terminal(tmp_path: Path) -> None:
    listed(tmp_path, 0, name="\x1b[31mred", message="\x1b]0;x\x07\n" * 99, state="failed")
    write(tmp_path / "a\x1b[2J", messages=["\x1b[2J", 3], seconds=[], n_tasks=True)
    (tmp_path / NAME).open("ab").write(b"\xff\xfe{")
    text = as_text(statuses(tmp_path))
    assert text.replace("\n", "").isprintable()
    assert len(text.splitlines()) == 3


def test_no_runs_is_one_clear_line(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(RunFolderError, match=r"no run|does not exist|is not a folder"):
            statuses(place)


def test_it_imports_no_torch(tmp_path: Path) -> None:
    write(tmp_path / "run", status="complete")
    code = (
        "import sys; from cl_powerprop.cli import main\ntry: main(['status', sys.argv[1]])\nexcept SystemExit: pass\n"
    )
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


def test_on_a_small_screen_what_is_at_work_or_failed_comes_first() -> None:
    states = ["complete"] * 4 + ["pruned", "waiting", "failed", "running", "waiting", "cut off"]
    runs = [RunStatus(str(number), state) for number, state in enumerate(states)]
    *lines, summary = as_text(runs, rows=5).splitlines()
    assert [line.split()[0] for line in lines] == ["5", "6", "7", "9"], "in their own order"
    assert (
        summary == "10 runs: 4 complete, 1 pruned, 1 running, 2 waiting, 1 cut off, 1 failed, 6 of which are not shown"
    )
    assert as_text(runs, rows=11) == as_text(runs)
