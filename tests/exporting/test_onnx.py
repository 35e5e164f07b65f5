"""ONNX files compute the same in onnxruntime, with batches of any size."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from cl_powerprop.exporting.export import compact
from cl_powerprop.exporting.network import ExportedNetwork, Step
from cl_powerprop.exporting.onnx_file import open_onnx, write_onnx

from ..test_models import OPTIONS
from .networks import images, masked_network

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", OPTIONS)
def test_onnxruntime_computes_the_same(name: str, tmp_path: Path) -> None:
    _, network = compact(masked_network(name, 0.05), images(1), 0)
    write_onnx(network, tmp_path / "a.onnx", images(1), {"task": 0})
    run = open_onnx(tmp_path / "a.onnx", 1)
    for size in (1, 7):
        batch = images(size)
        with torch.no_grad():
            torch.testing.assert_close(run(batch), network(batch), rtol=1e-4, atol=1e-5)


def test_the_file_says_what_it_is_and_nothing_of_this_machine(tmp_path: Path) -> None:
    _, network = compact(masked_network("lenet5", 0.05), images(1), 0)
    write_onnx(network, tmp_path / "a.onnx", images(1), {"task": 0, "name": "digits"})
    model = onnx.load(tmp_path / "a.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props} == {"task": "0", "name": '"digits"'}
    content = (tmp_path / "a.onnx").read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b".py" not in content


def test_weights_that_are_mostly_0_are_stored_sparse(tmp_path: Path) -> None:
    layer = nn.Linear(400, 50)
    layer.weight.data *= torch.rand(50, 400) < 0.1
    network = ExportedNetwork([Step(nn.Flatten(), (0,)), Step(layer, (1,))]).eval()
    sample = torch.randn(3, 1, 20, 20)
    for name, sparse in (("sparse.onnx", True), ("dense.onnx", False)):
        write_onnx(network, tmp_path / name, sample, sparse=sparse)
    graph = onnx.load(tmp_path / "sparse.onnx").graph
    (weight,) = graph.sparse_initializer
    values = onnx.numpy_helper.to_array(weight.values)
    positions = onnx.numpy_helper.to_array(weight.indices)
    dense = np.zeros(50 * 400, np.float32)
    dense[positions] = values
    assert np.array_equal(dense.reshape(50, 400), layer.weight.detach().numpy())
    sizes = [(tmp_path / name).stat().st_size for name in ("sparse.onnx", "dense.onnx")]
    assert sizes[0] < sizes[1] / 3
    run = open_onnx(tmp_path / "sparse.onnx", 1)
    torch.testing.assert_close(run(sample), network(sample).detach(), rtol=1e-4, atol=1e-5)
