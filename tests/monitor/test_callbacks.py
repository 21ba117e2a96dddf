"""Callbacks hear everything and change nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from traceback import walk_tb
from typing import Any

import pytest

from antflow import Pipeline, Stage, StatusEvent, StatusTracker, TaskEvent
from antflow.testing import Calls, FailTimes
from tests.support import ONE_HOUR, in_background, lasting, never, now, same, virtual

pytestmark = pytest.mark.fault

TRACKER_CALLBACKS = [
    "on_status_change",
    "on_task_start",
    "on_task_complete",
    "on_task_retry",
    "on_task_fail",
]
STAGE_CALLBACKS = ["on_success", "on_failure", "on_skip"]


class Callbacks:
    """Callbacks of every kind; all note that they were called, and that they were awaited."""

    def __init__(self) -> None:
        self.called = 0
        self.awaited = 0

    def plain(self, *args: Any) -> None:
        self.called += 1

    def plain_raising(self, *args: Any) -> None:
        self.called += 1
        raise RuntimeError("callback")

    def plain_cancelled(self, *args: Any) -> None:
        self.called += 1
        raise asyncio.CancelledError

    def plain_answering(self, *args: Any) -> str:
        self.called += 1
        return "not awaitable"

    async def coroutine(self, *args: Any) -> None:
        self.called += 1
        await asyncio.sleep(0.1)
        self.awaited += 1

    async def coroutine_raising(self, *args: Any) -> None:
        await self.coroutine()
        raise RuntimeError("callback")

    async def coroutine_cancelled(self, *args: Any) -> None:
        await self.coroutine()
        raise asyncio.CancelledError

    def function_of_coroutine(self, *args: Any) -> Any:
        return self.coroutine()

    def function_of_future(self, *args: Any) -> Any:
        return asyncio.ensure_future(self.coroutine())

    @property
    def partial_of_coroutine(self) -> Any:
        return partial(self.coroutine, "more")

    @property
    def object_with_async_call(self) -> Any:
        callbacks = self

        class Called:
            async def __call__(self, *args: Any) -> None:
                await callbacks.coroutine()

        return Called()


KINDS = [
    "plain",
    "plain_raising",
    "plain_cancelled",
    "plain_answering",
    "coroutine",
    "coroutine_raising",
    "coroutine_cancelled",
    "function_of_coroutine",
    "function_of_future",
    "partial_of_coroutine",
    "object_with_async_call",
]
AWAITED = [
    "coroutine",
    "coroutine_raising",
    "function_of_coroutine",
    "function_of_future",
    "partial_of_coroutine",
    "object_with_async_call",
]
FAILING = [
    "plain_raising",
    "plain_cancelled",
    "coroutine_raising",
    "coroutine_cancelled",
]


def flaky_work() -> Calls:
    """Of 1, 2 and 3, 1 fails once and 2 always."""
    flaky = FailTimes(1)

    async def work(value: int) -> int:
        if value == 2:
            raise ValueError("always")
        return await flaky(value) if value == 1 else value

    return Calls(work)


def run_flaky(retry: str, tracker: StatusTracker | None, **callbacks: Any) -> None:
    """Run 1, 2 and 3, with two tries each, and see that all is as it is without callbacks."""
    calls = flaky_work()
    stage = Stage(
        "Work",
        2,
        [calls],
        retry,
        task_attempts=2,
        stage_attempts=2,
        task_wait_seconds=0,
        **callbacks,
    )
    results = virtual(lambda: Pipeline([stage], status_tracker=tracker).run([1, 2, 3]))
    assert results.values() == [1, 3]
    assert len(calls.made) == 5
    assert results.summary.errors_by_type == {"ValueError": 1}


@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TRACKER_CALLBACKS)
def test_no_tracker_callback_changes_an_outcome(name: str, kind: str, retry: str) -> None:
    """No callback of a tracker changes how often a task is called or what comes of an item."""
    tracker = StatusTracker(**{name: getattr(Callbacks(), kind)})
    run_flaky(retry, tracker)
    counts = tracker.get_stats()
    assert (counts["completed"], counts["failed"]) == (2, 1)


@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STAGE_CALLBACKS)
def test_no_stage_callback_changes_an_outcome(name: str, kind: str, retry: str) -> None:
    """No callback of a stage changes how often a task is called or what comes of an item."""
    run_flaky(retry, None, **{name: getattr(Callbacks(), kind)})


@pytest.mark.parametrize("kind", KINDS)
def test_skipped_item_goes_on_whatever_on_skip_does(kind: str) -> None:
    """An item that is skipped goes on, whatever ``on_skip`` does."""
    callbacks = Callbacks()
    stage = Stage(
        "Work",
        1,
        [FailTimes(9)],
        skip_if=lambda value: True,
        on_skip=getattr(callbacks, kind),
    )
    assert virtual(lambda: Pipeline([stage]).run([1, 2])).values() == [1, 2]
    assert callbacks.called == 2


@pytest.mark.parametrize("kind", AWAITED)
@pytest.mark.parametrize("name", TRACKER_CALLBACKS)
def test_awaitable_of_a_tracker_callback_is_awaited(name: str, kind: str) -> None:
    """Whatever a callback of a tracker returns is awaited if it can be."""
    callbacks = Callbacks()
    run_flaky("per_task", StatusTracker(**{name: getattr(callbacks, kind)}))
    assert callbacks.awaited == callbacks.called > 0


@pytest.mark.parametrize("kind", AWAITED)
@pytest.mark.parametrize("name", ["on_success", "on_failure"])
def test_awaitable_of_a_stage_callback_is_awaited(name: str, kind: str) -> None:
    """Whatever a callback of a stage returns is awaited if it can be."""
    callbacks = Callbacks()
    run_flaky("per_task", None, **{name: getattr(callbacks, kind)})
    assert callbacks.awaited == callbacks.called > 0


@pytest.mark.parametrize("tracked", [None, "plain", "coroutine"])
@pytest.mark.parametrize("kind", KINDS)
def test_on_success_is_called_once_for_each_item(kind: str, tracked: str | None) -> None:
    """Whatever it returns, and whether or not a tracker's callback holds the item before."""
    callbacks = Callbacks()
    tracker = None if tracked is None else StatusTracker(getattr(Callbacks(), tracked))
    run_flaky("per_task", tracker, on_success=getattr(callbacks, kind))
    assert callbacks.called == 2


@pytest.mark.parametrize("kind", FAILING)
@pytest.mark.parametrize("name", TRACKER_CALLBACKS)
def test_tracker_callback_that_fails_is_logged_once(
    name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that fails is called for each event, counted each time and logged once."""
    callbacks = Callbacks()
    tracker = StatusTracker(**{name: getattr(callbacks, kind)})
    run_flaky("per_task", tracker)
    told = [record for record in caplog.records if "callback on_" in record.getMessage()]
    assert len(told) == 1
    assert name in told[0].getMessage()
    expected = {
        "on_status_change": 9,
        "on_task_start": 5,
        "on_task_complete": 2,
        "on_task_retry": 2,
        "on_task_fail": 1,
    }[name]
    assert tracker.callback_errors == expected
    assert callbacks.called == expected


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(FAILING)))
@pytest.mark.parametrize("name", TRACKER_CALLBACKS)
def test_tracker_callback_that_is_fine(
    name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No record is logged for a callback that does nothing wrong, sync or async."""
    tracker = StatusTracker(**{name: getattr(Callbacks(), kind)})
    run_flaky("per_task", tracker)
    assert [record for record in caplog.records if "callback on_" in record.getMessage()] == []
    assert tracker.callback_errors == 0


def test_failure_is_logged_once_per_item(caplog: pytest.LogCaptureFixture) -> None:
    """An item that fails makes one log record, a try that is followed by another none."""
    run_flaky("per_task", None)
    assert [(record.name, record.levelno) for record in caplog.records] == [
        ("antflow", logging.WARNING)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_events_of_one_item_when_the_callback_is_slow(seed: int) -> None:
    """A slow callback slows its worker; one item's events arrive in order and one at a time."""
    heard: dict[Any, list[tuple[str, float]]] = {}

    async def on_status_change(event: StatusEvent) -> None:
        mine = heard.setdefault(event.item_id, [])
        begun = now()
        await asyncio.sleep(0.01)
        if mine:
            assert mine[-1][1] <= begun
        mine.append((event.status, now()))

    async def main() -> None:
        tracker = StatusTracker(on_status_change)
        stages = [Stage("A", 5, [lasting(0.05)]), Stage("B", 2, [lasting(0.05)])]
        await Pipeline(stages, status_tracker=tracker).run(range(30))
        for item_id, events in heard.items():
            statuses = [status for status, _ in events]
            assert statuses == ["queued", "in_progress", "completed"] * 2
            assert statuses == [event.status for event in tracker.get_history(item_id)]

    virtual(main, seed=seed)
    assert len(heard) == 30


def test_rest_of_a_transition_when_its_first_callback_is_cancelled() -> None:
    """Cancelled while ``completed`` is told: the ``queued`` that belongs to it is told as well."""
    heard: list[StatusEvent] = []

    def on_status_change(event: StatusEvent) -> Awaitable[None] | None:
        heard.append(event)
        return never() if event.status == "completed" else None

    async def main() -> None:
        tracker = StatusTracker(on_status_change)
        stages = [Stage("A", 1, [same]), Stage("B", 1, [same])]
        running = await in_background(Pipeline(stages, status_tracker=tracker).run([0]), 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert heard == tracker.get_history(0)
        assert tracker.callback_errors == 0

    virtual(main)
    assert [(event.stage, event.status) for event in heard] == [
        ("A", "queued"),
        ("A", "in_progress"),
        ("A", "completed"),
        ("B", "queued"),
        ("B", "failed"),
    ]


def test_callback_finds_its_event_in_the_history() -> None:
    """A callback finds the event it was called with in the item's history."""
    told: list[bool] = []

    def on_status_change(event: StatusEvent) -> None:
        told.append(event in tracker.get_history(event.item_id))

    def on_task_start(event: TaskEvent) -> None:
        status = tracker.get_status(event.item_id)
        told.append(status is not None and status.status == "in_progress")

    tracker = StatusTracker(on_status_change, on_task_start)
    stages = [Stage("A", 2, [same]), Stage("B", 1, [FailTimes(1)], "per_stage")]
    virtual(lambda: Pipeline(stages, status_tracker=tracker).run(range(5)))
    assert len(told) == 5 * (3 + 5 + 3)
    assert all(told)


def test_attempts_that_task_callbacks_are_told() -> None:
    """``on_task_retry`` names the try that failed and is followed, ``on_task_fail`` the last."""
    heard: list[tuple[str, int, str]] = []

    def note(event: TaskEvent) -> None:
        heard.append((event.event_type, event.attempt, str(event.error)))

    tracker = StatusTracker(on_task_start=note, on_task_retry=note, on_task_fail=note)
    stage = Stage("Work", 1, [FailTimes(9)], task_attempts=3)
    virtual(lambda: Pipeline([stage], status_tracker=tracker).run(["x"]))
    failures = [f"planned failure {n} of 9 for 'x'" for n in (1, 2, 3)]
    assert heard == [
        ("start", 1, "None"),
        ("retry", 1, failures[0]),
        ("start", 2, "None"),
        ("retry", 2, failures[1]),
        ("start", 3, "None"),
        ("fail", 3, failures[2]),
    ]


@pytest.mark.parametrize("name", TRACKER_CALLBACKS)
def test_refuses_a_callback_that_cannot_be_called(name: str) -> None:
    """What cannot be called is refused, when the tracker is made and later."""
    with pytest.raises(TypeError, match=f"{name}=5"):
        StatusTracker(**{name: 5})  # type: ignore[arg-type]
    tracker = StatusTracker()
    with pytest.raises(TypeError, match=f"{name}='x'"):
        setattr(tracker, name, "x")
    assert getattr(tracker, name) is None


def test_callback_that_is_set_during_a_run() -> None:
    """A callback set or removed while a run goes on takes effect with the next event."""
    heard: list[Any] = []
    tracker = StatusTracker()

    async def work(value: int) -> int:
        if value == 1:
            tracker.on_status_change = heard.append
            tracker.on_task_start = heard.append
        if value == 3:
            tracker.on_status_change = tracker.on_task_start = None
        return value

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [work])], status_tracker=tracker)
        await pipeline.run(range(6))

    virtual(main)
    assert {event.item_id for event in heard} == {1, 2, 3}
    assert heard[-1].item_id == 3


# skip_if


async def is_odd(value: int) -> bool:
    await asyncio.sleep(0.1)
    return value % 2 == 1


class IsOdd:
    async def __call__(self, value: int) -> bool:
        return await is_odd(value)


@pytest.mark.parametrize("skip_if", [is_odd, IsOdd(), lambda value: is_odd(value)])
def test_skip_if_that_is_async(skip_if: Callable[[int], Any]) -> None:
    """What an async ``skip_if`` answers counts, not that it answers."""
    calls = Calls()
    results = virtual(lambda: Pipeline([Stage("Work", 2, [calls], skip_if=skip_if)]).run(range(6)))
    assert sorted(call.value for call in calls.made) == [0, 2, 4]
    assert results.values() == list(range(6))
    assert results.stats.stage_stats["Work"].skipped_items == 3


def test_skip_if_that_raises_fails_the_item_before_its_tasks() -> None:
    """An item fails by what its ``skip_if`` raises; its tasks are not called."""

    def skip(value: int) -> bool:
        if value == 1:
            raise KeyError("skip")
        return False

    calls = Calls()
    results = virtual(lambda: Pipeline([Stage("Work", 1, [calls], skip_if=skip)]).run(range(3)))
    assert [call.value for call in calls.made] == [0, 2]
    assert results.summary.errors_by_type == {"KeyError": 1}


def test_callbacks_have_their_time_to_the_second() -> None:
    """Callbacks that take long are waited for as long as `callback_timeout` says, to the second."""

    async def main() -> float:
        async def slow(event: Any) -> None:
            await asyncio.sleep(29)

        tracker = StatusTracker(on_task_start=slow)
        await Pipeline([Stage("Work", 1, [same])], status_tracker=tracker).run([1])
        assert tracker.callback_errors == 0
        return now()

    assert virtual(main, max_time=ONE_HOUR) == 29


class RaisesTheSame:
    """Callbacks and an observer that raise one and the same error each time."""

    def __init__(self) -> None:
        self.error = ValueError("always the same")
        self.called = 0

    def plain(self, *args: Any) -> None:
        self.called += 1
        raise self.error

    async def coroutine(self, *args: Any) -> None:
        self.plain()

    def happened(self, step: Any) -> None:
        self.plain()


def ways_to_raise(same_error: RaisesTheSame, way: str) -> Pipeline[Any, Any]:
    """A pipeline that calls the user's code once for each item, or more often."""
    if way == "observer":
        return Pipeline([Stage("Work", 1, [same])], observers=[same_error])
    owner, _, kind = way.partition(" ")
    function = getattr(same_error, kind)
    if owner == "stage":
        return Pipeline([Stage("Work", 1, [same], on_success=function)])
    return Pipeline(
        [Stage("Work", 1, [same])], status_tracker=StatusTracker(on_task_start=function)
    )


@pytest.mark.parametrize(
    "way",
    ["stage plain", "stage coroutine", "tracker plain", "tracker coroutine", "observer"],
)
def test_error_that_a_callback_raises_for_each_item_does_not_grow(way: str) -> None:
    """One object, raised a hundred times: its traceback is as long as after the first."""
    same_error = RaisesTheSame()
    lengths = []
    for count in (1, 100):
        virtual(lambda: ways_to_raise(same_error, way).run(range(count)))  # noqa: B023
        lengths.append(len(list(walk_tb(same_error.error.__traceback__))))
    assert same_error.called > 100
    assert lengths == [lengths[0]] * 2


def test_callback_that_does_not_suspend_sets_no_timer() -> None:
    """Async callbacks that end at once need no time limit: they set not one timer."""

    async def timers_of(tracker: StatusTracker | None) -> int:
        set_before, call_at = 0, asyncio.get_running_loop().call_at

        def counted(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            nonlocal set_before
            set_before += 1
            return call_at(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "call_at", counted)
            await Pipeline([Stage("Work", 2, [lasting(1)])], status_tracker=tracker).run(range(9))
        return set_before

    async def main() -> None:
        heard: list[Any] = []

        async def note(event: Any) -> None:
            heard.append(event)

        assert await timers_of(StatusTracker(note, note, note)) == await timers_of(None)
        assert len(heard) == 9 * (3 + 2)

    virtual(main)


async def ends_when_cancelled(value: Any) -> Any:
    """A task that lasts until it is cancelled, and then succeeds."""
    try:
        await never()
    except asyncio.CancelledError:
        return value


@pytest.mark.parametrize("task", [never, ends_when_cancelled])
def test_async_callback_is_not_begun_where_nothing_waits_for_it(task: Any) -> None:
    """While a run is cancelled, its async callbacks are not begun: they could not be finished."""
    begun: list[str] = []

    async def on_status_change(event: StatusEvent) -> None:
        begun.append(event.status)

    async def main() -> None:
        tracker = StatusTracker(on_status_change)
        stages = [Stage("A", 1, [task]), Stage("B", 1, [same])]
        running = await in_background(Pipeline(stages, status_tracker=tracker).run(range(3)), 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert tracker.get_stats()["failed"] == 3

    virtual(main)
    assert sorted(begun) == ["in_progress", "queued", "queued", "queued"]
