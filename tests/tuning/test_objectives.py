"""Objectives: which metrics can be one, and in which direction."""

import pytest

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.evaluation.metrics import Measurements
from cl_powerprop.registry import metrics
from cl_powerprop.tuning.objectives import parse_objectives


def test_directions_are_those_of_the_metrics_unless_a_sign_says_otherwise() -> None:
    def found(text: str) -> list[tuple[str, str]]:
        return [(objective.metric.name, objective.direction) for objective in parse_objectives(text)]

    assert found("validation_accuracy,-capacity_used") == [
        ("validation_accuracy", "maximize"),
        ("capacity_used", "minimize"),
    ]
    assert found("capacity") == [("capacity_used", "minimize")]
    assert found("sparsity") == [("sparsity", "maximize")]
    assert found("-sparsity, -seconds.total") == [("sparsity", "minimize"), ("seconds.total", "minimize")]


def test_a_value_is_read_from_the_record() -> None:
    record = {"metrics": {"capacity_used": 0.5, "sparsity": None}, "seconds": {"total": 3.0}}
    capacity, seconds, sparsity = parse_objectives("capacity_used,seconds.total,sparsity")
    assert (capacity.of(record), seconds.of(record)) == (0.5, 3.0)
    with pytest.raises(ConfigurationError, match="no sparsity"):
        sparsity.of(record)


def test_what_needs_no_test_data_is_computed_without_any() -> None:
    import numpy as np

    untested = Measurements(np.full((2, 2), np.nan), validation={0: 0.5, 1: 0.7}, capacity_used=0.25, sparsity=0.1)
    known = metrics()
    computed = {name: each.function(untested) for name, each in known.items() if each.function and not each.needs_test}
    assert computed["validation_accuracy"] == pytest.approx(0.6)
    assert computed["capacity_used"] == 0.25
    tested = [each.function(untested) for each in known.values() if each.function and each.needs_test]
    assert all(value is None or np.isnan(value) for value in tested)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("accuracy_of_everything", "unknown objective 'accuracy_of_everything'; choose from: .*validation_accuracy"),
        ("average_accuracy", "measured on test data"),
        ("-forgetting", "measured on test data"),
        ("-validation_accuracy", "leave the - out"),
        ("validation_accuracy,validation accuracy", "twice"),
        (" , ", "needs the name of a metric"),
        ("--capacity_used", "unknown objective"),
    ],
)
def test_what_cannot_be_an_objective_is_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_objectives(text)
