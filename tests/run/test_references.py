"""Reference runs, joint training, EWC, and evaluation within tasks."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cl_powerprop import references
from cl_powerprop.analysis import compare_runs, load_runs
from cl_powerprop.analysis.series import forgetting_curves
from cl_powerprop.assemble import describe_model, load_sequence
from cl_powerprop.config import RunConfig
from cl_powerprop.errors import ConfigurationError, DivergedError, RunFolderError
from cl_powerprop.experiment import run
from cl_powerprop.networks.build import build_model
from cl_powerprop.networks.heads import NEVER, TaskHeads, select_samples
from cl_powerprop.references import config_hash, load_references, reference_config
from cl_powerprop.run_lock import RunLock
from cl_powerprop.training.loaders import MixedLoader
from cl_powerprop.training.tensor_data import MixedSamples

from .conftest import MASKED, Command, tiny_config, unreadable_for_others
from .test_resume import cut_off
from .test_whole_runs import read_matrix, read_record

pytestmark = pytest.mark.slow

ALL = "references=[joint,independent,untrained]"


def metrics_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_record(folder)["metrics"]
    return found


def test_references_are_trained_once_and_enter_the_metrics(tmp_path: Path) -> None:
    result = run(tiny_config("strategy=epn", *MASKED, ALL), tmp_path / "epn")
    kept = sorted(path for path in Path("runs/references").iterdir() if not path.name.startswith("."))
    assert [path.name.partition("-")[0] for path in kept] == ["independent", "joint", "untrained"]
    matrix, recorded = read_matrix(result.path), metrics_of(result.path)
    last = {path.name.partition("-")[0]: read_matrix(path)[-1] for path in kept}
    assert recorded["intransigence"] == pytest.approx((last["independent"] - matrix.diagonal()).mean())
    assert recorded["joint_gap"] == pytest.approx((last["joint"] - matrix[-1]).mean())
    assert recorded["forward_transfer"] is None, "a task not learned yet has no mask"
    assert last["untrained"].mean() < 0.3 < last["joint"].mean()
    ids = {path.name.partition("-")[0]: read_record(path)["run_id"] for path in kept}
    told = read_record(result.path)["references"]
    assert {name: entry["run_id"] for name, entry in told.items()} == ids
    # Another strategy with the same settings takes them as they are.
    again = run(tiny_config("strategy=packnet", *MASKED, ALL), tmp_path / "packnet")
    assert {name: entry["run_id"] for name, entry in read_record(again.path)["references"].items()} == ids
    assert len([path for path in Path("runs/references").iterdir() if not path.name.startswith(".")]) == 3
    assert not unreadable_for_others(result.path)
    for folder in kept:
        assert not unreadable_for_others(folder)


@pytest.mark.parametrize("damage", [None, "run.json", "config.yaml"])
def test_a_reference_that_was_cut_off_goes_on(damage: str | None, tmp_path: Path) -> None:
    config = tiny_config("strategy=epn", *MASKED, "references=[independent]")
    with cut_off(task=2, epoch=0):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (left,) = Path("runs/references").iterdir()
    begun = read_record(left)
    assert (begun["status"], begun["trained_tasks"]) == ("failed", 2)
    if damage:
        (left / damage).write_text("")
    run(config, tmp_path / "run")
    assert [left] == list(Path("runs/references").iterdir())
    known = read_record(left)
    assert (known["status"], len(known["resumed"]), known["run_id"]) == ("complete", 1, begun["run_id"])
    whole = run(reference_config(config, "independent"), tmp_path / "whole")
    assert np.array_equal(read_matrix(left), read_matrix(whole.path), equal_nan=True)


def test_two_runs_that_need_the_same_reference_train_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(references, "_SECONDS_A_LOOK", 0.05)
    config = tiny_config("strategy=naive", "references=[untrained]")
    path = Path("runs/references", f"untrained-{config_hash(reference_config(config, 'untrained'))}")
    with RunLock(path).hold():
        waiting = threading.Thread(target=run, args=(config, tmp_path / "run"))
        waiting.start()
        while "waiting for the reference untrained" not in caplog.text:
            waiting.join(0.05)
            assert waiting.is_alive()
        assert not (tmp_path / "run" / "run.json").exists()
    waiting.join(60)
    assert read_record(tmp_path / "run")["references"].keys() == {"untrained"}


def test_a_reference_is_the_run_that_its_strategy_makes(tmp_path: Path) -> None:
    run(tiny_config("strategy=epn", *MASKED, "references=[independent]"), tmp_path / "epn")
    (kept,) = (path for path in Path("runs/references").iterdir() if not path.name.startswith("."))
    alone = run(tiny_config("strategy=independent", "evaluation.schedule=diagonal_and_last"), tmp_path / "alone")
    assert np.array_equal(read_matrix(kept), read_matrix(alone.path), equal_nan=True)


def test_what_changes_numbers_changes_the_hash_and_nothing_else_does() -> None:
    def hashed(*overrides: str) -> str:
        return config_hash(reference_config(tiny_config(*overrides), "joint"))

    base = hashed("strategy=epn", *MASKED)
    assert hashed("strategy=naive") == hashed("strategy=epn", "progress=true", "run_dir=x", "data.root=y") == base
    changed = [
        hashed(word) for word in ("seed=1", "train.epochs=3", "benchmark.n_tasks=4", "model.alpha=1", "optimizer.lr=1")
    ]
    assert len({base, *changed}) == 6
    assert config_hash(reference_config(tiny_config(), "untrained")) != base


def test_a_run_without_references_has_no_such_metrics(tmp_path: Path) -> None:
    recorded = metrics_of(run(tiny_config("strategy=naive"), tmp_path / "run").path)
    assert recorded["intransigence"] is None
    assert recorded["joint_gap"] is None
    assert recorded["min_accuracy"] is None


def test_a_reference_that_diverges_is_reported_and_leaves_no_folder(tmp_path: Path) -> None:
    def diverge(_: RunConfig, path: Path) -> None:
        path.mkdir(parents=True)
        (path / "run.json").write_text("{}")
        raise DivergedError("the loss is nan")

    told: list[str] = []
    assert load_references(tiny_config("references=[joint]"), diverge, told.append) == []
    assert told == ["the reference joint is missing: the loss is nan"]
    assert list(Path("runs/references").iterdir()) == []


CLASS = ("benchmark.scenario=class", "model.heads=shared")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("references=[alone]",), "references must be one of joint, independent, untrained"),
        (
            ("references=[independent]", "benchmark=split", "benchmark.n_tasks=5", *CLASS),
            "strategy=independent needs to know the task",
        ),
        (("evaluation.every_epochs=0",), "evaluation.every_epochs must be at least 1"),
        (("evaluation.every_epochs=1", "evaluation.every_steps=1"), "choose one of"),
        (("strategy=ewc", "strategy.mode=both"), "strategy.mode must be one of online, separate"),
        (("strategy=ewc", "strategy.penalty=-1"), "strategy.penalty must be at least 0"),
        (
            ("benchmark.scenario=domain", "strategy.task_inference=entropy", "evaluation.every_steps=5"),
            "has no mask yet",
        ),
    ],
)
def test_impossible_references_are_refused_before_training(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    config = tiny_config("strategy=naive" if "strategy" not in "".join(words) else "train.epochs=6", *words)
    with pytest.raises(ConfigurationError, match=told):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_joint_training_sees_all_tasks_and_tests_once(tmp_path: Path) -> None:
    result = run(tiny_config("strategy=joint", "train.epochs=3", "model.heads=per_task"), tmp_path / "joint")
    matrix = read_matrix(result.path)
    assert np.isnan(matrix[:-1]).all()
    assert (matrix[-1] > 0.3).all(), "every task was trained, not only one"
    assert read_record(result.path)["metrics"]["average_forgetting"] is None


def test_joint_with_heads_of_different_sizes(tmp_path: Path) -> None:
    words = ("strategy=joint", "benchmark=split_mnist", "benchmark.n_tasks=2", "benchmark.classes=[[0,1,2],[3,4]]")
    result = run(tiny_config(*words, "model.heads=per_task", "train.epochs=3", "benchmark.n_tasks=2"), tmp_path / "r")
    assert (read_matrix(result.path)[-1] > 0.6).all()


def test_untrained_is_the_network_as_initialised(tmp_path: Path) -> None:
    config = tiny_config("strategy=untrained")
    result = run(config, tmp_path / "run")
    sequence = load_sequence(config, torch.device("cpu"))
    model = build_model(**describe_model(config, sequence))
    for fresh, kept in zip(model.parameters(), result.model.parameters(), strict=True):
        assert torch.equal(fresh, kept)
    assert read_matrix(result.path)[-1].mean() < 0.3


def test_ewc_without_a_penalty_is_naive_and_with_one_forgets_less(tmp_path: Path) -> None:
    words = ("model.alpha=1", "model.heads=shared", "optimizer.lr=0.1", "train.epochs=4", "optimizer.momentum=0.9")
    naive = run(tiny_config("strategy=naive", *words), tmp_path / "naive").path
    none = run(tiny_config("strategy=ewc", "strategy.penalty=0", *words), tmp_path / "none").path
    held = run(tiny_config("strategy=ewc", "strategy.penalty=20", *words), tmp_path / "held").path
    assert np.array_equal(read_matrix(naive)[-1], read_matrix(none)[-1])
    assert metrics_of(held)["average_forgetting"] < metrics_of(naive)["average_forgetting"]
    run(tiny_config("strategy=ewc", "strategy.mode=separate", "strategy.penalty=5", *words), tmp_path / "separate")


@pytest.mark.parametrize("words", [("strategy=naive", "model.heads=per_task"), ("strategy=epn", *MASKED)])
@pytest.mark.parametrize("every", ["evaluation.every_epochs=1", "evaluation.every_steps=20"])
def test_evaluating_within_tasks_does_not_change_training(tmp_path: Path, words: tuple[str, ...], every: str) -> None:
    plain = run(tiny_config(*words), tmp_path / "plain").path
    within = run(tiny_config(*words, every), tmp_path / "within").path
    assert np.array_equal(read_matrix(plain), read_matrix(within), equal_nan=True)
    curves = pd.read_csv(within / "curves.csv").query("split == 'test' and metric == 'accuracy'")
    between = pd.read_csv(plain / "curves.csv").query("split == 'test' and metric == 'accuracy'")
    assert len(curves) > len(between)
    assert not curves.duplicated(["step", "eval_task"]).any()
    matrix, recorded = read_matrix(within), metrics_of(within)
    ends = {task: curves[(curves.trained_tasks > task) & (curves.eval_task == task)].step.min() for task in range(3)}
    lowest = [curves[(curves.eval_task == task) & (curves.step > ends[task])].value.min() for task in range(2)]
    assert recorded["min_accuracy"] == pytest.approx(np.mean(lowest))
    assert recorded["worst_case_accuracy"] == pytest.approx(matrix[-1, -1] / 3 + 2 / 3 * np.mean(lowest))
    if words[0] == "strategy=epn":
        assert read_record(within)["zero_forgetting_verified"] is True
        assert recorded["min_accuracy"] == pytest.approx(matrix[-1, :-1].mean()), "nor is anything lost in between"


def test_a_curve_within_tasks_needs_no_test_between_them(tmp_path: Path) -> None:
    words = ("strategy=epn", *MASKED, "evaluation.every_epochs=1")
    always = run(tiny_config(*words), tmp_path / "a" / "run").path
    last = run(tiny_config(*words, "evaluation.schedule=last"), tmp_path / "b" / "run").path
    curves = [forgetting_curves(compare_runs(load_runs(path))).query("task != 'average'") for path in (always, last)]
    places = [set(zip(table.task, table.progress, strict=True)) for table in curves]
    assert places[1] <= places[0]
    assert {("0", 0.5), ("1", 1.5), ("2", 2.5), ("2", 3.0)} <= places[1]


def test_mixed_samples_are_those_of_the_tasks() -> None:
    sequence = load_sequence(tiny_config(), torch.device("cpu"))
    parts = [task.train.subset(torch.arange(50 + index)) for index, task in enumerate(sequence.tasks)]
    mixed = MixedSamples(parts)
    assert len(mixed) == 153
    assert torch.equal(mixed.images(), torch.cat([part.images() for part in parts]))
    which = torch.tensor([152, 0, 60, 49, 50])
    assert torch.equal(mixed.images(which), torch.cat([part.images() for part in parts])[which])
    few = mixed.subset(which)
    assert torch.equal(few.images(), mixed.images(which))
    assert torch.equal(few.labels, mixed.labels[which])
    assert torch.equal(few.subset(torch.tensor([2])).tasks, torch.tensor([1]))
    with pytest.raises(IndexError):
        mixed.images(torch.tensor([], dtype=torch.int64))
    loader = MixedLoader(mixed, 40, torch.Generator().manual_seed(0), None, 0)
    batches = list(loader)
    assert [len(batch[1]) for batch in batches] == [40, 40, 40, 33]
    assert len(loader) == 4
    assert torch.bincount(torch.cat([batch[2] for batch in batches])).tolist() == [50, 51, 52]
    assert len(set(batches[0][2].tolist())) == 3, "tasks are mixed within a batch"


def test_each_sample_uses_the_head_of_its_own_task() -> None:
    heads = TaskHeads(4, [2, 3])
    features, tasks = torch.randn(5, 4), torch.tensor([1, 0, 1, 1, 0])
    select_samples(heads, tasks)
    mixed = heads(features)
    torch.testing.assert_close(heads._forward_all(features, tasks, 3), mixed)  # as on a GPU
    for row, task in enumerate(tasks.tolist()):
        heads.select_task(task)
        expected = heads(features[row : row + 1])[0]
        assert torch.allclose(mixed[row, : len(expected)], expected)
        assert (mixed[row, len(expected) :] == NEVER).all()


def test_overlaps_and_weights_of_a_run(tmp_path: Path) -> None:
    result = run(tiny_config("strategy=epn", *MASKED), tmp_path / "run")
    overlap = pd.read_csv(result.path / "mask_overlap.csv")
    capacity = pd.read_csv(result.path / "capacity.csv").query("kind == 'masked'")
    kept = capacity.groupby("task").kept.sum()
    own = overlap[overlap.task == overlap.other].set_index("task").weights
    assert own.to_dict() == kept.to_dict()
    assert len(overlap) == 6
    assert (overlap.weights <= overlap.task.map(kept)).all()
    weights = pd.read_csv(result.path / "weights.csv")
    total = capacity.drop_duplicates("layer").weights.sum()
    assert weights.weights.sum() == total
    used = 1 - capacity[capacity.task == 2].free.sum() / total
    assert weights[weights.state == "used"].weights.sum() / total == pytest.approx(used)
    assert (weights.low < weights.high).all()


def test_the_command_compares(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        run(tiny_config("strategy=naive", f"seed={seed}"), tmp_path / "runs" / f"naive{seed}")
        run(tiny_config("strategy=epn", *MASKED, f"seed={seed}"), tmp_path / "runs" / f"epn{seed}")
    capsys.readouterr()
    assert command("compare", tmp_path / "runs", "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "verified to the bit" in printed
    assert f"report: {tmp_path / 'out' / 'report.html'}" in printed
    made = {path.name for path in (tmp_path / "out").iterdir()}
    figures = {
        *("forgetting_curves", "average_accuracy", "accuracy_matrix", "capacity_growth", "mask_composition"),
        *("accuracy_against_capacity", "accuracy_against_total_size", "mask_overlap", "weights"),
    }
    assert made == {"summary.csv", "summary.md", "pairwise.csv", "report.html"} | {
        f"{name}.{suffix}" for name in figures for suffix in ("png", "svg")
    }
    assert json.loads((tmp_path / "runs" / "naive0" / "run.json").read_text())["status"] == "complete"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["absent"], "absent does not exist"),
        (["."], "holds no run"),
    ],
)
def test_an_impossible_comparison_is_one_line(
    command: Command, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert command("compare", *words, "--out", "out") == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(("run.json", text) for text in ("", "[]", "{", '{"status": "complete"}', "[" * 10**5)),
        *(("accuracy_matrix.csv", text) for text in ("", "a,b\n0.5\n", "a,b\nx,y\n", "a,b\n0.5,7\n", "\xff\x00")),
        *(("run.json", None), ("accuracy_matrix.csv", None)),
    ],
)
def test_a_damaged_reference_is_one_line(file: str, content: str | None, tmp_path: Path) -> None:
    """It may be somebody else's, in a folder that a team shares."""
    from cl_powerprop.references import _read

    matrix = "a,b\n0.5,0.1\n0.5,0.6\n"
    (tmp_path / "accuracy_matrix.csv").write_text(matrix)
    record = {"run_id": "abc", "status": "complete", "diverged_tasks": [], "n_tasks": 2}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert _read(tmp_path)[1][-1].tolist() == [0.5, 0.6]
    (tmp_path / file).unlink()
    if content is None:
        (tmp_path / file).symlink_to("/dev/zero")
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(RunFolderError, match=r"is damaged .*; remove the folder, and it is trained again") as raised:
        _read(tmp_path)
    assert str(raised.value).isprintable()
    assert str(tmp_path) in str(raised.value)
