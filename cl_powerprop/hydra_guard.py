"""A folder of configs given by `--config-dir` sets options of runs, and nothing of Hydra's own: that could run code.

It may choose one of the known launchers, and look up what Hydra says of the job. Its files are checked before Hydra
reads them; and what Hydra has made of them is compared with what it makes without.
"""

import functools
import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import get_args_parser
from hydra.plugins.config_source import ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.shown import shell_word

_LARGEST = 2**16  # bytes of a file: Hydra reads one several times, and slowly
_MOST_FILES = 10_000
_DEEPEST = 30  # sections within one another
_MOST_VALUES = 10_000  # in a file, with those that it repeats by aliases
_HYDRA = re.compile("hydra", re.IGNORECASE)
_LOOKED_UP = re.compile(r"\$\{\s*([^${}:]*):")  # the name of a resolver
_RESOLVERS = {"now", "clip_norm", "expanduser", "parallel_jobs", "oc.select", "oc.dict.keys", "oc.dict.values"}
_OF_HYDRA = re.compile(  # what is harmless of what Hydra knows of a job; the environment is among the rest
    r"\$\{\s*hydra:\s*(?:runtime\.(?:choices\.[\w/@.-]+|cwd|output_dir|version)"
    r"|job\.(?:name|num|id|override_dirname|config_name))\s*\}"
)
_LAUNCHER = re.compile(r"override\s+/?hydra/launcher")
LAUNCHERS = {
    "processes": "hydra_plugins.cl_powerprop.ProcessLauncher",
    "slurm": "hydra_plugins.cl_powerprop.SlurmLauncher",
    "ray": "hydra_plugins.cl_powerprop.RayLauncher",
    "basic": "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "joblib": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
}
_COMPUTED = ("overrides", "runtime")  # sections of Hydra's own config that say what was composed
_ADDED = ("command-line", "hydra.searchpath in command-line", "hydra.searchpath in main")  # as Hydra calls folders

_compose = ConfigLoaderImpl.load_configuration


def refuse_code(words: Sequence[str]) -> None:
    """Refuse a folder of configs that sets up Hydra, which imports and calls what it finds there.

    Raises:
        ConfigurationError: if a file of the folder does, could lead to one elsewhere, or reads the environment; or if
            it is a run folder, which `cl-powerprop repeat` is for.
    """
    options, _ = get_args_parser().parse_known_args(list(words))
    if options.config_path is not None or options.experimental_rerun is not None:
        raise ConfigurationError("--config-path and --experimental-rerun could run code; give a folder by --config-dir")
    if options.config_name is not None and _leads_away(options.config_name):
        raise ConfigurationError(f"--config-name {options.config_name}: give the name of a file in --config-dir")
    if options.config_dir is None:
        return
    folder = Path(options.config_dir)
    if os.path.lexists(folder / "run.json"):
        raise ConfigurationError(
            f"{folder} is a run folder: cl-powerprop repeat {shell_word(folder)} runs its config again; OPTION=VALUE "
            "after it changes an option"
        )
    for file in _files(folder):
        _check(file, folder)


def _files(folder: Path) -> Iterator[Path]:
    """Yield all config files of a folder, also those that links lead to."""
    count, within = 0, {os.path.realpath(folder)}
    for place, folders, files in os.walk(folder, followlinks=True):
        count += len(files) + len(folders)
        if count > _MOST_FILES:
            raise ConfigurationError(f"{folder} has more than {_MOST_FILES:,} files; give a folder of configs")
        for name in list(folders):
            real = os.path.realpath(os.path.join(place, name))
            if os.path.islink(os.path.join(place, name)) and real in within:
                raise ConfigurationError(f"{os.path.join(place, name)} is a link to a folder that has been read")
            within.add(real)
        for name in sorted([*files, *(name for name in folders if name.lower().endswith((".yaml", ".yml")))]):
            if name.lower().endswith((".yaml", ".yml")):
                yield Path(place, name)


def _check(file: Path, folder: Path) -> None:
    try:
        text = _read(file)
        if _size(yaml.compose(text, Loader=yaml.SafeLoader), {}) > _MOST_VALUES:
            raise ValueError("it has too many values")
        loaded = yaml.load(text, Loader=get_yaml_loader())  # as Hydra, which takes no key twice
        header = ConfigSource._get_header_dict(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error
    values = loaded if isinstance(loaded, dict) else {}
    defaults = values.get("defaults")
    chosen = [each for each in defaults if not _is_launcher(each)] if isinstance(defaults, list) else defaults
    inside = [*file.relative_to(folder).parts[:-1], *values, chosen, header]
    if any(_HYDRA.search(str(each)) for each in inside) or re.search(r"#.*@package.*hydra", text, re.IGNORECASE):
        raise ConfigurationError(
            f"{file} has settings for Hydra, which could run code; give such settings on the command line"
        )
    if "${" in str(values.get("defaults")) or any(map(_leads_away, _texts(values.get("defaults")))):
        raise ConfigurationError(f"{file}: its defaults must name files in {folder}")
    for text in _texts(values):
        value = _OF_HYDRA.sub("", text)
        names = {name.strip() for name in _LOOKED_UP.findall(value)}
        if names - _RESOLVERS or re.search(r"\$\{[^}:]*\$\{[^}]*\}[^}]*:", value):
            raise ConfigurationError(
                f"{file}: {text!r} reads what is outside of the config; give such values on the command line"
            )


def _is_launcher(default: Any) -> bool:
    """Return whether an entry of defaults chooses a launcher that is known."""
    match default:
        case dict() if len(default) == 1:
            ((key, value),) = default.items()
            return isinstance(key, str) and _LAUNCHER.fullmatch(key) is not None and value in (*LAUNCHERS,)
    return False


def _read(file: Path) -> str:
    about = file.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("it is not a file")
    if about.st_size > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST:,} bytes")
    return file.read_text(encoding="utf-8")


def _size(node: yaml.Node | None, known: dict[int, float], depth: int = 0) -> float:
    """Return how many values a file has, each as often as aliases repeat it; infinitely many within itself."""
    if depth > _DEEPEST:
        raise ValueError("its sections are nested too deep")
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf
        parts = (part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,)))
        known[id(node)] = 1 + sum(_size(part, known, depth + 1) for part in parts)
    return known[id(node)]


def _texts(values: Any) -> Iterator[str]:
    match values:
        case dict():
            for name, value in values.items():
                yield from _texts(name)
                yield from _texts(value)
        case list() | tuple() | set():
            for value in values:
                yield from _texts(value)
        case str():
            yield values


def _leads_away(name: str) -> bool:
    """Return whether the name of a config is a path to another folder, or a source that is not a folder."""
    return name.startswith(("~", "//")) or ".." in re.split(r"[/\\@:]", name) or "://" in name


def _load_configuration(
    loader: ConfigLoaderImpl,
    config_name: str | None,
    overrides: list[str],
    run_mode: RunMode,
    from_shell: bool = True,
    validate_sweep_overrides: bool = True,
) -> DictConfig:
    """Compose a config as Hydra does, and refuse one whose section for Hydra comes from an added folder."""
    how = (run_mode, from_shell, validate_sweep_overrides)
    composed: DictConfig = _compose(loader, config_name, overrides, *how)
    if any(source.provider in _ADDED for source in composed.hydra.runtime.config_sources):
        own = [word for word in overrides if word.lstrip("+~").startswith(("hydra.", "hydra/"))]
        launcher = composed.hydra.runtime.choices.get("hydra/launcher")
        if LAUNCHERS.get(launcher) == OmegaConf.select(composed, "hydra.launcher._target_"):
            own.append(f"hydra/launcher={launcher}")
        if _of_hydra(composed) not in _without_folder(loader, tuple(own), how):
            raise ConfigurationError(
                "the folder of configs has settings for Hydra, which could run code; give such settings on the command "
                "line"
            )
    return composed


@functools.lru_cache(maxsize=4)
def _without_folder(loader: ConfigLoaderImpl, own: tuple[str, ...], how: tuple[RunMode, bool, bool]) -> tuple[Any, Any]:
    """Return what Hydra's section can be, with our config and with none, if nothing is chosen from the folder."""
    ours, none = (_of_hydra(_compose(loader, name, list(own), *how)) for name in ("run", None))
    return ours, none


def _of_hydra(config: DictConfig) -> Any:
    values: Any = OmegaConf.to_container(config.hydra, resolve=False)
    job = {key: value for key, value in values["job"].items() if key not in ("override_dirname", "config_name")}
    return {key: value for key, value in values.items() if key not in _COMPUTED} | {"job": job}


def guard() -> None:
    """Make Hydra compose so, in this process."""
    ConfigLoaderImpl.load_configuration = _load_configuration
