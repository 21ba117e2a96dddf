"""Long runs: how time and memory grow with the number of items, and the longest pause."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import hand, ours
from benchmarks.sample import Sample, Stopwatch, check, check_values, resident_mb
from benchmarks.tasks import STAGES, WORKERS, no_op
from benchmarks.workload import Figure, Program, Workload, extra, times_faster

TASKS = [no_op] * STAGES


async def kept(items: int) -> Sample:
    """Measure a run whose results are kept, and the memory they take."""
    await ours.run(range(300), TASKS, WORKERS)
    source = list(range(items))
    before = resident_mb()
    with Stopwatch() as watch:
        results = await ours.pipeline(TASKS, WORKERS).run(source)
    grown = resident_mb() - before
    check_values(results.values(), items)
    return watch.sample(items, bytes_per_result=grown * 1e6 / items)


class Pauses:
    """The longest time between two turns of the event loop, and the longest garbage collection.

    Both are in milliseconds of this thread's processor time, so other load on the machine does not
    count.
    """

    def __init__(self) -> None:
        self.turn = self.collection = 0.0
        self._began = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the block."""
        loop = asyncio.get_running_loop()
        last, is_over = time.thread_time(), False

        def turn() -> None:
            nonlocal last
            now = time.thread_time()
            self.turn = max(self.turn, (now - last) * 1000)
            last = now
            if not is_over:
                loop.call_soon(turn)

        loop.call_soon(turn)
        gc.callbacks.append(self._collects)
        try:
            yield
        finally:
            gc.callbacks.remove(self._collects)
            is_over = True

    def _collects(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.collection = max(self.collection, (time.thread_time() - self._began) * 1000)


async def pauses(items: int) -> Sample:
    """Measure the longest pause of a run whose results are kept."""
    await ours.run(range(300), TASKS, WORKERS)
    pauses = Pauses()
    pipeline = ours.pipeline(TASKS, WORKERS)
    with Stopwatch() as watch, pauses.watched():
        async with pipeline.open() as run:
            await run.feed(range(items))
    check("items", run.stats().items_processed, items)
    return watch.sample(items, pause_ms=pauses.turn, collection_ms=pauses.collection)


async def pauses_of_a_run(items: int) -> Sample:
    """Measure the same for `Pipeline.run`, up to its return."""
    await ours.run(range(300), TASKS, WORKERS)
    pauses = Pauses()
    with Stopwatch() as watch, pauses.watched():
        results = await ours.pipeline(TASKS, WORKERS).run(range(items))
        await asyncio.sleep(0)
    check_values(results.values(), items)
    return watch.sample(items, pause_ms=pauses.turn, collection_ms=pauses.collection)


async def pauses_by_hand(items: int) -> Sample:
    """Measure the same for a pool written by hand."""
    pauses = Pauses()
    with Stopwatch() as watch, pauses.watched():
        values = await hand.queue_pool(range(items), TASKS, WORKERS)
    check_values(values, items)
    return watch.sample(items, pause_ms=pauses.turn, collection_ms=pauses.collection)


WORKLOADS = [
    Workload(
        "growth",
        "time and memory from ten thousand to a million items, results kept",
        1_000_000,
        100_000,
        {
            "all": Program(kept),
            "a tenth": Program(kept, share=0.1),
            "a hundredth": Program(kept, share=0.01),
        },
        [
            Figure("rate of all over that of a hundredth", times_faster("all", "a hundredth"), 0.8),
            Figure("bytes per result", extra("all", "bytes_per_result"), better="low"),
            Figure("bytes per result, a tenth", extra("a tenth", "bytes_per_result"), better="low"),
        ],
    ),
    Workload(
        "pause",
        "the longest pause of the event loop while 500,000 results are kept",
        500_000,
        50_000,
        {
            "run": Program(pauses_of_a_run),
            "fed": Program(pauses),
            "pool": Program(pauses_by_hand, "pool"),
        },
        [
            Figure("ms of a run", extra("run", "pause_ms"), 50, None, "low"),
            Figure("ms until the last item is settled", extra("fed", "pause_ms"), 50, None, "low"),
            Figure("ms of a garbage collection", extra("fed", "collection_ms"), better="low"),
            Figure("ms of the pool", extra("pool", "pause_ms"), better="low"),
        ],
    ),
]
