"""Selects what is worth showing: from the snapshots of a run to plain values, without drawing.

There is one `View` for every face of a run. A `Viewer` makes them, one for each snapshot, and
remembers what it needs of the earlier ones: a ratio that never goes back, the recent rate, where
the time went. Its memory has a fixed size, however long the run is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import inf

from antflow._core.estimates import Eta
from antflow._core.failures import kind_of, ungrouped
from antflow._core.levers import Advice
from antflow._core.recent import RecentStageStats, RecentStats
from antflow._core.snapshot import (
    DashboardSnapshot,
    ErrorSummary,
    FailedItem,
    LoopHealth,
    RunState,
    StageStats,
)
from antflow._monitor.flow import done_items
from antflow._monitor.moment import Figures
from antflow._monitor.progress import Progress, RecentRate, progress
from antflow._monitor.spans import Span
from antflow._monitor.throughput import Throughput

UNNAMED = "pipeline"
"""The name of a pipeline without a name."""

WORTH_SAYING = 0.3
"""Share of their time that workers must wait before the reason is shown."""

EARLIEST = 3.0
SHORTEST = 1.0
"""Seconds: from when on an ETA is shown, and the shortest one that is."""

HELD = 1.0
"""Seconds for which an ETA is shown unchanged."""

SHORTEST_SHARE = 1.0
"""Seconds from which the share of the time for which the event loop was at work is shown."""

MOST_FAILURES_READ = 1000
"""How many failed items are searched, newest first, for the newest of each type."""


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage.

    Attributes:
        stats: Its counts.
        per_second: Items that leave it per second: recently, and at the end over the whole run.
        recent: Durations, and where its workers' time goes: in the last minute, and at the end in
            all.
        is_bottleneck: Whether it holds the run back.
        hint: A few words on that, or on what its workers wait for; "" if they do not.
        is_over: Whether the run is over.
        is_chosen: Whether it was chosen with a key.
        is_first: Whether it gets its items from the source.
    """

    stats: StageStats
    per_second: float
    recent: RecentStageStats
    is_bottleneck: bool
    hint: str
    is_over: bool
    is_chosen: bool = False
    is_first: bool = False


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """Failures of one type from one line of code; or of one type, where no more is known.

    Attributes:
        error_type: Class name of the error.
        count: How many items failed with it.
        shown: The newest of them that is kept, else the first; ``None`` if none is known.
    """

    error_type: str
    count: int
    shown: FailedItem | None


@dataclass(frozen=True, slots=True)
class View:
    """The things worth showing of a run at one moment.

    Attributes:
        name: The pipeline's.
        snapshot: The snapshot it was made from.
        progress: How far the run is.
        eta: How much longer it will take, if that can be said; held for a second.
        rates: Items settled per second over the time of the run, oldest first.
        rates_span: Seconds that each of them covers.
        stages: The stages, in pipeline order.
        errors: The kinds of failures, latest first.
        advice: What holds the run back, or at the end, what held it back.
        loop_busy: Share of the time for which the event loop was at work: in the last minute, and
            at the end in all; 0.0 in the first second, which says little.
    """

    name: str
    snapshot: DashboardSnapshot
    progress: Progress
    eta: Eta | None
    rates: list[float]
    rates_span: float
    stages: list[StageView]
    errors: list[ErrorRow]
    advice: Advice
    loop_busy: float

    @property
    def loop(self) -> LoopHealth:
        """Whether something blocks the event loop."""
        return self.snapshot.loop

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.snapshot.state == "finished"


class HeldEta:
    """The ETA as it is shown: held for a second, since one that flickers cannot be read."""

    def __init__(self) -> None:
        self._eta: Eta | None = None
        self._seen_at = -inf
        self._state: RunState | None = None

    def see(self, snapshot: DashboardSnapshot) -> Eta | None:
        """The ETA to show for a snapshot."""
        if snapshot.elapsed - self._seen_at >= HELD or snapshot.state != self._state:
            self._seen_at, self._state = snapshot.elapsed, snapshot.state
            eta = snapshot.eta
            is_worth_it = snapshot.elapsed >= EARLIEST and eta and eta.longest >= SHORTEST
            self._eta = eta if is_worth_it else None
        return self._eta


class Viewer:
    """Makes the views of one run.

    Args:
        total: How many items there will be, where the snapshots do not know it.
        name: The pipeline's.

    Attributes:
        chosen: The stage that was chosen with a key; "" = none.
    """

    def __init__(self, total: int | None = None, name: str = UNNAMED) -> None:
        self._total = total
        self._name = name
        self.chosen: str = ""
        self._view: View | None = None
        self._rate = RecentRate()
        self._stage_rates: defaultdict[str, RecentRate] = defaultdict(RecentRate)
        self._eta = HeldEta()
        self._throughput = Throughput()

    def see(self, snapshot: DashboardSnapshot) -> View:
        """The view of a snapshot. Pass snapshots in order; the last one may be repeated."""
        if self._view is None or self._view.snapshot is not snapshot:
            self._view = self._next(snapshot)
        return self._view

    def _next(self, snapshot: DashboardSnapshot) -> View:
        earlier = None if self._view is None else self._view.progress
        shown = progress(snapshot, self._total, earlier, self._rate)
        self._throughput.add(shown.settled - (earlier.settled if earlier else 0), shown.elapsed)
        recent = snapshot.recent
        if not recent.stages:  # not a run's own snapshot
            recent = Span().recent(Figures.of(snapshot))
        return View(
            name=self._name,
            snapshot=snapshot,
            progress=shown,
            eta=self._eta.see(snapshot),
            rates=self._throughput.rates(),
            rates_span=self._throughput.span,
            stages=self._stages(snapshot, recent),
            errors=error_rows(snapshot.error_summary),
            advice=snapshot.advice,
            loop_busy=recent.loop_busy if recent.seconds >= SHORTEST_SHARE else 0.0,
        )

    def _stages(self, snapshot: DashboardSnapshot, recent: RecentStats) -> list[StageView]:
        stages = snapshot.pipeline_stats.stage_stats
        names = list(stages)
        views: list[StageView] = []
        advice, is_over = snapshot.advice, snapshot.state == "finished"
        for index, (name, stage) in enumerate(stages.items()):
            per_second = self._stage_rates[name].see(done_items(stage), snapshot)
            is_bottleneck = advice.stage == name and advice.is_its_own
            lately = recent.stages[name]
            hint = advice.hint if is_bottleneck else _hint(lately, names[index + 1 :])
            is_chosen = name == self.chosen
            views.append(
                StageView(
                    stage,
                    per_second,
                    lately,
                    is_bottleneck,
                    hint,
                    is_over,
                    is_chosen,
                    is_first=index == 0,
                )
            )
        return views


def _hint(recent: RecentStageStats, following: Sequence[str]) -> str:
    """A few words on what the workers of a stage mostly wait for."""
    waits = {
        "waits for items": recent.starved,
        f"waits for {following[0]}" if following else "waits for the consumer": recent.blocked,
        "held by its limit": recent.limited,
        "waits for retries": recent.retrying,
        "loop blocked": recent.stalled,
    }
    most = max(waits, key=lambda reason: waits[reason])
    return most if waits[most] >= WORTH_SAYING else ""


def error_rows(summary: ErrorSummary) -> list[ErrorRow]:
    """The kinds of failures: those with the latest ones first, then the others by number."""
    rows: dict[tuple[str, str, str], ErrorRow] = {}
    for group in summary.groups:
        rows[kind_of(group.first)] = ErrorRow(group.error_type, group.count, group.first)
    for error_type, count in ungrouped(summary).items():
        rows[error_type, "", ""] = ErrorRow(error_type, count, None)
    latest: dict[tuple[str, str, str], ErrorRow] = {}
    for item in islice(reversed(summary.failed_items), MOST_FAILURES_READ):
        kind = kind_of(item)
        if kind not in rows and kind not in latest:
            kind = (item.error_type, "", "")
        if (row := rows.pop(kind, None)) is not None:
            latest[kind] = replace(row, shown=item)
    rest = sorted(rows.values(), key=lambda row: (-row.count, row.error_type))
    return [*latest.values(), *rest]
