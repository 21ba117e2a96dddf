"""What a journal costs, and how long a run takes that finds everything in its journal.

`python -m benchmarks.journal` prints tables for docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import platform
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from antflow import Pipeline, RunResults, Stage
from antflow.journal import Journal
from benchmarks.page import PAGE, write
from benchmarks.report import machine
from benchmarks.sample import check, resident_mb
from benchmarks.tasks import STAGES, no_op

ITEMS, SETTLED, ROUNDS, WORKERS = 20_000, 1_000_000, 3, 64
RECORDS = STAGES + 1
"""Of one item: that it was taken in, and what each stage returned."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One run.

    Attributes:
        wall: Seconds.
        loop: Seconds of processor time of the event loop's thread.
    """

    wall: float
    loop: float


async def short(value: Any) -> Any:
    """A task that takes a millisecond."""
    await asyncio.sleep(0.001)
    return value


async def long(value: Any) -> Any:
    """A task that takes as long as a quick call of a service."""
    await asyncio.sleep(0.1)
    return value


def measured(
    items: Sequence[Any],
    journal: Journal | None,
    task: Any = no_op,
    resumed: int = 0,
    workers: int = WORKERS,
) -> Cost:
    """Run three stages, and check that nothing was lost."""
    stages = [Stage(f"S{number}", workers, [task]) for number in range(STAGES)]
    pipeline = Pipeline[Any, Any](stages, collect_results=False, journal=journal)
    gc.collect()
    wall, loop = time.perf_counter(), time.thread_time()
    results: RunResults[Any] = asyncio.run(pipeline.run(items, key=_itself))
    cost = Cost(time.perf_counter() - wall, time.thread_time() - loop)
    check("items", results.stats.items_processed, len(items))
    check("items resumed", results.resumed, resumed)
    return cost


def _itself(item: Any) -> Any:
    return item


def costs(folder: Path, items: int, rounds: int) -> list[str]:
    """Measure runs with and without a journal in turns."""
    kinds: dict[str, tuple[Any, int, int, int | None]] = {
        "no-op tasks": (no_op, items, 64, None),
        "no-op tasks, strict": (no_op, items, 64, 0),
        "no-op tasks, `max_unflushed=1000`": (no_op, items, 64, 1_000),
        "1 ms tasks, 2 workers": (short, items // 2, 2, None),
        "1 ms tasks, 2 workers, `max_unflushed=1000`": (short, items // 2, 2, 1_000),
        "1 ms tasks, 8 workers": (short, items, 8, None),
        "1 ms tasks, 8 workers, `max_unflushed=1000`": (short, items, 8, 1_000),
        "100 ms tasks, 200 workers": (long, items // 2, 200, None),
        "100 ms tasks, 200 workers, strict": (long, items // 2, 200, 0),
    }
    runs: dict[str, list[Cost]] = {name: [] for name in kinds}
    for number in range(rounds):
        for name, (task, count, workers, unflushed) in kinds.items():
            path = folder / f"{number} {name}.db"
            journal = None if unflushed is None else Journal(path, max_unflushed=unflushed)
            runs[name].append(measured(range(count), journal, task, workers=workers))
    lines = ["| run | items per second | µs of the event loop per record |", "|---|---|---|"]
    for name, (task, count, _, unflushed) in kinds.items():
        rate = median(count / each.wall for each in runs[name])
        cost = ""
        if unflushed is not None and task is no_op:
            pairs = zip(runs[name], runs["no-op tasks"], strict=True)
            records = count * RECORDS
            cost = f"{1e6 * median((it.loop - bare.loop) / records for it, bare in pairs):.1f}"
        lines.append(f"| {name} | {round(rate, -1):,.0f} | {cost} |")
    return lines


def resuming(folder: Path, items: int, rounds: int) -> list[str]:
    """Measure runs of items that are all settled, each in a process of its own."""
    path = folder / "settled.db"
    measured(range(items), Journal(path, max_unflushed=10_000))
    lines = ["| resumed, all settled | items per second | MB |", "|---|---|---|"]
    for name, is_shuffled in {"in their old order": False, "shuffled": True}.items():
        runs: list[tuple[float, float]] = []
        for _ in range(rounds):
            with get_context("spawn").Pool(1) as pool:
                runs.append(pool.apply(resumed, (path, items, is_shuffled)))
        rate = median(items / wall for wall, _ in runs)
        memory = median(memory for _, memory in runs)
        lines.append(f"| {items:,} items {name} | {round(rate, -2):,.0f} | {memory:.0f} |")
    return lines


def resumed(path: Path, items: int, is_shuffled: bool) -> tuple[float, float]:
    """Measure one such run.

    Returns:
        Seconds, and the memory of the process in MB. If the items are shuffled, the list of them is
        a part of it.
    """
    order: Sequence[Any] = range(items)
    if is_shuffled:
        order = random.Random(1).sample(order, items)
    cost = measured(order, Journal(path), resumed=items)
    return cost.wall, resident_mb()


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS, help="of each run (%(default)s)")
    parser.add_argument("--settled", type=int, default=SETTLED, help="to resume (%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often (%(default)s)")
    parser.add_argument("--page", action="store_true", help=f"write it into {PAGE.name}")
    given = parser.parse_args()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    about = f"{time.strftime('%Y-%m-%d')}: {machine()}; {python}; medians of {given.rounds} rounds."
    with TemporaryDirectory() as folder:
        lines = [about, "", *costs(Path(folder), given.items, given.rounds)]
        lines += ["", *resuming(Path(folder), given.settled, given.rounds)]
    print("\n".join(lines))
    sys.stdout.flush()
    if given.page:
        write(PAGE, {"journal": lines})


if __name__ == "__main__":
    main()
