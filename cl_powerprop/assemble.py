"""From a config to the parts of a run. Nothing is written or printed, and nothing is trained."""

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from cl_powerprop.config import RunConfig
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.evaluation.plan import EvaluationPlan
from cl_powerprop.limits import check_device
from cl_powerprop.networks.blank import check_memory
from cl_powerprop.networks.build import build_model
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.optimizers.base import OptimizerConfig
from cl_powerprop.parts import Parts
from cl_powerprop.plugins.sparse_training import SparseTraining
from cl_powerprop.registry import find
from cl_powerprop.sections import TrainConfig
from cl_powerprop.seeding import derive_seed
from cl_powerprop.source import DataSource
from cl_powerprop.sparsity import ThetaSpaceStep, is_adaptive
from cl_powerprop.sparsity.maskable import maskable_weights
from cl_powerprop.strategies.base import Context, Strategy
from cl_powerprop.tasks import TaskSequence
from cl_powerprop.torchrun import place
from cl_powerprop.training.augment import Augmentation
from cl_powerprop.training.benchmark import to_avalanche
from cl_powerprop.training.clipping import GradientClipping
from cl_powerprop.training.distributed import DistributedTemplate
from cl_powerprop.training.fast import FastSupervisedTemplate
from cl_powerprop.training.schedule import LearningRateSchedule
from cl_powerprop.training.step_limit import StepLimit

log = logging.getLogger("cl_powerprop")


def assemble(config: RunConfig, sequence: TaskSequence | None = None) -> Parts:
    """Return the parts of a run.

    Args:
        config: which parts they are.
        sequence: its tasks, if they are loaded already.

    Raises:
        ConfigurationError: for a value that only shows to be impossible with the data, the model or the machine.
        DataError: if the data is missing or damaged.
    """
    torch.set_num_threads(config.train.threads)
    torch.manual_seed(derive_seed(config.seed, "torch"))
    device = choose_device(config.device)
    repeat_to_the_bit(device)
    sequence = sequence or load_sequence(config, device)
    strategy = config.make_strategy()
    # Pictures that are read whenever they are needed are cropped as they are read.
    cropped = config.train if sequence.workers is None else replace(config.train, crop=1.0)
    trained = strategy.training_samples(sequence.tasks)
    _warn_of_small_data(config.train.batch_size, min(map(len, trained)))
    benchmark = to_avalanche(sequence, make_augmentation(cropped), trained, crop=config.train.crop)
    config = _with_steps_of_experience(config, len(sequence) / len(trained))
    architecture = strategy.architecture(describe_model(config, sequence))
    check_memory(architecture)
    model = build_model(**architecture).to(device)
    strategy.check_model(model)
    context = Context(
        seed=config.seed,
        n_tasks=len(sequence),
        epochs=config.train.epochs,
        bias=config.model.bias,
        validation=benchmark.streams["valid"],
    )
    plugins = [*training_plugins(config, strategy), *strategy.plugins(context)]
    learner = make_learner(config, model, plugins, device, one_order=sequence.is_whole, workers=sequence.workers)
    parts = Parts(
        benchmark,
        learner=learner,
        strategy=strategy,
        plan=make_plan(config, strategy, len(sequence)),
        task_names=[task.name for task in sequence.tasks],
        architecture=architecture,
        train_options={"reset_optimizer_state": True},  # a task begins without the moments of the one before
        steps_a_task=config.train.steps,
    )
    parts.sparsity = make_sparse_training(config, parts)
    return parts


def _warn_of_small_data(batch_size: int, samples: int) -> None:
    """Say that a batch has fewer samples than was asked for; a step then takes all there are."""
    if batch_size > samples:
        log.warning(f"train.batch_size={batch_size} is more than the {samples:,} samples to train on: a step takes all")


def _with_steps_of_experience(config: RunConfig, tasks: float) -> RunConfig:
    """Return the config with `train.steps` for an experience, which trains several tasks if the strategy mixes them."""
    train = config.train
    return config if train.steps is None else replace(config, train=replace(train, steps=round(train.steps * tasks)))


def make_sparse_training(config: RunConfig, parts: Parts) -> SparseTraining | None:
    """Put the sparse training that a config asks for, if any, on the learner, and return it.

    Raises:
        ConfigurationError: for a value that does not fit the network, or the length of the training.
    """
    learner, steps = parts.learner, sum(parts.steps())
    make = find("sparsity", config.sparsity.name).make
    try:
        controller = make(learner.model, learner.optimizer, config.sparsity, steps=steps, seed=config.seed)
    except ConfigurationError as error:
        option = str(error).partition(" ")[0].rstrip(":")
        known = option in vars(config.sparsity)
        raise ConfigurationError(f"sparsity.{error}" if known else str(error)) from error
    if controller is None:
        return None
    sparsity = SparseTraining(controller, steps, getattr(config.sparsity, "curve", ()))
    learner.plugins.insert(learner.plugins.index(learner.clock), sparsity)  # the clock counts the epoch afterwards
    return sparsity


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ConfigurationError: if there is no such device here.
    """
    check_device(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device, here = torch.device(name), place()
    if here.ranks > 1 and device.type == "cuda":
        if device.index is not None:
            raise ConfigurationError(
                f"device={name} is one GPU for {here.ranks} processes; device=cuda is one for each"
            )
        device = torch.device("cuda", here.local_rank)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigurationError(
            f"device={device}: torch finds {found or 'no'} CUDA device(s) here; use device=auto or cpu"
        )
    return device


def repeat_to_the_bit(device: torch.device) -> None:
    """Let a GPU compute the same numbers again; torch warns of an operation for which it has no such way."""
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # by a kernel for every new tensor, as debugging asks for


def load_sequence(config: RunConfig, device: torch.device) -> TaskSequence:
    """Read the data and make the tasks; they depend on the seed, never on the strategy."""
    make = find("benchmark", config.benchmark.name).make
    sequence: TaskSequence = make(config.benchmark, DataSource(config.data, device), config.seed)
    return sequence


def describe_model(config: RunConfig, sequence: TaskSequence) -> dict[str, Any]:
    """Return the arguments of :func:`build_model`: saved with the weights, they rebuild the network."""
    return {
        **asdict(config.model),
        "sample_shape": list(sequence.sample_shape),
        "classes": list(sequence.classes),
        "init_seed": derive_seed(config.seed, "init"),
        "independent": False,
    }


def make_optimizer(config: OptimizerConfig, model: nn.Module, alpha: float) -> torch.optim.Optimizer:
    """Return the optimizer, stepping in theta-space where that is asked for or, by "auto", called for.

    Raises:
        ConfigurationError: for a value that torch refuses.
    """
    # Decay is what makes weights sparse; heads, biases and norms are left out of it.
    maskable = maskable_weights(model, exclude=(TaskHeads,)).values()
    weights = {id(value) for weight in maskable for value in weight.trained}
    decayed = [value for value in model.parameters() if id(value) in weights]
    others = [value for value in model.parameters() if id(value) not in weights]
    groups: list[dict[str, Any]] = [{"params": decayed}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    try:
        optimizer: torch.optim.Optimizer = find("optimizer", config.name).make(groups, config)
    except (ValueError, IndexError) as error:
        raise ConfigurationError(f"optimizer: {error}") from error
    single = all(len(weight.trained) == 1 for weight in maskable)
    asked = config.space == "theta" or config.power is not None
    if alpha != 1.0 and (asked or (config.space == "auto" and single and is_adaptive(optimizer))):
        ThetaSpaceStep(optimizer, model, config.power)
    return optimizer


def make_augmentation(train: TrainConfig) -> Augmentation | None:
    """Return what is done to training batches, if anything.

    Raises:
        ConfigurationError: for an impossible amount.
    """
    return Augmentation(train.shift, train.rotate, train.crop, train.flip) or None


def training_plugins(config: RunConfig, strategy: Strategy) -> list[Any]:
    """Return the plugins that every strategy trains with.

    Raises:
        ConfigurationError: for an unknown schedule, or an impossible warm-up or norm.
    """
    train = config.train
    phases = config.sparsity.phases(strategy.phases(train.epochs))
    plugins: list[Any] = [LearningRateSchedule(train.schedule, phases, train.warmup, train.steps)]
    plugins += [] if train.clip_norm is None else [GradientClipping(train.clip_norm)]
    return plugins if train.steps is None else [*plugins, StepLimit(train.steps)]


def make_learner(
    config: RunConfig,
    model: nn.Module,
    plugins: Sequence[Any],
    device: torch.device,
    one_order: bool = False,
    workers: int | None = None,
) -> FastSupervisedTemplate:
    """Return Avalanche's strategy object, which trains the model."""
    train = config.train
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No loggers specified")
        template = FastSupervisedTemplate if place().ranks == 1 else DistributedTemplate
        return template(
            model=model,
            optimizer=make_optimizer(config.optimizer, model, config.model.alpha),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=train.batch_size,
            train_epochs=train.epochs if train.steps is None else train.steps,
            eval_mb_size=train.eval_batch_size,
            device=device,
            plugins=list(plugins),
            evaluator=None,
            seed=config.seed,
            precision=train.precision,
            compile=train.compile,
            one_order=one_order,
            channels_last=train.channels_last,
            label_smoothing=train.label_smoothing,
            workers=workers,
            cuda_graphs=train.cuda_graphs if place().ranks == 1 else "false",
        )


def make_plan(config: RunConfig, strategy: Strategy, n_tasks: int) -> EvaluationPlan:
    """Return which tasks are tested when; a task's own head is of no use before the task is learned."""
    tests_unseen = strategy.tests_unseen and config.model.heads != "per_task"
    return EvaluationPlan(n_tasks, tests_unseen=tests_unseen, **asdict(config.evaluation))
