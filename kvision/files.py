"""Files that are there whole or not at all."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from kvision.errors import UserError


def check_folder(folder: Path) -> None:
    """Checks that the folder `output` can be written to, or made where it is missing.

    Raises:
        UserError: it is a file, or lies below one.
        PermissionError: it may not be written to.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"`output` must be a folder; '{there}' is a file.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def check_file(path: Path, option: str) -> None:
    """Checks that a file can be written, or replaced, in a folder that is there.

    Args:
        path: of the file.
        option: which names it, for messages.

    Raises:
        UserError: it is a folder, or its folder is missing.
        PermissionError: its folder may not be written to.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"`{option}` must be a file in a folder that is there; got '{path}'.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))


@contextlib.contextmanager
def replacing(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Gives the path of a hidden file in the same folder; once that is written, it takes the place of `path`.

    Args:
        path: of the file to write.
        suffix: of the hidden one, for writers that ask for a certain one.

    Raises:
        OSError: the disk is full, or the like; with `path` as its file. What was there is still good.
    """
    tmp_path = path.with_name(f".{path.stem}{suffix}")
    try:
        yield tmp_path
        descriptor = os.open(tmp_path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(tmp_path, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            tmp_path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file of a cache, and the folders around it; several threads and processes may do so at once.

    Raises:
        OSError: the disk is full, or the like. What was there is still good.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
