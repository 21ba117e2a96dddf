"""`python contenders.py NAME ITEMS` prints the seconds that ITEMS no-op items took.

Every contender brings ITEMS integers through 3 stages of 10 workers whose task does nothing,
collects what comes out, and is timed inside its own process, without start-up and imports.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import sys
import time
from collections.abc import Awaitable, Callable

STAGES = 3
WORKERS = 10


async def no_op(value: int) -> int:
    """A task that does nothing: what is left is what the engine costs."""
    return value


async def antflow(items: int, *, tracked: bool = False) -> float:
    """This interpreter's antflow."""
    from antflow import Pipeline, Stage, StatusTracker

    pipeline = Pipeline(
        stages=[Stage(f"S{n}", WORKERS, [no_op]) for n in range(STAGES)],
        status_tracker=StatusTracker() if tracked else None,
    )
    began = time.perf_counter()
    results = await pipeline.run(list(range(items)))
    seconds = time.perf_counter() - began
    assert len(results) == items
    return seconds


async def published(items: int) -> float:
    """The published antflow 0.10.0, which this interpreter must have."""
    version = importlib.metadata.version("antflow")
    if version != "0.10.0":
        raise SystemExit(f"this interpreter has antflow {version}, not 0.10.0")
    return await antflow(items)


async def tracked(items: int) -> float:
    """The same with a tracker that keeps the history."""
    return await antflow(items, tracked=True)


async def queue_pool(items: int) -> float:
    """What one writes by hand: `asyncio.Queue`s of the same capacity, and workers between them."""
    queues: list[asyncio.Queue[int]] = [asyncio.Queue(WORKERS * 10) for _ in range(STAGES)]
    results: list[int] = []

    async def work(stage: int) -> None:
        inlet = queues[stage]
        outlet = queues[stage + 1] if stage + 1 < STAGES else None
        while True:
            value = await no_op(await inlet.get())
            if outlet is None:
                results.append(value)
            else:
                await outlet.put(value)
            inlet.task_done()

    workers = [asyncio.create_task(work(stage)) for stage in range(STAGES) for _ in range(WORKERS)]
    began = time.perf_counter()
    for item in range(items):
        await queues[0].put(item)
    for queue in queues:
        await queue.join()
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.cancel()
    assert len(results) == items
    return seconds


async def bare_loop(items: int) -> float:
    """The tasks alone, awaited one after the other: what no engine can beat."""
    began = time.perf_counter()
    results = []
    for item in range(items):
        value = item
        for _ in range(STAGES):
            value = await no_op(value)
        results.append(value)
    return time.perf_counter() - began


async def growth(items: int) -> float:
    """Not seconds but MB: how much memory the second half of a long stream adds."""
    from antflow import Pipeline, Stage

    pipeline = Pipeline(stages=[Stage(f"S{n}", WORKERS, [no_op]) for n in range(STAGES)])
    seen = 0
    before = 0.0
    async for _ in pipeline.stream(range(items)):
        seen += 1
        if seen == items // 100:  # warm: pools, caches and the first garbage are there
            before = _resident_mb()
    assert seen == items
    return _resident_mb() - before


def _resident_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * 4096 / 1e6


CONTENDERS: dict[str, Callable[[int], Awaitable[float]]] = {
    "ours": antflow,
    "published": published,
    "tracked": tracked,
    "queue pool": queue_pool,
    "bare loop": bare_loop,
    "growth": growth,
}

if __name__ == "__main__":

    async def main() -> None:
        """Run the contender that was asked for."""
        print(await CONTENDERS[sys.argv[1]](int(sys.argv[2])))

    asyncio.run(main())
