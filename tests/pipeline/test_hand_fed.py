"""Runs that are fed by hand: `start`, `feed`, `join`, `shutdown`, ``async with`` and `open`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import antflow
from antflow import Pipeline, PipelineError, Stage, StatusTracker
from antflow.testing import Calls, Gate, run_virtual
from tests.support import (
    REQUIRED,
    assert_balanced,
    defaults,
    double,
    odd_only,
    positional,
    same,
    slow,
    values,
)

pytestmark = pytest.mark.contract


def two_stages() -> Pipeline:
    """Twice the item, and twice that."""
    return Pipeline([Stage("A", 2, [double]), Stage("B", 2, [double])])


@pytest.mark.parametrize("name", ["feed", "feed_async"])
def test_feed_keeps_its_parameters(name: str) -> None:
    """``feed(items, target_stage=None, priority=100)`` and ``feed_async`` likewise, by place."""
    method = getattr(Pipeline, name)
    assert positional(method) == ["items", "target_stage", "priority"]
    assert list(defaults(method).values()) == [REQUIRED, None, 100, None]


@pytest.mark.parametrize("name", ["start", "join", "shutdown"])
def test_start_join_and_shutdown_need_nothing(name: str) -> None:
    """``join()`` and ``shutdown()`` have no parameters, and ``start()`` only those of displays."""
    assert REQUIRED not in defaults(getattr(Pipeline, name)).values()
    assert positional(getattr(Pipeline, name)) == []
    if name != "start":
        assert defaults(getattr(Pipeline, name)) == {}


def test_start_feed_join() -> None:
    """After ``start``, ``feed`` as often as one likes, and ``join``, everything is through."""
    pipeline = two_stages()

    async def main() -> None:
        await pipeline.start()
        await pipeline.feed([1, 2])
        await pipeline.feed([3])
        await pipeline.join()

    run_virtual(main)
    assert values(pipeline.results) == [4, 8, 12]


def test_feed_async_takes_an_async_generator() -> None:
    """``feed_async`` takes items as they come."""
    pipeline = two_stages()

    async def numbers() -> AsyncIterator[int]:
        for number in (1, 2):
            await asyncio.sleep(1)
            yield number

    async def main() -> None:
        await pipeline.start()
        await pipeline.feed_async(numbers())
        await pipeline.join()

    run_virtual(main)
    assert values(pipeline.results) == [4, 8]


@pytest.mark.parametrize("by_place", [True, False])
def test_target_stage_begins_later(by_place: bool) -> None:
    """With ``target_stage`` an item begins at that stage."""
    pipeline = two_stages()

    async def main() -> None:
        await pipeline.start()
        await (pipeline.feed([1], "B") if by_place else pipeline.feed([1], target_stage="B"))
        await pipeline.join()

    run_virtual(main)
    assert values(pipeline.results) == [2]


def test_unknown_target_stage_is_not_found() -> None:
    """A ``target_stage`` that is none is a `ValueError` that says "not found"."""
    pipeline = two_stages()

    async def main() -> None:
        await pipeline.start()
        try:
            with pytest.raises(ValueError, match="not found"):
                await pipeline.feed([1], target_stage="C")
        finally:
            await pipeline.shutdown()

    run_virtual(main)


def test_lower_priority_goes_first() -> None:
    """Waiting items of a lower ``priority`` go first; those of one priority keep their order."""
    calls = Calls()
    gate = Gate()
    pipeline = Pipeline([Stage("A", 1, [gate, calls])])

    async def main() -> None:
        await pipeline.start()
        await pipeline.feed(["first"])
        await asyncio.sleep(1)
        await pipeline.feed(["usual 1", "usual 2"])
        await pipeline.feed(["late"], priority=200)
        await pipeline.feed(["urgent 1", "urgent 2"], priority=1)
        gate.open()
        await pipeline.join()

    run_virtual(main)
    assert [call.value for call in calls.made] == [
        "first",
        "urgent 1",
        "urgent 2",
        "usual 1",
        "usual 2",
        "late",
    ]


def test_async_with_hands_out_the_pipeline() -> None:
    """``async with pipeline`` hands out the pipeline itself, to be started, fed and joined."""
    pipeline = two_stages()

    async def main() -> None:
        async with pipeline as entered:
            assert entered is pipeline
            await pipeline.start()
            await pipeline.feed([1])
            await pipeline.join()

    run_virtual(main)
    assert values(pipeline.results) == [4]


def test_join_and_shutdown_may_be_called_twice() -> None:
    """``join`` and ``shutdown`` may both be called again, and one after the other."""
    pipeline = two_stages()

    async def main() -> None:
        await pipeline.start()
        await pipeline.feed([1])
        for end in (pipeline.join, pipeline.join, pipeline.shutdown, pipeline.shutdown):
            await end()

    run_virtual(main)
    assert values(pipeline.results) == [4]


def test_callback_may_feed_a_follow_up() -> None:
    """A callback of the tracker may feed the pipeline."""
    followed: list[Any] = []

    async def follow(event: Any) -> None:
        if event.status == "completed" and event.item_id == "a":
            await pipeline.feed([{"id": "b", "value": 2}])
        followed.append(event.item_id)

    tracker = StatusTracker(on_status_change=follow)
    pipeline = Pipeline([Stage("A", 1, [double])], status_tracker=tracker)
    results = run_virtual(lambda: pipeline.run([{"id": "a", "value": 1}]))
    assert sorted(values(results)) == [2, 4]
    assert set(followed) == {"a", "b"}


def test_script_that_feeds_by_hand() -> None:
    """A script as users have it: start, feed from two places, one urgent item, join, look."""

    async def main() -> tuple[Any, Any]:
        pipeline = Pipeline([Stage("Odd", 3, [odd_only], task_attempts=1), Stage("B", 1, [double])])
        await pipeline.start()
        await asyncio.gather(pipeline.feed(range(20)), pipeline.feed(range(20, 40)))
        await pipeline.feed([{"id": "urgent", "value": 41}], priority=1)
        await pipeline.feed([{"id": "ready", "value": 50}], target_stage="B")
        await pipeline.join()
        return pipeline.results, pipeline.get_stats()

    results, stats = run_virtual(main)
    by_id = {result.id: result.value for result in results}
    assert (by_id["urgent"], by_id["ready"]) == (82, 100)
    assert (stats.items_processed, stats.items_failed, stats.items_in_flight) == (22, 20, 0)


# New since 0.10.0


def test_feed_before_start_starts() -> None:
    """``feed`` begins the run if nobody did."""
    pipeline = two_stages()

    async def main() -> None:
        await pipeline.feed([1])
        await pipeline.join()

    run_virtual(main)
    assert values(pipeline.results) == [4]


@pytest.mark.parametrize("end", ["join", "shutdown"])
def test_feed_after_the_end_is_refused(end: str) -> None:
    """After ``join`` or ``shutdown`` a ``feed`` raises `PipelineError`."""
    pipeline = two_stages()

    async def main() -> None:
        await pipeline.start()
        await getattr(pipeline, end)()
        with pytest.raises(PipelineError):
            await pipeline.feed([1])

    run_virtual(main)


def test_shutdown_settles_everything() -> None:
    """``shutdown`` lets running attempts end and counts everything waiting as cancelled."""
    pipeline = Pipeline([Stage("A", 2, [slow])])

    async def main() -> None:
        await pipeline.start()
        await pipeline.feed(range(10))
        await asyncio.sleep(0.5)
        await pipeline.shutdown()

    run_virtual(main)
    stats = pipeline.get_stats()
    assert (stats.items_processed, stats.items_cancelled, stats.items_in_flight) == (2, 8, 0)
    assert_balanced(stats)


def test_shutdown_frees_a_blocked_feed() -> None:
    """A ``feed`` that waits for room raises `PipelineError` when the run is shut down."""
    pipeline = Pipeline([Stage("A", 1, [slow], queue_capacity=1)])

    async def main() -> None:
        await pipeline.start()
        feeding = asyncio.create_task(pipeline.feed(range(100)))
        await asyncio.sleep(0.5)
        await pipeline.shutdown()
        with pytest.raises(PipelineError):
            await feeding

    run_virtual(main)
    assert_balanced(pipeline.get_stats())


def test_async_with_starts_and_joins() -> None:
    """``async with pipeline`` starts, and at the end everything that was fed is finished."""
    pipeline = Pipeline([Stage("A", 1, [slow]), Stage("B", 1, [slow])])

    async def main() -> None:
        async with pipeline:
            assert pipeline.get_dashboard_snapshot().state == "running"
            await pipeline.feed(range(5))
        await pipeline.join()  # once more: nothing happens

    run_virtual(main)
    assert values(pipeline.results) == [0, 1, 2, 3, 4]
    assert pipeline.get_stats().items_cancelled == 0


@pytest.mark.parametrize("error", [KeyError, asyncio.CancelledError])
def test_async_with_shuts_down_after_an_error(error: type[BaseException]) -> None:
    """If the block raises, items being tried are finished, and what waits is cancelled."""
    pipeline = Pipeline([Stage("A", 1, [slow])])

    async def body() -> None:
        async with pipeline:
            await pipeline.feed(range(5))
            await asyncio.sleep(0.5)
            raise error

    async def main() -> None:
        with pytest.raises(error):
            await body()

    run_virtual(main)
    stats = pipeline.get_stats()
    assert (stats.items_processed, stats.items_cancelled) == (1, 4)


def test_callback_may_shut_down() -> None:
    """A callback may end the run it is called from; nothing hangs."""

    async def stop(_: Any) -> None:
        await pipeline.shutdown()

    pipeline = Pipeline(
        [Stage("A", 1, [same])], status_tracker=StatusTracker(on_task_complete=stop)
    )
    results = run_virtual(lambda: pipeline.run(range(50)))
    assert results.stats.items_cancelled > 0
    assert_balanced(results.stats)


def test_priority_is_kept_through_later_stages() -> None:
    """Priority counts in every stage an item comes to."""
    gate, calls = Gate(), Calls()
    pipeline = Pipeline([Stage("A", 1, [same]), Stage("B", 1, [gate, calls])])

    async def main() -> None:
        await pipeline.start()
        await pipeline.feed(["first"])
        await pipeline.feed(["late"], priority=200)
        await asyncio.sleep(1)
        await pipeline.feed(["urgent"], priority=1)
        await asyncio.sleep(1)
        gate.open()
        await pipeline.join()

    run_virtual(main)
    assert [call.value for call in calls.made] == ["first", "urgent", "late"]


def test_open_hands_out_the_run() -> None:
    """``async with pipeline.open() as run`` is the run itself, joined at the end."""
    pipeline = two_stages()

    async def main() -> Any:
        async with pipeline.open() as run:
            await run.feed([1, 2])
            assert run.stats().items_accepted == 2
            assert run.snapshot().run_id == run.run_id
        return run

    run = run_virtual(main)
    assert values(run.results) == [4, 8]
    assert run.run_id


def test_pause_and_resume() -> None:
    """A paused run begins with nothing new; ``resume`` lets it go on."""
    pipeline = two_stages()

    async def main() -> tuple[int, int]:
        async with pipeline.open() as run:
            run.pause()
            await run.feed([1, 2])
            await asyncio.sleep(60)
            paused = run.stats().items_processed
            run.resume()
            await run.join()
            return paused, run.stats().items_processed

    assert run_virtual(main) == (0, 2)


def test_set_workers_while_running() -> None:
    """``set_workers`` changes how many items a stage works on at once."""
    calls = Calls(seconds=1)
    pipeline = Pipeline([Stage("A", 1, [calls])])

    async def main() -> None:
        async with pipeline.open() as run:
            run.set_workers("A", 4)
            await run.feed(range(12))

    run_virtual(main)
    assert calls.most_at_once == 4


def test_cancel_settles_as_cancelled() -> None:
    """``run.cancel()`` ends it all; what was under way is an outcome with `ItemCancelled`."""
    pipeline = Pipeline([Stage("A", 1, [slow])])

    async def main() -> Any:
        async with pipeline.open() as run:
            await run.feed(range(3))
            await asyncio.sleep(0.5)
            run.cancel()
        return run.results

    results = run_virtual(main)
    assert {type(outcome.error) for outcome in results.outcomes} == {antflow.ItemCancelled}


def test_shutdown_while_a_stage_waits_for_room() -> None:
    """A shutdown returns although one stage waits for room in the next."""
    gate = Gate()
    pipeline = Pipeline([Stage("A", 2, [same]), Stage("B", 1, [gate], queue_capacity=1)])

    async def main() -> None:
        await pipeline.start()
        feeding = asyncio.create_task(pipeline.feed(range(100)))
        await asyncio.sleep(1)
        ending = asyncio.create_task(pipeline.shutdown())
        await asyncio.sleep(1)
        gate.open()
        await ending
        with pytest.raises(PipelineError):
            await feeding

    run_virtual(main)
    assert_balanced(pipeline.get_stats())


def test_a_plain_with_is_refused_in_words() -> None:
    """``with pipeline.open()`` says what to write instead."""
    opened: Any = Pipeline([Stage("A", 1, [same])]).open()
    with pytest.raises(TypeError, match="write `async with`, not `with`"), opened:
        pass


def test_an_open_that_is_not_entered_is_refused_in_words() -> None:
    """``await pipeline.open()`` and ``pipeline.open().feed`` say what to write instead."""
    opened: Any = Pipeline([Stage("A", 1, [same])]).open()

    async def main() -> None:
        with pytest.raises(TypeError, match="write `async with`, not `await`"):
            await opened
        with pytest.raises(AttributeError, match="there is no 'feed' before `async with"):
            await opened.feed([1])
        async with opened as run:  # it can still be entered
            await run.feed([1])

    run_virtual(main)
