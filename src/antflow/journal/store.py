"""The store of one run that keeps a journal: it recalls what is known, and keeps what happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any
from weakref import ref

from antflow._core.envelope import Envelope
from antflow._core.errors import (
    JournalError,
    JournalInputMismatch,
    JournalKeyError,
    NotSerialisable,
)
from antflow._core.items import content_of
from antflow._core.journal_state import JournalState
from antflow._core.log import warn
from antflow._core.observers import RunEnd
from antflow._core.recall_counts import RecallCounts
from antflow._core.recalled import Counted, Known
from antflow._core.run_facts import RunFacts
from antflow._core.stage import Stage
from antflow._core.text import clean, safe_repr
from antflow._core.transition import Kind, Transition
from antflow._core.waits import Wait
from antflow.journal.begin_run import Begun, begin_run
from antflow.journal.codec import Codec
from antflow.journal.codec_choice import codec_of
from antflow.journal.connections import Connection, Reads
from antflow.journal.databases import connect_again, open_for_writing
from antflow.journal.file import told_as
from antflow.journal.inputs import Inputs
from antflow.journal.item_keys import ItemKey, content_key, item_key
from antflow.journal.journal import Journal
from antflow.journal.kept_values import KeptValues
from antflow.journal.omitted import Omitted
from antflow.journal.recall import ItemRow, Member, Recall
from antflow.journal.remote import Remote
from antflow.journal.run_rows import Completed, RunRows
from antflow.journal.settled import Settled
from antflow.journal.writer import Writer, WriterThread

MOST_ADMITTED = 1_000
"""Rows that are not committed yet, beyond which items wait before they enter."""


class JournalStore:
    """Keeps one run in a journal: see `antflow._core.ports.Memory`.

    Args:
        journal: The journal, and how it is used.
        in_thread: Whether rows are written in a thread.

    Attributes:
        id: The journal's id.
        knows_items: Whether earlier runs have kept any items in it.
        on_broken: Called when rows cannot be written any more.
    """

    def __init__(self, journal: Journal, *, in_thread: bool = True) -> None:
        self._journal = journal
        self._in_thread = in_thread
        self._codec: Codec = codec_of(journal.codec, journal._place, journal.trusted)
        self._inputs = Inputs(self._codec)
        self._has_told_omitted = False
        self.id: str = ""
        self.knows_items: bool = False
        self.on_broken: Callable[[Exception], None] = lambda _: None
        # Set when it is opened.
        self._writer: Writer
        self._values: KeptValues
        self._rows: RunRows
        self._recall: Recall
        self._settled: Settled
        self._remote: Remote | None = None
        self._is_open = False

    # The port

    def opened(self, facts: RunFacts, stages: Sequence[Stage]) -> None:
        """Open the journal, and begin a run in it; one in a database, in a thread."""
        begins = partial(self._begun, facts, stages)
        goes_on = partial(self._go, facts, stages)
        if self._journal.is_remote:
            self._remote = Remote(begins, goes_on, self._journal.on_error == "pause")
        else:
            goes_on(*begins())

    def opening(self) -> Wait:
        """Wait until a database is open."""
        return None if self._remote is None else self._remote.opened()

    def look_up(self, envelopes: Sequence[Envelope]) -> Wait:
        """Read what `recall` is going to ask of a database."""
        if self._remote is None:
            return None
        keys = map(self._key_of, envelopes)
        return self._remote.look_up([key for key in keys if key is not None])

    def id_of(self, raw: Any) -> Any:
        """An item that brings no id is known by its content."""
        try:
            return content_key(content_of(raw), self._codec)
        except NotSerialisable as error:
            told = f"item {clean(safe_repr(raw))} has no id, and its content cannot be one"
            raise JournalKeyError(f"{told}: {error}; give it a key with key=") from error

    def recall(
        self, envelopes: Sequence[Envelope], stage: int, counts: RecallCounts
    ) -> tuple[Sequence[Envelope], Sequence[Known]]:
        """Look items up by their keys."""
        if self._writer.error is not None:
            raise self._writer.error
        self._values.counts = counts
        new: list[Envelope] = []
        known: list[Known] = []
        keys = list(map(self._key_of, envelopes))
        all_found = self._settled.found([key for key in keys if key is not None])
        for envelope, key in zip(envelopes, keys, strict=True):
            found = None if key is None else all_found.get(key)
            if found is None:
                new.append(envelope)
                continue
            row = found.row
            if envelope.fate.place is not None:  # it is tried again: its result was passed in
                self._rows.go_on(envelope.key, row, had_ended=True)
                new.append(envelope)
            elif self._is_changed(envelope, row):
                self._rows.begin_again(envelope, row)
                counts.changed += 1
                known.append(Known(envelope, None))
            else:
                value = envelope.value
                family = list(self._recall.family(envelope, found, stage, counts))
                if any(member.is_lost for member in family):
                    envelope.go_back(stage, value)
                    self._rows.begin_again(envelope, row)
                    known.append(Known(envelope, None))
                    continue
                for member in family:
                    if member.known is not None:
                        known.append(member.known)
                    self._go_on(member, counts)
        return new, known

    def count_settled(
        self, ids: Sequence[str | int], raws: Sequence[Any], stage: int
    ) -> Counted | None:
        """Count items that had ended, many at a time."""
        if self._writer.error is not None:
            raise self._writer.error
        return self._settled.count(ids, raws, stage)

    def was_counted(self, item_id: Any) -> bool:
        """Whether an item with this id was counted."""
        return self._is_open and self._settled.was_counted(item_id)

    def admit(self, envelopes: Sequence[Envelope]) -> Wait:
        """Keep items that enter.

        They need not wait for the commit: rows are committed in their order, so an item's first
        result is never there without it, and an item that is not there is a new one.
        """
        for envelope in envelopes:
            if envelope.key not in self._rows.held and envelope.error is None:
                self._rows.accept(envelope)
        return self._writer.durable(max(MOST_ADMITTED, self._journal.max_unflushed))

    def completed(self, envelope: Envelope, value: Any, began: float, now: float) -> Wait:
        """Keep that an item has completed a stage."""
        if self._writer.error is not None:
            raise self._writer.error
        rows, key = self._rows, envelope.key
        if key not in rows.held:
            return None  # it has no key
        attempts = max(envelope.attempts, 0)
        step = Completed(key, envelope.position, attempts, now - began, now)
        keep = rows.completed if step.stage == self._last else rows.result
        return keep(step, value)

    def record(self, transition: Transition, value: Any) -> Wait:
        """Keep a transition."""
        if not self._is_open:
            return None  # an item that was not looked up yet is called off
        if self._writer.error is not None:
            raise self._writer.error
        rows, kind = self._rows, transition.kind
        if kind is Kind.EMITTED:
            return rows.made(transition, value)
        if transition.key not in rows.held:
            return None  # it could not be read, or has no key
        if kind is Kind.FAILED:
            if transition.worker >= 0:
                rows.attempt(transition)
            return rows.failed(transition)
        if kind is Kind.RETRYING:
            rows.attempt(transition)
        elif kind is Kind.DROPPED:
            return rows.dropped(transition)
        elif kind is Kind.EXPANDED:
            return rows.expanded(transition, value)
        elif kind is Kind.SKIPPED and transition.stage == self._last:
            return rows.completed(transition, value)
        elif kind is Kind.CANCELLED:  # it is run again
            del rows.held[transition.key]
        return None

    def state(self) -> JournalState:
        """How far it has got."""
        if not self._is_open:
            return JournalState(self._journal.path)
        writer = self._writer
        if writer.stalled is None and self._remote is not None and self._remote.stalled:
            behind = max(writer.behind, self._remote.behind)
            return JournalState(self._journal.path, writer.waiting, behind, self._remote.stalled)
        stalled = "" if writer.stalled is None else str(writer.stalled)
        return JournalState(self._journal.path, writer.waiting, writer.behind, stalled)

    def all_kept(self) -> Wait:
        """Wait for the commit of all rows so far; with ``max_unflushed``, of all but these."""
        if not self._is_open:
            return None
        if self._writer.error is not None:
            raise self._writer.error
        return self._writer.durable()

    def retry_later(self, keys: Iterable[tuple[int, tuple[int, ...]]] | None) -> None:
        """Failed items are run again in a later run."""
        if self._is_open and self._writer.error is None:
            self._rows.retry_later(keys)

    def checkpoint(self, envelope: Envelope, value: Any) -> Wait:
        """Keep a value for later tries of an item."""
        try:
            return self._rows.checkpoint(envelope, value)
        except NotSerialisable:
            raise
        except JournalError as error:
            self.on_broken(error)
            raise

    def give_up(self) -> None:
        """Stop waiting for rows that cannot be written: the run is being cancelled."""
        if self._is_open:
            self._writer.give_up()

    def closed(self, how: RunEnd) -> Wait:
        """End the run in the journal, and close it, even if nothing waits for that."""
        if not self._is_open:
            assert self._remote is not None
            return self._remote.then(partial(self._end, how))
        if self._remote is not None:
            self._remote.close()
        return self._end(how)

    # Inside

    def _end(self, how: RunEnd) -> Wait:
        if self._writer.error is None:
            self._rows.end_run(how)
        return _until_ended(self._writer, self._writer.end())

    def _begun(self, facts: RunFacts, stages: Sequence[Stage]) -> tuple[Connection, Begun]:
        """Open the journal, and begin a run, in whatever thread."""
        connection = open_for_writing(self._journal._place, self._journal.durability)
        if self._codec.name == "pickle":
            _refuse_untrusted(connection)
        return connection, begin_run(connection, self._codec.name, facts, stages)

    def _go(
        self, facts: RunFacts, stages: Sequence[Stage], connection: Connection, begun: Begun
    ) -> Reads:
        """Go on with the run that was begun."""
        self.id = begun.journal
        for name in begun.changed:
            warn(
                "the code of stage %s has changed since the last run with this journal; its "
                "earlier results are used; give it another version= to redo them",
                clean(safe_repr(name)),
            )
        self._last = len(stages) - 1
        positions = {number: position for position, number in enumerate(begun.stages)}
        reads = connection.beside(positions, self._last)
        retried = self._journal.retry_failed
        self._recall = Recall(reads, self._codec, positions, self._last, retried)
        self.knows_items = begun.next_item > 1 and not self._journal.is_remote
        self._settled = Settled(
            self._recall,
            self._inputs,
            begun.next_item,
            takes_any_input=self._journal.on_input_change == "reuse",
        )
        self._writer = self._writer_of(connection)
        self._values = KeptValues(self._codec, self._inputs, self._journal, facts.stage_names)
        self._rows = RunRows(begun, facts, stages, self._values, self._writer)
        self._is_open = True
        return reads

    def _writer_of(self, connection: Connection) -> Writer:
        journal = self._journal
        opens = partial(connect_again, connection, journal.durability)
        if not self._in_thread:
            return Writer(opens, connection.close)
        on_broken, pauses = partial(_tell, ref(self), "on_broken"), journal.on_error == "pause"
        return WriterThread(opens, journal.max_unflushed, on_broken, pauses, connection.close)

    def _is_changed(self, envelope: Envelope, row: ItemRow) -> bool:
        """Whether an item has another input than the one that is known under its key.

        Or enters another stage than that one.
        """
        policy = self._journal.on_input_change
        if policy == "reuse":
            return False
        is_moved = self._recall.positions.get(row.stage, envelope.position) != envelope.position
        if not is_moved and row.input_hash == self._inputs.hash_of(envelope.input):
            return False
        if policy == "error":
            told = f"item {clean(safe_repr(envelope.id))} has different input from an earlier run"
            raise JournalInputMismatch(f"{told} (on_input_change='error')")
        return True

    def _key_of(self, envelope: Envelope) -> ItemKey | None:
        """The key of an item that was fed. One that can have no key fails, and is not kept."""
        if envelope.error is None:
            try:
                return item_key(envelope.id)
            except JournalKeyError as error:
                envelope.error = error
        return None

    def _go_on(self, member: Member, counts: RecallCounts) -> None:
        """Note what follows from what is known of an item."""
        row, known = member.row, member.known
        if known is not None and type(known.envelope.value) is Omitted:
            if known.outcome == "completed":
                counts.omitted += 1
            if not self._has_told_omitted:
                self._has_told_omitted = True
                warn("the values of some results are not in the journal: %r", known.envelope.value)
        if known is None:
            self._rows.forget_made(row)
        elif known.outcome is None:
            self._rows.go_on(known.envelope.key, row, had_ended=member.has_outcome)
        elif not member.has_outcome:  # the program was killed just before it was written
            self._rows.complete(row, known.envelope)


def _refuse_untrusted(connection: Connection) -> None:
    try:
        with told_as(connection.path):
            connection.refuse_untrusted()
    except BaseException:
        connection.close()
        raise


async def _until_ended(writer: Writer, wait: Wait) -> None:
    if wait is not None:
        await wait
    if writer.error is not None:
        raise writer.error


def _tell(owner: ref[JournalStore], method: str, error: Exception | None) -> None:
    """Tell a store what its writer says.

    The thread of the writer must not keep the run alive: if the event loop is closed under it, the
    run is collected, and that ends the thread.
    """
    if (store := owner()) is not None:
        getattr(store, method)(error)
