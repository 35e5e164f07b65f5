"""What may act in a training step without saying so: such a step can be neither recorded nor made for several learners.

Both take a step for what its tensors say. A hook, a patched method or a number that a model counts in Python would be
left out, or would stay as it was when the step was recorded.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

_TRUSTED = ("torch", "cl_powerprop")  # packages whose modules compute with their tensors alone
_METHODS = ("forward", "criterion", "backward", "optimizer_step", "sample_losses", "_unpack_minibatch")
_MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def unseen(learner: Any) -> str | None:
    """Return what may act in the learner's steps without saying so; None if nothing can.

    A module or criterion from outside says by ``pure_forward = True`` that it computes with its arguments, parameters
    and buffers alone, and changes buffers only in place.
    """
    return next(_found(learner), None)


def _found(learner: Any) -> Iterator[str]:
    for name in _METHODS:
        method = vars(learner).get(name, getattr(type(learner), name, None))
        method = getattr(method, "fget", method)  # of a property
        if name in vars(learner) or not _is_from(method, (*_TRUSTED, "avalanche")):
            yield f"the learner's {name} is another one"
    if not _is_pure(learner._criterion):
        yield f"{_name(learner._criterion)} does not say pure_forward = True"
    for module in learner.model.modules():
        if not _is_pure(module):
            yield f"{_name(module)} does not say pure_forward = True"
        if "forward" in vars(module):
            yield f"the forward pass of {_name(module)} is another one"
        if any(not _is_from(hook) for kind in _MODULE_HOOKS for hook in _hooks(module, kind)):
            yield f"{_name(module)} has a hook"
    for name, parameter in learner.model.named_parameters():
        if any(True for kind in _PARAMETER_HOOKS for _ in _hooks(parameter, kind)):
            yield f"{name} has a hook"
    optimizer = learner.optimizer
    for name in ("step", "zero_grad"):
        if name in vars(optimizer) and not _is_from(vars(optimizer)[name]):
            yield f"the optimizer's {name} is another one"
    own = (*optimizer._optimizer_step_pre_hooks.values(), *optimizer._optimizer_step_post_hooks.values())
    if any(not _is_from(hook) for hook in own):
        yield "the optimizer has a hook"


def _hooks(owner: Any, kind: str) -> Iterable[Any]:
    return (getattr(owner, kind, None) or {}).values()


def _is_pure(module: Any) -> bool:
    kind = type_before_parametrizations(module) if isinstance(module, nn.Module) else module
    return _is_from(kind) or bool(getattr(kind, "pure_forward", False))


def _is_from(what: Any, packages: tuple[str, ...] = _TRUSTED) -> bool:
    return str(getattr(what, "__module__", "")).partition(".")[0] in packages


def _name(module: Any) -> str:
    kind = type_before_parametrizations(module) if isinstance(module, nn.Module) else module
    return str(getattr(kind, "__name__", type(module).__name__))
