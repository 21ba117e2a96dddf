"""How far a run is.

Where something depends on what was shown before (a ratio that never goes back, a rate), that is an
argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from antflow._core.snapshot import DashboardSnapshot, PipelineStats, RunState

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
        total: Items there will be; ``None`` = not known.
        ratio: Settled share, 0 to 1, never less than it was; ``None`` where the total is not known.
        per_second: Items settled per second: in the last seconds; at the end, in the whole run.
        elapsed: Seconds since the run began.
        draining: Seconds since no more items come.
        stats: The counts.
        state: The run's state.
    """

    settled: int
    total: int | None
    ratio: float | None
    per_second: float
    elapsed: float
    draining: float
    stats: PipelineStats
    state: RunState

    @property
    def percent(self) -> int | None:
        """The ratio in whole percent, rounded down: 100 means everything."""
        return None if self.ratio is None else int(self.ratio * 100 + 1e-9)  # 0.29 * 100 < 29

    @property
    def counts(self) -> str:
        """``90 ok, 10 failed``, and what was dropped or cancelled if anything was."""
        return counts_of(self.stats)


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
    ratio = None
    if total is not None:
        # Items fed in addition, or made from others, count too.
        left = stats.items_cancelled + stats.items_in_flight
        total = max(total - stats.items_accepted, 0) + settled + left
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
    )


def counts_of(stats: PipelineStats) -> str:
    """`counts_text` of a run."""
    return counts_text(
        stats.items_processed, stats.items_failed, stats.items_dropped, stats.items_cancelled
    )


def settled_items(stats: PipelineStats) -> int:
    """How many items have left the pipeline, failed ones included; not those cancelled."""
    well = stats.items_processed + stats.items_dropped + stats.items_expanded
    return well + stats.items_failed


def counts_text(ok: int, failed: int, dropped: int = 0, cancelled: int = 0) -> str:
    """``90 ok, 10 failed``, then ``, 3 dropped`` and ``, 2 cancelled`` where not zero."""
    text = f"{ok:,} ok, {failed:,} failed"
    if dropped:
        text += f", {dropped:,} dropped"
    if cancelled:
        text += f", {cancelled:,} cancelled"
    return text
