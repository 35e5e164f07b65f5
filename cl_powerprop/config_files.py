"""YAML files of users: an option that is text keeps the text that stands in the file, as in `run_dir: 20240101_1200`.

YAML itself takes that for a number, `on` for a truth value and `12:30` for minutes.
"""

from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from cl_powerprop.options import Text, text_type


def with_text(values: Any, text: str, section: str = "") -> Any:
    """Return the values of a YAML file with the text that stands in it where an option is text.

    Args:
        values: what the file was read as: mappings, lists and scalars.
        text: the file's content.
        section: full name of the section that the file describes; "" for a whole config.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return values if node is None else _kept(values, node, section, None)


def _kept(values: Any, node: yaml.Node, key: str, text: Text | None) -> Any:
    """Go through values and their places in a file together; ``text`` says what text stands here, if any does."""
    if isinstance(node, yaml.MappingNode) and isinstance(values, dict):
        places = {name.value: place for name, place in node.value if isinstance(name, yaml.ScalarNode)}
        for name in values.keys() & places.keys():
            full = f"{key}.{name}".lstrip(".")
            values[name] = _kept(values[name], places[name], full, text_type(full))
    elif text is None:
        return values
    elif isinstance(node, yaml.SequenceNode) and isinstance(values, list) and text.depth:
        return [_kept(value, place, key, text.item) for value, place in zip(values, node.value, strict=True)]
    elif isinstance(node, yaml.ScalarNode) and not isinstance(values, str):
        is_null = values is None and (text.optional or node.value.lower() != "null")
        return None if is_null else node.value
    return values


class FileConfigSource(file_config_source.FileConfigSource):  # type: ignore[misc]
    """The YAML files of a folder, as Hydra reads them but for text.

    It has the name of Hydra's own: each process of a multirun gets a copy of Hydra's registry, which goes by names.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        result = super().load_config(config_path)
        file = Path(self.path, self._normalize_file_name(config_path))
        group = Path(config_path).parent.as_posix().strip("./").replace("/", ".")
        package = (result.header.get("package") or "_group_").replace("_group_", group)
        values = OmegaConf.to_container(result.config, resolve=False)
        section = package.removeprefix("_global_").strip(".")
        result.config = OmegaConf.create(with_text(values, file.read_text(encoding="utf-8"), section))
        return result


def read_text_as_text() -> None:
    """Make Hydra read the folders of users so."""
    Plugins.instance()  # registers Hydra's own sources
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource
