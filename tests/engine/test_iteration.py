"""What is given out one by one: ``anext`` may be cancelled and asked again, and nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, suppress
from itertools import count
from typing import Any

import pytest

from antflow import AsyncExecutor, Iteration, Pipeline, PipelineError, ResultStream, Stage
from antflow.testing import Calls, Gate, run_virtual
from tests.support import now


def lasting(seconds: float) -> Callable[[Any], Any]:
    """A task that takes so long and gives its value back."""

    async def last(value: Any) -> Any:
        await asyncio.sleep(seconds)
        return value

    return last


async def assert_works(pipeline: Pipeline[Any, Any]) -> None:
    """The pipeline can be run, and gives the results of that run alone."""
    assert [result.input for result in await pipeline.run(["a", "b"])] == ["a", "b"]


async def in_no_order(value: int) -> int:
    """Take a time that has nothing to do with the place in the input."""
    await asyncio.sleep(0.3 + value * 7 % 10 / 10)
    return value


def streamed(**options: Any) -> Callable[[AsyncExecutor, int], AsyncIterator[int]]:
    """Numbers as the results of a stream."""
    return lambda _, number: _Values(
        Pipeline([Stage("A", 2, [in_no_order])]).stream(range(number), **options),
        lambda result: result.value,
    )


def mapped(executor: AsyncExecutor, number: int) -> AsyncIterator[int]:
    """Numbers as the results of ``map_iter``."""
    return executor.map_iter(in_no_order, range(number))


def completed(executor: AsyncExecutor, number: int) -> AsyncIterator[int]:
    """Numbers as futures, as they complete."""
    futures = [executor.submit(in_no_order, value) for value in range(number)]
    return _Values(executor.as_completed(futures), lambda future: future._outcome())


class _Values(AsyncIterator[int]):
    """What comes out of an iteration, made numbers: the iteration itself is asked each time."""

    def __init__(self, iteration: Iteration[Any], value: Callable[[Any], int]) -> None:
        self._iteration = iteration
        self._value = value

    async def __anext__(self) -> int:
        return self._value(await anext(self._iteration))


KINDS = {
    "stream": streamed(),
    "stream of 0": streamed(buffer_size=0),
    "ordered stream": streamed(ordered=True),
    "map_iter": mapped,
    "as_completed": completed,
}


async def with_heartbeat(values: AsyncIterator[int], beat: Callable[[], float]) -> list[int]:
    """Everything an iterator gives to whoever waits for it with a heartbeat."""
    came: list[int] = []
    while True:
        try:
            came.append(await asyncio.wait_for(anext(values), beat()))
        except TimeoutError:
            pass
        except StopAsyncIteration:
            return came


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_anext_with_a_heartbeat_loses_nothing(kind: str, seed: int) -> None:
    """``wait_for(anext(…))``, again and again: each value comes once, then the end for ever."""
    choose = random.Random(seed)

    async def main() -> list[int]:
        async with AsyncExecutor(max_workers=2) as executor:
            values = KINDS[kind](executor, 20)
            # Zero too: it gives up at once, also where a value is there.
            came = await with_heartbeat(values, lambda: choose.choice([0.0, 0.05, 0.1, 0.4]))
            for _ in range(3):
                with pytest.raises(StopAsyncIteration):
                    await anext(values)
        return came

    assert sorted(run_virtual(main, seed=seed)) == list(range(20))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_anext_cancelled_at_the_very_moment_a_value_comes(kind: str, seed: int) -> None:
    """However close a cancellation is to a value: it was returned, or it is still to be had."""

    async def main() -> list[int]:
        choose = random.Random(seed)
        came: list[int] = []
        async with AsyncExecutor(max_workers=2) as executor:
            values = KINDS[kind](executor, 20)
            while True:
                asking = asyncio.ensure_future(anext(values))
                for _ in range(choose.randrange(6)):
                    await asyncio.sleep(0)
                await asyncio.sleep(choose.choice([0.0, 0.1]))
                asking.cancel()
                try:
                    came.append(await asking)
                except asyncio.CancelledError:
                    pass
                except StopAsyncIteration:
                    return came

    assert sorted(run_virtual(main, seed=seed)) == list(range(20))


@pytest.mark.parametrize("kind", KINDS)
def test_several_tasks_share_the_values(kind: str) -> None:
    """Three tasks ask one iteration: each value goes to one of them, and all come to an end."""

    async def main() -> list[int]:
        came: list[int] = []
        async with AsyncExecutor(max_workers=2) as executor:
            values = KINDS[kind](executor, 20)

            async def consume() -> None:
                with suppress(StopAsyncIteration):
                    while True:
                        came.append(await anext(values))

            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(consume())
        return came

    assert sorted(run_virtual(main)) == list(range(20))


def fails_at_5(value: int) -> int:
    """Raise for one value."""
    if value == 5:
        raise KeyError("five")
    return value


def source_that_fails() -> Any:
    """Five numbers, then an error."""
    yield from range(5)
    raise KeyError("five")


@pytest.mark.parametrize("kind", ["stream", "map_iter"])
def test_error_comes_out_once_after_the_last_value(kind: str) -> None:
    """What ended it comes out of one ``anext``, after all values; then it has ended."""

    async def main() -> None:
        async with AsyncExecutor(max_workers=2) as executor:
            values: AsyncIterator[Any] = executor.map_iter(fails_at_5, range(10))
            if kind == "stream":
                values = Pipeline([Stage("A", 2, [in_no_order])]).stream(source_that_fails())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(values), 0)
            for _ in range(5):
                await anext(values)
            with pytest.raises(KeyError, match="five"):
                await anext(values)
            for _ in range(2):
                with pytest.raises(StopAsyncIteration):
                    await anext(values)

    run_virtual(main)


def test_stop_async_iteration_of_a_call_does_not_end_a_loop_in_silence() -> None:
    """A function that raises `StopAsyncIteration` does not look like the end of the values."""

    async def stops(value: int) -> int:
        raise StopAsyncIteration(value)

    async def main() -> None:
        async with AsyncExecutor() as executor:
            with pytest.raises(RuntimeError) as caught:
                _ = [each async for each in executor.map_iter(stops, [1])]
        assert isinstance(caught.value.__cause__, StopAsyncIteration)

    run_virtual(main)


def test_error_is_kept_when_the_wait_for_the_end_is_cancelled() -> None:
    """An ``anext`` that is cancelled while the other calls end leaves the error to the next one."""

    async def lingers(value: int) -> int:
        if value == 0:
            await asyncio.sleep(0.5)
            raise KeyError("zero")
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(3)
        return value

    async def main() -> None:
        async with AsyncExecutor(max_workers=2) as executor:
            values = executor.map_iter(lingers, range(2))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(values), 1)
            with pytest.raises(KeyError, match="zero"):
                await anext(values)
            assert now() == 3.5

    run_virtual(main)


# Leaving


def test_stream_is_a_context_manager() -> None:
    """``async with`` begins the run, and has it over when the block is left."""

    async def main() -> None:
        calls = Calls(seconds=1)
        pipeline = Pipeline([Stage("A", 2, [calls])])
        stream = pipeline.stream(count())
        await asyncio.sleep(10)
        assert calls.made == []
        async with stream as results:
            assert results is stream
            await asyncio.sleep(1.5)
            assert [call.value for call in calls.made[:2]] == [0, 1]
            assert (await anext(results)).value == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert pipeline.results.values() == [1]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await stream.aclose()

    run_virtual(main)


def test_stream_that_is_left_before_its_run_has_taken_a_step() -> None:
    """A block that is left at once, and an ``anext`` cancelled at once: the run is over."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [Calls()])])
        async with pipeline.stream([1]):
            pass
        assert asyncio.all_tasks() == {asyncio.current_task()}
        async with pipeline.stream([1]) as results:
            with suppress(TimeoutError):
                await asyncio.wait_for(anext(results), 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main)


def test_stream_that_was_closed_before_it_began() -> None:
    """Closing a stream that was never asked begins nothing."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [Calls()])])
        stream = pipeline.stream([1])
        await stream.aclose()
        assert [each async for each in stream] == []
        assert pipeline.get_stats().items_accepted == 0

    run_virtual(main)


@pytest.mark.parametrize("kind", ["stream", "map_iter", "as_completed"])
def test_closing_ends_an_anext_that_waits(kind: str) -> None:
    """Who waits in ``anext`` while another task closes the iteration sees its end."""

    async def main() -> None:
        async with AsyncExecutor() as executor:
            future = executor.submit(asyncio.sleep, 100)
            iterations: dict[str, Callable[[], Iteration[Any]]] = {
                "stream": lambda: Pipeline([Stage("A", 1, [lasting(100)])]).stream([1]),
                "map_iter": lambda: executor.map_iter(lasting(100), [1]),
                "as_completed": lambda: executor.as_completed([future]),
            }
            values = iterations[kind]()
            asking = asyncio.ensure_future(anext(values))
            await asyncio.sleep(1)
            await values.aclose()
            with pytest.raises(StopAsyncIteration):
                await asking
            assert now() == 1
            future.cancel()

    run_virtual(main)


@pytest.mark.parametrize("asked_for", [1, 3])
@pytest.mark.parametrize("display", [False, True])
def test_stream_that_is_dropped_is_stopped(asked_for: int, display: bool) -> None:
    """Leaving an ``async for`` early, and nothing else: the run is over soon after, in order."""
    finishes: list[int] = []

    class Display:
        def on_finish(self, results: Any, summary: Any) -> None:
            finishes.append(1)

    async def main() -> None:
        calls = Calls(seconds=1)
        pipeline = Pipeline([Stage("A", 2, [calls])])
        options: dict[str, Any] = {"custom_dashboard": Display()} if display else {}
        seen: list[int] = []
        async for result in pipeline.stream(count(), **options):
            seen.append(result.value)
            if len(seen) == asked_for:
                break
        gc.collect()
        await asyncio.sleep(0.5)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        began = len(calls.made)
        await asyncio.sleep(10)
        assert len(calls.made) == began
        rest = pipeline.results
        assert rest.stats.items_in_flight == 0
        assert len(rest.outcomes) == rest.stats.items_accepted - asked_for
        await assert_works(pipeline)

    run_virtual(main)
    assert finishes == [1] * display


def test_iteration_of_calls_that_is_dropped_cancels_them() -> None:
    """Leaving a loop over ``map_iter`` early cancels the calls that were begun ahead."""

    async def main() -> None:
        calls = Calls(seconds=1)
        async with AsyncExecutor(max_workers=2) as executor:
            async for _ in executor.map_iter(calls, count()):
                break
            gc.collect()
            await asyncio.sleep(0.5)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main)


def test_stream_that_is_dropped_as_its_event_loop_ends() -> None:
    """A program that leaves the loop and ends at once: no warning, no task that is destroyed."""
    pipeline = Pipeline([Stage("A", 2, [lasting(0.01)])])

    async def main() -> None:
        async for _ in pipeline.stream(count()):
            break

    asyncio.run(main(), debug=True)
    gc.collect()
    assert pipeline.get_stats().items_in_flight == 0


def test_stream_that_outlives_its_event_loop() -> None:
    """A stream that is still there after its loop was closed: over, and refused in another loop."""
    pipeline = Pipeline([Stage("A", 2, [lasting(0.01)])])
    streams: list[ResultStream[Any]] = []

    async def main() -> None:
        streams.append(pipeline.stream(count()))
        await anext(streams[0])

    async def again() -> None:
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            await anext(streams[0])
        await streams[0].aclose()

    asyncio.run(main())
    asyncio.run(again())
    assert pipeline.get_stats().items_in_flight == 0


def test_stream_collected_in_another_thread() -> None:
    """A stream whose last reference is dropped by a thread is stopped by its own event loop."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [lasting(0.01)])])
        streams = [pipeline.stream(count())]
        await anext(streams[0])
        await asyncio.to_thread(streams.clear)
        async with asyncio.timeout(20):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)
        assert pipeline.get_stats().items_in_flight == 0

    asyncio.run(main())


def test_cancelling_an_anext_leaves_the_run_alone() -> None:
    """An ``anext`` that is given up cancels no task of the pipeline."""

    async def main() -> None:
        gate = Gate()
        pipeline = Pipeline([Stage("A", 1, [gate])])
        async with pipeline.stream([1]) as results:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(results), 1)
            gate.open()
            assert (await anext(results)).attempts == 1

    run_virtual(main)


def test_results_that_a_display_has_seen_are_not_the_last() -> None:
    """Who leaves a stream early finds the rest, also where a display read the results before."""

    class Display:
        def on_finish(self, results: Any, summary: Any) -> None:
            assert list(results) == []

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 3, [Calls()])])
        async with pipeline.stream(range(5), custom_dashboard=Display()) as stream:
            await anext(stream)
            await asyncio.sleep(10)
            assert pipeline.results == []
        assert len(pipeline.results) == 4

    run_virtual(main)


def test_stream_within_its_own_run() -> None:
    """What refuses the run comes out of the first ``anext``, once, and leaves nothing behind."""

    async def main() -> None:
        async def task(value: int) -> list[Any]:
            stream = pipeline.stream([1])
            with pytest.raises(PipelineError, match="inside its own run"):
                await anext(stream)
            return [each async for each in stream]

        pipeline = Pipeline([Stage("A", 1, [task])])
        assert (await pipeline.run([0])).values() == [[]]

    run_virtual(main)


@pytest.mark.parametrize("place", ["task", "callback", "display", "source", "nested run"])
def test_stream_that_is_closed_from_inside_its_run(place: str) -> None:
    """A task, a callback, a display or the source asks for the end, and does not wait for it."""

    async def main() -> None:
        async def close_in(here: str) -> None:
            if here == place and pipeline.get_stats().items_accepted > 5:
                await stream.aclose()

        async def nested(value: int) -> int:
            await close_in("nested run")
            return value

        async def task(value: int) -> int:
            await asyncio.sleep(1)
            await close_in("task")
            if place == "nested run":
                await Pipeline([Stage("Inner", 1, [nested])]).run([value])
            return value

        async def on_success(*_: Any) -> None:
            await close_in("callback")

        class Display:
            async def on_update(self, snapshot: Any) -> None:
                await close_in("display")

        async def source() -> AsyncIterator[int]:
            for number in range(100):
                await close_in("source")
                yield number

        pipeline = Pipeline([Stage("A", 2, [task], on_success=on_success)])
        stream = pipeline.stream(source(), custom_dashboard=Display())
        came = len([result async for result in stream])
        stats = pipeline.get_stats()
        assert came + len(pipeline.results.outcomes) == stats.items_accepted < 100
        assert stats.items_in_flight == 0
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main)


def test_closing_in_another_event_loop_is_refused_and_changes_nothing() -> None:
    """Who reads the stream in its own event loop gets all the results."""

    async def elsewhere(stream: Any) -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await stream.aclose()

    async def main() -> None:
        stream = Pipeline([Stage("A", 2, [Calls()])]).stream(range(50), buffer_size=1)
        await anext(stream)
        await asyncio.to_thread(lambda: asyncio.run(elsewhere(stream)))
        async with asyncio.timeout(10):
            assert len([result async for result in stream]) == 49

    asyncio.run(main())


def test_call_that_closes_the_iteration_it_belongs_to() -> None:
    """It does not wait for itself, neither when it is at work nor when it is cancelled."""

    async def main() -> None:
        async def call(number: int) -> int:
            try:
                await asyncio.sleep(1)
            finally:
                await numbers.aclose()
            return number

        async with AsyncExecutor(2) as executor:
            numbers = executor.map_iter(call, range(10))
            assert [number async for number in numbers] == []
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main)


def test_a_plain_for_is_refused_in_words() -> None:
    """A plain ``for`` over results says what to write instead; they are still no `Iterable`."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [Calls()])])
        async with AsyncExecutor(2) as executor:
            for results in (pipeline.stream([1]), executor.map_iter(lasting(1), [1])):
                with pytest.raises(TypeError, match="write `async for`, not `for`"):
                    list(results)  # type: ignore[call-overload]
                assert not isinstance(results, Iterable)
                assert len([result async for result in results]) == 1

    run_virtual(main)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_signal_while_the_last_results_are_read() -> None:
    """``graceful_signals`` holds until the last result was read, also when the run is over."""
    import signal

    async def main() -> tuple[int, Any]:
        before = signal.getsignal(signal.SIGINT)
        pipeline = Pipeline([Stage("A", 2, [Calls()])])
        came = 0
        async with aclosing(pipeline.stream(range(5), graceful_signals=1)) as results:
            async for _ in results:
                await asyncio.sleep(0.01)
                assert pipeline.get_dashboard_snapshot().state == "finished"
                signal.raise_signal(signal.SIGINT)
                came += 1
                if came == 2:
                    break
        return came, signal.getsignal(signal.SIGINT) == before

    assert asyncio.run(main()) == (2, True)
