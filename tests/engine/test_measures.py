"""What the books say about the causes of a slow run: the loop, threads, services, vain tries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from antflow import DashboardSnapshot, Limit, Pipeline, RetryAfter, Stage
from antflow.testing import run_virtual


async def last_snapshot(stages: list[Stage], items: Any) -> DashboardSnapshot:
    pipeline = Pipeline(stages)
    await pipeline.run(items, on_failures="ignore")
    return pipeline.get_dashboard_snapshot()


def only(snapshot: DashboardSnapshot) -> Any:
    """The only stage."""
    (stage,) = snapshot.pipeline_stats.stage_stats.values()
    return stage


def taking(seconds: float) -> Callable[[Any], Any]:
    async def task(value: Any) -> Any:
        await asyncio.sleep(seconds)
        return value

    return task


async def rude(value: int) -> int:
    time.sleep(0.02)  # noqa: ASYNC251
    await asyncio.sleep(0.02)
    return value


@pytest.mark.real_time
def test_time_of_the_loop() -> None:
    """The loop is at work while a task holds it, and not while all wait."""
    loop = asyncio.run(last_snapshot([Stage("Only", 1, [rude])], range(20))).loop
    assert 0.38 < loop.busy_seconds < 0.5


@pytest.mark.real_time
def test_line_that_keeps_the_loop_busy() -> None:
    """Short blocks are too short to be reported, but where they are is seen."""
    stages = [Stage("Wait", 5, [taking(0.01)]), Stage("Rude", 5, [rude])]
    loop = asyncio.run(last_snapshot(stages, range(100))).loop
    assert loop.stalls == 0
    assert loop.hot_spot is not None
    assert (loop.hot_spot.stage, loop.hot_spot.line) == (
        "Rude",
        "time.sleep(0.02)  # noqa: ASYNC251",
    )
    assert loop.hot_spot.share > 0.8


def test_selector_is_as_before() -> None:
    """Two runs at once measure one loop; when both are over, nothing is left of it."""

    async def program() -> None:
        selector = getattr(asyncio.get_running_loop(), "_selector")  # noqa: B009
        before = selector.select
        runs = [last_snapshot([Stage("Only", 2, [taking(n / 100)])], range(4)) for n in (1, 2)]
        first, second = [asyncio.ensure_future(each) for each in runs]
        await first
        assert selector.select != before
        await second
        assert selector.select == before

    asyncio.run(program())


def computing(value: int) -> int:
    until = time.thread_time() + 0.05
    while time.thread_time() < until:
        pass
    return value


def sleeping(value: int) -> int:
    time.sleep(0.02)
    return value


def test_processor_time_of_threads() -> None:
    """The threads of a stage are charged with what they compute, not with what they wait."""
    stages = [Stage("Compute", 2, [computing]), Stage("Sleep", 2, [sleeping])]
    snapshot = asyncio.run(last_snapshot(stages, range(4)))
    stats = snapshot.pipeline_stats.stage_stats
    assert 0.2 <= stats["Compute"].thread_cpu_seconds < 0.3
    assert stats["Sleep"].thread_cpu_seconds < 0.05


def test_threads_have_python_s_lock() -> None:
    """The lock is seen to be taken while threads run Python code."""
    snapshot = asyncio.run(last_snapshot([Stage("Compute", 3, [computing])], range(30)))
    assert snapshot.loop.gil_share is not None
    assert snapshot.loop.gil_share > 0.3


def test_first_tries_that_share_something() -> None:
    """If only two can go on at once, the later workers' first tries take longer."""

    async def program(shared: bool) -> Any:
        pool = asyncio.Semaphore(2 if shared else 20)

        async def task(value: int) -> int:
            async with pool:
                await asyncio.sleep(1)
            return value

        return only(await last_snapshot([Stage("Only", 12, [task])], range(100))).first_tries

    apart = run_virtual(lambda: program(False))
    assert (apart.workers, apart.early, apart.late) == (12, pytest.approx(1), pytest.approx(1))
    shared = run_virtual(lambda: program(True))
    assert (shared.early, shared.late) == (pytest.approx(1.5), pytest.approx(5.5))
    assert 0 < shared.spread < 1


def test_time_that_a_service_holds() -> None:
    """The seconds that RetryAfter asks for are counted once, however many tries ask."""
    answers = iter([True] * 3 + [False] * 100)

    async def ask(value: int) -> int:
        await asyncio.sleep(1)
        if next(answers):
            raise RetryAfter(5)
        return value

    stage = only(run_virtual(lambda: last_snapshot([Stage("Ask", 3, [ask])], range(6))))
    assert (stage.holds, stage.held_seconds) == (3, pytest.approx(5))


@pytest.mark.parametrize("batch", [None, 4])
def test_time_in_vain(batch: int | None) -> None:
    """The seconds of failed tries are counted, those of a batch once."""
    fails = iter([True] + [False] * 100)

    async def flaky(value: Any) -> Any:
        await asyncio.sleep(2)
        if next(fails):
            raise ValueError("no")
        return value

    stages = [Stage("Only", 1, [flaky], batch=batch, batch_wait=0.1 if batch else None)]
    stage = only(run_virtual(lambda: last_snapshot(stages, range(8))))
    assert stage.failed_seconds == pytest.approx(2)


def test_time_in_vain_is_time_at_work() -> None:
    """What a try waited for a limit before it failed was not work."""

    async def fails(value: int) -> None:
        await asyncio.sleep(2)
        raise ValueError("no")

    limits = [Limit(rate=1, period=10)]
    stage = only(
        run_virtual(
            lambda: last_snapshot(
                [Stage("Only", 1, [fails], limits=limits, task_attempts=1)], range(5)
            )
        )
    )
    assert stage.limited_seconds > 30
    assert stage.failed_seconds == pytest.approx(stage.busy_seconds) == pytest.approx(10)
