"""Exported networks on disk: the same network comes back, from a small file in which nothing can be called."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from cl_powerprop.errors import DataError
from cl_powerprop.exporting.export import compact
from cl_powerprop.exporting.files import FORMAT, load_exported, write_exported
from cl_powerprop.exporting.layers import KINDS
from cl_powerprop.exporting.network import ExportedNetwork, Step
from cl_powerprop.saving import load, write_tensors
from cl_powerprop.tensor_file import read_tensors

from ..test_models import OPTIONS
from .networks import images, masked_network


def exported(name: str = "lenet5", density: float = 0.1, **options: Any) -> ExportedNetwork:
    return compact(masked_network(name, density, **options), images(1), 1)[1]


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_network_comes_back(name: str, tmp_path: Path) -> None:
    network, batch = exported(name), images()
    write_exported(network, tmp_path / "a.safetensors", batch)
    write_exported(network, tmp_path / "b.safetensors", batch)
    loaded = load_exported(tmp_path / "a.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded(batch), network(batch))
    assert not loaded.training
    assert all(type(layer).__module__.startswith(("torch.nn", "cl_powerprop.exporting")) for layer in loaded.layers)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_it_can_be_trained_further(tmp_path: Path) -> None:
    write_exported(exported(), tmp_path / "a.safetensors", images(1))
    loaded = load_exported(tmp_path / "a.safetensors")
    loaded(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


@pytest.mark.parametrize(
    ("density", "parts"),
    [(0.99, [""]), (0.5, [".mask", ".values"]), (0.01, [".indices", ".values"])],
)
def test_each_weight_is_stored_in_the_smallest_form(density: float, parts: list[str], tmp_path: Path) -> None:
    layer = nn.Linear(100, 50, bias=False)
    layer.weight.data *= torch.rand(50, 100) < density
    nonzero = int(layer.weight.count_nonzero())
    network = ExportedNetwork([Step(layer, (0,))])
    write_exported(network, tmp_path / "a.safetensors", torch.zeros(1, 100), {"task": 3})
    stored, _ = read_tensors(tmp_path / "a.safetensors")
    assert sorted(name.removeprefix("layers.0.weight") for name in stored) == parts
    # float32 weights; float32 values and one bit each; float32 values and int32 positions
    smallest = min(4 * 5000, 4 * nonzero + 5000 / 8, 8 * nonzero)
    assert sum(value.nbytes for value in stored.values()) == smallest
    loaded = load_exported(tmp_path / "a.safetensors")
    assert torch.equal(loaded.layers[0].weight, layer.weight)  # type: ignore[arg-type]
    assert loaded.facts == {"sample_shape": [100], "task": 3}


def tampered(path: Path, **changes: Any) -> Path:
    """A file whose description is changed, or whose tensors are: by name."""
    write_exported(exported(), path, images(1))
    stored, metadata = read_tensors(path)
    description = json.loads(metadata["description"])
    for name, value in changes.items():
        if name in description:
            description[name] = value
        else:
            stored[name.replace("__", ".")] = value
    write_tensors(path, stored, {"format": FORMAT, "description": json.dumps(description)})
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": [{"kind": "os.system", "inputs": [0]}]},
        {"steps": [{"kind": "relu", "inputs": [1]}]},
        {"steps": []},
        {"steps": None},
        {"steps": [{"kind": "linear", "in_features": -1, "out_features": 10**12, "bias": True, "inputs": [0]}]},
        {"steps": [{"kind": "linear", "in_features": 10**9, "out_features": 10**9, "bias": True, "inputs": [0]}]},
        {"sparse": {"layers.0.weight": [3]}},
        {"sparse": {"layers.99.weight": [3]}},
        {"layers__0__bias": torch.zeros(3)},
        {"layers__0__weight__values": torch.zeros(3)},
        {"more": torch.zeros(3)},
        {"facts": 3},
    ],
    ids=str,
)
def test_a_file_that_was_tampered_with_is_one_clear_line(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.safetensors is damaged") as raised:
        load_exported(tampered(tmp_path / "a.safetensors", **changes))
    assert "\n" not in str(raised.value)


LINEAR = {"kind": "linear", "in_features": 784, "out_features": 3, "bias": True, "inputs": [0]}
CONV: dict[str, Any] = {
    **{"kind": "conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": [3, 3], "stride": [1, 1], "groups": 1},
    **{"padding": [0, 0], "dilation": [1, 1], "padding_mode": "zeros", "bias": False, "inputs": [0]},
}
POOL: dict[str, Any] = {
    **{"kind": "max_pool2d", "kernel_size": 2, "stride": 2, "padding": 0, "ceil_mode": False, "dilation": 1},
    "inputs": [0],
}
FLAT = {"kind": "flatten", "start_dim": 1, "end_dim": -1, "inputs": [0]}


def steps(*described: dict[str, Any]) -> list[dict[str, Any]]:
    """Steps, each of which takes what the one before returns."""
    return [{**step, "inputs": [index] * len(step["inputs"])} for index, step in enumerate(described)]


@pytest.mark.parametrize(
    "described",
    [
        [{"kind": "relu", "inputs": [0]}] * 200_000,
        [{"kind": "relu", "inputs": [0.0]}],
        [{"kind": "relu", "inputs": [True]}],
        [{"kind": "relu", "inputs": [-1]}],
        [{"kind": "relu", "inputs": []}],
        [{"kind": "relu", "inputs": [0, 0]}],
        [{"kind": "relu", "inputs": "0"}],
        [{"kind": "relu", "inputs": [0], "inplace": True}],
        [{"kind": ["relu"], "inputs": [0]}],
        [{"kind": "add", "inputs": [0]}],
        ["relu"],
        {"0": {"kind": "relu", "inputs": [0]}},
        [{"kind": "gelu", "approximate": "os.system", "inputs": [0]}],
        [{"kind": "elu", "alpha": "1", "inputs": [0]}],
        [{"kind": "leaky_relu", "negative_slope": [1], "inputs": [0]}],
        steps(CONV | {"stride": [-1, 1]}, FLAT),
        steps(CONV | {"stride": [0, 0]}, FLAT),
        steps(CONV | {"padding_mode": "none"}, FLAT),
        steps(CONV | {"padding": "some"}, FLAT),
        steps(CONV | {"padding": [10**9, 10**9]}, FLAT),
        steps(CONV | {"kernel_size": [3.0, 3]}, FLAT),
        steps(CONV | {"groups": 7}, FLAT),
        steps(CONV | {"in_channels": 3}, FLAT),
        steps(POOL | {"kernel_size": 100}, FLAT),
        steps(POOL | {"padding": 2}, FLAT),
        steps(POOL | {"stride": None}, FLAT),
        steps({"kind": "adaptive_avg_pool2d", "output_size": 4096, "inputs": [0]}, *[CONV] * 3, FLAT, LINEAR),
        steps({"kind": "adaptive_avg_pool2d", "output_size": 10**6, "inputs": [0]}, FLAT),
        steps({"kind": "adaptive_avg_pool2d", "output_size": [None, "1"], "inputs": [0]}, FLAT),
        steps({"kind": "flatten", "start_dim": 0, "end_dim": -1, "inputs": [0]}),
        steps({"kind": "group_norm", "num_groups": 2, "num_channels": 3, "eps": 1e-5, "affine": True, "inputs": [0]}),
        steps(FLAT, {"kind": "select", "count": 10**12, "inputs": [0]}),
        steps(FLAT, LINEAR | {"in_features": 783}),
        steps(FLAT, LINEAR | {"bias": 1}),
        steps(LINEAR),
        steps(POOL),
    ],
    ids=lambda described: str(described)[:60],
)
def test_steps_that_would_fail_when_called_are_refused_when_loaded(described: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.safetensors is damaged") as raised:
        load_exported(tampered(tmp_path / "a.safetensors", steps=described, sparse={}))
    assert str(raised.value).isprintable()


def sparse_file(path: Path, **changes: Any) -> Path:
    """One layer of which six weights are not 0, stored by their positions; its parts can be others."""
    size = changes.pop("size", 100)
    step = {"kind": "linear", "in_features": size, "out_features": size, "bias": False, "inputs": [0]}
    stored = {"values": torch.ones(6), "indices": torch.tensor([0, 3, 5, 70, 700, 9999], dtype=torch.int32)} | changes
    shape = {"layers.0.weight": [size, size]}
    description = {"steps": [step], "sparse": shape, "facts": {"sample_shape": [size]}}
    tensors = {f"layers.0.weight.{name}": value for name, value in stored.items()}
    write_tensors(path, tensors, {"format": FORMAT, "description": json.dumps(description)})
    return path


def test_the_sparse_file_itself_is_accepted(tmp_path: Path) -> None:
    network = load_exported(sparse_file(tmp_path / "a.safetensors"))
    assert torch.equal(network(torch.ones(1, 100)).nonzero()[:, 1], torch.tensor([0, 7, 99]))


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 46_000},  # 8 GB
        {"size": 10**6},  # 4 TB
        {"size": 2**31 - 1},
        {"values": torch.ones(5)},
        {"values": torch.ones(6, dtype=torch.float64)},
        {"values": torch.ones(6, dtype=torch.int32)},
        {"values": torch.tensor([1, 2, 3, 4, 5, float("nan")])},
        {"values": torch.ones(2, 3)},
        {"indices": torch.tensor([0, 3, 5, 70, 700, 10_000], dtype=torch.int32)},
        {"indices": torch.tensor([-1, 3, 5, 70, 700, 9999], dtype=torch.int32)},
        {"indices": torch.tensor([0, 3, 3, 70, 700, 9999], dtype=torch.int32)},
        {"indices": torch.tensor([0, 3, 5, 70, 700, 9999])},
        {"indices": torch.tensor([0.0, 3, 5, 70, 700, 9999])},
        {"mask": torch.zeros(1250, dtype=torch.uint8)},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_positions_and_sizes_that_cannot_be_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.safetensors is damaged") as raised:
        load_exported(sparse_file(tmp_path / "a.safetensors", **changes))
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("shape", [None, [], [1, 28, 28, 1], [0], [-1], [1.5], ["784"], [10**9] * 3, [2**40]], ids=str)
def test_a_sample_of_impossible_shape_is_refused(shape: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.safetensors is damaged"):
        load_exported(tampered(tmp_path / "a.safetensors", facts={"sample_shape": shape}))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_flipped_bit_or_other_bytes_are_found(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.safetensors"
    if not path.exists():
        sparse_file(path)
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    replaced = data.draw(st.one_of(st.just(bytes([content[start] ^ 1])), st.binary(min_size=1, max_size=100)))
    changed = bytes(content[:start]) + replaced + bytes(content[start + len(replaced) :])
    if changed != bytes(content):
        (tmp_path / "b.safetensors").write_bytes(changed)
        with pytest.raises(DataError) as raised:
            load_exported(tmp_path / "b.safetensors")
        assert str(raised.value).isprintable()


def test_files_of_another_kind_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="was not found"):
        load_exported(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(DataError, match="is damaged"):
        load_exported(tmp_path / "text.safetensors")
    write_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {})
    with pytest.raises(DataError, match="is no exported network"):
        load_exported(tmp_path / "other.safetensors")
    write_exported(exported(), tmp_path / "a.safetensors", images(1))
    with pytest.raises(DataError, match="was not written by"):
        load(tmp_path / "a.safetensors")


def test_layers_have_their_options_under_the_names_of_their_arguments() -> None:
    """A file holds attributes and gives them back as arguments: another order or name would mix them up."""
    import inspect

    for kind, (layer, names) in KINDS.items():
        assert set(names) <= set(inspect.signature(layer.__init__).parameters), kind
