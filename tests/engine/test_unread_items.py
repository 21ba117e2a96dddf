"""Items that raise when they are read: they are taken in, and fail."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusTracker, TooManyFailures
from antflow.testing import run_virtual


class Unreadable(dict[str, Any]):
    """A dict that cannot be asked for its id."""

    def __contains__(self, key: object) -> bool:
        raise LookupError("torn")


async def work(value: Any) -> Any:
    """A task that takes a moment."""
    await asyncio.sleep(0.1)
    return value


def test_item_that_cannot_be_read_fails_with_what_it_raised() -> None:
    """It has a running number, no tries and itself as its value; the others go on."""
    item = Unreadable()
    tracker = StatusTracker()
    pipeline = Pipeline([Stage("A", 2, [work]), Stage("B", 1, [work])], status_tracker=tracker)
    results = run_virtual(pipeline.run([10, item, {"id": "own", "value": 12}]))
    assert [(each.id, each.value) for each in results] == [(0, 10), ("own", 12)]
    (failed,) = results.failed
    assert (failed.id, failed.sequence_id, failed.stage, failed.attempts) == (1, 1, "A", 0)
    assert isinstance(failed.error, LookupError)
    assert failed.value is item
    assert [event.status for event in tracker.get_history(1)] == ["queued", "failed"]
    stats = results.stats.stage_stats["A"]
    assert (stats.failed_items, stats.completed_items, stats.pending_items) == (1, 2, 0)


def test_item_that_cannot_be_read_is_told_and_counted() -> None:
    """`on_failure` and a tracker's callback hear of it, and it counts for `max_failures`."""
    told: list[Any] = []

    async def on_failure(item_id: Any, error: Exception, payload: dict[str, Any]) -> None:
        await asyncio.sleep(0.1)
        told.append((item_id, str(error), payload["_sequence_id"]))

    async def on_status_change(event: Any) -> None:
        await asyncio.sleep(0.1)
        told.append((event.item_id, event.status))

    stage = Stage("A", 1, [work], on_failure=on_failure)
    pipeline = Pipeline([stage], status_tracker=StatusTracker(on_status_change))
    with pytest.raises(TooManyFailures) as caught:
        run_virtual(pipeline.run([Unreadable(), *range(100)], max_failures=1))
    assert caught.value.results is not None
    assert len(caught.value.results.failed) == 1
    assert told[:3] == [(0, "queued"), (0, "failed"), (0, "torn", 0)]


@pytest.mark.parametrize("ordered", [False, True])
def test_stream_yields_items_that_cannot_be_read(ordered: bool) -> None:
    """Each is yielded with its error, hand to hand too, and in its place."""

    async def main() -> list[Any]:
        items = [Unreadable(), 1, Unreadable(), 3]
        results = Pipeline([Stage("A", 1, [work])]).stream(items, buffer_size=0, ordered=ordered)
        async with aclosing(results) as stream:
            return [(each.sequence_id, each.is_success) async for each in stream]

    expected = [(0, False), (1, True), (2, False), (3, True)]
    seen = run_virtual(main)
    assert sorted(seen) == expected
    assert not ordered or seen == expected


def test_items_that_cannot_be_read_are_fed_and_come_from_async_sources() -> None:
    """By hand, into a later stage, and from an async iterable it is the same."""

    async def source() -> Any:
        yield Unreadable()
        yield 1

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [work]), Stage("B", 1, [work])])
        async with pipeline.open() as run:
            await run.feed([Unreadable(), 5], target_stage="B")
            await run.feed(source())
        assert [each.stage for each in run.results.failed] == ["B", "A"]
        assert sorted(run.results.values()) == [1, 5]

    run_virtual(main)


def test_items_that_cannot_be_read_have_an_outcome_when_the_run_is_cancelled() -> None:
    """A run that is cancelled while they are told of has settled all of them."""

    async def on_failure(*args: Any) -> None:
        await asyncio.sleep(10)

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [work], on_failure=on_failure)])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await pipeline.run([Unreadable() for _ in range(5)])
        stats = pipeline.get_stats()
        assert stats.items_accepted == stats.items_failed + stats.items_cancelled == 5
        assert len(pipeline.results.outcomes) == 5

    run_virtual(main)


def test_failure_of_an_item_that_cannot_be_read_may_feed_another() -> None:
    """A callback that is told of it and feeds what cannot be read does not wait for itself."""
    left = [Unreadable(), 7]

    async def on_failure(*args: Any) -> None:
        if left:
            await pipeline.feed([left.pop(0)])

    pipeline = Pipeline([Stage("A", 1, [work], on_failure=on_failure)])
    results = run_virtual(pipeline.run([Unreadable()]))
    assert (results.values(), len(results.failed)) == ([7], 2)


def test_item_that_cannot_be_read_can_be_tried_again() -> None:
    """Among `retry_failed` it is not read again: it is the value."""
    pipeline = Pipeline([Stage("A", 1, [work])])
    failed = run_virtual(pipeline.run([Unreadable(x=1)])).failed
    again = run_virtual(pipeline.run([], retry_failed=failed))
    assert again.values() == [{"x": 1}]
