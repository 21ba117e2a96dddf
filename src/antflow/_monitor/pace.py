"""How fast it goes, and how long it will still take.

The work left is counted for each stage: items waiting there, on their way there, and not taken in
yet, less those that will not get that far. A stage finishes at its own pace, and the run when its
last stage does; so the slowest stage decides, however many items others have done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from antflow._core.snapshot import DashboardSnapshot, StageStats
from antflow._monitor.flow import done_items, entered_items, going_on, left_items

SHORTEST_MEMORY = 10.0
"""Seconds over which a change of pace is trusted, at least."""

PART_REMEMBERED = 0.05
RUNS_REMEMBERED = 5
"""A pace is a mean over several tries: workers that begin together also end together."""

EARLIEST_FORECAST = 3.0
SHORTEST_FORECAST = 1.0
"""Seconds: once a run is later than this, it is unknown how long it takes."""

FEWEST_ITEMS = 10
WIDEST = 10.0
"""If the longest is this many times the shortest, it says nothing: something has stalled."""

HELD = 1.0
"""Seconds for which a forecast is kept: one that flickers cannot be read."""

FORECAST_STATES = ("running", "draining")


@dataclass(slots=True)
class StagePace:
    """How fast items leave one stage.

    Attributes:
        per_second: The recent pace.
        since: When the first left (seconds of activity), or shortly before; ``None``: none has.
    """

    per_second: float = 0.0
    since: float | None = None
    _left: int = 0

    def see(self, left: int, active: float, passed: float, memory: float) -> None:
        """Note how many have left by now.

        Args:
            left: How many have left the stage.
            active: Seconds that the run has been at work.
            passed: The last of them, since this was called last.
            memory: Seconds over which a change of pace is trusted.
        """
        new, self._left = left - self._left, left
        if self.since is None:
            if left and passed > 0:
                self.since, self.per_second = active - passed, left / passed
            return
        span = min(memory, active - self.since)
        if passed <= 0:
            return
        if passed >= span:
            self.per_second = new / passed
        else:  # a mean that forgets: exponential smoothing
            self.per_second += (new - self.per_second * passed) / span

    def mean(self, active: float) -> float:
        """Items per second since the first left."""
        if self.since is None or active <= self.since:
            return 0.0
        return self._left / (active - self.since)


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long it will still take, in seconds: at the recent pace, and at the overall pace.

    Attributes:
        shortest: The smaller of the two.
        longest: The larger.
    """

    shortest: float
    longest: float


class Pace:
    """Follows the snapshots of one run.

    Attributes:
        stages: The pace of each stage, in pipeline order.
        forecast: How long it will still take; ``None`` while that cannot be said.
    """

    def __init__(self) -> None:
        self.stages: list[StagePace] = []
        self.forecast: Forecast | None = None
        self._elapsed = 0.0
        self._active = 0.0
        self._forecast_at = -inf

    def see(self, snapshot: DashboardSnapshot, settled: int, total: int | None) -> None:
        """Take in the next snapshot.

        Args:
            snapshot: The snapshot.
            settled: How many items have left the pipeline.
            total: How many there will be, if that is known, with those made from others so far.
        """
        stages = list(snapshot.pipeline_stats.stage_stats.values())
        passed = max(snapshot.elapsed - self._elapsed, 0.0)
        self._elapsed = max(snapshot.elapsed, self._elapsed)
        self.stages += [StagePace() for _ in stages[len(self.stages) :]]
        if snapshot.state != "paused":
            self._active += passed
            for pace, stage in zip(self.stages, stages, strict=False):
                pace.see(done_items(stage), self._active, passed, self._memory(stage))
        if self._elapsed - self._forecast_at >= HELD or snapshot.state not in FORECAST_STATES:
            self._forecast_at = self._elapsed
            self.forecast = self._foresee(snapshot, stages, settled, total)

    def _memory(self, stage: StageStats) -> float:
        run_time = stage.run_times.p50 or 0.0
        return max(SHORTEST_MEMORY, PART_REMEMBERED * self._active, RUNS_REMEMBERED * run_time)

    def _foresee(
        self,
        snapshot: DashboardSnapshot,
        stages: Sequence[StageStats],
        settled: int,
        total: int | None,
    ) -> Forecast | None:
        if snapshot.state == "draining":
            coming = 0
        elif snapshot.state == "running" and total is not None:
            coming = max(total - settled - snapshot.pipeline_stats.items_in_flight, 0)
        else:
            return None
        fewest = FEWEST_ITEMS if total is None else min(FEWEST_ITEMS, max(total // 4, 1))
        if self._active < EARLIEST_FORECAST or settled < fewest:
            return None
        lately = on_the_whole = 0.0
        for pace, left in zip(self.stages, work_left(stages, coming), strict=False):
            if left <= 0:
                continue
            mean = pace.mean(self._active)
            if pace.per_second <= 0 or mean <= 0:
                return None
            lately = max(lately, left / pace.per_second)
            on_the_whole = max(on_the_whole, left / ((pace.per_second + mean) / 2))
        shortest, longest = sorted((lately, on_the_whole))
        if longest < SHORTEST_FORECAST or longest > WIDEST * shortest:
            return None
        return Forecast(shortest, longest)


def work_left(stages: Sequence[StageStats], coming: float) -> list[float]:
    """How many items each stage still has to do.

    Args:
        stages: The stages.
        coming: Items that will still be taken in.
    """
    left: list[float] = []
    for stage, following in zip(stages, [*stages[1:], None], strict=True):
        to_leave = coming + entered_items(stage) - left_items(stage)
        # Those in the hands of workers are half done, on average.
        left.append(to_leave - stage.in_progress_items / 2)
        if following is not None:
            coming = to_leave * going_on(stage, following)
    return left
