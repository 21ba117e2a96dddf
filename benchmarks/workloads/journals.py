"""Runs that keep a journal, and runs that find everything in one: W14."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.sample import Sample, Stopwatch, check
from benchmarks.tasks import STAGES, WORKERS, no_op
from benchmarks.workload import Figure, Measure, Program, Workload, more_us, times_faster

RECORDS = STAGES + 1
"""Of one item: that it was taken in, and what each stage returned."""


async def _run(items: Sequence[int], journal: Any, resumed: int = 0) -> None:
    """Run stages that do nothing and keep no results; check that no item was lost."""
    from antflow import Pipeline, Stage

    stages = [Stage(f"S{number}", WORKERS, [no_op]) for number in range(STAGES)]
    pipeline = Pipeline[Any, Any](stages, collect_results=False, journal=journal)
    results = await pipeline.run(items, key=_itself)
    check("items", results.stats.items_processed, len(items))
    check("items resumed", results.resumed, resumed)


def _itself(item: int) -> int:
    return item


async def _without(items: int) -> Sample:
    await _run(range(300), None)
    with Stopwatch() as watch:
        await _run(range(items), None)
    return watch.sample(items)


def _kept(max_unflushed: int) -> Measure:
    """Measure a run in a new journal."""

    async def measure(items: int) -> Sample:
        from antflow.journal import Journal

        with TemporaryDirectory() as folder:
            await _run(range(300), Journal(Path(folder, "first.db")))
            journal = Journal(Path(folder, "run.db"), max_unflushed=max_unflushed)
            with Stopwatch() as watch:
                await _run(range(items), journal)
        return watch.sample(items)

    return measure


def _resumed(is_shuffled: bool) -> Measure:
    """Measure a run of items that are all settled."""

    async def measure(items: int) -> Sample:
        from antflow.journal import Journal

        order = list(range(items))
        with TemporaryDirectory() as folder:
            journal = Journal(Path(folder, "run.db"), max_unflushed=10_000)
            await _run(order, journal)
            if is_shuffled:
                random.Random(1).shuffle(order)
            with Stopwatch() as watch:
                await _run(order, journal, resumed=items)
        return watch.sample(items)

    return measure


WORKLOADS = [
    Workload(
        "W14",
        "a journal of tasks that do nothing",
        50_000,
        10_000,
        {
            "none": Program(_without),
            "strict": Program(_kept(0)),
            "max_unflushed=1000": Program(_kept(1_000)),
            "resumed": Program(_resumed(False)),
            "resumed, shuffled": Program(_resumed(True)),
        },
        [
            Figure("µs per record, strict", more_us("strict", "none", RECORDS), better="low"),
            Figure(
                "µs per record, `max_unflushed=1000`",
                more_us("max_unflushed=1000", "none", RECORDS),
                better="low",
            ),
            Figure("speed with one over speed without", times_faster("strict", "none")),
            Figure("speed of resuming over speed without", times_faster("resumed", "none")),
            Figure(
                "speed of resuming shuffled over speed without",
                times_faster("resumed, shuffled", "none"),
            ),
        ],
    ),
]
