"""Idle workers keep nothing of their last item: the next one may be long in coming."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Coroutine, Iterator
from contextvars import Context, copy_context
from typing import Any

import pytest

from antflow import AsyncExecutor, Drop, Pipeline, Stage, in_thread, set_task_status


class Thing:
    """Something that can be referred to weakly."""

    def __init__(self, seen: list[weakref.ref[Thing]] | None = None) -> None:
        if seen is not None:
            seen.append(weakref.ref(self))

    def __call__(self, value: Any) -> Any:
        return value


def renewed(value: Thing) -> Thing:
    """A task for a child process."""
    return Thing()


def all_renewed(values: list[Thing]) -> list[Thing]:
    """A task for a child process, for batches."""
    return [Thing() for _ in values]


async def _dead(things: list[weakref.ref[Thing]]) -> bool:
    """Whether they are gone, as soon as the threads have come to let go of them."""
    for _ in range(500):
        gc.collect()
        if not any(thing() for thing in things):
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize(
    "executor", ["thread", "inline", pytest.param("process", marks=pytest.mark.process)]
)
@pytest.mark.parametrize("batch", [None, 2])
def test_idle_worker_keeps_no_item(executor: Any, batch: int | None) -> None:
    """When an item is through and its result was dropped, neither value nor result is kept."""
    seen: list[weakref.ref[Thing]] = []

    def renew(value: Any) -> Any:
        set_task_status("renewing")
        if batch is not None:
            return [Thing(seen) for _ in value]
        return Thing(seen)

    in_process: Any = renewed if batch is None else all_renewed
    task = in_process if executor == "process" else renew
    stages = [Stage("A", 2, [task], executor=executor, batch=batch)]

    async def main() -> None:
        async with Pipeline(stages, collect_results=False).open() as run:
            await run.feed(Thing(seen) for _ in range(6))
            while run.snapshot().pipeline_stats.items_in_flight:
                await asyncio.sleep(0.001)
            assert len(seen) >= 6
            assert await _dead(seen)

    asyncio.run(main())


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, Drop])
def test_idle_worker_keeps_no_item_that_failed(error: type[BaseException]) -> None:
    """However the last item ended, its value and its error are gone."""
    seen: list[weakref.ref[Thing]] = []

    def fail(value: Thing) -> None:
        raise error

    async def main() -> None:
        stage = Stage("A", 2, [fail], task_attempts=1)
        async with Pipeline([stage], collect_results=False).open() as run:
            await run.feed(Thing(seen) for _ in range(6))
            while run.snapshot().pipeline_stats.items_in_flight:
                await asyncio.sleep(0.001)
            assert await _dead(seen)

    asyncio.run(main())


def test_executor_keeps_nothing_of_a_call() -> None:
    """Neither a function nor its argument or its result, once its future is dropped."""
    seen: list[weakref.ref[Thing]] = []

    def renew(value: Thing) -> Thing:
        return Thing(seen)

    async def main() -> None:
        async with AsyncExecutor(2) as executor:
            for _ in range(5):
                await executor.submit(renew, Thing(seen))
                await executor.submit(Thing(seen), 1)
            assert len(seen) == 15
            assert await _dead(seen)

    asyncio.run(main())


@pytest.mark.parametrize("how", ["task", "call_later"])
def test_rounds_that_begin_the_next_are_not_kept(how: str) -> None:
    """Where a task of each run begins the next, through a task or a timer, runs do not pile up."""
    seen: list[weakref.ref[Thing]] = []
    kept: list[int] = []
    under_way: set[asyncio.Task[None]] = set()

    async def main() -> None:
        ended = asyncio.Event()

        async def play(number: int) -> None:
            async def work(_: int) -> Thing:
                if number == 10:
                    gc.collect()
                    kept.append(sum(thing() is not None for thing in seen))
                    ended.set()
                elif how == "task":
                    begin(play_later(number + 1))
                else:
                    loop = asyncio.get_running_loop()
                    loop.call_later(0.01, lambda: begin(play(number + 1)))
                return Thing(seen)

            await Pipeline([Stage("A", 1, [work])]).run([number])

        async def play_later(number: int) -> None:
            await asyncio.sleep(0.01)
            await play(number)

        def begin(play: Coroutine[Any, Any, None]) -> None:
            task = asyncio.create_task(play)
            under_way.add(task)
            task.add_done_callback(under_way.discard)

        await play(1)
        await ended.wait()
        await asyncio.gather(*under_way)

    asyncio.run(main())
    assert len(seen) == 10
    assert kept[0] <= 2


@pytest.mark.parametrize("how", ["run", "stream", "ordered", "open", "retry_failed"])
def test_context_of_a_run_that_is_over_keeps_neither_items_nor_results(how: str) -> None:
    """A client's timer or task, begun in a task of a run, does not keep what went through it."""
    seen: list[weakref.ref[Thing]] = []
    contexts: list[Context] = []

    async def work(_: Thing) -> Thing:
        contexts.append(copy_context())
        if how == "retry_failed" and len(contexts) <= 6:
            raise ValueError
        return Thing(seen)

    async def go_through() -> None:
        pipeline = Pipeline([Stage("A", 2, [work], task_attempts=1)])
        things = [Thing(seen) for _ in range(6)]
        if how == "open":
            async with pipeline.open() as run:
                await run.feed(things)
        elif how in ("run", "retry_failed"):
            results = await pipeline.run(things)
            await pipeline.run([], retry_failed=results.failed)
        else:
            async for _ in pipeline.stream(things, ordered=how == "ordered"):
                pass

    async def main() -> None:
        await go_through()
        del contexts[:-1]
        assert len(seen) == 12
        assert await _dead(seen)

    asyncio.run(main())


def test_pipeline_does_not_keep_the_items_of_a_stream() -> None:
    """When a stream is over, its pipeline keeps neither the list it was made of nor the results."""
    seen: list[weakref.ref[Thing]] = []

    async def read(pipeline: Pipeline[Any]) -> None:
        async for _ in pipeline.stream([Thing(seen) for _ in range(6)]):
            pass

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [str])])
        await read(pipeline)
        assert len(seen) == 6
        assert await _dead(seen)
        assert pipeline.get_stats().items_processed == 6

    asyncio.run(main())


def test_source_in_a_thread_keeps_no_item() -> None:
    """While the thread of a source waits for the next item, it does not keep the one before."""
    seen: list[weakref.ref[Thing]] = []
    more = threading.Event()

    def things() -> Iterator[Thing]:
        for _ in range(3):
            yield Thing(seen)
        more.wait(120)

    async def main() -> None:
        running = asyncio.create_task(
            Pipeline([Stage("A", 2, [str])], collect_results=False).run(in_thread(things))
        )
        try:
            while len(seen) < 3:
                await asyncio.sleep(0.001)
            assert await _dead(seen)
        finally:
            more.set()
            await running

    asyncio.run(main())


@pytest.mark.parametrize("how", ["run", "stream"])
@pytest.mark.parametrize("ending", ["timeout", "source"])
def test_pipeline_keeps_nothing_of_whoever_its_error_came_to(how: str, ending: str) -> None:
    """The error that a run ended with is not kept, nor are the variables of those who saw it."""
    seen: list[weakref.ref[Thing]] = []

    def broken() -> Iterator[Thing]:
        yield Thing(seen)
        raise OSError

    async def call(pipeline: Pipeline[Any], body: Thing) -> None:
        items: Any = [1] if ending == "timeout" else broken()
        timeout = 0.01 if ending == "timeout" else None
        try:
            if how == "run":
                await pipeline.run(items, timeout=timeout)
            async for _ in pipeline.stream(items, timeout=timeout):
                pass
        except OSError:  # a TimeoutError is one
            return
        raise AssertionError(f"nothing was raised for {body}")

    async def wait(_: Any) -> None:
        await asyncio.sleep(3600 if ending == "timeout" else 0)

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 2, [wait])], collect_results=False)
        await call(pipeline, Thing(seen))
        assert seen
        assert await _dead(seen)

    asyncio.run(main())
