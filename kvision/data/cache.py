"""Images that are kept after they were first read: in memory, or in the user's cache folder."""

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from kvision.data.identity import Files


def keep(image_of: Callable, store, dtype, shape) -> Callable:
    """`image_of`, asked for each index once; `store` is a dict or behaves like one."""
    absent = b"" if dtype == tf.string else np.zeros((0,) * len(shape), dtype.as_numpy_dtype)

    def get(index):
        value = store.get(int(index))
        return (absent, False) if value is None else (value, True)

    def put(index, value):
        store[int(index)] = value
        return value

    def kept(index):
        value, there = tf.numpy_function(get, [index], (dtype, tf.bool), stateful=False)
        value = tf.cond(
            tf.ensure_shape(there, ()),
            lambda: value,
            lambda: tf.numpy_function(put, (index, image_of(index)), dtype, stateful=False),
        )
        return tf.ensure_shape(value, shape)

    return kept


class Disk:
    """Encoded images in the user's cache folder, each below what changes when the image is replaced.

    Labels are not cached: they are cheap to read, and may be corrected.
    """

    def __init__(self, files: Files):
        self.files = files
        self.folder = cache_folder() / "images"
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, index) -> bytes | None:
        path = self._path(index)
        return path.read_bytes() if path.is_file() else None

    def __setitem__(self, index, content: bytes):
        path = self._path(index)
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")  # two batches may write at once
        temporary.write_bytes(content)
        os.replace(temporary, path)

    def _path(self, index) -> Path:
        digest = hashlib.sha256(self.files.key(index).encode(errors="surrogateescape")).hexdigest()
        return self.folder / digest[:2] / digest[2:40]


def cache_folder() -> Path:
    """kvision's folder below $XDG_CACHE_HOME, or else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvision"
