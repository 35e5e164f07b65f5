"""Replay, DER++, A-GEM and GEM: what is kept, and what it does in a step, against the formulas of the papers."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import cross_entropy

from cl_powerprop.composition import compose
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.plugins.gem import _shares
from cl_powerprop.plugins.memory import Memory
from cl_powerprop.training.benchmark import TensorSamples

from .learners import Look, flat, gradients, look_after, look_before, make_parts, train

HEADS = pytest.mark.parametrize("heads", ["shared", "per_task"])


def numbered(*sizes: int) -> list[Any]:
    """Tasks whose images are numbers that no two samples share."""
    return [
        TensorSamples(1000.0 * task + torch.arange(size).view(-1, 1, 1, 1), torch.full((size,), task))
        for task, size in enumerate(sizes)
    ]


def pictures(images: Tensor) -> set[tuple[float, ...]]:
    return {tuple(image.flatten().tolist()) for image in images}


def test_each_sample_of_the_stream_is_as_likely_to_be_kept() -> None:
    sizes, kept = (60, 20, 40), torch.zeros(3)
    for seed in range(300):
        memory = Memory(numbered(*sizes), 30, seed)
        for task in range(3):
            memory.add(task)
            assert len(memory) == 30
        kept += memory.tasks.bincount(minlength=3)
    shares = kept / 300 / torch.tensor(sizes)
    assert torch.allclose(shares, torch.tensor(30 / 120), atol=0.015), "standard errors are below 0.005"


def test_what_is_kept_of_each_task_does_not_change() -> None:
    memory = Memory(numbered(60, 5, 40), 10, seed=0, of_each_task=True)
    memory.add(0)
    first = memory.images
    assert first is not None
    memory.add(1)
    memory.add(2)
    assert memory.tasks.bincount().tolist() == [10, 5, 10]
    assert memory.images is not None
    assert torch.equal(memory.images[:10], first)
    assert len(memory.images.unique()) == 25, "no sample twice"


@pytest.mark.parametrize("of_each_task", [False, True])
def test_a_memory_goes_on_from_its_state(of_each_task: bool) -> None:
    whole, again = (Memory(numbered(60, 20, 40), 12, 5, of_each_task) for _ in range(2))
    whole.add(0)
    whole.add(1)
    again.load_state_dict(whole.state_dict())
    for memory in (whole, again):
        memory.add(2)
    for name in ("images", "labels", "tasks", "rows"):
        assert torch.equal(getattr(whole, name), getattr(again, name)), name
    assert whole.bits == len(whole) * (8 + 128)


@pytest.mark.parametrize(
    ("rows", "tasks", "said"),
    [
        ([0, 60], [0, 0], "task 0 has not"),
        ([0, -1], [0, 0], "task 0 has not"),
        ([0, 1], [0, 3], "tasks of the memory"),
        ([0, 1], [1, 0], "in their order"),
        ([0], [0, 0], "a memory of 3"),
        ([0, 1, 2, 3], [0, 0, 0, 0], "a memory of 3"),
    ],
)
def test_the_state_of_another_memory_is_refused(rows: list[int], tasks: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Memory(numbered(60, 20), 3, 0).load_state_dict({"rows": torch.tensor(rows), "tasks": torch.tensor(tasks)})


def logits_of(model: Any, images: Tensor, tasks: Tensor) -> Tensor:
    """The logits of each sample by the head of its own task, one sample at a time."""
    features = model.features(images).flatten(1)
    heads = model.output
    if not isinstance(heads, TaskHeads):
        return heads(features)  # type: ignore[no-any-return]
    return torch.stack([heads.heads[int(task)](each) for task, each in zip(tasks, features, strict=True)])


@pytest.mark.slow
@HEADS
def test_replay_trains_on_the_mean_loss_of_both_batches(heads: str) -> None:
    parts = make_parts("strategy=replay", "strategy.mem_size=40", "strategy.mem_batch=16", f"model.heads={heads}")
    seen: list[list[Tensor]] = []
    look_after(parts, "ReplayPlugin", before_forward=lambda learner: seen.append(learner.mbatch))
    losses: list[tuple[Tensor, Tensor]] = []

    def compare(learner: Any) -> None:
        images, labels, tasks = seen[-1]
        losses.append((learner.loss.detach(), cross_entropy(logits_of(learner.model, images, tasks), labels).detach()))
        assert len(learner.mb_output) == len(learner.mb_y) <= 64, "an epoch's accuracy is that of the task"

    look_after(parts, "ReplayPlugin", before_backward=compare)
    for task in range(3):
        seen.clear()
        losses.clear()
        kept = pictures(parts.strategy.memory.images) if task else set()  # type: ignore[attr-defined]
        train(parts, task)
        old = [tasks[len(tasks) - 16 :] for _, _, tasks in seen[:-1]]
        if task == 0:
            assert max(len(batch[0]) for batch in seen) == 64
        else:
            assert set(torch.cat(old).tolist()) == set(range(task)), "of all earlier tasks"
            recalled = torch.cat([images[64:] for images, _, tasks in seen if len(tasks) == 80])
            assert pictures(recalled) <= kept
        for one, other in losses:
            assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.slow
@HEADS
def test_derpp_adds_the_error_of_logits_and_the_loss_of_labels(heads: str) -> None:
    words = ("strategy.mem_size=40", "strategy.mem_batch=16", "strategy.alpha=0.3", "strategy.beta=0.7")
    parts = make_parts("strategy=derpp", *words, f"model.heads={heads}")
    plugin = parts.strategy.plugin  # type: ignore[attr-defined]
    losses: list[tuple[Tensor, Tensor]] = []

    def compare(learner: Any) -> None:
        if plugin.logits is None:
            return
        memory, which = plugin.memory, plugin._which
        own = logits_of(learner.model, learner.mb_x, learner.mb_task_id)
        recalled = logits_of(learner.model, memory.images[which], memory.tasks[which])
        loss = cross_entropy(own, learner.mb_y) + 0.3 * (recalled - plugin.logits[which]).square().mean()
        loss = loss + 0.7 * cross_entropy(recalled, memory.labels[which])
        losses.append((learner.loss.detach(), loss.detach()))

    look_after(parts, "DarkReplayPlugin", before_backward=compare)
    train(parts, 0)
    memory = plugin.memory
    with torch.no_grad():
        expected = logits_of(parts.learner.model, memory.images, memory.tasks)
    assert torch.allclose(plugin.logits, expected, atol=1e-5)
    first = plugin.logits[memory.rows.argsort()]
    train(parts, 1)
    old = memory.tasks == 0
    assert 0 < old.sum() < 40
    assert {tuple(each.tolist()) for each in plugin.logits[old]} <= {tuple(each.tolist()) for each in first}
    train(parts, 2)
    assert len(losses) > 20
    for one, other in losses:
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_derpp_counts_the_classes_that_a_sample_has() -> None:
    words = ("strategy.mem_size=40", "strategy.alpha=0.3", "strategy.beta=0", "model.heads=per_task")
    classes = ("benchmark=split", "benchmark.classes=[[0,1,2],[3,4],[5,6,7,8]]")
    parts = make_parts("strategy=derpp", *words, *classes)
    plugin, losses = parts.strategy.plugin, []  # type: ignore[attr-defined]

    def compare(learner: Any) -> None:
        if plugin.logits is None:
            return
        memory, which, heads = plugin.memory, plugin._which, learner.model.output.heads
        features = learner.model.features(memory.images[which]).flatten(1)
        errors = []
        for task, feature, kept in zip(memory.tasks[which], features, plugin.logits[which], strict=True):
            logits = heads[int(task)](feature)
            errors.append((logits - kept[: len(logits)]).square().mean())
        own = cross_entropy(learner.mb_output, learner.mb_y)
        losses.append((learner.loss.detach(), (own + 0.3 * torch.stack(errors).mean()).detach()))

    look_after(parts, "DarkReplayPlugin", before_backward=compare)
    for task in range(3):
        train(parts, task)
    assert len(losses) > 10
    for one, other in losses:
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_derpp_holds_the_logits() -> None:
    distances = []
    for alpha in (0.0, 2.0):
        parts = make_parts(
            "strategy=derpp", f"strategy.alpha={alpha}", "strategy.beta=0", "train.epochs=2", "model.heads=shared"
        )
        train(parts, 0)
        plugin = parts.strategy.plugin  # type: ignore[attr-defined]
        images, logits = plugin.memory.images, plugin.logits
        train(parts, 1)
        with torch.no_grad():
            distances.append(float((parts.learner.model(images) - logits).square().mean()))
    assert distances[1] < 0.5 * distances[0]


@pytest.mark.slow
@HEADS
def test_agem_projects_a_gradient_that_would_raise_the_memorys_loss(heads: str) -> None:
    parts = make_parts("strategy=agem", "strategy.mem_size=50", "strategy.mem_batch=30", f"model.heads={heads}")
    strategy: Any = parts.strategy
    memory = strategy.memory
    before: list[Tensor] = []
    products: list[tuple[float, float]] = []
    look_before(parts, "AveragedGradientMemory", after_backward=lambda learner: before.append(flat(gradients(learner))))

    def compare(learner: Any) -> None:
        if not len(memory):
            return
        which = next(plugin for plugin in learner.plugins if hasattr(plugin, "memory"))._which
        loss = cross_entropy(logits_of(learner.model, memory.images[which], memory.tasks[which]), memory.labels[which])
        values = list(learner.model.parameters())
        found = torch.autograd.grad(loss, values, allow_unused=True)
        reference = flat(
            {
                str(i): torch.zeros_like(v) if g is None else g
                for i, (v, g) in enumerate(zip(values, found, strict=True))
            }
        )
        gradient, projected = before[-1], flat(gradients(learner))
        product = gradient @ reference
        expected = gradient if product >= 0 else gradient - product / (reference @ reference) * reference
        assert torch.allclose(projected, expected, atol=1e-5)
        products.append((float(product), float(projected @ reference)))

    look_after(parts, "AveragedGradientMemory", after_backward=compare)
    for task in range(3):
        train(parts, task)
    assert any(product < 0 for product, _ in products), "else this would say nothing"
    assert any(product > 0 for product, _ in products)
    assert all(projected >= -1e-4 for _, projected in products)


@pytest.mark.slow
@HEADS
def test_gem_leaves_no_gradient_that_would_raise_an_earlier_tasks_loss(heads: str) -> None:
    parts = make_parts(
        "strategy=gem", "strategy.mem_size=50", "strategy.strength=0", "train.batch_size=128", f"model.heads={heads}"
    )
    memory = parts.strategy.memory  # type: ignore[attr-defined]
    found: list[tuple[Tensor, Tensor]] = []
    before: list[Tensor] = []
    look_before(parts, "GradientMemory", after_backward=lambda learner: before.append(flat(gradients(learner))))

    def compare(learner: Any) -> None:
        values, rows = list(learner.model.parameters()), []
        for task in memory.tasks.unique().tolist():
            own = memory.tasks == task
            loss = cross_entropy(logits_of(learner.model, memory.images[own], memory.tasks[own]), memory.labels[own])
            parts = torch.autograd.grad(loss, values, allow_unused=True)
            rows.append(
                torch.cat(
                    [torch.zeros(v.numel()) if g is None else g.flatten() for v, g in zip(values, parts, strict=True)]
                )
            )
        if rows:
            references = torch.stack(rows)
            found.append((references @ before[-1], references @ flat(gradients(learner))))

    look_after(parts, "GradientMemory", after_backward=compare)
    for task in range(3):
        train(parts, task)
    assert found[-1][0].shape == (2,)
    assert any((products < 0).any() for products, _ in found), "else this would say nothing"
    for products, projected in found:
        assert (projected > -1e-3 * (1 + products.abs().max())).all()


@pytest.mark.slow
def test_gem_has_a_constraint_for_each_task_also_where_a_task_has_fewer_samples_than_are_kept() -> None:
    words = ("benchmark=split", "benchmark.n_tasks=5", "benchmark.scenario=class", "model.heads=shared")
    parts = make_parts("strategy=gem", "strategy.mem_size=400", *words)
    memory = parts.strategy.memory  # type: ignore[attr-defined]
    constraints: list[Tensor] = []
    plugin = next(plugin for plugin in parts.learner.plugins if hasattr(plugin, "memory"))

    def compare(learner: Any) -> None:
        if memory.images is None:
            return
        values = list(learner.model.parameters())
        rows = []
        for task in range(learner.experience.current_experience):
            own = memory.tasks == task
            loss = cross_entropy(learner.model(memory.images[own]), memory.labels[own])
            rows.append(torch.cat([each.flatten() for each in torch.autograd.grad(loss, values)]))
        assert torch.allclose(plugin._references, torch.stack(rows), atol=1e-6)
        constraints.append(plugin._references)

    look_after(parts, "GradientMemory", before_forward=compare)
    for task in range(3):
        train(parts, task)
    assert len(memory) < 3 * 400
    assert len(constraints[-1]) == 2


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_gems_projection_is_the_nearest_one(strength: float) -> None:
    draws = torch.Generator().manual_seed(0)
    for _ in range(5):
        references, gradient = torch.randn(3, 6, generator=draws), torch.randn(6, generator=draws)
        shares = _shares(references, references @ gradient, strength)
        projected = (gradient + shares @ references).double().numpy()
        assert bool((shares >= strength - 1e-6).all())
        if strength:
            continue
        matrix, start = references.double().numpy(), gradient.double().numpy()
        best = minimize(
            lambda z, g=start: np.square(z - g).sum(),
            start,
            constraints={"type": "ineq", "fun": lambda z, m=matrix: m @ z},
            method="SLSQP",
        )
        assert np.allclose(projected, best.x, atol=5e-3)


@pytest.mark.slow
def test_a_recalled_batch_is_augmented_as_the_tasks_own() -> None:
    recalled = []
    for shift in (0, 2):
        parts = make_parts("strategy=replay", f"train.shift={shift}", "model.heads=shared")
        images: list[Tensor] = []
        look_after(parts, "ReplayPlugin", before_forward=lambda learner, images=images: images.append(learner.mb_x))
        train(parts, 0)
        images.clear()
        train(parts, 1)
        recalled.append(images[0][64:])
    assert recalled[0].shape == recalled[1].shape
    assert not torch.equal(*recalled)


def test_gem_without_its_solver_is_refused_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cl_powerprop.strategies.gem.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"strategy=gem needs quadprog: pip install 'cl-powerprop\[gem\]'"):
        compose(["strategy=gem"]).check()


@pytest.mark.parametrize("name", ["replay", "derpp", "agem", "gem"])
def test_several_processes_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigurationError, match=f"strategy={name} recalls samples in one process"):
        compose([f"strategy={name}"]).check()


@pytest.mark.parametrize("name", ["joint", "cumulative"])
def test_strategies_that_mix_all_samples_keep_them(name: str) -> None:
    parts = make_parts(f"strategy={name}", "benchmark=split", "benchmark.n_tasks=2")
    samples = len(parts.benchmark.streams["train"][-1].dataset)  # which is all of them, for both
    assert parts.strategy.summary(parts.learner.model).buffer_bits == samples * (64 * 8 + 128)


@pytest.mark.slow
def test_cumulative_trains_each_task_with_all_before_it() -> None:
    parts = make_parts("strategy=cumulative", "model.heads=per_task")
    alone = [len(experience.dataset) for experience in make_parts("strategy=naive").benchmark.streams["train"]]
    seen: list[Tensor] = []
    parts.learner.plugins.append(Look(before_forward=lambda learner: seen.append(learner.mb_task_id)))
    for task in range(3):
        seen.clear()
        train(parts, task)
        assert torch.cat(seen).bincount().tolist() == alone[: task + 1]
