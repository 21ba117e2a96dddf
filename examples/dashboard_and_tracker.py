"""Both at once: a dashboard on the terminal, and a log file with every event.

python examples/dashboard_and_tracker.py
"""

import asyncio
import json
import random
from typing import TextIO

from antflow import Pipeline, Stage, StatusEvent, StatusTracker


async def fetch(number: int) -> str:
    await asyncio.sleep(random.uniform(0.02, 0.08))
    if number % 40 == 17:
        raise ConnectionError("the server hung up")
    return f"page {number}"


async def parse(page: str) -> int:
    await asyncio.sleep(0.02)
    return len(page)


async def run(log: TextIO) -> StatusTracker:
    def write(event: StatusEvent) -> None:
        fields = {"time": event.timestamp, "item": event.item_id, "stage": event.stage}
        print(json.dumps({**fields, "status": event.status}), file=log)

    tracker = StatusTracker(on_status_change=write)
    pipeline = Pipeline(
        [
            Stage("Fetch", workers=10, tasks=[fetch], task_attempts=2, task_wait_seconds=0.1),
            Stage("Parse", workers=3, tasks=[parse]),
        ],
        status_tracker=tracker,
    )
    await pipeline.run(range(200), dashboard="detailed")
    return tracker


def main() -> None:
    with open("pages.jsonl", "w") as log:
        tracker = asyncio.run(run(log))

    print(tracker.get_stats()["completed"], "pages; every event is in pages.jsonl")
    for failed in tracker.get_failed_items():
        way = " → ".join(event.status for event in tracker.get_history(failed.item_id))
        print(f"page {failed.item_id}: {way}: {failed.error} ({failed.attempts} tries)")


if __name__ == "__main__":
    main()
