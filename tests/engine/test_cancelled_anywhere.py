"""What goes wrong in pipelines of this kind, and does not go wrong here."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest

from antflow import InternalError, Pipeline, PipelineError, Stage, StatusTracker, TaskFailedError
from antflow._core.ledger import Ledger
from antflow._engine.channel import Channel
from antflow._engine.endings import Endings
from antflow._engine.failure import FailedTries, Judge
from antflow._engine.handover import Handover
from antflow._engine.identity import Identity
from antflow._engine.intake import Entrance
from antflow._engine.recorder import Recorder
from antflow._engine.retries import RetryHeap
from antflow._engine.run import Run
from antflow._engine.settlement import Settlement
from antflow._engine.workers import Workers
from antflow.testing import Calls, FailTimes, cancel_at_every_step
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

# Wake-ups


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


@pytest.mark.parametrize("seed", range(20))
def test_workers_when_some_of_them_retire(seed: int) -> None:
    """No item waits for ever because the worker it was to wake has just retired."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 4, [lasting(0.1)]), Stage("B", 4, [lasting(0.1)])])
        async with pipeline.open() as run:
            for number in range(40):
                await run.feed([number])
                run.set_workers("AB"[number % 2], 1 + (number * 7 + seed) % 4)
                await asyncio.sleep(0.05 * (number % 3))
        assert run.results.values() == list(range(40))

    virtual(main, seed=seed)


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


@pytest.mark.parametrize("workers", [1, 3])
def test_items_are_begun_in_turn(workers: int) -> None:
    """Items of one priority are begun in the order they came, in every stage."""

    async def main() -> None:
        first, second = Calls(seconds=0.1), Calls(seconds=0.2)
        stages = [Stage("A", workers, [first]), Stage("B", workers, [second], queue_capacity=1)]
        await Pipeline(stages).run(range(30))
        assert [call.value for call in first.made] == list(range(30))
        assert [call.value for call in second.made] == list(range(30))

    virtual(main)


@pytest.mark.parametrize("wait", [0, 1])
def test_retries_come_in_turn(wait: float) -> None:
    """Items that are to be tried again at the same moment are, in the order they failed."""

    async def main() -> list[Any]:
        calls = Calls(FailTimes(1))
        await Pipeline([Stage("Work", 1, [calls], task_wait_seconds=wait)]).run(range(5))
        tried = [call.value for call in calls.made]
        return [value for place, value in enumerate(tried) if value in tried[:place]]

    assert virtual(main) == [0, 1, 2, 3, 4]


# Waiting for the next try


@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
def test_worker_while_an_item_waits_for_its_next_try(retry: str) -> None:
    """A worker is free for others while an item waits for its next try."""

    async def main() -> None:
        flaky = FailTimes(1)

        async def work(value: int) -> int:
            return await flaky(value) if value == 0 else value

        stage = Stage("W", 1, [work], retry, task_wait_seconds=100, stage_wait_seconds=100)
        pipeline = Pipeline([stage])
        run = await in_background(pipeline.run(range(8)), 1)
        assert pipeline.results.values() == [1, 2, 3, 4, 5, 6, 7]
        assert len(await run) == 8
        assert now() == 100

    virtual(main)


def test_items_that_wait_for_their_next_try_are_bounded() -> None:
    """While all items fail, no more are taken in than channel, workers and waiting ones may be."""

    async def main() -> None:
        stage = Stage("W", 2, [raising(ValueError("no"))], task_wait_seconds=1000, queue_capacity=5)
        pipeline = Pipeline([stage])
        run = await in_background(pipeline.run(endless()), 10)
        stats = pipeline.get_stats()
        assert 5 <= stats.stage_stats["W"].retrying_items <= 5 + 2
        assert stats.items_in_flight <= 5 + 5 + 2
        run.cancel()
        await asyncio.wait([run])
        assert_balanced(pipeline.get_stats())

    virtual(main)


# Streams


@pytest.mark.parametrize("buffer_size", [0, 3])
def test_stream_with_a_slow_consumer(buffer_size: int) -> None:
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


# Cancelled at every step


def run_all() -> Pipeline:
    """A pipeline with everything in it."""
    stages = [
        Stage("A", 2, [lasting(1), FailTimes(1)], task_wait_seconds=0.3, queue_capacity=2),
        Stage("B", 1, [FailTimes(1)], "per_stage", stage_wait_seconds=0.1, queue_capacity=1),
        Stage("C", 2, [lasting(0.5)], on_success=lasting_callback, skip_if=is_four),
    ]
    tracker = StatusTracker(on_status_change=lasting(0.01), on_task_retry=lasting(0.01))
    return Pipeline(stages, status_tracker=tracker)


async def lasting_callback(*_: Any) -> None:
    await asyncio.sleep(0.01)


async def is_four(value: int) -> bool:
    await asyncio.sleep(0)
    return value == 4


class SlowDisplay:
    """A display whose methods all take a moment."""

    def __init__(self) -> None:
        self.finished = 0
        self.started = 0

    async def on_start(self, *_: Any) -> None:
        self.started += 1
        await asyncio.sleep(0.1)

    async def on_update(self, *_: Any) -> None:
        await asyncio.sleep(0.1)

    async def on_finish(self, *_: Any) -> None:
        self.finished += 1
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("seed", [None, 1])
def test_run_cancelled_at_every_step(seed: int | None) -> None:
    """Wherever a run is cancelled, nothing is left and the books balance."""
    pipelines: list[Pipeline] = []

    async def main() -> None:
        pipelines.append(run_all())
        await pipelines[-1].run(range(7))

    def check(step: int) -> None:
        for pipeline in pipelines[-1:]:
            assert_balanced(pipeline.get_stats())

    assert cancel_at_every_step(main, check, seed=seed) > 100


def test_run_with_a_display_cancelled_at_every_step() -> None:
    """Wherever a run with a display is cancelled, the display is finished once."""
    displays: list[SlowDisplay] = []

    async def main() -> None:
        displays.append(SlowDisplay())
        stage = Stage("Work", 1, [lasting(1)])
        await Pipeline([stage]).run(range(2), custom_dashboard=displays[-1])

    def check(step: int) -> None:
        for display in displays[-1:]:
            assert display.finished == display.started

    assert cancel_at_every_step(main, check) > 20


def test_stream_cancelled_at_every_step() -> None:
    """Wherever the reader of a stream is cancelled, nothing is left and the books balance."""
    pipelines: list[Pipeline] = []

    async def main() -> None:
        pipelines.append(run_all())
        async with aclosing(pipelines[-1].stream(range(7), buffer_size=0)) as stream:
            async for _ in stream:
                await asyncio.sleep(0.2)

    def check(step: int) -> None:
        for pipeline in pipelines[-1:]:
            assert_balanced(pipeline.get_stats())

    assert cancel_at_every_step(main, check) > 100


@pytest.mark.parametrize("end", ["join", "shutdown"])
def test_feed_and_end_cancelled_at_every_step(end: str) -> None:
    """Wherever a program that feeds by hand is cancelled, nothing is left and the books balance."""
    pipelines: list[Pipeline] = []

    async def main() -> None:
        pipelines.append(run_all())
        async with pipelines[-1]:
            await pipelines[-1].feed(range(7))
            await getattr(pipelines[-1], end)()

    def check(step: int) -> None:
        for pipeline in pipelines[-1:]:
            assert_balanced(pipeline.get_stats())

    assert cancel_at_every_step(main, check) > 50


def test_open_cancelled_at_every_step() -> None:
    """Wherever the body of ``open`` is cancelled, nothing is left and the books balance."""
    pipelines: list[Pipeline] = []

    async def main() -> None:
        pipelines.append(run_all())
        async with pipelines[-1].open() as run:
            await run.feed(range(7))

    def check(step: int) -> None:
        for pipeline in pipelines[-1:]:
            assert_balanced(pipeline.get_stats())

    assert cancel_at_every_step(main, check) > 100


def test_run_of_an_async_source_cancelled_at_every_step() -> None:
    """Wherever a run over an async source is cancelled, the source is closed once."""
    closed: list[int] = []

    async def source() -> AsyncIterator[int]:
        closed.append(0)
        try:
            for number in range(6):
                await asyncio.sleep(0.1)
                yield number
        finally:
            closed[-1] += 1
            await asyncio.sleep(0.1)

    async def main() -> None:
        stage = Stage("Work", 1, [lasting(0.3)], queue_capacity=1)
        await Pipeline([stage]).run(source())

    assert cancel_at_every_step(main) > 50
    assert set(closed) == {1}


def test_tasks_are_held() -> None:
    """Collecting garbage at every step of the event loop collects nothing that still works."""

    async def main() -> None:
        results = await run_all().run(range(3), custom_dashboard=SlowDisplay())
        assert results.values() == [0, 1, 2]

    virtual(main, on_step=lambda step: gc.collect(0 if step % 10 else 2))


# Faults of the library itself


CRASHES: list[tuple[type[Any], str]] = [
    (Recorder, "admitted"),
    (Recorder, "started"),
    (Recorder, "completed"),
    (Recorder, "failed"),
    (Recorder, "retrying"),
    (Recorder, "task"),
    (RetryHeap, "push"),
    (RetryHeap, "room"),
    (Channel, "put"),
    (Channel, "take"),
    (Channel, "room"),
    (Channel, "wait"),
    (Channel, "put_first"),
    (Identity, "envelopes"),
    (Entrance, "begin_to_admit"),
    (Settlement, "settle"),
    (Run, "breathe"),
    (Workers, "receive"),
    (Handover, "put_on"),
    (Judge, "decide"),
    (FailedTries, "fail"),
    (FailedTries, "after"),
    (Endings, "move_on"),
    (Endings, "passes_by"),
    (Ledger, "discrepancy"),
]


class Crash(Exception):
    """Something that cannot happen."""


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize(
    ("where", "name"), CRASHES, ids=[f"{where.__name__}.{name}" for where, name in CRASHES]
)
def test_run_when_the_library_itself_crashes(
    where: type[Any], name: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the library's own ends the run loudly: never a hang, never silence."""
    original = getattr(where, name)
    calls = 0

    def crash(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Crash
        return original(*args, **kwargs)

    async def main() -> None:
        stages = [
            Stage("A", 2, [FailTimes(1)], task_wait_seconds=0.1, queue_capacity=1),
            Stage("B", 1, [raising(ValueError("no"), 3)], "per_stage", queue_capacity=1),
            Stage("C", 1, [lasting(1)], queue_capacity=1, on_success=print, skip_if=is_four),
        ]
        tracker = StatusTracker(on_task_start=lambda event: None)
        pipeline = Pipeline(stages, status_tracker=tracker)
        with monkeypatch.context() as patch:
            patch.setattr(where, name, crash)
            ended = asyncio.ensure_future(pipeline.run(range(8)))
            await asyncio.wait([ended])
        error = ended.exception()
        if calls > after:
            assert isinstance(error, (InternalError, Crash))
            assert isinstance(error, Crash) or isinstance(error.__cause__, Crash)
        else:
            assert error is None
            assert after
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await assert_works(pipeline)

    virtual(main)


def test_run_when_a_worker_is_cancelled_from_outside() -> None:
    """Cancelling a worker's `asyncio.Task` costs the item in hand, and the run goes on."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [lasting(1)], task_attempts=1)])
        run = await in_background(pipeline.run(range(10)), 1.5)
        [worker] = [task for task in asyncio.all_tasks() if "Work-W0" in task.get_name()]
        worker.cancel()
        results = await run
        [failed] = results.failed
        assert isinstance(failed.error, TaskFailedError)
        assert len(results) == 9
        assert_balanced(pipeline.get_stats())

    virtual(main)


# Context variables

language: ContextVar[str] = ContextVar("language", default="none")


def read_language(value: Any) -> str:
    return language.get()


async def read_language_later(value: Any) -> str:
    return language.get()


@pytest.mark.parametrize("task", [read_language, read_language_later])
def test_context_of_the_caller(task: Callable[[Any], Any]) -> None:
    """Tasks see the context variables of who called `run`, in threads too."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [task])])
        language.set("eo")
        assert set((await pipeline.run(range(4))).values()) == {"eo"}
        language.set("ia")
        assert set((await pipeline.run(range(4))).values()) == {"ia"}

    virtual(main)


def test_context_of_a_task() -> None:
    """What a task sets in its context is seen neither by the caller nor by other workers."""

    async def main() -> None:
        async def change(value: str) -> str:
            seen = language.get()
            language.set(value)
            await asyncio.sleep(1)
            return seen

        language.set("eo")
        results = await Pipeline([Stage("Work", 3, [change])]).run(["a", "b", "c"])
        assert results.values() == ["eo", "eo", "eo"]
        assert language.get() == "eo"

    virtual(main)


def test_context_of_a_plain_function() -> None:
    """What a plain function sets in its context is not seen by the next one in that thread."""

    def change(value: str) -> str:
        seen = language.get()
        language.set(value)
        return seen

    async def main() -> None:
        results = await Pipeline([Stage("Work", 1, [change])]).run(["a", "b", "c"])
        assert results.values() == ["none", "none", "none"]

    virtual(main)


# Sources


def test_async_source_that_never_ends_when_the_run_does() -> None:
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


def test_async_source_when_intake_stops() -> None:
    """An async source is closed when the run takes no more, before what was accepted is through."""
    closed: list[float] = []

    async def source() -> AsyncIterator[int]:
        try:
            for number in endless():
                yield number
        finally:
            closed.append(now())

    async def main() -> None:
        stages = [
            Stage("A", 1, [raising(ValueError("no"), 3)], task_attempts=1),
            Stage("B", 1, [lasting(10)]),
        ]
        with pytest.raises(PipelineError, match="max_failures"):
            await Pipeline(stages).run(source(), max_failures=1)
        assert now() >= 30

    virtual(main)
    assert closed == [0]


# Values that raise


class Hostile:
    """A value that raises whatever is asked of it; as an exception, too."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __str__ = __repr__

    def _refuse(self, *_: Any) -> Any:
        raise RuntimeError("asked")

    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __len__ = __hash__ = _refuse
    __iter__ = __getitem__ = __contains__ = __call__ = _refuse


class HostileError(Hostile, Exception):
    pass


@pytest.mark.parametrize("how", ["run", "stream", "feed"])
def test_items_that_raise_whatever_is_asked(how: str) -> None:
    """Values are never compared, tested, measured or printed; they only pass through."""

    async def main() -> None:
        items = [Hostile() for _ in range(6)]
        tries: list[Any] = []

        async def work(value: Any) -> Any:
            tries.append(value)
            if len(tries) % 3 == 0:
                raise HostileError
            return value

        stages = [
            Stage("A", 2, [work], task_wait_seconds=0, on_success=never_mind),
            Stage("B", 2, [same], "per_stage", skip_if=lambda value: value is items[0]),
        ]
        pipeline = Pipeline(stages, status_tracker=StatusTracker(never_mind))
        if how == "run":
            values = (await pipeline.run(items)).values()
        elif how == "stream":
            values = [result.value async for result in pipeline.stream(items)]
        else:
            for number, item in enumerate(items):
                await pipeline.feed([item], priority=100 - number % 2)
            await pipeline.join()
            values = pipeline.results.values()
        assert {id(value) for value in values} == {id(item) for item in items}

    virtual(main)


def never_mind(*_: Any) -> None:
    """A callback that does nothing."""


def test_errors_that_raise_whatever_is_asked() -> None:
    """An exception that cannot be printed or compared fails its item and is counted."""

    async def main() -> None:
        tracker = StatusTracker(never_mind)
        stage = Stage("Work", 1, [raising(HostileError())], "per_stage")
        pipeline = Pipeline([stage], status_tracker=tracker)
        results = await pipeline.run([1, 2])
        assert results.summary.errors_by_type == {"HostileError": 2}
        assert "HostileError" in str(results.summary)
        assert "HostileError" in tracker.get_failed_items()[0].error
        assert tracker.get_history(0)[-1].metadata["error_type"] == "HostileError"

    virtual(main)


def test_names_of_tasks_that_raise_whatever_is_asked() -> None:
    """A task object that has no usable name goes by that of its class."""

    class Task:
        __name__ = 5

        def __repr__(self) -> str:
            raise RuntimeError("repr")

        async def __call__(self, value: int) -> int:
            return value

    heard: list[str] = []
    tracker = StatusTracker(on_task_start=lambda event: heard.append(event.task_name))
    virtual(lambda: Pipeline([Stage("W", 1, [Task()])], status_tracker=tracker).run([1]))
    assert heard == ["Task"]
