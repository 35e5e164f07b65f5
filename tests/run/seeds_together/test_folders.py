"""Each seed has a run folder of its own, like that of any other run."""

import os
from pathlib import Path

import pytest

import cl_powerprop
from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.experiment import Result, run
from cl_powerprop.run_folder import seed_folder
from cl_powerprop.seeds_together import run_together

from ..conftest import Command, tree
from .conftest import DIGITS, digits, record


def test_one_run_is_not_several() -> None:
    with pytest.raises(ConfigurationError, match="run_together"):
        cl_powerprop.run(digits("seeds_together=2"), "run")
    (result,) = cl_powerprop.run_together([*DIGITS, "strategy=naive", "seed=4", "train.epochs=1"], "group", quiet=True)
    assert isinstance(result, Result)
    assert result.path == seed_folder(Path("group"), 4)


def test_a_folder_with_a_run_is_refused(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    words = (*DIGITS, "strategy=naive", "train.epochs=1")
    run(digits(*words[len(DIGITS) :]), Path("run"))
    before = tree(Path("run"))
    assert command("run", *words, "seeds_together=2", "run_dir=run") == 2
    assert "the run folder" in capfd.readouterr().err
    assert tree(Path("run")) == before
    assert command("run", *words, "seeds_together=2", "run_dir=group") == 0
    assert command("run", *words, "run_dir=group") == 2
    assert command("run", *words, "train.epochs=2", "seeds_together=3", "run_dir=group") == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert "seed 0" in error
    assert "other settings: train.epochs was 1 and is 2" in error
    assert record(Path("group/seed_2"))["status"] == "complete"  # which was free
    with pytest.raises(RunFolderError, match="never overwritten"):
        run_together(digits(*words[len(DIGITS) :], "seeds_together=2", "resume=never"), "group")


def test_a_complete_group_can_be_read_only() -> None:
    config = digits("strategy=naive", "train.epochs=1", "seeds_together=2")
    first = run_together(config, "group")
    before = tree(Path("group"))
    os.chmod("group", 0o555)
    try:
        second = run_together(config, "group")
    finally:
        os.chmod("group", 0o755)
    assert [result.record for result in second] == [result.record for result in first]
    assert tree(Path("group")) == before


def test_more_seeds_later_leave_those_that_are_complete() -> None:
    words = ("strategy=naive", "train.epochs=1")
    run_together(digits(*words, "seeds_together=2"), "group")
    before = tree(Path("group"))
    results = run_together(digits(*words, "seeds_together=3"), "group")
    assert [result.record["seed"] for result in results] == [0, 1, 2]
    assert tree(Path("group")).items() >= before.items()


@pytest.mark.slow
def test_a_multirun_of_groups_is_one_table_and_can_be_compared(
    command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("-m", *DIGITS, "train.epochs=1", "strategy=naive,packnet", "seeds_together=2", "run_dir=sweep")
    for _ in range(2):  # the second one finds all of them complete
        assert command("run", *words, "hydra/launcher=basic") == 0
        rows = [line for line in capfd.readouterr().out.splitlines() if line.startswith("│")]
        assert [word for row in rows for word in row.split() if "/seed_" in word] == [
            f"{job}/seed_{seed}" for job in (0, 1) for seed in (0, 1)
        ]
    assert command("compare", "sweep", "--out", "report") == 0
    runs = cl_powerprop.load_runs(["sweep"]).runs
    assert sorted(zip(runs["strategy"], runs["seed"], strict=True)) == [
        (strategy, seed) for strategy in ("naive", "packnet") for seed in (0, 1)
    ]
    assert "seeds_together" not in runs.columns


@pytest.mark.slow
def test_lines_of_progress_say_their_seed(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    words = (*DIGITS, "progress=true", "strategy=naive", "references=[untrained]", "seeds_together=2")
    assert command("run", *words, "run_dir=group") == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if ": task " in line]
    assert sum(line.startswith("seed 0: task ") for line in lines) == 3
    assert sum(line.startswith("seed 1: task ") for line in lines) == 3
    assert not [line for line in lines if not line.startswith("seed ")]
