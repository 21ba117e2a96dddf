"""Event loops whose tasks are made in a way of their own."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from itertools import count
from typing import Any

import pytest

from antflow import AsyncExecutor, InternalError, Limit, Pipeline, Stage, StatusTracker
from antflow.display.terminal import stop_signals
from antflow.testing import Calls, FailTimes, run_virtual


def old(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A factory of the form that all had before Python 3.11: no keyword arguments."""
    return asyncio.Task(work, loop=loop)


def new(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """A factory of the form they have now."""
    return asyncio.Task(work, loop=loop, **options)


FACTORIES: dict[str, Any] = {"old": old, "new": new}
if sys.version_info >= (3, 12):
    FACTORIES["eager"] = asyncio.eager_task_factory


def with_factory(name: str, main: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run with a task factory."""

    async def run() -> None:
        asyncio.get_running_loop().set_task_factory(FACTORIES[name])
        await main()

    run_virtual(run)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("isolate_context", [False, True])
def test_pipeline_under_a_task_factory(factory: str, isolate_context: bool) -> None:
    """Every way to run works, with every kind of task of the run: and nothing is left."""

    async def double(value: int) -> int:
        return 2 * value

    async def source() -> Any:
        for number in range(10):
            yield number

    async def main() -> None:
        limit = Limit(2)
        stages = [
            Stage("A", 3, [FailTimes(1), double], task_wait_seconds=1, limits=[limit]),
            Stage("B", 2, [double], isolate_context=isolate_context),
        ]
        pipeline = Pipeline(stages)
        expected = [4 * number for number in range(10)]
        assert (await pipeline.run(range(10))).values() == expected
        assert (await pipeline.run(source(), timeout=100)).values() == expected
        async with pipeline.stream(range(10)) as results:
            assert sorted([result.value async for result in results]) == expected
        async with pipeline.open() as run:
            await run.feed(range(10))
        assert run.results.values() == expected
        async with AsyncExecutor(2) as executor:
            assert await executor.map(double, range(3)) == [0, 2, 4]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert limit.statistics().in_use == 0

    with_factory(factory, main)


def test_task_factory_that_raises() -> None:
    """What the factory raises comes out, and the limits are free for another event loop."""
    limit = Limit(2)

    async def same(value: int) -> int:
        return value

    def broken(loop: Any, work: Any, **options: Any) -> Any:
        raise ZeroDivisionError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(broken)
        pipeline = Pipeline([Stage("A", 1, [same], limits=[limit])])
        with pytest.raises(ZeroDivisionError):
            await pipeline.run([1])
        with pytest.raises(ZeroDivisionError):
            AsyncExecutor().submit(same, 1)
        loop.set_task_factory(None)

        def elsewhere() -> list[int]:
            return asyncio.run(Pipeline([Stage("A", 1, [same], limits=[limit])]).run([1])).values()

        assert await asyncio.to_thread(elsewhere) == [1]

    asyncio.run(main())


@pytest.mark.parametrize("call", range(1, 6))
@pytest.mark.parametrize("way", ["run", "stream", "open"])
def test_task_factory_that_raises_once(way: str, call: int) -> None:
    """Whichever task it refuses, the error comes out, nothing hangs and nothing is left."""
    limit = Limit(2)
    pipeline = Pipeline([Stage("A", 2, [Calls(seconds=1)], limits=[limit])])
    calls = count(1)

    def broken(loop: Any, work: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise ZeroDivisionError("no task")
        return asyncio.Task(work, loop=loop, **options)

    async def work() -> None:
        if way == "run":
            await pipeline.run(range(5), custom_dashboard=Display())
        elif way == "stream":
            async with pipeline.stream(range(5), custom_dashboard=Display()) as results:
                async for _ in results:
                    pass
        else:
            async with pipeline.open() as run:
                await run.feed(range(5))

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(broken)
        if call <= {"run": 4, "stream": 5, "open": 3}[way]:
            with pytest.raises((ZeroDivisionError, InternalError), match="no task"):
                await work()
        else:
            await work()
        asyncio.get_running_loop().set_task_factory(None)
        await asyncio.sleep(1)
        assert limit.statistics().in_use == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert (await pipeline.run(range(5))).stats.items_processed == 5

    run_virtual(main)


class Display:
    """Handles signals as those do that draw on a terminal."""

    is_interrupted = False

    def on_start(self, pipeline: Any, total: int) -> None:
        """Begin to handle signals."""
        stop_signals.watch(self)

    def on_finish(self, results: Any, summary: Any) -> None:
        """Handle them no longer."""
        stop_signals.unwatch(self)

    def end(self) -> None:
        """Nothing is drawn."""

    def pause(self) -> None:
        """Nothing is drawn."""

    def resume(self) -> None:
        """Nothing is drawn."""

    def fit(self) -> None:
        """Nothing is drawn."""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("factory", FACTORIES)
def test_display_and_graceful_signals_under_a_task_factory(factory: str) -> None:
    """Both handle signals, and leave the handlers as they were, whichever task begins first."""
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [Calls()])])
        await pipeline.run(range(3), custom_dashboard=Display(), graceful_signals=5)
        assert signal.getsignal(signal.SIGTERM) is before
        results = pipeline.stream(range(3), custom_dashboard=Display(), graceful_signals=5)
        assert len([result async for result in results]) == 3
        assert signal.getsignal(signal.SIGTERM) is before

    try:
        with_factory(factory, main)
    finally:
        signal.signal(signal.SIGTERM, before)


def leave_a_request(*_: Any) -> None:
    """Does what a client library does that cancels the running task and never takes it back."""
    running = asyncio.current_task()
    assert running is not None
    running.cancel()


class Unreadable(dict[str, Any]):
    """An item that raises when it is read."""

    def __contains__(self, key: object) -> bool:
        raise LookupError(key)


class LeavesRequests:
    """A display that leaves requests to cancel its task."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_start(self, pipeline: Any, total: int) -> None:
        """The first step of its task."""
        self.calls.append("start")
        leave_a_request()

    def on_update(self, snapshot: Any) -> None:
        """Another one."""
        self.calls.append("update")
        leave_a_request()


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("is_async", [True, False])
def test_request_to_cancel_left_in_the_first_step_of_a_task(
    is_async: bool, is_told: bool, factory: str
) -> None:
    """By a source, a callback or a display: it changes nothing, even if the task began early."""
    display = LeavesRequests()

    def items() -> Iterator[Any]:
        for number in range(6):
            leave_a_request()
            yield number if number % 3 else Unreadable()

    async def coming() -> AsyncIterator[Any]:
        for item in items():
            yield item

    async def main() -> None:
        tracker = StatusTracker(on_status_change=leave_a_request if is_told else None)
        pipeline = Pipeline([Stage("A", 2, [Calls(seconds=1)])], status_tracker=tracker)
        source: Any = coming() if is_async else items()
        results = await pipeline.run(source, custom_dashboard=display)
        assert (results.values(), len(results.failed)) == ([1, 2, 4, 5], 2)
        assert display.calls[:2] == ["start", "update"]

    with_factory(factory, main)
