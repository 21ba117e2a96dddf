"""How true `snapshot.eta` is: planted runs in virtual time, each frame held against what then came.

``python -m benchmarks.eta`` prints a row for each kind of run: in how many of its frames the range
held the truth, and how wide it was, as a part of what was left. Frames before a change that nothing
announced do not count. A row of runs that chance decides has all frames of five of them. Beside the
row stands the processor time of the ETAs: of the slowest, and a second of the run. Then it asks of
ten runs what if they had other numbers of workers, and runs them in that way, too.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from antflow import DashboardSnapshot, Drop, Limit, Pipeline, RunResults, Stage, WhatIf
from antflow.testing import run_virtual
from benchmarks.advice import PAGE
from benchmarks.page import write

Task = Callable[[Any], Awaitable[Any]]


@dataclass(slots=True)
class Frame:
    """What was said at one moment.

    Attributes:
        elapsed: When, in seconds of the run.
        shortest: Seconds; ``None``: nothing was said.
        longest: The same.
        counts: Whether it could be known by then.
        words: `Eta.waits_for`.
    """

    elapsed: float
    shortest: float | None
    longest: float | None
    counts: bool
    words: str = ""


@dataclass(slots=True)
class Watch:
    """A display that notes the ETA twice a second, or a thousand times a run.

    Attributes:
        frames: What was said.
        changed: When the last change came that nothing had announced.
        slowest: Seconds of processor time that the slowest ETA took.
        spent: The same, of all of them.
    """

    frames: list[Frame] = field(default_factory=list)
    changed: float = 0.0
    slowest: float = 0.0
    spent: float = 0.0

    def on_update(self, snapshot: DashboardSnapshot) -> None:
        """Note the ETA of a snapshot."""
        began = time.thread_time()
        eta = snapshot.eta
        passed = time.thread_time() - began
        self.slowest = max(self.slowest, passed)
        self.spent += passed
        counts = snapshot.state in ("running", "draining")
        if eta is None:
            self.frames.append(Frame(snapshot.elapsed, None, None, counts))
        else:
            words = eta.waits_for
            self.frames.append(Frame(snapshot.elapsed, eta.shortest, eta.longest, counts, words))


@dataclass(frozen=True, slots=True)
class Held:
    """How true the frames of one run were.

    Attributes:
        share: Frames whose range held the truth, of those that count.
        width: Mean width of the range, as a part of what was left.
        late_width: The same after 20 % of the run.
        silent: The share of the frames, of those that count, in which nothing was said.
    """

    share: float
    width: float
    late_width: float
    silent: float


LEAST = 2.0
"""Seconds of what was left below which a width says nothing."""

SLACK = 0.2
"""Seconds that a display, which shows whole seconds, cannot tell."""


def held(watch: Watch) -> Held:
    """Hold the frames of a run that is over against what then came."""
    end = watch.frames[-1].elapsed
    frames = [each for each in watch.frames if each.counts and each.elapsed >= watch.changed]
    said = [each for each in frames if each.shortest is not None]
    right = 0
    widths: list[float] = []
    late: list[float] = []
    for frame in said:
        assert frame.shortest is not None
        assert frame.longest is not None
        truth = end - frame.elapsed
        right += frame.shortest - SLACK <= truth <= frame.longest + SLACK
        if truth >= LEAST:
            widths.append((frame.longest - frame.shortest) / truth)
            if frame.elapsed >= 0.2 * end:
                late.append(widths[-1])
    return Held(
        right / len(said) if said else 0.0,
        sum(widths) / len(widths) if widths else 0.0,
        sum(late) / len(late) if late else 0.0,
        1 - len(said) / len(frames) if frames else 1.0,
    )


# Tasks


def taking(seconds: float, spread: float = 0.5, seed: int = 1) -> Task:
    """A task that takes about this long, evenly spread."""
    dice = random.Random(seed)

    async def task(item: Any) -> Any:
        await asyncio.sleep(dice.uniform(1 - spread, 1 + spread) * seconds)
        return item

    return task


def pareto(index: float, least: float, seed: int = 1) -> Task:
    """A task with a heavy tail."""
    dice = random.Random(seed)

    async def task(item: Any) -> Any:
        await asyncio.sleep(least * dice.paretovariate(index))
        return item

    return task


def failing(share: float, seconds: float = 0.2, fails_after: float | None = None) -> Task:
    """A task that fails for a share of its tries."""
    dice = random.Random(3)

    async def task(item: Any) -> Any:
        fails = dice.random() < share
        await asyncio.sleep(seconds if fails_after is None or not fails else fails_after)
        if fails:
            raise TimeoutError("no answer")
        return item

    return task


async def slowly(count: int, seconds: float, seed: int = 5) -> AsyncIterator[int]:
    """Items that come at intervals of about this many seconds."""
    dice = random.Random(seed)
    for number in range(count):
        await asyncio.sleep(dice.expovariate(1 / seconds))
        yield number


# Runs

Program = Callable[[Watch], Awaitable[Any]]


def plain(
    stages: Callable[[], Sequence[Stage]], count: int, interval: float | None = None
) -> Program:
    """Run this many items through stages; look at intervals of this many seconds."""
    options: dict[str, Any] = {} if interval is None else {"dashboard_update_interval": interval}

    async def program(watch: Watch) -> None:
        with suppress(ExceptionGroup):
            await Pipeline(stages(), name="eta").run(
                range(count), custom_dashboard=watch, on_failures="ignore", **options
            )

    return program


def _one_slow(watch: Watch, at: int, seconds: float) -> Task:
    async def task(number: int) -> int:
        if number == at:
            # Twice as long as others take: from then on it can be seen.
            watch.changed = asyncio.get_running_loop().time() + 1.0
            await asyncio.sleep(seconds)
        else:
            await asyncio.sleep(0.5)
        return number

    return task


async def one_slow_item(watch: Watch) -> None:
    """The last of 600 items takes 25 s, the others half a second."""
    stage = Stage("Fetch", 10, [_one_slow(watch, 590, 25.0)])
    await Pipeline([stage]).run(range(600), custom_dashboard=watch)


async def slows_down(watch: Watch) -> None:
    """After a third of the items, each takes twice as long."""
    begun: list[int] = []
    dice = random.Random(7)

    async def task(number: int) -> int:
        begun.append(number)
        slow = len(begun) > 500
        if slow and not watch.changed:
            watch.changed = asyncio.get_running_loop().time() + 10.0
        await asyncio.sleep(dice.uniform(0.5, 1.5) * (2 if slow else 1))
        return number

    await Pipeline([Stage("Fetch", 10, [task])]).run(range(1500), custom_dashboard=watch)


async def slow_source(watch: Watch) -> None:
    """500 items, one every 0.2 s or so, from a source with known length."""
    stages = [Stage("Fetch", 10, [taking(0.5)])]
    await Pipeline(stages).run(slowly(500, 0.2), total=500, custom_dashboard=watch)


async def pause_and_resume(watch: Watch) -> None:
    """Paused for a minute in the middle."""
    pipeline = Pipeline([Stage("Fetch", 10, [taking(0.5)]), Stage("Save", 5, [taking(0.2)])])

    async def drive(run: Any) -> None:
        await asyncio.sleep(15)
        run.pause()
        await asyncio.sleep(60)
        run.resume()
        watch.changed = 75.0

    await _by_hand(pipeline, 800, watch, drive)


async def other_workers(watch: Watch) -> None:
    """Five workers, and after a quarter of the items twenty."""
    pipeline = Pipeline([Stage("Fetch", 5, [taking(0.5)]), Stage("Save", 20, [taking(0.2)])])

    async def drive(run: Any) -> None:
        await asyncio.sleep(30)
        run.set_workers("Fetch", 20)
        watch.changed = 31.0

    await _by_hand(pipeline, 1200, watch, drive)


async def _by_hand(
    pipeline: Pipeline[Any, Any],
    count: int,
    watch: Watch,
    drive: Callable[[Any], Awaitable[None]],
) -> None:
    async with pipeline.open(total=count) as run:
        driving = asyncio.ensure_future(drive(run))
        feeding = asyncio.ensure_future(run.feed(range(count)))
        joining = None
        while run.snapshot().state != "finished":
            watch.on_update(run.snapshot())
            if feeding.done() and joining is None:
                joining = asyncio.ensure_future(run.join())
            await asyncio.sleep(0.5)
        watch.on_update(run.snapshot())
        await driving


async def _children(item: int) -> list[int]:
    await asyncio.sleep(0.5)
    return [item] * (1 + item * 7 % 9)


def _dropping() -> Task:
    dice = random.Random(11)

    async def task(item: int) -> int:
        await asyncio.sleep(0.2)
        if dice.random() < 0.6:
            raise Drop
        return item

    return task


async def _of_batch(items: list[int]) -> list[int]:
    await asyncio.sleep(1 + 0.02 * len(items))
    return items


def _limited(number: int, workers: int, share: float, attempts: int) -> Stage:
    return Stage(
        f"S{number}",
        workers,
        [flaky(share, 0.4, number)],
        task_attempts=attempts,
        task_wait_seconds=4.0,
        limits=[Limit(rate=8 * workers, period=2), Limit(concurrency=workers // 2)],
    )


RUNS: dict[str, Program] = {
    "steady": plain(lambda: [Stage("A", 10, [taking(0.5)])], 1200),
    "steady, all take the same": plain(lambda: [Stage("A", 10, [taking(0.5, 0)])], 600),
    "twenty thousand items": plain(lambda: [Stage("A", 50, [taking(2.0)])], 20_000),
    "two stages, slow one first": plain(
        lambda: [Stage("A", 5, [taking(0.5)]), Stage("B", 10, [taking(0.3)])], 600
    ),
    "two stages, slow one last": plain(
        lambda: [Stage("A", 10, [taking(0.3)]), Stage("B", 5, [taking(0.5)])], 600
    ),
    "three stages, slow one first": plain(
        lambda: [
            Stage("A", 4, [taking(0.6)]),
            Stage("B", 10, [taking(0.3)]),
            Stage("C", 10, [taking(0.4)]),
        ],
        400,
    ),
    "three stages, slow one last": plain(
        lambda: [
            Stage("A", 10, [taking(0.3)]),
            Stage("B", 10, [taking(0.4)]),
            Stage("C", 4, [taking(0.6)], queue_capacity=0),
        ],
        400,
    ),
    "two stages, 2,000 items": plain(
        lambda: [Stage("A", 10, [taking(0.3)]), Stage("B", 5, [taking(0.5)])], 2_000
    ),
    "three stages, 2,000 items": plain(
        lambda: [
            Stage("A", 4, [taking(0.6)]),
            Stage("B", 10, [taking(0.3)]),
            Stage("C", 10, [taking(0.4)]),
        ],
        2_000,
    ),
    "limit with a full bucket": plain(
        lambda: [Stage("A", 40, [taking(0.2)], limits=[Limit(rate=300, period=30)])], 700
    ),
    "limit of a rate": plain(
        lambda: [Stage("A", 40, [taking(0.5)], limits=[Limit(rate=5, period=1)])], 400
    ),
    "limit of simultaneous tries": plain(
        lambda: [Stage("A", 40, [taking(0.5)], limits=[Limit(concurrency=4)])], 400
    ),
    "retries after 6 s": plain(
        lambda: [Stage("A", 10, [failing(0.25)], task_attempts=6, task_wait_seconds=6.0)], 1200
    ),
    "few items, retries after 30 s": plain(
        lambda: [Stage("A", 10, [failing(0.1)], task_attempts=4, task_wait_seconds=30.0)], 300
    ),
    "heavy tail": plain(lambda: [Stage("A", 10, [pareto(1.6, 0.2)])], 1000),
    "one slow item at the end": one_slow_item,
    "expand": plain(
        lambda: [Stage("A", 4, [_children], expand=True), Stage("B", 10, [taking(0.3)])], 300
    ),
    "drops": plain(lambda: [Stage("A", 10, [_dropping()]), Stage("B", 2, [taking(0.4)])], 700),
    "batches": plain(lambda: [Stage("A", 2, [_of_batch], batch=10, batch_wait=0.5)], 600),
    "slow source": slow_source,
    "pause and resume": pause_and_resume,
    "other workers": other_workers,
    "errors that come early": plain(
        lambda: [Stage("A", 10, [failing(0.3, 0.8, 0.05)], task_attempts=1)], 800
    ),
    "slows down at a third": slows_down,
    "100,000 items wait": plain(
        lambda: [
            Stage("A", 1000, [taking(0.05)]),
            Stage("B", 200, [taking(0.5)], queue_capacity=0),
        ],
        100_000,
        interval=0.1,
    ),
    "10 stages, 10,000 workers": plain(
        lambda: [Stage(f"S{n}", 1000, [taking(0.5 + 0.02 * n, 0.5, n)]) for n in range(10)],
        20_000,
        interval=0.1,
    ),
    "10 stages, half of the tries fail, limits": plain(
        lambda: [_limited(n, 40, 0.5, 20) for n in range(10)], 1500, interval=0.1
    ),
    "expand, then 9 stages with limits": plain(
        lambda: [
            Stage("A", 4, [_children], expand=True),
            *(_limited(n, 50, 0.3, 8) for n in range(9)),
        ],
        400,
        interval=0.1,
    ),
}


SEEDS = 5


def drawn(draw: Callable[[random.Random], float], seed: int) -> Task:
    """A task that takes a random time."""
    dice = random.Random(seed)

    async def task(item: Any) -> Any:
        await asyncio.sleep(draw(dice))
        return item

    return task


def flaky(share: float, seconds: float, seed: int) -> Task:
    """A task that fails for a share of its tries."""
    dice = random.Random(seed)

    async def task(item: Any) -> Any:
        fails = dice.random() < share
        await asyncio.sleep(seconds * dice.uniform(0.8, 1.2))
        if fails:
            raise TimeoutError("no answer")
        return item

    return task


def by_chance(
    draw: Callable[[random.Random], float], count: int = 600, workers: int = 10
) -> Callable[[int], Program]:
    """Runs whose tries take random times, by seed."""
    return lambda seed: plain(lambda: [Stage("A", workers, [drawn(draw, seed)])], count)


def full_heap(
    share: float, workers: int, wait: float, attempts: int, count: int
) -> Callable[[int], Program]:
    """Runs in which as many items as may wait for their next try, by seed."""
    return lambda seed: plain(
        lambda: [
            Stage(
                "A",
                workers,
                [flaky(share, 0.2, seed)],
                task_attempts=attempts,
                task_wait_seconds=wait,
            )
        ],
        count,
    )


BY_SEED: dict[str, Callable[[int], Program]] = {
    "exponential times": by_chance(lambda dice: dice.expovariate(2)),
    "100 items, exponential times": by_chance(lambda dice: dice.expovariate(0.5), 100),
    "200 items, 50 workers, exponential": by_chance(lambda dice: dice.expovariate(0.2), 200, 50),
    "lognormal times": by_chance(lambda dice: 0.3 * dice.lognormvariate(0, 1)),
    "Pareto times, index 2": by_chance(lambda dice: 0.2 * dice.paretovariate(2)),
    "Pareto times, index 1.5": by_chance(lambda dice: 0.2 * dice.paretovariate(1.5)),
    "Pareto times, index 1.2": by_chance(lambda dice: 0.2 * dice.paretovariate(1.2)),
    "one of 20 takes 25 times as long": by_chance(
        lambda dice: 0.2 if dice.random() < 0.95 else 5.0
    ),
    "half of the tries fail, 50 wait 20 s": full_heap(0.5, 5, 20, 8, 400),
    "a third fails, 20 wait 30 s": full_heap(0.3, 2, 30, 6, 300),
    "four fifths fail, 50 wait 10 s": full_heap(0.8, 5, 10, 20, 300),
}
ROWS: dict[str, list[Program]] = {name: [program] for name, program in RUNS.items()} | {
    name: [make(seed) for seed in range(SEEDS)] for name, make in BY_SEED.items()
}


# What if


@dataclass(frozen=True, slots=True)
class Question:
    """A run, and other numbers of workers for it.

    Attributes:
        stages: Makes its stages, for numbers of workers.
        count: How many items it has.
        workers: Stage name → how many workers.
        changed: The numbers asked about, where they differ.
    """

    stages: Callable[[dict[str, int]], list[Stage]]
    count: int
    workers: dict[str, int]
    changed: dict[str, int]


QUESTIONS: dict[str, Question] = {
    "one stage, twice the workers": Question(
        lambda w: [Stage("A", w["A"], [taking(0.5)])], 600, {"A": 5}, {"A": 10}
    ),
    "one stage, half the workers": Question(
        lambda w: [Stage("A", w["A"], [taking(0.5)])], 600, {"A": 10}, {"A": 5}
    ),
    "more workers for the slow stage": Question(
        lambda w: [Stage("A", w["A"], [taking(0.3)]), Stage("B", w["B"], [taking(0.6)])],
        500,
        {"A": 6, "B": 4},
        {"B": 20},
    ),
    "more workers for the fast stage": Question(
        lambda w: [Stage("A", w["A"], [taking(0.3)]), Stage("B", w["B"], [taking(0.6)])],
        500,
        {"A": 6, "B": 4},
        {"A": 20},
    ),
    "the limit decides": Question(
        lambda w: [Stage("A", w["A"], [taking(0.5)], limits=[Limit(rate=10, period=1)])],
        500,
        {"A": 3},
        {"A": 20},
    ),
    "retries after 6 s": Question(
        lambda w: [
            Stage("A", w["A"], [failing(0.2)], task_attempts=5, task_wait_seconds=6.0),
        ],
        1000,
        {"A": 4},
        {"A": 12},
    ),
    "heavy tail": Question(
        lambda w: [Stage("A", w["A"], [pareto(2.0, 0.2)])], 1000, {"A": 5}, {"A": 15}
    ),
    "expand": Question(
        lambda w: [
            Stage("A", w["A"], [_children], expand=True),
            Stage("B", w["B"], [taking(0.3)]),
        ],
        200,
        {"A": 4, "B": 5},
        {"B": 15},
    ),
    "drops": Question(
        lambda w: [Stage("A", w["A"], [_dropping()]), Stage("B", w["B"], [taking(0.4)])],
        700,
        {"A": 10, "B": 2},
        {"B": 6},
    ),
    "batches": Question(
        lambda w: [Stage("A", w["A"], [_of_batch], batch=10, batch_wait=0.5)],
        600,
        {"A": 2},
        {"A": 5},
    ),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, and what was true: seconds of a whole run.

    Attributes:
        before: With the workers that it had.
        truth: With the others.
        after: What its results said.
        halfway: What was said when half of the time was over, if it went on with the others.
        halfway_truth: How long that took.
    """

    before: float
    truth: float
    after: WhatIf
    halfway: WhatIf
    halfway_truth: float


def answered(question: Question) -> Answer:
    """Ask after a run and during one, and run it both ways, in virtual time."""

    async def run(workers: dict[str, int]) -> tuple[float, RunResults[Any]]:
        began = asyncio.get_running_loop().time()
        pipeline = Pipeline(question.stages(workers))
        results = await pipeline.run(range(question.count), on_failures="ignore")
        return asyncio.get_running_loop().time() - began, results

    async def change(at: float) -> tuple[WhatIf | None, float]:
        loop = asyncio.get_running_loop()
        pipeline = Pipeline(question.stages(question.workers))
        async with pipeline.open(total=question.count, on_failures="ignore") as handle:
            feeding = asyncio.ensure_future(handle.feed(range(question.count)))
            await asyncio.sleep(at)
            said = pipeline.what_if(question.changed)
            for name, count in question.changed.items():
                handle.set_workers(name, count)
            await feeding
        return said, loop.time()

    before, results = run_virtual(lambda: run(question.workers))
    after = results.what_if(question.changed)
    truth, _ = run_virtual(lambda: run(question.workers | question.changed))
    halfway, halfway_truth = run_virtual(lambda: change(before / 2))
    assert after is not None
    assert halfway is not None
    return Answer(before, truth, after, halfway, halfway_truth)


def watched(program: Program) -> Watch:
    """Run a program in virtual time."""
    watch = Watch()

    async def main() -> None:
        await program(watch)

    run_virtual(main, leftovers="cancel")
    return watch


def of_runs(names: Sequence[str]) -> list[str]:
    """The table of runs, as lines of Markdown."""
    lines = [
        "| runs | seconds | held | lowest | width | after 20 % | silent |",
        "|---|---|---|---|---|---|---|",
    ]
    everything: list[tuple[int, float]] = []
    for name, programs in ROWS.items():
        if names and name not in names:
            continue
        watches = list(map(watched, programs))
        results = list(map(held, watches))
        frames = [len(watch.frames) for watch in watches]
        shares = [result.share for result in results]
        share = _mean(shares, frames)
        everything += zip(frames, shares, strict=True)
        seconds = _mean([watch.frames[-1].elapsed for watch in watches])
        lowest = f"{min(shares):.0%}" if len(shares) > 1 else ""
        lines.append(
            f"| {name}{f', {len(programs)} runs' if lowest else ''} | {seconds:,.0f} | {share:.0%} "
            f"| {lowest} | {_mean([result.width for result in results]):.0%} "
            f"| {_mean([result.late_width for result in results]):.0%} "
            f"| {_mean([result.silent for result in results]):.0%} |"
        )
        slowest = max(watch.slowest for watch in watches)
        each_second = max(watch.spent / watch.frames[-1].elapsed for watch in watches)
        cost = f"{1000 * slowest:.1f} ms at most, {1000 * each_second:.1f} ms a second"
        print(f"{lines[-1]}  {cost}", flush=True)
    if everything:
        share = _mean([share for _, share in everything], [count for count, _ in everything])
        lines.append(f"| all frames | | {share:.0%} | | | | |")
        print(lines[-1])
    return lines


def _mean(values: Sequence[float], weights: Sequence[float] = ()) -> float:
    return fmean(values, weights or None)


def of_questions(names: Sequence[str]) -> list[str]:
    """The table of questions, as lines of Markdown."""
    lines = [
        "| what if | as it was | true | said after it | halfway: true | said halfway |",
        "|---|---|---|---|---|---|",
    ]
    for name, question in QUESTIONS.items():
        if names and name not in names:
            continue
        answer = answered(question)
        lines.append(
            f"| {name} | {answer.before:.1f} s | {answer.truth:.1f} s | {_said(answer.after)} "
            f"| {answer.halfway_truth:.1f} s | {_said(answer.halfway)} |"
        )
        print(lines[-1], flush=True)
    return lines


def main(arguments: Sequence[str]) -> int:
    """Print the tables, or those rows that are named; ``--page`` writes them into the docs."""
    names = [each for each in arguments if each != "--page"]
    parts = {"eta": of_runs(names), "what if": of_questions(names)}
    if "--page" in arguments:
        write(PAGE, parts)
    return 0


def _said(what_if: WhatIf) -> str:
    return f"{what_if.shortest:.1f}-{what_if.longest:.1f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
