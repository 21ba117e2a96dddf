"""The store of one run that keeps a journal: it recalls what is known, and keeps what happens."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from antflow._core.envelope import Envelope
from antflow._core.errors import JournalError, JournalInputMismatch, NotSerialisable
from antflow._core.items import content_of
from antflow._core.journal_state import JournalState
from antflow._core.ledger import ItemKey
from antflow._core.observers import RunEnd
from antflow._core.recall_counts import RecallCounts
from antflow._core.recalled import Known
from antflow._core.run_facts import RunFacts
from antflow._core.stage import Stage
from antflow._core.text import clean, safe_repr
from antflow._core.transition import Kind, Transition
from antflow._core.version import __version__
from antflow._core.waits import Wait
from antflow.journal import schema
from antflow.journal.codec import CheckedCodec, Codec, checked, fingerprint
from antflow.journal.codec_choice import codec_of
from antflow.journal.file import JournalConnection, connect_again, open_for_writing
from antflow.journal.item_keys import content_key, item_key
from antflow.journal.journal import Journal
from antflow.journal.kept_errors import error_text
from antflow.journal.recall import ItemRow, Recall
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
    """

    def __init__(self, journal: Journal, *, in_thread: bool = True) -> None:
        self._journal = journal
        self._in_thread = in_thread
        self._codec: Codec = codec_of(journal.codec, journal.path, journal.trusted)
        self._codecs: list[CheckedCodec] = []
        self._held: dict[ItemKey, Held] = {}
        self._stages: list[int] = []
        self._next_item = 1
        self._run = 0
        self.id: str = ""
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
            self._writer = WriterThread(opens, journal.max_unflushed, pauses)
        else:
            self._writer = Writer(opens)

    def id_of(self, raw: Any) -> Any:
        """An item that brings no id is known by its content."""
        return content_key(content_of(raw), self._codec)

    def recall(
        self, envelopes: Sequence[Envelope], stage: int, counts: RecallCounts
    ) -> tuple[Sequence[Envelope], Sequence[Known]]:
        """Look items up by their keys."""
        new: list[Envelope] = []
        known: list[Known] = []
        keys = [item_key(each.id) if each.error is None else None for each in envelopes]
        all_found = self._recall.find([key for key in keys if key is not None])
        for envelope, key in zip(envelopes, keys, strict=True):
            found = None if key is None else all_found.get(key)
            if found is None:
                new.append(envelope)
                continue
            row = found.row
            if envelope.fate.place is not None:  # it is tried again: its result was passed in
                self._hold(envelope, row)
                new.append(envelope)
            elif self._is_changed(envelope, row):
                self._begin_again(envelope, row)
                counts.changed += 1
                counts.add(None, True)
                known.append(Known(envelope, None))
            else:
                for each, member in self._recall.family(envelope, found, stage, counts):
                    if member.outcome is None:
                        self._hold(member.envelope, each)
                    counts.add(member.outcome, each.root is None)
                    known.append(member)
        return new, known

    def admit(self, envelopes: Sequence[Envelope]) -> Wait:
        """Keep items that enter.

        They need not wait for the commit: rows are committed in their order, so an item's first
        result is never there without it, and an item that is not there is a new one.
        """
        for envelope in envelopes:
            if envelope.key not in self._held:
                held = self._held[envelope.key] = Held(self._new_item(), None)
                self._put_item(held, envelope.id, (), envelope.position, envelope.input)
        return self._writer.durable(max(MOST_ADMITTED, self._journal.max_unflushed))

    def record(self, transition: Transition, value: Any) -> Wait:
        """Keep a transition."""
        kind, is_last = transition.kind, transition.stage == self._last
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
        elif kind is Kind.EMITTED:
            return self._keep_made(transition, value)
        elif kind is Kind.EXPANDED:
            return self._end(transition, "expanded", str(value))
        elif kind is Kind.SKIPPED and is_last:
            return self._end(transition, "completed", self._result(transition, value))
        elif kind is Kind.CANCELLED:  # it is run again
            self._held.pop(transition.key, None)
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

    async def closed(self, how: RunEnd) -> None:
        """End the run in the journal, and close it."""
        error = None if how.error is None else str(how.error)
        writer = self._writer
        if writer.error is None:
            writer.put(schema.END_RUN, (how.timestamp, how.how, error, self._run))
        if (wait := writer.durable(0)) is not None:
            await wait
        writer.end()
        self._connection.close()
        if writer.error is not None:
            raise writer.error

    # Inside

    def _begin(
        self, connection: JournalConnection, facts: RunFacts, stages: Sequence[Stage]
    ) -> None:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            for statement in schema.SCHEMA:
                connection.execute(statement)
            values = (os.urandom(8).hex(), self._codec.name, facts.started_wall)
            connection.execute(schema.NEW_JOURNAL, values)
        (self.id, codec) = connection.execute("SELECT id, codec FROM journal").fetchone()
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
        """Whether an item has another input than the one that is known under its key."""
        policy = self._journal.on_input_change
        if policy == "reuse" or row.input_hash == self._input(envelope.input)[1]:
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
        self._put_item(held, envelope.id, (), envelope.position, envelope.input)

    def _hold(self, envelope: Envelope, row: ItemRow) -> None:
        self._held[envelope.key] = Held(row.item, row.root)

    def _new_item(self) -> int:
        number = self._next_item
        self._next_item += 1
        return number

    def _put_item(
        self, held: Held, key: Any, branch: tuple[int, ...], stage: int, given: Any
    ) -> None:
        row = (
            held.item,
            item_key(key),
            held.root,
            "/".join(map(str, branch)),
            self._stages[stage],
            *self._input(given),
            self._run,
        )
        self._writer.put(schema.ITEM, row)

    def _keep_made(self, made: Transition, value: Any) -> Wait:
        """Keep an item that was made from another."""
        parent = self._held[made.seq, made.branch[:-1]]
        root = parent.item if parent.root is None else parent.root
        held = self._held[made.key] = Held(self._new_item(), root)
        self._put_item(held, made.item_id, made.branch, made.stage, value)
        if made.stage == self._last:
            del self._held[made.key]
        return self._writer.durable()

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
        row = (
            self._held.pop(step.key).item,
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
        except NotSerialisable:
            return None, b""

    def _text_of(self, data: bytes) -> str | bytes:
        """Data as it is kept: as text if it is, for people who look at the tables."""
        return data if self._codec.name == "pickle" else data.decode()
