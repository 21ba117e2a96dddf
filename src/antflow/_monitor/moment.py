"""Where the time of a run goes: its sums at one moment, and what a span added to them.

Every second of every worker is one `Activity`.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import add
from typing import Any, NamedTuple

from antflow._core.snapshot import (
    DashboardSnapshot,
    LoopHealth,
    PipelineStats,
    RunState,
    StageStats,
)
from antflow._monitor.flow import done_items, ended_tries


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


class Marks(NamedTuple):
    """What the books of a stage say besides how its workers spent their time.

    Attributes:
        failed: Worker-seconds of tries that failed.
        held: Seconds for which a service let no try begin.
        holds: How often it said so.
        computed: Seconds of processor time that its threads took.
        tries: How many tries there were, without those of items that passed by.
    """

    failed: float = 0.0
    held: float = 0.0
    holds: int = 0
    computed: float = 0.0
    tries: int = 0

    @classmethod
    def of(cls, stage: StageStats) -> Marks:
        """Since the run began."""
        return cls(
            stage.failed_seconds,
            stage.held_seconds,
            stage.holds,
            stage.thread_cpu_seconds,
            ended_tries(stage),
        )


class Figures(NamedTuple):
    """The figures of a snapshot that the rules need; the fields are those of the snapshot.

    Attributes:
        stats: Makes the counts when they are first asked for.
    """

    state: RunState
    elapsed: float
    cpu_seconds: float
    intake_seconds: float
    loop: LoopHealth
    stats: Callable[[], PipelineStats]

    @classmethod
    def of(
        cls, snapshot: DashboardSnapshot, stats: Callable[[], PipelineStats] | None = None
    ) -> Figures:
        """Those of a snapshot; ``stats`` makes its counts, if it does not have them yet."""
        return cls(
            snapshot.state,
            snapshot.elapsed,
            snapshot.cpu_seconds,
            snapshot.intake_seconds,
            snapshot.loop,
            stats or (lambda: snapshot.pipeline_stats),
        )

    @property
    def stages(self) -> tuple[StageStats, ...]:
        """The counts of each stage."""
        return tuple(self.stats().stage_stats.values())


class Moment(NamedTuple):
    """The sums of a run at one moment, of which the rule needs the differences.

    Attributes:
        elapsed: Seconds since the run began.
        blocked: Seconds the event loop was blocked.
        computed: Seconds of processor time that this process took.
        intake: Seconds for which items could come.
        spent: How the workers of each stage spent their time.
        done: How many items were done with each stage.
        children_computed: Seconds of processor time that the child processes of its stages took.
        worked: Seconds the event loop was at work.
        marks: What else the books of each stage say.
    """

    elapsed: float
    blocked: float
    computed: float
    intake: float
    spent: tuple[Spent, ...]
    done: tuple[int, ...]
    children_computed: float = 0.0
    worked: float = 0.0
    marks: tuple[Marks, ...] = ()

    @classmethod
    def of(cls, figures: Figures) -> Moment:
        """The moment at which a snapshot was taken."""
        stages = figures.stages
        by_children = sum([stage.child_cpu_seconds for stage in stages])
        return cls(
            figures.elapsed,
            figures.loop.stalled_seconds,
            figures.cpu_seconds - by_children,
            figures.intake_seconds,
            tuple(map(Spent.of, stages)),
            tuple(map(done_items, stages)),
            by_children,
            figures.loop.busy_seconds,
            tuple(map(Marks.of, stages)),
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
            tuple(map(combine, self.done, other.done)),
            combine(self.children_computed, other.children_computed),
            combine(self.worked, other.worked),
            tuple(
                Marks(*map(combine, *both)) for both in zip(self.marks, other.marks, strict=True)
            ),
        )
