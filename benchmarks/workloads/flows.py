"""Items through three stages of ten workers: W1, W2, W7 and W8."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from math import isnan, nan

from benchmarks import hand, others, ours
from benchmarks.sample import Sample, Stopwatch, check, check_values, resident_mb
from benchmarks.tasks import STAGES, WORKERS, FailsOnce, Task, give_way, no_op
from benchmarks.workload import Figure, Measure, Program, Workload, extra, times_faster

WARM_UP = 300
"""How many items to run before the measurement, so that imports and caches are warm."""

Run = Callable[[Iterable[int], Sequence[Task], int], Awaitable[list[int]]]
Stream = Callable[[Iterable[int], Sequence[Task], int], AsyncIterator[int]]

OTHERS: dict[str, tuple[Stream, float]] = {
    "pypeln": (others.pypeln, 0.1),
    "aiostream": (others.aiostream, 0.05),
    "streamable": (others.streamable, 0.1),
    "aiometer": (others.aiometer, 0.1),
}
"""Name of a system → how it streams, and its share of the items."""


def collected(stream: Stream) -> Run:
    """A stream read to its end."""

    async def run(items: Iterable[int], tasks: Sequence[Task], workers: int) -> list[int]:
        return [value async for value in stream(items, tasks, workers)]

    return run


RUNS: dict[str, tuple[Run, float]] = {
    "ours": (ours.run, 1.0),
    "published": (ours.run, 0.05),
    "pool": (hand.queue_pool, 1.0),
    "semaphores": (hand.semaphores, 1.0),
    "bare loop": (hand.bare_loop, 1.0),
    **{name: (collected(stream), share) for name, (stream, share) in OTHERS.items()},
}
STREAMS: dict[str, tuple[Stream, float]] = {
    "ours": (ours.stream, 1.0),
    "published": (ours.stream, 0.003),
    "pool": (hand.queue_stream, 0.2),
    "bare loop": (hand.bare_stream, 1.0),
    **{name: (stream, share / 10) for name, (stream, share) in OTHERS.items()},
}


def running(run: Run, task: Task) -> Measure:
    """Measure a run with one task in every stage."""

    async def measure(items: int) -> Sample:
        tasks = [task] * STAGES
        await run(range(WARM_UP), tasks, WORKERS)
        with Stopwatch() as watch:
            values = await run(range(items), tasks, WORKERS)
        check_values(values, items)
        return watch.sample(items)

    return measure


def failing(run: Run, *, retries_by_hand: bool) -> Measure:
    """Measure a run in which every tenth item fails once."""

    async def measure(items: int) -> Sample:
        once = FailsOnce()
        tasks = once.tasks()
        if retries_by_hand:
            tasks = [hand.with_retries(task) for task in tasks]
        await run(range(1, WARM_UP, 10), tasks, WORKERS)
        with Stopwatch() as watch:
            values = await run(range(items), tasks, WORKERS)
        check_values(values, items)
        once.check(items)
        return watch.sample(items)

    return measure


def streaming(stream: Stream) -> Measure:
    """Measure a stream whose results are looked at and dropped."""

    async def measure(items: int) -> Sample:
        async for _ in stream(range(WARM_UP), [no_op] * STAGES, WORKERS):
            pass
        seen = total = 0
        warm, before = items // 100 or 1, nan
        with Stopwatch() as watch:
            async for value in stream(range(items), [no_op] * STAGES, WORKERS):
                seen += 1
                total += value
                if seen == warm:  # caches are filled, and the first garbage exists
                    before = resident_mb()
        growth = resident_mb() - before
        check("number of results", seen, items)
        check("sum of the results", total, items * (items - 1) // 2)
        return watch.sample(items, **({} if isnan(growth) else {"grown_mb": growth}))

    return measure


def programs(measures: dict[str, tuple[Measure, float]]) -> dict[str, Program]:
    """Programs named after the systems they need."""
    return {name: Program(each, name, share) for name, (each, share) in measures.items()}


NAMES = {
    "published": "the published",
    "pool": "the pool by hand",
    "semaphores": "a TaskGroup with semaphores",
}


def figures(
    systems: Iterable[str], targets: Mapping[str, tuple[float | None, float | None]]
) -> list[Figure]:
    """How many times faster ours is than each of the other systems, except the bare loop."""
    return [
        Figure(
            f"times {NAMES.get(name, name)}",
            times_faster("ours", name),
            *targets.get(name, (None, None)),
        )
        for name in systems
        if name not in ("ours", "bare loop")
    ]


WORKLOADS = [
    Workload(
        "W1",
        "3 stages × 10 workers, tasks that do nothing",
        60_000,
        10_000,
        programs({name: (running(run, no_op), share) for name, (run, share) in RUNS.items()}),
        figures(RUNS, {"published": (80, 120), "pool": (1.0, 1.5)}),
    ),
    Workload(
        "W2",
        "the same with `await asyncio.sleep(0)` in each task",
        60_000,
        10_000,
        programs({name: (running(run, give_way), share) for name, (run, share) in RUNS.items()}),
        figures(RUNS, {"pool": (0.9, 1.0)}),
    ),
    Workload(
        "W7",
        "a million items through a stream",
        1_000_000,
        100_000,
        {
            **programs({name: (streaming(each), share) for name, (each, share) in STREAMS.items()}),
            "ours, 10 k": Program(streaming(ours.stream), "ours", 10_000),
        },
        [
            Figure("MB that it grows by", extra("ours", "grown_mb"), 2.0, None, "low"),
            Figure("rate at the end over rate at 10 k", times_faster("ours", "ours, 10 k"), 0.8),
            *figures(STREAMS, {"published": (60, 100), "pool": (0.9, 1.5)}),
        ],
    ),
    Workload(
        "W8",
        "every tenth item fails once, and is tried again at once",
        60_000,
        10_000,
        programs(
            {
                "ours": (failing(ours.run, retries_by_hand=False), 1.0),
                "published": (failing(ours.run, retries_by_hand=False), 0.05),
                "pool": (failing(hand.retry_pool, retries_by_hand=False), 1.0),
                "semaphores": (failing(hand.semaphores, retries_by_hand=True), 1.0),
                **{
                    name: (failing(collected(stream), retries_by_hand=True), share)
                    for name, (stream, share) in OTHERS.items()
                },
            }
        ),
        figures(RUNS, {"published": (60, 100), "pool": (0.6, 1.0)}),
    ),
]
