"""How much memory a tracker takes: for each item, and for each run that is over.

`python -m benchmarks.history` prints the tables behind "Keeping less" in
docs/dashboard-or-tracker.md. Memory is what Python's allocator has handed out (`tracemalloc`).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from antflow import Pipeline, Stage, StatusTracker
from benchmarks.tasks import WORKERS, no_op

STAGES = (1, 3, 10)
KEPT: tuple[Literal["full", "last"] | int | None, ...] = ("full", 3, "last", None)
ITEMS, RUNS, FEW = 60_000, 200, 10


def grown(tracker: StatusTracker | None, stages: int, items: int, runs: int) -> float:
    """The bytes by which a run makes the memory of a program grow, its tracker included."""

    async def measured() -> int:
        pipeline = Pipeline(
            [Stage(f"S{number}", WORKERS, [no_op]) for number in range(stages)],
            collect_results=False,
            status_tracker=tracker,
        )
        for _ in range(20):  # what the first runs leave is not of the tracker
            await pipeline.run(range(FEW))
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(runs):
            await pipeline.run(range(items))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return after - before

    return asyncio.run(measured()) / runs


def table(items: int, runs: int) -> list[str]:
    """A row for each number of stages: bytes per item, then bytes per run."""
    heads = [*(f"history={kept!r}" for kept in KEPT), "a run", "a run, spill=", "without"]
    lines = [f"| stages | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    with TemporaryDirectory() as folder:
        for stages in STAGES:
            kept = [StatusTracker(history=history) for history in KEPT]
            items_of = [grown(tracker, stages, items, 1) / items for tracker in kept]
            trackers = [
                StatusTracker(history=None),
                StatusTracker(spill=Path(folder) / f"{stages}"),
                None,
            ]
            runs_of = [grown(tracker, stages, FEW, runs) for tracker in trackers]
            cells = [*(f"{each:.1f}" for each in items_of), *(f"{each:,.0f}" for each in runs_of)]
            lines.append(f"| {stages} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS, help="of a run (%(default)s)")
    parser.add_argument("--runs", type=int, default=RUNS, help="with few items (%(default)s)")
    given = parser.parse_args()
    print("Bytes per item, and per run that is over:\n")
    print("\n".join(table(given.items, given.runs)))


if __name__ == "__main__":
    main()
