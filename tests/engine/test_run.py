"""A run: parallelism, order, workers that come and go, the store, and what breaks loudly."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from antflow import (
    InternalError,
    ItemCancelled,
    Limit,
    Pipeline,
    RunEnd,
    RunFacts,
    Stage,
    StageStats,
    StatusEvent,
    StatusTracker,
    current_item,
)
from antflow._core.transition import Transition
from antflow._engine.recorder import Recorder
from antflow._engine.retries import RetryHeap
from antflow.testing import (
    Calls,
    FailTimes,
    Gate,
    MemoryStore,
    cancel_at_every_step,
    record_events,
    run_virtual,
)


def now() -> float:
    """Virtual seconds."""
    return asyncio.get_running_loop().time()


# -- time: what runs side by side ----------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, *range(5)])
def test_all_workers_work_at_the_same_time(seed: int | None) -> None:
    """100 items of 1 s, 10 workers: 10 s, in any schedule. A lost wake-up would take longer."""
    calls = Calls(seconds=1)

    async def main() -> float:
        await Pipeline([Stage("A", 10, [calls])]).run(range(100))
        return now()

    assert run_virtual(main, seed=seed) == pytest.approx(10)
    assert calls.most_at_once == 10


@pytest.mark.parametrize("seed", [None, *range(5)])
@pytest.mark.parametrize("capacity", [1, None])
def test_stages_overlap(seed: int | None, capacity: int | None) -> None:
    """Three stages of 2 workers, 20 items of 1 s each: the line is full but for its ends."""

    async def main() -> float:
        stages = [
            Stage(name, 2, [Calls(seconds=1)], queue_capacity=capacity) for name in ("A", "B", "C")
        ]
        await Pipeline(stages).run(range(20))
        return now()

    assert run_virtual(main, seed=seed) == pytest.approx(20 / 2 + 2)


def test_async_source_is_worked_on_item_by_item() -> None:
    """A source that gives an item a second: each is through before the next one comes."""
    seen: list[tuple[int, Any]] = []

    async def main() -> None:
        async def source() -> Any:
            for item in range(3):
                await asyncio.sleep(1)
                yield item

        async for result in Pipeline([Stage("A", 2, [Calls(seconds=0.1)])]).stream(source()):
            seen.append((result.value, now()))

    run_virtual(main)
    assert seen == [(0, pytest.approx(1.1)), (1, pytest.approx(2.1)), (2, pytest.approx(3.1))]


def test_idle_workers_cost_no_step_of_the_event_loop() -> None:
    """400 workers, nothing to do for an hour: the loop runs a handful of steps, not thousands."""

    async def main() -> int:
        async with Pipeline([Stage("A", 400, [Calls()])]).open() as run:
            gate = Gate()
            await run.feed(range(400))
            await asyncio.sleep(1)
            loop: Any = asyncio.get_running_loop()
            before = int(loop.steps)
            await asyncio.sleep(3600)
            assert gate.waiting == 0
            return int(loop.steps) - before

    assert run_virtual(main) < 10


def test_failed_items_that_wait_hold_no_worker() -> None:
    """One worker, a failed item that waits 10 s: the others are through meanwhile."""

    async def task(value: int) -> int:
        if value == 0 and current_item().attempt == 1:
            raise ValueError
        return value

    async def main() -> list[tuple[int, float]]:
        pipeline = Pipeline([Stage("A", 1, [task], task_wait_seconds=10)])
        return [(result.value, now()) async for result in pipeline.stream(range(3))]

    assert run_virtual(main) == [(1, 0), (2, 0), (0, pytest.approx(10))]


def test_item_that_is_due_sooner_is_tried_sooner() -> None:
    """What waits for its next try waits as long as it should, whatever waited there before it."""

    async def task(seconds: int) -> int:
        if current_item().attempt == 1:
            raise ValueError
        return seconds

    def as_long_as_it_says(attempt: int) -> float:
        return float(current_item().id)

    async def main() -> list[tuple[int, float]]:
        stage = Stage("A", 1, [task], wait=as_long_as_it_says)
        items = [{"id": seconds, "value": seconds} for seconds in (100, 1, 10)]
        return [(result.value, now()) async for result in Pipeline([stage]).stream(items)]

    assert run_virtual(main) == [(1, 1), (10, 10), (100, 100)]


def test_waiting_retries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that all fail: no more of them wait for a retry than there is room for."""
    most = 0
    push = RetryHeap.push

    def watched(self: RetryHeap, envelope: Any, delay: float) -> None:
        nonlocal most
        push(self, envelope, delay)
        most = max(most, len(self))

    monkeypatch.setattr(RetryHeap, "push", watched)

    async def main() -> None:
        stage = Stage("A", 3, [FailTimes(1)], queue_capacity=4, task_wait_seconds=60)
        await Pipeline([stage]).run(range(100))

    run_virtual(main)
    assert 3 < most < 3 + 4


@pytest.mark.parametrize("listens", [False, True])
def test_first_queue_shows_a_slow_stage(listens: bool) -> None:
    """Items wait before a first stage that is slow, whether or not somebody is told of each."""

    async def main() -> int:
        tracker = StatusTracker(print if listens else None)
        pipeline = Pipeline([Stage("A", 2, [Calls(seconds=1)])], status_tracker=tracker)
        running = asyncio.create_task(pipeline.run(range(60)))
        await asyncio.sleep(2.5)
        pending = pipeline.get_stats().queue_sizes["A"]
        await running
        return pending

    assert run_virtual(main) > 10


# -- order ----------------------------------------------------------------------------------------


def test_priority_is_kept_through_later_stages() -> None:
    """An urgent item overtakes those that wait, in every stage; equals keep their order."""
    order: list[str] = []

    async def last(value: str) -> str:
        order.append(value)
        await asyncio.sleep(1)
        return value

    async def main() -> None:
        async with Pipeline(
            [Stage("A", 1, [Calls(seconds=0.1)]), Stage("B", 1, [last])]
        ).open() as run:
            await run.feed(["a", "b", "c", "d"])
            await asyncio.sleep(1.5)
            await run.feed(["late"], priority=200)
            await run.feed(["urgent"], priority=1)

    run_virtual(main)
    assert order == ["a", "b", "urgent", "c", "d", "late"]


def test_items_of_one_priority_keep_their_order() -> None:
    """FIFO: one worker sees the items as they were fed, whatever their priority is."""
    calls = Calls()

    async def main() -> None:
        async with Pipeline([Stage("A", 1, [calls])]).open() as run:
            await run.feed(range(30), priority=7)

    run_virtual(main)
    assert [call.value for call in calls.made] == list(range(30))


# -- workers --------------------------------------------------------------------------------------


def test_more_workers_join_a_run_under_way() -> None:
    """After set_workers the stage works on more items at once."""
    calls = Calls(seconds=1)

    async def main() -> None:
        async with Pipeline([Stage("A", 1, [calls])]).open() as run:
            feeding = asyncio.create_task(run.feed(range(13)))
            await asyncio.sleep(2.5)
            assert calls.most_at_once == 1
            run.set_workers("A", 5)
            await asyncio.sleep(1)
            assert calls.running == 5
            assert run.snapshot().worker_states["A-W4"].status == "busy"
            await feeding

    run_virtual(main)
    assert len(calls.made) == 13


def test_workers_leave_a_run_under_way_and_lose_nothing() -> None:
    """After set_workers down to one, running items end, one worker goes on, all items come out."""
    calls = Calls(seconds=1)

    async def main() -> int:
        pipeline = Pipeline([Stage("A", 5, [calls])])
        async with pipeline.open() as run:
            feeding = asyncio.create_task(run.feed(range(20)))
            await asyncio.sleep(0.5)
            assert calls.running == 5
            run.set_workers("A", 1)
            await asyncio.sleep(1)
            assert calls.running == 1
            assert list(run.snapshot().worker_states) == ["A-W0"]
            assert pipeline.get_worker_names() == {"A": ["A-W0"]}
            await feeding
        return len(run.results)

    assert run_virtual(main) == 20


def test_idle_workers_leave_at_once() -> None:
    """Workers that have nothing to do when they are to leave do not stay as tasks."""

    async def main() -> None:
        async with Pipeline([Stage("A", 5, [Calls(seconds=1)])]).open() as run:
            await run.feed(range(5))
            await asyncio.sleep(2)
            before = len(asyncio.all_tasks())
            run.set_workers("A", 1)
            await asyncio.sleep(1)
            assert len(asyncio.all_tasks()) == before - 4

    run_virtual(main)


def test_workers_that_left_can_be_called_back() -> None:
    """Fewer, then more again, also while a worker that was to leave is still at work."""
    calls = Calls(seconds=1)

    async def main() -> int:
        async with Pipeline([Stage("A", 5, [calls])]).open() as run:
            feeding = asyncio.create_task(run.feed(range(40)))
            for count in (1, 5, 1, 3, 1, 5):
                await asyncio.sleep(0.7)
                run.set_workers("A", count)
            await asyncio.sleep(1.5)
            assert calls.running == 5
            busy = [state.current_item_id for state in run.snapshot().worker_states.values()]
            assert len(set(busy)) == 5
            await feeding
        return len(run.results)

    assert run_virtual(main) == 40
    assert calls.most_at_once == 5


def test_what_a_retired_worker_did_stays_in_the_books() -> None:
    """The stage's counts do not go back when a worker leaves."""

    async def main() -> None:
        async with Pipeline([Stage("A", 5, [Calls(seconds=1)])]).open() as run:
            await run.feed(range(5))
            await asyncio.sleep(1.5)
            run.set_workers("A", 1)
            await asyncio.sleep(1)
            assert run.stats().stage_stats["A"].completed_items == 5

    run_virtual(main)


def test_set_workers_names_the_stages_when_there_is_none_of_that_name() -> None:
    """A misspelt stage is a ValueError that lists the names."""

    async def main() -> None:
        async with Pipeline([Stage("Fetch", 1, [Calls()])]).open() as run:
            with pytest.raises(ValueError, match="'fetch' not found; the stages are 'Fetch'"):
                run.set_workers("fetch", 2)
            with pytest.raises(ValueError, match="count=0"):
                run.set_workers("Fetch", 0)

    run_virtual(main)


# -- what a task can ask --------------------------------------------------------------------------


def test_current_item_says_what_is_worked_on() -> None:
    """Id, attempt, stage and run, in async tasks and in threads; one key for all tries."""
    seen: list[Any] = []

    async def first(value: int) -> int:
        seen.append(current_item())
        if current_item().attempt == 1:
            raise ValueError
        return value

    def second(value: int) -> int:
        seen.append((current_item(), threading.current_thread() is threading.main_thread()))
        return value

    async def main() -> str:
        stages = [Stage("A", 1, [first]), Stage("B", 1, [second])]
        return (await Pipeline(stages).run([{"id": "x", "value": 1}])).run_id

    run_id = run_virtual(main)
    one, two, (three, in_main_thread) = seen
    assert (one.id, one.attempt, one.stage, one.run_id) == ("x", 1, "A", run_id)
    assert (two.attempt, three.attempt, three.stage) == (2, 1, "B")
    assert one.idempotency_key == two.idempotency_key != three.idempotency_key
    assert not in_main_thread


def test_current_item_outside_a_task_is_an_error() -> None:
    """It says where it works."""
    with pytest.raises(RuntimeError, match="only inside a task"):
        current_item()


def test_idempotency_key_tells_42_from_its_text() -> None:
    """Items 42 and "42" of one run have different keys."""
    keys = []

    async def task(value: Any) -> None:
        keys.append(current_item().idempotency_key)

    async def main() -> None:
        await Pipeline([Stage("A", 1, [task])]).run([{"id": 42}, {"id": "42"}])

    run_virtual(main)
    assert len(set(keys)) == 2


def test_cancelled_error_of_skip_if_names_skip_if() -> None:
    """The failure says where it was raised, not in a task that never ran."""

    async def skip_if(value: int) -> bool:
        raise asyncio.CancelledError

    async def main() -> str:
        results = await Pipeline([Stage("A", 1, [Calls()], skip_if=skip_if)]).run([1])
        return str(results.failed[0].error)

    assert run_virtual(main) == "task 'skip_if' raised CancelledError"


def test_id_that_cannot_be_compared_stays_what_it_is() -> None:
    """Ids whose __eq__ raises cost neither the items nor the run: each is equal to itself alone."""

    class Odd:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise ValueError

    first, second = Odd(), Odd()

    async def main() -> list[Any]:
        pipeline = Pipeline([Stage("A", 1, [Calls()])])
        return [result.id for result in await pipeline.run([{"id": first}, {"id": second}])]

    ids = run_virtual(main)
    assert len(ids) == 2
    assert ids[0] is first
    assert ids[1] is second


def test_feeder_that_is_dismissed_before_its_first_step_is_no_fault() -> None:
    """A display that joins the run at once ends it well, whatever its source is."""

    class Hasty:
        async def on_update(self, snapshot: Any) -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await pipeline.join()

    async def source() -> Any:
        yield 1

    pipeline = Pipeline([Stage("A", 1, [Calls()])], status_tracker=StatusTracker(print))
    for items in (source(), [1]):
        run_virtual(pipeline.run(items, custom_dashboard=Hasty()), leftovers="cancel")


def test_blocked_items_are_those_whose_sender_waits() -> None:
    """An item that was put back for its next try is no blocked sender."""

    async def main() -> None:
        calls = Calls(FailTimes(1), seconds=1)
        stage = Stage("A", 1, [calls], queue_capacity=2, task_wait_seconds=0.5)
        async with Pipeline([stage]).open() as run:
            await run.feed([0])
            await asyncio.sleep(0.5)
            await run.feed([1, 2])
            await asyncio.sleep(1.2)
            assert run.stats().stage_stats["A"].blocked_items == 0

    run_virtual(main)


@pytest.mark.parametrize("slow", [False, True])
def test_callback_of_a_feeder_outside_is_inside_the_run(slow: bool) -> None:
    """A callback for an item that somebody feeds can feed the same run, and can join it."""
    tracker = StatusTracker()

    async def main() -> list[Any]:
        pipeline = Pipeline([Stage("A", 1, [Calls()])], status_tracker=tracker)

        async def on_status_change(event: Any) -> None:
            if slow:
                await asyncio.sleep(1)
            if event.status == "queued" and event.item_id == 0:
                await pipeline.feed(["extra"])
                await pipeline.join()

        tracker.on_status_change = on_status_change
        async with pipeline.open() as run:
            await run.feed(["first"])
        return run.results.values()

    assert run_virtual(main) == ["first", "extra"]
    assert tracker.callback_errors == 0


def test_inner_run_that_feeds_the_outer_one_does_not_hang() -> None:
    """A worker of the outer run waits for the inner one, which must not wait for that worker."""

    async def main() -> int:
        async def feed_outer(value: int) -> int:
            if value == 0:
                await outer.feed(range(1, 6))
            return value

        async def run_inner(value: int) -> int:
            await Pipeline([Stage("I", 1, [feed_outer])]).run([value])
            return value

        outer = Pipeline([Stage("O", 1, [run_inner], queue_capacity=1)])
        return len(await outer.run([0]))

    assert run_virtual(main) == 6


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


def test_task_that_raises_item_cancelled_has_failed() -> None:
    """What another run raised is an ordinary failure here, in the list as in the counts."""

    async def task(value: int) -> int:
        raise ItemCancelled("of another run")

    async def main() -> None:
        results = await Pipeline([Stage("A", 1, [task], task_attempts=1)]).run([1])
        assert len(results.failed) == results.stats.items_failed == 1

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


# -- the store ------------------------------------------------------------------------------------


def test_store_keeps_items_before_they_enter_and_every_result() -> None:
    """What was fed, what each stage made of it, and the transitions in order."""
    store = MemoryStore()

    async def double(value: int) -> int:
        assert store.admitted
        return value * 2

    async def main() -> None:
        await Pipeline([Stage("A", 1, [double]), Stage("B", 1, [double])], store=store).run([5])

    run_virtual(main)
    assert store.admitted == [(0, 0, 5)]
    assert store.values == {(0, 0): 10, (0, 1): 20}
    kinds = [transition.kind.name for transition in store.transitions]
    assert kinds == ["ADMITTED", "STARTED", "COMPLETED", "STARTED", "COMPLETED"]
    assert [transition.n for transition in store.transitions] == [1, 2, 3, 4, 5]


def test_store_is_told_of_the_run_and_of_each_item() -> None:
    """It is opened before anything is kept and closed after everything, and knows ids and keys."""
    told: list[str] = []

    class Told(MemoryStore):
        def opened(self, facts: RunFacts, stages: Sequence[Stage]) -> None:
            super().opened(facts, stages)
            told.append(f"opened {facts.pipeline} {[stage.version for stage in stages]}")

        def record(self, transition: Transition, value: Any) -> Awaitable[None] | None:
            told.append(transition.kind.name)
            return super().record(transition, value)

        def closed(self, how: RunEnd) -> Awaitable[None] | None:
            told.append(f"closed {how.how} {how.stats.items_processed}")
            return super().closed(how)

    store = Told(slow=True)
    pipeline = Pipeline([Stage("A", 1, [Calls()], version="v2")], store=store, name="shop")
    run_virtual(pipeline.run([{"id": "x", "value": 5, "colour": "red"}]))
    steps = ["ADMITTED", "STARTED", "COMPLETED"]
    assert told == ["opened shop ['v2']", *steps, "closed finished 1"]
    assert {transition.item_id for transition in store.transitions} == {"x"}
    assert [dict(transition.metadata) for transition in store.transitions] == [
        {"colour": "red"}
    ] * 3
    assert {transition.run for transition in store.transitions} == {store.runs[0].run_id}


def test_store_that_cannot_open_lets_no_run_begin() -> None:
    """What it raises comes out of the call, and the next run may begin."""

    class Locked(MemoryStore):
        def opened(self, facts: RunFacts, stages: Sequence[Stage]) -> None:
            super().opened(facts, stages)
            if len(self.runs) == 1:
                raise OSError("in use")

    calls, limit = Calls(), Limit(concurrency=1)
    pipeline = Pipeline([Stage("A", 1, [calls], limits=[limit])], store=Locked())
    with pytest.raises(OSError, match="in use"):
        run_virtual(pipeline.run([1]))
    assert calls.made == []
    assert run_virtual(pipeline.run([1])).values() == [1]


@pytest.mark.parametrize("waits", [False, True])
def test_store_that_cannot_close_makes_the_run_fail(waits: bool) -> None:
    """A run whose end could not be kept is not told as one that went well."""

    class Full(MemoryStore):
        def closed(self, how: RunEnd) -> Awaitable[None] | None:
            if waits:
                return self.fail()
            raise OSError("disk full")

        async def fail(self) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full") as caught:
        run_virtual(Pipeline([Stage("A", 1, [Calls()])], store=Full()).run([1]))
    assert caught.value.results.values() == [1]  # type: ignore[attr-defined]


def test_run_ends_after_its_store_has_closed() -> None:
    """`run` returns when what ``closed`` returned has been awaited, cancelled or not."""

    class Slow(MemoryStore):
        def closed(self, how: RunEnd) -> Awaitable[None] | None:
            super().closed(how)
            return asyncio.sleep(60)

    async def main() -> None:
        store = Slow()
        await Pipeline([Stage("A", 1, [Calls()])], store=store).run([1])
        assert now() == pytest.approx(60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await Pipeline([Stage("A", 1, [Gate()])], store=store).run([1])
        assert now() == pytest.approx(121)
        assert [end.how for end in store.ends] == ["finished", "cancelled"]

    run_virtual(main)


def test_store_can_hold_the_workers_back() -> None:
    """A store whose backlog is full for a second makes each transition wait for it."""

    class Slow(MemoryStore):
        def record(self, transition: Transition, value: Any) -> Awaitable[None] | None:
            super().record(transition, value)
            return asyncio.sleep(1)

    async def main() -> float:
        await Pipeline([Stage("A", 1, [Calls()])], store=Slow()).run([1])
        return now()

    assert run_virtual(main) == pytest.approx(3)


def test_result_leaves_only_after_the_store_has_it() -> None:
    """A streamed result is not seen before the store has kept its completion."""
    store = MemoryStore(slow=True)

    async def main() -> None:
        async for result in Pipeline([Stage("A", 2, [Calls()])], store=store).stream(range(5)):
            assert (result.sequence_id, 0) in store.values

    run_virtual(main)


def test_store_and_tracker_that_are_waited_for_cancelled_at_every_step() -> None:
    """Whichever of the two is being awaited, no coroutine is left unawaited."""
    told: list[int] = []

    async def on_status_change(event: StatusEvent) -> None:
        await asyncio.sleep(0.01)
        told.append(1)

    async def main() -> None:
        stages = [Stage("A", 1, [FailTimes(1)], task_wait_seconds=0.1), Stage("B", 1, [Calls()])]
        tracker = StatusTracker(on_status_change)
        pipeline = Pipeline(stages, store=MemoryStore(slow=True), status_tracker=tracker)
        await pipeline.run(range(2))

    assert cancel_at_every_step(main) > 50
    assert told


def test_store_that_cannot_write_stops_the_intake() -> None:
    """What was accepted finishes, no more is taken in, and the store's exception comes out."""

    class Full(MemoryStore):
        def record(self, transition: Transition, value: Any) -> Awaitable[None] | None:
            if len(self.transitions) > 30:
                raise OSError("disk full")
            return super().record(transition, value)

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [Calls()], queue_capacity=5)], store=Full())
        with pytest.raises(OSError, match="disk full") as caught:
            await pipeline.run(range(1000))
        results = caught.value.results  # type: ignore[attr-defined]
        assert 10 < len(results) < 30
        assert results.stats.items_accepted == len(results)

    run_virtual(main)


# -- faults of the library itself -----------------------------------------------------------------


def test_crash_inside_the_library_ends_the_run_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the engine is an InternalError with its cause, and never a hang or a silence."""

    def broken(self: Recorder, *args: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Recorder, "completed", broken)

    async def main() -> None:
        with pytest.raises(InternalError, match=r"crashed: ZeroDivisionError: a bug") as caught:
            await Pipeline([Stage("A", 2, [Calls(seconds=1)])]).run(range(5))
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    run_virtual(main)


def test_books_that_do_not_balance_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorder that forgets an entry is found out at the end of the run, with the numbers."""
    completed = Recorder.completed

    def forgetful(self: Recorder, envelope: Any, worker: Any, value: Any, now: float) -> Any:
        wait = completed(self, envelope, worker, value, now)
        if envelope.id == 3:
            worker.completed -= 1
        return wait

    monkeypatch.setattr(Recorder, "completed", forgetful)

    async def main() -> None:
        with pytest.raises(InternalError, match=r"accepted 5 .* completed 4"):
            await Pipeline([Stage("A", 1, [Calls()])]).run(range(5))

    run_virtual(main)


def test_failed_items_keep_no_frame_of_the_engine() -> None:
    """A kept error's traceback begins in the task: it does not keep the run alive."""

    async def task(value: int) -> int:
        raise ValueError(value)

    events = record_events()

    async def main() -> None:
        stage = Stage("A", 1, [task], task_attempts=2, task_wait_seconds=0)
        (failed,) = (await Pipeline([stage], status_tracker=events).run([1])).failed
        assert failed.error is not None
        assert failed.error.__traceback__ is not None
        assert failed.error.__traceback__.tb_frame.f_code.co_name == "task"

    run_virtual(main)
    assert events.of(0) == [
        "queued @ A",
        "in_progress @ A",
        "start task 1",
        "retry task 1",
        "start task 2",
        "fail task 2",
        "failed @ A",
    ]


@pytest.mark.real_time
def test_worker_that_gives_way_is_not_starved() -> None:
    """Where others keep the event loop busy, nobody says that a worker had nothing to do."""

    async def task(number: int) -> None:
        await asyncio.sleep(0)

    async def others() -> None:
        while True:
            time.sleep(0.006)  # noqa: ASYNC251
            await asyncio.sleep(0)

    async def main() -> StageStats:
        pipeline = Pipeline([Stage("Work", 1, [task])])
        keeping = asyncio.create_task(others())
        await pipeline.run(range(40))
        keeping.cancel()
        return pipeline.get_stats().stage_stats["Work"]

    stats = asyncio.run(main())
    assert stats.starved_seconds < 0.2 * stats.busy_seconds
