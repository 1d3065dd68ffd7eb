"""Workers meet before TensorFlow connects them, so that what is wrong is said in a sentence.

TensorFlow itself would wait for a missing worker in silence, and train with workers that have other flags or
other data. The first worker listens at the port that TensorFlow takes afterwards and hears the others; their
connections outlive the meeting, because data can be opened, and compared, only when TensorFlow is connected.

Whoever connects has to know the run's token, and has a few seconds to show it; others are shrugged off.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable

from kvision.errors import UserError
from kvision_tools.cluster import TOKEN, Cluster
from kvision_tools.signed import Line, listen

JOBS = ("SLURM_JOB_ID", "SLURM_STEP_ID", "CLOUD_ML_JOB_ID")  # what else workers of one run have in common
GREETING_SECONDS, MOST_GREETINGS = 5, 50  # for a connection to show the token; such connections at once
MOST_PROBLEMS = 3  # in a message
STRANGER = " Who answers there does not know this run's token."
BROKEN = (OSError, EOFError, ValueError)  # timeouts and strangers too


def meet(cluster: Cluster, facts: dict[str, list[str]], timeout: float) -> "Meeting":
    """Waits until all workers are there, and checks that they say the same.

    Args:
        cluster: one worker alone meets nobody.
        facts: lines that must not differ between workers, below a name for messages.
        timeout: seconds to wait for other workers, here and in `Meeting.compare`.

    Raises:
        OSError: this worker's port is in use.
        UserError: a worker did not come in time, or has other facts.
        SystemExit: see `Meeting.compare`.
    """
    meeting = Meeting(cluster, timeout)
    if cluster.addresses[1:]:
        try:
            meeting.gather()
            meeting.compare(facts, _changed_lines)
        except BaseException:
            meeting.close()
            raise
    return meeting


def _changed_lines(first, other) -> list[str]:
    missing, more = (" ".join(sorted({*a} - {*b})) or "none" for a, b in ((first, other), (other, first)))
    return [] if missing == more else [f"{more} instead of {missing}"]


class Meeting:
    """Workers that know of each other.

    As a context manager, it tells the others when a `UserError` or an `OSError` ends this worker.
    """

    def __init__(self, cluster: Cluster, timeout: float):
        self.cluster, self.timeout = cluster, timeout
        self._runner = asyncio.Runner()
        self._lines: dict[int, Line] = {}  # to the other workers from the first, or to the first
        self._told = False

    def __enter__(self):
        return self

    def __exit__(self, _, error, traceback):
        if isinstance(error, UserError | OSError) and not self._told:
            self._runner.run(self._tell({"error": f"{self.cluster.name(self.cluster.index)}: {error}"}))
        self.close()

    def close(self):
        """Hangs up."""
        self._runner.run(self._hang_up())
        self._runner.close()

    def gather(self):
        """Waits until all workers are there."""
        listening = listen(self.cluster)
        try:
            self._runner.run(self._hear(listening) if self.cluster.index == 0 else self._call())
        finally:
            for listener in listening:
                listener.close()

    def compare(self, facts: dict, changes: Callable) -> None:
        """Checks that all workers say the same; all are told what differs.

        Args:
            facts: JSON values, below a name for messages.
            changes: from the first worker's value and another's to what differs, in a few words each.

        Raises:
            UserError: a worker's facts differ, it cannot go on and said why, or it did not answer in time.
            SystemExit: a worker was lost; the code is its message, which Python prints for exit code 1.
        """
        if not self._lines:
            return
        verdict = self._runner.run(
            self._judge(facts, changes) if self.cluster.index == 0 else self._ask(facts)
        )
        self._told = bool(verdict["lost"] or verdict["error"])
        if verdict["lost"]:
            sys.exit(f"{verdict['lost']} was lost; the same command on all goes on.")
        if verdict["error"]:
            raise UserError(verdict["error"])

    async def _hear(self, listening):
        others = len(self.cluster.addresses) - 1
        complete, greetings, strangers, problem = asyncio.Event(), 0, 0, ""

        async def greet(reader, writer):
            nonlocal greetings, strangers, problem
            greetings += 1
            try:
                if greetings > MOST_GREETINGS:
                    raise ConnectionError
                async with asyncio.timeout(GREETING_SECONDS):
                    line = await Line.open(reader, writer, self._token(), first=True)
                    index = await line.receive()
                    if index not in range(1, others + 1):
                        raise ValueError
                    await line.send("welcome")
            except BaseException as error:
                strangers += 1
                writer.close()
                if not isinstance(error, BROKEN):
                    raise
                return
            finally:
                greetings -= 1
            if index in self._lines and not self._lines[index].reader.at_eof():
                problem = f"Two processes say that they are {self.cluster.name(index)}."
                await line.send({"error": problem, "lost": ""})
                writer.close()
            else:
                self._lines[index] = line
            if problem or len(self._lines) == others:
                complete.set()

        servers = [await asyncio.start_server(greet, sock=listener) for listener in listening]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(complete.wait(), self.timeout)
        for server in servers:
            server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        missing = [i for i in range(1, others + 1) if i not in self._lines]
        if missing and not problem:
            problem = self._late(missing, "come")
            problem += f" Connections without this run's token: {strangers}." if strangers else ""
        if problem:
            await self._tell({"error": problem, "lost": ""})
            raise UserError(problem)

    async def _call(self):
        why = ""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.timeout
        while (left := end - loop.time()) > 0:
            with contextlib.ExitStack() as at_fault:
                try:
                    async with asyncio.timeout(min(left, GREETING_SECONDS)):
                        reader, writer = await asyncio.open_connection(*self.cluster.place(0))
                        at_fault.callback(writer.close)
                        line = await Line.open(reader, writer, self._token(), first=False)
                        await line.send(self.cluster.index)
                        await line.receive()
                    self._lines[0] = line
                    at_fault.pop_all()
                    return
                except socket.gaierror as error:
                    why = f" Its name is unknown: {error.strerror}."
                except BROKEN as error:
                    why = "" if isinstance(error, ConnectionRefusedError | TimeoutError) else why or STRANGER
            await asyncio.sleep(0.1)
        raise UserError(self._late([0], "come") + why)

    async def _judge(self, facts, changes) -> dict:
        problems, lost = [], []
        end = asyncio.get_running_loop().time() + self.timeout
        for index, line in sorted(self._lines.items()):
            try:
                async with asyncio.timeout_at(end):
                    answer = await line.receive()
            except TimeoutError:
                problems.append(self._late([index], "answer"))
                continue
            except BROKEN:
                lost.append(self.cluster.name(index))
                continue
            problems += [answer["error"]] if "error" in answer else []
            for kind in facts if "facts" in answer else []:
                if differences := changes(facts[kind], answer["facts"][kind]):
                    name = self.cluster.name(index)
                    problems.append(f"{name} has other {kind} than worker 0: {', '.join(differences)}.")
        more = len(problems) - MOST_PROBLEMS
        problems[MOST_PROBLEMS:] = [f"And {more} more."] if more > 0 else []
        verdict = {"error": " ".join(problems), "lost": "" if problems else " and ".join(lost)}
        await self._tell(verdict)
        return verdict

    async def _ask(self, facts) -> dict:
        line = self._lines[0]
        answer = asyncio.create_task(line.receive())
        await asyncio.sleep(0.01)  # the first worker may have said already that it cannot go on
        with contextlib.suppress(OSError):
            if not answer.done():
                await line.send({"facts": facts})
        try:
            return {"lost": ""} | await asyncio.wait_for(answer, self.timeout + 10)
        except TimeoutError:
            return {"error": self._late([0], "answer"), "lost": ""}
        except BROKEN:
            return {"lost": self.cluster.name(0)}

    async def _tell(self, message):
        for line in self._lines.values():
            with contextlib.suppress(*BROKEN):
                await asyncio.wait_for(line.send(message), GREETING_SECONDS)

    async def _hang_up(self):
        for line in self._lines.values():
            line.writer.close()
        await asyncio.sleep(0)

    def _late(self, indices, what) -> str:
        names = " and ".join(map(self.cluster.name, indices))
        return f"{names} did not {what} within {self.timeout:g} seconds."

    def _token(self) -> bytes:
        given = os.environ.get(TOKEN)
        run = [self.cluster.addresses, [os.environ.get(name) for name in JOBS]]
        return os.fsencode(given) if given else hashlib.sha256(json.dumps(run).encode()).digest()
