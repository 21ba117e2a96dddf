"""A realistic workload, W0: requests to an HTTP server in another process.

Ours uses everything: three stages, retries, two limits, a tracker with its history, and a display.
The loop written by hand has retries and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks import hand
from benchmarks.sample import Sample, Stopwatch, check_values
from benchmarks.systems import ROOT
from benchmarks.workload import Figure, Measure, Program, Workload, percent_more

if TYPE_CHECKING:
    from aiohttp import ClientSession

Client = Callable[["ClientSession", str, range, int], Awaitable[list[int]]]
"""Session, address of the server, numbers, how many at once → the numbers that came back."""


@asynccontextmanager
async def server() -> AsyncGenerator[str]:
    """The address of a server that runs until the end of the block."""
    command = [sys.executable, "-m", "benchmarks.server"]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}/item/"
    finally:
        process.stdin.close()
        await process.wait()


async def fetch(session: ClientSession, address: str, number: int) -> bytes:
    """One request."""
    async with session.get(f"{address}{number}") as response:
        response.raise_for_status()
        return await response.read()


def parse(page: bytes) -> int:
    """The number on a page."""
    number: int = json.loads(page)["number"]
    return number


async def by_hand(session: ClientSession, address: str, numbers: range, at_once: int) -> list[int]:
    """Workers that share an iterator, with retries."""
    from aiohttp import ClientError

    saved: list[int] = []

    async def one(number: int) -> int:
        for attempt in range(1, 4):
            try:
                saved.append(parse(await fetch(session, address, number)))
                break
            except ClientError:
                if attempt == 3:
                    raise
        return number

    await hand.iterator_map(one, numbers, at_once)
    return saved


async def pipeline(session: ClientSession, address: str, numbers: range, at_once: int) -> list[int]:
    """Three stages."""
    from antflow import Limit, Pipeline, Stage, StatusTracker

    saved: list[int] = []

    async def fetch_page(number: int) -> bytes:
        return await fetch(session, address, number)

    async def parse_page(page: bytes) -> int:
        return parse(page)

    async def save(number: int) -> int:
        saved.append(number)
        return number

    limits = [Limit(concurrency=at_once), Limit(rate=1e6, period=1.0)]
    tracker = StatusTracker()
    stages = [
        Stage("Fetch", at_once, [fetch_page], limits=limits, task_wait_seconds=0.0),
        Stage("Parse", 10, [parse_page]),
        Stage("Save", 10, [save]),
    ]
    results = await Pipeline(stages, status_tracker=tracker).run(numbers, dashboard="detailed")
    check_values(results.values(), len(numbers))
    return saved


def requesting(client: Client, at_once: int) -> Measure:
    """Measure this process alone, while the server is in another one."""

    async def measure(items: int) -> Sample:
        from aiohttp import ClientSession, ClientTimeout, TCPConnector

        allow_open_files()
        connector = TCPConnector(limit=at_once)
        async with (
            server() as address,
            ClientSession(connector=connector, timeout=ClientTimeout(None)) as session,
        ):
            # Opens the connections. Requests that the server refuses now, it accepts later.
            await client(session, address, range(min(at_once, items)), at_once)
            with Stopwatch() as watch:
                values = await client(session, address, range(items), at_once)
        check_values(values, items)
        return watch.sample(items)

    return measure


def allow_open_files() -> None:
    """Raise this process's limit of open connections as far as allowed; children inherit it."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


AT_ONCE = (500, 1_000)

WORKLOADS = [
    Workload(
        "W0",
        "requests to a local server: 3 stages, 2 limits, retries, tracker and display",
        20_000,
        2_000,
        {
            f"{name}, {at_once:,} at once": Program(
                requesting(client, at_once), system, needs_terminal=True
            )
            for at_once in AT_ONCE
            for name, client, system in (("ours", pipeline, "ours"), ("by hand", by_hand, "pool"))
        },
        [
            Figure(
                f"% more than a loop by hand, {at_once:,} at once",
                percent_more(f"ours, {at_once:,} at once", f"by hand, {at_once:,} at once"),
                15,
                5,
                "low",
            )
            for at_once in AT_ONCE
        ],
    ),
]
