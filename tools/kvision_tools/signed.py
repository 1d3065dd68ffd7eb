"""Connections between workers, whose messages are signed with the token of their run.

A signature is an HMAC over random numbers of both sides, the sender, the message's number and its bytes.
Without the token nobody can make, change, repeat or send back a message. Nothing is encrypted.
"""

import contextlib
import errno
import hmac
import json
import secrets
import socket

MOST_BYTES = 2**10, 2**26  # of a message, before and after the token was shown


class Line:
    """A connection between the first worker and another, both of which know the token."""

    def __init__(self, reader, writer, first: bool, key: bytes):
        self.reader, self.writer, self.first, self.key = reader, writer, first, key
        self.sent = self.received = 0  # messages

    @classmethod
    async def open(cls, reader, writer, token, first) -> "Line":
        """Exchanges random numbers, so that no message of another connection counts in this one."""
        sent = secrets.token_bytes(32)
        writer.write(sent)
        received = await reader.readexactly(32)
        key = hmac.digest(token, sent + received if first else received + sent, "sha256")
        return cls(reader, writer, first, key)

    async def send(self, message):
        body = json.dumps(message).encode()
        self.sent += 1
        self.writer.write(len(body).to_bytes(4) + self._sign(self.first, self.sent, body) + body)
        await self.writer.drain()

    async def receive(self):
        size = int.from_bytes(await self.reader.readexactly(4))
        if size > MOST_BYTES[self.received > 0]:
            raise ValueError
        signature, body = await self.reader.readexactly(32), await self.reader.readexactly(size)
        self.received += 1
        if not hmac.compare_digest(signature, self._sign(not self.first, self.received, body)):
            raise ValueError
        return json.loads(body)

    def _sign(self, first, number, body) -> bytes:
        return hmac.digest(self.key, bytes([first]) + number.to_bytes(8) + body, "sha256")


def listen(cluster) -> list[socket.socket]:
    """Listens at this worker's address alone where it is one of this machine, else at all interfaces.

    It need not be: the name of a Kubernetes service is one that others know, and Debian has the machine's own
    name mean 127.0.1.1.
    """
    host, port = cluster.place(cluster.index)
    with contextlib.ExitStack() as at_fault:
        listening = []
        try:
            for family, place in sorted(_places(host, port)):
                try:
                    listening.append(at_fault.enter_context(socket.create_server(place, family=family)))
                except OSError as error:
                    if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                        raise
            if not listening:
                both = socket.has_dualstack_ipv6()
                family = socket.AF_INET6 if both else socket.AF_INET
                listening.append(socket.create_server(("", port), family=family, dualstack_ipv6=both))
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be taken: {error.strerror}"
            raise OSError(f"Port {port} of {cluster.name(cluster.index)} {why}.") from None
        at_fault.pop_all()
    return listening


def _places(host, port) -> set:
    """The addresses that a name means, with the family of each; loopback only where it is asked for."""
    try:
        places = {
            (family, place) for family, *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        }
    except socket.gaierror:
        return set()
    loopback = ("127.", "::1")
    return {
        (family, place)
        for family, place in places
        if host in ("localhost", place[0]) or not str(place[0]).startswith(loopback)
    }
