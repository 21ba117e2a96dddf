"""`map` and `map_iter`: calls that share workers, and do not notice it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest

from antflow.exceptions import ExecutorShutdownError
from antflow.executor import AsyncExecutor
from antflow.testing import Calls, FailTimes, run_virtual
from tests.support import now, set_task_factory

tenant: ContextVar[Any] = ContextVar("tenant", default="none")

Map = Callable[[AsyncExecutor, Any, Any], Coroutine[Any, Any, list[Any]]]


async def all_at_once(executor: AsyncExecutor, function: Any, items: Any) -> list[Any]:
    """The results of `map`."""
    return await executor.map(function, items)


async def in_time(executor: AsyncExecutor, function: Any, items: Any) -> list[Any]:
    """The results of `map` with a time limit."""
    return await executor.map(function, items, timeout=1000)


async def with_retries(executor: AsyncExecutor, function: Any, items: Any) -> list[Any]:
    """The results of `map` whose calls may be tried again."""
    return await executor.map(function, items, retries=1)


async def one_by_one(executor: AsyncExecutor, function: Any, items: Any) -> list[Any]:
    """The results of `map_iter`."""
    return [result async for result in executor.map_iter(function, items)]


ways = pytest.mark.parametrize("way", [all_at_once, in_time, with_retries, one_by_one])


class Incomparable:
    """A value like an array of numpy."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")


@ways
@pytest.mark.parametrize("value", ["bound", Incomparable()], ids=["text", "incomparable"])
@pytest.mark.parametrize("suspends", [False, True])
def test_mapped_calls_have_context_variables_of_their_own(
    way: Map, value: Any, suspends: bool
) -> None:
    """Each sees those of the code that called the map, and nothing that another call has bound."""
    seen: list[Any] = []

    async def bind(number: int) -> int:
        seen.append(tenant.get())
        tenant.set(value)
        if suspends:
            await asyncio.sleep(1)
        assert tenant.get() is value
        return number

    async def main() -> list[int]:
        tenant.set("mine")
        async with AsyncExecutor(2) as executor:
            results = await way(executor, bind, range(9))
        assert tenant.get() == "mine"
        return results

    assert run_virtual(main) == [*range(9)]
    assert seen == ["mine"] * 9


@ways
def test_mapped_call_notices_no_request_that_the_one_before_took_back(way: Map) -> None:
    """Before Python 3.13 it still arrives. Only eager tasks leave one, and they need a factory."""

    async def work(number: int) -> int:
        if number % 2:
            await asyncio.sleep(1)
            return number
        running = asyncio.current_task()
        assert running is not None
        running.cancel()
        running.uncancel()
        return number

    async def main() -> list[int]:
        set_task_factory()
        async with AsyncExecutor(2) as executor:
            return await way(executor, work, range(9))

    assert run_virtual(main) == [*range(9)]


@ways
@pytest.mark.parametrize("suspends", [False, True])
def test_mapped_call_that_leaves_a_request_to_cancel(way: Map, suspends: bool) -> None:
    """It has its result, and the next one is not cancelled."""
    counts: list[int] = []

    async def leave(number: int) -> int:
        running = asyncio.current_task()
        assert running is not None
        counts.append(running.cancelling())
        running.cancel()
        if suspends:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1)
        return number

    async def main() -> list[int]:
        async with AsyncExecutor(2) as executor:
            return await way(executor, leave, range(9))

    assert run_virtual(main) == [*range(9)]
    assert counts == [0] * 9


@ways
def test_mapped_call_that_cancels_itself_has_failed(way: Map) -> None:
    """Its `CancelledError` comes out, and the map does not go on, or hang."""

    async def fail(number: int) -> int:
        if number == 3:
            raise asyncio.CancelledError
        return number

    async def main() -> None:
        async with AsyncExecutor(2) as executor:
            with pytest.raises(asyncio.CancelledError):
                await way(executor, fail, range(9))
            assert await way(executor, fail, [1, 2]) == [1, 2]

    run_virtual(main)


def test_calls_that_do_not_suspend_cost_no_turn_of_the_event_loop() -> None:
    """Thousands of them are made in a few steps."""
    steps: list[int] = []

    async def double(number: int) -> int:
        return 2 * number

    async def main() -> None:
        async with AsyncExecutor(5) as executor:
            assert await executor.map(double, range(5000)) == [2 * n for n in range(5000)]

    run_virtual(main, on_step=steps.append)
    assert len(steps) < 50


def test_calls_that_do_not_suspend_let_others_have_a_turn() -> None:
    """A map that takes long is not all that the event loop does meanwhile."""
    ticks: list[float] = []

    async def compute(number: int) -> None:
        end = time.perf_counter() + 0.0005
        while time.perf_counter() < end:
            pass

    async def tick() -> None:
        while True:
            ticks.append(time.perf_counter())
            await asyncio.sleep(0)

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        async with AsyncExecutor(2) as executor:
            await asyncio.sleep(0)
            await executor.map(compute, range(200))
        ticking.cancel()

    asyncio.run(main())
    assert len(ticks) >= 6


@ways
def test_submitted_call_need_not_wait_for_the_end_of_a_map(way: Map) -> None:
    """It gets the worker after the call that is at work, and the map goes on after it."""
    work = Calls(seconds=1)

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            mapping = asyncio.create_task(way(executor, work, range(100)))
            await asyncio.sleep(9.5)
            await executor.submit(work, "submitted")
            assert now() == pytest.approx(11, abs=1)
            assert await mapping == [*range(100)]
            assert now() == 101

    run_virtual(main)
    assert work.most_at_once == 1


def test_two_maps_share_the_workers() -> None:
    """Neither waits for the end of the other, and there are never too many calls."""
    work = Calls(seconds=1)

    async def main() -> None:
        async with AsyncExecutor(4) as executor:
            long = asyncio.create_task(executor.map(work, range(100)))
            await asyncio.sleep(5.5)
            await executor.map(work, range(10))
            assert now() < 15
            await long
            assert now() == pytest.approx(28, abs=1)

    run_virtual(main)
    assert work.most_at_once == 4


def test_mapped_call_waits_for_its_next_try_without_a_worker() -> None:
    """The others are made meanwhile; at most two calls for each worker are under way."""
    work = FailTimes(1)
    taken: list[int] = []

    def items() -> Any:
        for number in range(6):
            taken.append(number)
            yield number

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            mapping = asyncio.create_task(executor.map(work, items(), retries=1, retry_delay=60))
            await asyncio.sleep(1)
            assert taken == [0, 1]
            assert await mapping == [*range(6)]

    run_virtual(main)
    assert work.tries == {str(number): 2 for number in range(6)}


@pytest.mark.parametrize("count", [2, 4])
def test_map_goes_on_after_the_shutdown_with_what_has_been_asked_for(count: int) -> None:
    """Calls at work and as many as may wait are finished: it has its results."""
    work = Calls(seconds=1)

    async def main() -> list[int]:
        async with AsyncExecutor(2) as executor:
            mapping = asyncio.create_task(executor.map(work, range(count)))
            await asyncio.sleep(0.5)
        assert mapping.done()
        return await mapping

    assert run_virtual(main) == [*range(count)]


@ways
@pytest.mark.parametrize("cancel_futures", [False, True])
def test_map_that_would_go_on_for_long_ends_with_the_shutdown(
    way: Map, cancel_futures: bool
) -> None:
    """Calls at work are finished, few more begin, and then it raises."""
    work = Calls(seconds=1)
    ended: list[int] = []

    async def call(number: int) -> None:
        await work(number)
        ended.append(number)

    async def main() -> None:
        executor = AsyncExecutor(2)
        mapping = asyncio.create_task(way(executor, call, range(1000)))
        await asyncio.sleep(1.5)
        await executor.shutdown(cancel_futures=cancel_futures)
        with pytest.raises(ExecutorShutdownError):
            await mapping
        assert now() == 2 if cancel_futures else now() <= 4

    run_virtual(main)
    assert sorted(ended) == [*range(len(work.made))]
    assert len(ended) <= (4 if cancel_futures else 8)


@ways
def test_map_ends_with_a_block_that_raises(way: Map) -> None:
    """Its calls are cancelled, and have ended when the block is left."""
    work = Calls(seconds=10)

    async def main() -> None:
        executor = AsyncExecutor(2)
        mapping = asyncio.create_task(way(executor, work, range(9)))

        async def block() -> None:
            async with executor:
                await asyncio.sleep(1)
                raise LookupError

        with pytest.raises(LookupError):
            await block()
        assert work.running == 0
        with pytest.raises(ExecutorShutdownError):
            await mapping
        assert now() == 1

    run_virtual(main)


@ways
@pytest.mark.parametrize("have_begun", [False, True])
def test_map_whose_workers_are_cancelled_from_outside(way: Map, have_begun: bool) -> None:
    """It raises `CancelledError`, even if no worker had a call, and begins no more calls."""
    work = Calls(seconds=100)

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            other = None if have_begun else executor.submit(asyncio.sleep, 5)
            before = asyncio.all_tasks()
            mapping = asyncio.create_task(way(executor, work, range(9)))
            await asyncio.sleep(1)
            for task in asyncio.all_tasks() - before - {mapping}:
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await mapping
            assert now() == 1
            assert other is None or not other.done()
        assert len(work.made) == have_begun

    run_virtual(main)


def test_map_iter_begins_no_call_while_its_reader_rests() -> None:
    """What was asked for goes on; what comes after it waits for the next `anext`."""
    work = Calls(seconds=1)

    async def main() -> None:
        async with AsyncExecutor(2) as executor, executor.map_iter(work, range(100)) as results:
            assert await anext(results) == 0
            await asyncio.sleep(50)
            assert len(work.made) == 4
            assert await anext(results) == 1
            await asyncio.sleep(50)
            assert len(work.made) == 5

    run_virtual(main)


@ways
@pytest.mark.parametrize("function", [Calls(), str], ids=["async", "plain"])
def test_map_of_nothing_waits_for_no_worker(way: Map, function: Any) -> None:
    """Even while other calls have all of them."""

    async def main() -> None:
        async with AsyncExecutor(max_workers=1) as executor:
            other = executor.submit(asyncio.sleep, 10)
            assert await way(executor, function, []) == []
            assert now() == 0
            await other

    run_virtual(main)


@pytest.mark.parametrize("timeout", [0, -1, 3])
@pytest.mark.parametrize("is_busy", [False, True])
def test_map_of_nothing_is_never_late(timeout: float, is_busy: bool) -> None:
    """There is no result to wait for, so no time limit applies."""

    async def main() -> None:
        async with AsyncExecutor(max_workers=1) as executor:
            if is_busy:
                executor.submit(asyncio.sleep, 10)
            for function in (Calls(), str):
                assert await executor.map(function, [], timeout=timeout) == []
                results = executor.map_iter(function, [], timeout=timeout)
                assert [result async for result in results] == []

    run_virtual(main)


def test_result_that_comes_just_as_time_is_up_is_a_result() -> None:
    """A call that does not suspend is done in the turn of the event loop in which time is up."""

    async def main() -> None:
        async with AsyncExecutor(max_workers=2) as executor:
            work = Calls()
            assert await executor.submit(work, 1).result(timeout=0) == 1
            assert await executor.map(work, [1, 2, 3], timeout=0) == [1, 2, 3]
            results = executor.map_iter(work, [1, 2, 3], timeout=0)
            assert [result async for result in results] == [1, 2, 3]
            futures = [executor.submit(work, number) for number in range(3)]
            ended = executor.as_completed(futures, timeout=0)
            assert [await future async for future in ended] == [0, 1, 2]
            futures = [executor.submit(work, number) for number in range(3)]
            assert await executor.wait(futures, timeout=0) == ({*futures}, set())

    run_virtual(main)


@ways
def test_end_of_a_map_waits_for_no_worker(way: Map) -> None:
    """If another call gets the worker after the last call, the map is over all the same."""

    async def main() -> None:
        async with AsyncExecutor(max_workers=1) as executor:

            async def work(number: int) -> int:
                if number == 2:
                    executor.submit(asyncio.sleep, 10)
                await asyncio.sleep(1)
                return number

            assert await way(executor, work, [1, 2]) == [1, 2]
            assert now() == 2

    run_virtual(main)


@pytest.mark.parametrize("way", [all_at_once, in_time, one_by_one])
def test_end_of_a_map_that_has_asked_for_another_worker(way: Map) -> None:
    """It does not wait for a worker that was to help, and that other calls have got instead."""

    async def main() -> None:
        async with AsyncExecutor(max_workers=2) as executor:
            executor.submit(asyncio.sleep, 10)

            async def work(number: int) -> int:
                if number == 1:
                    await asyncio.sleep(0.5)
                    executor.submit(asyncio.sleep, 10)
                await asyncio.sleep(0.5)
                return number

            assert await way(executor, work, [1, 2]) == [1, 2]
            assert now() == 1.5

    run_virtual(main)


@ways
def test_map_that_is_cancelled_while_it_waits_for_a_worker(way: Map) -> None:
    """The call that would have been made next is closed, not left to the garbage collector."""

    async def main() -> None:
        async with AsyncExecutor(max_workers=1) as executor:
            executor.submit(asyncio.sleep, 10)
            work = Calls()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await way(executor, work, [1, 2])
            gc.collect()
            assert not work.made

    run_virtual(main)


@pytest.mark.parametrize("timeout", [None, 100.0])
@pytest.mark.parametrize("requests", [1, 2])
def test_map_that_is_cancelled_after_a_call_has_failed(
    timeout: float | None, requests: int
) -> None:
    """It waits for the calls that clean up, as if it had been cancelled before; but not twice."""
    ended = []

    async def work(number: int) -> None:
        if number == 1:
            await asyncio.sleep(1)
            raise LookupError("one")
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(5)
            ended.append(number)

    async def main() -> None:
        async with AsyncExecutor() as executor:
            mapping = asyncio.create_task(executor.map(work, range(3), timeout=timeout))
            for _ in range(requests):
                await asyncio.sleep(2)
                mapping.cancel()
            await asyncio.wait([mapping])
            assert mapping.cancelled()
            assert now() == (6 if requests == 1 else 4)
            assert sorted(ended) == ([0, 2] if requests == 1 else [])

    run_virtual(main)


@pytest.mark.parametrize("how", ["break", "aclose", "failure", "failure in async with"])
@pytest.mark.parametrize("requests", [1, 2])
def test_map_iter_that_is_cancelled_after_it_was_left(how: str, requests: int) -> None:
    """It waits for the calls that clean up, however it was left; a second request ends the wait."""
    ended = []

    async def work(number: int) -> int:
        if number == 0:
            await asyncio.sleep(1)
            if how.startswith("failure"):
                raise LookupError("zero")
            return number
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(5)
            ended.append(number)
        return number

    async def read(executor: AsyncExecutor) -> None:
        results = executor.map_iter(work, range(3))
        if how == "failure":
            await anext(results)
        elif how == "aclose":
            await anext(results)
            await results.aclose()
        else:
            async with results:
                async for _ in results:
                    break

    async def main() -> None:
        async with AsyncExecutor() as executor:
            reading = asyncio.create_task(read(executor))
            for _ in range(requests):
                await asyncio.sleep(2)
                reading.cancel()
            await asyncio.wait([reading])
            assert reading.cancelled()
            assert now() == (6 if requests == 1 else 4)
            assert sorted(ended) == ([1, 2] if requests == 1 else [])

    run_virtual(main)


@ways
def test_iterable_that_raises_first_of_all(way: Map) -> None:
    """Its error comes out at once, even while other calls have all the workers."""

    def broken() -> Iterator[int]:
        raise ZeroDivisionError
        yield

    async def main() -> None:
        async with AsyncExecutor(max_workers=1) as executor:
            other = executor.submit(asyncio.sleep, 10)
            with pytest.raises(ZeroDivisionError):
                await way(executor, Calls(), broken())
            assert now() == 0
            await other

    run_virtual(main)


@pytest.mark.parametrize("wait", [True, False])
def test_executor_is_shut_down_before_a_map_begins(wait: bool) -> None:
    """The map is refused, and nothing of it was begun."""

    async def main() -> None:
        executor = AsyncExecutor(max_workers=1)
        results = executor.map_iter(Calls(), [1])
        await executor.shutdown(wait=wait, cancel_futures=not wait)
        gc.collect()
        with pytest.raises(ExecutorShutdownError):
            await anext(results)

    run_virtual(main)
