"""The exceptions that tell a user's mistake from a fault of kvision."""


class UserError(ValueError):
    """Bad input: a command ends with this one sentence and exit code 2, without a traceback."""


class NoLabels(UserError):
    """A dataset whose images have no class of the network's, but can be read without labels."""


class UnknownKeyword(UserError, TypeError):
    """A keyword that a builder does not have."""
