"""kvision-launch: how workers are started, ended and started again."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from helpers import command, start

SCRIPT = Path(sys.executable).parent / "kvision-launch"
OBEYS, DEAF = "exec sleep 60", "trap '' TERM; echo there; sleep 60 & wait; sleep 60"


class Launched:
    """kvision-launch around a shell command."""

    def __init__(self, command, *flags):
        self.folder = tempfile.TemporaryDirectory()
        self.texts = [Path(self.folder.name) / name for name in ("stdout", "stderr")]
        arguments = ["--workers=2", "--grace_seconds=1", *flags, "--", "sh", "-c", command]
        self.process = start("kvision-launch", *arguments, texts=self.texts)

    def printed(self):
        return "".join(path.read_text() for path in self.texts if path.exists())

    def wait_for(self, text, count=2):
        while self.printed().count(text) < count:
            assert self.process.is_alive(), self.printed()
            time.sleep(0.01)

    def send(self, number):
        os.kill(self.process.pid, number)

    def end(self, timeout=10):
        """The exit code, and what was printed."""
        self.process.join(timeout)
        code, printed = self.process.exitcode, self.printed()
        self.folder.cleanup()
        return code, printed


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize(("script", "code"), [
    ("exit 0", 0), ("exit 2", 2), ("exit 75", 75),
    ('case $TF_CONFIG in *": 1}"*) exit 2;; esac; exec sleep 60', 2),
    ('case $TF_CONFIG in *": 1}"*) sleep 0.3; exit 2;; esac; exit 1', 2),  # as who lost the other
])  # fmt: skip
def test_exit_codes_that_are_final(script, code):
    ended, printed = Launched(f"echo started; {script}").end()
    assert (ended, printed.count("] started\n")) == (code, 2), printed


def test_a_worker_that_died_is_started_again():
    ended, printed = Launched("echo $KVISION_RESTARTED; kill -9 $$", "--max_restarts=2").end()
    assert ended == 128 + 9
    assert "[0] 2\n" in printed
    assert "A worker ended with exit code -9; 0 restarts left." in printed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_ask_the_workers_to_end(number):
    launched = Launched("trap 'exit 75' TERM; echo there; while :; do sleep 0.1; done")
    launched.wait_for("there")
    launched.send(number)
    assert launched.end()[0] == 75


def test_workers_that_are_ended_before_they_heed_signals():
    launched = Launched("echo there; exec sleep 60")
    launched.wait_for("there")
    launched.send(signal.SIGTERM)
    assert launched.end()[0] == 75  # to be started again


def test_deaf_workers_are_killed_after_the_grace_time():
    launched = Launched(DEAF)
    launched.wait_for("there")
    launched.send(signal.SIGTERM)
    started = time.monotonic()
    assert launched.end()[0] == 128 + 9
    assert 1 < time.monotonic() - started < 4


def test_a_second_ctrl_c_ends_at_once():
    launched = Launched(DEAF, "--grace_seconds=60")
    launched.wait_for("there")
    launched.send(signal.SIGINT)
    time.sleep(0.3)
    launched.send(signal.SIGINT)
    assert launched.end(5)[0] == 128 + 9


def test_nohup():
    script = f"trap '' HUP; exec {SCRIPT} -- sh -c 'echo there; sleep 1'"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert b"there" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        assert process.wait(10) == 0


@pytest.mark.parametrize("script", [OBEYS, DEAF])
def test_workers_whose_launcher_was_killed_end_within_two_seconds(script):
    launched = Launched(f"echo pid $$; {script}")
    launched.wait_for("pid")
    pids = [int(line.split()[-1]) for line in launched.printed().splitlines() if "pid" in line]
    time.sleep(0.2)
    launched.send(signal.SIGKILL)
    deadline = time.monotonic() + 2
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    launched.end()


def test_output_that_nobody_reads_holds_no_worker(tmp_path):
    read, write = os.pipe()
    os.close(read)
    many = f"seq 100000; touch {tmp_path}/$(echo $TF_CONFIG | tr -dc 0-9)"
    process = subprocess.Popen([SCRIPT, "--", "sh", "-c", many], stdout=write, stderr=subprocess.DEVNULL)
    os.close(write)
    process.wait(20)
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_worker_left_behind_does_not_hold_the_launcher():
    started = time.monotonic()
    assert Launched("sleep 30 & exit 0").end(20)[0] == 0
    assert time.monotonic() - started < 15


def test_each_start_has_its_own_token():
    _, printed = Launched("echo token=$KVISION_TOKEN; exit 1", "--max_restarts=1").end()
    tokens = [line.partition("token=")[2] for line in printed.splitlines() if "token=" in line]
    assert [len(token) for token in tokens] == [64] * 4
    assert len(set(tokens)) == 2  # one for both workers


def test_a_command_that_there_is_none_of():
    assert "Which command?" in command("kvision-launch", code=2)
    for dashes in ([], ["--"]):
        sentence = command("kvision-launch", *dashes, "no-such", "--workers=9", code=2)
        assert sentence.endswith("There is no command 'no-such'.")
