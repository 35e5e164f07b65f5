"""The doors for strategies, sequences, data sets, models, optimizers, metrics and sinks, ours and anybody's.

A part is a class or function, registered under a name together with a dataclass of its options. Ours stand one in a
file of the packages below and are found there; others are found through installed entry points
(``cl_powerprop.plugins``) and modules that a user names (``--import``). A config file names parts and imports none of
them. No torch is imported here.
"""

import contextlib
import importlib
import inspect
import logging
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from cl_powerprop.errors import ConfigurationError

log = logging.getLogger("cl_powerprop")

T = TypeVar("T")

ENTRY_POINTS = "cl_powerprop.plugins"

# Config groups, and the package that holds our own parts of each: every module of it is imported, subpackages are not.
PACKAGES = {
    "strategy": "cl_powerprop.strategies",
    "benchmark": "cl_powerprop.sequences",
    "data": "cl_powerprop.data",
    "model": "cl_powerprop.models",
    "optimizer": "cl_powerprop.optimizers",
    "logger": "cl_powerprop.sinks",
}
BY_NAME = ("strategy", "model", "optimizer")  # groups whose options can also be given as NAME.option=value
_OURS = "cl_powerprop."


@dataclass(frozen=True)
class Part:
    """Something that a config can name.

    Attributes:
        group: the config group, as in ``strategy=epn``.
        name: the choice.
        make: the class or function behind it.
        config: the dataclass of its options.
        aliases: other names for it, kept for configs that were written before it was renamed.
        origin: the module that registered it.
    """

    group: str
    name: str
    make: Callable[..., Any] = field(repr=False)
    config: type
    aliases: tuple[str, ...]
    origin: str

    @property
    def is_ours(self) -> bool:
        """Whether it belongs to this package, which ships its options as YAML."""
        return self.origin.startswith(_OURS)

    @property
    def description(self) -> str:
        """The first line of its docstring."""
        return (self.make.__doc__ or "").strip().partition("\n")[0]

    def defaults(self) -> dict[str, Any]:
        """Return its options with their defaults, ``???`` where a user must give one."""
        values: dict[str, Any] = {}
        for option in fields(self.config):
            if option.default is not MISSING:
                values[option.name] = option.default
            elif option.default_factory is not MISSING:
                values[option.name] = option.default_factory()
            else:
                values[option.name] = "???"
        return values if self.group == "logger" else values | {"name": self.name}


_parts: dict[str, dict[str, Part]] = {group: {} for group in PACKAGES}
_metrics: dict[str, Any] = {}
_found: set[str] = set()  # packages and entry points that were looked at
_asked_for: list[str] = []  # modules that a user named


def register_strategy(name: str, config: type, *, aliases: Sequence[str] = ()) -> Callable[[T], T]:
    """Make a class derived from :class:`Strategy` the choice ``strategy=NAME``.

    Args:
        name: of the choice.
        config: dataclass of its options, derived from :class:`StrategyConfig`.
        aliases: other names for it.

    Raises:
        ConfigurationError: for a name that is taken, or a config that is not a dataclass with a type for every option.
    """
    from cl_powerprop.strategies.base import StrategyConfig

    return _door("strategy", name, config, StrategyConfig, aliases)


def register_sequence(name: str, config: type, *, aliases: Sequence[str] = ()) -> Callable[[T], T]:
    """Make a function the choice ``benchmark=NAME``, called as ``sequence(config, data, seed) -> TaskSequence``.

    Arguments and errors are those of :func:`register_strategy`; the config is derived from :class:`SequenceConfig`.
    ``data`` is a :class:`~cl_powerprop.source.DataSource`.
    """
    from cl_powerprop.sequences.base import SequenceConfig

    return _door("benchmark", name, config, SequenceConfig, aliases)


def register_dataset(name: str, config: type | None = None, *, aliases: Sequence[str] = ()) -> Callable[[T], T]:
    """Make a class derived from :class:`Dataset` the choice ``data=NAME``; it is created without arguments.

    Arguments and errors are those of :func:`register_strategy`; the config is :class:`DataConfig` or derived from it.
    """
    from cl_powerprop.data.dataset import DataConfig

    return _door("data", name, config or DataConfig, DataConfig, aliases)


def register_model(name: str, config: type | None = None, *, aliases: Sequence[str] = ()) -> Callable[[T], T]:
    """Make a function the choice ``model=NAME``: ``model(sample_shape, *, bias, **options) -> nn.Module``.

    It returns features, over which heads are put; ``options`` are what its config adds to :class:`ModelConfig`.
    Arguments and errors are those of :func:`register_strategy`; the config is :class:`ModelConfig` or derived from it.
    """
    from cl_powerprop.models.base import ModelConfig

    return _door("model", name, config or ModelConfig, ModelConfig, aliases)


def register_optimizer(name: str, config: type, *, aliases: Sequence[str] = ()) -> Callable[[T], T]:
    """Make a function the choice ``optimizer=NAME``: ``optimizer(groups, config) -> torch.optim.Optimizer``.

    ``groups`` are the parameter groups: all that decays, then what does not. Arguments and errors are those of
    :func:`register_strategy`; the config is derived from :class:`OptimizerConfig`.
    """
    from cl_powerprop.optimizers.base import OptimizerConfig

    return _door("optimizer", name, config, OptimizerConfig, aliases)


def register_sink(name: str, config: type) -> Callable[[T], T]:
    """Make a class the choice ``logger=[NAME]``, called as ``sink(config, run) -> Sink`` when a run begins.

    Arguments and errors are those of :func:`register_strategy`; the config is derived from :class:`SinkConfig`, and
    ``run`` is a :class:`~cl_powerprop.tracking.stream.RunView`.
    """
    from cl_powerprop.tracking.stream import SinkConfig

    return _door("logger", name, config, SinkConfig, ())


def register_metric(metric: T) -> T:
    """Compute a :class:`~cl_powerprop.evaluation.metrics.Metric` at the end of every run, and show it in comparisons.

    Raises:
        ConfigurationError: for a name that is taken.
    """
    name, origin = metric.name, metric.function.__module__ if metric.function else ""  # type: ignore[attr-defined]
    if not origin.startswith(_OURS):
        _find_metrics()
    known = _metrics.get(name)
    if known is not None and (known.function is None or known.function.__module__ != origin):
        raise ConfigurationError(f"metric {name!r} is registered already; {origin} must choose another name")
    _metrics[name] = metric
    return metric


def _door(group: str, name: str, config: type, base: type, aliases: Sequence[str]) -> Callable[[T], T]:
    def enter(make: T) -> T:
        origin = str(make.__module__)
        if not origin.startswith(_OURS):
            _find_ours(group)  # ours come first
        _check_config(f"{group} {name!r}", config, base)
        for wanted in (name, *aliases):
            known = next((part for part in _parts[group].values() if wanted in (part.name, *part.aliases)), None)
            # A module that is run again, as a notebook's cell is, replaces what it registered before.
            if known is not None and known.origin != origin:
                raise ConfigurationError(
                    f"{group} {wanted!r} is registered already, by {known.origin}; {origin} must choose another name"
                )
        _parts[group][name] = Part(group, name, make, config, tuple(aliases), origin)  # type: ignore[arg-type]
        return make

    return enter


def _check_config(what: str, config: type, base: type) -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    name = getattr(config, "__name__", repr(config))
    if not (isinstance(config, type) and is_dataclass(config) and issubclass(config, base)):
        raise ConfigurationError(f"{what}: its config {name} is not a dataclass derived from {base.__name__}")
    for parent in config.__mro__:
        for option, value in vars(parent).items():
            if option.startswith("_") or option in inspect.get_annotations(parent):
                continue
            if not callable(value) and not isinstance(value, property | classmethod | staticmethod):
                raise ConfigurationError(f"{what}: {name}.{option} has no type; write {option}: TYPE = {value!r}")
    try:
        OmegaConf.structured(config)
    except OmegaConfBaseException as error:
        raise ConfigurationError(f"{what}: {name}: {str(error.msg or error).splitlines()[0]}") from error


def parts(group: str) -> dict[str, Part]:
    """Return all parts of a config group by name: ours, then those of others."""
    _find_ours(group)
    _find_entry_points()
    return dict(_parts[group])


def find(group: str, name: Any) -> Part:
    """Return the part of that name, or of which it is another name.

    Raises:
        ConfigurationError: if there is none, naming those there are.
    """
    known = parts(group)
    part = known.get(name) or next((part for part in known.values() if name in part.aliases), None)
    if part is None:
        more = "" if group == "logger" else "; one from outside needs cl-powerprop --import MODULE"
        raise ConfigurationError(f"unknown {group} {name!r}; choose from: {', '.join(sorted(known))}{more}")
    return part


def canonical(group: str, name: str) -> str:
    """Return the name that a part has today; an unknown name is returned as it is."""
    for part in parts(group).values():
        if name in part.aliases:
            return part.name
    return name


def metrics() -> dict[str, Any]:
    """Return every :class:`~cl_powerprop.evaluation.metrics.Metric` by name, ours first, in the order of tables."""
    _find_metrics()
    _find_entry_points()
    return dict(_metrics)


def others(group: str) -> list[Part]:
    """Return the parts of a config group that come from outside this package."""
    _find_entry_points()
    return [part for part in _parts[group].values() if not part.is_ours]


def import_modules(modules: Sequence[str]) -> None:
    """Import modules that register parts; they may lie in the working folder.

    Raises:
        ConfigurationError: for a module that cannot be imported, with the reason.
    """
    working = str(Path.cwd())
    if modules and working not in sys.path:
        sys.path.append(working)
    for module in modules:
        try:
            with _all_or_nothing():
                importlib.import_module(module)
        except Exception as error:
            raise ConfigurationError(f"--import {module}: {_reason(error)}") from error
        if module not in _asked_for:
            _asked_for.append(module)


def imported_modules() -> list[str]:
    """Return the modules that a user named, for a process that is to know the same parts."""
    return list(_asked_for)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ConfigurationError) else f"{type(error).__name__}: {text}".removesuffix(": ")


@contextlib.contextmanager
def _all_or_nothing() -> Iterator[None]:
    """Forget what was registered inside if it fails."""
    before = {group: dict(known) for group, known in _parts.items()}, dict(_metrics)
    try:
        yield
    except BaseException:
        for group, known in before[0].items():
            _parts[group].clear()
            _parts[group].update(known)
        _metrics.clear()
        _metrics.update(before[1])
        raise


def _find_ours(group: str) -> None:
    if group not in _found:
        _found.add(group)
        package = importlib.import_module(PACKAGES[group])
        for module in pkgutil.iter_modules(package.__path__):
            if not module.ispkg:
                importlib.import_module(f"{package.__name__}.{module.name}")


def _find_metrics() -> None:
    importlib.import_module("cl_powerprop.evaluation.metrics")


def _find_entry_points() -> None:
    if ENTRY_POINTS in _found:
        return
    _found.add(ENTRY_POINTS)
    for point in entry_points(group=ENTRY_POINTS):
        try:
            with _all_or_nothing():
                point.load()
        except Exception as error:  # noqa: BLE001, RUF100 (whatever an installed package does, ours still work)
            log.warning("the plugin %s (%s) is left out: %s", point.name, point.value, _reason(error))
