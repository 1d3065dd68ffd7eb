"""The cluster of workers that TF_CONFIG or SLURM describes."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from kvision.errors import UserError
from kvision.names import counted

RESTARTED = "KVISION_RESTARTED"  # set by kvision-launch, so that --overwrite does not begin anew then
TOKEN = "KVISION_TOKEN"  # by which workers know each other; of kvision-launch, or set on all workers
FORM = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": N}}'
ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[\w.-]+):([0-9]{1,5})", re.ASCII)
REFUSED = {  # the other jobs of TensorFlow's clusters
    "evaluator": "the workers of kvision-train evaluate after each epoch themselves, so an evaluator has "
    "nothing to do: start a chief and workers alone",
    "ps": "kvision-train has no parameter servers: give a chief and workers alone",
    "master": "'master' is TensorFlow 1's name: call it 'chief'",
}


@dataclass(frozen=True)
class Cluster:
    """Workers that share a step.

    Attributes:
        addresses: "host:port" of each, "[host]:port" for IPv6; the first writes the files.
        index: number of this process among them.
    """

    addresses: tuple[str, ...] = ("",)
    index: int = 0

    def place(self, index: int) -> tuple[str, int]:
        """The host and the port of a worker."""
        host, _, port = self.addresses[index].rpartition(":")
        return host.strip("[]"), int(port)

    def name(self, index: int) -> str:
        """The name of a worker in messages."""
        return f"worker {index} ({self.addresses[index]})"


def find_cluster(name: str) -> Cluster:
    """The cluster of a strategy: this process alone, or what TF_CONFIG or else SLURM says.

    Args:
        name: one of `choices.STRATEGIES`; "one" and "mirrored" are for this process alone.

    Raises:
        UserError: "multiworker" where neither says anything, or what they say cannot be followed.
    """
    if name in ("one", "mirrored"):
        return Cluster()
    config = os.environ.get("TF_CONFIG", "").strip()
    if config not in ("", "{}"):
        return _read_config(config)
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks != "1":
        return _slurm_cluster()
    if name == "multiworker":
        raise UserError(
            "`--strategy=multiworker` needs a cluster: TF_CONFIG, a SLURM step of several tasks, or "
            "kvision-launch around this command."
        )
    return Cluster()


def _read_config(text: str) -> Cluster:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    keys = "cluster", "task"
    if not isinstance(config, dict) or not all(isinstance(config.get(key, {}), dict) for key in keys):
        raise UserError(f"TF_CONFIG must be {FORM}; got {_short(text)}.")
    jobs, task = (config.get(key, {}) for key in keys)
    if "sparseCluster" in config:
        raise UserError("TF_CONFIG has a 'sparseCluster'; a 'cluster' that lists all workers was expected.")
    kind = task.get("type")
    for job, why in REFUSED.items():
        if kind == job or (jobs.get(job) and job != "evaluator"):
            raise UserError(f"TF_CONFIG has the job {job!r}; {why}.")
    for job in [*jobs, *([kind] if "type" in task else [])]:
        if job not in ("chief", "worker", *REFUSED):
            raise UserError(f"TF_CONFIG has an unknown job {_short(job)}. Valid names: chief, worker.")
    listed = {job: _addresses(job, jobs.get(job, [])) for job in ("chief", "worker")}
    addresses = (*listed["chief"], *listed["worker"])
    if len(listed["chief"]) > 1:
        raise UserError(f"TF_CONFIG has {len(listed['chief'])} chiefs; one at most was expected.")
    if jobs and not addresses:
        raise UserError(f"TF_CONFIG has a cluster without the address of a worker: {_short(jobs)}.")
    if len({address.lower() for address in addresses}) < len(addresses):
        raise UserError(f"TF_CONFIG lists an address twice: {_short(', '.join(addresses))}.")
    if len(addresses) < 2 and kind is None:
        kind = "chief" if listed["chief"] else "worker"
    if kind is None:
        raise UserError(f"TF_CONFIG must say which of its {len(addresses)} workers this is: {FORM}.")
    index = _index(task.get("index", 0 if len(addresses) < 2 else None))
    if index and not addresses:
        raise UserError(f"TF_CONFIG has no addresses, so its only worker has index 0; got {index}: {FORM}.")
    if addresses and not 0 <= index < len(listed[kind]):
        there = counted(len(listed[kind]), "address")
        raise UserError(
            f"`index` of TF_CONFIG's task must count the {there} of {kind!r} from 0; got {index}."
        )
    if len(addresses) < 2:
        return Cluster()
    return Cluster(addresses, index + (len(listed["chief"]) if kind == "worker" else 0))


def _addresses(job, listed) -> list[str]:
    if not isinstance(listed, list):
        raise UserError(f"TF_CONFIG must list the addresses of {job!r}; got {_short(listed)}.")
    for address in listed:
        match = ADDRESS.fullmatch(address) if isinstance(address, str) else None
        if not match or not 0 < int(match[2]) < 2**16:
            raise UserError(
                f"An address in TF_CONFIG must be host:port, or [host]:port for IPv6; got {_short(address)}."
            )
    return listed


def _index(value) -> int:
    if type(value) is str and re.fullmatch(r"-?[0-9]{1,9}", value, re.ASCII):
        return int(value)
    if type(value) is not int:
        raise UserError(f"`index` of TF_CONFIG's task must be an integer; got {_short(value)}.")
    return value


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _slurm_cluster() -> Cluster:
    import tensorflow as tf  # not before it is needed: kvision-launch does without

    gpus = Path("/dev/nvidia0").exists() or "CUDA_VISIBLE_DEVICES" in os.environ
    without = {"gpus_per_node": 4096, "gpus_per_task": 1, "auto_set_gpu": False}  # it would divide by zero
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(**({} if gpus else without))
        addresses = resolver.cluster_spec().as_dict()["worker"]
        index = resolver.get_task_info()[1]
        # The resolver has n10 before n9; SLURM counts its tasks in the order of the numbers.
        addresses = sorted(
            addresses, key=lambda a: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", a)]
        )
        host = addresses[index].rpartition(":")[0]
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError, ZeroDivisionError) as error:
        raise UserError(
            f"The environment of the SLURM step cannot be followed: {_short(str(error))}."
        ) from None
    node = os.environ.get("SLURMD_NODENAME", host)
    if node != host:
        raise UserError(
            f"SLURM's task {index} runs on {node!r}; {host!r} was expected: srun --distribution=block."
        )
    return Cluster(tuple(addresses), index)
