"""What the user's environment variables (`WANDB_NAME`, ...) and W&B's settings files say."""

import os
from collections.abc import Mapping
from typing import Any

from cl_powerprop.errors import ConfigurationError

OFFLINE = ("offline", "dryrun")  # two of W&B's modes; its modes run and shared are online

_OPTIONS = ("mode", "project", "entity", "group", "job_type", "name", "tags")
_PREFIX = "WANDB_"
# Arguments of `wandb.init`, where W&B's settings have another name for them.
_ARGUMENTS = {f"run_{name}": name for name in ("name", "group", "job_type", "tags", "id")}


def chosen_by_the_user(job: str | None = None) -> dict[str, Any]:
    """Return what the user's environment sets, by the names of `wandb.init`'s arguments or of `wandb.Settings`.

    W&B's precedence: a variable beats a settings file (`wandb offline` writes one). An empty variable counts as not
    set, and is removed: W&B would not start with some of them.

    Args:
        job: which of a multirun's jobs it is for: they do not share an id, and it is added to their common name.

    Raises:
        ConfigurationError: for a variable whose value W&B refuses.
    """
    import wandb
    from pydantic import ValidationError

    settings = wandb.Settings(quiet=True)  # W&B names its files when it starts
    settings.update_from_system_settings()
    for name in [name for name in os.environ if name.startswith(_PREFIX)]:
        if not os.environ[name]:
            del os.environ[name]
            continue
        try:
            settings.update_from_env_vars({name: os.environ[name]})
        except ValidationError as error:
            raise ConfigurationError(f"{name}: {error.errors()[0]['msg']}") from error
        except wandb.errors.UsageError as error:
            raise ConfigurationError(f"{name}: {error}") from error
    found = {_ARGUMENTS.get(name, name): getattr(settings, name) for name in settings.model_fields_set - {"quiet"}}
    if job is not None:
        found.pop("id", None)
        if "name" in found:
            found["name"] += f"-{job}"
    return found


def first_of_each(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Return each of `wandb.init`'s arguments that options can set, from the first source where it is not None."""
    return {name: next((source[name] for source in sources if source.get(name) is not None), None) for name in _OPTIONS}
