"""The cost of watching: snapshots, displays, durations, the watch on the event loop: W6."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks import ours
from benchmarks.sample import Sample, Stopwatch, check, check_values
from benchmarks.tasks import STAGES, WORKERS, no_op
from benchmarks.workload import (
    Figure,
    Measure,
    Program,
    Round,
    Workload,
    cpu_us,
    extra,
    times_faster,
)

if TYPE_CHECKING:
    from antflow import DashboardSnapshot, Pipeline

LEVELS = ("progress", "compact", "detailed", "full")
INTERVAL = 0.1

# -- snapshots --------------------------------------------------------------------------------


def snapshots(workers: int, passed: int = 0, *, reads: bool = False) -> Measure:
    """Measure snapshots of a run whose workers are all busy, after ``passed`` items.

    Args:
        workers: How many workers it has.
        passed: How many items it has done.
        reads: Whether the counts of each snapshot are read.
    """

    async def measure(count: int) -> Sample:
        def snap(pipeline: Pipeline[Any, Any]) -> Sample:
            for _ in range(min(count, 5)):
                pipeline.get_dashboard_snapshot()
            with Stopwatch() as watch:
                for _ in range(count):
                    snapshot = pipeline.get_dashboard_snapshot()
                    if reads:
                        snapshot.pipeline_stats  # noqa: B018
            snapshot = pipeline.get_dashboard_snapshot()
            states = snapshot.worker_states.values()
            check("workers at work", sum(each.status == "busy" for each in states), workers)
            check("items", snapshot.pipeline_stats.items_processed, passed)
            return watch.sample(count)

        return await while_busy(workers, snap, passed)

    return measure


async def while_busy(
    workers: int, look: Callable[[Pipeline[Any, Any]], Sample], passed: int = 0
) -> Sample:
    """Call ``look`` when ``passed`` items are through and all workers of two stages are at work."""
    from antflow import Pipeline, Stage

    arrived, half = 0, workers // 2
    half_arrived, all_arrived, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def first(value: int) -> int:
        return value if value < passed or value % 2 else await wait(value)

    async def second(value: int) -> int:
        return value if value < passed else await wait(value)

    async def wait(value: int) -> int:
        nonlocal arrived
        arrived += 1
        if arrived == half:
            half_arrived.set()
        if arrived == workers:
            all_arrived.set()
        await ended.wait()
        return value

    pipeline = Pipeline([Stage("Fetch", half, [first]), Stage("Save", half, [second])])
    async with pipeline.open() as run:
        await run.feed(range(passed))
        while run.stats().items_processed < passed:
            await asyncio.sleep(0)
        # Odd numbers wait in the second stage, even ones in the first: `passed` is even.
        await run.feed(range(passed + 1, passed + 2 * half, 2))
        await half_arrived.wait()
        await run.feed(range(passed, passed + 2 * half, 2))
        await all_arrived.wait()
        sample = look(pipeline)
        ended.set()
    return sample


def snapshots_by_hand(workers: int) -> Measure:
    """Measure a copy of about as many figures, from counters in dicts."""

    async def measure(count: int) -> Sample:
        names = [f"figure {n}" for n in range(10)]
        lengths = [1] * 60
        stages = [[dict.fromkeys(names, 1) for _ in range(workers // 2)] for _ in range(2)]

        def snap() -> list[tuple[dict[str, int], list[dict[str, int]], list[list[int]]]]:
            return [
                (
                    {name: sum([worker[name] for worker in stage]) for name in names},
                    [worker.copy() for worker in stage],
                    [lengths.copy(), lengths.copy()],
                )
                for stage in stages
            ]

        found = snap()
        with Stopwatch() as watch:
            for _ in range(count):
                found = snap()
        check("figures", [sums[names[0]] for sums, _, _ in found], [workers // 2] * 2)
        return watch.sample(count)

    return measure


# -- metrics ----------------------------------------------------------------------------------

SCRAPED_STAGES = 10


def scrapes(workers: int) -> Measure:
    """Measure scrapes of a run of ten stages whose workers are all busy, as text for Prometheus."""

    async def measure(count: int) -> Sample:
        from antflow import Pipeline, Stage
        from antflow.sinks.prometheus import PipelineCollector, exposition

        each = workers // SCRAPED_STAGES
        arrived, all_arrived, ended = 0, asyncio.Event(), asyncio.Event()

        async def wait(value: int) -> int:
            nonlocal arrived
            arrived += 1
            if arrived == workers:
                all_arrived.set()
            await ended.wait()
            return value

        stages = [Stage(f"Stage {number}", each, [wait]) for number in range(SCRAPED_STAGES)]
        pipeline = Pipeline(stages)
        collector = PipelineCollector(pipeline)
        async with pipeline.open() as run:
            for stage in stages:
                await run.feed(range(each), stage.name)
            await all_arrived.wait()
            text = exposition(collector)
            with Stopwatch() as watch:
                for _ in range(count):
                    text = exposition(collector)
            ended.set()
        busy = [line for line in text.decode().splitlines() if 'state="busy"' in line]
        check("busy workers", [float(line.split()[-1]) for line in busy], [each] * SCRAPED_STAGES)
        return watch.sample(count)

    return measure


# -- frames -----------------------------------------------------------------------------------


def frames(level: str, workers: int) -> Measure:
    """Measure taking and drawing a snapshot, in the thread that does both."""

    async def measure(count: int) -> Sample:
        def draw(pipeline: Pipeline[Any, Any]) -> Sample:
            show = rich_table() if level == "rich" else display(level, pipeline)
            for _ in range(3):
                show(pipeline.get_dashboard_snapshot())
            began, wall = time.thread_time(), time.perf_counter()
            for _ in range(count):
                show(pipeline.get_dashboard_snapshot())
            return Sample(count, time.thread_time() - began, time.perf_counter() - wall)

        return await while_busy(workers, draw)

    return measure


def display(level: str, pipeline: Pipeline[Any, Any]) -> Callable[[DashboardSnapshot], Any]:
    """One of our displays, opened."""
    from antflow.display import create

    display = create(level)
    display.on_start(pipeline, 10**9)
    return display.on_update


def rich_table() -> Callable[[DashboardSnapshot], None]:
    """The usual table written with rich: a row for each worker, in a `Live`."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    live = Live(console=Console(file=sys.stdout, force_terminal=True), auto_refresh=False)
    live.start()

    def show(snapshot: DashboardSnapshot) -> None:
        table = Table("worker", "state", "item", "task")
        for name, state in snapshot.worker_states.items():
            table.add_row(name, state.status, str(state.current_item_id), state.current_task)
        live.update(table, refresh=True)

    return show


# -- a run with a display ---------------------------------------------------------------------


def drawn(level: str | None) -> Measure:
    """Measure a run whose tasks do nothing, with a display or without."""

    async def measure(items: int) -> Sample:
        # Import it even for the run without a display, so that the import is not measured.
        from antflow.display import create

        create("full")
        options: dict[str, Any] = {"dashboard": level} if level else {}
        if level == "progress":
            options = {"progress": True}
        tasks = [no_op] * STAGES
        await ours.pipeline(tasks, WORKERS).run(range(300), **options)
        with Stopwatch() as watch:
            pipeline = ours.pipeline(tasks, WORKERS)
            results = await pipeline.run(
                range(items), dashboard_update_interval=INTERVAL, **options
            )
        check_values(results.values(), items)
        return watch.sample(items)

    return measure


def speed_with(level: str) -> Callable[[Round], float]:
    """The share of a core that a display leaves to the run.

    Frames are drawn by wall-clock time. On an idle machine this equals the speed with the display
    over the speed without. On a busy machine that ratio would count several times as many frames.
    """

    def of(samples: Round) -> float:
        return 1 - (samples[level].cpu_us - samples["off"].cpu_us) / samples[level].wall_us

    return of


# -- how long tries and waits take --------------------------------------------------------------


class TickingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock goes on by the same time whenever it is read."""

    def __init__(self, tick: float) -> None:
        super().__init__()
        self._tick = tick
        self._now = 0.0

    def time(self) -> float:
        self._now += self._tick
        return self._now


def timed(tick: float) -> Measure:
    """Measure a run whose tasks do nothing and seem to take ``tick`` seconds each."""

    async def measure(items: int) -> Sample:
        def work() -> Sample:
            with asyncio.Runner(loop_factory=lambda: TickingLoop(tick)) as runner:
                return runner.run(run())

        async def run() -> Sample:
            tasks = [no_op] * STAGES
            await ours.pipeline(tasks, WORKERS).run(range(300))
            pipeline = ours.pipeline(tasks, WORKERS)
            with Stopwatch() as watch:
                results = await pipeline.run(range(items))
            check_values(results.values(), items)
            for stage in pipeline.get_stats().stage_stats.values():
                counted = sum(stage.run_times.buckets)
                check("tries that were counted", counted, items if tick >= LONG else 0)
            return watch.sample(items)

        return await asyncio.to_thread(work)

    return measure


# -- the watch on the event loop --------------------------------------------------------------


def watched(blocked_loop_after: float | None) -> Measure:
    """Measure a run in which everything waits, with the event loop watched or not."""

    async def measure(milliseconds: int) -> Sample:
        from antflow import Pipeline, Stage

        async def wait(item: int) -> int:
            await ended.wait()
            return item

        ended = asyncio.Event()
        pipeline = Pipeline([Stage("Wait", 100, [wait])], blocked_loop_after=blocked_loop_after)
        async with pipeline.open() as run:
            await run.feed(range(100))
            await asyncio.sleep(0.2)
            with Stopwatch() as watch:
                await asyncio.sleep(milliseconds / 1000)
            ended.set()
        check("items", len(run.results), 100)
        return watch.sample(milliseconds, share=watch.cpu / watch.wall)

    return measure


LONG, SHORT = 105e-6, 1e-9
"""Seconds of a try that is counted by its length, and of one that is not."""

SNAPSHOTS = {10: (20, 10), 1_000: (250, 125), 10_000: (2_500, 1_250)}
"""Number of workers → targets in µs."""
SCRAPES = (100, 1_000, 10_000)
"""Numbers of workers."""
FRAMES = {"full": {100: 4_000, 1_000: 10_000}}
"""Display → number of workers → target in µs."""

WORKLOADS = [
    Workload(
        "W6",
        "snapshots of a run",
        2_000,
        200,
        {
            **{
                f"{workers:,} workers": Program(snapshots(workers), share=min(1.0, 200 / workers))
                for workers in SNAPSHOTS
            },
            "12 workers": Program(snapshots(12)),
            "12 workers, read": Program(snapshots(12, reads=True)),
            "12 workers by hand": Program(snapshots_by_hand(12)),
            "10 workers, 1 k items": Program(snapshots(10, 1_000)),
            "10 workers, 100 k items": Program(snapshots(10, 100_000)),
        },
        [
            *(
                Figure(
                    f"µs at {workers:,} workers",
                    cpu_us(f"{workers:,} workers"),
                    *targets,
                    "low",
                )
                for workers, targets in SNAPSHOTS.items()
            ),
            Figure(
                "time after 100 k items over time after 1 k",
                times_faster("10 workers, 1 k items", "10 workers, 100 k items"),
                1.2,
                1.0,
                "low",
            ),
            Figure("µs at 12 workers, counts read", cpu_us("12 workers, read")),
            Figure("times one by hand", times_faster("12 workers", "12 workers by hand")),
        ],
    ),
    Workload(
        "W6t",
        "tries that take long enough to be counted by their length",
        60_000,
        10_000,
        {"counted": Program(timed(LONG)), "not counted": Program(timed(SHORT))},
        [Figure("speed with it over speed without", times_faster("counted", "not counted"))],
    ),
    Workload(
        "W6d",
        f"a run that is drawn every {INTERVAL} s, on a terminal",
        300_000,
        50_000,
        {
            "off": Program(drawn(None), needs_terminal=True),
            **{level: Program(drawn(level), needs_terminal=True) for level in LEVELS},
        },
        [
            Figure(f"speed with {level} over speed without", speed_with(level), 0.97)
            for level in LEVELS
        ],
    ),
    Workload(
        "W6f",
        "one frame, snapshot and drawing; and a rich table with a row for each worker",
        60,
        20,
        {
            f"{level}, {workers:,} workers": Program(frames(level, workers), needs_terminal=True)
            for level in (*LEVELS, "rich")
            for workers in (10, 100, 1_000)
        },
        [
            Figure(
                f"µs of {level} at {workers:,} workers",
                cpu_us(f"{level}, {workers:,} workers"),
                target,
                None,
                "low",
            )
            for level, targets in FRAMES.items()
            for workers, target in targets.items()
        ],
    ),
    Workload(
        "W6p",
        "one scrape of a run of ten stages: snapshot, metrics and text for Prometheus",
        200,
        40,
        {
            f"{workers:,} workers": Program(scrapes(workers), share=min(1.0, 1_000 / workers))
            for workers in SCRAPES
        },
        [
            Figure(
                f"µs at {workers:,} workers",
                cpu_us(f"{workers:,} workers"),
                5_000,
                None,
                "low",
            )
            for workers in SCRAPES
        ],
    ),
    Workload(
        "W6w",
        "the watch on the event loop, in a run that only waits; an item is a millisecond",
        5_000,
        1_000,
        {"watched": Program(watched(0.25)), "not watched": Program(watched(None))},
        [
            Figure(
                "share of a core",
                lambda samples: (
                    extra("watched", "share")(samples) - extra("not watched", "share")(samples)
                ),
                0.002,
                0.001,
                "low",
            )
        ],
    ),
]
