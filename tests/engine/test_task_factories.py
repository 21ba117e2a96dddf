"""Event loops whose tasks are made in a way of their own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from antflow import AsyncExecutor, Limit, Pipeline, Stage
from antflow.testing import FailTimes, run_virtual


def old(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A factory of the form that all had before Python 3.11: no keyword arguments."""
    return asyncio.Task(work, loop=loop)


def new(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """A factory of the form they have now."""
    return asyncio.Task(work, loop=loop, **options)


FACTORIES: dict[str, Any] = {"old": old, "new": new}
if sys.version_info >= (3, 12):
    FACTORIES["eager"] = asyncio.eager_task_factory


def with_factory(name: str, main: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run with a task factory."""

    async def run() -> None:
        asyncio.get_running_loop().set_task_factory(FACTORIES[name])
        await main()

    run_virtual(run)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("isolate_context", [False, True])
def test_pipeline_under_a_task_factory(factory: str, isolate_context: bool) -> None:
    """Every way to run works, with every kind of task of the run: and nothing is left."""

    async def double(value: int) -> int:
        return 2 * value

    async def source() -> Any:
        for number in range(10):
            yield number

    async def main() -> None:
        limit = Limit(2)
        stages = [
            Stage("A", 3, [FailTimes(1), double], task_wait_seconds=1, limits=[limit]),
            Stage("B", 2, [double], isolate_context=isolate_context),
        ]
        pipeline = Pipeline(stages)
        expected = [4 * number for number in range(10)]
        assert (await pipeline.run(range(10))).values() == expected
        assert (await pipeline.run(source(), timeout=100)).values() == expected
        async with pipeline.stream(range(10)) as results:
            assert sorted([result.value async for result in results]) == expected
        async with pipeline.open() as run:
            await run.feed(range(10))
        assert run.results.values() == expected
        async with AsyncExecutor(2) as executor:
            assert await executor.map(double, range(3)) == [0, 2, 4]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert limit.statistics().in_use == 0

    with_factory(factory, main)


def test_task_factory_that_raises() -> None:
    """What the factory raises comes out, and the limits are free for another event loop."""
    limit = Limit(2)

    async def same(value: int) -> int:
        return value

    def broken(loop: Any, work: Any, **options: Any) -> Any:
        raise ZeroDivisionError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(broken)
        pipeline = Pipeline([Stage("A", 1, [same], limits=[limit])])
        with pytest.raises(ZeroDivisionError):
            await pipeline.run([1])
        with pytest.raises(ZeroDivisionError):
            AsyncExecutor().submit(same, 1)
        loop.set_task_factory(None)

        def elsewhere() -> list[int]:
            return asyncio.run(Pipeline([Stage("A", 1, [same], limits=[limit])]).run([1])).values()

        assert await asyncio.to_thread(elsewhere) == [1]

    asyncio.run(main())
