"""Tiny runs of the real experiment, made once and used by many tests."""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from cl_powerprop import registry
from cl_powerprop.composition import compose
from cl_powerprop.config import RunConfig

from ..data.omniglot_zips import small_dataset, small_files, write_zips

TINY = (
    "benchmark.n_tasks=3",
    "train.epochs=2",
    "model.hidden=[20,20]",
    "train.batch_size=100",
    "progress=false",
    "checkpoint.max_share=1",  # these runs are too short to have any otherwise
)
MASKED = ("strategy.retrain_epochs=1",)

# Each strategy, optimizer, kind of head and of bias is in here, and each masked strategy with each kind of optimizer.
MOMENTUM = ("optimizer=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.9", "optimizer.weight_decay=1e-3")
RUNS: dict[str, tuple[str, ...]] = {
    "naive-momentum-shared": ("strategy=naive", *MOMENTUM, "model.heads=shared", "model.alpha=1"),
    "naive-adam-per_task-biases": ("strategy=naive", "optimizer=adam", "optimizer.lr=0.01", "model.bias=per_task"),
    "packnet-nesterov-shared": (
        *("strategy=packnet", *MASKED, *MOMENTUM, "optimizer.nesterov=true"),
        *("model.heads=shared", "model.alpha=1"),
    ),
    "packnet-adamw-per_task-biases": (
        *("strategy=packnet", *MASKED, "optimizer=adamw", "optimizer.lr=0.01"),
        "model.bias=per_task",
    ),
    "packnet-adam-frozen-biases": (
        *("strategy=packnet", *MASKED, "optimizer=adam", "optimizer.lr=0.01", "optimizer.space=phi"),
        *("model.bias=frozen", "strategy.shares=[0.2,0.5,0.1]"),
    ),
    "naive-product-momentum": ("strategy=naive", *MOMENTUM, "model.reparam=product"),
    "naive-sgd-power": ("strategy=naive", *MOMENTUM, "model.alpha=3", "optimizer.power=0"),
    "epn-momentum-frozen-biases": ("strategy=epn", *MASKED, *MOMENTUM, "model.bias=frozen"),
    "epn-adam-shared-biases": (
        *("strategy=epn", *MASKED, "optimizer=adam", "optimizer.lr=0.01"),
        *("model.heads=shared", "model.bias=per_task", "strategy.scope=global"),
    ),
    "packnet-free": ("strategy=packnet", *MASKED, *MOMENTUM, "strategy.reuse=none"),
    "packnet-chosen-biases": ("strategy=packnet", *MASKED, *MOMENTUM, "strategy.reuse=chosen", "model.bias=per_task"),
    "epn-scored-adam": (
        *("strategy=epn", "train.epochs=3", "strategy.retrain_epochs=2", "strategy.rounds=2", "strategy.scope=global"),
        *("strategy.train_through=scored", "strategy.score_lr=20", "strategy.reuse_bonus=4"),
        *("optimizer=adam", "optimizer.lr=0.01"),
    ),
    "epn-adamw-both": (
        *("strategy=epn", *MASKED, "optimizer=adamw", "optimizer.lr=0.01", "optimizer.weight_decay=0.1"),
        *("model.alpha=3", "strategy.criterion=both", "strategy.search=bisect", "train.clip_norm=1"),
    ),
    "wsn-momentum-biases": (
        *("strategy=wsn", *MASKED, *MOMENTUM, "strategy.density=0.5", "strategy.score_lr=100"),
        "model.bias=per_task",
    ),
    "wsn-adam-shared": (
        *("strategy=wsn", "strategy.reset_scores=true", "strategy.density=0.3", "model.heads=shared"),
        *("optimizer=adam", "optimizer.lr=0.01", "model.alpha=1"),
    ),
    "epn-scores-shared": (
        *("strategy=epn", *MASKED, *MOMENTUM, "model.heads=shared", "strategy.criterion=scores"),
        "strategy.score_density=0.5",
    ),
    "hat-momentum-biases": (
        *("strategy=hat", *MASKED, *MOMENTUM, "model.alpha=1", "model.bias=per_task"),
        *("strategy.s_max=50", "strategy.c=0.1"),
    ),
    "hat-adam-shared": (
        *("strategy=hat", "optimizer=adam", "optimizer.lr=0.01", "model.heads=shared", "model.alpha=1"),
        *("strategy.s_max=50", "strategy.c=0.1"),
    ),
    "supsup-shared": (
        *("strategy=supsup", "model.heads=shared", "strategy.weights=kaiming_normal"),
        *("optimizer=adam", "optimizer.lr=0.01", "model.alpha=1"),
    ),
    "supsup-momentum-biases": ("strategy=supsup", *MOMENTUM, "model.bias=per_task"),
    "epn-split": (
        "strategy=epn",
        *("train.epochs=3", "strategy.retrain_epochs=2", "strategy.rounds=2"),
        "benchmark=split_mnist",
        "benchmark.n_tasks=5",
        "strategy.train_through=free",
        *("strategy.judge=loss", "strategy.slack=0.5", "strategy.max_new=0.3", "strategy.reuse_bonus=2"),
    ),
}


def compose_config(*overrides: str) -> RunConfig:
    """The real config, composed and parsed as the command does."""
    return compose(overrides)


def tiny_config(*overrides: str) -> RunConfig:
    return compose_config(*TINY, *overrides)


def shipped(group: str) -> list[str]:
    """The names of our own parts of a kind, as messages list them."""
    return sorted(path.stem for path in (registry.CONF / group).glob("[!_]*.yaml"))


Finished = Callable[[str], Any]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The result of one of ``RUNS``, trained when it is first asked for."""
    from cl_powerprop.experiment import run

    results: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in results:
            results[name] = run(tiny_config(*RUNS[name]), tmp_path_factory.mktemp("runs") / name)
        return results[name]

    return get


@pytest.fixture(autouse=True)
def clean_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run every test in its own folder, and undo what the command changes in the process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.delenv("CL_POWERPROP_DATA", raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    GlobalHydra.instance().clear()


@pytest.fixture
def omniglot_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three small alphabets instead of Omniglot's fifty."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    part = replace(registry.find("data", "omniglot"), make=small_dataset)
    monkeypatch.setitem(registry._parts["data"], "omniglot", part)
    write_zips(tmp_path / "data", small_files())
    return tmp_path / "data"


Command = Callable[..., int]


@pytest.fixture
def command() -> Command:
    """Call ``cl-powerprop`` in this process; returns its exit code."""

    def call(*words: str) -> int:
        from cl_powerprop.cli import main

        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        code = stopped.value.code
        assert code is None or isinstance(code, int)
        return code or 0

    return call


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def unreadable_for_others(folder: Path) -> dict[str, str]:
    """The mode of everything at or below a folder that others may read less of than of a new file or folder."""
    mask = os.umask(0)
    os.umask(mask)
    usual = {True: 0o777 & ~mask, False: 0o666 & ~mask}
    modes = {path: path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}
    return {str(path): oct(mode) for path, mode in modes.items() if mode & usual[path.is_dir()] != usual[path.is_dir()]}
