"""Performance considerations: the polling interval, from 0.1 to 1.0 seconds."""

from __future__ import annotations

from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.testing import run_virtual

from .document import run_block
from .watchers import Frames, PolledPipeline, lasting

pytestmark = pytest.mark.document

BLOCK = """\
# Fast updates (more responsive, higher CPU)
await pipeline.run(items, dashboard="detailed", dashboard_update_interval=0.1)

# Slow updates (less responsive, lower CPU)
await pipeline.run(items, dashboard="detailed", dashboard_update_interval=1.0)
"""

# Ten seconds, and a little more, so that the end falls between two updates.
ITEMS = range(43)
SECONDS = 0.235
DURATION = len(ITEMS) * SECONDS


def one_by_one() -> PolledPipeline:
    return PolledPipeline([Stage("Work", 1, [lasting(SECONDS)])])


def every(interval: float) -> list[float]:
    times = [0.0]
    while (following := len(times) * interval) < DURATION:
        times.append(following)
    return [*times, DURATION]


def test_block_polls_as_often_as_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Its first run takes ten times as many snapshots as its second, each at its time."""
    pipeline = one_by_one()
    run_virtual(run_block(BLOCK, pipeline=pipeline, items=ITEMS))
    fast, slow = every(0.1), every(1.0)
    assert (len(fast), len(slow)) == (103, 12)
    assert pipeline.poll_times == pytest.approx([*fast, *(DURATION + time for time in slow)])
    assert capsys.readouterr().err.splitlines().count("43 ok, 0 failed") == 2


@pytest.mark.parametrize("interval", [0.01, 0.1, 0.2, 0.5, 0.7, 1.0, 5, 1000.0])
def test_interval_is_kept(interval: float) -> None:
    """Any interval, in and around the recommended range, is kept to."""
    pipeline = one_by_one()
    run_virtual(pipeline.run(ITEMS, custom_dashboard=Frames(), dashboard_update_interval=interval))
    assert pipeline.poll_times == pytest.approx(every(interval))


@pytest.mark.parametrize("interval", [0.1, 0.5, 1.0])
def test_interval_is_how_late_a_dashboard_may_be(interval: float) -> None:
    """Each change is shown within one interval, and some not before nearly all of it has passed."""
    frames = Frames()
    run_virtual(
        one_by_one().run(ITEMS, custom_dashboard=frames, dashboard_update_interval=interval)
    )
    delays = []
    for count in range(1, len(ITEMS) + 1):
        shown = next(
            at
            for at, snapshot in zip(frames.times, frames.snapshots, strict=True)
            if snapshot.pipeline_stats.items_processed >= count
        )
        delays.append(shown - count * SECONDS)
    assert min(delays) >= -1e-9
    assert max(delays) <= interval + 1e-9
    assert max(delays) > 0.8 * interval


@pytest.mark.parametrize("interval", [0, -1, 1e-9, 0.009, float("nan"), float("inf"), "0.5", None])
def test_interval_that_makes_no_sense_is_refused(interval: Any) -> None:
    """An interval that would be a busy loop, or is no number, is refused before anything starts."""
    worked: list[Any] = []
    pipeline = Pipeline([Stage("Work", 1, [worked.append])])
    frames = Frames()
    with pytest.raises((ValueError, TypeError), match="dashboard_update_interval"):
        run_virtual(pipeline.run([1], custom_dashboard=frames, dashboard_update_interval=interval))
    assert worked == []
    assert frames.total_items == -1
