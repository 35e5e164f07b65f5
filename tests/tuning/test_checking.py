"""Spaces whose values cannot all be run, or not be compared, are refused in one line before any trial."""

import pytest

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.tuning.checking import check_space
from cl_powerprop.tuning.space import parse_space


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["train.epochs=interval(1,3)"],
            r"train\.epochs is tuned from 1\.0 to 3\.0; for whole numbers, write int\(interval\(",
        ),
        (["epn.gamma=interval(0.9,1.5)"], r"not 1\.5 \(epn\.gamma is tuned from 0\.9 to 1\.5\)"),
        (["benchmark=choice(split,rotated)"], "benchmark cannot be tuned: .* cannot be compared"),
        (["benchmark.n_tasks=2,3"], r"benchmark\.n_tasks cannot be tuned"),
        (["data.normalize=true,false"], r"data\.normalize cannot be tuned"),
        (["train.threads=1,2"], r"train\.threads cannot be tuned: none of its values changes what is trained"),
        (["save_model=true,false"], "save_model cannot be tuned"),
        (["optimizer.lr=interval(0.1,1)", "sgd.lr=0.3"], r"optimizer\.lr cannot be tuned: .* the same option"),
        (["strategy=naive", "epn.gamma=interval(0.9,0.99)"], r"epn\.gamma cannot be tuned"),
    ],
)
def test_what_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        check_space(parse_space(["data=digits", *words]))
    assert "\n" not in str(raised.value)


def test_an_option_of_a_part_that_is_tuned_as_well() -> None:
    words = ["strategy=choice(naive,epn)", "epn.gamma=interval(0.9,0.99)", "model.alpha=choice(2)"]
    assert check_space(parse_space(["data=digits", *words])).strategy.name == "naive"
