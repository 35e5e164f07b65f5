"""Ranges as Hydra writes them: which values they hold, and what is refused in one line."""

import math

import pytest

from cl_powerprop.composition import compose
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.tuning.ranges import Choices, Numbers
from cl_powerprop.tuning.space import parse_space


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("optimizer.lr=interval(0.1,1)", Numbers(0.1, 1.0, None, False)),
        ("optimizer.lr=tag(log,interval(0.01,1))", Numbers(0.01, 1.0, None, True)),
        ("train.epochs=int(interval(1,5))", Numbers(1, 5, 1, False)),
        ("train.epochs=tag(log,int(interval(1,64)))", Numbers(1, 64, 1, True)),
        ("train.epochs=range(2,11,3)", Numbers(2, 8, 3, False)),
        ("train.epochs=range(4)", Numbers(0, 3, 1, False)),
        ("train.epochs=range(5,1,-2)", Numbers(3, 5, 2, False)),
        ("optimizer.lr=range(0.1,0.4,0.1)", Choices(("0.1", "0.2", "0.3"))),
        ("strategy=choice(epn,packnet)", Choices(("epn", "packnet"))),
        ("model.hidden=[10],[20,20]", Choices(("[10]", "[20,20]"))),
        ("train.steps=null,10", Choices(("null", "10"))),
        ("strategy=epn,epn,naive", Choices(("epn", "naive"))),
    ],
)
def test_each_kind_of_range(word: str, expected: object) -> None:
    space = parse_space(["data=digits", word])
    assert space.fixed == ("data=digits",)
    assert space.ranges == {word.partition("=")[0]: expected}


def test_all_combinations_are_counted_and_each_has_an_index() -> None:
    space = parse_space(["train.epochs=range(1,4)", "optimizer.lr=0.1,0.2", "model.alpha=choice(1,2)"])
    assert space.size == 12
    combinations = {tuple(space.combination(index).values()) for index in range(12)}
    assert len(combinations) == 12
    assert all(space.ranges["train.epochs"].find(epochs) == epochs for epochs, *_ in combinations)
    assert parse_space(["optimizer.lr=interval(0,1)"]).size == math.inf


def test_a_trial_is_a_config_that_tests_nothing() -> None:
    space = parse_space(["strategy=epn", "epn.gamma=interval(0.5,0.99)", "model.hidden=[10],[20,20]"])
    config = compose(space.overrides({"epn.gamma": 0.75, "model.hidden": "[20,20]"}))
    assert (config.strategy.gamma, config.model.hidden) == (0.75, [20, 20])  # type: ignore[attr-defined]
    assert config.evaluation.schedule == "never"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizer.lr=interval(0.1)"], "a range has two ends"),
        (["optimizer.lr=interval(0.1,"], "a range has two ends"),
        (["optimizer.lr=interval(a,b)"], "which are numbers"),
        (["optimizer.lr=interval(0.1,inf)"], "two finite ends"),
        (["optimizer.lr=interval(nan,1)"], "two finite ends"),
        (["optimizer.lr=interval(1,0.1)"], "above the second"),
        (["optimizer.lr=tag(log,interval(0,1))"], "above 0"),
        (["optimizer.lr=tag(quick,interval(0,1))"], "the only tag is log"),
        (["optimizer.lr=tag(log,choice(1,2))"], "no scale"),
        (["optimizer.lr=range(1,1)"], "holds no value"),
        (["optimizer.lr=range(0,1,0)"], "not 0"),
        (["optimizer.lr=range(0,1,1e-9)"], "more than 10,000 values"),
        (["train.steps=choice(null,1)"], "choice.. takes no null; list the values without it"),
        (["model.hidden=choice([10],[20]),3"], "a range within"),
        (["strategy=glob(*)"], "list the values"),
        (["strategy=epn"], "nothing to tune"),
        ([], "nothing to tune"),
        (["seed=0,1"], "seed cannot be tuned"),
        (["run_dir=a,b"], "run_dir cannot be tuned"),
        (["optimizer.lr=0.1,0.2", "optimizer.lr=0.3,0.4"], "two ranges"),
        (["hydra.job.chdir=true"], "no settings for Hydra"),
        (["evaluation.schedule=last"], "leave it out"),
        (["seeds_together=4"], "leave it out"),
        (["optimizer.lr"], "VALUE"),
    ],
)
def test_what_is_no_range_is_one_line(words: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        parse_space(words)
    assert "\n" not in str(caught.value)
