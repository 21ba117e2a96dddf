"""Run the tasks of a stage on the workers of a Dask cluster, and lose one of them on the way.

python examples/many_machines.py

The program starts a small cluster on this machine: a scheduler and two worker processes. Give
DaskRunner the address of a real one, and the rest stays the same.
"""

import asyncio
import os
import signal
from collections import Counter

from distributed import LocalCluster

from antflow import Pipeline, Stage, StatusEvent, StatusTracker, current_item
from antflow.runners import DaskRunner

MARK = "many_machines.lost"


def measure(number: int) -> tuple[int, int]:
    """A plain function: it may keep a processor busy."""
    steps = 0
    while number != 1:
        number = 3 * number + 1 if number % 2 else number // 2
        steps += 1
    return steps, os.getpid()


async def end_one(measured: tuple[int, int]) -> int:
    """An async task: hundreds of them share a worker process. One of them ends its process."""
    await asyncio.sleep(0.05)
    if current_item().id == 10:
        die_once()
    return measured[0]


def die_once() -> None:
    try:
        open(MARK, "x").close()
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


workers = Counter[str | None]()


def note(event: StatusEvent) -> None:
    if event.status == "completed":
        workers[event.worker] += 1


async def main() -> None:
    async with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", asynchronous=True
    ) as cluster:
        stages = [
            Stage("Measure", 8, [measure], executor=DaskRunner(cluster)),
            Stage("End", 40, [end_one], executor=DaskRunner(cluster)),
        ]
        pipeline = Pipeline(stages, status_tracker=StatusTracker(on_status_change=note))
        results = await pipeline.run(range(1, 201))
    print(f"{len(results.values())} items are through")
    print(f"the longest way has {max(results.values())} steps")
    print(f"{results.stats.stage_stats['End'].retried_items} retries")
    print(f"workers like {min(name for name in workers if name)}")


if __name__ == "__main__":
    asyncio.run(main())
    os.unlink(MARK)
