"""Gives the snapshots of a run what its figures say about the future: `advice`.

A run has one `Outlook`, for every face of it. It takes in each snapshot, in whatever thread, and
remembers a fixed number of sums. What a snapshot says is worked out when it is first read, so that
a snapshot costs no more than before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from threading import Lock
from typing import Any

from antflow._core.levers import Advice
from antflow._core.snapshot import DashboardSnapshot
from antflow._monitor.advice import advise
from antflow._monitor.moment import Figures
from antflow._monitor.spans import Span, Spans


class Outlook:
    """The memory of one run; see `antflow._core.ports.Outlook`."""

    def __init__(self) -> None:
        self._spans = Spans()
        self._lock = Lock()

    def see(self, snapshot: DashboardSnapshot) -> Mapping[str, Callable[[], Any]]:
        """Take in the next snapshot; return what makes its fields when they are read."""
        with self._lock:
            span = self._spans.see(Figures.of(snapshot))
        return {"advice": partial(_advice, span)}


def _advice(span: Span) -> Advice:
    whole, lately = span.sums()
    figures = span.figures
    return advise(list(figures.stages), whole, lately, figures.state, figures.loop.last_stall)
