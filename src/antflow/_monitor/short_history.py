"""A history of which little is kept: each item's last events, or none; and all of failed items.

An item in flight has its whole history, because it may fail. When it is settled, its records are
cut back, and their places are used again. So memory grows with the items that are in flight; with
``keep=0`` with nothing else, and else with 32 bytes per item and record kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from math import nan
from typing import Any, NamedTuple, cast

from antflow._core.envelope import Envelope
from antflow._core.errors import HistoryNotKept
from antflow._core.events import StatusEvent, StatusType
from antflow._core.failures import FailureBook
from antflow._core.foreign import id_of, key_of
from antflow._core.ledger import Ledger, WorkerBook
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import FailedItem
from antflow._core.step import Step
from antflow._core.transition import MOVES_ON, Kind
from antflow._monitor.admissions import Admissions, ItemKey
from antflow._monitor.history import (
    COMPLETED,
    CUT,
    RECORD,
    TAKEN_IN,
    RunHistory,
    is_quiet,
    item_key,
    pack,
    previous_of,
)

MOST_FAILED = 10_000
"""Failed items of one run whose whole history is kept: the last ones."""

FAILURES = (Kind.FAILED, Kind.CANCELLED)
ALWAYS_ENDS = (*FAILURES, Kind.DROPPED, Kind.EXPANDED)
IN_FLIGHT: tuple[StatusType, ...] = ("queued", "in_progress", "retrying")


class Kept(NamedTuple):
    """How much is kept of an item that is settled.

    Attributes:
        events: How many of its events; 0 = not even the item.
        failed: Whether to keep the whole history of failed items, the last `MOST_FAILED`.
    """

    events: int
    failed: bool


class ShortHistory(RunHistory):
    """The history of one run, cut back to the last events of each item.

    Args:
        facts: The run.
        ledger: Its books; released when the run is over.
        quiet_stages: Indices of the stages where a retry changes no status ("per_task").
        kept: How much to keep.
    """

    def __init__(
        self, facts: RunFacts, ledger: Ledger, quiet_stages: Iterable[int], kept: Kept
    ) -> None:
        super().__init__(facts, ledger, quiet_stages)
        self._keep = kept.events
        self._last_stage = len(facts.stage_names) - 1
        self._most_failed = MOST_FAILED if kept.failed else 0
        self._free: list[int] = []
        self._failed: OrderedDict[ItemKey, None] = OrderedDict()
        if not kept.events:
            self._admissions = ItemsInFlight()
            self._last = cast("Any", {})  # only of the items that are there
            self._failures = FailureBook(self._most_failed)

    # Writing

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> None:
        """Items were taken in."""
        if self._keep or envelopes[0].branch:
            super().admitted(envelopes, now)
            return
        self._admissions.add(envelopes, now)
        for envelope in envelopes:
            self._last[envelope.sequence_id] = TAKEN_IN

    def completed(
        self, envelope: Envelope, worker: WorkerBook, value: Any, began: float, now: float
    ) -> None:
        """An item has completed a stage."""
        if envelope.branch:
            self.ended(Step(Kind.COMPLETED, envelope, worker, now, began=began))
            return
        item, is_last = envelope.sequence_id, envelope.position == self._last_stage
        if self._keep or not is_last:
            number = self._free_number()
            at = number * RECORD.size
            self._records[at : at + RECORD.size] = pack(
                began, now, self._last[item], envelope.position, COMPLETED, worker.index
            )
            self._last[item] = number
        if is_last:
            self._cut(item)

    def ended(self, step: Step) -> None:
        """A visit ended in another way, or an item was made from another."""
        super().ended(step)
        kind, item = step.kind, item_key(step.envelope)
        is_last = step.envelope.position == self._last_stage
        if kind not in ALWAYS_ENDS and not (is_last and kind in MOVES_ON):
            return
        if kind in FAILURES and self._most_failed:
            self._failed[item] = None
            if len(self._failed) <= self._most_failed:
                return
            item, _ = self._failed.popitem(last=False)
        self._cut(item)

    def _free_number(self) -> int:
        return self._free.pop() if self._free else super()._free_number()

    def _cut(self, item: ItemKey) -> None:
        """Forget all but the last records of an item, or the item."""
        # Each record makes an event at least, except retries that change no status: of several in
        # a row only the first does, and the event of what follows them.
        number, kept = self._last_record(item), 0
        while number < CUT:
            previous = previous_of(self._records, number)
            if kept >= self._keep:
                self._details.pop(number, None)
                self._free.append(number)
            elif not self._is_silent(number, previous):
                kept += 1
                if kept == self._keep and previous < CUT:
                    RECORD.pack_into(self._records, number * RECORD.size, *self._cut_off(number))
            number = previous
        if not self._keep:
            self._forget(item)

    def _is_cut(self, item: ItemKey) -> bool:
        number = self._last_record(item)
        while number < CUT:
            number = previous_of(self._records, number)
        return number == CUT

    def _is_silent(self, number: int, previous: int) -> bool:
        """Whether a record makes no event: a retry that changes no status, after another one."""
        return all(each < CUT and is_quiet(self._records, each) for each in (number, previous))

    def _cut_off(self, number: int) -> list[Any]:
        fields: list[Any] = [*RECORD.unpack_from(self._records, number * RECORD.size)]
        fields[2] = CUT
        return fields

    def _forget(self, item: ItemKey) -> None:
        assert isinstance(self._admissions, ItemsInFlight)
        self.knows_all = False
        self._admissions.forget(item)
        if isinstance(item, int):
            del self._last[item]
        else:
            del self._last_of_made[item]

    # Reading

    def ids(self) -> list[Any]:
        """Ids of all items, in the order in which they were taken in."""
        if not self.knows_all:
            raise not_kept("the ids of settled items are not kept")
        return super().ids()

    def history(self, item_id: Any) -> list[StatusEvent]:
        """The item's events that are kept, oldest first."""
        item = self._admissions.find(item_id)
        if item is None:
            return []
        events = self._history(item_id, item)
        is_whole = not self._keep or item in self._failed
        return events if is_whole else events[-self._keep :]

    def with_status(self, status: StatusType) -> Iterator[StatusEvent]:
        """The last events of all items that have this status now."""
        if missing := self.missing(status):
            raise not_kept(f"of the items that are {status!r}, {missing:,} are not kept")
        return super().with_status(status)

    def failed_items(self) -> list[FailedItem]:
        """All failed and cancelled items, oldest first."""
        summary = self.error_summary()
        if missing := summary.total_failed - len(summary.failed_items):
            raise not_kept(f"of the failed items, {missing:,} are not kept")
        return summary.failed_items

    def missing(self, status: StatusType) -> int:
        """How many items with this status are not in memory."""
        if self._keep or status in IN_FLIGHT:
            return 0
        return self.counts()[status] - (len(self._failed) if status == "failed" else 0)


class ItemsInFlight(Admissions):
    """The items of one run that are still of interest, by id, and when each was taken in."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: dict[ItemKey, tuple[Any, float, int]] = {}

    def add(self, envelopes: Sequence[Envelope], now: float) -> None:
        """Note items that are taken in."""
        for envelope in envelopes:
            self._note(envelope.id, envelope.sequence_id, now, envelope.position)

    def name(self, item_id: Any, item: ItemKey) -> None:
        """Note the id of an item."""
        self._note(item_id, item, nan, 0)

    def forget(self, item: ItemKey) -> None:
        """Forget an item. A later one with the same id stays."""
        key = self._entries.pop(item)[0]
        if self._named.get(key) == item:
            del self._named[key]

    def of(self, sequence_id: int) -> tuple[float, int]:
        """When an item was taken in, and at which stage."""
        _, at, stage = self._entries[sequence_id]
        return at, stage

    def items(self) -> Iterator[tuple[Any, ItemKey]]:
        """Ids and items, in the order in which they were taken in."""
        for item, (key, _, _) in tuple(self._entries.items()):
            yield id_of(key), item

    def _note(self, item_id: Any, item: ItemKey, at: float, stage: int) -> None:
        key = key_of(item_id)
        self._entries[item] = (key, at, stage)
        self._named[key] = item


def not_kept(what: str) -> HistoryNotKept:
    """The error for a question about items that were settled, with ``history=None``."""
    return HistoryNotKept(
        f"{what}: with history=None, a tracker keeps totals, the items in flight and, with "
        f'keep_failed=True, the last {MOST_FAILED:,} failed items of each run. history="last" '
        'keeps the last event of each item; spill="events.sqlite" keeps everything, on disk'
    )
