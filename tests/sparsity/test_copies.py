"""A masked model is copied and pickled whole, as any other model."""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import MaskAllocator, powerpropagate, select_task

from ..devices import device
from .networks import KINDS, bits, make_batch, make_network

pytestmark = pytest.mark.cuda


def by_torch(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # type: ignore[no-any-return]


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torch.save": by_torch,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "deepcopy": copy.deepcopy,
}


def one_step(model: nn.Module, kind: str, seed: int) -> None:
    x, y = make_batch(kind, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def trained(kind: str, unmasked: str) -> tuple[nn.Module, list[list[int]]]:
    model = powerpropagate(make_network(kind), 2.0)
    allocator = MaskAllocator(model, unmasked)
    answers = []
    for task in range(2):
        allocator.begin_task(generator(0, "test", task))
        one_step(model.train(), kind, task)
        allocator.restore_frozen()
        source = torch.Generator().manual_seed(task)
        draws = {name: torch.rand(weight.owner.shape, generator=source) for name, weight in allocator.weights.items()}
        allocator.propose({name: draw.to(device()) < 0.4 for name, draw in draws.items()})
        allocator.end_task()
        answers.append(answer(model, kind, task))
    select_task(model, None)
    one_step(model.train(), kind, 9)  # leaves results of autograd in recurrent layers
    allocator.restore_frozen()
    return model, answers


@torch.no_grad()
def answer(model: nn.Module, kind: str, task: int) -> list[int]:
    select_task(model.eval(), task)
    return bits(model(make_batch(kind, 50)[0]))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith(("convnet", "resnet"))])
@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("unmasked", ["frozen", "per_task"])
def test_a_copy_answers_alike_and_goes_its_own_way(kind: str, how: str, unmasked: str) -> None:
    model, answers = trained(kind, unmasked)
    copied = COPIES[how](model)
    assert [answer(copied, kind, task) for task in range(2)] == answers
    assert list(copied.state_dict()) == list(model.state_dict())
    one_step(copied.train(), kind, 1)
    assert [answer(model, kind, task) for task in range(2)] == answers
    if how != "deepcopy":
        return
    # A copy of the network and its allocator together goes on with the next task.
    both = {"model": model, "allocator": MaskAllocator(model, unmasked)}
    both = copy.deepcopy(both)
    model, allocator = both["model"], both["allocator"]
    allocator.begin_task(generator(0, "test", 2))
    one_step(model.train(), kind, 2)
    allocator.restore_frozen()
    allocator.end_task()
    assert allocator.tasks == 3
    assert [answer(model, kind, task) for task in range(2)] == answers
