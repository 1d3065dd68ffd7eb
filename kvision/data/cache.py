"""Images that are kept after they were first read: in memory, or in the user's cache folder."""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf


def keep(element: Callable, store, dtype, shape) -> Callable:
    """`element`, asked for each index once; `store` is a dict or behaves like one."""

    def get(index):
        return store.get(int(index), (np.zeros((0,) * len(shape), dtype.as_numpy_dtype), np.int64(-1)))

    def put(index, value, label):
        store[int(index)] = value, label
        return value, label

    def make(index):
        return tf.numpy_function(put, (index, *element(index)), (dtype, tf.int64), stateful=False)

    def kept(index):
        there = tf.numpy_function(get, [index], (dtype, tf.int64), stateful=False)
        value, label = tf.cond(there[1] >= 0, lambda: tuple(there), lambda: tuple(make(index)))
        return tf.ensure_shape(value, shape), tf.ensure_shape(label, ())

    return kept


class Disk:
    """Encoded images and their labels, in a folder for each list of names below the user's cache folder."""

    def __init__(self, names: Iterable[str]):
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        self.folder = cache_folder() / f"images-{digest[:32]}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, index, default):
        path = self.folder / str(index)
        if not path.is_file():
            return b"", default[1]
        content = path.read_bytes()
        return content[8:], np.frombuffer(content[:8], np.int64)[0]

    def __setitem__(self, index, element):
        value, label = element
        beside = self.folder / f"{index}.{uuid.uuid4().hex}"  # two batches may read one image at once
        beside.write_bytes(np.int64(label).tobytes() + value)
        os.replace(beside, self.folder / str(index))


def cache_folder() -> Path:
    """kvision's folder below $XDG_CACHE_HOME, or else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvision"
