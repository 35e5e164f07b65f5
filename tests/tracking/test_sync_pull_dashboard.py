"""Upload offline runs to W&B, pull run folders from it, and make a dashboard."""

import contextlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from cl_powerprop.experiment import run
from cl_powerprop.registry import metrics
from cl_powerprop.tracking import wandb_account, wandb_sync
from cl_powerprop.tracking.wandb_dashboard import specification, workspace

from ..run.conftest import Command, compose_config, tiny_config, tree, unreadable_for_others
from .conftest import inspect_summary, services, wandb_files
from .wandb_server import KEY, StoredRun, WandbServer

pytestmark = pytest.mark.slow

OFFLINE = ("strategy=naive", "logger=[wandb]", "logger.wandb.mode=offline", "logger.wandb.figures=false")


@pytest.fixture(scope="module")
def two_offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two offline runs, next to W&B's files of them."""
    root = tmp_path_factory.mktemp("offline")
    for seed in (0, 1):
        run(tiny_config(*OFFLINE, f"seed={seed}", f"logger.wandb.dir={root}"), root / f"run{seed}")
    return root


@pytest.fixture
def offline(two_offline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_offline, tmp_path / "runs", symlinks=True))


def test_sync_uploads_once(
    server: WandbServer, offline: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("sync", "runs", "--dry-run") == 0
    assert "2 to upload" in capsys.readouterr().out
    assert server.runs == {}
    assert command("sync", "runs") == 0
    assert "2 uploaded" in capsys.readouterr().out
    for seed in (0, 1):
        record = json.loads((offline / f"run{seed}" / "run.json").read_text())
        stored = server.runs[record["run_id"]]
        assert stored.state == "finished"
        assert stored.summary["average_accuracy"] == record["metrics"]["average_accuracy"]
        assert stored.config["seed"]["value"] == seed
        for name in ("accuracy_matrix.csv", "curves.csv", "config.yaml"):
            assert stored.files[f"run_folder/{name}"] == (offline / f"run{seed}" / name).read_bytes()
    asked = len(server.operations)
    assert command("sync", "runs") == 0
    assert "2 uploaded before" in capsys.readouterr().out
    assert len(server.operations) == asked, "nothing was sent again"


def test_sync_goes_on_after_a_damaged_file(
    server: WandbServer, offline: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = wandb_files(offline)[0]
    damaged.write_bytes(b"")
    assert command("sync", "runs") == 1
    captured = capsys.readouterr()
    assert "1 uploaded, 1 failed" in captured.out
    assert damaged.parent.name in captured.err
    assert "was not uploaded" in captured.err
    assert len(server.runs) == 1


COMMANDS = pytest.mark.parametrize(
    "words", [("sync", "runs"), ("pull", "team/cl-powerprop"), ("dashboard",)], ids=" ".join
)


@COMMANDS
def test_an_unreachable_server_is_one_line(
    offline: Path,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert command(*words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("cl-powerprop: error: W&B cannot be used: http://127.0.0.1:9 does not answer")
    assert not list(offline.glob("wandb/*/*.synced"))


@COMMANDS
@pytest.mark.parametrize("key", ["too-short", KEY])
def test_a_wrong_key_is_one_line(
    server: WandbServer,
    offline: Path,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    key: str,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    server.refuse_keys = True
    assert command(*words) == 2
    error = capsys.readouterr().err
    assert "cl-powerprop: error: W&B cannot be used: " in error
    assert KEY not in error
    assert not list(offline.glob("wandb/*/*.synced"))


@COMMANDS
def test_a_server_that_stalls_is_one_line(
    server: WandbServer,
    offline: Path,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    monkeypatch.setattr(wandb_account, "_SECONDS", 3)
    server.stall()
    assert command(*words) == 2
    assert "cl-powerprop: error: W&B cannot be used: " in capsys.readouterr().err
    assert services() == [], "nothing keeps the process from ending"


def test_sync_gives_up_an_upload_after_its_time_limit(
    server: WandbServer,
    offline: Path,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wandb_sync, "open_account", server.stall)
    assert command("sync", "runs", "--timeout", "4") == 1
    captured = capsys.readouterr()
    assert "2 failed" in captured.out
    assert "not finished within 4 s, and given up" in captured.err
    for _ in range(100):
        if not uploading_to(server.url):
            break
        time.sleep(0.1)
    assert uploading_to(server.url) == [], "nothing goes on in the background"


def uploading_to(url: str) -> list[psutil.Process]:
    """W&B services anywhere on this machine that were started for a server."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("wandb-core") and process.environ().get("WANDB_BASE_URL") == url:
                found.append(process)
    return found


def test_sync_skips_a_run_that_is_going_on(server: WandbServer, tmp_path: Path) -> None:
    import wandb

    (tmp_path / "runs").mkdir()
    settings = wandb.Settings(silent=True, console="off", x_transaction_log_flush_interval=0.5)
    going_on = wandb.init(mode="offline", dir="runs", id="goingon", reinit="create_new", settings=settings)
    going_on.log({"a": 1})
    (file,) = wandb_files(Path("runs"))
    for _ in range(200):  # written by another process
        if file.stat().st_size >= 500:
            break
        time.sleep(0.1)
    assert wandb_sync.sync(Path("runs")) == wandb_sync.Synced(still_running=[file])
    going_on.finish()
    assert wandb_sync.sync(Path("runs")) == wandb_sync.Synced(uploaded=[file])


def test_sync_uploads_a_file_again_after_it_has_grown(server: WandbServer, offline: Path, command: Command) -> None:
    assert command("sync", "runs") == 0
    file = wandb_files(offline)[0]
    mark = file.with_name(file.name + ".synced")
    os.utime(mark, (1, 1))
    asked = len(server.operations)
    assert command("sync", "runs") == 0
    assert len(server.operations) > asked
    assert mark.stat().st_mtime > 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sync", "nowhere"), "nowhere is not a folder"),
        (("sync", "."), "holds no W&B run"),
        (("pull", "team"), "name it as ENTITY/PROJECT"),
        (("pull", "team/cl-powerprop"), "no W&B API key was found; set WANDB_API_KEY, or run: wandb login"),
        (("dashboard",), "no W&B API key was found"),
    ],
    ids=" ".join,
)
def test_mistakes_are_one_line(
    words: tuple[str, ...], said: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_sync_needs_a_key(offline: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("sync", "runs") == 2
    assert "no W&B API key was found" in capsys.readouterr().err


def test_pull_restores_the_run_folders(
    server: WandbServer, offline: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("sync", "runs") == 0
    server.runs["foreign"] = StoredRun("foreign", "cl-powerprop", state="finished", files={"output.log": b""})
    server.runs["other"] = StoredRun("other", "elsewhere", files={"run_folder/run.json": b"{}"})
    server.runs["broken"] = StoredRun("broken", "cl-powerprop", files={"run_folder/run.json": b"{ cut"})
    server.runs["away"] = StoredRun("away", "cl-powerprop", files={"run_folder/run.json": b"", "../../x": b"x"})
    server.unreadable.add("away")
    assert command("pull", "team/cl-powerprop", "--out", "pulled") == 0
    captured = capsys.readouterr()
    assert "2 run folders written to pulled, 0 were there before" in captured.out
    assert "(foreign) has no run folder" in captured.err
    assert "(broken): its run.json is damaged" in captured.err
    assert "(away): " in captured.err
    assert captured.err.count("warning:") == 3
    for seed in (0, 1):
        record = json.loads((offline / f"run{seed}" / "run.json").read_text())
        pulled, original = tree(Path("pulled") / record["run_id"]), tree(offline / f"run{seed}")
        del original["model.safetensors"]
        assert set(pulled) == set(original)
        assert {name for name in original if pulled[name] != original[name]} <= {"run.json"}  # the time logging took
        assert not unreadable_for_others(Path("pulled") / record["run_id"])
    assert sorted(path.name for path in Path("pulled").iterdir()) == sorted(
        json.loads((offline / f"run{seed}" / "run.json").read_text())["run_id"] for seed in (0, 1)
    )
    assert command("compare", "pulled", "--out", "comparison") == 0
    assert "naive" in capsys.readouterr().out
    assert command("pull", "team/cl-powerprop", "--out", "pulled") == 0
    assert "0 run folders written to pulled, 2 were there before" in capsys.readouterr().out


def test_pull_does_not_touch_other_folders(
    server: WandbServer, offline: Path, command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A team mate can give a W&B run any id."""
    assert command("sync", "runs") == 0
    stored = next(iter(server.runs.values()))
    server.runs = {name: StoredRun(name, "cl-powerprop", files=stored.files) for name in ("wandb", "mine", "..", "a.b")}
    before = tree(tmp_path / "runs")
    (tmp_path / "runs" / "mine").mkdir()
    (tmp_path / "runs" / "mine" / "precious").write_text("data")
    assert command("pull", "team/cl-powerprop", "--out", "runs") == 1
    assert tree(tmp_path / "runs") == before | {"mine/precious": b"data"}
    said = capsys.readouterr().err
    assert said.count("is there already and is not this W&B run's") == 2
    assert said.count("another run's") == 1
    assert "'..' is no name for a folder" in said


def test_pull_skips_a_run_with_missing_files(server: WandbServer, offline: Path, command: Command) -> None:
    assert command("sync", "runs") == 0
    name, stored = next(iter(server.runs.items()))
    server.runs = {name: stored}
    curves = stored.files.pop("run_folder/curves.csv")
    assert command("pull", "team/cl-powerprop") == 1
    assert list(Path("pulled").iterdir()) == []
    stored.files["run_folder/curves.csv"] = curves
    assert command("pull", "team/cl-powerprop") == 0
    assert (Path("pulled") / name / "curves.csv").exists()


def test_pull_ends_a_download_without_end(
    server: WandbServer, offline: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server may say that a file is small, and send without end."""
    assert command("sync", "runs") == 0
    capsys.readouterr()
    server.endless.add(next(iter(server.runs)))
    assert command("pull", "team/cl-powerprop", "--out", "pulled") == 0
    captured = capsys.readouterr()
    assert "1 run folders written" in captured.out
    assert captured.err.count("warning:") == 1
    assert re.search(r"it sends more than [\d,]+ bytes", captured.err)
    assert server.sent < 2**24
    assert len(list(Path("pulled").iterdir())) == 1, "nothing is left of the other one"


def test_pull_downloads_an_incomplete_run_again(server: WandbServer, offline: Path, command: Command) -> None:
    assert command("sync", "runs") == 0
    name, stored = next(iter(server.runs.items()))
    final = stored.files["run_folder/run.json"]
    stored.files["run_folder/run.json"] = final.replace(b'"complete"', b'"running"')
    assert command("pull", "team/cl-powerprop", "--out", "pulled") == 0
    assert json.loads((Path("pulled") / name / "run.json").read_text())["status"] == "running"
    stored.files["run_folder/run.json"] = final
    assert command("pull", "team/cl-powerprop", "--out", "pulled") == 0
    assert json.loads((Path("pulled") / name / "run.json").read_text())["status"] == "complete"


def test_pull_of_a_project_that_is_not_there(
    server: WandbServer, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("pull", "team/nowhere") == 2
    assert "the runs of team/nowhere cannot be listed" in capsys.readouterr().err
    assert not Path("pulled").exists()


def panels(content: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    sections = content["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def test_the_dashboard_has_the_standard_panels() -> None:
    made = panels(json.loads(specification(workspace("project", "team", tasks=3))))
    curves = {panel["config"]["chartTitle"]: panel["config"] for panel in made["Forgetting curves"]}
    assert len(curves) == 5
    grouped = {f"Test accuracy of task {task}": f"test/accuracy/task_{task:02}" for task in range(3)}
    for title, metric in {"Average test accuracy of the tasks so far": "test/average_accuracy", **grouped}.items():
        curve = curves[title]
        assert curve["metrics"] == [metric]
        assert (curve["xAxis"], curve["groupBy"], curve["groupAgg"]) == ("progress", "group.value", "mean")
    scatter = made["Groups compared"][0]["config"]
    assert (scatter["xAxis"], scatter["yAxis"]) == ("summary:capacity_used", "summary:average_accuracy")
    shown = [panel["config"]["mediaKeys"] for panel in made["Accuracy matrix and masks"]]
    assert ["pictures/accuracy_matrix"] in shown
    assert made["Capacity"][0]["config"]["metrics"] == ["capacity/used"]


def test_runs_that_differ_in_more_than_the_seed_are_different_lines(tmp_path: Path) -> None:
    """Every panel and the list of runs are grouped by what each run has logged of itself."""
    content = specification(workspace("project", "team", tasks=1))
    assert set(re.findall(r'"groupBy": "([^"]*)"', content)) == {"group.value"}
    runset = json.loads(content)["spec"]["section"]["runSets"][0]
    assert [key["name"] for key in runset["grouping"]] == ["group.value"]
    words = ("strategy=naive", "train.epochs=1", "benchmark.n_tasks=1", "logger=[wandb]", "logger.wandb.mode=offline")
    names = {}
    for index, more in enumerate((("model.alpha=1",), ("model.alpha=1", "seed=1"), (), ("optimizer.lr=0.3",))):
        where = tmp_path / str(index)
        every = (*words, *more, "progress=false", "data=digits", "logger.wandb.figures=false")
        run(compose_config(*every, f"logger.wandb.dir={where}"), where / "run")
        (file,) = wandb_files(where)
        names[more] = inspect_summary(file)["config"]["group"]
    assert list(names.values()) == [
        *["naive, digits, alpha 1, epochs 1, n_tasks 1"] * 2,
        *("naive, digits, epochs 1, n_tasks 1", "naive, digits, epochs 1, n_tasks 1, lr 0.3"),
    ]


def test_every_panel_shows_something_a_run_logs(offline: Path) -> None:
    """A panel of a misspelt curve would stay empty; a panel of a metric shows the runs that have it."""
    record = tiny_config("strategy=epn", "strategy.retrain_epochs=1", *OFFLINE[1:3], "logger.wandb.dir=epn")
    run(record, Path("epn/run"))
    (file,) = wandb_files(Path("epn"))
    read = inspect_summary(file)
    logged, config = set(read["summary"]), read["config"]
    sparse = ("strategy=naive", "model.heads=shared", "sparsity=static", *OFFLINE[1:3], "logger.wandb.dir=sparse")
    run(tiny_config(*sparse), Path("sparse/run"))
    (file,) = wandb_files(Path("sparse"))
    logged |= set(inspect_summary(file)["summary"])

    for section in panels(json.loads(specification(workspace("project", "team", tasks=3)))).values():
        for panel in section:
            options = panel["config"]
            names = [*options.get("metrics", []), *options.get("mediaKeys", [])]
            names += [options[axis].removeprefix("summary:") for axis in ("xAxis", "yAxis") if axis in options]
            for name in names:
                assert name in logged or name in metrics(), name
            if options.get("metricRegex"):
                assert [name for name in logged if re.fullmatch(options["metricRegex"], name)], options
            if "zAxis" in options:
                assert options["zAxis"] == "config:model.value.alpha"
                assert config["model"]["alpha"] == 2.0


def test_dry_run_prints_json_without_network(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("dashboard", "--project", "mine", "--entity", "us", "--dry-run") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["project"], content["entity"]) == ("mine", "us")


def test_the_dashboard_is_saved(server: WandbServer, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("dashboard", "--tasks", "2") == 0
    assert "dashboard: http" in capsys.readouterr().out
    (saved,) = server.views
    assert saved["entityName"] == "team"
    assert saved["projectName"] == "cl-powerprop"
    assert "test/accuracy/task_01" in json.dumps(saved)
    assert KEY not in json.dumps(saved)
