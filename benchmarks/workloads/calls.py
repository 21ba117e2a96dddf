"""One function over many values, with an executor: W9."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from benchmarks import hand
from benchmarks.sample import Sample, Stopwatch, check
from benchmarks.tasks import WORKERS, no_op
from benchmarks.workload import Figure, Measure, Program, Workload, times_faster

Map = Callable[[hand.Function, Iterable[int], int], Awaitable[list[int]]]


async def executor_map(function: hand.Function, items: Iterable[int], workers: int) -> list[int]:
    """`AsyncExecutor.map`."""
    from antflow import AsyncExecutor

    async with AsyncExecutor(max_workers=workers) as executor:
        return await executor.map(function, items)


def mapping(map_: Map) -> Measure:
    """Measure a map whose results must be in input order."""

    async def measure(items: int) -> Sample:
        await map_(no_op, range(300), WORKERS)
        with Stopwatch() as watch:
            values = await map_(no_op, range(items), WORKERS)
        check("results", values, list(range(items)))
        return watch.sample(items)

    return measure


WORKLOADS = [
    Workload(
        "W9",
        "`AsyncExecutor.map` with 10 workers, a function that does nothing, results in order",
        60_000,
        10_000,
        {
            "ours": Program(mapping(executor_map)),
            "published": Program(mapping(executor_map), "published", 0.1),
            "semaphore": Program(mapping(hand.semaphore_map), "semaphores"),
            "shared iterator": Program(mapping(hand.iterator_map), "pool"),
        },
        [
            Figure("times the published", times_faster("ours", "published"), 20, 60),
            Figure("times a TaskGroup with a semaphore", times_faster("ours", "semaphore")),
            Figure("times workers on one iterator", times_faster("ours", "shared iterator")),
        ],
    ),
]
