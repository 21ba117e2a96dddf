"""How far a run is.

Where something depends on what was shown before (a ratio that never goes back, a rate), that is an
argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from antflow._core.result import outcomes_text
from antflow._core.snapshot import DashboardSnapshot, PipelineStats, RunState
from antflow._core.to_come import expected

RATE_SPAN = 5.0
"""Seconds over which the recent rate is averaged: after that a change is seen in full."""

BETWEEN_COUNTS = 0.1

SHORTEST_TIME = 0.001
"""Seconds below which there is no rate yet."""


class RecentRate:
    """The recent rate per second. Remembers at most some fifty counts."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque([(0.0, 0)])

    def see(self, count: int, snapshot: DashboardSnapshot) -> float:
        """The rate, now that there have been ``count`` in all; when all is over, the mean."""
        elapsed = snapshot.elapsed
        if elapsed < SHORTEST_TIME:
            return 0.0
        if snapshot.state == "finished":
            return count / elapsed
        while len(self._counts) > 1 and self._counts[1][0] <= elapsed - RATE_SPAN:
            self._counts.popleft()
        since, before = self._counts[0]
        if elapsed - self._counts[-1][0] >= BETWEEN_COUNTS:
            self._counts.append((elapsed, count))
        return max(count - before, 0) / (elapsed - since) if elapsed > since else 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        settled: Items that have left the pipeline, failed ones included; not those that were
            cancelled.
        total: Items there will be, also those that will be made; ``None`` = not known.
        ratio: Settled share, 0 to 1, never less than it was; ``None`` where the total is not known.
        per_second: Items settled per second: in the last seconds; at the end, in the whole run.
        elapsed: Seconds since the run began.
        draining: Seconds since no more items come.
        stats: The counts.
        state: The run's state.
        is_estimate: Whether the total is a guess, because items are still made from others.
    """

    settled: int
    total: int | None
    ratio: float | None
    per_second: float
    elapsed: float
    draining: float
    stats: PipelineStats
    state: RunState
    is_estimate: bool = False

    @property
    def percent(self) -> int | None:
        """The part of the total that is settled, in whole percent, rounded down: 100 means all.

        Unlike the ratio it may go back, when the total turns out to be larger.
        """
        if not self.total:
            return None if self.total is None else 100 * (self.state == "finished")
        return 100 * self.settled // self.total

    @property
    def count(self) -> str:
        """``40/100``, ``40/~100``, ``40 done``."""
        if self.total is None:
            return f"{self.settled:,} done"
        return f"{self.settled:,}/{'~' if self.is_estimate else ''}{self.total:,}"

    @property
    def counts(self) -> str:
        """``90 ok, 10 failed``, and what was dropped, expanded or cancelled if anything was."""
        return outcomes_text(self.stats)


def progress(
    snapshot: DashboardSnapshot,
    total: int | None = None,
    earlier: Progress | None = None,
    rate: RecentRate | None = None,
) -> Progress:
    """How far the run of a snapshot is.

    Args:
        snapshot: The snapshot.
        total: Number of items to expect where the snapshot does not know it.
        earlier: The return value for the snapshot before, in the same run.
        rate: The rate of that run.
    """
    stats = snapshot.pipeline_stats
    settled = settled_items(stats)
    if snapshot.total_items is not None:
        total = snapshot.total_items
    ratio, to_make = None, 0
    if total is not None:
        # Items fed in addition, or made from others, count too.
        left = stats.items_cancelled + stats.items_in_flight
        coming = max(total - stats.items_accepted, 0)
        if stats.items_children and snapshot.state != "finished":
            stages = tuple(stats.stage_stats.values())
            to_make = round(sum(each.to_make for each in expected(stages, coming)))
        total = coming + settled + left + to_make
        ratio = min(settled / total, 1.0) if total else float(snapshot.state == "finished")
        ratio = max(ratio, (earlier and earlier.ratio) or 0.0)
    return Progress(
        settled=settled,
        total=total,
        ratio=ratio,
        per_second=(rate or RecentRate()).see(settled, snapshot),
        elapsed=snapshot.elapsed,
        draining=snapshot.elapsed - snapshot.intake_seconds,
        stats=stats,
        state=snapshot.state,
        is_estimate=to_make > 0,
    )


def settled_items(stats: PipelineStats) -> int:
    """How many items have left the pipeline, failed ones included; not those cancelled."""
    well = stats.items_processed + stats.items_dropped + stats.items_expanded
    return well + stats.items_failed
