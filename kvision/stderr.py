"""Standard error without the notices of libraries that heed no setting."""

import contextlib
import os
import re
from collections.abc import Iterator


@contextlib.contextmanager
def without_lines(pattern: str) -> Iterator[None]:
    """Holds back what is written to standard error, and writes it at the end without some lines.

    Where an exception is raised, all lines are written.

    Args:
        pattern: of the beginning of lines to leave out, a regular expression.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)  # what a pipe cannot hold is lost
    os.dup2(write, 2)
    os.close(write)
    unwanted = re.compile("(?!)")
    try:
        yield
        unwanted = re.compile(pattern)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        with open(read, errors="replace") as pipe:
            os.write(2, "".join(line for line in pipe if not unwanted.match(line)).encode())
