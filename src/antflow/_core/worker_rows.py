"""The workers of a run at one moment: read now, made into values when they are asked for.

Making a value for each of thousands of workers would be most of the cost of a snapshot, and few
readers look at each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan, nan
from operator import itemgetter
from typing import Any, Protocol

from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import WorkerMetrics, WorkerState
from antflow._core.tally import Tally


class Counted(Protocol):
    """Knows how many workers a stage is to have."""

    @property
    def workers(self) -> int: ...


class WorkerRows:
    """The workers of all stages at one moment.

    These are the configured workers, those that have not been needed yet included, and those that
    are yet to retire.
    """

    def __init__(
        self, facts: RunFacts, gauges: Sequence[Counted], tallies: Sequence[Tally]
    ) -> None:
        self._stages = [
            _StageRows(facts, number, gauge.workers, tally)
            for number, (gauge, tally) in enumerate(zip(gauges, tallies, strict=True))
        ]

    def states(self) -> dict[str, WorkerState]:
        """Worker name → what it did."""
        return {each.worker_name: each for stage in self._stages for each in stage.states()}

    def longest(self, now: float) -> tuple[str, Any, float] | None:
        """The item that had been under way longest: its stage's name, its id, its seconds."""
        found = [each for stage in self._stages if (each := stage.longest()) is not None]
        if not found:
            return None
        since, stage, item_id = min(found, key=itemgetter(0))
        return stage, item_id, now - since

    def metrics(self) -> dict[str, WorkerMetrics]:
        """Worker name → what it had done."""
        return {each.worker_name: each for stage in self._stages for each in stage.metrics()}


class _StageRows:
    """The workers of one stage: a list for each figure, and by number what few of them have."""

    __slots__ = (
        "_count",
        "_doing",
        "_done",
        "_facts",
        "_indexes",
        "_more",
        "_stage",
        "_statuses",
        "_waits",
    )

    def __init__(self, facts: RunFacts, stage: int, count: int, tally: Tally) -> None:
        workers, items = tally.workers, tally.items
        self._facts = facts
        self._stage = stage
        self._count = count
        self._indexes = tally.indexes
        self._doing = (
            [None if item is None else item.id for item in items],
            [None if item is None else item.attempts for item in items],
            [each.task for each in workers],
            tally.since,
        )
        self._done = (
            tally.completed_each,
            [each.failed for each in workers],
            tally.busy_each,
            tally.since,
        )
        self._more = tally.more
        self._waits = tally.waits
        self._statuses = {
            each.index: status[1]
            for each in workers
            if (status := each.status) and (item := each.item) and status[0] == item.key
        }

    def longest(self) -> tuple[float, str, Any] | None:
        """Since when its longest item had been under way, its own name, and the item's id."""
        ids, attempts, _, since = self._doing
        began = [time for time, tries in zip(since, attempts, strict=True) if tries is not None]
        if not began:
            return None
        first = min(began)
        index = next(
            number
            for number, (time, tries) in enumerate(zip(since, attempts, strict=True))
            if tries is not None and time == first
        )
        return first, self._facts.stage_names[self._stage], ids[index]

    def states(self) -> Iterator[WorkerState]:
        stage = self._facts.stage_names[self._stage]
        for index, name, row in self._rows(self._doing, (None, None, None, nan)):
            item_id, attempts, task, since = row
            waits_for = self._waits.get(index)
            if attempts is None:
                yield WorkerState(name, stage, "idle", waits_for=waits_for)
            else:
                began = self._timestamp(since)
                status, size = self._statuses.get(index, ""), self._more.get(index, 0) + 1
                yield WorkerState(
                    name, stage, "busy", item_id, task, began, status, waits_for, size, attempts
                )

    def metrics(self) -> Iterator[WorkerMetrics]:
        stage = self._facts.stage_names[self._stage]
        for _, name, row in self._rows(self._done, (0, 0, 0.0, nan)):
            completed, failed, busy, since = row
            yield WorkerMetrics(name, stage, completed, failed, busy, self._timestamp(since))

    def _rows(
        self, columns: Sequence[list[Any]], never_needed: Sequence[Any]
    ) -> Iterator[tuple[int, str, Sequence[Any]]]:
        """Number, name and figures of each worker."""
        rows = dict(zip(self._indexes, zip(*columns, strict=True), strict=True))
        attempts = zip(self._indexes, self._doing[1], strict=True)
        at_work = [index + 1 for index, tries in attempts if tries is not None]
        for index in range(max(self._count, *at_work, 0)):
            name = self._facts.worker_name(self._stage, index)
            yield index, name, rows.get(index, never_needed)

    def _timestamp(self, since: float) -> float | None:
        return None if isnan(since) else self._facts.timestamp(since)
