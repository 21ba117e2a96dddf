"""Pools, streams and maps written by hand, with asyncio alone."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from benchmarks.tasks import Task

CAPACITY = 10
"""How many items may wait for each worker: as many as in ours."""


async def bare_loop(items: Iterable[int], tasks: Sequence[Task], workers: int) -> list[int]:
    """The tasks alone, one item after the other: nothing can beat it if no task waits."""
    results: list[int] = []
    for value in items:
        for task in tasks:
            value = await task(value)
        results.append(value)
    return results


async def bare_stream(
    items: Iterable[int], tasks: Sequence[Task], workers: int
) -> AsyncIterator[int]:
    """`bare_loop` as a stream."""
    for value in items:
        for task in tasks:
            value = await task(value)
        yield value


async def queue_pool(items: Iterable[int], tasks: Sequence[Task], workers: int) -> list[int]:
    """Workers for each task, and an `asyncio.Queue` before each."""
    queues: list[asyncio.Queue[int]] = [asyncio.Queue(workers * CAPACITY) for _ in tasks]
    results: list[int] = []

    async def work(stage: int) -> None:
        task, inlet = tasks[stage], queues[stage]
        outlet = queues[stage + 1] if stage + 1 < len(tasks) else None
        while True:
            value = await task(await inlet.get())
            if outlet is None:
                results.append(value)
            else:
                await outlet.put(value)
            inlet.task_done()

    async with at_work(work, len(tasks), workers):
        for item in items:
            await queues[0].put(item)
        for queue in queues:
            await queue.join()
    return results


async def retry_pool(items: Iterable[int], tasks: Sequence[Task], workers: int) -> list[int]:
    """`queue_pool` with up to three tries of each task."""
    queues: list[asyncio.Queue[int]] = [asyncio.Queue(workers * CAPACITY) for _ in tasks]
    results: list[int] = []

    async def work(stage: int) -> None:
        task, inlet = tasks[stage], queues[stage]
        outlet = queues[stage + 1] if stage + 1 < len(tasks) else None
        while True:
            value = await inlet.get()
            for attempt in range(1, 4):
                try:
                    value = await task(value)
                    break
                except Exception:
                    if attempt == 3:
                        raise
            if outlet is None:
                results.append(value)
            else:
                await outlet.put(value)
            inlet.task_done()

    async with at_work(work, len(tasks), workers):
        for item in items:
            await queues[0].put(item)
        for queue in queues:
            await queue.join()
    return results


def with_retries(task: Task) -> Task:
    """A task with up to three tries, for systems that have none of their own."""

    async def tried(value: int) -> int:
        for _ in range(2):
            with suppress(Exception):
                return await task(value)
        return await task(value)

    return tried


async def queue_stream(
    items: Iterable[int], tasks: Sequence[Task], workers: int
) -> AsyncIterator[int]:
    """`queue_pool` as a stream: a bounded queue of results, with an end mark."""
    queues: list[asyncio.Queue[int]] = [asyncio.Queue(workers * CAPACITY) for _ in tasks]
    results: asyncio.Queue[int | None] = asyncio.Queue(workers * CAPACITY)
    outlets: list[asyncio.Queue[Any]] = [*queues[1:], results]

    async def work(stage: int) -> None:
        task, inlet, outlet = tasks[stage], queues[stage], outlets[stage]
        while True:
            await outlet.put(await task(await inlet.get()))
            inlet.task_done()

    async def feed() -> None:
        for item in items:
            await queues[0].put(item)
        for queue in queues:
            await queue.join()
        await results.put(None)

    async with at_work(work, len(tasks), workers):
        feeding = asyncio.create_task(feed())
        while (value := await results.get()) is not None:
            yield value
        await feeding


@asynccontextmanager
async def at_work(
    work: Callable[[int], Coroutine[Any, Any, None]], stages: int, workers: int
) -> AsyncIterator[None]:
    """Workers for each stage, cancelled at the end of the block."""
    tasks = [asyncio.create_task(work(stage)) for stage in range(stages) for _ in range(workers)]
    try:
        yield
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def semaphores(items: Iterable[int], tasks: Sequence[Task], workers: int) -> list[int]:
    """A `TaskGroup` with an `asyncio.Task` for each item, and a `Semaphore` around each task."""
    gates = [asyncio.Semaphore(workers) for _ in tasks]
    results: list[int] = []

    async def through(value: int) -> None:
        for gate, task in zip(gates, tasks, strict=True):
            async with gate:
                value = await task(value)
        results.append(value)

    async with asyncio.TaskGroup() as group:
        for item in items:
            group.create_task(through(item))
    return results


# -- with an outcome for each item -------------------------------------------------------------


@dataclass(slots=True)
class Outcome:
    """What a careful program keeps of each item: its id, and its value or its error."""

    id: Any
    value: Any
    error: Exception | None = None


async def outcome_pool(
    items: Iterable[tuple[Any, Any]], tasks: Sequence[Callable[[Any], Awaitable[Any]]], workers: int
) -> list[Outcome]:
    """`queue_pool` for pairs of id and value; an item that fails leaves, and the others go on."""
    queues: list[asyncio.Queue[Outcome]] = [asyncio.Queue(workers * CAPACITY) for _ in tasks]
    outcomes: list[Outcome] = []

    async def work(stage: int) -> None:
        task, inlet = tasks[stage], queues[stage]
        outlet = queues[stage + 1] if stage + 1 < len(tasks) else None
        while True:
            outcome = await inlet.get()
            try:
                outcome.value = await task(outcome.value)
            except Exception as error:
                outcome.error = error
            else:
                if outlet is not None:
                    await outlet.put(outcome)
            inlet.task_done()

    async with at_work(work, len(tasks), workers):
        for item_id, value in items:
            outcome = Outcome(item_id, value)
            outcomes.append(outcome)
            await queues[0].put(outcome)
        for queue in queues:
            await queue.join()
    return outcomes


async def outcome_map(
    function: Callable[[Any], Awaitable[Any]], items: Iterable[Any], workers: int
) -> list[Outcome]:
    """`iterator_map` with an outcome for each value; its id is its number."""
    outcomes: dict[int, Outcome] = {}

    async def work(numbered: Iterator[tuple[int, Any]]) -> None:
        for number, value in numbered:
            outcomes[number] = outcome = Outcome(number, value)
            try:
                outcome.value = await function(value)
            except Exception as error:
                outcome.error = error

    numbered = enumerate(items)
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work(numbered))
    return list(outcomes.values())  # they were taken from the iterator in their order


def values_of(outcomes: Iterable[Outcome]) -> list[Any]:
    """The values of the items that did not fail."""
    return [outcome.value for outcome in outcomes if outcome.error is None]


# -- one function over many values ------------------------------------------------------------

Function = Callable[[int], Awaitable[int]]


async def semaphore_map(function: Function, items: Iterable[int], workers: int) -> list[int]:
    """A `TaskGroup` with an `asyncio.Task` for each call, behind one `Semaphore`."""
    gate = asyncio.Semaphore(workers)

    async def call(value: int) -> int:
        async with gate:
            return await function(value)

    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(call(item)) for item in items]
    return [call.result() for call in calls]


async def iterator_map(function: Function, items: Iterable[int], workers: int) -> list[int]:
    """Workers that share one iterator, and put each result in its place."""
    results: dict[int, int] = {}

    async def work(numbered: Iterator[tuple[int, int]]) -> None:
        for number, value in numbered:
            results[number] = await function(value)

    numbered = enumerate(items)
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work(numbered))
    return [results[number] for number in range(len(results))]
