"""What the W&B sink and the W&B commands share: is there an account, and what marks an uploaded run."""

import os

from cl_powerprop.errors import UserError

UPLOADED = ".synced"  # what W&B's own sync adds to the name of a file that has been uploaded


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


def need_credentials() -> None:
    """Make sure that W&B will find credentials.

    Raises:
        UserError: if it will not.
    """
    if not has_credentials():
        raise UserError("no W&B API key was found; set WANDB_API_KEY, or run: wandb login")
