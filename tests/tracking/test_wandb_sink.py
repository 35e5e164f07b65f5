"""The data that is sent to W&B, read back by W&B's own reader."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cl_powerprop.analysis.finding import find_run_folders
from cl_powerprop.tracking import Row

from ..run.conftest import MASKED, TINY, Command, tiny_config, tree
from .conftest import inspect, inspect_summary, wandb_files
from .wandb_server import WandbServer

pytestmark = pytest.mark.slow

QUICKSTART = ("experiment=quickstart/epn", "train.epochs=4", "strategy.retrain_epochs=2", "benchmark.n_tasks=4")
OFFLINE = ("logger=[wandb]", "logger.wandb.mode=offline")


def history(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def run_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    return next(record["run"] for record in records if record["type"] == "run")


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The quickstart with W&B offline: its run folder, and the `.wandb` file."""
    from cl_powerprop.experiment import run

    from ..run.conftest import compose_config

    root = tmp_path_factory.mktemp("quickstart")
    words = (*QUICKSTART, *OFFLINE, f"logger.wandb.dir={root}", "logger.wandb.tags=[a,b]", "logger.wandb.entity=us")
    run(compose_config(*words, "progress=false", "logger.wandb.log_model=true"), root / "run")
    (file,) = wandb_files(root)
    return root / "run", file


@pytest.fixture(scope="module")
def records(quickstart: tuple[Path, Path]) -> list[dict[str, Any]]:
    return inspect(quickstart[1])


def test_the_config_is_all_there(quickstart: tuple[Path, Path], records: list[dict[str, Any]]) -> None:
    folder, _ = quickstart
    made = run_of(records)
    record = json.loads((folder / "run.json").read_text())
    assert made["run_id"] == record["run_id"] == record["wandb"]["id"]
    assert (made["project"], made["entity"], made["job_type"]) == ("cl-powerprop", "us", "epn")
    assert made["display_name"] == "epn, alpha 2, seed 0"
    assert made["tags"] == ["a", "b"]
    config = made["config"]["update"]
    written = yaml.safe_load((folder / "config.yaml").read_text())
    for group in ("benchmark", "data", "model", "strategy", "optimizer", "train", "evaluation", "seed", "device"):
        assert config[group] == written[group], group
    assert config["task_names"] == list(pd.read_csv(folder / "accuracy_matrix.csv").columns)
    assert config["run"]["versions"] == record["versions"]


def test_every_curve_ends_as_in_the_csv(quickstart: tuple[Path, Path], records: list[dict[str, Any]]) -> None:
    folder, file = quickstart
    curves = pd.read_csv(folder / "curves.csv")
    expected: dict[str, list[float]] = {}
    for line in curves.drop(columns="run_id").itertuples(index=False):
        expected.setdefault(Row(*line).curve, []).append(line.value)
    assert len(expected) == 4 * 6 + 1, "loss and accuracy of each task and split, and the capacity used"
    logged: dict[str, list[float]] = {}
    for point in history(records):
        for name, value in point.items():
            logged.setdefault(name, []).append(value)
    for name, values in expected.items():
        assert logged[name] == values, name
    summary = inspect_summary(file)["summary"]
    assert {name: summary[name] for name in expected} == {name: values[-1] for name, values in expected.items()}


def test_average_accuracy_so_far_is_history(quickstart: tuple[Path, Path], records: list[dict[str, Any]]) -> None:
    matrix = pd.read_csv(quickstart[0] / "accuracy_matrix.csv").to_numpy()
    averages = {float(task + 1): matrix[task, : task + 1].mean() for task in range(4)}
    points = [point for point in history(records) if "test/average_accuracy" in point]
    assert {point["progress"]: point["test/average_accuracy"] for point in points} == pytest.approx(averages)
    assert "average_accuracy" not in (quickstart[0] / "curves.csv").read_text(), "it follows from the rows"


def test_curves_have_their_x_axis(records: list[dict[str, Any]]) -> None:
    axes = {
        record["metric"].get("glob_name") or record["metric"].get("name"): record["metric"].get("step_metric")
        for record in records
        if record["type"] == "metric"
    }
    assert axes["train/*"] == "step"
    assert {axes[name] for name in ("valid/*", "test/*", "capacity/*")} == {"progress"}
    tested = [point["progress"] for point in history(records) if "test/accuracy/task_00" in point]
    assert tested == [1, 2, 3, 4]
    trained = [point["progress"] for point in history(records) if "train/loss/task_01" in point]
    assert trained == [1.25, 1.5, 1.75, 2.0]


def test_matrix_and_masks_are_tables_and_images(quickstart: tuple[Path, Path], records: list[dict[str, Any]]) -> None:
    folder, file = quickstart
    summary = inspect_summary(file)["summary"]
    media = file.parent / "files"
    for name in ("accuracy_matrix", "capacity", "reuse", "mask_overlap"):
        table = json.loads((media / summary[f"tables/{name}"]["path"]).read_text())
        written = pd.read_csv(folder / f"{name}.csv")
        assert table["columns"][-len(written.columns) :] == list(written.columns)
        values = pd.DataFrame(table["data"], columns=table["columns"])[list(written.columns)]
        pd.testing.assert_frame_equal(values.astype(written.dtypes), written)
        if name == "accuracy_matrix":
            assert [row[0] for row in table["data"]] == [1, 2, 3, 4]
    for name in ("accuracy_matrix", "mask_composition", "mask_overlap"):
        image = summary[f"pictures/{name}"]
        assert (media / image["path"]).stat().st_size > 1000
        assert image["width"] > 300


def test_capacity_of_every_layer_over_tasks(quickstart: tuple[Path, Path], records: list[dict[str, Any]]) -> None:
    folder, _ = quickstart
    capacity = pd.read_csv(folder / "capacity.csv")
    capacity = capacity[capacity["kind"] == "masked"]
    points = [point for point in history(records) if any(name.endswith("/free") for name in point)]
    assert [point["trained_tasks"] for point in points] == [1, 2, 3, 4]
    for task, point in enumerate(points):
        for layer in capacity[capacity["task"] == task].itertuples():
            for share in ("kept", "newly_frozen", "reused", "free"):
                assert point[f"capacity/{layer.layer}/{share}"] == getattr(layer, share) / layer.weights


def test_the_summary_is_what_runs_are_sorted_by(quickstart: tuple[Path, Path]) -> None:
    folder, file = quickstart
    read = inspect_summary(file)
    record = json.loads((folder / "run.json").read_text())
    for name, value in record["metrics"].items():
        if value is not None:
            assert read["summary"][name] == value, name
    assert read["summary"]["zero_forgetting_verified"] is True
    assert (read["summary"]["status"], read["state"], read["exit_code"]) == ("complete", "finished", 0)


def test_files_and_network_are_uploaded(quickstart: tuple[Path, Path], records: list[dict[str, Any]]) -> None:
    folder, file = quickstart
    copies = tree(file.parent / "files" / "run_folder")
    expected = {name: content for name, content in tree(folder).items() if not name.endswith(".safetensors")}
    assert set(copies) == set(expected)
    same = {name for name in expected if copies[name] == expected[name]}
    assert same == set(expected) - {"run.json"}, "which gets the time that logging took, later"
    artifacts = [record["artifact"] for record in records if record["type"] == "artifact"]
    assert [made["name"] for made in artifacts if made["type"] == "model"] == [f"network-{run_of(records)['run_id']}"]


def test_system_metrics_are_there(records: list[dict[str, Any]]) -> None:
    stats = [record["stats"]["item"] for record in records if record["type"] == "stats"]
    assert any("proc.memory.rssMB" in item for item in stats)


@pytest.mark.parametrize("launcher", ["basic", "processes"])
def test_a_job_is_a_run_and_a_multirun_a_group(tmp_path: Path, command: Command, launcher: str) -> None:
    # Processes are kept from test to test, each in the working folder it was born in.
    sweep = Path("jobs/sweep") if launcher == "basic" else tmp_path / "jobs" / "sweep"
    words = ("run", "-m", *TINY[1:], "benchmark.n_tasks=2", *MASKED, *OFFLINE, "seed=0,1,2", f"run_dir={sweep}")
    jobs = () if launcher == "basic" else ("hydra.launcher.n_jobs=2",)
    assert command(*words, f"logger.wandb.dir={tmp_path}", f"hydra/launcher={launcher}", *jobs) == 0
    ids = [json.loads((sweep / job / "run.json").read_text())["run_id"] for job in ("0", "1", "2")]
    read = [inspect(file) for file in wandb_files(tmp_path)]
    assert sorted(run_of(records)["run_id"] for records in read) == sorted(ids)
    assert {run_of(records)["run_group"] for records in read} == {"jobs-sweep" if launcher == "basic" else "sweep"}
    assert sorted(run_of(records)["config"]["update"]["seed"] for records in read) == [0, 1, 2]
    names = {run_of(records)["display_name"] for records in read}
    assert names == {f"epn, seed {seed}" for seed in range(3)}
    assert len({run_of(records)["config"]["update"]["group"] for records in read}) == 1
    for records in read:
        folder = sweep / str(ids.index(run_of(records)["run_id"]))
        matrix = pd.read_csv(folder / "accuracy_matrix.csv").to_numpy()
        last = {name: value for point in history(records) for name, value in point.items()}
        assert [last[f"test/accuracy/task_{task:02}"] for task in range(2)] == list(matrix[-1])
        assert records[-1]["exit"]["exit_code"] == 0


def test_within_tasks_progress_has_fractions(tmp_path: Path) -> None:
    from cl_powerprop.experiment import run

    run(tiny_config("strategy=naive", *OFFLINE, "evaluation.every_steps=15"), tmp_path / "run")
    (file,) = wandb_files(Path("runs"))
    tested = [point["progress"] for point in history(inspect(file)) if "test/accuracy/task_00" in point]
    curves = pd.read_csv(tmp_path / "run" / "curves.csv")
    steps = curves[(curves.split == "test") & (curves.metric == "accuracy") & (curves.eval_task == 0)].step
    total = curves.step.max()
    np.testing.assert_allclose(tested, steps / total * 3, rtol=1e-12)
    assert len(tested) > 6


def test_without_a_key_it_goes_offline_and_says_so(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("run", *TINY, *MASKED, "logger=[wandb]", "run_dir=run") == 0
    said = capsys.readouterr().out
    assert "no API key was found (wandb login sets one); this run is logged offline" in said
    assert "cl-powerprop sync runs" in said
    (file,) = wandb_files(Path("runs"))
    assert file.parent.name.startswith("offline-run-")


def test_a_key_in_netrc_is_found(server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from cl_powerprop.tracking.wandb_account import has_credentials

    key = os.environ["WANDB_API_KEY"]
    monkeypatch.delenv("WANDB_API_KEY")
    assert not has_credentials()
    Path(os.environ["NETRC"]).write_text(f"machine {server.url.removeprefix('http://')} login user password {key}\n")
    assert has_credentials()


def test_copies_for_wandb_are_no_runs(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("run", *TINY, *MASKED, *OFFLINE, "run_dir=runs/mine") == 0
    assert wandb_files(Path("runs"))
    assert [str(folder) for folder in find_run_folders(["runs"], [])] == ["runs/mine"]
    assert command("resume", "runs") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "runs/mine: complete"


def test_disabled_and_no_logger_write_nothing(tmp_path: Path) -> None:
    from cl_powerprop.experiment import run

    run(tiny_config("strategy=naive", "logger=[wandb]", "logger.wandb.mode=disabled"), tmp_path / "a")
    run(tiny_config("strategy=naive"), tmp_path / "b")
    assert not Path("runs").exists()
    assert set(tree(tmp_path / "a")) == set(tree(tmp_path / "b"))
    assert "wandb" not in json.loads((tmp_path / "a" / "run.json").read_text())


def test_a_failed_run_is_marked_failed_in_wandb(tmp_path: Path) -> None:
    from cl_powerprop.errors import DivergedError
    from cl_powerprop.experiment import run

    with pytest.raises(DivergedError):
        run(tiny_config("strategy=naive", *OFFLINE, "optimizer.lr=1e18", "model.alpha=3"), tmp_path / "run")
    (file,) = wandb_files(Path("runs"))
    read = inspect_summary(file)
    assert read["summary"]["status"] == "failed"
    assert read["exit_code"] == 1
    assert json.loads((file.parent / "files" / "run_folder" / "run.json").read_text())["status"] == "failed"


def test_online(server: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from cl_powerprop.experiment import run

    words = ("strategy=epn", "strategy.search=grid", *MASKED, "logger=[wandb]", "logger.wandb.log_model=true")
    words += ("logger.wandb.group=g",)
    result = run(tiny_config(*words), tmp_path / "run")
    (stored,) = server.runs.values()
    assert (stored.name, stored.state, stored.fields["groupName"]) == (result.record["run_id"], "finished", "g")
    assert stored.summary["average_accuracy"] == result.record["metrics"]["average_accuracy"]
    assert stored.files["run_folder/curves.csv"] == (tmp_path / "run" / "curves.csv").read_bytes()
    assert f"network-{stored.name}" in server.artifacts
    assert result.record["wandb"]["url"] == f"{server.url}/team/cl-powerprop/runs/{stored.name}"
    assert f"W&B: {server.url}" in caplog.text
    assert result.record["messages"] == []


def test_a_sweep_agent_names_the_run(server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cl_powerprop.experiment import run

    monkeypatch.setenv("WANDB_RUN_ID", "agentrun")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_PROJECT", "tuning")
    result = run(tiny_config("strategy=naive", "logger=[wandb]"), tmp_path / "run")
    (stored,) = server.runs.values()
    assert (stored.name, stored.project, stored.fields["sweep"]) == ("agentrun", "tuning", "sweep1")
    assert result.record["wandb"]["id"] == "agentrun" != result.record["run_id"]


def test_a_user_can_switch_it_off(server: WandbServer, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", "elsewhere")
    assert command("run", *TINY, "strategy=naive", "logger=wandb", "run_dir=run") == 0
    assert server.runs == {}
    assert len(wandb_files(Path("elsewhere"))) == 1


def test_jobs_of_a_multirun_do_not_share_a_name(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cl_powerprop.experiment import run

    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    run(tiny_config("strategy=naive", "logger=[wandb]"), tmp_path / "alone")
    result = run(tiny_config("strategy=naive", "logger=[wandb]"), tmp_path / "job", multirun="sweep")
    assert set(server.runs) == {"mine", result.record["run_id"]}


def test_numbers_do_not_depend_on_loggers(tmp_path: Path) -> None:
    from cl_powerprop.experiment import run

    words = ("strategy=epn", *MASKED)
    run(tiny_config(*words), tmp_path / "plain")
    run(tiny_config(*words, "logger=[wandb,tensorboard]", "logger.wandb.mode=offline"), tmp_path / "logged")
    plain, logged = tree(tmp_path / "plain"), tree(tmp_path / "logged")
    for name in ("accuracy_matrix.csv", "capacity.csv", "weights.csv", "mask_overlap.csv"):
        assert plain[name] == logged[name], name
    shutil.rmtree("runs")


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_resumed_run_continues_its_wandb_run(
    server: WandbServer, tmp_path: Path, command: Command, mode: str
) -> None:
    from cl_powerprop.experiment import run

    from ..run.test_resume import cut_off

    words = ("strategy=epn", *MASKED, "logger=[wandb,tensorboard]", f"logger.wandb.mode={mode}")
    with cut_off(task=1, epoch=1):
        run(tiny_config(*words), tmp_path / "run")
    if mode == "online":
        (stored,) = server.runs.values()
        assert stored.state == "failed"
    assert command("resume", "run") == 0
    if mode == "offline":
        assert len(wandb_files(Path("runs"))) == 2
        assert command("sync", "runs") == 0
    (stored,) = server.runs.values()
    record = json.loads(Path("run/run.json").read_text())
    assert (stored.name, stored.state) == (record["run_id"], "finished")
    assert stored.summary["average_accuracy"] == record["metrics"]["average_accuracy"]
    tested = [line["trained_tasks"] for line in stored.history if "test/accuracy/task_00" in line]
    assert tested == [1, 2, 3], "nothing is missing, nothing twice"
    curves = pd.read_csv("run/curves.csv")
    for task in range(3):
        rows = curves[(curves.split == "train") & (curves.metric == "loss") & (curves.eval_task == task)]
        points = [
            (line["step"], line[name]) for line in stored.history if (name := f"train/loss/task_{task:02}") in line
        ]
        assert points == list(zip(rows.step, rows.value, strict=True))
    steps = [line["_step"] for line in stored.history]
    assert mode == "offline" or steps == sorted(set(steps))
    events = EventAccumulator("run", size_guidance={"scalars": 0}).Reload()
    for (split, metric, task), rows in curves.groupby(["split", "metric", "eval_task"]):
        if metric != "capacity_used":
            points = [event.step for event in events.Scalars(f"{split}/{metric}/task_{task:02}")]
            assert points == list(rows.step), "TensorBoard forgets what is measured again"
