"""What the trials of a study are to have in common."""

from dataclasses import asdict
from typing import Any

from cl_powerprop.config import GROUPS, RunConfig
from cl_powerprop.naming import flat

_ELSEWHERE = ("data.root", "data.download", "train.threads", "train.eval_batch_size")  # change no number


def settings_of(config: RunConfig) -> dict[str, Any]:
    """Return the settings that change what a run reaches, by option."""
    values = asdict(config)
    listed = flat({key: values[key] for key in (*GROUPS, "train")})
    return {key: value for key, value in listed if key not in _ELSEWHERE} | {"seed": config.seed}
