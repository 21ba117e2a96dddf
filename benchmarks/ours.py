"""antflow in the form of the other systems. The published version is called in the same way.

The library is imported inside the functions: this file is read where it is missing, too.
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
    """`Pipeline.run`. The published one asks for the length of the items."""
    results = await pipeline(tasks, workers).run(items)
    return [result.value for result in results]


async def stream(items: Iterable[int], tasks: Sequence[Task], workers: int) -> AsyncIterator[int]:
    """`Pipeline.stream`."""
    async for result in pipeline(tasks, workers).stream(items):
        yield result.value
