"""Of settled items, calls and runs, nothing is kept but what the user was promised.

Idle workers keep nothing of their last item: the next one may be long in coming.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Coroutine, Iterator
from contextvars import Context, copy_context
from traceback import walk_tb
from typing import Any

import pytest

from antflow import (
    AsyncExecutor,
    Drop,
    Pipeline,
    Stage,
    StatusTracker,
    TooManyFailures,
    in_thread,
    set_task_status,
)
from antflow.testing import run_virtual


class Thing:
    """Something that can be referred to weakly."""

    def __init__(self, seen: list[weakref.ref[Thing]] | None = None) -> None:
        if seen is not None:
            seen.append(weakref.ref(self))

    def __call__(self, value: Any) -> Any:
        return value


def renewed(value: Thing) -> Thing:
    """A task for a child process."""
    return Thing()


def all_renewed(values: list[Thing]) -> list[Thing]:
    """A task for a child process, for batches."""
    return [Thing() for _ in values]


async def _dead(things: list[weakref.ref[Thing]]) -> bool:
    """Whether they are gone, as soon as the threads have come to let go of them."""
    for _ in range(500):
        gc.collect()
        if not any(thing() for thing in things):
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize(
    "executor", ["thread", "inline", pytest.param("process", marks=pytest.mark.process)]
)
@pytest.mark.parametrize("batch", [None, 2])
def test_idle_worker_keeps_no_item(executor: Any, batch: int | None) -> None:
    """When an item is through and its result was dropped, neither value nor result is kept."""
    seen: list[weakref.ref[Thing]] = []

    def renew(value: Any) -> Any:
        set_task_status("renewing")
        if batch is not None:
            return [Thing(seen) for _ in value]
        return Thing(seen)

    in_process: Any = renewed if batch is None else all_renewed
    task = in_process if executor == "process" else renew
    stages = [Stage("A", 2, [task], executor=executor, batch=batch)]

    async def main() -> None:
        async with Pipeline(stages, collect_results=False).open() as run:
            await run.feed(Thing(seen) for _ in range(6))
            while run.snapshot().pipeline_stats.items_in_flight:
                await asyncio.sleep(0.001)
            assert len(seen) >= 6
            assert await _dead(seen)

    asyncio.run(main())


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, Drop])
def test_idle_worker_keeps_no_item_that_failed(error: type[BaseException]) -> None:
    """However the last item ended, its value and its error are gone."""
    seen: list[weakref.ref[Thing]] = []

    def fail(value: Thing) -> None:
        raise error

    async def main() -> None:
        stage = Stage("A", 2, [fail], task_attempts=1)
        async with Pipeline([stage], collect_results=False).open() as run:
            await run.feed(Thing(seen) for _ in range(6))
            while run.snapshot().pipeline_stats.items_in_flight:
                await asyncio.sleep(0.001)
            assert await _dead(seen)

    asyncio.run(main())


def test_executor_keeps_nothing_of_a_call() -> None:
    """Neither a function nor its argument or its result, once its future is dropped."""
    seen: list[weakref.ref[Thing]] = []

    def renew(value: Thing) -> Thing:
        return Thing(seen)

    async def main() -> None:
        async with AsyncExecutor(2) as executor:
            for _ in range(5):
                await executor.submit(renew, Thing(seen))
                await executor.submit(Thing(seen), 1)
            assert len(seen) == 15
            assert await _dead(seen)

    asyncio.run(main())


def calls_that_fail(error: Exception, seen: list[weakref.ref[Thing]]) -> dict[str, Any]:
    """Functions that raise the same exception each time, with a thing at hand."""

    async def at_once(value: Thing) -> None:
        page = Thing(seen)  # noqa: F841 - its frame has it
        raise error

    async def after_a_while(value: Thing) -> None:
        page = Thing(seen)  # noqa: F841 - its frame has it
        await asyncio.sleep(0)
        raise error

    def plain(value: Thing) -> None:
        page = Thing(seen)  # noqa: F841 - its frame has it
        raise error

    return {"at once": at_once, "after a while": after_a_while, "plain": plain}


def length_of(error: BaseException) -> int:
    """How many entries its traceback has."""
    return sum(1 for _ in walk_tb(error.__traceback__))


FUNCTIONS = ["at once", "after a while", "plain"]
WAYS = ["futures", "retries", "map", "map_iter"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_error_that_all_calls_raise_keeps_none_of_them(function: str, how: str) -> None:
    """One exception, raised by each call, keeps no arguments and does not grow with the calls."""
    error = ConnectionError("the circuit is open")
    seen: list[weakref.ref[Thing]] = []
    fail = calls_that_fail(error, seen)[function]

    async def call(executor: AsyncExecutor, count: int) -> None:
        answers: Any
        if how == "map":
            answers = (executor.map(fail, [Thing(seen)]) for _ in range(count))
        elif how == "map_iter":
            answers = (anext(executor.map_iter(fail, [Thing(seen)])) for _ in range(count))
        else:
            again: Any = {"retries": 2 if how == "retries" else 0, "retry_delay": 0}
            answers = [executor.submit(fail, Thing(seen), **again) for _ in range(count)]
            await executor.wait(answers)
        for answer in answers:
            with pytest.raises(ConnectionError):
                await answer

    async def main() -> None:
        lengths = []
        async with AsyncExecutor(4) as executor:
            for count in (40, 400):
                await call(executor, count)
                assert await _dead(seen)
                lengths.append(length_of(error))
        assert max(lengths) < 40

    asyncio.run(main())
    assert len(seen) >= 880


@pytest.mark.parametrize("function", FUNCTIONS)
def test_error_of_a_try_before_the_last_keeps_nothing(function: str) -> None:
    """The same is true where each call goes well in the end."""
    error = ConnectionError("once in a while")
    seen: list[weakref.ref[Thing]] = []
    fail = calls_that_fail(error, seen)[function]
    tried: set[int] = set()

    async def once(number: int) -> None:
        if number not in tried:
            tried.add(number)
            await fail(Thing(seen))

    def once_plainly(number: int) -> None:
        if number not in tried:
            tried.add(number)
            fail(Thing(seen))

    async def main() -> None:
        async with AsyncExecutor(4) as executor:
            work: Any = once_plainly if function == "plain" else once
            await executor.map(work, range(100), retries=1, retry_delay=0)
            assert await _dead(seen)

    asyncio.run(main())
    assert len(seen) == 200
    assert length_of(error) < 40


def test_future_keeps_nothing_of_a_call_that_is_still_raising() -> None:
    """Where another call cleans up after the same error just then, its variables are not kept."""
    error = ConnectionError("the circuit is open")
    seen: list[weakref.ref[Thing]] = []

    async def main() -> None:
        go_on = asyncio.Event()

        async def fail(value: Thing | None) -> None:
            try:
                raise error
            finally:
                if value is not None:
                    await go_on.wait()

        async with AsyncExecutor(2) as executor:
            futures = [executor.submit(fail, None), executor.submit(fail, Thing(seen))]
            await executor.wait(futures, return_when="FIRST_COMPLETED")
            go_on.set()
            await executor.wait(futures)
        assert await _dead(seen)
        assert all(future.exception() is error for future in futures)

    asyncio.run(main())


def test_error_of_a_cancelled_plain_call_keeps_nothing() -> None:
    """A plain function that fails after its call was cancelled: nothing waits for its error."""
    error = ConnectionError("too late")
    seen: list[weakref.ref[Thing]] = []
    goes_on = threading.Event()

    def fail(value: Thing) -> None:
        goes_on.wait(60)
        raise error

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            future = executor.submit(fail, Thing(seen))
            await asyncio.sleep(0.01)
            future.cancel()
            goes_on.set()
        assert await _dead(seen)

    asyncio.run(main())
    assert error.__traceback__ is not None


@pytest.mark.parametrize("is_plain", [False, True])
@pytest.mark.parametrize("count", [1, 5])
def test_map_iter_keeps_no_arguments_of_settled_calls(count: int, is_plain: bool) -> None:
    """Neither while its reader takes a rest, nor when it is over and still there."""
    seen: list[weakref.ref[Thing]] = []

    async def work(value: Thing) -> int:
        return 1

    def work_plainly(value: Thing) -> int:
        return 1

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            function: Any = work_plainly if is_plain else work
            values = executor.map_iter(function, (Thing(seen) for _ in range(count)))
            await anext(values)
            assert await _dead(seen)
            assert [value async for value in values] == [1] * (count - 1)
            assert await _dead(seen)
        assert len(seen) == count

    asyncio.run(main())


def test_map_keeps_no_arguments_of_settled_calls() -> None:
    """While it waits for a slow call, those of the others are gone."""
    seen: list[weakref.ref[Thing]] = []

    async def main() -> None:
        go_on = asyncio.Event()

        async def work(value: Thing | None) -> None:
            if value is None:
                await go_on.wait()

        async with AsyncExecutor(2) as executor:
            things = (Thing(seen) if number < 5 else None for number in range(6))
            mapping = asyncio.create_task(executor.map(work, things))
            while len(seen) < 5:
                await asyncio.sleep(0)
            assert await _dead(seen)
            go_on.set()
            await mapping

    asyncio.run(main())


@pytest.mark.parametrize("how", ["map", "map_iter", "as_completed"])
def test_error_of_a_map_keeps_neither_arguments_nor_results(how: str) -> None:
    """Who holds the exception that ended it holds nothing of its calls."""
    seen: list[weakref.ref[Thing]] = []

    async def work(value: Thing | None) -> Thing:
        if value is None:
            await asyncio.sleep(0.001)  # the next call has its result by then
            raise LookupError("there is none")
        return Thing(seen)

    def things() -> list[Thing | None]:
        return [Thing(seen), Thing(seen), None, *(Thing(seen) for _ in range(9))]

    async def call(executor: AsyncExecutor) -> None:
        if how == "map":
            await executor.map(work, things())
        elif how == "map_iter":
            async for value in executor.map_iter(work, things()):
                del value
        else:
            async for future in executor.as_completed([executor.submit(work, None)]):
                await future

    async def main() -> None:
        error = None
        async with AsyncExecutor(2) as executor:
            try:
                await call(executor)
            except LookupError as failure:
                error = failure
            assert await _dead(seen)
        assert error is not None

    asyncio.run(main())
    assert seen or how == "as_completed"


@pytest.mark.parametrize("how", ["task", "call_later"])
def test_rounds_that_begin_the_next_are_not_kept(how: str) -> None:
    """Where a task of each run begins the next, through a task or a timer, runs do not pile up."""
    seen: list[weakref.ref[Thing]] = []
    kept: list[int] = []
    under_way: set[asyncio.Task[None]] = set()

    async def main() -> None:
        ended = asyncio.Event()

        async def play(number: int) -> None:
            async def work(_: int) -> Thing:
                if number == 10:
                    gc.collect()
                    kept.append(sum(thing() is not None for thing in seen))
                    ended.set()
                elif how == "task":
                    begin(play_later(number + 1))
                else:
                    loop = asyncio.get_running_loop()
                    loop.call_later(0.01, lambda: begin(play(number + 1)))
                return Thing(seen)

            await Pipeline([Stage("A", 1, [work])]).run([number])

        async def play_later(number: int) -> None:
            await asyncio.sleep(0.01)
            await play(number)

        def begin(play: Coroutine[Any, Any, None]) -> None:
            task = asyncio.create_task(play)
            under_way.add(task)
            task.add_done_callback(under_way.discard)

        await play(1)
        await ended.wait()
        await asyncio.gather(*under_way)

    asyncio.run(main())
    assert len(seen) == 10
    assert kept[0] <= 2


@pytest.mark.parametrize("how", ["run", "stream", "ordered", "open", "retry_failed"])
def test_context_of_a_run_that_is_over_keeps_neither_items_nor_results(how: str) -> None:
    """A client's timer or task, begun in a task of a run, does not keep what went through it."""
    seen: list[weakref.ref[Thing]] = []
    contexts: list[Context] = []

    async def work(_: Thing) -> Thing:
        contexts.append(copy_context())
        if how == "retry_failed" and len(contexts) <= 6:
            raise ValueError
        return Thing(seen)

    async def go_through() -> None:
        pipeline = Pipeline([Stage("A", 2, [work], task_attempts=1)])
        things = [Thing(seen) for _ in range(6)]
        if how == "open":
            async with pipeline.open() as run:
                await run.feed(things)
        elif how in ("run", "retry_failed"):
            results = await pipeline.run(things)
            await pipeline.run([], retry_failed=results.failed)
        else:
            async for _ in pipeline.stream(things, ordered=how == "ordered"):
                pass

    async def main() -> None:
        await go_through()
        del contexts[:-1]
        assert len(seen) == 12
        assert await _dead(seen)

    asyncio.run(main())


def test_pipeline_does_not_keep_the_items_of_a_stream() -> None:
    """When a stream is over, its pipeline keeps neither the list it was made of nor the results."""
    seen: list[weakref.ref[Thing]] = []

    async def read(pipeline: Pipeline[Any]) -> None:
        async for _ in pipeline.stream([Thing(seen) for _ in range(6)]):
            pass

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [str])])
        await read(pipeline)
        assert len(seen) == 6
        assert await _dead(seen)
        assert pipeline.get_stats().items_processed == 6

    asyncio.run(main())


def test_source_in_a_thread_keeps_no_item() -> None:
    """While the thread of a source waits for the next item, it does not keep the one before."""
    seen: list[weakref.ref[Thing]] = []
    more = threading.Event()

    def things() -> Iterator[Thing]:
        for _ in range(3):
            yield Thing(seen)
        more.wait(120)

    async def main() -> None:
        running = asyncio.create_task(
            Pipeline([Stage("A", 2, [str])], collect_results=False).run(in_thread(things))
        )
        try:
            while len(seen) < 3:
                await asyncio.sleep(0.001)
            assert await _dead(seen)
        finally:
            more.set()
            await running

    asyncio.run(main())


@pytest.mark.parametrize("how", ["run", "stream"])
@pytest.mark.parametrize("ending", ["timeout", "source"])
def test_pipeline_keeps_nothing_of_the_callers_that_got_its_error(how: str, ending: str) -> None:
    """The error that a run ended with is not kept, nor are the variables of those who saw it."""
    seen: list[weakref.ref[Thing]] = []

    def broken() -> Iterator[Thing]:
        yield Thing(seen)
        raise OSError

    async def call(pipeline: Pipeline[Any], body: Thing) -> None:
        items: Any = [1] if ending == "timeout" else broken()
        timeout = 0.01 if ending == "timeout" else None
        try:
            if how == "run":
                await pipeline.run(items, timeout=timeout)
            async for _ in pipeline.stream(items, timeout=timeout):
                pass
        except OSError:  # a TimeoutError is one
            return
        raise AssertionError(f"nothing was raised for {body}")

    async def wait(_: Any) -> None:
        await asyncio.sleep(3600 if ending == "timeout" else 0)

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [wait])], collect_results=False)
        await call(pipeline, Thing(seen))
        assert seen
        assert await _dead(seen)

    asyncio.run(main())


HANDLES = ["open", "open and join", "start", "async with", "stream"]


@pytest.mark.parametrize("how", HANDLES)
def test_handle_of_a_run_that_failed_keeps_no_variables_of_its_callers(how: str) -> None:
    """The handle, the pipeline or the stream: none keeps the frames that its error came through."""
    seen: list[weakref.ref[Thing]] = []
    kept: list[Any] = []

    async def wait(_: Any) -> None:
        await asyncio.sleep(3600)

    def broken() -> Iterator[int]:
        yield 1
        raise TimeoutError(Thing(seen).__class__)

    async def fail(_: int) -> None:
        raise ValueError

    async def go_through(body: Thing) -> None:
        if how.startswith("open"):
            async with Pipeline([Stage("A", 2, [wait])]).open(timeout=0.01) as run:
                kept.append(run)
                await run.feed([1])
                if how == "open and join":
                    await run.join()
        elif how == "stream":
            stream = Pipeline([Stage("A", 2, [str])]).stream(broken())
            kept.append(stream)
            async for _ in stream:
                pass
        else:
            pipeline = Pipeline([Stage("A", 2, [fail], task_attempts=1, max_failures=1)])
            kept.append(pipeline)
            await pipeline.start()
            kept.append(pipeline._started)
            await pipeline.feed([1])
            if how == "start":
                await pipeline.join()
            async with pipeline:
                await asyncio.sleep(0.01)

    async def call(body: Thing) -> None:
        try:
            await go_through(body)
        except (TimeoutError, TooManyFailures):
            return
        raise AssertionError(f"nothing was raised for {body}")

    async def main() -> None:
        await call(Thing(seen))
        assert seen
        assert kept
        assert await _dead(seen)

    asyncio.run(main())


def test_error_of_a_run_comes_out_again_as_a_copy() -> None:
    """Each `join` raises what ended the run, of the same class and with the same text."""

    async def wait(_: Any) -> None:
        await asyncio.sleep(3600)

    async def main() -> list[BaseException]:
        errors: list[BaseException] = []
        try:
            async with Pipeline([Stage("A", 2, [wait])]).open(timeout=1) as run:
                await run.feed([1])
                for end in (run.join, run.join, run.shutdown):
                    with pytest.raises(TimeoutError) as inside:
                        await end()
                    errors.append(inside.value)
        except TimeoutError as error:
            errors.append(error)
        return errors

    errors = run_virtual(main)
    assert len({id(error) for error in errors}) == 4
    assert {(type(error), str(error)) for error in errors} == {
        (TimeoutError, "the run was not over after 1 s")
    }
    results: list[Any] = [getattr(error, "results", None) for error in errors]
    assert [len(each.cancelled) for each in results] == [1] * 4


def test_error_of_a_run_that_the_body_lets_through_is_not_replaced() -> None:
    """What `join` raises inside of the block is what comes out of it."""

    async def wait(_: Any) -> None:
        await asyncio.sleep(3600)

    errors: list[BaseException] = []

    async def main() -> None:
        async with Pipeline([Stage("A", 2, [wait])]).open(timeout=1) as run:
            await run.feed([1])
            try:
                await run.join()
            except TimeoutError as error:
                errors.append(error)
                raise

    with pytest.raises(TimeoutError) as outside:
        run_virtual(main)
    assert errors == [outside.value]


@pytest.mark.parametrize("where", ["task", "batch", "batch tried alone", "on_done"])
def test_error_that_is_raised_each_time_keeps_neither_items_nor_calls(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One `Drop` that drops all items, one error of all batches, one of all done callbacks."""
    monkeypatch.setattr(logging.getLogger("antflow"), "disabled", True)  # pytest keeps the records
    error = Drop("not wanted") if where in ("task", "batch") else ValueError("each time")
    seen: list[weakref.ref[Thing]] = []

    def fail(value: Any) -> list[int]:
        if where == "batch tried alone" and len(value) == 1:
            return [1]
        raise error

    def call_back(future: Any) -> None:
        page = Thing(seen)  # noqa: F841 - its frame has it
        raise error

    async def main() -> None:
        if where != "on_done":
            stage = Stage("A", 2, [fail], batch=None if where == "task" else 3, task_attempts=1)
            await Pipeline([stage]).run(Thing(seen) for _ in range(6))
        else:
            async with AsyncExecutor(2) as executor:
                for _ in range(6):
                    executor.submit(Thing(seen), 1).add_done_callback(call_back)
        assert await _dead(seen)

    asyncio.run(main())
    assert len(seen) >= 6
    assert error.__traceback__ is not None


LISTENING = [
    *("on_success", "on_success, async", "on_status_change", "on_status_change, async"),
    *("happened", "resource", "on_failure", "on_finish"),
]


@pytest.mark.parametrize("where", LISTENING)
def test_error_that_a_listener_raises_each_time_keeps_nothing(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error of all callbacks, observers or resources, or the item's own error raised again."""
    monkeypatch.setattr(logging.getLogger("antflow"), "disabled", True)  # pytest keeps the records
    each_time = ValueError("each time")
    seen: list[weakref.ref[Thing]] = []
    raised: list[BaseException] = []

    def fail(error: BaseException = each_time) -> None:
        page = Thing(seen)  # noqa: F841 - its frame has it
        raised.append(error)
        raise error

    async def fail_later(*_: Any) -> None:
        await asyncio.sleep(0)
        fail()

    class Observer:
        def happened(self, step: Any) -> None:
            fail()

    class Resource:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None:
            fail()

    class Display:
        def on_start(self, *_: Any) -> None: ...
        def on_update(self, *_: Any) -> None: ...
        def on_finish(self, results: Any, summary: Any) -> None:
            fail(results.failed[0].error)

    async def work(value: int, **_: Any) -> int:
        if where in ("on_failure", "on_finish"):
            raise KeyError(value)
        return value

    callback: Any = fail_later if where.endswith("async") else lambda *_: fail()
    options: dict[str, Any] = {}
    if where.startswith("on_success"):
        options = {"on_success": callback}
    elif where == "on_failure":
        options = {"on_failure": lambda item_id, error, payload: fail(error)}
    elif where == "resource":
        options = {"resources": {"r": Resource}, "resource_scope": "worker"}

    async def main() -> None:
        tracker = StatusTracker()
        if where.startswith("on_status_change"):
            tracker.on_status_change = callback
        results = await Pipeline(
            [Stage("A", 2, [work], task_attempts=1, **options)],
            status_tracker=tracker,
            observers=[Observer()] if where == "happened" else [],
        ).run(range(6), custom_dashboard=Display() if where == "on_finish" else None)
        assert await _dead(seen)
        assert len(results.outcomes) == 6

    asyncio.run(main())
    assert raised
    for error in raised:
        names = [each.f_code.co_name for each, _ in walk_tb(error.__traceback__)]
        assert names.count("fail") == 1
        assert not {"call", "_call_back", "_call", "finish", "_keep", "_leave_all"} & set(names)
