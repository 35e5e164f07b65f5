"""Parametrised tensors of a module: adding one, finding it, and copying the module by pickle."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize

from cl_powerprop.errors import ConfigurationError

T = TypeVar("T", bound=nn.Module)


def add_parametrization(module: nn.Module, tensor: str, step: nn.Module) -> None:
    """Compute ``module.<tensor>`` by ``step`` from now on; unlike torch's, such a module can be copied and pickled."""
    parametrize.register_parametrization(module, tensor, step)
    _make_copyable(module)


def find_parametrization(module: nn.Module, tensor: str, kind: type[T]) -> T | None:
    """Return the parametrization of ``kind`` on ``module.<tensor>``, or None."""
    return next((step for step in parametrizations(module, tensor) if isinstance(step, kind)), None)


def parametrizations(module: nn.Module, tensor: str) -> list[nn.Module]:
    """Return the parametrizations of ``module.<tensor>``, from the stored tensor on; empty without any."""
    if not parametrize.is_parametrized(module, tensor):
        return []
    return list(module.parametrizations[tensor])  # type: ignore[index]


def original(module: nn.Module, tensor: str) -> Tensor:
    """Return the stored tensor behind a parametrized one, such as ``phi`` behind ``weight``."""
    stored: Tensor = module.parametrizations[tensor].original  # type: ignore[index, union-attr]
    return stored


def _make_copyable(module: nn.Module) -> None:
    kind: Any = type(module)  # torch makes one for each parametrized module
    kind.__reduce_ex__ = _reduce
    kind.__deepcopy__ = _deepcopy
    kind.register_parameter = _register_parameter


def _register_parameter(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
    """Refuse ``torch.nn.utils.prune``, which would end in torch's traceback: it stores the weight a second time."""
    tensor = name.removesuffix("_orig")
    if tensor != name and parametrize.is_parametrized(module, tensor):
        raise ConfigurationError(
            f"{tensor} of this {parametrize.type_before_parametrizations(module).__name__} is parametrised by masks or "
            "Powerpropagation, which pruning cannot be combined with"
        )
    nn.Module.register_parameter(module, name, parameter)


def _state(module: nn.Module) -> dict[str, Any]:
    """Return what a copy is made from; recurrent layers keep their weights a second time, as results of autograd."""
    return {name: value for name, value in vars(module).items() if name not in ("_flat_weights", "_flat_weight_refs")}


def _reduce(module: nn.Module, _protocol: int) -> tuple[Callable[..., nn.Module], tuple[Any, ...]]:
    """Pickle by the class that the module had before: no pickle can name the one that torch made."""
    return _restored, (parametrize.type_before_parametrizations(module), _state(module))


def _restored(kind: type[nn.Module], state: dict[str, Any]) -> nn.Module:
    return _fill(kind.__new__(kind), state)


def _deepcopy(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    kind: type[nn.Module] = parametrize.type_before_parametrizations(module)
    copied = kind.__new__(kind)
    memo[id(module)] = copied
    return _fill(copied, copy.deepcopy(_state(module), memo))


def _fill(module: nn.Module, state: dict[str, Any]) -> nn.Module:
    parametrize._inject_new_class(module)
    nn.Module.__setstate__(module, state)
    for tensor in state["_modules"]["parametrizations"]:
        parametrize._inject_property(module, tensor)
    _make_copyable(module)
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()
    return module
