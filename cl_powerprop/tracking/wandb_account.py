"""Shared by the W&B sink and the W&B commands: access to the account, and the mark of uploaded runs."""

import os
from typing import Any

import requests

from cl_powerprop.errors import UserError
from cl_powerprop.tracking.wandb_environment import chosen_by_the_user

UPLOADED = ".synced"  # for an uploaded file, W&B's own sync makes a file with this added to the name
_SECONDS = 20  # time limit for an answer of the server


def has_credentials() -> bool:
    """Return whether W&B finds an API key or a token without asking for one; it is not checked with the server."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib.wbauth import read_netrc_auth

    try:
        return read_netrc_auth(host=wandb.setup().settings.base_url) is not None
    except AuthenticationError:  # there is a key, but it is malformed
        return True


def open_account() -> Any:
    """Return W&B's client, after the server has accepted the credentials.

    Raises:
        UserError: for a variable that W&B refuses, or if there are no credentials, the server does not answer, or it
            rejects them.
    """
    chosen_by_the_user()
    if not has_credentials():
        raise UserError("no W&B API key was found; set WANDB_API_KEY, or run: wandb login")
    import wandb

    _see_that_it_answers(wandb.setup().settings.base_url)
    try:
        return wandb.Api(timeout=_SECONDS)
    except Exception as error:
        raise UserError(f"W&B cannot be used: {' '.join(str(error).split())}") from error


def _see_that_it_answers(base_url: str) -> None:
    """Check that the server answers: W&B's client would keep trying to reach one that does not."""
    try:
        requests.head(base_url, timeout=_SECONDS)
    except requests.exceptions.SSLError:
        pass  # it answers; W&B's client has its own settings for certificates
    except requests.RequestException as error:
        raise UserError(f"W&B cannot be used: {base_url} does not answer ({type(error).__name__})") from error
