"""The settings without the ranges, as values in the ranges."""

import pytest

from cl_powerprop.tuning.defaults import find_defaults
from cl_powerprop.tuning.space import parse_space

FIXED = ("data=digits", "strategy=epn")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("optimizer.lr=tag(log,interval(0.01,1))", "train.epochs=int(interval(1,20))"), (0.5, 10)),
        (("epn.gamma=interval(0.9,0.99)", "model.alpha=choice(1.0,2,3)"), (0.98, "2")),
        (("strategy.gamma=interval(0.9,0.99)",), (0.98,)),
        (("model.hidden=[20,20],[100,100]",), ("[100,100]",)),
        (("train.steps=10,null",), ("null",)),
        (("model=mlp,convnet",), ("mlp",)),
        (("strategy=naive,epn", "optimizer=adam,sgd"), ("epn", "sgd")),
        (("train.epochs=range(2,20,4)",), (10,)),
        (("train.epochs=range(2,20,3)",), None),
        (("train.warmup=range(0,0.5,0.1)",), ("0.0",)),
        (("train.flip=true,false",), ("False",)),
        (("optimizer.lr=interval(0.001,0.1)",), None),
        (("optimizer.lr=0.2", "optimizer.lr=interval(0.1,1)"), (0.2,)),
        (("experiment=quickstart/epn,quickstart/naive",), None),
    ],
)
def test_defaults(words: tuple[str, ...], expected: tuple[object, ...] | None) -> None:
    space = parse_space([*FIXED[: 1 if any(word.startswith("strategy=") for word in words) else 2], *words])
    found = find_defaults(space)
    assert (None if found is None else tuple(found.values())) == expected
