"""Zip archives of tensors: `.pth` and `.keras` files."""

import os
import zipfile

from kvision.errors import UserError


def open_archive(path: str) -> zipfile.ZipFile:
    """An archive whose uncompressed entries together are no larger than its file.

    Raises:
        UserError: its entries overlap, or two have one name.
        OSError, zipfile.BadZipFile: no such file, or a damaged one.
    """
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    if len({member.filename for member in members}) < len(members):
        raise UserError("it holds two entries of one name")
    stored = [member for member in members if member.compress_type == zipfile.ZIP_STORED]
    if sum(max(member.file_size, member.compress_size) for member in stored) > os.path.getsize(path):
        raise UserError("its entries are larger than the file")
    return archive


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """The content of an entry, whose CRC is checked.

    Raises:
        UserError: it is compressed.
        KeyError, EOFError, zipfile.BadZipFile: there is none, or it is damaged.
    """
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise UserError(f"its entry {name!r:.80} is compressed, which those of PyTorch and Keras are not")
    return archive.read(name)
