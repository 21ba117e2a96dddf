"""Limits that never hold anything back: W11."""

from __future__ import annotations

from benchmarks import ours
from benchmarks.sample import Sample, Stopwatch, check_values
from benchmarks.tasks import STAGES, WORKERS, no_op
from benchmarks.workload import Figure, Measure, Program, Workload, more_us, times_faster


def limited(count: int) -> Measure:
    """Measure a run whose stages share ``count`` limits: one of calls, then one of a rate."""

    async def measure(items: int) -> Sample:
        from antflow import Limit

        limits = [Limit(concurrency=100_000), Limit(rate=1e9, period=1.0)][:count]
        pipeline = ours.pipeline([no_op] * STAGES, WORKERS, limits=limits)
        await pipeline.run(range(300))
        with Stopwatch() as watch:
            results = await pipeline.run(range(items))
        check_values(results.values(), items)
        return watch.sample(items)

    return measure


WORKLOADS = [
    Workload(
        "W11",
        "limits that never hold anything back",
        60_000,
        10_000,
        {
            "none": Program(limited(0)),
            "one": Program(limited(1)),
            "two": Program(limited(2)),
        },
        [
            Figure("µs per try for one", more_us("one", "none", STAGES), 1.5, 0.8, "low"),
            Figure("µs per try for two", more_us("two", "none", STAGES), 2.5, 1.4, "low"),
            Figure("speed with one over speed without", times_faster("one", "none")),
            Figure("speed with two over speed without", times_faster("two", "none")),
        ],
    ),
]
