"""Follow very many items in little memory: the history is in a file, and the tracker reads it.

python examples/tracker_on_disk.py
"""

import asyncio
from pathlib import Path

from antflow import Pipeline, Stage, StatusTracker
from antflow.sinks import EventLog

FILE = Path("history.sqlite")


async def check(number: int) -> int:
    if number % 5_000 == 1:
        raise ValueError("no good")
    return number


async def double(number: int) -> int:
    return 2 * number


async def main() -> None:
    tracker = StatusTracker(spill=FILE)
    stages = [Stage("Check", 10, [check], task_attempts=1), Stage("Double", 10, [double])]
    # Without collect_results=False, the results would need more memory than the history saves.
    pipeline = Pipeline(stages, collect_results=False, status_tracker=tracker)
    await pipeline.run(range(20_000), on_failures="ignore")

    print(tracker.get_stats())
    print(tracker.get_error_summary().errors_by_type)
    for event in tracker.get_history(12_345):
        print(event.item_id, event.status, event.stage)


if __name__ == "__main__":
    asyncio.run(main())
    print(f"{FILE.stat().st_size / 1e6:.0f} MB on disk")
    with EventLog.open(FILE) as log:  # later, or in another program
        run = log.runs()[-1].run  # the file keeps those before it, too
        print("failed:", *[item.item_id for item in log.get_failed_items(run)])
