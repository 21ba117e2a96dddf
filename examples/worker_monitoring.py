"""Watch the workers: what each is doing now, and what each has done.

python examples/worker_monitoring.py
"""

import asyncio
import random
import time

from antflow import Pipeline, Stage


async def resize(number: int) -> int:
    await asyncio.sleep(random.uniform(0.1, 0.2))
    return number


async def publish(number: int) -> int:
    await asyncio.sleep(0.05)
    return number


async def report(pipeline: Pipeline, seconds: float) -> None:
    """Keep printing what every worker is doing."""
    while True:
        for state in pipeline.get_worker_states().values():
            if state.status == "busy":
                since = time.time() - (state.processing_since or 0)
                print(f"{state.worker_name:12} item {state.current_item_id:<3} for {since:.2f} s")
            else:
                print(f"{state.worker_name:12} idle")
        print()
        await asyncio.sleep(seconds)


async def main() -> None:
    pipeline = Pipeline(
        [
            Stage("Resize", workers=4, tasks=[resize]),
            Stage("Publish", workers=2, tasks=[publish]),
        ]
    )
    async with asyncio.TaskGroup() as group:
        reporter = group.create_task(report(pipeline, seconds=0.4))
        await pipeline.run(range(30))
        reporter.cancel()

    elapsed = pipeline.get_dashboard_snapshot().elapsed
    print("worker       items  average  busy")
    for worker in pipeline.get_worker_metrics().values():
        busy = worker.total_processing_time / elapsed
        average = worker.avg_processing_time
        print(f"{worker.worker_name:12} {worker.items_processed:5}  {average:.3f} s  {busy:4.0%}")


if __name__ == "__main__":
    asyncio.run(main())
