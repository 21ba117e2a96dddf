"""No item is lost, and nothing waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from threading import Lock
from typing import Any

import pytest

from antflow import (
    Limit,
    Pipeline,
    PipelineError,
    PipelineResult,
    Stage,
    StatusEvent,
    StatusTracker,
)
from antflow.testing import Calls, FailTimes, Gate
from tests.support import (
    assert_balanced,
    assert_works,
    endless,
    in_background,
    lasting,
    never,
    now,
    raising,
    same,
    virtual,
)

pytestmark = pytest.mark.fault

# Retries


@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
@pytest.mark.parametrize("wait", [0.0, 0.7])
@pytest.mark.parametrize(("count", "workers"), [(1, 1), (3, 3), (20, 1), (20, 4)])
def test_items_when_all_need_their_last_try(
    retry: str, wait: float, count: int, workers: int
) -> None:
    """Items that need the last try they are allowed all come through, also as the last ones in."""
    flaky = FailTimes(2)

    async def work(value: int) -> int:
        await asyncio.sleep(0.05)
        return await flaky(value)

    stage = Stage("Work", workers, [work], retry, task_wait_seconds=wait, stage_wait_seconds=wait)
    results = virtual(lambda: Pipeline([stage]).run(range(count)))
    assert results.values() == list(range(count))
    assert set(flaky.tries.values()) == {3}
    assert_balanced(results.stats)


@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
@pytest.mark.parametrize("workers", [1, 4])
def test_last_item_when_it_alone_is_retried(retry: str, workers: int) -> None:
    """The run does not end while its last item waits for another try."""
    flaky = FailTimes(2)

    async def work(value: int) -> int:
        await asyncio.sleep(0.2)
        return await flaky(value) if value == 19 else value

    stage = Stage("Work", workers, [work], retry, stage_wait_seconds=5)
    results = virtual(lambda: Pipeline([stage]).run(range(20)))
    assert results.values() == list(range(20))


@pytest.mark.parametrize(
    ("retry", "options"),
    [("per_stage", {"stage_attempts": 4}), ("per_task", {"task_attempts": 4})],
)
def test_item_that_always_fails(retry: str, options: dict[str, int]) -> None:
    """An item that always fails is tried as often as was said, and then is failed."""
    calls = Calls(raising(ValueError("no")))
    stage = Stage("Work", 1, [calls], retry, **options)  # type: ignore[call-overload]
    results = virtual(lambda: Pipeline([stage]).run(["bad"]))
    assert len(calls.made) == 4
    assert [result.id for result in results.failed] == [0]
    assert results.summary.failed_items[0].attempts == 4


def test_statuses_of_an_item_that_is_retried() -> None:
    """The last thing a tracker hears of an item is never that it will be tried again."""
    tracker = StatusTracker()
    stage = Stage("Work", 2, [FailTimes(2)], "per_stage")
    virtual(lambda: Pipeline([stage], status_tracker=tracker).run(range(5)))
    assert tracker.get_stats()["completed"] == 5
    assert tracker.get_stats()["retrying"] == 0


@pytest.mark.parametrize("capacity", [1, None])
def test_per_stage_when_everything_fails_and_the_channel_is_full(capacity: int | None) -> None:
    """A retry never waits for room in the channel that its own workers empty."""
    stage = Stage("Work", 4, [raising(ValueError("no"))], "per_stage", queue_capacity=capacity)
    results = virtual(lambda: Pipeline([stage]).run(range(100)))
    assert len(results.failed) == 100
    assert results.stats.stage_stats["Work"].retried_items == 200


# Tasks that cancel themselves


@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
def test_task_that_raises_cancelled_error(retry: str) -> None:
    """A task that raises CancelledError has failed its item; the worker goes on."""
    stage = Stage(
        "Work",
        1,
        [raising(asyncio.CancelledError(), 2)],
        retry,
        task_attempts=1,
        stage_attempts=1,
    )
    results = virtual(lambda: Pipeline([stage]).run(range(6)))
    assert results.values() == [0, 1, 3, 4, 5]
    assert results.summary.errors_by_type == {"CancelledError": 1}


def test_tasks_that_all_raise_cancelled_error() -> None:
    """However many tasks raise CancelledError, no worker dies of it."""
    calls = Calls(raising(asyncio.CancelledError()))
    stage = Stage("Work", 2, [calls], task_attempts=2)
    results = virtual(lambda: Pipeline([stage]).run(range(10)))
    assert len(results.failed) == 10
    assert len(calls.made) == 20
    assert_balanced(results.stats)


def test_skip_if_that_raises_cancelled_error() -> None:
    """What a ``skip_if`` raises fails the item, a CancelledError too."""

    def skip(value: int) -> bool:
        if value == 1:
            raise asyncio.CancelledError
        return False

    stage = Stage("Work", 1, [same], task_attempts=1, skip_if=skip)
    results = virtual(lambda: Pipeline([stage]).run(range(3)))
    assert results.values() == [0, 2]
    assert_balanced(results.stats)


# stream()


@pytest.mark.parametrize("buffer_size", [None, 0, 1, 3])
def test_stream_of_more_than_fits(buffer_size: int | None) -> None:
    """A stream yields everything, however little room there is for results."""

    async def main() -> list[int]:
        stage = Stage("Work", 3, [same], queue_capacity=1)
        stream = Pipeline([stage]).stream(range(300), buffer_size=buffer_size)
        return [result.value async for result in stream]

    assert sorted(virtual(main)) == list(range(300))


def test_stream_first_result() -> None:
    """The first result comes when the first item is through, not when all have been fed."""

    async def main() -> float:
        stream = Pipeline([Stage("Work", 1, [lasting(0.02)])]).stream(range(200))
        async with aclosing(stream):
            await anext(stream)
            return now()

    assert virtual(main) == pytest.approx(0.02)


def test_stream_of_an_endless_source() -> None:
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


def test_stream_when_the_source_failed_and_the_consumer_left() -> None:
    """Leaving a stream whose source has failed meanwhile reports nothing to the event loop."""

    async def main() -> None:
        def source() -> Any:
            yield 1
            raise KeyError("source")

        async with aclosing(Pipeline([Stage("Work", 1, [lasting(1)])]).stream(source())) as stream:
            await anext(stream)
            await asyncio.sleep(10)

    virtual(main)


# At the same time


def test_runs_at_the_same_time() -> None:
    """Two runs of one pipeline at once each have their own results."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [lasting(1)])])
        first, second = await asyncio.gather(pipeline.run(["abcde"]), pipeline.run([1, 2]))
        assert first.values() == ["abcde"]
        assert second.values() == [1, 2]
        assert (first.stats.items_accepted, second.stats.items_accepted) == (1, 2)

    virtual(main)


def test_streams_at_the_same_time() -> None:
    """Two streams of one pipeline, read in turn, each have their own results."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [lasting(1)])])
        first, second = (
            pipeline.stream(items, buffer_size=0) for items in (range(50), range(100, 150))
        )
        for number in range(50):
            assert (await anext(first)).value == number
            assert (await anext(second)).value == 100 + number
        assert [result async for result in first] == []
        assert [result async for result in second] == []

    virtual(main)


def start_a_run(pipeline: Pipeline) -> Any:
    return pipeline.run([1])


async def start_a_stream(pipeline: Pipeline) -> Any:
    return [result async for result in pipeline.stream([1])]


def test_open_from_inside_its_own_stage() -> None:
    """A task cannot open a second run of the pipeline that it is in."""

    async def main() -> None:
        async def work(value: int) -> int:
            with pytest.raises(PipelineError, match="from inside its own run"):
                async with pipeline.open():
                    pass
            return value

        pipeline = Pipeline([Stage("Work", 1, [work])])
        assert (await pipeline.run([1])).values() == [1]

    virtual(main)


@pytest.mark.parametrize("begin", [start_a_run, start_a_stream])
def test_run_from_inside_its_own_task(begin: Callable[[Pipeline], Any]) -> None:
    """Running a pipeline from one of its own tasks fails that item at once."""

    async def main() -> None:
        async def work(value: int) -> Any:
            return await begin(pipeline)

        pipeline = Pipeline([Stage("Work", 1, [work], task_attempts=1)])
        results = await pipeline.run([1, 2])
        assert results.summary.errors_by_type == {"PipelineError": 2}
        assert now() == 0

    virtual(main)


# Ending a run


def test_shutdown_from_a_callback() -> None:
    """A callback may end the run: what it began ends, the rest is cancelled and counted."""

    async def main() -> None:
        async def on_success(*_: Any) -> None:
            await pipeline.shutdown()

        pipeline = Pipeline([Stage("Work", 2, [lasting(1)], on_success=on_success)])
        results = await pipeline.run(range(100))
        assert results.values() == [0, 1]
        assert results.stats.items_cancelled > 0
        assert_balanced(results.stats)
        assert now() == 1

    virtual(main)


@pytest.mark.parametrize("status", ["queued", "in_progress", "completed"])
def test_shutdown_from_a_tracker_callback(status: str) -> None:
    """A tracker's callback may end the run, whatever it was called for."""

    async def main() -> None:
        async def on_status_change(event: StatusEvent) -> None:
            if event.status == status and event.item_id == 3:
                await pipeline.shutdown()

        tracker = StatusTracker(on_status_change)
        pipeline = Pipeline([Stage("Work", 2, [lasting(1)])], status_tracker=tracker)
        results = await pipeline.run(range(100))
        assert len(results) < 6
        assert_balanced(results.stats)
        assert tracker.callback_errors == 0

    virtual(main)


@pytest.mark.parametrize("end", [Pipeline.join, Pipeline.shutdown])
def test_end_from_a_task(end: Callable[[Pipeline], Any]) -> None:
    """A task may join or shut down its own run: it does not wait for itself."""

    async def main() -> None:
        async def work(value: int) -> int:
            await end(pipeline)
            return value

        pipeline = Pipeline([Stage("Work", 1, [work])])
        await pipeline.feed([1])
        await pipeline.join()
        assert pipeline.results.values() == [1]

    virtual(main)


def test_shutdown_while_a_stage_waits_for_room_and_a_feed_is_blocked() -> None:
    """Shutdown ends a pipeline that is full to the brim, and tells a blocked feed."""

    async def main() -> None:
        pipeline = Pipeline(
            [
                Stage("A", 2, [same], queue_capacity=1),
                Stage("B", 1, [lasting(10)], queue_capacity=1),
            ]
        )
        await pipeline.start()
        feeding = await in_background(pipeline.feed(range(100)), 15)
        await pipeline.shutdown()
        assert now() == 20
        with pytest.raises(PipelineError, match="shut down"):
            await feeding
        assert pipeline.results.values() == [0, 1]
        stats = pipeline.get_stats()
        assert stats.items_cancelled == len(pipeline.results.outcomes) - 2 > 0
        assert_balanced(stats)

    virtual(main)


@pytest.mark.parametrize("count", [1, 1000])
@pytest.mark.parametrize("end", [Pipeline.join, Pipeline.shutdown])
def test_feed_after_the_end(end: Callable[[Pipeline], Any], count: int) -> None:
    """Feeding a run that was joined or shut down raises, and nothing was taken in."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        await pipeline.start()
        await end(pipeline)
        with pytest.raises(PipelineError):
            await pipeline.feed(range(count))
        assert pipeline.get_stats().items_accepted == 0

    virtual(main)


def test_feed_that_is_cancelled_while_its_item_is_announced() -> None:
    """The item was accepted, so it goes through, although its callback is waited for no longer."""

    async def on_status_change(event: StatusEvent) -> None:
        if event.status == "queued":
            await asyncio.sleep(1)

    async def main() -> None:
        tracker = StatusTracker(on_status_change)
        pipeline = Pipeline([Stage("Work", 1, [same])], status_tracker=tracker)
        async with pipeline.open() as run:
            feeding = await in_background(run.feed([1, 2]), 0.5)
            feeding.cancel()
            await asyncio.wait([feeding])
            assert feeding.cancelled()
        assert run.results.values() == [1]
        assert_balanced(run.stats())

    virtual(main)


@pytest.mark.parametrize("how", ["shutdown", "cancel"])
def test_feed_by_a_task_that_has_just_ended_its_run(how: str) -> None:
    """Not even in the same step of the event loop is anything taken in."""
    refused: list[PipelineError] = []

    async def main() -> None:
        async def work(value: int) -> int:
            if how == "cancel":
                run.cancel()
            else:
                await run.shutdown()
            try:
                await run.feed([2])
            except PipelineError as error:
                refused.append(error)
            return value

        async with Pipeline([Stage("Work", 1, [work])]).open() as run:
            await run.feed([1])
        assert run.stats().items_accepted == 1

    virtual(main)
    assert len(refused) == 1


def test_feed_before_start() -> None:
    """Feeding a pipeline that was not started starts it."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        await pipeline.feed([1, 2])
        await pipeline.join()
        assert pipeline.results.values() == [1, 2]

    virtual(main)


def test_items_that_wait_when_a_task_shuts_down() -> None:
    """After a shutdown no item that waited is begun, however fast its worker is."""

    async def main() -> None:
        begun: list[int] = []

        async def work(value: int) -> int:
            begun.append(value)
            if value == 3:
                await pipeline.shutdown()
            return value

        pipeline = Pipeline([Stage("Work", 1, [work])])
        await pipeline.feed(range(10))
        await pipeline.join()
        assert begun == [0, 1, 2, 3]
        assert pipeline.get_stats().items_cancelled == 6

    virtual(main)


def test_shutdown_in_the_middle() -> None:
    """Shutdown lets running tasks end, and settles everything that waits as cancelled."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [lasting(1)]), Stage("B", 1, [lasting(3)])])
        await pipeline.start()
        await pipeline.feed(range(10))
        await asyncio.sleep(4.5)
        await pipeline.shutdown()
        assert now() == 7
        results = pipeline.results
        assert results.values() == [0, 1]
        assert len(results.outcomes) == 10
        assert results.stats.items_cancelled == 8
        assert_balanced(results.stats)

    virtual(main)


# Callbacks that hold things up


def test_cancel_when_a_callback_never_returns() -> None:
    """A run is cancelled in time although a callback of it hangs."""

    async def main() -> float:
        tracker = StatusTracker(on_status_change=never)
        pipeline = Pipeline([Stage("Work", 2, [same])], status_tracker=tracker)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await pipeline.run(range(10))
        assert_balanced(pipeline.get_stats())
        return now()

    assert virtual(main) == 2


def test_callback_that_never_returns() -> None:
    """A callback that hangs is given up after its time limit and counted; no item is lost by it."""
    tracker = StatusTracker(on_status_change=never, callback_timeout=5)

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [same])], status_tracker=tracker)
        assert (await pipeline.run(range(4))).values() == [0, 1, 2, 3]

    virtual(main)
    assert tracker.callback_errors == 12


def test_callback_that_raises_cancelled_error() -> None:
    """A tracker's callback that raises CancelledError changes nothing."""

    async def on_status_change(event: StatusEvent) -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        tracker = StatusTracker(on_status_change)
        pipeline = Pipeline([Stage("Work", 1, [same])], status_tracker=tracker)
        assert (await pipeline.run(range(5))).values() == [0, 1, 2, 3, 4]
        assert tracker.callback_errors == 15
        assert tracker.get_stats()["completed"] == 5

    virtual(main)


# Sources that cancel themselves


def test_async_source_that_raises_cancelled_error() -> None:
    """An async source that raises CancelledError ends the run as any other error of it does."""

    async def source() -> Any:
        yield 1
        raise asyncio.CancelledError

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [lasting(1)])])
        with pytest.raises((asyncio.CancelledError, PipelineError)):
            await pipeline.run(source())
        assert_balanced(pipeline.get_stats())

    virtual(main)


def test_source_that_raises_cancelled_error() -> None:
    """A source that raises CancelledError is not taken for one that has come to its end."""

    def source() -> Any:
        yield 1
        raise asyncio.CancelledError

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [lasting(1)])])
        with pytest.raises((asyncio.CancelledError, PipelineError)):
            await pipeline.run(source())
        assert_balanced(pipeline.get_stats())

    virtual(main)


def closing_badly() -> Any:
    try:
        yield from endless()
    finally:
        raise RuntimeError("clean-up")


def test_cancel_when_the_source_fails_to_clean_up() -> None:
    """What a source raises in its clean-up does not take the place of the cancellation."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [lasting(1)])])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await pipeline.run(closing_badly())
        assert_balanced(pipeline.get_stats())

    virtual(main)


def test_shutdown_when_the_source_fails_to_clean_up() -> None:
    """What a source raises in its clean-up does not keep a shutdown from ending the run."""

    async def main() -> None:
        async def work(value: int) -> int:
            if value == 3:
                await pipeline.shutdown()
            return value

        pipeline = Pipeline([Stage("Work", 1, [work], task_attempts=1)])
        results = await pipeline.run(closing_badly())
        assert 3 in results.values()
        assert_balanced(results.stats)

    virtual(main)


# Ids and stages


def test_id_that_cannot_be_hashed() -> None:
    """An id that cannot be hashed goes by its text, with a tracker and without."""

    async def main() -> None:
        tracker = StatusTracker()
        pipeline = Pipeline([Stage("Work", 1, [same])], status_tracker=tracker)
        results = await pipeline.run([1, {"id": ["x"], "value": 2}, {"id": {"k": 1}, "value": 3}])
        assert [result.id for result in results] == [0, "['x']", "{'k': 1}"]
        assert tracker.get_tracked_ids() == [0, "['x']", "{'k': 1}"]

    virtual(main)


def test_stages_when_the_list_is_changed_afterwards() -> None:
    """A pipeline has the stages it was made with, whatever becomes of the lists."""
    tasks: list[Any] = [same]
    stages = [Stage("A", 1, tasks), Stage("B", 1, [same])]
    pipeline = Pipeline(stages)
    tasks.append(raising(ValueError("later")))
    stages.append(Stage("C", 1, [raising(ValueError("later"))]))

    async def main() -> list[PipelineResult[Any]]:
        return await pipeline.run(range(30))

    assert len(virtual(main)) == 30
    assert [stage.name for stage in pipeline.stages] == ["A", "B"]


def test_stages_when_their_options_are_changed_afterwards() -> None:
    """A pipeline keeps what its stages were made with: no list or dict of theirs is shared."""

    async def with_lock(value: Any, lock: Any) -> Any:
        return value

    options: dict[str, Any] = {
        "tasks": [with_lock],
        "limits": [Limit(concurrency=1)],
        "resources": {"lock": Lock},
        "hold_on": {ValueError: 1.0},
        "task_concurrency_limits": {"with_lock": 1},
    }
    stage = Stage("Work", 1, **options)
    pipeline = Pipeline([stage])
    for value in options.values():
        value.clear()
    kept = pipeline.stages[0]
    assert [len(getattr(kept, name)) for name in options] == [1] * len(options)


def test_stages_when_the_answer_is_changed() -> None:
    """The list that `Pipeline.stages` gives is a copy."""
    pipeline = Pipeline([Stage("A", 1, [same])])
    pipeline.stages.clear()
    assert len(pipeline.stages) == 1


# Feeding from inside


def test_callback_that_feeds_while_the_input_goes_on() -> None:
    """A callback may feed the run it belongs to."""

    async def main() -> None:
        gate = Gate()

        async def source() -> Any:
            yield "first"
            await gate(None)

        async def on_success(item_id: Any, value: str, payload: dict[str, Any]) -> None:
            if value == "first":
                await pipeline.feed(["second"])
                gate.open()

        pipeline = Pipeline([Stage("Work", 2, [lasting(1)], on_success=on_success)])
        assert (await pipeline.run(source())).values() == ["first", "second"]

    virtual(main)


def test_callback_that_feeds_after_the_last_input() -> None:
    """A callback may feed the run when the input has ended too: the run then goes on."""

    async def main() -> None:
        async def on_success(item_id: Any, value: int, payload: dict[str, Any]) -> None:
            if value < 3:
                await pipeline.feed([value + 1])

        pipeline = Pipeline([Stage("Work", 2, [lasting(1)], on_success=on_success)])
        assert (await pipeline.run([1])).values() == [1, 2, 3]

    virtual(main)


def test_callback_that_feeds_although_the_input_ends_meanwhile() -> None:
    """The last item is through and the input ends while its callback runs: that may still feed."""

    async def source() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(1.5)

    async def main() -> None:
        async def on_success(item_id: Any, value: int, payload: dict[str, Any]) -> None:
            await asyncio.sleep(1)
            if value < 3:
                await pipeline.feed([value + 1])

        pipeline = Pipeline([Stage("Work", 1, [lasting(1)], on_success=on_success)])
        assert (await pipeline.run(source())).values() == [1, 2, 3]

    virtual(main)


def test_task_that_feeds_after_the_last_input() -> None:
    """A task may feed its own run also when the input has ended (a crawler follows its links)."""

    async def main() -> None:
        async def crawl(value: int) -> int:
            await asyncio.sleep(1)
            if value < 3:
                await pipeline.feed([value + 1])
            return value

        pipeline = Pipeline([Stage("Crawl", 2, [crawl], task_attempts=1)])
        assert (await pipeline.run([1])).values() == [1, 2, 3]

    virtual(main)


def test_task_that_feeds_its_own_full_stage() -> None:
    """Workers that all feed the stage they work in never wait for one another."""

    async def main() -> None:
        async def split(value: int) -> int:
            if value:
                await pipeline.feed([value - 1] * 2)
            return value

        pipeline = Pipeline([Stage("Split", 2, [split], queue_capacity=1)])
        await pipeline.feed([5])
        while pipeline.get_stats().items_in_flight:
            await asyncio.sleep(1)
        await pipeline.join()
        assert len(pipeline.results) == 2**6 - 1

    virtual(main)
