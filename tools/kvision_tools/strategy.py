"""`tf.distribute` strategies by name."""

import json
import os

import tensorflow as tf

from kvision import cli
from kvision_tools.cluster import Cluster


def make_strategy(name: str, cluster: Cluster) -> tf.distribute.Strategy:
    """The strategy that a name means, before anything else of TensorFlow runs.

    Args:
        name: "one" for one device, "mirrored" for all GPUs of this machine (all logical CPUs where
            it has none), "multiworker" for the devices of a cluster, "auto" for what there is.
        cluster: cluster of workers, see `find_cluster`.
    """
    os.environ.pop("TF_CONFIG", None)  # TensorFlow reads it too, and is to read what we understood
    if len(cluster.addresses) > 1:
        task = {"type": "worker", "index": cluster.index}
        config = {"cluster": {"worker": cluster.addresses}, "task": task}
        os.environ["TF_CONFIG"] = json.dumps(config)
        with cli.without_notices():
            return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "one" or (name != "mirrored" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    devices = gpus or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])
