"""Rates and ETAs, held against what then came, in runs on a virtual clock."""

from __future__ import annotations

import asyncio
import pickle
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from math import inf, log
from typing import Any

import pytest

from antflow import (
    DashboardSnapshot,
    Durations,
    Eta,
    Limit,
    Pipeline,
    RetryAfter,
    RunResults,
    Stage,
    WhatIf,
)
from antflow._core.durations import DurationCounter
from antflow._monitor.eta import Budget, eta_of
from antflow._monitor.measured import Note
from antflow._monitor.service_times import service_times
from antflow._monitor.simulation import (
    STEPS,
    Course,
    RunModel,
    RunState,
    StageModel,
    StageState,
    simulate,
)
from antflow._monitor.view import View
from antflow.testing import run_virtual
from benchmarks.eta import BY_SEED, RUNS, held, watched
from tests.monitor.watching import Keeping, Watching, keep, watch

Task = Callable[[int], Awaitable[int]]


def taking(seconds: float, spread: float = 0.5, seed: int = 1) -> Task:
    dice = random.Random(seed)

    async def task(number: int) -> int:
        await asyncio.sleep(dice.uniform(1 - spread, 1 + spread) * seconds)
        return number

    return task


def off_by(keeping: Keeping, snapshot: DashboardSnapshot) -> float:
    """How far the middle of the ETA was from the truth, as a part of it."""
    assert snapshot.eta is not None
    truth = keeping.last.elapsed - snapshot.elapsed
    return (snapshot.eta.shortest + snapshot.eta.longest) / 2 / truth - 1


def from_to(keeping: Keeping, begin: float, end: float) -> list[DashboardSnapshot]:
    """Some 25 snapshots between two parts of the run's time, and the last one there."""
    whole = keeping.last.elapsed
    between = [each for each in keeping.snapshots if begin * whole <= each.elapsed <= end * whole]
    return [*between[:: len(between) // 25 or 1], between[-1]]


STEADY = {
    "one stage": [Stage("A", 10, [taking(3)])],
    "bottleneck first": [Stage("A", 5, [taking(3)]), Stage("B", 10, [taking(1)])],
    "bottleneck last": [Stage("A", 10, [taking(1)]), Stage("B", 5, [taking(3)])],
    "unbounded queue before it": [
        Stage("A", 50, [taking(0.5)]),
        Stage("B", 5, [taking(3)], queue_capacity=0),
    ],
    "workers in step": [Stage("A", 20, [taking(15, 0)])],
}


@pytest.mark.parametrize("kind", STEADY)
def test_eta_of_a_steady_load(kind: str) -> None:
    """From a quarter of the time on it is right within 20 %."""
    keeping = run_virtual(lambda: keep(STEADY[kind], range(1500)))
    for snapshot in from_to(keeping, 0.25, 0.95):
        assert abs(off_by(keeping, snapshot)) < 0.2, snapshot.elapsed


def test_eta_counts_what_is_left_in_each_stage() -> None:
    """Long before the slow stage has done a part worth naming, its queue says how long it takes."""
    keeping = run_virtual(lambda: keep(STEADY["unbounded queue before it"], range(1500)))
    early = keeping.at(60)  # the first stage is through, the second has 1400 items to do
    first, second = early.pipeline_stats.stage_stats.values()
    assert first.completed_items == 1500
    assert second.completed_items < 150
    assert abs(off_by(keeping, early)) < 0.2


def test_eta_when_the_pace_halves() -> None:
    """Half a minute after it began to go half as fast, the ETA has followed."""
    begun: list[int] = []

    async def task(number: int) -> int:
        begun.append(number)
        await asyncio.sleep(1 if len(begun) <= 1000 else 2)
        return number

    keeping = run_virtual(lambda: keep([Stage("A", 10, [task])], range(2000)))
    later = keeping.at(135).eta
    assert later is not None
    truth = keeping.last.elapsed - 135
    assert later.longest == pytest.approx(truth, rel=0.2)
    assert later.shortest > 0.65 * truth


def test_eta_when_a_later_stage_catches_up() -> None:
    """A stage that hurries through what has piled up does not make the slow one faster."""
    gate = asyncio.Event()

    async def slow(number: int) -> int:
        await asyncio.sleep(1)
        return number

    async def wait(number: int) -> int:
        await gate.wait()
        return number

    async def program() -> Keeping:
        asyncio.get_running_loop().call_later(100, gate.set)
        return await keep(
            [Stage("A", 1, [slow]), Stage("B", 1, [wait], queue_capacity=0)], range(400)
        )

    keeping = run_virtual(program)
    eta = keeping.at(108).eta
    assert eta is not None
    assert eta.shortest <= keeping.last.elapsed - 108 <= eta.longest


def test_eta_where_items_fail() -> None:
    """What fails in the first stage is no work for the second."""

    async def fail(number: int) -> int:
        await asyncio.sleep(0.1)
        if number % 2:
            raise ValueError("odd")
        return number

    stages = [Stage("A", 10, [fail], task_attempts=1), Stage("B", 2, [taking(1)])]
    keeping = run_virtual(lambda: keep(stages, range(1000)))
    for snapshot in from_to(keeping, 0.3, 0.9):
        assert abs(off_by(keeping, snapshot)) < 0.2


def test_eta_where_items_become_many() -> None:
    """What was made of items so far is not still to be taken in."""

    async def pages(number: int) -> list[int]:
        await asyncio.sleep(1)
        return [number] * 100

    stages = [Stage("List", 2, [pages], expand=True), Stage("Fetch", 5, [taking(0.2)])]
    keeping = run_virtual(lambda: keep(stages, range(100)))
    for snapshot in from_to(keeping, 0.3, 0.9):
        assert abs(off_by(keeping, snapshot)) < 0.2


def test_eta_while_nothing_moves() -> None:
    """Two items hold both workers for an hour: the ETA has room for that, and narrows after it."""

    async def task(number: int) -> int:
        await asyncio.sleep(3600 if number in (300, 301) else 0.2)
        return number

    keeping = run_virtual(lambda: keep([Stage("A", 2, [task])], range(6000)))
    end = keeping.last.elapsed
    for moment in range(700, 3600, 100):
        eta = keeping.at(moment).eta
        assert eta is not None
        assert eta.shortest <= end - moment <= eta.longest
    later = keeping.at(3800).eta
    assert later is not None
    assert later.longest < 2 * (end - 3800)


def test_no_eta_too_early() -> None:
    """In the first three seconds, and before the first items are through, none is ventured."""
    watching = run_virtual(lambda: watch([Stage("A", 10, [taking(0.05)])], range(2000)))
    assert all(view.eta is None for view in watching.views if view.progress.elapsed < 3)
    assert watching.at(3.5).eta is not None


def test_no_eta_when_the_total_is_unknown() -> None:
    """Who does not know how much comes cannot say how long; once the input has ended one can."""

    async def items() -> AsyncIterator[int]:
        for number in range(1000):
            yield number

    first = Stage("A", 1, [taking(0.1)], queue_capacity=2000)
    stages = [first, Stage("B", 5, [taking(0.2)])]
    keeping = run_virtual(lambda: keep(stages, items()))
    states = {each.state for each in keeping.snapshots}
    assert states == {"running", "draining", "finished"}
    for each in keeping.snapshots:
        if each.state == "running":
            assert each.eta is None
    assert abs(off_by(keeping, keeping.at(30))) < 0.2
    assert keeping.last.eta is None


def test_eta_while_the_last_item_hangs() -> None:
    """When all should be over and is not, the ETA names what the run waits for, and holds it."""

    async def task(number: int) -> int:
        await asyncio.sleep(300 if number == 395 else 0.1)
        return number

    keeping = run_virtual(lambda: keep([Stage("A", 5, [task])], range(400)))
    for snapshot in from_to(keeping, 0.2, 0.99):
        eta = snapshot.eta
        assert eta is not None
        assert eta.waits_for == "1 item since 0:07"
        assert eta.shortest <= keeping.last.elapsed - snapshot.elapsed <= eta.longest


def test_eta_is_held_for_a_second() -> None:
    """However often it is drawn, it changes once a second."""
    watching = run_virtual(lambda: watch([Stage("A", 5, [taking(1)])], range(100), interval=0.05))
    seen = [view.eta for view in watching.views if view.eta is not None]
    changes = sum(a is not b for a, b in pairwise(seen))
    assert 10 < changes <= watching.last.progress.elapsed


def test_pause_is_not_taken_for_slowness() -> None:
    """An hour of pause changes neither the rates nor the ETA."""

    async def program() -> list[View]:
        watching = Watching()
        pipeline = Pipeline([Stage("A", 5, [taking(1, 0)])])
        async with pipeline.open(total=300) as run:
            feeding = asyncio.ensure_future(run.feed(range(300)))
            for moment in range(80):
                if moment == 30:
                    run.pause()
                if moment == 40:
                    for _ in range(60):
                        await asyncio.sleep(60)
                        watching.on_update(run.snapshot())
                    run.resume()
                watching.on_update(run.snapshot())
                await asyncio.sleep(0.5)
            await feeding
        return watching.views

    views = run_virtual(program)
    assert any(view.snapshot.state == "paused" and view.eta is None for view in views)
    assert views[-1].stages[0].per_second == pytest.approx(5, rel=0.2)
    assert views[-1].eta is not None
    assert views[-1].eta.longest < 60


def test_pause_is_not_taken_for_a_slow_source() -> None:
    """After an hour of pause a source that holds the run back is as slow as before."""

    async def items() -> AsyncIterator[int]:
        for number in range(300):
            await asyncio.sleep(1)
            yield number

    async def program() -> list[DashboardSnapshot]:
        pipeline = Pipeline([Stage("A", 5, [taking(0.5)], queue_capacity=1)])
        async with pipeline.open(total=300) as run:
            feeding = asyncio.ensure_future(run.feed(items()))
            for _ in range(30):
                run.snapshot()
                await asyncio.sleep(1)
            run.pause()
            for _ in range(60):
                run.snapshot()
                await asyncio.sleep(60)
            run.resume()
            after = []
            for _ in range(20):
                after.append(run.snapshot())
                await asyncio.sleep(1)
            await feeding
        return after

    for snapshot in run_virtual(program):
        assert snapshot.eta is not None
        assert snapshot.eta.shortest < 300  # it takes 270 from here
    assert snapshot.eta is not None
    assert snapshot.eta.longest < 400


def test_rates_of_stages() -> None:
    """Each stage has its own rate while it goes on, and its mean at the end."""
    stages = [
        Stage("A", 10, [taking(1, 0)], queue_capacity=50),
        Stage("B", 5, [taking(1, 0)], queue_capacity=0),
    ]
    watching = run_virtual(lambda: watch(stages, range(500)))
    first, second = watching.at(40).stages
    assert first.per_second == pytest.approx(10, rel=0.1)
    assert second.per_second == pytest.approx(5, rel=0.1)
    assert watching.last.stages[0].per_second == pytest.approx(500 / 101, rel=0.05)


def test_rate_of_a_stage_counts_no_cancelled_items() -> None:
    """What a shutdown stopped has not come through, however many items it was."""

    async def program() -> Watching:
        watching = Watching()
        pipeline = Pipeline([Stage("A", 2, [taking(1, 0)], queue_capacity=500)])
        running = asyncio.ensure_future(pipeline.run(range(500), custom_dashboard=watching))
        await asyncio.sleep(20)
        await pipeline.shutdown()
        await running
        return watching

    last = run_virtual(program).last
    assert last.stages[0].stats.cancelled_items > 400
    assert last.stages[0].per_second == pytest.approx(2, rel=0.1)
    assert last.progress.per_second == pytest.approx(2, rel=0.1)


def test_snapshot_seen_twice_is_one_moment(snapshot_of_a_run: DashboardSnapshot) -> None:
    """Drawing a snapshot again changes nothing of what is remembered."""
    watching = Watching()
    watching.on_update(snapshot_of_a_run)
    watching.on_update(snapshot_of_a_run)
    assert watching.views[0] is watching.views[1]


@pytest.fixture
def snapshot_of_a_run() -> DashboardSnapshot:
    pipeline = Pipeline([Stage("A", 5, [taking(1)])])
    run_virtual(lambda: pipeline.run(range(10)))
    return pipeline.get_dashboard_snapshot()


@pytest.mark.parametrize(
    "kind",
    [
        "exponential times",
        "200 items, 50 workers, exponential",
        "lognormal times",
        "Pareto times, index 2",
        "half of the tries fail, 50 wait 20 s",
        "a third fails, 20 wait 30 s",
    ],
)
def test_eta_of_runs_that_chance_decides(kind: str) -> None:
    """Whatever the dice, the range holds the truth in most frames."""
    shares = [held(watched(BY_SEED[kind](seed))).share for seed in (3, 4)]
    assert min(shares) >= 0.7, shares
    assert sum(shares) / len(shares) >= 0.8, shares


def test_what_if_after_a_run() -> None:
    """It says how long a run with other workers takes, and can be pickled with the results."""

    def pipeline(workers: int) -> Pipeline:
        return Pipeline([Stage("A", 10, [taking(0.3)]), Stage("B", workers, [taking(0.6)])])

    async def timed(workers: int) -> tuple[float, RunResults[int]]:
        results = await pipeline(workers).run(range(400))
        return asyncio.get_running_loop().time(), results

    _, results = run_virtual(lambda: timed(4))
    truth, _ = run_virtual(lambda: timed(12))
    said = pickle.loads(pickle.dumps(results)).what_if({"B": 12})
    assert said == results.what_if({"B": 12})
    assert said.workers == {"A": 10, "B": 12}
    assert said.shortest <= truth <= said.longest < 1.2 * said.shortest
    assert said.elapsed == 0


def test_what_if_during_a_run() -> None:
    """It says how long the whole run takes if it goes on with other workers."""

    async def program() -> tuple[WhatIf | None, float]:
        pipeline = Pipeline([Stage("A", 5, [taking(0.5)])])
        async with pipeline.open(total=400) as run:
            feeding = asyncio.ensure_future(run.feed(range(400)))
            await asyncio.sleep(10)
            said = pipeline.what_if({"A": 20})
            run.set_workers("A", 20)
            await feeding
        return said, asyncio.get_running_loop().time()

    said, truth = run_virtual(program)
    assert said is not None
    assert said.elapsed == pytest.approx(10)
    assert said.shortest <= truth <= said.longest < 1.2 * said.shortest


def test_what_if_refuses_other_stages() -> None:
    """A misspelt stage and no workers are errors; without a run nothing is known."""
    pipeline = Pipeline([Stage("Fetch", 5, [taking(0.5)])])
    with pytest.raises(ValueError, match=r"Fetsh.*did you mean 'Fetch'"):
        pipeline.what_if({"Fetsh": 3})
    with pytest.raises(ValueError, match="at least 1 worker"):
        pipeline.what_if({"Fetch": 0})
    assert pipeline.what_if({"Fetch": 3}) is None


@pytest.mark.parametrize("name", ["limit with a full bucket", "retries after 6 s", "batches"])
def test_eta_holds_the_truth(name: str) -> None:
    """In at least 80 % of the frames, with limits, retries and batches."""
    result = held(watched(RUNS[name]))
    assert result.share >= 0.8
    assert result.silent <= 0.1


def test_eta_of_a_limit_knows_its_bucket() -> None:
    """While a full bucket lets items rush through, it is known that the rest will not."""
    stage = Stage("A", 40, [taking(0.2)], limits=[Limit(rate=300, period=30)])
    third = run_virtual(lambda: keep([stage], range(700))).snapshots[2]
    eta = third.eta
    assert third.pipeline_stats.items_processed > 100
    assert eta is not None
    assert eta.shortest > 30


def test_eta_says_when_retries_are_due() -> None:
    """When all that is left waits for its next try, the ETA says when that is."""

    async def task(number: int) -> int:
        await asyncio.sleep(0.1)
        if number == 99 and not tried:
            tried.append(number)
            raise TimeoutError
        return number

    tried: list[int] = []
    stage = Stage("A", 5, [task], task_attempts=3, task_wait_seconds=20.0)
    keeping = run_virtual(lambda: keep([stage], range(100)))
    eta = keeping.at(10).eta
    assert eta is not None
    assert eta.waits_for == "retries at 0:22"
    assert eta.shortest <= keeping.last.elapsed - 10 <= eta.longest


def durations(seconds: Sequence[float]) -> Durations:
    counter = DurationCounter(1e-4)
    for each in seconds:
        counter.add(each)
    return counter.read(len(seconds))


def planted(
    seconds: Sequence[float], again: float = 0.0, tries: int = 1, delay: float = 10.0
) -> StageModel:
    """A stage of ten workers whose tries take these times, with this time between two of them."""
    times = service_times(durations(seconds), mean=sum(seconds) / len(seconds))
    assert times is not None
    delays = (((delay, 1.0),),)
    doubt = (0.0, 0.0, 0.0)
    return StageModel("A", 10, 1, times, again, tries, delays, 50, inf, 0.0, 1.0, (), doubt)


def simulated(stage: StageModel, state: RunState) -> Course:
    return simulate(RunModel((stage,), (), inf, 0.0), state)


def test_eta_of_a_steady_run_is_narrow() -> None:
    """Where all take the same, the range is within 2.2 % to either side, and right."""
    result = held(watched(RUNS["steady, all take the same"]))
    assert result.share >= 0.95
    assert result.late_width <= 0.044


def test_simulation_knows_which_try_is_the_last() -> None:
    """An item with five tries left has them all within five delays."""
    stage = planted([0.2] * 400, again=0.8, tries=20)
    due = StageState(due=((10.0, 1.0, 15),))
    assert simulated(stage, RunState(0, (due,), (), ())).ends[2] < 55


def test_simulation_goes_on_to_the_last_retry() -> None:
    """Of ten items one has many tries to come, however little work they are."""
    stage = planted([0.2] * 400, again=0.8, tries=20)
    due = StageState(due=((5.0, 10.0, 2),))
    _, middle, latest = simulated(stage, RunState(0, (due,), (), ())).ends
    expected = 10 * log(1 - 0.5 ** (1 / 10)) / log(0.8)
    assert middle == pytest.approx(expected, rel=0.15)
    assert latest > 150


@pytest.mark.parametrize("delay", [0.0, 0.1, 1.0])
def test_simulation_of_short_delays(delay: float) -> None:
    """Retries after a short time take no longer because a step of the simulation is longer."""
    stage = planted([0.2] * 400, again=0.5, tries=20, delay=delay)
    tries = 10_000 / (1 - 0.5)
    work = tries * 0.2 / 10
    course = simulated(stage, RunState(10_000, (StageState(),), (), ()))
    last = 5 * (0.2 + delay)  # some of the last 25 items have another five tries
    assert 0.99 * work < course.ends[1] < 1.015 * work + last
    assert course.steps <= 2 * STEPS


def test_simulation_of_retries_in_a_pipeline() -> None:
    """The delays of many stages add up for an item, and not for all items."""

    async def flaky(number: int) -> int:
        await asyncio.sleep(0.4)
        if dice.random() < 0.5:
            raise TimeoutError
        return number

    dice = random.Random(1)
    stages = [
        Stage(f"S{n}", 20, [flaky], task_attempts=20, task_wait_seconds=4.0) for n in range(6)
    ]
    keeping = run_virtual(lambda: keep(stages, range(800)))
    for snapshot in from_to(keeping, 0.25, 0.6):
        assert abs(off_by(keeping, snapshot)) < 0.4, snapshot.elapsed


def test_tries_that_go_on_are_longer() -> None:
    """When the first of many are through, the others count with the time that they have taken."""
    ended = [number / 10 for number in range(1, 11)]
    times = service_times(durations(ended), ages=[1.0] * 40)
    assert times is not None
    assert 2.5 < times.mean < 6  # 45 seconds of work for ten that are through
    alone = service_times(durations(ended))
    assert alone is not None
    assert alone.mean == pytest.approx(0.55, rel=0.05)


def test_a_tail_leaves_the_mean() -> None:
    """That a try may take longer than any yet does not make the next thousand slower."""
    dice = random.Random(4)
    seconds = [dice.expovariate(1) for _ in range(100)]
    times = service_times(durations(seconds))
    assert times is not None
    assert times.points[-1][0] > max(seconds)
    mean = sum(each * share for each, share in times.points)
    assert mean == pytest.approx(sum(seconds) / 100, rel=0.03)


def test_eta_of_many_items_takes_no_longer() -> None:
    """A simulation of a million items has no more steps than one of a hundred."""
    steps: list[int] = []

    def model_of(count: int) -> None:
        stage = planted([0.06] * count)
        course = simulated(stage, RunState(count, (StageState(),), (), ()))
        assert course.ends[1] == pytest.approx(count / 10 * stage.times.mean, rel=0.05)
        steps.append(course.steps)

    for count in (100, 10_000, 1_000_000):
        model_of(count)
    assert max(steps) <= 2 * STEPS


class Machine:
    """A slow one, on which each simulated step of a stage takes 1 ms.

    Attributes:
        seconds: Of its processor, that simulations have taken.
        longest: The same, of all that were made for one ETA.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        self.longest = 0.0
        self._began = 0.0
        monkeypatch.setattr("antflow._monitor.eta.simulate", self._simulate)
        monkeypatch.setattr("antflow._monitor.eta.thread_time", lambda: self.seconds)
        monkeypatch.setattr("antflow._monitor.eta.eta_of", self._eta_of)

    def _simulate(self, model: RunModel, *rest: Any) -> Course:
        course = simulate(model, *rest)
        self.seconds += 0.001 * course.steps * len(model.stages)
        return course

    def _eta_of(self, note: Note) -> Eta | None:
        began = self.seconds
        made = eta_of(note)
        self.longest = max(self.longest, self.seconds - began)
        return made


@pytest.mark.parametrize("pauses", [False, True])
def test_simulations_take_a_share_of_the_time(
    monkeypatch: pytest.MonkeyPatch, *, pauses: bool
) -> None:
    """Two displays ask ten times a second, and yet it is 5 ms a second, besides the latest."""
    machine = Machine(monkeypatch)

    async def program() -> list[DashboardSnapshot]:
        seen: list[DashboardSnapshot] = []
        pipeline = Pipeline([Stage(f"S{n}", 5, [taking(1)]) for n in range(4)])
        async with pipeline.open(total=400) as run:
            feeding = asyncio.ensure_future(run.feed(range(400)))
            while not feeding.done():
                for snapshot in (run.snapshot(), run.snapshot()):
                    assert snapshot.eta is None or snapshot.eta.longest > 0
                    seen.append(snapshot)
                    most = 0.005 * snapshot.elapsed + machine.longest
                    assert machine.seconds <= most, snapshot.elapsed
                if pauses:
                    run.pause()
                    assert run.snapshot().eta is None
                    run.resume()
                await asyncio.sleep(0.1)
        return seen

    seen = run_virtual(program)
    assert machine.seconds > 0.005 * seen[-1].elapsed / 2  # it is used
    if not pauses:
        said = [each.eta is not None for each in seen]
        assert all(said[said.index(True) :])


def test_eta_counts_down_between_simulations(monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is a simulation only every half minute, the ETA is as right as ever."""
    Machine(monkeypatch)
    watching = run_virtual(lambda: watch(STEADY["one stage"], range(500), interval=1.0))
    end = watching.last.progress.elapsed
    shown = [view for view in watching.views if 0.3 < view.progress.elapsed / end < 0.95]
    assert len(shown) > 50
    for view in shown:
        assert view.eta is not None
        left = end - view.progress.elapsed
        assert view.eta.shortest - 1 <= left <= view.eta.longest + 1


def test_budget_forgives_a_collection_of_garbage() -> None:
    """One simulation that takes a thousand times as long does not put off the next for minutes."""
    budget = Budget()
    budget.charge(10.0, 0.002)
    assert budget.allows(10.5)
    budget.charge(11.0, 2.0)
    assert not budget.allows(11.5)
    assert budget.allows(12.0)
    budget.charge(12.0, 0.05)  # and if it was the machine, the next one counts in full
    assert not budget.allows(21.5)
    assert budget.allows(22.5)


def test_two_threads_share_a_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a display asks while another thread makes the ETA, it waits for that one."""
    both = threading.Barrier(2)
    made: list[Note] = []

    def slow(note: Note) -> Eta | None:
        made.append(note)
        with suppress(threading.BrokenBarrierError):
            both.wait(0.1)
        return eta_of(note)

    monkeypatch.setattr("antflow._monitor.eta.eta_of", slow)
    first, second = run_virtual(lambda: keep(STEADY["one stage"], range(100))).snapshots[20:22]
    assert second.elapsed - first.elapsed < 1  # of the same second
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda snapshot: snapshot.eta, (first, second)))
    assert len(made) == 1
    assert all(said)


def test_tries_that_were_held_wait_too() -> None:
    """An item that a service held before its first try has no try to count from."""
    answers = iter([True, *[False] * 1000])

    async def ask(number: int) -> int:
        await asyncio.sleep(1)
        if next(answers):
            raise RetryAfter(20)
        return number

    keeping = run_virtual(lambda: keep([Stage("Ask", 4, [ask])], range(200)))
    assert keeping.at(10).eta is not None
    assert keeping.last.state == "finished"
