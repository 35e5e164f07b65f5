"""The scripts that gather recorded results, on tiny runs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from cl_powerprop import run

from .conftest import Finished

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[2] / "scripts"


def call(name: str, *words: object) -> str:
    command = [sys.executable, str(SCRIPTS / name), *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_runs_are_gathered_with_their_config(finished: Finished, tmp_path: Path) -> None:
    folders = [finished(name).path for name in ("epn-split", "naive-momentum-shared")]
    call("collect_runs.py", *folders, "--out", tmp_path / "results.csv")
    table = pd.read_csv(tmp_path / "results.csv").set_index("strategy")
    assert len(table) == 2
    assert table.loc["epn", "strategy.gamma"] == 0.98
    assert table.loc["naive", "optimizer.momentum"] == 0.9
    for name, strategy in (("epn-split", "epn"), ("naive-momentum-shared", "naive")):
        recorded = finished(name).record["metrics"]
        for metric in ("average_accuracy", "validation_accuracy", "capacity_used"):
            assert table.loc[strategy, metric] == pytest.approx(recorded[metric], rel=1e-5)


def test_the_reuse_table_adds_layers_up(finished: Finished) -> None:
    folder = finished("epn-momentum-frozen-biases").path
    lines = call("reuse_table.py", folder).splitlines()
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert rows["task"] == ["permuted: mask", "permuted: reused", "permuted: used"]
    capacity = pd.read_csv(folder / "capacity.csv").query("kind == 'masked'")
    second = capacity[capacity.task == 1]
    assert rows["1"][0] == f"{second.kept.sum() / second.weights.sum():.1%}"
    assert rows["1"][1] == f"{(second.kept - second.newly_frozen).sum() / second.kept.sum():.1%}"
    assert rows["2"][2] == f"{finished('epn-momentum-frozen-biases').record['metrics']['capacity_used']:.1%}"


def test_the_tables_of_searches_are_those_of_the_recorded_runs(tmp_path: Path) -> None:
    """The script measures nothing that its files have already, and its page has the tables that it prints."""
    folder = SCRIPTS.parent / "benchmarks" / "epn_search"
    for name in ("runs.csv", "profiles.csv"):
        shutil.copy(folder / name, tmp_path)
    before = [(tmp_path / name).read_bytes() for name in ("runs.csv", "profiles.csv")]
    printed = call("../benchmarks/epn_search/compare.py", "digits", "mnist", "omniglot", "--out", tmp_path)
    assert [(tmp_path / name).read_bytes() for name in ("runs.csv", "profiles.csv")] == before
    page = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(rows) == 2 * (2 + 3 * 4)
    assert set(rows) <= set(page)
    profiles = pd.read_csv(folder / "profiles.csv", dtype=str)
    monotone = ~profiles.holds.str.contains("10")  # the sparsest first: once a mask holds, all denser ones do
    for data, count in monotone.groupby(profiles.data).sum().items():
        line = next(row for row in rows if row.startswith(f"| {data} | grid |"))
        assert line.split(" | ")[3] == str(count)


def test_the_table_of_pruning_is_that_of_the_recorded_runs_and_of_new_ones(tmp_path: Path) -> None:
    folder = SCRIPTS.parent / "benchmarks" / "mnist_pruning"
    printed = call("../benchmarks/mnist_pruning/table.py")
    assert printed in (folder / "README.md").read_text(encoding="utf-8")
    words = ("experiment=mnist_pruning", "data=digits", "train.steps=20", "progress=false")
    runs = [run([*words, f"seed={seed}", "model.alpha=2"], tmp_path / "runs" / str(seed)).path for seed in (0, 1)]
    call("../benchmarks/mnist_pruning/table.py", tmp_path / "runs", "--out", tmp_path)
    table, recorded = (pd.read_csv(path / "pruning.csv") for path in (tmp_path, folder))
    assert list(table) == list(recorded)
    first = recorded.query("alpha == 2 and seed < 2").reset_index(drop=True)
    assert table.drop(columns="accuracy").equals(first.drop(columns="accuracy"))
    expected = [pd.read_csv(path / "pruning.csv").accuracy for path in runs]
    assert table.accuracy.tolist() == pd.concat(expected).tolist()
    summary, known = (pd.read_csv(path / "pruning_summary.csv") for path in (tmp_path, folder))
    assert list(summary) == list(known)
    assert summary["mean"].tolist() == pytest.approx(((expected[0] + expected[1]) / 2)[::-1].tolist())


def test_the_speed_of_a_gpu_is_measured_on_whatever_there_is(tmp_path: Path) -> None:
    parts = ("epochs", "launches", "together", "experiment", "networks")
    printed = call("../benchmarks/speed/gpu.py", *parts, "--small", "--data", "digits", "--out", tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(parts)
    for part in parts:
        table = pd.read_csv(tmp_path / f"{part}.csv")
        assert part in printed
        assert table.device.nunique() == 1
        assert (table.torch == torch.__version__).all()
        times = table.filter(regex="_(s|ms|s_an_epoch)$")
        assert (part == "launches") == times.empty
        assert (times.drop(columns="epoch_s", errors="ignore") > 0).all().all()
    ways = set(pd.read_csv(tmp_path / "epochs.csv").way)
    assert {"bare loop", "stock Avalanche", "naive", "packnet", "epn", "naive, no graphs"} <= ways
    together = pd.read_csv(tmp_path / "together.csv").set_index(["strategy", "seeds"])
    assert (together.run_by_one_seed.xs(1, level="seeds") == 1.0).all()


def test_an_unknown_part_of_the_speed_is_one_line() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        call("../benchmarks/speed/gpu.py", "nothing")
    assert "unknown part nothing; choose from: epochs, launches" in failed.value.stderr
