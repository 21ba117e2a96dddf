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
from antflow._core.snapshot import DashboardSnapshot, PipelineStats
from antflow._monitor.advice import advise
from antflow._monitor.eta import Forecast, RunMeasured
from antflow._monitor.measured import Memory
from antflow._monitor.moment import Figures
from antflow._monitor.spans import Span, Spans

BETWEEN_NOTES = 1.0
"""Seconds."""


def _nothing() -> Sequence[StageInside]:
    return ()


class Outlook:
    """The memory of one run; see `antflow._core.ports.Outlook`."""

    def __init__(self) -> None:
        self._spans = Spans()
        self._memory = Memory()
        self._forecast = Forecast(None)
        self._noted = -inf
        self._state = ""
        self._lock = Lock()

    def see(
        self,
        snapshot: DashboardSnapshot,
        inside: Callable[[], Sequence[StageInside]] = _nothing,
    ) -> Mapping[str, Callable[[], Any]]:
        """Take in the next snapshot; return what makes its fields when they are read."""
        figures = Figures.of(snapshot)
        elapsed = figures.elapsed
        with self._lock:
            span = self._spans.see(figures)
            if figures.state != self._state or elapsed - self._noted >= BETWEEN_NOTES:
                self._state, self._noted = figures.state, elapsed
                self._note(snapshot, figures, inside())
            forecast = self._forecast
        return {"advice": partial(_advice, span), "eta": partial(forecast.at, elapsed)}

    def what_if(self, workers: Mapping[str, int]) -> WhatIf | None:
        """How long the run would take if it went on with these workers."""
        return self._forecast.what_if(workers)

    def past(
        self, stats: PipelineStats, inside: Sequence[StageInside], elapsed: float, intake: float
    ) -> PastRun:
        """The measurements of the run, which is over."""
        stages = tuple(stats.stage_stats.values())
        return RunMeasured(elapsed, intake, stats.items_accepted, stages, tuple(inside))

    def _note(
        self, snapshot: DashboardSnapshot, figures: Figures, inside: Sequence[StageInside]
    ) -> None:
        note = None
        if inside and figures.state != "finished":
            accepted = snapshot.pipeline_stats.items_accepted
            note = self._memory.note(
                figures.state,
                snapshot.total_items,
                figures.elapsed,
                accepted,
                figures.stages,
                inside,
            )
        self._forecast = Forecast(note)


def _advice(span: Span) -> Advice:
    whole, lately = span.sums()
    figures = span.figures
    return advise(list(figures.stages), whole, lately, figures.state, figures.loop.last_stall)
