"""Configs that differ in plain values are composed by Hydra once; each is what Hydra alone would make of it."""

from typing import Any

import pytest

from cl_powerprop import composition
from cl_powerprop.composition import compose
from cl_powerprop.errors import ConfigurationError

PAIRS = [
    (["strategy=epn", "strategy.gamma=0.9", "seed=1"], ["strategy=epn", "strategy.gamma=0.95", "seed=2"]),
    (["strategy=naive", "optimizer.lr=0.1"], ["strategy=packnet", "optimizer.lr=0.1"]),
    (["strategy=packnet", "strategy.shares=0.1"], ["strategy=packnet", "strategy.shares=[0.1,0.2]"]),
    (["epn.gamma=0.9", "train.clip_norm=null"], ["epn.gamma=0.95", "train.clip_norm=2"]),
    (["data=digits", "data.root=1_1", "device=cpu"], ["data=digits", "data.root=null", "device=cuda"]),
    (["logger=tensorboard", "train.epochs=3"], ["logger=tensorboard", "train.epochs=4"]),
]


@pytest.fixture(autouse=True)
def forgotten() -> None:
    composition._known.cache_clear()


def made(words: list[str]) -> Any:
    config = compose(words)
    config.run_dir = ""  # which has the time
    return config


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_each_config_is_what_it_is_alone(first: list[str], second: list[str]) -> None:
    alone = made(second)
    composition._known.cache_clear()
    before = made(first)
    assert made(second) == alone
    assert made(first) == before != alone


def test_hydra_composes_once_for_what_differs_in_values(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    usual = composition.hydra_compose
    monkeypatch.setattr(composition, "hydra_compose", lambda *given: calls.append(given) or usual(*given))
    for seed in range(3):
        assert compose([f"seed={seed}", "strategy=naive"]).seed == seed
    compose(["seed=1", "strategy=ewc"])
    assert len(calls) == 2


@pytest.mark.parametrize("word", ["train.epochs=x", "train=3", "strategy.gama=1", "seed=[1]"])
def test_a_mistake_is_refused_the_second_time_too(word: str) -> None:
    said = []
    for _ in range(2):
        with pytest.raises(ConfigurationError) as refused:
            compose([word])
        said.append(str(refused.value))
    key = word.partition("=")[0]
    if key == "train.epochs":
        compose([f"{key}=3"])
        with pytest.raises(ConfigurationError) as refused:
            compose([word])
        said.append(str(refused.value))
    assert len({*said}) == 1
