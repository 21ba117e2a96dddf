"""Cancelled at every step, a run, stream or feed loses nothing and leaves nothing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from antflow import Pipeline, RunResults, Stage, StatusTracker
from antflow.testing import FailTimes, cancel_at_every_step, run_virtual
from tests.support import assert_balanced, lasting, virtual

pytestmark = pytest.mark.fault

all_steps = pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.slow)])
"""Daily, a pipeline with everything in it is cancelled at each third step."""


def run_all() -> Pipeline:
    """A pipeline with everything in it."""
    stages = [
        Stage("A", 2, [lasting(1), FailTimes(1)], task_wait_seconds=0.3, queue_capacity=2),
        Stage("B", 1, [FailTimes(1)], "per_stage", stage_wait_seconds=0.1, queue_capacity=1),
        Stage("C", 2, [lasting(0.5)], on_success=lasting_callback, skip_if=is_four),
    ]
    tracker = StatusTracker(on_status_change=lasting(0.01), on_task_retry=lasting(0.01))
    return Pipeline(stages, status_tracker=tracker)


async def lasting_callback(*_: Any) -> None:
    await asyncio.sleep(0.01)


async def is_four(value: int) -> bool:
    await asyncio.sleep(0)
    return value == 4


class SlowDisplay:
    """A display whose methods all take a moment."""

    def __init__(self) -> None:
        self.finished = 0
        self.started = 0

    async def on_start(self, *_: Any) -> None:
        self.started += 1
        await asyncio.sleep(0.1)

    async def on_update(self, *_: Any) -> None:
        await asyncio.sleep(0.1)

    async def on_finish(self, *_: Any) -> None:
        self.finished += 1
        await asyncio.sleep(0.1)


@all_steps
@pytest.mark.parametrize("seed", [None, 1])
def test_run_cancelled_at_every_step(seed: int | None, stride: int) -> None:
    """Wherever a run is cancelled, nothing is left and the books balance."""
    pipelines: list[Pipeline] = []

    async def main() -> None:
        pipelines.append(run_all())
        await pipelines[-1].run(range(7))

    def check(step: int) -> None:
        for pipeline in pipelines:
            assert_balanced(pipeline.get_stats())
        pipelines.clear()

    assert stride * cancel_at_every_step(main, check, seed=seed, stride=stride) > 100


def test_run_with_a_display_cancelled_at_every_step() -> None:
    """Wherever a run with a display is cancelled, the display is finished once."""
    displays: list[SlowDisplay] = []

    async def main() -> None:
        displays.append(SlowDisplay())
        stage = Stage("Work", 1, [lasting(1)])
        await Pipeline([stage]).run(range(2), custom_dashboard=displays[-1])

    def check(step: int) -> None:
        for display in displays[-1:]:
            assert display.finished == display.started

    assert cancel_at_every_step(main, check) > 20


@all_steps
def test_stream_cancelled_at_every_step(stride: int) -> None:
    """Wherever the reader of a stream is cancelled, nothing is left and the books balance."""
    pipelines: list[Pipeline] = []

    async def main() -> None:
        pipelines.append(run_all())
        async with aclosing(pipelines[-1].stream(range(7), buffer_size=0)) as stream:
            async for _ in stream:
                await asyncio.sleep(0.2)

    def check(step: int) -> None:
        for pipeline in pipelines:
            assert_balanced(pipeline.get_stats())
        pipelines.clear()

    assert stride * cancel_at_every_step(main, check, stride=stride) > 100


@all_steps
@pytest.mark.parametrize("end", ["join", "shutdown"])
def test_feed_and_end_cancelled_at_every_step(end: str, stride: int) -> None:
    """Wherever a program that feeds by hand is cancelled, nothing is left and the books balance."""
    pipelines: list[Pipeline] = []

    async def main() -> None:
        pipelines.append(run_all())
        async with pipelines[-1]:
            await pipelines[-1].feed(range(7))
            await getattr(pipelines[-1], end)()

    def check(step: int) -> None:
        for pipeline in pipelines:
            assert_balanced(pipeline.get_stats())
        pipelines.clear()

    assert stride * cancel_at_every_step(main, check, stride=stride) > 50


@all_steps
def test_open_cancelled_at_every_step(stride: int) -> None:
    """Wherever the body of ``open`` is cancelled, nothing is left and the books balance."""
    pipelines: list[Pipeline] = []

    async def main() -> None:
        pipelines.append(run_all())
        async with pipelines[-1].open() as run:
            await run.feed(range(7))

    def check(step: int) -> None:
        for pipeline in pipelines:
            assert_balanced(pipeline.get_stats())
        pipelines.clear()

    assert stride * cancel_at_every_step(main, check, stride=stride) > 100


def test_run_of_an_async_source_cancelled_at_every_step() -> None:
    """Wherever a run over an async source is cancelled, the source is closed once."""
    closed: list[int] = []

    async def source() -> AsyncIterator[int]:
        closed.append(0)
        try:
            for number in range(6):
                await asyncio.sleep(0.1)
                yield number
        finally:
            closed[-1] += 1
            await asyncio.sleep(0.1)

    async def main() -> None:
        stage = Stage("Work", 1, [lasting(0.3)], queue_capacity=1)
        await Pipeline([stage]).run(source())

    assert cancel_at_every_step(main) > 50
    assert set(closed) == {1}


def test_tasks_are_held() -> None:
    """Collecting garbage at every step of the event loop collects nothing that still works."""

    async def main() -> None:
        results = await run_all().run(range(3), custom_dashboard=SlowDisplay())
        assert results.values() == [0, 1, 2]

    virtual(main, on_step=lambda step: gc.collect(0 if step % 10 else 2))


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("count", [1, 2])
def test_item_whose_last_task_is_done_is_completed_although_its_tracker_still_listens(
    batch: int | None, count: int
) -> None:
    """Cancelled while ``on_task_complete`` is awaited: at once, and finished work stays finished.

    If that was not the item's last task, it is cancelled.
    """
    began: list[str] = []

    async def first(value: Any) -> Any:
        began.append("first")
        return value

    async def second(value: Any) -> Any:
        began.append("second")
        return value

    async def main() -> tuple[RunResults[Any], float]:
        tracker = StatusTracker(on_task_complete=lasting(20))
        stage = Stage("A", 1, [first, second][:count], batch=batch)
        async with Pipeline([stage], status_tracker=tracker).open() as run:
            await run.feed(range(3))
            await asyncio.sleep(1)
            run.cancel()
        return run.results, asyncio.get_running_loop().time()

    results, ended = run_virtual(main)
    assert ended < 2
    assert began == ["first"]
    done = 0 if count == 2 else batch or 1
    assert [result.outcome for result in results.outcomes] == (
        ["completed"] * done + ["cancelled"] * (3 - done)
    )
