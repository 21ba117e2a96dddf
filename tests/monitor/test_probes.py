"""A run that tries one worker more says what came of it, and leaves everything as it was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import count
from math import inf
from typing import Any

import pytest

from antflow import Advice, Pipeline, RunHandle, Stage, WorkersChange
from antflow._monitor.probes import Probed, Speed, gained
from antflow.testing import run_virtual

Task = Callable[[Any], Awaitable[Any]]
Drive = Callable[[RunHandle[Any]], Awaitable[Any]]


def taking(seconds: float) -> Task:
    """A task that takes about this long."""
    dice = random.Random(1)

    async def task(value: Any) -> Any:
        await asyncio.sleep(seconds * dice.uniform(0.8, 1.2))
        return value

    return task


def behind(width: int, seconds: float) -> Task:
    """A task behind a pool that the pipeline does not know."""
    pool = asyncio.Semaphore(width)
    inner = taking(seconds)

    async def task(value: Any) -> Any:
        async with pool:
            return await inner(value)

    return task


def slower_after(moment: float, before: float, after: float) -> Task:
    """A task that takes longer from some moment on."""
    quick, slow = taking(before), taking(after)

    async def task(value: Any) -> Any:
        late = asyncio.get_running_loop().time() >= moment
        return await (slow if late else quick)(value)

    return task


def asking(task: Task, workers: int = 2, **options: Any) -> list[Stage]:
    """A quick stage, then one with this task."""
    return [Stage("Fetch", 20, [taking(0.1)]), Stage("Ask", workers, [task], **options)]


def driven(stages: list[Stage], drive: Drive, *, probe: bool = True) -> list[WorkersChange]:
    """Feed a run without end, drive it, cancel it; what numbers of workers it had."""

    async def program() -> list[WorkersChange]:
        pipeline = Pipeline(stages)
        async with pipeline.open(probe=probe) as run:
            feeding = asyncio.ensure_future(run.feed(count()))
            await drive(run)
            feeding.cancel()
            run.cancel()
        return list(pipeline.get_dashboard_snapshot().workers_changes)

    return run_virtual(program)


def after(seconds: float, seen: list[Advice] | None = None) -> Drive:
    """Let it run this long, and take note of the advice at the end."""

    async def drive(run: RunHandle[Any]) -> None:
        await asyncio.sleep(seconds)
        if seen is not None:
            seen.append(run.snapshot().advice)

    return drive


def told(changes: list[WorkersChange]) -> list[tuple[str, int, int, bool]]:
    return [(each.stage, each.before, each.workers, each.is_probe) for each in changes]


THERE_AND_BACK = [("Ask", 2, 3, True), ("Ask", 3, 2, True)]


def test_probe_measures_a_gain() -> None:
    """Where one worker more helps, the advice says how much, and more is promised by that."""
    seen: list[Advice] = []
    changes = driven(asking(taking(0.2)), after(40, seen))
    (advice,) = seen
    assert (advice.lever, advice.stage, advice.change) == ("workers", "Ask", 2)
    assert "; 1 more worker for 10 s: +" in advice.sentence
    assert advice.gain is not None
    assert 0.4 < advice.gain[0] <= 0.5  # one has brought it
    assert advice.gain[1] == 1  # if both bring as much
    assert told(changes) == THERE_AND_BACK
    assert changes[1].elapsed - changes[0].elapsed == pytest.approx(10)
    without: list[Advice] = []
    driven(asking(taking(0.2)), after(40, without), probe=False)
    assert without[0].gain == (0, 1)


def test_probe_finds_a_pool_behind_the_workers() -> None:
    """Where one worker more brings nothing, something behind the workers is the limit."""
    for workers in (1, 2):
        seen: list[Advice] = []
        driven(asking(behind(1, 0.2), workers), after(40, seen))
        (advice,) = seen
        assert (advice.lever, advice.stage, advice.gain) == ("shared", "Ask", None)
        said = "; 1 more worker for 10 s: +0%: something behind them is the limit"
        assert said in advice.sentence.replace("-0%", "+0%")


def test_probe_is_not_repeated() -> None:
    """One probe tells enough, for as long as nothing changes."""
    assert told(driven(asking(taking(0.2)), after(300))) == THERE_AND_BACK


def test_probe_that_tells_nothing_is_not_repeated() -> None:
    """Even if what came of it may be chance."""
    dice = random.Random(3)

    async def task(value: Any) -> Any:
        await asyncio.sleep(dice.expovariate(1))
        return value

    seen: list[Advice] = []
    assert told(driven(asking(task), after(200, seen))) == THERE_AND_BACK
    assert "1 more worker for 10 s: too little to tell. 2 more" in seen[0].sentence
    assert seen[0].gain is not None
    assert seen[0].gain[0] == 0


@pytest.mark.parametrize("stage", ["Fetch", "Ask"])
def test_probe_is_repeated_after_a_change_of_workers(stage: str) -> None:
    """Another number of workers, of any stage, is another situation."""

    async def drive(run: RunHandle[Any]) -> None:
        await asyncio.sleep(40)
        run.set_workers(stage, 1 if stage == "Ask" else 30)
        await asyncio.sleep(40)

    changes = driven(asking(taking(0.2)), drive)
    assert [each.is_probe for each in changes] == [True, True, False, True, True]


def test_probe_is_repeated_when_tries_take_longer() -> None:
    """So is a service that has become slower."""
    changes = driven(asking(slower_after(50, 0.1, 0.4)), after(100))
    assert told(changes) == THERE_AND_BACK * 2
    assert changes[2].elapsed > 60


def test_advice_says_that_a_probe_is_under_way() -> None:
    """For as long as there is one, the advice is about that."""
    seen: list[Advice] = []
    driven(asking(taking(0.2)), after(20, seen))
    assert seen[0].sentence.endswith("; trying 1 more worker for a few seconds.")
    assert (seen[0].lever, seen[0].stage, seen[0].change) == ("workers", "Ask", None)


def test_no_probe_without_the_option() -> None:
    """It is off by default."""

    async def program() -> Any:
        pipeline = Pipeline(asking(taking(0.2)))
        with pytest.raises(TimeoutError):
            await pipeline.run(count(), timeout=60)
        return pipeline.get_dashboard_snapshot()

    assert run_virtual(program).workers_changes == ()


def test_start_takes_the_option() -> None:
    """A run begun with `start` may be probed, too."""

    async def program() -> Any:
        pipeline = Pipeline(asking(taking(0.2)))
        await pipeline.start(probe=True)
        await pipeline.feed(range(450))
        snapshot = pipeline.get_dashboard_snapshot()
        await pipeline.shutdown()
        return snapshot

    assert run_virtual(program).workers_changes


def test_no_probe_where_the_gain_is_known() -> None:
    """Many workers that began one after another have shown it."""
    assert driven(asking(taking(0.2), workers=10), after(60)) == []


class OtherProcesses(Executor):
    """An executor of which it is not known what a worker more would cost."""


def test_no_probe_where_workers_may_be_processes() -> None:
    """Only tasks on the event loop and threads are cheap enough to try."""
    assert driven(asking(taking(0.2), executor=OtherProcesses()), after(60)) == []
    with ThreadPoolExecutor(1) as executor:
        assert driven(asking(taking(0.2), executor=executor), after(60)) != []


def pause(run: RunHandle[Any]) -> None:
    run.pause()


def drain(run: RunHandle[Any]) -> None:
    run.drain()


def cancel(run: RunHandle[Any]) -> None:
    run.cancel()


@pytest.mark.parametrize("control", [pause, drain, cancel])
def test_probe_ends_with_what_is_done_to_the_run(control: Callable[[RunHandle[Any]], None]) -> None:
    """A run that is paused, drains or ends has no probe, and this one tells nothing."""
    seen: list[Any] = []

    async def drive(run: RunHandle[Any]) -> None:
        await asyncio.sleep(20)
        assert run.snapshot().pipeline_stats.stage_stats["Ask"].workers == 3
        control(run)
        await asyncio.sleep(0)
        seen.append(run.snapshot())
        await asyncio.sleep(100)

    assert told(driven(asking(taking(0.2)), drive)) == THERE_AND_BACK
    if control is not cancel:  # that takes until its workers have ended
        assert seen[0].pipeline_stats.stage_stats["Ask"].workers == 2
    assert "10 s" not in seen[0].advice.sentence


def test_probe_is_not_a_change_of_workers() -> None:
    """The advice says what came of a change by hand, and a probe that tells nothing is none."""
    seen: list[Advice] = []

    async def drive(run: RunHandle[Any]) -> None:
        await asyncio.sleep(20)
        run.pause()
        run.resume()
        await asyncio.sleep(10)
        seen.append(run.snapshot().advice)

    assert told(driven(asking(taking(0.2)), drive)) == THERE_AND_BACK
    assert seen[0].gain == (0, 1)
    assert "fewer" not in seen[0].sentence


def test_no_probe_in_a_paused_run() -> None:
    """Seconds before a pause do not count for one after it."""

    async def drive(run: RunHandle[Any]) -> None:
        await asyncio.sleep(12)
        run.pause()
        await asyncio.sleep(60)
        run.resume()
        await asyncio.sleep(14)

    assert driven(asking(taking(0.2)), drive) == []


def test_no_probe_in_a_run_that_drains() -> None:
    """When no more items come, nothing is tried, and what is tried ends."""

    async def program(items: int) -> list[WorkersChange]:
        pipeline = Pipeline(asking(taking(0.2), queue_capacity=0))
        await pipeline.run(range(items), probe=True)
        return list(pipeline.get_dashboard_snapshot().workers_changes)

    assert run_virtual(lambda: program(400)) == []
    begun, ended = run_virtual(lambda: program(3600))  # all are taken in after 18 s
    assert ended.elapsed - begun.elapsed < 5


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_set_workers_wins_over_a_probe(workers: int) -> None:
    """A number that is set during a probe stays, even if it is the probe's own."""

    async def drive(run: RunHandle[Any]) -> None:
        await asyncio.sleep(20)
        run.set_workers("Ask", workers)
        await asyncio.sleep(10)
        assert run.snapshot().pipeline_stats.stage_stats["Ask"].workers == workers

    asked = [] if workers == 2 else [("Ask", 2, workers, False)]
    assert told(driven(asking(taking(0.2)), drive)) == THERE_AND_BACK + asked


def test_set_workers_is_in_the_history() -> None:
    """A change by hand is noted with its time; the latest hundred are kept."""

    async def drive(run: RunHandle[Any]) -> None:
        await asyncio.sleep(1.5)
        for number in range(1, 103):
            run.set_workers("Ask", number)

    changes = driven(asking(taking(0.2)), drive, probe=False)
    assert len(changes) == 100
    assert changes[-1] == WorkersChange(1.5, "Ask", 101, 102)


def test_first_try_of_a_probe_is_not_compared_with_the_others() -> None:
    """It comes long after theirs: that it takes longer does not say that they share something."""
    seen: list[Advice] = []

    async def drive(run: RunHandle[Any]) -> None:
        await asyncio.sleep(45)
        run.set_workers("Fetch", 21)  # what came of the probe does not count any more
        await asyncio.sleep(12)
        seen.append(run.snapshot().advice)

    driven(asking(slower_after(10, 0.05, 0.4)), drive)
    assert (seen[0].lever, seen[0].gain) == ("workers", (0, 1))


# What is measured


def probed(got: float, error: float, before: int = 10) -> Probed:
    return Probed((before,), before, 10.0, got, error, (1.0, 1.0))


@pytest.mark.parametrize(
    ("of", "part", "tells", "is_in_vain", "sentence"),
    [
        (probed(0.08, 0.005), (0.7, 0.9), True, False, "1 more worker for 10 s: +8%"),
        (probed(0.10, 0.01), (0.8, 1.0), True, False, "1 more worker for 10 s: +10%"),
        (probed(0.01, 0.01), (0.0, 0.3), True, True, "1 more worker for 10 s: +1%"),
        (probed(0.05, 0.01), (0.3, 0.7), True, False, "1 more worker for 10 s: +5%"),
        (probed(0, 0.1), (0, 1), False, False, "1 more worker for 10 s: too little to tell"),
        (probed(-0.3, 0.1), (0, 1), False, False, "1 more worker for 10 s: too little to tell"),
    ],
)
def test_probed(
    of: Probed, part: tuple[float, float], tells: bool, is_in_vain: bool, sentence: str
) -> None:
    """What one worker brought is a part of what it should bring, within what may be chance."""
    assert of.part == pytest.approx(part)
    assert (of.tells, of.is_in_vain, of.sentence) == (tells, is_in_vain, sentence)


def test_gained() -> None:
    """The part by which a rate is higher, with its standard error."""
    got, error = gained(Speed(10, 0.3), Speed(12, 0.48))
    assert got == pytest.approx(0.2)
    assert error == pytest.approx(1.2 * 0.05)
    assert gained(Speed(10, 0.3), None) == (0, inf)
