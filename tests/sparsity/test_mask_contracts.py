"""The allocator's guarantee, over layers, optimizers and exponents: a task's weights never change, bit for bit."""

import functools
import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.limits import NORMS
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import LayerCapacity, MaskAllocator, ThetaSpaceStep, powerpropagate, select_task
from cl_powerprop.sparsity import allocator as allocator_module
from cl_powerprop.sparsity.scored_mask import ScoredMask

from ..devices import device
from .networks import bits, make_batch, make_network, power
from .recipes import RECIPES, SCORED, Recipe

pytestmark = pytest.mark.cuda

TASKS, STEPS = 4, 3
ALPHAS = (1.0, 2.0, 2.5)

NETWORKS = (
    *("linear", "conv1d", "conv2d", "conv3d", "conv_transpose2d", "batch_norm", "layer_norm"),
    *("lstm", "transformer"),
)
# The package's own networks and their parts; they are slower, so they are tested with fewer recipes.
BLOCKS = (
    *("gru", "lstm_projected", "gru_cell", "attention", "group_norm", "residual", "preactivation", "lenet5"),
    *(f"{name}_{norm}" for name in ("convnet", "resnet18") for norm in NORMS),
)


def prepare(kind: str, alpha: float, unmasked: str, seed: int = 0) -> tuple[nn.Module, MaskAllocator]:
    network = powerpropagate(make_network(kind, seed), alpha)
    return network, MaskAllocator(network, unmasked)


def random_masks(allocator: MaskAllocator, seed: int, share: float = 0.35) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    draws = {name: torch.rand(w.owner.shape, generator=source) for name, w in allocator.weights.items()}
    return {name: draw.to(device()) < share for name, draw in draws.items()}


def train(
    network: nn.Module, allocator: MaskAllocator, optimizer: torch.optim.Optimizer, recipe: Recipe, kind: str, seed: int
) -> None:
    network.train()
    for step in range(STEPS):
        x, y = make_batch(kind, 100 * seed + step)
        optimizer.zero_grad(set_to_none=recipe.set_to_none)
        nn.functional.cross_entropy(network(x), y).backward()
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        optimizer.step()
        allocator.restore_frozen()


@torch.no_grad()
def logits(network: nn.Module, kind: str, task: int | None) -> Tensor:
    network.eval()
    select_task(network, task)
    return network(make_batch(kind, 10_000 + (task or 0), 20)[0])


@dataclass
class History:
    network: nn.Module
    allocator: MaskAllocator
    masks: list[dict[str, Tensor]] = field(default_factory=list)
    phi: list[dict[str, Tensor]] = field(default_factory=list)  # after each task
    rows: list[list[LayerCapacity]] = field(default_factory=list)
    logits: list[list[Tensor]] = field(default_factory=list)  # logits[i][k]: of task k after task i
    used: list[float] = field(default_factory=list)


@functools.cache
def run(kind: str, recipe_name: str, alpha: float, unmasked: str) -> History:
    """Train each task, train it on through a mask that overlaps earlier ones, allocate it, and record everything."""
    recipe = {**RECIPES, **SCORED}[recipe_name]
    network, allocator = prepare(kind, alpha, unmasked)
    history = History(network, allocator)
    optimizer = recipe.optimizer(network)  # one for the whole sequence, so that its moments persist
    scored = {name: ScoredMask(allocator.phi(name), 0.35) for name in allocator.weights if recipe.scores}
    if scored:
        optimizer.add_param_group({"params": [each.scores for each in scored.values()], "weight_decay": 0.0})
    for task in range(TASKS):
        allocator.begin_task(generator(0, "test", task))
        for name, each in scored.items():
            each.draw(generator(0, name, task))
            allocator.weights[name].train_through(each)
        drawn = {name: each.scores.detach().clone() for name, each in scored.items()}
        train(network, allocator, optimizer, recipe, kind, 10 * task)
        assert not any(torch.equal(each.scores, drawn[name]) for name, each in scored.items())
        masks = {name: each.mask() for name, each in scored.items()} or random_masks(allocator, task)
        allocator.propose(masks)
        train(network, allocator, optimizer, recipe, kind, 10 * task + 5)
        history.rows.append(allocator.end_task())
        history.masks.append(masks)
        history.phi.append({name: allocator.phi(name).detach().clone() for name in allocator.layers})
        history.logits.append([logits(network, kind, earlier) for earlier in range(task + 1)])
        history.used.append(allocator.capacity_used)
    return history


contract = pytest.mark.parametrize(
    ("kind", "recipe", "alpha", "unmasked"),
    [
        (kind, recipe, ALPHAS[(row + column) % len(ALPHAS)], unmasked)  # each alpha with each of both
        for row, kind in enumerate(NETWORKS)
        for column, recipe in enumerate(RECIPES)
        for unmasked in ("frozen", "per_task")
    ]
    + [(kind, recipe, alpha, "frozen") for kind in NETWORKS for recipe in SCORED for alpha in (1.0, 2.0)]
    + [
        (kind, recipe, 2.0, unmasked)
        for kind in BLOCKS
        for recipe in ("sgd_nesterov_decay_clip", "adamw_theta_clip")
        for unmasked in ("frozen", "per_task")
    ],
    scope="module",  # the tests of one history come one after the other, in whatever process
)


@contract
def test_frozen_weights_keep_their_bits(kind: str, recipe: str, alpha: float, unmasked: str) -> None:
    history = run(kind, recipe, alpha, unmasked)
    for name in history.allocator.layers:
        held = torch.zeros_like(history.masks[0][name])
        for task in range(TASKS - 1):
            held = held | history.masks[task][name]
            now, later = history.phi[task][name], history.phi[task + 1][name]
            assert bits(now[held]) == bits(later[held])
            assert held.all() or not torch.equal(now[~held], later[~held])  # the rest was free to learn


@contract
def test_logits_of_every_task_keep_their_bits(kind: str, recipe: str, alpha: float, unmasked: str) -> None:
    history = run(kind, recipe, alpha, unmasked)
    for task in range(TASKS):
        at_its_end = history.logits[task][task]
        assert at_its_end.isfinite().all()
        for later in range(task + 1, TASKS):
            assert bits(history.logits[later][task]) == bits(at_its_end)
    assert not torch.allclose(history.logits[-1][0], logits(history.network, kind, None)[:20])


@contract
def test_capacity_rows_add_up(kind: str, recipe: str, alpha: float, unmasked: str) -> None:
    history = run(kind, recipe, alpha, unmasked)
    for name in history.allocator.layers:
        owner: dict[int, int] = {}  # weight -> task, by plain counting
        for task in range(TASKS):
            held = history.masks[task][name].flatten().nonzero().flatten().tolist()
            reused = [sum(owner.get(weight) == earlier for weight in held) for earlier in range(task)]
            new = [weight for weight in held if weight not in owner]
            owner.update(dict.fromkeys(new, task))
            (row,) = [row for row in history.rows[task] if row.layer == name]
            size = history.masks[task][name].numel()
            assert (row.task, row.kind, row.weights) == (task, "masked", size)
            assert (row.kept, row.newly_frozen, row.free) == (len(held), len(new), size - len(owner))
            assert row.reused_from == tuple(reused)
            assert row.reused == sum(reused)
    masked = [[row for row in rows if row.kind == "masked"] for rows in history.rows]
    for rows, used in zip(masked, history.used, strict=True):
        assert used == pytest.approx(1.0 - sum(row.free for row in rows) / sum(row.weights for row in rows))
    assert history.used == sorted(history.used)
    assert history.used[0] < history.used[-1] < 1.0
    assert history.allocator.history == [row for rows in history.rows for row in rows]
    bytes_a_task = sum(-(-mask.numel() // 8) for mask in history.masks[0].values())
    assert history.allocator.mask_bits == TASKS * bytes_a_task * 8


@contract
def test_a_loaded_model_equals_the_saved_one(kind: str, recipe: str, alpha: float, unmasked: str) -> None:
    history = run(kind, recipe, alpha, unmasked)
    fresh, allocator = prepare(kind, alpha, unmasked, seed=77)
    fresh.load_state_dict({name: value.clone() for name, value in history.network.state_dict().items()})
    assert allocator.tasks == TASKS
    assert allocator.capacity_used == history.used[-1]
    for name, weight in allocator.weights.items():
        assert torch.equal(weight.owner, history.allocator.weights[name].owner)
    for task in range(TASKS):
        assert bits(logits(fresh, kind, task)) == bits(history.logits[-1][task])
        for name, weight in allocator.weights.items():
            assert torch.equal(weight.mask_of(task), history.masks[task][name])


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("alpha", [1.0, 2.0, 2.5])
def test_a_task_computes_with_theta_times_its_mask_alone(kind: str, alpha: float) -> None:
    """An ordinary network into which the masked weights are copied computes the same logits."""
    history = run(kind, "sgd_momentum", alpha, "frozen")
    for task in range(TASKS):
        plain = make_network(kind).eval()
        state = {}
        for name, value in history.network.state_dict().items():
            key = name.replace("parametrizations.", "").removesuffix(".original")
            if name.endswith(".original"):
                state[key] = value
            elif "parametrizations" not in name:
                state[name] = value
        for name, mask in history.masks[task].items():
            theta = power(history.phi[-1][name], alpha).float()
            key = name if name in state else f"{name}.weight"
            assert key in state
            state[key] = torch.where(mask, theta, 0.0)
        # The stored values of statistics are those of this task, not the running ones.
        for name, value in history.network.state_dict().items():
            if name.endswith(".0.values"):
                state[name.replace("parametrizations.", "").removesuffix(".0.values")] = value[task]
        plain.load_state_dict(state)
        with torch.no_grad():
            expected = plain(make_batch(kind, 10_000 + task, 20)[0])
        torch.testing.assert_close(history.logits[-1][task], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", ["sgd_momentum", "sgd_nesterov_decay_clip", "adamw_phi_zero_grads", "adam_theta"])
def test_masking_gradients_alone_does_not_keep_frozen_weights(recipe: str) -> None:
    """Control: without `restore_frozen`, the same optimizers do move frozen weights."""
    chosen = RECIPES[recipe]
    network, allocator = prepare("linear", 2.0, "frozen")
    optimizer = chosen.make(network.parameters())
    if chosen.theta_space:
        ThetaSpaceStep(optimizer, network)
    allocator.begin_task(generator(0, "test", 0))
    train(network, allocator, optimizer, chosen, "linear", 0)
    masks = random_masks(allocator, 0)
    allocator.propose(masks)
    allocator.end_task()
    before = allocator.phi("0").detach().clone()
    allocator.begin_task(generator(0, "test", 1))
    x, y = make_batch("linear", 1)
    optimizer.zero_grad()
    nn.functional.cross_entropy(network(x), y).backward()
    gradient = allocator.phi("0").grad
    assert gradient is not None
    assert gradient[masks["0"]].abs().sum() == 0.0
    assert gradient[~masks["0"]].abs().sum() > 0.0
    optimizer.step()
    assert bits(allocator.phi("0")[masks["0"]]) != bits(before[masks["0"]])
    allocator.restore_frozen()
    assert bits(allocator.phi("0")[masks["0"]]) == bits(before[masks["0"]])
    assert not torch.equal(allocator.phi("0")[~masks["0"]], before[~masks["0"]])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("unmasked", ["frozen", "per_task"])
@pytest.mark.parametrize("alpha", [1.0, 2.0, 2.5])
def test_a_diverging_task_does_not_change_earlier_tasks(kind: str, unmasked: str, alpha: float, value: float) -> None:
    recipe = RECIPES["sgd_momentum"]
    network, allocator = prepare(kind, alpha, unmasked)
    optimizer = recipe.make(network.parameters())
    allocator.begin_task(generator(0, "test", 0))
    train(network, allocator, optimizer, recipe, kind, 0)
    allocator.propose(random_masks(allocator, 0))
    allocator.end_task()
    expected = bits(logits(network, kind, 0))
    allocator.begin_task(generator(0, "test", 1))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.fill_(value)
    allocator.restore_frozen()
    train(network, allocator, optimizer, recipe, kind, 1)
    assert bits(logits(network, kind, 0)) == expected
    assert not logits(network, kind, None).isfinite().all()
    allocator.propose(random_masks(allocator, 1))
    allocator.end_task()
    assert bits(logits(network, kind, 0)) == expected
    assert not logits(network, kind, 1).isfinite().all()


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_one_task_that_takes_all_weights(alpha: float) -> None:
    network, allocator = prepare("conv2d", alpha, "frozen")
    allocator.begin_task(generator(0, "test", 0))
    recipe = RECIPES["sgd_momentum"]
    train(network, allocator, recipe.make(network.parameters()), recipe, "conv2d", 0)
    as_trained = bits(logits(network, "conv2d", None))
    rows = allocator.end_task()
    assert all((row.kept, row.newly_frozen, row.free) == (row.weights, row.weights, 0) for row in rows)
    assert allocator.capacity_used == 1.0
    assert bits(logits(network, "conv2d", 0)) == as_trained


def test_three_hundred_tasks() -> None:
    tasks = 300
    torch.manual_seed(0)
    network = powerpropagate(nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 20)), 2.0)
    allocator = MaskAllocator(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    x = torch.randn(8, 20)
    answers = []

    def some_old_and_one_new(name: str, task: int) -> Tensor:
        frozen = allocator.weights[name].frozen
        draw = torch.rand(frozen.shape, generator=generator(1, name, task))
        mask = frozen & (draw < 0.3)
        mask.view(-1)[(draw + 2.0 * frozen).argmin()] = True
        return mask

    for task in range(tasks):
        allocator.begin_task(generator(0, "test", task))
        optimizer.zero_grad()
        (network(x) - 2.0 * math.sin(task)).square().mean().backward()
        optimizer.step()
        allocator.restore_frozen()
        allocator.propose({name: some_old_and_one_new(name, task) for name in allocator.weights})
        rows = allocator.end_task()
        select_task(network, task)
        answers.append(bits(network(x)))
    assert len({tuple(answer) for answer in answers}) > 250
    assert [row.newly_frozen for row in allocator.history if row.kind == "masked"] == [1] * 2 * tasks
    for task in range(tasks):
        select_task(network, task)
        assert bits(network(x)) == answers[task]
    assert allocator.mask_bits == tasks * 1200  # one bit for each of 2 x 600 weights
    assert len(rows[0].reused_from) == tasks - 1
    assert sum(rows[0].reused_from) == rows[0].reused
    fresh = powerpropagate(nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 20)), 2.0)
    MaskAllocator(fresh)
    fresh.load_state_dict(network.state_dict())
    for task in (0, 127, 128, 255, 256, 299):  # past what a signed or unsigned byte can hold
        select_task(fresh, task)
        assert bits(fresh(x)) == answers[task]


def test_free_weights_are_reinitialised() -> None:
    _, allocator = prepare("linear", 2.0, "frozen")
    start = allocator.phi("0").detach().clone()
    allocator.begin_task(generator(0, "test", 0))
    assert bits(allocator.phi("0")) == bits(start)  # not for the first task
    masks = random_masks(allocator, 0)
    allocator.propose(masks)
    with torch.no_grad():
        allocator.phi("0").fill_(0.0)
        allocator.phi("0")[masks["0"]] = start[masks["0"]]
    allocator.end_task()
    allocator.begin_task(generator(0, "test", 1))
    free = ~masks["0"]
    drawn = allocator.theta("0")[free]
    assert (drawn != 0.0).all()
    assert drawn.unique().numel() == drawn.numel()
    assert drawn.abs().max() <= 6**-0.5  # torch's default: +-1/sqrt(fan_in)
    assert bits(allocator.phi("0")[masks["0"]]) == bits(start[masks["0"]])
    first = bits(allocator.phi("0"))
    allocator.begin_task(generator(0, "test", 1))
    assert bits(allocator.phi("0")) == first
    allocator.begin_task(generator(0, "test", 2))
    assert bits(allocator.phi("0")) != first


def test_training_through_a_mask_moves_its_new_weights_only() -> None:
    recipe = RECIPES["adamw_phi_zero_grads"]
    network, allocator = prepare("linear", 2.0, "frozen")
    optimizer = RECIPES["sgd_momentum"].make(network.parameters())
    allocator.begin_task(generator(0, "test", 0))
    first = random_masks(allocator, 0)
    allocator.propose(first)
    train(network, allocator, optimizer, recipe, "linear", 0)
    allocator.end_task()
    allocator.begin_task(generator(0, "test", 1))
    second = random_masks(allocator, 1)
    allocator.propose(second)
    optimizer.zero_grad()
    network(make_batch("linear", 3)[0]).square().sum().backward()
    for name in allocator.layers:
        gradient = allocator.phi(name).grad
        assert gradient is not None
        assert not gradient[~second[name] | first[name]].any()
        assert gradient[second[name] & ~first[name]].any()
    allocator.see_everything()
    optimizer.zero_grad()
    network(make_batch("linear", 3)[0]).square().sum().backward()
    assert allocator.phi("2").grad[~second["2"] & ~first["2"]].any()
    assert not allocator.phi("2").grad[first["2"]].any()


@pytest.mark.parametrize("unmasked", ["frozen", "per_task"])
def test_biases_are_frozen_or_per_task(unmasked: str) -> None:
    history = run("linear", "sgd_momentum", 2.0, unmasked)
    dense = [[row.layer for row in rows if row.kind == "dense"] for rows in history.rows]
    if unmasked == "frozen":
        assert dense == [["0.bias", "2.bias"], [], [], []]
        assert not history.network[0].bias.requires_grad
        return
    assert dense == [["0.bias", "2.bias"]] * TASKS
    biases = []
    for task in range(TASKS):
        select_task(history.network, task)
        biases.append(tuple(bits(history.network[0].bias)))
    assert len(set(biases)) == TASKS


@pytest.mark.parametrize("kind", NETWORKS)
def test_double_precision_and_back(kind: str) -> None:
    history = run(kind, "sgd_momentum", 2.0, "per_task")
    network, allocator = prepare(kind, 2.0, "per_task")
    network.load_state_dict(history.network.state_dict())
    network.double()
    for task in range(TASKS):
        select_task(network, task)
        with torch.no_grad():
            answer = network.eval()(make_batch(kind, 10_000 + task, 20)[0].double())
        assert answer.dtype == torch.float64
        torch.testing.assert_close(answer.float(), history.logits[-1][task], rtol=1e-4, atol=1e-5)
        for name, weight in allocator.weights.items():
            assert torch.equal(weight.mask_of(task), history.masks[task][name])
    network.float()
    for task in range(TASKS):
        assert bits(logits(network, kind, task)) == bits(history.logits[-1][task])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_training_in_another_precision(dtype: torch.dtype) -> None:
    network, allocator = prepare("linear", 2.0, "frozen")
    x, y = make_batch("linear", 0)
    network.to(dtype)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    answers = []
    for task in range(3):
        allocator.begin_task(generator(0, "test", task))
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x.to(dtype)), y).backward()
            optimizer.step()
            allocator.restore_frozen()
        allocator.propose(random_masks(allocator, task))
        allocator.end_task()
        select_task(network, task)
        answers.append(network(x.to(dtype)).tolist())
    for task, answer in enumerate(answers):
        select_task(network, task)
        assert network(x.to(dtype)).tolist() == answer


def test_mixed_precision_training() -> None:
    network, allocator = prepare("conv2d", 2.0, "frozen")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    answers = []
    for task in range(3):
        allocator.begin_task(generator(0, "test", task))
        for step in range(3):
            x, y = make_batch("conv2d", step)
            optimizer.zero_grad()
            with torch.autocast(device().type, dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(network(x), y)
            loss.backward()
            optimizer.step()
            allocator.restore_frozen()
        allocator.propose(random_masks(allocator, task))
        allocator.end_task()
        answers.append(bits(logits(network, "conv2d", task)))
    assert [bits(logits(network, "conv2d", task)) for task in range(3)] == answers


def test_channels_last() -> None:
    network, allocator = prepare("conv2d", 2.0, "frozen")
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    recipe, answers = RECIPES["sgd_momentum"], []
    for task in range(3):
        allocator.begin_task(generator(0, "test", task))
        train(network, allocator, optimizer, recipe, "conv2d", task)
        allocator.propose(random_masks(allocator, task))
        allocator.end_task()
        answers.append(bits(logits(network, "conv2d", task)))
    assert [bits(logits(network, "conv2d", task)) for task in range(3)] == answers


DEVICES = ["meta", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


@pytest.mark.parametrize("device", DEVICES)
def test_masks_move_with_the_model(device: str) -> None:
    network, _ = prepare("batch_norm", 2.0, "per_task")
    network.load_state_dict(run("batch_norm", "sgd_momentum", 2.0, "per_task").network.state_dict())
    network.to(device)
    for task in (*range(TASKS), None):
        select_task(network, task)
        x = make_batch("batch_norm", 0)[0].to(device)
        assert network(x).device.type == device
        tensors = [*network.parameters(), *network.buffers()]
        assert {tensor.device.type for tensor in tensors} == {device}


def test_an_evaluation_in_between_does_not_change_training() -> None:
    network, allocator = prepare("linear", 2.0, "frozen")
    for task in range(2):
        allocator.begin_task(generator(0, "test", task))
        masks = random_masks(allocator, task)
        allocator.propose(masks)
        if task:
            logits(network, "linear", 0)  # leaves the network selected as task 0
        allocator.end_task()
        for name, weight in allocator.weights.items():
            assert torch.equal(weight.mask_of(task), masks[name])


def test_parameters_with_zero_gradients_are_frozen_too() -> None:
    """A layer that is dead in task 0 has zero gradients, but its bias is part of the function of task 0."""
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        network[0].weight.abs_()
        network[0].bias.fill_(0.01)
    allocator = MaskAllocator(network, "frozen")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    probe = torch.rand(10, 4)
    answers = []
    for task, sign in enumerate((-1.0, 1.0)):
        allocator.begin_task(generator(0, "test", task))
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(sign * (1.0 + probe)), torch.zeros(10, dtype=torch.long)).backward()
            optimizer.step()
            allocator.restore_frozen()
        if task == 0:
            allocator.propose({name: torch.ones_like(w.frozen) for name, w in allocator.weights.items()})
        allocator.end_task()
        select_task(network, 0)
        answers.append(bits(network(probe)))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("unmasked", ["frozen", "per_task"])
def test_training_goes_on_after_loading(unmasked: str) -> None:
    history = run("linear", "sgd_momentum", 2.0, unmasked)
    network, allocator = prepare("linear", 2.0, unmasked, seed=5)
    network.load_state_dict(history.network.state_dict())
    recipe = RECIPES["sgd_momentum"]
    optimizer = recipe.make(network.parameters())
    allocator.begin_task(generator(0, "test", TASKS))
    train(network, allocator, optimizer, recipe, "linear", 99)
    allocator.propose(random_masks(allocator, 99))
    allocator.end_task()
    for task in range(TASKS):
        assert bits(logits(network, "linear", task)) == bits(history.logits[-1][task])


def test_bad_input() -> None:
    with pytest.raises(ConfigurationError, match="unmasked"):
        MaskAllocator(nn.Linear(2, 2), "sometimes")
    with pytest.raises(ConfigurationError, match="no Linear or Conv"):
        MaskAllocator(nn.BatchNorm1d(2))
    with pytest.raises(ConfigurationError, match="no Linear or Conv"):
        MaskAllocator(nn.Sequential(nn.ModuleList([nn.Linear(2, 2)])), exclude=(nn.ModuleList,))
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    with pytest.raises(ConfigurationError, match="share one weight"):
        MaskAllocator(tied)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", ["batch_norm", "residual", "convnet_batch", "resnet18_batch"])
def test_shared_batch_statistics_would_change_predictions(
    kind: str, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with everything else frozen, shared running means and variances change the logits of a task."""
    if shared:
        monkeypatch.setattr(allocator_module, "_NormBase", ())
    network, allocator = prepare(kind, 2.0, "per_task")
    recipe = RECIPES["sgd_momentum"]
    optimizer = recipe.make(network.parameters())
    before = None
    for task in range(2):
        allocator.begin_task(generator(0, "test", task))
        train(network, allocator, optimizer, recipe, kind, task)
        allocator.propose(random_masks(allocator, task))
        allocator.end_task()
        if before is None:
            before = logits(network, kind, 0)
    assert torch.equal(logits(network, kind, 0), before) is not shared
