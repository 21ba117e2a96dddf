"""Generators that yield inside a time limit or a task group, which cancels the reading code.

That code waits for room most of the time, so the cancellation hits it there and not the generator.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from antflow import Pipeline, RunResults, Stage, TooManyFailures
from antflow.testing import run_virtual
from tests.support import assert_balanced, in_background, lasting, raising, values

Numbers = Callable[[], AsyncIterator[int]]


async def for_five_seconds() -> AsyncIterator[int]:
    """Numbers, for as long as a time limit allows."""
    async with asyncio.timeout(5):
        for number in range(100):
            yield number


async def from_a_task_that_fails() -> AsyncIterator[int]:
    """Numbers from another task, which fails after five seconds."""
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def produce() -> None:
        for number in range(100):
            queue.put_nowait(number)
        await asyncio.sleep(5)
        raise OSError("the connection broke")

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        while True:
            yield await queue.get()


async def from_a_task() -> AsyncGenerator[int, None]:
    """Numbers from another task, which goes on."""
    queue: asyncio.Queue[int] = asyncio.Queue(2)

    async def produce() -> None:
        for number in range(100):
            await queue.put(number)

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        for _ in range(100):
            yield await queue.get()


def pipeline_of(numbers: Numbers, place: str, last: Any = None) -> tuple[Pipeline[Any, Any], Any]:
    """A pipeline that is fed with numbers, and its input; they come faster than it works."""
    work = Stage("Work", 1, [last or lasting(2)], task_attempts=1, queue_capacity=1)
    if place == "source":
        return Pipeline([work]), numbers()

    async def expand(value: str) -> AsyncIterator[int]:
        return numbers()

    return Pipeline([Stage("Make", 1, [expand], expand=True, task_attempts=1), work]), ["item"]


PLACES = pytest.mark.parametrize("place", ["source", "task"])


@PLACES
@pytest.mark.parametrize("numbers", [for_five_seconds, from_a_task_that_fails])
def test_scope_that_ends_while_its_generator_waits_for_room(numbers: Numbers, place: str) -> None:
    """The failure is the one that the scope means, and what went on before is finished."""

    async def main() -> None:
        pipeline, items = pipeline_of(numbers, place)
        error: Any = None
        try:
            await pipeline.run(items, on_failures="ignore")
        except Exception as raised:
            error = raised
        results: RunResults[Any] = pipeline.results
        if place == "task":
            error = results.failed[0].error
        if numbers is for_five_seconds:
            assert isinstance(error, TimeoutError)
        else:
            assert isinstance(error, ExceptionGroup)
            assert [str(each) for each in error.exceptions] == ["the connection broke"]
        assert sorted(values(results)) == list(range(len(results)))
        assert (len(results) >= 3, len(results.cancelled)) == (True, 0)
        assert_balanced(results.stats)

    run_virtual(main)


@PLACES
def test_generator_that_goes_on_after_its_time_limit(place: str) -> None:
    """It goes on where it wants to, and each of its values is an item, once."""

    async def numbers() -> AsyncIterator[int]:
        try:
            async with asyncio.timeout(5):
                for number in range(100):
                    yield number
        except TimeoutError:
            for number in range(100, 103):
                yield number

    async def main() -> None:
        pipeline, items = pipeline_of(numbers, place)
        results = await pipeline.run(items)
        ids = [result.id for result in results]
        given = values(results)
        assert given == [*range(len(given) - 3), 100, 101, 102]
        assert len(set(ids)) == len(ids)

    run_virtual(main)


@PLACES
@pytest.mark.parametrize("way", ["timeout", "max_failures", "cancel"])
def test_task_group_of_a_generator_that_is_left_early(
    place: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is closed in silence, and the run ends the way it was asked to."""

    async def main() -> None:
        last = raising(OSError("no"), 0) if way == "max_failures" else None
        pipeline, items = pipeline_of(from_a_task, place, last)
        if way == "timeout":
            with pytest.raises(TimeoutError, match="the run was not over"):
                await pipeline.run(items, timeout=5)
        elif way == "max_failures":
            with pytest.raises(TooManyFailures):
                await pipeline.run(items, max_failures=1)
        else:
            running = await in_background(pipeline.run(items), 5)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert_balanced(pipeline.get_stats())

    run_virtual(main)
    assert not [record for record in caplog.records if "clean-up" in record.getMessage()]


def test_item_whose_time_is_up_while_its_generator_waits_for_room() -> None:
    """A task group around the ``yield`` does not turn it into the end of the run."""

    async def main() -> None:
        pipeline, items = pipeline_of(from_a_task, "task")
        results = await pipeline.run(items, item_timeout=5, on_failures="ignore")
        assert len(results) == 2
        assert all(isinstance(failed.error, TimeoutError) for failed in results.failed)
        assert_balanced(results.stats)

    run_virtual(main)


def test_task_that_leaves_such_a_generator_fails_alone() -> None:
    """The ``GeneratorExit`` in the group that comes out of it does not end the run."""

    async def task(value: int) -> int:
        async with aclosing(from_a_task()) as numbers:
            async for number in numbers:
                if number == value:
                    break
        return value

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [task], task_attempts=1)])
        results = await pipeline.run([1, 2], on_failures="ignore")
        assert len(results.failed) == 2
        assert all(isinstance(failed.error, ExceptionGroup) for failed in results.failed)
        assert_balanced(results.stats)

    run_virtual(main)
