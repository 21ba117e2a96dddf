"""A history on disk: a tracker's event log, and the answers that are read back from it.

What a `ShortHistory` keeps is in memory: the items in flight, the totals, and what its options say.
Everything is written, as a `SqliteSink` does, before a callback hears of it; so a question about
anything else is answered from the file, as `EventLog` does, after what waits has been written.

Ids are text in a log. Those of ordinary items, whole numbers and strings, can be told from it; the
others are kept in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from antflow._core.envelope import Envelope
from antflow._core.errors import HistoryNotKept
from antflow._core.events import StatusEvent, StatusType
from antflow._core.foreign import id_of, key_of
from antflow._core.ledger import Ledger, WorkerBook
from antflow._core.observers import RunEnd
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import ErrorSummary, FailedItem
from antflow._core.step import Step
from antflow._core.text import counted, is_encodable
from antflow._core.transition import Kind
from antflow._monitor.admissions import ItemKey
from antflow._monitor.history import item_key
from antflow._monitor.public_steps import NAMES, item_step
from antflow._monitor.short_history import Kept, ShortHistory
from antflow.sinks.event_log import Database, EventLog, failed_item_of
from antflow.sinks.file_sink import writable_path
from antflow.sinks.records import LONGEST_ID, EventRecord, text_of_id
from antflow.sinks.sqlite import SqliteSink

BUFFER = 20_000
"""Events that may wait to be written: some megabytes."""

TAKEN_IN = """
    SELECT item, sequence_id, branch FROM events
    WHERE run = :run AND kind IN ('admitted', 'emitted') ORDER BY seq
"""

FIND = """
    SELECT sequence_id, branch FROM events
    WHERE run = :run AND item = :item AND kind IN ('admitted', 'emitted') ORDER BY seq DESC
"""

HISTORY = """
    SELECT * FROM events
    WHERE run = :run AND item = :item AND sequence_id = :sequence_id AND branch = :branch
    ORDER BY seq
"""

LAST_OF_SETTLED = """
    SELECT *, (
        SELECT seq FROM events AS first
        WHERE first.run = events.run AND first.item = events.item
        AND first.sequence_id = events.sequence_id AND first.branch = events.branch
        AND first.kind IN ('admitted', 'emitted') ORDER BY seq LIMIT 1
    ) AS taken_in FROM events WHERE run = :run AND ({}) ORDER BY taken_in
"""

SETTLED: dict[StatusType, str] = {
    "completed": "kind IN ('dropped', 'expanded') "
    "OR kind IN ('completed', 'emitted') AND stage = :last",
    "skipped": "kind = 'skipped' AND stage = :last",
    "failed": "kind IN ('failed', 'cancelled')",
}
"""Status → which events leave an item with it for ever."""

FAILED = """
    SELECT * FROM events WHERE run = :run AND kind IN ('failed', 'cancelled')
    ORDER BY seq LIMIT :most
"""


class SpillSink(SqliteSink):
    """Writes the events of a tracker's runs.

    Args:
        path: The database.

    Attributes:
        dropped: Run → how many events were lost by the time it was over.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, buffer=BUFFER, when_full="block")
        self.dropped: dict[str, int] = {}

    def write_closed(self, end: RunEnd, lost: int) -> None:
        """Complete the row of a run that is over."""
        super().write_closed(end, lost)
        self.dropped[end.run_id] = self.counts.dropped


class Spill:
    """The file that a tracker's history goes to.

    Args:
        path: The database.

    Raises:
        ValueError: It is a file of something else.
        OSError: There is no such folder, or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = writable_path(path)
        if self._path.exists() and self._path.stat().st_size:
            Database(self._path).close()
        self._sink: SpillSink | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_sink": None}  # a copy writes by itself

    @property
    def path(self) -> Path:
        """The database."""
        return self._path

    @property
    def sink(self) -> SpillSink:
        """Writes to the file."""
        if self._sink is None:
            self._sink = SpillSink(self._path)
        return self._sink

    def history(
        self, facts: RunFacts, ledger: Ledger, quiet_stages: Iterable[int], kept: Kept
    ) -> SpilledHistory:
        """The history of a run that begins."""
        return SpilledHistory(facts, ledger, quiet_stages, kept, self)


class RunLog:
    """What one run wrote to the file.

    Args:
        facts: The run.
        path: The file.
        sink: Writes to it.
    """

    def __init__(self, facts: RunFacts, path: Path, sink: SpillSink) -> None:
        self.run_id = facts.run_id
        self._path = path
        self._sink: SpillSink | None = sink
        self._lost = -sink.counts.dropped

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_sink": None, "_lost": self._count_lost()}

    @contextmanager
    def read(self) -> Iterator[EventLog]:
        """What is written so far.

        Raises:
            HistoryNotKept: Something could not be written, or the file cannot be read.
        """
        if self._sink is not None:
            self._sink.flush()
        if lost := self._count_lost():
            why = "" if self._sink is None else self._sink.counts.error or ""
            text = f"{str(self._path)!r} lacks {counted(lost, 'event')} that could not be written"
            raise HistoryNotKept(f"{text}: {why}" if why else text)
        try:
            with EventLog(Database(self._path)) as log:
                yield log
        except (sqlite3.Error, ValueError) as error:
            raise HistoryNotKept(f"{str(self._path)!r} cannot be read: {error}") from error

    def _count_lost(self) -> int:
        if self._sink is None:
            return self._lost
        counted_at_end = self._sink.dropped.get(self.run_id)
        dropped = self._sink.counts.dropped if counted_at_end is None else counted_at_end
        return self._lost + dropped


class SpilledHistory(ShortHistory):
    """The history of one run, of which most is on disk.

    Args:
        facts: The run.
        ledger: Its books; released when the run is over.
        quiet_stages: Indices of the stages where a retry changes no status ("per_task").
        kept: How much to keep in memory.
        spill: The file.
    """

    def __init__(
        self,
        facts: RunFacts,
        ledger: Ledger,
        quiet_stages: Iterable[int],
        kept: Kept,
        spill: Spill,
    ) -> None:
        super().__init__(facts, ledger, quiet_stages, kept)
        self._log = RunLog(facts, spill._path, spill.sink)
        self._happened: Any = spill.sink.happened
        self._ids = SpilledIds()
        self._has_left = False
        self.started = self._started

    # Writing

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> None:
        """Items were taken in."""
        if not envelopes[0].branch:  # else it comes as a step
            for envelope in envelopes:
                self._ids.note(envelope.id, envelope.sequence_id)
                self._happened(item_step(self.facts, "admitted", envelope, None, now))
        super().admitted(envelopes, now)

    def _started(self, envelope: Envelope, worker: WorkerBook, now: float) -> None:
        self._happened(item_step(self.facts, "started", envelope, worker, now))

    def completed(
        self, envelope: Envelope, worker: WorkerBook, value: Any, began: float, now: float
    ) -> None:
        """An item has completed a stage."""
        if not envelope.branch:  # else it comes as a step
            self._happened(item_step(self.facts, "completed", envelope, worker, now, now - began))
        super().completed(envelope, worker, value, began, now)

    def ended(self, step: Step) -> None:
        """A visit ended in some way, or an item was made from another."""
        kind, envelope, now, began = step.kind, step.envelope, step.now, step.began
        if kind in (Kind.ADMITTED, Kind.EMITTED):
            self._ids.note(envelope.id, item_key(envelope))
        duration = 0.0 if began is None else now - began
        self._happened(
            item_step(self.facts, NAMES[kind], envelope, step.worker, now, duration, step.error)
        )
        super().ended(step)

    def close(self) -> None:
        """End the history: keep the counts, and release everything live."""
        super().close()
        self._happened = self.started = None

    def _forget(self, item: ItemKey) -> None:
        super()._forget(item)
        self._has_left = self.knows_all = True

    # Reading

    def __contains__(self, item_id: Any) -> bool:
        if super().__contains__(item_id):
            return True
        if not self._has_left:
            return False
        with self._log.read() as log:
            return self._ids.find(log, self.facts.run_id, item_id) is not None

    def ids(self) -> list[Any]:
        """Ids of all items, in the order in which they were taken in."""
        if not self._has_left:
            return super().ids()
        with self._log.read() as log:
            rows = log._source.rows(TAKEN_IN, {"run": self.facts.run_id})
            return [self._ids.id_of(text, _item(*key)) for text, *key in rows]

    def history(self, item_id: Any) -> list[StatusEvent]:
        """The item's events, oldest first."""
        item = self._admissions.find(item_id)
        if item is not None and not self._is_cut(item):
            return self._history(item_id, item)
        run_id = self.facts.run_id
        with self._log.read() as log:
            if item is None:
                item = self._ids.find(log, run_id, item_id)
            if item is None:
                return []
            sequence_id, branch = _columns(item)
            text = self._ids.text_in_log(item_id, item)
            values = {"run": run_id, "item": text, "sequence_id": sequence_id, "branch": branch}
            events = log._events_of(
                [EventRecord(*row) for row in log._source.rows(HISTORY, values)]
            )
        for event in events:
            event.item_id = item_id
        return events

    def status(self, item_id: Any) -> StatusEvent:
        """The item's last event."""
        item = self._admissions.find(item_id)
        return self.history(item_id)[-1] if item is None else self._history(item_id, item)[-1]

    def with_status(self, status: StatusType) -> Iterator[StatusEvent]:
        """The last events of all items that have this status now."""
        return self._read_settled(status) if self.missing(status) else super().with_status(status)

    def error_summary(self) -> ErrorSummary:
        """A summary of the failed and cancelled items; of lost ones it has the counts."""
        summary = super().error_summary()
        if missing := summary.total_failed - len(summary.failed_items):
            try:
                summary.failed_items[:0] = self._read_failed(missing)
            except HistoryNotKept:
                pass
        return summary

    def failed_items(self) -> list[FailedItem]:
        """All failed and cancelled items, oldest first."""
        summary = super().error_summary()
        missing = summary.total_failed - len(summary.failed_items)
        return [*self._read_failed(missing), *summary.failed_items]

    def _read_failed(self, most: int) -> list[FailedItem]:
        """The first failed items."""
        if not most:
            return []
        with self._log.read() as log:
            records = [
                EventRecord(*row)
                for row in log._source.rows(FAILED, {"run": self.facts.run_id, "most": most})
            ]
        return [self._failed_item(record) for record in records]

    def _failed_item(self, record: EventRecord) -> FailedItem:
        item_id = self._ids.id_of(record.item, _item(record.sequence_id, record.branch))
        return replace(failed_item_of(record), item_id=item_id)

    def _read_settled(self, status: StatusType) -> Iterator[StatusEvent]:
        run = {"run": self.facts.run_id, "last": self.facts.stage_names[-1]}
        with self._log.read() as log:
            for row in log._source.rows(LAST_OF_SETTLED.format(SETTLED[status]), run):
                record = EventRecord(*row[:-1])
                item = _item(record.sequence_id, record.branch)
                item_id = self._ids.id_of(record.item, item)
                if self._is_in_memory(item):
                    yield self._history(item_id, item)[-1]
                    continue
                [event] = log._events_of([record])
                event.item_id = item_id
                yield event

    def _is_in_memory(self, item: ItemKey) -> bool:
        held: Collection[Any] = self._last if isinstance(item, int) else self._last_of_made
        return item in held


class SpilledIds:
    """Finds the items of one run in a log, by their ids as they were."""

    def __init__(self) -> None:
        self._numbers: type | None = None
        self._odd: dict[ItemKey, Hashable] = {}
        self._odd_items: dict[Hashable, ItemKey] = {}

    def note(self, item_id: Any, item: ItemKey) -> None:
        """An item was taken in."""
        if self._numbers is None and type(item_id) in (int, str) and _is_number(item_id):
            self._numbers = type(item_id)
        if self._text(item_id) is None:
            key = key_of(item_id)
            self._odd[item] = key
            self._odd_items[key] = item

    def id_of(self, text: str, item: ItemKey) -> Any:
        """The id of an item that has this text in the log."""
        if item in self._odd:
            return id_of(self._odd[item])
        return int(text) if self._numbers is int and _is_number(text) else text

    def find(self, log: EventLog, run: str, item_id: Any) -> ItemKey | None:
        """The latest item with this id; ``None`` for an unknown id."""
        key = key_of(item_id)
        if key in self._odd_items:
            return self._odd_items[key]
        text = self._text(_plain(item_id))
        if text is None:
            return None
        found = (_item(*row) for row in log._source.rows(FIND, {"run": run, "item": text}))
        return next((item for item in found if item not in self._odd), None)

    def text_in_log(self, item_id: Any, item: ItemKey) -> str:
        """The text that an item with this id has in the log."""
        return text_of_id(id_of(self._odd[item]) if item in self._odd else _plain(item_id))

    def _text(self, item_id: Any) -> str | None:
        """The text of an id that is known from it; ``None`` if the id has to be kept."""
        if type(item_id) is int:
            is_known = self._numbers in (int, None) and item_id.bit_length() < 3 * LONGEST_ID
        elif type(item_id) is str:
            is_number = self._numbers is int and _is_number(item_id)
            is_known = not is_number and len(item_id) <= LONGEST_ID and is_encodable(item_id)
        else:
            is_known = False
        return str(item_id) if is_known else None


def _plain(item_id: Any) -> Any:
    """The whole number that an id equals, such as 3.0; else the id."""
    if type(item_id) is str:
        return item_id
    # Equal objects have the same hash, and an integer is its own hash.
    key = key_of(item_id)
    number = hash(key)
    return number if key == number else item_id


def _is_number(item_id: int | str) -> bool:
    if type(item_id) is int:
        return True
    text = str(item_id)
    digits = text.removeprefix("-")
    is_one = len(text) <= LONGEST_ID and digits.isascii() and digits.isdigit()
    return is_one and str(int(text)) == text


def _item(sequence_id: int, branch: str) -> ItemKey:
    return (sequence_id, tuple(map(int, branch.split(".")))) if branch else sequence_id


def _columns(item: ItemKey) -> tuple[int, str]:
    return (item, "") if isinstance(item, int) else (item[0], ".".join(map(str, item[1])))
