"""The exceptions that tell a user's mistake from a fault of kvision."""

import contextlib
import errno
import os
from collections.abc import Iterator

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(ValueError):
    """Bad input: a command ends with this one sentence and exit code 2, without a traceback."""


class NoLabels(UserError):
    """A dataset whose images have no class of the network's, but can be read without labels."""


class MissingPackage(UserError, ImportError):
    """A package that is installed on demand, and is needed here."""


class UnknownKeyword(UserError, TypeError):
    """A keyword that a builder does not have."""


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Names the file or folder that is written in an OSError that names none, as of a full disk."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), error.filename or str(path)) from error
