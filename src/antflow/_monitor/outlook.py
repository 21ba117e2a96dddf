"""Gives the snapshots of a run what its figures say about the future: `advice`.

A run has one `Outlook`, for every face of it. It takes in each snapshot, in whatever thread, and
remembers a fixed number of sums. What a snapshot says is worked out when it is first read, so that
a snapshot costs no more than before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import Any

from antflow._core.levers import Advice
from antflow._core.snapshot import DashboardSnapshot
from antflow._core.stage import Stage
from antflow._monitor.advice import Case, UnderWay, advise
from antflow._monitor.changes import Changes
from antflow._monitor.moment import Figures
from antflow._monitor.spans import Span, Spans

Longest = Callable[[], tuple[str, Any, float] | None]
"""The item that has been under way longest: its stage's name, its id, and since when (seconds)."""


class Outlook:
    """The memory of one run; see `antflow._core.ports.Outlook`.

    Args:
        stages: Its stages, as they were described.
    """

    def __init__(self, stages: Sequence[Stage] = ()) -> None:
        self._stages = stages
        self._spans = Spans()
        self._changes = Changes()
        self._lock = Lock()

    def see(
        self, snapshot: DashboardSnapshot, longest: Longest = lambda: None
    ) -> Mapping[str, Callable[[], Any]]:
        """Take in the next snapshot; return what makes its fields when they are read."""
        figures = Figures.of(snapshot)
        with self._lock:
            span = self._spans.see(figures)
            if self._changes.is_changed(figures):
                self._note_change(span)
        return {"advice": partial(self._advice, span, longest)}

    def _note_change(self, span: Span) -> None:
        whole, lately = span.sums()
        advice = advise(Case(span.figures.stages, whole, lately, options=self._stages))
        predicted: dict[str, float] = {}
        if advice.lever == "workers" and advice.stage is not None and advice.gain is not None:
            predicted[advice.stage] = advice.gain[1]
        self._changes.note(span.figures, whole, lately, predicted)

    def _advice(self, span: Span, longest: Longest) -> Advice:
        whole, lately = span.sums()
        figures, under_way = span.figures, longest()
        with self._lock:
            outcomes = self._changes.outcomes(figures, whole)
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
            )
        )
