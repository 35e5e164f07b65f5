"""Exported networks on disk: the same network comes back, from a small file in which nothing can be called."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
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
