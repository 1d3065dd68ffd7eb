"""`tf.distribute` strategies by name."""

import tensorflow as tf

NAMES = ("auto", "one", "mirrored")


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy that a name means.

    Args:
        name: "one" for one device, "mirrored" for all GPUs of this machine (all logical CPUs where
            it has none), "auto" for mirrored where there are two GPUs or more.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if name == "one" or (name == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    devices = gpus or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])
