"""EfficientPackNet's search against brute force on an ordinary network."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import MTSimpleMLP
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.plugins import EPNPlugin, validation
from cl_powerprop.plugins.search import SEARCH_BY_NAME
from cl_powerprop.sparsity import ThetaSpaceStep, powerpropagate

from ..devices import device
from .benchmarks import OPTIMIZERS, dense_net, make_benchmark, make_strategy, make_tensors

pytestmark = pytest.mark.cuda

LAYERS = ("1", "3")  # of `dense_net`
OUTPUT = "3"
GRID = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
VALIDATION = 40  # samples


class BeforeTheSearch(SupervisedPlugin):
    """Comes before EPN: keeps ``theta`` and the biases just before each search, and sums the saliencies itself.

    Gradients are those of an ordinary network with these weights, not of the network in training.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch
        self.theta: list[dict[str, Tensor]] = []
        self.biases: list[dict[str, Tensor]] = []
        self.saliency: list[dict[str, Tensor]] = []

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        self.saliency.append({name: torch.zeros_like(strategy.model[int(name)].weight) for name in LAYERS})

    def after_backward(self, strategy: Any, **_: Any) -> None:
        if strategy.clock.train_exp_epochs != self.epoch:
            return
        theta = {name: strategy.model[int(name)].weight.detach().clone().requires_grad_() for name in LAYERS}
        biases = {name: strategy.model[int(name)].bias.detach() for name in LAYERS}
        loss = nn.functional.cross_entropy(forward(strategy.mb_x, theta, biases), strategy.mb_y)
        for name, gradient in zip(LAYERS, torch.autograd.grad(loss, list(theta.values())), strict=True):
            self.saliency[-1][name] += (theta[name].detach() * gradient) ** 2

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        if strategy.clock.train_exp_epochs == self.epoch:
            self.theta.append({name: strategy.model[int(name)].weight.detach().clone() for name in LAYERS})
            self.biases.append({name: strategy.model[int(name)].bias.detach().clone() for name in LAYERS})


def forward(x: Tensor, weights: dict[str, Tensor], biases: dict[str, Tensor]) -> Tensor:
    hidden = (x.flatten(1) @ weights["1"].T + biases["1"]).relu()
    return hidden @ weights["3"].T + biases["3"]


def ranks(scores: list[float]) -> list[int]:
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    result = [0] * len(scores)
    for position, index in enumerate(order):
        result[index] = position
    return result


def brute_force_masks(scores: dict[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    masks = {}
    for name, score in scores.items():
        keep = 1.0 - (sparsity / 2 if name == OUTPUT else sparsity)
        mask = [position < round(keep * score.numel()) for position in ranks(score.flatten().tolist())]
        masks[name] = torch.tensor(mask, device=score.device).view(score.shape)
    return masks


def brute_force_hits(task: int, scores: dict[str, Tensor], before: BeforeTheSearch, sparsity: float) -> Tensor:
    """Return which validation samples an ordinary network with the masked weights predicts right."""
    x, y = (each.to(device()) for each in make_tensors(task, "valid", VALIDATION))
    masks, theta = brute_force_masks(scores, sparsity), before.theta[task]
    masked = {name: torch.where(masks[name], theta[name], 0.0) for name in LAYERS}
    return forward(x, masked, before.biases[task]).argmax(1) == y


def brute_force(
    task: int, scores: dict[str, Tensor], before: BeforeTheSearch, gamma: float
) -> tuple[float, float, float, dict[str, Tensor]]:
    """Return (sparsity, its accuracy, accuracy with all weights, masks) by trying the whole grid."""
    dense = brute_force_hits(task, scores, before, 0.0).double().mean().item()
    for sparsity in GRID:
        accuracy = brute_force_hits(task, scores, before, sparsity).double().mean().item()
        if accuracy >= gamma * dense:
            return sparsity, accuracy, dense, brute_force_masks(scores, sparsity)
    return 0.0, dense, dense, brute_force_masks(scores, 0.0)


def learn(
    tasks: int,
    epochs: int = 3,
    alpha: float = 2.0,
    optimizer: str = "sgd_momentum",
    eval_mb_size: int = VALIDATION,
    **options: Any,
) -> tuple[EPNPlugin, BeforeTheSearch]:
    network, benchmark = powerpropagate(dense_net(), alpha), make_benchmark(tasks)
    options.setdefault("sparsities", GRID)
    plugin = EPNPlugin(validation=benchmark.streams["valid"], **options)
    before = BeforeTheSearch(epochs - options.get("retrain_epochs", 0) - 1)
    chosen = OPTIMIZERS[optimizer](network.parameters())
    if optimizer == "adamw" and alpha != 1.0:
        ThetaSpaceStep(chosen, network)
    strategy = make_strategy(network, [before, plugin], chosen, epochs=epochs)
    strategy.eval_mb_size = eval_mb_size
    for experience in benchmark.train_stream:
        strategy.train(experience)
    return plugin, before


@pytest.mark.parametrize("gamma", [0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("retrain_epochs", [0, 1])
def test_takes_the_first_sparsity_that_reaches_the_target(gamma: float, alpha: float, retrain_epochs: int) -> None:
    plugin, before = learn(3, epochs=4, alpha=alpha, gamma=gamma, retrain_epochs=retrain_epochs, search="grid")
    for task, found in enumerate(plugin.searches):
        scores = {name: theta.abs() for name, theta in before.theta[task].items()}
        sparsity, accuracy, dense, masks = brute_force(task, scores, before, gamma)
        assert (found.task, found.sparsity, found.exhausted) == (task, sparsity, sparsity == 0.0)
        assert (found.accuracy, found.dense_accuracy) == pytest.approx((accuracy, dense))
        assert found.evaluations == (len(GRID) if found.exhausted else GRID.index(sparsity) + 1)
        for name in LAYERS:
            assert torch.equal(plugin.allocator.weights[name].mask_of(task), masks[name])


@pytest.mark.parametrize("gamma", [0.8, 0.95])
@pytest.mark.parametrize("train_through", ["all", "free"])
def test_a_later_round_prunes_the_mask_of_the_round_before(gamma: float, train_through: Any) -> None:
    network, benchmark = powerpropagate(dense_net(), 2.0), make_benchmark(3)
    plugin = EPNPlugin(
        gamma,
        retrain_epochs=3,
        sparsities=GRID,
        search="grid",
        rounds=3,
        train_through=train_through,
        validation=benchmark.streams["valid"],
    )
    rounds = [BeforeTheSearch(epoch) for epoch in (1, 2, 3)]
    strategy = make_strategy(network, [*rounds, plugin], OPTIMIZERS["sgd_momentum"](network.parameters()), epochs=5)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    pruned = 0
    for task, found in enumerate(plugin.searches):
        chosen, reached, kept = 0.0, math.nan, []
        for before in rounds:
            theta = before.theta[task]  # 0 outside the mask
            scores = {name: value.abs() for name, value in theta.items()}
            sparsity, reached, _, masks = brute_force(task, scores, before, gamma)
            chosen = sparsity or chosen
            kept.append({name: mask & (theta[name] != 0.0) for name, mask in masks.items()})
        pruned += sum(int((first[name] & ~last[name]).sum()) for first, last in pairwise(kept) for name in LAYERS)
        assert all(not (last[name] & ~first[name]).any() for first, last in pairwise(kept) for name in LAYERS)
        assert all(torch.equal(plugin.allocator.weights[name].mask_of(task), kept[-1][name]) for name in LAYERS)
        assert (found.task, found.sparsity, found.accuracy) == (task, chosen, pytest.approx(reached))
        first = rounds[0].theta[task]
        whole = brute_force_hits(task, {name: value.abs() for name, value in first.items()}, rounds[0], 0.0)
        assert found.dense_accuracy == pytest.approx(whole.double().mean().item())
    assert pruned


@pytest.mark.parametrize("search", SEARCH_BY_NAME)
@pytest.mark.parametrize("batch", [4, VALIDATION])
@pytest.mark.parametrize("gamma", [0.7, 0.95])
def test_every_search_in_a_run(search: str, batch: int, gamma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask's evaluation ends with the batch that decides it, but for the mask that is taken: its accuracy is kept."""
    evaluated = 0

    def count(model: nn.Module, x: Tensor, task: Tensor) -> Tensor:
        nonlocal evaluated
        evaluated += len(x)
        return model(x)

    monkeypatch.setattr(validation, "avalanche_forward", count)
    plugin, before = learn(4, gamma=gamma, search=search, eval_mb_size=batch)
    last, expected = None, 0
    for task, found in enumerate(plugin.searches):
        scores = {name: theta.abs() for name, theta in before.theta[task].items()}
        hits = [brute_force_hits(task, scores, before, sparsity) for sparsity in GRID]
        dense = brute_force_hits(task, scores, before, 0.0).sum().item() / VALIDATION
        measured: list[int] = []

        def holds(index: int, hits=hits, target=gamma * dense, measured=measured) -> bool:
            measured.append(index)
            return bool(hits[index].sum().item() / VALIDATION >= target)

        index = SEARCH_BY_NAME[search](len(GRID), holds, last)
        sparsity, accuracy = (0.0, dense) if index is None else (GRID[index], hits[index].sum().item() / VALIDATION)
        assert (found.sparsity, found.accuracy, found.dense_accuracy) == (sparsity, accuracy, dense)
        assert (found.evaluations, found.exhausted) == (len(measured), index is None)
        for name, mask in brute_force_masks(scores, sparsity).items():
            assert torch.equal(plugin.allocator.weights[name].mask_of(task), mask)
        last = len(GRID) - 1 if index is None else index
        expected += VALIDATION + sum(
            VALIDATION if tried == index else samples_until_certain(hits[tried], gamma * dense, batch)
            for tried in measured
        )
    assert evaluated == expected


def samples_until_certain(hits: Tensor, target: float, batch: int) -> int:
    """Count the samples, in whole batches, after which it is known whether the target is reached."""
    for end in [*range(batch, VALIDATION, batch), VALIDATION]:
        surely, missed = hits[:end].sum().item(), (~hits[:end]).sum().item()
        if surely / VALIDATION >= target or (VALIDATION - missed) / VALIDATION < target:
            break
    return end


def brute_force_outputs(task: int, before: BeforeTheSearch, masks: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return logits and labels of the validation samples."""
    x, y = (each.to(device()) for each in make_tensors(task, "valid", VALIDATION))
    masked = {name: torch.where(masks[name], before.theta[task][name], 0.0) for name in LAYERS}
    return forward(x, masked, before.biases[task]), y


@pytest.mark.parametrize("gamma", [0.6, 0.9, 0.99])
@pytest.mark.parametrize("slack", [0.0, 1.5])
@pytest.mark.parametrize("search", ["grid", "gallop"])
def test_judged_by_loss_a_mask_holds_a_share_of_the_geometric_mean_likelihood(
    gamma: float, slack: float, search: str
) -> None:
    plugin, before = learn(3, gamma=gamma, slack=slack, search=search, judge="loss", eval_mb_size=7)
    for task, found in enumerate(plugin.searches):
        scores = {name: theta.abs() for name, theta in before.theta[task].items()}
        losses, accuracies = [], []
        for sparsity in (0.0, *GRID):
            outputs, labels = brute_force_outputs(task, before, brute_force_masks(scores, sparsity))
            losses.append(nn.functional.cross_entropy(outputs.double(), labels, reduction="none"))
            accuracies.append((outputs.argmax(1) == labels).double().mean().item())
        likelihoods = [math.exp(-each.mean()) for each in losses]
        margin = math.exp(-slack * losses[0].std(correction=0) / math.sqrt(VALIDATION))
        holds = [each >= gamma * margin * likelihoods[0] for each in likelihoods[1:]]
        index = -1 if found.exhausted else GRID.index(found.sparsity)
        if search == "grid":
            assert index == next((each for each, held in enumerate(holds) if held), -1)
        assert index == -1 or holds[index]
        assert (found.loss, found.dense_loss) == pytest.approx(
            (losses[index + 1].mean().item(), losses[0].mean().item())
        )
        assert (found.accuracy, found.dense_accuracy) == pytest.approx((accuracies[index + 1], accuracies[0]))


@pytest.mark.parametrize("slack", [0.5, 2.0])
def test_slack_lowers_the_target_by_standard_errors_of_the_accuracy(slack: float) -> None:
    plugin, before = learn(3, gamma=1.0, slack=slack, search="grid")
    for task, found in enumerate(plugin.searches):
        scores = {name: theta.abs() for name, theta in before.theta[task].items()}
        hits = [brute_force_hits(task, scores, before, sparsity).double().mean().item() for sparsity in (0.0, *GRID)]
        target = hits[0] - slack * math.sqrt(hits[0] * (1.0 - hits[0]) / VALIDATION)
        holding = [sparsity for sparsity, share in zip(GRID, hits[1:], strict=True) if share >= target]
        assert found.sparsity == (holding[0] if holding else 0.0)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("train_through", ["all", "free"])
@pytest.mark.parametrize("gamma", [0.6, 1.0])
def test_a_task_newly_takes_no_more_than_it_may(scope: Any, train_through: Any, gamma: float) -> None:
    plugin, before = learn(3, gamma=gamma, max_new=0.1, scope=scope, train_through=train_through, epochs=2)
    weights = plugin.allocator.weights
    for task in range(3):
        taken = {name: weight.owner == task for name, weight in weights.items()}
        before_it = {
            name: int(((weight.owner == -1) | (weight.owner >= task)).sum()) for name, weight in weights.items()
        }
        most = {
            name: round(0.1 * (sum(before_it.values()) if scope == "global" else free))
            for name, free in before_it.items()
        }
        if scope == "global":
            assert 0 < sum(int(new.sum()) for new in taken.values()) <= most[OUTPUT]
        for name, new in taken.items():
            assert new.sum() <= most[name]
            free = (weights[name].owner == -1) | (weights[name].owner > task) | new
            sizes = before.theta[task][name].abs()
            assert not new.any() or not (free & ~new).any() or sizes[new].min() >= sizes[free & ~new].max()
            frozen = (weights[name].owner >= 0) & (weights[name].owner < task)
            if plugin.searches[task].exhausted and train_through == "all":
                assert weights[name].mask_of(task)[frozen].all()


@pytest.mark.parametrize("bonus", [0.5, 4.0])
@pytest.mark.parametrize("train_through", ["all", "scored"])
def test_a_bonus_ranks_earlier_weights_as_if_they_were_larger(bonus: float, train_through: Any) -> None:
    plugin, before = learn(3, gamma=0.8, search="grid", reuse_bonus=bonus, train_through=train_through, score_lr=20.0)
    weights, moved = plugin.allocator.weights, 0
    for task in range(3):
        theta = before.theta[task]  # 0 where it is hidden
        factor = {
            name: torch.where((owner := weights[name].owner).ge(0) & owner.lt(task), bonus, 1.0) for name in LAYERS
        }
        scores = {name: factor[name] * theta[name].abs() for name in LAYERS}
        sparsity, _, _, masks = brute_force(task, scores, before, 0.8)
        assert plugin.searches[task].sparsity == sparsity
        for name in LAYERS:
            assert torch.equal(weights[name].mask_of(task), masks[name] & (theta[name] != 0.0))
        plain = brute_force_masks({name: value.abs() for name, value in theta.items()}, sparsity)
        moved += sum(int((plain[name] ^ masks[name]).sum()) for name in LAYERS)
    assert moved


def test_the_brute_force_finds_several_sparsities() -> None:
    chosen = {
        found.sparsity for gamma in (0.5, 0.8, 0.95) for found in learn(3, gamma=gamma, search="grid")[0].searches
    }
    assert len(chosen) >= 3


@pytest.mark.parametrize("criterion", ["saliency", "both"])
@pytest.mark.parametrize(("optimizer", "alpha"), [("sgd_momentum", 1.0), ("sgd_nesterov_decay", 2.0), ("adamw", 2.0)])
@pytest.mark.parametrize("retrain_epochs", [0, 1])
def test_criterion(criterion: str, optimizer: str, alpha: float, retrain_epochs: int) -> None:
    plugin, before = learn(
        2,
        alpha=alpha,
        optimizer=optimizer,
        gamma=0.8,
        criterion=criterion,
        retrain_epochs=retrain_epochs,
        search="grid",
    )
    for task, found in enumerate(plugin.searches):
        scores = before.saliency[task]
        if criterion == "both":
            scores = {
                name: -torch.tensor(
                    [
                        one + two
                        for one, two in zip(
                            ranks(before.theta[task][name].abs().flatten().tolist()),
                            ranks(score.flatten().tolist()),
                            strict=True,
                        )
                    ]
                ).view(score.shape)
                for name, score in scores.items()
            }
        sparsity, _, _, masks = brute_force(task, scores, before, 0.8)
        assert found.sparsity == sparsity
        for name in LAYERS:
            assert torch.equal(plugin.allocator.weights[name].mask_of(task), masks[name])


def take_the_first(network: nn.Module, sparsity: float, **options: Any) -> EPNPlugin:
    """Run one task at rate 0 with a target so low that the first sparsity holds."""
    plugin = EPNPlugin(gamma=1e-9, sparsities=[sparsity], validation=0.5, **options)
    strategy = make_strategy(network, [plugin], torch.optim.SGD(network.parameters(), lr=0.0), epochs=1)
    strategy.train(make_benchmark(1).train_stream[0])
    assert plugin.searches[0].sparsity == sparsity
    return plugin


@pytest.mark.parametrize("sparsity", [0.9, 0.5, 0.33])
@pytest.mark.parametrize("criterion", ["magnitude", "saliency", "both"])
def test_ties_never_grow_a_mask(sparsity: float, criterion: str) -> None:
    network = dense_net()
    with torch.no_grad():
        for index in (1, 3):
            network[index].weight.fill_(0.25)
    plugin = take_the_first(network, sparsity, criterion=criterion)
    kept = {row.layer: row.kept for row in plugin.allocator.history if row.kind == "masked"}
    assert kept == {"1": round((1 - sparsity) * 192), "3": round((1 - sparsity / 2) * 36)}


@pytest.mark.parametrize("sparsity", [0.9, 0.5])
def test_global_ties_never_grow_the_masks(sparsity: float) -> None:
    network = dense_net()
    with torch.no_grad():
        for index in (1, 3):
            network[index].weight.fill_(0.25)
    plugin = take_the_first(network, sparsity, scope="global", output_layer=None)
    assert sum(row.kept for row in plugin.allocator.history if row.kind == "masked") == round((1 - sparsity) * 228)


def test_global_scope_ranks_all_layers_together() -> None:
    network = dense_net()
    weights = {name: network[int(name)].weight.detach().abs().flatten().tolist() for name in LAYERS}
    threshold = sorted(weights["1"] + weights["3"], reverse=True)[round(0.3 * 228) - 1]
    plugin = take_the_first(network, 0.7, scope="global", output_layer=None)
    for name in LAYERS:
        mask = plugin.allocator.weights[name].mask_of(0).flatten().tolist()
        assert mask == [value >= threshold for value in weights[name]]
    plugin = take_the_first(dense_net(), 0.7, scope="global")
    largest = sorted(weights["3"], reverse=True)[round(0.65 * 36) - 1]
    assert plugin.allocator.weights["3"].mask_of(0).flatten().tolist() == [v >= largest for v in weights["3"]]


def test_output_layer() -> None:
    def kept(plugin: EPNPlugin) -> dict[str, int]:
        return {row.layer: row.kept for row in plugin.allocator.history if row.kind == "masked"}

    assert kept(take_the_first(dense_net(), 0.8)) == {"1": round(0.2 * 192), "3": round(0.6 * 36)}
    assert kept(take_the_first(dense_net(), 0.8, output_layer=None)) == {"1": round(0.2 * 192), "3": round(0.2 * 36)}
    assert kept(take_the_first(dense_net(), 0.8, output_layer="1")) == {"1": round(0.6 * 192), "3": round(0.2 * 36)}
    heads = MTSimpleMLP(input_size=16, hidden_size=12).to(device())
    assert list(kept(take_the_first(heads, 0.8)).values()) == [round(0.2 * 192)]  # the heads are not masked


def test_an_unknown_output_layer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="output_layer"):
        take_the_first(dense_net(), 0.8, output_layer="no such layer")


def test_a_task_at_its_limit_does_not_say_that_capacity_is_exhausted() -> None:
    plugin = EPNPlugin(gamma=1.0, sparsities=[0.999], max_new=0.1)
    make_strategy(dense_net(), [plugin], epochs=8).train(make_benchmark(1).train_stream[0])
    assert plugin.searches[0].exhausted
    assert plugin.allocator.capacity_used == pytest.approx(0.1, abs=0.01)
    (told,) = plugin.messages
    assert told.startswith("task 0: no mask with 0.1 of the free weights holds 1 of the validation accuracy")


def test_capacity_exhausted() -> None:
    network, benchmark = dense_net(), make_benchmark(3)
    plugin = EPNPlugin(gamma=1.0, sparsities=[0.999])
    strategy = make_strategy(network, [plugin], epochs=8)
    strategy.train(benchmark.train_stream[0])
    assert plugin.searches[0].exhausted
    assert plugin.searches[0].sparsity == 0.0
    assert plugin.allocator.capacity_used == 1.0
    assert any("task 0" in message and "capacity exhausted" in message for message in plugin.messages)
    strategy.eval(benchmark.test_stream)
    before = [plugin.allocator.phi(name).detach().clone() for name in LAYERS]
    for experience in benchmark.train_stream[1:]:
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)
    assert plugin.allocator.tasks == 3
    assert all(torch.equal(plugin.allocator.phi(name), phi) for name, phi in zip(LAYERS, before, strict=True))
    for task in (1, 2):
        assert any(f"task {task}: no weight is free" in message for message in plugin.messages)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("criterion", ["magnitude", "both"])
def test_training_without_the_frozen_weights_gives_disjoint_masks(scope: str, criterion: str) -> None:
    plugin, _ = learn(
        3,
        gamma=1e-9,
        sparsities=[0.75],
        train_through="free",
        output_layer=None,
        scope=scope,
        criterion=criterion,
    )
    for name in LAYERS:
        masks = [plugin.allocator.weights[name].mask_of(task) for task in range(3)]
        assert not (masks[0] & masks[1]).any()
        assert not ((masks[0] | masks[1]) & masks[2]).any()
        if scope == "layer":
            assert [int(mask.sum()) for mask in masks] == [round(0.25 * masks[0].numel())] * 3
    rows = [row for row in plugin.allocator.history if row.kind == "masked"]
    assert sum(row.kept for row in rows) > 0
    assert all(row.reused == 0 for row in rows)


def test_hiding_frozen_weights_hides_them_in_training() -> None:
    class View(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.hidden: list[bool] = []

        def after_forward(self, strategy: Any, **_: Any) -> None:
            for name, weight in plugin.allocator.weights.items():
                self.hidden.append(not strategy.model[int(name)].weight[weight.frozen].any())

    benchmark, view = make_benchmark(2), View()
    plugin = EPNPlugin(gamma=1e-9, sparsities=[0.75], train_through="free")
    strategy = make_strategy(dense_net(), [plugin, view], epochs=2)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert len(view.hidden) == 2 * 2 * 2 * 4
    assert all(view.hidden)


def test_validation_samples_are_held_out_of_training() -> None:
    class Samples(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.trained: set[tuple[float, ...]] = set()

        def after_training_iteration(self, strategy: Any, **_: Any) -> None:
            self.trained |= {tuple(row) for row in strategy.mb_x.flatten(1).tolist()}

    results = []
    for seed in (0, 0, 1):
        samples, plugin = Samples(), EPNPlugin(validation=0.25, seed=seed)
        make_strategy(dense_net(), [plugin, samples], epochs=2).train(make_benchmark(1).train_stream[0])
        results.append(samples.trained)
        everything = {tuple(row) for row in make_tensors(0, "train", 64)[0].flatten(1).tolist()}
        assert samples.trained < everything
        assert len(samples.trained) == 48
    assert results[0] == results[1] != results[2]


def test_too_little_to_validate_on() -> None:
    with pytest.raises(ConfigurationError, match="leaves none"):
        make_strategy(dense_net(), [EPNPlugin(validation=0.001)]).train(make_benchmark(1).train_stream[0])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("gamma", value) for value in (0, 0.0, -0.5, 1.1, math.nan, math.inf)],
        *[("sparsities", value) for value in ([], [1.0], [0.5, -0.1], [0.5, math.nan], [1.5])],
        *[("validation", value) for value in (0.0, 1.0, -0.1, math.nan)],
        *[(option, "other") for option in ("search", "scope", "criterion", "train_through", "judge")],
        *[("slack", value) for value in (-0.5, math.nan, math.inf)],
        *[("max_new", value) for value in (0.0, -0.1, 1.1, math.nan)],
        *[("rounds", value) for value in (0, -1, 2)],
        *[("reuse_bonus", value) for value in (-0.1, math.nan, math.inf)],
    ],
)
def test_bad_input(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=option):
        EPNPlugin(**{option: value})


def test_the_bounds_themselves_are_allowed() -> None:
    assert EPNPlugin(gamma=1.0, sparsities=[0.0]).sparsities == [0.0]


def test_masks_by_learned_scores_are_the_top_of_what_the_task_trained_through() -> None:
    class Trained(SupervisedPlugin):
        """Comes before EPN: keeps the scores and the weights in use just before each search."""

        def __init__(self) -> None:
            super().__init__()
            self.scores: list[dict[str, Tensor]] = []
            self.used: list[dict[str, Tensor]] = []

        def after_training_epoch(self, strategy: Any, **_: Any) -> None:
            if strategy.clock.train_exp_epochs == strategy.train_epochs - 1:
                self.scores.append(
                    {name: layer.scores.detach().clone() for name, layer in plugin._scores.layers.items()}
                )
                self.used.append({name: strategy.model[int(name)].weight.detach() != 0.0 for name in LAYERS})

    plugin = EPNPlugin(gamma=0.9, sparsities=GRID, criterion="scores", score_density=0.5, score_lr=5.0)
    trained = Trained()
    strategy = make_strategy(dense_net(), [trained, plugin])
    for experience in make_benchmark(2, count=100).train_stream:
        strategy.train(experience)
    for task, search in enumerate(plugin.searches):
        assert search.sparsity >= 0.5
        assert not search.exhausted
        for name in LAYERS:
            mask, scores = plugin.allocator.weights[name].mask_of(task), trained.scores[task][name].abs()
            assert int(mask.sum()) == round((1.0 - search.sparsity) * mask.numel())
            assert scores[mask].min() > scores[~mask].max()
            assert not (mask & ~trained.used[task][name]).any()


def test_scored_frozen_weights_are_hidden_from_the_search_as_from_training() -> None:
    class Trained(SupervisedPlugin):  # type: ignore[misc]
        """Keeps which weights are in use, and which of them are frozen, before each search."""

        def __init__(self) -> None:
            super().__init__()
            self.used: list[dict[str, Tensor]] = []
            self.frozen: list[dict[str, Tensor]] = []

        def after_training_epoch(self, strategy: Any, **_: Any) -> None:
            if strategy.clock.train_exp_epochs == 1:
                self.used.append({name: strategy.model[int(name)].weight.detach() != 0.0 for name in LAYERS})
                self.frozen.append({name: weight.frozen for name, weight in plugin.allocator.weights.items()})

    plugin = EPNPlugin(gamma=0.9, sparsities=GRID, train_through="scored", score_lr=2000.0, retrain_epochs=1)
    trained = Trained()
    network = dense_net()
    strategy = make_strategy(network, [trained, plugin], epochs=3)
    benchmark = make_benchmark(3, count=200)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    weights = plugin.allocator.weights
    assert any(bool((~trained.used[2][name]).any()) for name in LAYERS), "some are hidden"
    for task in range(3):
        for name in LAYERS:
            used, frozen, mask = trained.used[task][name], trained.frozen[task][name], weights[name].mask_of(task)
            assert used[~frozen].all(), "free weights train"
            assert not (mask & ~used).any(), "what was hidden is in no mask"
    assert any(bool((weights[name].mask_of(2) & trained.frozen[2][name]).any()) for name in LAYERS), "some are reused"


@pytest.mark.parametrize("options", [{"criterion": "scores"}, {"train_through": "scored"}])
def test_without_a_free_weight_a_task_still_learns_which_weights_to_use(options: dict[str, Any]) -> None:
    plugin = EPNPlugin(gamma=1.0, sparsities=[0.0], score_density=1.0, **options)
    strategy = make_strategy(dense_net(), [plugin])
    for experience in make_benchmark(2, count=100).train_stream:
        strategy.train(experience)
    assert plugin.allocator.capacity_used == 1.0
    told = "no weight is free; only what is not masked, and which weights to use, can be learned"
    assert any(message == f"task 1: {told}" for message in plugin.messages)


def test_a_search_by_scores_that_finds_nothing_takes_no_weight_that_was_not_trained() -> None:
    options = {"criterion": "scores", "score_density": 0.3, "score_lr": 5.0, "max_new": 0.05, "gamma": 1.0}
    plugin = EPNPlugin(sparsities=GRID, **options)  # type: ignore[arg-type]
    strategy = make_strategy(dense_net(), [plugin])
    for experience in make_benchmark(3, count=100).train_stream:
        strategy.train(experience)
    assert any(search.exhausted for search in plugin.searches)
    assert not any("capacity exhausted" in message for message in plugin.messages)
    for task, search in enumerate(plugin.searches):
        assert search.sparsity >= 0.7
        for weight in plugin.allocator.weights.values():
            mask = weight.mask_of(task)
            assert int(mask.sum()) <= round(0.3 * mask.numel())
