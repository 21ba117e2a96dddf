"""Gives the snapshots of a run what its figures say about the future: `advice` and `eta`.

A run has one `Outlook`, for every face of it. It takes in each snapshot, in whatever thread, and
remembers a fixed number of sums. What a snapshot says is worked out when it is first read, so that
a snapshot costs no more than before. The inside of the stages is read once a second at most; an ETA
is simulated from there, once, and counts down until the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from threading import Lock
from typing import Any

from antflow._core.estimates import PastRun, WhatIf
from antflow._core.inside import StageInside
from antflow._core.levers import Advice
from antflow._core.sink_counts import counts_of
from antflow._core.snapshot import DashboardSnapshot, PipelineStats
from antflow._core.stage import Stage
from antflow._monitor.advice import Case, UnderWay, advise
from antflow._monitor.changes import Changes
from antflow._monitor.eta import Budget, Forecast, RunMeasured, is_known, what_if
from antflow._monitor.measured import Memory, Note, rate_limits
from antflow._monitor.moment import Figures, Moment
from antflow._monitor.probes import Probes
from antflow._monitor.spans import Span, Spans

BETWEEN_NOTES = 1.0
"""Seconds."""

Longest = Callable[[], tuple[str, Any, float] | None]
"""The item that has been under way longest: its stage's name, its id, and since when (seconds)."""


def _nothing() -> Sequence[StageInside]:
    return ()


class Outlook:
    """The memory of one run; see `antflow._core.ports.Outlook`.

    Args:
        stages: Its stages, as they were described.
        observers: Its observers, some of which may be sinks.

    Attributes:
        probes: What came of its probes.
        note: Its latest figures; ``None`` before the first.
    """

    def __init__(self, stages: Sequence[Stage] = (), observers: Sequence[Any] = ()) -> None:
        self._stages = stages
        self._observers = [each for each in observers if counts_of([each])]
        self._spans = Spans()
        self._span = Span()
        self._changes = Changes()
        self.probes: Probes = Probes()
        self.note: Note | None = None
        self._memory = Memory()
        self._budget = Budget()
        self._forecast = Forecast(None, self._budget)
        self._noted = -inf
        self._state = ""
        self._lock = Lock()

    def see(
        self,
        snapshot: DashboardSnapshot,
        stats: Callable[[], PipelineStats] | None = None,
        inside: Callable[[], Sequence[StageInside]] = _nothing,
        longest: Longest = lambda: None,
    ) -> Mapping[str, Callable[[], Any]]:
        """Take in the next snapshot; return what makes its fields when they are read."""
        figures = Figures.of(snapshot, stats)
        elapsed = figures.elapsed
        with self._lock:
            span = self._spans.see(figures)
            if span is not self._span:
                self._span = span
                if self._changes.is_changed(figures, self.probes.trying):
                    self._note_change(figures, *span.sums(figures))
            if figures.state != self._state or elapsed - self._noted >= BETWEEN_NOTES:
                self._state, self._noted = figures.state, elapsed
                self._note(snapshot.total_items, figures, inside())
            forecast = self._forecast
        return {
            "advice": partial(self._advice, figures, span, longest),
            "recent": partial(span.recent, figures),
            "eta": partial(forecast.at, elapsed),
            "sinks": partial(counts_of, self._observers),
        }

    def what_if(self, workers: Mapping[str, int]) -> WhatIf | None:
        """How long the run would take if it went on with these workers."""
        return None if self.note is None else what_if(self.note, workers)

    def past(
        self, stats: PipelineStats, inside: Sequence[StageInside], elapsed: float, intake: float
    ) -> PastRun:
        """The measurements of the run, which is over."""
        stages = tuple(stats.stage_stats.values())
        return RunMeasured(elapsed, intake, stats.items_accepted, stages, tuple(inside))

    def _note(self, total: int | None, figures: Figures, inside: Sequence[StageInside]) -> None:
        note = None
        if inside and figures.state != "finished":
            note = self._memory.note(
                figures.state,
                total,
                figures.elapsed,
                figures.stats().items_accepted,
                figures.stages,
                inside,
            )
            self.note = note
        if note is None or not is_known(note):
            self._forecast = Forecast(None, self._budget)
        elif self._budget.allows(figures.elapsed):
            self._forecast = Forecast(note, self._budget)

    def _note_change(self, figures: Figures, whole: Moment, lately: Moment) -> None:
        advice = advise(Case(figures.stages, whole, lately, options=self._stages))
        predicted: dict[str, float] = {}
        if advice.lever == "workers" and advice.stage is not None and advice.gain is not None:
            predicted[advice.stage] = advice.gain[1]
        self._changes.note(figures, whole, lately, predicted)

    def _advice(self, figures: Figures, span: Span, longest: Longest) -> Advice:
        whole, lately = span.sums(figures)
        under_way = longest()
        with self._lock:
            outcomes = self._changes.outcomes(figures, whole)
            probed = self.probes.counting(figures, lately)
        return advise(
            Case(
                figures.stages,
                whole,
                lately,
                figures.state,
                figures.loop,
                self._stages,
                outcomes,
                None if under_way is None else UnderWay(*under_way),
                probed,
                self.probes.trying,
                () if self.note is None else rate_limits(self.note),
            )
        )
