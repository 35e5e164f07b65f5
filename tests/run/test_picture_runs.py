"""Whole runs on a folder of pictures."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cl_powerprop.experiment import run

from ..data.picture_folder import write_pictures
from .conftest import Command, compose_config

pytestmark = pytest.mark.slow

PICTURES = ("benchmark=single", "data=folder", "data.size=16", "data.resize=18", "data.workers=1", "progress=false")
TRAINED = ("train.epochs=3", "train.batch_size=5", "model=mlp", "model.hidden=[20]", "optimizer.lr=0.02")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "data", train=20)
    return tmp_path / "data"


def test_a_streamed_run_is_to_the_bit_the_one_from_memory(root: Path, tmp_path: Path) -> None:
    records, curves = [], []
    for in_memory in ("true", "false"):
        config = compose_config(*PICTURES, *TRAINED, f"data.root={root}", f"data.in_memory={in_memory}")
        records.append(run(config, tmp_path / in_memory).record)
        curves.append(pd.read_csv(tmp_path / in_memory / "curves.csv").drop(columns="run_id"))
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    accuracy = [record["metrics"]["average_accuracy"] for record in records]
    assert accuracy[0] == accuracy[1] > 0.9, "classes are colours"
    assert records[0]["data"] == "folder"
    assert records[0]["data_verified"] is False


@pytest.mark.parametrize("in_memory", ["true", "false"])
def test_an_augmented_run_repeats_to_the_bit(root: Path, tmp_path: Path, in_memory: str) -> None:
    change = ("train.crop=0.3", "train.flip=true", "train.label_smoothing=0.1", "train.channels_last=true")
    config = compose_config(*PICTURES, *TRAINED, *change, f"data.root={root}", f"data.in_memory={in_memory}")
    tables = []
    for name in ("one", "two"):
        run(config, tmp_path / name)
        tables.append(pd.read_csv(tmp_path / name / "curves.csv").drop(columns="run_id"))
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert tables[0].query("split == 'test' and metric == 'accuracy'").value.iloc[-1] > 0.7


def test_two_processes_train_on_streamed_pictures_as_one_does(root: Path, tmp_path: Path) -> None:
    """Each reads its half of every batch, with the same crops and reflections, and has the same masks."""
    words = [
        *(*PICTURES, "model=lenet5", "sparsity=rigl", "sparsity.every=3", "sparsity.target=0.8", "optimizer.lr=0.02"),
        *("train.epochs=3", "train.batch_size=10", "train.crop=0.3", "train.flip=true", "device=cpu"),
        *(f"data.root={root}", "data.in_memory=false"),
    ]
    run(compose_config(*words), tmp_path / "one")
    together = ["-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "cl_powerprop", "run"]
    command = [sys.executable, *together, *words, f"run_dir={tmp_path / 'two'}"]
    subprocess.run(command, check=True, capture_output=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    (masks, curves), (others_masks, others_curves) = (
        [pd.read_csv(tmp_path / name / file).drop(columns="run_id") for file in ("sparsity.csv", "curves.csv")]
        for name in ("one", "two")
    )
    pd.testing.assert_frame_equal(masks, others_masks, check_exact=True)
    assert masks.grown.sum() > 0
    losses = [table.query("split == 'train' and metric == 'loss'").value for table in (curves, others_curves)]
    assert list(losses[0]) == pytest.approx(list(losses[1]), abs=1e-5)


@pytest.mark.parametrize("strategy", ["packnet", "epn", "ewc"])
def test_strategies_learn_split_pictures_that_are_streamed(root: Path, tmp_path: Path, strategy: str) -> None:
    write_pictures(tmp_path / "four", classes=4, train=12)
    words = ("benchmark=split", "benchmark.n_tasks=2", f"strategy={strategy}", "data.in_memory=false", "train.epochs=2")
    config = compose_config(*PICTURES, *TRAINED, *words, f"data.root={tmp_path / 'four'}", *RETRAIN.get(strategy, ()))
    record = run(config, tmp_path / "run").record
    assert record["status"] == "complete"
    assert record["trained_tasks"] == 2
    assert record["zero_forgetting_verified"] is (strategy != "ewc")


RETRAIN = dict.fromkeys(("packnet", "epn"), ("strategy.retrain_epochs=1",))


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("data.folder=nowhere", ["nowhere must hold train and val (or test)"]),
        ("data.folder=/etc", ["data.folder=/etc must be a folder below data.root"]),
        ("data.in_memory=perhaps", ["data.in_memory must be one of auto, true, false, not 'perhaps'"]),
        ("data.resize=4", ["data.resize must be from data.size=16"]),
        ("benchmark=omniglot data=folder", ["data=folder does not say who drew an image"]),
    ],
)
def test_mistakes_are_one_line(
    word: str, parts: list[str], root: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("run", *PICTURES, *word.split(), f"data.root={root}") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1, errors
    assert all(part in errors[0] for part in parts), errors[0]


@pytest.mark.parametrize("in_memory", ["true", "false"])
def test_a_broken_picture_is_one_line(
    in_memory: str, root: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "imagenet" / "train" / "n00000001" / "picture_7.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    words = (*PICTURES, *TRAINED, f"data.root={root}", f"data.in_memory={in_memory}", f"run_dir={tmp_path / 'run'}")
    assert command("run", *words) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1, errors
    assert "n00000001/picture_7.png cannot be read as a picture" in errors[0]


def test_data_commands_say_whose_the_pictures_are(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for action, said in (
        ("status", "data.folder names"),
        ("verify", "a run checks"),
        ("download", "data.folder names"),
    ):
        assert command("data", action, "folder") == 0
        assert said in capsys.readouterr().out
