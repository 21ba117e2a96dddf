"""Items that end without a result, and items that tasks feed into their own run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antflow import (
    Drop,
    Limit,
    Pipeline,
    PipelineError,
    RunResults,
    Stage,
    StatusTracker,
    WouldDeadlockError,
)
from antflow._engine import intake, turns
from antflow.testing import Calls, Gate, cancel_at_every_step, record_events, run_virtual
from tests.support import now


class Duplicate(Drop):
    """A user's own kind of `Drop`."""


# -- Drop -----------------------------------------------------------------------------------------


def return_class(_: Any) -> Any:
    """Drop: the class."""
    return Drop


def return_instance(_: Any) -> Any:
    """Drop: an instance."""
    return Drop()


def return_own(_: Any) -> Any:
    """Drop: an instance of a subclass."""
    return Duplicate("seen before")


def raise_it(_: Any) -> Any:
    """Drop: raised."""
    raise Drop


def raise_own(_: Any) -> Any:
    """Drop: a subclass, raised."""
    raise Duplicate("seen before")


WAYS = [return_class, return_instance, return_own, raise_it, raise_own]


@pytest.mark.parametrize("place", ["first stage", "last stage", "first task", "last task"])
@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_dropped_item_ends_there_and_well(way: Any, listens: bool, place: str) -> None:
    """Returned or raised, anywhere, watched or not: no result, no failure, no second try."""
    calls: list[int] = []

    async def task(value: int) -> Any:
        calls.append(value)
        return way(value) if value == 1 else value

    tasks = {"first task": [task, Calls()], "last task": [Calls(), task]}.get(place, [task])
    drops = Stage("Drops", 1, tasks, on_success=print)
    other = Stage("Other", 1, [Calls()])
    stages = [drops, other] if place == "first stage" else [other, drops]

    async def main() -> RunResults[Any]:
        tracker = StatusTracker(lambda _: None, lambda _: None) if listens else None
        return await Pipeline(stages, status_tracker=tracker).run(range(3))

    results = run_virtual(main)
    assert results.values() == [0, 2]
    assert [outcome.outcome for outcome in results.outcomes] == [
        "completed",
        "dropped",
        "completed",
    ]
    assert results.outcomes[1].error is None
    assert results.outcomes[1].stage == "Drops"
    assert (results.failed, results.stats.items_dropped) == ([], 1)
    assert calls == [0, 1, 2]


def test_history_says_that_an_item_was_dropped() -> None:
    """Its last event is "completed", with ``dropped`` in its metadata; its task completed."""
    recorded = record_events()

    async def task(value: int) -> Any:
        return Drop

    async def main() -> None:
        await Pipeline([Stage("A", 1, [task])], status_tracker=recorded).run([0])

    run_virtual(main)
    assert recorded.of(0) == [
        "queued @ A",
        "in_progress @ A",
        "start task 1",
        "complete task 1",
        "completed @ A",
    ]
    last = recorded.get_status(0)
    assert last is not None
    assert last.metadata == {"dropped": True}


def test_class_other_than_drop_is_a_value_like_any_other() -> None:
    """A task may return a class."""

    async def task(_: int) -> Any:
        return ValueError

    async def main() -> list[Any]:
        return (await Pipeline([Stage("A", 1, [task]), Stage("B", 1, [Calls()])]).run([0])).values()

    assert run_virtual(main) == [ValueError]


@pytest.mark.parametrize("how", ["drop", "skip", "complete"])
def test_stage_that_never_waits_lets_others_have_a_turn(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that never suspend and items that all end at once: others on the loop go on."""
    monkeypatch.setattr(turns, "HALF_TURN", 0.0)
    ticks = 0

    async def task(value: int) -> Any:
        return Drop if how == "drop" else value

    async def main() -> None:
        nonlocal ticks
        skip_if = (lambda _: True) if how == "skip" else None
        stage = Stage("A", 1, [task], queue_capacity=0, skip_if=skip_if)
        running = asyncio.create_task(Pipeline([stage]).run(range(500)))
        while not running.done():
            await asyncio.sleep(0)
            ticks += 1

    run_virtual(main)
    assert ticks > 200, "every second item, at least"


def test_item_after_a_dropped_one_begins_when_it_begins() -> None:
    """The time that a dropped item took is not counted for the one after it once more."""
    recorded = record_events()

    async def task(value: int) -> Any:
        await asyncio.sleep(1)
        return Drop

    async def main() -> Any:
        pipeline = Pipeline([Stage("A", 1, [task])], status_tracker=recorded)
        results = await pipeline.run(range(3))
        starts = [recorded.get_history(n)[1].timestamp for n in range(3)]
        return results.stats.stage_stats["A"], [start - starts[0] for start in starts]

    stage, starts = run_virtual(main)
    assert stage.busy_seconds == 3
    assert starts == pytest.approx([0, 1, 2])


def test_stream_leaves_dropped_items_out() -> None:
    """What ended without a result is not among what is streamed, in order or not."""

    async def task(value: int) -> Any:
        return Drop if value % 2 else value

    async def main(ordered: bool) -> list[Any]:
        pipeline = Pipeline([Stage("A", 2, [task])])
        return [result.value async for result in pipeline.stream(range(6), ordered=ordered)]

    assert sorted(run_virtual(lambda: main(False))) == [0, 2, 4]
    assert run_virtual(lambda: main(True)) == [0, 2, 4]


# -- feeding a later stage ------------------------------------------------------------------------


def test_task_that_feeds_a_later_stage_waits_for_room_there() -> None:
    """A task that feeds a hundred items to a stage with room for two waits for it: backpressure."""
    most = 0

    async def main() -> int:
        async def spread(value: int) -> int:
            nonlocal most
            for n in range(100):
                await pipeline.feed([n], target_stage="Slow")
                most = max(most, pipeline.get_stats().queue_sizes["Slow"])
            return value

        stages = [
            Stage("Spread", 1, [spread]),
            Stage("Between", 1, [Calls()]),
            Stage("Slow", 1, [Calls(seconds=1)], queue_capacity=2),
        ]
        pipeline = Pipeline(stages)
        return len(await pipeline.run([0]))

    assert run_virtual(main) == 101
    assert most <= 3


def test_stages_that_share_a_limit_may_feed_each_other() -> None:
    """A task with the one slot of a limit feeds a full stage that needs the slot: no hang."""
    limit = Limit(concurrency=1)

    async def main() -> int:
        async def spread(value: int) -> int:
            await pipeline.feed(range(10), target_stage="Next")
            return value

        stages = [
            Stage("Spread", 1, [spread], limits=[limit]),
            Stage("Next", 1, [Calls(seconds=1)], limits=[limit], queue_capacity=1),
        ]
        pipeline = Pipeline(stages)
        return len(await pipeline.run([0]))

    assert run_virtual(main) == 11


@pytest.mark.parametrize("buffer_size", [1, None])
def test_task_that_feeds_an_ordered_stream_does_not_wait_for_itself(
    buffer_size: int | None,
) -> None:
    """The first item's task feeds more than an ordered stream takes in at a time: no hang."""

    async def main() -> list[Any]:
        async def spread(value: int) -> int:
            if value == 0:
                await pipeline.feed(range(100, 1300), target_stage="Next")
            return value

        pipeline = Pipeline(
            [Stage("Spread", 1, [spread], queue_capacity=1), Stage("Next", 1, [Calls()])]
        )
        results = pipeline.stream(range(3), ordered=True, buffer_size=buffer_size)
        return [result.sequence_id async for result in results]

    ids = run_virtual(main)
    assert ids == list(range(1203))


# -- feeding the own stage, or an earlier one -----------------------------------------------------


@pytest.mark.parametrize("seed", [None, *range(4)])
@pytest.mark.parametrize("target", ["A", "B"])
def test_crawl_feeds_its_own_or_an_earlier_stage(target: str, seed: int | None) -> None:
    """Every item feeds two more, four deep, all channels tiny: all come out, nothing hangs."""

    async def main() -> list[int]:
        async def follow(depth: int) -> int:
            await asyncio.sleep(0.1)
            if depth < 4:
                await pipeline.feed([depth + 1, depth + 1], target_stage=target)
            return depth

        stages = [
            Stage("A", 1, [Calls()], queue_capacity=1),
            Stage("B", 2, [follow], queue_capacity=1),
            Stage("C", 1, [Calls(seconds=0.1)], queue_capacity=1),
        ]
        pipeline = Pipeline(stages)
        return sorted((await pipeline.run([0])).values())

    assert run_virtual(main, seed=seed) == sorted(n for n in range(5) for _ in range(2**n))


@pytest.mark.parametrize("target", ["A", "B"])
def test_task_that_feeds_too_much_back_is_told_so(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the extra lane the feeding task gets an error instead of waiting for itself."""
    monkeypatch.setattr(intake, "EXTRA_LANE", 50)
    fed: list[int] = []

    async def main() -> RunResults[Any]:
        async def flood(value: int) -> int:
            if value == 0:
                for n in range(1, 1000):
                    await pipeline.feed([n], target_stage=target)
                    fed.append(n)
            return value

        stages = [
            Stage("A", 1, [Calls(seconds=1)], queue_capacity=1),
            Stage("B", 1, [flood], queue_capacity=1, task_attempts=1),
        ]
        pipeline = Pipeline(stages)
        return await pipeline.run([0])

    results = run_virtual(main)
    assert [type(result.error) for result in results.failed] == [WouldDeadlockError]
    assert "stage" in str(results.failed[0].error)
    assert 50 <= len(fed) <= 52
    assert len(results) == len(fed), "what was accepted is not lost"


def test_flood_in_one_call_keeps_what_was_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand items in one `feed`: as many as fit are accepted, then the error comes."""
    monkeypatch.setattr(intake, "EXTRA_LANE", 50)

    async def main() -> RunResults[Any]:
        async def flood(value: int) -> int:
            if value == 0:
                await pipeline.feed(range(1, 1000))
            return value

        pipeline = Pipeline([Stage("A", 1, [flood], queue_capacity=1, task_attempts=1)])
        return await pipeline.run([0])

    results = run_virtual(main)
    assert [type(result.error) for result in results.failed] == [WouldDeadlockError]
    assert results.stats.items_accepted == 1 + 51
    assert len(results) == 51


def test_tasks_may_feed_after_the_input_has_ended() -> None:
    """The run waits for what its own tasks still feed, and refuses everybody else."""

    async def main() -> tuple[int, bool]:
        gate = Gate()

        async def feeds(value: int) -> int:
            await gate(value)
            if value < 3:
                await pipeline.feed([value + 1])
            return value

        pipeline = Pipeline([Stage("A", 2, [feeds])])
        running = asyncio.create_task(pipeline.run([0]))
        await asyncio.sleep(1)
        assert pipeline._runs.latest is not None
        with pytest.raises(PipelineError, match="takes no more items"):
            await pipeline._runs.latest.feed([7])
        gate.open()
        return len(await running), True

    assert run_virtual(main) == (4, True)


def test_shutdown_does_not_wait_for_a_task_that_feeds() -> None:
    """Shut down while a task waits for room for what it feeds: the task is told, nothing hangs."""
    told: list[BaseException] = []

    async def main() -> Any:
        async def spread(value: int) -> int:
            try:
                await pipeline.feed(range(100), target_stage="Slow")
            except PipelineError as error:
                told.append(error)
                raise
            return value

        stages = [
            Stage("Spread", 1, [spread], task_attempts=1),
            Stage("Slow", 1, [Calls(seconds=1)], queue_capacity=1),
        ]
        pipeline = Pipeline(stages)
        async with pipeline.open() as run:
            await run.feed([0])
            await asyncio.sleep(5.5)
            await run.shutdown()
        assert run.stats().items_in_flight == 0
        return now()

    assert run_virtual(main) == 6
    assert len(told) == 1


def test_feeding_tasks_cancelled_at_every_step_lose_nothing() -> None:
    """Cancelled before any step of a crawl: an outcome for every item that was accepted."""
    pipelines: list[Pipeline] = []

    async def main() -> None:
        async def follow(depth: int) -> Any:
            await asyncio.sleep(0.1)
            if depth < 2:
                await pipeline.feed([depth + 1, depth + 1], target_stage="A")
            await pipeline.feed([7], target_stage="C")
            return Drop if depth == 1 else depth

        stages = [
            Stage("A", 1, [Calls()], queue_capacity=1),
            Stage("B", 2, [follow], queue_capacity=1),
            Stage("C", 1, [Calls(seconds=0.1)], queue_capacity=1, pull=False),
        ]
        pipeline = Pipeline(stages)
        pipelines.append(pipeline)
        await pipeline.run([0])

    def check(step: int) -> None:
        for pipeline in pipelines:
            stats = pipeline.get_stats()
            assert stats.items_in_flight == 0
            assert len(pipeline.results.outcomes) == stats.items_accepted
        pipelines.clear()

    assert cancel_at_every_step(main, check) > 50
