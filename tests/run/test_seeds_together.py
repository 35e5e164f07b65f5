"""Several seeds in one process: each run is that of its seed alone, whatever becomes of the others."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cl_powerprop
from cl_powerprop.config import RunConfig
from cl_powerprop.errors import ConfigurationError, DivergedError, RunFolderError, SeedError
from cl_powerprop.experiment import Result, run
from cl_powerprop.interrupts import Interrupted
from cl_powerprop.repeat import repeated_config
from cl_powerprop.seeds_together import folder_of, run_together
from cl_powerprop.training import fast
from cl_powerprop.training.fast import FastSupervisedTemplate
from cl_powerprop.training.lockstep import Lockstep
from cl_powerprop.training.measure import Measure
from cl_powerprop.training.stacked import train_together

from .conftest import Command, compose_config, tree

DIGITS = (
    "data=digits",
    "benchmark.n_tasks=3",
    "train.epochs=2",
    "model.hidden=[20]",
    "progress=false",
    "checkpoint.max_share=1",
)
KINDS = {
    "naive": ("strategy=naive", "optimizer.momentum=0.9"),
    "packnet": ("strategy=packnet", "strategy.retrain_epochs=1", "optimizer=adam", "optimizer.lr=0.01"),
    "epn": ("strategy=epn", "model.alpha=2", "train.clip_norm=1"),
    "ewc": ("strategy=ewc",),
    "sparse": ("strategy=naive", "benchmark=single", "benchmark.n_tasks=1", "sparsity=rigl", "sparsity.target=0.8"),
    "augmented": ("strategy=naive", "train.shift=1", "train.rotate=5", "evaluation.every_epochs=1"),
}


def digits(*overrides: str) -> RunConfig:
    return compose_config(*DIGITS, *overrides)


@pytest.fixture
def taking_turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let seeds meet before every epoch and every measurement, but do nothing at once: runs are those alone to the bit.

    Returns the seeds in the order in which they have trained epochs.
    """
    turns: list[int] = []
    meet, train, measure = Lockstep.meet, FastSupervisedTemplate.training_epoch, Measure.__call__

    def meet_alone(self: Lockstep, key: Any, item: Any, work: Any, position: tuple[int, ...] = ()) -> Any:
        return meet(self, (key, threading.get_ident()), item, work)

    def training_epoch(self: FastSupervisedTemplate, **options: Any) -> None:
        if self.lockstep is not None:
            self.lockstep.meet("epoch", None, lambda items: items)
        turns.append(self.seed)
        train(self, **options)

    def measured(self: Measure, *arguments: Any) -> Any:
        if self._learner.lockstep is not None:
            self._learner.lockstep.meet("measure", None, lambda items: items)
        return measure(self, *arguments)

    monkeypatch.setattr(Lockstep, "meet", meet_alone)
    monkeypatch.setattr(FastSupervisedTemplate, "training_epoch", training_epoch)
    monkeypatch.setattr(Measure, "__call__", measured)
    return turns


def numbers(folder: Path) -> dict[str, Any]:
    """What a run has found out: its files, without its id and what differs from process to process."""
    content: dict[str, Any] = tree(folder)
    record = json.loads(content.pop("run.json"))
    for name in ("curves.csv", "sparsity.csv", "pruning.csv"):
        if name in content:
            rows = list(csv.DictReader(content[name].decode().splitlines()))
            content[name] = [{key: value for key, value in row.items() if key != "run_id"} for row in rows]
    kept = ("status", "seed", "metrics", "zero_forgetting_verified", "searches", "diverged_tasks", "error", "job")
    return content | {key: record[key] for key in kept}


def record(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text())


@pytest.mark.cuda
@pytest.mark.parametrize("kind", KINDS)
def test_each_run_is_that_of_its_seed_alone_to_the_bit(kind: str, taking_turns: list[int]) -> None:
    together = run_together(digits(*KINDS[kind], "seed=5", "seeds_together=3"), "together")
    assert taking_turns[:6] == [5, 6, 7, 5, 6, 7]
    for seed, result in zip((5, 6, 7), together, strict=True):
        alone = run(digits(*KINDS[kind], f"seed={seed}"), Path(f"alone_{seed}"))
        assert result.path == Path("together", f"seed_{seed}")
        assert numbers(result.path) == numbers(alone.path)
        assert result.record == record(result.path)
        assert (result.record["seeds_together"], alone.record["seeds_together"]) == (3, 1)
        for name, value in alone.model.state_dict().items():
            assert torch.equal(value, result.model.state_dict()[name])


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The seeds that train each epoch as one."""
    found: list[list[int]] = []

    def train(epochs: Any) -> list[bool]:
        done = train_together(epochs)
        found.append([epoch.learner.seed for epoch, is_done in zip(epochs, done, strict=True) if is_done])
        return done

    monkeypatch.setattr(fast, "train_together", train)
    return found


def assert_close(result: Path, alone: Path) -> None:
    """Two runs of one seed are the same but for rounding; one more or less of the test samples may be right."""
    together, apart = record(result), record(alone)
    assert together["zero_forgetting_verified"] == apart["zero_forgetting_verified"]
    for name in ("average_accuracy", "average_forgetting", "capacity_used", "validation_accuracy"):
        assert together["metrics"][name] == pytest.approx(apart["metrics"][name], abs=0.01), name
    assert (result / "config.yaml").read_bytes() == (alone / "config.yaml").read_bytes()
    weights = cl_powerprop.load(alone).state_dict()
    for name, value in cl_powerprop.load(result).state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, weights[name], atol=2e-2, rtol=2e-2)  # training amplifies rounding
        else:
            assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize("kind", ["naive", "packnet", "epn"])
def test_seeds_that_train_as_one_are_those_alone_but_for_rounding(kind: str, groups: list[list[int]]) -> None:
    words = (*KINDS[kind], "strategy.search=grid") if kind == "epn" else KINDS[kind]
    results = run_together(digits(*words, "seeds_together=3"), "together")
    assert groups == [[0, 1, 2]] * 6
    for seed, result in enumerate(results):
        alone = run(digits(*words, f"seed={seed}"), Path(f"alone_{seed}"))
        assert result.record["zero_forgetting_verified"] is (kind != "naive")
        assert_close(result.path, alone.path)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_signal_before_an_epoch_of_all(seed: int, groups: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have met stop within it, and go on from there."""
    config = digits("strategy=packnet", "strategy.retrain_epochs=1", "seeds_together=3")
    with monkeypatch.context() as stopped:
        stop_at(stopped, seed, epoch=3)
        with pytest.raises(Interrupted):
            run_together(config, "group")
    assert groups[:2] == [[0, 1, 2]] * 2
    assert all(group == [] for group in groups[2:])
    for result in run_together(config, "group"):
        index = result.record["seed"]
        words = ("strategy=packnet", "strategy.retrain_epochs=1", f"seed={index}")
        assert_close(result.path, run(digits(*words), Path(f"alone_{index}")).path)
    assert groups[-1] == [0, 1, 2]


def test_a_run_repeats_itself_alone() -> None:
    run_together(digits("strategy=naive", "seeds_together=2"), "together")
    again = run(repeated_config(Path("together/seed_1"), ["run_dir=again"]))
    assert again.record["seed"] == 1
    assert again.record["seeds_together"] == 1


def test_global_draws_are_those_of_each_seed(taking_turns: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What draws from torch's own generator, as a user's plugin might, draws what it draws alone."""
    drawn: dict[str, list[float]] = {}
    train = FastSupervisedTemplate.training_epoch

    def training_epoch(self: FastSupervisedTemplate, **options: Any) -> None:
        train(self, **options)
        name = f"{'alone' if getattr(self, 'lockstep', None) is None else 'together'} {self.seed}"
        drawn.setdefault(name, []).append(float(torch.rand(())))

    monkeypatch.setattr(FastSupervisedTemplate, "training_epoch", training_epoch)
    run_together(digits("strategy=naive", "seeds_together=2"), "together")
    before = torch.random.get_rng_state()
    run_together(digits("strategy=naive", "seeds_together=2", "benchmark.n_tasks=2"), "other")
    assert torch.equal(before, torch.random.get_rng_state())
    for seed in (0, 1):
        run(digits("strategy=naive", f"seed={seed}"), Path(f"alone_{seed}"))
        assert drawn[f"together {seed}"][:6] == drawn[f"alone {seed}"]
    assert drawn["alone 0"] != drawn["alone 1"]


def test_images_are_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from cl_powerprop import assemble, experiment

    places = []
    monkeypatch.setattr(
        experiment,
        "assemble",
        lambda config, sequence: (
            places.append(
                {
                    split.source.images.data_ptr()
                    for task in sequence.tasks
                    for split in (task.train, task.valid, task.test)
                }
            )
            or assemble.assemble(config, sequence)
        ),
    )
    run_together(digits("strategy=naive", "train.epochs=1", "seeds_together=3"), "together")
    assert len(places) == 3
    assert len(set.union(*places)) == 2  # of training and of testing


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the training of some seeds fail in an epoch."""
    train = FastSupervisedTemplate.training_epoch

    def fail(make: Callable[[int], BaseException], *seeds: int, epoch: int = 3) -> None:
        begun: dict[int, int] = {}

        def training_epoch(self: FastSupervisedTemplate, **options: Any) -> None:
            begun[self.seed] = begun.get(self.seed, 0) + 1
            if self.seed in seeds and begun[self.seed] >= epoch:
                raise make(self.seed)
            train(self, **options)

        monkeypatch.setattr(FastSupervisedTemplate, "training_epoch", training_epoch)

    return fail


def test_a_seed_that_fails_does_not_stop_the_others(taking_turns: list[int], failing: Callable[..., None]) -> None:
    failing(lambda seed: DivergedError("the loss is no longer finite"), 1)
    with pytest.raises(SeedError, match=r"^seed 1: the loss is no longer finite$") as raised:
        run_together(digits("strategy=naive", "seeds_together=3"), "together")
    assert [result.path.name for result in raised.value.complete] == ["seed_0", "seed_2"]
    assert raised.value.__cause__ is None
    assert [record(Path("together", f"seed_{seed}"))["status"] for seed in range(3)] == [
        "complete",
        "failed",
        "complete",
    ]
    alone = run(digits("strategy=naive", "seed=2"), Path("alone"))
    assert numbers(Path("together/seed_2")) == numbers(alone.path)


def test_equal_reasons_are_told_once_and_a_fault_keeps_its_trace(failing: Callable[..., None]) -> None:
    failing(lambda seed: TypeError("of a plugin") if seed == 2 else DivergedError("diverged"), 0, 2, 3)
    with pytest.raises(SeedError) as raised:
        run_together(digits("strategy=naive", "seeds_together=4"), "together")
    assert str(raised.value) == "seeds 0, 3: diverged; seed 2: TypeError: of a plugin"
    assert isinstance(raised.value.__cause__, TypeError)


def test_the_command_names_a_seed_that_fails(
    command: Command, failing: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    failing(lambda seed: DivergedError("the loss is no longer finite"), 1)
    assert command("run", *DIGITS, "strategy=naive", "seeds_together=3", "run_dir=together") == 1
    printed = capfd.readouterr()
    assert printed.err == "cl-powerprop: error: seed 1: the loss is no longer finite\n"
    assert "seed_2" in printed.out


def test_what_all_seeds_refuse_is_one_line(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("run", "data=mnist", "data.root=nowhere", "seeds_together=8", "run_dir=together") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "nowhere" in line
    assert not Path("together").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("seeds_together=0", "seeds_together must be from 1 to 1024, not 0"),
        ("seeds_together=-3", "seeds_together must be from 1 to 1024, not -3"),
        ("seeds_together=1025", "seeds_together must be from 1 to 1024, not 1025"),
        ("seeds_together=1.5", "seeds_together"),
        ("seeds_together=all", "seeds_together"),
        ("seeds_together=null", "seeds_together"),
        ("seeds_together=[0,1]", "seeds_together"),
    ],
)
def test_impossible_numbers_are_one_line(
    option: str, message: str, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("run", *DIGITS, option, "run_dir=together") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


def test_the_last_seed_is_a_seed_too() -> None:
    with pytest.raises(ConfigurationError, match="seed must be at most"):
        digits(f"seed={10**18}", "seeds_together=2").check()


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=r"^seeds_together=2 is one process for several runs; torchrun"):
        digits("seeds_together=2").check()


def test_one_run_is_not_several() -> None:
    with pytest.raises(ConfigurationError, match="run_together"):
        cl_powerprop.run(digits("seeds_together=2"), "run")
    (result,) = cl_powerprop.run_together([*DIGITS, "strategy=naive", "seed=4", "train.epochs=1"], "group", quiet=True)
    assert isinstance(result, Result)
    assert result.path == folder_of(Path("group"), 4)


def test_a_folder_with_a_run_is_refused(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    words = (*DIGITS, "strategy=naive", "train.epochs=1")
    run(digits(*words[len(DIGITS) :]), Path("run"))
    before = tree(Path("run"))
    assert command("run", *words, "seeds_together=2", "run_dir=run") == 2
    assert "the run folder" in capfd.readouterr().err
    assert tree(Path("run")) == before
    assert command("run", *words, "seeds_together=2", "run_dir=group") == 0
    assert command("run", *words, "run_dir=group") == 2
    assert command("run", *words, "train.epochs=2", "seeds_together=3", "run_dir=group") == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert "seed 0" in error
    assert "other settings: train.epochs was 1 and is 2" in error
    assert record(Path("group/seed_2"))["status"] == "complete"  # which was free
    with pytest.raises(RunFolderError, match="never overwritten"):
        run_together(digits(*words[len(DIGITS) :], "seeds_together=2", "resume=never"), "group")


def test_a_complete_group_can_be_read_only() -> None:
    config = digits("strategy=naive", "train.epochs=1", "seeds_together=2")
    first = run_together(config, "group")
    before = tree(Path("group"))
    os.chmod("group", 0o555)
    try:
        second = run_together(config, "group")
    finally:
        os.chmod("group", 0o755)
    assert [result.record for result in second] == [result.record for result in first]
    assert tree(Path("group")) == before


def test_more_seeds_later_leave_those_that_are_complete() -> None:
    words = ("strategy=naive", "train.epochs=1")
    run_together(digits(*words, "seeds_together=2"), "group")
    before = tree(Path("group"))
    results = run_together(digits(*words, "seeds_together=3"), "group")
    assert [result.record["seed"] for result in results] == [0, 1, 2]
    assert tree(Path("group")).items() >= before.items()


def stop_at(monkeypatch: pytest.MonkeyPatch, seed: int, epoch: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal as a seed begins an epoch."""
    train, begun = FastSupervisedTemplate.training_epoch, [0]

    def training_epoch(self: FastSupervisedTemplate, **options: Any) -> None:
        begun[0] += self.seed == seed
        if self.seed == seed and begun[0] == epoch:
            os.kill(os.getpid(), number)
            time.sleep(0.05)  # the main thread takes it
        train(self, **options)

    monkeypatch.setattr(FastSupervisedTemplate, "training_epoch", training_epoch)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_signal_reaches_all_seeds_and_the_same_call_goes_on(
    seed: int, taking_turns: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = digits("strategy=packnet", "strategy.retrain_epochs=1", "seeds_together=3")
    with monkeypatch.context() as stopped:
        stop_at(stopped, seed, epoch=4)
        with pytest.raises(Interrupted) as raised:
            run_together(config, "group")
    assert raised.value.signal == signal.SIGTERM
    (note,) = raised.value.__notes__
    assert "goes on with all seeds together, and cl-powerprop resume group" in note
    for index in range(3):
        folder = Path("group", f"seed_{index}")
        assert record(folder)["status"] == "interrupted"
        assert (folder / "checkpoint.safetensors").exists()
    assert not list(Path("group").glob("**/.run.lock"))
    run_together(config, "group")
    for index in range(3):
        alone = run(digits("strategy=packnet", "strategy.retrain_epochs=1", f"seed={index}"), Path(f"alone_{index}"))
        assert numbers(Path("group", f"seed_{index}")) == numbers(alone.path)
        assert record(Path("group", f"seed_{index}"))["seeds_together"] == 3


def test_seeds_at_different_places_go_on_together(taking_turns: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """One is complete, one was cut off, one was not begun, and one was cut off alone."""
    words = ("strategy=epn",)
    run(digits(*words), Path("group/seed_0"))
    for seed, epoch in ((1, 2), (3, 5)):
        with monkeypatch.context() as stopped:
            stop_at(stopped, seed, epoch)
            with pytest.raises(Interrupted):
                run(digits(*words, f"seed={seed}"), Path(f"group/seed_{seed}"))
    results = run_together(digits(*words, "seeds_together=4"), "group")
    for seed, result in enumerate(results):
        assert numbers(result.path) == numbers(run(digits(*words, f"seed={seed}"), Path(f"alone_{seed}")).path)
        told = [line for line in result.record["messages"] if "seeds_together" in line]
        expected = ["resumed with seeds_together=4 in place of 1: numbers differ by rounding"] if seed in (1, 3) else []
        assert told == expected
    assert [result.record["seeds_together"] for result in results] == [1, 4, 4, 4]


def test_a_second_signal_stops_all_where_they_are(taking_turns: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    train = FastSupervisedTemplate.training_epoch

    def training_epoch(self: FastSupervisedTemplate, **options: Any) -> None:
        if self.seed == 1:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1.1)  # signals within a second count as one
            while True:  # hangs
                time.sleep(0.01)
        train(self, **options)

    monkeypatch.setattr(FastSupervisedTemplate, "training_epoch", training_epoch)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_together(digits("strategy=naive", "seeds_together=3"), "group")
    assert time.monotonic() - start < 8
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("Thread")] == []
    assert {record(Path("group", f"seed_{seed}"))["status"] for seed in (0, 1)} == {"interrupted"}
    monkeypatch.undo()


def start(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "cl_powerprop", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


LONG = (*DIGITS, "strategy=naive", "train.epochs=20", "benchmark.n_tasks=2", "seeds_together=2", "run_dir=my group")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL])
def test_the_command_stops_and_goes_on(number: int, command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    process = start("run", *LONG)
    while not Path("my group/seed_0/checkpoint.safetensors").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        (line,) = errors.splitlines()
        assert f"interrupted by {signal.Signals(number).name}; the same command with this run_dir goes on" in line
        assert "cl-powerprop resume 'my group'" in line
    assert command("run", *LONG) == 0
    assert "going on after" in capfd.readouterr().out
    assert [record(Path("my group", f"seed_{seed}"))["status"] for seed in (0, 1)] == ["complete"] * 2


@pytest.mark.slow
def test_resume_finishes_a_group_one_run_after_the_other(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as stopped:
        stop_at(stopped, 1, epoch=3)
        with pytest.raises(Interrupted):
            run_together(digits("strategy=naive", "seeds_together=2"), "group")
    assert command("resume", "group") == 0
    assert [record(Path("group", f"seed_{seed}"))["status"] for seed in (0, 1)] == ["complete"] * 2


@pytest.mark.slow
def test_a_multirun_of_groups_is_one_table_and_can_be_compared(
    command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("-m", *DIGITS, "train.epochs=1", "strategy=naive,packnet", "seeds_together=2", "run_dir=sweep")
    for _ in range(2):  # the second one finds all of them complete
        assert command("run", *words, "hydra/launcher=basic") == 0
        rows = [line for line in capfd.readouterr().out.splitlines() if line.startswith("│")]
        assert [word for row in rows for word in row.split() if "/seed_" in word] == [
            f"{job}/seed_{seed}" for job in (0, 1) for seed in (0, 1)
        ]
    assert command("compare", "sweep", "--out", "report") == 0
    runs = cl_powerprop.load_runs(["sweep"]).runs
    assert sorted(zip(runs["strategy"], runs["seed"], strict=True)) == [
        (strategy, seed) for strategy in ("naive", "packnet") for seed in (0, 1)
    ]
    assert "seeds_together" not in runs.columns


@pytest.mark.slow
def test_lines_of_progress_say_their_seed(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    words = (*DIGITS, "progress=true", "strategy=naive", "references=[untrained]", "seeds_together=2")
    assert command("run", *words, "run_dir=group") == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if ": task " in line]
    assert sum(line.startswith("seed 0: task ") for line in lines) == 3
    assert sum(line.startswith("seed 1: task ") for line in lines) == 3
    assert not [line for line in lines if not line.startswith("seed ")]


@pytest.mark.slow
def test_each_seed_has_its_own_references(taking_turns: list[int]) -> None:
    words = ("strategy=naive", "references=[joint,untrained]")
    results = run_together(digits(*words, "seeds_together=2"), "group")
    for seed, result in enumerate(results):
        alone = run(digits(*words, f"seed={seed}", "references_dir=others"), Path(f"alone_{seed}"))
        assert result.record["metrics"] == alone.record["metrics"]
    assert len(list(Path("runs/references").iterdir())) == 4
