"""`tf.distribute` strategies by name, and the cluster that TF_CONFIG or SLURM describes."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from kvision.errors import UserError

NAMES = ("auto", "one", "mirrored", "multiworker")
RESTARTED = "KVISION_RESTARTED"  # set by kvision-launch, so that --overwrite does not begin anew then


@dataclass(frozen=True)
class Cluster:
    """Workers that share a step.

    Attributes:
        addresses: "host:port" of each; the first writes the files.
        index: of this process among them.
    """

    addresses: tuple[str, ...] = ("",)
    index: int = 0


def find_cluster(name: str) -> Cluster:
    """The cluster of a strategy: this process alone, or what TF_CONFIG or else SLURM says.

    Args:
        name: one of `NAMES`; "one" and "mirrored" are for this process alone.

    Raises:
        ValueError: "multiworker" where neither says anything, or a TF_CONFIG that cannot be read.
    """
    if name in ("one", "mirrored"):
        return Cluster()
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "TF_CONFIG" not in os.environ:
        os.environ["TF_CONFIG"] = _slurm_config()
    if "TF_CONFIG" in os.environ:
        return _read_config(os.environ["TF_CONFIG"])
    if name == "multiworker":
        raise UserError(
            "`--strategy=multiworker` needs a cluster: TF_CONFIG, a SLURM step of several tasks, or "
            "kvision-launch around this command."
        )
    return Cluster()


def make_strategy(name: str, cluster: Cluster) -> tf.distribute.Strategy:
    """The strategy that a name means, before anything else of TensorFlow runs.

    Args:
        name: "one" for one device, "mirrored" for all GPUs of this machine (all logical CPUs where
            it has none), "multiworker" for the devices of a cluster, "auto" for what there is.
        cluster: of `find_cluster`.
    """
    if len(cluster.addresses) > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "one" or (name != "mirrored" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    devices = gpus or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _read_config(text: str) -> Cluster:
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        addresses = (*jobs.get("chief", ()), *jobs["worker"])
        index = int(task["index"]) + (len(jobs.get("chief", ())) if task["type"] == "worker" else 0)
        addresses[index].rpartition(":")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise UserError(
            'TF_CONFIG must be {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
            f'"index": N}}}}; got {text!r}.'
        ) from None
    return Cluster(addresses, index)


def _slurm_config() -> str:
    gpus = Path("/dev/nvidia0").exists() or "CUDA_VISIBLE_DEVICES" in os.environ
    without = {"gpus_per_node": 4096, "gpus_per_task": 1, "auto_set_gpu": False}  # it would divide by zero
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(**({} if gpus else without))
    workers = resolver.cluster_spec().as_dict()
    kind, index = resolver.get_task_info()
    return json.dumps({"cluster": workers, "task": {"type": kind, "index": index}})
