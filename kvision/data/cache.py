"""Images that are kept after they were first read: in memory, or in the user's cache folder."""

import contextlib
import hashlib
import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from kvision.files import write_whole

CHECKSUM = 16  # bytes before the content of a file in the cache
LOCK, SAID = threading.Lock(), set()  # what stderr was told


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


def keep_arrays(name: str, key: str, make: Callable) -> dict[str, np.ndarray]:
    """Arrays that cost a pass over a dataset, kept in the user's cache folder.

    Args:
        name: of what they are.
        key: a text that changes when the arrays do.
        make: gives them as a dict.
    """
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]
    try:
        path = cache_folder() / f"{name}-{digest}.npz"
        with open(path, "rb") as file, np.load(file) as arrays:  # allow_pickle is off
            return dict(arrays)
    except Exception:  # it is not there; or whatever a damaged file makes its reader raise
        arrays = make()
    content = io.BytesIO()
    np.savez(content, **arrays)
    with contextlib.suppress(OSError):
        write_whole(cache_folder() / f"{name}-{digest}.npz", content.getvalue())
    return arrays


class Disk:
    """Bytes in the user's cache folder, each below what changes when they do: encoded images, by default.

    Labels are not cached: they are cheap to read, and may be corrected. What was damaged in the folder is as
    if it were not there. A folder that cannot be read or written is not used any more; stderr says so once.

    Args:
        key: from an index to a text that changes when the bytes do.
        name: of the folder.
    """

    def __init__(self, key: Callable[..., str], name: str = "images"):
        self.key = key
        self.failed = False
        try:
            self.folder = cache_folder() / name
        except OSError as error:
            self._fail(error)

    def get(self, index) -> bytes | None:
        if self.failed:
            return None
        try:
            kept = self._path(index).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._fail(error)
            return None
        checksum, content = kept[:CHECKSUM], kept[CHECKSUM:]
        return content if checksum == self._checksum(index, content) else None

    def __setitem__(self, index, content: bytes):
        if self.failed:
            return
        try:
            write_whole(self._path(index), self._checksum(index, content) + content)
        except OSError as error:
            self._fail(error)

    def _fail(self, error):
        with LOCK:  # several threads read images, and there is a cache for each split
            self.failed = True
            sentence = f"The cache is not used any more: {error.strerror or error}."
            if sentence not in SAID:
                print(sentence, file=sys.stderr)
            SAID.add(sentence)

    def _checksum(self, index, content) -> bytes:
        key = self.key(index).encode(errors="surrogateescape")
        return hashlib.blake2b(content, digest_size=CHECKSUM, key=hashlib.sha256(key).digest()).digest()

    def _path(self, index) -> Path:
        digest = hashlib.sha256(self.key(index).encode(errors="surrogateescape")).hexdigest()
        return self.folder / digest[:2] / digest[2:40]


def cache_folder() -> Path:
    """kvision's folder below $XDG_CACHE_HOME, or else ~/.cache.

    Raises:
        OSError: the home folder is unknown.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvision"
    except RuntimeError as error:
        raise FileNotFoundError(f"{error} Set XDG_CACHE_HOME to a folder for caches") from None
