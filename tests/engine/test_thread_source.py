"""`in_thread`: a source that blocks is read in one thread of its own, and stops nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import pytest

from antflow import Pipeline, Stage, StatusTracker, in_thread
from antflow._engine import thread_source
from antflow._engine.thread_source import READ_AHEAD
from antflow.testing import Calls, run_virtual
from tests.engine.blocking import Log, Run, same
from tests.support import run_program, without_address

LONG = 30.0
"""Seconds that a step waits at most, in a test that ends it before."""


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("antflow source")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Every test ends without a thread, at the latest a moment after its loop."""
    yield
    if threads():
        gc.collect()
    until = time.monotonic() + 5
    while threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert threads() == []


def numbers() -> Iterator[int]:
    yield from range(5)


class Sequence:
    """Old protocol."""

    def __getitem__(self, index: int) -> int:
        if index == 5:
            raise IndexError
        return index


KINDS: dict[str, Callable[[], Any]] = {
    "generator function": lambda: numbers,
    "function": lambda: lambda: [0, 1, 2, 3, 4],
    "generator": numbers,
    "list": lambda: [0, 1, 2, 3, 4],
    "old protocol": Sequence,
    "class": lambda: FiveNumbers,
}


class FiveNumbers:
    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


async def by_run(pipeline: Pipeline, items: Any) -> list[Any]:
    return (await pipeline.run(items)).values()


async def by_stream(pipeline: Pipeline, items: Any) -> list[Any]:
    return [result.value async for result in pipeline.stream(items, ordered=True)]


async def by_feed(pipeline: Pipeline, items: Any) -> list[Any]:
    await pipeline.feed(items)
    await pipeline.join()
    return pipeline.results.values()


async def by_feed_async(pipeline: Pipeline, items: Any) -> list[Any]:
    async with pipeline.open() as run:
        await pipeline.feed_async(items)
    return run.results.values()


async def by_iteration(_: Pipeline, items: Any) -> list[Any]:
    return [item async for item in items]


WAYS = [by_run, by_stream, by_feed, by_feed_async, by_iteration]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_source_in_a_thread_of_every_kind(way: Any, kind: str) -> None:
    """Everything that can be iterated, or makes what can be, goes in by every door."""

    async def main() -> list[Any]:
        return await way(Pipeline([Stage("Work", 2, [same])]), in_thread(KINDS[kind]()))  # type: ignore[no-any-return]

    assert run_virtual(main) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("length", [0, 1, READ_AHEAD, READ_AHEAD + 1, 1000])
def test_source_in_a_thread_of_every_length(run: Run, length: int) -> None:
    """All items come, in order, however many are read ahead at a time."""
    pipeline = Pipeline([Stage("Work", 3, [same])])
    assert run(pipeline.run(in_thread(lambda: range(length)))).values() == list(range(length))


def test_source_is_made_read_and_closed_in_one_thread(run: Run) -> None:
    """One thread has the source to itself, and is not the event loop's."""
    seen: list[int] = []

    def source() -> Iterator[int]:
        seen.append(threading.get_ident())
        try:
            for number in range(100):
                seen.append(threading.get_ident())
                yield number
        finally:
            seen.append(threading.get_ident())

    run(Pipeline([Stage("Work", 2, [same])]).run(in_thread(source)))
    assert len(seen) == 102
    assert len(set(seen)) == 1
    assert seen[0] != threading.get_ident()


def test_database_cursor_that_must_not_change_threads(tmp_path: Path, run: Run) -> None:
    """A cursor of sqlite3 that a function opens is read as it should be."""
    path = tmp_path / "rows.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE rows (number)")
        connection.executemany("INSERT INTO rows VALUES (?)", [(n,) for n in range(100)])
        connection.commit()

    def rows() -> Iterator[int]:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for (number,) in connection.execute("SELECT number FROM rows ORDER BY number"):
                yield number

    pipeline = Pipeline([Stage("Work", 2, [same])])
    assert run(pipeline.run(in_thread(rows))).values() == list(range(100))


def test_database_cursor_that_was_made_elsewhere(run: Run) -> None:
    """A cursor that was opened in another thread fails, and the way out is told."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        cursor = connection.execute("SELECT 1")
        with pytest.raises(sqlite3.ProgrammingError) as caught:
            run(Pipeline([Stage("Work", 2, [same])]).run(in_thread(cursor)))
    assert "give in_thread() the function that makes it" in caught.value.__notes__[0]


def test_source_in_a_thread_stops_nothing(run: Run, caplog: Log) -> None:
    """Other items are worked on, and in time, while the source blocks."""
    worked_on = threading.Event()
    while_it_blocked: list[bool] = []

    def blocking() -> Iterator[int]:
        yield 1
        while_it_blocked.append(worked_on.wait(LONG))
        yield 2

    async def work(value: int) -> int:
        for _ in range(5):
            await asyncio.sleep(0.01)
        worked_on.set()
        return value

    stage = Stage("Work", 2, [work], timeout=LONG / 2, task_attempts=1)
    assert run(Pipeline([stage]).run(in_thread(blocking))).failed == []
    assert while_it_blocked == [True]
    assert caplog.records == []


def test_each_item_goes_on_at_once(run: Run) -> None:
    """An item does not wait for the next one, which may take long."""
    arrived = threading.Event()
    waited: list[bool] = []

    def source() -> Iterator[int]:
        for number in range(20):
            yield number
            waited.append(arrived.wait(LONG))
            arrived.clear()

    async def work(value: int) -> int:
        arrived.set()
        return value

    run(Pipeline([Stage("Work", 1, [work])]).run(in_thread(source)))
    assert waited == [True] * 20


@pytest.mark.parametrize("is_iterator", [True, False])
def test_items_that_a_run_drops_are_told(is_iterator: bool, caplog: Log) -> None:
    """A run that ends early says how many items it had read ahead, and where to go on."""
    read = 0

    def numbers() -> Iterator[int]:
        nonlocal read
        for read in count(1):
            yield read - 1

    async def main() -> int:
        pipeline = Pipeline([Stage("Work", 2, [same], queue_capacity=3)])
        source = in_thread(numbers() if is_iterator else numbers)
        async with pipeline.stream(source, buffer_size=1) as stream:
            async for _ in stream:
                if read >= READ_AHEAD:
                    break
        return pipeline.get_stats().items_accepted

    caplog.set_level("INFO", "antflow")
    accepted = asyncio.run(main())
    (record,) = (each for each in caplog.records if "ended early" in each.message)
    assert record.levelname == ("WARNING" if is_iterator else "INFO")
    assert f"drops {read - accepted} items that it had read ahead from numbers" in record.message
    assert f"from {accepted} on" in record.message


def test_run_that_reads_everything_drops_nothing(caplog: Log) -> None:
    """Nothing is said where a source was read to its end, or an error ended it."""

    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [same])])
        await pipeline.run(in_thread(iter(range(100))))
        with pytest.raises(ValueError, match="broken"):
            await pipeline.run(in_thread(broken()))

    caplog.set_level("INFO", "antflow")
    asyncio.run(main())
    assert not [each for each in caplog.records if "ended early" in each.message]


def test_items_read_ahead_are_bounded() -> None:
    """No more is read than a few items beyond what there is room for."""
    read: list[int] = []

    def source() -> Iterator[int]:
        for number in range(10_000):
            read.append(number)
            yield number

    async def main() -> None:
        calls = Calls(seconds=1)
        pipeline = Pipeline([Stage("Work", 1, [calls], queue_capacity=1)])
        running = asyncio.ensure_future(pipeline.run(in_thread(source)))
        await asyncio.sleep(100.5)
        assert len(calls.made) == 101
        assert len(read) <= 150
        running.cancel()
        await asyncio.wait([running])

    run_virtual(main)


@pytest.mark.parametrize("made", ["here", "there"])
@pytest.mark.parametrize("position", [1, READ_AHEAD, 50])
def test_source_in_a_thread_that_raises(position: int, made: str) -> None:
    """What the source raises comes out of the run, after what came before it is through."""

    def failing() -> Iterator[int]:
        yield from range(position)
        raise KeyError("source")

    async def main() -> None:
        source: Any = failing() if made == "here" else failing
        with pytest.raises(KeyError, match="source") as caught:
            await Pipeline([Stage("Work", 2, [Calls(seconds=1)])]).run(in_thread(source))
        assert caught.value.results.values() == list(range(position))  # type: ignore[attr-defined]
        assert not hasattr(caught.value, "__notes__")
        assert "failing" in [frame.name for frame in _frames(caught.value)]

    run_virtual(main)


def _frames(error: BaseException) -> Any:
    import traceback

    return traceback.extract_tb(error.__traceback__)


class Raises:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self) -> Iterator[int]:
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyError("made"), KeyError),
        (StopIteration("made"), RuntimeError),
        (StopAsyncIteration("made"), RuntimeError),
        (asyncio.CancelledError("made"), Exception),
        (GeneratorExit("made"), GeneratorExit),
        (SystemExit("made"), SystemExit),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_source_that_cannot_be_made(error: BaseException, expected: Any) -> None:
    """What the function raises comes out, and is never taken for the end of the items."""

    async def main() -> None:
        with pytest.raises(expected):
            [item async for item in in_thread(Raises(error))]

    if isinstance(error, asyncio.CancelledError):
        with pytest.raises(Exception, match="the source raised CancelledError"):
            run_virtual(lambda: Pipeline([Stage("Work", 1, [same])]).run(in_thread(Raises(error))))
    else:
        with contextlib.suppress(SystemExit):
            run_virtual(main)


@pytest.mark.parametrize("error", [StopIteration("x"), StopAsyncIteration("x")], ids=repr)
@pytest.mark.parametrize("way", [by_run, by_stream, by_feed_async, by_iteration])
def test_source_that_raises_what_ends_a_loop(way: Any, error: Exception) -> None:
    """A StopAsyncIteration of the source is an error, and never taken for the end of the items."""

    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise error

    async def main() -> None:
        with pytest.raises(RuntimeError, match="Stop") as caught:
            await way(Pipeline([Stage("Work", 2, [same])]), in_thread(Broken()))
        assert caught.value.__cause__ is error

    run_virtual(main)


def test_anext_with_a_heartbeat_loses_no_item(run: Run) -> None:
    """An ``anext`` that is given up, over and over: each item comes once, then the end for ever."""

    def slow() -> Iterator[int]:
        for number in range(10):
            time.sleep(0.05 if number == 5 else 0)
            yield number

    async def main() -> None:
        items = aiter(in_thread(slow))
        came: list[int] = []
        given_up = 0
        while len(came) < 10:
            try:
                came.append(await asyncio.wait_for(anext(items), 0.01))
            except TimeoutError:
                given_up += 1
        assert came == list(range(10))
        assert given_up > 0
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(items)

    run(main())


def test_several_tasks_share_the_items(run: Run) -> None:
    """Each item goes to one of the tasks that ask at the same time, and all come to the end."""

    def slow() -> Iterator[int]:
        for number in range(100):
            if number % 20 == 0:
                time.sleep(0.01)
            yield number

    async def main() -> None:
        items = aiter(in_thread(slow))
        came: list[int] = []

        async def consume() -> None:
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    came.append(await anext(items))

        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(consume())
        assert sorted(came) == list(range(100))

    run(main())


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt("x")], ids=repr)
def test_error_of_the_source_comes_out_once(error: BaseException) -> None:
    """It comes out after the items before it, also if an ``anext`` was given up; then the end."""

    def failing() -> Iterator[int]:
        yield 1
        raise error

    async def main() -> None:
        items = aiter(in_thread(failing))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 0)
        assert await anext(items) == 1
        with pytest.raises(type(error)) as caught:
            await anext(items)
        assert caught.value is error
        with pytest.raises(StopAsyncIteration):
            await anext(items)

    run_virtual(main)


@pytest.mark.parametrize("made", [None, 5, "abc", {"a": 1}, object()], ids=without_address)
def test_function_that_makes_no_iterable(made: Any) -> None:
    """What the function returns must be a collection of items, as what is given to `run`."""

    async def main() -> None:
        with pytest.raises(TypeError, match="items="):
            await Pipeline([Stage("Work", 1, [same])]).run(in_thread(lambda: made))

    run_virtual(main)


async def async_numbers() -> AsyncGenerator[int, None]:
    yield 1


async def coroutine_function() -> list[int]:
    return []


NO_SOURCES = [None, 5, "abc", b"abc", {"a": 1}, async_numbers, coroutine_function, lambda x: [x]]


@pytest.mark.parametrize("source", NO_SOURCES, ids=lambda source: repr(source)[:20])
def test_refuses_what_cannot_be_read_in_a_thread(source: Any) -> None:
    """What cannot be read in a thread is refused at once."""
    with pytest.raises(TypeError, match=r"(source|items)="):
        in_thread(source)


def test_async_iterable_is_refused() -> None:
    """An async iterable needs no thread."""

    async def main() -> None:
        async with aclosing(async_numbers()) as numbers:
            with pytest.raises(TypeError, match="needs no thread"):
                in_thread(numbers)  # type: ignore[arg-type]

    run_virtual(main)


def test_context_variables_of_the_caller_are_the_sources() -> None:
    """The source sees the context variables of the run, and keeps its own from step to step."""
    tenant: ContextVar[str] = ContextVar("tenant")
    seen: list[str] = []

    def source() -> Iterator[int]:
        seen.append(tenant.get())
        tenant.set("of the source")
        yield 1
        seen.append(tenant.get())
        yield 2

    async def main() -> None:
        tenant.set("of the caller")
        await Pipeline([Stage("Work", 1, [same])]).run(in_thread(source))
        assert tenant.get() == "of the caller"

    run_virtual(main)
    assert seen == ["of the caller", "of the source"]


def test_source_of_a_function_can_be_read_again(run: Run) -> None:
    """Two runs, one after the other or at once, each read the source from its beginning."""
    source = in_thread(numbers)
    pipeline = Pipeline([Stage("Work", 1, [same])])

    async def main() -> None:
        for _ in range(2):
            assert (await pipeline.run(source)).values() == [0, 1, 2, 3, 4]
        for results in await asyncio.gather(pipeline.run(source), pipeline.run(source)):
            assert results.values() == [0, 1, 2, 3, 4]

    run(main())


def test_length_is_that_of_the_source() -> None:
    """A source with a length has it in a thread too; a function has none, and is not asked."""
    sized: Any = in_thread([1, 2, 3])
    assert len(sized) == 3
    assert not hasattr(in_thread(numbers), "__len__")
    assert not hasattr(in_thread(numbers()), "__len__")
    empty: Any = in_thread([])
    assert empty


# The end of a run


class Watched:
    """A source whose thread and clean-up can be seen; ``blocks`` at its fourth item."""

    def __init__(self, *, blocks: bool = False) -> None:
        self.goes_on = threading.Event()
        self.blocks = blocks
        self.is_blocked = threading.Event()
        self.closed_in: list[str] = []

    def __call__(self) -> Iterator[int]:
        try:
            for number in count():
                if number == 3 and self.blocks:
                    self.is_blocked.set()
                    self.goes_on.wait(LONG)
                yield number
        finally:
            self.closed_in.append(threading.current_thread().name)


async def until_blocked(watched: Watched) -> None:
    while watched.blocks and not watched.is_blocked.is_set():
        await asyncio.sleep(0.01)


async def leave_the_stream(watched: Watched) -> None:
    stream = Pipeline([Stage("Work", 1, [same])]).stream(in_thread(watched))
    async with aclosing(stream) as results:
        async for _ in results:
            await until_blocked(watched)
            break


async def cancel_the_run(watched: Watched) -> None:
    running = asyncio.ensure_future(Pipeline([Stage("Work", 1, [same])]).run(in_thread(watched)))
    await until_blocked(watched)
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait([running])


async def time_out(watched: Watched) -> None:
    with pytest.raises(TimeoutError):
        await Pipeline([Stage("Work", 1, [same])]).run(in_thread(watched), timeout=0.3)


async def fail_too_often(watched: Watched) -> None:
    async def fail(value: int) -> None:
        await until_blocked(watched)
        raise ValueError(value)

    stage = Stage("Work", 1, [fail], task_attempts=1)
    with pytest.raises(Exception, match="max_failures=2"):
        await Pipeline([stage]).run(in_thread(watched), max_failures=2)


async def shut_down_while_feeding(watched: Watched) -> None:
    pipeline = Pipeline([Stage("Work", 1, [Calls(seconds=0.01)])])
    await pipeline.start()
    feeding = asyncio.ensure_future(pipeline.feed_async(in_thread(watched)))
    await until_blocked(watched)
    await asyncio.sleep(0.05)
    await pipeline.shutdown()
    if watched.blocks:
        feeding.cancel()
    await asyncio.wait([feeding])
    assert feeding.cancelled() or feeding.exception() is not None


async def break_out(watched: Watched) -> None:
    async for _ in in_thread(watched):
        break
    gc.collect()
    await asyncio.sleep(0.1)


ENDS = [
    leave_the_stream,
    cancel_the_run,
    pytest.param(time_out, marks=pytest.mark.real_time),
    fail_too_often,
    shut_down_while_feeding,
]


@pytest.mark.parametrize("end", [*ENDS, break_out], ids=lambda end: end.__name__)
def test_source_is_closed_when_no_more_is_wanted(end: Any, run: Run, caplog: Log) -> None:
    """However a run ends early, the source cleans up in its thread, and the thread ends."""
    watched = Watched()
    run(end(watched))
    assert watched.closed_in == ["antflow source Watched"]
    assert [record for record in caplog.records if "left behind" in record.getMessage()] == []


def test_step_that_ends_soon_is_waited_for(run: Run, caplog: Log) -> None:
    """A step that is under way when no more is wanted has a moment to end: no thread is left."""

    def slow() -> Iterator[int]:
        yield 1
        time.sleep(0.15)
        yield 2

    async def main() -> None:
        async with Pipeline([Stage("Work", 1, [same])]).stream(in_thread(slow)) as results:
            await anext(results)

    run(main())
    assert caplog.records == []


def test_cursor_that_is_kept_elsewhere_is_closed(run: Run) -> None:
    """What has a ``close`` is closed, and not left to whoever drops the last reference to it."""
    closed_in: list[str] = []

    class Cursor:
        def __iter__(self) -> Cursor:
            return self

        def __next__(self) -> int:
            return 1

        def close(self) -> None:
            closed_in.append(threading.current_thread().name)

    cursor = Cursor()

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])])
        async with pipeline.stream(in_thread(lambda: cursor)) as results:
            await anext(results)

    run(main())
    assert len(closed_in) == 1
    assert closed_in[0].startswith("antflow source")


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_step_that_blocks_does_not_hold_up_the_end(
    end: Any, run: Run, caplog: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that does not come back is waited for a moment, told of once, and left behind."""
    monkeypatch.setattr(thread_source, "PATIENCE", 0.05)
    watched = Watched(blocks=True)
    began = time.monotonic()
    run(end(watched))
    assert time.monotonic() - began < LONG / 2
    assert watched.closed_in == []
    told = [record for record in caplog.records if "left behind" in record.getMessage()]
    assert len(told) == 1
    assert "the source Watched is still" in told[0].getMessage()
    watched.goes_on.set()
    [thread] = threads()
    thread.join(LONG)
    assert watched.closed_in == ["antflow source Watched"]


def test_iterator_that_is_dropped_while_a_step_blocks(
    run: Run, caplog: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that does not come back is told of; the thread ends after it."""
    monkeypatch.setattr(thread_source, "PATIENCE", 0.05)
    watched = Watched(blocks=True)

    async def main() -> None:
        async for _ in in_thread(watched):
            await until_blocked(watched)
            break
        async with asyncio.timeout(5):
            while not caplog.records:
                await asyncio.sleep(0.01)

    try:
        run(main())
        [thread] = threads()
    finally:
        watched.goes_on.set()
    assert "the source Watched is still" in caplog.records[0].getMessage()
    thread.join(LONG)
    assert watched.closed_in == ["antflow source Watched"]


def test_no_more_is_read_when_no_more_is_wanted(run: Run) -> None:
    """The step that is under way is the last one."""
    steps: list[int] = []

    def slow() -> Iterator[int]:
        for number in count():
            steps.append(number)
            time.sleep(0.02)
            yield number

    async def main() -> None:
        items: Any = aiter(in_thread(slow))
        await anext(items)
        before = len(steps)
        await items.aclose()
        assert len(steps) <= before + 1

    run(main())


def test_clean_up_that_is_not_waited_for_goes_on(run: Run) -> None:
    """A clean-up that takes long is finished by its thread, also when no one waits any more."""
    goes_on = threading.Event()
    closed: list[str] = []

    def slow_to_close() -> Iterator[int]:
        try:
            yield from count()
        finally:
            goes_on.wait(LONG)
            closed.append(threading.current_thread().name)

    async def main() -> None:
        items: Any = aiter(in_thread(slow_to_close))
        await anext(items)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await items.aclose()

    run(main())
    goes_on.set()
    for thread in threads():
        thread.join(LONG)
    assert closed == ["antflow source slow_to_close"]


@pytest.mark.parametrize("kind", [staticmethod, property])
def test_clean_up_that_raises_is_told_of(kind: Any, run: Run, caplog: Log) -> None:
    """What the source's clean-up raises, or looking for it, is logged, as with any source."""

    def clean_up(*_: Any) -> NoReturn:
        raise OSError("clean-up")

    class Items(Iterator[int]):
        def __next__(self) -> int:
            raise StopIteration

        close = kind(clean_up)

    assert run(Pipeline([Stage("Work", 1, [same])]).run(in_thread(Items))) == []
    [record] = caplog.records
    assert record.getMessage() == "the source's clean-up failed"


@pytest.mark.parametrize(("blocks", "keeps"), [(False, False), (True, False), (True, True)])
def test_loop_that_is_closed_early(blocks: bool, keeps: bool, caplog: Log) -> None:
    """An event loop that is closed without more ado leaves no thread, and the source is closed.

    At the latest when the step that blocks is over, or when the iterator is given up.
    """
    watched = Watched(blocks=blocks)
    loop = asyncio.new_event_loop()
    items = aiter(in_thread(watched))
    loop.run_until_complete(anext(items))
    if blocks:
        watched.is_blocked.wait(LONG)
    loop.close()
    watched.goes_on.set()
    if not keeps:
        del items
    until = time.monotonic() + LONG
    while not watched.closed_in and time.monotonic() < until:
        time.sleep(0.01)
    assert watched.closed_in == ["antflow source Watched"]
    assert caplog.records == []


@pytest.mark.parametrize("blocks", [False, True])
def test_loop_that_is_closed_under_a_run(blocks: bool) -> None:
    """Whatever the run waits for then, its source is closed in its thread, and the thread ends."""
    watched = Watched(blocks=blocks)

    async def work(value: int) -> int:
        await asyncio.sleep(LONG)
        return value

    async def main() -> None:
        stage = Stage("Work", 1, [work], queue_capacity=1)
        running = asyncio.ensure_future(Pipeline([stage]).run(in_thread(watched)))
        await asyncio.sleep(0.1)
        await until_blocked(watched)
        assert not running.done()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # asyncio tells of each task that was left
    loop.run_until_complete(main())
    loop.close()
    watched.goes_on.set()
    until = time.monotonic() + LONG
    while not watched.closed_in and time.monotonic() < until:
        gc.collect()
        time.sleep(0.01)
    assert watched.closed_in == ["antflow source Watched"]


def test_cancelled_at_once_leaves_nothing() -> None:
    """A run that is cancelled before the source began has no thread."""

    async def main() -> None:
        watched = Watched()
        running = asyncio.ensure_future(
            Pipeline([Stage("Work", 1, [same])]).run(in_thread(watched))
        )
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])

    run_virtual(main)


@pytest.mark.parametrize("end", ["break", "return", "cancelled"])
def test_source_that_is_open_when_the_program_ends(end: str) -> None:
    """`asyncio.run` waits until it has cleaned up, whether its iterator was dropped or not."""
    done = run_program(f"""
        import asyncio, time
        from antflow import in_thread

        def source():
            try:
                yield from range(1000)
            finally:
                time.sleep(0.2)
                print("closed\\n", end="")

        async def main():
            items = aiter(in_thread(source))
            await anext(items)
            if {end!r} == "break":
                del items
                async for _ in in_thread(source):
                    break
            if {end!r} == "cancelled":
                raise asyncio.CancelledError

        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            pass
        print("over")
    """)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["closed"] * (1 + (end == "break")) + ["over"]


def test_thread_that_blocks_for_ever_does_not_keep_python() -> None:
    """A program whose source never comes back ends by itself."""
    done = run_program("""
        import asyncio, threading
        from antflow import Pipeline, Stage, in_thread

        def source():
            yield 1
            threading.Event().wait()

        async def same(value):
            return value

        async def main():
            try:
                await Pipeline([Stage("Work", 1, [same])]).run(in_thread(source), timeout=0.2)
            except TimeoutError as error:
                print(error.results)

        asyncio.run(main())
    """)
    assert done.returncode == 0, done.stderr
    assert "1 ok" in done.stdout


@pytest.mark.real_time
def test_thread_is_idle_while_nothing_is_taken(run: Run) -> None:
    """Neither the thread nor the event loop does anything while both wait."""

    async def main() -> float:
        items: Any = aiter(in_thread(lambda: range(1000)))
        await anext(items)
        await asyncio.sleep(0.1)
        began = time.process_time()
        await asyncio.sleep(0.5)
        used = time.process_time() - began
        await items.aclose()
        return used

    assert run(main()) < 0.1


def test_tracker_hears_of_each_item() -> None:
    """A tracker with callbacks follows the items of such a source like those of any other."""
    seen: list[Any] = []

    async def hear(event: Any) -> None:
        await asyncio.sleep(1)
        seen.append((event.item_id, event.status))

    async def main() -> None:
        tracker = StatusTracker(on_status_change=hear)
        pipeline = Pipeline([Stage("Work", 1, [same])], status_tracker=tracker)
        await pipeline.run(in_thread(lambda: range(3)))

    run_virtual(main)
    for number in range(3):
        assert [s for i, s in seen if i == number] == ["queued", "in_progress", "completed"]


def test_quick_switches_between_the_two_lose_no_wake_up(run: Run) -> None:
    """Under a scheduler that switches threads all the time, all items come."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        async def main() -> None:
            for _ in range(20):
                got = [item async for item in in_thread(lambda: range(500))]
                assert got == list(range(500))

        run(asyncio.wait_for(main(), 60))
    finally:
        sys.setswitchinterval(interval)
