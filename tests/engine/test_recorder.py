"""The store: told of every change of an item's state, before anything follows from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from antflow import Limit, Pipeline, RunEnd, RunFacts, Stage, StatusEvent, StatusTracker
from antflow._core.transition import Transition
from antflow.testing import Calls, FailTimes, Gate, MemoryStore, cancel_at_every_step, run_virtual
from tests.support import now


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
