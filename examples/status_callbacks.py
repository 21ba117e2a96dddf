"""Follow every item: a callback for each change, and queries afterwards.

python examples/status_callbacks.py
"""

import asyncio

from antflow import Pipeline, Stage, StatusEvent, StatusTracker, TaskEvent, current_item


async def fetch(page: str) -> str:
    await asyncio.sleep(0.1)
    if page == "/missing":
        raise LookupError("404")
    if page == "/slow" and current_item().attempt == 1:
        raise TimeoutError("no answer")
    return f"<h1>{page}</h1>"


async def save(html: str) -> int:
    await asyncio.sleep(0.05)
    return len(html)


async def on_status_change(event: StatusEvent) -> None:
    print(f"{event.item_id:9} {event.stage:6} {event.status:12} {event.metadata.get('error', '')}")


def on_task_retry(event: TaskEvent) -> None:
    print(f"{event.item_id:9} {event.stage:6} try {event.attempt} failed: {event.error}")


async def main() -> None:
    tracker = StatusTracker(on_status_change=on_status_change, on_task_retry=on_task_retry)
    pipeline = Pipeline(
        [
            Stage("Fetch", workers=2, tasks=[fetch], task_attempts=2, task_wait_seconds=0.2),
            Stage("Save", workers=1, tasks=[save]),
        ],
        status_tracker=tracker,
    )
    await pipeline.run({"id": page, "value": page} for page in ("/", "/slow", "/missing"))

    print("\nHow many items have each status:", tracker.get_stats())
    print("What failed:", [event.item_id for event in tracker.get_by_status("failed")])

    print("\nThe way of /slow:")
    history = tracker.get_history("/slow")
    for event in history:
        print(f"{event.timestamp - history[0].timestamp:6.2f} s  {event.status} in {event.stage}")


if __name__ == "__main__":
    asyncio.run(main())
