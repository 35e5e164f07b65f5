"""The typed shape of a run's config. Values and their comments stand in `conf/`; a wrong type or key ends here."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.privacy import redact_all

CONF = Path(__file__).parent / "conf"
if not CONF.exists():  # a source checkout keeps the configs beside the package
    CONF = Path(__file__).parent.parent / "conf"


@dataclass
class PermutedMNISTConfig:
    """`benchmark=permuted_mnist`."""

    name: str
    n_tasks: int
    scenario: str
    validation: float
    permute_first: bool


@dataclass
class RotatedMNISTConfig:
    """`benchmark=rotated_mnist`."""

    name: str
    n_tasks: int
    scenario: str
    validation: float
    angles: list[float] | None
    largest: float
    order: str


@dataclass
class SplitMNISTConfig:
    """`benchmark=split_mnist`."""

    name: str
    n_tasks: int
    scenario: str
    validation: float
    classes: list[list[int]] | None = None


@dataclass
class OmniglotConfig:
    """`benchmark=omniglot`."""

    name: str
    n_tasks: int
    scenario: str
    validation: float
    test: float
    order: str


@dataclass
class OmniglotRotationConfig(OmniglotConfig):
    """`benchmark=omniglot_rotation`."""

    split_by: str


@dataclass
class DataConfig:
    """`data=*`."""

    name: str
    root: str | None
    download: bool


@dataclass
class OmniglotDataConfig(DataConfig):
    """`data=omniglot`."""

    size: int


@dataclass
class ModelConfig:
    """What every `model` has; `model=lenet5` has no more."""

    name: str
    alpha: float
    init_scale: float
    heads: str
    bias: str


@dataclass
class MLPConfig(ModelConfig):
    """`model=mlp` and `model=lenet_300_100`."""

    hidden: list[int]


@dataclass
class ConvConfig(ModelConfig):
    """`model=convnet` and `model=resnet18`."""

    width: int
    norm: str


@dataclass
class StrategyConfig:
    """What every `strategy` has; naive and the references (joint, independent, untrained) have no more."""

    name: str


@dataclass
class EWCConfig(StrategyConfig):
    """`strategy=ewc`."""

    penalty: float
    mode: str
    decay: float


@dataclass(kw_only=True)
class MaskingConfig(StrategyConfig):
    """What strategies with masks have."""

    retrain_epochs: int
    retrain_lr: float
    task_inference: str = "none"  # defaults are for run folders from before the option
    inference_batch: int = 100


@dataclass(kw_only=True)
class PackNetConfig(MaskingConfig):
    """`strategy=packnet`. `shares` is a number, a list of numbers or null."""

    shares: Any


@dataclass(kw_only=True)
class EPNConfig(MaskingConfig):
    """`strategy=epn`."""

    gamma: float
    sparsities: list[float] | None
    search: str
    scope: str
    criterion: str
    train_through: str


@dataclass
class SGDConfig:
    """`optimizer=sgd`."""

    name: str
    space: str
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float


@dataclass
class AdamConfig:
    """`optimizer=adam` and `optimizer=adamw`."""

    name: str
    space: str
    lr: float
    betas: list[float]
    weight_decay: float


@dataclass
class TrainConfig:
    """`train`: the loop."""

    epochs: int
    batch_size: int
    eval_batch_size: int
    schedule: str
    warmup: float
    clip_norm: float | None
    threads: int
    precision: str = "fp32"
    compile: bool = False
    shift: float = 0.0
    rotate: float = 0.0


@dataclass
class EvaluationConfig:
    """`evaluation`: when the tasks learned so far are tested, between tasks and within them."""

    schedule: str = "every_task"
    every_epochs: int | None = None
    every_steps: int | None = None


@dataclass
class WandbConfig:
    """`logger=[wandb]`."""

    mode: str
    project: str
    entity: str | None
    group: str | None
    job_type: str | None
    name: str | None
    tags: list[str]
    figures: bool
    log_model: bool
    dir: str
    timeout: float


@dataclass
class TensorBoardConfig:
    """`logger=[tensorboard]`."""

    figures: bool


@dataclass
class LoggerConfig:
    """`logger`: where a run's measurements go, beside its folder."""

    wandb: WandbConfig | None = None
    tensorboard: TensorBoardConfig | None = None


@dataclass
class PruningConfig:
    """`pruning`: the single-task experiment, in place of a task sequence."""

    alphas: list[float]
    seeds: list[int]
    steps: int
    lrs: list[float]
    batch_size: int
    hidden: list[int]
    densities: list[float]


@dataclass
class RunConfig:
    """A whole run. The groups are typed by their `name`."""

    benchmark: Any
    data: Any
    model: Any
    strategy: Any
    optimizer: Any
    train: TrainConfig
    seed: int
    device: str
    progress: bool
    save_model: bool
    run_dir: str
    pruning: PruningConfig | None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    references: list[str] = field(default_factory=list)
    references_dir: str = "runs/references"
    logger: LoggerConfig = field(default_factory=LoggerConfig)


GROUPS: dict[str, dict[str, type]] = {
    "benchmark": {
        "permuted_mnist": PermutedMNISTConfig,
        "rotated_mnist": RotatedMNISTConfig,
        "split_mnist": SplitMNISTConfig,
        "omniglot": OmniglotConfig,
        "omniglot_rotation": OmniglotRotationConfig,
    },
    "data": {
        **dict.fromkeys(("mnist5k", "mnist", "fashion_mnist", "kmnist", "digits"), DataConfig),
        "omniglot": OmniglotDataConfig,
    },
    "model": {
        **dict.fromkeys(("mlp", "lenet_300_100"), MLPConfig),
        "lenet5": ModelConfig,
        **dict.fromkeys(("convnet", "resnet18"), ConvConfig),
    },
    "strategy": {
        **dict.fromkeys(("naive", "joint", "independent", "untrained"), StrategyConfig),
        "ewc": EWCConfig,
        "packnet": PackNetConfig,
        "epn": EPNConfig,
    },
    "optimizer": {"sgd": SGDConfig, "adam": AdamConfig, "adamw": AdamConfig},
}


def parallel_jobs(device: str, threads: int) -> int:
    """Return how many jobs of a multirun to run at a time: one for each ``threads`` cores, and one only on a GPU.

    Torch is not asked: the process that starts the jobs does not import it.
    """
    import joblib

    on_gpu = device.startswith("cuda") or (device == "auto" and Path("/dev/nvidia0").exists())
    return 1 if on_gpu else max(1, joblib.cpu_count() // max(1, threads))


OmegaConf.register_new_resolver("parallel_jobs", parallel_jobs, replace=True)


def parse(config: DictConfig) -> RunConfig:
    """Return the typed config of a composed one.

    Raises:
        ConfigurationError: for a name that does not exist, a key that does not exist, or a value of the wrong type.
    """
    groups = {}
    for group, choices in GROUPS.items():
        name = OmegaConf.select(config, f"{group}.name")
        if name not in choices:
            raise ConfigurationError(f"unknown {group} {name!r}; choose from: {', '.join(choices)}")
        groups[group] = _typed(choices[name], config[group], group)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    untyped: dict[Any, Any] = {**plain, **dict.fromkeys(GROUPS)}
    parsed: RunConfig = _typed(RunConfig, OmegaConf.create(untyped), "")
    for group, value in groups.items():
        setattr(parsed, group, value)
    return parsed


def load_config(folder: Path) -> RunConfig:
    """Return the config of a run folder.

    Raises:
        ConfigurationError: if it cannot be read, or was written by a version that had other options.
    """
    try:
        loaded = OmegaConf.load(folder / "config.yaml")
    except (OSError, YAMLError) as error:
        raise ConfigurationError(f"{folder / 'config.yaml'} cannot be read: {error}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigurationError(f"{folder / 'config.yaml'} is damaged")
    loaded.pop("defaults", None)
    loaded["run_dir"] = str(folder)  # in the file stands the pattern for a new one
    return parse(loaded)


def shareable(config: RunConfig) -> dict[str, Any]:
    """Return the config without what says where one user's files are: absolute paths to data and other runs."""
    values = asdict(config)
    defaults = {field.name: field.default for field in fields(RunConfig)}
    values["run_dir"] = "runs/${now:%Y-%m-%d}/${now:%H-%M-%S-%f}"  # the repeated run gets a folder of its own
    if _is_private(values["data"]["root"]):
        values["data"]["root"] = None
    if _is_private(values["references_dir"]):
        values["references_dir"] = defaults["references_dir"]
    wandb = values["logger"]["wandb"]
    if wandb is not None and _is_private(wandb["dir"]):
        wandb["dir"] = "runs"
    redacted: dict[str, Any] = redact_all(values)
    return redacted


def _is_private(path: str | None) -> bool:
    return path is not None and (Path(path).is_absolute() or path.startswith("~") or ".." in Path(path).parts)


def repeatable_yaml(config: RunConfig) -> str:
    """Return the config as YAML that `cl-powerprop run --config-dir RUN --config-name config` repeats the run with.

    A data folder that was given as an absolute path is the user's to give again.
    """
    values = shareable(config)
    return "defaults:\n  - base\n  - _self_\n\n" + OmegaConf.to_yaml(OmegaConf.create(values))


def _typed(schema: type, values: Any, where: str) -> Any:
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
    except OmegaConfBaseException as error:
        key = ".".join(part for part in (where, str(error.full_key or "")) if part)
        raise ConfigurationError(f"{key}: {str(error.msg or error).splitlines()[0]}") from error
