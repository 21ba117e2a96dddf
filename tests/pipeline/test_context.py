"""What a running task can say and ask for."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import antflow
from antflow import Pipeline, Stage
from antflow.context import (
    call_rate_has_capacity,
    concurrency_limit,
    rate_limit,
    set_task_status,
)
from antflow.testing import FailTimes, run_virtual
from tests.support import defaults, now, positional, values

pytestmark = pytest.mark.contract


def run(task: Any, items: Any = (1,), **options: Any) -> Any:
    """The results of one stage with one task, tried once, in virtual time."""
    workers = options.pop("workers", 5)
    stage = Stage("A", workers, [task], task_attempts=1, **options)
    return run_virtual(lambda: Pipeline([stage]).run(items))


def test_set_task_status_keeps_its_parameters() -> None:
    """``set_task_status(status, min_interval=0.0)``, by place or by name."""
    assert positional(set_task_status) == ["status", "min_interval"]
    assert defaults(set_task_status)["min_interval"] == 0.0


def test_has_capacity_keeps_its_parameters() -> None:
    """``call_rate_has_capacity(amount=1)``."""
    assert defaults(call_rate_has_capacity) == {"amount": 1}


def test_set_task_status_says_whether_it_was_set() -> None:
    """In a task it returns true; asked again within ``min_interval`` seconds, false."""

    async def often(_: Any) -> list[bool]:
        return [set_task_status("one"), set_task_status("two")]

    async def seldom(_: Any) -> list[bool]:
        return [set_task_status("one", 60.0), set_task_status("two", min_interval=60.0)]

    assert values(run(often)) == [[True, True]]
    assert values(run(seldom)) == [[True, False]]


def test_set_task_status_outside_of_a_task() -> None:
    """Outside of a task nothing is set, and it returns false."""
    assert set_task_status("nobody listens") is False


def test_concurrency_limit_bounds_the_block() -> None:
    """With ``call_concurrency`` as many are inside the block at once."""
    inside, most = 0, 0

    async def work(value: int) -> int:
        nonlocal inside, most
        async with concurrency_limit():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(1)
            inside -= 1
        return value

    assert len(run(work, range(10), call_concurrency=2)) == 10
    assert most == 2


def test_rate_limit_lets_its_rate_through() -> None:
    """With ``call_rate`` as many enter per ``call_rate_period``, and the others wait."""

    async def work(_: Any) -> float:
        async with rate_limit():
            return now()

    times = sorted(values(run(work, range(12), call_rate=4, call_rate_period=10.0)))
    assert 15.0 <= times[-1] - times[0] <= 30.0
    assert len([time for time in times if time - times[0] < 1.0]) <= 5


@pytest.mark.parametrize(
    ("limit", "option"), [(concurrency_limit, "call_concurrency"), (rate_limit, "call_rate")]
)
def test_limit_without_its_option(limit: Any, option: str) -> None:
    """Without the option the block is a `RuntimeError` that names it."""
    caught: list[Exception] = []

    async def work(_: Any) -> None:
        try:
            async with limit():
                pass
        except RuntimeError as error:
            caught.append(error)

    run(work)
    assert option in str(caught[0])


def test_has_capacity_says_whether_there_is_room() -> None:
    """``call_rate_has_capacity`` tells without waiting whether so many could enter."""

    async def work(_: Any) -> list[bool]:
        before = [call_rate_has_capacity(), call_rate_has_capacity(amount=3)]
        async with rate_limit():
            return [*before, call_rate_has_capacity(2), call_rate_has_capacity(3)]

    assert values(run(work, call_rate=3)) == [[True, True, True, False]]


def test_has_capacity_without_a_rate() -> None:
    """Where no ``call_rate`` is set there is always room."""

    async def work(_: Any) -> bool:
        return call_rate_has_capacity(1000)

    assert values(run(work)) == [True]


@pytest.mark.parametrize(
    ("limit", "option"), [(concurrency_limit, "call_concurrency"), (rate_limit, "call_rate")]
)
def test_limit_outside_of_a_task(limit: Any, option: str) -> None:
    """The error names the option of a stage that the limit is about."""

    async def enter() -> None:
        async with limit():
            pass

    with pytest.raises(RuntimeError, match=rf"only inside a task.* in a stage with {option}$"):
        run_virtual(enter())


def test_has_capacity_outside_of_a_task() -> None:
    """Outside of a task there is always room too."""
    assert call_rate_has_capacity() is True


# New since 0.10.0


def test_min_interval_is_over() -> None:
    """After ``min_interval`` seconds the status is set again."""

    async def work(_: Any) -> list[bool]:
        first = set_task_status("one", 60.0)
        await asyncio.sleep(61)
        return [first, set_task_status("two", 60.0)]

    assert values(run(work)) == [[True, True]]


def test_task_status_is_shown_in_snapshots() -> None:
    """What a task says is in the state of its worker."""
    seen: list[str] = []

    async def work(_: Any) -> None:
        set_task_status("page 3 of 7")
        seen.extend(state.task_status for state in pipeline.get_worker_states().values())

    pipeline = Pipeline([Stage("A", 1, [work])])
    run_virtual(lambda: pipeline.run([1]))
    assert seen == ["page 3 of 7"]


def test_current_item_says_what_is_worked_on() -> None:
    """``current_item()`` has id, attempt, stage, run and a key that stays the same over tries."""
    seen: list[Any] = []
    flaky = FailTimes(1)

    async def work(value: int) -> int:
        item = antflow.current_item()
        seen.append((item.id, item.attempt, item.stage, item.run_id, item.idempotency_key))
        return await flaky(value)

    stage = Stage("A", 1, [work], task_wait_seconds=0)
    results = run_virtual(lambda: Pipeline([stage]).run([{"id": "x", "value": 7}]))
    (first, second) = seen
    assert first[:4] == ("x", 1, "A", results.run_id)
    assert second[1] == 2
    assert first[4] == second[4]


def test_retry_after_does_not_use_up_an_attempt() -> None:
    """``raise RetryAfter(seconds)`` waits that long and the try is not counted."""
    times: list[float] = []

    async def work(value: int) -> int:
        times.append(now())
        if len(times) < 3:
            raise antflow.RetryAfter(30)
        return value

    assert values(run(work)) == [1]
    assert [time - times[0] for time in times] == [0.0, 30.0, 60.0]


def test_limit_is_shared_by_pipelines() -> None:
    """One `Limit` bounds the attempts of all stages and pipelines that have it."""
    inside, most = 0, 0
    limit = antflow.Limit(concurrency=2)

    async def work(value: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(1)
        inside -= 1
        return value

    async def main() -> None:
        stage = Stage("A", 5, [work], limits=[limit])
        await asyncio.gather(Pipeline([stage]).run(range(6)), Pipeline([stage]).run(range(6)))

    run_virtual(main)
    assert most == 2


def test_limit_keeps_its_parameters() -> None:
    """``Limit(concurrency=None, rate=None, period=60.0, cost=1)``."""
    assert list(defaults(antflow.Limit).items())[:4] == [
        ("concurrency", None),
        ("rate", None),
        ("period", 60.0),
        ("cost", 1),
    ]


def test_fractional_rates_work() -> None:
    """A rate below one per period is allowed."""

    async def work(_: Any) -> float:
        async with rate_limit():
            return now()

    times = values(run(work, range(3), call_rate=0.5, call_rate_period=1.0))
    assert max(times) - min(times) == pytest.approx(4.0)


def test_warning_when_the_rate_was_never_used(caplog: pytest.LogCaptureFixture) -> None:
    """A ``call_rate`` whose block is never entered brings one warning at the end of the run."""

    async def work(value: int) -> int:
        return value

    with caplog.at_level(logging.WARNING):
        run(work, range(5), call_rate=3)
    assert sum("rate_limit" in record.getMessage() for record in caplog.records) == 1


def test_no_warning_when_the_rate_was_used(caplog: pytest.LogCaptureFixture) -> None:
    """A ``call_rate`` whose block is entered brings no warning."""

    async def work(value: int) -> int:
        async with rate_limit():
            return value

    with caplog.at_level(logging.WARNING):
        run(work, range(3), call_rate=3)
    assert caplog.records == []


@pytest.mark.parametrize("cost", [5, lambda value: 5])
def test_limit_with_a_rate_and_a_cost(cost: Any) -> None:
    """A `Limit` lets through a rate of what the items cost, a number or one for each value."""

    async def work(_: Any) -> float:
        return now()

    limit = antflow.Limit(rate=10, period=10.0, cost=cost)
    times = values(run(work, range(6), limits=[limit]))
    assert max(times) - min(times) == pytest.approx(20.0, abs=1.0)


def test_limit_is_corrected() -> None:
    """``limit.correct(actual)`` in a task settles a cost that was guessed."""
    limit = antflow.Limit(rate=10, period=10.0, cost=10)

    async def work(_: Any) -> float:
        limit.correct(1)
        return now()

    times = values(run(work, range(4), limits=[limit], workers=1))
    assert max(times) - min(times) < 10.0
