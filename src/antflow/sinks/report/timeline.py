"""Which worker was at work when: rows for a drawing, in bounded memory.

A row is a worker; where there are more than `MOST_ROWS`, it is several of one stage. Of each row
the busy seconds are kept in bins, exactly. Of the tries themselves a sample is kept (reservoir
sampling: Vitter, "Random Sampling with a Reservoir", 1985, algorithm R), and one of those that
failed, which is all of them up to `MOST_FAILED`.
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from antflow._core.text import clean, cut
from antflow.sinks.report.grid import Grid

MOST_ROWS = 64
MOST_SPANS = 20_000
MOST_FAILED = 5_000

MOST_BYTES = 600_000
"""Bytes of the sample in a page, half of which may be failed tries; long ids make it smaller."""

LONGEST_NAME = 60
"""Characters of an item's id in it."""

TICKS = 1 << 20
"""Parts of the run in which the moments of the sample are told."""

SAME_MOMENT = 2e-6
"""Seconds: Unix times are floats, and no more exact."""

SHARES = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"
"""One character for each share of a bin, from none to all."""

OUTCOMES = {"completed": 0, "expanded": 0, "dropped": 0, "failed": 1, "retrying": 2, "cancelled": 3}
"""How a try can end, as a number in the page."""


class Span(NamedTuple):
    """One try: where, when (seconds of the run), how it ended, and of which item."""

    stage: int
    worker: int
    begin: float
    end: float
    outcome: int
    item: str


class Sample:
    """A number of spans, any of which is kept with the same probability."""

    def __init__(self, most: int, random: Random) -> None:
        self.spans: list[Span] = []
        self.seen: int = 0
        self._most = most
        self._random = random

    def add(self, span: Span) -> None:
        """See one more."""
        self.seen += 1
        if len(self.spans) < self._most:
            self.spans.append(span)
        elif (index := int(self._random.random() * self.seen)) < self._most:
            self.spans[index] = span


class Timeline:
    """The work of all workers of a run.

    Args:
        stages: How many stages there are.

    Attributes:
        busy: Busy seconds of each stage.
        workers: How many workers of each stage have a row.
    """

    def __init__(self, stages: int) -> None:
        self.busy: list[float] = [0.0] * stages
        self.workers: list[int] = [0] * stages
        self._grids = [Grid() for _ in range(stages)]
        self._per_row = [1] * stages
        self._until: dict[tuple[int, int], tuple[float, float]] = {}
        random = Random(0)
        self._others = Sample(MOST_SPANS, random)
        self._failed = Sample(MOST_FAILED, random)

    def add(self, span: Span) -> float:
        """A try is over. The items of a batch come one by one, and are at work at the same time.

        Returns:
            Seconds of its worker that no try had yet.
        """
        stage, worker, begin, end, outcome, _ = span
        began, until = self._until.get((stage, worker), (-1.0, 0.0))
        is_more_of_a_batch = abs(begin - began) < SAME_MOMENT
        fresh = max(begin, until)
        row = self._row_of(stage, worker)
        if fresh < end:
            self.busy[stage] += end - fresh
            self._grids[stage].spread(row, fresh, end)
        self._until[stage, worker] = (begin, max(end, until))
        if outcome == OUTCOMES["failed"]:
            self._failed.add(span)
        elif not is_more_of_a_batch:
            self._others.add(span)
        return max(end - fresh, 0.0)

    def reach(self, stage: int, workers: int) -> None:
        """Have a row for each of this many workers of a stage, at least."""
        if workers:
            self._row_of(stage, workers - 1)

    def drawn(self, duration: float) -> dict[str, Any]:
        """The rows and the sample, for the script of the page.

        Args:
            duration: Of the run, in seconds.
        """
        width = max((grid.width for grid in self._grids), default=1.0)
        rows: list[list[Any]] = []
        for stage, grid in enumerate(self._grids):
            while grid.width < width:
                grid.widen()
            for index, cells in enumerate(grid.rows):
                first = index * self._per_row[stage]
                count = min(self._per_row[stage], self.workers[stage] - first)
                whole = width * count
                shares = [min(int(cell / whole * 63 + 0.999), 63) for cell in cells]
                rows.append([stage, first, count, "".join([SHARES[share] for share in shares])])
        return {
            "width": width,
            "perRow": self._per_row,
            "rows": rows,
            "spans": self._columns(max(duration, 1e-6)),
            "seen": self._others.seen + self._failed.seen,
        }

    def _row_of(self, stage: int, worker: int) -> int:
        """The row of a worker, in its stage."""
        if worker >= self.workers[stage]:
            self.workers[stage] = worker + 1
        rows = self._grids[stage].rows
        if worker // self._per_row[stage] >= len(rows):
            while len(rows) <= worker // self._per_row[stage]:
                rows.extend(Grid(1).rows)
            self._join_rows()
        return worker // self._per_row[stage]

    def _join_rows(self) -> None:
        while sum(len(grid.rows) for grid in self._grids) > MOST_ROWS:
            stage = max(range(len(self._grids)), key=lambda each: len(self._grids[each].rows))
            if len(self._grids[stage].rows) < 2:
                return
            self._per_row[stage] *= 2
            self._grids[stage].join_rows()

    def _columns(self, duration: float) -> dict[str, list[Any]]:
        """The sample, in the order of time: each moment is told as the time since the last one."""
        failed = _within(self._failed.spans, MOST_BYTES // 2)
        spans = [*failed, *_within(self._others.spans, MOST_BYTES - _bytes_of(failed))]
        spans.sort(key=lambda span: span.begin)
        columns: dict[str, list[Any]] = {name: [] for name in ("at", "for", "who", "how", "item")}
        ticks, before = TICKS / duration, 0
        for stage, worker, begin, end, outcome, item in spans:
            at = max(round(begin * ticks), 0)
            columns["at"].append(at - before)
            columns["for"].append(max(round((end - begin) * ticks), 0))
            columns["who"].append(worker * len(self._grids) + stage)
            columns["how"].append(outcome)
            columns["item"].append(cut(clean(item), LONGEST_NAME))
            before = at
        return columns


def _within(spans: list[Span], most: int) -> list[Span]:
    """As many as take up about this many bytes, any of them with the same probability."""
    size = _bytes_of(spans)
    return spans if size <= most else Random(0).sample(spans, len(spans) * most // size)


def _bytes_of(spans: list[Span]) -> int:
    return sum(len(span.item[:LONGEST_NAME].encode("utf-8", "replace")) + 18 for span in spans)
