"""A run's config: its typed shape, from Hydra's composed one, and what a run can never do. Imports no torch.

Each part's options stand beside the part; their values and comments in `conf/`.
"""

import functools
import os
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from cl_powerprop.data.dataset import DataConfig
from cl_powerprop.errors import ConfigurationError, check_choice, unknown_option
from cl_powerprop.limits import check_device, check_numbers, check_power, check_seed
from cl_powerprop.models.base import ModelConfig
from cl_powerprop.naming import flat
from cl_powerprop.optimizers.base import OptimizerConfig
from cl_powerprop.privacy import redact_options
from cl_powerprop.registry import BY_NAME, find, parts
from cl_powerprop.secret_values import is_left_out
from cl_powerprop.sections import CheckpointConfig, EvaluationConfig, TrainConfig
from cl_powerprop.sequences.base import SequenceConfig
from cl_powerprop.sparse_training.base import SparsityConfig
from cl_powerprop.strategies.base import Strategy, StrategyConfig
from cl_powerprop.torchrun import check_batch, place


@dataclass(kw_only=True)
class RunOptions:
    """What every run has, whatever its parts."""

    train: TrainConfig
    seed: int
    device: str
    progress: bool
    save_model: bool
    run_dir: str
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    references: list[str] = field(default_factory=list)
    references_dir: str = "runs/references"
    resume: str = "auto"
    seeds_together: int = 1

    def __post_init__(self) -> None:
        self.run_dir = os.path.expanduser(self.run_dir)
        self.references_dir = os.path.expanduser(self.references_dir)


@dataclass(kw_only=True)
class RunConfig(RunOptions):
    """A whole run: its parts, each with the options of its kind, and what every run has.

    Attributes:
        logger: the options of each sink by its name.
    """

    benchmark: SequenceConfig
    data: DataConfig
    model: ModelConfig
    strategy: StrategyConfig
    optimizer: OptimizerConfig
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)
    logger: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what no run can do, before anything is loaded.

        Raises:
            ConfigurationError: naming the option and what it can be.
        """
        check_device(self.device)
        check_choice("resume", self.resume, RESUME)
        check_seed(self.seed)
        self._check_seeds_together()
        parts = (self.benchmark, self.data, self.model, self.optimizer, self.sparsity, self.train, self.evaluation)
        self.checkpoint.check()
        for part in parts:
            part.check()
        for section in (*GROUPS, "train", "evaluation", "checkpoint"):
            check_numbers(section, getattr(self, section))
            _check_given(section, getattr(self, section))
        for name, sink in self.logger.items():
            check_numbers(f"logger.{name}", sink)
        check_batch(self.train.batch_size)
        self.benchmark.check_data(find("data", self.data.name).make())
        self.strategy.check(self.train.epochs)
        self.strategy.check_tasks(self.benchmark.n_tasks)
        strategy = self.make_strategy()
        check_power(self.optimizer.power, self.model.alpha)
        self._check_product(strategy)
        self._check_task_identity(strategy)
        self.sparsity.check_strategy(self.strategy.name, strategy, self.benchmark.n_tasks)
        if self.train.steps is not None and len(strategy.phases(self.train.epochs)) > 1:
            raise ConfigurationError(
                f"train.steps={self.train.steps}: strategy={self.strategy.name} divides a task's epochs between "
                "training and retraining; give train.epochs"
            )
        if self.evaluation.within_tasks and strategy.infers_task:
            option = "every_steps" if self.evaluation.every_epochs is None else "every_epochs"
            raise ConfigurationError(
                f"evaluation.{option} needs to know the task: one in training has no mask yet to be inferred by"
            )
        if not self.evaluation.tests:
            self.sparsity.check_untested()
            if self.references:
                raise ConfigurationError("references are tested, and evaluation.schedule=never tests nothing")
        for name in self.references:
            check_choice("references", name, REFERENCES)
            replace(self, strategy=StrategyConfig(name=name), sparsity=SparsityConfig(), references=[]).check()
        for sink in self.logger.values():
            sink.check()

    def _check_seeds_together(self) -> None:
        if not 1 <= self.seeds_together <= MOST_SEEDS:
            raise ConfigurationError(f"seeds_together must be from 1 to {MOST_SEEDS}, not {self.seeds_together}")
        if self.seeds_together == 1:
            return
        if place().ranks > 1:
            raise ConfigurationError(
                f"seeds_together={self.seeds_together} is one process for several runs; torchrun starts several for one"
            )
        check_seed(self.seed + self.seeds_together - 1)
        for sink in self.logger.values():
            sink.check_together()

    def make_strategy(self) -> Strategy:
        """Return a new strategy with its options."""
        strategy: Strategy = find("strategy", self.strategy.name).make(self.strategy)
        return strategy

    def _check_product(self, strategy: Strategy) -> None:
        """Refuse what needs a weight that one tensor stands for, if weights are products."""
        if self.model.reparam != "product":
            return
        if strategy.gives_masks:
            raise ConfigurationError(
                f"strategy={self.strategy.name} cannot freeze a product of two factors; use model.reparam=powerprop"
            )
        if self.optimizer.space == "theta" or self.optimizer.power is not None:
            raise ConfigurationError(
                "model.reparam=product has no step in theta-space; leave optimizer.space and optimizer.power out"
            )

    def _check_task_identity(self, strategy: Strategy) -> None:
        """Refuse a run whose tests could not know which mask, network or head to use."""
        scenario = self.benchmark.scenario
        if scenario == "task":
            if strategy.infers_task:
                raise ConfigurationError(
                    "the task is inferred for benchmark.scenario=domain and class; with task it is known "
                    "(strategy.task_inference=none)"
                )
            return
        if strategy.infers_task:
            return
        if strategy.needs_task or self.model.heads == "per_task":
            own, hint = "model.heads=per_task", "model.heads=shared does not"
            if strategy.needs_task:
                own, hint = f"strategy={self.strategy.name}", strategy.task_hint
            raise ConfigurationError(
                f"{own} needs to know the task when it is tested; benchmark.scenario={scenario} does not say"
                + (f"; {hint}" if hint else "")
            )


GROUPS = ("benchmark", "data", "model", "strategy", "optimizer", "sparsity")
OPTIONAL = {"sparsity": "none"}  # what a config without the group has: those of earlier versions are without it
REFERENCES = ("joint", "independent", "untrained")
RESUME = ("auto", "never")
MOST_SEEDS = 1024  # that are trained together
BEGINNING = "defaults:\n  - base\n  - _self_\n\n"  # of each config that is written
RUN_DIR = "runs/${now:%Y-%m-%d}/${now:%H-%M-%S-%f}"  # the default, which is written instead of a user's own


def parallel_jobs(device: str, threads: int) -> int:
    """Return how many jobs of a multirun to run at a time: one for each ``threads`` cores, and one only on a GPU.

    Torch is not asked: the process that starts the jobs does not import it.
    """
    import joblib

    on_gpu = device.startswith("cuda") or (device == "auto" and Path("/dev/nvidia0").exists())
    return 1 if on_gpu else max(1, joblib.cpu_count() // max(1, threads))


def variable(name: str, default: str) -> str:
    """Return an environment variable; an empty one counts as not set."""
    return os.environ.get(name) or default


OmegaConf.register_new_resolver("parallel_jobs", parallel_jobs, replace=True)
OmegaConf.register_new_resolver("variable", variable, replace=True)


def default_clip_norm(strategy: str) -> float | None:
    """Return the strategy's own limit of the gradient's norm; None if it has none, or there is no such strategy."""
    made: dict[str, Any] = {
        name: part.make for part in parts("strategy").values() for name in (part.name, *part.aliases)
    }
    return made[strategy].clip_norm if strategy in made else None


OmegaConf.register_new_resolver("clip_norm", default_clip_norm, replace=True)
OmegaConf.register_new_resolver("expanduser", os.path.expanduser, replace=True)


def parse(config: DictConfig) -> RunConfig:
    """Return the typed config of a composed one.

    Raises:
        ConfigurationError: for a name that does not exist, a key that does not exist, or a value of the wrong type.
    """
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(f"{_key('', error)}: {str(error.msg or error).splitlines()[0]}") from error
    values: dict[Any, Any] = dict(plain)
    if values.pop("pruning", None) is not None:  # null in the configs of earlier versions' other runs
        raise ConfigurationError("pruning: it is a recipe now, `cl-powerprop run experiment=mnist_pruning`")
    chosen: dict[str, Any] = {}
    for group in GROUPS:
        given = _section(values, group)
        part = find(group, given.get("name", OPTIONAL.get(group)))
        named = _options_by_name(group, values)
        chosen[group] = _typed(part.config, given | named.get(part.name, {}) | {"name": part.name}, group)
    sinks = _section(values, "logger")
    chosen["logger"] = {
        name: _typed(find("logger", name).config, given, f"logger.{name}")
        for name, given in sinks.items()
        if given is not None
    }
    options: RunOptions = _typed(RunOptions, values, "")
    parsed = RunConfig(**{each.name: getattr(options, each.name) for each in fields(RunOptions)}, **chosen)
    parsed.strategy.settle(parsed.train.epochs)
    return parsed


def _section(values: dict[Any, Any], key: str) -> dict[Any, Any]:
    """Take a section of options out of a config; an absent one is empty."""
    given = values.pop(key, None)
    if given is not None and not isinstance(given, dict):
        raise ConfigurationError(f"{key} must be a section with options, not {given!r}")
    return given or {}


def _options_by_name(group: str, values: dict[Any, Any]) -> dict[str, dict[str, Any]]:
    """Take out of a config the options that are given by a part's name, as in `epn.gamma=0.95`.

    A sweep over several strategies can give one of them an option that the others do not have.
    """
    found: dict[str, dict[str, Any]] = {}
    if group not in BY_NAME:
        return found
    for name, part in parts(group).items():
        given = _section(values, name)
        if "name" in given:
            raise ConfigurationError(unknown_option(f"{name}.name", [option.name for option in fields(part.config)]))
        if given:
            _merged(part.config, given, name)  # also where another part is chosen: a wrong option is wrong all the same
            found[name] = given
    return found


def _check_given(section: str, options: Any) -> None:
    """Refuse what stands for a secret in the config of a run folder: it is no value of the option's.

    Raises:
        ConfigurationError: naming the option.
    """
    for key, value in flat(asdict(options), f"{section}."):
        if is_left_out(value):
            raise ConfigurationError(
                f"{key} is {value}: a run folder leaves out what looks like a secret; give it again, by "
                f"{key}=VALUE in cl-powerprop repeat, or by the command that began the run"
            )


def left_out(config: RunConfig) -> list[str]:
    """Return the options, those of loggers apart, whose values a run folder leaves out as secrets."""
    values = shareable(config)
    options = (option for group in (*GROUPS, "train", "evaluation") for option in flat(values[group], f"{group}."))
    return [key for key, value in options if is_left_out(value)]


def shareable(config: RunConfig) -> dict[str, Any]:
    """Return the config without what says where one user's files are: absolute paths to data and other runs."""
    written = asdict(config)
    values = {key: written.pop(key) for key in (*GROUPS, "train", "evaluation", "checkpoint")} | written
    values["run_dir"] = RUN_DIR  # the repeated run gets a folder of its own
    leave_out_places(values)
    redacted: dict[str, Any] = redact_options(values)
    return redacted


def leave_out_places(values: dict[str, Any], links: bool = True) -> None:
    """Leave out of options by group what is not below the working folder: one user's places are not another's.

    Args:
        values: the options, which are changed.
        links: whether a place that is written may be reached through links.
    """
    data, sinks = values.get("data"), values.get("logger")
    if isinstance(data, dict) and _is_elsewhere(data.get("root")):
        data["root"] = None
    if _is_elsewhere(values.get("references_dir"), links):
        values["references_dir"] = RunConfig.references_dir
    for sink in sinks.values() if isinstance(sinks, dict) else ():
        if isinstance(sink, dict) and _is_elsewhere(sink.get("dir"), links):
            sink["dir"] = "runs"


def _is_elsewhere(path: object, links: bool = True) -> bool:
    if not isinstance(path, str):
        return False
    if Path(path).is_absolute() or path.startswith("~") or ".." in Path(path).parts:
        return True
    return not links and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath("."))


def repeatable_yaml(config: RunConfig) -> str:
    """Return the config as YAML that `cl-powerprop repeat RUN` repeats the run with.

    A data folder that was given as an absolute path is the user's to give again.
    """
    values = shareable(config)
    return BEGINNING + OmegaConf.to_yaml(OmegaConf.create(values))


def _typed(schema: type, values: Any, where: str) -> Any:
    try:
        return OmegaConf.to_object(_merged(schema, values, where))
    except OmegaConfBaseException as error:  # a value that must be given
        raise ConfigurationError(f"{_key(where, error)} must be given; it has no default") from error


@functools.cache
def _options_of(schema: type) -> Any:
    """Return the options of a part, which merging copies; making them takes longer."""
    return OmegaConf.structured(schema)


def _merged(schema: type, values: Any, where: str) -> Any:
    try:
        return OmegaConf.merge(_options_of(schema), values)
    except ConfigKeyError as error:
        from cl_powerprop.explanations import explain_unknown  # which knows the options of all parts

        known = [option.name for option in fields(schema)]
        raise ConfigurationError(explain_unknown(_key(where, error), known)) from error
    except OverflowError as error:  # of a whole number where any number may stand
        raise ConfigurationError(f"{where or 'the config'} has a number that is too large") from error
    except OmegaConfBaseException as error:
        key, said = _key(where, error), str(error.msg or error).splitlines()[0]
        if "is not a ListConfig" in said:
            said = f"is a list, with brackets even for one value: '{key}=[...]'"
        raise ConfigurationError(f"{key}: {said}") from error


def _key(where: str, error: OmegaConfBaseException) -> str:
    return ".".join(part for part in (where, str(error.full_key or "")) if part)
