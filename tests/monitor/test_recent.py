"""The last minute of a run, beside the whole run."""

from __future__ import annotations

import asyncio
from io import StringIO

import pytest
from rich.console import Console

from antflow import DashboardSnapshot, LoopHealth, Pipeline, RecentStageStats, Stage
from antflow._core.snapshot import RunState
from antflow._monitor.moment import Figures
from antflow._monitor.spans import Spans
from antflow.display import create
from antflow.testing import run_virtual
from tests.display.conftest import make_snapshot

QUICK, SLOW = 0.1, 0.4
SLOW_FROM = 20.0


class Service:
    """It slows down after a while."""

    async def ask(self, number: int) -> int:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(QUICK if began < SLOW_FROM else SLOW)
        return number


async def snapshots_of(pipeline: Pipeline, items: int, between: float) -> list[DashboardSnapshot]:
    """What is seen of a run, its end included."""
    seen: list[DashboardSnapshot] = []
    running = asyncio.ensure_future(pipeline.run(range(items)))
    while not running.done():
        await asyncio.wait([running], timeout=between)
        seen.append(pipeline.get_dashboard_snapshot())
    return seen


def slowing(items: int = 1000, between: float = 0.5) -> list[DashboardSnapshot]:
    """A run of a stage with two workers: 400 items in 20 s, then 5 per second."""
    stages = [Stage("Ask", 2, [Service().ask])]
    return run_virtual(lambda: snapshots_of(Pipeline(stages), items, between))


def at(seen: list[DashboardSnapshot], elapsed: float) -> DashboardSnapshot:
    return next(each for each in seen if each.elapsed >= elapsed - 1e-6)


def asked(snapshot: DashboardSnapshot) -> RecentStageStats:
    return snapshot.recent.stages["Ask"]


def test_service_that_slows_down_shows_within_a_minute() -> None:
    """Rate and quantiles of the last minute follow; those of the whole run hardly move."""
    seen = slowing()
    young, later = at(seen, 15), at(seen, 85)
    assert asked(young).run_times.p50 == pytest.approx(QUICK, rel=0.05)
    assert asked(young).per_second == pytest.approx(2 / QUICK, rel=0.02)
    assert young.recent.seconds == young.elapsed
    assert later.pipeline_stats.stage_stats["Ask"].run_times.p50 == pytest.approx(QUICK, rel=0.05)
    assert asked(later).run_times.p50 == pytest.approx(SLOW, rel=0.05)
    assert asked(later).per_second == pytest.approx(2 / SLOW, rel=0.02)
    assert asked(later).done_items == asked(later).run_times.count
    assert 60 <= later.recent.seconds <= 63


def test_last_minute_of_a_run_that_is_over_is_all_of_it() -> None:
    """At the end the same figures are those of the whole run."""
    last = slowing()[-1]
    whole = last.pipeline_stats.stage_stats["Ask"]
    assert last.recent.seconds == last.elapsed > 130
    assert asked(last).done_items == whole.completed_items == 1000
    assert (asked(last).run_times, asked(last).queue_waits) == (whole.run_times, whole.queue_waits)


def test_table_shows_the_last_minute_until_the_run_is_over() -> None:
    """The row of a stage has the recent quantiles, and at the end those of the whole run."""
    seen = slowing(items=700)

    def shown(until: float) -> list[str]:
        display = create("detailed")
        frames = [display.render(each) for each in seen if each.elapsed <= until]
        out = StringIO()
        Console(file=out, width=120, height=30).print(frames[-1])
        return [word for word in out.getvalue().split() if word in ("102ms", "396ms")]

    assert shown(15) == ["102ms", "102ms"]  # p50 and p95
    assert shown(79) == ["396ms", "396ms"]
    assert shown(seen[-1].elapsed) == ["102ms", "396ms"]


def test_snapshots_that_are_far_apart() -> None:
    """The time begins with a snapshot: where there are few it is longer or shorter."""
    for between, seconds in ((50, [50, 50]), (45, [45, 45, 90])):
        seen = slowing(between=between)
        assert [round(each.recent.seconds) for each in seen[:-1]] == seconds
        assert asked(seen[1]).per_second == pytest.approx(2 / SLOW, rel=0.02)


def test_pause_is_no_part_of_the_last_minute() -> None:
    """A pause does not lower the rate, however long it is."""

    async def program() -> DashboardSnapshot:
        pipeline = Pipeline([Stage("Ask", 2, [Service().ask])])
        async with pipeline.open() as run:
            feeding = asyncio.ensure_future(run.feed(range(1000)))
            for second in range(900):
                if second == 15:
                    run.pause()
                if second == 885:
                    run.resume()
                run.snapshot()
                await asyncio.sleep(1)
            paused = run.snapshot()
            await feeding
        return paused

    snapshot = run_virtual(program)
    assert snapshot.recent.seconds == pytest.approx(30, abs=1)
    assert asked(snapshot).per_second == pytest.approx((15 * 20 + 15 * 5) / 30, rel=0.05)


@pytest.mark.parametrize("state", ["running", "paused"])
def test_memory_of_a_day(state: RunState) -> None:
    """However long a run is looked at, or paused meanwhile, a fixed number of moments is kept."""
    spans, figures = Spans(), Figures.of(make_snapshot(state=state))
    for tick in range(2000):
        spans.see(figures._replace(elapsed=tick / 4))
    assert len(spans._lately._marks) <= 42
    assert len(spans._minute._marks) <= 26


def test_snapshot_made_by_hand_shows_the_whole_run() -> None:
    """Without a run that remembers, a display draws the figures of the snapshot itself."""
    out = StringIO()
    snapshot = make_snapshot()
    assert not snapshot.recent.stages
    Console(file=out, width=120, height=30).print(create("detailed").render(snapshot))
    assert "62%" in out.getvalue()
    assert "8.29s" in out.getvalue()


def test_share_of_the_event_loop() -> None:
    """The part of the last minute for which the loop was at work."""
    figures = Figures.of(make_snapshot())
    spans = Spans()
    for second in range(120):
        busy = 0.5 * min(second, 60) + 0.25 * max(second - 60, 0)
        now = figures._replace(elapsed=float(second), loop=LoopHealth(busy_seconds=busy))
        span = spans.see(now)
    share = span.recent(now).loop_busy
    assert share == pytest.approx(0.25, abs=0.01)
