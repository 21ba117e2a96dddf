"""Whether the advice is right: planted situations, the sentence, the advice followed, the gain.

``python -m benchmarks.advice`` runs them all, prints a table, and exits with 1 if an advice is
wrong. Most run on a virtual clock; those about threads, the processor and a blocked event loop take
real seconds.
"""

# ruff: noqa: ASYNC251  # tasks that block are what some situations are about

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

from antflow import (
    Advice,
    DashboardSnapshot,
    Drop,
    Limit,
    Pipeline,
    RetryAfter,
    Stage,
    StatusTracker,
)
from antflow.testing import run_virtual
from benchmarks.page import write
from benchmarks.systems import ROOT

Task = Callable[[Any], Awaitable[Any]]
Plan = Callable[[], list[Stage]]

PAGE = ROOT / "docs" / "forecasts.md"

MANY_TIMES = 10

NO_GAIN = 0.15
"""What counts as no gain."""

BESIDE = 0.12
"""How far a measured gain may lie outside of the range that was said."""


@dataclass(frozen=True)
class Situation:
    """A pipeline in which it is known what holds it back.

    Attributes:
        name: What is planted.
        stages: Makes the stages.
        lever: What should be named.
        stage: The stage that should be named.
        followed: Makes the stages after the advice was followed; for advice that more workers would
            not help, the stages with twice as many. ``None``: only the name is judged.
        helps: Whether that should lift the rate.
        source: Makes the items.
        seconds: How long it runs; the advice is read at the end of it.
        is_real: Whether it takes real time.
        options: Options of `Pipeline.run`.
        consumer: Seconds for which the consumer of the results has each of them; 0 = it takes them
            at once.
        tracker: Makes a tracker of the run.
        ended: How the run ends if the advice is read after that: "timeout" or "Ctrl-C".
    """

    name: str
    stages: Plan
    lever: str
    stage: str | None
    followed: Plan | None = None
    helps: bool = True
    source: Callable[[], Any] = count
    seconds: float = 60.0
    is_real: bool = False
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    consumer: float = 0.0
    tracker: Callable[[], StatusTracker] | None = None
    ended: Literal["", "timeout", "Ctrl-C"] = ""


@dataclass(frozen=True)
class Finding:
    """What came of a situation.

    Attributes:
        situation: The situation.
        advice: What was said.
        gain: By what part the rate rose when that was followed; ``None`` = not tried.
    """

    situation: Situation
    advice: Advice
    gain: float | None

    @property
    def verdict(self) -> str:
        """``right``, ``vague`` (the right place, nothing wrong said) or ``wrong``."""
        wanted, said = self.situation, self.advice
        if (said.lever, said.stage) != (wanted.lever, wanted.stage):
            return "wrong" if said.sentence else "silent"
        if self.gain is None:
            return "right"
        if not wanted.helps:
            return "right" if self.gain <= NO_GAIN and said.gain is None else "wrong"
        if self.gain < NO_GAIN:
            return "wrong"
        if said.gain is None:
            return "wrong" if "would help little" in said.sentence else "right"
        least, most = said.gain
        return "right" if least - BESIDE <= self.gain <= most + BESIDE else "wrong"


class Recorder:
    """A dashboard that notes how many items are through, and when."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, int]] = []
        self.last: DashboardSnapshot | None = None

    def on_update(self, snapshot: DashboardSnapshot) -> None:
        """Note one."""
        if snapshot.state in ("running", "draining"):
            self.rows.append((snapshot.elapsed, snapshot.pipeline_stats.items_processed))
            self.last = snapshot
            self.advice = snapshot.advice  # now: it is about this moment

    @property
    def rate(self) -> float:
        """Items per second in the second half."""
        half = self.rows[-1][0] / 2
        # The last one before: while something blocks the event loop, there are none.
        begin = max(row for row in self.rows if row[0] <= half)
        end = self.rows[-1]
        return (end[1] - begin[1]) / max(end[0] - begin[0], 1e-9)


async def watch(situation: Situation, stages: list[Stage]) -> Recorder:
    """Run it for its time."""
    recorder = Recorder()
    tracker = None if situation.tracker is None else situation.tracker()
    pipeline = Pipeline(stages, collect_results=False, status_tracker=tracker)
    options: dict[str, Any] = {
        "custom_dashboard": recorder,
        "dashboard_update_interval": 0.5,
        "timeout": situation.seconds,
        **situation.options,
    }
    with suppress(TimeoutError, asyncio.CancelledError):
        if situation.consumer:
            async for _ in pipeline.stream(situation.source(), buffer_size=0, **options):
                await asyncio.sleep(situation.consumer)
        else:
            running = asyncio.ensure_future(
                pipeline.run(situation.source(), on_failures="ignore", **options)
            )
            if situation.ended == "Ctrl-C":  # what asyncio.run does then
                asyncio.get_running_loop().call_later(situation.seconds - 1, running.cancel)
            await running
    if situation.ended:
        recorder.advice = pipeline.get_dashboard_snapshot().advice
    return recorder


def find(situation: Situation) -> Finding:
    """Run a situation, follow the advice, and run it again."""
    run: Callable[[Callable[[], Any]], Any] = (
        (lambda program: asyncio.run(program())) if situation.is_real else run_virtual
    )
    before = run(lambda: watch(situation, situation.stages()))
    if situation.followed is None:
        return Finding(situation, before.advice, None)
    followed = situation.followed
    after = run(lambda: watch(situation, followed()))
    return Finding(situation, before.advice, after.rate / max(before.rate, 1e-9) - 1)


# Tasks


def taking(seconds: float, seed: int = 1) -> Task:
    """A task that takes about this long."""
    dice = random.Random(seed)

    async def task(value: Any) -> Any:
        await asyncio.sleep(seconds * dice.uniform(0.8, 1.2))
        return value

    return task


def drawn(draw: Callable[[random.Random], float]) -> Task:
    """A task that takes a random time."""
    dice = random.Random(1)

    async def task(value: Any) -> Any:
        await asyncio.sleep(draw(dice))
        return value

    return task


def failing(share: float, seconds: float) -> Task:
    """A task that fails now and then."""
    dice = random.Random(1)

    async def task(value: Any) -> Any:
        await asyncio.sleep(seconds)
        if dice.random() < share:
            raise ConnectionError("no")
        return value

    return task


def behind(width: int, seconds: float) -> Task:
    """A task behind a semaphore."""
    pool = asyncio.Semaphore(width)

    async def task(value: Any) -> Any:
        async with pool:
            await asyncio.sleep(seconds)
        return value

    return task


def locked(seconds: float) -> Task:
    """A task of which one at a time works."""
    lock = asyncio.Lock()

    async def task(value: Any) -> Any:
        async with lock:
            await asyncio.sleep(seconds)
        return value

    return task


def tokens(value: int) -> float:
    """What a prompt costs: 800 on average."""
    return 500 + value % 7 * 100


def slow_callback() -> StatusTracker:
    """A tracker that waits whenever an item has come through the first stage."""

    async def tell(event: Any) -> None:
        if event.status == "completed" and event.stage == "Fetch":
            await asyncio.sleep(1)

    return StatusTracker(on_status_change=tell)


def asking(each_second: int) -> Task:
    """A task that calls a service which answers so many a second, and to others: try later."""
    seen = {"second": -1, "count": 0}

    async def task(value: Any) -> Any:
        await asyncio.sleep(0.05)
        second = int(asyncio.get_running_loop().time())
        if seen["second"] != second:
            seen.update(second=second, count=0)
        seen["count"] += 1
        if seen["count"] > each_second:
            raise RetryAfter(1)
        return value

    return task


def slower_after(moment: float, before: float, after: float) -> Task:
    """A task that takes longer from some moment on."""
    began: list[float] = []

    async def task(value: Any) -> Any:
        now = asyncio.get_running_loop().time()
        began.append(now)
        await asyncio.sleep(before if now - began[0] < moment else after)
        del began[1:]
        return value

    return task


async def rude(value: Any) -> Any:
    """Blocks the event loop."""
    time.sleep(0.02)
    return value


async def ruder(value: Any) -> Any:
    """Blocks the event loop for long."""
    time.sleep(0.4)
    return value


BLOCKS_AT = 900


def blocking_once() -> Task:
    """Blocks the event loop once, for eight seconds."""

    async def task(value: Any) -> Any:
        if value == BLOCKS_AT:
            time.sleep(8)
        await asyncio.sleep(0.05)
        return value

    return task


def blocking_once_in_a_thread() -> Callable[[Any], Any]:
    """The same, where it blocks only its thread."""

    def task(value: Any) -> Any:
        time.sleep(8 if value == BLOCKS_AT else 0.05)
        return value

    return task


LOCK = threading.Lock()


def one_at_a_time(value: Any) -> Any:
    """Blocks its thread, with a lock."""
    with LOCK:
        time.sleep(0.02)
    return value


async def computing_inline(value: Any) -> Any:
    """Computes on the event loop."""
    sum(number * number for number in range(200_000))
    return value


def sleeping(value: Any) -> Any:
    """Blocks its thread."""
    time.sleep(0.02)
    return value


def computing(value: Any) -> Any:
    """Holds Python's lock."""
    sum(number * number for number in range(400_000))
    return value


DATA = bytes(range(256)) * 40_000


def compressing(value: Any) -> Any:
    """Releases Python's lock."""
    zlib.compress(DATA)
    return value


async def threaded(value: Any) -> Any:
    """Uses the pool of the event loop."""
    await asyncio.to_thread(time.sleep, 0.1)
    return value


async def in_three(value: Any) -> AsyncIterator[Any]:
    """Three of one."""
    await asyncio.sleep(0.05)
    for part in range(3):
        yield value, part


async def every_other(value: Any) -> Any:
    """Drops half of the items."""
    await asyncio.sleep(0.05)
    return Drop("odd") if value % 2 else value


async def written(values: list[Any]) -> list[Any]:
    """A batch, which costs the same however many it has."""
    await asyncio.sleep(0.5)
    return values


async def slow_source() -> AsyncIterator[int]:
    """Two items a second."""
    for number in count():
        await asyncio.sleep(0.5)
        yield number


async def bursts() -> AsyncIterator[int]:
    """A hundred items every ten seconds."""
    for number in count():
        if number % 100 == 0:
            await asyncio.sleep(10)
        yield number


async def in_a_hundred(value: Any) -> AsyncIterator[Any]:
    """A hundred of one."""
    await asyncio.sleep(0.1)
    for part in range(100):
        yield value, part


async def small_first(value: int) -> int:
    """Takes long for all items but the first five."""
    await asyncio.sleep(0.05 if value < 5 else 0.4)
    return value


async def by_size(value: int) -> int:
    """Takes longer for each item than for the one before it."""
    await asyncio.sleep(0.02 * (value + 1))
    return value


def warming_up(calls: int) -> Task:
    """A task whose first calls look up names and connect."""
    left = [calls]

    async def task(value: Any) -> Any:
        left[0] -= 1
        await asyncio.sleep(3 if left[0] >= 0 else 0.3)
        return value

    return task


def delaying(each_second: int) -> Task:
    """A task that calls a server which lets answers wait, and gives so many a second."""
    free_at = [0.0]

    async def task(value: Any) -> Any:
        now = asyncio.get_running_loop().time()
        free_at[0] = max(free_at[0], now) + 1 / each_second
        await asyncio.sleep(max(free_at[0] - now, 0.1))
        return value

    return task


def last_is_slow() -> list[int]:
    """Of which one takes long."""
    return list(range(300))


async def one_slow(value: int) -> int:
    """Takes long for one item."""
    await asyncio.sleep(100 if value == 290 else 0.5)
    return value


def after_fetch(stage: Stage) -> list[Stage]:
    """A quick stage, then this one."""
    return [Stage("Fetch", 20, [taking(0.1)]), stage]


def exponential(dice: random.Random) -> float:
    """Times of a fifth of a second on average."""
    return dice.expovariate(5)


def tail(dice: random.Random) -> float:
    """Times of which a few are very long."""
    return min(0.05 * dice.paretovariate(1.5), 5)


def _drawn(draw: Callable[[random.Random], float], workers: int) -> list[Stage]:
    return after_fetch(Stage("Ask", workers, [drawn(draw)]))


def _failing(share: float) -> list[Stage]:
    return [Stage("Ask", 20, [failing(share, 0.2)], task_attempts=30, task_wait_seconds=0)]


def _behind(width: int, workers: int) -> list[Stage]:
    return after_fetch(Stage("Ask", workers, [behind(width, 0.2)]))


def _in_executor(workers: int) -> list[Stage]:
    return after_fetch(Stage("Query", workers, [sleeping], executor=ThreadPoolExecutor(2)))


def situations() -> Iterator[Situation]:
    """All of them."""
    yield from _stages()
    yield from _limits()
    yield from _shared()
    yield from _probes()
    yield from _odd()
    yield from _real()


def _three(fetch: int, parse: int, save: int) -> Plan:
    def plan() -> list[Stage]:
        return [
            Stage("Fetch", fetch, [taking(0.2, 1)]),
            Stage("Parse", parse, [taking(0.2, 2)]),
            Stage("Save", save, [taking(0.2, 3)]),
        ]

    return plan


def _stages() -> Iterator[Situation]:
    yield Situation("slow first stage", _three(5, 20, 20), "workers", "Fetch", _three(10, 20, 20))
    yield Situation("slow middle stage", _three(20, 5, 20), "workers", "Parse", _three(20, 10, 20))
    yield Situation("slow last stage", _three(20, 20, 5), "workers", "Save", _three(20, 20, 10))
    yield Situation(
        "next stage near behind", _three(20, 10, 13), "workers", "Parse", _three(20, 13, 13)
    )
    yield Situation(
        "two equally slow stages", _three(20, 6, 6), "workers", "Save", _three(20, 6, 12), False
    )
    for name, draw, more in (("exponential times", exponential, 38), ("a heavy tail", tail, 29)):
        yield Situation(
            name,
            partial(_drawn, draw, 20),
            "workers",
            "Ask",
            partial(_drawn, draw, more),
        )
    yield Situation(
        "a service slows down",
        lambda: after_fetch(Stage("Ask", 10, [slower_after(20, 0.05, 0.4)])),
        "workers",
        "Ask",
        lambda: after_fetch(Stage("Ask", 20, [slower_after(20, 0.05, 0.4)])),
    )
    yield Situation(
        "one item becomes three",
        lambda: [Stage("List", 5, [in_three], expand=True), Stage("Get", 10, [taking(0.2)])],
        "workers",
        "Get",
        lambda: [Stage("List", 5, [in_three], expand=True), Stage("Get", 20, [taking(0.2)])],
    )
    yield Situation(
        "half of the items are dropped",
        lambda: [Stage("Sift", 10, [every_other]), Stage("Get", 4, [taking(0.2)])],
        "workers",
        "Get",
        lambda: [Stage("Sift", 10, [every_other]), Stage("Get", 8, [taking(0.2)])],
    )
    yield Situation(
        "one item becomes a hundred",
        lambda: [Stage("List", 2, [in_a_hundred], expand=True), Stage("Get", 10, [taking(0.2)])],
        "workers",
        "Get",
        lambda: [Stage("List", 2, [in_a_hundred], expand=True), Stage("Get", 20, [taking(0.2)])],
    )
    yield Situation(
        "small items first",
        lambda: [Stage("Ask", 12, [small_first])],
        "workers",
        "Ask",
        lambda: [Stage("Ask", 24, [small_first])],
    )
    yield Situation(
        "items sorted by size",
        lambda: [Stage("Ask", 12, [by_size])],
        "workers",
        "Ask",
        lambda: [Stage("Ask", 24, [by_size])],
    )
    yield Situation(
        "the first call of a worker takes long",
        lambda: after_fetch(Stage("Ask", 10, [warming_up(10)])),
        "workers",
        "Ask",
        lambda: after_fetch(Stage("Ask", 20, [warming_up(20)])),
    )
    yield Situation(
        "items run out of time",
        partial(_in_time, 2),
        "workers",
        "Parse",
        partial(_in_time, 4),
        options={"item_timeout": 12.0},
    )
    yield Situation(
        "a source that gives bursts",
        lambda: [Stage("Fetch", 10, [taking(0.2)])],
        "source",
        "Fetch",
        lambda: [Stage("Fetch", 20, [taking(0.2)])],
        False,
        bursts,
    )
    yield Situation(
        "batches wait for a slow source",
        partial(_waiting_batches, 1),
        "source",
        "Fetch",
        partial(_waiting_batches, 2),
        False,
        slow_source,
    )
    yield Situation(
        "slow source",
        lambda: [Stage("Fetch", 5, [taking(0.2)])],
        "source",
        "Fetch",
        lambda: [Stage("Fetch", 10, [taking(0.2)])],
        False,
        slow_source,
    )


def _in_time(workers: int) -> list[Stage]:
    return [
        Stage("Fetch", 5, [taking(0.2)], queue_capacity=200),
        Stage("Parse", workers, [taking(0.5)], queue_capacity=100),
    ]


def _waiting_batches(workers: int) -> list[Stage]:
    return [
        Stage("Fetch", 5, [taking(0.1)]),
        Stage("Write", workers, [written], batch=50, batch_wait=5),
    ]


def _limited(limit: Callable[[], list[Limit]], workers: int = 20) -> Plan:
    return lambda: [
        Stage("Ask", workers, [taking(0.2)], limits=limit()),
        Stage("Save", 10, [taking(0.2)]),
    ]


def _sharing(limit: Callable[[], Limit]) -> Plan:
    def plan() -> list[Stage]:
        shared = limit()
        return [
            Stage("Ask", 10, [taking(0.2)], limits=[shared]),
            Stage("Tell", 10, [taking(0.2)], limits=[shared]),
        ]

    return plan


def _limits() -> Iterator[Situation]:
    yield Situation(
        "a concurrency limit of two stages",
        _sharing(lambda: Limit(6)),
        "limit",
        "Tell",
        _sharing(lambda: Limit(20)),
    )
    yield Situation(
        "a rate limit of two stages",
        _sharing(lambda: Limit(rate=20, period=1)),
        "limit",
        "Tell",
        _sharing(lambda: Limit(rate=96, period=1)),
    )
    yield Situation(
        "own rate limit",
        _limited(lambda: [Limit(rate=20, period=1)]),
        "limit",
        "Ask",
        _limited(lambda: [Limit(rate=48, period=1)]),
    )
    yield Situation(
        "own concurrency limit",
        _limited(lambda: [Limit(4)]),
        "limit",
        "Ask",
        _limited(lambda: [Limit(9)]),
    )
    yield Situation(
        "limit as high as the workers",
        _limited(lambda: [Limit(5)], 5),
        "workers",
        "Ask",
        _limited(lambda: [Limit(5)], 10),
        False,
    )
    yield Situation(
        "429, with a limit",
        lambda: [Stage("Ask", 20, [asking(20)], limits=[Limit(rate=1000, period=1)])],
        "service",
        "Ask",
        lambda: [Stage("Ask", 20, [asking(20)], limits=[Limit(rate=10_000, period=1)])],
        False,
    )
    yield Situation(
        "429, more workers",
        lambda: [Stage("Ask", 20, [asking(20)])],
        "service",
        "Ask",
        lambda: [Stage("Ask", 40, [asking(20)])],
        False,
    )
    yield Situation(
        "own limit of tokens",
        _limited(lambda: [Limit(rate=16_000, period=1, cost=tokens)]),
        "limit",
        "Ask",
        _limited(lambda: [Limit(rate=40_000, period=1, cost=tokens)]),
    )
    yield Situation(
        "limits of tokens and of requests",
        _limited(lambda: [Limit(rate=8_000, period=1, cost=tokens), Limit(rate=20, period=1)]),
        "limit",
        "Ask",
        _limited(lambda: [Limit(rate=16_000, period=1, cost=tokens), Limit(rate=20, period=1)]),
    )
    for share in (0.6, 0.4):
        yield Situation(
            f"{share:.0%} of the tries fail",
            partial(_failing, share),
            "errors",
            "Ask",
            partial(_failing, 0.0),
        )
    yield Situation(
        "retries that wait",
        lambda: [Stage("Ask", 2, [failing(1, 0.1)], task_attempts=5, task_wait_seconds=60)],
        "retries",
        "Ask",
        seconds=200,
    )


def _shared() -> Iterator[Situation]:
    for width, workers in ((2, 8), (1, 6), (5, 40)):
        yield Situation(
            f"{workers} workers, {width} at once",
            partial(_behind, width, workers),
            "shared",
            "Ask",
            partial(_behind, width, 2 * workers),
            False,
        )
    yield Situation(
        "8 workers, a lock",
        lambda: after_fetch(Stage("Ask", 8, [locked(0.1)])),
        "shared",
        "Ask",
        lambda: after_fetch(Stage("Ask", 16, [locked(0.1)])),
        False,
    )
    yield Situation(
        "a server that lets answers wait",
        lambda: after_fetch(Stage("Ask", 10, [delaying(20)])),
        "shared",
        "Ask",
        lambda: after_fetch(Stage("Ask", 20, [delaying(20)])),
        False,
    )
    yield Situation(
        "batches, short queue",
        lambda: after_fetch(
            Stage("Write", 2, [written], batch=100, batch_wait=0.1, queue_capacity=10)
        ),
        "queue",
        "Write",
        lambda: after_fetch(
            Stage("Write", 2, [written], batch=100, batch_wait=0.1, queue_capacity=200)
        ),
    )
    yield Situation(
        "slow batches",
        lambda: after_fetch(Stage("Write", 1, [written], batch=20, batch_wait=0.1)),
        "workers",
        "Write",
        lambda: after_fetch(Stage("Write", 2, [written], batch=20, batch_wait=0.1)),
    )


def _fetching(workers: int) -> list[Stage]:
    return [Stage("Fetch", workers, [taking(0.2)])]


def _probes() -> Iterator[Situation]:
    probe: dict[str, Any] = {"options": {"probe": True}}
    yield Situation(
        "a probe: 2 workers",
        partial(_in_doubt, 2),
        "workers",
        "Ask",
        partial(_in_doubt, 4),
        **probe,
    )
    yield Situation(
        "a probe: a service that slowed down",
        partial(_slowed, 10),
        "workers",
        "Ask",
        partial(_slowed, 20),
        **probe,
    )
    yield Situation(
        "a probe: 2 workers, 1 at once",
        partial(_behind, 1, 2),
        "shared",
        "Ask",
        partial(_behind, 1, 4),
        False,
        **probe,
    )
    yield Situation(
        "a probe: 2 workers, 3 at once",
        partial(_behind, 3, 2),
        "workers",
        "Ask",
        partial(_behind, 3, 3),
        **probe,
    )


def _in_doubt(workers: int) -> list[Stage]:
    return after_fetch(Stage("Ask", workers, [taking(0.2)]))


def _slowed(workers: int) -> list[Stage]:
    return after_fetch(Stage("Ask", workers, [slower_after(15, 0.05, 0.4)]))


def _odd() -> Iterator[Situation]:
    yield Situation(
        "one slow item at the end",
        lambda: [Stage("Ask", 10, [one_slow])],
        "item",
        "Ask",
        source=last_is_slow,
        seconds=40,
    )
    yield Situation(
        "nothing stands out",
        lambda: [Stage("Fetch", 10, [taking(30)]), Stage("Save", 10, [taking(30)])],
        "none",
        None,
        source=lambda: range(10),
        seconds=45,
    )
    for workers in (5, 20):
        yield Situation(
            f"slow consumer, {workers} workers",
            partial(_fetching, workers),
            "consumer",
            "Fetch",
            partial(_fetching, 2 * workers),
            False,
            consumer=0.5,
        )
    yield Situation(
        "slow callback",
        lambda: [Stage("Fetch", 5, [taking(0.2)]), Stage("Parse", 5, [taking(0.2)])],
        "callbacks",
        "Fetch",
        lambda: [Stage("Fetch", 5, [taking(0.2)]), Stage("Parse", 10, [taking(0.2)])],
        False,
        tracker=slow_callback,
    )
    endings: tuple[Literal["timeout"], Literal["Ctrl-C"]] = ("timeout", "Ctrl-C")
    for ended in endings:
        yield Situation(
            f"after {ended}",
            _three(20, 5, 20),
            "workers",
            "Parse",
            _three(20, 10, 20),
            ended=ended,
        )


def _real() -> Iterator[Situation]:
    def parsing(parse: Any, workers: int = 5) -> list[Stage]:
        return [
            Stage("Fetch", 10, [taking(0.05)]),
            Stage("Parse", 5, [parse]),
            Stage("Save", workers, [taking(0.02)]),
        ]

    real: dict[str, Any] = {"is_real": True, "seconds": 9.0}
    yield Situation(
        "20 ms blocks in an async task",
        lambda: parsing(rude),
        "loop",
        "Parse",
        lambda: parsing(sleeping),
        **real,
    )
    yield Situation(
        "400 ms blocks in an async task",
        lambda: parsing(ruder),
        "loop",
        "Parse",
        lambda: parsing(sleeping),
        **real,
    )
    yield Situation(
        "something blocks once, for 8 s",
        lambda: parsing(blocking_once()),
        "loop",
        "Parse",
        lambda: parsing(blocking_once_in_a_thread()),
        is_real=True,
        seconds=22.0,
    )
    yield Situation(
        "computing in an async task",
        lambda: parsing(computing_inline),
        "loop",
        "Parse",
        **real,
    )
    for workers in (20, 8):
        yield Situation(
            f"own executor of 2 threads, {workers} workers",
            partial(_in_executor, workers),
            "shared",
            "Query",
            partial(_in_executor, 2 * workers),
            False,
            **real,
        )
    yield Situation(
        "asyncio.to_thread",
        lambda: after_fetch(Stage("Query", 30, [threaded])),
        "shared",
        "Query",
        lambda: after_fetch(Stage("Query", 60, [threaded])),
        False,
        **real,
    )
    yield Situation(
        "threads behind a lock",
        lambda: after_fetch(Stage("Query", 8, [one_at_a_time])),
        "shared",
        "Query",
        lambda: after_fetch(Stage("Query", 16, [one_at_a_time])),
        False,
        **real,
    )
    yield Situation(
        "too few processes",
        lambda: after_fetch(Stage("Parse", 2, [sleeping], executor="process")),
        "workers",
        "Parse",
        lambda: after_fetch(Stage("Parse", 4, [sleeping], executor="process")),
        **real,
    )
    yield Situation(
        "threads that hold Python's lock",
        lambda: after_fetch(Stage("Parse", 4, [computing])),
        "processes",
        "Parse",
        lambda: after_fetch(Stage("Parse", 4, [computing], executor="process")),
        **real,
    )
    yield Situation(
        "a thread that releases Python's lock",
        lambda: after_fetch(Stage("Pack", 1, [compressing])),
        "workers",
        "Pack",
        lambda: after_fetch(Stage("Pack", 2, [compressing])),
        **real,
    )


HEAD = ["| planted | said | gain | verdict |", "|---|---|---|---|"]


def row(finding: Finding) -> str:
    """A row of a table in Markdown."""
    gain = finding.gain
    followed = "" if gain is None else f"{gain:+.0%}" if gain < MANY_TIMES else f"× {gain + 1:.0f}"
    said = finding.advice.sentence.replace("|", "/") or "(nothing)"
    return f"| {finding.situation.name} | {said} | {followed} | {finding.verdict} |"


def rows_of(page: Path) -> dict[str, str]:
    """The rows that a page has: name → row."""
    text = page.read_text(encoding="utf-8").partition("<!-- advice -->")[2].partition("<!-- end")[0]
    return {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines()}


def summed_up(rows: Sequence[str]) -> list[str]:
    """The table, and how many of its rows are right."""
    counts = Counter(line.split(" | ")[-1].removesuffix(" |") for line in rows)
    return [*HEAD, *rows, "", f"{counts['right']} of {len(rows)} right, {counts['wrong']} wrong."]


def main() -> None:
    """Run them, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.advice", description=__doc__)
    parser.add_argument("--only", metavar="WORDS", default="", help="those with these words")
    parser.add_argument("--virtual", action="store_true", help="only those on a virtual clock")
    parser.add_argument("--page", action="store_true", help=f"write the rows into {PAGE.name}")
    given = parser.parse_args()
    chosen = [
        each
        for each in situations()
        if given.only in each.name and not (given.virtual and each.is_real)
    ]
    findings = [find(each) for each in chosen]
    rows = {each.situation.name: row(each) for each in findings}
    print("\n".join(summed_up(list(rows.values()))))
    if given.page:
        known = rows_of(PAGE) | rows  # the others stay as they are
        write(PAGE, {"advice": summed_up([known[e.name] for e in situations() if e.name in known])})
    sys.exit(1 if any(each.verdict == "wrong" for each in findings) else 0)


if __name__ == "__main__":
    main()
