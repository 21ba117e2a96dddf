"""The executor: what its calls do, and that nothing of them is lost, kept or left behind."""

from __future__ import annotations

import asyncio
import doctest
import gc
import inspect
import itertools
import logging
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, assert_type

import pytest

import antflow.executor.executor
from antflow.exceptions import AntFlowError, ExecutorShutdownError
from antflow.executor import AsyncExecutor, AsyncFuture, WaitStrategy
from antflow.testing import Calls, FailTimes, Gate, cancel_at_every_step, run_virtual
from tests.support import REQUIRED, defaults, double, now, odd_only, positional, same, slow

language: ContextVar[str] = ContextVar("language", default="none")


async def after(seconds: float, value: Any = None) -> Any:
    """Return a value, or raise it, when so much time has passed."""
    await asyncio.sleep(seconds)
    if isinstance(value, BaseException):
        raise value
    return value


async def never(*_: Any) -> None:
    await asyncio.Event().wait()


def endless(taken: list[int]) -> Iterator[int]:
    """The numbers from 0; notes each that is taken."""
    while True:
        taken.append(len(taken))
        yield taken[-1]


# Calls


def test_submit_runs_as_many_as_there_are_workers_in_order() -> None:
    """Never more calls than workers are at work, and the first submitted begin first."""
    work = Calls(seconds=1)

    async def main() -> float:
        async with AsyncExecutor(max_workers=3) as executor:
            futures = [executor.submit(work, number) for number in range(7)]
            assert [future.sequence_id for future in futures] == list(range(7))
            assert [await future for future in futures] == list(range(7))
        return now()

    assert run_virtual(main) == 3
    assert [call.value for call in work.made] == list(range(7))
    assert work.most_at_once == 3


class CallableObject:
    async def __call__(self, value: int) -> int:
        return value

    def plain(self, value: int) -> int:
        return value


@pytest.mark.parametrize(
    ("function", "takes_a_thread"),
    [
        (partial(after, 0), False),
        (partial(partial(CallableObject())), False),
        (CallableObject(), False),
        (CallableObject().plain, True),
        (partial(int), True),
        (lambda value: value, True),
        (lambda value: after(1, value), True),
    ],
    ids=["partial", "partials", "object", "method", "partial type", "lambda", "lambda of async"],
)
def test_submit_takes_all_that_can_be_called(
    function: Callable[..., Any], takes_a_thread: bool
) -> None:
    """Async or plain, function, method, partial or object: the result is the value."""

    async def main() -> None:
        executor = AsyncExecutor()
        assert await executor.submit(function, 5) == 5
        assert bool(executor._pool.threads) == takes_a_thread
        await executor.shutdown()

    run_virtual(main)


def test_submit_passes_arguments_on() -> None:
    """Positional and keyword arguments reach the function."""

    async def main() -> Any:
        async with AsyncExecutor() as executor:
            return await executor.submit(dict, {"a": 1}, b=2), await executor.submit(
                after, 0, value=3
            )

    assert run_virtual(main) == ({"a": 1, "b": 2}, 3)


def test_submit_runs_plain_functions_in_threads() -> None:
    """A plain function does not hold up the event loop, and runs beside another one."""
    meeting = threading.Barrier(2, timeout=10)

    def meet() -> int:
        meeting.wait()
        return threading.get_ident()

    async def main() -> list[int]:
        async with AsyncExecutor(2) as executor:
            return [*await asyncio.gather(executor.submit(meet), executor.submit(meet))]

    threads = run_virtual(main)
    assert len({*threads, threading.get_ident()}) == 3


def test_submit_hands_the_context_on() -> None:
    """Functions see the submitter's context variables, and what they set stays with them."""

    def change() -> str:
        seen = language.get()
        language.set("changed")
        return seen

    async def change_async() -> str:
        return change()

    async def main() -> list[str]:
        async with AsyncExecutor(1) as executor:
            seen = []
            for function in (change, change_async, change, change_async):
                token = language.set("eo")
                future: AsyncFuture[str] = executor.submit(function)
                language.reset(token)
                seen.append(await future)
            assert language.get() == "none"
            return seen

    assert run_virtual(main) == ["eo"] * 4


@pytest.mark.parametrize("workers", [0, -1, 1.5, 2.0, "5", None, True])
def test_executor_refuses_what_is_not_a_number_of_workers(workers: Any) -> None:
    """The message says which option, what it was and what is allowed."""
    allowed = "max_workers must be at least 1 and must be a whole number"
    with pytest.raises(ValueError, match=rf"max_workers=.*: {allowed}"):
        AsyncExecutor(workers)


@pytest.mark.parametrize(
    ("function", "options", "error", "message"),
    [
        (None, {}, TypeError, "fn=None: must be a function"),
        (after, {"retries": -1}, ValueError, "retries=-1"),
        (after, {"retries": True}, ValueError, "retries=True"),
        (after, {"retries": 1.0}, ValueError, "retries=1.0"),
        (after, {"retry_delay": -1}, ValueError, "retry_delay=-1"),
        (after, {"retry_delay": float("nan")}, ValueError, "retry_delay=nan"),
        (after, {"retry_delay": None}, ValueError, "retry_delay=None"),
        (after, {"semaphore": 3}, TypeError, "semaphore=3"),
    ],
)
def test_submit_refuses_what_it_cannot_do(
    function: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Options are checked at once, and nothing is begun."""

    async def main() -> None:
        with pytest.raises(error, match=message):
            AsyncExecutor().submit(function, **options)

    run_virtual(main)


def test_submit_outside_of_an_event_loop() -> None:
    """It says what to do, and leaves no coroutine behind."""
    with pytest.raises(RuntimeError, match="no event loop is running"):
        AsyncExecutor().submit(after, 1)
    gc.collect()  # A coroutine that was never awaited would warn here.


def test_executor_in_one_event_loop_after_the_other() -> None:
    """One executor serves the loops of several runs, also after a crowd in the first."""
    executor = AsyncExecutor(1)

    async def main() -> list[int]:
        return await executor.map(partial(after, 1), range(3))

    assert [run_virtual(main), run_virtual(main)] == [[0, 1, 2], [0, 1, 2]]


def test_executor_in_two_event_loops_at_a_time() -> None:
    """A call from another loop is refused while there are calls in the first."""
    executor = AsyncExecutor()

    async def main() -> None:
        future = executor.submit(after, 5)

        async def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                executor.submit(after, 1)

        await asyncio.to_thread(run_virtual, elsewhere)
        await future

    run_virtual(main)


def raise_it(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("function", [partial(after, 0), raise_it], ids=["async", "plain"])
@pytest.mark.parametrize(
    "kind",
    [
        ValueError,
        TimeoutError,
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        asyncio.CancelledError,
    ],
)
def test_exception_of_any_kind_stays_in_the_future(
    function: Callable[..., Any], kind: type[BaseException]
) -> None:
    """Whatever a function raises, it is raised to who asks, and nowhere else; others go on."""
    error = kind("no")

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            failing = executor.submit(function, error, retries=0)
            other = executor.submit(after, 1, "fine")
            assert await other == "fine"
            assert failing.done()
            assert failing.exception() is error
            assert failing.cancelled() == (kind is asyncio.CancelledError)
            for _ in range(12):
                with pytest.raises(kind) as caught:
                    await failing
                assert caught.value is error
                assert len(traceback.extract_tb(error.__traceback__)) < 12

    run_virtual(main)


@pytest.mark.parametrize("function", [partial(after, 0), raise_it], ids=["async", "plain"])
def test_exception_that_means_the_end_of_an_iteration(function: Callable[..., Any]) -> None:
    """A StopIteration, which no coroutine may raise, comes as the cause of a RuntimeError."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            with pytest.raises(RuntimeError) as caught:
                await executor.submit(function, StopIteration())
            assert isinstance(caught.value.__cause__, StopIteration)

    run_virtual(main)


# Retries and semaphores


def test_retries_are_further_tries_after_pauses_that_double() -> None:
    """`retries` tries follow the first, after `retry_delay`, twice that, and so on."""
    work = Calls(FailTimes(3, OSError))

    async def main() -> Any:
        async with AsyncExecutor() as executor:
            return await executor.submit(work, "x", retries=3, retry_delay=10)

    assert run_virtual(main) == "x"
    assert [call.start for call in work.made] == [0, 10, 30, 70]


def test_retries_that_are_used_up() -> None:
    """After the last try its exception is the outcome; without retries, after the first."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            with pytest.raises(OSError, match="3 of 9"):
                await executor.submit(FailTimes(9, OSError), 1, retries=2)
            with pytest.raises(OSError, match="1 of 9"):
                await executor.submit(FailTimes(9, OSError), 1)

    run_virtual(main)


@pytest.mark.parametrize("function", [partial(after, 0), raise_it], ids=["async", "plain"])
@pytest.mark.parametrize("kind", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_retries_are_for_ordinary_exceptions(
    function: Callable[..., Any], kind: type[BaseException]
) -> None:
    """What means "stop" is not tried again."""
    tries = []

    def count(error: BaseException) -> Any:
        tries.append(error)
        return function(error)

    async def main() -> None:
        async with AsyncExecutor() as executor:
            with pytest.raises(kind):
                await executor.submit(count, kind(), retries=5)

    run_virtual(main)
    assert len(tries) == 1


@pytest.mark.parametrize("is_plain", [True, False])
def test_call_whose_client_library_left_a_request_to_cancel_is_tried_again(is_plain: bool) -> None:
    """A timeout that cancels its task and never takes that back is an error like any other."""
    counts: list[int] = []

    async def ask(answer: int) -> int:
        running = asyncio.current_task()
        assert running is not None
        counts.append(running.cancelling())
        if len(counts) < 3:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1)
            raise TimeoutError
        return answer

    async def main() -> int:
        async with AsyncExecutor(1) as executor:
            fn: Any = (lambda answer: ask(answer)) if is_plain else ask
            return await executor.submit(fn, 7, retries=3, retry_delay=1)

    assert run_virtual(main) == 7
    assert counts == [0, 0, 0]


@pytest.mark.parametrize("is_plain", [True, False])
def test_each_try_sees_the_context_of_the_code_that_submitted_it(is_plain: bool) -> None:
    """And not what the tries before it have bound."""
    page: ContextVar[str] = ContextVar("page")
    seen: list[str] = []

    def bind() -> None:
        seen.append(page.get())
        page.set("bound")
        if len(seen) < 3:
            raise LookupError

    async def bind_later() -> None:
        await asyncio.sleep(1)
        bind()
        await asyncio.sleep(1)
        assert page.get() == "bound"

    async def main() -> None:
        page.set("outside")
        async with AsyncExecutor(1) as executor:
            fn: Any = bind if is_plain else bind_later
            await executor.submit(fn, retries=2)

    run_virtual(main)
    assert seen == ["outside"] * 3


@pytest.mark.parametrize("takes_back", [False, True])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("is_plain", [True, False])
def test_request_to_cancel_that_a_call_left_costs_no_outcome(
    is_plain: bool, fails: bool, takes_back: bool
) -> None:
    """The future has what the function returned or raised, and its guard is left in order."""
    left: list[str] = []

    @asynccontextmanager
    async def guard() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(1)
            left.append("in order")

    async def ask(answer: int) -> int:
        running = asyncio.current_task()
        assert running is not None
        running.cancel()
        if takes_back:  # before Python 3.13 the request still arrives
            running.uncancel()
        if fails:
            raise LookupError(answer)
        return answer

    async def main() -> Any:
        async with AsyncExecutor(1) as executor:
            fn: Any = (lambda answer: ask(answer)) if is_plain else ask
            calls = [executor.submit(fn, 7), executor.submit(fn, 7, semaphore=guard())]
            return await asyncio.gather(*(call.result() for call in calls), return_exceptions=True)

    assert [*map(repr, run_virtual(main))] == [repr(LookupError(7) if fails else 7)] * 2
    assert left == ["in order"]


@pytest.mark.parametrize("retries", [0, 2])
def test_call_that_shuts_down_its_executor_does_not_wait_for_itself(retries: int) -> None:
    """Also where it may be tried again."""

    async def main() -> str:
        executor = AsyncExecutor(2)

        async def end() -> str:
            await executor.shutdown()
            return "ended"

        return await executor.submit(end, retries=retries).result(timeout=5)

    assert run_virtual(main) == "ended"


def test_retries_wait_without_a_worker() -> None:
    """In the pause before the next try the worker does other calls."""

    async def main() -> list[float]:
        async with AsyncExecutor(1) as executor:
            flaky = executor.submit(FailTimes(1), 1, retries=1, retry_delay=60)
            await executor.submit(after, 1)
            times = [now()]
            await flaky
            return [*times, now()]

    assert run_virtual(main) == [1, 60]


def test_retries_end_when_the_call_is_cancelled() -> None:
    """A cancelled call is not tried again: not in its pause, nor when its clean-up raises."""
    tries = []

    async def fail_when_cancelled() -> None:
        tries.append(now())
        try:
            await never()
        finally:
            raise OSError

    async def main() -> None:
        async with AsyncExecutor() as executor:
            resting = executor.submit(FailTimes(1), 1, retries=1, retry_delay=60)
            failing = executor.submit(fail_when_cancelled, retries=3)
            await asyncio.sleep(1)
            assert resting.cancel()
            assert failing.cancel()
        assert now() == 1

    run_virtual(main)
    assert tries == [0]


def test_semaphore_bounds_some_of_the_calls() -> None:
    """Calls with a semaphore are as many as it allows, and it is free again in the pauses."""
    bounded, work = asyncio.Semaphore(2), Calls(FailTimes(1), seconds=1)

    async def main() -> float:
        async with AsyncExecutor(10) as executor:
            options: Any = {"semaphore": bounded, "retries": 1, "retry_delay": 1}
            for number in range(4):
                executor.submit(work, number, **options)
        assert not bounded.locked()
        return now()

    assert run_virtual(main) == 4
    assert work.most_at_once == 2


# Futures


def test_result_when_it_does_not_come_in_time() -> None:
    """The waiting ends with TimeoutError; the call goes on and can be waited for again."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            future = executor.submit(after, 10, "late")
            for timeout in (3, 0, -1):
                with pytest.raises(TimeoutError):
                    await future.result(timeout)
            assert now() == 3
            assert not future.done()
            assert future.exception() is None
            assert await future.result(timeout=float("inf")) == "late"
            assert await future.result(0) == "late"
            with pytest.raises(ValueError, match="timeout='1'"):
                await executor.submit(after, 1).result("1")  # type: ignore[arg-type]

    run_virtual(main)


def test_await_that_is_cancelled_leaves_the_call_alone() -> None:
    """Who stops waiting stops nothing else; all who still wait get the result."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            future = executor.submit(after, 10, "done")
            waiting = [asyncio.ensure_future(future) for _ in range(3)]
            await asyncio.sleep(1)
            waiting[1].cancel()
            await asyncio.wait(waiting[1:2])
            assert len(future._watchers) == 2, "who no longer waits is no longer told"
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert results[::2] == ["done", "done"]
            assert isinstance(results[1], asyncio.CancelledError)

    run_virtual(main)


def test_cancel_before_a_call_has_begun() -> None:
    """The call never begins, and those after it are not held up."""
    work = Calls(seconds=1)

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            first, second, third = (executor.submit(work, number) for number in range(3))
            unseen = executor.submit(work, 3)
            assert unseen.cancel()
            await asyncio.sleep(0.5)
            assert second.cancel()
            assert second.done()
            assert second.cancelled()
            assert [await first, await third] == [0, 2]
            with pytest.raises(asyncio.CancelledError):
                await second
            assert isinstance(second.exception(), asyncio.CancelledError)
            assert now() == 2

    run_virtual(main)
    assert [call.value for call in work.made] == [0, 2]


def test_cancel_in_the_moment_of_beginning() -> None:
    """A call that is cancelled just when a worker is free leaves it to the next."""
    work = Calls(seconds=1)

    async def main() -> None:
        async with AsyncExecutor(1) as executor:

            async def make_room() -> None:
                await asyncio.sleep(1)
                asyncio.get_running_loop().call_soon(second.cancel)

            executor.submit(make_room)
            second = executor.submit(work, 2)
            assert await executor.submit(work, 3) == 3
            assert second.cancelled()

    run_virtual(main)
    assert [call.value for call in work.made] == [3]


def test_cancel_of_a_call_that_is_next_in_the_moment_of_its_turn() -> None:
    """The worker that gets free in the same step goes to the one behind it."""
    work = Calls(seconds=1)

    async def main() -> None:
        go = asyncio.Event()
        async with AsyncExecutor(1) as executor:
            executor.submit(go.wait)
            second, third = executor.submit(work, 2), executor.submit(work, 3)
            await asyncio.sleep(1)
            go.set()
            second.cancel()
            assert await third == 3

    run_virtual(main)
    assert [call.value for call in work.made] == [3]


def test_cancel_thousands_that_wait() -> None:
    """Cancelling all calls takes a few steps for each, however many they are."""
    work = Calls(seconds=1)
    steps: list[int] = []

    async def main() -> None:
        executor = AsyncExecutor(1)
        futures = [executor.submit(work, number) for number in range(5000)]
        await asyncio.sleep(0.5)
        for future in futures[1:-1]:
            assert future.cancel()
        await asyncio.sleep(0)
        assert len(executor._pool.slots.queue) == 1, "nothing is kept of those that left"
        await executor.shutdown()
        assert now() == 2

    run_virtual(main, on_step=steps.append)
    assert [call.value for call in work.made] == [0, 4999]
    assert len(steps) < 5000 * 6


def test_cancel_while_a_call_is_at_work() -> None:
    """The future is done at once; the worker is free when the function has cleaned up."""
    log: list[tuple[str, float]] = []

    async def clean_up() -> str:
        try:
            await never()
        finally:
            await asyncio.sleep(5)
            log.append(("cleaned up", now()))
        return "unwanted"

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            future = executor.submit(clean_up)
            future.add_done_callback(lambda _: log.append(("done", now())))
            after_it = executor.submit(after, 0)
            await asyncio.sleep(1)
            assert future.cancel()
            assert not future.cancel()
            await after_it
            log.append(("next", now()))
            with pytest.raises(asyncio.CancelledError):
                await future

    run_virtual(main)
    assert log == [("done", 1), ("cleaned up", 6), ("next", 6)]


def test_cancel_a_function_that_does_not_listen() -> None:
    """A call that ends well in spite of the cancel changes nothing any more."""

    async def stubborn() -> str:
        try:
            await never()
        except asyncio.CancelledError:
            await asyncio.sleep(5)
        return "unwanted"

    async def main() -> float:
        async with AsyncExecutor(1) as executor:
            future = executor.submit(stubborn)
            await asyncio.sleep(1)
            future.cancel()
        assert future.cancelled()
        return now()

    assert run_virtual(main) == 6


def test_cancel_a_function_in_a_thread() -> None:
    """The future is done at once; the thread is left to end, and counts until then."""
    begun, end = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        end.wait(10)

    async def main() -> None:
        executor = AsyncExecutor(1)
        blocked = executor.submit(block)
        while not begun.is_set():
            await asyncio.sleep(0)
        assert blocked.cancel()
        assert blocked.cancelled()
        waiting, plain = executor.submit(after, 0), executor.submit(end.is_set)
        await after(0.01)
        assert not waiting.done(), "its slot was free"
        await executor.shutdown(wait=False)
        end.set()
        assert await plain, "it waited for the thread"

    asyncio.run(main())


def test_cancel_when_it_is_too_late() -> None:
    """A future that is done stays what it is."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            future = executor.submit(after, 0, 1)
            await future
            assert not future.cancel()
            assert not future.cancelled()
            assert future.exception() is None

    run_virtual(main)


def test_futures_of_calls_cancelled_from_outside_are_done() -> None:
    """When all tasks of the loop are cancelled, as at its end, each future is done."""

    async def main() -> None:
        executor = AsyncExecutor(1)
        futures = [executor.submit(never) for _ in range(3)]
        await asyncio.sleep(1)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        done, pending = await executor.wait(futures)
        assert not pending
        assert all(future.cancelled() for future in done)

    run_virtual(main)


def test_done_callbacks_are_called_once_each(caplog: pytest.LogCaptureFixture) -> None:
    """All are called in order with the future, in their context, although one raises."""
    heard: list[tuple[str, int, str]] = []

    def note(name: str, future: AsyncFuture[Any]) -> None:
        heard.append((name, future.sequence_id, language.get()))

    def fail(future: AsyncFuture[Any]) -> None:
        raise OSError(str(future))

    async def main() -> None:
        async with AsyncExecutor() as executor:
            future = executor.submit(after, 1)
            token = language.set("eo")
            twice = partial(note, "twice")
            for callback in (fail, twice, twice):
                future.add_done_callback(callback)
            language.reset(token)
            assert heard == []
            await future
            future.add_done_callback(partial(note, "late"))

    with caplog.at_level(logging.WARNING, "antflow"):
        run_virtual(main)
    assert heard == [("twice", 0, "eo"), ("twice", 0, "eo"), ("late", 0, "none")]
    assert ["done callback" in record.getMessage() for record in caplog.records] == [True]


def test_done_callbacks_that_use_the_executor() -> None:
    """A callback may submit the next call, and cancel others."""
    work = Calls(seconds=1)

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            first, _, third = (executor.submit(work, number) for number in range(3))
            following: list[AsyncFuture[Any]] = []

            def go_on(_: AsyncFuture[Any]) -> None:
                third.cancel()
                following.append(executor.submit(work, 3))

            first.add_done_callback(go_on)
            await first
            assert await following[0] == 3

    run_virtual(main)
    assert [call.value for call in work.made] == [0, 1, 3]


def test_future_of_no_executor() -> None:
    """A future made by hand is completed by hand, once, and needs no event loop for it."""
    good: AsyncFuture[int] = AsyncFuture(7)
    bad: AsyncFuture[int] = AsyncFuture(sequence_id=8)
    ugly: AsyncFuture[int] = AsyncFuture(9)
    assert [repr(each) for each in (good, bad, ugly)] == [
        f"<AsyncFuture {number}: pending>" for number in (7, 8, 9)
    ]
    good.set_result(1)
    bad.set_exception(OSError("no"))
    assert ugly.cancel()
    assert [repr(each) for each in (good, bad, ugly)] == [
        *("<AsyncFuture 7: completed>", "<AsyncFuture 8: failed>", "<AsyncFuture 9: cancelled>")
    ]
    for future in (good, bad, ugly):
        with pytest.raises(asyncio.InvalidStateError, match="already done"):
            future.set_result(2)
        with pytest.raises(asyncio.InvalidStateError, match="already done"):
            future.set_exception(OSError())

    async def main() -> None:
        later: AsyncFuture[int] = AsyncFuture(10)
        asyncio.get_running_loop().call_later(5, later.set_result, 5)
        assert [await good, await later] == [1, 5]
        with pytest.raises(OSError, match="no"):
            await bad

    run_virtual(main)


# map


def test_map_returns_results_in_the_order_of_the_input() -> None:
    """Whichever is ready first; the shortest iterable ends it, and none is no work."""

    async def main() -> None:
        async with AsyncExecutor(3) as executor:
            assert await executor.map(after, [3, 1, 2, 1], "abcdefg") == ["a", "b", "c", "d"]
            assert now() == 3
            assert await executor.map(after) == []
            assert await executor.map(after, []) == []
            assert await executor.map(len, ["", "a", "bc"]) == [0, 1, 2]

    run_virtual(main)


def test_map_keeps_all_workers_at_work_behind_a_slow_call() -> None:
    """One slow call does not hold up the others, however many there are."""

    async def main() -> float:
        async with AsyncExecutor(2) as executor:
            await executor.map(after, [50, *[1] * 50])
        return now()

    assert run_virtual(main) == 50


def test_map_retries_each_call() -> None:
    """`retries` and `retry_delay` are those of each call."""
    work = FailTimes(2)

    async def main() -> None:
        async with AsyncExecutor(3) as executor:
            assert await executor.map(work, range(3), retries=2, retry_delay=5) == [0, 1, 2]
            assert now() == 15

    run_virtual(main)
    assert work.tries == {"0": 3, "1": 3, "2": 3}


def test_map_ends_with_the_first_failure() -> None:
    """The first failure in time comes out at once, when the others were cancelled and ended."""
    ended: list[int] = []

    async def work(number: int) -> None:
        if number == 3:
            await after(1, LookupError("3"))
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            ended.append(number)

    async def main() -> None:
        executor = AsyncExecutor(5)
        other = executor.submit(after, 10, "other")
        with pytest.raises(LookupError, match="3"):
            await executor.map(work, range(50))
        assert now() == 2
        assert ended[:3] == [0, 1, 2]
        assert len(asyncio.all_tasks()) == 2, "this one and the other call"
        assert await other == "other"

    run_virtual(main)


def test_map_over_an_endless_iterable_is_bounded() -> None:
    """Only what is needed next is taken: two calls for each worker are under way at most."""
    taken: list[int] = []
    done = 0

    async def work(number: int) -> int:
        nonlocal done
        assert len(taken) - done <= 6
        await asyncio.sleep(1)
        done += 1
        if number == 1000:
            raise LookupError
        return number

    async def main() -> None:
        async with AsyncExecutor(3) as executor:
            with pytest.raises(LookupError):
                await executor.map(work, endless(taken))

    run_virtual(main)
    assert 1000 < len(taken) <= 1007


def failing_source() -> Iterator[int]:
    yield from range(3)
    raise OSError("the disk is gone")


def test_map_over_an_iterable_that_raises() -> None:
    """`map` raises it at once and cancels the calls begun, `map_iter` after their results."""
    got = []

    async def work(number: int) -> int:
        await asyncio.sleep((5, 1, 50)[number])
        return number

    calls = Calls(work)

    async def main() -> None:
        async with AsyncExecutor(2) as executor:
            with pytest.raises(OSError, match="disk"):
                await executor.map(calls, failing_source())
            assert (now(), calls.running) == (5, 0)
            results = executor.map_iter(calls, failing_source())
            for _ in range(3):
                got.append((await anext(results), now()))
            with pytest.raises(OSError, match="disk"):
                await anext(results)
            assert calls.running == 0

    run_virtual(main)
    assert got == [(0, 10), (1, 10), (2, 56)]


def test_map_timeout_is_for_each_result() -> None:
    """The time counts anew with each result, in order; when it is over, all is cancelled."""
    work = Calls(after)

    async def main() -> None:
        async with AsyncExecutor(3) as executor:
            assert await executor.map(after, [3, 5, 7], timeout=3.5) == [None] * 3
            assert await executor.map(after, [1] * 9, timeout=1.5) == [None] * 9
            began = now()
            work = Calls(partial(after, 5), seconds=1)
            with pytest.raises(TimeoutError):
                await executor.map(work, range(9), timeout=5.5)
            assert now() == began + 5.5
            assert work.running == 0
            for seconds, end in ([3, 3, 7.5], 6.5), ([9, *[1] * 9], 3.5):
                began = now()
                with pytest.raises(TimeoutError):
                    await executor.map(after, seconds, timeout=3.5)
                assert now() == began + end
            with pytest.raises(ValueError, match="timeout='3'"):
                await executor.map(after, [1], timeout="3")  # type: ignore[call-overload]

    run_virtual(main)
    assert work.running == 0


def test_map_after_the_shutdown() -> None:
    """Nothing is begun, nothing is taken for nothing."""

    async def main() -> None:
        executor = AsyncExecutor()
        await executor.shutdown()
        with pytest.raises(ExecutorShutdownError):
            await executor.map(after, [1])
        with pytest.raises(ExecutorShutdownError):
            await anext(executor.map_iter(after, [1]))

    run_virtual(main)


# map_iter


def test_map_iter_takes_only_what_it_needs() -> None:
    """Endless iterables work: at most two calls for each worker are ahead of the loop."""
    taken: list[int] = []
    work = Calls(seconds=1)

    async def main() -> None:
        async with (
            AsyncExecutor(3) as executor,
            aclosing(executor.map_iter(work, endless(taken))) as results,
        ):
            assert taken == []
            async for result in results:
                assert len(taken) <= result + 6
                if result == 20:
                    break
                await asyncio.sleep(result % 4)
        assert work.running == 0

    run_virtual(main)
    assert work.most_at_once == 3
    assert 25 <= len(taken) <= 26


def test_map_iter_yields_in_the_order_of_the_input() -> None:
    """Whichever is ready first, and whatever the schedule."""

    async def main() -> list[str]:
        async with AsyncExecutor(4) as executor:
            return [each async for each in executor.map_iter(after, [3, 1, 2, 0, 5, 1], "abcdefg")]

    for seed in range(10):
        assert run_virtual(main, seed=seed) == ["a", "b", "c", "d", "e", "f"]


def test_map_iter_closed_early_cancels_what_it_began() -> None:
    """When the loop is left, the calls ahead are cancelled and have ended; others go on."""
    work = Calls(seconds=3)

    async def main() -> None:
        async with AsyncExecutor(2) as executor:
            other = executor.submit(after, 10, "other")
            results = executor.map_iter(work, endless([]))
            assert await anext(results) == 0
            await results.aclose()
            assert now() == 3
            assert work.running == 0
            assert asyncio.all_tasks() - {asyncio.current_task()} != set()
            assert await other == "other"
            assert now() == 10

    run_virtual(main)
    assert len(work.made) <= 2


def test_map_iter_raises_in_the_place_of_the_result() -> None:
    """What came before the failed call is yielded first; what comes after it is cancelled."""
    got = []
    error = LookupError("no")

    async def main() -> None:
        async with AsyncExecutor(3) as executor:
            results = executor.map_iter(after, [5, 1, 50], ["a", error, "c"])
            async for each in results:
                got.append((each, now()))

    with pytest.raises(LookupError, match="no"):
        run_virtual(main)
    assert got == [("a", 5)]


def test_map_iter_timeout_is_for_each_result() -> None:
    """The time counts from when a result is asked for; what the loop does meanwhile is free."""
    got = []

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            results = executor.map_iter(after, [1, 2, 9, 1], "abcd", timeout=2.5)
            try:
                async for each in results:
                    got.append(each)
                    await asyncio.sleep(1)
            finally:
                got.append(now())

    with pytest.raises(TimeoutError):
        run_virtual(main)
    assert got == ["a", "b", 6.5]


# as_completed and wait


def test_as_completed_yields_each_future_when_it_is_done() -> None:
    """The done ones first, then one after the other; each once."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            futures = [executor.submit(after, seconds) for seconds in (3, 1, 0, 2)]
            futures[3].cancel()
            await futures[2]
            ended = [
                (future.sequence_id, now())
                async for future in executor.as_completed([*futures, *futures])
            ]
            assert ended == [(2, 0), (3, 0), (1, 1), (0, 3)]
            nothing: list[AsyncFuture[int]] = []
            assert [each async for each in executor.as_completed(nothing)] == []

    run_virtual(main)


def test_as_completed_when_the_time_is_over() -> None:
    """TimeoutError counts for all together, comes after what is done, and cancels nothing."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            futures = [executor.submit(after, seconds) for seconds in (1, 2, 3, 9)]
            ended = executor.as_completed(iter(futures), timeout=3.5)
            assert await anext(ended) is futures[0]
            await asyncio.sleep(5)
            assert [await anext(ended), await anext(ended)] == futures[1:3]
            with pytest.raises(TimeoutError):
                await anext(ended)
            assert now() == 6
            assert not futures[3].done()
            assert futures[3]._watchers == {}, "who no longer waits is no longer told"

    run_virtual(main)


@pytest.mark.parametrize(
    ("strategy", "seconds", "done"),
    [
        (WaitStrategy.FIRST_COMPLETED, 1, {0}),
        (WaitStrategy.FIRST_EXCEPTION, 3, {0, 1, 2}),
        (WaitStrategy.ALL_COMPLETED, 4, {0, 1, 2, 3}),
        ("FIRST_COMPLETED", 1, {0}),
    ],
)
def test_wait_until_enough_is_done(strategy: WaitStrategy, seconds: float, done: set[int]) -> None:
    """Each strategy ends when it says; a cancelled future is no failed one."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            values = [0, asyncio.CancelledError(), OSError(), 3]
            futures = [
                executor.submit(after, index + 1, value) for index, value in enumerate(values)
            ]
            ended, pending = await executor.wait(futures, return_when=strategy)
            assert now() == seconds
            assert {future.sequence_id for future in ended} == done
            assert ended | pending == set(futures)
            assert not ended & pending
            await executor.wait(futures)

    run_virtual(main)


def test_wait_when_the_time_is_over() -> None:
    """All that were waited for: TimeoutError; else the sets as they are. Nothing is cancelled."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            futures = {executor.submit(after, 1), executor.submit(after, 9)}
            with pytest.raises(TimeoutError):
                await executor.wait(futures, 3)
            assert now() == 3
            (pending,) = [future for future in futures if not future.done()]
            for strategy in (WaitStrategy.FIRST_COMPLETED, WaitStrategy.FIRST_EXCEPTION):
                assert await executor.wait([pending], 1, strategy) == (set(), {pending})
            assert await executor.wait([pending], 0, strategy) == (set(), {pending})
            assert now() == 5
            assert await executor.wait(futures, timeout=9) == (futures, set())
            assert await executor.wait(futures, timeout=0) == (futures, set())
            assert await executor.wait([]) == (set(), set())

    run_virtual(main)


def test_wait_refuses_what_is_not_a_future_or_strategy() -> None:
    """A misspelt strategy and foreign objects are errors, not a wait for ever."""

    async def main() -> None:
        executor = AsyncExecutor()
        with pytest.raises(ValueError, match=r"return_when='ANY'.*FIRST_COMPLETED"):
            await executor.wait([], return_when="ANY")
        foreign: Any = [asyncio.get_running_loop().create_future()]
        with pytest.raises(TypeError, match="must be futures of an AsyncExecutor"):
            await executor.wait(foreign)
        with pytest.raises(TypeError, match="must be futures of an AsyncExecutor"):
            await anext(executor.as_completed(foreign))

    run_virtual(main)


def test_wait_strategies_have_their_names_as_values() -> None:
    """The values are the names, so that they can be written into a file and read again."""
    assert [strategy.value for strategy in WaitStrategy] == [
        *("FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED")
    ]


# The end


def test_shutdown_waits_for_what_was_submitted() -> None:
    """Everything is finished, then nothing more is accepted; twice is as good as once."""
    work = Calls(seconds=1)

    async def main() -> None:
        executor = AsyncExecutor(2)
        futures = [executor.submit(work, number) for number in range(5)]
        await executor.shutdown()
        assert now() == 3
        assert all(future.done() for future in futures)
        await executor.shutdown()
        with pytest.raises(ExecutorShutdownError, match="was shut down") as caught:
            executor.submit(work, 5)
        assert isinstance(caught.value, AntFlowError)
        assert isinstance(caught.value, RuntimeError)

    run_virtual(main)
    assert len(work.made) == 5


def test_shutdown_that_does_not_wait() -> None:
    """It returns at once; what waits for a worker still gets one, in a thread too."""

    async def main() -> None:
        executor = AsyncExecutor(1)
        futures = [executor.submit(after, 1, number) for number in range(3)]
        plain = executor.submit(len, "abc")
        await executor.shutdown(wait=False)
        assert now() == 0
        with pytest.raises(ExecutorShutdownError):
            executor.submit(after, 1)
        assert [await future for future in futures] == [0, 1, 2]
        assert await plain == 3

    run_virtual(main)


@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_that_cancels_what_has_not_begun(wait: bool) -> None:
    """Calls that wait for a worker fail as shut down; those at work, or between tries, go on."""

    async def main() -> None:
        executor = AsyncExecutor(2)
        flaky = executor.submit(FailTimes(1), "again", retries=1, retry_delay=2)
        working = executor.submit(after, 2, "well")
        await asyncio.sleep(1)
        busy = executor.submit(after, 9, "busy")
        await asyncio.sleep(0)
        queued = [executor.submit(after, 1) for _ in range(2)]
        await executor.shutdown(wait, cancel_futures=True)
        assert now() == (10 if wait else 1)
        for future in queued:
            assert future.cancelled()
            with pytest.raises(ExecutorShutdownError, match="shutdown"):
                await future
        assert [await flaky, await working, await busy] == ["again", "well", "busy"]

    run_virtual(main)


def test_shutdown_whose_waiting_is_cancelled() -> None:
    """The calls go on."""

    async def main() -> None:
        executor = AsyncExecutor()
        future = executor.submit(after, 5, "well")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await executor.shutdown()
        assert await future == "well"

    run_virtual(main)


def test_shutdown_by_one_of_the_calls() -> None:
    """A call that shuts its executor down waits for the others, not for itself."""

    async def main() -> None:
        executor = AsyncExecutor()
        other = executor.submit(after, 5)
        await executor.submit(executor.shutdown)
        assert other.done()

    run_virtual(main)


@pytest.mark.parametrize("has_ended", [True, False])
def test_shutdown_ends_the_threads(has_ended: bool) -> None:
    """Threads end with the last call, whether or not that ended before; the executor is kept."""
    executors: list[AsyncExecutor] = []

    async def main() -> threading.Thread:
        executors.append(executor := AsyncExecutor(2))
        future = executor.submit(threading.current_thread)
        if has_ended:
            await future
        await executor.shutdown()
        return await future

    thread = run_virtual(main)
    thread.join(5)
    assert thread.name.startswith("AsyncExecutor")
    assert not thread.is_alive()


def test_block_that_ends_well_finishes_everything() -> None:
    """Leaving the block waits for what was submitted."""
    work = Calls(seconds=1)

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            futures = [executor.submit(work, number) for number in range(3)]
        assert [future.done() for future in futures] == [True] * 3
        with pytest.raises(ExecutorShutdownError):
            executor.submit(work, 3)

    run_virtual(main)
    assert len(work.made) == 3


def test_block_that_raises_cancels_everything() -> None:
    """What waits never begins; what is at work is cancelled and has cleaned up; nobody hangs."""
    ended = []

    async def work(number: int) -> None:
        try:
            await never()
        finally:
            await asyncio.sleep(1)
            ended.append(number)

    async def main() -> None:
        executor = AsyncExecutor(2)
        futures = [executor.submit(work, number) for number in range(9)]
        waiting = asyncio.ensure_future(futures[8])
        with pytest.raises(LookupError, match="block"):
            async with executor:
                await after(1, LookupError("block"))
        assert now() == 2
        assert all(future.cancelled() for future in futures)
        with pytest.raises(ExecutorShutdownError, match="block raised"):
            await waiting
        with pytest.raises(ExecutorShutdownError):
            executor.submit(work, 9)

    run_virtual(main)
    assert sorted(ended) == [0, 1]


def test_block_that_is_cancelled_at_its_end_cancels_everything() -> None:
    """Whoever is cancelled while leaving the block leaves nothing behind."""
    work = Calls(never)

    async def main() -> None:
        executor, futures = AsyncExecutor(1), []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), executor:
                futures += [executor.submit(work, number) for number in range(2)]
        assert now() == 1
        assert work.running == 0
        assert [future.cancelled() for future in futures] == [True, True]

    run_virtual(main)
    assert len(work.made) == 1


@pytest.mark.parametrize("is_mapped", [False, True])
def test_block_that_raises_and_is_cancelled_then_leaves_nothing_behind(is_mapped: bool) -> None:
    """A cancellation while the calls of a block that raised clean up does not end the wait."""
    ended = []

    async def work(_: int) -> None:
        try:
            await never()
        finally:
            await asyncio.sleep(5)
            ended.append(now())

    async def main() -> None:
        executor = AsyncExecutor()
        call: Any = executor.map(work, [0]) if is_mapped else executor.submit(work, 0).result()
        calling = asyncio.create_task(call)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2), executor:
                await after(1, LookupError("block"))
        assert ended == [6] == [now()]
        with pytest.raises(ExecutorShutdownError):
            await calling

    run_virtual(main)


def test_calls_that_abandon_each_other_do_not_wait_for_each_other() -> None:
    """Both leave a block of their own executor with an error; neither hangs."""

    async def main() -> None:
        executor = AsyncExecutor()

        async def work() -> None:
            async with executor:
                await after(1, LookupError("block"))

        futures = [executor.submit(work), executor.submit(work)]
        await asyncio.gather(*futures, return_exceptions=True)
        await executor.shutdown()

    run_virtual(main)


async def everything(gate: Gate, calls: Calls) -> None:
    """A program that has all kinds of calls under way at most of its steps."""
    async with AsyncExecutor(2) as executor:
        semaphore = asyncio.Semaphore(1)
        bounded = [
            executor.submit(calls, number, semaphore=semaphore, retries=2, retry_delay=0.5)
            for number in range(3)
        ]
        doomed = executor.submit(gate, 0)
        mapped = asyncio.create_task(executor.map(calls, range(10, 14), timeout=99, retries=1))
        try:
            async with aclosing(executor.map_iter(calls, endless([]), retries=1)) as results:
                assert await anext(results) == 0
                assert await anext(results) == 1
            doomed.cancel()
            first, _ = await executor.wait(bounded, 50, WaitStrategy.FIRST_COMPLETED)
            assert first
            async for future in executor.as_completed(bounded, 60):
                await future
            assert await mapped == [10, 11, 12, 13]
            executor.submit(calls, 99, retries=1)
        finally:
            mapped.cancel()
            await asyncio.wait([mapped])


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_cancel_at_any_moment_leaves_nothing_behind(seed: int | None) -> None:
    """Wherever a program is cancelled, its calls have ended and never were too many."""
    made = [Calls()]  # cancelled before its first step, a program makes none

    async def main() -> None:
        gate = Gate()
        made.append(Calls(FailTimes(1), seconds=1))
        try:
            await everything(gate, made[-1])
        finally:
            assert made[-1].running == gate.waiting == 0

    def check(_: int) -> None:
        assert made[-1].most_at_once <= 2

    assert cancel_at_every_step(main, check, seed=seed) > 100


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_executor_with_eager_tasks() -> None:
    """Calls that begin inside of `submit`, and may end there, count and end as all others."""

    async def at_once(number: int) -> int:
        return number

    async def main() -> None:
        factory = asyncio.eager_task_factory  # type: ignore[attr-defined,unused-ignore]
        asyncio.get_running_loop().set_task_factory(factory)
        work = Calls(FailTimes(1), seconds=1)
        async with AsyncExecutor(2) as executor:
            assert await executor.map(at_once, range(3000)) == list(range(3000))
            assert await executor.map(work, range(5), retries=1) == list(range(5))
            with pytest.raises(SystemExit):
                await executor.submit(after, 0, SystemExit())
        assert work.most_at_once == 2

    run_virtual(main)


def test_executor_in_a_real_event_loop() -> None:
    """It needs nothing of the virtual loop."""

    async def main() -> None:
        async with AsyncExecutor(2) as executor:
            assert await executor.map(after, [0.001] * 5, range(5)) == list(range(5))
            assert await executor.map(str, range(5)) == list("01234")

    asyncio.run(main())


def test_example_of_the_docstring() -> None:
    """The example in the docstring is true."""
    results = doctest.testmod(antflow.executor.executor)
    assert results.attempted
    assert not results.failed


if TYPE_CHECKING:

    def plain(number: int) -> str: ...

    async def number_of(name: str) -> int: ...

    def promise(name: str) -> Awaitable[bytes]: ...

    async def types_of_results(executor: AsyncExecutor) -> None:
        """Never run: what the type checkers make of calls."""
        future = executor.submit(number_of, "a", retries=1)
        assert_type(future, AsyncFuture[int])
        assert_type(await future, int)
        assert_type(await future.result(1.5), int)
        assert_type(future.exception(), BaseException | None)
        assert_type(executor.submit(plain, 1), AsyncFuture[str])
        assert_type(executor.submit(promise, "a"), AsyncFuture[bytes])
        assert_type(await executor.map(number_of, ["a"]), list[int])
        assert_type(await executor.map(plain, [1], timeout=1), list[str])
        names: AsyncIterator[str] = executor.map_iter(plain, [1])
        async for name in names:
            assert_type(name, str)
        async for each in executor.as_completed([future]):
            assert_type(each, AsyncFuture[int])
        done, pending = await executor.wait([future], 1, WaitStrategy.FIRST_COMPLETED)
        assert_type(done, set[AsyncFuture[int]])
        assert_type(pending, set[AsyncFuture[int]])


KEYWORD_OPTIONS = {
    "submit": {"retries": 0, "retry_delay": 0.1, "semaphore": None},
    "map": {"timeout": None, "retries": 0, "retry_delay": 0.1},
    "map_iter": {"timeout": None, "retries": 0, "retry_delay": 0.1},
}


async def sleep_for(seconds: float) -> float:
    """Take so long, and return it."""
    await asyncio.sleep(seconds)
    return seconds


# -- as in 0.10.0 ----------------------------------------------------------------------------------


@pytest.mark.contract
def test_executor_keeps_its_parameters() -> None:
    """``AsyncExecutor(max_workers=5)``, by place."""
    assert defaults(AsyncExecutor) == {"max_workers": 5}
    assert positional(AsyncExecutor) == ["max_workers"]


@pytest.mark.contract
@pytest.mark.parametrize("name", KEYWORD_OPTIONS)
def test_methods_keep_their_options(name: str) -> None:
    """A function comes first, then what it is called with; options come by keyword."""
    method = getattr(AsyncExecutor, name)
    parameters = inspect.signature(method).parameters
    assert positional(method) == ["fn"]
    for option, default in KEYWORD_OPTIONS[name].items():
        assert parameters[option].default == default
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.contract
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("as_completed", {"futures": REQUIRED, "timeout": None}),
        (
            "wait",
            {"futures": REQUIRED, "timeout": None, "return_when": WaitStrategy.ALL_COMPLETED},
        ),
        ("shutdown", {"wait": True, "cancel_futures": False}),
    ],
)
def test_other_methods_keep_their_parameters(name: str, expected: dict[str, Any]) -> None:
    """``as_completed``, ``wait`` and ``shutdown`` keep order and defaults."""
    method = getattr(AsyncExecutor, name)
    assert defaults(method) == expected
    assert positional(method) == list(expected)


@pytest.mark.contract
@pytest.mark.parametrize("name", ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
def test_wait_strategies(name: str) -> None:
    """`WaitStrategy` has the three members of old, with their names as values."""
    assert WaitStrategy[name].value == name
    assert len(WaitStrategy) == 3


@pytest.mark.contract
def test_submit_returns_a_future() -> None:
    """``submit`` returns an `AsyncFuture` at once; ``result()`` waits for it."""

    async def main() -> None:
        async with AsyncExecutor(2) as executor:
            future = executor.submit(double, 21)
            assert isinstance(future, AsyncFuture)
            assert not future.done()
            assert future.exception() is None
            assert await future.result() == 42
            assert future.done()

    run_virtual(main)


@pytest.mark.contract
def test_futures_are_numbered() -> None:
    """``sequence_id`` counts the submitted calls from 0."""

    async def main() -> list[int]:
        async with AsyncExecutor(2) as executor:
            return [executor.submit(double, 1).sequence_id for _ in range(3)]

    assert run_virtual(main) == [0, 1, 2]


@pytest.mark.contract
def test_submit_passes_all_arguments() -> None:
    """Arguments and keywords go to the function."""

    async def join(a: int, b: int, *, c: int = 0) -> tuple[int, int, int]:
        return a, b, c

    async def main() -> Any:
        async with AsyncExecutor() as executor:
            return await executor.submit(join, 1, b=2, c=3).result()

    assert run_virtual(main) == (1, 2, 3)


@pytest.mark.contract
def test_result_raises_what_the_function_raised() -> None:
    """``result()`` raises it, ``exception()`` gives it."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            future = executor.submit(odd_only, 2)
            with pytest.raises(ValueError, match="2 is even"):
                await future.result()
            assert isinstance(future.exception(), ValueError)

    run_virtual(main)


@pytest.mark.contract
def test_result_with_a_timeout() -> None:
    """``result(timeout)`` raises `TimeoutError`; the call goes on."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            future = executor.submit(slow, 5)
            with pytest.raises(asyncio.TimeoutError):
                await future.result(timeout=0.5)
            assert await future.result(5) == 5

    run_virtual(main)


@pytest.mark.contract
def test_max_workers_bound_what_runs_at_once() -> None:
    """At most ``max_workers`` calls are at work."""
    calls = Calls(seconds=1)

    async def main() -> None:
        async with AsyncExecutor(max_workers=3) as executor:
            await executor.map(calls, range(10))

    run_virtual(main)
    assert calls.most_at_once == 3


@pytest.mark.contract
@pytest.mark.parametrize("number", [0, -1])
def test_executor_without_workers_is_refused(number: int) -> None:
    """``max_workers`` below 1 is a `ValueError`."""
    with pytest.raises(ValueError, match="max_workers"):
        AsyncExecutor(number)


@pytest.mark.contract
def test_map_returns_a_list_in_input_order() -> None:
    """``map`` returns the results in the order of the input."""

    async def main() -> list[float]:
        async with AsyncExecutor(5) as executor:
            return await executor.map(sleep_for, [3, 1, 2])

    assert run_virtual(main) == [3, 1, 2]


@pytest.mark.contract
def test_map_over_several_iterables() -> None:
    """With several iterables the function gets one of each; the shortest ends it."""

    async def add(a: int, b: int) -> int:
        return a + b

    async def main() -> list[int]:
        async with AsyncExecutor() as executor:
            return await executor.map(add, [1, 2, 3], [10, 20])

    assert run_virtual(main) == [11, 22]


@pytest.mark.contract
def test_map_raises_the_first_error() -> None:
    """The error of a call comes out of ``map``."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            await executor.map(odd_only, [1, 2, 3])

    with pytest.raises(ValueError, match="2 is even"):
        run_virtual(main)


@pytest.mark.contract
def test_map_iter_yields_in_input_order() -> None:
    """``map_iter`` yields the results in the order of the input."""

    async def main() -> list[float]:
        async with AsyncExecutor(5) as executor:
            return [result async for result in executor.map_iter(sleep_for, [3, 1, 2])]

    assert run_virtual(main) == [3, 1, 2]


@pytest.mark.contract
def test_as_completed_yields_futures_as_they_are_done() -> None:
    """``as_completed`` yields the futures, the quickest first."""

    async def main() -> list[float]:
        async with AsyncExecutor(5) as executor:
            futures = [executor.submit(sleep_for, seconds) for seconds in (3, 1, 2)]
            return [await future.result() async for future in executor.as_completed(futures)]

    assert run_virtual(main) == [1, 2, 3]


@pytest.mark.contract
def test_as_completed_with_a_timeout() -> None:
    """``as_completed`` raises `TimeoutError` when not all are done in time."""

    async def main() -> None:
        async with AsyncExecutor(5) as executor:
            futures = [executor.submit(sleep_for, seconds) for seconds in (1, 9)]
            with pytest.raises(asyncio.TimeoutError):
                async for _ in executor.as_completed(futures, timeout=2):
                    pass

    run_virtual(main)


@pytest.mark.contract
def test_wait_for_all() -> None:
    """``wait`` returns the sets of those that are done and those that are not."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            futures = [executor.submit(same, number) for number in range(3)]
            done, pending = await executor.wait(futures)
            assert (done, pending) == (set(futures), set())

    run_virtual(main)


@pytest.mark.contract
def test_wait_for_the_first() -> None:
    """With ``FIRST_COMPLETED`` it returns as soon as one is done."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            futures = [executor.submit(sleep_for, seconds) for seconds in (1, 5)]
            first = WaitStrategy.FIRST_COMPLETED
            done, pending = await executor.wait(futures, return_when=first)
            assert (done, pending) == ({futures[0]}, {futures[1]})

    run_virtual(main)


@pytest.mark.contract
def test_wait_for_the_first_exception() -> None:
    """With ``FIRST_EXCEPTION`` it returns as soon as one has failed."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            good, bad = executor.submit(sleep_for, 5), executor.submit(odd_only, 2)
            futures: list[AsyncFuture[Any]] = [good, bad]
            strategy = WaitStrategy.FIRST_EXCEPTION
            done, pending = await executor.wait(futures, return_when=strategy)
            assert (done, pending) == ({bad}, {good})

    run_virtual(main)


@pytest.mark.contract
def test_retries_are_extra_tries() -> None:
    """``retries`` counts the tries after the first."""
    enough, too_few = FailTimes(2), FailTimes(3)

    async def main() -> None:
        async with AsyncExecutor() as executor:
            assert await executor.submit(enough, 7, retries=2).result() == 7
            with pytest.raises(ValueError, match="planned"):
                await executor.submit(too_few, 7, retries=2).result()

    run_virtual(main)
    assert (enough.tries["7"], too_few.tries["7"]) == (3, 3)


@pytest.mark.contract
def test_retries_of_map() -> None:
    """``map`` and ``map_iter`` take ``retries`` for each call."""
    flaky = FailTimes(1)

    async def main() -> list[int]:
        async with AsyncExecutor() as executor:
            mapped = await executor.map(flaky, [1, 2], retries=1)
            return mapped + [r async for r in executor.map_iter(flaky, [3], retries=1)]

    assert run_virtual(main) == [1, 2, 3]


@pytest.mark.contract
def test_first_pause_is_retry_delay() -> None:
    """Before the second try ``retry_delay`` seconds pass."""
    calls = Calls(FailTimes(1))

    async def main() -> None:
        async with AsyncExecutor() as executor:
            await executor.submit(calls, 7, retries=1, retry_delay=2.5).result()

    run_virtual(main)
    assert calls.made[1].start - calls.made[0].start == pytest.approx(2.5)


@pytest.mark.contract
def test_semaphore_bounds_some_calls() -> None:
    """Calls with a ``semaphore`` are at work only as many as it lets in."""
    calls = Calls(seconds=1)

    async def main() -> None:
        semaphore = asyncio.Semaphore(2)
        async with AsyncExecutor(10) as executor:
            for number in range(6):
                executor.submit(calls, number, semaphore=semaphore)

    run_virtual(main)
    assert (calls.most_at_once, len(calls.made)) == (2, 6)


@pytest.mark.contract
def test_async_with_waits_for_everything() -> None:
    """At the end of the block everything submitted is finished."""
    calls = Calls(seconds=1)

    async def main() -> None:
        async with AsyncExecutor(2) as executor:
            for number in range(6):
                executor.submit(calls, number)

    run_virtual(main)
    assert len(calls.made) == 6
    assert calls.running == 0


@pytest.mark.contract
def test_submit_after_shutdown_is_refused() -> None:
    """After ``shutdown`` a ``submit`` raises `ExecutorShutdownError`."""

    async def main() -> None:
        executor = AsyncExecutor()
        await executor.shutdown()
        with pytest.raises(ExecutorShutdownError):
            executor.submit(same, 1)

    run_virtual(main)


@pytest.mark.contract
def test_future_can_be_set_by_hand() -> None:
    """``AsyncFuture(number)`` may be given its result or exception by hand."""

    async def main() -> None:
        good: AsyncFuture[int] = AsyncFuture(7)
        bad: AsyncFuture[int] = AsyncFuture(8)
        assert (good.sequence_id, good.done()) == (7, False)
        good.set_result(3)
        bad.set_exception(KeyError("x"))
        assert (good.done(), await good.result(), good.exception()) == (True, 3, None)
        assert (bad.done(), type(bad.exception())) == (True, KeyError)
        with pytest.raises(KeyError):
            await bad.result()

    run_virtual(main)


@pytest.mark.contract
def test_script_with_an_executor() -> None:
    """A script as users have it: submit, collect as completed, then a map with retries."""
    flaky = FailTimes(1)

    async def main() -> tuple[list[int], list[str], list[int]]:
        good: list[int] = []
        bad: list[str] = []
        async with AsyncExecutor(max_workers=3) as executor:
            futures = [executor.submit(odd_only, number) for number in range(6)]
            async for future in executor.as_completed(futures, timeout=10):
                try:
                    good.append(await future.result())
                except ValueError as error:
                    bad.append(str(error))
            again = await executor.map(flaky, [1, 2, 3], retries=2, retry_delay=0.1)
        return good, bad, again

    good, bad, again = run_virtual(main)
    assert (sorted(good), again) == ([1, 3, 5], [1, 2, 3])
    assert sorted(bad) == ["0 is even", "2 is even", "4 is even"]


# -- new since 0.10.0 ------------------------------------------------------------------------------


@pytest.mark.contract
def test_future_can_be_awaited() -> None:
    """``await future`` is the result."""

    async def main() -> int:
        async with AsyncExecutor() as executor:
            return await executor.submit(double, 21)

    assert run_virtual(main) == 42


@pytest.mark.contract
def test_future_can_be_cancelled() -> None:
    """``cancel()`` ends a call; then it is ``cancelled()``."""
    calls = Calls(seconds=100)

    async def main() -> float:
        async with AsyncExecutor() as executor:
            future = executor.submit(calls, 1)
            await asyncio.sleep(1)
            assert future.cancel()
            assert future.cancelled()
        return now()

    assert run_virtual(main) == 1.0


@pytest.mark.contract
def test_done_callbacks_are_called() -> None:
    """``add_done_callback`` is told when a call is done."""
    told: list[Any] = []

    async def main() -> AsyncFuture[int]:
        async with AsyncExecutor() as executor:
            future = executor.submit(double, 21)
            future.add_done_callback(told.append)
        return future

    assert run_virtual(main) is told[0]


@pytest.mark.contract
def test_plain_functions_can_be_submitted() -> None:
    """A plain function runs in a thread."""

    async def main() -> list[str]:
        async with AsyncExecutor() as executor:
            return await executor.map(str.upper, ["a", "b"])

    assert run_virtual(main) == ["A", "B"]


@pytest.mark.contract
def test_map_iter_never_materialises_its_input() -> None:
    """``map_iter`` takes from an endless iterable only as it needs."""
    numbers = itertools.count()

    async def main() -> list[int]:
        got: list[int] = []
        async with (
            AsyncExecutor(2) as executor,
            aclosing(executor.map_iter(same, numbers)) as results,
        ):
            async for result in results:
                got.append(result)
                if len(got) == 5:
                    break
        return got

    assert run_virtual(main) == [0, 1, 2, 3, 4]
    assert next(numbers) < 20


@pytest.mark.contract
def test_shutdown_may_cancel_what_waits() -> None:
    """``shutdown(cancel_futures=True)`` does not begin with calls that still wait."""
    calls = Calls(seconds=1)

    async def main() -> int:
        executor = AsyncExecutor(1)
        futures = [executor.submit(calls, number) for number in range(5)]
        await asyncio.sleep(0.5)
        await executor.shutdown(cancel_futures=True)
        return sum(future.exception() is not None for future in futures)

    assert run_virtual(main) == 4
    assert len(calls.made) == 1


@pytest.mark.contract
def test_failing_block_cancels_its_calls() -> None:
    """When the block raises, its calls are cancelled rather than waited for."""

    async def block() -> None:
        async with AsyncExecutor(1) as executor:
            for _ in range(4):
                executor.submit(sleep_for, 100)
            await asyncio.sleep(1)
            raise KeyError("the block")

    async def main() -> float:
        with pytest.raises(KeyError):
            await block()
        return now()

    assert run_virtual(main) == 1.0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["submit", "map", "map_iter", "retries", "no block"])
def test_event_loop_closed_under_calls(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is let go of without an error, and a later loop need not wait for what was left."""
    errors: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: errors.append(raised.exc_value))
    executors: list[AsyncExecutor] = []

    async def work() -> None:
        executors.append(AsyncExecutor(2))
        if way == "no block":
            await executors[0].map(never, range(3))
        async with executors[0] as executor:
            if way == "submit":
                await executor.submit(never)
            elif way == "map_iter":
                async with executor.map_iter(never, range(3)) as results:
                    await anext(results)
            else:
                await executor.map(never, range(3), retries=way == "retries")

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    working = loop.create_task(work())
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    del working, loop
    gc.collect()
    assert errors == []
    asyncio.run(asyncio.wait_for(executors[0].shutdown(), 10))


def test_shutdown_in_a_later_event_loop_ends_the_threads() -> None:
    """Those of plain functions that were called in a loop that is closed now."""
    executor = AsyncExecutor(2)
    before = threading.active_count()
    asyncio.run(executor.map(abs, range(3)))
    asyncio.run(executor.shutdown())
    for thread in threading.enumerate():
        if thread.name.startswith("AsyncExecutor-W"):
            thread.join(10)
    assert threading.active_count() <= before


def test_map_over_what_is_not_iterable_says_which_argument() -> None:
    """The error names the argument, its value and what is allowed."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            with pytest.raises(TypeError, match=r"^iterables\[1\]=3: must be an iterable"):
                await executor.map(pow, [2], 3)  # type: ignore[call-overload]
            with pytest.raises(TypeError, match=r"^iterables\[1\]=3: must be an iterable"):
                executor.map_iter(pow, [2], 3)  # type: ignore[call-overload]

    run_virtual(main)
