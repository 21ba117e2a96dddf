"""The spans of time over which a run is judged: the last seconds; at its end, the whole run.

The memory has a fixed size, however long the run is. Nothing holds back a paused run, so pauses do
not count.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from antflow._core.durations import durations_since
from antflow._core.recent import RecentStageStats, RecentStats
from antflow._core.snapshot import RunState, StageStats
from antflow._monitor.moment import Figures, Moment

LATELY = 10.0
BETWEEN_MOMENTS = 0.25
"""Seconds over which advice judges the use of time, and between the moments that are noted."""

MINUTE = 60.0
BETWEEN_MARKS = 2.5
"""The same for the figures that people read: with histograms, which take more room."""


class Mark(NamedTuple):
    """The figures of a run at one moment.

    Attributes:
        sums: Its sums, without pauses.
        stages: The stages, for their histograms; empty if these are not wanted.
    """

    sums: Moment
    stages: tuple[StageStats, ...] = ()


class Span(NamedTuple):
    """Where the spans begin that end now.

    Attributes:
        pauses: The pauses of the run; ``None``: there were none.
        lately: Where the last seconds begin; ``None``: with the run.
        minute: Where the last minute begins.
    """

    pauses: Moment | None = None
    lately: Mark | None = None
    minute: Mark | None = None

    def sums(self, figures: Figures) -> tuple[Moment, Moment]:
        """The sums since the run began, and what the last seconds added to them."""
        whole = Moment.of(figures).since(self.pauses)
        return whole, whole.since(self.lately and self.lately.sums)

    def recent(self, figures: Figures) -> RecentStats:
        """What the last minute added to the figures of the run."""
        since = self.minute
        whole = Moment.of(figures).since(self.pauses)
        added = whole.since(since and since.sums)
        seconds = added.elapsed
        found: dict[str, RecentStageStats] = {}
        for index, stage in enumerate(figures.stages):
            ran, waited = stage.run_times, stage.queue_waits
            if since is not None:
                earlier = since.stages[index]
                ran = durations_since(ran, earlier.run_times)
                waited = durations_since(waited, earlier.queue_waits)
            done, shares = added.done[index], added.spent[index].shares()
            found[stage.stage_name] = RecentStageStats(
                stage.stage_name,
                done_items=done,
                per_second=done / seconds if seconds > 0 else 0.0,
                **shares._asdict(),
                run_times=ran,
                queue_waits=waited,
            )
        loop_busy = min(added.worked / seconds, 1.0) if seconds > 0 else 0.0
        return RecentStats(seconds, loop_busy, found)


class _Window:
    """The marks of the last seconds: as many as have room in it, and one from before.

    Args:
        seconds: How far it reaches.
        between: Seconds from a mark to the next one.

    Attributes:
        begin: The mark at which it begins; ``None``: with the run.
    """

    def __init__(self, seconds: float, between: float) -> None:
        self._seconds = seconds
        self._between = between
        self._marks: deque[Mark] = deque()
        self.begin: Mark | None = None

    def move(self, mark: Mark) -> None:
        """Let it end with this mark."""
        marks, elapsed = self._marks, mark.sums.elapsed
        while len(marks) > 1 and marks[1].sums.elapsed <= elapsed - self._seconds:
            marks.popleft()
        # The first figures come after the beginning: what came before them counts, too.
        self.begin = marks[0] if marks and elapsed > self._seconds else None
        if not marks or elapsed - marks[-1].sums.elapsed >= self._between:
            marks.append(mark)


class Spans:
    """Remembers the moments of one run."""

    def __init__(self) -> None:
        self._lately = _Window(LATELY, BETWEEN_MOMENTS)
        self._minute = _Window(MINUTE, BETWEEN_MARKS)
        self._pauses: Moment | None = None
        self._seen: tuple[RunState, Moment] | None = None
        self._last = 0.0
        self._span = Span()

    def see(self, figures: Figures) -> Span:
        """The spans that end with these figures; pass them in order.

        Returns:
            Mostly the same as the time before: another one if the figures were noted.
        """
        state, elapsed = figures.state, figures.elapsed
        if state == "finished":
            self._note_pause(figures)
            self._span = Span(self._pauses)
        elif elapsed - self._last >= BETWEEN_MOMENTS or state == "paused" or self._is_paused:
            now = self._note_pause(figures)
            self._lately.move(Mark(now))
            self._minute.move(Mark(now, figures.stages))
            self._last = elapsed
            self._span = Span(self._pauses, self._lately.begin, self._minute.begin)
        return self._span

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
