"""What all controllers of sparse training share: which layers are masked, how many weights each may keep, and steps."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.optim import Optimizer

from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.limits import SHARES_OF, check_sparsity
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity.distributions import Distribution, make_distribution
from cl_powerprop.sparsity.maskable import Maskable, maskable_weights
from cl_powerprop.sparsity.ranks import check_same_on_ranks
from cl_powerprop.sparsity.scores import Score
from cl_powerprop.sparsity.sparse_weight import LayerDensity, SparseWeight
from cl_powerprop.sparsity.topk import largest

Exempt = Sequence[str | type[nn.Module]]
ShareOf = Literal["masked", "all"]


class Controller:
    """Keeps a model sparse while it trains; as it stands it leaves the model dense.

    Make it after the optimizer, with the model on its device. In each step call ``step()`` after the optimizer's, and
    ``finalize()`` when training is over. The model computes with the weights in use only; hidden ones are 0. With
    Powerpropagation (see :func:`~cl_powerprop.sparsity.powerpropagate`), theta decides, not phi.

    Args:
        model: any torch model; its weights become maskable in place.
        optimizer: any torch optimizer that trains it.
        sparsity: share of the weights that are not used in the end, in [0, 1).
        distribution: of the weights among layers: "uniform", "erk", "global", or an object.
        exempt: layers that stay dense: names (with ``*`` and ``?``), "first", "last", names of layer types such as
            "Conv2d", or types, with everything below them; a type
            that the model lacks exempts nothing. Frozen layers stay as they are without being named.
        share_of: what ``sparsity`` is a share of: the masked weights, or all of them, with those of exempt layers.
        seed: of all that is drawn.

    Attributes:
        exempt: number of weights of each exempt layer, and of each frozen one that is reparameterised.
        steps: those that were made.
        is_recordable: between two updates, the optimizer's step works on tensors that stay where they are.

    Raises:
        ConfigurationError: for an impossible value, an exempt layer that does not exist, a model without weights to
            mask, or exempt layers that hold more weights than may be kept.
    """

    is_recordable = True

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        sparsity: float = 0.0,
        distribution: str | Distribution = "erk",
        exempt: Exempt = (),
        share_of: ShareOf = "masked",
        seed: int = 0,
    ) -> None:
        check_sparsity("sparsity", sparsity)
        check_choice("share_of", share_of, SHARES_OF)
        everything = maskable_weights(model)
        chosen = _without_exempt(model, everything, exempt)
        self.exempt = {name: each.stored.numel() for name, each in everything.items() if name not in chosen}
        self.weights = [SparseWeight(name, each, optimizer) for name, each in chosen.items()]
        self.optimizer = optimizer
        self.distribution = make_distribution(distribution)
        self.target = self._of_the_masked(sparsity, share_of)
        self.seed = seed
        self.steps = 0
        self.is_final = False
        self._counted = 0  # steps whose masks are in the counts

    def _of_the_masked(self, sparsity: float, share_of: ShareOf) -> float:
        """Return the sparsity of the masked weights together."""
        if share_of == "masked":
            return sparsity
        masked, dense = sum(each.active.numel() for each in self.weights), sum(self.exempt.values())
        kept = (1.0 - sparsity) * (masked + dense) - dense
        if kept < 1.0:
            raise ConfigurationError(
                f"a sparsity of {sparsity:g} leaves {(1.0 - sparsity) * (masked + dense):,.0f} of "
                f"{masked + dense:,} weights, and the exempt layers ({', '.join(self.exempt)}) alone hold {dense:,}; "
                "lower the sparsity or exempt fewer layers"
            )
        return max(0.0, 1.0 - kept / masked)

    @property
    def layers(self) -> dict[str, Maskable]:
        """The masked weights by name."""
        return {each.name: each.weight for each in self.weights}

    @property
    def sparsity(self) -> float:
        """The share of the masked weights that are not in use."""
        return 1.0 - sum(int(each.active.sum()) for each in self.weights) / sum(
            each.active.numel() for each in self.weights
        )

    def step(self) -> None:
        """Note a step of the optimizer, and change the masks if it is time. Call it after each.

        Raises:
            RuntimeError: if a gradient is needed and there was no backward pass since the last step.
        """
        self.steps += 1
        if self.is_final:
            return
        if self.is_due(self.steps):
            self._update()
        if self.needs_gradient:
            self._watch(self.is_due(self.steps + 1))

    def is_due(self, step: int) -> bool:
        """Return whether the masks change after this step."""
        return False

    @property
    def needs_gradient(self) -> bool:
        """Whether an update depends on the gradient of hidden weights."""
        return False

    def update(self) -> None:
        """Change the masks."""

    def hide(self) -> None:
        """Set the hidden weights to 0 again; a penalty on the parameters in the loss, as EWC's, may have moved them."""
        for each in self.weights:
            each.hide()

    def _update(self) -> None:
        self.count_steps()
        self.hide()
        if self.needs_gradient:
            self._gather_gradients()
        self.update()
        check_same_on_ranks((each.active for each in self.weights), f"the masks after step {self.steps}")

    def _gather_gradients(self) -> None:
        if not any(each.has_gradient for each in self.weights):
            raise RuntimeError(
                f"no layer got a gradient in step {self.steps}; call the controller's step() after backward() and the "
                "optimizer's step()"
            )
        for each in self.weights:
            each.share_gradient()
            each.count_dense_gradient()

    def _watch(self, on: bool) -> None:
        for each in self.weights:
            each.watch(on)

    def count_steps(self) -> None:
        """Note that the steps since the last call had the masks of now."""
        for each in self.weights:
            each.count_steps(self.steps - self._counted)
        self._counted = self.steps

    def finalize(self) -> None:
        """End training: the masks reach their target, whatever is missing, and never change again."""
        if not self.is_final:
            self.count_steps()
            self._watch(False)
            self.hide()
            self.complete()
            for each in self.weights:  # an optimizer that mixes weights, such as Muon, moves hidden ones too
                each.change(each.active)
            self.is_final = True

    def complete(self) -> None:
        """Reach the target, at the end of training."""

    def select(self, score: Score, sparsity: float, among: str = "active") -> dict[str, Tensor]:
        """Return the weights with the highest scores, as many as a sparsity leaves, as boolean masks by layer.

        Args:
            score: of the weights.
            sparsity: of the masked weights together.
            among: "active" for weights in use only, "all" for hidden ones too.
        """
        scores = self.scores(score, "keep")
        if among == "active":
            for each in self.weights:
                scores[each.name] = scores[each.name].masked_fill(~each.active, -torch.inf)
        masks = self.highest(scores, self.budgets(sparsity))
        return masks if among == "all" else {each.name: masks[each.name] & each.active for each in self.weights}

    def budgets(self, sparsity: float) -> list[tuple[tuple[str, ...], int]]:
        """Return layers that share a budget, and how many weights they keep at a sparsity."""
        shapes = {each.name: each.shape for each in self.weights}
        return [(budget.layers, budget.weights) for budget in self.distribution.budgets(shapes, 1.0 - sparsity)]

    def fits(self, sparsity: float) -> bool:
        """Return whether no more weights are in use than a sparsity leaves."""
        used = {each.name: int(each.active.sum()) for each in self.weights}
        return all(sum(used[name] for name in names) <= count for names, count in self.budgets(sparsity))

    def scores(self, score: Score, purpose: str) -> dict[str, Tensor]:
        """Return the scores of all weights by layer; what is drawn depends on (seed, purpose, step, layer)."""
        return {
            each.name: _finite(score(each, self.draws(purpose, layer)).detach())
            for layer, each in enumerate(self.weights)
        }

    def draws(self, purpose: str, layer: int) -> torch.Generator:
        """Return a generator for what is drawn after this step for a layer."""
        return generator(self.seed, f"sparsity {purpose}", self.steps, layer)

    @staticmethod
    def highest(scores: Mapping[str, Tensor], budgets: Sequence[tuple[tuple[str, ...], int]]) -> dict[str, Tensor]:
        """Return the masks of the highest scores that each budget allows."""
        masks: dict[str, Tensor] = {}
        for names, count in budgets:
            joined = largest(torch.cat([scores[name].reshape(-1) for name in names]), count)
            parts = joined.split([scores[name].numel() for name in names])
            masks |= {name: part.view(scores[name].shape) for name, part in zip(names, parts, strict=True)}
        return masks

    def report(self) -> list[LayerDensity]:
        """Return how sparse each layer is now, in the order of the model."""
        return [each.report() for each in self.weights]

    def training_density(self) -> dict[str, float]:
        """Return, for each layer, the mean share of a dense step's multiplications over the steps so far."""
        self.count_steps()
        return {each.name: each.training_density(self.steps) for each in self.weights}

    def state_dict(self) -> dict[str, Any]:
        """Return where the controller stands: tensors, or JSON values, by name. Model and optimizer have their own."""
        self.count_steps()
        state: dict[str, Any] = {"kind": type(self).__name__, "steps": self.steps, "is_final": self.is_final}
        for each in self.weights:
            state |= each.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned, for a controller that was made with the same arguments.

        Raises:
            ConfigurationError: if it is the state of another kind of controller, or of other layers.
        """
        if state["kind"] != type(self).__name__:
            raise ConfigurationError(
                f"the state is of a {state['kind']}, and this is a {type(self).__name__}; make the one that it is of"
            )
        saved = {name.removesuffix("/active") for name in state if name.endswith("/active")}
        if differing := sorted(saved ^ set(self.layers)):
            where = "the state of the sparse training" if differing[0] in self.layers else "this sparse training"
            raise ConfigurationError(
                f"{where} has no layer {differing[0]}: the state is of another model, or of other exempt layers"
            )
        self.steps = self._counted = state["steps"]
        self.is_final = state["is_final"]
        for each in self.weights:
            each.load_state_dict(state)
        if self.needs_gradient and not self.is_final:
            self._watch(self.is_due(self.steps + 1))


def _finite(scores: Tensor) -> Tensor:
    """Return scores that can be sorted, and below which -inf can mark what is out of the question."""
    limits = torch.finfo(scores.dtype)
    return scores.nan_to_num(nan=limits.min, posinf=limits.max, neginf=limits.min)


def _without_exempt(model: nn.Module, weights: Mapping[str, Maskable], exempt: Exempt) -> dict[str, Maskable]:
    """Return the weights that are masked.

    Raises:
        ConfigurationError: if an entry fits no layer, or all layers are exempt.
    """
    if isinstance(exempt, str | type):
        raise ConfigurationError(
            f"exempt must be a list of names and types of layers, such as ['first'], not {exempt!r}"
        )
    names = list(weights)
    left_out = {name for name, weight in weights.items() if not weight.is_trained}
    for entry in exempt:
        match entry:
            case "first" | "last":
                found = names[:1] if entry == "first" else names[-1:]
            case str():
                kinds = {name: type_before_parametrizations(each.module).__name__ for name, each in weights.items()}
                found = [name for name in names if kinds[name] == entry or fnmatch.fnmatchcase(name, entry)]
            case type():
                outside = maskable_weights(model, (entry,))
                found = [name for name in names if name not in outside]
            case _:
                raise ConfigurationError(
                    f"exempt lists names and types of layers, not objects such as {type(entry).__name__}(...); "
                    f"choose from: first, last, {', '.join(names)}"
                )
        if not found and isinstance(entry, str):  # a type may be a rule for models of all kinds
            raise ConfigurationError(
                f"exempt: no layer is called {entry!r} or of that type; choose from: first, last, {', '.join(names)}"
            )
        left_out |= set(found)
    if left_out == set(names):
        raise ConfigurationError("no layer is left to make sparse: all are exempt or frozen, or the model has none")
    return {name: weight for name, weight in weights.items() if name not in left_out}
