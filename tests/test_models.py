"""The package's networks: shapes, sizes, norms, initial weights, and loading from disk."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.limits import NORMS
from cl_powerprop.models.resnet50 import resnet50
from cl_powerprop.networks.build import build_model
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.networks.independent import IndependentNetworks
from cl_powerprop.networks.norm import make_norm
from cl_powerprop.networks.residual import PreactivationBlock
from cl_powerprop.registry import parts
from cl_powerprop.saving import load, save
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import MaskAllocator, select_task

OPTIONS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [12, 8]},
    "lenet_300_100": {"hidden": [300, 100]},
    "lenet5": {},
    "lenet": {"channels": [4, 6], "hidden": [12, 8]},
    "convnet": {"width": 8, "norm": "batch"},
    "resnet18": {"width": 8, "norm": "batch"},
    "resnet50": {},
    "wide_resnet": {"depth": 10, "widen_factor": 1, "norm": "batch"},
}


def make(name: str, **options: Any) -> nn.Module:
    settings = {"sample_shape": (1, 28, 28), "classes": [3, 7], "heads": "per_task", "bias": "per_task"}
    return build_model(name, **(settings | OPTIONS[name] | options))


def test_every_model_is_tried_here() -> None:
    assert set(OPTIONS) == set(parts("model"))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("bias", ["none", "per_task"])
def test_heads_have_their_own_number_of_classes(name: str, bias: str) -> None:
    model = make(name, bias=bias, alpha=2.0)
    for task, classes in enumerate((3, 7)):
        select_task(model, task)
        assert model(torch.rand(5, 1, 28, 28)).shape == (5, classes)
    with pytest.raises(LookupError, match="no head for task 2"):
        select_task(model, 2)
    shared = make(name, bias=bias, heads="shared")
    assert shared(torch.rand(5, 1, 28, 28)).shape == (5, 7)


@pytest.mark.parametrize("name", OPTIONS)
def test_without_biases_there_is_nothing_but_weights(name: str) -> None:
    model = make(name, bias="none")
    for module in model.modules():
        assert getattr(module, "bias", None) is None or isinstance(module, nn.ParameterList)
    names = {key.rsplit(".", 1)[-1] for key, _ in model.named_parameters()}
    assert names == {"original", "weight"}, "reparameterised weights, and those of heads"


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.features.parameters())  # type: ignore[union-attr]


def test_sizes_are_the_published_ones() -> None:
    assert count(make("lenet_300_100")) == 784 * 300 + 300 + 300 * 100 + 100
    # C1 156, C3 with all connections 2416, C5 48120, F6 10164
    assert count(make("lenet5")) == 156 + 2416 + 48120 + 10164
    # Kang et al. 2022: 8192 features between convolutions and hidden layers
    large = make("lenet", channels=[64, 128], hidden=[2500, 1500], sample_shape=(1, 32, 32), bias="none")
    assert count(large) == 25 * 64 + 25 * 64 * 128 + 8192 * 2500 + 2500 * 1500 == 24_436_400
    blocks = (9 * 64 + 2 * 64) + 3 * (9 * 64 * 64 + 2 * 64)
    assert count(make("convnet", width=64)) == blocks
    # 11,173,962 is what a CIFAR ResNet-18 has with three channels and ten classes with biases.
    resnet = count(make("resnet18", width=64, sample_shape=(3, 32, 32)))
    assert resnet + 512 * 10 + 10 == 11_173_962
    colour = {"sample_shape": (3, 32, 32)}
    for depth, widen_factor, parameters in ((28, 10, 36_479_194), (40, 2, 2_243_546), (16, 4, 2_748_890)):
        wide = count(make("wide_resnet", depth=depth, widen_factor=widen_factor, **colour))
        assert wide + (64 * widen_factor + 1) * 10 == parameters
    assert count(make("resnet50", sample_shape=(3, 224, 224))) + 2048 * 1000 + 1000 == 25_557_032


def relu_norm(maps: Tensor) -> Tensor:
    return (
        (maps - maps.mean((0, 2, 3), True)) / (maps.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    ).relu()


def test_a_wide_resnet_is_the_published_one() -> None:
    """WRN-10-2 written out: norm and ReLU before each convolution, the shortcut from after the first of them."""
    network = make("wide_resnet", widen_factor=2, sample_shape=(3, 16, 16), bias="none", heads="shared").train()
    weights = [value for name, value in network.state_dict().items() if name.startswith("features") and value.ndim == 4]
    assert [tuple(weight.shape) for weight in weights[:4]] == [
        (16, 3, 3, 3),
        (32, 16, 3, 3),
        (32, 32, 3, 3),
        (32, 16, 1, 1),
    ]
    images = torch.randn(4, 3, 16, 16)
    conv = nn.functional.conv2d
    maps = conv(images, weights[0], padding=1)
    for stage, (first, second, around) in enumerate(zip(weights[1::3], weights[2::3], weights[3::3], strict=True)):
        active, stride = relu_norm(maps), 2 if stage else 1
        inner = conv(relu_norm(conv(active, first, padding=1, stride=stride)), second, padding=1)
        maps = inner + conv(active, around, stride=stride)
    expected = relu_norm(maps).mean((2, 3))
    torch.testing.assert_close(network.features(images).flatten(1), expected, rtol=1e-4, atol=1e-5)


def test_a_wide_resnet_halves_twice_and_keeps_its_input_within_a_stage() -> None:
    model = make("wide_resnet", depth=16, widen_factor=2, sample_shape=(3, 32, 32))
    blocks = [module for module in model.features if isinstance(module, PreactivationBlock)]
    shapes: list[tuple[int, ...]] = []
    for block in blocks:
        block.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    model(torch.rand(2, 3, 32, 32))
    assert shapes == [(32, 32, 32)] * 2 + [(64, 16, 16)] * 2 + [(128, 8, 8)] * 2
    assert [block.shortcut is None for block in blocks] == [False, True] * 3


def test_resnet50_is_that_of_torchvision() -> None:
    import torchvision

    ours = resnet50((3, 64, 64), bias=True).eval()
    theirs = torchvision.models.resnet50().eval()
    theirs.fc = nn.Identity()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))
    std = float(make("resnet50").features.layer1[0].conv2.weight.detach().std())  # type: ignore[union-attr]
    assert std == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02), "He's initial weights, by the number of outputs"


def test_resnet50_of_greyscale_images_has_another_first_layer() -> None:
    assert make("resnet50").features.conv1.weight.shape == (64, 1, 7, 7)  # type: ignore[union-attr]


def test_a_resnet_halves_three_times() -> None:
    model = make("resnet18")
    shapes = []
    for layer in model.features:  # type: ignore[union-attr]
        layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    model(torch.rand(2, 1, 32, 32))
    stages = [shape for shape, _ in itertools.groupby(shapes)]
    assert stages == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4), (64, 1, 1)]


@pytest.mark.parametrize("name", ["convnet", "lenet5"])
def test_images_that_are_too_small_are_one_clear_error(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"samples of shape \(1, 8, 8\) do not fit the model"):
        make(name, sample_shape=(1, 8, 8))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("convnet", {"width": 0}, "model.width"),
        ("resnet18", {"width": -1}, "model.width"),
        ("convnet", {"norm": "instance"}, "none, batch, group, layer"),
        ("resnet18", {"norm": "group", "width": 12}, "12 channels do not divide into 8 groups"),
        ("mlp", {"hidden": [0]}, "model.hidden"),
        (
            "wide_resnet",
            {"depth": 12},
            "model.depth must be 6 n \\+ 4, such as 10, 16, 22, 28 or 40, up to 1204",
        ),
        ("wide_resnet", {"depth": 4}, "model.depth"),
        ("wide_resnet", {"widen_factor": 0}, "model.widen_factor must be at least 1"),
        ("wide_resnet", {"norm": "instance"}, "none, batch, group, layer"),
    ],
)
def test_impossible_models(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(name, **options)


def test_an_unknown_model_names_the_choices() -> None:
    with pytest.raises(ConfigurationError, match="resnet18"):
        build_model("vgg", sample_shape=(1, 28, 28), classes=[2], heads="shared", bias="none")


def standardised(maps: Tensor, dims: tuple[int, ...]) -> Tensor:
    return (maps - maps.mean(dims, True)) / (maps.var(dims, unbiased=False, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("name", ["batch", "group", "layer"])
def test_norms_against_their_definition(name: str) -> None:
    maps = torch.rand(6, 16, 5, 4) * 3 + 1
    expected = {
        "batch": lambda m: standardised(m, (0, 2, 3)),
        "layer": lambda m: standardised(m, (1, 2, 3)),
        "group": lambda m: torch.cat([expected["layer"](m[:, first : first + 2]) for first in range(0, 16, 2)], dim=1),
    }
    for affine in (True, False):
        norm = make_norm(name, 16, affine)
        assert len(list(norm.parameters())) == 2 * affine
        torch.testing.assert_close(norm(maps).detach(), expected[name](maps))
    assert set(NORMS) == {"none", *expected}


def test_initial_weights_come_from_the_seed_alone() -> None:
    one, same, other = (make("convnet", init_seed=seed).state_dict() for seed in (1, 1, 2))
    torch.manual_seed(5)
    again = make("convnet", init_seed=1).state_dict()
    assert all(torch.equal(one[key], same[key]) and torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_independent_networks_share_nothing() -> None:
    model = make("convnet", independent=True)
    assert isinstance(model, IndependentNetworks)
    images = torch.rand(4, 1, 28, 28)
    outputs = []
    for task, classes in enumerate((3, 7)):
        select_task(model, task)
        model.zero_grad()
        outputs.append(model(images))
        assert outputs[-1].shape == (4, classes)
        outputs[-1].sum().backward()
        with_gradient = {name.split(".")[1] for name, value in model.named_parameters() if value.grad is not None}
        assert with_gradient == {str(task)}
    with pytest.raises(LookupError, match="no network for task 2"):
        select_task(model, 2)
    assert not any(isinstance(module, TaskHeads) and len(module.heads) != 1 for module in model.modules())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_a_trained_model_comes_back_from_disk_to_the_bit(name: str, norm: str, tmp_path: Path) -> None:
    architecture: dict[str, Any] = {
        "sample_shape": [1, 16, 16],
        "classes": [3, 4, 2],
        "heads": "per_task",
        "bias": "per_task",
        "name": name,
        "width": 8,
        "norm": norm,
        "alpha": 2.0,
    }
    model = build_model(**architecture)
    allocator = MaskAllocator(model, "per_task", exclude=(TaskHeads,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images = torch.rand(20, 1, 16, 16)
    expected = []
    for task, classes in enumerate(architecture["classes"]):
        allocator.begin_task(generator(0, "test", task))
        model.train()
        for step in range(3):
            optimizer.zero_grad()
            labels = torch.randint(classes, (20,), generator=generator(step, "labels"))
            nn.functional.cross_entropy(model(images + task), labels).backward()
            optimizer.step()
            allocator.restore_frozen()
        allocator.propose({key: torch.rand(w.owner.shape) < 0.3 for key, w in allocator.weights.items()})
        allocator.end_task()
    model.eval()
    with torch.no_grad():
        for task in range(3):
            select_task(model, task)
            expected.append(model(images))
    path = tmp_path / "model.safetensors"
    save(model, path, architecture=architecture, masked={"unmasked": "per_task"}, n_tasks=3)
    loaded = load(path)
    with torch.no_grad():
        for task in (2, 0, 1):
            assert torch.equal(loaded(images, task=task), expected[task])


def test_the_same_network_gives_the_same_file_which_others_may_read(tmp_path: Path) -> None:
    """safetensors writes metadata in random order, so one pair of equal files would prove little."""
    architecture: dict[str, Any] = {
        **{"name": "mlp", "sample_shape": [1, 4, 4], "classes": [3], "heads": "shared", "bias": "frozen", "hidden": [5]}
    }
    model = build_model(**architecture)
    paths = [tmp_path / f"{number}.safetensors" for number in range(20)]
    for path in paths:
        save(model, path, architecture=architecture, masked=None, n_tasks=1)
    assert len({path.read_bytes() for path in paths}) == 1
    (tmp_path / "plain").write_text("")
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {(tmp_path / "plain").stat().st_mode}
    with safetensors.safe_open(paths[0], "pt") as content:
        assert set(content.metadata()) == {"sha256", "format", "description"}
    assert torch.equal(load(paths[0])(torch.ones(2, 1, 4, 4), task=0), model.eval()(torch.ones(2, 1, 4, 4)))
