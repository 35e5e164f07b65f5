"""A learner of one's own on disk, between two tasks: network, heads, masks and labels of its tasks, in one file."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from avalanche.models.dynamic_modules import avalanche_model_adaptation
from torch import Tensor

from cl_powerprop.documents import parse_json
from cl_powerprop.errors import ConfigurationError, DataError
from cl_powerprop.plugins.masking import MaskingPlugin, masking_plugins
from cl_powerprop.saving import write_tensors
from cl_powerprop.tensor_file import read_tensors

_FORMAT = "cl-powerprop learner 1"
_PLUGIN = "plugin/"  # what the names of the plugin's tensors begin with
_SHOWN = 150  # characters of what torch says about a state that does not fit


def save_learner(learner: Any, path: str | os.PathLike[str]) -> None:
    """Write what an Avalanche strategy with a masking plugin has learned; :func:`load_learner` goes on from it.

    The file holds tensors and JSON, nothing pickled. An interrupted write leaves an existing file as it was. The
    optimizer is not in it: masking plugins start each task without moments.

    Args:
        learner: between two calls of its ``train``.
        path: the file to write.

    Raises:
        ConfigurationError: if the learner has no masking plugin, or has learned no task.
    """
    plugin = _masking(learner)
    if not hasattr(plugin, "allocator") or not plugin.allocator.tasks:
        raise ConfigurationError("the learner has learned no task yet; there is nothing to save")
    about = _about(plugin) | {"frozen": plugin.allocator.frozen_parameters}
    own = {name: about["state"].pop(name) for name, value in [*about["state"].items()] if isinstance(value, Tensor)}
    tensors = learner.model.state_dict() | {f"{_PLUGIN}{name}": value for name, value in own.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_tensors(Path(path), tensors, {"format": _FORMAT, "about": json.dumps(about)})


def load_learner(learner: Any, path: str | os.PathLike[str], experiences: Iterable[Any] = ()) -> None:
    """Put what :func:`save_learner` wrote into a learner that was built as the saved one was.

    After this it evaluates each learned task through its mask, and goes on with the next one.

    Args:
        learner: with a new model of the same kind (made by the same call of ``powerpropagate``, if any) and a new
            masking plugin.
        path: the file.
        experiences: those that were learned, if the model grows by Avalanche's ``adaptation``, as multi-head models do.

    Raises:
        ConfigurationError: if the learner does not fit the file.
        DataError: if the file is missing or damaged, or is no learner's.
    """
    plugin, model = _masking(learner), learner.model
    tensors, written = _read(path)
    for name, value in _about(plugin).items():
        if name != "state" and value != written[name]:
            raise ConfigurationError(f"{path} was written with {name} {written[name]}, and this learner has {value}")
    model.train()  # Avalanche's heads note which classes they have in training only
    for experience in experiences:
        avalanche_model_adaptation(model, experience)
    own = {name.removeprefix(_PLUGIN): tensors.pop(name) for name in [*tensors] if name.startswith(_PLUGIN)}
    plugin.load_state_dict(written["state"] | own, model)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).partition("\n")[2].split("\n")[0].strip().rstrip(".")
        shown = first if len(first) <= _SHOWN else f"{first[:_SHOWN]} ..."
        raise ConfigurationError(
            f"{path} does not fit this model: {shown}. Build the model as it was built before, with powerpropagate if "
            "that was called; if it grows with each task, pass the experiences that were learned"
        ) from error
    plugin.allocator.freeze(written["frozen"])
    model.to(learner.device)


def _about(plugin: MaskingPlugin) -> dict[str, Any]:
    return {"plugin": type(plugin).__name__, "unmasked": plugin.unmasked, "state": plugin.state_dict()}


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a file's tensors, and what :func:`save_learner` wrote beside them."""
    tensors, metadata = read_tensors(Path(path))
    if metadata.get("format") != _FORMAT:
        raise DataError(f"{path} was not written by save_learner")
    try:
        written = parse_json(metadata["about"].encode())
        return tensors, {name: written[name] for name in ("plugin", "unmasked", "state", "frozen")}
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _masking(learner: Any) -> MaskingPlugin:
    for plugin in masking_plugins(learner):
        return plugin
    raise ConfigurationError(
        "the learner has no masking plugin; torch.save(model.state_dict()) is enough without masks"
    )
