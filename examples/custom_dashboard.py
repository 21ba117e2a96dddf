"""A dashboard of your own: an object with three methods that the run calls.

python examples/custom_dashboard.py
"""

import asyncio
import random

from antflow import (
    DashboardProtocol,
    DashboardSnapshot,
    ErrorSummary,
    Pipeline,
    PipelineResult,
    Stage,
)


class StageBars(DashboardProtocol):
    """One line for each update, with one bar for each stage."""

    def on_start(self, pipeline: Pipeline, total_items: int) -> None:
        self.total = total_items
        print(f"{total_items} items through", " and ".join(s.name for s in pipeline.stages))

    def on_update(self, snapshot: DashboardSnapshot) -> None:
        stages = snapshot.pipeline_stats.stage_stats.values()
        bars = [f"{stage.stage_name} {self.bar(stage.completed_items)}" for stage in stages]
        print(f"{snapshot.elapsed:4.1f} s", *bars, sep="  ")

    def on_finish(self, results: list[PipelineResult[int]], summary: ErrorSummary) -> None:
        print(f"{len(results)} ok, {summary.total_failed} failed", summary.errors_by_type or "")

    def bar(self, done: int, width: int = 20) -> str:
        filled = width * done // self.total if self.total else 0
        return "█" * filled + "░" * (width - filled)


async def bake(number: int) -> int:
    await asyncio.sleep(random.uniform(0.05, 0.15))
    if number == 13:
        raise ValueError("burnt")
    return number


async def pack(number: int) -> int:
    await asyncio.sleep(0.05)
    return number


async def main() -> None:
    ovens = Stage("Bake", workers=10, tasks=[bake], task_attempts=1)
    boxes = Stage("Pack", workers=4, tasks=[pack])
    pipeline = Pipeline([ovens, boxes])
    await pipeline.run(range(80), custom_dashboard=StageBars(), dashboard_update_interval=0.2)


if __name__ == "__main__":
    asyncio.run(main())
