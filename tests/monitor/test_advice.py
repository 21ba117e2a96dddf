"""What holds a run back is named right: planted in runs on a virtual clock, and in values."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from antflow import (
    DashboardSnapshot,
    ErrorSummary,
    FirstTries,
    HotSpot,
    Limit,
    LoopHealth,
    LoopStall,
    Pipeline,
    PipelineStats,
    RetryAfter,
    Stage,
    StageStats,
    StatusTracker,
    concurrency_limit,
    current_item,
    rate_limit,
)
from antflow._core.ledger import ACTIVITIES
from antflow._core.levers import Advice
from antflow._core.snapshot import RunState
from antflow._monitor import processor
from antflow._monitor.advice import Case, advise
from antflow._monitor.moment import Figures, Marks, Moment, Spent
from antflow._monitor.view import View
from antflow._monitor.worker_order import worker_strips
from antflow.testing import run_virtual
from tests.engine import process_tasks
from tests.monitor.watching import Watching, shares_of
from tests.monitor.watching import watch as watch_all

Task = Callable[[int], Awaitable[int]]
watch = partial(watch_all, with_eta=False)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, however many there are."""
    monkeypatch.setattr(processor, "CORES", 8)


def taking(seconds: float, seed: int = 1) -> Task:
    """A task that takes so long, more or less."""
    dice = random.Random(seed)

    async def task(number: int) -> int:
        await asyncio.sleep(dice.uniform(0.5, 1.5) * seconds)
        return number

    return task


def both(watching: Watching, at: float) -> tuple[View, View]:
    """The view in the middle of the run, and the one at its end."""
    return watching.at(at), watching.last


# Planted, in a run


def test_slow_stage() -> None:
    """The stage in the middle is too slow: it is named, with its workers, queue and a remedy."""
    stages = [
        Stage("Fetch", 5, [taking(1, 1)]),
        Stage("Parse", 10, [taking(4, 2)]),
        Stage("Save", 3, [taking(1, 3)]),
    ]
    watching = run_virtual(lambda: watch(stages, range(1000)))
    for view in both(watching, 100):
        assert (view.advice.lever, view.advice.stage) == ("workers", "Parse")
        assert [stage.is_bottleneck for stage in view.stages] == [False, True, False]
    sentence = watching.at(100).advice.sentence
    assert sentence.startswith("Bottleneck: Parse. 10 of 10 workers busy, its queue is full; ")
    assert "would lift the rate by about" in sentence
    assert watching.at(100).stages[0].hint == "waits for Parse"
    assert watching.at(100).stages[2].hint == ""
    assert "Its 10 workers were busy 99% of the time" in watching.last.advice.sentence


def test_slow_stage_at_the_beginning() -> None:
    """While the queues fill up all are busy, and the slow one had to wait for its first items."""
    stages = [
        Stage("Fetch", 20, [taking(0.3, 1)]),
        Stage("Parse", 8, [taking(0.125, 2)]),
        Stage("Enrich", 10, [taking(0.4, 3)]),
    ]
    watching = run_virtual(lambda: watch(stages, range(600)))
    for second in range(4, 20):
        found = watching.at(second).advice
        assert (found.lever, found.stage) == ("workers", "Enrich"), (second, found.sentence)


def test_slow_stage_when_the_queue_before_it_is_unbounded() -> None:
    """The first stage was done long ago and has idled since: that is not the source's fault."""
    stages = [
        Stage("Fetch", 20, [taking(0.1)]),
        Stage("Parse", 2, [taking(1)], queue_capacity=0),
    ]
    watching = run_virtual(lambda: watch(stages, range(400)))
    for view in both(watching, 100):
        assert (view.advice.lever, view.advice.stage) == ("workers", "Parse")


def test_slow_source() -> None:
    """Items come more slowly than anybody could take them."""

    async def items() -> AsyncIterator[int]:
        for number in range(300):
            await asyncio.sleep(1)
            yield number

    stages = [Stage("Fetch", 5, [taking(1)]), Stage("Parse", 5, [taking(0.5)])]
    watching = run_virtual(lambda: watch(stages, items()))
    for view in both(watching, 100):
        assert (view.advice.lever, view.advice.stage) == ("source", "Fetch")
        assert view.advice.sentence.startswith("Bottleneck: the source. ")
        assert not view.stages[0].is_bottleneck  # it only shows there
        assert view.stages[0].hint == "waits for items"


def test_limit() -> None:
    """A rate limit holds the workers: more of them would not help, and that is said."""
    limit = Limit(rate=60, period=60)
    stages = [Stage("Fetch", 10, [taking(0.3)], limits=[limit]), Stage("Parse", 5, [taking(0.5)])]
    watching = run_virtual(lambda: watch(stages, range(300)))
    for view in both(watching, 150):
        assert (view.advice.lever, view.advice.stage) == ("limit", "Fetch")
        assert "more workers would not" in view.advice.sentence


def by_size(number: int) -> float:
    """What a try costs: 800 on average."""
    return 500 + number % 7 * 100


@pytest.mark.parametrize(
    ("limits", "again", "said", "change"),
    [
        (
            [Limit(rate=96_000, cost=by_size)],
            {},
            "/min instead of 96,000/min would lift it to ",
            2_400_000,
        ),
        (
            [Limit(rate=10_000, period=1, cost=800), Limit(rate=20, period=1)],
            {},
            "a rate of 16,000/s instead of 10,000/s would lift it to 20 items/s, then its other",
            16_000,
        ),
        (
            [Limit(rate=10_000, period=1, cost=800), Limit(concurrency=4)],
            {},
            " items/s, then its other limit is the bottleneck",
            16_000,
        ),
        (
            [Limit(rate=4_000, period=7, cost=80)],
            {},
            " per 7 s instead of 4,000 per 7 s would lift it to ",
            28_000,
        ),
        (
            [Limit(rate=10_000, period=1, cost=800)],
            {"fails": 2},
            "/s instead of 10,000/s would lift it to ",
            60_000,
        ),
    ],
    ids=["a function", "another rate", "another concurrency", "another period", "retries"],
)
def test_limit_of_which_tries_cost_more_than_one(
    limits: list[Limit], again: dict[str, int], said: str, change: float
) -> None:
    """The rate to go for is given as the limit's own is; another limit may be the next one."""
    inner = taking(0.2)

    async def task(number: int) -> int:
        await inner(number)
        item = current_item()
        if again and number % again["fails"] == 0 and item is not None and item.attempt == 1:
            raise ConnectionError("once")
        return number

    stages = [
        Stage("Ask", 20, [task], limits=limits, task_wait_seconds=0),
        Stage("Save", 10, [taking(0.2)]),
    ]

    async def program() -> Watching:
        await Pipeline(stages).run(range(100))  # what this was charged does not count
        return await watch(stages, range(350))

    watching = run_virtual(program)
    advice = watching.at(20).advice
    assert (advice.lever, advice.stage) == ("limit", "Ask")
    assert said in advice.sentence
    assert advice.change == pytest.approx(change, rel=0.06)
    assert "More workers would not." in advice.sentence
    assert "would have lifted it to " in watching.last.advice.sentence


def test_numbers_of_a_limit_are_written_out() -> None:
    """As people write them, however large."""
    stages = [
        Stage("Ask", 300, [taking(0.01)], limits=[Limit(rate=900, period=1)]),
        Stage("Save", 20, [taking(0.01)], queue_capacity=2000),
    ]
    sentence = run_virtual(lambda: watch(stages, range(9000))).at(7).advice.sentence
    assert re.search(r"At \d,\d\d0/s Save is the bottleneck", sentence), sentence


async def one_call(number: int) -> int:
    async with concurrency_limit():
        await asyncio.sleep(1)
    return number


async def one_of_a_rate(number: int) -> int:
    async with rate_limit():
        await asyncio.sleep(1)
    return number


async def several_calls(number: int) -> int:
    """Makes five calls at once; alone it could make them in a second."""
    await asyncio.gather(*[one_call(number) for _ in range(5)])
    return number


@pytest.mark.parametrize(
    ("workers", "options", "task"),
    [
        (10, {"task_concurrency_limits": {"task": 2}}, taking(1)),
        (10, {"call_concurrency": 2}, one_call),
        (10, {"call_rate": 2, "call_rate_period": 1.0}, one_of_a_rate),
        (10, {"call_concurrency": 2}, several_calls),
        (1, {"call_concurrency": 2}, several_calls),
    ],
    ids=[
        "task_concurrency_limits",
        "concurrency_limit",
        "rate_limit",
        "several calls of ten",
        "several calls of one",
    ],
)
def test_limit_inside_a_task(workers: int, options: Any, task: Task) -> None:
    """A limit that a task meets is the same: it is named, and no more workers are promised."""
    stages = [Stage("Fetch", workers, [task], **options), Stage("Parse", 5, [taking(0.5)])]
    watching = run_virtual(lambda: watch(stages, range(60)))
    for view in both(watching, 20):
        assert (view.advice.lever, view.advice.stage) == ("limit", "Fetch")
        assert "more workers would not" in view.advice.sentence
        assert sum(shares_of(view.stages[0])) == pytest.approx(1)
    strip = worker_strips(watching.at(20).snapshot)[0]
    assert strip.doing.count("limited") >= strip.doing.count("running")


def test_no_gain_is_promised_where_a_limit_is_near() -> None:
    """Nine of ten workers may be at it at once: with more of them there would still be nine."""
    stages = [
        Stage("Fetch", 5, [taking(0.1)]),
        Stage("Parse", 10, [taking(1)], limits=[Limit(concurrency=9)]),
    ]
    watching = run_virtual(lambda: watch(stages, range(600)))
    for view in both(watching, 30):
        assert (view.advice.lever, view.advice.stage) == ("workers", "Parse")
        assert "its limit held them 10% of the time, so more" in view.advice.sentence


@pytest.mark.parametrize(
    "options",
    [
        {"limits": [Limit(concurrency=10), Limit(concurrency=12)]},
        {"task_concurrency_limits": {"task": 10}},
        {"call_concurrency": 10},
    ],
)
def test_no_gain_is_promised_where_a_limit_lets_in_as_many_as_there_are(options: Any) -> None:
    """A limit of as many as there are workers holds nobody up, and would hold up all others."""
    stages = [Stage("Fetch", 5, [taking(0.1)]), Stage("Parse", 10, [taking(1)], **options)]
    watching = run_virtual(lambda: watch(stages, range(600)))
    for view in both(watching, 30):
        assert (view.advice.lever, view.advice.stage) == ("workers", "Parse")
        assert "its limit lets 10 in at once, so more workers alone" in view.advice.sentence


def test_gain_is_no_more_than_a_limit_lets_in() -> None:
    """Where a limit lets in half as many again, so many workers are promised to help."""
    stages = [
        Stage("Fetch", 5, [taking(0.1)]),
        Stage("Parse", 10, [taking(1)], limits=[Limit(concurrency=15)]),
    ]
    watching = run_virtual(lambda: watch(stages, range(600)))
    for view in both(watching, 30):
        assert view.stages[1].hint == "+5 workers: +50%"


def test_service_that_asks_for_patience() -> None:
    """`RetryAfter` holds all tries: neither more workers nor a higher limit would help."""
    calls: list[int] = []

    async def task(number: int) -> int:
        calls.append(number)
        await asyncio.sleep(0.1)
        if len(calls) % 5 == 0:
            raise RetryAfter(10)
        return number

    stages = [Stage("Fetch", 4, [task], limits=[Limit(concurrency=100)])]
    watching = run_virtual(lambda: watch(stages, range(200)))
    for view in both(watching, 100):
        assert (view.advice.lever, view.advice.stage) == ("service", "Fetch")
        assert "neither more workers nor a higher limit" in view.advice.sentence


def test_slow_consumer() -> None:
    """Who takes the results out of `stream` is slow: no stage is to blame."""

    async def consume() -> Watching:
        watching = Watching(with_eta=False)
        pipeline = Pipeline([Stage("Fetch", 5, [taking(0.2)]), Stage("Parse", 5, [taking(0.2)])])
        stream = pipeline.stream(range(300), custom_dashboard=watching, buffer_size=0)
        async for _ in stream:
            await asyncio.sleep(1)
        return watching

    watching = run_virtual(consume)
    for view in both(watching, 150):
        assert (view.advice.lever, view.advice.stage) == ("consumer", "Parse")
        assert view.stages[0].hint == "waits for Parse"
        assert view.stages[1].hint == "waits for the consumer"


def test_slow_callback_of_a_tracker() -> None:
    """A tracker's callback makes the workers wait where the next stage has nothing to do."""

    async def tell(event: object) -> None:
        if getattr(event, "status", "") == "completed" and getattr(event, "stage", "") == "Fetch":
            await asyncio.sleep(5)

    async def program() -> Watching:
        watching = Watching(with_eta=False)
        tracker = StatusTracker(on_status_change=tell)
        stages = [Stage("Fetch", 5, [taking(0.2)]), Stage("Parse", 5, [taking(0.2)])]
        await Pipeline(stages, status_tracker=tracker).run(range(200), custom_dashboard=watching)
        return watching

    watching = run_virtual(program)
    for view in both(watching, 100):
        assert (view.advice.lever, view.advice.stage) == ("callbacks", "Fetch")


def test_retries_that_wait() -> None:
    """Nearly everything fails and waits for its next try."""

    async def task(number: int) -> int:
        await asyncio.sleep(0.1)
        raise ConnectionError("down")

    stages = [Stage("Fetch", 2, [task], task_attempts=5, task_wait_seconds=60)]
    watching = run_virtual(lambda: watch(stages, range(200)))
    assert watching.at(200).advice.lever == "retries"


def test_pause_is_not_blamed_on_a_stage() -> None:
    """While a run is paused nothing holds it back, and the pause does not count at the end."""

    async def program() -> Watching:
        watching = Watching(with_eta=False)
        pipeline = Pipeline([Stage("Fetch", 5, [taking(0.1)]), Stage("Parse", 2, [taking(1)])])
        async with pipeline.open() as run:
            feeding = asyncio.ensure_future(run.feed(range(300)))
            for moment in range(1000):
                if moment == 100:
                    run.pause()
                if moment == 900:
                    run.resume()
                watching.on_update(run.snapshot())
                await asyncio.sleep(0.5)
            await feeding
        watching.on_update(pipeline.get_dashboard_snapshot())
        return watching

    watching = run_virtual(program)
    assert watching.at(40).advice.stage == "Parse"
    for moment in (51, 60, 200, 449):
        assert watching.at(moment).advice.lever == "none"
    for view in (watching.at(452), watching.last):
        assert (view.advice.lever, view.advice.stage) == ("workers", "Parse")
        assert sum(shares_of(view.stages[0])) == pytest.approx(1)
    assert "Its 2 workers were busy 99% of the time" in watching.last.advice.sentence


def test_workers_that_were_added_meanwhile() -> None:
    """What a stage could do is counted with the workers it has now."""

    async def program() -> Watching:
        watching = Watching(with_eta=False)
        pipeline = Pipeline([Stage("Fetch", 5, [taking(0.1)]), Stage("Parse", 2, [taking(1)])])
        async with pipeline.open() as run:
            feeding = asyncio.ensure_future(run.feed(range(2000)))
            for moment in range(100):
                if moment == 60:
                    run.set_workers("Parse", 50)
                watching.on_update(run.snapshot())
                await asyncio.sleep(0.5)
            await feeding
        return watching

    watching = run_virtual(program)
    assert "2 more workers would lift the rate by up to 100%" in watching.at(29).advice.sentence
    assert "Fetch is hardly less busy, so more workers" in watching.at(42).advice.sentence


@pytest.mark.parametrize("before", [[], [Stage("List", 2, [taking(0.1)])]])
def test_no_gain_is_promised_where_the_source_is_hardly_faster(before: list[Stage]) -> None:
    """A stage that could do little more than it is given is no reason for more workers."""

    async def items() -> AsyncIterator[int]:
        for number in range(200):
            await asyncio.sleep(0.9)
            yield number

    stages = [*before, Stage("Fetch", 1, [taking(0.8)])]
    watching = run_virtual(lambda: watch(stages, items()))
    told = {view.advice for view in watching.views if view.advice.lever == "workers"}
    assert any(
        "hardly any faster, so more workers alone would help little" in b.sentence for b in told
    )
    assert not any("would lift" in b.sentence for b in told if b.share < 0.95)
    assert "would have lifted" not in watching.last.advice.sentence


def test_nothing_stands_out() -> None:
    """Ten items for ten workers: nobody holds anybody back, and nothing is claimed."""
    stages = [Stage("Fetch", 10, [taking(1)]), Stage("Parse", 10, [taking(1)])]
    watching = run_virtual(lambda: watch(stages, range(10)))
    assert watching.last.advice.lever == "none"
    assert watching.last.advice.sentence == ""


@pytest.mark.parametrize(
    "next_slowest",
    [0.9, 0.5, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.75, 0.2))],
)
def test_promised_gain_is_what_comes(next_slowest: float) -> None:
    """With the workers that were advised the rate rises as it was said, within five points."""

    def stages(more: int) -> list[Stage]:
        return [
            Stage("Fetch", 10, [taking(2 * next_slowest, 1)], queue_capacity=500),
            Stage("Parse", 10 + more, [taking(2, 2)], queue_capacity=500),
        ]

    watching = run_virtual(lambda: watch(stages(0), range(3000)))
    advice = watching.at(500).stages[1].hint  # "+5 workers: +50%"
    more, gain = advice.partition(" ")[0], advice.rpartition("+")[2].removesuffix("%")
    after = run_virtual(lambda: watch(stages(int(more)), range(3000)))
    possible = min(1 / next_slowest, 2) - 1
    assert int(gain) / 100 == pytest.approx(possible, abs=0.1)
    lifted = after.last.progress.per_second / watching.last.progress.per_second - 1
    assert lifted == pytest.approx(int(gain) / 100, abs=0.06)


# In values


def stage(name: str = "Only", workers: int = 4, children: float = 0.0) -> StageStats:
    return StageStats(
        name,
        *(0, workers, 100, 0),
        workers=workers,
        capacity=40,
        child_cpu_seconds=children,
        first_tries=FirstTries(workers, 1.0, 1.0, 0.0) if workers > 1 else FirstTries(),
    )


def span(
    *spent: Spent,
    blocked: float = 0.0,
    computed: float = 0.0,
    children: float = 0.0,
    left: int = 100,
) -> Moment:
    marks = tuple(Marks(tries=round(each.busy)) for each in spent)  # of a second each
    done = (left,) * len(spent)
    return Moment(10.0, blocked, computed, 10.0, spent, done, children, marks=marks)


def found_in(
    stages: list[StageStats],
    seen: Moment,
    state: RunState = "running",
    stall: LoopStall | None = None,
) -> Advice:
    return advise(Case(stages, seen, seen, state, LoopHealth(last_stall=stall)))


def test_blocked_loop_comes_first() -> None:
    """Where something blocks the loop it is named with its place, whatever the workers say."""
    stall = LoopStall(0.4, 0.0, "Parse", "Parse-W0", 7, "app.py:41 in parse", "time.sleep(0.4)")
    found = found_in([stage("Parse")], span(Spent(busy=10, stalled=30), blocked=7.5), stall=stall)
    assert (found.lever, found.stage) == ("loop", "Parse")
    assert "blocked it at least 75% of the time, last by stage Parse" in found.sentence
    assert "at app.py:41 in parse: time.sleep(0.4)" in found.sentence


def test_blocked_loop_is_told_without_a_place_if_none_was_seen() -> None:
    """Without a place there is none in the sentence."""
    found = found_in([stage()], span(Spent(stalled=40), blocked=10.0))
    assert (found.lever, found.stage) == ("loop", None)
    assert "100% of the time. An async call" in found.sentence


def test_computing_workers() -> None:
    """Workers that compute have the processor for a limit: more of them would not help."""
    found = found_in([stage()], span(Spent(busy=40), computed=9.9))
    assert (found.lever, found.stage) == ("processor", "Only")
    assert 'executor="process"' in found.sentence


def test_processor_that_has_no_time_left() -> None:
    """Where no stage stands out and the process computes all the time, no stage is blamed."""
    found = found_in([stage()], span(Spent(busy=20, starved=20), computed=9.9))
    assert (found.lever, found.stage) == ("processor", None)


@pytest.mark.parametrize(
    ("computed", "advice"), [(6.5, "+3 workers: +54%"), (7.0, "+2 workers: +43%")]
)
def test_gain_is_no_more_than_the_processor_allows(computed: float, advice: str) -> None:
    """Python computes on one core: what is used of it already cannot be had for more workers."""
    assert found_in([stage()], span(Spent(busy=40), computed=computed)).hint == advice


def test_processes_that_use_all_cores() -> None:
    """Where child processes leave nothing of the machine, no more workers are promised."""
    seen = span(Spent(busy=40), computed=0.5, children=78.5)
    found = found_in([stage(children=78.5)], seen)
    assert (found.lever, found.stage, found.hint) == ("processor", "Only", "no processor left")
    assert found.sentence == (
        "Bottleneck: Only. 4 of 4 workers busy; this process and its children computed on 7.9 "
        "cores meanwhile, so more workers would help little on this machine."
    )


@pytest.mark.parametrize(
    ("children", "advice"),
    [(10.0, "+4 workers: +100%"), (50.0, "+3 workers: +60%"), (55.0, "+2 workers: +45%")],
)
def test_gain_is_no_more_than_the_cores_allow(children: float, advice: str) -> None:
    """Child processes have one core each, and what they leave can be had for more workers."""
    seen = span(Spent(busy=40), children=children)
    assert found_in([stage(children=children)], seen).hint == advice


def test_processes_behind_a_process_that_is_busy_itself() -> None:
    """Who feeds the child processes has no time left: who has processes is not told to have some.

    A stage that has none is.
    """
    spent = Spent(busy=40), Spent(busy=20, starved=20)
    seen = span(*spent, computed=9.9, children=20)
    found = found_in([stage(children=20), stage("Other")], seen)
    assert (found.lever, found.hint) == ("processor", "no processor left")
    assert found.sentence.endswith(
        "this process computed on 1.0 cores meanwhile, so more workers would help little."
    )
    found = found_in([stage(), stage("Other", children=20)], seen)
    assert found.hint == "needs processes"
    assert found.sentence.endswith(
        'help little; CPU-bound tasks would be better off with executor="process".'
    )


def test_no_processes_where_there_is_no_core_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of one core the advice to compute elsewhere would be a bad one."""
    monkeypatch.setattr(processor, "CORES", 1)
    for spent in (Spent(busy=40), Spent(busy=20, starved=20)):
        found = found_in([stage()], span(spent, computed=9.9))
        assert found.lever == "processor"
        assert "process" in found.sentence
        assert "executor" not in found.sentence


@pytest.mark.parametrize(
    ("children", "computed", "says"),
    [
        ((0.0, 0.0), 9.9, 'Plain functions with executor="process" would take work off it.'),
        ((5.0, 0.0), 9.9, 'Plain functions with executor="process" would take work off it.'),
        ((5.0, 5.0), 9.9, "T[^.]*1.0 cores, and the workers waited for their turn."),
        ((40.0, 39.0), 0.5, "This process and its children computed on 8.0 cores, [^.]* more."),
        ((0.0, 0.0), 79.0, "This process computed on 7.9 cores, [^.]*; this machine has hardly"),
    ],
)
def test_processor_where_no_stage_stands_out(
    children: tuple[float, float], computed: float, says: str
) -> None:
    """It says whose processor time is used up, and advises only what can help."""
    stages = [stage("A", children=children[0]), stage("B", children=children[1])]
    spent = Spent(busy=20, starved=20), Spent(busy=20, starved=20)
    found = found_in(stages, span(*spent, computed=computed, children=sum(children)))
    assert (found.lever, found.stage) == ("processor", None)
    assert re.search(says, found.sentence)
    assert ("executor" in found.sentence) == ("executor" in says)
    assert 0 < found.share <= 1


def test_last_items_of_a_run_are_not_a_bottleneck() -> None:
    """When nothing comes any more and a worker has nothing to do, more workers would not help."""
    straggling = StageStats("Only", 0, 1, 100, 0, workers=4, capacity=40)
    seen = span(Spent(busy=36, starved=4))
    assert found_in([straggling], seen, "draining").lever == "none"
    assert found_in([straggling], seen, "running").lever == "workers"


def test_nothing_is_promised_for_a_stage_that_was_busy_half_of_the_time() -> None:
    """At the end the busiest is named; that it held the run back all the time is not claimed."""
    spent = Spent(busy=24, starved=16), Spent(busy=10, starved=30)
    seen = Moment(10.0, 0.0, 0.0, 10.0, spent, (100, 100))
    stages = [StageStats("A", 0, 0, 5, 0, workers=4), StageStats("B", 0, 0, 5, 0, workers=4)]
    assert found_in(stages, seen, "finished").sentence == (
        "Bottleneck: A. Its 4 workers were busy 60% of the time, "
        "more than those of any other stage."
    )


def test_source_is_not_blamed_for_what_comes_after_its_end() -> None:
    """The first stage had nothing to do because all items were in: the slow one is named."""
    spent = Spent(busy=4, starved=36), Spent(busy=26, starved=14)
    seen = Moment(10.0, 0.0, 0.0, 1.0, spent, (100, 100))
    found = found_in([stage("Fetch"), stage("Parse")], seen, "finished")
    assert (found.lever, found.stage) == ("workers", "Parse")


def test_source_is_not_blamed_where_there_are_few_items() -> None:
    """With fewer items than two for each worker most of them idle, whoever gives the items."""
    spent = Spent(busy=4, starved=36)
    assert found_in([stage(workers=101)], span(spent)).lever == "none"
    assert found_in([stage(workers=100)], span(spent)).lever == "source"


def test_moments_add_up() -> None:
    """What came between two moments, and the earlier one, make the later one."""
    earlier = Moment(1.0, 2.0, 3.0, 4.0, (Spent(busy=5.0),), (6,), 7.0)
    later = Moment(11.0, 22.0, 33.0, 44.0, (Spent(busy=55.0, limited=1.0),), (66,), 77.0)
    assert later.since(earlier).children_computed == 70.0
    assert later.since(earlier).plus(earlier) == later


def test_moment_keeps_the_processes_apart() -> None:
    """What the children of the stages have computed is no part of what this process has."""
    stages = {"A": StageStats("A", 0, 0, 0, 0, child_cpu_seconds=4.0), "B": stage("B")}
    snapshot = DashboardSnapshot(
        {}, {}, PipelineStats(0, 0, 0, {}, stages), ErrorSummary(0, {}, {}, []), 0.0, cpu_seconds=10
    )
    moment = Moment.of(Figures.of(snapshot))
    assert (moment.computed, moment.children_computed) == (6.0, 4.0)


def test_gain_counts_what_does_not_come_that_far() -> None:
    """Half of the items fail: the stage after it could take twice as many as it is given."""
    first = StageStats("A", 0, 4, 100, 100, workers=4, capacity=40)
    second = StageStats("B", 0, 0, 100, 0, workers=4, capacity=40)
    spent = Spent(busy=40), Spent(busy=30, starved=10)
    seen = Moment(10.0, 0.0, 0.0, 10.0, spent, (200, 100))
    assert found_in([first, second], seen).hint == "+2 workers: up to +33%"


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_last_sentence_without_what_was_cancelled(is_cancelled: bool) -> None:
    """A run that is cancelled is judged like one that is not: by what its stages had done."""

    async def program() -> tuple[Advice, float]:
        stages = [Stage(name, 4, [taking(time)]) for name, time in (("Get", 0.4), ("Do", 0.5))]
        pipeline = Pipeline(stages)
        run = asyncio.ensure_future(pipeline.run(range(400)))
        await asyncio.wait([run], timeout=30 if is_cancelled else None)
        run.cancel()
        await asyncio.wait([run])
        snapshot, what_if = pipeline.get_dashboard_snapshot(), pipeline.what_if({"Get": 40})
        assert (snapshot.pipeline_stats.items_cancelled > 50) == is_cancelled
        assert what_if is not None
        per_second = snapshot.pipeline_stats.items_accepted / what_if.longest
        return snapshot.advice, per_second

    advice, per_second = run_virtual(program)
    assert (advice.lever, advice.stage) == ("workers", "Do")
    assert advice.gain == pytest.approx((0.25, 0.25), rel=0.1)
    assert 7 < per_second < 4 / 0.5


def test_two_stages_that_are_equally_slow() -> None:
    """More workers for one of two would gain nothing: both are named."""
    stages = [stage("A"), stage("B")]
    found = found_in(stages, span(Spent(busy=39, starved=1), Spent(busy=38, starved=2)))
    assert "Bottleneck: B. 4 of 4 workers busy; A is hardly less busy, so more" in found.sentence


def test_only_worker() -> None:
    """One worker is spoken of as one."""
    found = found_in([stage(workers=1)], span(Spent(busy=10)))
    assert found.sentence == (
        "Bottleneck: Only. Its only worker is busy; "
        "1 more worker would lift the rate by up to 100%."
    )


def test_spent_has_every_activity() -> None:
    """Each way to spend a second has a share; work in an abandoned thread is part of busy."""
    assert {*Spent._fields, "thread"} == set(ACTIVITIES)


seconds = st.floats(0, 1e6)


@given(st.lists(st.builds(Spent, *[seconds] * 6), min_size=1, max_size=6), *[seconds] * 3)
@example([Spent(0.0, 0.9, 0.0, 0.0, 0.0, 0.0)], 0.0, 0.0, 0.0)
def test_shares_add_up(
    spent: list[Spent], blocked: float, computed: float, children: float
) -> None:
    """The six shares are parts of one whole, and whatever they are there is an answer."""
    for each in spent:
        shares = each.shares()
        assert all(0 <= share <= 1 for share in shares)
        assert sum(shares) == pytest.approx(1.0 if sum(each) else 0.0)
    stages = [stage(f"S{n}") for n in range(len(spent))]
    seen = span(*spent, blocked=blocked, computed=computed, children=children)
    states: tuple[RunState, ...] = ("running", "draining", "finished")
    for state in states:
        found = found_in(stages, seen, state)
        assert found.stage is None or found.stage in [each.stage_name for each in stages]
        assert 0 <= found.share <= 1


def test_no_stages_and_no_time() -> None:
    """Before anything has happened there is nothing to say."""
    assert found_in([], span()).lever == "none"
    assert found_in([stage()], Moment(0, 0, 0, 0, (Spent(),), (0,))).lever == "none"


def test_tries_that_share_something() -> None:
    """A semaphore behind the workers: that more of them would help is not claimed."""

    async def program(width: int) -> Watching:
        pool = asyncio.Semaphore(width)

        async def task(number: int) -> int:
            async with pool:
                await asyncio.sleep(1)
            return number

        return await watch(
            [Stage("Fetch", 10, [taking(0.2)]), Stage("Ask", 12, [task])], range(300)
        )

    for view in both(run_virtual(lambda: program(2)), 60):
        assert (view.advice.lever, view.advice.stage) == ("shared", "Ask")
        assert "so more workers would not help" in view.advice.sentence
    for view in both(run_virtual(lambda: program(12)), 15):
        assert view.advice.hint == "+12 workers: +100%"


def test_tries_that_fail() -> None:
    """Most tries fail: that is what to change, and no workers are promised to help."""
    dice = random.Random(1)

    async def flaky(number: int) -> int:
        await asyncio.sleep(1)
        if dice.random() < 0.6:
            raise ConnectionError("no")
        return number

    stages = [Stage("Ask", 10, [flaky], task_attempts=20, task_wait_seconds=0)]
    for view in both(run_virtual(lambda: watch(stages, range(300))), 50):
        assert (view.advice.lever, view.advice.stage) == ("errors", "Ask")
        assert re.search("[56].% of this went into tries that failed", view.advice.sentence)
        assert view.advice.gain is not None
        assert 1 < view.advice.gain[1] < 2


def test_last_item() -> None:
    """At the end of a run a slow item is named, with its time."""

    async def task(number: int) -> int:
        await asyncio.sleep(60 if number == 95 else 1)
        return number

    watching = run_virtual(lambda: watch([Stage("Ask", 5, [task])], range(100)))
    assert watching.at(70).advice.sentence == "Waiting for item 95 in Ask, 0:51."
    assert watching.at(70).advice.lever == "item"
    assert watching.last.advice.lever != "item"


def test_queue_that_is_shorter_than_a_batch() -> None:
    """Batches cannot fill up: the queue is to be longer, and no workers are advised."""

    async def write(numbers: list[int]) -> list[int]:
        await asyncio.sleep(1)
        return numbers

    stages = [
        Stage("Fetch", 20, [taking(0.1)]),
        Stage("Write", 2, [write], batch=50, batch_wait=0.2, queue_capacity=10),
    ]
    for view in both(run_virtual(lambda: watch(stages, range(2000))), 10):
        assert (view.advice.lever, view.advice.stage) == ("queue", "Write")
        assert view.advice.change == 100


def test_cancelled_items_are_not_work_that_was_done() -> None:
    """Items cancelled in a queue do not make their stage look faster than it is."""
    stages = [
        Stage("Fetch", 50, [taking(0.5)]),
        Stage("Ask", 50, [taking(1.5, 2)], queue_capacity=1000),
    ]
    watching = Watching(with_eta=False)

    async def program() -> None:
        with pytest.raises(TimeoutError):
            await Pipeline(stages).run(range(10_000), custom_dashboard=watching, timeout=20)

    run_virtual(program)
    for view in (watching.views[-2], watching.last):
        assert (view.advice.stage, view.advice.hint) == ("Ask", "+50 workers: +100%")


@pytest.mark.parametrize("width", [2, 40])
def test_what_came_of_more_workers(width: int) -> None:
    """After a change of workers the advice says what was predicted and what came of it."""

    async def program() -> Watching:
        pool, watching = asyncio.Semaphore(width), Watching(with_eta=False)

        async def task(number: int) -> int:
            async with pool:
                await asyncio.sleep(1)
            return number

        pipeline = Pipeline([Stage("Fetch", 20, [taking(0.1)]), Stage("Ask", 2, [task])])
        async with pipeline.open() as run:
            feeding = asyncio.ensure_future(run.feed(range(500)))
            for moment in range(120):
                if moment == 60:
                    run.set_workers("Ask", 4)
                watching.on_update(run.snapshot())
                await asyncio.sleep(0.5)
            run.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        return watching

    advice = run_virtual(program).at(55).advice
    if width == 2:
        assert advice.lever == "shared"
        assert "2 more workers: predicted +100%, got +0%" in advice.sentence
    else:
        assert advice.lever == "workers"
        assert "2 more workers: predicted +100%, got +100%. 4 more workers" in advice.sentence


def test_what_came_of_more_workers_that_had_nothing_to_do() -> None:
    """More workers of a stage that another one held back say nothing of what the stage can do."""

    async def program() -> Watching:
        watching = Watching(with_eta=False)
        pipeline = Pipeline([Stage("Fetch", 6, [taking(0.2)]), Stage("Save", 3, [taking(0.2)])])
        async with pipeline.open() as run:
            feeding = asyncio.ensure_future(run.feed(range(5000)))
            for moment in range(120):
                if moment == 10:
                    run.set_workers("Fetch", 12)
                if moment == 100:
                    run.set_workers("Save", 30)
                watching.on_update(run.snapshot())
                await asyncio.sleep(1)
            run.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        return watching

    watching = run_virtual(program)
    assert watching.at(95).advice.stage == "Save"
    said = watching.at(112).advice
    assert (said.lever, said.stage) == ("workers", "Fetch")
    assert "got" not in said.sentence
    assert said.gain == (1.0, 1.0)


def test_limit_that_stages_share() -> None:
    """A higher limit frees all stages that share it, until the workers of one are the limit."""
    limit = Limit(6)
    stages = [
        Stage("Ask", 10, [taking(0.05)], limits=[limit]),
        Stage("Tell", 10, [taking(0.4)], limits=[limit]),
    ]
    advice = run_virtual(lambda: watch(stages, range(700))).at(40).advice
    assert advice.stage == "Tell"
    assert "The limit that it shares with Ask held its workers" in advice.sentence
    assert "its workers are the bottleneck" in advice.sentence
    assert advice.change == pytest.approx(25, rel=0.1)
    assert advice.gain is not None
    assert advice.gain[1] == pytest.approx(0.85, abs=0.15)


def test_line_that_keeps_the_loop_busy_is_named() -> None:
    """Short blocks fill the time of the loop: the line is named, and no stage's workers are."""
    hot = HotSpot(0.9, "Parse", "app.py:3 in parse", "time.sleep(0.02)")
    seen = span(Spent(busy=40))._replace(worked=9.8)
    found = advise(Case([stage("Save")], seen, seen, loop=LoopHealth(hot_spot=hot)))
    assert (found.lever, found.stage) == ("loop", "Parse")
    assert "at work 98% of the time" in found.sentence
    assert "by stage Parse at app.py:3 in parse: time.sleep(0.02)" in found.sentence
    assert "An async call, or a plain function" in found.sentence


@pytest.mark.parametrize(
    ("lever", "spent"),
    [
        ("callbacks", (Spent(busy=4, blocked=36), Spent(busy=4, starved=36))),
        ("consumer", (Spent(busy=4, starved=36), Spent(busy=4, blocked=36))),
        ("source", (Spent(busy=4, starved=36), Spent(busy=4, starved=36))),
    ],
)
def test_workers_that_wait_for_their_turn(lever: str, spent: tuple[Spent, ...]) -> None:
    """While short steps leave the loop no time, nothing outside the stages is to blame."""
    stages = [stage("Fetch"), stage("Parse")]
    calm, hurried = span(*spent)._replace(worked=5.0), span(*spent)._replace(worked=9.8)
    assert advise(Case(stages, calm, calm)).lever == lever
    found = advise(Case(stages, hurried, hurried))
    assert (found.lever, found.stage) == ("loop", None)
    assert "at work 98% of the time in many short steps" in found.sentence


@pytest.mark.parametrize(("gil", "lever"), [(0.9, "processes"), (0.1, "workers")])
def test_threads_that_compute(gil: float, lever: str) -> None:
    """Threads that hold Python's lock are named; those that release it may be more."""
    seen = span(Spent(busy=20), Spent(busy=20, starved=20), computed=9.5)
    seen = seen._replace(marks=(Marks(computed=8.0, tries=20), Marks(computed=0.5, tries=20)))
    stages = [stage("Parse", 2), stage("Store")]
    found = advise(Case(stages, seen, seen, loop=LoopHealth(gil_share=gil)))
    assert (found.lever, found.stage) == (lever, "Parse")
    assert found.gain is not None
    assert ("executor" in found.sentence) == (lever == "processes")


# Planted, in real time: a loop with virtual time cannot be blocked


@pytest.mark.real_time
def test_blocking_call() -> None:
    """A task that sleeps without awaiting holds everybody up: it is named, with its line."""

    async def polite(number: int) -> int:
        await asyncio.sleep(0.01)
        return number

    async def rude(number: int) -> int:
        time.sleep(0.3)  # noqa: ASYNC251
        return number

    stages = [Stage("Fetch", 4, [polite]), Stage("Parse", 4, [rude]), Stage("Save", 4, [polite])]
    last = asyncio.run(watch(stages, range(4))).last
    assert (last.advice.lever, last.advice.stage) == ("loop", "Parse")
    assert "in rude: time.sleep(0.3)" in last.advice.sentence
    assert [each.is_bottleneck for each in last.stages] == [False, True, False]
    for each in last.stages:
        assert sum(shares_of(each)) == pytest.approx(1)
        assert each.recent.stalled > 0.5


@pytest.mark.real_time
def test_blocking_source() -> None:
    """A generator that blocks while it makes the items is named, and no stage is."""

    def items() -> Iterator[int]:
        for number in range(4):
            time.sleep(0.35)
            yield number

    async def quick(number: int) -> int:
        return number

    last = asyncio.run(watch([Stage("Fetch", 4, [quick])], items())).last
    assert (last.advice.lever, last.advice.stage) == ("loop", None)
    assert "in items: time.sleep(0.35)" in last.advice.sentence


# Planted, with real processes; how many cores there are is said, how many they get is not


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The children find the tasks."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.process
@pytest.mark.usefixtures("importable")
def test_processes_that_compute_on_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four that compute all the time where there is one core: the processor is named."""
    monkeypatch.setattr(processor, "CORES", 0.1)  # as much as they get beside many others
    stages = [Stage("Measure", 4, [process_tasks.compute], executor="process")]
    last = asyncio.run(watch(stages, [0.1] * 24)).last
    assert last.snapshot.cpu_seconds > 24 * 0.1
    found = last.advice
    assert (found.lever, found.stage, found.hint) == ("processor", "Measure", "no processor left")
    assert "this process and its children computed on " in found.sentence
    assert found.sentence.endswith("so more workers would help little on this machine.")


@pytest.mark.process
@pytest.mark.usefixtures("importable")
def test_process_that_computes_beside_idle_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that computes all the time where there are many cores: a second one is advised."""
    monkeypatch.setattr(processor, "CORES", 64)
    stages = [Stage("Measure", 1, [process_tasks.compute], executor="process")]
    last = asyncio.run(watch(stages, [0.1] * 15)).last
    assert last.snapshot.cpu_seconds > 15 * 0.1
    found = last.advice
    assert (found.lever, found.stage, found.hint) == (
        "workers",
        "Measure",
        "+1 worker: up to +100%",
    )
