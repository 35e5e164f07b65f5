"""Model files from strangers: a network is loaded and computes, or the file is refused in one line."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from cl_powerprop.errors import DataError
from cl_powerprop.exporting.files import load_exported, write_exported
from cl_powerprop.saving import load, write_tensors
from cl_powerprop.tensor_file import read_tensors

from ..exporting.networks import images
from ..exporting.test_files import exported
from ..tensor_files import header_and_data, write_raw
from ..test_damaged_models import masked_file
from .cases import cases
from .guard import Place, case, watched
from .hostile import Change, Damage, any_damage, as_json, changed, few_changes
from .tensor_changes import TensorChange, tensor_changes

pytestmark = pytest.mark.slow

MODELS: dict[str, dict[str, Any]] = {
    "convnet": {},
    "layer norm": {"norm": "layer", "alpha": 3.0},
    "group norm": {"norm": "group", "bias": "frozen", "width": 8},
}
EXPORTED = ("mlp", "lenet5", "convnet", "resnet18")


@dataclass(frozen=True)
class InDescription:
    """What a file says of its network, and its tensors, are changed; its checksum is right."""

    changes: list[Change]
    tensors: list[TensorChange]

    def __call__(self, path: Path, place: Place) -> None:
        tensors, metadata = read_tensors(path)
        description = changed(json.loads(metadata["description"]), self.changes, place)
        for change in self.tensors:
            tensors = change.apply(tensors)
        write_tensors(path, tensors, metadata | {"description": as_json(description).decode()})


@dataclass(frozen=True)
class InHeader:
    """Values in the header of a safetensors file are changed, or bytes of it; there is no checksum."""

    changes: list[Change]
    bytes: list[Any]

    def __call__(self, path: Path, place: Place) -> None:
        header, data = header_and_data(path)
        header["__metadata__"].pop("sha256", None)
        content = as_json(changed(header, self.changes, place))
        for damage in self.bytes:
            content = damage.apply(content)
        write_raw(path, content, data)


in_file: st.SearchStrategy[Damage] = st.one_of(
    st.builds(InDescription, few_changes, st.just([])),
    st.builds(InDescription, st.just([]), st.lists(tensor_changes, min_size=1, max_size=2)),
    st.builds(InDescription, few_changes, st.lists(tensor_changes, max_size=2)),
    st.builds(InHeader, few_changes, st.just([])),
    any_damage,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    return {name: masked_file(path, **options).read_bytes() for name, options in MODELS.items()}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("networks") / "network.safetensors"

    def content(name: str) -> bytes:
        write_exported(exported(name), path, images(1))
        return path.read_bytes()

    return {name: content(name) for name in EXPORTED}


def called(place: Place, file: Path, call: Callable[[], torch.Tensor]) -> None:
    with torch.no_grad():
        lines = watched(place, lambda: _computed(call), errors=(DataError,))
    assert all(str(file) in line for line in lines)


def _computed(call: Callable[[], torch.Tensor]) -> list[str]:
    assert call().ndim == 2
    return []


@cases("models", name=st.sampled_from(sorted(MODELS)), damage=in_file)
def test_a_model_computes_or_is_refused(place: Place, models: dict[str, bytes], name: str, damage: Damage) -> None:
    with case(place) as folder:
        file = folder / "model.safetensors"
        file.write_bytes(models[name])
        damage(file, place)

        def call() -> torch.Tensor:
            model = load(file)
            outputs = [model(torch.zeros(2, 1, 16, 16), task) for task in range(model.n_tasks)]
            return torch.cat(outputs, dim=1)

        called(place, file, call)


@cases("exported", name=st.sampled_from(EXPORTED), damage=in_file, kernels=st.booleans())
def test_an_exported_network_computes_or_is_refused(
    place: Place, networks: dict[str, bytes], name: str, damage: Damage, kernels: bool
) -> None:
    with case(place) as folder:
        file = folder / "network.safetensors"
        file.write_bytes(networks[name])
        damage(file, place)

        def call() -> torch.Tensor:
            network = load_exported(file, sparse_kernels=kernels)
            outputs: torch.Tensor = network(torch.zeros(2, *network.facts["sample_shape"]))
            return outputs

        called(place, file, call)
