"""Whatever can be iterated goes in; every item keeps its own identity."""

from __future__ import annotations

import asyncio
import io
import sys
from collections import UserString
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from typing import Any, Self

import pytest

from antflow import (
    Pipeline,
    PipelineError,
    Stage,
    StatusEvent,
    StatusTracker,
    TooManyFailures,
    in_thread,
)
from antflow.testing import Calls, Gate, run_virtual
from tests.support import (
    Model,
    assert_balanced,
    endless,
    in_background,
    lasting,
    never,
    now,
    raising,
    same,
    values,
    virtual,
)


def generator() -> Iterator[int]:
    yield from range(5)


async def async_generator() -> AsyncIterator[int]:
    for number in range(5):
        await asyncio.sleep(0.1)
        yield number


class AsyncItems:
    def __aiter__(self) -> AsyncIterator[int]:
        return async_generator()


class OldProtocol:
    def __getitem__(self, index: int) -> int:
        if index == 5:
            raise IndexError
        return index


class LyingLength(list[int]):
    def __len__(self) -> int:
        raise RuntimeError("no length")


MAKERS: dict[str, Callable[[], Any]] = {
    "list": lambda: [0, 1, 2, 3, 4],
    "tuple": lambda: (0, 1, 2, 3, 4),
    "range": lambda: range(5),
    "iterator": lambda: iter(range(5)),
    "keys": lambda: dict.fromkeys(range(5)).keys(),
    "length that raises": lambda: LyingLength(range(5)),
    "generator": generator,
    "async generator": async_generator,
    "async iterable": AsyncItems,
    "old protocol": OldProtocol,
}


of_every_kind = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


class Silent:
    """A display that does nothing."""

    total_items = -1

    def on_start(self, pipeline: Any, total_items: int) -> None:
        self.total_items = total_items


@pytest.mark.fault
@of_every_kind
@pytest.mark.parametrize("displayed", [False, True])
def test_run_takes_anything_iterable(make: Callable[[], Any], displayed: bool) -> None:
    """`run` takes any iterable or async iterable, with a display and without."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [same])])
        display = Silent() if displayed else None
        assert (await pipeline.run(make(), custom_dashboard=display)).values() == [0, 1, 2, 3, 4]

    virtual(main)


@pytest.mark.fault
@of_every_kind
def test_stream_takes_anything_iterable(make: Callable[[], Any]) -> None:
    """`stream` takes any iterable or async iterable."""

    async def main() -> list[int]:
        pipeline = Pipeline([Stage("Work", 2, [same])])
        return [result.value async for result in pipeline.stream(make())]

    assert sorted(virtual(main)) == [0, 1, 2, 3, 4]


@pytest.mark.fault
@of_every_kind
def test_feed_takes_anything_iterable(make: Callable[[], Any]) -> None:
    """`feed` takes any iterable or async iterable."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [same])])
        await pipeline.feed(make())
        await pipeline.join()
        assert pipeline.results.values() == [0, 1, 2, 3, 4]

    virtual(main)


@pytest.mark.fault
def test_feed_async_takes_each_item_as_it_comes() -> None:
    """`feed_async` takes in each item as it comes."""

    async def main() -> None:
        calls = Calls()
        pipeline = Pipeline([Stage("Work", 2, [calls])])
        await pipeline.feed_async(async_generator())
        await pipeline.join()
        assert [call.start for call in calls.made] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])

    virtual(main)


@pytest.mark.fault
def test_total_that_is_told() -> None:
    """A display is told the total of a generator where it is given, else the length."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [same])])
        for items, total, expected in [(generator(), 5, 5), (generator(), None, 0), ([1], None, 1)]:
            display = Silent()
            await pipeline.run(items, custom_dashboard=display, total=total)
            assert display.total_items == expected

    virtual(main)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("items", "parts"),
    [
        *[(text, "characters") for text in ("abc", "", UserString("a"))],
        *[(data, "bytes") for data in (b"abc", bytearray(b"a"), memoryview(b"a"))],
        *[({"a": 1}, "keys"), ({}, "keys"), (Model(), "fields")],
    ],
)
@pytest.mark.parametrize("how", ["run", "stream", "feed"])
def test_refuses_items_that_would_be_taken_apart(how: str, items: Any, parts: str) -> None:
    """One value in place of a list of items is refused, and the way out is told."""
    assert_refused(how, items, f"would be taken apart into its {parts}; wrap it in a list")


@pytest.mark.fault
@pytest.mark.parametrize("items", [None, 5, 1.5, Silent(), same, int])
@pytest.mark.parametrize("how", ["run", "stream", "feed"])
def test_refuses_items_that_cannot_be_iterated(how: str, items: Any) -> None:
    """What cannot be iterated is refused at once."""
    assert_refused(how, items, "items=")


async def begin(pipeline: Pipeline, how: str, items: Any) -> list[Any]:
    if how == "stream":
        return [result async for result in pipeline.stream(items)]
    return await getattr(pipeline, how)(items) or []


def assert_refused(how: str, items: Any, match: str) -> None:
    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        with pytest.raises(TypeError, match=match):
            await begin(pipeline, how, items)
        assert pipeline.get_stats().items_accepted == 0
        await pipeline.shutdown()

    virtual(main)


@pytest.mark.fault
@pytest.mark.parametrize("collect_results", [False, True])
def test_endless_input_that_is_cancelled(collect_results: bool) -> None:
    """A run over an endless input works until it is cancelled, and its counts are exact."""

    async def main() -> None:
        stage = Stage("Work", 10, [lasting(0.1)])
        pipeline = Pipeline([stage], collect_results=collect_results)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.05):
                await pipeline.run(endless())
        assert now() == 1.05
        stats = pipeline.get_stats()
        assert stats.items_processed == 100
        assert_balanced(stats)
        assert len(pipeline.results) == (100 if collect_results else 0)

    virtual(main)


@pytest.mark.fault
def test_endless_input_is_taken_as_there_is_room() -> None:
    """No more is taken from an input than there is room for."""
    taken: list[int] = []

    async def main() -> None:
        source = (taken.append(number) or number for number in endless())  # type: ignore[func-returns-value]
        stages = [
            Stage("A", 3, [same], queue_capacity=4),
            Stage("B", 2, [lasting(1)], queue_capacity=5),
        ]
        run = await in_background(Pipeline(stages).run(source), 0.5)
        assert len(taken) <= 3 + 4 + 2 + 5 + 1
        run.cancel()
        await asyncio.wait([run])

    virtual(main)
    assert taken


@pytest.mark.fault
def test_endless_input_lets_others_have_their_turn() -> None:
    """Others have their turn while an endless input meets tasks that never wait."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])], collect_results=False)
        run = asyncio.ensure_future(pipeline.run(endless()))
        while pipeline.get_stats().items_processed < 1000:
            await asyncio.sleep(0)
        run.cancel()
        await asyncio.wait([run])

    virtual(main)


@pytest.mark.fault
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("position", [0, 1, 7])
def test_source_that_raises_comes_out_after_what_came_before_it(
    position: int, is_async: bool
) -> None:
    """What a source raises comes out after what came before it is through, with the results."""

    def failing() -> Iterator[int]:
        yield from range(position)
        raise KeyError("source")

    async def failing_later() -> AsyncIterator[int]:
        for number in failing():
            yield number

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [lasting(1)]), Stage("B", 2, [lasting(1)])])
        with pytest.raises(KeyError) as caught:
            await pipeline.run(failing_later() if is_async else failing())
        assert caught.value.results.values() == list(range(position))  # type: ignore[attr-defined]
        assert pipeline.results.values() == list(range(position))

    virtual(main)


@pytest.mark.fault
def test_generator_is_closed_when_the_intake_stops() -> None:
    """Its clean-up has run when the run is over, even while the test still refers to it."""
    closed: list[bool] = []

    def source() -> Iterator[int]:
        try:
            yield from endless()
        finally:
            closed.append(True)

    async def main() -> None:
        items = source()
        stage = Stage("Work", 1, [raising(ValueError())], task_attempts=1)
        with pytest.raises(TooManyFailures):
            await Pipeline([stage]).run(items, max_failures=3)
        assert closed == [True]
        assert next(items, None) is None

    virtual(main)


@pytest.mark.parametrize("how", ["join", "drain"])
def test_generator_is_closed_when_no_more_is_wanted(how: str) -> None:
    """A task asks its run to take in nothing more: the clean-up has run by the next item."""
    closed: list[bool] = []

    def source() -> Iterator[int]:
        try:
            yield from endless()
        finally:
            closed.append(True)

    async def ask(number: int) -> int:
        run = pipeline.current_run
        assert run is not None
        if number == 0:
            await run.join() if how == "join" else run.drain()
            assert closed == [True]
        return number

    pipeline = Pipeline([Stage("Work", 1, [ask])])
    items = source()
    results = virtual(lambda: pipeline.run(items))
    assert results.failed == []
    assert next(items, None) is None


CANCELLED = [asyncio.CancelledError(), BaseExceptionGroup("", [asyncio.CancelledError()])]


@pytest.mark.fault
@pytest.mark.parametrize("error", CANCELLED, ids=["alone", "in a group"])
@pytest.mark.parametrize("way", ["pulled", "fed", "async"])
def test_clean_up_that_raises_cancelled_error_cancels_nothing(
    error: BaseException, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A CancelledError of a source's clean-up is logged, and cancels nothing."""

    def numbers() -> Iterator[int]:
        try:
            yield from count()
        finally:
            raise error

    async def async_numbers() -> AsyncIterator[int]:
        try:
            for number in count():
                yield number
        finally:
            raise error

    async def refuse_nine(value: int) -> int:
        if value == 9:
            raise ValueError(value)
        return value

    async def main() -> None:
        tracker = StatusTracker(on_status_change=same) if way == "fed" else None
        stage = Stage("Work", 1, [refuse_nine], task_attempts=1)
        pipeline = Pipeline([stage], status_tracker=tracker)
        with pytest.raises(TooManyFailures) as info:
            await pipeline.run(async_numbers() if way == "async" else numbers(), max_failures=1)
        results = info.value.results
        assert results is not None
        assert results.values()[:9] == list(range(9))
        assert {str(each.error) for each in results.cancelled} <= {
            "the run was stopped by max_failures before the item was through"
        }

    virtual(main)
    assert "the source's clean-up failed" in caplog.text


@pytest.mark.fault
def test_stream_yields_what_came_before_the_source_raised() -> None:
    """A stream yields what came before the source raised, then raises."""

    def failing() -> Iterator[int]:
        yield from range(5)
        raise KeyError("source")

    async def main() -> None:
        got: list[int] = []
        stream = Pipeline([Stage("Work", 1, [lasting(1)])]).stream(failing())

        async def consume() -> None:
            async for result in stream:
                got.append(result.value)

        with pytest.raises(KeyError):
            await consume()
        assert got == [0, 1, 2, 3, 4]

    virtual(main)


@pytest.mark.fault
def test_source_that_changes_while_it_is_read() -> None:
    """What Python raises for a set that grows while it is read comes out of the run."""
    items = {0, 1, 2}

    async def grow(value: int) -> int:
        items.add(value + 100)
        await asyncio.sleep(1)
        return value

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [grow], queue_capacity=1)])
        with pytest.raises(RuntimeError, match="changed size"):
            await pipeline.run(items)
        assert len(pipeline.results) >= 1
        assert_balanced(pipeline.get_stats())

    virtual(main)


# Values and order


def run_items(items: Any, **options: Any) -> tuple[list[Any], StatusTracker]:
    """Run them, and see that the tracker has a whole history for each result."""
    tracker = StatusTracker()

    async def main() -> list[Any]:
        stage = Stage("Work", 1, [lasting(1)])
        pipeline = Pipeline([stage], status_tracker=tracker, **options)
        results = await pipeline.run(items)
        assert len(results) == len(items)
        return [result.id for result in results]

    ids = virtual(main)
    assert tracker.get_tracked_ids() == ids
    for item_id in ids:
        statuses = [event.status for event in tracker.get_history(item_id)]
        assert statuses == ["queued", "in_progress", "completed"]
    return ids, tracker


@pytest.mark.fault
@pytest.mark.parametrize(
    "items",
    [
        [None, None],
        [{"id": "x", "value": None}],
        [{"id": ("tuple", 1), "value": 2}],
        [float("nan"), [], {}, set()],
        [ValueError("as a value")],
        ["x" * 1_000_000],
    ],
    ids=lambda items: repr(items)[:30],
)
def test_any_value_is_an_item(items: list[Any]) -> None:
    """Any value is an item."""
    ids, _ = run_items(items)
    assert len(ids) == len(items)


@pytest.mark.fault
@pytest.mark.parametrize("value", [None, ValueError("returned"), StopIteration(), ..., same])
def test_task_may_return_an_exception_object_too(value: Any) -> None:
    """What a task returns is the item's value, an exception object too."""

    async def work(_: Any) -> Any:
        return value

    results = virtual(lambda: Pipeline([Stage("Work", 1, [work])]).run([1]))
    assert results.values() == [value]
    assert results[0].is_success


@pytest.mark.fault
def test_results_are_in_input_order() -> None:
    """Results come in the order of the input, whatever the order they were ready in."""

    async def work(value: int) -> int:
        await asyncio.sleep(10 - value)
        return value

    results = virtual(lambda: Pipeline([Stage("Work", 10, [work])]).run(range(10)))
    assert [result.sequence_id for result in results] == list(range(10))
    assert results.values() == list(range(10))


# feed()


@pytest.mark.fault
@pytest.mark.parametrize("priority", [None, "high", 1.5, float("nan"), True])
def test_refuses_priorities_that_are_not_whole_numbers(priority: Any) -> None:
    """A priority that is no whole number is refused before anything is taken in."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        with pytest.raises(TypeError, match="priority="):
            await pipeline.feed([1], priority=priority)
        assert pipeline.get_stats().items_accepted == 0
        await pipeline.shutdown()

    virtual(main)


@pytest.mark.fault
def test_lower_priorities_go_first_at_any_size() -> None:
    """Lower priorities go first, first in first out within one, through all stages."""

    async def main() -> None:
        calls = Calls(seconds=1)
        stages = [Stage("A", 1, [same]), Stage("B", 1, [calls])]
        pipeline = Pipeline(stages)
        await pipeline.start()
        fed = {"a": 100, "late": 10**400, "first": -(10**400), "early": 5, "b": 100}
        for item, priority in fed.items():
            await pipeline.feed([item], priority=priority)
        await pipeline.join()
        assert [call.value for call in calls.made] == ["first", "early", "a", "b", "late"]

    virtual(main)


@pytest.mark.fault
@pytest.mark.parametrize("stage", ["Nowhere", "", 5, b"A", ["A"]])
def test_refuses_target_stages_that_are_unknown(stage: Any) -> None:
    """An unknown stage is refused, with the names of those there are."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [same]), Stage("B", 1, [same])])
        with pytest.raises(ValueError, match=r"not found.*'A', 'B'"):
            await pipeline.feed([1], target_stage=stage)
        assert pipeline.get_stats().items_accepted == 0
        await pipeline.shutdown()

    virtual(main)


@pytest.mark.fault
def test_items_fed_to_a_later_stage_begin_there() -> None:
    """Items fed to a later stage begin there."""

    async def main() -> None:
        calls = Calls()
        pipeline = Pipeline([Stage("A", 1, [calls]), Stage("B", 1, [same])])
        await pipeline.feed([1], target_stage="B")
        await pipeline.feed([2])
        await pipeline.join()
        assert [call.value for call in calls.made] == [2]
        assert pipeline.results.values() == [1, 2]

    virtual(main)


@pytest.mark.fault
@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("error", [SystemExit(7), KeyboardInterrupt()], ids=repr)
def test_source_that_ends_the_program_comes_out_of_run(
    error: BaseException, is_async: bool, tracked: bool
) -> None:
    """It comes out of `run`, and not of the event loop; what was taken in has an outcome."""

    def source() -> Iterator[int]:
        yield from range(5)
        raise error

    async def later() -> AsyncIterator[int]:
        for item in source():
            yield item

    async def main() -> None:
        tracker = StatusTracker(on_status_change=lambda event: None) if tracked else None
        pipeline = Pipeline([Stage("Work", 2, [lasting(1)])], status_tracker=tracker)
        with pytest.raises(type(error)):
            await pipeline.run(later() if is_async else source())
        assert_balanced(pipeline.get_stats())
        assert pipeline.get_stats().items_in_flight == 0

    virtual(main)


@pytest.mark.fault
@pytest.mark.parametrize("seed", range(20))
def test_feeds_when_some_of_them_are_cancelled(seed: int) -> None:
    """A feed that waits for room is never forgotten because another one was cancelled."""

    async def main() -> None:
        stage = Stage("Work", 1, [lasting(0.5)], queue_capacity=1)
        pipeline = Pipeline([stage])
        await pipeline.start()
        feeds = [asyncio.ensure_future(pipeline.feed([n])) for n in range(12)]
        for number, feed in enumerate(feeds[::2]):
            await asyncio.sleep(0.5 if number % 2 else 0)
            feed.cancel()
        await asyncio.wait(feeds)
        assert not any(feed.cancelled() for feed in feeds[1::2])
        await pipeline.join()
        assert set(range(1, 12, 2)) <= set(pipeline.results.values())
        assert_balanced(pipeline.get_stats())

    virtual(main, seed=seed)


@pytest.mark.fault
def test_feeds_have_room_in_turn() -> None:
    """Feeds that wait for room go on in the order they came."""

    async def main() -> list[int]:
        order: list[int] = []
        pipeline = Pipeline([Stage("Work", 1, [lasting(1)], queue_capacity=1)])

        async def feed(number: int) -> None:
            await pipeline.feed([number])
            order.append(number)

        await pipeline.start()
        await asyncio.gather(*(feed(number) for number in range(10)))
        await pipeline.join()
        assert [event.value for event in pipeline.results] == list(range(10))
        return order

    assert virtual(main) == list(range(10))


@pytest.mark.fault
@pytest.mark.parametrize("count", [1, 1000])
@pytest.mark.parametrize("end", [Pipeline.join, Pipeline.shutdown])
def test_feed_after_the_end_takes_nothing_in(end: Callable[[Pipeline], Any], count: int) -> None:
    """Feeding a run that was joined or shut down raises, and nothing was taken in."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        await pipeline.start()
        await end(pipeline)
        with pytest.raises(PipelineError):
            await pipeline.feed(range(count))
        assert pipeline.get_stats().items_accepted == 0

    virtual(main)


@pytest.mark.fault
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


@pytest.mark.fault
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


@pytest.mark.fault
def test_feed_before_start_starts_the_pipeline() -> None:
    """Feeding a pipeline that was not started starts it."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        await pipeline.feed([1, 2])
        await pipeline.join()
        assert pipeline.results.values() == [1, 2]

    virtual(main)


@pytest.mark.fault
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


@pytest.mark.fault
def test_callback_may_feed_after_the_last_input() -> None:
    """A callback may feed the run when the input has ended too: the run then goes on."""

    async def main() -> None:
        async def on_success(item_id: Any, value: int, payload: dict[str, Any]) -> None:
            if value < 3:
                await pipeline.feed([value + 1])

        pipeline = Pipeline([Stage("Work", 2, [lasting(1)], on_success=on_success)])
        assert (await pipeline.run([1])).values() == [1, 2, 3]

    virtual(main)


@pytest.mark.fault
def test_callback_may_feed_although_the_input_ends_meanwhile() -> None:
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


@pytest.mark.fault
def test_task_may_feed_after_the_last_input() -> None:
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


@pytest.mark.fault
def test_tasks_that_feed_their_own_full_stage_do_not_hang() -> None:
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


def test_feed_beside_a_run_goes_into_that_run() -> None:
    """``pipeline.feed()`` from outside adds to the run under way, and begins no other."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [lasting(1)])])
        running = asyncio.ensure_future(pipeline.run(range(30)))
        await asyncio.sleep(1.5)
        await pipeline.feed([99])
        assert 99 in (await running).values()
        async with pipeline.open() as run:
            await pipeline.feed([3])
        assert run.results.values() == [3]

    run_virtual(main)


def test_async_source_is_worked_on_item_by_item() -> None:
    """A source that gives an item a second: each is through before the next one comes."""
    seen: list[tuple[int, Any]] = []

    async def main() -> None:
        async def source() -> Any:
            for item in range(3):
                await asyncio.sleep(1)
                yield item

        async for result in Pipeline([Stage("A", 2, [Calls(seconds=0.1)])]).stream(source()):
            seen.append((result.value, now()))

    run_virtual(main)
    assert seen == [(0, pytest.approx(1.1)), (1, pytest.approx(2.1)), (2, pytest.approx(3.1))]


def test_feeder_may_be_dismissed_before_its_first_step() -> None:
    """A display that joins the run at once ends it well and empty, whatever its source is."""

    class Hasty:
        async def on_update(self, snapshot: Any) -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await pipeline.join()

    async def source() -> Any:
        yield 1

    pipeline = Pipeline([Stage("A", 1, [Calls()])], status_tracker=StatusTracker(print))
    for items in (source(), [1]):
        results = run_virtual(pipeline.run(items, custom_dashboard=Hasty()), leftovers="cancel")
        assert results == []
        assert results.stats.items_accepted == 0


@pytest.mark.parametrize("slow", [False, True])
def test_callback_of_a_feeder_outside_is_inside_the_run(slow: bool) -> None:
    """A callback for an item that somebody feeds can feed the same run, and can join it."""
    tracker = StatusTracker()

    async def main() -> list[Any]:
        pipeline = Pipeline([Stage("A", 1, [Calls()])], status_tracker=tracker)

        async def on_status_change(event: Any) -> None:
            if slow:
                await asyncio.sleep(1)
            if event.status == "queued" and event.item_id == 0:
                await pipeline.feed(["extra"])
                await pipeline.join()

        tracker.on_status_change = on_status_change
        async with pipeline.open() as run:
            await run.feed(["first"])
        return run.results.values()

    assert run_virtual(main) == ["first", "extra"]
    assert tracker.callback_errors == 0


def test_inner_run_that_feeds_the_outer_one_does_not_hang() -> None:
    """A worker of the outer run waits for the inner one, which must not wait for that worker."""

    async def main() -> int:
        async def feed_outer(value: int) -> int:
            if value == 0:
                await outer.feed(range(1, 6))
            return value

        async def run_inner(value: int) -> int:
            await Pipeline([Stage("I", 1, [feed_outer])]).run([value])
            return value

        outer = Pipeline([Stage("O", 1, [run_inner], queue_capacity=1)])
        return len(await outer.run([0]))

    assert run_virtual(main) == 6


# -- sources ---------------------------------------------------------------------------------------


@pytest.mark.fault
def test_async_source_that_never_ends_is_closed_with_its_run() -> None:
    """An async source that waits for ever is cancelled and closed with its run."""
    closed: list[float] = []

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await never()
        finally:
            closed.append(now())

    async def main() -> None:
        run = await in_background(Pipeline([Stage("Work", 1, [same])]).run(source()), 5)
        run.cancel()
        await asyncio.wait([run])

    virtual(main)
    assert closed == [5]


@pytest.mark.fault
def test_async_source_that_is_slow_to_close() -> None:
    """A source's clean-up is waited for, but not for ever."""

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await never()

    async def main() -> float:
        pipeline = Pipeline([Stage("Work", 1, [lasting(1)])])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.5):
                await pipeline.run(source())
        assert_balanced(pipeline.get_stats())
        return now()

    assert virtual(main) <= 11


@pytest.mark.fault
def test_async_source_is_closed_when_the_intake_stops() -> None:
    """An async source is closed when the run takes no more, before the tries under way end."""
    closed: list[float] = []

    async def source() -> AsyncIterator[int]:
        try:
            for number in endless():
                yield number
        finally:
            closed.append(now())

    async def main() -> None:
        stages = [
            Stage("A", 1, [lasting(1), raising(ValueError("no"), 3)], task_attempts=1),
            Stage("B", 1, [lasting(10)]),
        ]
        with pytest.raises(PipelineError, match="max_failures"):
            await Pipeline(stages).run(source(), max_failures=1)
        assert now() == 11

    virtual(main)
    assert closed == [4]


@pytest.mark.parametrize("feeder", ["run.feed", "pipeline.feed", "pipeline.feed_async", "run"])
@pytest.mark.parametrize("way", ["async", "sync"])
def test_clean_up_of_an_async_source_that_fails(
    way: str, feeder: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged: the items were accepted, so a caller that feeds them again has them twice."""

    class Numbers:
        def __init__(self) -> None:
            self.left = [1, 2]
            self.aclose = self.fail_async if way == "async" else self.fail

        def fail(self) -> Any:
            raise OSError("cannot close")

        async def fail_async(self) -> None:
            raise OSError("cannot close")

        def __aiter__(self) -> Self:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    class Source:
        def __aiter__(self) -> Numbers:
            return Numbers()

    async def main() -> list[Any]:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        if feeder == "run":
            return (await pipeline.run(Source())).values()
        if feeder == "run.feed":
            async with pipeline.open() as run:
                await run.feed(Source())
            return run.results.values()
        await pipeline.start()
        await getattr(pipeline, feeder.removeprefix("pipeline."))(Source())
        await pipeline.join()
        return [result.value for result in pipeline.results]

    assert virtual(main) == [1, 2]
    assert [record.getMessage() for record in caplog.records] == ["the source's clean-up failed"]
    assert "cannot close" in caplog.text


def closing_badly() -> Any:
    try:
        yield from endless()
    finally:
        raise RuntimeError("clean-up")


@pytest.mark.fault
def test_async_source_that_raises_cancelled_error_ends_the_run() -> None:
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


@pytest.mark.fault
def test_source_that_raises_cancelled_error_has_not_come_to_its_end() -> None:
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


@pytest.mark.fault
def test_clean_up_of_a_source_does_not_replace_the_cancellation() -> None:
    """What a source raises in its clean-up does not take the place of the cancellation."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [lasting(1)])])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await pipeline.run(closing_badly())
        assert_balanced(pipeline.get_stats())

    virtual(main)


@pytest.mark.fault
def test_clean_up_of_a_source_does_not_hold_up_a_shutdown() -> None:
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


@pytest.mark.parametrize("error", CANCELLED, ids=["alone", "group"])
@pytest.mark.parametrize("kind", ["plain", "async", "thread"])
@pytest.mark.parametrize("place", ["outside", "task"])
def test_feed_whose_source_raises_cancelled_error_was_not_cancelled(
    place: str, kind: str, error: BaseException
) -> None:
    """It is the source's failure: code that awaits `feed` is not to think it was cancelled."""

    def plain() -> Iterator[int]:
        yield 1
        raise error

    async def later() -> AsyncIterator[int]:
        yield 1
        raise error

    source: Any = {"plain": plain, "async": later, "thread": lambda: in_thread(plain)}[kind]

    async def feed(value: Any) -> str:
        if value != "feed":
            return str(value)
        with pytest.raises(PipelineError, match=r"the source raised .*CancelledError") as caught:
            await pipeline.feed(source())
        assert caught.value.__cause__ is error
        return "fed"

    pipeline = Pipeline([Stage("A", 1, [feed])])

    async def main() -> list[Any]:
        if place == "task":
            return values(await pipeline.run(["feed"]))
        await pipeline.start()
        await feed("feed")
        await pipeline.join()
        return ["fed", *values(pipeline.results)]

    assert run_virtual(main) == ["fed", "1"]


@pytest.mark.parametrize("way", ["stream", "shutdown"])
def test_source_that_ends_its_own_run_is_closed(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is closed when its step is over: a generator that runs cannot be closed."""
    closed: list[float] = []

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [lasting(1)])])

        def source() -> Iterator[int]:
            try:
                for number in count():
                    if number == 3:
                        end = stream.aclose() if way == "stream" else pipeline.shutdown()
                        with pytest.raises(StopIteration):  # it returns at once
                            end.send(None)
                    yield number
            finally:
                closed.append(now())

        stream = pipeline.stream(source())
        async for _ in stream:
            pass
        assert closed == [0]
        stats = pipeline.get_stats()
        assert_balanced(stats)
        assert stats.items_in_flight == 0

    run_virtual(main)
    assert caplog.messages == []


@pytest.mark.parametrize("way", ["run", "feed"])
def test_items_before_the_end_of_the_program_have_an_outcome(way: str) -> None:
    """What a source gave before it raised SystemExit is accepted, like what came earlier."""

    def numbers() -> Iterator[int]:
        yield 1
        yield 2
        sys.exit(3)

    async def main() -> Any:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        if way == "run":
            with pytest.raises(SystemExit) as caught:
                await pipeline.run(numbers())
        else:
            async with pipeline.open() as run:
                with pytest.raises(SystemExit) as caught:
                    await run.feed(numbers())
        assert caught.value.code == 3
        return pipeline.results.outcomes

    expected = "cancelled" if way == "run" else "completed"
    outcomes = [(outcome.input, outcome.outcome) for outcome in virtual(main)]
    assert outcomes == [(1, expected), (2, expected)]


@pytest.mark.parametrize("is_own", [False, True], ids=["user's", "own"])
def test_iterator_is_closed_only_if_the_run_made_it(is_own: bool) -> None:
    """An open file that is given to a run stays open; an iterator that the run made is closed."""
    text = io.StringIO("1\n2\n")

    class Lines:
        def __iter__(self) -> io.StringIO:
            return text

    async def main() -> Any:
        source: Any = Lines() if is_own else text
        return (await Pipeline([Stage("Work", 1, [same])]).run(source)).values()

    assert virtual(main) == ["1\n", "2\n"]
    assert text.closed is is_own


@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_late_request_of_a_callback_does_not_stop_the_intake(delay: float) -> None:
    """A callback that is told of an entering item may leave a timer that cancels its task."""
    seen: list[Any] = []

    async def on_status_change(event: StatusEvent) -> None:
        if event.status == "queued" and event.stage == "Work":
            seen.append(event.item_id)
            task = asyncio.current_task()
            assert task is not None
            if event.item_id == 2:
                asyncio.get_running_loop().call_later(delay, task.cancel)

    async def main() -> list[Any]:
        tracker = StatusTracker(on_status_change)
        stages = [Stage("Work", 1, [lasting(1)], queue_capacity=1)]
        results = await Pipeline(stages, status_tracker=tracker).run(range(8))
        return sorted(result.id for result in results.outcomes)

    assert virtual(main) == list(range(8))
    assert seen == list(range(8))


@pytest.mark.parametrize("by_hand", [False, True])
def test_item_enters_although_the_next_one_is_held(by_hand: bool) -> None:
    """A callback may hold an item until those before it are through."""
    places = asyncio.Semaphore(1)

    async def on_status_change(event: StatusEvent) -> None:
        if event.status == "queued":
            await places.acquire()
        elif event.status == "completed":
            places.release()

    async def main() -> None:
        tracker = StatusTracker(on_status_change)
        pipeline = Pipeline([Stage("Work", 5, [lasting(1)])], status_tracker=tracker)
        if by_hand:
            async with pipeline.open() as run:
                await run.feed(range(12))
        else:
            await pipeline.run(range(12))
        assert now() == pytest.approx(12)
        assert tracker.callback_errors == 0

    virtual(main)


@pytest.mark.fault
@pytest.mark.parametrize("ends", ["feed", "run of a feed", "run", "by itself"])
def test_items_taken_together_with_one_that_is_held(ends: str) -> None:
    """All items that left the source are told of and have an outcome, however feeding ends."""
    told: list[Any] = []
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in range(1000):
            if now() > 0:
                return
            taken.append(number)
            yield number

    def on_status_change(event: StatusEvent) -> Awaitable[None] | None:
        if event.status != "queued":
            return None
        told.append(event.item_id)
        return asyncio.sleep(5) if event.item_id == 9 else None

    async def main() -> None:
        tracker = StatusTracker(on_status_change)
        pipeline = Pipeline([Stage("Work", 2, [lasting(1)])], status_tracker=tracker)
        if "feed" in ends:
            async with pipeline.open() as run:
                feeding = await in_background(run.feed(source()), 1.5)
                if ends == "feed":
                    feeding.cancel()
                else:
                    await run.shutdown()
                await asyncio.wait([feeding])
                assert feeding.cancelled() or isinstance(feeding.exception(), PipelineError)
            results = run.results
        else:
            running = await in_background(pipeline.run(source()), 1.5)
            assert told == list(range(10))
            assert len(taken) > 10
            if ends == "run":
                await pipeline.shutdown()
            results = await running
        assert sorted(each.id for each in results.outcomes) == taken == told
        assert (len(results) == len(taken)) == (ends in ("feed", "by itself"))
        assert_balanced(results.stats)

    virtual(main)


def test_source_is_ahead_by_one_item_while_each_is_held() -> None:
    """A callback that holds items, if only some time after the start, holds the source as well."""
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in range(60):
            taken.append(number)
            yield number

    async def on_status_change(event: StatusEvent) -> None:
        if event.status == "queued" and event.item_id >= 20:
            await asyncio.sleep(1)
            assert event.item_id < 40 or len(taken) == event.item_id + 1

    async def main() -> None:
        tracker = StatusTracker(on_status_change)
        await Pipeline([Stage("Work", 2, [same])], status_tracker=tracker).run(source())
        assert tracker.callback_errors == 0

    virtual(main)


def test_callback_that_takes_its_time_lets_others_have_a_turn() -> None:
    """The event loop turns every few milliseconds while a plain callback is told of new items."""
    turns: list[float] = []

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        pause = 0.0

        def take_time(event: StatusEvent) -> None:
            nonlocal pause
            pause = max(pause, now() - turns[-1])
            if event.status == "queued" and event.item_id > 200:
                loop._now += 0.002

        async def turn() -> None:
            while True:
                turns.append(now())
                await asyncio.sleep(0)

        turning = asyncio.ensure_future(turn())
        await asyncio.sleep(0)
        tracker = StatusTracker(take_time)
        stages = [Stage("Work", 2, [same], queue_capacity=1000)]
        await Pipeline(stages, status_tracker=tracker).run(range(500))
        turning.cancel()
        assert pause < 0.01

    virtual(main)
