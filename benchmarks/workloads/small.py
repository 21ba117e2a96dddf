"""Costs that a program pays once: a small run (W10) and the import (W13)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from tempfile import TemporaryDirectory

from benchmarks import hand, ours
from benchmarks.sample import Sample, Stopwatch, check_values
from benchmarks.tasks import STAGES, WORKERS, no_op
from benchmarks.workload import Figure, Measure, Program, Workload, extra
from benchmarks.workloads.flows import Run

FEW = 5
"""Items of a small run."""


def small_runs(run: Run) -> Measure:
    """Measure small runs, each with a new pipeline."""

    async def measure(runs: int) -> Sample:
        tasks = [no_op] * STAGES
        for _ in range(5):
            await run(range(FEW), tasks, WORKERS)
        with Stopwatch() as watch:
            found = [await run(range(FEW), tasks, WORKERS) for _ in range(runs)]
        for values in found:
            check_values(values, FEW)
        return watch.sample(runs, ms=watch.cpu / runs * 1000)

    return measure


IMPORT = """
import asyncio, time
began = time.process_time()
import antflow
print(time.process_time() - began)
"""


async def imports(times: int) -> Sample:
    """Measure the import from compiled files, in new processes that have already loaded asyncio."""
    with TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-c", IMPORT]

        def once() -> float:
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment
            )
            return float(done.stdout)

        await asyncio.to_thread(once)  # compiles the files
        with Stopwatch() as watch:
            seconds = [await asyncio.to_thread(once) for _ in range(times)]
    return watch.sample(times, ms=min(seconds) * 1000)


WORKLOADS = [
    Workload(
        "W10",
        "build a pipeline of three stages and run five items; an item is such a run",
        1_000,
        200,
        {
            "ours": Program(small_runs(ours.run)),
            "published": Program(small_runs(ours.run), "published", 0.02),
            "pool": Program(small_runs(hand.queue_pool), "pool"),
        },
        [
            Figure("ms", extra("ours", "ms"), 0.3, 0.15, "low"),
            Figure("ms of the published", extra("published", "ms")),
            Figure("ms of the pool", extra("pool", "ms")),
        ],
    ),
    Workload(
        "W13",
        "`import antflow`, after `import asyncio`; an item is an import",
        10,
        3,
        {"ours": Program(imports)},
        [Figure("ms", extra("ours", "ms"), 15, 8, "low")],
    ),
]
