"""Everything that happened to the items of one run, in 28 bytes per item and stage.

One record is packed at the end of each visit of an item to a worker; it points back to the item's
previous record. `Admissions` notes when the item was taken in. Events are made from these only on
request. A visit in progress has no record yet, and is read from the books of the live workers.

A failed try that is followed by another is a record too. Under "per_task" it changes no status: the
item stays "in_progress" until it has completed or failed, and its visits count as one.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from math import isnan, nan
from typing import Any, Self

from antflow._core.envelope import Envelope
from antflow._core.error_copies import packed, unpacked
from antflow._core.events import STATUSES, StatusEvent, StatusType
from antflow._core.failures import FailureBook
from antflow._core.ledger import Ledger, WorkerBook
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import ErrorSummary, FailedItem
from antflow._core.step import Step
from antflow._core.text import error_type_name, safe_str
from antflow._core.transition import Kind
from antflow._monitor.admissions import Admissions, ItemKey

RECORD = struct.Struct("<ddIHHI")
"""Began (NaN: no worker had it), ended, number of the previous record, stage, kind, worker."""

pack = RECORD.pack

NO_RECORD = NO_WORKER = 0xFFFF_FFFF
TAKEN_IN = 0xFFFF_FFFE
"""In place of the previous record, in the first record of an item that was taken in."""
CUT = 0xFFFF_FFFD
"""In place of the previous record, where that is not kept. Greater numbers are marks, too."""
TAKEN_IN_BYTES = array("I", [TAKEN_IN]).tobytes()

COMPLETED = int(Kind.COMPLETED)
QUIET = 0x100
"""Added to RETRYING if the retry is only a task event."""


class RunHistory:
    """The history of one run.

    Args:
        facts: The run.
        ledger: Its books; released when the run is over.
        quiet_stages: Indices of the stages where a retry changes no status ("per_task").

    Attributes:
        started: To be called when a worker begins with an item; ``None``: not needed.
        knows_all: Whether every item that was taken in can be asked for.
    """

    started: Callable[[Envelope, WorkerBook, float], None] | None = None
    knows_all = True

    def __init__(self, facts: RunFacts, ledger: Ledger, quiet_stages: Iterable[int]) -> None:
        self.facts = facts
        self._ledger: Ledger | None = ledger
        self._final_counts: dict[StatusType, int] = {}
        self._records = bytearray()
        self._count = 0
        self._admissions = Admissions()
        self._last = array("I")
        self._last_of_made: dict[ItemKey, int] = {}
        self._details: dict[int, tuple[Exception | None, int]] = {}
        self._failures = FailureBook()
        quiet = frozenset(quiet_stages)
        self._retry_codes = [
            Kind.RETRYING | QUIET if stage in quiet else int(Kind.RETRYING)
            for stage in range(len(facts.stage_names))
        ]

    # Errors are pickled like those of results; a deep copy shares them.

    def __getstate__(self) -> dict[str, Any]:
        details = {
            n: (None if error is None else packed(error), count)
            for n, (error, count) in self._details.items()
        }
        return vars(self) | {"_details": details}

    def __setstate__(self, state: dict[str, Any]) -> None:
        details: dict[int, Any] = {
            n: (None if parcel is None else unpacked(parcel), count)
            for n, (parcel, count) in state["_details"].items()
        }
        vars(self).update(state | {"_details": details})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copy = memo[id(self)] = object.__new__(type(self))
        vars(copy).update(deepcopy(vars(self) | {"_details": None}, memo))
        copy._details = dict(self._details)
        return copy

    # Writing: called for every item, so kept short

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> None:
        """Items were taken in."""
        if envelopes[0].branch:  # made from another item, in an earlier run
            for envelope in envelopes:
                self.ended(Step(Kind.ADMITTED, envelope, None, now))
            return
        self._admissions.add(envelopes, now)
        missing = envelopes[-1].sequence_id + 1 - len(self._last)
        if missing > 0:
            self._last.frombytes(TAKEN_IN_BYTES * missing)

    def completed(
        self, envelope: Envelope, worker: WorkerBook, value: Any, began: float, now: float
    ) -> None:
        """An item has completed a stage."""
        if envelope.branch:
            self.ended(Step(Kind.COMPLETED, envelope, worker, now, began=began))
            return
        # From here on `ended`, inlined.
        number = self._count
        self._count = number + 1
        last, sequence_id = self._last, envelope.sequence_id
        self._records += pack(
            began, now, last[sequence_id], envelope.position, COMPLETED, worker.index
        )
        last[sequence_id] = number

    def ended(self, step: Step) -> None:
        """A visit ended in another way, or an item was made from another."""
        number = self._free_number()
        envelope, worker, began = step.envelope, step.worker, step.began
        if envelope.branch:
            key = (envelope.sequence_id, envelope.branch)
            before = self._last_of_made.get(key, NO_RECORD)
            self._last_of_made[key] = number
            if before == NO_RECORD:
                self._admissions.name(envelope.id, key)
        else:
            before = self._last[envelope.sequence_id]
            self._last[envelope.sequence_id] = number
        code = self._note_details(step, number)
        at = number * RECORD.size
        self._records[at : at + RECORD.size] = pack(
            nan if began is None else began,
            step.now,
            before,
            envelope.position,
            code,
            NO_WORKER if worker is None else worker.index,
        )

    def _free_number(self) -> int:
        """The number of the next record."""
        number = self._count
        self._count = number + 1
        return number

    def _note_details(self, step: Step, number: int) -> int:
        """Keep the details that do not fit into a record.

        Returns:
            The record's kind.
        """
        kind, envelope, error = step.kind, step.envelope, step.error
        if kind is Kind.EXPANDED:
            self._details[number] = (None, step.value)
        if error is None:
            return kind
        self._details[number] = (error, envelope.attempts)
        stage = envelope.position
        if kind is Kind.RETRYING:
            return self._retry_codes[stage]
        self._failures.add(
            envelope.id,
            error,
            self.facts.stage_names[stage],
            envelope.attempts,
            self.facts.timestamp(step.now),
            envelope.input,
        )
        return kind

    def close(self) -> None:
        """End the history: keep the counts, and release everything live."""
        self._final_counts = self.counts()
        self._ledger = None

    # Reading

    def __contains__(self, item_id: Any) -> bool:
        return self._admissions.find(item_id) is not None

    def is_in_progress(self, envelope: Envelope) -> bool:
        """Whether the item's last record is a retry that changed no status."""
        number = self._last_record(item_key(envelope))
        return number < CUT and is_quiet(self._records, number)

    def ids(self) -> list[Any]:
        """Ids of all items, in the order in which they were taken in."""
        return [item_id for item_id, _ in self._admissions.items()]

    def counts(self) -> dict[StatusType, int]:
        """Status → how many items have it now. O(stages + workers)."""
        ledger = self._ledger
        if ledger is None:
            return dict(self._final_counts)
        waits_quietly = sum(
            book.retrying
            for book, code in zip(ledger.stages, self._retry_codes, strict=True)
            if code & QUIET
        )
        counts = dict.fromkeys(STATUSES, 0)
        counts["queued"] = sum(book.waiting for book in ledger.stages)
        counts["in_progress"] = sum(book.in_progress for book in ledger.stages) + waits_quietly
        counts["retrying"] = sum(book.retrying for book in ledger.stages) - waits_quietly
        counts["completed"] = (
            ledger.stages[-1].completed
            + ledger.stages[-1].emitted
            + ledger.dropped
            + ledger.expanded
        )
        counts["skipped"] = ledger.stages[-1].skipped
        counts["failed"] = ledger.failed + ledger.cancelled
        return counts

    def error_summary(self) -> ErrorSummary:
        """A summary of the failed and cancelled items."""
        return self._failures.summary()

    def failed_items(self) -> list[FailedItem]:
        """All failed and cancelled items, oldest first."""
        return self.error_summary().failed_items

    def history(self, item_id: Any) -> list[StatusEvent]:
        """The item's events, oldest first."""
        item = self._admissions.find(item_id)
        return [] if item is None else self._history(item_id, item)

    def _history(self, item_id: Any, item: ItemKey) -> list[StatusEvent]:
        chain: list[int] = []
        number = self._last_record(item)
        while number < CUT:
            chain.append(number)
            number = previous_of(self._records, number)
        events: list[StatusEvent] = []
        if number == TAKEN_IN:
            assert isinstance(item, int)
            at, stage = self._admissions.of(item)
            events.append(make_event(self.facts, item_id, stage, "queued", NO_WORKER, at))
        goes_on = False
        for number in reversed(chain):
            events += self._told_by(item_id, number, goes_on)
            goes_on = is_quiet(self._records, number)
        worker = self._holder(item)
        if worker is not None and not goes_on:
            events.append(
                make_event(
                    self.facts, item_id, worker.stage, "in_progress", worker.index, worker.since
                )
            )
        return events

    def status(self, item_id: Any) -> StatusEvent:
        """The item's last event."""
        return self.history(item_id)[-1]

    def with_status(self, status: StatusType) -> Iterator[StatusEvent]:
        """The last events of all items that have this status now."""
        held = {item_key(each) for worker in self._busy() for each in (worker.item, *worker.more)}
        for item_id, item in self._admissions.items():
            if item in held or self._status_after(self._last_record(item)) == status:
                event = self._history(item_id, item)[-1]
                if event.status == status:
                    yield event

    # Inside

    def _last_record(self, item: ItemKey) -> int:
        return self._last[item] if isinstance(item, int) else self._last_of_made[item]

    def _status_after(self, number: int) -> StatusType:
        if number == TAKEN_IN:
            return "queued"
        _, _, _, stage, kind, _ = RECORD.unpack_from(self._records, number * RECORD.size)
        if kind in (Kind.FAILED, Kind.CANCELLED):
            return "failed"
        if kind == Kind.RETRYING:
            return "retrying"
        if kind == Kind.RETRYING | QUIET:
            return "in_progress"
        if kind in (Kind.DROPPED, Kind.EXPANDED):
            return "completed"
        if kind == Kind.ADMITTED or stage + 1 < len(self.facts.stage_names):
            return "queued"
        return "skipped" if kind == Kind.SKIPPED else "completed"

    def _told_by(self, item_id: Any, number: int, goes_on: bool) -> list[StatusEvent]:
        """The events of one record; ``goes_on``: its visit began with the record before."""
        began, ended, _, stage, kind, worker = RECORD.unpack_from(
            self._records, number * RECORD.size
        )
        events: list[StatusEvent] = []
        if not isnan(began) and not goes_on:
            events.append(make_event(self.facts, item_id, stage, "in_progress", worker, began))
        events += status_events(
            self.facts,
            Kind(kind & ~QUIET),
            item_id,
            stage,
            worker,
            ended,
            *self._details.get(number, (None, 0)),
            quiet=bool(kind & QUIET),
        )
        return events

    def _busy(self) -> Iterator[WorkerBook]:
        if self._ledger is not None:
            for worker in self._ledger.workers():
                if worker.item is not None:
                    yield worker

    def _holder(self, item: ItemKey) -> WorkerBook | None:
        for worker in self._busy():
            if any(item_key(each) == item for each in (worker.item, *worker.more)):
                return worker
        return None


def previous_of(records: bytearray, number: int) -> int:
    """The number of the previous record of the same item, or a mark."""
    previous: int = RECORD.unpack_from(records, number * RECORD.size)[2]
    return previous


def is_quiet(records: bytearray, number: int) -> bool:
    """Whether a record is a retry that changed no status."""
    kind: int = RECORD.unpack_from(records, number * RECORD.size)[4]
    return kind == Kind.RETRYING | QUIET


def item_key(envelope: Envelope) -> ItemKey:
    """The key of an item in its run."""
    if envelope.branch:
        return envelope.sequence_id, envelope.branch
    return envelope.sequence_id


def make_event(
    facts: RunFacts,
    item_id: Any,
    stage: int,
    status: StatusType,
    worker: int,
    mono: float,
    metadata: dict[str, Any] | None = None,
) -> StatusEvent:
    """One event, with names and wall-clock time."""
    return StatusEvent(
        item_id,
        facts.stage_names[stage],
        status,
        None if worker == NO_WORKER else facts.worker_name(stage, worker),
        facts.timestamp(mono),
        {} if metadata is None else metadata,
        facts.run_id,
    )


def status_events(
    facts: RunFacts,
    kind: Kind,
    item_id: Any,
    stage: int,
    worker: int,
    mono: float,
    error: Exception | None,
    attempts: int,
    *,
    quiet: bool,
) -> list[StatusEvent]:
    """The events for the end of a visit, in order; ``quiet``: none for a retry.

    ``attempts`` is the number of the try; for EXPANDED, the number of items made.
    """
    if kind is Kind.ADMITTED:
        return [make_event(facts, item_id, stage, "queued", NO_WORKER, mono)]
    if kind in (Kind.DROPPED, Kind.EXPANDED):
        ending = {"dropped": True} if kind is Kind.DROPPED else {"expanded": attempts}
        return [make_event(facts, item_id, stage, "completed", worker, mono, ending)]
    if kind in (Kind.COMPLETED, Kind.SKIPPED, Kind.EMITTED):
        is_last = stage + 1 == len(facts.stage_names)
        events: list[StatusEvent] = []
        if kind is not Kind.EMITTED or is_last:
            status: StatusType = "skipped" if kind is Kind.SKIPPED else "completed"
            events.append(make_event(facts, item_id, stage, status, worker, mono))
        if not is_last:
            events.append(make_event(facts, item_id, stage + 1, "queued", NO_WORKER, mono))
        return events
    if kind is Kind.RETRYING and quiet:
        return []
    metadata: dict[str, Any] = {
        "error": safe_str(error),
        "error_type": "" if error is None else error_type_name(error),
        "exception": error,
    }
    if kind is Kind.RETRYING:
        metadata |= {"attempt": max(attempts, 0) + 1, "retry": True}
        return [make_event(facts, item_id, stage, "retrying", worker, mono, metadata)]
    return [make_event(facts, item_id, stage, "failed", worker, mono, metadata)]
