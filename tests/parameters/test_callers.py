"""Who calls, from where, and when: nothing that was accepted before is lost."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from antflow import (
    Pipeline,
    PipelineError,
    RunHandle,
    StatusTracker,
)
from antflow.testing import Gate, run_virtual

from .rows_pipeline import Items
from .rows_stage import a_stage

OTHER_LOOP = "called from another thread or event loop"

OUTSIDE: dict[str, Callable[[RunHandle], Any]] = {
    "pause": lambda run: run.pause(),
    "resume": lambda run: run.resume(),
    "cancel": lambda run: run.cancel(),
    "set_workers": lambda run: run.set_workers("Work", 5),
    "expect": lambda run: run.expect(5),
    "feed": lambda run: asyncio.run(run.feed(Items())),
    "join": lambda run: asyncio.run(run.join()),
    "shutdown": lambda run: asyncio.run(run.shutdown()),
}


@pytest.mark.parametrize("method", OUTSIDE)
def test_run_that_is_changed_from_a_thread(method: str) -> None:
    """A thread that changes a run is told how to, nothing changes, and no item is lost."""

    async def main() -> None:
        gate = Gate()
        async with Pipeline([a_stage(tasks=[gate])]).open() as run:
            await run.feed(["before"])
            with pytest.raises(PipelineError, match=OTHER_LOOP) as caught:
                await asyncio.to_thread(OUTSIDE[method], run)
            assert "call_soon_threadsafe" in str(caught.value)
            assert f"{method}()" in str(caught.value)
            assert run.snapshot().state == "running"
            gate.open()
            await run.feed(["after"])
        assert run.results.values() == ["before", "after"]
        assert len(run.snapshot().worker_states) == 1

    run_virtual(main)


@pytest.mark.parametrize("method", ["feed", "join", "shutdown"])
def test_pipeline_that_is_changed_from_a_thread(method: str) -> None:
    """The same goes for the pipeline, whose own task runs in that thread."""
    arguments = [Items()] if method == "feed" else []

    def task(value: Any) -> Any:
        asyncio.run(getattr(pipeline, method)(*arguments))

    pipeline = Pipeline([a_stage(tasks=[task], task_attempts=1)])
    results = run_virtual(pipeline.run([1, 2]))
    assert [type(result.error) for result in results.failed] == [PipelineError] * 2
    assert re.search(OTHER_LOOP, str(results.failed[0].error))


def test_run_that_is_changed_from_its_own_loop_by_a_thread() -> None:
    """What the message says to do works: the loop is asked, and waited for."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Pipeline([a_stage()]).open() as run:

            async def ask(item: Any) -> Any:
                return (await run.submit(item)).value

            def call() -> Any:
                asyncio.run_coroutine_threadsafe(run.feed(["there"]), loop).result(10)
                with pytest.raises(PipelineError, match="where f is an async function that makes"):
                    run.submit("back")
                return asyncio.run_coroutine_threadsafe(ask("back"), loop).result(10)

            assert await asyncio.to_thread(call) == "back"
        assert run.results.values() == ["there", "back"]

    asyncio.run(main())


def test_run_that_is_over_may_be_ended_from_anywhere() -> None:
    """When a run is over, ending it once more does nothing, wherever that is done."""

    async def main() -> RunHandle:
        async with Pipeline([a_stage()]).open() as run:
            await run.feed([1])
        return run

    run = run_virtual(main)
    run.cancel()
    run.pause()
    run.resume()
    run.set_workers("Work", 5)
    asyncio.run(run.join())
    assert run.results.values() == [1]


def test_pipeline_in_two_loops_at_once() -> None:
    """Two threads with an event loop each run one pipeline, each with its own results."""
    pipeline = Pipeline([a_stage(workers=3)])
    values: dict[int, list[int]] = {}

    def run(first: int) -> None:
        values[first] = asyncio.run(pipeline.run(range(first, first + 50))).values()

    threads = [threading.Thread(target=run, args=(first,)) for first in (0, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == {0: list(range(50)), 1000: list(range(1000, 1050))}


def test_loop_inside_a_loop() -> None:
    """``asyncio.run`` inside a task is Python's error, and that of the one item."""

    async def nested(value: int) -> Any:
        if value == 1:
            coroutine = pipeline.run([5])
            try:
                return asyncio.run(coroutine)
            finally:
                coroutine.close()
        return value

    pipeline = Pipeline([a_stage(tasks=[nested], task_attempts=1)])
    results = run_virtual(pipeline.run([0, 1, 2]))
    assert results.values() == [0, 2]
    assert "running event loop" in str(results.failed[0].error)


def test_pipeline_without_a_loop() -> None:
    """A pipeline is made, and asked, where no event loop runs."""
    pipeline = Pipeline([a_stage()], status_tracker=StatusTracker())
    assert pipeline.get_stats().items_accepted == 0
    assert pipeline.results == []
    assert pipeline.get_error_summary().total_failed == 0
    assert asyncio.run(pipeline.run([1])).values() == [1]
    assert pipeline.get_stats().items_processed == 1


@pytest.mark.parametrize("end", ["shutdown", "join"])
def test_end_that_comes_twice_and_at_once(end: str) -> None:
    """Ends that come during the start, twice, or from a callback are one end."""

    async def main() -> None:
        async def again(*_: Any) -> None:
            await getattr(pipeline, end)()

        pipeline = Pipeline([a_stage(on_success=again)])
        await asyncio.gather(pipeline.start(), getattr(pipeline, end)(), getattr(pipeline, end)())
        await getattr(pipeline, end)()
        results = await pipeline.run([1])
        assert results.stats.items_in_flight == 0
        assert len(results.outcomes) == 1

    run_virtual(main)


@pytest.mark.parametrize("limit", [1, 3, 0.5, 1.0])
def test_max_failures(limit: float) -> None:
    """Intake stops when so many items have failed, or such a share of at least twenty."""

    async def fail(value: Any) -> Any:
        raise ValueError("no")

    async def main() -> None:
        stage = a_stage(tasks=[fail], task_attempts=1, queue_capacity=1)
        pipeline = Pipeline([stage])
        with pytest.raises(PipelineError, match="max_failures"):
            await pipeline.run(range(1000), max_failures=limit)
        accepted = 20 if isinstance(limit, float) else limit
        assert accepted <= pipeline.get_stats().items_accepted <= accepted + 3

    run_virtual(main)
