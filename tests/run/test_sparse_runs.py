"""`sparsity=NAME` in the command: what it goes with and what a run leaves; `train.steps` and `model.init` beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import cl_powerprop
from cl_powerprop import compose
from cl_powerprop.assemble import assemble
from cl_powerprop.checkpoint import read_checkpoint
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.experiment import Result, run
from cl_powerprop.networks.build import build_model
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.registry import CONF
from cl_powerprop.sparsity.maskable import maskable_weights
from cl_powerprop.training.fast import FastSupervisedTemplate

from .conftest import Command
from .test_resume import assert_same, cut_off

pytestmark = pytest.mark.slow

NAMES = sorted(path.stem for path in (CONF / "sparsity").glob("*.yaml") if path.stem != "none")
EVERY = {"gradual", "rigl", "set", "top_kast"}  # those with an interval
SMALL = ("data=digits", "train.epochs=2", "model.hidden=[20,20]", "progress=false")
TARGET = 0.8


def words_of(name: str, *words: str) -> list[str]:
    every = ["sparsity.every=7"] if name in EVERY else []
    return [*SMALL, f"sparsity={name}", f"sparsity.target={TARGET}", *every, *words]


def weights_of(model: nn.Module) -> list[torch.Tensor]:
    return [each.value.detach() for each in maskable_weights(model, exclude=(TaskHeads,)).values()]


def check_sparse(result: Result) -> None:
    """The saved network is the trained one, and has as many weights as the target leaves, to one a layer."""
    assert result.record["status"] == "complete"
    saved = cl_powerprop.load(result.path)
    weights, trained = weights_of(saved), weights_of(result.model)
    assert all(torch.equal(mine, other) for mine, other in zip(weights, trained, strict=True))
    used, total = (sum(int(count(value)) for value in weights) for count in (torch.count_nonzero, torch.numel))
    assert abs(used - (1 - TARGET) * total) <= len(weights)


def test_all_of_them_are_tested_here() -> None:
    assert NAMES == ["gradual", "iterative", "one_shot", "rigl", "set", "static", "top_kast"]


@pytest.mark.parametrize("name", NAMES)
def test_one_task(name: str, tmp_path: Path) -> None:
    check_sparse(run(words_of(name, "benchmark=single"), tmp_path / "run"))


@pytest.mark.parametrize("strategy", ["naive", "joint", "ewc"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "iterative"])
def test_a_sequence_of_tasks(name: str, strategy: str, tmp_path: Path) -> None:
    """With EWC, whose penalty pulls at the parameters of hidden weights too, they are 0 in the end all the same."""
    result = run(words_of(name, "benchmark.n_tasks=2", f"strategy={strategy}"), tmp_path / "run")
    check_sparse(result)
    heads = [value for name, value in result.model.named_parameters() if "heads" in name]
    assert len(heads) == 2
    assert all(bool((value != 0).all()) for value in heads), "what tasks have to themselves is dense"


def test_none_is_the_run_that_it_always_was(tmp_path: Path) -> None:
    result = run([*SMALL, "benchmark=single", "sparsity=none"], tmp_path / "run")
    assert all(bool((value != 0).all()) for value in weights_of(result.model))
    assert not (tmp_path / "run" / "pruning.csv").exists()


@pytest.mark.parametrize("name", ["static", "rigl", "top_kast"])
def test_a_convolutional_network_with_exempt_layers(name: str, tmp_path: Path) -> None:
    words = [word for word in words_of(name, "benchmark=single") if not word.startswith("model.hidden")]
    net = ("model=convnet", "model.width=4", "model.norm=batch", "data=mnist5k", "train.batch_size=200")
    exempt = ("sparsity.exempt=[first,Linear]", "train.epochs=1")
    result = run([*words, *net, *exempt], tmp_path / "run")
    used = [float((value != 0).float().mean()) for value in weights_of(result.model)]
    assert (used[0], used[-1]) == (1.0, 1.0)
    assert max(used[1:-1]) < 1.0


def test_parts_that_are_trained_by_hand() -> None:
    """Without a run folder, in a loop of one's own over the learner."""
    parts = assemble(compose(words_of("rigl", "benchmark=single", "train.batch_size=100")))
    assert parts.sparsity is not None
    for experience in parts.benchmark.streams["train"]:
        parts.learner.train(experience)
    assert [(row["epoch"], row["step"]) for row in parts.sparsity.rows[::3]] == [(1, 13), (2, 26)]
    used = sum(int(torch.count_nonzero(value)) for value in weights_of(parts.learner.model))
    assert used == sum(row["active"] for row in parts.sparsity.rows[3:]) == round(0.2 * (64 * 20 + 20 * 20 + 20 * 10))


def test_references_are_dense(tmp_path: Path) -> None:
    """They have masks neither where the strategy has, nor where the sparse training has."""
    words = words_of(
        "rigl",
        "benchmark.n_tasks=2",
        "strategy=naive",
        "references=[joint,independent,untrained]",
        "model.heads=per_task",
    )
    record = run([*words, f"references_dir={tmp_path / 'references'}"], tmp_path / "run").record
    assert set(record["references"]) == {"joint", "independent", "untrained"}
    for path in (tmp_path / "references").glob("*/config.yaml"):
        assert "sparsity:\n  name: none\n" in path.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        *(
            (f"sparsity=rigl strategy={name}", f"sparsity=rigl does not go with strategy={name}")
            for name in ("epn", "packnet", "independent", "untrained")
        ),
        ("sparsity=iterative strategy=naive", "sparsity=iterative trains one task several times over, and there are 5"),
        ("sparsity=iterative strategy=joint", "there are 5; use benchmark=single"),
        ("train.steps=10 strategy=epn", r"train.steps=10: strategy=epn divides a task's epochs between training and"),
    ],
)
def test_what_does_not_go_together_is_refused(words: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        compose(["data=digits", *words.split()]).check()


@pytest.mark.parametrize("words", ["sparsity=none strategy=epn", "sparsity=rigl strategy=joint", "sparsity=set"])
def test_what_goes_together(words: str) -> None:
    given = words.split()
    compose(["data=digits", *given, *([] if "strategy" in words else ["strategy=ewc"])]).check()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "iterative"])
def test_resumed_between_two_tasks_in_the_middle_of_the_schedule(name: str, tmp_path: Path, command: Command) -> None:
    words = words_of(name, "benchmark.n_tasks=2", "strategy=naive", "optimizer.momentum=0.9", "train.batch_size=100")
    words = [*words, "checkpoint.max_share=1"]
    with cut_off(task=1, epoch=0):
        run(words, tmp_path / "run")
    begun = read_checkpoint(tmp_path / "run", pytest.fail)
    assert begun is not None
    assert not begun.task, "it stands between two tasks"
    assert (begun.sparsity["steps"], begun.sparsity["is_final"]) == (26, False)
    assert command("resume", tmp_path / "run") == 0
    assert_same(tmp_path / "run", run(words, tmp_path / "whole").path)


# train.steps


@pytest.mark.parametrize("steps", [1, 13, 50])
@pytest.mark.parametrize("strategy", ["naive", "ewc", "independent"])
def test_every_task_has_the_steps_that_were_asked_for(strategy: str, steps: int, tmp_path: Path) -> None:
    """An epoch of the digits has 13 batches of 100."""
    words = ("benchmark.n_tasks=3", f"strategy={strategy}", f"train.steps={steps}", "train.batch_size=100")
    run([*SMALL, *words], tmp_path / "run")
    curves = pd.read_csv(tmp_path / "run" / "curves.csv")
    ends = curves[(curves.split == "test") & (curves.metric == "accuracy")].groupby("trained_tasks")["step"].first()
    assert ends.tolist() == [steps, 2 * steps, 3 * steps]


def test_joint_training_has_the_steps_of_all_tasks(tmp_path: Path) -> None:
    words = ("benchmark.n_tasks=3", "strategy=joint", "train.steps=20", "sparsity=rigl", "sparsity.every=20")
    run([*SMALL, *words], tmp_path / "run")
    curves = pd.read_csv(tmp_path / "run" / "curves.csv")
    assert curves["step"].max() == 60
    parts = assemble(compose([*SMALL, *words]))
    assert (parts.steps(), vars(parts.sparsity)["steps"]) == ([60], 60)


def rates(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[float]:
    """The learning rate of each step of a run."""
    found: list[float] = []
    step = FastSupervisedTemplate.optimizer_step

    def noted(learner: Any, **options: Any) -> None:
        found.append(learner.optimizer.param_groups[0]["lr"])
        step(learner, **options)

    monkeypatch.setattr(FastSupervisedTemplate, "optimizer_step", noted)
    run([*SMALL, "optimizer.lr=0.2", "save_model=false", *words], "run", quiet=True)
    return found


def test_schedules_run_over_the_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("strategy=naive", "benchmark.n_tasks=2", "train.steps=20", "train.batch_size=100", "train.warmup=0.25")
    found = rates(monkeypatch, *words)
    done = (np.arange(20) + 0.5) / 20
    expected = 0.2 * np.minimum(done / 0.25, 1) * 0.5 * (1 + np.cos(np.pi * done))
    np.testing.assert_allclose(found, [*expected, *expected], rtol=1e-12)


def test_iterative_pruning_restarts_the_schedule_after_each_round(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("benchmark=single", "sparsity=iterative", "sparsity.rounds=3", "train.steps=40", "train.batch_size=100")
    found = rates(monkeypatch, *words)
    part = 0.2 * 0.5 * (1 + np.cos(np.pi * (np.arange(10) + 0.5) / 10))
    np.testing.assert_allclose(found, np.tile(part, 4), rtol=1e-12)


def test_steps_of_whole_epochs_are_these_epochs(tmp_path: Path) -> None:
    """To the bit: 26 steps are two epochs of 13."""
    words = (*SMALL, "strategy=naive", "benchmark.n_tasks=2", "train.batch_size=100")
    by_steps, by_epochs = (run([*words, word], tmp_path / word).model for word in ("train.steps=26", "train.epochs=2"))
    for mine, other in zip(by_steps.parameters(), by_epochs.parameters(), strict=True):
        assert torch.equal(mine, other)


# model.init


def network(init: str, seed: int, alpha: float = 1.0) -> nn.Module:
    options: dict[str, Any] = {"sample_shape": (1, 28, 28), "classes": [10], "hidden": [300, 100], "heads": "shared"}
    return build_model("mlp", **options, bias="frozen", alpha=alpha, init=init, init_seed=seed)


def test_the_truncated_normal_has_the_variance_of_the_fan_in_and_no_bias() -> None:
    model = network("truncated_normal", seed=3)
    for value in weights_of(model):
        fan_in, theta = value.shape[1], value.flatten().double()
        assert float(theta.var()) * fan_in == pytest.approx(1.0, rel=0.2 if len(theta) < 2000 else 0.03)
        # a unit normal that is cut off at two deviations has the deviation 0.8796
        assert float(theta.abs().max()) * fan_in**0.5 <= 2 / 0.87962566 + 1e-6
        assert float(theta.abs().max()) * fan_in**0.5 > 1.9
    biases = [value for name, value in model.named_parameters() if name.endswith("bias")]
    assert len(biases) == 3
    assert all(not value.any() for value in biases)


def test_the_draws_depend_on_the_seed_alone() -> None:
    one, same, other = (network("truncated_normal", seed) for seed in (1, 1, 2))
    powered = network("truncated_normal", 1, alpha=3.0)
    default = weights_of(network("default", 1))
    for index, value in enumerate(weights_of(one)):
        assert torch.equal(value, weights_of(same)[index])
        assert not torch.equal(value, weights_of(other)[index])
        torch.testing.assert_close(weights_of(powered)[index], value, rtol=1e-5, atol=1e-7)
        assert not torch.equal(value, default[index])


def test_independent_networks_have_weights_of_their_own(tmp_path: Path) -> None:
    words = ("model.init=truncated_normal", "strategy=independent", "benchmark.n_tasks=2")
    parts = assemble(compose([*SMALL, *words]))
    weights = weights_of(parts.learner.model)
    assert len(weights) == 4  # two layers a task; heads are left out
    assert not torch.equal(weights[0], weights[2])
