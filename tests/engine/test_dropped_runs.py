"""A run whose user has forgotten it: it is stopped in order, and Python has nothing to say."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from antflow import InternalError, Pipeline, Stage
from antflow._engine.intake import Intake
from antflow.observers import Observer, RunEnd
from antflow.testing import run_virtual
from tests.engine.blocking import Log


class World:
    """The resources that a run uses, and what its observer is told."""

    def __init__(self) -> None:
        self.are_open = 0
        self.endings: list[str] = []

    @asynccontextmanager
    async def resource(self) -> AsyncIterator[int]:
        self.are_open += 1
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            self.are_open -= 1

    def pipeline(self, task: Callable[..., Any] | None = None) -> Pipeline[Any, Any]:
        stage = Stage("A", 2, [task or _same], resources={"resource": self.resource})
        return Pipeline([stage], observers=[_Watching(self)])


class _Watching(Observer):
    def __init__(self, world: World) -> None:
        self._world = world

    def closed(self, end: RunEnd) -> None:
        self._world.endings.append(end.how)


async def _same(value: int, resource: int) -> int:
    return value


async def started(world: World) -> None:
    pipeline = world.pipeline()
    await pipeline.start()
    await pipeline.feed(range(3))
    await asyncio.sleep(1)


async def in_a_cycle(world: World) -> None:
    pipeline = world.pipeline()
    await pipeline.start()
    await pipeline.feed(range(3))
    await asyncio.sleep(1)
    cycle: list[Any] = [pipeline]
    cycle.append(cycle)


async def never_fed(world: World) -> None:
    await world.pipeline().start()
    await asyncio.sleep(1)


async def opened(world: World) -> None:
    cycle: list[Any] = [world.pipeline().open()]
    cycle.append(cycle)
    run = await cycle[0].__aenter__()
    await run.feed(range(3))
    await asyncio.sleep(1)


async def streamed(world: World) -> None:
    cycle: list[Any] = [world.pipeline().stream(range(100), buffer_size=1)]
    cycle.append(cycle)
    await anext(cycle[0])
    await asyncio.sleep(1)


WAYS = [started, in_a_cycle, never_fed, opened, streamed]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Python tells of when it cannot raise it."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: seen.append(each.exc_value))
    return seen


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_run_that_is_dropped_while_idle_is_stopped(
    way: Callable[[World], Awaitable[None]], told: list[Any], caplog: Log
) -> None:
    """Its resources are left, its observers hear of the end, and no task is destroyed."""
    world = World()

    async def main() -> None:
        await way(world)
        gc.collect()
        await asyncio.sleep(1)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert world.are_open == 0
        assert world.endings == ["cancelled"]

    run_virtual(main)
    assert told == []
    assert caplog.records == []


def test_run_that_is_dropped_with_items_in_flight(told: list[Any], caplog: Log) -> None:
    """They are cancelled, which is logged with the way to wait for them."""
    world = World()
    cancelled: list[int] = []

    async def slow(value: int, resource: int) -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.append(value)
            raise

    async def forgets() -> None:
        pipeline = world.pipeline(slow)
        await pipeline.start()
        await pipeline.feed(range(3))
        await asyncio.sleep(1)

    async def main() -> None:
        await forgets()
        gc.collect()
        await asyncio.sleep(1)
        assert sorted(cancelled) == [0, 1]
        assert (world.are_open, world.endings) == (0, ["cancelled"])

    run_virtual(main)
    assert told == []
    [record] = caplog.records
    assert "cancelled with 3 items in flight" in record.getMessage()


def test_run_whose_tasks_refer_to_its_pipeline(told: list[Any], caplog: Log) -> None:
    """An object that has the pipeline, and whose methods are its tasks: it ends with its loop."""
    world = World()

    class Service:
        def __init__(self) -> None:
            self.pipeline = world.pipeline(self.work)

        async def work(self, value: int, resource: int) -> int:
            return value

    async def forgets() -> None:
        service = Service()
        await service.pipeline.start()
        await service.pipeline.feed(range(3))
        await asyncio.sleep(0.01)

    async def main() -> None:
        await forgets()
        gc.collect()
        await asyncio.sleep(0.01)
        assert world.are_open == 1

    asyncio.run(main())
    assert (world.are_open, world.endings) == (0, ["cancelled"])
    assert told == []
    assert caplog.records == []


def test_run_that_is_dropped_in_another_thread(told: list[Any], caplog: Log) -> None:
    """Its own event loop stops it."""
    world = World()

    async def main() -> None:
        pipelines = [world.pipeline()]
        await pipelines[0].start()
        await pipelines[0].feed(range(3))
        await asyncio.to_thread(pipelines.clear)
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)
        assert (world.are_open, world.endings) == (0, ["cancelled"])

    asyncio.run(main())
    assert told == []


def test_pipeline_that_is_dropped_when_its_run_is_over(told: list[Any], caplog: Log) -> None:
    """Nothing is left to stop, whether its event loop is closed or not."""
    world = World()

    async def main() -> Pipeline[Any, Any]:
        pipeline = world.pipeline()
        await pipeline.start()
        await pipeline.feed(range(3))
        await pipeline.join()
        return pipeline

    async def drops() -> None:
        await main()
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(drops())
    pipeline = asyncio.run(main())
    del pipeline
    gc.collect()
    assert world.endings == ["finished", "finished"]
    assert told == []
    assert caplog.records == []


def test_run_that_another_one_has_replaced_goes_on(caplog: Log) -> None:
    """A run that was begun with `start` is not dropped when the pipeline begins another one."""
    world = World()

    async def main() -> None:
        pipeline = world.pipeline()
        await pipeline.start()
        await pipeline.feed([1])
        await pipeline.run([2])
        async with pipeline.open() as run:
            await run.feed([3])
            await pipeline.run([4])
            gc.collect()
            await asyncio.sleep(1)
        await pipeline.feed([5])
        await pipeline.join()
        assert world.endings == ["finished"] * 4

    run_virtual(main)
    assert caplog.records == []


def test_run_whose_end_crashes_is_kept_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer that keeps a run goes, also when a fault of the library spoils the end."""

    def broken(self: Intake) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Intake, "seal", broken)

    async def main() -> list[Any]:
        with pytest.raises(InternalError, match="a bug"):
            await Pipeline([Stage("A", 1, [str])]).run(range(3))
        loop: Any = asyncio.get_running_loop()
        return [timer for *_, timer in loop._timers if not timer.cancelled()]

    assert run_virtual(main) == []
