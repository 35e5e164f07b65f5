"""A user's mistake is one clear line on stderr and exit code 2; a fault while running is exit code 1."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import cl_powerprop

from .conftest import TINY, Command, shipped, tree

Capture = pytest.CaptureFixture[str]

MISTAKES: dict[str, tuple[str, list[str]]] = {
    "an unknown logger": ("logger=[bogus]", ["unknown logger 'bogus'", "tensorboard", "wandb"]),
    "an option of a logger that was not chosen": ("logger.wandb.mode=offline", ["logger=[tensorboard|wandb]"]),
    "a misspelt option of a logger": ("logger=[wandb] logger.wandb.mod=offline", ["did you mean 'mode'"]),
    "an unknown W&B mode": ("logger=[wandb] logger.wandb.mode=on", ["logger.wandb.mode", "online", "disabled"]),
    "no time for W&B": ("logger=[wandb] logger.wandb.timeout=0", ["logger.wandb.timeout must be above 0"]),
    # words on the command line: parts of the error message
    "unknown benchmark": (
        "benchmark=permute",
        ["unknown benchmark 'permute'", "omniglot, omniglot_rotation, permuted, rotated, single, split"],
    ),
    "unknown strategy": (
        "strategy=packnets",
        ["unknown strategy 'packnets'", ", ".join(shipped("strategy"))],
    ),
    "unknown model": (
        "model=resnet",
        ["unknown model 'resnet'", "convnet, lenet, lenet5, lenet_300_100, mlp, resnet18, resnet50, wide_resnet"],
    ),
    "unknown data": (
        "data=cifar",
        ["unknown data 'cifar'", "cifar100, digits, fashion_mnist, folder, kmnist, mnist, mnist5k, omniglot"],
    ),
    "unknown optimizer": ("optimizer=lion", ["unknown optimizer 'lion'", "adam, adamw, sgd"]),
    "unknown experiment": ("experiment=nothing", ["unknown experiment 'nothing'", "mnist_pruning", "quickstart/epn"]),
    "unknown strategy name": ("strategy.name=none", ["unknown strategy 'none'", "independent, joint", "--import"]),
    "unknown key": ("strategy.gama=1", ["gama", "did you mean 'gamma'", "retrain_epochs"]),
    "unknown key in train": ("train.epoch=1", ["did you mean 'epochs'"]),
    "unknown top key": ("sed=1", ["sed", "did you mean 'seed'"]),
    "key of another strategy": ("strategy=naive strategy.gamma=0.9", ["gamma"]),
    "added key": ("+strategy.foo=1", ["foo"]),
    "added top key": ("+foo=1", ["foo"]),
    "no override at all": ("seed", ["seed"]),
    "wrong type of an integer": ("train.epochs=abc", ["train.epochs", "abc"]),
    "wrong type of a float": ("model.alpha=big", ["model.alpha", "big"]),
    "wrong type of a list": ("model.hidden=5", ["model.hidden"]),
    "wrong type in a list": ("model.hidden=[a]", ["model.hidden", "a"]),
    "wrong type of a bool": ("save_model=maybe", ["save_model", "maybe"]),
    "wrong type of the seed": ("seed=1.5", ["seed", "1.5"]),
    "missing value": ("train.epochs=null", ["train.epochs"]),
    "alpha below 1": ("model.alpha=0.5", ["alpha", "0.5"]),
    "alpha nan": ("model.alpha=nan", ["alpha", "nan"]),
    "alpha infinite": ("model.alpha=inf", ["alpha", "inf"]),
    "gamma 0": ("strategy.gamma=0", ["strategy.gamma must be in (0, 1], not 0"]),
    "gamma above 1": ("strategy.gamma=1.5", ["strategy.gamma must be in (0, 1], not 1.5"]),
    "gamma nan": ("strategy.gamma=nan", ["strategy.gamma must be a finite number"]),
    "sparsity 1": ("strategy.sparsities=[1.0]", ["strategy.sparsities", "[0, 1)", "1.0"]),
    "sparsity negative": ("strategy.sparsities=[0.5,-0.1]", ["strategy.sparsities", "[0, 1)"]),
    "no sparsity": ("strategy.sparsities=[]", ["strategy.sparsities"]),
    "unknown scope": ("strategy.scope=net", ["strategy.scope", "layer, global"]),
    "unknown search": ("strategy.search=random", ["strategy.search", "grid, raise, bisect, gallop"]),
    "unknown criterion": ("strategy.criterion=luck", ["strategy.criterion", "magnitude, saliency, both"]),
    "unknown train_through": ("strategy.train_through=none", ["strategy.train_through", "all, free, scored"]),
    "no tasks": ("benchmark.n_tasks=0", ["benchmark.n_tasks must be at least 1, not 0"]),
    "no tasks for PackNet": ("strategy=packnet benchmark.n_tasks=0", ["benchmark.n_tasks must be at least 1, not 0"]),
    "negative tasks": ("benchmark=split_mnist benchmark.n_tasks=-5", ["benchmark.n_tasks must be at least 1, not -5"]),
    "uneven split": ("benchmark=split_mnist benchmark.n_tasks=3", ["1, 2, 5, 10"]),
    "shares that exceed": (
        "strategy=packnet strategy.shares=0.5 benchmark.n_tasks=5",
        ["strategy.shares=0.5", "5 tasks", "after task 2", "at most 0.2"],
    ),
    "shares over 1": (
        "strategy=packnet strategy.shares=[0.5,0.4,0.2] benchmark.n_tasks=3",
        ["strategy.shares add up to 1.1"],
    ),
    "too few shares": ("strategy=packnet strategy.shares=[0.5,0.4] benchmark.n_tasks=3", ["2 shares for 3 tasks"]),
    "too many shares": ("strategy=packnet strategy.shares=[0.2,0.2] benchmark.n_tasks=1", ["2 shares for 1 tasks"]),
    "share 0": ("strategy=packnet strategy.shares=0", ["strategy.shares must be in (0, 1], not 0"]),
    "share nan": ("strategy=packnet strategy.shares=nan", ["strategy.shares must be a finite number"]),
    "share that is a word": (
        "strategy=packnet strategy.shares=hello benchmark.n_tasks=5",
        ["strategy.shares", "hello"],
    ),
    "shares of words": ("strategy=packnet strategy.shares=[a,b] benchmark.n_tasks=2", ["strategy.shares", "a"]),
    "share that is a mapping": ("strategy=packnet strategy.shares={a:0.1} benchmark.n_tasks=1", ["strategy.shares"]),
    "device without CUDA": ("device=cuda", ["device=cuda", "device=auto or cpu"]),
    "second device without CUDA": ("device=cuda:1", ["device=cuda:1", "device=auto or cpu"]),
    "unknown device": ("device=foo", ["unknown device 'foo'", "auto, cpu, cuda, cuda:N"]),
    "device not supported": ("device=meta", ["device=meta", "auto, cpu, cuda, cuda:N"]),
    "retraining all epochs": (
        "train.epochs=5 strategy.retrain_epochs=5",
        ["strategy.retrain_epochs=5", "train.epochs=5"],
    ),
    "retraining more": ("train.epochs=5 strategy.retrain_epochs=7", ["strategy.retrain_epochs=7", "train.epochs=5"]),
    "retraining negative": ("strategy.retrain_epochs=-1", ["strategy.retrain_epochs", "-1"]),
    "retraining PackNet": ("strategy=packnet train.epochs=2 strategy.retrain_epochs=2", ["strategy.retrain_epochs=2"]),
    "retraining rate negative": ("strategy.retrain_lr=-1", ["strategy.retrain_lr", "-1"]),
    "class scenario of permuted": (
        "strategy=naive model.heads=shared benchmark.scenario=class",
        ["permuted", "task or domain"],
    ),
    "domain scenario with EPN": (
        "benchmark.scenario=domain",
        ["strategy=epn", "benchmark.scenario=domain", "strategy.task_inference=entropy"],
    ),
    "class scenario of independent networks": (
        "strategy=independent model.heads=shared benchmark=split_mnist benchmark.scenario=class",
        ["strategy=independent", "benchmark.scenario=class"],
    ),
    "inference where the task is known": ("strategy.task_inference=entropy", ["task_inference", "domain and class"]),
    "unknown inference": ("strategy.task_inference=luck", ["strategy.task_inference", "none, entropy"]),
    "inference from nothing": ("strategy.inference_batch=0", ["strategy.inference_batch", "at least 1"]),
    "omniglot on other data": ("benchmark=omniglot data=mnist5k", ["needs data=omniglot", "mnist5k"]),
    "other benchmark on omniglot": ("data=omniglot", ["data=omniglot", "mnist5k"]),
    "omniglot of no size": ("benchmark=omniglot data.size=0", ["data.size", "1 to 105"]),
    "omniglot that is not there": (
        "benchmark=omniglot data.root=/nowhere",
        ["/nowhere/omniglot-py/images_background.zip", "data download omniglot"],
    ),
    "class scenario of rotated": (
        "strategy=naive model.heads=shared benchmark=rotated_mnist benchmark.scenario=class",
        ["rotated", "task or domain"],
    ),
    "too few angles": ("benchmark=rotated_mnist benchmark.angles=[1,2]", ["2 angles for 5 tasks"]),
    "the same angle twice": (
        "benchmark=rotated_mnist benchmark.n_tasks=2 benchmark.angles=[1,1]",
        ["benchmark.angles", "differ"],
    ),
    "unknown order": ("benchmark=rotated_mnist benchmark.order=up", ["benchmark.order", "fixed, random"]),
    "unknown norm": ("model=convnet model.norm=spectral", ["model.norm", "none, batch, group, layer"]),
    "groups of a later stage": ("model=resnet18 model.width=6 model.norm=group", ["model.norm=group", "12 channels"]),
    "depth 12": ("model=wide_resnet model.depth=12", ["model.depth", "6 n + 4"]),
    "widen factor 0": ("model=wide_resnet model.widen_factor=0", ["model.widen_factor", "at least 1"]),
    "width 0": ("model=resnet18 model.width=0", ["model.width", "at least 1"]),
    "images too small": ("model=convnet data=digits", ["(1, 8, 8)", "do not fit the model"]),
    "classes that are not there": (
        "benchmark=split_mnist benchmark.n_tasks=2 benchmark.classes=[[0],[10]]",
        ["benchmark.classes", "0 to 9"],
    ),
    "shift negative": ("train.shift=-1", ["train.shift", "-1"]),
    "crop of nothing": ("train.crop=0", ["train.crop", "(0, 1]"]),
    "labels smoothed away": ("train.label_smoothing=1", ["train.label_smoothing", "[0, 1)"]),
    "rotation infinite": ("train.rotate=inf", ["train.rotate", "inf"]),
    "class scenario with a head for each task": (
        "strategy=naive benchmark=split benchmark.scenario=class",
        ["model.heads=per_task", "benchmark.scenario=class", "model.heads=shared"],
    ),
    "class scenario with PackNet": (
        "strategy=packnet benchmark=split_mnist benchmark.scenario=class",
        ["strategy=packnet", "benchmark.scenario=class"],
    ),
    "domain scenario with heads": (
        "strategy=naive model.heads=per_task benchmark.scenario=domain",
        ["model.heads=per_task", "benchmark.scenario=domain"],
    ),
    "unknown scenario": ("benchmark.scenario=online", ["benchmark.scenario", "task, domain, class"]),
    "unknown heads": ("model.heads=two", ["model.heads", "shared, per_task"]),
    "unknown bias": ("model.bias=some", ["model.bias", "none, per_task, frozen"]),
    "unknown space": ("optimizer.space=psi", ["optimizer.space", "auto, phi, theta"]),
    "unknown reparameterisation": ("model.reparam=hadamard", ["model.reparam", "powerprop, product"]),
    "a product of three": ("strategy=naive model.reparam=product model.alpha=3", ["model.alpha=2, not 3"]),
    "retraining SupSup": ("strategy=supsup strategy.retrain_epochs=1", ["strategy=supsup", "must be 0"]),
    "HAT in a residual network": (
        "strategy=hat model=resnet18 model.width=4 data=mnist5k",
        ["layers one after the other", "ResidualBlock is not possible"],
    ),
    "HAT with a norm over channels": (
        "strategy=hat model=convnet model.width=4 model.norm=group data=mnist5k",
        ["layers one after the other", "GroupNorm is not possible"],
    ),
    "EPN's scores over all layers": (
        "strategy=epn strategy.criterion=scores strategy.scope=global",
        ["strategy.criterion=scores", "strategy.scope=layer"],
    ),
    "EPN's scored weights by saliency": (
        "strategy=epn strategy.criterion=saliency strategy.train_through=scored",
        ["strategy.train_through=scored", "use strategy.criterion=magnitude"],
    ),
    "EPN's scores without density": (
        "strategy=epn strategy.score_density=2",
        ["strategy.score_density must be in (0, 1]"],
    ),
    "PackNet that reuses some": (
        "strategy=packnet strategy.reuse=some",
        ["strategy.reuse must be one of all, chosen, none"],
    ),
    "a density of 0": ("strategy=wsn strategy.density=0", ["strategy.density must be in (0, 1], not 0"]),
    "a negative rate of scores": ("strategy=supsup strategy.score_lr=-1", ["strategy.score_lr must be at least 0"]),
    "a product with masks": ("strategy=packnet model.reparam=product", ["strategy=packnet", "model.reparam=powerprop"]),
    "a product in theta-space": (
        "strategy=naive model.reparam=product optimizer.space=theta",
        ["model.reparam=product", "leave optimizer.space"],
    ),
    "a product with a power": ("strategy=naive model.reparam=product optimizer.power=0", ["optimizer.power out"]),
    "a power above alpha - 1": ("model.alpha=2 optimizer.power=1.5", ["optimizer.power", "from 0", "= 1, not 1.5"]),
    "a power in phi-space": ("optimizer.space=phi optimizer.power=0", ["optimizer.power", "leave optimizer.space=phi"]),
    "unknown schedule": ("train.schedule=linear", ["train.schedule", "constant, cosine"]),
    "warm-up of everything": ("train.warmup=1", ["train.warmup"]),
    "clipping at 0": ("train.clip_norm=0", ["train.clip_norm", "0"]),
    "clipping negative": ("train.clip_norm=-1", ["train.clip_norm", "-1"]),
    "no validation": ("benchmark.validation=0", ["benchmark.validation=0", "share in (0, 1) or a number"]),
    "validation nan": ("benchmark.validation=nan", ["benchmark.validation"]),
    "validation infinite": ("benchmark.validation=inf", ["benchmark.validation"]),
    "validation of everything": ("benchmark.validation=4000", ["benchmark.validation=4000", "4000 training samples"]),
    "no epochs": ("strategy=naive train.epochs=0", ["train.epochs must be at least 1, not 0"]),
    "no batch": ("train.batch_size=0", ["train.batch_size must be at least 1, not 0"]),
    "no evaluation batch": ("train.eval_batch_size=-3", ["train.eval_batch_size must be at least 1, not -3"]),
    "no threads": ("train.threads=0", ["train.threads must be at least 1, not 0"]),
    "hidden width 0": ("model.hidden=[100,0]", ["model.hidden", "0"]),
    "init_scale negative": ("model.init_scale=-1", ["init_scale", "-1"]),
    "init_scale nan": ("model.init_scale=nan", ["init_scale", "nan"]),
    "learning rate negative": ("optimizer.lr=-1", ["optimizer", "learning rate", "-1"]),
    "momentum negative": ("optimizer.momentum=-1", ["optimizer", "momentum"]),
    "nesterov without momentum": ("optimizer.nesterov=true", ["optimizer", "momentum"]),
    "one beta": ("optimizer=adam optimizer.betas=[0.9]", ["betas"]),
    "betas out of range": ("optimizer=adamw optimizer.betas=[0.9,1.5]", ["optimizer", "1.5"]),
}


def one_error(capsys: Capture) -> str:
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1, "\n".join(errors[:3] + errors[-3:])
    assert errors[0].startswith("cl-powerprop: error: ")
    return errors[0]


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_is_one_line(
    name: str, tmp_path: Path, command: Command, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, parts = MISTAKES[name]
    if "CUDA" in name:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    code = command("run", *words.split(), "progress=false", f"run_dir={tmp_path / 'run'}")
    line = one_error(capsys)
    assert code == 2
    for part in parts:
        assert part.lower() in line.lower()
    assert not (tmp_path / "run").exists() or tree(tmp_path / "run") == {}, "refused before anything was written"


@pytest.mark.parametrize("words", [("bogus",), (), ("data",), ("data", "eat"), ("run", "--bogus"), ("list", "x")])
def test_a_wrong_command_ends_in_a_line_and_code_2(words: tuple[str, ...], command: Command, capsys: Capture) -> None:
    assert command(*words) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "error:" in error.splitlines()[-1]


def test_a_config_folder_that_is_no_run_is_one_line(tmp_path: Path, command: Command, capsys: Capture) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "absent"):
        assert command("run", "--config-dir", tmp_path / folder, "--config-name", "config") == 2
        assert "config" in one_error(capsys)


def test_mnist_without_data_says_what_to_do(tmp_path: Path, command: Command, capsys: Capture) -> None:
    code = command("run", "data=mnist", f"data.root={tmp_path}", f"run_dir={tmp_path / 'run'}")
    line = one_error(capsys)
    assert code == 2
    wanted = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    for part in (str(wanted), "`cl-powerprop data download mnist`", "data=mnist5k"):
        assert part in line
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_truncated_mnist_file_is_one_line(tmp_path: Path, command: Command, capsys: Capture, gzipped: bool) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    name = "train-images-idx3-ubyte" + (".gz" if gzipped else "")
    content = b"\x00\x00\x08\x03" + bytes(1000)
    (folder / name).write_bytes(gzip.compress(content)[:-9] if gzipped else content)
    assert command("run", "data=mnist", f"data.root={tmp_path}", f"run_dir={tmp_path / 'run'}") == 2
    line = one_error(capsys)
    for part in (name, "truncated or altered", "`cl-powerprop data download mnist`"):
        assert part in line


@pytest.mark.slow
def test_an_existing_run_folder_is_never_overwritten(tmp_path: Path, command: Command, capsys: Capture) -> None:
    words = ("run", *TINY, "strategy=naive", "benchmark.n_tasks=1", "train.epochs=1", f"run_dir={tmp_path / 'run'}")
    assert command(*words) == 0
    before = tree(tmp_path / "run")
    assert "run.json" in before
    capsys.readouterr()
    others = {
        ("strategy=epn", "train.epochs=3", "strategy.retrain_epochs=1", "seed=5"): (
            "strategy was naive and is epn",
            "train.epochs was 1 and is 3",
            "seed was 0 and is 5",
        ),
        ("resume=never",): ("never overwritten",),
    }
    for more, said in others.items():
        changed = [word for word in words if not any(word.split("=")[0] == new.split("=")[0] for new in more)]
        assert command(*changed, *more) == 2
        line = one_error(capsys)
        assert str(tmp_path / "run") in line
        for part in said:
            assert part in line
        assert tree(tmp_path / "run") == before
    assert command(*words) == 0
    assert f"{tmp_path / 'run'}: complete" in capsys.readouterr().out
    assert tree(tmp_path / "run") == before


def test_a_run_dir_that_cannot_be_made_is_one_line(tmp_path: Path, command: Command, capsys: Capture) -> None:
    (tmp_path / "file").write_text("mine")
    assert command("run", *TINY, "strategy=naive", f"run_dir={tmp_path / 'file' / 'run'}") == 2
    assert str(tmp_path / "file") in one_error(capsys)


def read_record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return content


@pytest.mark.slow
def test_training_that_diverges_is_exit_code_1(tmp_path: Path, command: Command, capsys: Capture) -> None:
    folder = tmp_path / "run"
    assert command("run", *TINY, "strategy=naive", "optimizer.lr=1e6", f"run_dir={folder}") == 1
    line = one_error(capsys)
    assert "diverged in task 0, epoch 1" in line
    assert "optimizer.lr" in line
    record = read_record(folder)
    assert record["status"] == "failed"
    assert record["error"] in line
    assert record["trained_tasks"] == 0
    assert record["metrics"] == {}
    assert record["zero_forgetting_verified"] is None


def spoil_task_2(monkeypatch: pytest.MonkeyPatch, spoil: Any) -> None:
    """Call a function when the training of the second task begins."""
    from cl_powerprop.training.schedule import LearningRateSchedule

    begin = LearningRateSchedule.before_training_exp

    def spoiled(self: Any, strategy: Any, **options: Any) -> None:
        begin(self, strategy, **options)
        if strategy.experience.current_experience == 1:
            spoil(self)

    monkeypatch.setattr(LearningRateSchedule, "before_training_exp", spoiled)


def check_first_task_is_kept(folder: Path, status: str = "failed") -> None:
    record = read_record(folder)
    assert record["status"] == status
    assert record["finished"] is not None
    assert record["trained_tasks"] == 1
    matrix = pd.read_csv(folder / "accuracy_matrix.csv").to_numpy()
    assert matrix.shape == (3, 3)
    assert 0 < matrix[0, 0] <= 1
    assert np.isfinite(matrix).sum() == 1
    capacity = pd.read_csv(folder / "capacity.csv")
    assert set(capacity.task) == {0}
    curves = pd.read_csv(folder / "curves.csv")
    tested = curves[(curves.split == "test") & (curves.metric == "accuracy")]
    assert tested.value.tolist() == [matrix[0, 0]]
    model = cl_powerprop.load(folder)
    assert model.n_tasks == 1
    with torch.no_grad():
        assert model(torch.zeros(1, 1, 28, 28), task=0).shape == (1, 10)
    with pytest.raises(LookupError):
        model(torch.zeros(1, 1, 28, 28), task=1)
    assert not list(folder.glob("*.part"))


EPN = (*TINY, "strategy.retrain_epochs=1")


@pytest.mark.slow
def test_divergence_in_task_2_keeps_task_1(
    tmp_path: Path, command: Command, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(schedule: Any) -> None:
        schedule._base = [1e30 for _ in schedule._base]

    spoil_task_2(monkeypatch, explode)
    assert command("run", *EPN, f"run_dir={tmp_path / 'run'}") == 1
    assert "diverged in task 1" in one_error(capsys)
    check_first_task_is_kept(tmp_path / "run")


@pytest.mark.slow
def test_an_interrupt_in_task_2_keeps_task_1(
    tmp_path: Path, command: Command, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    spoil_task_2(monkeypatch, interrupt)
    assert command("run", *EPN, f"run_dir={tmp_path / 'run'}") == 130
    assert "interrupted by SIGINT; cl-powerprop resume run goes on from its last checkpoint" in one_error(capsys)
    check_first_task_is_kept(tmp_path / "run", "interrupted")
    assert read_record(tmp_path / "run")["error"] == "KeyboardInterrupt"


@pytest.mark.slow
def test_a_fault_in_task_2_keeps_task_1_and_shows_where(
    tmp_path: Path, command: Command, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(_: Any) -> None:
        raise ZeroDivisionError("a bug")

    spoil_task_2(monkeypatch, fault)
    assert command("run", *EPN, f"run_dir={tmp_path / 'run'}") == 1
    errors = capsys.readouterr().err
    assert "Traceback" in errors, "a fault of the program is no mistake of the user"
    assert errors.splitlines()[-1] == "cl-powerprop: error: a bug"
    check_first_task_is_kept(tmp_path / "run")
