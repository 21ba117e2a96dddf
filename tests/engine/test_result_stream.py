"""Results one by one: as they come, for consumers that are slow, leave or never begin."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusEvent, StatusTracker
from antflow.testing import Calls, run_virtual
from tests.support import (
    assert_balanced,
    assert_works,
    endless,
    in_background,
    lasting,
    now,
    same,
    virtual,
)

pytestmark = pytest.mark.fault


@pytest.mark.parametrize("buffer_size", [0, 3])
def test_slow_consumer_slows_the_source_of_a_stream(buffer_size: int) -> None:
    """A slow consumer slows the source: there is never more in flight than there is room for."""

    async def main() -> None:
        taken: list[int] = []
        source = (taken.append(number) for number in range(200))  # type: ignore[func-returns-value]
        stages = [
            Stage("A", 2, [same], queue_capacity=3),
            Stage("B", 3, [same], queue_capacity=4),
        ]
        got = 0
        async for _ in Pipeline(stages).stream(source, buffer_size=buffer_size):
            got += 1
            assert len(taken) - got <= 2 + 3 + 3 + 4 + buffer_size
            await asyncio.sleep(1)
        assert got == 200

    virtual(main)


@pytest.mark.parametrize("count", range(0, 12, 3))
@pytest.mark.parametrize("seed", range(3))
def test_stream_that_is_left_early(count: int, seed: int) -> None:
    """Leaving a stream after any number of results leaves nothing running."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [lasting(1)]), Stage("B", 2, [lasting(1)])])
        async with aclosing(pipeline.stream(endless(), buffer_size=1)) as stream:
            for _ in range(count):
                await anext(stream)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert_balanced(pipeline.get_stats())

    virtual(main, seed=seed)


def test_stream_that_is_never_read() -> None:
    """A stream that nobody reads takes nothing in and leaves nothing."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        stream = pipeline.stream(endless())
        await asyncio.sleep(1)
        assert pipeline.get_stats().items_accepted == 0
        await stream.aclose()

    virtual(main)


@pytest.mark.parametrize("buffer_size", [None, 0, 1, 3])
def test_stream_yields_everything_however_little_room_there_is(buffer_size: int | None) -> None:
    """A stream yields everything, however little room there is for results."""

    async def main() -> list[int]:
        stage = Stage("Work", 3, [same], queue_capacity=1)
        stream = Pipeline([stage]).stream(range(300), buffer_size=buffer_size)
        return [result.value async for result in stream]

    assert sorted(virtual(main)) == list(range(300))


def test_first_result_comes_before_all_items_are_fed() -> None:
    """The first result comes when the first item is through, not when all have been fed."""

    async def main() -> float:
        stream = Pipeline([Stage("Work", 1, [lasting(0.02)])]).stream(range(200))
        async with aclosing(stream):
            await anext(stream)
            return now()

    assert virtual(main) == pytest.approx(0.02)


def test_breaking_out_of_an_endless_stream_ends_it() -> None:
    """Breaking out of a stream over an endless source ends it; little more was taken in."""
    taken: list[int] = []

    async def main() -> list[int]:
        pipeline = Pipeline([Stage("Work", 2, [lasting(1)])])
        source = (taken.append(number) or number for number in endless())  # type: ignore[func-returns-value]
        first: list[int] = []
        async with aclosing(pipeline.stream(source, buffer_size=5)) as stream:
            async for result in stream:
                first.append(result.value)
                if len(first) == 5:
                    break
        await assert_works(pipeline)
        return first

    assert sorted(virtual(main)) == [0, 1, 2, 3, 4]
    assert len(taken) < 50


def test_stream_when_the_consumer_is_cancelled() -> None:
    """Cancelling who reads a stream leaves nothing running, and the pipeline can be used again."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 5, [lasting(1)]), Stage("B", 5, [lasting(1)])])

        async def consume() -> None:
            async with aclosing(pipeline.stream(range(1000))) as stream:
                async for _ in stream:
                    pass

        consumer = await in_background(consume(), 3.5)
        consumer.cancel()
        await asyncio.wait([consumer])
        assert now() == 3.5
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await assert_works(pipeline)

    virtual(main)


def test_stream_left_after_its_source_failed_reports_nothing() -> None:
    """Leaving a stream whose source has failed meanwhile reports nothing to the event loop."""

    async def main() -> None:
        def source() -> Any:
            yield 1
            raise KeyError("source")

        async with aclosing(Pipeline([Stage("Work", 1, [lasting(1)])]).stream(source())) as stream:
            await anext(stream)
            await asyncio.sleep(10)

    virtual(main)


@pytest.mark.parametrize("way", ["block", "aclose"])
def test_callback_that_cancels_its_task_while_a_stream_is_left(way: str) -> None:
    """Waiting items are settled in the reader's own task, which is not cancelled by that."""
    asked: list[int] = []

    async def main() -> None:
        reader = asyncio.current_task()
        assert reader is not None

        def cancel(event: StatusEvent) -> None:
            if asyncio.current_task() is reader:
                asked.append(event.item_id)
                reader.cancel()

        tracker = StatusTracker(on_status_change=cancel)
        stage = Stage("A", 1, [Calls(seconds=1)])
        pipeline = Pipeline([stage], status_tracker=tracker)
        if way == "block":
            async with pipeline.stream(range(5)) as results:
                await anext(results)
        else:
            results = pipeline.stream(range(5))
            await anext(results)
            await results.aclose()
        assert reader.cancelling() == 0
        await asyncio.sleep(1)
        assert pipeline.get_stats().items_in_flight == 0

    run_virtual(main)
    assert asked
