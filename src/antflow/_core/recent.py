"""How a run does lately, beside the figures of the whole run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from antflow._core.durations import Durations
from antflow._core.portable import Portable


@dataclass(frozen=True, slots=True)
class RecentStageStats(Portable):
    """One stage, over the time of `RecentStats`.

    Attributes:
        stage_name: The stage.
        done_items: Items that left it, failed ones included and cancelled ones not.
        per_second: The same per second.
        busy: Share of its workers' time that went into work, 0 to 1. It and the next five are the
            shares of the seconds in `StageStats`, and together 1; all are 0 before any time has
            passed.
        limited: The share of ``limited_seconds``.
        blocked: The share of ``blocked_seconds``.
        retrying: The share of ``retry_waiting_seconds``.
        starved: The share of ``starved_seconds``.
        stalled: The share of ``stalled_seconds``.
        run_times: How long its tries took that ended in that time.
        queue_waits: How long items waited in its channel that were taken in that time.
    """

    stage_name: str
    done_items: int = 0
    per_second: float = 0.0
    busy: float = 0.0
    limited: float = 0.0
    blocked: float = 0.0
    retrying: float = 0.0
    starved: float = 0.0
    stalled: float = 0.0
    run_times: Durations = field(default_factory=Durations)
    queue_waits: Durations = field(default_factory=Durations)


@dataclass(frozen=True, slots=True)
class RecentStats(Portable):
    """The last minute of a run; at its end, all of it.

    A run notes its figures while snapshots are taken. So with long gaps between them, the time is
    longer than a minute: it begins with the latest snapshot that is at least a minute old, or with
    the run. The time for which the run was paused is left out.

    Attributes:
        seconds: How long it was.
        loop_busy: Share of the time for which the event loop was at work, or blocked, 0 to 1; 0.0
            where the loop is not watched (see `LoopHealth`).
        stages: Stage name → its figures, in pipeline order.
    """

    seconds: float = 0.0
    loop_busy: float = 0.0
    stages: Mapping[str, RecentStageStats] = field(default_factory=dict[str, RecentStageStats])
