"""`Pipeline.run` and `Pipeline.stream`."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

import antflow
from antflow import Pipeline, Stage
from antflow.testing import FailTimes, run_virtual
from tests.support import (
    REQUIRED,
    assert_balanced,
    defaults,
    double,
    now,
    odd_only,
    positional,
    same,
    slow,
    values,
)

pytestmark = pytest.mark.contract


def odd_pipeline(workers: int = 2) -> Pipeline:
    """A pipeline that fails for even numbers."""
    return Pipeline([Stage("Odd", workers, [odd_only], task_attempts=1)])


def test_run_keeps_its_parameters() -> None:
    """The five parameters of ``run`` keep their order and defaults, and only they have places."""
    assert positional(Pipeline.run) == [
        "items",
        "progress",
        "dashboard",
        "custom_dashboard",
        "dashboard_update_interval",
    ]
    assert list(defaults(Pipeline.run).values())[:5] == [REQUIRED, False, None, None, 0.5]


def test_stream_keeps_its_parameters() -> None:
    """``stream(items, progress=False, buffer_size=None)``, by place too."""
    assert positional(Pipeline.stream) == ["items", "progress", "buffer_size"]
    assert list(defaults(Pipeline.stream).values())[:3] == [REQUIRED, False, None]


def test_run_is_a_coroutine_function() -> None:
    """``run`` is awaited."""
    assert inspect.iscoroutinefunction(Pipeline.run)


def test_run_returns_a_list_in_input_order() -> None:
    """``run`` returns a list of the results in the order of the input, whoever was first."""

    async def later(value: int) -> int:
        await asyncio.sleep(10 - value)
        return value

    results = run_virtual(lambda: Pipeline([Stage("A", 10, [later])]).run(range(10)))
    assert isinstance(results, list)
    assert values(results) == list(range(10))


def test_run_returns_successes_only() -> None:
    """``len(results)`` is how many succeeded; the failed ones are not in the list."""
    results = run_virtual(lambda: odd_pipeline().run(range(10)))
    assert (len(results), values(results)) == (5, [1, 3, 5, 7, 9])
    assert all(result.is_success and result.error is None for result in results)


def test_run_of_nothing() -> None:
    """A run of no items returns an empty list."""
    assert list(run_virtual(lambda: odd_pipeline().run([]))) == []


@pytest.mark.parametrize(
    "items", [[1, 3], (1, 3), range(1, 5, 2), iter([1, 3]), {1: 0, 3: 0}.keys()]
)
def test_run_takes_any_iterable(items: Any) -> None:
    """Items are any sequence, view or iterator."""
    assert values(run_virtual(lambda: odd_pipeline().run(items))) == [1, 3]


def test_run_works_on_as_many_items_as_there_are_workers() -> None:
    """Twelve items of a second each and four workers take three seconds."""

    async def main() -> float:
        began = now()
        await Pipeline([Stage("A", 4, [slow])]).run(range(12))
        return now() - began

    assert 3.0 <= run_virtual(main) < 4.0


def test_stream_yields_results_and_failures() -> None:
    """``stream`` yields every item once, failed ones with ``.error``."""

    async def main() -> list[Any]:
        return [result async for result in odd_pipeline().stream(range(6))]

    results = run_virtual(main)
    assert sorted(result.id for result in results) == list(range(6))
    failed = {result.id: result.error for result in results if not result.is_success}
    assert set(failed) == {0, 2, 4}
    assert all(isinstance(error, ValueError) for error in failed.values())


def test_stream_yields_in_order_of_completion() -> None:
    """What is ready first comes first."""

    async def later(value: int) -> int:
        await asyncio.sleep(10 - 3 * value)
        return value

    async def main() -> list[int]:
        pipeline = Pipeline([Stage("A", 3, [later])])
        return [result.value async for result in pipeline.stream([0, 1, 2])]

    assert run_virtual(main) == [2, 1, 0]


def test_script_that_runs_a_pipeline() -> None:
    """A script as users have it: two stages, retries, callbacks, errors counted at the end."""
    saved: dict[Any, Any] = {}

    async def fetch(number: int) -> dict[str, int]:
        await asyncio.sleep(0.1)
        if number % 5 == 0:
            raise ConnectionError("no route")
        return {"number": number}

    async def parse(page: dict[str, int]) -> int:
        return page["number"] * 10

    async def save(item_id: Any, value: Any, _: dict[str, Any]) -> None:
        saved[item_id] = value

    async def main() -> Pipeline:
        pipeline = Pipeline(
            stages=[
                Stage(name="Fetch", workers=3, tasks=[fetch], retry="per_task", task_attempts=2,
                      task_wait_seconds=0.1),
                Stage(name="Parse", workers=1, tasks=[parse], on_success=save),
            ]
        )  # fmt: skip
        results = await pipeline.run([{"id": f"page-{n}", "value": n} for n in range(10)])
        assert [result.id for result in results] == [f"page-{n}" for n in range(10) if n % 5]
        return pipeline

    pipeline = run_virtual(main)
    assert saved == {f"page-{n}": 10 * n for n in range(10) if n % 5}
    assert pipeline.get_stats().items_failed == 2


def test_script_that_streams() -> None:
    """A script as users have it: results written as they come, failures kept for later."""

    async def main() -> tuple[list[int], list[Any]]:
        pipeline = Pipeline(stages=[Stage(name="Work", workers=4, tasks=[odd_only])])
        written: list[int] = []
        failed: list[Any] = []
        async for result in pipeline.stream([5, 6, 7, 8, 9]):
            if result.error:
                failed.append((result.id, str(result.error)))
            else:
                written.append(result.value)
        return written, failed

    written, failed = run_virtual(main)
    assert sorted(written) == [5, 7, 9]
    assert sorted(failed) == [(1, "6 is even"), (3, "8 is even")]


# New since 0.10.0


def test_run_new_options_come_by_keyword() -> None:
    """The new options of ``run`` are given by keyword, and are off by default."""
    options = defaults(Pipeline.run)
    names = ["total", "max_failures", "timeout", "item_timeout", "graceful_signals"]
    assert [options[name] for name in names] == [None] * 5
    assert list(options["retry_failed"]) == []


def test_run_results_is_a_list_that_says_how_many() -> None:
    """`RunResults` is a list, and its repr says how many are ok and how many failed."""
    results = run_virtual(lambda: odd_pipeline().run(range(3000)))
    assert isinstance(results, antflow.RunResults)
    assert "1,500 ok, 1,500 failed" in repr(results)
    assert type(results[:2]) is list


def test_failed_holds_what_entered_the_failing_stage() -> None:
    """``.failed`` has the failures; their value is what entered the stage they failed in."""
    pipeline = Pipeline(
        [Stage("Double", 1, [double]), Stage("Odd", 1, [odd_only], task_attempts=1)]
    )
    (failure,) = run_virtual(lambda: pipeline.run([4])).failed
    assert (failure.value, failure.input, failure.stage, failure.attempts) == (8, 4, "Odd", 1)


def test_outcomes_are_aligned_with_the_input() -> None:
    """``.outcomes`` has one entry per accepted item, good or bad, in input order."""
    results = run_virtual(lambda: odd_pipeline().run([5, 6, 7]))
    assert [(o.id, o.is_success) for o in results.outcomes] == [(0, True), (1, False), (2, True)]


def test_values_summary_and_stats_of_results() -> None:
    """``.values()``, ``.summary`` and ``.stats`` say the rest about a run."""
    results = run_virtual(lambda: odd_pipeline().run([5, 6, 7]))
    assert results.values() == [5, 7]
    assert results.summary.errors_by_type == {"ValueError": 1}
    assert (results.stats.items_processed, results.stats.items_failed) == (2, 1)


def test_raise_for_failures() -> None:
    """``.raise_for_failures()`` raises all errors as an `ExceptionGroup`, or nothing."""
    run_virtual(lambda: odd_pipeline().run([1])).raise_for_failures()
    with pytest.raises(ExceptionGroup) as caught:
        run_virtual(lambda: odd_pipeline().run([2, 4])).raise_for_failures()
    assert [str(error) for error in caught.value.exceptions] == ["2 is even", "4 is even"]


def test_second_run_has_its_own_results() -> None:
    """A second run returns its own results only, and counts from nothing."""
    pipeline = odd_pipeline()

    async def main() -> Any:
        await pipeline.run([1, 3, 4])
        return await pipeline.run([5])

    assert values(run_virtual(main)) == [5]
    assert (pipeline.get_stats().items_processed, pipeline.get_stats().items_failed) == (1, 0)


async def numbers(count: int) -> AsyncIterator[int]:
    """The numbers up to count, a second apart."""
    for number in range(count):
        await asyncio.sleep(1)
        yield number


def test_run_takes_async_iterables() -> None:
    """Items may come from an async generator, one by one."""
    results = run_virtual(lambda: odd_pipeline().run(numbers(4)))
    assert values(results) == [1, 3]


def test_endless_items_are_never_materialised() -> None:
    """Of an endless source a stream takes only as many as it has room for."""
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield number

    async def main() -> list[Any]:
        got = []
        async with aclosing(Pipeline([Stage("A", 2, [same])]).stream(endless())) as results:
            async for result in results:
                got.append(result.value)
                if len(got) == 5:
                    break
        return got

    assert run_virtual(main) == [0, 1, 2, 3, 4]
    assert taken < 100


@pytest.mark.parametrize("buffer_size", [None, 0, 1, 3])
def test_stream_works_with_any_buffer(buffer_size: int | None) -> None:
    """More items than queues and buffer hold come through, whatever the buffer's size."""

    async def main() -> int:
        stream = odd_pipeline().stream(range(300), buffer_size=buffer_size)
        return len([result async for result in stream])

    assert run_virtual(main) == 300


def test_first_result_comes_when_the_first_item_is_through() -> None:
    """A stream feeds while it yields: the first result comes after one task's time."""

    async def main() -> float:
        began = now()
        async with aclosing(Pipeline([Stage("A", 1, [slow])]).stream(range(500))) as results:
            await anext(results)
            return now() - began

    assert run_virtual(main) == 1.0


def test_cancelled_run_leaves_at_once() -> None:
    """Cancelling a run cancels its tasks and returns at once; the cancelled are outcomes."""
    pipeline = Pipeline([Stage("A", 2, [slow])])

    async def main() -> float:
        began = now()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await pipeline.run(range(10))
        return now() - began

    assert run_virtual(main) == 1.5
    results = pipeline.results
    assert values(results) == [0, 1]
    assert {type(o.error) for o in results.outcomes[2:]} == {antflow.ItemCancelled}
    assert results.cancelled == results.outcomes[2:]
    assert results.stats.items_cancelled == 8
    assert_balanced(results.stats)


def test_what_was_cancelled_can_be_fed_again() -> None:
    """``.cancelled`` goes on, in another run, where it was cut off."""
    tried: list[int] = []

    async def first(number: int) -> int:
        tried.append(number)
        return number

    pipeline = Pipeline([Stage("A", 1, [first]), Stage("B", 1, [slow], queue_capacity=10)])

    async def main() -> Any:
        with pytest.raises(TimeoutError):
            await pipeline.run(range(4), timeout=1.5)
        return await pipeline.run([], retry_failed=pipeline.results.cancelled)

    assert values(run_virtual(main)) == [1, 2, 3]
    assert tried == [0, 1, 2, 3]


def test_source_that_raises() -> None:
    """When the source raises, what was accepted finishes and the error brings the results."""

    def broken() -> Iterator[int]:
        yield from [1, 2, 3]
        raise OSError("the disk is gone")

    pipeline = odd_pipeline()
    with pytest.raises(OSError, match="the disk is gone") as caught:
        run_virtual(lambda: pipeline.run(broken()))
    assert values(caught.value.results) == [1, 3]  # type: ignore[attr-defined]
    assert values(pipeline.results) == [1, 3]


def test_max_failures_stops_the_intake() -> None:
    """``max_failures`` stops the intake with `TooManyFailures`, results attached."""
    with pytest.raises(antflow.TooManyFailures) as caught:
        run_virtual(lambda: odd_pipeline().run(itertools.count(), max_failures=3))
    assert caught.value.results is not None
    assert caught.value.results.stats.items_failed >= 3
    assert_balanced(caught.value.results.stats)


def test_timeout_of_the_whole_run() -> None:
    """``timeout`` seconds end the whole run with `TimeoutError`; what was done is kept."""
    pipeline = Pipeline([Stage("A", 1, [slow])])
    with pytest.raises(TimeoutError):
        run_virtual(lambda: pipeline.run(range(10), timeout=2.5))
    assert values(pipeline.results) == [0, 1]


def test_item_timeout_fails_the_late_ones() -> None:
    """``item_timeout`` fails an item that is not through in so many seconds."""
    results = run_virtual(
        lambda: Pipeline([Stage("A", 1, [slow], task_attempts=1)]).run(range(4), item_timeout=2.5)
    )
    assert values(results) == [0, 1]
    assert {type(failure.error) for failure in results.failed} == {TimeoutError}


def test_retry_failed_goes_on_where_it_stopped() -> None:
    """With ``retry_failed`` the failed items go on at the stage they failed in."""
    first, flaky = FailTimes(0), FailTimes(1)
    pipeline = Pipeline([Stage("A", 1, [first]), Stage("B", 1, [flaky], task_attempts=1)])

    async def main() -> Any:
        failed = (await pipeline.run([7])).failed
        return await pipeline.run([], retry_failed=failed)

    assert values(run_virtual(main)) == [7]
    assert (first.tries["7"], flaky.tries["7"]) == (1, 2)


def test_retry_failed_refuses_results_that_need_no_retry() -> None:
    """All results of a run, or one that succeeded, are refused: the work would be done twice."""
    pipeline = Pipeline([Stage("A", 1, [odd_only], task_attempts=1)])
    results = run_virtual(lambda: pipeline.run(range(3)))
    with pytest.raises(TypeError, match=r"RunResults: 1 ok, 2 failed>: pass \[\*results.failed"):
        run_virtual(lambda: pipeline.run([], retry_failed=results))
    with pytest.raises(ValueError, match=r"retry_failed\[1\]=.* it is completed; pass \["):
        run_virtual(lambda: pipeline.run([], retry_failed=results.outcomes))


def test_retry_failed_names_the_stage_that_is_missing() -> None:
    """A result of a stage that has another name now is refused with its name."""
    results = run_virtual(
        lambda: Pipeline([Stage("Even", 1, [odd_only], task_attempts=1)]).run([2])
    )
    pipeline = Pipeline([Stage("Evens", 1, [odd_only])])
    text = r"retry_failed\[0\].stage='Even' not found; the stages are 'Evens'; did you mean 'Evens'"
    with pytest.raises(ValueError, match=text):
        run_virtual(lambda: pipeline.run([], retry_failed=results.failed))


def test_collect_results_off_leaves_the_lists_empty() -> None:
    """With ``collect_results=False`` lists are empty, and stats and summary exact."""
    pipeline = Pipeline([Stage("A", 1, [odd_only], task_attempts=1)], collect_results=False)
    results = run_virtual(lambda: pipeline.run(range(5)))
    assert (list(results), results.failed, results.outcomes) == ([], [], [])
    assert (results.stats.items_processed, results.summary.total_failed) == (2, 3)


def test_one_item_takes_no_polling() -> None:
    """One instant item takes no time at all: nothing is polled."""

    async def main() -> float:
        began = now()
        await Pipeline([Stage("A", 5, [same])]).run([1])
        return now() - began

    assert run_virtual(main) == 0.0


def test_graceful_signals_drain() -> None:
    """With ``graceful_signals`` the first signal stops the intake; what is in flight finishes."""

    async def work(value: int) -> int:
        if value == 3:
            signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)
        return value

    pipeline = Pipeline([Stage("A", 1, [work], queue_capacity=1)])
    try:
        results = asyncio.run(pipeline.run(itertools.count(), graceful_signals=30.0))
    except KeyboardInterrupt:  # it would end the whole test run
        pytest.fail("the signal was not heard")
    assert results.stopped_by == signal.SIGINT
    assert values(results)[:4] == [0, 1, 2, 3]
    assert results.stats.items_cancelled == 0
    assert_balanced(results.stats)


def test_stream_may_be_left_at_any_time() -> None:
    """Breaking out of a stream leaves nothing running, and the pipeline can be used again."""
    pipeline = odd_pipeline()

    async def main() -> Any:
        async with aclosing(pipeline.stream(range(500))) as results:
            async for _ in results:
                break
        return await pipeline.run([5])

    assert values(run_virtual(main)) == [5]


@pytest.mark.fault
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["task", "source"])
@pytest.mark.parametrize("way", ["read", "left"])
def test_what_ends_the_program_comes_out_of_the_stream(
    error: type[BaseException], where: str, way: str
) -> None:
    """It comes out where the stream is read or left; it does not stop the event loop under it."""

    def raise_it(value: int) -> int:
        if value == 3:
            raise error(7)
        return value

    def source() -> Iterator[int]:
        for value in range(10):
            yield raise_it(value) if where == "source" else value

    async def work(value: int) -> int:
        await asyncio.sleep(1)
        return raise_it(value)

    seen: list[int] = []

    async def read(pipeline: Pipeline) -> None:
        async with pipeline.stream(source()) as results:
            async for result in results:
                seen.append(result.value)
                if way == "left" and result.value == 1:
                    await asyncio.sleep(100)
                    break

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [work], queue_capacity=1)])
        with pytest.raises(error) as caught:
            await read(pipeline)
        assert caught.value.args == (7,)
        assert seen == [0, 1, 2][: len(seen)]
        assert len(seen) == 3 or (way, where) != ("read", "task")
        await asyncio.sleep(1)  # the event loop goes on
        assert_balanced(pipeline.get_stats())

    run_virtual(main)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("buffer_size", [None, 0, 1])
def test_what_a_stream_that_was_left_did_not_yield_is_known(
    ordered: bool, buffer_size: int | None
) -> None:
    """Whoever leaves a stream early finds the rest of what was taken in with the results."""
    seen: list[int] = []

    async def main() -> antflow.RunResults[Any]:
        pipeline = odd_pipeline()
        stream = pipeline.stream(range(500), ordered=ordered, buffer_size=buffer_size)
        async with aclosing(stream) as results:
            async for result in results:
                seen.append(result.id)
                if len(seen) == 7:
                    break
        return pipeline.results

    rest = run_virtual(main)
    everything = [*seen, *(each.id for each in [*rest, *rest.failed, *rest.cancelled])]
    assert sorted(everything) == list(range(rest.stats.items_accepted))
    assert len(rest.outcomes) == rest.stats.items_accepted - 7


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("collects", [False, True])
def test_what_a_stream_did_not_finish_is_known(ordered: bool, collects: bool) -> None:
    """A stream yields no cancelled item: ``results.cancelled`` has them, and them alone."""
    pipeline = Pipeline([Stage("A", 2, [slow])], collect_results=collects)

    async def main() -> list[Any]:
        seen: list[Any] = []
        with suppress(TimeoutError):
            async for result in pipeline.stream(range(6), ordered=ordered, timeout=1.5):
                seen.append(result)
        return seen

    assert values(run_virtual(main)) == [0, 1]
    results = pipeline.results
    assert [each.id for each in results.cancelled] == [2, 3, 4, 5]
    assert (list(results), results.outcomes) == ([], results.cancelled)
