"""A source that blocks holds everything up, and no time limit blames that on what had to wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from antflow import Pipeline, Retry, Stage, StatusTracker, in_thread
from antflow._engine import thread_source
from antflow.testing import Calls, VirtualLoop, run_virtual
from tests.engine.blocking import BLOCK, Log, Run, same

HELD = 10.0
"""Virtual seconds for which the sources of these tests hold the loop each time."""


def hold(seconds: float) -> None:
    """Have virtual seconds pass while nothing else can go on, as a call that blocks does."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop._now += seconds


def pages() -> Iterator[int]:
    for page in range(3):
        yield from range(page * 4, page * 4 + 4)
        hold(HELD)


async def async_pages() -> AsyncIterator[int]:
    for number in pages():
        await asyncio.sleep(0)
        yield number


class SlowToBegin:
    """Its items are there at once, when it has begun."""

    def __iter__(self) -> Iterator[int]:
        hold(HELD)
        return iter([0, 1])


class SlowList(list[int]):
    def __iter__(self) -> Iterator[int]:
        return pages()


class SlowToClose:
    """An iterator whose clean-up takes long."""

    def __init__(self) -> None:
        self.items = iter(range(4))

    def __iter__(self) -> SlowToClose:
        return self

    def __next__(self) -> int:
        return next(self.items)

    def close(self) -> None:
        hold(HELD)


SOURCES: dict[str, Callable[[], Any]] = {
    "generator": pages,
    "async generator": async_pages,
    "iter()": SlowToBegin,
    "kind of list": SlowList,
    "clean-up": SlowToClose,
}


async def one_second(value: Any) -> Any:
    """Take a second of the loop's time, in two steps: being late for the first is not enough."""
    await asyncio.sleep(0.5)
    await asyncio.sleep(0.5)
    return value


Program = Callable[[Any], Any]


async def run_with_timeout(items: Any) -> Any:
    return await Pipeline([stage(timeout=3)]).run(items)


async def run_with_timeout_and_callback(items: Any) -> Any:
    tracker = StatusTracker(on_status_change=one_second, callback_timeout=3)
    results = await Pipeline([stage(timeout=3)], status_tracker=tracker).run(items)
    assert tracker.callback_errors == 0
    return results


async def run_with_retry_timeout(items: Any) -> Any:
    return await Pipeline([stage(retry=Retry(attempts=1, timeout=3))]).run(items)


async def run_with_batches(items: Any) -> Any:
    async def batch(values: list[Any]) -> list[Any]:
        await one_second(None)
        return values

    stages = [Stage("Batch", 4, [batch], batch=2, timeout=3, task_attempts=1)]
    return await Pipeline(stages).run(items)


async def run_with_children(items: Any) -> Any:
    async def twice(value: Any) -> AsyncIterator[Any]:
        yield await one_second(value)
        yield await one_second(value)

    stages = [Stage("Expand", 20, [twice], expand=True, timeout=3, task_attempts=1)]
    return await Pipeline(stages).run(items)


async def run_with_item_timeout(items: Any) -> Any:
    return await Pipeline([stage()]).run(items, item_timeout=3)


async def run_with_item_timeout_and_retry(items: Any) -> Any:
    tries: dict[Any, int] = {}

    async def fail_once(value: Any) -> Any:
        tries[value] = tries.get(value, 0) + 1
        if tries[value] == 1:
            raise ValueError(value)
        return value

    stages = [Stage("Work", 20, [fail_once], task_wait_seconds=1)]
    return await Pipeline(stages).run(items, item_timeout=3)


async def stream_with_timeout(items: Any) -> Any:
    stream = Pipeline([stage(timeout=3)]).stream(items)
    assert [result.error async for result in stream if result.error] == []


async def feed_with_timeout(items: Any) -> Any:
    async with Pipeline([stage(timeout=3)]).open(item_timeout=30) as run:
        await run.feed([100, 101])
        await asyncio.sleep(0.5)
        await run.feed(items)
    return run.results


async def run_beside_another(items: Any) -> Any:
    """The one with the time limit is not the one whose source blocks."""
    other = asyncio.ensure_future(Pipeline([stage(timeout=3)]).run(range(20)))
    await asyncio.sleep(0.25)
    await Pipeline([stage()]).run(items)
    return await other


PROGRAMS: list[Program] = [
    run_with_timeout,
    run_with_timeout_and_callback,
    run_with_retry_timeout,
    run_with_batches,
    run_with_children,
    run_with_item_timeout,
    run_with_item_timeout_and_retry,
    stream_with_timeout,
    feed_with_timeout,
    run_beside_another,
]


def stage(**options: Any) -> Stage:
    if "retry" not in options:
        options["task_attempts"] = 1
    return Stage("Work", 20, [one_second], **options)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_time_limits_do_not_count_what_a_source_holds(program: Program, source: str) -> None:
    """No item fails because a source blocked the loop, whichever limit it is under."""
    results = run_virtual(program(SOURCES[source]()))
    assert results is None or results.failed == []


@pytest.mark.parametrize("source", ["generator", "async generator"])
@pytest.mark.parametrize("limit", ["timeout", "item_timeout"])
def test_time_limits_end_what_is_late_although_a_source_blocked(limit: str, source: str) -> None:
    """A task that takes too long is ended: later by what the source held, and by no more."""

    async def main() -> tuple[Any, float]:
        calls = Calls(seconds=1000)
        options: Any = {"timeout": 3.0} if limit == "timeout" else {}
        run_options: Any = {"item_timeout": 3.0} if limit == "item_timeout" else {}
        stages = [Stage("Work", 20, [calls], task_attempts=1, **options)]
        results = await Pipeline(stages).run(SOURCES[source](), **run_options)
        return results, asyncio.get_running_loop().time()

    results, ended = run_virtual(main)
    assert {type(result.error) for result in results.failed} == {TimeoutError}
    assert len(results.failed) == 12
    assert ended == 3 * HELD + 3


def test_timeout_of_the_run_counts_what_a_source_holds() -> None:
    """A run's own ``timeout`` is about the time that passes, whatever it passes with."""

    async def main() -> None:
        with pytest.raises(TimeoutError, match="the run was not over"):
            await Pipeline([stage()]).run(pages(), timeout=HELD / 2)

    run_virtual(main)


def test_callback_that_hangs_is_ended_although_a_source_blocked() -> None:
    """A callback that takes too long is ended: later by what the source held."""
    ended: list[float] = []

    async def hang(event: Any) -> None:
        if event.status == "completed":
            try:
                await asyncio.sleep(1000)
            finally:
                ended.append(asyncio.get_running_loop().time())

    async def main() -> None:
        tracker = StatusTracker(on_status_change=hang, callback_timeout=3)
        async with Pipeline([stage()], status_tracker=tracker).open() as run:
            await run.feed([0])
            await asyncio.sleep(1.5)  # from 1 on the callback hangs
            await run.feed(SlowToBegin())
        assert tracker.callback_errors == 3

    run_virtual(main)
    assert ended == [1 + HELD + 3, 1.5 + HELD + 1 + 3, 1.5 + HELD + 1 + 3]


def long_steps(log: Log) -> list[str]:
    messages = [record.getMessage() for record in log.records if record.name == "antflow"]
    return [message for message in messages if " source " in message]


@pytest.mark.parametrize("run_options", [{}, {"tracker": True}])
def test_long_step_of_a_generator_is_told_of_once(run_options: dict[str, Any], caplog: Log) -> None:
    """The first step that blocks is a warning: which source, where it stands, and what helps."""

    def rows() -> Iterator[int]:
        yield from pages()

    async def main() -> None:
        tracker = StatusTracker(on_status_change=one_second) if run_options else None
        await Pipeline([stage()], status_tracker=tracker).run(rows())

    run_virtual(main)
    [message] = long_steps(caplog)
    assert message.startswith("the source rows (at tests/engine/test_source_steps.py:")
    assert " in pages) blocked the event loop for 10.00 s in one step" in message
    assert message.endswith("wrap it in antflow.in_thread(…)")


def test_long_step_of_any_object_is_told_of(caplog: Log) -> None:
    """A source that is no generator is told of by its type."""
    run_virtual(lambda: Pipeline([stage()]).run(SlowToBegin()))
    [message] = long_steps(caplog)
    assert message.startswith("the source SlowToBegin blocked the event loop for 10.00 s in")


def test_long_step_of_an_async_source_is_told_of(caplog: Log) -> None:
    """An async source that blocks is told of, and is not to be put in a thread as it is."""
    run_virtual(lambda: Pipeline([stage()]).run(async_pages()))
    [message] = long_steps(caplog)
    assert message.startswith("the source async_pages (at tests/engine/test_source_steps.py:")
    assert message.endswith("use an async call in it, or asyncio.to_thread(…)")


def test_source_in_a_thread_is_not_blamed(caplog: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds the loop while a source in a thread is asked is something else, and no advice."""

    class SlowToStart(threading.Thread):
        def start(self) -> None:  # as where other threads hold the GIL
            hold(HELD)
            super().start()

    monkeypatch.setattr(thread_source, "Thread", SlowToStart)
    results = run_virtual(lambda: Pipeline([stage()]).run(in_thread([0, 1])))
    assert results.values() == [0, 1]
    assert long_steps(caplog) == []


def test_steps_that_are_short_are_not_told_of(caplog: Log) -> None:
    """A source that takes a little time at each step is left alone."""

    def quick() -> Iterator[int]:
        for number in range(100):
            hold(0.09)
            yield number

    run_virtual(lambda: Pipeline([stage()]).run(quick()))
    assert long_steps(caplog) == []


def test_steps_are_not_told_of_where_blocks_are_not(caplog: Log) -> None:
    """``blocked_loop_after=None``: no block is told of, and no source either."""
    run_virtual(lambda: Pipeline([stage()], blocked_loop_after=None).run(pages()))
    assert long_steps(caplog) == []


@pytest.mark.real_time
@pytest.mark.parametrize("seconds", [BLOCK, 0.12])
def test_block_by_a_source_is_one_warning(run: Run, seconds: float, caplog: Log) -> None:
    """In real time, the watchdog or the source's own watch tells of the source; never both."""

    def blocking() -> Iterator[int]:
        yield 1
        time.sleep(seconds)
        yield 2
        time.sleep(seconds)

    run(Pipeline([Stage("Work", 1, [same])]).run(blocking()))
    [message] = long_steps(caplog)
    assert "source blocking " in message
    assert "in_thread" in message


@pytest.mark.real_time
def test_block_by_a_source_lets_no_healthy_task_time_out(run: Run) -> None:
    """In real time, tasks that are quick are in time although their source blocks for longer."""

    def blocking() -> Iterator[int]:
        for number in range(20):
            if number % 10 == 0:
                time.sleep(0.5)
            yield number

    async def work(value: int) -> int:
        await asyncio.sleep(0.05)
        return value

    stages = [Stage("Work", 20, [work], timeout=0.3, task_attempts=1)]
    assert run(Pipeline(stages).run(blocking())).failed == []
