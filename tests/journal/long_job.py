"""A long paid job over HTTP that is killed at 60 %, and goes on.

    python -m tests.journal.long_job --items 200000

The service answers with 429 now and then, refuses some items for good, and counts the calls that it
was paid for. The job asks it in two stages that share two limits, in a process of its own; the same
command is run three times: killed, to its end, and once more, which must cost nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antflow import Limit, Pipeline, RetryAfter, Stage

WORKERS = 32
REFUSED = 1_000
"""One of this many items is refused."""

TOO_MANY = 997
"""One of this many requests is answered with 429."""

PER_ID = 100
"""Bytes for each id, which a run with a journal remembers: equal items must stay two."""

STAGES = ("ask", "rate")


class Service:
    """Answers HTTP requests for ``/ask/17`` and ``/rate/17``.

    Attributes:
        paid: Stage → how often it was paid for each item.
    """

    def __init__(self, items: int) -> None:
        self.paid = {stage: bytearray(items) for stage in STAGES}
        self.requests = self.total = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(self._answer(head.split()[1].decode()))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the job was killed, or is over
        finally:
            writer.close()

    def _answer(self, path: str) -> bytes:
        _, stage, number = path.split("/")
        self.requests += 1
        status, more, body = "200 OK", "", number
        if self.requests % TOO_MANY == 0:
            status, more, body = "429 Too Many Requests", "Retry-After: 0.01\r\n", ""
        else:
            self.paid[stage][int(number)] += 1
            self.total += 1
            if stage == "ask" and int(number) % REFUSED == REFUSED - 1:
                status, body = "422 Unprocessable Entity", ""
        return f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}".encode()


class Client:
    """Connections to the service that are used again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, path: str) -> str:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ") for line in head.splitlines()[1:] if line)
        body = (await reader.readexactly(int(headers["Content-Length"]))).decode()
        self._idle.append((reader, writer))
        if (status := head.split()[1]) == "429":
            raise RetryAfter(float(headers["Retry-After"]))
        if status != "200":
            raise ValueError(f"{path}: {status}")
        return body

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def job(port: int, journal: str, count: int) -> dict[str, Any]:
    client = Client(port)
    seen: list[int] = []

    async def ask(number: int) -> str:
        return await client.get(f"/ask/{number}")

    async def rate(answer: str) -> str:
        return await client.get(f"/rate/{answer}")

    def items() -> Iterator[dict[str, int]]:
        for number in range(count):
            if number == count // 5:
                seen.append(resident())
            yield {"id": number, "value": number}

    limits = [Limit(concurrency=WORKERS + 8), Limit(rate=100_000, period=1.0)]
    pipeline = Pipeline(
        [
            Stage(task.__name__, WORKERS, [task], limits=limits, task_attempts=1)
            for task in (ask, rate)
        ],
        collect_results=False,
    )
    stats = (await pipeline.run(items(), journal=journal, on_failures="ignore")).stats
    client.close()
    return {
        "accepted": stats.items_accepted,
        "ok": stats.items_processed,
        "failed": stats.items_failed,
        "resumed": stats.items_resumed,
        "in_flight": stats.items_in_flight,
        "memory": (seen[0], resident()),
    }


@dataclass(frozen=True)
class Outcome:
    """What came of a job that was killed at 60 %.

    Attributes:
        calls: How many calls were paid for, after each of the three runs.
        needed: How many are needed.
        twice: How many were paid for more than once.
        missing: How many were never made.
        runs: What the second and the third run said.
        seconds: How long each of the three took.
    """

    calls: list[int]
    needed: int
    twice: int
    missing: int
    runs: list[dict[str, Any]]
    seconds: list[float]


async def kill_and_go_on(count: int) -> Outcome:
    service = Service(count)
    server = await asyncio.start_server(service.serve, "127.0.0.1")
    port = str(server.sockets[0].getsockname()[1])
    refused = count // REFUSED
    needed = 2 * count - refused
    calls: list[int] = []
    runs: list[dict[str, Any]] = []
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="antflow-job-") as folder:
        told = (
            "-m",
            "tests.journal.long_job",
            "--items",
            str(count),
            "--journal",
            f"{folder}/run.db",
        )
        command = (sys.executable, *told, "--port", port)
        for run in range(3):
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            while not run and service.total < 0.6 * needed and process.returncode is None:
                await asyncio.sleep(0.01)
            if not run:
                process.send_signal(signal.SIGKILL)
            output, _ = await process.communicate()
            if run:
                runs.append(json.loads(output))
            calls.append(service.total)
            seconds.append(time.monotonic() - began)
    server.close()
    made = [sum(map(bool, service.paid[stage])) for stage in STAGES]
    return Outcome(
        calls=calls,
        needed=needed,
        twice=service.total - sum(made),
        missing=needed - sum(made),
        runs=runs,
        seconds=seconds,
    )


def check(outcome: Outcome, count: int) -> None:
    """Nothing is lost, next to nothing paid for twice, and memory stays the same.

    Raises:
        AssertionError: That is not so.
    """
    refused = count // REFUSED
    second, third = outcome.runs
    assert (outcome.missing, outcome.needed) == (0, 2 * count - refused)
    assert outcome.twice <= 2 * WORKERS, "no more than the workers had in hand"
    assert outcome.calls[2] == outcome.calls[1], "settled items cost nothing"
    for run in (second, third):
        assert run["accepted"] == count
        assert (run["ok"], run["failed"], run["in_flight"]) == (count - refused, refused, 0)
    assert third["resumed"] == count
    assert 0.2 * count <= second["resumed"] < count
    for run in (second, third):
        at_a_fifth, at_the_end = run["memory"]
        most = 6_000_000 + 0.8 * count * PER_ID
        assert at_the_end - at_a_fifth <= most, "memory grows with the ids, and nothing else"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--journal")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    if options.port is not None:
        result = asyncio.run(job(options.port, options.journal, options.items))
        sys.stdout.write(json.dumps(result))
        return
    outcome = asyncio.run(kill_and_go_on(options.items))
    sys.stdout.write(f"{outcome}\n")
    check(outcome, options.items)


if __name__ == "__main__":
    main()
