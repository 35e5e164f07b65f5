"""A mistake in `sparsity`, `train.steps` or `model.init` is one clear line on stderr and exit code 2."""

from pathlib import Path

import pytest

from .conftest import Command
from .test_bad_input import one_error

SINGLE = "data=digits benchmark=single"
MISTAKES: dict[str, tuple[str, list[str]]] = {
    "unknown sparse training": (
        f"{SINGLE} sparsity=lottery",
        ["unknown sparsity 'lottery'", "gradual, iterative, none"],
    ),
    "target sparsity 1": (f"{SINGLE} sparsity=rigl sparsity.target=1", ["sparsity.target must be in [0, 1), not 1"]),
    "target sparsity negative": (f"{SINGLE} sparsity=set sparsity.target=-0.1", ["sparsity.target", "[0, 1)", "-0.1"]),
    "target sparsity nan": (f"{SINGLE} sparsity=static sparsity.target=nan", ["sparsity.target must be in [0, 1)"]),
    "target sparsity in percent": (f"{SINGLE} sparsity=gradual sparsity.target=95", ["[0, 1), not 95"]),
    "sparsity of dense training": (
        f"{SINGLE} sparsity.target=0.5",
        ["unknown option 'sparsity.target'", "sparsity=rigl"],
    ),
    "unknown distribution": (
        f"{SINGLE} sparsity=rigl sparsity.distribution=even",
        ["sparsity.distribution must be one of uniform, erk, global, not 'even'"],
    ),
    "ERK of a negative power": (f"{SINGLE} sparsity=rigl sparsity.erk_power=-1", ["sparsity.erk_power", "at least 0"]),
    "density of the last layer with ERK": (
        f"{SINGLE} sparsity=rigl sparsity.last_scale=2",
        ["sparsity.last_scale is for sparsity.distribution=uniform"],
    ),
    "density of the last layer 0": (
        f"{SINGLE} sparsity=rigl sparsity.distribution=uniform sparsity.last_scale=0",
        ["sparsity.last_scale must be a finite number above 0"],
    ),
    "share of something": (f"{SINGLE} sparsity=rigl sparsity.share_of=some", ["sparsity.share_of", "masked, all"]),
    "curve of no density": (f"{SINGLE} sparsity=one_shot sparsity.curve=[0.0]", ["sparsity.curve", "(0, 1]", "0.0"]),
    "curve of densities above 1": (f"{SINGLE} sparsity=one_shot sparsity.curve=[1.5]", ["sparsity.curve", "(0, 1]"]),
    "an interval of 0": (f"{SINGLE} sparsity=rigl sparsity.every=0", ["sparsity.every must be at least 1 step, not 0"]),
    "an interval of 0 in Top-KAST": (f"{SINGLE} sparsity=top_kast sparsity.every=0", ["sparsity.every", "not 0"]),
    "a negative interval of pruning": (f"{SINGLE} sparsity=gradual sparsity.every=-5", ["sparsity.every", "not -5"]),
    "half a step": (f"{SINGLE} sparsity=rigl sparsity.stop=10.5", ["sparsity.stop", "whole number of steps, not 10.5"]),
    "stop before the beginning": (f"{SINGLE} sparsity=set sparsity.stop=-1", ["sparsity.stop", "from 0 to 1", "-1"]),
    "stop never": (f"{SINGLE} sparsity=gradual sparsity.stop=inf", ["sparsity.stop", "not inf"]),
    "stop after the end of training": (
        f"{SINGLE} train.steps=50 sparsity=rigl sparsity.stop=51",
        ["sparsity.stop=51 is after the end of training, which has 50 steps"],
    ),
    "stop after the end of all tasks": (
        "data=digits strategy=naive benchmark.n_tasks=2 train.steps=50 sparsity=gradual sparsity.stop=101",
        ["sparsity.stop=101 is after the end of training, which has 100 steps"],
    ),
    "start after the end of training": (
        f"{SINGLE} train.steps=50 sparsity=gradual sparsity.start=60",
        ["sparsity.start=60 is after the end of training, which has 50 steps"],
    ),
    "start after the stop": (
        f"{SINGLE} train.steps=50 sparsity=gradual sparsity.start=0.9 sparsity.stop=0.5",
        ["sparsity.start=0.9 is after sparsity.stop=0.5"],
    ),
    "no pruning by steps": (
        f"{SINGLE} train.steps=50 sparsity=one_shot sparsity.stop=51",
        ["sparsity.stop=51 is after the end of training"],
    ),
    "drop fraction 0": (
        f"{SINGLE} sparsity=rigl sparsity.drop_fraction=0",
        ["sparsity.drop_fraction", "(0, 1), not 0"],
    ),
    "drop fraction 1": (f"{SINGLE} sparsity=set sparsity.drop_fraction=1", ["sparsity.drop_fraction", "(0, 1), not 1"]),
    "unknown decay": (f"{SINGLE} sparsity=rigl sparsity.decay=step", ["sparsity.decay", "cosine, constant, linear"]),
    "unknown score": (
        f"{SINGLE} sparsity=gradual sparsity.score=luck",
        ["sparsity.score", "magnitude, random, gradient"],
    ),
    "unknown drop score": (f"{SINGLE} sparsity=set sparsity.drop=luck", ["sparsity.drop", "saliency", "'luck'"]),
    "growth by magnitude": (f"{SINGLE} sparsity=rigl sparsity.grow=magnitude", ["sparsity.grow", "random, gradient"]),
    "quantile above 1": (f"{SINGLE} sparsity=rigl sparsity.grown_quantile=2", ["sparsity.grown_quantile", "[0, 1]"]),
    "initial sparsity above the target": (
        f"{SINGLE} sparsity=gradual sparsity.initial=0.95",
        ["sparsity.initial=0.95 is above sparsity.target=0.9"],
    ),
    "no rounds": (f"{SINGLE} sparsity=iterative sparsity.rounds=0", ["sparsity.rounds must be from 1 to 1000, not 0"]),
    "more rounds than steps": (
        f"{SINGLE} train.steps=5 sparsity=iterative sparsity.rounds=5",
        ["sparsity.rounds=5 needs at least 6 steps of training; there are 5"],
    ),
    "rewinding to before training": (
        f"{SINGLE} sparsity=iterative sparsity.rewind_to=-1",
        ["sparsity.rewind_to", "-1"],
    ),
    "rewinding to after the first round": (
        f"{SINGLE} train.steps=60 sparsity=iterative sparsity.rewind_to=10",
        ["rewind_to must be a step of the first round, 0 to 9, not 10"],
    ),
    "a backward set smaller than the forward set": (
        f"{SINGLE} sparsity=top_kast sparsity.backward=0.95",
        ["sparsity.backward=0.95 is above sparsity.target=0.9"],
    ),
    "a negative penalty": (f"{SINGLE} sparsity=top_kast sparsity.penalty=-1", ["sparsity.penalty", "at least 0"]),
    "a target below what exempt layers take": (
        f"{SINGLE} model.hidden=[20,20] sparsity=set sparsity.target=0.5 sparsity.share_of=all sparsity.exempt=[first]",
        ["a sparsity of 0.5 leaves 940 of 1,880 weights", "features.1", "alone hold 1,280", "exempt fewer layers"],
    ),
    "an exempt layer that does not exist": (
        f"{SINGLE} sparsity=rigl sparsity.exempt=[conv1]",
        ["exempt: no layer is called 'conv1'", "first, last, features.1"],
    ),
    "all layers exempt": (f"{SINGLE} sparsity=rigl sparsity.exempt=[*]", ["no layer is left to make sparse"]),
    "exempt layers that are no list": (
        f"{SINGLE} sparsity=rigl sparsity.exempt=first",
        ["sparsity.exempt", "is a list"],
    ),
    "sparse training and EPN": ("sparsity=rigl", ["sparsity=rigl does not go with strategy=epn", "strategy=naive"]),
    "iterative pruning of a sequence": (
        "strategy=naive sparsity=iterative",
        ["sparsity=iterative trains one task several times over, and there are 5", "benchmark=single"],
    ),
    "no steps": (f"{SINGLE} train.steps=0", ["train.steps must be at least 1, or null for train.epochs, not 0"]),
    "negative steps": (f"{SINGLE} train.steps=-3", ["train.steps must be at least 1", "-3"]),
    "steps with retraining": (
        "strategy=packnet train.steps=10",
        ["train.steps=10", "strategy=packnet", "train.epochs"],
    ),
    "unknown initial weights": (f"{SINGLE} model.init=xavier", ["model.init", "default, truncated_normal", "'xavier'"]),
}

# What only the network or the length of the training can tell.
NOT_IN_THE_CONFIG = {
    "stop after the end of training",
    "stop after the end of all tasks",
    "start after the end of training",
    "start after the stop",
    "no pruning by steps",
    "more rounds than steps",
    "rewinding to after the first round",
    "a target below what exempt layers take",
    "an exempt layer that does not exist",
    "all layers exempt",
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_is_one_line(name: str, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    words, parts = MISTAKES[name]
    assert command("run", *words.split(), "progress=false", f"run_dir={tmp_path / 'run'}") == 2
    line = one_error(capsys)
    for part in parts:
        assert part in line
    assert not (tmp_path / "run" / "run.json").exists(), "refused before anything was written"
