"""`AsyncExecutor` and `AsyncFuture`."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from contextlib import aclosing
from typing import Any

import pytest

from antflow.exceptions import ExecutorShutdownError
from antflow.executor import AsyncExecutor, AsyncFuture, WaitStrategy
from antflow.testing import Calls, FailTimes, run_virtual
from tests.support import REQUIRED, defaults, double, now, odd_only, positional, same, slow

pytestmark = pytest.mark.contract

KEYWORD_OPTIONS = {
    "submit": {"retries": 0, "retry_delay": 0.1, "semaphore": None},
    "map": {"timeout": None, "retries": 0, "retry_delay": 0.1},
    "map_iter": {"timeout": None, "retries": 0, "retry_delay": 0.1},
}


async def sleep_for(seconds: float) -> float:
    """Take so long, and return it."""
    await asyncio.sleep(seconds)
    return seconds


def test_executor_keeps_its_parameters() -> None:
    """``AsyncExecutor(max_workers=5)``, by place."""
    assert defaults(AsyncExecutor) == {"max_workers": 5}
    assert positional(AsyncExecutor) == ["max_workers"]


@pytest.mark.parametrize("name", KEYWORD_OPTIONS)
def test_methods_keep_their_options(name: str) -> None:
    """A function comes first, then what it is called with; options come by keyword."""
    method = getattr(AsyncExecutor, name)
    parameters = inspect.signature(method).parameters
    assert positional(method) == ["fn"]
    for option, default in KEYWORD_OPTIONS[name].items():
        assert parameters[option].default == default
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY


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


@pytest.mark.parametrize("name", ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
def test_wait_strategies(name: str) -> None:
    """`WaitStrategy` has the three members of old, with their names as values."""
    assert WaitStrategy[name].value == name
    assert len(WaitStrategy) == 3


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


def test_futures_are_numbered() -> None:
    """``sequence_id`` counts the submitted calls from 0."""

    async def main() -> list[int]:
        async with AsyncExecutor(2) as executor:
            return [executor.submit(double, 1).sequence_id for _ in range(3)]

    assert run_virtual(main) == [0, 1, 2]


def test_submit_passes_arguments_on() -> None:
    """Arguments and keywords go to the function."""

    async def join(a: int, b: int, *, c: int = 0) -> tuple[int, int, int]:
        return a, b, c

    async def main() -> Any:
        async with AsyncExecutor() as executor:
            return await executor.submit(join, 1, b=2, c=3).result()

    assert run_virtual(main) == (1, 2, 3)


def test_result_raises_what_the_function_raised() -> None:
    """``result()`` raises it, ``exception()`` gives it."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            future = executor.submit(odd_only, 2)
            with pytest.raises(ValueError, match="2 is even"):
                await future.result()
            assert isinstance(future.exception(), ValueError)

    run_virtual(main)


def test_result_with_a_timeout() -> None:
    """``result(timeout)`` raises `TimeoutError`; the call goes on."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            future = executor.submit(slow, 5)
            with pytest.raises(asyncio.TimeoutError):
                await future.result(timeout=0.5)
            assert await future.result(5) == 5

    run_virtual(main)


def test_max_workers_bound_what_runs_at_once() -> None:
    """At most ``max_workers`` calls are at work."""
    calls = Calls(seconds=1)

    async def main() -> None:
        async with AsyncExecutor(max_workers=3) as executor:
            await executor.map(calls, range(10))

    run_virtual(main)
    assert calls.most_at_once == 3


@pytest.mark.parametrize("number", [0, -1])
def test_executor_without_workers_is_refused(number: int) -> None:
    """``max_workers`` below 1 is a `ValueError`."""
    with pytest.raises(ValueError, match="max_workers"):
        AsyncExecutor(number)


def test_map_returns_a_list_in_input_order() -> None:
    """``map`` returns the results in the order of the input."""

    async def main() -> list[float]:
        async with AsyncExecutor(5) as executor:
            return await executor.map(sleep_for, [3, 1, 2])

    assert run_virtual(main) == [3, 1, 2]


def test_map_over_several_iterables() -> None:
    """With several iterables the function gets one of each; the shortest ends it."""

    async def add(a: int, b: int) -> int:
        return a + b

    async def main() -> list[int]:
        async with AsyncExecutor() as executor:
            return await executor.map(add, [1, 2, 3], [10, 20])

    assert run_virtual(main) == [11, 22]


def test_map_raises_the_first_error() -> None:
    """The error of a call comes out of ``map``."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            await executor.map(odd_only, [1, 2, 3])

    with pytest.raises(ValueError, match="2 is even"):
        run_virtual(main)


def test_map_iter_yields_in_input_order() -> None:
    """``map_iter`` yields the results in the order of the input."""

    async def main() -> list[float]:
        async with AsyncExecutor(5) as executor:
            return [result async for result in executor.map_iter(sleep_for, [3, 1, 2])]

    assert run_virtual(main) == [3, 1, 2]


def test_as_completed_yields_futures_as_they_are_done() -> None:
    """``as_completed`` yields the futures, the quickest first."""

    async def main() -> list[float]:
        async with AsyncExecutor(5) as executor:
            futures = [executor.submit(sleep_for, seconds) for seconds in (3, 1, 2)]
            return [await future.result() async for future in executor.as_completed(futures)]

    assert run_virtual(main) == [1, 2, 3]


def test_as_completed_with_a_timeout() -> None:
    """``as_completed`` raises `TimeoutError` when not all are done in time."""

    async def main() -> None:
        async with AsyncExecutor(5) as executor:
            futures = [executor.submit(sleep_for, seconds) for seconds in (1, 9)]
            with pytest.raises(asyncio.TimeoutError):
                async for _ in executor.as_completed(futures, timeout=2):
                    pass

    run_virtual(main)


def test_wait_for_all() -> None:
    """``wait`` returns the sets of those that are done and those that are not."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            futures = [executor.submit(same, number) for number in range(3)]
            done, pending = await executor.wait(futures)
            assert (done, pending) == (set(futures), set())

    run_virtual(main)


def test_wait_for_the_first() -> None:
    """With ``FIRST_COMPLETED`` it returns as soon as one is done."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            futures = [executor.submit(sleep_for, seconds) for seconds in (1, 5)]
            first = WaitStrategy.FIRST_COMPLETED
            done, pending = await executor.wait(futures, return_when=first)
            assert (done, pending) == ({futures[0]}, {futures[1]})

    run_virtual(main)


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


def test_retries_of_map() -> None:
    """``map`` and ``map_iter`` take ``retries`` for each call."""
    flaky = FailTimes(1)

    async def main() -> list[int]:
        async with AsyncExecutor() as executor:
            mapped = await executor.map(flaky, [1, 2], retries=1)
            return mapped + [r async for r in executor.map_iter(flaky, [3], retries=1)]

    assert run_virtual(main) == [1, 2, 3]


def test_first_pause_is_retry_delay() -> None:
    """Before the second try ``retry_delay`` seconds pass."""
    calls = Calls(FailTimes(1))

    async def main() -> None:
        async with AsyncExecutor() as executor:
            await executor.submit(calls, 7, retries=1, retry_delay=2.5).result()

    run_virtual(main)
    assert calls.made[1].start - calls.made[0].start == pytest.approx(2.5)


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


def test_submit_after_shutdown_is_refused() -> None:
    """After ``shutdown`` a ``submit`` raises `ExecutorShutdownError`."""

    async def main() -> None:
        executor = AsyncExecutor()
        await executor.shutdown()
        with pytest.raises(ExecutorShutdownError):
            executor.submit(same, 1)

    run_virtual(main)


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


# New since 0.10.0


def test_future_can_be_awaited() -> None:
    """``await future`` is the result."""

    async def main() -> int:
        async with AsyncExecutor() as executor:
            return await executor.submit(double, 21)

    assert run_virtual(main) == 42


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


def test_done_callbacks_are_called() -> None:
    """``add_done_callback`` is told when a call is done."""
    told: list[Any] = []

    async def main() -> AsyncFuture[int]:
        async with AsyncExecutor() as executor:
            future = executor.submit(double, 21)
            future.add_done_callback(told.append)
        return future

    assert run_virtual(main) is told[0]


def test_plain_functions_can_be_submitted() -> None:
    """A plain function runs in a thread."""

    async def main() -> list[str]:
        async with AsyncExecutor() as executor:
            return await executor.map(str.upper, ["a", "b"])

    assert run_virtual(main) == ["A", "B"]


def test_map_iter_takes_only_what_it_needs() -> None:
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
