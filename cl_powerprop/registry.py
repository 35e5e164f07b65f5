"""The doors for strategies, sequences, data sets, models, optimizers, sparse training, metrics and sinks, of anybody.

A part is a class or function, registered under a name together with a dataclass of its options. Ours stand one in a
file of the packages below and are found there; others are found through installed entry points
(``cl_powerprop.plugins``) and modules that a user names (``--import``). A config file names parts and imports none of
them. No torch is imported here.
"""

import contextlib
import importlib
import logging
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cl_powerprop.errors import ConfigurationError, unknown_choice
from cl_powerprop.record import RESERVED
from cl_powerprop.registration import check_config, check_name

log = logging.getLogger("cl_powerprop")

T = TypeVar("T")

ENTRY_POINTS = "cl_powerprop.plugins"

CONF = Path(__file__).parent / "conf"  # the options of our own parts, with their comments
if not CONF.exists():  # a source checkout keeps them beside the package
    CONF = Path(__file__).parent.parent / "conf"

# Config groups, and the package that holds our own parts of each: every module of it is imported, subpackages are not.
PACKAGES = {
    "strategy": "cl_powerprop.strategies",
    "benchmark": "cl_powerprop.sequences",
    "data": "cl_powerprop.data",
    "model": "cl_powerprop.models",
    "optimizer": "cl_powerprop.optimizers",
    "sparsity": "cl_powerprop.sparse_training",
    "logger": "cl_powerprop.sinks",
}
METRICS = "cl_powerprop.evaluation.metrics"
BY_NAME = ("strategy", "model", "optimizer", "sparsity")  # groups whose options can also be given as NAME.option=value
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
_metric_origins: dict[str, str] = {}
_found: set[str] = set()  # packages and entry points that were looked at
_asked_for: list[str] = []  # modules that a user named


def door(group: str, name: str, config: type, base: type, aliases: Sequence[str] = ()) -> Callable[[T], T]:
    """Return what registers a class or function as a choice of a config group; each kind of part has one of its own.

    Args:
        group: the config group.
        name: of the choice.
        config: dataclass of its options.
        base: what the config must be derived from.
        aliases: other names for it.

    Raises:
        ConfigurationError: for a name that is taken, or a config that is not a dataclass with a type for every option.
    """

    def enter(make: T) -> T:
        if not callable(make):
            raise ConfigurationError(f"{group} {name!r}: {make!r} is neither a class nor a function")
        origin = str(make.__module__)
        if not origin.startswith(_OURS):
            _find_ours(group)  # ours come first
            taken = _taken(group)
            for wanted in (name, *aliases):
                check_name(group, wanted, taken)
        check_config(f"{group} {name!r}", config, base)
        for wanted in (name, *aliases):
            known = next((part for part in _parts[group].values() if wanted in (part.name, *part.aliases)), None)
            # A module that is run again, as a notebook's cell is, replaces what it registered before.
            if known is not None and (known.origin, _qualified(known.make)) != (origin, _qualified(make)):
                raise ConfigurationError(
                    f"{group} {wanted!r} is registered already, by {known.origin}; {origin} must choose another name"
                )
        _parts[group][name] = Part(group, name, make, config, tuple(aliases), origin)
        return make

    return enter


def _qualified(make: Any) -> str:
    return getattr(make, "__qualname__", type(make).__qualname__)


def add_metric(name: str, metric: Any, origin: str) -> None:
    """Add to the list of metrics.

    Args:
        name: of the metric.
        metric: a :class:`~cl_powerprop.evaluation.metrics.Metric`.
        origin: the module that registers it.

    Raises:
        ConfigurationError: for a name that another module has registered.
    """
    if not origin.startswith(_OURS):
        _find_metrics()  # ours come first
    known = _metric_origins.setdefault(name, origin)
    if known != origin:
        raise ConfigurationError(
            f"metric {name!r} is registered already, by {known}; {origin} must choose another name"
        )
    _metrics[name] = metric


def _taken(group: str) -> dict[str, str]:
    """Return names that no part of a group can have, and what has them."""
    if group == "logger":  # what a sink remembers stands in `run.json` under its name
        return dict.fromkeys(RESERVED, "run.json")
    if group not in BY_NAME:
        return {}
    options = yaml.safe_load((CONF / "run.yaml").read_text(encoding="utf-8"))
    taken = dict.fromkeys(["hydra", "experiment", "evaluation", *PACKAGES, *options], "a config")
    for other in BY_NAME:
        if other != group:
            _find_ours(other)
            taken |= dict.fromkeys(_parts[other], f"the group {other}")
    return taken


def parts(group: str) -> dict[str, Part]:
    """Return all parts of a config group by name: ours, then those of others."""
    _find_ours(group)
    find_plugins()
    return dict(_parts[group])


def find(group: str, name: Any) -> Part:
    """Return the part of that name, or of which it is another name.

    Raises:
        ConfigurationError: if there is none, naming those there are.
    """
    known = parts(group)
    part = next((part for part in known.values() if name in (part.name, *part.aliases)), None)
    if part is None:
        raise ConfigurationError(unknown_choice(group, name, known))
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
    find_plugins()
    return dict(_metrics)


def others(group: str) -> list[Part]:
    """Return the parts of a config group that come from outside this package."""
    find_plugins()
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
        except (Exception, SystemExit) as error:
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
    """Forget what was registered inside if it fails, and its modules too, so that they can be imported anew."""
    _find_metrics()  # ours are not to be forgotten
    tables: list[dict[str, Any]] = [*_parts.values(), _metrics, _metric_origins]
    before, modules, origins = [dict(table) for table in tables], set(sys.modules), _origins()
    try:
        yield
    except BaseException:
        forgotten = {origin.partition(".")[0] for origin in _origins() - origins}
        for name in set(sys.modules) - modules:
            if name.partition(".")[0] in forgotten:
                del sys.modules[name]
        for table, kept in zip(tables, before, strict=True):
            ours = {name: part for name, part in table.items() if isinstance(part, Part) and part.is_ours}
            table.clear()
            table.update(ours | kept)
        raise


def _origins() -> set[str]:
    of_parts = {part.origin for known in _parts.values() for part in known.values() if not part.is_ours}
    return of_parts | set(_metric_origins.values())


def _find_ours(group: str) -> None:
    if group not in _found:
        _found.add(group)
        try:
            package = importlib.import_module(PACKAGES[group])
            for module in pkgutil.iter_modules(package.__path__):
                if not module.ispkg:
                    importlib.import_module(f"{package.__name__}.{module.name}")
        except BaseException:
            _found.discard(group)
            raise


def _find_metrics() -> None:
    importlib.import_module(METRICS)


def find_plugins(warn: bool = True) -> None:
    """Import the installed plugins, once; one that fails is left out.

    Args:
        warn: say which; of several processes of one command one does.
    """
    if ENTRY_POINTS in _found:
        return
    _found.add(ENTRY_POINTS)
    for point in entry_points(group=ENTRY_POINTS):
        try:
            with _all_or_nothing():
                point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001, RUF100 (whatever a package does, ours still work)
            if warn:
                log.warning("the plugin %s (%s) is left out: %s", point.name, point.value, _reason(error))
