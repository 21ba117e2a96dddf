"""Where items leave a run: results, too many failures, and items that go on in another run."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from antflow import (
    ItemCancelled,
    Pipeline,
    Retry,
    RunResults,
    Stage,
    StatusEvent,
    StatusTracker,
    TooManyFailures,
)
from antflow.testing import Calls, FailTimes, cancel_at_every_step, run_virtual


async def refuse_thirds(value: int) -> int:
    """Fail on every third item."""
    if value % 3 == 0:
        raise ValueError(value)
    return value


def test_failures_of_one_stage_stop_the_intake() -> None:
    """``max_failures`` of a stage: failures elsewhere do not count, and all items are outcomes."""

    async def main() -> Any:
        stages = [
            Stage("A", 1, [refuse_thirds], task_attempts=1),
            Stage("B", 1, [FailTimes(1)], task_attempts=1, max_failures=2, queue_capacity=1),
        ]
        pipeline = Pipeline(stages)
        with pytest.raises(TooManyFailures, match="'B'") as caught:
            await pipeline.run(range(1000))
        return caught.value.results

    results = run_virtual(main)
    assert results.stats.items_accepted < 50
    assert results.stats.items_in_flight == 0
    assert len(results.outcomes) == results.stats.items_accepted


def test_ratio_of_failures_of_one_stage_counts_from_twenty_on() -> None:
    """A share of what left the stage, judged once there are twenty."""

    async def main() -> Any:
        pipeline = Pipeline(
            [Stage("A", 1, [refuse_thirds], task_attempts=1, max_failures=0.3, queue_capacity=1)]
        )
        with pytest.raises(TooManyFailures) as caught:
            await pipeline.run(range(1000))
        return caught.value.results

    assert 20 <= len(run_virtual(main).outcomes) <= 24


def test_items_that_wait_are_not_run_after_too_many_failures() -> None:
    """Tries that had begun end; items in queues, waiting for a retry or unread are cancelled."""
    begun: list[tuple[str, int]] = []

    async def first(value: int) -> int:
        begun.append(("first", value))
        await asyncio.sleep(1)
        return value

    async def second(value: int) -> int:
        begun.append(("second", value))
        await asyncio.sleep(5 if value else 1.5)
        if value == 0:
            raise ValueError("no")
        if value == 1:
            raise ConnectionError("once more")
        return value

    async def main() -> TooManyFailures:
        retry = Retry(9, 60, give_up=ValueError)
        stages = [Stage("A", 2, [first]), Stage("B", 2, [second], retry=retry)]
        with pytest.raises(TooManyFailures) as caught:
            await Pipeline(stages).run(range(100), max_failures=1)
        assert asyncio.get_running_loop().time() == 6  # 1 began at 1 and ends
        return caught.value

    error = run_virtual(main)
    results = error.results
    assert results is not None
    assert (results.values(), [each.id for each in results.failed]) == ([], [0])
    # At 2.5, 1 is in B and two are in A; of those that wait before B, none begins.
    assert sorted(begun) == [*(("first", n) for n in range(6)), ("second", 0), ("second", 1)]
    assert {str(each.error) for each in results.cancelled} == {
        "the run was stopped by max_failures before the item was through"
    }
    assert [each.id for each in results.cancelled] == list(range(1, len(results.outcomes)))
    assert str(error).endswith(
        "no; to go on, run what was not taken in yet, with "
        "retry_failed=[*error.results.failed, *error.results.cancelled]"
    )


@pytest.mark.parametrize("way", ["stream", "collect_results=False"])
def test_too_many_failures_without_results_do_not_name_them(way: str) -> None:
    """Where the results have no failed items, the error does not say to pass them on."""

    async def main() -> None:
        stage = Stage("A", 1, [refuse_thirds], task_attempts=1)
        pipeline = Pipeline([stage], collect_results=way == "stream")
        if way == "stream":
            _ = [each async for each in pipeline.stream(range(9), max_failures=1)]
        else:
            await pipeline.run(range(9), max_failures=1)

    with pytest.raises(TooManyFailures) as caught:
        run_virtual(main)
    assert caught.value.results is not None
    assert caught.value.results.failed == []
    assert "the failed ones are not in error.results" in str(caught.value)


def test_too_many_failures_tells_what_failed_and_can_be_copied() -> None:
    """How many of how many, the kinds in the stage whose limit it was, and the first of them."""

    async def refuse(value: int) -> int:
        if value % 2:
            raise LookupError(f"no {value}")
        return value

    async def main() -> TooManyFailures:
        stages = [
            Stage("A", 1, [refuse_thirds], task_attempts=1),
            Stage("B", 1, [refuse], task_attempts=1, max_failures=2),
        ]
        with pytest.raises(TooManyFailures) as caught:
            await Pipeline(stages).run(range(100))
        return caught.value

    error = run_virtual(main)
    assert re.fullmatch(
        r"2 of \d items failed in stage 'B' \(max_failures=2\): 2 × LookupError at "
        r"\S+test_settlement\.py:\d+ in refuse, e\.g\. input 1 in stage B after 1 attempt: no 1; "
        r"to go on, run what was not taken in yet, with retry_failed=.*",
        str(error),
    )
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert vars(copied) | {"results": None} == vars(error) | {"results": None}
        assert str(copied) == str(error)


def test_failed_items_go_on_where_they_failed() -> None:
    """``retry_failed``: stages that were through are not run again, ids and inputs are kept."""
    first, broken = Calls(), [True]

    async def second(value: int) -> int:
        if broken[0] and value >= 12:
            raise ValueError
        return value + 100

    async def add_ten(value: int) -> int:
        return value + 10

    async def main() -> tuple[RunResults[Any], RunResults[Any]]:
        stages = [
            Stage("A", 2, [first, add_ten]),
            Stage("B", 2, [second], task_attempts=1),
            Stage("C", 2, [Calls()]),
        ]
        pipeline = Pipeline(stages)
        items = [{"id": f"item {n}", "value": n, "colour": "red"} for n in range(4)]
        before = await pipeline.run(items)
        broken[0] = False
        return before, await pipeline.run([7], retry_failed=before.failed)

    before, after = run_virtual(main)
    assert before.values() == [110, 111]
    assert [(result.id, result.value) for result in after] == [
        ("item 2", 112),
        ("item 3", 113),
        (after[2].id, 117),
    ]
    assert [call.value for call in first.made] == [0, 1, 2, 3, 7]
    assert after[0].metadata == {"colour": "red"}
    assert after[0].input == {"id": "item 2", "value": 2, "colour": "red"}


def test_item_that_failed_in_the_middle_of_expanding_goes_on_from_there() -> None:
    """What was made from it in the first run is not made again in the second."""
    broken = [True]

    async def some(value: int) -> AsyncIterator[int]:
        for n in range(4):
            if n == 2 and broken[0]:
                raise ValueError
            yield value + n

    async def main() -> tuple[RunResults[Any], RunResults[Any]]:
        stages = [Stage("A", 1, [some], task_attempts=1, expand=True), Stage("B", 1, [Calls()])]
        pipeline = Pipeline(stages)
        before = await pipeline.run([10])
        broken[0] = False
        return before, await pipeline.run([], retry_failed=before.failed)

    before, after = run_virtual(main)
    assert (before.values(), after.values()) == ([10, 11], [12, 13])
    assert [result.id for result in after] == ["0/2", "0/3"]


def test_cancelled_items_can_go_on_later() -> None:
    """The results of a cancelled run tell where each item was: a later run finishes them."""
    calls = Calls(seconds=1)

    async def main() -> list[int]:
        pipeline = Pipeline([Stage("A", 1, [calls]), Stage("B", 1, [Calls(seconds=3)])])
        with pytest.raises(TimeoutError) as caught:
            await pipeline.run(range(6), timeout=4.5)
        error: Any = caught.value
        before: RunResults[Any] = error.results
        left = [item for item in before.outcomes if item.outcome == "cancelled"]
        assert all(isinstance(item.error, ItemCancelled) for item in left)
        after = await pipeline.run([], retry_failed=left)
        return sorted(before.values() + after.values())

    assert run_virtual(main) == list(range(6))
    assert len(calls.made) <= 7


def test_retry_of_failed_items_cancelled_at_every_step_loses_nothing() -> None:
    """Cancelled before any step of the second run: balanced books."""
    pipelines: list[Pipeline] = []

    async def main() -> None:
        stages = [Stage("A", 2, [Calls()]), Stage("B", 1, [refuse_thirds], task_attempts=1)]
        pipeline = Pipeline(stages)
        before = await pipeline.run(range(7))
        pipelines.append(pipeline)
        await pipeline.run([8], retry_failed=before.failed)

    def check(step: int) -> None:
        for pipeline in pipelines:
            stats = pipeline.get_stats()
            assert stats.items_in_flight == 0
            assert len(pipeline.results.outcomes) == stats.items_accepted
        pipelines.clear()

    assert cancel_at_every_step(main, check) > 30


@pytest.mark.parametrize("ending", ["max_failures", "timeout", "shutdown", "drain", "tracker"])
def test_items_that_go_on_are_outcomes_even_if_there_was_no_room_for_them(ending: str) -> None:
    """A run that is stopped early has every item of ``retry_failed`` among its results."""

    async def refuse(value: int) -> int:
        await asyncio.sleep(1)
        if ending == "shutdown":
            await pipeline.shutdown()
        elif ending == "drain" and (run := pipeline.current_run) is not None:
            run.drain()
        raise ValueError(value)

    async def slow(event: StatusEvent) -> None:
        await asyncio.sleep(0.7)

    stages = [Stage("A", 1, [Calls()]), Stage("B", 1, [refuse], task_attempts=1, queue_capacity=2)]
    tracker = StatusTracker(on_status_change=slow) if ending == "tracker" else None
    pipeline = Pipeline(stages, status_tracker=tracker)
    first = Pipeline([stages[0], Stage("B", 1, [FailTimes(99)], task_attempts=1)])

    async def main() -> tuple[RunResults[Any], RunResults[Any]]:
        before = await first.run(range(20), on_failures="ignore")
        again = before.failed
        with suppress(TooManyFailures, TimeoutError):
            if ending == "max_failures":
                await pipeline.run([], retry_failed=again, max_failures=2)
            else:
                await pipeline.run([], retry_failed=again, timeout=2.5, on_failures="ignore")
        return before, pipeline.results

    before, after = run_virtual(main)
    left = [*after.failed, *after.cancelled]
    assert after.cancelled
    assert sorted(result.input for result in left) == list(range(20))
    assert {result.stage for result in left} == {"B"}
    assert [result.id for result in after.outcomes] == [result.id for result in before.failed]
    assert after.stats.items_accepted == 20
    assert after.stats.items_in_flight == 0


def test_run_that_is_stopped_again_and_again_does_each_item_once() -> None:
    """An iterator has what was not taken in, and the results have all the rest."""

    async def main() -> list[int]:
        calls = Counter[int]()

        async def moody(value: int) -> int:
            calls[value] += 1
            if calls[value] < value % 5:
                raise ValueError(value)
            return value

        pipeline = Pipeline([Stage("A", 2, [moody], task_attempts=1, queue_capacity=3)])
        items, again, done = iter(range(200)), list[Any](), list[int]()
        while True:
            limit = 4 if again else 40
            with suppress(TooManyFailures):
                await pipeline.run(items, retry_failed=again, max_failures=limit)
            results = pipeline.results
            done += results.values()
            again = [*results.failed, *results.cancelled]
            if not again:
                return done

    assert sorted(run_virtual(main)) == list(range(200))


def test_error_of_an_open_run_has_its_results() -> None:
    """What comes out of ``open()`` has the results so far, as what comes out of ``run()`` has."""

    async def main() -> Any:
        with pytest.raises(TooManyFailures) as caught:
            async with Pipeline([Stage("A", 1, [FailTimes(9)], task_attempts=1)]).open(
                max_failures=1
            ) as handle:
                await handle.feed([0])
        return caught.value.results

    results = run_virtual(main)
    assert results is not None
    assert results.stats.items_failed == 1


def test_results_read_while_the_run_ends_are_not_final() -> None:
    """Whoever reads the results just before the end does not make an incomplete list the last."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [Calls()])])
        async with pipeline.open() as run:
            engine = run._run
            await run.feed([1, 2])
            stats = engine.stats

            def slow_stats() -> Any:
                # What another thread does between taking the results and asking for the end.
                is_over.append(True)
                return stats()

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(engine), "is_over", property(lambda _: bool(is_over)))
                patch.setattr(engine, "stats", slow_stats)
                assert len(run.results) == 0
        assert len(run.results) == 2

    is_over: list[bool] = []
    run_virtual(main)
