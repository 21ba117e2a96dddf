"""The numbers of a run add up in every snapshot, and in everything that is drawn of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antflow import DashboardSnapshot, Drop, Limit, Pipeline, RunResults, Stage, StageStats
from antflow._monitor.view import View, Viewer
from antflow._monitor.worker_order import RUNNING, worker_strips
from antflow.display.canvas import Canvas
from antflow.display.plain import stages_text
from antflow.display.strips import WorkerMap
from antflow.display.tables import chips_lines, stage_lines
from antflow.testing import run_virtual


@dataclass(frozen=True)
class Plan:
    """A stage to be tried out."""

    kind: str
    workers: int
    room: int
    attempts: int
    is_limited: bool
    skips: bool


PLANS = st.builds(
    Plan,
    kind=st.sampled_from(["plain", "expand", "batch"]),
    workers=st.integers(1, 4),
    room=st.integers(1, 5),
    attempts=st.integers(1, 3),
    is_limited=st.booleans(),
    skips=st.booleans(),
)


def made(plan: Plan, index: int, dice: Random) -> Stage:
    """The stage of a plan: its tasks take their time, and fail and drop at random."""

    async def task(value: Any) -> Any:
        await asyncio.sleep(dice.choice([0, 0.1, 0.7]))
        if dice.random() < 0.2:
            raise ValueError(value)
        return Drop if dice.random() < 0.2 else value

    async def children(value: Any) -> AsyncIterator[Any]:
        for number in range(dice.randrange(5)):
            await asyncio.sleep(dice.choice([0, 0.1]))
            yield value + number
        if dice.random() < 0.1:
            raise ValueError(value)

    async def batch(values: list[Any]) -> list[Any]:
        await asyncio.sleep(0.3)
        if dice.random() < 0.2:
            raise ValueError(values)
        return [Drop if dice.random() < 0.2 else value for value in values]

    more: dict[str, Any] = {}
    if plan.kind == "batch":
        more = {"batch": 3, "batch_wait": 0.2}
    return Stage(
        f"S{index}",
        plan.workers,
        [{"plain": task, "expand": children, "batch": batch}[plan.kind]],
        queue_capacity=plan.room,
        task_attempts=plan.attempts,
        task_wait_seconds=0.5,
        expand=plan.kind == "expand",
        limits=[Limit(rate=5, period=1)] if plan.is_limited else [],
        skip_if=(lambda value: value % 3 == 0) if plan.skips else None,
        **more,
    )


class Checking:
    """A display that adds up whatever it is shown."""

    def __init__(self) -> None:
        self.viewer = Viewer()
        self.frames = 0
        self.failure: Exception | None = None

    def on_update(self, snapshot: DashboardSnapshot) -> None:
        self.frames += 1
        try:
            check_counts(snapshot)
            check_picture(self.viewer.see(snapshot))
        except Exception as error:  # why: a run is not bothered by what its display raises
            self.failure = self.failure or error


def check_counts(snapshot: DashboardSnapshot) -> None:
    """Every item is in one place, and goes on where it should."""
    run = snapshot.pipeline_stats
    stages = list(run.stage_stats.values())
    assert stages[0].entered_items == run.items_accepted
    for stage, following in pairwise(stages):
        assert following.entered_items == going_on(stage)
    assert run.items_processed == going_on(stages[-1])
    assert run.items_children == sum(stage.made_items for stage in stages)
    assert run.items_failed == sum(stage.failed_items for stage in stages)
    assert run.items_dropped == sum(stage.dropped_items for stage in stages)
    assert run.items_expanded == sum(stage.expanded_items for stage in stages)
    assert run.items_cancelled == sum(stage.cancelled_items for stage in stages)
    assert run.items_in_flight == sum(stage.inside_items for stage in stages)
    settled = run.items_processed + run.items_failed + run.items_dropped + run.items_expanded
    everything = settled + run.items_cancelled + run.items_in_flight
    assert run.items_accepted + run.items_children == everything
    for stage in stages:
        waiting = stage.limited_workers + stage.blocked_workers + stage.retrying_workers
        assert 0 <= stage.running_workers + waiting <= stage.workers
        assert stage.batched_items <= 3 * stage.batches


def going_on(stage: StageStats) -> int:
    return stage.completed_items + stage.skipped_items + stage.made_items


def check_picture(view: View) -> None:
    """What is drawn says the same, and in it the same things have the same numbers."""
    canvas = Canvas(250, 30)
    heading, *rows = [line.plain for line in stage_lines(canvas, view.stages, 20)]
    chips = " │ ".join(line.plain for line in chips_lines(canvas, view.stages, 1)).split(" │ ")
    texts = stages_text(view.stages).split("; ")
    strips = worker_strips(view.snapshot)
    map_lines = [line.plain for line in WorkerMap(canvas, strips).lines(20)]
    for number, (stage, row) in enumerate(zip(view.stages, rows, strict=True)):
        shown = numbers_of(heading, row)
        left = [shown[name] for name in ("done", "failed", "dropped", "skipped", "cancelled")]
        assert int(shown["in"]) == sum(map(int, left)) + int(shown["inside"])
        assert int(shown["in"]) == stage.stats.entered_items
        running = shown["running"]
        assert running == f"{strips[number].running}/{stage.stats.workers}"
        assert f" {running} running" in chips[number]
        assert f" {running} running" in texts[number]
        assert map_lines[number + 1].endswith(f"  {running}")
        doing = Counter(strips[number].doing)
        assert doing["limited"] == stage.stats.limited_workers
        assert doing["blocked"] == stage.stats.blocked_workers + stage.stats.retrying_workers
        assert sum(doing[each] for each in RUNNING) == stage.stats.running_workers
    progress = view.progress
    assert progress.total is not None
    assert progress.settled <= progress.total
    assert progress.percent == (
        100 * progress.settled // progress.total if progress.total else 100 * view.is_over
    )
    counts = [text.split() for text in progress.counts.split(", ")]
    assert progress.settled == sum(int(count) for count, word in counts if word != "cancelled")


def numbers_of(heading: str, row: str) -> Counter[str] | dict[str, str]:
    """The last word of each cell, by the heading it ends under; 0 where there is no column."""
    found = dict.fromkeys(["dropped", "skipped", "cancelled"], "0")
    for title in heading.split():
        end = heading.index(f" {title}") + len(title) + 1
        if words := row[:end].split():
            found[title] = words[-1].replace(",", "")
    return found


@settings(max_examples=settings().max_examples // 3)  # each is a run, drawn many times
@given(
    st.lists(PLANS, min_size=1, max_size=3),
    st.integers(0, 25),
    st.integers(0, 2**32),
    st.none() | st.floats(0.1, 8),
)
def test_numbers_add_up_in_every_frame(
    plans: list[Plan], items: int, seed: int, stop_after: float | None
) -> None:
    """Whatever items do, each is counted once, in all displays, also when the run is cancelled."""
    dice = Random(seed)
    display = Checking()
    pipeline = Pipeline([made(plan, index, dice) for index, plan in enumerate(plans)])

    async def program() -> RunResults[Any] | None:
        try:
            async with asyncio.timeout(stop_after):
                return await pipeline.run(
                    range(items),
                    custom_dashboard=display,
                    dashboard_update_interval=0.05,
                    on_failures="ignore",
                )
        except TimeoutError:
            return None

    results = run_virtual(program)
    if display.failure is not None:
        raise display.failure
    assert display.frames >= 2
    last = pipeline.get_dashboard_snapshot()
    check_counts(last)
    if results is not None:
        assert results.stats == last.pipeline_stats
        assert len(results) == results.stats.items_processed
        assert len(results.failed) == results.stats.items_failed


def test_expanding_stage_counts_what_went_through() -> None:
    """Done says how many, made how many others; the total is right before the end."""
    views: list[View] = []
    viewer = Viewer()

    async def pages(value: int) -> AsyncIterator[int]:
        await asyncio.sleep(0.01)
        for number in range(3):
            yield number

    async def fetch(value: int) -> Any:
        await asyncio.sleep(0.02)
        return Drop if value == 2 else value

    class Display:
        def on_update(self, snapshot: DashboardSnapshot) -> None:
            views.append(viewer.see(snapshot))

    stages = [Stage("List", 3, [pages], expand=True), Stage("Fetch", 8, [fetch])]
    run_virtual(
        lambda: Pipeline(stages).run(
            range(300), custom_dashboard=Display(), dashboard_update_interval=0.1
        )
    )
    last = views[-1]
    heading, first, second = [line.plain for line in stage_lines(Canvas(200, 9), last.stages, 9)]
    assert numbers_of(heading, first)["done"] == "300"
    assert numbers_of(heading, first)["made"] == "900"
    assert numbers_of(heading, second)["done"] == "600"
    assert numbers_of(heading, second)["dropped"] == "300"
    assert last.progress.count == "1,200/1,200"
    assert last.progress.counts == "600 ok, 0 failed, 300 dropped, 300 expanded"
    early = views[3].progress
    assert early.total == pytest.approx(1200, rel=0.05)
    assert early.count.startswith(f"{early.settled}/~1,")
    assert not any(view.progress.is_estimate for view in (views[0], last))


def test_workers_that_wait_are_not_running() -> None:
    """Whether they have an item or not: for a limit, for room, for retries."""

    async def busy(value: int) -> int:
        await asyncio.sleep(10)
        return value

    async def fails(value: int) -> int:
        raise ValueError(value)

    async def pages(value: int) -> AsyncIterator[int]:
        for number in range(100):
            yield number

    def standing(*stages: Stage) -> tuple[int, ...]:
        async def program() -> StageStats:
            pipeline = Pipeline(stages)
            run = asyncio.ensure_future(pipeline.run(range(200), on_failures="ignore"))
            await asyncio.sleep(5)
            first = next(iter(pipeline.get_stats().stage_stats.values()))
            run.cancel()
            await asyncio.wait([run])
            return first

        stage = run_virtual(program)
        waiting = (stage.limited_workers, stage.blocked_workers, stage.retrying_workers)
        return (stage.running_workers, *waiting)

    assert standing(Stage("A", 4, [busy], limits=[Limit(concurrency=1)])) == (1, 3, 0, 0)
    slow = Stage("B", 1, [busy], queue_capacity=1)
    assert standing(Stage("A", 4, [pages], expand=True), slow) == (0, 0, 4, 0)
    assert standing(Stage("A", 4, [fails], task_wait_seconds=60, queue_capacity=2))[0] == 0
    assert standing(Stage("A", 4, [busy])) == (4, 0, 0, 0)
