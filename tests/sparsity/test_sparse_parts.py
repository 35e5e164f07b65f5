"""Distributions, schedules, exempt layers and scores of sparse training against plain formulas; and bad input."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Size, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity import (
    Controller,
    ErdosRenyiKernel,
    GradualPruning,
    IterativePruning,
    OneShotPruning,
    RigL,
    StaticRandom,
    TopKAST,
    Uniform,
    powerpropagate,
)
from cl_powerprop.sparsity.schedules import Updates, cosine_decay, cubic, geometric, linear_decay
from cl_powerprop.sparsity.topk import largest, rank

from .controllers import erk_densities
from .networks import make_batch, make_network

layer_shapes = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 60), st.integers(1, 60)),
        st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 5), st.integers(1, 5)),
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(layer_shapes, st.floats(0.001, 1.0), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_erk(shapes: list[tuple[int, ...]], density: float, power: float) -> None:
    named = {str(i): shape for i, shape in enumerate(shapes)}
    sizes = {name: Size(shape) for name, shape in named.items()}
    densities = ErdosRenyiKernel(power).densities(sizes, density)
    assert densities == pytest.approx(erk_densities(named, density, power), rel=1e-6)
    assert all(0.0 < share <= 1.0 for share in densities.values())
    total = sum(size.numel() for size in sizes.values())
    kept = sum(densities[name] * size.numel() for name, size in sizes.items())
    assert kept == pytest.approx(density * total)
    budgets = ErdosRenyiKernel(power).budgets(sizes, density)
    assert [budget.layers for budget in budgets] == [(name,) for name in named]
    for budget, (name, size) in zip(budgets, sizes.items(), strict=True):
        assert abs(budget.weights - max(1.0, densities[name] * size.numel())) <= 0.5
        assert 1 <= budget.weights <= size.numel()


def test_erk_by_hand() -> None:
    """31.8 weights, divided as 5 to 20, are 6.36 of 6 and 25.44 of 100: the first is dense, and 25.8 are left."""
    densities = ErdosRenyiKernel().densities({"small": Size((2, 3)), "large": Size((10, 10))}, 0.3)
    assert densities == {"small": 1.0, "large": pytest.approx(0.258)}


def test_uniform_with_a_denser_last_layer() -> None:
    shapes = {"first": Size((64, 3, 7, 7)), "second": Size((64, 64)), "last": Size((10, 64))}
    assert Uniform(last_scale=2.0).densities(shapes, 0.2) == {"first": 0.2, "second": 0.2, "last": 0.4}
    assert Uniform(last_scale=2.0).densities(shapes, 0.8)["last"] == 1.0


@settings(deadline=None)
@given(
    start=st.integers(0, 50),
    span=st.integers(1, 200),
    every=st.integers(1, 60),
    final=st.floats(0.01, 0.99),
    share=st.floats(0.0, 1.0),
)
def test_cubic(start: int, span: int, every: int, final: float, share: float) -> None:
    """A known mistake elsewhere: dividing by the end step instead of the span, so that the target is never reached."""
    initial = share * final
    updates = Updates(start, start + span, every)
    steps = [step for step in range(start + span + 100) if step in updates]
    assert steps == list(range(start, start + span + 1, every))
    assert updates.last == steps[-1]
    values = [cubic(step, start, updates.last, final, initial) for step in steps]
    assert values[-1] == final
    count = len(steps) - 1
    for index, value in enumerate(values[:-1]):
        assert value == pytest.approx(final + (initial - final) * (1 - index * every / (count * every)) ** 3)
    assert all(one <= other + 1e-12 for one, other in itertools.pairwise(values))
    assert cubic(10**6, start, updates.last, final, initial) == final


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 200))
def test_decays(step: int, stop: int) -> None:
    inside = min(step, stop)
    assert cosine_decay(step, stop) == pytest.approx(math.cos(math.pi * inside / stop / 2) ** 2, abs=1e-12)
    assert linear_decay(step, stop) == pytest.approx((stop - inside) / stop)


@settings(deadline=None)
@given(st.integers(1, 10), st.floats(0.01, 0.999))
def test_geometric(rounds: int, final: float) -> None:
    kept = [1.0 - geometric(done, rounds, final) for done in range(rounds + 1)]
    assert kept[0] == pytest.approx(1.0)
    assert geometric(rounds, rounds, final) == final
    for one, other in itertools.pairwise(kept):
        assert other / one == pytest.approx(kept[1] / kept[0])


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(0, 45))
def test_largest_is_the_top_of_a_stable_sort(values: list[int], count: int) -> None:
    scores = torch.tensor(values, dtype=torch.float32)
    assert torch.equal(largest(scores, count), rank(scores) < count)


def controller(kind: str = "conv2d", make: Any = Controller, **options: Any) -> Controller:
    model = make_network(kind)
    return make(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), **options)


@pytest.mark.parametrize(
    ("exempt", "left"),
    [
        (["first"], ["encoder.layers.0.self_attn.out_proj"]),
        (["last"], ["encoder.layers.0.self_attn.in_proj_weight"]),
        (["encoder.layers.?.linear*"], ["encoder.layers.0.self_attn.in_proj_weight", "output"]),
        (["MultiheadAttention"], ["encoder.layers.0.linear1", "output"]),
        ([nn.MultiheadAttention], ["encoder.layers.0.linear1", "output"]),
        (["Linear"], ["encoder.layers.0.self_attn.in_proj_weight"]),
    ],
)
def test_exempt_layers(exempt: list[Any], left: list[str]) -> None:
    found = controller("transformer", exempt=exempt)
    everything = controller("transformer")
    assert set(left) <= set(found.layers)
    assert set(found.layers) | set(found.exempt) == set(everything.layers)
    assert not set(found.layers) & set(found.exempt)
    assert len(found.exempt) == {"first": 1, "last": 1}.get(str(exempt[0]), len(found.exempt))
    for name, count in found.exempt.items():
        assert count == everything.layers[name].stored.numel()


def test_exempt_layers_of_a_reparameterised_model() -> None:
    model = powerpropagate(make_network("conv2d"), 2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert list(Controller(model, optimizer, exempt=["Conv2d"]).layers) == ["3"]
    assert list(Controller(model, optimizer, exempt=[nn.Linear]).layers) == ["0"]


def test_a_share_of_all_weights() -> None:
    made = controller("linear", StaticRandom, sparsity=0.6, share_of="all", exempt=["last"], distribution="uniform")
    masked, exempt = 48, 24
    assert made.exempt == {"2": exempt}
    used = int(made.weights[0].active.sum())
    assert used == round(0.4 * (masked + exempt)) - exempt
    assert made.target == pytest.approx(1.0 - (0.4 * 72 - 24) / 48)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Controller, {"sparsity": 1.0}, r"sparsity must be in \[0, 1\), not 1"),
        (Controller, {"sparsity": -0.1}, "sparsity must be"),
        (Controller, {"sparsity": math.nan}, "sparsity must be"),
        (Controller, {"distribution": "erdos"}, "erk"),
        (Controller, {"share_of": "some"}, "masked"),
        (Controller, {"exempt": ["conv9"]}, "no layer is called 'conv9'"),
        (Controller, {"exempt": ["*"]}, "no layer is left"),
        (StaticRandom, {"sparsity": 0.9, "share_of": "all", "exempt": ["last"]}, "alone hold 48"),
        (RigL, {"stop": 10, "every": 0}, "at least 1 step"),
        (RigL, {"stop": 10, "start": 11}, "start must be from 0 to stop=10"),
        (RigL, {"stop": 10, "drop_fraction": 0.0}, "drop_fraction"),
        (RigL, {"stop": 10, "decay": "square"}, "cosine"),
        (RigL, {"stop": 10, "grow": "magnitude"}, "random, gradient"),
        (RigL, {"stop": 10, "drop": "size"}, "magnitude"),
        (RigL, {"stop": 10, "grown_quantile": 1.5}, "grown_quantile"),
        (GradualPruning, {"stop": 10, "sparsity": 0.5, "initial": 0.6}, "initial must be from 0"),
        (GradualPruning, {"stop": 10, "sparsity": 0.5, "initial": 0.2, "score": "gradient"}, "step 0"),
        (OneShotPruning, {"at": 0}, "step 1 or later"),
        (OneShotPruning, {"score": "gradient"}, "needs a step"),
        (IterativePruning, {"every": 5, "rounds": 0}, "rounds"),
        (IterativePruning, {"every": 5, "rewind_to": 5}, "first round"),
        (TopKAST, {"stop": 10, "sparsity": 0.5, "backward_sparsity": 0.6}, "backward_sparsity"),
        (TopKAST, {"stop": 10, "penalty": -1.0}, "penalty"),
    ],
)
def test_what_cannot_work_is_one_clear_line(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        controller(make=make, **options)
    assert "\n" not in str(error.value)


def test_a_model_without_weights() -> None:
    model = nn.LayerNorm(3)
    with pytest.raises(ConfigurationError, match="no layer is left"):
        Controller(model, torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize(("start", "stop", "every"), [(0, 6, 100), (4, 4, 3), (0, 7, 7), (5, 6, 100)])
def test_gradual_pruning_in_a_short_time_reaches_its_target_before_the_end(start: int, stop: int, every: int) -> None:
    made = controller("linear", GradualPruning, sparsity=0.5, start=start, stop=stop, every=every)
    for step in range(stop):
        assert made.steps == step
        made.step()
    assert made.sparsity == pytest.approx(0.5, abs=0.02)


def test_gradual_pruning_from_an_initial_sparsity() -> None:
    made = controller("linear", GradualPruning, sparsity=0.75, initial=0.5, stop=9, every=3, distribution="uniform")
    assert made.sparsity == 0.5


def test_dead_units_are_outputs() -> None:
    """Of a transposed convolution, the weight's second dimension."""
    for kind in ("conv_transpose2d", "conv2d"):
        made = controller(kind)
        each = made.weights[0]
        mask = torch.ones_like(each.active)
        if kind == "conv_transpose2d":
            mask[:, 1] = False
        else:
            mask[1] = False
        each.change(mask)
        assert made.report()[0].dead_units == 1
        assert not (made.layers["0"].value.detach()[~mask] != 0.0).any()
    grouped = nn.Sequential(nn.ConvTranspose1d(4, 6, 2, groups=2))
    made = Controller(grouped, torch.optim.SGD(grouped.parameters(), lr=0.1))
    mask = torch.ones(4, 3, 2, dtype=torch.bool)
    mask[2:, 1] = False  # channel 4 of 6: the second of the second group
    made.weights[0].change(mask)
    assert made.report()[0].dead_units == 1
    x = torch.randn(1, 4, 5)
    assert (grouped(x) == grouped[0].bias[:, None]).all(-1).tolist() == [[False, False, False, False, True, False]]


def test_training_density_counts_the_dense_gradients() -> None:
    made = controller("linear", RigL, sparsity=0.75, stop=12, every=3, distribution="uniform")
    network = nn.Sequential(made.layers["0"].module, nn.ReLU(), made.layers["2"].module)
    for step in range(10):
        network(make_batch("linear", step)[0]).square().sum().backward()
        made.step()
    # Updates after steps 3, 6 and 9 computed the gradient of all weights; all else has a density of a quarter.
    assert made.training_density()["0"] == pytest.approx((10 * 3 * 0.25 + 3 * 0.75) / 30)
