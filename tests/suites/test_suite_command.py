"""`cl-powerprop suite` as a whole: from nothing to the table, stopped and gone on with, and what it refuses."""

import csv
import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cl_powerprop.registry import metrics
from cl_powerprop.status import statuses
from cl_powerprop.suites.definition import load_suite

pytest.importorskip("optuna")
pytestmark = pytest.mark.slow

LR = "optimizer.lr=tag(log,interval(0.05,0.5))"
SUITE: dict[str, Any] = {
    "title": "tiny",
    "common": [
        *("data=digits", "benchmark=permuted", "benchmark.n_tasks=3", "model.hidden=[16]", "model.alpha=1"),
        *(
            "train.epochs=2",
            "train.batch_size=100",
            "evaluation.schedule=diagonal_and_last",
            "benchmark.scenario=domain",
        ),
        *("model.heads=shared", "checkpoint.max_share=1"),
    ],
    "tuning": {"trials": 2, "seed": 1, "settings": ["benchmark.n_tasks=2"]},
    "seeds": [11, 12],
    "methods": {
        "naive": {"settings": ["strategy=naive"], "space": [LR]},
        "packnet": {
            "label": "PackNet",
            "settings": ["strategy=packnet", "strategy.task_inference=entropy"],
            "space": [LR],
            "tuning": ["strategy.shares=0.3"],
        },
        "hopeless": {
            "settings": ["strategy=naive", "train.clip_norm=null"],
            "space": ["optimizer.lr=interval(1e17,1e18)"],
        },
        "told": {"label": "PackNet, told", "settings": ["strategy=packnet"], "space": [LR]},
    },
    "any_budget": {"naive": {"settings": ["strategy=naive", "train.epochs=4"], "space": [LR]}},
}
T = 12.706  # 0.975 quantile of Student's t with one degree of freedom


def start(*words: str, folder: Path) -> "subprocess.Popen[str]":
    call = [sys.executable, "-W", "ignore", "-m", "cl_powerprop", "suite", *words]
    return subprocess.Popen(call, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def suite(*words: str, folder: Path, seconds: float = 600) -> "subprocess.CompletedProcess[str]":
    process = start(*words, folder=folder)
    out, err = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def suite_here(*words: str) -> int:
    """Call the command in this process, which is enough where nothing is trained; return its exit code."""
    from cl_powerprop.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["suite", *words])
    return int(ended.value.code or 0)


def table(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (folder / "league.csv").open(encoding="utf-8") as file:
        return {(row["method"], row["budget"]): row for row in csv.DictReader(file)}


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """The tiny suite, run to its end."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False), encoding="utf-8")
    return folder, suite("tiny.yaml", "--out", "made", "--jobs", "1", folder=folder)


def test_the_table_has_every_method_and_says_what_came_of_it(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"],
) -> None:
    folder, ended = finished
    rows = table(folder / "made")
    assert [*rows] == [(name, "equal") for name in SUITE["methods"]] + [("naive", "any")]
    assert ended.returncode == 1, "one method has failed"
    assert "no trial is complete" in rows["hopeless", "equal"]["reason"]
    assert "needs to know the task when it is tested" in rows["told", "equal"]["reason"]
    assert {row["reason"] for (name, _), row in rows.items() if name in ("naive", "packnet")} == {""}
    for (name, budget), key in (
        (("naive", "equal"), "naive"),
        (("packnet", "equal"), "packnet"),
        (("naive", "any"), "any_budget/naive"),
    ):
        row = rows[name, budget]
        runs = [record(folder / "made" / "runs" / key / f"seed_{seed}") for seed in (11, 12)]
        assert row["seeds"] == "11 12"
        for metric in ("average_accuracy", "average_forgetting"):
            a, b = (run["metrics"][metric] for run in runs)
            half = T * abs(a - b) / math.sqrt(2) / math.sqrt(2)  # standard deviation of two values, and of their mean
            assert float(row[metric]) == pytest.approx((a + b) / 2)
            assert float(row[f"{metric}_low"]) == pytest.approx((a + b) / 2 - half, rel=1e-3, abs=1e-6)
            assert float(row[f"{metric}_high"]) == pytest.approx((a + b) / 2 + half, rel=1e-3, abs=1e-6)
        assert float(row["seconds.total"]) == pytest.approx(sum(run["seconds"]["total"] for run in runs) / 2)
    # 1,437 training images of which a tenth validates, in batches of 100, for 2 epochs or 4
    steps = math.ceil((1437 - round(143.7)) / 100)
    assert (
        float(rows["naive", "equal"]["steps_per_task"])
        == float(rows["packnet", "equal"]["steps_per_task"])
        == 2 * steps
    )
    assert float(rows["naive", "any"]["steps_per_task"]) == 4 * steps
    assert [rows["packnet", "equal"][key] for key in ("task_identity", "buffer", "number_of_tasks")] == [
        "100 of one task",
        "False",
        "True",
    ]
    text = (folder / "made" / "league.md").read_text(encoding="utf-8")
    assert text.count("\n## ") == 2
    for said in ("PackNet, told: refused: ", "hopeless: failed: no trial is complete", "seeds 11, 12"):
        assert said in text
        assert said in ended.stdout or said.startswith("seeds")
    assert (folder / "made" / "comparison" / "report.html").stat().st_size > 1000


def test_trials_measure_no_test_data_and_their_best_settings_are_what_is_reported(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"],
) -> None:
    made = finished[0] / "made"
    needed = {metric.name for metric in metrics().values() if metric.needs_test}
    for key, (name, budget) in {"naive": ("naive", "equal"), "packnet": ("packnet", "equal")}.items():
        trials = [record(made / "tuning" / key / str(number)) for number in range(SUITE["tuning"]["trials"])]
        for trial in trials:
            assert (trial["seed"], trial["n_tasks"]) == (1, 2)
            assert not needed & {metric for metric, value in trial["metrics"].items() if value is not None}
        best = max(trials, key=lambda trial: float(trial["metrics"]["validation_accuracy"]))
        best_config = yaml.safe_load((made / "tuning" / key / str(trials.index(best)) / "config.yaml").read_text())
        assert float(table(made)[name, budget]["validation_accuracy"]) == best["metrics"]["validation_accuracy"]
        for seed in (11, 12):
            config = yaml.safe_load((made / "runs" / key / f"seed_{seed}" / "config.yaml").read_text())
            assert config["optimizer"]["lr"] == best_config["optimizer"]["lr"]
            assert (config["seed"], config["benchmark"]["n_tasks"]) == (seed, 3)
            assert config["strategy"].get("shares") is None, "what is for trials only"
            assert best_config["strategy"].get("shares") == (0.3 if key == "packnet" else None)


def test_the_same_command_again_runs_nothing(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = finished
    monkeypatch.chdir(folder)
    made = folder / "made"
    before = {file: file.stat().st_mtime_ns for file in made.rglob("run.json")}
    text = (made / "league.csv").read_bytes()
    assert suite_here("tiny.yaml", "--out", "made", "--resume", "--methods", "naive,packnet") == 0
    assert (made / "league.csv").read_bytes() == text, "with the rows of the other methods"
    assert (suite_here("tiny.yaml", "--out", "made"), (made / "league.csv").read_bytes()) == (1, text)
    assert {file: file.stat().st_mtime_ns for file in made.rglob("run.json")} == before
    capsys.readouterr()
    runs = statuses(made)
    assert {run.state for run in runs if "hopeless" not in run.name} == {"complete"}
    assert len(runs) == 4 * 2 + 3 * 2, "trials of four methods, runs of three"


def test_rows_stay_without_their_runs_unless_the_method_has_changed(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("made/runs/packnet")
    shutil.rmtree("made/tuning/packnet")
    before = table(Path("made"))
    assert suite_here("tiny.yaml", "--out", "made", "--methods", "naive") == 0
    assert table(Path("made")) == before
    assert "| PackNet |" in Path("made/league.md").read_text(encoding="utf-8")

    changed = {**SUITE, "methods": {**SUITE["methods"], "packnet": {"settings": ["strategy=packnet"], "space": [LR]}}}
    changed["methods"]["new"] = SUITE["methods"]["naive"]
    Path("tiny.yaml").write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
    capsys.readouterr()
    assert suite_here("tiny.yaml", "--out", "made", "--methods", "naive") == 0
    assert (
        "methods.packnet is another one than in suite.json; a row of it from before is left out"
        in capsys.readouterr().out
    )
    assert table(Path("made")) == {key: row for key, row in before.items() if key[0] != "packnet"}
    said = "`cl-powerprop suite tiny.yaml --methods naive,hopeless,told`"
    assert said in Path("made/league.md").read_text(encoding="utf-8")

    table_before = Path("made/league.csv").read_text(encoding="utf-8")
    Path("made/league.csv").write_text(table_before.replace(",True\n", ",yes\n"), encoding="utf-8")
    assert suite_here("tiny.yaml", "--out", "made", "--methods", "naive") == 2
    assert "made/league.csv is damaged, and its other rows would be lost" in capsys.readouterr().err


def test_a_suite_that_was_stopped_goes_on_and_comes_to_the_same(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"],
) -> None:
    folder, _ = finished
    words = ("tiny.yaml", "--methods", "naive,packnet", "--out", "stopped", "--jobs", "1")
    for sign in ("trial 0", "job 1"):  # within a study, and within the runs that are reported
        process = start(*words, folder=folder)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(sign):
                process.send_signal(signal.SIGTERM)
                break
        _, err = process.communicate(timeout=120)
        assert process.returncode == 128 + signal.SIGTERM, err
        assert err.splitlines()[-1].endswith("interrupted by SIGTERM; the same command goes on")
        assert not (folder / "stopped" / "league.csv").exists()
    assert suite(*words, "--resume", folder=folder).returncode == 0
    there, again = table(folder / "made"), table(folder / "stopped")
    for key, row in again.items():
        assert {**row, "seconds.total": ""} == {**there[key], "seconds.total": ""}


def test_one_reported_seed_is_a_run_alone_also_with_together(tmp_path: Path) -> None:
    naive = {"naive": SUITE["methods"]["naive"]}
    small = {**SUITE, "seeds": [11], "methods": naive, "any_budget": {}}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(small, sort_keys=False), encoding="utf-8")
    ended = suite("one.yaml", "--together", "--out", "made", "--jobs", "1", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert table(tmp_path / "made")["naive", "equal"]["seeds"] == "11"
    assert "`cl-powerprop suite one.yaml`" in (tmp_path / "made/league.md").read_text(encoding="utf-8")
    (recipe,) = (tmp_path / "made/configs/experiment").glob("*.yaml")
    assert "cl-powerprop suite one.yaml" in recipe.read_text(encoding="utf-8")


def test_what_cannot_be_is_one_line(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = finished
    monkeypatch.chdir(folder)
    (folder / "other").mkdir()
    (folder / "other" / "file").touch()
    (folder / "taken" / "tuning" / "naive").mkdir(parents=True)
    (folder / "taken" / "tuning" / "naive" / "file").touch()
    shutil.copy(folder / "made" / "suite.json", folder / "taken")
    refused = {
        ("league/none",): "unknown suite 'league/none'; choose from: ",
        (
            "tiny.yaml",
            "--methods",
            "naive,hatt",
        ): "tiny has no method hatt; choose from: naive, packnet, hopeless, told",
        ("tiny.yaml", "--out", "other"): "other holds something else than a suite; choose another --out",
        (
            "tiny.yaml",
            "--out",
            "taken",
        ): "taken/tuning/naive exists already and is never overwritten; choose another --out",
        ("tiny.yaml", "--out", "made", "train.epochs=3"): "made holds a suite of other settings: common was ",
        ("tiny.yaml", "--out", "made", "train.threads=2"): "made holds a suite of other settings: common was ",
        ("tiny.yaml", "--out", "made", "device=cpu"): "made holds a suite of other settings: common was ",
        ("tiny.yaml", "--jobs", "0"): "--jobs must be at least 1, not 0",
        ("tiny.yaml", "seed=3"): "seed=3: the suite sets seed itself; leave it out",
        ("tiny.yaml", "strategy=epn"): "each method has a strategy of its own",
        ("tiny.yaml", "--quick"): "no section quick",
        ("tiny.yaml", "train.epocs=3"): "unknown option 'train.epocs'",
        ("tiny.yaml", "train.epochs=x"): "train.epochs: Value 'x' of type 'str'",
        ("tiny.yaml", "data=mnist", f"data.root={folder}"): "cl-powerprop data download mnist",
    }
    for words, said in refused.items():
        capsys.readouterr()
        assert suite_here(*words) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert said in error
    assert not (folder / "runs").exists(), "nothing was begun"


@pytest.mark.timeout(2400)
def test_a_suite_of_ours_is_quick(tmp_path: Path) -> None:
    ended = suite("league/permuted_10", "--quick", folder=tmp_path, seconds=2300)
    assert ended.returncode == 0, ended.stderr
    made = tmp_path / "runs" / "suites" / "league" / "permuted_10-quick"
    rows = table(made)
    assert [*rows] == [(name, "equal") for name in load_suite("league/permuted_10", quick=True).methods]
    for (name, _), row in rows.items():
        assert row["reason"] == "", name
        assert 0.3 < float(row["average_accuracy"]) <= 1, name
        if row["task_identity"] == "weights":
            assert float(row["average_forgetting"]) == 0, f"{name} has weights for each task"
    assert {row["task_identity"] for row in rows.values()} == {"head", "weights"}
    assert "`cl-powerprop suite league/permuted_10 --quick`" in (made / "league.md").read_text()
