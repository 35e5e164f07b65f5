"""The settings of a trial that change what it reaches."""

import hashlib
import json
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


def settings_hash(config: RunConfig) -> str:
    """Return the same for two configs if and only if these settings are the same."""
    return hashlib.sha256(json.dumps(settings_of(config), sort_keys=True).encode()).hexdigest()[:16]
