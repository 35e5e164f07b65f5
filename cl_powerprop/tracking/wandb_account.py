"""What the W&B sink and the W&B commands share: is there an account, and what marks an uploaded run."""

import os
from typing import Any

import requests

from cl_powerprop.errors import UserError

UPLOADED = ".synced"  # what W&B's own sync adds to the name of a file that has been uploaded
_SECONDS = 20  # that an answer may take


def has_credentials() -> bool:
    """Return whether W&B will find an API key or a token without asking for one; it may turn out to be a wrong one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib.wbauth import read_netrc_auth

    try:
        return read_netrc_auth(host=wandb.setup().settings.base_url) is not None
    except AuthenticationError:  # a key that cannot be one
        return True


def open_account() -> Any:
    """Return W&B's client for the account whose credentials there are, once the server has taken them.

    Raises:
        UserError: if there are none, the server does not answer, or it does not take them.
    """
    if not has_credentials():
        raise UserError("no W&B API key was found; set WANDB_API_KEY, or run: wandb login")
    import wandb

    _see_that_it_answers(wandb.setup().settings.base_url)
    try:
        return wandb.Api(timeout=_SECONDS)
    except Exception as error:
        raise UserError(f"W&B cannot be used: {' '.join(str(error).split())}") from error


def _see_that_it_answers(base_url: str) -> None:
    """Ask the server for anything at all: W&B's client would go on trying to reach one that is away."""
    try:
        requests.head(base_url, timeout=_SECONDS)
    except requests.exceptions.SSLError:
        pass  # it answers, and whom W&B's client trusts is its own affair
    except requests.RequestException as error:
        raise UserError(f"W&B cannot be used: {base_url} does not answer ({type(error).__name__})") from error
