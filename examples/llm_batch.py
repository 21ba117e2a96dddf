"""A batch job for a service that is slow, says "too fast", and sometimes returns rubbish.

python examples/llm_batch.py

It uploads texts, polls their jobs, downloads the answers and stores them in a database. The service
limits the requests and the tokens per minute, for all uses of an account together. If too many
items fail, the run stops by itself; finished work is kept, and a second run does the rest.

The service is a small one, at the end of this file, and its minutes last a second. For a real
one, change `call`, the addresses, and MINUTE. The tasks are plain functions, which run in threads;
with an async client they would be `async def`, and nothing else would change.
"""

import asyncio
import itertools
import json
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from antflow import Limit, Pipeline, Retry, RetryAfter, Stage, TooManyFailures, backoff
from antflow.context import set_task_status

MINUTE = 1.0  # 60.0 for a real service
TEXTS = [f"Text number {n}. " + "Please sum it up. " * (1 + n % 20) for n in range(220)]


def guess(text: str) -> float:
    return len(text) / 4  # tokens; corrected below, when the service says how many it counted


# Shared by all stages that use them. A bit less than the service allows.
requests = Limit(rate=150, period=MINUTE)
tokens = Limit(rate=8_000, period=MINUTE, cost=guess)


class NotDone(Exception):
    pass


class Job:
    """The tasks of the stages. Each takes the value that the one before returned."""

    def __init__(self, address: str) -> None:
        self.address = address

    def upload(self, text: str) -> int:
        answer = self.call("/jobs", text)
        tokens.correct(answer["usage"])  # whether the guess was too high or too low
        return int(answer["job"])

    def poll(self, job: int) -> int:
        if not self.call(f"/jobs/{job}")["done"]:
            raise NotDone(job)
        return job

    def download(self, job: int) -> tuple[int, str]:
        set_task_status(f"answer of job {job}")  # dashboards show it beside the worker
        answer = self.call(f"/jobs/{job}/answer")  # rubbish raises ValueError, and is tried again
        return job, str(answer["text"])

    def call(self, path: str, text: str | None = None) -> dict[str, Any]:
        data = None if text is None else text.encode()
        try:
            with urlopen(Request(self.address + path, data), timeout=10) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except HTTPError as error:
            error.close()
            raise


def too_fast(error: HTTPError) -> RetryAfter | None:
    """A 429 response holds the stages that share a limit, for as long as its headers say."""
    return RetryAfter.from_headers(error.headers, default=MINUTE) if error.code == 429 else None


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS answers (job PRIMARY KEY, text)")
        yield connection
    finally:
        connection.close()


def store(answers: list[tuple[int, str]], connection: sqlite3.Connection) -> list[int]:
    with connection:  # one transaction for all of them
        connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", answers)
    return [job for job, _ in answers]


def pipeline_for(job: Job, path: Path) -> Pipeline:
    # Short queues, because items taken in are finished even after too many failures.
    options: dict[str, Any] = {"queue_capacity": 10, "hold_on": {HTTPError: too_fast}}
    again = Retry(attempts=3, wait=backoff(0.1, maximum=2.0))
    # An item that waits for its next try needs no worker, so two can poll for many.
    ask_again = Retry(attempts=100, wait=0.1, on=(NotDone, OSError))
    return Pipeline(
        [
            Stage("Upload", 8, [job.upload], retry=again, limits=[requests, tokens], **options),
            Stage("Poll", 2, [job.poll], retry=ask_again, **options),
            Stage("Download", 8, [job.download], retry=again, limits=[requests], **options),
            Stage(
                "Store",
                workers=1,
                tasks=[store],
                batch=50,
                batch_wait=0.2,
                resources={"connection": lambda: database(path)},
                resource_scope="worker",  # a connection belongs to the thread that made it
            ),
        ],
        name="answers",
    )


async def run(service: "Service", path: Path) -> None:
    pipeline = pipeline_for(Job(service.address), path)
    dashboard: Any = "full" if sys.stderr.isatty() else "log"
    try:
        await pipeline.run(TEXTS, dashboard=dashboard, max_failures=0.05)
    except TooManyFailures as error:
        print(f"\nStopped: {error}")

    begun = pipeline.results
    again, rest = [*begun.failed, *begun.cancelled], TEXTS[len(begun.outcomes) :]
    print(f"{begun}; {len(begun.outcomes)} of {len(TEXTS)} texts were begun")
    service.is_well = True
    print("\nThe service is well again. Failed items go on at the stage where they failed:")
    results = await pipeline.run(rest, dashboard=dashboard, retry_failed=again)
    held = sum(each.stats.stage_stats["Upload"].retried_items for each in (begun, results))
    print(f"\n{results}; {service.refused} times it was too fast, and {held} texts waited")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Service() as service:
        path = Path(folder) / "answers.sqlite"
        asyncio.run(run(service, path))
        with database(path) as connection:
            print(*connection.execute("SELECT count(*) FROM answers").fetchone(), "answers stored")


# From here on: the service to try it with.


class Service(ThreadingHTTPServer):
    """Takes 0.15 s for a job. After job 80, every third answer is cut off, until it is well."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.is_well = False
        self.uploads = itertools.count(1)
        self.refused = 0
        self.ready_at: dict[int, float] = {}

    def __enter__(self) -> "Service":
        threading.Thread(target=self.serve_forever, args=(0.05,)).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    @property
    def service(self) -> Service:
        assert isinstance(self.server, Service)
        return self.server

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        job = next(self.service.uploads)
        if job % 40 == 0:
            self.service.refused += 1
            self.reply(429, b"too fast")
        else:
            self.service.ready_at[job] = time.monotonic() + 0.15
            self.reply(200, json.dumps({"job": job, "usage": len(text.split())}).encode())

    def do_GET(self) -> None:
        job = int(self.path.split("/")[2])
        if not self.path.endswith("/answer"):
            done = time.monotonic() > self.service.ready_at[job]
            self.reply(200, json.dumps({"done": done}).encode())
        elif job > 80 and job % 3 == 0 and not self.service.is_well:
            self.reply(200, b'{"text": "This text is ab')
        else:
            self.reply(200, json.dumps({"text": f"This text is about job {job}."}).encode())

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "0.3")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    main()
