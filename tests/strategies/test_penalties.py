"""EWC, SI, MAS and RWalk: importances and penalties against the papers' formulas, and Avalanche's where it has any."""

from typing import Any

import pytest
import torch
from avalanche.training.plugins import EWCPlugin, MASPlugin, RWalkPlugin
from torch import Tensor
from torch.nn.functional import cross_entropy

from .learners import gradients, look_after, look_before, make_parts, parameters, train

pytestmark = pytest.mark.slow

HEADS = pytest.mark.parametrize("heads", ["shared", "per_task"])
NAMES = {"si": "SynapticIntelligence", "mas": "MemoryAwareSynapses", "rwalk": "RiemannianWalk"}


@HEADS
@pytest.mark.parametrize("name", NAMES)
def test_a_penalty_has_the_gradient_that_autograd_finds(name: str, heads: str) -> None:
    parts = make_parts(f"strategy={name}", "strategy.penalty=0.7", f"model.heads={heads}", "optimizer.lr=0.2")
    plugin = parts.strategy.plugin  # type: ignore[attr-defined]
    alone: list[tuple[float, dict[str, Tensor]]] = []
    look_before(parts, NAMES[name], after_backward=lambda each: alone.append((each.loss.item(), gradients(each))))
    steps = []

    def compare(learner: Any) -> None:
        named = dict(learner.model.named_parameters())
        if not plugin.importances:
            return
        penalty = sum(
            (plugin.importances[key] * (value - plugin.anchors[key]).square()).sum() for key, value in named.items()
        )
        expected = torch.autograd.grad(0.7 * penalty, list(named.values()))
        loss, before = alone[-1]
        assert learner.loss.item() == pytest.approx(loss + 0.7 * float(torch.as_tensor(penalty).detach()), rel=1e-4)
        for (key, found), pull in zip(gradients(learner).items(), expected, strict=True):
            assert torch.allclose(found, before[key] + pull, rtol=1e-4, atol=1e-6), key
        steps.append(float(torch.as_tensor(penalty).detach()))

    look_after(parts, NAMES[name], after_backward=compare)
    for task in range(3):
        train(parts, task)
    assert max(steps) > 0


@pytest.mark.parametrize(
    ("words", "networks"),
    [("si", 1), ("mas", 1), ("rwalk", 2), ("ewc", 1), ("ewc strategy.mode=separate", 3 + 2), ("lwf", 0)],
)
def test_what_follows_from_the_network_is_not_counted_beside_it(words: str, networks: int) -> None:
    parts = make_parts(*f"strategy={words}".split(), "train.epochs=1", "model.heads=shared")
    for task in range(3):
        train(parts, task)
    now = parameters(parts.learner)
    shapes = {value.shape for value in now.values()}
    kept = [value for value in parts.strategy.state_dict().values() if getattr(value, "shape", None) in shapes]
    others = [value for value in kept if not any(torch.equal(value, each) for each in now.values())]
    size = 32 * sum(value.numel() for value in now.values())
    assert parts.strategy.summary(parts.learner.model).importance_bits == networks * size
    assert len(others) == (3 if words == "rwalk" else networks) * len(now)  # of RWalk's three, one follows from two


@HEADS
@pytest.mark.parametrize("name", NAMES)
def test_a_penalty_holds_what_is_important(name: str, heads: str) -> None:
    moved = []
    for strength in (0.0, 100.0):
        parts = make_parts(f"strategy={name}", f"strategy.penalty={strength}", "train.epochs=2", f"model.heads={heads}")
        train(parts, 0)
        plugin = parts.strategy.plugin  # type: ignore[attr-defined]
        importances, anchors = dict(plugin.importances), dict(plugin.anchors)
        train(parts, 1)
        now = parameters(parts.learner)
        moved.append(sum(float((importances[key] * (now[key] - anchors[key]).square()).sum()) for key in now))
    assert 0 < moved[1] < 0.5 * moved[0]


@HEADS
def test_si_sums_what_each_step_lowers_the_loss_by(heads: str) -> None:
    """Zenke et al. 2017, equations 4 and 5, with gradients of the loss alone: neither penalty nor clipping counts."""
    parts = make_parts("strategy=si", "strategy.penalty=0.5", "strategy.damping=0.2", f"model.heads={heads}")
    plugin = parts.strategy.plugin  # type: ignore[attr-defined]
    before: dict[str, Tensor] = {}
    slopes: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}

    def begin(learner: Any) -> None:
        named = dict(learner.model.named_parameters())
        before.update(parameters(learner))
        loss = cross_entropy(learner.model(learner.mb_x), learner.mb_y)
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        slopes.update(
            {key: torch.zeros_like(v) if g is None else g for (key, v), g in zip(named.items(), found, strict=True)}
        )

    def end(learner: Any) -> None:
        for key, value in parameters(learner).items():
            sums[key] = sums.get(key, torch.zeros_like(value)) - slopes[key] * (value - before[key])

    look_after(parts, NAMES["si"], before_forward=begin, after_update=end)
    expected: dict[str, Tensor] = {}
    for task in range(2):
        start = parameters(parts.learner)
        sums.clear()
        train(parts, task)
        for key, value in parameters(parts.learner).items():
            share = (sums[key] / ((value - start[key]).square() + 0.2)).clamp(min=0)
            expected[key] = expected.get(key, torch.zeros_like(share)) + share
            assert torch.allclose(plugin.importances[key], expected[key], rtol=1e-3, atol=1e-5), key
            assert torch.equal(plugin.anchors[key], value)
    assert all(float(value.max()) > 0 for key, value in plugin.importances.items() if "features" in key)


IN_THETA_SPACE = ("optimizer=adam", "model.alpha=2", "train.clip_norm=null")


@pytest.mark.parametrize("name", ["si", "rwalk"])
def test_in_theta_space_the_path_integral_is_the_fall_of_the_loss(name: str) -> None:
    interval = ("strategy.interval=100000",) if name == "rwalk" else ()
    parts = make_parts(f"strategy={name}", "strategy.penalty=0", "optimizer.lr=1e-4", *interval, *IN_THETA_SPACE)
    plugin = parts.strategy.plugin  # type: ignore[attr-defined]
    fallen, paths = [], []

    def loss(learner: Any) -> float:
        with torch.no_grad():
            return float(cross_entropy(learner.model(learner.mb_x), learner.mb_y))

    functions = {
        "before_forward": lambda each: fallen.append(loss(each)),
        "after_update": lambda each: fallen.append(-loss(each)),
        "after_training_epoch": lambda _: paths.append(sum(float(value.sum()) for value in plugin.path.values())),
    }
    look_after(parts, NAMES[name], **functions)
    train(parts, 0)
    assert paths[-1] == pytest.approx(sum(fallen), rel=0.1)


@pytest.mark.parametrize("name", [*NAMES, "ewc"])
def test_in_theta_space_a_penalty_adds_its_derivative_by_theta(name: str) -> None:
    parts = make_parts(f"strategy={name}", "strategy.penalty=0.7", "optimizer.lr=0.01", *IN_THETA_SPACE)
    plugin = parts.strategy.plugin  # type: ignore[attr-defined]
    train(parts, 0)
    learner, pulls = parts.learner, []
    phi = parameters(learner)
    if name == "ewc":
        importances = {key: kept.data for key, kept in plugin.importances[0].items()}
    else:
        importances = plugin.importances

    def compare(learner: Any) -> None:
        named = dict(learner.model.named_parameters())
        loss = cross_entropy(learner.model(learner.mb_x), learner.mb_y)
        alone = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        for (key, value), own in zip(named.items(), alone, strict=True):
            if key.endswith("original"):
                distance = value.detach() * value.detach().abs() - phi[key] * phi[key].abs()
                pull = 2 * 0.7 * importances[key] * distance
                assert torch.allclose(value.grad, own + pull, rtol=1e-4, atol=1e-6), key
                pulls.append(float(pull.abs().max()))

    look_after(parts, NAMES.get(name, "DeviceEWC"), after_backward=compare)
    train(parts, 1)
    assert max(pulls) > 0


@HEADS
@pytest.mark.parametrize("validation", [144, 141])
def test_ewc_has_avalanches_importances_to_the_bit(heads: str, validation: int) -> None:
    """1301 samples end with a batch of one, which Avalanche's loader keeps."""
    batch = 65
    words = (f"benchmark.validation={validation}", f"train.batch_size={batch}", "train.shift=1")
    parts = make_parts("strategy=ewc", f"model.heads={heads}", *words)
    train(parts, 0)
    learner, plugin = parts.learner, parts.strategy.plugin  # type: ignore[attr-defined]
    stock = EWCPlugin(1.0)
    dataset = parts.curriculum[0][1].dataset
    assert (len(dataset) % batch == 1) == (validation == 141)
    given = (learner.model, learner._criterion, learner.optimizer, dataset, learner.device, batch)
    expected = stock.compute_importances(*given)
    assert any(float(each.data.max()) > 0 for each in expected.values())
    for key, value in plugin.importances[0].items():
        assert torch.equal(value.data, expected[key].data), key


@HEADS
@pytest.mark.parametrize("mode", ["online", "separate"])
def test_ewc_adds_avalanches_penalty(heads: str, mode: str) -> None:
    """Over three tasks, so that the earlier ones are decayed, or have penalties of their own."""
    words = (f"strategy.mode={mode}", "strategy.penalty=7", "strategy.decay=0.6", "optimizer.space=phi")
    parts = make_parts("strategy=ewc", f"model.heads={heads}", *words)
    stock = EWCPlugin(7.0, mode, 0.6 if mode == "online" else None)
    alone: list[Tensor] = []
    penalties: dict[int, list[float]] = {}

    def compare(learner: Any) -> None:
        own, before = learner.loss, alone[-1]
        learner.loss = before.clone()
        stock.before_backward(learner)
        assert torch.equal(own, learner.loss)
        penalties.setdefault(learner.clock.train_exp_counter, []).append(float((own - before).detach()))
        learner.loss = own

    look_before(parts, "DeviceEWC", before_backward=lambda learner: alone.append(learner.loss.clone()))
    look_after(parts, "DeviceEWC", before_backward=compare, after_training_exp=stock.after_training_exp)
    for task in range(3):
        train(parts, task)
    assert max(penalties[1]) > 0
    assert max(penalties[2]) > 0


@HEADS
def test_mas_has_avalanches_importances(heads: str) -> None:
    parts = make_parts("strategy=mas", "strategy.alpha=0.3", f"model.heads={heads}")
    plugin = parts.strategy.plugin  # type: ignore[attr-defined]
    measured: list[dict[str, Any]] = []
    stock = MASPlugin()
    look_after(parts, NAMES["mas"], after_training_exp=lambda learner: measured.append(stock._get_importance(learner)))
    train(parts, 0)
    train(parts, 1)
    assert any(float(value.max()) > 0 for value in plugin.importances.values())
    for key, value in plugin.importances.items():
        first, second = (each[key].data for each in measured)
        assert torch.allclose(value, 0.3 * first + 0.7 * second, rtol=1e-4, atol=1e-6), key


def test_rwalk_counts_the_steps_after_the_last_interval() -> None:
    parts = make_parts("strategy=rwalk", "strategy.penalty=0", "strategy.interval=100000")
    plugin = parts.strategy.plugin  # type: ignore[attr-defined]
    paths: list[dict[str, torch.Tensor]] = []

    def keep(_: Any) -> None:
        paths.append({name: value.clone() for name, value in plugin.path.items()})

    before = {name: weight.detach().clone() for name, weight in parameters(parts.learner).items()}
    look_after(parts, NAMES["rwalk"], after_training_epoch=keep)
    train(parts, 0)
    moved = {name: (weight.detach() - before[name]).square() for name, weight in parameters(parts.learner).items()}
    assert set(plugin.scores) <= set(moved)
    for name, score in plugin.scores.items():
        expected = paths[-1][name] / (0.5 * plugin.fisher[name] * moved[name] + torch.finfo(torch.float32).eps)
        torch.testing.assert_close(score, expected)
    assert any(float(score.max()) > 0 for score in plugin.scores.values())


def test_rwalk_has_avalanches_importances() -> None:
    """Without a penalty both go the same way; Avalanche's takes the loss's gradient by another backward pass."""
    parts = make_parts("strategy=rwalk", "strategy.penalty=0", "strategy.interval=7", "model.heads=shared")
    assert (parts.steps()[0] % 7) == 0, "Avalanche counts its intervals over tasks"
    stock = RWalkPlugin(ewc_lambda=0.0, ewc_alpha=0.9, delta_t=7)
    parts.learner.plugins.insert(0, stock)
    plugin = parts.strategy.plugin  # type: ignore[attr-defined]
    for task in range(2):
        train(parts, task)
        assert stock.exp_penalties is not None
        for key, value in plugin.importances.items():
            expected = stock.exp_penalties[key].data
            assert torch.allclose(value, expected, rtol=1e-2, atol=1e-3), (task, key)
            assert float(value.max()) > 0
