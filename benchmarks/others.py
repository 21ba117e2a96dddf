"""Other libraries that send items through several async functions, each used as its docs suggest.

They are imported by name, because none of them has to be installed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from importlib import import_module
from typing import Any

from benchmarks.tasks import Task


async def pypeln(items: Iterable[int], tasks: Sequence[Task], workers: int) -> AsyncIterator[int]:
    """A stage of `pypeln.task` for each task."""
    stage: Any = items
    for task in tasks:
        stage = import_module("pypeln").task.map(task, stage, workers=workers, maxsize=workers * 10)
    async for value in stage:
        yield value


async def aiostream(
    items: Iterable[int], tasks: Sequence[Task], workers: int
) -> AsyncIterator[int]:
    """A `stream.map` for each task, in any order."""
    stream = import_module("aiostream").stream
    flow: Any = stream.iterate(items)
    for task in tasks:
        flow = stream.map(flow, task, ordered=False, task_limit=workers)
    async with flow.stream() as values:
        async for value in values:
            yield value


async def streamable(
    items: Iterable[int], tasks: Sequence[Task], workers: int
) -> AsyncIterator[int]:
    """A `map` for each task, in any order."""
    flow: Any = import_module("streamable").stream(items)
    for task in tasks:
        flow = flow.map(task, concurrency=workers, as_completed=True)
    async for value in flow:
        yield value


async def aiometer(items: Iterable[int], tasks: Sequence[Task], workers: int) -> AsyncIterator[int]:
    """It has no stages: one function calls all tasks, for as many items as all stages hold."""

    async def all_tasks(value: int) -> int:
        for task in tasks:
            value = await task(value)
        return value

    at_once = workers * len(tasks)
    amap = import_module("aiometer").amap
    async with amap(all_tasks, list(items), max_at_once=at_once) as values:
        async for value in values:
            yield value
