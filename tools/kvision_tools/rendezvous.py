"""Workers meet before TensorFlow connects them, so that what is wrong is said in a sentence.

TensorFlow itself would wait for a missing worker in silence, and train with workers that have other flags.
"""

import contextlib
import json
import socket
import time

from kvision.errors import UserError
from kvision_tools.strategy import Cluster


def meet(cluster: Cluster, facts: dict[str, list[str]], timeout: float) -> None:
    """Waits until all workers are there, and checks that they say the same.

    Each takes the port at which TensorFlow will listen afterwards. The first worker hears the others, and
    tells them the verdict.

    Args:
        cluster: of more than one worker.
        facts: lines that must not differ between workers, below a name for messages.
        timeout: seconds.

    Raises:
        OSError: this worker's port is in use, or a worker did not come in time.
        ValueError: a worker's facts differ.
    """
    port = int(cluster.addresses[cluster.index].rpartition(":")[2])
    try:
        server = socket.create_server(("", port))
    except OSError:
        raise OSError(f"Port {port} of {_name(cluster, cluster.index)} is in use.") from None
    deadline = time.monotonic() + timeout
    with server:
        verdict = (_hear if cluster.index == 0 else _say)(server, cluster, facts, deadline, timeout)
    if verdict:
        raise UserError(verdict)


def _hear(server, cluster, facts, deadline, timeout) -> str:
    with contextlib.ExitStack() as open_sockets:
        heard = {}
        while len(heard) < len(cluster.addresses) - 1 and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                connection = open_sockets.enter_context(server.accept()[0])
                connection.settimeout(5)
                message = json.loads(connection.makefile().readline())
                heard[int(message["worker"])] = connection, message["facts"]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # nobody came, or somebody else did
        missing = [_name(cluster, i) for i in range(1, len(cluster.addresses)) if i not in heard]
        differences = [
            f"{_name(cluster, i)} has other {what} than worker 0: "
            f"{', '.join(sorted(set(theirs[what]) ^ set(facts[what])))}."
            for i, (_, theirs) in sorted(heard.items())
            for what in facts
            if theirs[what] != facts[what]
        ]
        verdict = _late(missing, timeout) if missing else " ".join(differences)
        for connection, _ in heard.values():
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps(verdict).encode() + b"\n")
                connection.recv(1)  # so that the other side closes first, and the port is free at once
    return verdict


def _say(server, cluster, facts, deadline, timeout) -> str:
    host, _, port = cluster.addresses[0].rpartition(":")
    message = json.dumps({"worker": cluster.index, "facts": facts}).encode() + b"\n"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, int(port)), timeout=left) as connection:
                connection.sendall(message)
                connection.settimeout(left + 10)
                return json.loads(connection.makefile().readline())
        except (OSError, ValueError):
            time.sleep(0.1)
    return _late([_name(cluster, 0)], timeout)


def _name(cluster, index) -> str:
    return f"worker {index} ({cluster.addresses[index]})"


def _late(names, timeout) -> str:
    return f"{' and '.join(names)} did not come within {timeout:g} seconds."
