"""The spans of time over which a run is judged: the last seconds; at its end, the whole run.

The memory has a fixed size, however long the run is. Nothing holds back a paused run, so pauses do
not count.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from antflow._core.snapshot import RunState
from antflow._monitor.moment import Figures, Moment

RECENT = 10.0
"""Seconds over which the use of time is judged while a run goes on."""

BETWEEN_MOMENTS = 0.25


class Span(NamedTuple):
    """Where a span begins that ends now.

    Attributes:
        figures: Those of the run now.
        begin: The moment at which it began; ``None``: with the run.
        pauses: The pauses of the run until now; ``None``: there were none.
    """

    figures: Figures
    begin: Moment | None
    pauses: Moment | None

    def sums(self) -> tuple[Moment, Moment]:
        """The sums since the run began, and what this span added to them."""
        whole = Moment.of(self.figures).since(self.pauses)
        return whole, whole.since(self.begin)


class Spans:
    """Remembers the moments of one run."""

    def __init__(self) -> None:
        self._moments: deque[Moment] = deque()
        self._pauses: Moment | None = None
        self._seen: tuple[RunState, Moment] | None = None
        self._last = 0.0

    def see(self, figures: Figures) -> Span:
        """The span that ends with these figures; pass them in order."""
        state = figures.state
        if state == "finished":
            self._note_pause(figures)
            return Span(figures, None, self._pauses)
        moments, elapsed = self._moments, figures.elapsed
        # The first figures come after the beginning: what came before them counts, too.
        begin = moments[0] if moments and moments[-1].elapsed > RECENT else None
        if state == "paused" or self._is_paused or elapsed - self._last >= BETWEEN_MOMENTS:
            now = self._note_pause(figures)
            while len(moments) > 1 and moments[1].elapsed <= now.elapsed - RECENT:
                moments.popleft()
            begin = moments[0] if moments and now.elapsed > RECENT else None
            moments.append(now)
            self._last = elapsed
        return Span(figures, begin, self._pauses)

    @property
    def _is_paused(self) -> bool:
        return self._seen is not None and self._seen[0] == "paused"

    def _note_pause(self, figures: Figures) -> Moment:
        """Note the time since the last figures if that was a pause; the sums without pauses."""
        now = Moment.of(figures)
        if self._seen is not None and self._seen[0] == figures.state == "paused":
            self._pauses = now.since(self._seen[1]).plus(self._pauses)
        self._seen = (figures.state, now)
        return now.since(self._pauses)
