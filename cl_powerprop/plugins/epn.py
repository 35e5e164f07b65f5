"""EfficientPackNet: each task finds its own sparsity, and may leave earlier tasks' weights out of its mask.

Schwarz et al., "Powerpropagation: A sparsity inducing weight reparameterisation", NeurIPS 2021, arXiv:2110.00296,
section 4 and algorithm 1.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from avalanche.training.utils import trigger_plugins
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.limits import check_epn, check_judging, check_pruning, check_scored_epn
from cl_powerprop.plugins.learned_scores import HidingScores, LearnedScores
from cl_powerprop.plugins.masking import MaskingPlugin
from cl_powerprop.plugins.saliencies import Saliencies
from cl_powerprop.plugins.search import SEARCH_BY_NAME
from cl_powerprop.plugins.validation import Sum, Validation
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity.allocator import Unmasked
from cl_powerprop.sparsity.candidates import CandidateMasks, Scope

Criterion = Literal["magnitude", "saliency", "both", "scores"]

# Densities grow by 12 % per step from 0.5 % of a layer: fine steps for small masks, coarse ones for large masks.
DEFAULT_SPARSITIES = tuple(round(1.0 - 0.005 * 1.12**step, 5) for step in range(47))


@dataclass(frozen=True)
class Search:
    """Result of one task's search for its sparsity.

    Attributes:
        task: index of the task.
        sparsity: the chosen sparsity; if the search found none, 0, or that of the scores that the task trained through.
        accuracy: validation accuracy with the chosen mask.
        dense_accuracy: validation accuracy with no mask applied.
        evaluations: number of sparsities that were measured, in all rounds.
        exhausted: whether no measured sparsity reached the target.
        loss: validation loss with the chosen mask, in nats, if masks are judged by it; else None.
        dense_loss: the same with no mask applied.
    """

    task: int
    sparsity: float
    accuracy: float
    dense_accuracy: float
    evaluations: int
    exhausted: bool
    loss: float | None = None
    dense_loss: float | None = None


@dataclass
class _Progress:
    """What the search for a task's sparsity has measured so far.

    Attributes:
        dense: mean value with no mask applied (see :class:`~cl_powerprop.plugins.judging.Judge`); None before it is
            measured.
        dense_accuracy: validation accuracy with no mask applied.
        slack: by how much a mask may miss its target.
        sums: of the values of the samples, by index of the sparsity.
    """

    dense: float | None = None
    dense_accuracy: float = 0.0
    slack: float = 0.0
    sums: dict[int, Sum] = field(default_factory=dict)


class EPNPlugin(MaskingPlugin):
    """Keeps the top share of **all** weights of each layer, at the highest sparsity that preserves the accuracy.

    Args:
        gamma: share of the unmasked network's validation accuracy that a mask must reach, in (0, 1].
        retrain_epochs: see :class:`MaskingPlugin`; the paper's algorithm has 0.
        sparsities: the grid of sparsities in [0, 1) in which the search looks.
        search: "grid" takes the highest sparsity that reaches the target; "raise" raises the sparsity until one
            misses it (the paper's); "bisect" halves the grid; "gallop" starts from the last task's sparsity. They agree
            where accuracy falls as sparsity rises.
        scope: rank the weights of each layer ("layer"), or of all layers together ("global").
        criterion: rank by "magnitude" ``|theta|`` (the paper's), by "saliency", the root of the summed squares of
            ``theta * dL/dtheta`` over the mini-batches of the last epoch before the search (of a pass of its own if
            training was stopped early), or by the sum of both ranks
            ("both"). "scores" ranks by scores that are learned with the weights: a task trains through the top
            ``score_density`` of each layer, as with :class:`WSNPlugin`, and the search looks for a sparser mask that
            holds.
        judge: what a mask must hold: the validation "accuracy" (the paper's), or, by "loss", the geometric mean of the
            likelihoods of the right answers, which varies less where validation samples are few.
        slack: how many standard errors of that value a mask may be below its target.
        rounds: how often the search is made: first after training, then after each of the equal parts of retraining but
            the last. A later one prunes the mask of the one before it, and holds ``gamma`` of what the network reaches
            with that, as iterative magnitude pruning does (Han et al., NeurIPS 2015, arXiv:1506.02626, section 3.4).
        max_new: share of the free weights of each layer (of all layers together, if these are ranked together) that one
            task may take: the largest; it reuses what it likes.
        reuse_bonus: what the magnitudes of frozen weights, or whatever else weights are ranked by, are multiplied by
            before that; above 1, a task reuses more, and takes fewer new ones.
        train_through: "all" trains a task with every frozen weight visible (the paper's algorithm); "free" hides
            them, so that tasks neither disturb each other nor share features; "scored" learns a score for each frozen
            weight with the task, and hides those whose score falls to 0 (see :class:`HidingScores`).
        score_density, score_lr: of learned scores, see :class:`WSNPlugin`.
        output_layer: the layer that gets half the sparsity; "auto" is the last masked layer if the model has no
            per-task heads, and None is no layer.
        validation: the data on which masks are chosen: a share of each experience's training samples, which are then
            not trained on; or an Avalanche stream whose experience k holds task k's validation samples.
        unmasked, seed: see :class:`MaskingPlugin`.

    Raises:
        ConfigurationError: for a value outside its range.
    """

    def __init__(
        self,
        gamma: float = 0.98,
        retrain_epochs: int = 0,
        sparsities: Sequence[float] = DEFAULT_SPARSITIES,
        search: Literal["grid", "raise", "bisect", "gallop"] = "gallop",
        scope: Scope = "layer",
        criterion: Criterion = "magnitude",
        judge: Literal["accuracy", "loss"] = "accuracy",
        slack: float = 0.0,
        rounds: int = 1,
        max_new: float = 1.0,
        reuse_bonus: float = 1.0,
        train_through: Literal["all", "free", "scored"] = "all",
        score_density: float = 0.3,
        score_lr: float = 1.0,
        output_layer: str | None = "auto",
        validation: float | Sequence[Any] = 0.1,
        unmasked: Unmasked = "frozen",
        seed: int = 0,
    ) -> None:
        super().__init__(retrain_epochs, unmasked, seed)
        check_epn(gamma, sparsities, search, scope, criterion, train_through)
        check_judging(judge, slack)
        check_pruning(rounds, retrain_epochs, max_new, reuse_bonus)
        if isinstance(validation, int | float) and not 0.0 < validation < 1.0:
            raise ConfigurationError(f"validation must be a share in (0, 1) or a stream, not {validation}")
        self.gamma = gamma
        self.sparsities = sorted({float(sparsity) for sparsity in sparsities}, reverse=True)
        self.search = search
        self.scope = scope
        self.criterion = criterion
        self.sums_saliencies = criterion in ("saliency", "both")
        check_scored_epn(criterion, scope, train_through, score_density, score_lr)
        self._scores = LearnedScores(score_density, score_lr, seed=seed)
        self._lowest = 0.0  # the sparsity of a task for which the search finds none
        if criterion == "scores":
            self.learned = self._scores
            self._lowest = 1.0 - score_density  # denser masks would have weights that were not trained
            self.sparsities = [each for each in self.sparsities if each > self._lowest] + [self._lowest]
        elif train_through == "scored":
            self.learned = HidingScores(score_lr)
        self.judge = judge
        self.slack = slack
        self.rounds = rounds
        self.max_new = max_new
        self.reuse_bonus = reuse_bonus
        self.train_through = train_through
        self.output_layer = output_layer
        self.validation = validation
        self.searches: list[Search] = []
        self._validation_data: Any = None
        self._saliencies = Saliencies()
        self._measured = _Progress()

    def settings(self) -> dict[str, Any]:
        names = ("gamma", "search", "scope", "criterion", "judge", "slack", "rounds", "max_new", "reuse_bonus")
        return super().settings() | {name: getattr(self, name) for name in (*names, "train_through", "output_layer")}

    def last_search(self) -> dict[str, Any] | None:
        return asdict(self.searches[-1]) if self.searches else None

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"searches": [asdict(search) for search in self.searches]}

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        super().load_state_dict(state, model)
        self.searches = [Search(**search) for search in state["searches"]]

    def task_progress(self) -> dict[str, Any]:
        """Return the saliencies that are summed, and what the search has measured."""
        return self._saliencies.state_dict() | {
            "dense": self._measured.dense,
            "dense_accuracy": self._measured.dense_accuracy,
            "slack": self._measured.slack,
            "sums": [[index, *measured] for index, measured in self._measured.sums.items()],
        }

    def load_task_progress(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`task_progress` returned."""
        self._saliencies.load_state_dict(state, self.allocator)
        sums = {index: Sum(total, batches) for index, total, batches in state.get("sums", ())}
        if sums:  # else whatever was measured is measured again
            self._measured = _Progress(state["dense"], state["dense_accuracy"], state["slack"], sums)

    def after_train_dataset_adaptation(self, strategy: Any, **_: Any) -> None:
        """Get the task's validation samples, or hold them out of its training samples.

        Raises:
            ConfigurationError: if no sample would be held out.
        """
        experience, dataset = strategy.experience, strategy.adapted_dataset
        if not isinstance(self.validation, int | float):
            self._validation_data = self.validation[experience.current_experience].dataset
            return
        held_out = round(self.validation * len(dataset))
        if not held_out:
            raise ConfigurationError(f"validation={self.validation} of {len(dataset)} samples leaves none to choose on")
        draws = generator(self.seed, "validation", experience.current_experience)
        order = torch.randperm(len(dataset), generator=draws)
        self._validation_data = dataset.subset(order[:held_out].tolist())
        strategy.adapted_dataset = dataset.subset(order[held_out:].tolist())

    def prepare_task(self, strategy: Any) -> None:
        """Hide the frozen weights if the task trains without them.

        Raises:
            ConfigurationError: if ``output_layer`` is no masked layer.
        """
        if self.output_layer not in (None, "auto", *self.allocator.weights):
            layers = ", ".join(self.allocator.weights)
            raise ConfigurationError(f"output_layer must be auto, None or one of {layers}, not {self.output_layer!r}")
        self._saliencies.clear()
        weights = self.allocator.weights
        if all(weight.frozen.all() for weight in weights.values()):
            left = "what is not masked" + (", and which weights to use," if self.learned is not None else "")
            self.tell(f"task {self.allocator.tasks}: no weight is free; only {left} can be learned")
        elif self.train_through == "free" and self.allocator.tasks:
            self.allocator.hide_frozen()

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        """In the epoch whose saliencies are summed, compute gradients of frozen weights too; they are not trained."""
        before_search = strategy.train_epochs - self.retrain_epochs - 1
        if self.sums_saliencies and strategy.clock.train_exp_epochs == before_search and not self.mask_chosen:
            self._saliencies.begin(self.allocator)

    def graph_tensors(self, strategy: Any) -> Iterable[Tensor]:
        return [*super().graph_tensors(strategy), *self._saliencies.sums.values()]

    def after_backward(self, strategy: Any, **_: Any) -> None:
        """Add the mini-batch to the saliencies, in the epoch in which they are summed."""
        self._saliencies.add(self.allocator)

    def stack_key(self, strategy: Any) -> Hashable | None:
        """Return what learners have in common that train together; None in the epoch whose saliencies are summed."""
        return None if self._saliencies.sums else super().stack_key(strategy)

    def epoch_retrained(self, strategy: Any, epochs: int) -> None:
        """Search again if the retraining of a round, but the last one, is over; not if it was told to stop."""
        if strategy._stop_training:
            return
        if epochs in (round(done * self.retrain_epochs / self.rounds) for done in range(1, self.rounds)):
            self.propose_masks(strategy)

    def choose_masks(self, strategy: Any) -> dict[str, Tensor]:
        """Search the grid on validation samples; if no sparsity is found, the task takes all visible weights.

        In a later round, these are those of the mask that it has; with ``criterion="scores"`` the task takes the share
        that it was trained with.
        """
        if self.sums_saliencies and not self._saliencies.measured:
            self._saliencies.measure(self.allocator, strategy)
        if self.train_through == "scored" and self.learned is not None and self.learned.is_attached:
            self.allocator.propose(self.learned.masks())
        candidates = self._candidates()
        before = {name: weight.training_view for name, weight in self.allocator.weights.items()}
        validation, measured = Validation(strategy, self._validation_data, self.judge), self._measured
        if measured.dense is None:
            measured.dense, measured.dense_accuracy = validation.reached()
            measured.slack = self.slack * validation.standard_error() if self.slack else 0.0
        dense = measured.dense
        target = validation.judge.target(self.gamma, dense) - measured.slack

        def holds(index: int) -> bool:
            """Measure a sparsity's mask until it is certain whether it reaches the target."""
            if index not in measured.sums:
                if self.mask_chosen:
                    self.allocator.propose(before)  # which is saved
                trigger_plugins(strategy, "can_save")
                self.allocator.propose(candidates.at(self.sparsities[index]))
                measured.sums[index] = validation.add_up(lambda lowest, highest: lowest >= target or highest < target)
            return validation.mean(measured.sums[index]) >= target

        index = SEARCH_BY_NAME[self.search](len(self.sparsities), holds, self._last_index())
        sparsity = self._lowest if index is None else self.sparsities[index]
        value, accuracy = dense, measured.dense_accuracy
        masks = candidates.at(sparsity)
        if index is not None:
            self.allocator.propose(masks)
            # What was left when it was certain: the record has the whole value.
            value, accuracy = validation.reached(measured.sums[index])
        losses = () if validation.judge.counts else (-value, -dense)
        found = Search(
            self.allocator.tasks,
            sparsity,
            accuracy,
            measured.dense_accuracy,
            len(measured.sums),
            index is None,
            *losses,
        )
        self._saliencies.clear()
        self._measured = _Progress()
        if self.mask_chosen:
            self._go_on_from(found)
        else:
            self.searches.append(found)
            if index is None:
                self._tell_exhausted(dense, validation.judge.counts)
        return masks

    def _go_on_from(self, found: Search) -> None:
        """Note what a later round of the task's search has found; none may have pruned what it began with."""
        first = self.searches[-1]
        self.searches[-1] = replace(
            first,
            sparsity=first.sparsity if found.exhausted else found.sparsity,
            accuracy=found.accuracy,
            evaluations=first.evaluations + found.evaluations,
            loss=found.loss,
        )

    def _tell_exhausted(self, dense: float, counts: bool) -> None:
        held = f"{self.gamma:g} of the validation " + (
            f"accuracy {dense:.4f}" if counts else f"likelihood {math.exp(dense):.4f}"
        )
        if self.max_new < 1.0:
            why = f"no mask with {self.max_new:g} of the free weights holds {held}; the task takes as many"
        elif self.criterion == "scores":
            why = f"no sparsity that was tried holds {held}; the task keeps the density that it was trained with"
        else:
            why = f"capacity exhausted: no sparsity that was tried holds {held}; the task takes all visible weights"
        self.tell(f"task {self.allocator.tasks}: {why}")

    def _last_index(self) -> int | None:
        """Return the index of the sparsity nearest to the last task's; None for the first task."""
        if not self.searches:
            return None
        last = self.searches[-1].sparsity
        return min(range(len(self.sparsities)), key=lambda index: abs(self.sparsities[index] - last))

    def _candidates(self) -> CandidateMasks:
        """Return the masks that the task can choose from."""
        magnitudes = {name: self.allocator.theta(name).abs() for name in self.allocator.weights}
        criteria: dict[Criterion, list[Mapping[str, Tensor]]] = {
            "magnitude": [magnitudes],
            "saliency": [self._saliencies.sums],
            "both": [magnitudes, self._saliencies.sums],
            "scores": [self._scores.magnitudes()],
        }
        chosen, output = criteria[self.criterion], self._output_layer()
        return CandidateMasks(self.allocator, chosen, self.scope, self.reuse_bonus, self.max_new, output)

    def _output_layer(self) -> str | None:
        if self.criterion == "scores":  # all layers train through the same density
            return None
        if self.output_layer != "auto":
            return self.output_layer
        return None if self.allocator.has_excluded else list(self.allocator.weights)[-1]
