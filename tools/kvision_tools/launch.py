"""kvision-launch: starts a command as several workers on this machine, as torchrun does for PyTorch.

    kvision-launch --workers=2 -- kvision-train --model=resnet50 --data=folder:PATH --output=runs/resnet50

Each worker gets TF_CONFIG and its share of the GPUs, and its lines begin with its number. When one dies, all
are ended and started again; kvision-train then goes on from its last checkpoint. Exit code 2 of a worker (bad
input) and 75 (ended by SIGTERM, to be started again) are passed on at once.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from absl import flags

from kvision import _cli
from kvision.errors import UserError
from kvision_tools.strategy import RESTARTED

FLAGS = flags.FLAGS
flags.DEFINE_integer("workers", 2, "Processes.", 1)
flags.DEFINE_integer("max_restarts", 3, "Of all workers, after one has died.", 0)
flags.DEFINE_float("grace_seconds", 30.0, "Between asking the workers to end and killing them.", 0)

FINAL = (0, 2, 75)  # exit codes after which a restart would change nothing


def main(command):
    """Runs the workers; returns the exit code of the first that ended otherwise than well."""
    with _cli.user_errors():
        if not command:
            raise UserError("Which command? kvision-launch --workers=2 -- kvision-train ...")
        asked = []  # signals that this process was sent
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: asked.append(number))
        for restart in range(FLAGS.max_restarts + 1):
            if restart:
                os.environ[RESTARTED] = str(restart)
            code = _run(command, asked)
            if code in FINAL or asked:
                break
            left = FLAGS.max_restarts - restart
            print(f"A worker ended with exit code {code}; {left} restarts left.", file=sys.stderr, flush=True)
    sys.exit(code if code >= 0 else 128 - code)


def _run(command, asked) -> int:
    workers = _start(command)
    try:
        while not asked:
            codes = [worker.poll() for worker in workers]
            if all(code == 0 for code in codes):
                return 0
            if failed := [code for code in codes if code]:
                return failed[0]
            time.sleep(0.1)
    finally:
        _end(workers)
    codes = [worker.returncode for worker in workers]
    return next((code for code in codes if code), 0)


def _start(command) -> list[subprocess.Popen]:
    addresses = [f"localhost:{port}" for port in _free_ports(FLAGS.workers)]
    gpus = _gpus()
    workers = []
    for index in range(FLAGS.workers):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(config), "PYTHONUNBUFFERED": "1"}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index :: FLAGS.workers])
        worker = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then asks the workers to end
        )
        threading.Thread(target=_forward, args=(worker, index)).start()
        workers.append(worker)
    return workers


def _forward(worker, index):
    for line in worker.stdout:
        sys.stdout.write(f"[{index}] {line.decode(errors='replace')}")
        sys.stdout.flush()


def _end(workers):
    """Asks all that still run to end, and kills those that have not after the grace time."""
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    deadline = time.monotonic() + FLAGS.grace_seconds
    for worker in workers:
        try:
            worker.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def _free_ports(count) -> list[int]:
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [free.getsockname()[1] for free in sockets]
    for free in sockets:
        free.close()
    return ports


def _gpus() -> list[str]:
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    listed = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number in range(len(list(listed.iterdir())))] if listed.is_dir() else []


def entry():
    """The console script."""
    _cli.run(main)


if __name__ == "__main__":
    entry()
