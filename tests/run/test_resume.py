"""A run that is interrupted and resumed gives the same results as an uninterrupted one, to the bit."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import safetensors.torch
import torch

from cl_powerprop import checkpoint_files
from cl_powerprop.checkpoint import FILE
from cl_powerprop.config import RunConfig, repeatable_yaml
from cl_powerprop.experiment import run
from cl_powerprop.run_lock import RunLock
from cl_powerprop.training.meters import TrainingMeter

from .conftest import MASKED, RUNS, TINY, Command, Finished, compose_config, tiny_config, tree

pytestmark = pytest.mark.slow

SOME = ("naive-sgd-power", "epn-adam-shared-biases", "packnet-nesterov-shared", "wsn-adam-shared", "hat-adam-shared")
MORE = {
    "epn-batch-norm": (
        *("strategy=epn", *MASKED, "model=convnet", "model.width=4", "model.norm=batch", "model.bias=per_task"),
        *("evaluation.every_steps=15", "references=[untrained]"),
    ),
    "independent": ("strategy=independent",),
    "packnet-entropy": ("strategy=packnet", *MASKED, "strategy.task_inference=entropy", "benchmark.scenario=domain"),
    "supsup-entropy": (
        *("strategy=supsup", "strategy.task_inference=entropy", "benchmark.scenario=domain", "model.heads=shared"),
    ),
    "ewc-online": ("strategy=ewc", "strategy.penalty=1", "strategy.decay=0.9", "model.heads=shared"),
    "ewc-separate": ("strategy=ewc", "strategy.penalty=1", "strategy.mode=separate"),
    "mas": ("strategy=mas",),
    "replay": ("strategy=replay", "model.heads=shared"),
    "gem": ("strategy=gem", "strategy.mem_size=20"),
    "cumulative": ("strategy=cumulative",),
    "naive-diagonal": ("strategy=naive", "evaluation.schedule=diagonal_and_last", "model.heads=shared"),
}


class Cut(BaseException):
    """A simulated power failure."""


@contextlib.contextmanager
def cut_off(task: int, epoch: int) -> Iterator[None]:
    """Interrupt the run in this context at the end of an epoch."""
    whole = TrainingMeter.after_training_epoch

    def cut(meter: TrainingMeter, strategy: Any, **options: Any) -> None:
        whole(meter, strategy, **options)
        if (strategy.experience.current_experience, strategy.clock.train_exp_epochs) == (task, epoch):
            raise Cut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingMeter, "after_training_epoch", cut)
        with pytest.raises(Cut):
            yield


def config_of(name: str) -> RunConfig:
    words = MORE[name] if name in MORE else RUNS[name]
    small = [word for word in TINY if not (word.startswith("model.hidden") and "model=convnet" in words)]
    return compose_config(*small, *words)


def assert_same_numbers(run_folder: Path, other: Path) -> None:
    """The same files, with the same numbers to the bit."""
    files, expected = tree(run_folder), tree(other)
    assert set(files) == set(expected), "no checkpoint is left"
    for name, content in expected.items():
        if name.endswith(".csv") and not content.startswith(b"run_id,"):
            assert files[name] == content, name
        elif name.endswith(".csv"):
            rows, those = (pd.read_csv(io.BytesIO(each[name])) for each in (files, expected))
            pd.testing.assert_frame_equal(rows.drop(columns="run_id"), those.drop(columns="run_id"), check_exact=True)
    tensors, those = (safetensors.torch.load(each["model.safetensors"]) for each in (files, expected))
    assert tensors.keys() == those.keys()
    assert all(torch.equal(tensors[name], those[name]) for name in tensors)
    record, known = json.loads(files["run.json"]), json.loads(expected["run.json"])
    for key in ("status", "metrics", "zero_forgetting_verified", "searches", "messages", "diverged_tasks", "error"):
        assert record[key] == known[key], key
    assert len(record["task_seconds"]) == len(known["task_seconds"])


def assert_same(resumed: Path, whole: Path) -> None:
    assert_same_numbers(resumed, whole)
    assert json.loads((resumed / "run.json").read_text())["resumed"]
    assert not json.loads((whole / "run.json").read_text())["resumed"]


@pytest.mark.cuda
@pytest.mark.parametrize(
    "name", [*(name if name in SOME else pytest.param(name, marks=pytest.mark.thorough) for name in RUNS), *MORE]
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    name: str, finished: Finished, tmp_path: Path, command: Command
) -> None:
    whole = finished(name).path if name in RUNS else run(config_of(name), tmp_path / "whole").path
    with cut_off(task=2, epoch=0):
        run(config_of(name), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["trained_tasks"]) == ("failed", 2)
    assert command("resume", tmp_path / "run") == 0
    assert_same(tmp_path / "run", whole)


def test_a_run_that_is_interrupted_twice(finished: Finished, tmp_path: Path) -> None:
    name = "epn-momentum-frozen-biases"
    for task, epoch in [(1, 1), (2, 1)]:
        with cut_off(task, epoch):
            run(config_of(name), tmp_path / "run")
    run(config_of(name), tmp_path / "run")
    assert_same(tmp_path / "run", finished(name).path)
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["resumed"]) == 2


def test_a_run_that_was_killed(tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """The process is killed at an arbitrary moment, without time to write anything."""
    words = ["benchmark.n_tasks=6", "train.epochs=3", *MASKED, "progress=false", "checkpoint.max_share=1"]
    call = [sys.executable, "-m", "cl_powerprop", "run", *words, "run_dir=killed"]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not Path("killed", FILE).exists():
        time.sleep(0.02)
        assert process.poll() is None, "it ended too soon"
    assert command("resume", "killed") == 1
    assert f"is being written by process {process.pid}" in capsys.readouterr().err
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads(Path("killed/run.json").read_text())["status"] == "running"
    assert command("resume", "killed") == 0
    assert "killed: going on after" in capsys.readouterr().out
    assert command("run", *words, "run_dir=whole") == 0
    assert_same(Path("killed"), Path("whole"))


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    with cut_off(task=1, epoch=0):
        run(tiny_config("strategy=naive"), tmp_path / "run")
    return tmp_path / "run"


def change(folder: Path, **values: Any) -> None:
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | values))


def test_a_run_that_cannot_be_resumed_is_one_line_and_the_others_go_on(
    cut: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "all").mkdir()
    cut.rename(tmp_path / "all" / "good")
    for name, words in {"early": ("strategy=naive",), "joint": ("strategy=joint",)}.items():
        with cut_off(task=0, epoch=0):
            run(tiny_config(*words), tmp_path / "all" / name)
    with cut_off(task=1, epoch=0):
        run(tiny_config("strategy=naive"), tmp_path / "all" / "torn")
    (tmp_path / "all" / "torn" / FILE).write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{")
    run(tiny_config("strategy=naive"), tmp_path / "all" / "whole")
    for name in ("damaged", "ended"):
        shutil.copytree("all/early", f"all/{name}")
    Path("all/damaged/config.yaml").write_text("")
    for name, content in {"weights.csv": "", "run.json": "{"}.items():
        Path("all/ended", name).write_text(content)
    began_as = json.loads(Path("all/early/run.json").read_text())["run_id"]
    assert command("resume", "all") == 1
    captured = capsys.readouterr()
    assert json.loads(Path("all/early/run.json").read_text())["run_id"] == began_as, "W&B goes on in the same run"
    assert "all/good: going on after 1 of 3 tasks" in captured.out
    assert "all/whole: complete" in captured.out
    assert "all/torn: going on after 0 of 3 tasks" in captured.out  # from the checkpoint before
    for name in ("early", "joint"):
        assert f"all/{name}: starting again, for there is no checkpoint that can be read" in captured.out
    damaged, ended = captured.err.strip().splitlines()
    assert "all/damaged" in damaged
    assert "config.yaml is damaged" in damaged
    assert "all/ended holds a run that has ended, but its run.json is damaged" in ended
    done = [json.loads(Path("all", name, "run.json").read_text()) for name in ("good", "early", "torn", "whole")]
    assert [record["status"] for record in done] == ["complete"] * 4
    matrices = {Path("all", name, "accuracy_matrix.csv").read_text() for name in ("good", "early", "torn", "whole")}
    assert len(matrices) == 1


def test_other_versions_are_reported(cut: Path) -> None:
    state, tensors = read_file(cut / FILE)
    state["results"]["run"]["versions"]["torch"] = "1.0"
    safetensors.torch.save_file(tensors, cut / FILE, metadata={"state": json.dumps(state)})
    result = run(tiny_config("strategy=naive"), cut)
    assert f"torch 1.0 -> {version('torch')}" in result.record["messages"][0]


def test_without_a_saved_model(tmp_path: Path, command: Command) -> None:
    words = ("strategy=epn", *MASKED, "save_model=false")
    with cut_off(task=1, epoch=0):
        run(tiny_config(*words), tmp_path / "run")
    assert command("resume", "run") == 0
    whole = run(tiny_config(*words), tmp_path / "whole")
    assert tree(tmp_path / "run")["accuracy_matrix.csv"] == tree(whole.path)["accuracy_matrix.csv"]
    assert set(tree(tmp_path / "run")) == set(tree(whole.path))


def test_a_folder_without_a_run(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("resume", "nowhere") == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_a_checkpoint_contains_nothing_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setattr("cl_powerprop.record.platform.node", lambda: "see /home/alice/notes")
    with cut_off(task=1, epoch=0):
        run(tiny_config("strategy=naive"), tmp_path / "run")
    assert b"alice" not in (tmp_path / "run" / FILE).read_bytes()
    assert b"see ~/notes" in (tmp_path / "run" / FILE).read_bytes()


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """State and tensors of a checkpoint file."""
    with safetensors.safe_open(path, "pt") as content:
        return json.loads(content.metadata()["state"]), {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118


def to_format_3(folder: Path, state: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """A checkpoint's state as version 0.1.0's successors wrote it: all rows and evaluations are in it, as JSON."""
    results = dict(state["results"])
    within = {name: results.pop(f"evaluations/{name}") for name in ("references", "validation", "identified")}
    within |= {name: results.pop(f"evaluations/{name}") for name in ("logits", "unchanged", "within")}
    ends = dict(results.pop("evaluations/ends"))
    counts, tested, accuracies = (
        tensors.pop(f"results/evaluations/{name}").tolist() for name in ("counts", "tested", "accuracies")
    )
    rows = [[float("nan")] * 3 for _ in counts]
    for row, count in zip(rows, counts, strict=True):
        for _ in range(count):
            row[tested.pop(0)] = accuracies.pop(0)
    matrix = [[float("nan")] * 3 for _ in range(3)]
    for evaluation, task in ends.items():
        matrix[task] = rows[evaluation]
    within |= {"matrix": matrix, "evaluations": rows, "learned": list(ends)}
    capacity = []
    if (folder / "capacity.csv").exists():
        reuse = pd.read_csv(folder / "reuse.csv")
        for row in pd.read_csv(folder / "capacity.csv").drop(columns="reused").to_dict("records"):
            of_row = reuse[(reuse["task"] == row["task"]) & (reuse["layer"] == row["layer"])]
            capacity.append(row | {"reused_from": of_row["weights"].tolist()})
    del results["tables"]
    older = {"evaluations": within, "capacity": {"rows": capacity, "used": results["capacity"]["used"]}}
    return state | {"format": 3, "results": results | older | {"sparsity": {"rows": 0}}}


def to_format_1(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of format 3 as version 0.1.0 wrote it, with its names of the benchmarks."""
    run = state["results"]["run"] | {"benchmark": "permuted_mnist", "searches": state["strategy"].get("searches", [])}
    config = state["config"] | {"benchmark": state["config"]["benchmark"] | {"name": "permuted_mnist"}}
    record = {"content": run, "capacity": state["results"]["capacity"]["rows"], **state["results"]["evaluations"]}
    references = dict.fromkeys(("joint", "independent", "untrained"), [float("nan")] * 3)
    record["references"] = references | record["references"]
    return {"record": record, "rows": state["results"]["rows"], "step": state["step"], "config": config}


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("name", ["epn-momentum-frozen-biases", "naive-momentum-shared"])
def test_a_run_started_by_an_earlier_version_is_resumed(
    name: str,
    version: int,
    finished: Finished,
    tmp_path: Path,
    command: Command,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with cut_off(task=2, epoch=0):
        run(config_of(name), tmp_path / "run")
    state, tensors = read_file(tmp_path / "run" / FILE)
    state = to_format_3(tmp_path / "run", state, tensors)
    for path in (tmp_path / "run").glob("checkpoint.*"):
        path.unlink()
    metadata = {"state": json.dumps(to_format_1(state) if version == 1 else state)}
    safetensors.torch.save_file(tensors, tmp_path / "run" / FILE, metadata=metadata)
    if version == 1:
        written = (tmp_path / "run" / "config.yaml").read_text()
        older = written.replace("name: permuted\n", "name: permuted_mnist\n")
        older = older.replace("logger: {}", "logger:\n  wandb: null\n  tensorboard: null")
        assert older.count("permuted_mnist") == older.count("wandb: null") == 1
        (tmp_path / "run" / "config.yaml").write_text(older)
    assert command("resume", tmp_path / "run") == 0, capsys.readouterr().err
    assert_same(tmp_path / "run", finished(name).path)


@pytest.mark.parametrize("damage", ["curves", "config", "schema", "state"])
def test_files_that_do_not_match_are_one_line(
    cut: Path, command: Command, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    state, tensors = read_file(cut / FILE)
    config = (cut / "config.yaml").read_text()
    if damage == "config":
        (cut / "config.yaml").write_text(config.replace("seed: 0", "seed: 1"))
        for name in (FILE, checkpoint_files.PREVIOUS):
            (cut / name).unlink()
        assert command("run", *TINY, "strategy=naive", f"run_dir={cut}") == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "settings: seed was 1 and is 0" in line
        return
    if damage == "curves":
        lines = (cut / "curves.csv").read_text().splitlines()
        (cut / "curves.csv").write_text("\n".join(lines[:3]) + "\n")
        (cut / "checkpoint.rows").write_bytes(b"")
    elif damage == "schema":
        state["results"]["run"]["schema_version"] = 0
    else:
        del state["results"]["evaluations/ends"]
        (cut / "checkpoint.previous.safetensors").unlink(missing_ok=True)
    safetensors.torch.save_file(tensors, cut / FILE, metadata={"state": json.dumps(state)})
    before = {name: content for name, content in tree(cut).items() if name != "run.json"}
    assert command("resume", cut) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    said = {"curves": "curves.csv is damaged, and so is its copy", "schema": "schema version 0"}
    assert said.get(damage, "evaluations") in line
    after = tree(cut)
    assert {name: after[name] for name in before} == before, "nothing is lost"


def test_a_run_is_resumed_by_one_process_at_a_time(
    cut: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunLock(cut).hold():
        assert command("resume", cut) == 1
    assert f"is being written by process {os.getpid()}" in capsys.readouterr().err
    assert command("resume", cut) == 0


@pytest.mark.parametrize("content", ["", "model:", "halved", "seed: 1", "sted: 0"])
def test_a_damaged_config_is_that_of_the_checkpoint(
    content: str, cut: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    written = (cut / "config.yaml").read_text()
    damaged = written.replace("seed: 0", content) if ":" in content else written[: len(written) // 2]
    (cut / "config.yaml").write_text(damaged if content else "")
    assert command("resume", cut) == 0
    assert "written anew" in caplog.text
    assert (cut / "config.yaml").read_text() == written


def test_a_folder_that_is_not_of_a_run_is_left_alone(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for name, files in {"mine": ("config.yaml",), "more": ("config.yaml", "other.yaml")}.items():
        Path(name).mkdir()
        for file in files:
            Path(name, file).write_text("seed: 1")
        before = tree(Path(name))
        assert command("run", *TINY, "strategy=naive", f"run_dir={name}") == 2
        assert "never overwritten" in capsys.readouterr().err
        assert tree(Path(name)) == before


@pytest.mark.parametrize("content", ["", "defaults:\n  - ba", "whole"])
def test_a_run_that_was_killed_as_it_began(content: str, command: Command) -> None:
    config = tiny_config("strategy=naive", "benchmark.n_tasks=1", "train.epochs=1")
    Path("run").mkdir()
    Path("run/config.yaml").write_text(repeatable_yaml(config) if content == "whole" else content)
    assert run(config, "run").record["status"] == "complete"


@pytest.mark.parametrize("status", ["complate", None, ["complete"], 3])
def test_a_complete_run_whose_record_is_damaged_is_not_overwritten(
    status: Any, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run", *TINY, "strategy=naive", "benchmark.n_tasks=1", "train.epochs=1", "run_dir=run")
    assert command(*words) == 0
    record = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").write_text(json.dumps(record | {"status": status}))
    before = tree(Path("run"))
    assert command(*words) == 2
    assert "holds a run that has ended, but its run.json is damaged" in capsys.readouterr().err
    assert tree(Path("run")) == before
