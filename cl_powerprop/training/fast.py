"""Avalanche's supervised template at the speed of a plain PyTorch loop.

Stock Avalanche spends most of its time on small networks on two things, and both are replaced here: images pass through
Python one by one (here, one gather per batch from a tensor on the device), and every event of every iteration is sent
to every plugin, metric and logger (here, only to those that override its handler). The order of events and the results
stay the same, except that a lone sample at the end of a training epoch joins the batch before it. This relies on
private names of avalanche-lib 0.6.0, whose version is therefore pinned.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from avalanche.models.utils import is_multi_task_module
from avalanche.training.templates import SupervisedTemplate
from avalanche.training.utils import trigger_plugins
from torch import Tensor
from torch.nn import CrossEntropyLoss, Parameter
from torch.nn.functional import cross_entropy

from cl_powerprop.errors import check_choice
from cl_powerprop.limits import PRECISIONS
from cl_powerprop.networks.heads import is_padded
from cl_powerprop.seeding import derive_seed, generator
from cl_powerprop.sparsity.norm_statistics import needs_two_samples
from cl_powerprop.training.batches import WHOLE, count_batches
from cl_powerprop.training.compiled import CompiledModel
from cl_powerprop.training.graphs import Graphs
from cl_powerprop.training.listeners import Listener, listeners
from cl_powerprop.training.loaders import JoiningLoader, MixedLoader, TensorLoader
from cl_powerprop.training.lockstep import Lockstep
from cl_powerprop.training.rates import hold_rates
from cl_powerprop.training.smoothing import smoothed_loss
from cl_powerprop.training.stackable import Epoch
from cl_powerprop.training.stacked import Together, train_together
from cl_powerprop.training.streamed_data import StreamLoader
from cl_powerprop.training.tensor_data import MixedSamples, find_tensors


class FastSupervisedTemplate(SupervisedTemplate):  # type: ignore[misc]
    """A ``SupervisedTemplate`` that loads batches from tensors and sends events only to plugins that handle them.

    Takes the arguments of ``SupervisedTemplate``, and:

    Args:
        seed: the order of experience k's samples depends on (seed, k) alone.
        precision: "fp32", or "bf16" to train under autocast.
        compile: train through ``torch.compile``.
        one_order: the order depends on the seed alone, for a benchmark whose one task is a whole data set.
        channels_last: lay out images with the channels of a pixel together, which is faster for convolutions on a GPU.
        label_smoothing: share of each training label that is spread evenly over all classes (Szegedy et al. 2016); the
            loss is cross-entropy then. That of an evaluation is not smoothed.
        workers: number of processes that load data which is not in tensors, in an order and with random numbers that
            depend on (seed, k) alone, too; None leaves such data to Avalanche's own loader.
        cuda_graphs: record steps as CUDA graphs and replay them: "auto" where that is possible, "true" or "false".

    Evaluation always runs eagerly in the model's own precision, so that a task's logits do not depend on compilation.

    Attributes:
        joins_lone: in training, a lone sample at the end of an epoch joins the batch before it.
        share: the part of every training batch that it gets.
        reuses_batch: the next step writes to the tensors of the current batch, its outputs and its loss.
        lockstep: where learners meet that train together; None for one that trains alone.
        together: what it trains with in the current task, once it has trained together with others.
        stacks: its network can be computed together with others of its form, as far as is known.

    Raises:
        ConfigurationError: for an unknown precision, recorded steps that are impossible, and in training if torch
            cannot compile on this machine, or batch norm gets a batch of one sample.
    """

    joins_lone = True
    share = WHOLE  # of every training batch
    reuses_batch = False
    dataloader: Any
    _stop_training: bool

    def __init__(
        self,
        *,
        seed: int = 0,
        precision: str = "fp32",
        compile: bool = False,
        one_order: bool = False,
        channels_last: bool = False,
        label_smoothing: float = 0.0,
        workers: int | None = None,
        cuda_graphs: str = "false",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_choice("train.precision", precision, PRECISIONS)
        self.seed = seed
        self.precision = precision
        self.compile = compile
        self.one_order = one_order
        self.channels_last = channels_last
        self.label_smoothing = label_smoothing
        self.workers = workers
        self._compiled: CompiledModel | None = None
        self._graphs = Graphs(self, cuda_graphs)
        if self.optimizer is not None:  # Avalanche's SLDA has none
            hold_rates(self.optimizer)
        self.lockstep: Lockstep | None = None
        self.together: Together | None = None
        self.stacks = True
        self._least_compiled = 0  # of a run that goes on: samples in a batch that is compiled

    def forward(self) -> Any:
        """Return the outputs of the current batch."""
        if not self.is_training or (self.precision == "fp32" and not self.compile):
            return super().forward()
        model = self._compiled_model() if self.compile else self.model
        takes_task = is_multi_task_module(self.model) and hasattr(self.experience, "task_labels")
        inputs = (self.mb_x, self.mb_task_id) if takes_task else (self.mb_x,)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return model(*inputs).float()

    def criterion(self) -> Tensor:
        """Return the loss of the current batch."""
        if self.is_training and self.label_smoothing:
            if is_padded(self.model):
                return smoothed_loss(self.mb_output, self.mb_y, self.label_smoothing)
            return cross_entropy(self.mb_output, self.mb_y, label_smoothing=self.label_smoothing)
        return super().criterion()  # type: ignore[no-any-return]

    @property
    def means_cross_entropy(self) -> bool:
        """Whether the loss of a training batch is the mean of :meth:`sample_losses`."""
        loss = self._criterion
        plain = type(loss) is CrossEntropyLoss and loss.weight is None and loss.reduction == "mean"
        return bool(self.label_smoothing) or (plain and loss.ignore_index < 0 and not loss.label_smoothing)

    def sample_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss of each sample, ``[n]``, by cross-entropy."""
        return cross_entropy(outputs, labels, reduction="none", label_smoothing=self.label_smoothing)

    def _compiled_model(self) -> CompiledModel:
        if self._compiled is None or self._compiled.model is not self.model:
            self._compiled = CompiledModel(self.model, self._least_compiled)
        return self._compiled

    def _keeping_graph(self) -> AbstractContextManager[list[Parameter]]:
        """Yield the parameters whose gradients to drop after a backward pass."""
        return self._compiled_model().training() if self.compile else nullcontext([])

    def make_train_dataloader(self, shuffle: bool = True, drop_last: bool = False, **options: Any) -> None:
        """Load batches from tensors; other data, such as data mixed by a replay plugin, uses Avalanche's own loader.

        What ``workers`` load comes in an order of our own too. A lone sample at the end of an epoch always joins the
        batch before it.
        """
        found = None if drop_last else find_tensors(self.adapted_dataset)
        task = self._task_label()
        if found is None and self.workers is not None and not drop_last:
            order = self._order() if shuffle else None
            self.dataloader = self._stream(
                self.train_mb_size, order=order, seed=self._transform_seed(), share=self.share
            )
            return
        if found is None or task is None:
            super().make_train_dataloader(shuffle=shuffle, drop_last=drop_last, **options)
            groups = getattr(self.dataloader, "datasets", [self.adapted_dataset])  # each has samples in every batch
            if len(groups) == 1 and count_batches(len(groups[0]), self.train_mb_size) < len(self.dataloader):
                self.dataloader = JoiningLoader(self.dataloader)
            return
        transform, seed = found.train_transform, self._transform_seed()
        loader: TensorLoader | MixedLoader
        if isinstance(found.samples, MixedSamples):
            loader = MixedLoader(found.samples, self.train_mb_size, self._order(), transform, seed, self.share)
        else:
            order = self._order() if shuffle else None
            loader = TensorLoader(found.samples, task, self.train_mb_size, order, transform, seed, share=self.share)
        self.dataloader = loader

    def _order(self) -> torch.Generator:
        """Return a new generator of the order of the experience's samples."""
        purpose = () if self.one_order else (self.experience.current_experience,)
        return generator(self.seed, "order", *purpose)

    def _transform_seed(self) -> int:
        return derive_seed(self.seed, "transform", self.experience.current_experience)

    def make_eval_dataloader(self, **options: Any) -> None:
        """Load batches from tensors, in order; other data uses Avalanche's own loader."""
        found, task = find_tensors(self.adapted_dataset), self._task_label()
        if found is None and self.workers is not None:
            self.dataloader = self._stream(self.eval_mb_size, join_lone=False)
            return
        if found is None or task is None:
            super().make_eval_dataloader(**options)
            return
        self.dataloader = TensorLoader(
            found.samples, task, self.eval_mb_size, transform=found.eval_transform, join_lone=False
        )

    def _stream(self, batch_size: int, **options: Any) -> StreamLoader:
        on_gpu = self.device.type == "cuda"
        return StreamLoader(self.adapted_dataset, batch_size, self.workers or 0, pin_memory=on_gpu, **options)

    def _task_label(self) -> int | None:
        """Return the one task label of the current data, 0 if it has none, or None if it has several."""
        labels = getattr(self.adapted_dataset, "targets_task_labels", None)
        if labels is None:
            return 0
        distinct = labels.uniques
        return int(next(iter(distinct))) if len(distinct) == 1 else None

    def _unpack_minibatch(self) -> None:
        """Skip Avalanche's transfer of batches that are on the device already; lay out the images."""
        if not isinstance(self.dataloader, TensorLoader | MixedLoader):
            super()._unpack_minibatch()
        if self.channels_last and self.mb_x.dim() == 4:
            self.mbatch[0] = self.mb_x.contiguous(memory_format=torch.channels_last)

    def training_epoch(self, **options: Any) -> None:
        """Run one epoch: the events and their order are Avalanche's, after one of ours, ``epoch_begins``.

        Learners in lockstep train it together, where they can (see :mod:`~cl_powerprop.training.stackable`).
        """
        before = listeners(self, "before_training_iteration")
        after = listeners(self, "after_training_iteration")
        with needs_two_samples(), self._keeping_graph() as frozen:
            trigger_plugins(self, "epoch_begins", **options)
            if self._trains_together():
                return
            steps = self._graphs.steps(frozen, options)
            for batch in steps.batches():
                if self._stop_training:
                    break
                steps.take(batch)
                for listener in before:
                    listener(self, **options)
                steps.make()
                for listener in after:
                    listener(self, **options)
        self.reuses_batch = False

    def eval(self, *arguments: Any, **options: Any) -> Any:
        """Evaluate as Avalanche does."""
        self._graphs.is_settled = False  # masks of other tasks are put in place meanwhile
        return super().eval(*arguments, **options)

    @property
    def position(self) -> tuple[int, int]:
        """The experience in training, and its epochs that are over."""
        return self.experience.current_experience, self.clock.train_exp_epochs

    def _trains_together(self) -> bool:
        """Train the epoch together with others, if there are any to train it with; return whether that was done."""
        if self.lockstep is None:
            return False
        epoch = Epoch(self)
        key = epoch.key() or ("alone", self.seed)
        if epoch.hindrance is not None and self.stacks:  # else it was told why
            self.lockstep.tell(f"seeds are trained one after the other: {epoch.hindrance}")
        return self.lockstep.meet(key, epoch, train_together, position=self.position)

    def _train_exp(self, experience: Any, eval_streams: Any = None, **options: Any) -> None:
        """Train one experience, from the epoch at which the clock stands: a checkpoint may have set it."""
        for _ in range(self.clock.train_exp_epochs, self.train_epochs):
            self._before_training_epoch(**options)
            if self._stop_training:
                self._stop_training = False
                break
            self.training_epoch(**options)
            self._after_training_epoch(**options)

    def _train_cleanup(self) -> None:
        super()._train_cleanup()
        if self.together is not None:
            self.together.release()
        self.together = None  # whose images and stacked weights are those of the task

    def task_progress(self) -> dict[str, Any]:
        """Return what training depends on that neither model nor optimizer has."""
        return {} if self._compiled is None else {"least_compiled": self._compiled.least}

    def load_task_progress(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`task_progress` returned."""
        self._least_compiled = state.get("least_compiled", 0)

    def eval_epoch(self, **options: Any) -> None:
        """Run over the evaluation loader: the events and their order are Avalanche's."""
        before_iteration, after_iteration = (
            listeners(self, "before_eval_iteration"),
            listeners(self, "after_eval_iteration"),
        )
        before_forward, after_forward = listeners(self, "before_eval_forward"), listeners(self, "after_eval_forward")

        def notify(listeners: list[Listener]) -> None:
            for listener in listeners:
                listener(self, **options)

        for self.mbatch in self.dataloader:  # noqa: B020 (Avalanche's own idiom: plugins read strategy.mbatch)
            self._unpack_minibatch()
            notify(before_iteration)
            notify(before_forward)
            self.mb_output = self.forward()
            notify(after_forward)
            self.loss = self.criterion()
            notify(after_iteration)
