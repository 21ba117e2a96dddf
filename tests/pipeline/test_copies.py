"""Pipelines, stages, limits and trackers that are copied or pickled, at any time."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from antflow import Limit, Pipeline, Stage, StageValidationError, StatusEvent, StatusTracker
from antflow.testing import MemoryStore
from tests.support import virtual

pytestmark = pytest.mark.fault

HOW: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
}


async def one_second(value: int) -> int:
    """Take a second; at the top of a module, so that it can be pickled."""
    await asyncio.sleep(1)
    return value


def ignore(event: StatusEvent) -> None:
    """A callback; the same."""


async def at(moment: str, pipeline: Pipeline[Any, Any], then: Callable[[], Any]) -> Any:
    """Call a function before, during or after a run."""
    if moment == "before":
        return then()
    running = asyncio.ensure_future(pipeline.run(range(4)))
    if moment == "after":
        await running
        return then()
    await asyncio.sleep(1.5)
    answer = then()
    assert len(await running) == 4
    return answer


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_copy_of_a_pipeline_is_the_description(moment: str, how: str) -> None:
    """A copy has no run and no results of the original, and runs by itself."""

    async def main() -> None:
        tracker = StatusTracker(on_status_change=ignore)
        stages = [Stage("A", 1, [one_second]), Stage("B", 1, [one_second])]
        pipeline = Pipeline(
            stages, status_tracker=tracker, name="one", duplicates="skip", store=MemoryStore()
        )
        copied = await at(moment, pipeline, lambda: HOW[how](pipeline))
        assert copied.results == []
        assert copied.get_stats().items_accepted == 0
        assert (copied.name, copied.stages) == ("one", pipeline.stages)
        assert [result.id for result in await copied.run([7, 8])] == [0, 1]
        assert pipeline.results == [] if moment == "before" else len(pipeline.results) == 4

    virtual(main)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_copy_of_a_tracker_is_the_history(moment: str, how: str) -> None:
    """A copy has what is history, hears nothing of the original's runs, and follows its own."""

    async def main() -> None:
        tracker = StatusTracker(on_status_change=ignore, callback_timeout=3)
        pipeline = Pipeline([Stage("A", 1, [one_second])], status_tracker=tracker)
        copied = await at(moment, pipeline, lambda: HOW[how](tracker))
        assert copied.get_tracked_ids() == ([0, 1, 2, 3] if moment == "after" else [])
        assert (copied.on_status_change, copied.callback_timeout) == (ignore, 3)
        events: list[StatusEvent] = []
        copied.on_status_change = events.append
        await pipeline.run([1])
        assert events == []
        await Pipeline([Stage("A", 1, [one_second])], status_tracker=copied).run([1])
        assert [event.status for event in events] == ["queued", "in_progress", "completed"]
        assert tracker.on_status_change is ignore

    virtual(main)


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_limit_is_never_two(moment: str) -> None:
    """A copied pipeline shares the limits of the original; what cannot share them says so."""

    async def main() -> None:
        limit = Limit(1)
        pipeline = Pipeline([Stage("A", 2, [one_second], limits=[limit])])
        for thing in (pipeline, pipeline.stages[0], limit):
            with pytest.raises(TypeError, match="a Limit cannot be pickled"):
                await at(moment, pipeline, partial(pickle.dumps, thing))
        copied = await at(moment, pipeline, lambda: copy.deepcopy(pipeline))
        assert copied.stages[0].limits[0] is limit
        await asyncio.gather(copied.run([1]), pipeline.run([1]))
        assert limit.statistics().in_use == 0

    virtual(main)


@pytest.mark.parametrize("how", HOW)
def test_what_is_one_run_cannot_be_copied(how: str) -> None:
    """A run's handle and a stream refuse to be copied, and say why."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [one_second])])
        async with pipeline.open() as run, pipeline.stream([1]) as results:
            for thing in (run, results):
                with pytest.raises(TypeError, match="cannot be copied or pickled"):
                    HOW[how](thing)

    virtual(main)


@pytest.mark.parametrize("how", HOW)
def test_copy_of_a_stage(how: str) -> None:
    """A stage's copy is equal to it, and a pipeline of its own."""
    stage = Stage("A", 3, [one_second], task_attempts=2)
    copied = HOW[how](stage)
    assert copied == stage
    with pytest.raises(StageValidationError):
        Pipeline([replace(copied, workers=0)])
    copied.validate()
