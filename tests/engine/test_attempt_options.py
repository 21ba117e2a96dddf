"""What a stage's options do around an attempt: limits, holds, time limits, where functions run."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from io import StringIO
from typing import Any

import pytest

from antflow import (
    Limit,
    Pipeline,
    Retry,
    RetryAfter,
    RunResults,
    Stage,
    StageValidationError,
    call_rate_has_capacity,
    concurrency_limit,
    current_item,
    rate_limit,
    set_task_status,
)
from antflow._engine.run import Run
from antflow.exceptions import TaskFailedError
from antflow.testing import Calls, FailTimes, Gate, cancel_at_every_step, record_events, run_virtual
from tests.support import now


def run(stages: list[Stage], items: Any, **options: Any) -> RunResults[Any]:
    """Run items through stages in virtual time."""

    async def main() -> RunResults[Any]:
        return await Pipeline(stages).run(items, **options)

    return run_virtual(main, max_time=100_000.0)


# -- limits ---------------------------------------------------------------------------------------


def test_limit_is_around_every_attempt() -> None:
    """One in five seconds, retries too: 3 items with 2 tries each begin 5 s apart."""
    calls = Calls(FailTimes(1))
    run([Stage("A", 5, [calls], "per_task", 2, 0.0, limits=[Limit(rate=1, period=5)])], range(3))
    assert [call.start for call in calls.made] == pytest.approx([0, 5, 10, 15, 20, 25])


def test_limit_shared_by_two_stages_and_two_runs() -> None:
    """Two at the same time, whoever they are: never three."""
    limit = Limit(concurrency=2)
    calls = Calls(seconds=1)

    async def main() -> float:
        def pipeline() -> Pipeline:
            return Pipeline(
                [Stage("A", 4, [calls], limits=[limit]), Stage("B", 4, [calls], limits=[limit])]
            )

        await asyncio.gather(pipeline().run(range(5)), pipeline().run(range(5)))
        return now()

    assert run_virtual(main) == 10
    assert calls.most_at_once == 2


def test_worker_that_waits_for_a_limit_is_shown_so() -> None:
    """It has its item in hand and waits for the limit; the seconds are not busy ones."""

    async def main() -> Any:
        pipeline = Pipeline([Stage("A", 3, [Calls(seconds=10)], limits=[Limit(concurrency=1)])])
        running = asyncio.create_task(pipeline.run(range(3)))
        await asyncio.sleep(5)
        snapshot = pipeline.get_dashboard_snapshot()
        waits = sorted(str(state.waits_for) for state in snapshot.worker_states.values())
        assert waits == ["None", "limited", "limited"]
        assert snapshot.pipeline_stats.stage_stats["A"].limited_items == 2
        await running
        return pipeline.get_stats().stage_stats["A"]

    stage = run_virtual(main)
    assert (stage.busy_seconds, stage.limited_seconds) == (30, 10 + 20)


def test_cost_function_that_raises_fails_its_item_alone() -> None:
    """Its error is the item's, retried as any other; the others go through, the slots are free."""

    def cost(value: int) -> float:
        return 1 / value

    limit = Limit(concurrency=1, rate=100, cost=cost)
    results = run([Stage("A", 2, [Calls()], task_attempts=1, limits=[limit])], range(3))
    assert results.values() == [1, 2]
    assert isinstance(results.failed[0].error, ZeroDivisionError)
    assert limit.statistics().in_use == 0


def test_limited_attempts_cancelled_at_every_step_give_everything_back() -> None:
    """Cancelled before any step, while attempts wait, run, or are held: no slot stays taken."""
    limits: list[Limit] = []

    async def main() -> None:
        limit = Limit(concurrency=1, rate=2, period=1)
        limits.append(limit)

        async def task(value: int) -> int:
            await asyncio.sleep(0.2)
            if current_item().attempt == 1 and value == 1:
                raise RetryAfter(0.7)
            return value

        stage = Stage("A", 3, [task], "per_task", 2, 0.1, limits=[limit], max_holds=2)
        await Pipeline([stage]).run(range(4))

    def check(step: int) -> None:
        for limit in limits:
            stats = limit.statistics()
            assert (stats.in_use, stats.waiting) == (0, 0)
        limits.clear()

    assert cancel_at_every_step(main, check) > 30


# -- RetryAfter, hold_on --------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["RetryAfter", "seconds", "function"])
def test_hold_does_not_count_as_a_try(by: str) -> None:
    """Held three times, with one try in all: the item is through, on its first attempt."""
    seen: list[tuple[float, int]] = []

    async def task(value: int) -> int:
        seen.append((now(), current_item().attempt))
        if len(seen) < 4:
            raise RetryAfter(10) if by == "RetryAfter" else KeyError(10.0)
        return value

    hold_on: Any = {"seconds": {KeyError: 10.0}, "function": {LookupError: lambda e: e.args[0]}}
    stage = Stage("A", 1, [task], task_attempts=1, hold_on=hold_on.get(by, {}))
    results = run([stage], [0])
    assert results[0].attempts == 1
    assert seen == [(0, 1), (10, 1), (20, 1), (30, 1)]
    assert results.stats.stage_stats["A"].starved_seconds == 30, "it holds no worker"


def test_hold_with_a_limit_holds_all_that_share_it() -> None:
    """One item is told to wait a minute: nothing of either stage begins meanwhile."""
    limit = Limit(concurrency=10)
    starts: list[float] = []

    async def task(value: int) -> int:
        starts.append(now())
        if len(starts) == 1:
            raise RetryAfter(60)
        return value

    stages = [Stage("A", 1, [task], limits=[limit]), Stage("B", 1, [Calls()], limits=[limit])]
    run(stages, range(4))
    assert starts == [0, 60, 60, 60, 60]


def test_hold_without_a_limit_holds_the_whole_stage() -> None:
    """What runs goes on, and nothing else of the stage begins; the next stage works meanwhile."""

    async def task(value: int) -> tuple[int, float]:
        began = now()
        await asyncio.sleep(1)
        if value == 0 and began < 60:
            raise RetryAfter(60)
        await asyncio.sleep(4)
        return value, began

    async def then(value: tuple[int, float]) -> tuple[int, float, float]:
        return *value, now()

    results = run([Stage("A", 2, [task]), Stage("B", 1, [then])], range(4))
    assert results.values() == [(0, 66, 71), (1, 0, 5), (2, 61, 66), (3, 61, 66)]


@pytest.mark.parametrize("max_holds", [0, 1, 5000])
def test_held_too_often_counts_as_a_failure(max_holds: int) -> None:
    """After ``max_holds`` holds `RetryAfter` is a failed try like any other; thousands are fine."""
    calls = Calls()

    async def task(value: int) -> int:
        await calls(value)
        raise RetryAfter(1)

    results = run([Stage("A", 1, [task], task_attempts=1, max_holds=max_holds)], [0])
    assert isinstance(results.failed[0].error, RetryAfter)
    assert len(calls.made) == max_holds + 1


@pytest.mark.fault
@pytest.mark.parametrize("way", ["RetryAfter", "hold_on", "function", "group", "frozen"])
def test_item_that_was_held_too_often_says_so(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its text says how many holds were allowed and what to change, and that only once."""

    class BusyError(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    error: Exception = {"RetryAfter": RetryAfter(1, "busy"), "frozen": BusyError("busy")}.get(
        way, OSError("busy")
    )
    if way == "group":
        error = ExceptionGroup("some", [RetryAfter(1, "busy")])

    async def task(value: int) -> int:
        raise error

    options: dict[str, Any] = {}
    if way == "function":
        options["hold_on"] = {OSError: lambda _: 1}
    elif way != "RetryAfter":
        options["hold_on"] = {OSError: 1, BusyError: 1}
    stage = Stage("A", 1, [task], task_attempts=2, task_wait_seconds=0, max_holds=3, **options)
    results = run([stage], [0, 1])
    hint = (
        "the service asked to wait again, after 3 holds: "
        "max_holds=3 allows no more; raise it, or send less"
    )
    for text in (str(results.failed[1]), str(results.summary.failed_items[1]), caplog.text):
        assert "busy" in text
        assert text.count(hint) == 1


@pytest.mark.fault
def test_failure_of_another_kind_says_nothing_of_holds() -> None:
    """An item that was held as often as allowed, and then fails otherwise, needs no more holds."""
    errors = iter([RetryAfter(1), RetryAfter(1), ValueError("odd")])

    async def task(value: int) -> int:
        raise next(errors)

    results = run([Stage("A", 1, [task], task_attempts=1, max_holds=2)], [0])
    assert "max_holds" not in str(results.failed[0])


def test_holds_are_counted_for_each_stage() -> None:
    """Held as often as allowed in one stage: the next one may hold it as often again."""

    class HoldTwice:
        def __init__(self) -> None:
            self.tries = 0

        async def __call__(self, value: int) -> int:
            self.tries += 1
            if self.tries <= 2:
                raise RetryAfter(1)
            return value

    stages = [Stage(name, 1, [HoldTwice()], task_attempts=1, max_holds=2) for name in "AB"]
    assert run(stages, [0]).values() == [0]


def test_hold_on_that_answers_no_seconds_fails_the_item() -> None:
    """Seconds that are none: the item fails with the error that says so."""
    stage = Stage("A", 1, [FailTimes(9)], task_attempts=1, hold_on={ValueError: lambda _: "soon"})
    results = run([stage], [0])
    assert "hold_on" in str(results.failed[0].error)


@pytest.mark.parametrize("answer", [None, 0.0])
def test_task_events_tell_a_hold_from_a_failure(answer: float | None) -> None:
    """A hold is told as "retry"; where ``hold_on`` declines on the last try, it is "fail"."""
    recorded = record_events()
    stage = Stage("A", 1, [FailTimes(1)], task_attempts=1, hold_on={ValueError: lambda _: answer})

    async def main() -> None:
        await Pipeline([stage], status_tracker=recorded).run([0])

    run_virtual(main)
    told = [line.split()[0] for line in recorded.of(0) if "@" not in line]
    assert told == (
        ["start", "fail"] if answer is None else ["start", "retry", "start", "complete"]
    )


# -- timeout --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"timeout": 3.0}, {"retry": Retry(2, 1.0, timeout=3.0)}])
def test_try_that_takes_too_long_is_tried_again(options: Any) -> None:
    """Each try has its own time; the second one is quick enough."""
    starts: list[float] = []

    async def task(value: int) -> int:
        starts.append(now())
        await asyncio.sleep(100 if len(starts) == 1 else 1)
        return value

    results = run([Stage("A", 1, [task], task_wait_seconds=1, **options)], [0])
    assert (results.values(), starts) == ([0], [0, 4])


def test_timeout_is_for_each_task_and_not_for_the_limits() -> None:
    """Two tasks of 2 s with 3 s each, behind a limit that takes 10 s: both are in time."""
    stage = Stage(
        "A",
        2,
        [Calls(seconds=2), Calls(seconds=2)],
        timeout=3,
        task_attempts=1,
        limits=[Limit(rate=1, period=10)],
    )
    assert len(run([stage], range(3))) == 3


def test_timeout_error_of_a_task_is_a_failure_like_any_other() -> None:
    """A `TimeoutError` that a task raises itself keeps its text."""

    async def task(_: int) -> int:
        raise TimeoutError("my own")

    results = run([Stage("A", 1, [task], task_attempts=1, timeout=5)], [0], item_timeout=50)
    assert str(results.failed[0].error) == "my own"


def test_cancelled_error_of_a_task_inside_every_option_is_a_failure() -> None:
    """A task that raises CancelledError within limits, times and a context of its own fails."""

    async def task(value: int) -> int:
        if value == 0:
            raise asyncio.CancelledError
        return value

    stage = Stage(
        "A",
        2,
        [task],
        task_attempts=1,
        timeout=5,
        limits=[Limit(concurrency=1)],
        isolate_context=True,
        task_concurrency_limits={"task": 1},
    )
    results = run([stage], range(3), item_timeout=50)
    assert results.values() == [1, 2]
    assert isinstance(results.failed[0].error, TaskFailedError)


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("guarded", [False, True])
def test_errors_with_a_meaning_for_generators_are_failures(
    error: type[BaseException], guarded: bool
) -> None:
    """Raised in a thread or a coroutine, through limits and time limits: the item fails."""

    def plain(value: int) -> int:
        raise error

    async def task(value: int) -> int:
        raise error

    limits = [Limit(concurrency=1)] if guarded else []
    for function in (plain, task):
        stage = Stage("A", 1, [function], task_attempts=1, timeout=5, limits=limits)
        results = run([stage], range(2))
        assert len(results.failed) == 2


# -- threads that outlive their time --------------------------------------------------------------


def real(stage: Stage, items: Any, **options: Any) -> tuple[RunResults[Any], int]:
    """Run in real time, and say how many threads were counted as abandoned at most."""
    most = 0

    async def main() -> RunResults[Any]:
        nonlocal most
        pipeline = Pipeline([stage])
        running = asyncio.create_task(pipeline.run(items, **options))
        while not running.done():
            await asyncio.sleep(0.005)
            stats = pipeline.get_stats().stage_stats["A"]
            most = max(most, stats.abandoned_threads)
        return running.result()

    return asyncio.run(main()), most


class Slow:
    """A plain function of which the first calls block.

    Args:
        blocking: How many calls block.
    """

    def __init__(self, blocking: int) -> None:
        self.blocking = blocking
        self.calls = 0
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, value: Any) -> Any:
        """Block, or return the value."""
        with self._lock:
            self.calls += 1
            blocks = self.calls <= self.blocking
            self.running += 1
            self.most = max(self.most, self.running)
        if blocks:
            time.sleep(0.05)
        with self._lock:
            self.running -= 1
        return value


@pytest.mark.parametrize("after", ["retry", "failure", "hold", "item_timeout"])
def test_thread_that_outlives_its_time_keeps_its_slot(after: str) -> None:
    """Whatever follows the timeout: the next call begins when the thread has ended."""
    slow = Slow(1)
    options: dict[str, Any] = {"timeout": 0.01}
    run_options: dict[str, Any] = {}
    if after == "hold":
        options["hold_on"] = {TimeoutError: 0.0}
    if after == "item_timeout":
        options, run_options = {}, {"item_timeout": 0.01}
    attempts = 2 if after == "retry" else 1
    stage = Stage("A", 1, [slow], "per_task", attempts, 0.0, queue_capacity=1, **options)
    results, most = real(stage, range(2), **run_options)
    assert slow.most == 1
    assert most == 1
    assert results.stats.stage_stats["A"].abandoned_threads == 0
    assert len(results.outcomes) == 2


def test_generator_that_outlives_its_time_keeps_its_slot() -> None:
    """The same for a plain generator of an expanding stage."""
    slow = Slow(1)

    def values(value: int) -> Any:
        yield slow(value)

    stage = Stage("A", 1, [values], "per_task", 2, 0.0, timeout=0.01, expand=True)
    results, most = real(stage, range(2))
    assert (slow.most, most) == (1, 1)
    assert len(results) == 2


# -- what tasks ask for ---------------------------------------------------------------------------


def test_task_concurrency_limits_one_task_of_several() -> None:
    """The named task runs twice at a time, the other one as often as there are workers."""
    running = {"few": 0, "many": 0}
    most = {"few": 0, "many": 0}

    async def one(name: str, value: int) -> int:
        running[name] += 1
        most[name] = max(most[name], running[name])
        await asyncio.sleep(1)
        running[name] -= 1
        return value

    async def few(value: int) -> int:
        return await one("few", value)

    async def many(value: int) -> int:
        return await one("many", value)

    run([Stage("A", 6, [many, few], task_concurrency_limits={"few": 2})], range(12))
    assert most == {"few": 2, "many": 6}


def test_concurrency_and_rate_within_a_task() -> None:
    """``concurrency_limit()`` bounds what is inside, ``rate_limit()`` how often it is entered."""
    inside, most = 0, 0
    entered: list[float] = []
    had_room: list[bool] = []

    async def task(value: int) -> int:
        nonlocal inside, most
        async with concurrency_limit():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(1)
            inside -= 1
        had_room.append(call_rate_has_capacity())
        async with rate_limit():
            entered.append(now())
        return value

    stage = Stage("A", 6, [task], call_concurrency=2, call_rate=1, call_rate_period=10)
    run([stage], range(4))
    assert most == 2
    assert entered == pytest.approx([1, 11, 21, 31])
    assert had_room == [True, False, False, False]


def test_call_that_raises_gives_its_place_back() -> None:
    """The next one that needs it does not wait for ever."""

    async def task(value: int) -> int:
        async with concurrency_limit():
            if value == 0:
                raise ValueError
            return value

    stage = Stage("A", 2, [task], call_concurrency=1, task_attempts=1)
    assert run([stage], range(3)).values() == [1, 2]


def test_calls_within_a_task_cancelled_at_every_step_give_everything_back() -> None:
    """Cancelled inside, before or behind the limits of a call: the next run has them all."""

    async def main() -> None:
        async def task(value: int) -> int:
            async with concurrency_limit(), rate_limit():
                await asyncio.sleep(0.1)
            return value

        stage = Stage("A", 3, [task], call_concurrency=2, call_rate=2, call_rate_period=1)
        await Pipeline([stage]).run(range(5))

    assert cancel_at_every_step(main) > 20


@pytest.mark.parametrize("limit", [concurrency_limit, rate_limit])
def test_limits_of_a_task_say_what_is_missing(limit: Any) -> None:
    """Outside a task, or where the stage has no such option, the error names it."""

    async def use() -> None:
        async with limit():
            pass

    async def task(value: int) -> int:
        with pytest.raises(RuntimeError, match="call_"):
            await use()
        return value

    assert len(run([Stage("A", 1, [task])], [0])) == 1
    with pytest.raises(RuntimeError, match="only inside a task"):
        run_virtual(use)


def test_limit_of_a_task_that_is_entered_twice_is_refused() -> None:
    """The second block would lose the place of the first; one after the other they may be."""

    async def task(value: int) -> int:
        limit = concurrency_limit()
        async with limit:
            with pytest.raises(RuntimeError, match="entered twice"):
                async with limit:
                    pass
        async with limit:
            return value

    assert run([Stage("A", 3, [task], call_concurrency=2)], range(5)).values() == [0, 1, 2, 3, 4]


def test_task_status_is_shown_while_the_worker_has_the_item() -> None:
    """It is there until the item is through, and not for the next one; too soon is not taken."""
    taken: list[bool] = []

    async def main() -> tuple[str, str]:
        gate = Gate()

        async def task(value: int) -> int:
            if value == 0:
                taken.append(set_task_status("page 1 of 3", 5))
                await asyncio.sleep(1)
                taken.append(set_task_status("page 2 of 3", 5))
                await asyncio.sleep(10)
                taken.append(set_task_status("page 3 of 3", 5))
                return value
            return await gate(value)

        pipeline = Pipeline([Stage("A", 1, [task])])
        running = asyncio.create_task(pipeline.run(range(2)))
        await asyncio.sleep(2)
        early = pipeline.get_worker_states()["A-W0"].task_status
        await asyncio.sleep(12)
        assert gate.waiting == 1
        late = pipeline.get_worker_states()["A-W0"].task_status
        gate.open()
        await running
        return early, late

    assert run_virtual(main) == ("page 1 of 3", "")
    assert taken == [True, False, True]
    assert not set_task_status("outside")


def test_isolated_tries_have_context_variables_of_their_own() -> None:
    """What a try sets is gone in the next one; without the option the worker keeps it."""
    variable: ContextVar[int] = ContextVar("variable", default=0)

    async def count(_: int) -> int:
        variable.set(variable.get() + 1)
        return variable.get()

    for isolated, expected in ((True, [1, 1, 1]), (False, [1, 2, 3])):
        results = run([Stage("A", 1, [count], isolate_context=isolated)], range(3))
        assert results.values() == expected


@pytest.mark.parametrize("isolated", [False, True])
def test_keyboard_interrupt_in_an_isolated_task_ends_the_run_in_order(isolated: bool) -> None:
    """It comes out of `run`, and every item has an outcome."""

    async def task(value: int) -> int:
        raise KeyboardInterrupt

    pipelines: list[Pipeline] = []
    came_out: list[bool] = []

    async def main() -> None:
        pipelines.append(Pipeline([Stage("A", 2, [task], isolate_context=isolated)]))
        try:
            await pipelines[0].run(range(5))
        except KeyboardInterrupt:
            came_out.append(True)
            raise

    with pytest.raises(KeyboardInterrupt):
        run_virtual(main)
    assert came_out == [True]
    assert pipelines[0].get_stats().items_in_flight == 0


# -- where functions run --------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["auto", "thread", "inline", "own"])
def test_plain_functions_run_where_the_stage_says(executor: Any) -> None:
    """In a thread, on the event loop, or in the executor that was given; awaitables are awaited."""
    names: list[str] = []

    def task(value: int) -> Any:
        names.append(threading.current_thread().name)
        return value

    def awaitable(value: int) -> Any:
        async def later() -> int:
            return value + 1

        return later()

    with ThreadPoolExecutor(2, "mine") as own:
        stage = Stage("A", 2, [task, awaitable], executor=own if executor == "own" else executor)
        assert run([stage], range(3)).values() == [1, 2, 3]
    expected = {"inline": threading.main_thread().name, "own": "mine"}.get(executor, "antflow")
    assert all(name.startswith(expected) for name in names)


def test_current_item_is_known_in_every_thread() -> None:
    """In the run's threads and in an executor of one's own, `current_item` says what it is."""

    def task(value: int) -> Any:
        return current_item().id

    with ThreadPoolExecutor(1) as own:
        executors: list[Any] = ["auto", "inline", own]
        for executor in executors:
            stage = Stage("A", 1, [task], executor=executor)
            assert run([stage], [{"id": "x", "value": 1}]).values() == ["x"]


def test_coroutine_that_was_not_awaited_is_a_failure() -> None:
    """A task that returns a coroutine, most likely for want of an await, has failed."""

    async def inner(value: int) -> int:
        return value

    async def task(value: int) -> Any:
        return inner(value)

    results = run([Stage("A", 1, [task], task_attempts=1)], [0])
    assert isinstance(results.failed[0].error, TypeError)
    assert "await" in str(results.failed[0].error)


# -- what is told, and what is kept ---------------------------------------------------------------


@pytest.mark.parametrize("listens", [True, False])
def test_hold_on_and_wait_are_asked_once_for_each_failure(listens: bool) -> None:
    """Whoever listens changes nothing: the user's functions are asked as often with and without."""
    asked: list[str] = []

    def held(error: Exception) -> float | None:
        asked.append("hold_on")
        return None

    def pause(attempt: int) -> float:
        asked.append("wait")
        return 0.0

    stage = Stage("A", 1, [FailTimes(9)], task_attempts=2, hold_on={Exception: held}, wait=pause)
    tracker = record_events() if listens else None
    run_virtual(lambda: Pipeline([stage], status_tracker=tracker).run([0]))
    assert asked == ["hold_on", "wait", "hold_on"]


@pytest.mark.parametrize("why", ["item_timeout", "wait"])
def test_last_try_is_told_as_the_last(why: str) -> None:
    """A failure that no try follows is told as "fail", whatever the number of tries left."""

    def refuse(attempt: int) -> float:
        raise LookupError(attempt)

    events = record_events()
    wait = refuse if why == "wait" else 5.0
    stage = Stage("A", 1, [FailTimes(9)], wait=wait)
    seconds = 1.0 if why == "item_timeout" else None
    run_virtual(lambda: Pipeline([stage], status_tracker=events).run([0], item_timeout=seconds))
    assert [text for text in events.of(0) if "FailTimes" in text] == [
        "start FailTimes 1",
        "fail FailTimes 1",
    ]


def test_hold_is_told_with_the_number_of_the_next_try() -> None:
    """What is held back is tried again under the same number, and the event says so."""
    events = record_events()
    stage = Stage("A", 1, [FailTimes(1, lambda _: RetryAfter(1))], "per_stage")
    run_virtual(lambda: Pipeline([stage], status_tracker=events).run([0]))
    [event] = [e for e in events.get_history(0) if e.status == "retrying"]
    assert event.metadata["attempt"] == 1


def _cancels_itself(value: int) -> Any:
    raise asyncio.CancelledError


async def _hangs(value: int) -> Any:
    await asyncio.sleep(9)


async def _holds(value: int) -> Any:
    raise RetryAfter(0)


def _fails(*_: Any) -> Any:
    raise ValueError("no")


async def _fails_later(value: Any) -> Any:
    await asyncio.sleep(0)
    raise ValueError("no")


async def _batch(values: list[Any]) -> Any:
    raise ValueError("no")


@pytest.mark.parametrize(
    ("task", "options"),
    [
        (_fails_later, {}),
        (_fails, {}),
        (_fails, {"executor": "inline"}),
        (_cancels_itself, {"executor": "inline"}),
        (_hangs, {"timeout": 0.01}),
        (_fails_later, {"wait": _fails, "task_attempts": 2}),
        (_fails_later, {"hold_on": {ValueError: _fails}}),
        (_fails_later, {"skip_if": _fails}),
        (_holds, {"max_holds": 2}),
        (_batch, {"batch": 2}),
        (_fails_later, {"isolate_context": True}),
        (_fails_later, {"limits": [Limit(concurrency=1)]}),
    ],
    ids=[
        *("async", "thread", "inline", "cancelled", "timeout", "wait", "hold_on", "skip_if"),
        *("max_holds", "batch", "isolated", "limits"),
    ],
)
def test_kept_error_keeps_nothing_of_the_run(task: Any, options: dict[str, Any]) -> None:
    """Of a run that is over, an error that is kept keeps nothing but itself."""
    options = {"task_attempts": 1} | options
    runs_before = _living_runs()

    async def main() -> Any:
        return (await Pipeline([Stage("A", 1, [task], **options)]).run([0])).failed[0].error

    error = asyncio.run(main())
    assert isinstance(error, Exception)
    for _ in range(500):  # a thread lets go of the last call when it comes to it
        gc.collect()
        if _living_runs() <= runs_before:
            return
        time.sleep(0.01)
    raise AssertionError("the run is alive")


def _living_runs() -> set[int]:
    return {id(each) for each in gc.get_objects() if type(each) is Run}


def test_resources_of_a_run_by_a_bound_method_are_one() -> None:
    """Two stages that name the same method share what it opens."""

    class Pool:
        opened = 0

        @asynccontextmanager
        async def open(self) -> AsyncIterator[str]:
            self.opened += 1
            yield "connection"

    async def task(value: int, connection: str) -> int:
        return value

    pool = Pool()
    stages = [Stage(name, 1, [task], resources={"connection": pool.open}) for name in "AB"]
    assert len(run(stages, range(3))) == 3
    assert pool.opened == 1


async def _with_model(value: int, model: Any) -> int:
    return value


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"executor": "process", "resources": {"model": StringIO}}, "resource_scope"),
        (
            {"executor": "process", "resources": {"model": StringIO}, "resource_scope": "worker"},
            "an async task",
        ),
        ({"retry": Retry(), "task_attempts": 5}, "task_attempts"),
        ({"retry": Retry(), "task_wait_seconds": 0.5}, "task_wait_seconds"),
        ({"retry": Retry(), "stage_attempts": 5}, "stage_attempts"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: Any, text: str) -> None:
    """What would be ignored, or could never work, is refused when the pipeline is made."""
    tasks = [_with_model] if "resources" in options else [Calls()]
    with pytest.raises(StageValidationError, match=text):
        Pipeline([Stage("A", 1, tasks, **options)])


@pytest.mark.parametrize("option", ["hold_on", "wait"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_function_that_is_asked_and_ends_the_program_loses_no_item(option: str, kind: Any) -> None:
    """What `hold_on` or `wait` raises besides errors ends the run in order, or fails the item."""

    def ends(_: Any) -> float:
        raise kind

    options: Any = {"wait": ends} if option == "wait" else {"hold_on": {Exception: ends}}
    pipeline = Pipeline([Stage("A", 1, [FailTimes(1)], task_attempts=2, **options)])

    async def main() -> None:
        if kind is asyncio.CancelledError:
            await pipeline.run([0])
        else:
            with pytest.raises(kind):
                await pipeline.run([0])

    run_virtual(main)
    stats = pipeline.results.stats
    assert stats.items_accepted == stats.items_in_flight + len(pipeline.results.outcomes) == 1


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("waits", ["in the queue", "for a limit", "for the end of a pause"])
def test_item_whose_time_is_over_before_a_task_is_called_has_no_attempt(
    waits: str, batch: int | None
) -> None:
    """``item_timeout`` passes while an item waits: no attempt is counted that called no task."""

    async def task(value: Any) -> Any:
        await asyncio.sleep(5)
        return value

    async def main() -> RunResults[Any]:
        limits = [Limit(concurrency=1)] if waits == "for a limit" else []
        workers = 2 if waits == "for a limit" else 1
        stage = Stage("A", workers, [task], limits=limits, batch=batch)
        async with Pipeline([stage]).open(item_timeout=7) as run:
            if waits == "for the end of a pause":
                run.pause()
            await run.feed(range((batch or 1) * 3))
            if waits == "for the end of a pause":
                await asyncio.sleep(10)
                run.resume()
        return run.results

    results = run_virtual(main)
    untried = [result for result in results.failed if result.attempts == 0]
    assert len(untried) == (batch or 1) * (3 if waits == "for the end of a pause" else 1)
    assert {type(result.error) for result in untried} == {TimeoutError}
    assert "before its first attempt" in str(untried[0])
    assert "before its first attempt" in str(results.summary.failed_items[-1])
    # The others were tried: one is done, one was cut off, as was each item tried alone.
    assert all(result.attempts > 0 for result in results.failed if result not in untried)


def test_item_whose_time_is_over_before_its_second_attempt_has_one() -> None:
    """It failed once and waited for a limit until its time was over: one attempt."""
    limit = Limit(concurrency=1)

    async def fails(_: int) -> None:
        raise ValueError

    async def blocks(_: int) -> None:
        await asyncio.sleep(20)

    async def main() -> RunResults[Any]:
        stages = [Stage("A", 1, [fails], limits=[limit], task_wait_seconds=1)]
        other = Pipeline([Stage("B", 1, [blocks], limits=[limit])])
        async with Pipeline(stages).open(item_timeout=7) as run, other.open() as second:
            await run.feed([0])
            await asyncio.sleep(0.5)
            await second.feed([0])
        return run.results

    [failed] = run_virtual(main).failed
    assert isinstance(failed.error, TimeoutError)
    assert failed.attempts == 1


@pytest.mark.parametrize("batch", [None, 2])
def test_item_whose_skip_if_raised_has_no_attempt(batch: int | None) -> None:
    """No task was called for it, and the failure says so."""

    def skip_if(_: Any) -> bool:
        raise KeyError("no such field")

    results = run([Stage("A", 1, [str], skip_if=skip_if, batch=batch)], [0])
    assert results.failed[0].attempts == 0
    assert "before its first attempt" in str(results.summary.failed_items[0])
