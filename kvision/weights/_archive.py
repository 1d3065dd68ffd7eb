"""Zip archives of tensors: `.pth` and `.keras` files."""

import os
import zipfile

from kvision.errors import UserError


def open_archive(path: str) -> zipfile.ZipFile:
    """An archive whose entries together are no larger than its file. `read` checks the CRC of an entry.

    Raises:
        UserError: it is compressed, or its entries overlap or have the same name.
        OSError, zipfile.BadZipFile: no such file, or a damaged one.
    """
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UserError("it is compressed, which files of PyTorch and Keras are not")
    if len({member.filename for member in members}) < len(members):
        raise UserError("it holds two entries of one name")
    if sum(max(member.file_size, member.compress_size) for member in members) > os.path.getsize(path):
        raise UserError("its entries are larger than the file")
    return archive
