"""The workers' meeting: what peers say is compared, and what strangers do is shrugged off."""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import COMMANDS, memory_within, mostly_slow

from kvision.data.identity import Identity
from kvision.errors import UserError
from kvision_tools import rendezvous, signed
from kvision_tools.cluster import TOKEN, Cluster
from kvision_tools.commands.launch import _free_ports
from kvision_tools.preparation import _changed_data
from kvision_tools.rendezvous import meet

SAME = {"flags": ["--seed=0"]}


@pytest.fixture(autouse=True)
def short_greetings(monkeypatch):
    monkeypatch.setattr(rendezvous, "GREETING_SECONDS", 0.5)


def addresses(count=2, host="localhost"):
    return tuple(f"{host}:{port}" for port in _free_ports(count))


def port_of(address):
    return int(address.rpartition(":")[2])


def meet_all(addresses, facts, timeout=5.0, then=lambda index, meeting: None):
    """The message to each worker, or the code it ends with; None for nothing wrong."""

    def one(index):
        try:
            with meet(Cluster(addresses, index), facts[index], timeout) as meeting:
                then(index, meeting)
        except (UserError, OSError) as error:
            return str(error)
        except SystemExit as error:
            return error

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, facts))


def test_workers_meet():
    here = addresses(3)
    assert meet_all(here, {0: SAME, 1: SAME, 2: SAME}) == [None] * 3
    differ = meet_all(here, {0: SAME, 1: SAME, 2: {"flags": ["--seed=1"]}})
    name = f"worker 2 ({here[2]}) has other"
    assert differ == [f"{name} flags than worker 0: --seed=1 instead of --seed=0."] * 3
    one, other = {"checkpoints": ["step_1.safetensors"]}, {"checkpoints": []}
    differ = meet_all(here, {0: one, 1: one, 2: other})
    assert differ == [f"{name} checkpoints than worker 0: none instead of step_1.safetensors."] * 3
    late = meet_all(here, {0: SAME, 2: SAME}, timeout=0.5)
    assert late == [f"worker 1 ({here[1]}) did not come within 0.5 seconds."] * 2
    assert meet_all(here, {1: SAME}, 0.5) == [f"worker 0 ({here[0]}) did not come within 0.5 seconds."]
    assert meet(Cluster(), SAME, 0.1).compare(SAME, lambda *_: ["never called"]) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_the_meeting_is_at_the_address_it_was_given(host):
    here = addresses(2, host)
    other = "::1" if host == "127.0.0.1" else "127.0.0.1"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(meet_all, here, {0: SAME})
        await_port(host.strip("[]"), port_of(here[0]))
        for elsewhere in (other, "127.0.0.2"):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((elsewhere, port_of(here[0])))
        assert meet_all(here, {1: SAME}) == [None]
        assert first.result() == [None]


@pytest.mark.parametrize(("host", "meaning"), [
    ("192.0.2.77", "192.0.2.77"),  # nobody's (RFC 5737), as that of a Kubernetes service
    ("no-such-host.invalid", None), ("node1", "127.0.1.1"),
])  # fmt: skip
def test_an_address_that_is_not_of_this_machine(host, meaning, monkeypatch):
    (port,) = _free_ports(1)

    def getaddrinfo(*_, **__):
        if meaning is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (meaning, port))]

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        (listening,) = signed.listen(Cluster((f"{host}:{port}", "b:2")))
    with listening:
        assert listening.getsockname()[0] in ("::", "0.0.0.0")
        socket.create_connection(("127.0.0.1", port)).close()


def data(*counts, names=("cat", "dog"), files="one"):
    return {"training images": Identity(names, counts, files, "").to_json()}


@pytest.mark.parametrize(("other", "message"), [
    (data(14, 9), None),
    (data(12, 9), "class 'cat' has 12 images instead of 14"),
    (data(14, 9, names=("dog", "cat")), "the classes have another order"),
    (data(14, 9, files="two"), "images have other names, sizes, contents, labels or boxes, or another order"),
])  # fmt: skip
def test_data_is_compared_after_the_meeting(other, message):
    here = addresses(3)
    facts = [data(14, 9), data(14, 9), other]
    told = meet_all(
        here, dict.fromkeys(range(3), SAME), then=lambda i, meeting: meeting.compare(facts[i], _changed_data)
    )
    name = f"worker 2 ({here[2]}) has other training images than worker 0"
    assert told == [message and f"{name}: {message}."] * 3


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_that_cannot_go_on_says_why_to_the_others(which):
    def then(index, meeting):
        if index == which:
            raise FileNotFoundError("There is no folder 'images'.")
        time.sleep(0.2)  # what it is told waits for it
        meeting.compare(data(14, 9), _changed_data)

    here = addresses(3)
    told = meet_all(here, dict.fromkeys(range(3), SAME), then=then)
    assert told.pop(which) == "There is no folder 'images'."
    assert told == [f"worker {which} ({here[which]}): There is no folder 'images'."] * 2


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_that_is_lost_ends_the_others_to_be_started_again(which):
    def then(index, meeting):
        if index == which:
            raise KeyboardInterrupt  # or any fault of ours; a kill closes the connection likewise
        meeting.compare(data(14, 9), _changed_data)

    here = addresses(2)

    def one(index):
        with contextlib.suppress(KeyboardInterrupt):
            return meet_all(here, {index: SAME}, then=then)

    with ThreadPoolExecutor() as pool:
        told = list(pool.map(one, range(2)))
    assert [code.code for code in told[1 - which]] == [
        f"worker {which} ({here[which]}) was lost; the same command on all goes on."
    ]


def test_a_worker_that_does_not_answer_holds_nobody_for_ever():
    here = addresses(2)
    done = threading.Event()

    def then(index, meeting):
        if index:
            done.wait(10)
        else:
            try:
                meeting.compare(data(14, 9), _changed_data)
            finally:
                done.set()

    told = meet_all(here, {0: SAME, 1: SAME}, timeout=1.0, then=then)
    assert told == [f"worker 1 ({here[1]}) did not answer within 1 seconds.", None]


def test_two_claims_of_one_index():
    here = addresses(3)

    def one(index):
        try:
            meet(Cluster(here, index), SAME, 3.0).close()
        except UserError as error:
            return str(error)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:
        patch.setattr(rendezvous, "listen", lambda own: signed.listen(own) if own.index == 0 else [])
        told = list(pool.map(one, (0, 1, 1)))
    assert told == [f"Two processes say that they are worker 1 ({here[1]})."] * 3


def strange(host, port):
    """Connections of strangers: some that say nothing, and some that say what the meeting does not speak."""
    hello = json.dumps({"worker": 1, "facts": SAME}).encode() + b"\n"
    said = [
        b"", b"\n", b"{}\n", hello, b'{"worker": [1], "facts": {}}\n', b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes.fromhex("160301020001"), b"\xff\xfe\xfa" * 40, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 200,
        b"x" * 32 + b"\xff\xff\xff\xff", b"x" * 32 + b"\0\0\0\x01" + b"y" * 32 + b"1",
    ]  # fmt: skip
    for line in said * 2:
        connection = socket.create_connection((host, port))
        connection.sendall(line)
        yield connection


def await_port(host, port):
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, port)):
            return
        time.sleep(0.01)


def test_strangers_are_shrugged_off():
    here = addresses(2)
    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:
        first = pool.submit(meet_all, here, {0: SAME})
        await_port("localhost", port_of(here[0]))
        strangers = [stack.enter_context(one) for one in strange("localhost", port_of(here[0]))]
        dripping = threading.Event()

        def drip():
            while not dripping.wait(0.05):
                for connection in strangers:
                    with contextlib.suppress(OSError):
                        connection.sendall(b"x")

        pool.submit(drip)
        started = time.monotonic()
        assert meet_all(here, {1: SAME}) == [None]
        assert first.result() == [None]
        dripping.set()
        assert time.monotonic() - started < 2


def test_strangers_do_not_hold_the_meeting_beyond_its_time_nor_fill_the_memory():
    here = addresses(2)
    with memory_within(50_000_000), ThreadPoolExecutor() as pool:
        first = pool.submit(meet_all, here, {0: SAME}, 1.5)
        await_port("localhost", port_of(here[0]))
        started = time.monotonic()
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port_of(here[0]))) as one:
            while time.monotonic() < started + 3:
                one.sendall(b"x" * 2**20)
        (told,) = first.result()
        assert time.monotonic() - started < 2.5
    assert told.startswith(
        f"worker 1 ({here[1]}) did not come within 1.5 seconds. Connections without this run's"
    )


@pytest.mark.parametrize(
    "answer",
    mostly_slow([b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b'""\n' * 30, b"\0" * 500], b'""\n' * 30),
)
def test_workers_do_not_believe_a_stranger_at_the_first_ones_port(answer):
    here = addresses(2)
    with socket.create_server(("localhost", port_of(here[0]))) as server:
        server.settimeout(1.1)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection = server.accept()[0]
                    connection.sendall(answer)
                    connection.settimeout(0.1)
                    with contextlib.suppress(OSError), connection:
                        connection.sendall(connection.recv(1000))  # its own words, back

        thread = threading.Thread(target=accept)
        thread.start()
        (told,) = meet_all(here, {1: SAME}, 1.0)
        server.close()
        thread.join()
    assert told.startswith(f"worker 0 ({here[0]}) did not come within 1 seconds.")
    assert "Who answers there does not know this run's token." in told


def test_tokens(monkeypatch):
    """Workers meet by a token that all have, or by what all know of the run; other tokens are strangers'."""
    here = addresses(2)
    token = rendezvous.Meeting._token
    monkeypatch.setenv(TOKEN, "secret")
    assert meet_all(here, {0: SAME, 1: SAME}) == [None] * 2
    monkeypatch.setattr(rendezvous.Meeting, "_token", lambda self: token(self) + bytes([self.cluster.index]))
    told = meet_all(here, {0: SAME, 1: SAME}, 3.0)
    assert told[0].startswith(
        f"worker 1 ({here[1]}) did not come within 3 seconds. Connections without this run's"
    )
    assert told[1].endswith("Who answers there does not know this run's token.")
    monkeypatch.setattr(rendezvous.Meeting, "_token", token)
    monkeypatch.delenv(TOKEN)
    one = token(rendezvous.Meeting(Cluster(here, 0), 1))
    assert one == token(rendezvous.Meeting(Cluster(here, 1), 1))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert one != token(rendezvous.Meeting(Cluster(here, 1), 1))


def test_ports_that_cannot_be_taken():
    here = addresses(2)
    with socket.create_server(("localhost", port_of(here[1]))):
        assert meet_all(here, {1: SAME}, 0.5) == [
            f"Port {port_of(here[1])} of worker 1 ({here[1]}) is in use."
        ]
    told = meet_all(("no-such-host.invalid:2222", here[1]), {1: SAME}, 0.5)
    assert told[0].startswith(
        "worker 0 (no-such-host.invalid:2222) did not come within 0.5 seconds. Its name is"
    )


def meet_alone(addresses, there, text):
    """Waits for another worker, who does not come."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    os.dup2(os.open(text, os.O_WRONLY | os.O_CREAT), 2)
    there.set()
    meet(Cluster(addresses, 0), {}, 60)


def test_a_signal_ends_the_wait(tmp_path):
    there = COMMANDS.Event()
    process = COMMANDS.Process(target=meet_alone, args=(addresses(2), there, tmp_path / "stderr"))
    process.start()
    assert there.wait(60)
    time.sleep(0.2)
    process.terminate()
    process.join(10)
    assert process.exitcode == 75
    assert "Traceback" not in (tmp_path / "stderr").read_text()
