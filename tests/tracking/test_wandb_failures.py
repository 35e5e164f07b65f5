"""Whatever happens to W&B during a run, the run completes and its own files are complete."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import safetensors.torch
import torch

from cl_powerprop.experiment import Result, run
from cl_powerprop.results.results import Results
from cl_powerprop.sinks import wandb as wandb_sink
from cl_powerprop.tracking.wandb_service import end_service

from ..run.conftest import MASKED, Command, tiny_config, tree
from .conftest import inspect, services, wandb_files
from .wandb_server import KEY, WandbServer

pytestmark = pytest.mark.slow

WORDS = ("strategy=epn", *MASKED, "logger=[wandb]", "logger.wandb.timeout=5")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the same run without loggers."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    run(tiny_config(*WORDS[:2]), folder)
    return tree(folder)


@pytest.fixture
def after_first_task(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Call a function when the first task is finished."""

    def set_up(happen: Callable[[], None]) -> None:
        write, left = Results.write, [happen]

        def write_and(results: Results, **options: Any) -> None:
            write(results, **options)
            if results.trained_tasks == 1 and left:
                left.pop()()

        monkeypatch.setattr(Results, "write", write_and)

    return set_up


def said_of_wandb(result: Result) -> list[str]:
    return [message for message in result.record["messages"] if "W&B" in message]


def assert_whole(result: Result, plain: dict[str, bytes]) -> None:
    files = tree(result.path)
    assert set(files) == set(plain), "nothing is missing and nothing is left over"
    for name in ("accuracy_matrix.csv", "capacity.csv", "reuse.csv", "weights.csv", "mask_overlap.csv"):
        assert files[name] == plain[name], name
    tensors, those = (safetensors.torch.load(each["model.safetensors"]) for each in (files, plain))
    assert all(torch.equal(tensors[name], those[name]) for name in tensors.keys() | those.keys())
    curves, expected = (pd.read_csv(pd.io.common.BytesIO(each["curves.csv"])) for each in (files, plain))
    pd.testing.assert_frame_equal(curves.drop(columns="run_id"), expected.drop(columns="run_id"))
    written = json.loads(files["run.json"])
    assert written["status"] == "complete"
    assert written["messages"] == result.record["messages"]
    for text in (files["run.json"], files["config.yaml"]):
        assert KEY.encode() not in text


def test_the_network_goes_away(
    server: WandbServer, tmp_path: Path, plain: dict[str, bytes], after_first_task: Any, command: Command
) -> None:
    after_first_task(lambda: (server.wait_for_a_run(), server.vanish()))
    start = time.monotonic()
    result = run(tiny_config(*WORDS, "logger.wandb.figures=false"), tmp_path / "run")
    assert time.monotonic() - start < 90, "the network was waited for, but not for ever"
    assert_whole(result, plain)
    message = said_of_wandb(result)[-1]
    assert "not everything was uploaded within 5 s" in message
    assert "cl-powerprop sync runs" in message
    (file,) = wandb_files(Path("runs"))
    points = [record for record in inspect(file) if record["type"] == "history"]
    curves = pd.read_csv(result.path / "curves.csv")
    assert len(points) >= len(curves.groupby(["trained_tasks", "epoch", "step"])), "all is on disk, to be uploaded"
    end_service()  # as at the end of the process
    with WandbServer() as back:  # which knows nothing of the run yet
        with pytest.MonkeyPatch.context() as patch:
            for name, value in back.environment.items():
                patch.setenv(name, value)
            assert command("sync", "runs") == 0
        assert back.runs[result.record["run_id"]].state == "finished"
        assert len(back.runs[result.record["run_id"]].history) == len(points)


def test_the_service_is_killed(
    server: WandbServer, tmp_path: Path, plain: dict[str, bytes], after_first_task: Any
) -> None:
    def kill() -> None:
        server.wait_for_a_run()
        (service,) = services()
        service.kill()
        service.wait()

    after_first_task(kill)
    result = run(tiny_config(*WORDS), tmp_path / "run")
    assert_whole(result, plain)
    (message,) = said_of_wandb(result)
    assert message.startswith("W&B failed and is left out from here on:")
    again = run(tiny_config(*WORDS), tmp_path / "again")
    assert said_of_wandb(again) == [], "the next run of the process has a service again"
    assert server.runs[again.record["run_id"]].state == "finished"


def test_the_service_hangs(
    server: WandbServer,
    tmp_path: Path,
    plain: dict[str, bytes],
    after_first_task: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop() -> None:
        server.wait_for_a_run()
        (service,) = services()
        service.suspend()
        monkeypatch.setattr(wandb_sink, "_PATIENCE", 2)

    after_first_task(stop)
    result = run(tiny_config(*WORDS), tmp_path / "run")
    assert_whole(result, plain)
    assert said_of_wandb(result)[-1].startswith("W&B failed and is left out from here on: ")
    monkeypatch.setattr(wandb_sink, "_PATIENCE", 60)
    again = run(tiny_config(*WORDS), tmp_path / "again")
    assert said_of_wandb(again) == [], "the next run of the process has a service again"


def test_a_service_that_hangs_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    import wandb

    end_service()  # an earlier test may have left one
    wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True, console="off"))
    (service,) = services()
    service.suspend()
    end_service(seconds=1)
    assert services() == []
    assert "WANDB_SERVICE" not in os.environ


@pytest.mark.parametrize("key", ["short", "x" * 40])
def test_an_invalid_key(
    server: WandbServer, tmp_path: Path, plain: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    server.refuse_keys = True
    result = run(tiny_config(*WORDS), tmp_path / "run")
    assert_whole(result, plain)
    (message,) = said_of_wandb(result)
    assert "this run is logged offline, upload it later by cl-powerprop sync runs" in message
    assert key not in message or key == "short"
    (file,) = wandb_files(Path("runs"))
    assert file.parent.name.startswith("offline-run-"), "nothing is lost"
    assert inspect(file)[-1]["exit"]["exit_code"] == 0


def test_other_runs_of_the_process_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    settings = wandb.Settings(silent=True, console="off")
    mine = wandb.init(mode="offline", dir=str(tmp_path), id="mine", reinit="create_new", settings=settings)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run(tiny_config("strategy=naive", "logger=wandb", "logger.wandb.timeout=2"), tmp_path / "run")
    mine.log({"still": "mine"})
    mine.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*-mine/*.wandb")
    assert [record for record in inspect(file) if "mine" in str(record.get("history"))]


def test_no_network_from_the_start(tmp_path: Path, plain: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    result = run(tiny_config(*WORDS), tmp_path / "run")
    assert_whole(result, plain)
    (message,) = said_of_wandb(result)
    assert "this run is logged offline, upload it later by cl-powerprop sync runs" in message
    assert len(wandb_files(Path("runs"))) == 1


@pytest.mark.parametrize("kind", ["file", "read-only"])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_folder_that_cannot_be_written(
    server: WandbServer, tmp_path: Path, plain: dict[str, bytes], kind: str, mode: str
) -> None:
    folder = tmp_path / "place"
    if kind == "file":
        folder.write_text("taken")
    else:
        folder = Path("/sys/kernel")  # which not even root can write to
        with contextlib.suppress(OSError):
            (folder / "wandb-probe").mkdir()
            pytest.skip("/sys can be written to here")
    result = run(tiny_config(*WORDS, f"logger.wandb.mode={mode}", f"logger.wandb.dir={folder}"), tmp_path / "run")
    if kind == "file":
        assert said_of_wandb(result), "it was said"
    files = tree(result.path)
    assert set(files) == set(plain)
    assert files["accuracy_matrix.csv"] == plain["accuracy_matrix.csv"]
    assert json.loads(files["run.json"])["status"] == "complete"
    assert os.fsencode(str(tmp_path)) not in files["run.json"]
