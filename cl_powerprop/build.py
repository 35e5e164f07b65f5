"""From a config to the parts of a run. Every impossible combination is refused here, before anything trains."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from avalanche.training.plugins import EWCPlugin
from torch import nn

from cl_powerprop.config import (
    AdamConfig,
    EPNConfig,
    EvaluationConfig,
    EWCConfig,
    MaskingConfig,
    OmniglotConfig,
    OmniglotDataConfig,
    OmniglotRotationConfig,
    PackNetConfig,
    PermutedMNISTConfig,
    RotatedMNISTConfig,
    RunConfig,
    SGDConfig,
    SplitMNISTConfig,
    TrainConfig,
    shareable,
)
from cl_powerprop.data.dataset import Dataset, ImageDataset, data_root
from cl_powerprop.data.omniglot import SIDE, Omniglot
from cl_powerprop.data.registry import get_dataset, read_cached, read_omniglot_cached
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.models.build import build_model
from cl_powerprop.models.heads import TaskHeads
from cl_powerprop.record import RunRecord
from cl_powerprop.seeding import derive_seed
from cl_powerprop.sequences import TaskSequence
from cl_powerprop.sequences.base import Pixels, to_pixels
from cl_powerprop.sequences.omniglot import omniglot, omniglot_rotation
from cl_powerprop.sequences.permuted import permuted
from cl_powerprop.sequences.rotated import angles, rotated
from cl_powerprop.sequences.split import class_groups, split_by_class
from cl_powerprop.sparsity import ThetaSpaceStep, is_adaptive
from cl_powerprop.sparsity.masked_weight import maskable_layers, original
from cl_powerprop.strategies import EPNPlugin, NaivePlugin, PackNetPlugin
from cl_powerprop.strategies.epn import DEFAULT_SPARSITIES
from cl_powerprop.strategies.joint import JointPlugin
from cl_powerprop.strategies.masking import MaskingPlugin
from cl_powerprop.strategies.task_inference import EntropyTaskInference
from cl_powerprop.tracking import Sink
from cl_powerprop.tracking.pictures import RunPictures
from cl_powerprop.tracking.tensorboard_sink import TensorBoardSink
from cl_powerprop.tracking.wandb_sink import WandbSink
from cl_powerprop.training.augment import Augmentation
from cl_powerprop.training.schedule import Phase

SCENARIOS = ("task", "domain", "class")
HEADS = ("shared", "per_task")
BIASES = ("none", "per_task", "frozen")
SPACES = ("auto", "phi", "theta")
EVALUATION_SCHEDULES = ("every_task", "diagonal_and_last", "last")
TASK_INFERENCE = ("none", "entropy")
WANDB_MODES = ("online", "offline", "disabled")
EWC_MODES = ("online", "separate")
REFERENCES = ("joint", "independent", "untrained")


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ConfigurationError: if there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigurationError(f"unknown device {name!r}; choose from: auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigurationError(
            f"device={name}: torch finds {found or 'no'} CUDA device(s) here; use device=auto or cpu"
        )
    if device.type not in ("cpu", "cuda"):
        raise ConfigurationError(f"device={name} is not supported; choose from: auto, cpu, cuda, cuda:N")
    return device


def check(config: RunConfig) -> None:
    """Refuse what no part of a run can do.

    Raises:
        ConfigurationError: naming the option and what it can be.
    """
    _choice("benchmark.scenario", config.benchmark.scenario, SCENARIOS)
    _choice("model.heads", config.model.heads, HEADS)
    _choice("model.bias", config.model.bias, BIASES)
    _choice("optimizer.space", config.optimizer.space, SPACES)
    _choice("evaluation.schedule", config.evaluation.schedule, EVALUATION_SCHEDULES)
    train: TrainConfig = config.train
    for option in ("epochs", "batch_size", "eval_batch_size", "threads"):
        if getattr(train, option) < 1:
            raise ConfigurationError(f"train.{option} must be at least 1, not {getattr(train, option)}")
    if isinstance(config.optimizer, AdamConfig) and len(config.optimizer.betas) != 2:
        raise ConfigurationError(f"optimizer.betas must be two numbers, not {config.optimizer.betas}")
    _check_task_identity(config)
    _check_strategy(config)
    _check_within_task_evaluation(config)
    for name in config.references:
        _choice("references", name, REFERENCES)
    if config.logger.wandb is not None:
        _choice("logger.wandb.mode", config.logger.wandb.mode, WANDB_MODES)
        if not config.logger.wandb.timeout > 0:
            raise ConfigurationError(f"logger.wandb.timeout must be above 0, not {config.logger.wandb.timeout}")


def _check_strategy(config: RunConfig) -> None:
    strategy = config.strategy
    if isinstance(strategy, MaskingConfig):
        if not strategy.retrain_lr >= 0.0:
            raise ConfigurationError(f"strategy.retrain_lr must be at least 0, not {strategy.retrain_lr}")
        if strategy.retrain_epochs >= config.train.epochs:
            raise ConfigurationError(
                f"strategy.retrain_epochs={strategy.retrain_epochs} leaves no epoch to train of "
                f"train.epochs={config.train.epochs}, which counts both"
            )
    if isinstance(strategy, EWCConfig):
        _choice("strategy.mode", strategy.mode, EWC_MODES)
        for option, value in (("penalty", strategy.penalty), ("decay", strategy.decay)):
            if not 0.0 <= value < float("inf"):
                raise ConfigurationError(f"strategy.{option} must be at least 0, not {value}")


def _check_within_task_evaluation(config: RunConfig) -> None:
    evaluation: EvaluationConfig = config.evaluation
    for option, value in (("every_epochs", evaluation.every_epochs), ("every_steps", evaluation.every_steps)):
        if value is None:
            continue
        if value < 1:
            raise ConfigurationError(f"evaluation.{option} must be at least 1, or null, not {value}")
        if isinstance(config.strategy, MaskingConfig) and config.strategy.task_inference != "none":
            raise ConfigurationError(
                f"evaluation.{option} needs to know the task: one in training has no mask yet to be inferred by"
            )
    if evaluation.every_epochs is not None and evaluation.every_steps is not None:
        raise ConfigurationError("choose one of evaluation.every_epochs and evaluation.every_steps")


def _check_task_identity(config: RunConfig) -> None:
    """Refuse a run whose tests could not know which mask, network or head to use."""
    masked = isinstance(config.strategy, MaskingConfig)
    if masked:
        _choice("strategy.task_inference", config.strategy.task_inference, TASK_INFERENCE)
        if config.strategy.inference_batch < 1:
            raise ConfigurationError(
                f"strategy.inference_batch must be at least 1, not {config.strategy.inference_batch}"
            )
    scenario, name = config.benchmark.scenario, config.strategy.name
    inferred = masked and config.strategy.task_inference != "none"
    if scenario == "task":
        if inferred:
            raise ConfigurationError(
                "strategy.task_inference is for benchmark.scenario=domain and class; with task the task is known"
            )
        return
    if inferred:
        return
    if masked or name == "independent" or config.model.heads == "per_task":
        own = f"strategy={name}" if masked or name == "independent" else "model.heads=per_task"
        remedy = "; strategy.task_inference=entropy infers it" if masked else ""
        raise ConfigurationError(
            f"{own} needs to know the task when it is tested; benchmark.scenario={scenario} does not say{remedy}"
        )


def _choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{option} must be one of {', '.join(choices)}, not {value!r}")


def load_pixels(config: RunConfig, device: torch.device) -> tuple[ImageDataset, Pixels, Pixels]:
    """Read the data, fetching it first if that is asked for: (data set, training pictures, test pictures).

    Raises:
        ConfigurationError: for a data set that is not divided into training and test pictures.
    """
    dataset, root = _fetched(config)
    if not isinstance(dataset, ImageDataset):
        raise ConfigurationError(
            f"data={dataset.name} is for benchmark=omniglot and omniglot_rotation; choose other data, such as mnist5k"
        )
    images = read_cached(dataset, root)
    train = to_pixels(dataset, images.train_images, images.train_labels, device)
    return dataset, train, to_pixels(dataset, images.test_images, images.test_labels, device)


def _fetched(config: RunConfig) -> tuple[Dataset, Path]:
    dataset, root = get_dataset(config.data.name), data_root(config.data.root)
    if config.data.download:
        dataset.download(root)
    return dataset, root


def load_sequence(config: RunConfig, device: torch.device) -> TaskSequence:
    """Read the data and make the tasks; they depend on the seed, never on the strategy."""
    benchmark = config.benchmark
    common: dict[str, Any] = {"scenario": benchmark.scenario, "validation": benchmark.validation, "seed": config.seed}
    if isinstance(benchmark, OmniglotConfig):
        return _load_omniglot(config, benchmark, device, common)
    dataset, train, test = load_pixels(config, device)
    if isinstance(benchmark, SplitMNISTConfig):
        groups = class_groups(dataset.classes, benchmark.n_tasks, benchmark.classes)
        return split_by_class(train, test, dataset.classes, groups=groups, **common)
    if isinstance(benchmark, RotatedMNISTConfig):
        degrees = angles(benchmark.n_tasks, benchmark.angles, benchmark.largest, benchmark.order, config.seed)
        return rotated(train, test, dataset.classes, degrees=degrees, **common)
    assert isinstance(benchmark, PermutedMNISTConfig)
    return permuted(
        train,
        test,
        dataset.classes,
        n_tasks=benchmark.n_tasks,
        permute_first=benchmark.permute_first,
        **common,
    )


def _load_omniglot(
    config: RunConfig, benchmark: OmniglotConfig, device: torch.device, common: dict[str, Any]
) -> TaskSequence:
    if not isinstance(config.data, OmniglotDataConfig):
        raise ConfigurationError(f"benchmark={benchmark.name} needs data=omniglot, not {config.data.name}")
    if not 1 <= config.data.size <= SIDE:
        raise ConfigurationError(f"data.size must be from 1 to {SIDE}, not {config.data.size}")
    dataset, root = _fetched(config)
    assert isinstance(dataset, Omniglot)
    drawings = read_omniglot_cached(dataset, root, config.data.size)
    options = {**common, "n_tasks": benchmark.n_tasks, "order": benchmark.order, "test": benchmark.test}
    if isinstance(benchmark, OmniglotRotationConfig):
        return omniglot_rotation(dataset, drawings, device, split_by=benchmark.split_by, **options)  # type: ignore[arg-type]
    return omniglot(dataset, drawings, device, **options)


def model_architecture(config: RunConfig, sequence: TaskSequence) -> dict[str, Any]:
    """Return the arguments of :func:`build_model`: saved with the weights, they rebuild the network."""
    return {
        **asdict(config.model),
        "sample_shape": list(sequence.sample_shape),
        "classes": list(sequence.classes),
        "init_seed": derive_seed(config.seed, "init"),
        "independent": config.strategy.name == "independent",
    }


def make_model(architecture: dict[str, Any], device: torch.device) -> nn.Module:
    """Return the network on the device."""
    return build_model(**architecture).to(device)


def make_optimizer(config: SGDConfig | AdamConfig, model: nn.Module, alpha: float) -> torch.optim.Optimizer:
    """Return the optimizer, stepping in theta-space where that is asked for or, by "auto", called for.

    Raises:
        ConfigurationError: for a value that torch refuses.
    """
    # Decay is what makes weights sparse; heads, biases and norms are left out of it.
    weights = {id(original(layer, "weight")) for layer in maskable_layers(model, exclude=(TaskHeads,)).values()}
    decayed = [value for value in model.parameters() if id(value) in weights]
    others = [value for value in model.parameters() if id(value) not in weights]
    groups: list[dict[str, Any]] = [{"params": decayed}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    try:
        optimizer: torch.optim.Optimizer
        if isinstance(config, SGDConfig):
            optimizer = torch.optim.SGD(
                groups,
                fused=True,
                lr=config.lr,
                momentum=config.momentum,
                nesterov=config.nesterov,
                weight_decay=config.weight_decay,
            )
        else:
            kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
            betas = (config.betas[0], config.betas[1])
            optimizer = kind(groups, fused=True, lr=config.lr, betas=betas, weight_decay=config.weight_decay)
    except (ValueError, IndexError) as error:
        raise ConfigurationError(f"optimizer: {error}") from error
    if alpha != 1.0 and (config.space == "theta" or (config.space == "auto" and is_adaptive(optimizer))):
        ThetaSpaceStep(optimizer, model)
    return optimizer


def make_plugin(config: RunConfig, validation: Sequence[Any]) -> NaivePlugin | MaskingPlugin:
    """Return the strategy's plugin; ``validation`` is the Avalanche stream that masks are chosen on."""
    strategy = config.strategy
    if not isinstance(strategy, MaskingConfig):
        return JointPlugin() if strategy.name == "joint" else NaivePlugin()
    unmasked = "per_task" if config.model.bias == "per_task" else "frozen"
    common: dict[str, Any] = {"retrain_epochs": strategy.retrain_epochs, "unmasked": unmasked, "seed": config.seed}
    if isinstance(strategy, PackNetConfig):
        return PackNetPlugin.for_tasks(config.benchmark.n_tasks, strategy.shares, **common)
    assert isinstance(strategy, EPNConfig)
    return EPNPlugin(
        gamma=strategy.gamma,
        sparsities=DEFAULT_SPARSITIES if strategy.sparsities is None else strategy.sparsities,
        search=strategy.search,  # type: ignore[arg-type]
        scope=strategy.scope,  # type: ignore[arg-type]
        criterion=strategy.criterion,  # type: ignore[arg-type]
        train_through=strategy.train_through,  # type: ignore[arg-type]
        validation=validation,
        **common,
    )


def make_penalties(config: RunConfig) -> list[EWCPlugin]:
    """Return the plugins that add to the loss."""
    strategy = config.strategy
    if not isinstance(strategy, EWCConfig):
        return []
    return [EWCPlugin(strategy.penalty, strategy.mode, strategy.decay if strategy.mode == "online" else None)]


def make_task_inference(config: RunConfig, plugin: NaivePlugin | MaskingPlugin) -> EntropyTaskInference | None:
    """Return what tells tasks apart in a test that does not name them, if that is asked for."""
    if isinstance(plugin, MaskingPlugin) and config.strategy.task_inference == "entropy":
        return EntropyTaskInference(plugin, config.strategy.inference_batch)
    return None


def make_augmentation(config: RunConfig) -> Augmentation | None:
    """Return what is done to training batches, if anything.

    Raises:
        ConfigurationError: for a negative or infinite shift or rotation.
    """
    train: TrainConfig = config.train
    augmentation = Augmentation(train.shift, train.rotate)
    return augmentation if train.shift or train.rotate else None


def make_sinks(
    config: RunConfig, record: RunRecord, steps: Sequence[int], multirun: str | None, purge: int | None = None
) -> dict[str, Callable[[], Sink]]:
    """Return what opens each dashboard that the run's measurements go to, by name.

    Args:
        config: of the run.
        record: of the run.
        steps: optimizer steps that each experience takes.
        multirun: name of the multirun that the run is a job of, None for a run alone.
        purge: optimizer step from which on a resumed run measures again, None for a run from its start.
    """
    sinks: dict[str, Callable[[], Sink]] = {}
    pictures = RunPictures(record.folder.path)
    settings = shareable(config)
    del settings["logger"], settings["run_dir"], settings["pruning"]
    wandb, tensorboard = config.logger.wandb, config.logger.tensorboard
    if tensorboard is not None:
        sinks["TensorBoard"] = lambda: TensorBoardSink(tensorboard, settings, record, pictures, purge)
    if wandb is not None and wandb.mode != "disabled":
        sinks["W&B"] = lambda: WandbSink(wandb, settings, record, steps, multirun, pictures)
    return sinks


def is_resumable(config: RunConfig) -> bool:
    """Return whether network and masks between two tasks are all that the next one needs."""
    return config.strategy.name not in ("ewc", "joint", "untrained")


def phases(config: RunConfig) -> list[Phase]:
    """Return the phases of a task's learning rate: training and, where there is one, retraining."""
    strategy, epochs = config.strategy, config.train.epochs
    if not isinstance(strategy, MaskingConfig) or strategy.retrain_epochs == 0:
        return [Phase(epochs)]
    return [Phase(epochs - strategy.retrain_epochs), Phase(strategy.retrain_epochs, strategy.retrain_lr)]
