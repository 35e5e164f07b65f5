"""W&B's own environment variables and settings files: what they set, and what beats them."""

import json
from pathlib import Path
from typing import Any

import pytest

from cl_powerprop.experiment import run
from cl_powerprop.tracking.wandb_environment import chosen_by_the_user

from ..run.conftest import TINY, Command, tiny_config
from .conftest import inspect, wandb_files
from .wandb_server import WandbServer

WORDS = ("strategy=naive", "train.epochs=1", "benchmark.n_tasks=2", "data=digits", "logger=[wandb]")
VARIABLES = {
    "WANDB_NAME": "mine",
    "WANDB_JOB_TYPE": "trial",
    "WANDB_RUN_GROUP": "group",
    "WANDB_TAGS": "a,b",
    "WANDB_NOTES": "some notes",
    "WANDB_PROJECT": "tuning",
    "WANDB_ENTITY": "us",
    "WANDB_RUN_ID": "named",
    "WANDB_MODE": "dryrun",
}


def logged(folder: str = "runs") -> list[dict[str, Any]]:
    """The `run` record of each W&B run below a folder."""
    return [
        next(record["run"] for record in inspect(file) if record["type"] == "run") for file in wandb_files(Path(folder))
    ]


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
def test_variables_are_honoured(variables: None, tmp_path: Path) -> None:
    record = run(tiny_config(*WORDS), tmp_path / "run").record
    (made,) = logged()
    assert (made["display_name"], made["job_type"], made["run_group"]) == ("mine", "trial", "group")
    assert (made["project"], made["entity"], made["run_id"]) == ("tuning", "us", "named")
    assert (made["tags"], made["notes"]) == (["a", "b"], "some notes")
    assert record["wandb"]["name"] == "mine"
    assert not [message for message in record["messages"] if "W&B" in message]


@pytest.mark.slow
def test_an_option_beats_its_variable(variables: None, tmp_path: Path) -> None:
    options = {"name": "n", "job_type": "j", "group": "g", "tags": "[t]", "project": "p", "entity": "e"}
    run(tiny_config(*WORDS, *(f"logger.wandb.{key}={value}" for key, value in options.items())), tmp_path / "run")
    (made,) = logged()
    assert [made[key] for key in ("display_name", "job_type", "run_group", "tags", "project", "entity")] == [
        *("n", "j", "g", ["t"], "p", "e")
    ]


@pytest.mark.slow
def test_an_empty_variable_is_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B itself fails with WANDB_TAGS=, WANDB_MODE= and WANDB_RUN_ID=."""
    for name in (*VARIABLES, "WANDB_DIR", "WANDB_RESUME", "WANDB_SILENT", "WANDB_INIT_TIMEOUT"):
        monkeypatch.setenv(name, "")
    record = run(tiny_config(*WORDS), tmp_path / "run").record
    (made,) = logged()
    assert (made["display_name"], made["project"]) == ("naive, alpha 2, seed 0", "cl-powerprop")
    assert (made["job_type"], made["run_id"]) == ("naive", record["run_id"])
    assert "tags" not in made
    assert not [message for message in record["messages"] if "W&B" in message]


@pytest.mark.slow
def test_jobs_of_a_multirun_have_ids_of_their_own_and_the_name_with_their_number(
    variables: None, command: Command
) -> None:
    words = (*TINY, *WORDS, "seed=0,1", "run_dir=sweep", "hydra/launcher=basic")
    assert command("run", "-m", *words) == 0
    made = logged()
    assert sorted(run["display_name"] for run in made) == ["mine-0", "mine-1"]
    ids = {json.loads(Path("sweep", job, "run.json").read_text())["run_id"] for job in ("0", "1")}
    assert {run["run_id"] for run in made} == ids
    assert {run["run_group"] for run in made} == {"group"}


@pytest.mark.slow
@pytest.mark.parametrize("by", ["variable", "settings file"])
def test_it_can_be_switched_off(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "variable":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    else:  # what the command `wandb disabled` leaves
        Path("wandb").mkdir()
        Path("wandb/settings").write_text("[default]\nmode = disabled\n")
    record = run(tiny_config(*WORDS), tmp_path / "run").record
    assert "wandb" not in record
    assert not [message for message in record["messages"] if "W&B" in message]
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_resumed_run_keeps_what_it_began_with(
    variables: None, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ..run.test_resume import cut_off

    with cut_off(task=1, epoch=1):
        run(tiny_config("strategy=epn", "strategy.retrain_epochs=1", "logger=[wandb]"), tmp_path / "run")
    for name in VARIABLES:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_RUN_GROUP", "another")
    assert command("resume", "run") == 0
    first, second = logged()
    for key in ("display_name", "job_type", "run_group", "tags", "project", "entity", "run_id"):
        assert first[key] == second[key], key


@pytest.mark.slow
def test_resuming_a_run_by_its_id_is_w_and_b_s(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "again")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run(tiny_config(*WORDS), tmp_path / "one")
    assert set(server.runs) == {"again"}
    assert "W&B" not in caplog.text, "WANDB_SILENT"


REFUSED = {
    "WANDB_MODE": ("of", "'online', 'offline'"),
    "WANDB_TAGS": ("a,,b", "Tag at index 1 is empty"),
    "WANDB_RUN_ID": ("a/b", "cannot contain"),
    "WANDB_RESUME": ("perhaps", "'allow', 'must', 'never' or 'auto'"),
    "WANDB_PROJECT": ("a/b", "cannot contain"),
    "WANDB_API_KEY": (" 5e9c5e9c5e9c5e9c5e9c", "cannot start or end with whitespace"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_value_that_w_and_b_refuses_is_one_line_before_anything_is_trained(
    name: str, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    value, reason = REFUSED[name]
    monkeypatch.setenv(name, value)
    assert command("run", *TINY, *WORDS, "run_dir=run") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert name in line
    assert reason in line
    assert "5e9c" not in line
    assert not Path("run/run.json").exists()


def test_what_beats_what(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("wandb").mkdir()
    Path("wandb/settings").write_text("[default]\nmode = offline\nproject = filed\n")
    monkeypatch.setenv("WANDB_PROJECT", "set")
    assert chosen_by_the_user() == chosen_by_the_user("7") | {"mode": "offline"}
    assert chosen_by_the_user()["project"] == "set"


def test_the_dashboard_is_for_the_same_project(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "tuning")
    monkeypatch.setenv("WANDB_ENTITY", "us")
    with pytest.MonkeyPatch.context() as patch:
        seen: list[tuple[Any, ...]] = []
        patch.setattr("cl_powerprop.tracking.wandb_dashboard.create", lambda *words: seen.append(words) or "address")
        assert command("dashboard") == 0
    assert seen == [("tuning", "us", 10)]
