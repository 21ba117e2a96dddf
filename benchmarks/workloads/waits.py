"""Tasks that wait, as real ones do: W3 and W4. The measure is wall-clock time."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import hand, ours
from benchmarks.sample import Sample, Stopwatch, check_values
from benchmarks.tasks import Sleeps
from benchmarks.workload import Figure, Measure, Program, Workload, extra
from benchmarks.workloads.flows import Run


def waiting(run: Run, make: Callable[[int], Sleeps], workers: int) -> Measure:
    """Measure what share of the time would suffice if handing over took none."""

    async def measure(items: int) -> Sample:
        sleeps = make(items)
        await run(range(min(items, 100)), sleeps.tasks(), workers)
        with Stopwatch() as watch:
            values = await run(range(items), sleeps.tasks(), workers)
        check_values(values, items)
        return watch.sample(items, of_the_ideal=sleeps.makespan(workers) / watch.wall)

    return measure


def even(items: int) -> Sleeps:
    """50 ms ± 50 %, in one stage."""
    return Sleeps.even(items, stages=1, mean=0.05, spread=0.5)


def pareto(items: int) -> Sleeps:
    """10 ms and more, 1 s at most, in three stages."""
    return Sleeps.pareto(items, stages=3, least=0.01, shape=1.5, most=1.0)


def workload(
    name: str,
    title: str,
    items: tuple[int, int],
    make: Callable[[int], Sleeps],
    workers: int,
    targets: tuple[float, float],
) -> Workload:
    """A workload that compares ours with the pool written by hand."""
    return Workload(
        name,
        title,
        *items,
        {
            "ours": Program(waiting(ours.run, make, workers)),
            "pool": Program(waiting(hand.queue_pool, make, workers), "pool"),
        },
        [
            Figure("ideal time over ours", extra("ours", "of_the_ideal"), *targets),
            Figure("ideal time over that of the pool", extra("pool", "of_the_ideal")),
        ],
    )


WORKLOADS = [
    workload(
        "W3",
        "1,000 workers that sleep for 50 ms ± 50 %",
        (20_000, 4_000),
        even,
        1000,
        (0.95, 0.975),
    ),
    workload(
        "W4",
        "3 stages × 20 workers, Pareto sleeps",
        (2_000, 500),
        pareto,
        20,
        (0.97, 0.98),
    ),
]
