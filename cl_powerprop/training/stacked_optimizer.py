"""One optimizer over the stacked parameters of several networks, and their own optimizers' states."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

# torch's optimizers that move each weight by its own gradient and state alone: those of networks do not mix.
_ELEMENTWISE = frozenset({SGD, Adam, AdamW, RMSprop, Adagrad})
_FREE = ("params", "lr")
_QUIET = {"_warned_capturable_if_run_uncaptured": True}  # as rates.py has it
_COUNT = "step"  # torch's name for the number of steps, which is no tensor of weights


def moves_several(optimizer: Optimizer) -> bool:
    """Return whether an optimizer can be one for several networks."""
    return type(optimizer) in _ELEMENTWISE and all(_can_move(hook) for hook in _hooks(optimizer))


def optimizer_options(optimizer: Optimizer) -> Hashable:
    """Return the options that optimizers must have in common to be one; rates are left out, which follow the first."""
    groups = optimizer.param_groups
    options = (tuple((name, repr(value)) for name, value in group.items() if name not in _FREE) for group in groups)
    return type(optimizer), tuple(options), tuple(len(group["params"]) for group in groups)


def optimizer_state(optimizer: Optimizer) -> Hashable:
    """Return the names of what optimizers must know of each parameter to be one."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    states = (optimizer.state.get(parameter, {}) for parameter in parameters)
    return tuple(tuple((name, isinstance(value, Tensor)) for name, value in state.items()) for state in states)


class StackedOptimizer:
    """The optimizer of several networks, whose options and states are alike.

    Args:
        optimizers: each network's own.
        stacked: returns the stacked tensor of a parameter of the first network.

    Attributes:
        version: changes whenever a tensor of its state is another one than before.
    """

    def __init__(self, optimizers: Sequence[Optimizer], stacked: Callable[[Tensor], Tensor]) -> None:
        self._own = list(optimizers)
        self._optimizer = _like(optimizers[0], stacked)
        self.version = 0

    def load(self) -> None:
        """Take the state of each network's optimizer."""
        state = self._optimizer.state
        for stacked, own in self._parameters():
            now = _stack_state(stacked, [optimizer.state.get(parameter, {}) for optimizer, parameter in own])
            before = state.get(stacked, {})
            if {name: _shape(value) for name, value in before.items()} != {k: _shape(v) for k, v in now.items()}:
                state.pop(stacked, None)
                if now:
                    state[stacked] = now
                self.version += 1
                continue
            for name, value in now.items():
                if isinstance(value, Tensor):
                    before[name].copy_(value)

    def store(self) -> None:
        """Give each network's optimizer its state, and the rates of the first one."""
        for stacked, own in self._parameters():
            state = self._optimizer.state.get(stacked, {})
            for name, value in state.items():
                places = [optimizer.state[parameter] for optimizer, parameter in own]
                if isinstance(value, Tensor):
                    _set_rows(places, name, value.expand(len(own)) if name == _COUNT else value)
                else:
                    for place in places:
                        place[name] = value
        for optimizer in self._own[1:]:
            for group, first in zip(optimizer.param_groups, self._own[0].param_groups, strict=True):
                if isinstance(group["lr"], Tensor):
                    group["lr"].copy_(first["lr"])
                else:
                    group["lr"] = first["lr"]

    def follow_rates(self) -> None:
        """Take the learning rates that the first network's optimizer has now."""
        for group, first in zip(self._optimizer.param_groups, self._own[0].param_groups, strict=True):
            group["lr"] = first["lr"]  # on a GPU, a tensor that stays where it is

    @property
    def rates(self) -> tuple[Any, ...]:
        """The rates that a recorded step would keep: those that are numbers."""
        return tuple(group["lr"] for group in self._optimizer.param_groups if not isinstance(group["lr"], Tensor))

    @property
    def can_be_recorded(self) -> bool:
        """Whether its step reads the rates from the device, and never waits for it."""
        return all(group.get("fused") for group in self._optimizer.param_groups)

    def step(self) -> None:
        """Make a step of all networks."""
        self._optimizer.step()

    def _parameters(self) -> list[tuple[Tensor, list[tuple[Optimizer, Tensor]]]]:
        """Return every stacked parameter, with each network's optimizer and its own parameter."""
        found = []
        for position, group in enumerate(self._optimizer.param_groups):
            for index, stacked in enumerate(group["params"]):
                own = [(each, each.param_groups[position]["params"][index]) for each in self._own]
                found.append((stacked, own))
        return found


def _hooks(optimizer: Optimizer) -> list[Callable[..., Any]]:
    return [*optimizer._optimizer_step_pre_hooks.values(), *optimizer._optimizer_step_post_hooks.values()]


def _can_move(hook: Callable[..., Any]) -> bool:
    """Whether a hook can act on another optimizer: a function of ours can, and an object that says how."""
    return (
        hasattr(hook.__self__, "act_on") if hasattr(hook, "__self__") else hook.__module__.startswith("cl_powerprop.")
    )


def _like(optimizer: Optimizer, stacked: Callable[[Tensor], Tensor]) -> Optimizer:
    """Return an optimizer with the same options and hooks, made as a copy is, over the stacked parameters."""
    kind = type(optimizer)
    made = kind.__new__(kind)
    groups = [{**group, "params": [stacked(each) for each in group["params"]]} for group in optimizer.param_groups]
    made.__setstate__(
        {**_QUIET, "defaults": dict(optimizer.defaults), "state": defaultdict(dict), "param_groups": groups}
    )
    owners = {id(owner): owner for hook in _hooks(optimizer) if (owner := getattr(hook, "__self__", None)) is not None}
    for hook in optimizer._optimizer_step_pre_hooks.values():
        if not hasattr(hook, "__self__"):
            made.register_step_pre_hook(hook)
    for owner in owners.values():
        owner.act_on(made, stacked)
    for hook in optimizer._optimizer_step_post_hooks.values():
        if not hasattr(hook, "__self__"):
            made.register_step_post_hook(hook)
    return made


def _stack_state(stacked: Tensor, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the state of a stacked parameter; steps are counted once, and are equal in all networks."""
    return {
        name: _stack(name, value, [state[name] for state in states], stacked.device)
        for name, value in states[0].items()
    }


def _stack(name: str, first: Any, values: list[Any], device: torch.device) -> Any:
    if not isinstance(first, Tensor):
        return first
    return first.clone().to(device) if name == _COUNT else torch.stack(values)


def _set_rows(states: Sequence[dict[str, Any]], name: str, rows: Tensor) -> None:
    """Put the rows of a tensor into states, in the place of those that they have, if they have any."""
    held = [state[name] for state in states if isinstance(state.get(name), Tensor)]
    if len(held) == len(states):
        torch._foreach_copy_(held, list(rows.unbind()))
        return
    for state, row in zip(states, rows.clone(memory_format=torch.contiguous_format).unbind(), strict=True):
        state[name] = row


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, Tensor) else value
