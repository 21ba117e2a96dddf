"""Where the time of a run goes: its sums at one moment, and what a span added to them.

Every second of every worker is one `Activity`.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import add
from typing import Any, NamedTuple

from antflow._core.snapshot import DashboardSnapshot, StageStats
from antflow._monitor.flow import left_items


class Spent(NamedTuple):
    """Seconds of all workers of a stage together, by `Activity`; "thread" counts as busy."""

    busy: float = 0.0
    starved: float = 0.0
    blocked: float = 0.0
    limited: float = 0.0
    retrying: float = 0.0
    stalled: float = 0.0

    @classmethod
    def of(cls, stage: StageStats) -> Spent:
        """Since the run began."""
        return cls(
            stage.busy_seconds,
            stage.starved_seconds,
            stage.blocked_seconds,
            stage.limited_seconds,
            stage.retry_waiting_seconds,
            stage.stalled_seconds,
        )

    def shares(self) -> Spent:
        """Each as a part of all of them: together 1, or all 0 where no time has passed."""
        whole = sum(self)
        return Spent(*[seconds / whole if whole else 0.0 for seconds in self])

    @property
    def occupied(self) -> float:
        """The time that the workers could not have used for another item."""
        return self.busy + self.limited + self.retrying


class Moment(NamedTuple):
    """The sums of a run at one moment, of which the rule needs the differences.

    Attributes:
        elapsed: Seconds since the run began.
        blocked: Seconds the event loop was blocked.
        computed: Seconds of processor time that this process took.
        intake: Seconds for which items could come.
        spent: How the workers of each stage spent their time.
        left: How many items had left each stage.
        children_computed: Seconds of processor time that the child processes of its stages took.
    """

    elapsed: float
    blocked: float
    computed: float
    intake: float
    spent: tuple[Spent, ...]
    left: tuple[int, ...]
    children_computed: float = 0.0

    @classmethod
    def of(cls, snapshot: DashboardSnapshot) -> Moment:
        """The moment at which a snapshot was taken."""
        stages = tuple(snapshot.pipeline_stats.stage_stats.values())
        by_children = sum([stage.child_cpu_seconds for stage in stages])
        return cls(
            snapshot.elapsed,
            snapshot.loop.stalled_seconds,
            snapshot.cpu_seconds - by_children,
            snapshot.intake_seconds,
            tuple(map(Spent.of, stages)),
            tuple(map(left_items, stages)),
            by_children,
        )

    def since(self, earlier: Moment | None) -> Moment:
        """The difference since then; ``None``: since the beginning of the run."""
        return self._with(earlier, lambda now, then: max(now - then, 0))

    def plus(self, other: Moment | None) -> Moment:
        """The sums of two spans of time."""
        return self._with(other, add)

    def _with(self, other: Moment | None, combine: Callable[[Any, Any], Any]) -> Moment:
        if other is None or len(other.spent) != len(self.spent):
            return self
        return Moment(
            combine(self.elapsed, other.elapsed),
            combine(self.blocked, other.blocked),
            combine(self.computed, other.computed),
            combine(self.intake, other.intake),
            tuple(
                Spent(*map(combine, *both)) for both in zip(self.spent, other.spent, strict=True)
            ),
            tuple(map(combine, self.left, other.left)),
            combine(self.children_computed, other.children_computed),
        )
