"""What can go wrong by a user's hand. The command turns each into one line and exit code 2."""


class UserError(Exception):
    """A mistake that the user can mend; the message names the choices or the fix."""


class ConfigurationError(UserError, ValueError):
    """An option whose value is impossible, alone or together with another one."""


class DataError(UserError, OSError):
    """A data set that is missing, incomplete or altered."""


class RunFolderError(UserError, OSError):
    """A run folder that exists already, or that holds no readable run."""


class DivergedError(RuntimeError):
    """Training left the numbers: the loss is no longer finite."""
