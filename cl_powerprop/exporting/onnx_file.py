"""An exported network as an ONNX file, and running it. Needs the extra `onnx`: pip install 'cl-powerprop[onnx]'."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.exporting.network import ExportedNetwork
from cl_powerprop.files import write_file

_POSITION_BYTES = 8  # ONNX stores the position of each value of a sparse weight as int64


def check_onnx() -> None:
    """Make sure that the packages which write and run ONNX files are installed.

    Raises:
        ConfigurationError: if they are not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"an .onnx file needs {error.name}: pip install 'cl-powerprop[onnx]'; or write a .safetensors file"
        ) from error


def write_onnx(
    network: ExportedNetwork, path: Path, sample: Tensor, facts: Mapping[str, Any] | None = None, sparse: bool = True
) -> None:
    """Write a network by torch's own exporter, at once, with batches of any size.

    Args:
        network: to write.
        path: the file.
        sample: a batch of inputs, ``[n, *sample_shape]``; the file says the shape.
        facts: what else the file is to say, as JSON values; its metadata.
        sparse: store weights that are mostly 0 as sparse initializers; runtimes unpack them when they load the file.
    """
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own inner life
        program = torch.onnx.export(
            network,
            (sample[:1].repeat(2, 1, 1, 1),),  # a batch of one would become a constant
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    for part_of_it in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del part_of_it.metadata_props[:]  # the exporter's stack traces, with paths of this machine
    for name, value in (facts or {}).items():
        model.metadata_props.add(key=name, value=json.dumps(value))
    if sparse:
        _make_sparse(graph)
    onnx.checker.check_model(model)
    write_file(path, model.SerializeToString())


def _make_sparse(graph: Any) -> None:
    """Store every float weight of a graph as a sparse initializer, if that is smaller."""
    from onnx import helper, numpy_helper

    dense = []
    for tensor in graph.initializer:
        weight = numpy_helper.to_array(tensor)
        positions = np.flatnonzero(weight)
        if weight.dtype != np.float32 or len(positions) * (_POSITION_BYTES + weight.itemsize) >= weight.nbytes:
            dense.append(tensor)
            continue
        values = numpy_helper.from_array(weight.ravel()[positions], tensor.name)
        indices = numpy_helper.from_array(positions.astype(np.int64), f"{tensor.name}_positions")
        graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, list(weight.shape)))
    del graph.initializer[:]
    graph.initializer.extend(dense)


def open_onnx(path: Path, threads: int) -> Callable[[Tensor], Tensor]:
    """Return a function that runs an ONNX file by onnxruntime on the CPU: from images to logits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def call(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return call
