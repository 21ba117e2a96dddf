"""No item is lost: in runs side by side, through callbacks, whatever changes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Lock
from typing import Any

import pytest

from antflow import (
    Limit,
    Pipeline,
    PipelineError,
    PipelineResult,
    Stage,
    StatusEvent,
    StatusTracker,
)
from tests.support import lasting, never, now, raising, same, virtual

pytestmark = pytest.mark.fault


# At the same time


def test_runs_at_the_same_time_have_their_own_results() -> None:
    """Two runs of one pipeline at once each have their own results."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [lasting(1)])])
        first, second = await asyncio.gather(pipeline.run(["abcde"]), pipeline.run([1, 2]))
        assert first.values() == ["abcde"]
        assert second.values() == [1, 2]
        assert (first.stats.items_accepted, second.stats.items_accepted) == (1, 2)

    virtual(main)


def test_streams_at_the_same_time_have_their_own_results() -> None:
    """Two streams of one pipeline, read in turn, each have their own results."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [lasting(1)])])
        first, second = (
            pipeline.stream(items, buffer_size=0) for items in (range(50), range(100, 150))
        )
        for number in range(50):
            assert (await anext(first)).value == number
            assert (await anext(second)).value == 100 + number
        assert [result async for result in first] == []
        assert [result async for result in second] == []

    virtual(main)


def start_a_run(pipeline: Pipeline) -> Any:
    return pipeline.run([1])


async def start_a_stream(pipeline: Pipeline) -> Any:
    return [result async for result in pipeline.stream([1])]


def test_open_from_inside_its_own_stage_is_refused() -> None:
    """A task cannot open a second run of the pipeline that it is in."""

    async def main() -> None:
        async def work(value: int) -> int:
            with pytest.raises(PipelineError, match="from inside its own run"):
                async with pipeline.open():
                    pass
            return value

        pipeline = Pipeline([Stage("Work", 1, [work])])
        assert (await pipeline.run([1])).values() == [1]

    virtual(main)


@pytest.mark.parametrize("begin", [start_a_run, start_a_stream])
def test_run_from_inside_its_own_task_fails_that_item(begin: Callable[[Pipeline], Any]) -> None:
    """Running a pipeline from one of its own tasks fails that item at once."""

    async def main() -> None:
        async def work(value: int) -> Any:
            return await begin(pipeline)

        pipeline = Pipeline([Stage("Work", 1, [work], task_attempts=1)])
        results = await pipeline.run([1, 2])
        assert results.summary.errors_by_type == {"PipelineError": 2}
        assert now() == 0

    virtual(main)


# Callbacks that hold things up


def test_callback_that_never_returns_is_given_up() -> None:
    """A callback that hangs is given up after its time limit and counted; no item is lost by it."""
    tracker = StatusTracker(on_status_change=never, callback_timeout=5)

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [same])], status_tracker=tracker)
        assert (await pipeline.run(range(4))).values() == [0, 1, 2, 3]

    virtual(main)
    assert tracker.callback_errors == 12


def test_callback_that_raises_cancelled_error_changes_nothing() -> None:
    """A tracker's callback that raises CancelledError changes nothing."""

    async def on_status_change(event: StatusEvent) -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        tracker = StatusTracker(on_status_change)
        pipeline = Pipeline([Stage("Work", 1, [same])], status_tracker=tracker)
        assert (await pipeline.run(range(5))).values() == [0, 1, 2, 3, 4]
        assert tracker.callback_errors == 15
        assert tracker.get_stats()["completed"] == 5

    virtual(main)


# Ids and stages


def test_stages_when_the_list_is_changed_afterwards() -> None:
    """A pipeline has the stages it was made with, whatever becomes of the lists."""
    tasks: list[Any] = [same]
    stages = [Stage("A", 1, tasks), Stage("B", 1, [same])]
    pipeline = Pipeline(stages)
    tasks.append(raising(ValueError("later")))
    stages.append(Stage("C", 1, [raising(ValueError("later"))]))

    async def main() -> list[PipelineResult[Any]]:
        return await pipeline.run(range(30))

    assert len(virtual(main)) == 30
    assert [stage.name for stage in pipeline.stages] == ["A", "B"]


def test_stages_when_their_options_are_changed_afterwards() -> None:
    """A pipeline keeps what its stages were made with: no list or dict of theirs is shared."""

    async def with_lock(value: Any, lock: Any) -> Any:
        return value

    options: dict[str, Any] = {
        "tasks": [with_lock],
        "limits": [Limit(concurrency=1)],
        "resources": {"lock": Lock},
        "hold_on": {ValueError: 1.0},
        "task_concurrency_limits": {"with_lock": 1},
    }
    stage = Stage("Work", 1, **options)
    pipeline = Pipeline([stage])
    for value in options.values():
        value.clear()
    kept = pipeline.stages[0]
    assert [len(getattr(kept, name)) for name in options] == [1] * len(options)


def test_stages_when_the_answer_is_changed() -> None:
    """The list that `Pipeline.stages` gives is a copy."""
    pipeline = Pipeline([Stage("A", 1, [same])])
    pipeline.stages.clear()
    assert len(pipeline.stages) == 1
