"""The store of one run that keeps a journal: it recalls what is known, and keeps what happens."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import ref

from antflow._core.envelope import Envelope
from antflow._core.errors import (
    JournalCorruptError,
    JournalError,
    JournalInputMismatch,
    JournalKeyError,
    NotSerialisable,
)
from antflow._core.items import content_of
from antflow._core.journal_state import JournalState
from antflow._core.ledger import ItemKey
from antflow._core.log import warn
from antflow._core.observers import RunEnd
from antflow._core.recall_counts import RecallCounts
from antflow._core.recalled import Known
from antflow._core.run_facts import RunFacts
from antflow._core.stage import Stage
from antflow._core.text import clean, safe_repr, safe_str
from antflow._core.transition import Kind, Transition
from antflow._core.version import __version__
from antflow._core.waits import Wait
from antflow.journal import schema
from antflow.journal.codec import CheckedCodec, Codec, checked, fingerprint
from antflow.journal.codec_choice import codec_of
from antflow.journal.file import (
    UNREADABLE,
    JournalConnection,
    as_journal_error,
    connect_again,
    open_for_writing,
)
from antflow.journal.item_keys import ItemKey as Key
from antflow.journal.item_keys import content_key, item_key
from antflow.journal.journal import Journal
from antflow.journal.kept_errors import error_text
from antflow.journal.recall import ItemRow, Member, Recall
from antflow.journal.writer import Writer, WriterThread

MOST_ADMITTED = 1_000
"""Rows that are not committed yet, beyond which items wait before they enter."""


@dataclass(slots=True)
class Held:
    """An item in flight.

    Attributes:
        item: Its number in the journal.
        root: That of the item that was fed; ``None`` if this is it.
    """

    item: int
    root: int | None


class JournalStore:
    """Keeps one run in a journal: see `antflow._core.ports.Memory`.

    Args:
        journal: The journal, and how it is used.
        in_thread: Whether rows are written in a thread.

    Attributes:
        id: The journal's id.
        on_broken: Called when rows cannot be written any more.
    """

    def __init__(self, journal: Journal, *, in_thread: bool = True) -> None:
        self._journal = journal
        self._in_thread = in_thread
        self._codec: Codec = codec_of(journal.codec, journal.path, journal.trusted)
        self._codecs: list[CheckedCodec] = []
        self._held: dict[ItemKey, Held] = {}
        self._failed: dict[ItemKey, int] = {}
        self._has_warned = False
        self._stages: list[int] = []
        self._next_item = 1
        self._run = 0
        self.id: str = ""
        self.on_broken: Callable[[Exception], None] = lambda _: None
        # Set when it is opened.
        self._facts: RunFacts
        self._writer: Writer
        self._connection: JournalConnection
        self._recall: Recall

    # The port

    def opened(self, facts: RunFacts, stages: Sequence[Stage]) -> None:
        """Open the journal, and begin a run in it."""
        journal = self._journal
        self._facts = facts
        connection = open_for_writing(journal.path, journal.durability)
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._begin(connection, facts, stages)
            connection.execute("COMMIT")
        except UNREADABLE as error:
            connection.close()
            raise as_journal_error(connection.path, error) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        positions = {number: position for position, number in enumerate(self._stages)}
        self._last = len(stages) - 1
        self._recall = Recall(connection, self._codec, positions, self._last, journal.retry_failed)
        opens = partial(connect_again, connection, journal.durability)
        if self._in_thread:
            pauses = journal.on_error == "pause"
            self._writer = WriterThread(
                opens,
                journal.max_unflushed,
                partial(_tell, ref(self), "on_broken"),
                pauses,
                connection.close,
            )
        else:
            self._writer = Writer(opens, connection.close)

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
        new: list[Envelope] = []
        known: list[Known] = []
        keys = list(map(self._key_of, envelopes))
        all_found = self._recall.find([key for key in keys if key is not None])
        for envelope, key in zip(envelopes, keys, strict=True):
            found = None if key is None else all_found.get(key)
            if found is None:
                new.append(envelope)
                continue
            row = found.row
            if envelope.fate.place is not None:  # it is tried again: its result was passed in
                self._held[envelope.key] = Held(row.item, row.root)
                self._writer.put(schema.FORGET_OUTCOME, {"item": row.item})
                new.append(envelope)
            elif self._is_changed(envelope, row):
                self._begin_again(envelope, row)
                counts.changed += 1
                known.append(Known(envelope, None))
            else:
                for member in self._recall.family(envelope, found, stage, counts):
                    if member.known is not None:
                        known.append(member.known)
                    self._go_on(member)
        return new, known

    def admit(self, envelopes: Sequence[Envelope]) -> Wait:
        """Keep items that enter.

        They need not wait for the commit: rows are committed in their order, so an item's first
        result is never there without it, and an item that is not there is a new one.
        """
        for envelope in envelopes:
            if envelope.key not in self._held and envelope.error is None:
                held = self._held[envelope.key] = Held(self._new_item(), None)
                given = self._input(envelope.input)
                self._put_item(held, envelope.id, (), envelope.position, given)
        return self._writer.durable(max(MOST_ADMITTED, self._journal.max_unflushed))

    def record(self, transition: Transition, value: Any) -> Wait:
        """Keep a transition."""
        if self._writer.error is not None:
            raise self._writer.error
        kind, is_last = transition.kind, transition.stage == self._last
        if kind is Kind.EMITTED:
            return self._keep_made(transition, value)
        if transition.key not in self._held:
            return None  # it could not be read, or has no key
        if kind is Kind.COMPLETED:
            if not is_last:
                return self._keep_result(transition, value)
            return self._end(transition, "completed", self._result(transition, value))
        if kind is Kind.FAILED:
            if transition.worker >= 0:
                self._keep_attempt(transition)
            assert transition.error is not None
            return self._end(transition, "failed", None, error_text(transition.error))
        if kind is Kind.RETRYING:
            self._keep_attempt(transition)
        elif kind is Kind.DROPPED:
            return self._end(transition, "dropped", None)
        elif kind is Kind.EXPANDED:
            return self._end(transition, "expanded", str(value))
        elif kind is Kind.SKIPPED and is_last:
            return self._end(transition, "completed", self._result(transition, value))
        elif kind is Kind.CANCELLED:  # it is run again
            del self._held[transition.key]
        return None

    def state(self) -> JournalState:
        """How far it has got."""
        writer = self._writer
        stalled = "" if writer.stalled is None else str(writer.stalled)
        return JournalState(self._journal.path, writer.waiting, writer.behind, stalled)

    def checkpoint(self, envelope: Envelope, value: Any) -> Wait:
        """Keep a value for later tries of an item."""
        stage = envelope.position
        row = (
            self._held[envelope.key].item,
            self._stages[stage],
            self._text_of(self._codecs[stage].encode(value)),
            self._run,
        )
        self._writer.put(schema.CHECKPOINT, row)
        return self._writer.durable(0)

    def give_up(self) -> None:
        """Wait no more for what cannot be written at the moment: the run is being cancelled."""
        self._writer.give_up()

    def closed(self, how: RunEnd) -> Wait:
        """End the run in the journal, and close it, even if nothing waits for that."""
        error = None if how.error is None else safe_str(how.error)
        writer = self._writer
        if writer.error is None:
            retried = self._failed if how.to_retry is None else how.to_retry
            for item in (self._failed[key] for key in retried if key in self._failed):
                writer.put(schema.TO_RETRY, (item, self._run))
            writer.put(schema.END_RUN, (how.timestamp, how.how, error, self._run))
        return _until_ended(writer, writer.end())

    # Inside

    def _begin(
        self, connection: JournalConnection, facts: RunFacts, stages: Sequence[Stage]
    ) -> None:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            for statement in schema.SCHEMA:
                connection.execute(statement)
            values = (os.urandom(8).hex(), self._codec.name, facts.started_wall)
            connection.execute(schema.NEW_JOURNAL, schema.sealed(values))
        about = connection.execute("SELECT * FROM journal").fetchone()
        if about is None or not schema.is_sound(about):
            told = "the row of the table journal is damaged or missing"
            raise JournalCorruptError(f"journal {connection.path!r}: {told}")
        self.id, codec, *_ = about
        if codec != self._codec.name:
            raise JournalError(
                f"journal {connection.path!r}: its values are kept as {codec}; use codec={codec!r}"
            )
        self._codecs = [checked(self._codec, stage.name) for stage in stages]
        recipes = schema.recipes_of((stage.name, stage.version) for stage in stages)
        for position, (recipe, name, version) in enumerate(recipes):
            connection.execute(schema.STAGE, (recipe, position, name, version))
            self._stages += connection.execute(schema.STAGE_NUMBER, (recipe,)).fetchone()
        started = facts.started_wall
        run = (facts.run_id, facts.pipeline, socket.gethostname(), os.getpid(), __version__)
        self._run = connection.execute(schema.BEGIN_RUN, (*run, started)).lastrowid or 0
        (most,) = connection.execute("SELECT max(item) FROM items").fetchone()
        self._next_item = (most or 0) + 1

    def _is_changed(self, envelope: Envelope, row: ItemRow) -> bool:
        """Whether an item has another input than the one that is known under its key.

        Or enters another stage than that one.
        """
        policy = self._journal.on_input_change
        is_moved = self._recall.positions.get(row.stage, envelope.position) != envelope.position
        is_same = not is_moved and row.input_hash == self._input(envelope.input)[1]
        if policy == "reuse" or is_same:
            return False
        if policy == "error":
            told = f"item {clean(safe_repr(envelope.id))} has another input than in an earlier run"
            raise JournalInputMismatch(f"{told} (on_input_change='error')")
        return True

    def _begin_again(self, envelope: Envelope, row: ItemRow) -> None:
        """Forget all that is known of an item."""
        for statement in schema.FORGET:
            self._writer.put(statement, {"item": row.item})
        held = self._held[envelope.key] = Held(row.item, None)
        self._put_item(held, envelope.id, (), envelope.position, self._input(envelope.input))

    def _key_of(self, envelope: Envelope) -> Key | None:
        """The key of an item that was fed. One that can have no key fails, and is not kept."""
        if envelope.error is None:
            try:
                return item_key(envelope.id)
            except JournalKeyError as error:
                envelope.error = error
        return None

    def _go_on(self, member: Member) -> None:
        """Note what follows from what is known of an item."""
        row, known = member.row, member.known
        if known is None:
            for statement in schema.FORGET_MADE:
                self._writer.put(statement, {"item": row.item})
        elif known.outcome is None:
            self._held[known.envelope.key] = Held(row.item, row.root)
            if member.has_outcome:
                self._writer.put(schema.FORGET_OUTCOME, {"item": row.item})
        elif not member.has_outcome:  # the program was killed just before it was written
            value = self._text_of(self._codec.encode(known.envelope.value))
            self._put_outcome(row.item, "completed", known.envelope.position, value)

    def _new_item(self) -> int:
        number = self._next_item
        self._next_item += 1
        return number

    def _put_item(
        self,
        held: Held,
        key: Any,
        branch: tuple[int, ...],
        stage: int,
        given: tuple[str | bytes | None, bytes],
    ) -> None:
        row = (
            held.item,
            item_key(key),
            held.root,
            "/".join(map(str, branch)),
            self._stages[stage],
            *given,
            self._run,
        )
        self._writer.put(schema.ITEM, row)

    def _keep_made(self, made: Transition, value: Any) -> Wait:
        """Keep an item that was made from another."""
        parent = self._held.get((made.seq, made.branch[:-1]))
        if parent is None:
            return None
        root = parent.item if parent.root is None else parent.root
        held = Held(self._new_item(), root)
        data = self._result(made, value)
        self._put_item(held, made.item_id, made.branch, made.stage, (data, b""))
        if made.stage == self._last:
            self._put_outcome(held.item, "completed", made.stage, data)
        else:
            self._held[made.key] = held
        return self._writer.durable()

    def _put_outcome(self, item: int, outcome: str, stage: int, value: str | bytes) -> None:
        """Write an outcome that is not the end of a visit."""
        now = self._facts.started_wall
        row = (item, outcome, self._stages[stage], value, 0, 0.0, None, now, self._run)
        self._writer.put(schema.OUTCOME, row)

    def _keep_result(self, step: Transition, value: Any) -> Wait:
        row = (
            self._held[step.key].item,
            self._stages[step.stage],
            self._result(step, value),
            step.attempt,
            step.duration,
            self._run,
        )
        self._writer.put(schema.RESULT, row)
        return self._writer.durable()

    def _keep_attempt(self, step: Transition) -> None:
        assert step.error is not None
        row = (
            self._held[step.key].item,
            self._stages[step.stage],
            step.attempt,
            step.task,
            step.duration,
            error_text(step.error),
            self._facts.timestamp(step.mono),
            self._run,
        )
        self._writer.put(schema.ATTEMPT, row)

    def _end(
        self, step: Transition, outcome: str, value: str | bytes | None, error: str | None = None
    ) -> Wait:
        item = self._held.pop(step.key).item
        if outcome == "failed":
            self._failed[step.key] = item
        row = (
            item,
            outcome,
            self._stages[step.stage],
            value,
            step.attempt,
            step.duration,
            error,
            self._facts.timestamp(step.mono),
            self._run,
        )
        self._writer.put(schema.OUTCOME, row)
        return self._writer.durable()

    def _result(self, step: Transition, value: Any) -> str | bytes:
        return self._text_of(self._codecs[step.stage].encode(value))

    def _input(self, given: Any) -> tuple[str | bytes | None, bytes]:
        """An item as it was fed, and its hash. It need not be kept: it is fed again."""
        try:
            plain = content_of(given)
            return self._text_of(self._codec.encode(plain)), fingerprint(plain, self._codec)
        except NotSerialisable as error:
            if not self._has_warned:
                self._has_warned = True
                told = "an item cannot be kept, so if it changes the journal does not notice: %s"
                warn(told, clean(str(error)))
            return None, b""

    def _text_of(self, data: bytes) -> str | bytes:
        """Data as it is kept: as text if it is, for people who look at the tables."""
        return data if self._codec.name == "pickle" else data.decode()


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
