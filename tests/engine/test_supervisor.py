"""How a run ends: in order, however it is told to, and loudly where the library is at fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from antflow import (
    InternalError,
    Limit,
    Pipeline,
    PipelineError,
    RetryAfter,
    Stage,
    StatusEvent,
    StatusTracker,
    TaskFailedError,
    TooManyFailures,
)
from antflow._core.ledger import Ledger
from antflow._engine.channel import Channel
from antflow._engine.endings import Endings
from antflow._engine.failure import FailedTries, Judge
from antflow._engine.handover import Handover
from antflow._engine.identity import Identity
from antflow._engine.intake import Entrance
from antflow._engine.recorder import Recorder
from antflow._engine.retry_heap import RetryHeap
from antflow._engine.settlement import Settlement
from antflow._engine.turns import Turns
from antflow._engine.workers import Workers
from antflow.testing import Calls, FailTimes, Gate, run_virtual
from tests.support import (
    assert_balanced,
    assert_works,
    in_background,
    lasting,
    never,
    now,
    raising,
    same,
    virtual,
)


@pytest.mark.parametrize("status", ["queued", "in_progress", "completed"])
def test_system_exit_in_a_callback_loses_no_item(status: str) -> None:
    """The program is to end: it does, and every accepted item has an outcome."""
    tracker = StatusTracker()
    pipeline = Pipeline([Stage("A", 1, [Calls(seconds=1)])], status_tracker=tracker)

    def leave(event: Any) -> None:
        if event.status == status and event.item_id == 2:
            tracker.on_status_change = None
            raise SystemExit(3)

    tracker.on_status_change = leave
    with pytest.raises(SystemExit):
        run_virtual(pipeline.run(range(4)), leftovers="cancel")
    stats = pipeline.get_stats()
    assert stats.items_in_flight == 0
    assert stats.items_accepted == len(pipeline.results.outcomes)


class Ends:
    """Ends the program at its ``after``-th call, and at all further ones."""

    def __init__(self, error: type[BaseException], after: int) -> None:
        self.error = error
        self.left = after

    def __call__(self, *_: Any) -> None:
        self.left -= 1
        if self.left <= 0:
            raise self.error(7)

    async def later(self, *_: Any) -> None:
        await asyncio.sleep(1)
        self()


class Method:
    """An observer or a display with one method."""

    def __init__(self, name: str, call: Any) -> None:
        setattr(self, name, call)


async def odd_only(value: int) -> int:
    await asyncio.sleep(1)
    if value % 2 == 0:
        raise ValueError(value)
    return value


CALLERS = ["on_success", "on_failure", "on_skip", "happened", "closed", "on_start", "on_update"]
CALLERS += ["on_finish", "on_status_change", "on_task_complete"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("way", ["run", "stream"])
@pytest.mark.parametrize("name", CALLERS)
def test_callback_that_ends_the_program_ends_the_run_in_order(
    name: str, way: str, is_async: bool, error: type[BaseException]
) -> None:
    """It comes out of the run, not of the event loop, and every accepted item has an outcome."""
    ends = Ends(error, 1 if name in ("closed", "on_start", "on_finish") else 2)
    call = ends.later if is_async and name != "happened" else ends
    options: Any = {}
    shown: Any = {}
    stage: Any = {"skip_if": lambda value: value == 1} if name == "on_skip" else {}
    if name in ("happened", "closed"):
        options = {"observers": [Method(name, call)]}
    elif name in ("on_start", "on_update", "on_finish"):
        shown = {"custom_dashboard": Method(name, call)}
    elif name in ("on_status_change", "on_task_complete"):
        tracker = StatusTracker()
        setattr(tracker, name, call)
        options = {"status_tracker": tracker}
    else:
        stage[name] = call
        ends.left = 1

    async def main() -> None:
        stages = [
            Stage("A", 2, [odd_only, same], task_attempts=1, **stage),
            Stage("B", 1, [same], queue_capacity=1),
        ]
        pipeline = Pipeline(stages, **options)

        async def use() -> None:
            if way == "run":
                await pipeline.run(range(30), **shown)
            else:
                async with pipeline.stream(range(30), **shown) as results:
                    async for _ in results:
                        pass

        with pytest.raises(error) as caught:
            await use()
        assert caught.value.args == (7,)
        await asyncio.sleep(1)  # the event loop goes on
        stats = pipeline.get_stats()
        assert_balanced(stats)
        assert stats.items_in_flight == 0
        if way == "run":
            assert stats.items_accepted == len(pipeline.results.outcomes)

    run_virtual(main)


def test_cancel_during_a_shutdown_does_not_wait_for_callbacks() -> None:
    """Observers of cancelled items are heard out by a shutdown, but not by a cancellation."""
    tracker = StatusTracker()

    async def main() -> float:
        gate = Gate()

        async def hang(event: Any) -> None:
            if event.status == "failed":
                await asyncio.sleep(25)

        tracker.on_status_change = hang
        pipeline = Pipeline([Stage("A", 1, [gate])], status_tracker=tracker)
        async with pipeline.open() as run:
            await run.feed(range(5))
            await asyncio.sleep(1)
            stopping = asyncio.create_task(run.shutdown())
            await asyncio.sleep(1)
            gate.open()
            await asyncio.sleep(1)
            run.cancel()
            await stopping
        return now()

    assert run_virtual(main) == pytest.approx(3)


def test_crash_inside_the_library_ends_the_run_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the engine is an InternalError with its cause, and never a hang or a silence."""

    def broken(self: Settlement, *args: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Settlement, "settle", broken)

    async def main() -> None:
        with pytest.raises(InternalError, match=r"crashed: ZeroDivisionError: a bug") as caught:
            await Pipeline([Stage("A", 2, [Calls(seconds=1)])]).run(range(5))
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    run_virtual(main)


def test_books_that_do_not_balance_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that is missing is found out at the end of the run, with the numbers."""
    settle = Settlement.settle

    def forgetful(self: Settlement, envelope: Any, error: Any) -> Any:
        if envelope.id == 3:
            self._run.ledger.stages[0].worker(0).completed -= 1
        return settle(self, envelope, error)

    monkeypatch.setattr(Settlement, "settle", forgetful)

    async def main() -> None:
        with pytest.raises(InternalError, match=r"accepted 5 .* completed 4"):
            await Pipeline([Stage("A", 1, [Calls()])]).run(range(5))

    run_virtual(main)


async def is_four(value: int) -> bool:
    await asyncio.sleep(0)
    return value == 4


CRASHES: list[tuple[type[Any], str]] = [
    (Recorder, "admitted"),
    (Recorder, "failed"),
    (Recorder, "retrying"),
    (RetryHeap, "push"),
    (RetryHeap, "room"),
    (Channel, "put"),
    (Channel, "take"),
    (Channel, "room"),
    (Channel, "wait"),
    (Channel, "put_first"),
    (Identity, "envelopes"),
    (Entrance, "begin_to_admit"),
    (Settlement, "settle"),
    (Turns, "is_over"),
    (Workers, "receive"),
    (Handover, "put_on"),
    (Judge, "decide"),
    (FailedTries, "fail"),
    (FailedTries, "after"),
    (Endings, "through"),
    (Handover, "tell_and_put_on"),
    (Endings, "passes_by"),
    (Ledger, "discrepancy"),
]


class Crash(Exception):
    """Something that cannot happen."""


@pytest.mark.fault
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize(
    ("where", "name"), CRASHES, ids=[f"{where.__name__}.{name}" for where, name in CRASHES]
)
def test_crash_anywhere_in_the_library_ends_the_run_loudly(
    where: type[Any], name: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the library's own ends the run loudly: never a hang, never silence."""
    original = getattr(where, name)
    calls = 0

    def crash(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Crash
        return original(*args, **kwargs)

    async def main() -> None:
        stages = [
            Stage("A", 2, [FailTimes(1)], task_wait_seconds=0.1, queue_capacity=1),
            Stage("B", 1, [raising(ValueError("no"), 3)], "per_stage", queue_capacity=1),
            Stage("C", 1, [lasting(1)], queue_capacity=1, on_success=print, skip_if=is_four),
        ]
        tracker = StatusTracker(on_task_start=lambda event: None)
        pipeline = Pipeline(stages, status_tracker=tracker)
        with monkeypatch.context() as patch:
            patch.setattr(where, name, crash)
            ended = asyncio.ensure_future(pipeline.run(range(8)))
            await asyncio.wait([ended])
        error = ended.exception()
        if calls > after:
            assert isinstance(error, (InternalError, Crash))
            assert isinstance(error, Crash) or isinstance(error.__cause__, Crash)
        else:
            assert error is None
            assert after
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await assert_works(pipeline)

    virtual(main)


@pytest.mark.fault
def test_run_when_a_worker_is_cancelled_from_outside() -> None:
    """Cancelling a worker's `asyncio.Task` costs the item in hand, and the run goes on."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [lasting(1)], task_attempts=1)])
        run = await in_background(pipeline.run(range(10)), 1.5)
        [worker] = [task for task in asyncio.all_tasks() if "Work-W0" in task.get_name()]
        worker.cancel()
        results = await run
        [failed] = results.failed
        assert isinstance(failed.error, TaskFailedError)
        assert len(results) == 9
        assert_balanced(pipeline.get_stats())

    virtual(main)


# -- ending a run ----------------------------------------------------------------------------------


@pytest.mark.fault
def test_callback_may_shut_the_run_down() -> None:
    """A callback may end the run: what it began ends, the rest is cancelled and counted."""

    async def main() -> None:
        async def on_success(*_: Any) -> None:
            await pipeline.shutdown()

        pipeline = Pipeline([Stage("Work", 2, [lasting(1)], on_success=on_success)])
        results = await pipeline.run(range(100))
        assert results.values() == [0, 1]
        assert results.stats.items_cancelled > 0
        assert_balanced(results.stats)
        assert now() == 1

    virtual(main)


@pytest.mark.fault
@pytest.mark.parametrize("status", ["queued", "in_progress", "completed"])
def test_tracker_callback_may_shut_the_run_down(status: str) -> None:
    """A tracker's callback may end the run, whatever it was called for."""

    async def main() -> None:
        async def on_status_change(event: StatusEvent) -> None:
            if event.status == status and event.item_id == 3:
                await pipeline.shutdown()

        tracker = StatusTracker(on_status_change)
        pipeline = Pipeline([Stage("Work", 2, [lasting(1)])], status_tracker=tracker)
        results = await pipeline.run(range(100))
        assert len(results) < 6
        assert_balanced(results.stats)
        assert tracker.callback_errors == 0

    virtual(main)


@pytest.mark.fault
@pytest.mark.parametrize("end", [Pipeline.join, Pipeline.shutdown])
def test_task_may_end_its_own_run(end: Callable[[Pipeline], Any]) -> None:
    """A task may join or shut down its own run: it does not wait for itself."""

    async def main() -> None:
        async def work(value: int) -> int:
            await end(pipeline)
            return value

        pipeline = Pipeline([Stage("Work", 1, [work])])
        await pipeline.feed([1])
        await pipeline.join()
        assert pipeline.results.values() == [1]

    virtual(main)


@pytest.mark.fault
def test_shutdown_while_a_stage_waits_for_room_and_a_feed_is_blocked() -> None:
    """Shutdown ends a pipeline that is full to the brim, and tells a blocked feed."""

    async def main() -> None:
        pipeline = Pipeline(
            [
                Stage("A", 2, [same], queue_capacity=1),
                Stage("B", 1, [lasting(10)], queue_capacity=1),
            ]
        )
        await pipeline.start()
        feeding = await in_background(pipeline.feed(range(100)), 15)
        await pipeline.shutdown()
        assert now() == 20
        with pytest.raises(PipelineError, match="shut down"):
            await feeding
        assert pipeline.results.values() == [0, 1]
        stats = pipeline.get_stats()
        assert stats.items_cancelled == len(pipeline.results.outcomes) - 2 > 0
        assert_balanced(stats)

    virtual(main)


@pytest.mark.fault
def test_no_item_begins_after_a_task_shut_down() -> None:
    """After a shutdown no item that waited is begun, however fast its worker is."""

    async def main() -> None:
        begun: list[int] = []

        async def work(value: int) -> int:
            begun.append(value)
            if value == 3:
                await pipeline.shutdown()
            return value

        pipeline = Pipeline([Stage("Work", 1, [work])])
        await pipeline.feed(range(10))
        await pipeline.join()
        assert begun == [0, 1, 2, 3]
        assert pipeline.get_stats().items_cancelled == 6

    virtual(main)


@pytest.mark.fault
def test_shutdown_lets_tasks_end_and_settles_the_rest() -> None:
    """Shutdown lets running tasks end, and settles everything that waits as cancelled."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [lasting(1)]), Stage("B", 1, [lasting(3)])])
        await pipeline.start()
        await pipeline.feed(range(10))
        await asyncio.sleep(4.5)
        await pipeline.shutdown()
        assert now() == 7
        results = pipeline.results
        assert results.values() == [0, 1]
        assert len(results.outcomes) == 10
        assert results.stats.items_cancelled == 8
        assert_balanced(results.stats)

    virtual(main)


@pytest.mark.fault
def test_cancel_is_in_time_although_a_callback_never_returns() -> None:
    """A run is cancelled in time although a callback of it hangs."""

    async def main() -> float:
        tracker = StatusTracker(on_status_change=never)
        pipeline = Pipeline([Stage("Work", 2, [same])], status_tracker=tracker)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await pipeline.run(range(10))
        assert_balanced(pipeline.get_stats())
        return now()

    assert virtual(main) == 2


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("waits", ["held", "held again", "limited"])
def test_shutdown_does_not_wait_for_what_has_not_begun(waits: str, batch: int | None) -> None:
    """Items that are held back, or wait for a limit, are settled: only running attempts end."""

    async def held(value: Any) -> Any:
        await asyncio.sleep(2 if waits == "held again" else 0)
        raise RetryAfter(600)

    async def main() -> Any:
        limit = Limit(rate=1, period=600)
        limited = Stage("A", 3, [Calls()], limits=[limit], batch=batch, task_attempts=1)
        stage = limited if waits == "limited" else Stage("A", 1, [held], batch=batch)
        async with Pipeline([stage]).open() as run:
            await run.feed(range(9))
            await asyncio.sleep(1)
            await run.shutdown()
        return run.stats(), now()

    stats, when = run_virtual(main)
    assert when == (2 if waits == "held again" else 1)
    assert stats.items_processed == ((batch or 1) if waits == "limited" else 0)
    assert stats.items_cancelled == 9 - stats.items_processed


def test_shutdown_does_not_wait_for_what_comes_to_a_limit_afterwards() -> None:
    """A worker that was at a ``skip_if`` during the shutdown does not begin to wait for a limit."""

    async def ask(_: int) -> bool:
        await asyncio.sleep(2)
        return False

    async def main() -> Any:
        limit = Limit(rate=1, period=600)
        stage = Stage("A", 3, [Calls()], limits=[limit], skip_if=ask)
        async with Pipeline([stage]).open() as run:
            await run.feed(range(9))
            await asyncio.sleep(1)
            await run.shutdown()
        return run.stats(), now()

    stats, when = run_virtual(main)
    assert when == 2
    assert (stats.items_processed, stats.items_cancelled) == (1, 8)


def test_first_of_two_errors_comes_out() -> None:
    """Too many failures stop the intake; that what goes on is too late then is not the cause."""

    async def work(value: int) -> int:
        await asyncio.sleep(value)
        if value == 1:
            raise ValueError
        return value

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [work], task_attempts=1)])
        with pytest.raises(TooManyFailures):
            await pipeline.run([100, 1], max_failures=1, timeout=10)
        assert now() == 10

    run_virtual(main)


def test_cancel_and_leaving_the_block_settles_everything() -> None:
    """`RunHandle.cancel` with a task that is stuck: leaving the block settles everything."""

    async def main() -> Any:
        gate = Gate()
        async with Pipeline([Stage("A", 2, [gate])]).open() as run:
            await run.feed(range(5))
            await asyncio.sleep(1)
            run.cancel()
            run.cancel()
        return run.stats()

    stats = run_virtual(main)
    assert (stats.items_cancelled, stats.items_in_flight) == (5, 0)


def test_shutdown_beside_a_run_ends_that_run() -> None:
    """``pipeline.shutdown()`` from outside ends the run under way."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [lasting(1)])])
        running = asyncio.ensure_future(pipeline.run(range(30)))
        await asyncio.sleep(1.5)
        await pipeline.shutdown()
        results = await running
        assert results.values() == [0, 1]
        assert results.stats.items_cancelled == results.stats.items_accepted - 2

    run_virtual(main)
