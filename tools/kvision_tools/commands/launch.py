"""kvision-launch: starts a command as several workers on this machine, as torchrun does for PyTorch.

    kvision-launch --workers=2 -- kvision-train --model=resnet50 --data=folder:PATH --output=runs/resnet50

Each worker gets TF_CONFIG and its share of the GPUs, and its lines begin with its number. When one dies, all
are ended and started again; kvision-train then goes on from its last checkpoint. Exit code 2 of a worker (bad
input) and 75 (ended by a signal, to be started again) are passed on at once. SIGTERM, SIGHUP and Ctrl-C ask
the workers to end; a second Ctrl-C kills them. Where kvision-launch itself is killed, its workers end too.
"""

import json
import math
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from absl import flags

from kvision import cli
from kvision.errors import UserError
from kvision.names import counted
from kvision_tools.cluster import RESTARTED, TOKEN

FLAGS = flags.FLAGS
REQUEUE = 75
FINAL = (0, 2, REQUEUE)  # exit codes after which a restart would change nothing
LAST_WORDS = 1.0  # seconds from one worker's end to asking the others, which may know better why


def define():
    """Defines the flags."""
    flags.DEFINE_integer("workers", 2, "Number of processes.", 1)
    flags.DEFINE_integer("max_restarts", 3, "Number of restarts of all workers, after one has died.", 0)
    flags.DEFINE_float(
        "grace_seconds", 30.0, "Seconds between asking the workers to end and killing them.", 0
    )


def main(command):
    """Runs the workers; returns the exit code of the first that ended otherwise than well."""
    with cli.user_errors():
        if not command:
            raise UserError("Which command? kvision-launch --workers=2 -- kvision-train ...")
        beside = str(Path(sys.executable).parent)  # of an environment that is not activated
        program = shutil.which(command[0]) or shutil.which(command[0], path=beside)
        if not program:
            raise UserError(f"There is no command {command[0]!r}.")
        command = [program, *command[1:]]
        asked = []  # signals that this process was sent
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup and & have it
                signal.signal(number, lambda number, _: asked.append(number))
        for restart in range(FLAGS.max_restarts + 1):
            if restart:
                os.environ[RESTARTED] = str(restart)
            code = _run(command, asked)
            if code in FINAL or asked:
                break
            left = counted(FLAGS.max_restarts - restart, "restart")
            print(f"A worker ended with exit code {code}; {left} left.", file=sys.stderr, flush=True)
    sys.exit(code if code >= 0 else 128 - code)


def _run(command, asked) -> int:
    workers, codes, forwards = [], [], []
    # It reads the workers' numbers; the end of its input says that this process is gone.
    watch = subprocess.Popen(
        [sys.executable, "-IS", Path(__file__).parents[1] / "watch.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert watch.stdin  # a pipe, which the type of Popen does not tell
    try:
        for worker in _start(command):
            workers.append(worker)
            forwards.append(threading.Thread(target=_forward, args=(worker, len(forwards)), daemon=True))
            forwards[-1].start()
            watch.stdin.write(b"%d\n" % worker.pid)
            watch.stdin.flush()
        end = math.inf
        while (
            not asked and None in (codes := [worker.poll() for worker in workers]) and time.monotonic() < end
        ):
            if any(codes):
                end = min(end, time.monotonic() + LAST_WORDS)
            time.sleep(0.1)
    finally:
        _end(workers, asked)
        watch.kill()
        watch.stdin.close()
        watch.wait()
        for forward in forwards:
            forward.join(timeout=2)  # what else has the worker's output open does not hold this process
    if failed := [code for code in codes if code]:
        return next((code for code in FINAL if code in failed), failed[0])
    codes = [worker.returncode for worker in workers]  # SIGTERM ends a command that does not heed it yet
    return next((REQUEUE if code == -signal.SIGTERM else code for code in codes if code), 0)


def _start(command):
    addresses = [f"localhost:{port}" for port in _free_ports(FLAGS.workers)]
    gpus, token = _gpus(), secrets.token_hex(32)
    for index in range(FLAGS.workers):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {
            "TF_CONFIG": json.dumps(config),
            TOKEN: token,
            "PYTHONUNBUFFERED": "1",
        }
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index :: FLAGS.workers])
        yield subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then asks the workers to end
        )


def _forward(worker, index):
    with worker.stdout:
        for line in worker.stdout:
            try:
                sys.stdout.write(f"[{index}] {line.decode(errors='replace')}")
                sys.stdout.flush()
            except OSError:  # nobody reads any more; the worker goes on all the same
                continue


def _end(workers, asked):
    """Asks all that still run to end, and kills those that have not after the grace time."""
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    deadline = time.monotonic() + FLAGS.grace_seconds
    for worker in workers:
        while worker.poll() is None:
            if time.monotonic() > deadline or asked.count(signal.SIGINT) > 1:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
            time.sleep(0.05)


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
    FLAGS.set_gnu_getopt(False)  # what follows the name of the command belongs to it
    cli.run(main, define)


if __name__ == "__main__":
    entry()
