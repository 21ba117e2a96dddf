"""antflow with the same interface as the other systems; the published version is called likewise.

The library is imported inside the functions, because this file is also imported where it is
missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.tasks import Task

if TYPE_CHECKING:
    from antflow import Pipeline, StatusTracker


def pipeline(
    tasks: Sequence[Task],
    workers: int,
    tracker: StatusTracker | None = None,
    **options: Any,
) -> Pipeline[Any, Any]:
    """A pipeline with a stage for each task; ``options`` are those of each stage."""
    from antflow import Pipeline, Stage

    options = {"task_wait_seconds": 0.0} | options
    stages = [Stage(f"S{n}", workers, [task], **options) for n, task in enumerate(tasks)]
    return Pipeline(stages=stages, status_tracker=tracker)


async def run(items: Iterable[int], tasks: Sequence[Task], workers: int) -> list[int]:
    """`Pipeline.run`. The published version needs items that have a length."""
    results = await pipeline(tasks, workers).run(items)
    return [result.value for result in results]


async def stream(items: Iterable[int], tasks: Sequence[Task], workers: int) -> AsyncIterator[int]:
    """`Pipeline.stream`."""
    async for result in pipeline(tasks, workers).stream(items):
        yield result.value
