"""How many threads plain functions take, and that none is left when a run is over."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from antflow import AsyncExecutor, Limit, Pipeline, Stage
from antflow.testing import run_virtual

OURS = ("antflow-", "antflow_", "AsyncExecutor")


class Counted:
    """The names of the threads that plain functions were given since it was made."""

    def __init__(self) -> None:
        self._before = {*threading.enumerate()}
        self.most = 0

    def now(self) -> set[str]:
        """Of those that are there. One that is just ending counts with its successor as one."""
        return {
            thread.name
            for thread in threading.enumerate()
            if thread not in self._before and thread.name.startswith(OURS)
        }

    def task(self, value: Any) -> Any:
        """A quick plain function that counts."""
        self.most = max(self.most, len(self.now()))
        return value

    def soon(self, count: int) -> bool:
        """Whether there are this many soon, while the event loop stands still."""
        deadline = time.monotonic() + 10
        while len(self.now()) != count and time.monotonic() < deadline:
            time.sleep(0.001)
        return len(self.now()) == count


@pytest.fixture
def counted() -> Counted:
    return Counted()


# -- how many -------------------------------------------------------------------------------------


@contextmanager
def nothing() -> Iterator[str]:
    yield "resource"


def shapes(counted: Counted) -> dict[str, tuple[list[Stage], int, int]]:
    """Stages, how many items go through them, and how many threads they may have."""

    def with_resource(value: int, thing: str) -> int:
        return int(counted.task(value))

    def several(value: int) -> Iterator[int]:
        for number in range(3):
            yield counted.task(number)

    def batch(values: list[int]) -> list[int]:
        return [counted.task(value) for value in values]

    def cost(value: int) -> float:
        return float(bool(counted.task(1)))

    async def nothing_to_do(value: int) -> int:
        return value

    return {
        "quick": ([Stage("A", 4, [counted.task])], 20_000, 4),
        "two stages": ([Stage("A", 3, [counted.task]), Stage("B", 2, [counted.task])], 3000, 5),
        "two tasks": ([Stage("A", 4, [counted.task, counted.task])], 2000, 4),
        "batches": ([Stage("A", 4, [batch], batch=2)], 4000, 4),
        "resources": (
            [Stage("A", 4, [with_resource], resources={"thing": nothing})],
            3000,
            4,
        ),
        "resources of a worker": (
            [
                Stage(
                    "A",
                    4,
                    [with_resource],
                    resources={"thing": nothing},
                    resource_scope="worker",
                )
            ],
            3000,
            4,
        ),
        "expand": ([Stage("A", 4, [several], expand=True)], 1000, 4),
        "skip_if and cost": (
            [
                Stage(
                    "A",
                    4,
                    [nothing_to_do],
                    skip_if=counted.task,
                    limits=[Limit(rate=1e9, cost=cost)],
                )
            ],
            2000,
            0,
        ),
    }


@pytest.mark.parametrize("shape", shapes(Counted()))
def test_threads_are_never_more_than_workers(shape: str, counted: Counted) -> None:
    """However quick the functions are, a stage has one thread for each of its workers at most."""
    stages, items, most = shapes(counted)[shape]
    results = asyncio.run(Pipeline(stages).run(range(items)))
    assert not results.failed
    assert counted.most <= most
    assert counted.soon(0)


def test_threads_follow_the_number_of_workers(counted: Counted) -> None:
    """More workers, more threads; those of workers that leave end while the run goes on."""
    meet: list[threading.Barrier] = []

    def together(value: int) -> int:
        meet[-1].wait(10)
        return int(counted.task(value))

    async def main() -> None:
        async with Pipeline([Stage("A", 2, [together])]).open() as run:
            for workers in (2, 8, 3, 5, 1):
                run.set_workers("A", workers)
                for _ in range(10):  # those that are to leave do so
                    await asyncio.sleep(0)
                assert counted.soon(min(workers, len(counted.now())))
                meet.append(threading.Barrier(workers))
                counted.most = 0
                await run.feed(range(4 * workers))
                while run.snapshot().pipeline_stats.items_in_flight:
                    await asyncio.sleep(0.001)
                assert counted.most == workers

    asyncio.run(main())
    assert counted.soon(0)


def test_threads_of_an_executor_are_never_more_than_its_workers(counted: Counted) -> None:
    """One for each call at work at most, and none when it is shut down."""

    async def main() -> None:
        async with AsyncExecutor(4) as executor:
            assert await executor.map(counted.task, range(5000)) == [*range(5000)]
        assert counted.soon(0)

    asyncio.run(main())
    assert 1 <= counted.most <= 4


def test_cancelled_function_of_an_executor_keeps_its_worker(counted: Counted) -> None:
    """Until it has ended: no call is put behind it, and none begins in its place."""
    begun, end = threading.Event(), threading.Event()
    ended: list[bool] = []

    def block() -> None:
        begun.set()
        ended.append(end.wait(10))

    async def main() -> None:
        async with AsyncExecutor(2) as executor:
            blocked = executor.submit(block)
            while not begun.is_set():
                await asyncio.sleep(0)
            assert blocked.cancel()
            assert await executor.map(counted.task, range(10)) == [*range(10)]
            assert not ended
            waits = [executor.submit(end.is_set), executor.submit(end.wait, 0.1)]
            assert not await waits[0]
            end.set()
            await executor.wait(waits)

    run_virtual(main)
    assert counted.most == 2
    assert counted.soon(0)


# -- none is left ---------------------------------------------------------------------------------


async def ends_well(stage: Stage) -> None:
    await Pipeline([stage]).run(range(20))


async def fails(stage: Stage) -> None:
    def source() -> Iterator[int]:
        yield from range(20)
        raise LookupError

    with pytest.raises(LookupError):
        await Pipeline([stage]).run(source())


async def is_cancelled(stage: Stage) -> None:
    running = asyncio.create_task(Pipeline([stage]).run(range(100_000)))
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def is_left(stage: Stage) -> None:
    async with aclosing(Pipeline([stage]).stream(range(100_000))) as results:
        async for _ in results:
            break


async def is_late(stage: Stage) -> None:
    with pytest.raises(TimeoutError):
        await Pipeline([stage]).run(range(100_000), timeout=0.05)


async def is_paused(stage: Stage) -> None:
    async with Pipeline([stage]).open() as run:
        await run.feed(range(20))
        run.pause()
        await asyncio.sleep(0.05)
        run.resume()


@pytest.mark.parametrize("scope", ["run", "worker"])
@pytest.mark.parametrize("end", [ends_well, fails, is_cancelled, is_left, is_late, is_paused])
def test_no_thread_is_left_when_a_run_is_over(
    end: Callable[[Stage], Awaitable[None]], scope: Any, counted: Counted
) -> None:
    """However it ends: the event loop need not do anything more."""

    def task(value: int, thing: str) -> int:
        return int(counted.task(value))

    async def main() -> None:
        await end(Stage("A", 4, [task], resources={"thing": nothing}, resource_scope=scope))
        assert counted.most
        assert counted.soon(0)

    asyncio.run(main())


@pytest.mark.parametrize("wait", [True, False])
def test_no_thread_is_left_when_an_executor_was_shut_down(wait: bool, counted: Counted) -> None:
    """At once, or with the last call."""

    async def main() -> None:
        executor = AsyncExecutor(3)
        futures = [executor.submit(counted.task, number) for number in range(20)]
        await executor.shutdown(wait=wait)
        await executor.wait(futures)
        await asyncio.sleep(0)
        assert counted.soon(0)

    asyncio.run(main())
    assert counted.most


def test_no_thread_is_left_of_an_executor_that_is_forgotten(counted: Counted) -> None:
    """It need not be shut down."""

    async def main() -> None:
        await AsyncExecutor(3).submit(counted.task, 1)

    asyncio.run(main())
    gc.collect()
    assert counted.most
    assert counted.soon(0)


def test_executor_in_another_event_loop_has_other_threads(counted: Counted) -> None:
    """Those of the loop before end."""
    executor = AsyncExecutor(3)

    async def main() -> Any:
        return await executor.map(counted.task, range(20))

    for _ in range(3):
        assert asyncio.run(main()) == [*range(20)]
    assert counted.most <= 3
    asyncio.run(executor.shutdown())
    assert counted.soon(0)


@pytest.mark.parametrize("in_new_loop", [True, False])
def test_thread_that_outlives_its_run_gives_its_place_in_a_limit_back(in_new_loop: bool) -> None:
    """A limit that several runs share is whole again when a run is over."""
    end = threading.Event()
    limit = Limit(concurrency=1)

    def block(value: int) -> int:
        end.wait(0 if value else 10)
        return value

    def run(value: int) -> Awaitable[Any]:
        stage = Stage("A", 1, [block], limits=[limit], task_attempts=1)
        return Pipeline([stage]).run([value], timeout=5 if value else 0.1)

    async def late() -> None:
        with pytest.raises(TimeoutError):
            await run(0)

    async def both() -> None:
        await late()
        assert (await run(1)).values() == [1]

    async def in_time() -> None:
        assert (await run(1)).values() == [1]

    try:
        if in_new_loop:
            asyncio.run(late())
            asyncio.run(in_time())
        else:
            asyncio.run(both())
    finally:
        end.set()


# -- context --------------------------------------------------------------------------------------

colour: ContextVar[str] = ContextVar("colour", default="none")


@pytest.mark.parametrize("own", [False, True])
def test_later_tasks_and_callbacks_see_what_a_plain_function_has_set(own: bool) -> None:
    """A context variable that is set in a thread is seen where one set by an async task is."""
    seen: list[str] = []

    def paint(value: str) -> str:
        colour.set(value)
        return value

    def look(value: str) -> str:
        seen.append(f"plain {colour.get()}")
        return value

    async def look_async(value: str) -> str:
        seen.append(f"async {colour.get()}")
        return value

    async def on_success(*_: Any) -> None:
        seen.append(f"callback {colour.get()}")

    with ThreadPoolExecutor(1) as pool:
        executor: Any = pool if own else "thread"
        tasks = [paint, look, look_async]
        stage = Stage("A", 1, tasks, executor=executor, on_success=on_success)
        results = run_virtual(lambda: Pipeline([stage]).run(["red", "blue"]))
    assert not results.failed
    assert seen == [
        f"{place} {value}" for value in ("red", "blue") for place in ("plain", "async", "callback")
    ]


def test_awaitable_of_a_function_in_an_executor_sees_what_that_has_set() -> None:
    """The awaitable runs in the context of the function that returned it."""

    async def look() -> str:
        return colour.get()

    def paint() -> Awaitable[str]:
        colour.set("red")
        return look()

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            assert await executor.submit(paint) == "red"

    run_virtual(main)
