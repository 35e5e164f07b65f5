"""HAT against gates on the activations of a plain network, and the formulas of the paper."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.nn import functional

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.networks.classifier import Classifier
from cl_powerprop.networks.residual import ResidualBlock
from cl_powerprop.plugins import HATPlugin
from cl_powerprop.plugins.unit_gates import Gate, UnitGates
from cl_powerprop.registry import find
from cl_powerprop.sparsity import MaskAllocator, powerpropagate, select_task

from ..devices import device
from .benchmarks import make_benchmark, make_strategy

pytestmark = pytest.mark.cuda

SHAPE = (1, 4, 4)


def mlp(heads: bool, bias: bool = True) -> Classifier:
    torch.manual_seed(0)
    features = find("model", "mlp").make(SHAPE, hidden=[12, 9], bias=bias)
    return Classifier(features, SHAPE, [3, 3], per_task_heads=heads, bias=bias).to(device())


def convolutions() -> Classifier:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.ReLU(), nn.Flatten())
    features = nn.Sequential(nn.Sequential(*layers[:3]), *layers[3:], nn.Linear(20, 7), nn.ReLU())
    return Classifier(features, SHAPE, [3, 3], per_task_heads=True).to(device())


def gated(model: Classifier, gates: list[Tensor], images: Tensor, plain: Callable[[str], Tensor]) -> Tensor:
    """Compute a network whose hidden units are gated behind their nonlinearities; ``plain`` returns its weights."""
    x, gates = images, list(gates)
    for name, module in model.features.named_modules():
        if isinstance(module, nn.Linear):
            x = functional.linear(x, plain(f"features.{name}"), module.bias)
        elif isinstance(module, nn.Conv2d):
            x = functional.conv2d(x, plain(f"features.{name}"), module.bias)
        elif isinstance(module, nn.ReLU):
            gate = gates.pop(0)
            x = module(x) * gate.view(-1, *[1] * (x.dim() - 2))
        elif not isinstance(module, nn.Sequential) and list(module.children()) == [] and "param" not in name:
            x = module(x)
    head = model.output.heads[model.output.selected] if hasattr(model.output, "heads") else None
    if head is None:
        return functional.linear(x.flatten(1), plain("output"), model.output.bias)
    return functional.linear(x.flatten(1), head.weight, head.bias)


NETWORKS = {"heads": lambda: mlp(True), "shared": lambda: mlp(False), "convolutions": convolutions}


def prepared(kind: str, alpha: float = 1.0, s_max: float = 20.0) -> tuple[Classifier, MaskAllocator, UnitGates]:
    model = powerpropagate(NETWORKS[kind](), alpha, exclude=(type(mlp(True).output),)).eval()
    plugin = HATPlugin(s_max=s_max)
    plugin._cover(model)
    plugin.learned.begin_task()
    plugin.learned.set_scale(0.1)
    return model, plugin.allocator, plugin.learned


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_outputs_and_gradients_are_those_of_gated_activations(kind: str, alpha: float) -> None:
    model, allocator, learned = prepared(kind, alpha)
    images = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(1)).to(device())
    outputs = model(images)
    outputs.square().sum().backward()
    embeddings = [gate.embedding.detach().clone().requires_grad_() for gate in learned.gates.values()]
    scale = 1 / 20 + (20 - 1 / 20) * 0.1
    expected = gated(model, [torch.sigmoid(scale * e) for e in embeddings], images, allocator.theta)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-6)
    expected.square().sum().backward()
    for gate, embedding in zip(learned.gates.values(), embeddings, strict=True):
        torch.testing.assert_close(gate.embedding.grad, embedding.grad, rtol=1e-3, atol=1e-5)
        before, e = embedding.grad, embedding.detach()
        learned_gradient = before * 20.0 * ((scale * e).cosh() + 1) / (scale * (e.cosh() + 1))  # section 2.4
        embedding.grad = learned_gradient
    learned.compensate()
    for gate, embedding in zip(learned.gates.values(), embeddings, strict=True):
        torch.testing.assert_close(gate.embedding.grad, embedding.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_task_ends_with_the_network_of_binary_gates(kind: str) -> None:
    model, allocator, learned = prepared(kind)
    used = [gate.used.float() for gate in learned.gates.values()]
    assert all(0 < int(each.sum()) < len(each) for each in used)
    images = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(1)).to(device())
    with torch.no_grad():
        if kind != "convolutions":  # whose norm keeps its statistics
            expected = gated(model, used, images, allocator.theta)
        allocator.propose(learned.masks())
        learned.close()
        allocator.end_task()
        select_task(model, 0)
        if kind == "convolutions":
            expected = gated(model, used, images, allocator.theta)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-6)


def test_the_regulariser_counts_units_that_no_earlier_task_uses() -> None:
    _, allocator, learned = prepared("heads")
    first = [gate.used.clone() for gate in learned.gates.values()]
    values = torch.cat([gate.value for gate in learned.gates.values()])
    assert learned.regulariser().item() == pytest.approx(values.mean().item())
    allocator.propose(learned.masks())
    learned.close()
    allocator.end_task()
    learned.begin_task()
    taken = free = 0.0
    for gate, used in zip(learned.gates.values(), first, strict=True):
        for value, was_used in zip(gate.value.tolist(), used.tolist(), strict=True):
            taken, free = taken + value * (not was_used), free + (not was_used)
    assert learned.regulariser().item() == pytest.approx(taken / free)


class Scales(SupervisedPlugin):
    def __init__(self, plugin: HATPlugin) -> None:
        super().__init__()
        self.plugin = plugin
        self.seen: list[float] = []

    def before_forward(self, strategy: Any, **_: Any) -> None:
        self.seen.append(float(self.plugin.learned._scale))


def test_gates_harden_over_each_epoch_and_tasks_share_units() -> None:
    plugin = HATPlugin(c=0.1, s_max=100.0)
    scales = Scales(plugin)
    strategy = make_strategy(nn.Sequential(nn.Flatten(), *mlp(False).features[1:], nn.Linear(9, 3)), [plugin, scales])
    benchmark = make_benchmark(2)
    strategy.train(benchmark.train_stream[0])
    steps = math.ceil(64 / 16)
    expected = [1 / 100 + (100 - 1 / 100) * step / (steps - 1) for step in range(steps)]
    assert scales.seen[:steps] == pytest.approx(expected)
    strategy.train(benchmark.train_stream[1])
    rows = [row for row in plugin.allocator.history if row.kind == "masked"]
    assert all(0 < row.kept < row.weights for row in rows)


def test_gates_are_hard_in_an_epoch_of_one_batch() -> None:
    plugin = HATPlugin(s_max=100.0)
    scales = Scales(plugin)
    model = nn.Sequential(nn.Flatten(), *mlp(False).features[1:], nn.Linear(9, 3))
    strategy = make_strategy(model, [plugin, scales])
    strategy.train(make_benchmark(1, count=16).train_stream[0])  # as many as a batch has
    assert set(scales.seen) == {100.0}


@pytest.mark.parametrize("embedding", [[-6.0, -6.0, -6.0], [-3.0, -1.0, -2.0], [-1.0, 2.0, 0.5], [0.0, -1.0, -1.0]])
def test_the_unit_nearest_to_use_is_used_if_none_is(embedding: list[float]) -> None:
    gate = Gate(3, torch.tensor(100.0), torch.device("cpu"))
    gate.embedding.data = torch.tensor(embedding)
    expected = [value > 0 for value in embedding]
    if not any(expected):
        expected[embedding.index(max(embedding))] = True
    assert gate.used.tolist() == expected


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.GroupNorm(2, 8), nn.ReLU(), nn.Linear(8, 3)), "GroupNorm"),
        (nn.Sequential(ResidualBlock(1, 4, 2, "batch", True), nn.Flatten(), nn.Linear(16, 3)), "ResidualBlock"),
        (
            nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Flatten(), nn.Linear(64, 3)),
            "without groups",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), "need a hidden layer"),
    ],
)
def test_networks_whose_units_cannot_be_gated_are_refused(model: nn.Module, message: str) -> None:
    strategy = make_strategy(model.to(device()), [HATPlugin()])
    with pytest.raises(ConfigurationError, match=message):
        strategy.train(make_benchmark(1).train_stream[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"c": -1.0}, r"strategy.c must"), ({"s_max": 0.5}, r"strategy.s_max must"), ({"gate_lr": -1.0}, "gate_lr")],
)
def test_impossible_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        HATPlugin(**options)
