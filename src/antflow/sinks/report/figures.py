"""The figures of a report, gathered event by event, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappush, heapreplace
from typing import Any

from antflow._core.durations import SHORTEST_RUN, SHORTEST_WAIT, DurationCounter, Durations
from antflow._core.text import clean, cut
from antflow.sinks.records import EventRecord
from antflow.sinks.report.grid import Grid
from antflow.sinks.report.timeline import OUTCOMES, Span, Timeline

MOST_SLOWEST = 20
MOST_KINDS_OF_ERRORS = 100
MOST_SAMPLES = 3
"""Messages of each kind of error."""

LONGEST_MESSAGE = 500
LONGEST_TYPE = 100

MOST_FAILED_BYTES = 200_000
"""Bytes of the list of failed items."""

MOST_OPEN = 200_000
"""Items that are followed from their intake to their end at a time."""

NO_DURATIONS = Durations()

LEAVES = ("failed", "dropped", "expanded", "cancelled")
LEAVES_LAST_STAGE = ("completed", "skipped", "emitted")
"""Kinds of events with which an item ends; and those with which it does so in the last stage."""

OTHER_ERRORS = "other errors"
HELD = "RetryAfter"


@dataclass
class StageFigures:
    """Figures of one stage.

    Attributes:
        name: Its name.
        counts: Kind of event → how many.
        tries: How long its tries took.
        waits: How long items waited for a worker, before each first try.
        repeated_seconds: Seconds of tries that were followed by another.
        failed_seconds: Seconds of tries that failed.
        between_seconds: Seconds that items waited between two tries, all together.
        holds: Tries that a service asked to repeat later.
        held_seconds: Seconds of the run for which no try could begin for that reason.
        seconds: Seconds of all workers together, by what they did.
        workers: How many workers it had.
        options: Name of an option → its value, where it is not the usual one.
    """

    name: str
    counts: dict[str, int] = field(default_factory=dict[str, int])
    tries: Durations = NO_DURATIONS
    waits: Durations = NO_DURATIONS
    repeated_seconds: float = 0.0
    failed_seconds: float = 0.0
    between_seconds: float = 0.0
    holds: int = 0
    held_seconds: float | None = None
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    workers: int = 0
    options: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def done(self) -> int:
        """Items that came through it."""
        return self.counts.get("completed", 0) + self.counts.get("expanded", 0)

    @property
    def retries(self) -> int:
        """Tries that were followed by another."""
        return self.counts.get("retrying", 0)


@dataclass
class ErrorKind:
    """Errors of one type, in one stage, from one line of code.

    Attributes:
        type: Class name.
        stage: Name of the stage.
        place: The line: ``"app.py:41 in parse"``; "" if it is not known.
        failed: Items that failed for good with it.
        repeated: Tries that were repeated after it.
        samples: Messages, each with the id of an item that had it.
        input: The first item as it was fed; "" if that is not known.
    """

    type: str
    stage: str
    place: str
    failed: int = 0
    repeated: int = 0
    samples: dict[str, str] = field(default_factory=dict[str, str])
    input: str = ""


@dataclass
class SlowItem:
    """An item that took long.

    Attributes:
        item: Its id.
        seconds: From its intake to its end.
        worked: Seconds for which workers had it.
        tries: How often it was tried, in all stages.
        stage: Where workers had it longest.
        longest: For how long.
        ending: The kind of its last event.
    """

    item: str
    seconds: float
    worked: float
    tries: int
    stage: str
    longest: float
    ending: str


@dataclass
class Report:
    """All that a report says. Texts are as they came: what writes them makes them safe.

    Attributes:
        run: Its id.
        pipeline: The pipeline's name.
        started: In Unix seconds.
        duration: In seconds.
        how: How the run ended; "unfinished": its program ended first, or goes on.
        error: The error that it raised, with its type.
        counts: Items "accepted", "children", "completed", "failed", "dropped", "expanded",
            "cancelled" and "in flight".
        stages: The stages, in order.
        advice: What held the run back, in a sentence; "" if there is none.
        errors: Kinds of errors, those with most failed items first.
        failed_ids: Ids of failed items, the first ones if there are many.
        slowest: The slowest items, slowest first.
        width: Seconds of each bin of ``rates``.
        rates: Of each stage, how many items came through it in each bin; then all that failed.
        timeline: For the script of the page.
        lost: Events that are missing.
        has_all_times: Whether the stages' ``seconds`` have all seconds of their workers.
        facts: More about the run: name → text.
    """

    run: str
    pipeline: str
    started: float
    duration: float
    how: str
    error: str
    counts: dict[str, int]
    stages: list[StageFigures]
    advice: str
    errors: list[ErrorKind]
    failed_ids: list[str]
    slowest: list[SlowItem]
    width: float
    rates: list[list[int]]
    timeline: dict[str, Any]
    lost: int = 0
    has_all_times: bool = False
    facts: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def per_second(self) -> float:
        """Items that came out at the end, for each second."""
        return self.counts["completed"] / self.duration if self.duration > 0 else 0.0


class _Open:
    """An item on its way."""

    __slots__ = ("entered", "input", "longest", "place", "repeats", "since", "tries", "worked")

    def __init__(self, at: float, value: str | None) -> None:
        self.entered = self.since = at
        self.worked = self.longest = 0.0
        self.place = ""
        self.tries = 0
        self.repeats = False
        self.input = "" if value is None else cut(value, LONGEST_TYPE)


class RunFigures:
    """Gathers the figures of one run.

    Args:
        run: Its id.
        pipeline: The pipeline's name.
        stages: Names of its stages, in order.
        started: When it began, in Unix seconds.

    Attributes:
        latest: Seconds from there to the last event.
    """

    def __init__(self, run: str, pipeline: str, stages: Sequence[str], started: float) -> None:
        self._run = run
        self._pipeline = pipeline
        self._started = started
        self.latest: float = 0.0
        self.stages: list[StageFigures] = [StageFigures(name) for name in stages]
        self._index = {name: index for index, name in enumerate(stages)}
        self._tries = [DurationCounter(SHORTEST_RUN) for _ in stages]
        self._waits = [DurationCounter(SHORTEST_WAIT) for _ in stages]
        self._counted = [[0, 0] for _ in stages]
        self._rates = Grid(len(stages) + 1)
        self._timeline = Timeline(len(stages))
        self._open: dict[tuple[int, str], _Open] = {}
        self.errors: dict[tuple[str, str, str], ErrorKind] = {}
        self._failed: list[str] = []
        self._failed_room = MOST_FAILED_BYTES
        self._slowest: list[tuple[float, int, SlowItem]] = []
        self._settled = 0
        self.accepted: int = 0

    def told(self, record: EventRecord) -> None:
        """Take in one event."""
        if (stage := self._index.get(record.stage)) is None:
            return
        at = max(record.timestamp - self._started, 0.0)
        self.latest = max(self.latest, at)
        kind, figures = record.kind, self.stages[stage]
        figures.counts[kind] = figures.counts.get(kind, 0) + 1
        if kind == "admitted":
            self.accepted += 1
        if kind in ("admitted", "emitted"):
            self._enters(record, at)
        elif kind == "started":
            self._begins(record, stage, at)
        elif kind in OUTCOMES:
            self._tried(record, stage, at)
        is_last = stage + 1 == len(self.stages)
        if kind in LEAVES or (is_last and kind in LEAVES_LAST_STAGE):
            self._settles(record, at)

    def _enters(self, record: EventRecord, at: float) -> None:
        if len(self._open) < MOST_OPEN:
            self._open[record.sequence_id, record.branch] = _Open(at, record.value)

    def _begins(self, record: EventRecord, stage: int, at: float) -> None:
        item = self._open.get((record.sequence_id, record.branch))
        if item is None:
            return
        waited = max(at - item.since, 0.0)
        if item.repeats:
            self.stages[stage].between_seconds += waited
            item.repeats = False
            return
        self._counted[stage][1] += 1
        if waited >= SHORTEST_WAIT:
            self._waits[stage].add(waited)

    def _tried(self, record: EventRecord, stage: int, at: float) -> None:
        """A try is over, or the item was cancelled before it began."""
        figures, kind, seconds = self.stages[stage], record.kind, record.duration
        if (item := self._open.get((record.sequence_id, record.branch))) is not None:
            item.since = at
            item.worked += seconds
            item.tries += record.worker is not None
            item.repeats = kind == "retrying"
            if seconds >= item.longest:
                item.longest, item.place = seconds, record.stage
        if record.worker is not None:
            self._counted[stage][0] += 1
            if seconds >= SHORTEST_RUN:
                self._tries[stage].add(seconds)
            worker = int(record.worker.rpartition("-W")[2])
            begin = max(at - seconds, 0.0)
            span = Span(stage, worker, begin, at, OUTCOMES[kind], record.item)
            seconds = self._timeline.add(span)
        if kind in ("completed", "expanded"):
            self._rates.add(stage, at)
        elif kind in ("failed", "retrying"):
            figures.failed_seconds += seconds
            if kind == "retrying":
                figures.repeated_seconds += seconds
                figures.holds += record.error_type == HELD
            else:
                self._rates.add(len(self.stages), at)
                self._note_failed(record.item)
            self._note_error(record, item)

    def _note_failed(self, item: str) -> None:
        if self._failed_room > 0:
            name = clean(item)
            self._failed_room -= len(name.encode()) + 3
            self._failed.append(name)

    def _note_error(self, record: EventRecord, item: _Open | None) -> None:
        kind = cut(record.error_type or "", LONGEST_TYPE)
        key = (kind, record.stage, record.place or "")
        if key not in self.errors and len(self.errors) >= MOST_KINDS_OF_ERRORS:
            key = (OTHER_ERRORS, record.stage, "")
        error = self.errors.setdefault(key, ErrorKind(*key))
        if record.kind == "failed":
            error.failed += 1
        else:
            error.repeated += 1
        if len(error.samples) < MOST_SAMPLES:
            error.samples.setdefault(cut(record.error or "", LONGEST_MESSAGE), record.item)
        if item is not None and not error.input:
            error.input = item.input

    def _settles(self, record: EventRecord, at: float) -> None:
        if (item := self._open.pop((record.sequence_id, record.branch), None)) is None:
            return
        seconds = at - item.entered
        self._settled += 1
        if len(self._slowest) == MOST_SLOWEST and seconds <= self._slowest[0][0]:
            return
        slow = SlowItem(
            record.item, seconds, item.worked, item.tries, item.place, item.longest, record.kind
        )
        entry = (seconds, -self._settled, slow)
        if len(self._slowest) < MOST_SLOWEST:
            heappush(self._slowest, entry)
        else:
            heapreplace(self._slowest, entry)

    def report(
        self,
        duration: float,
        how: str,
        counts: dict[str, int],
        error: str = "",
        workers: Sequence[int] = (),
    ) -> Report:
        """The report, as far as events tell.

        Args:
            duration: How long the run took, in seconds.
            how: How it ended.
            counts: How many items ended in which way; see `Report`.
            error: The error that the run raised, with its type.
            workers: How many workers each stage had, if that is known.
        """
        for index, count in enumerate(workers):
            self._timeline.reach(index, count)
        for index, figures in enumerate(self.stages):
            tries, waits = self._counted[index]
            figures.tries = self._tries[index].read(tries)
            figures.waits = self._waits[index].read(waits)
            figures.seconds = {"busy": self._timeline.busy[index]}
            figures.workers = self._timeline.workers[index]
        errors = sorted(self.errors.values(), key=lambda each: (-each.failed, -each.repeated))
        return Report(
            self._run,
            self._pipeline,
            self._started,
            duration,
            how,
            error,
            counts,
            self.stages,
            "",
            errors,
            self._failed,
            [slow for _, _, slow in sorted(self._slowest, key=lambda each: each[:2], reverse=True)],
            self._rates.width,
            [[round(count) for count in cells] for cells in self._rates.rows],
            self._timeline.drawn(duration),
        )
