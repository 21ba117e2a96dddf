"""The workers of a run at one moment, made into values when they are asked for.

Making a value for each of thousands of workers would be most of the cost of a snapshot, and few
readers look at each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan, nan
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
        self._facts = facts
        self._gauges = gauges
        self._tallies = tallies

    def states(self) -> dict[str, WorkerState]:
        """Worker name → what it did."""
        return {
            each.worker_name: each
            for number, tally in enumerate(self._tallies)
            for each in self._states(number, tally)
        }

    def metrics(self) -> dict[str, WorkerMetrics]:
        """Worker name → what it had done."""
        return {
            each.worker_name: each
            for number, tally in enumerate(self._tallies)
            for each in self._metrics(number, tally)
        }

    def longest(self, now: float) -> tuple[str, Any, float] | None:
        """The item that had been under way longest: its stage's name, its id, its seconds."""
        begun = [
            (since, number, place)
            for number, tally in enumerate(self._tallies)
            for place, since in enumerate(tally.since)
            if tally.attempts[place] is not None
        ]
        if not begun:
            return None
        since, number, place = min(begun)
        return self._facts.stage_names[number], self._tallies[number].ids[place], now - since

    def _states(self, number: int, tally: Tally) -> Iterator[WorkerState]:
        stage = self._facts.stage_names[number]
        columns = (tally.ids, tally.attempts, tally.tasks, tally.since)
        for index, name, row in self._rows(number, tally, columns, (None, None, None, nan)):
            item_id, attempts, task, since = row
            waits_for, *_ = tally.waits.get(index, (None,))
            if attempts is None:
                yield WorkerState(name, stage, "idle", waits_for=waits_for)
            else:
                began = self._timestamp(since)
                status, size = tally.statuses.get(index, ""), tally.more.get(index, 0) + 1
                yield WorkerState(
                    name, stage, "busy", item_id, task, began, status, waits_for, size, attempts
                )

    def _metrics(self, number: int, tally: Tally) -> Iterator[WorkerMetrics]:
        stage = self._facts.stage_names[number]
        columns = (tally.completed_each, tally.failed_each, tally.busy_each, tally.since)
        for _, name, row in self._rows(number, tally, columns, (0, 0, 0.0, nan)):
            completed, failed, busy, since = row
            yield WorkerMetrics(name, stage, completed, failed, busy, self._timestamp(since))

    def _rows(
        self, number: int, tally: Tally, columns: Sequence[list[Any]], never_needed: Sequence[Any]
    ) -> Iterator[tuple[int, str, Sequence[Any]]]:
        """Number, name and figures of each worker."""
        rows = dict(zip(tally.indexes, zip(*columns, strict=True), strict=True))
        attempts = zip(tally.indexes, tally.attempts, strict=True)
        at_work = [index + 1 for index, tries in attempts if tries is not None]
        for index in range(max(self._gauges[number].workers, *at_work, 0)):
            name = self._facts.worker_name(number, index, tally.nodes.get(index, ""))
            yield index, name, rows.get(index, never_needed)

    def _timestamp(self, since: float) -> float | None:
        return None if isnan(since) else self._facts.timestamp(since)
