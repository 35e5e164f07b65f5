"""What a suite is: a YAML file that says which methods are compared, on what, and how each is tuned.

Suites are data: names, numbers and overrides as the command takes them. Ours stand in `conf/suite/`.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cl_powerprop.documents import read_yaml
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.limits import check_seed
from cl_powerprop.privacy import redact
from cl_powerprop.registry import CONF
from cl_powerprop.suites.overrides import check_common, check_method, merged

OPTIMIZATION = (
    *("strategy", "optimizer", "model.alpha", "model.init_scale", "model.reparam"),
    *("train.clip_norm", "train.schedule", "train.warmup"),
)
"""Options, or groups of them, that a method may choose: none changes the network's size or the number of steps."""
BUDGET = ("train.epochs", "train.batch_size")
"""What it may choose besides in the table of any budget."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_BASE = "based_on"
_LIKE = "like"
_MOST_BASES = 5  # files that lead from one to another


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the table: overrides, some of which are found by tuning.

    Attributes:
        label: what the table calls it.
        settings: overrides that it has beside the common ones.
        space: overrides with ranges, which are tuned.
        tuning: overrides of its trials only, as where the number of tasks would change what is tuned.
    """

    label: str
    settings: tuple[str, ...]
    space: tuple[str, ...]
    tuning: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How each method is tuned, on validation data.

    Attributes:
        trials: of each method.
        seed: of all trials; none of the reported ones.
        settings: overrides of all trials, as for fewer tasks.
    """

    trials: int
    seed: int
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A benchmark, the methods that are compared on it, and the protocol.

    Attributes:
        name: of the suite, as in ``league/permuted_10``.
        title: what the table calls the benchmark.
        common: overrides of all runs.
        tuning: how methods are tuned.
        seeds: of the runs that are reported.
        methods: all with the same network, epochs and batches.
        any_budget: with epochs and batches of their own; one that is called as a method above is another try of it.
        is_quick: it is as small as ``--quick`` makes it.
        file: of which it was read, as it was named; None for one of ours.
    """

    name: str
    title: str
    common: tuple[str, ...]
    tuning: Tuning
    seeds: tuple[int, ...]
    methods: Mapping[str, Method]
    any_budget: Mapping[str, Method] = field(default_factory=dict)
    is_quick: bool = False
    file: str | None = None

    @property
    def command(self) -> str:
        """The command that makes its table."""
        named = self.name if self.file is None else shlex.quote(redact(self.file))
        return f"cl-powerprop suite {named}" + (" --quick" if self.is_quick else "")

    def changed(self, words: Sequence[str]) -> "Suite":
        """Return the suite with some overrides for all runs of all methods.

        Raises:
            ConfigurationError: for what is not for all methods alike, or what the suite sets itself.
        """
        check_common(words)
        return replace(self, common=merged(self.common, words))

    def only(self, names: Sequence[str]) -> "Suite":
        """Return the suite with some of its methods, those of any budget included.

        Raises:
            ConfigurationError: for a name that no method has.
        """
        known = [*dict.fromkeys([*self.methods, *self.any_budget])]
        if unknown := [name for name in names if name not in known]:
            raise ConfigurationError(f"{self.name} has no method {', '.join(unknown)}; choose from: {', '.join(known)}")
        methods, any_budget = (
            {name: method for name, method in section.items() if name in names}
            for section in (self.methods, self.any_budget)
        )
        return replace(self, methods=methods, any_budget=any_budget)


def suite_names() -> list[str]:
    """Return the names of our suites."""
    files = sorted((CONF / "suite").rglob("[!_]*.yaml"))
    return [file.relative_to(CONF / "suite").with_suffix("").as_posix() for file in files]


def load_suite(name: str, quick: bool = False) -> Suite:
    """Return a suite.

    Args:
        name: of one of ours, or a YAML file.
        quick: as small as its section ``quick`` makes it, to see that all of it works.

    Raises:
        ConfigurationError: if there is no such suite, or its file is no suite.
    """
    values = _values(_file(name), 0)
    small = values.pop("quick", None)
    if quick:
        if small is None:
            raise ConfigurationError(f"{name} has no section quick, and cannot be run with --quick")
        values = _merged(values, small, "quick") | {"any_budget": {}}
    is_file = name.endswith(".yaml")
    suite = _typed(Path(name).stem if is_file else name, values)
    suite = replace(suite, is_quick=quick, file=name if is_file else None)
    _check(suite)
    return suite


def _file(name: str) -> Path:
    if name.endswith(".yaml") and Path(name).is_file():
        return Path(name)
    names = suite_names()
    if name not in names:
        raise ConfigurationError(
            f"unknown suite {name!r}; choose from: {', '.join(names)}; or give a YAML file of your own"
        )
    return CONF / "suite" / f"{name}.yaml"


def _values(file: Path, depth: int) -> dict[str, Any]:
    """Return what a file says, with what the file says that it is based on."""
    try:
        values = read_yaml(file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{file} is no suite: it has no sections")
    base = values.pop(_BASE, None)
    if base is None:
        return values
    if not isinstance(base, str) or not re.fullmatch(r"[a-z0-9_]+(/[a-z0-9_]+)*", base) or depth == _MOST_BASES:
        raise ConfigurationError(f"{file}: {_BASE} must name another suite, as in league/_methods")
    both: dict[str, Any] = _merged(_values(CONF / "suite" / f"{base}.yaml", depth + 1), values, str(file))
    return both


def _merged(first: Any, second: Any, where: str) -> Any:
    """Return values with others in their place: sections are merged, overrides replace those of the same option."""
    match first, second:
        case dict(), dict():
            both = {key: _merged(first[key], second[key], f"{where}: {key}") for key in second if key in first}
            return {**first, **second, **both}
        case [str(), *_], [str(), *_]:
            return list(merged(_texts(first, where), _texts(second, where)))
    return second


def _typed(name: str, values: Mapping[str, Any]) -> Suite:
    """Return the suite that a file describes.

    Raises:
        ConfigurationError: naming what is missing, unknown or of the wrong kind.
    """
    known = [each.name for each in fields(Suite) if each.name not in ("name", "is_quick", "file")]
    given = _section(values, known, name, ["any_budget"])
    tuning = _section(given["tuning"], [each.name for each in fields(Tuning)], f"{name}: tuning", ["settings"])
    return Suite(
        name=name,
        title=_text(given["title"], f"{name}: title"),
        common=_texts(given["common"], f"{name}: common"),
        tuning=Tuning(
            trials=_count(tuning["trials"], f"{name}: tuning.trials"),
            seed=_count(tuning["seed"], f"{name}: tuning.seed"),
            settings=_texts(tuning.get("settings", []), f"{name}: tuning.settings"),
        ),
        seeds=tuple(_count(seed, f"{name}: seeds") for seed in _list(given["seeds"], f"{name}: seeds")),
        methods=_methods(given["methods"], f"{name}: methods"),
        any_budget=_methods(given.get("any_budget") or {}, f"{name}: any_budget", given["methods"]),
    )


def _methods(values: Any, where: str, models: Any = None) -> dict[str, Method]:
    """Return the methods of a section.

    Args:
        values: the section.
        where: it is, for messages.
        models: sections of methods that these may be like; None for the others of this section.
    """
    if not isinstance(values, dict):
        raise ConfigurationError(f"{where} must be a section with a method a name")
    methods = {}
    for name, given in values.items():
        place = f"{where}.{name}"
        others = {key: other for key, other in values.items() if key != name} if models is None else models
        methods[str(name)] = _method(str(name), _whole(given, others, place), place)
    return methods


def _whole(given: Any, models: dict[Any, Any], where: str) -> Any:
    """Return what a method's section says, with what the method that it is like says.

    Raises:
        ConfigurationError: if it is like no other method, or like itself in the end.
    """
    variants = []
    while isinstance(given, dict) and _LIKE in given:
        variants.append({key: value for key, value in given.items() if key != _LIKE})
        like, names = given[_LIKE], [name for name, other in models.items() if isinstance(other, dict)]
        if like not in names:
            raise ConfigurationError(
                f"{where}: {_LIKE} must name another method, not {like!r:.60}; "
                f"choose from: {', '.join(map(str, names))}"
            )
        given, models = models[like], {name: other for name, other in models.items() if name != like}
    for variant in reversed(variants):
        given = _merged({key: value for key, value in given.items() if key != "label"}, variant, where)
    return given


def _method(name: str, values: Any, where: str) -> Method:
    given = _section(values, [each.name for each in fields(Method)], where, ["label", "tuning"])
    listed = {key: _texts(given.get(key, []), f"{where}.{key}") for key in ("settings", "space", "tuning")}
    return Method(label=_text(given.get("label", name), f"{where}.label"), **listed)


def _section(values: Any, known: Sequence[str], where: str, optional: Iterable[str] = ()) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigurationError(f"{where} must be a section with {', '.join(known)}")
    if unknown := [str(key) for key in values if key not in known]:
        raise ConfigurationError(f"{where} has unknown keys: {', '.join(unknown)}; there are: {', '.join(known)}")
    if missing := [key for key in known if key not in values and key not in optional]:
        raise ConfigurationError(f"{where} has no {', '.join(missing)}")
    return dict(values)


def _list(values: Any, where: str) -> list[Any]:
    if not isinstance(values, list):
        raise ConfigurationError(f"{where} must be a list, not {values!r:.60}")
    return values


def _texts(values: Any, where: str) -> tuple[str, ...]:
    return tuple(_text(each, where) for each in _list(values, where))


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ConfigurationError(f"{where}: {value!r:.60} is no text of one line")
    return value


def _count(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(f"{where}: {value!r:.60} is no whole number")
    return value


def _check(suite: Suite) -> None:
    """Refuse a suite that does not treat its methods alike, or reports what it has tuned on.

    Raises:
        ConfigurationError: naming what is wrong.
    """
    seeds = suite.seeds
    for seed in (*seeds, suite.tuning.seed):
        check_seed(seed)
    if not seeds or len({*seeds}) < len(seeds):
        raise ConfigurationError(f"{suite.name}: seeds must be at least one, each once")
    if suite.tuning.seed in seeds:
        raise ConfigurationError(
            f"{suite.name}: the seed {suite.tuning.seed} is tuned on and reported; the reported ones must be others"
        )
    if suite.tuning.trials < 1:
        raise ConfigurationError(f"{suite.name}: tuning.trials must be at least 1")
    for section, options in (("methods", OPTIMIZATION), ("any_budget", OPTIMIZATION + BUDGET)):
        for name, method in getattr(suite, section).items():
            where = f"{suite.name}: {section}.{name}"
            if not _NAME.fullmatch(name):
                raise ConfigurationError(f"{where}: a name has small letters, digits and _, and begins with a letter")
            check_method(where, method.settings, method.space, method.tuning, options)
    check_common([*suite.common, *suite.tuning.settings])
