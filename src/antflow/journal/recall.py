"""Finds out what a journal knows of an item: how it ended, or where it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from antflow._core.envelope import Envelope
from antflow._core.errors import JournalCorruptError
from antflow._core.recall_counts import RecallCounts
from antflow._core.recalled import Known
from antflow.journal.codec import Codec
from antflow.journal.file import UNREADABLE, JournalConnection, as_journal_error
from antflow.journal.item_keys import id_of_key
from antflow.journal.kept_errors import read_error
from antflow.journal.schema import is_sound

Branch = tuple[int, ...]

SELECT_TO_RETRY = "SELECT * FROM to_retry WHERE item = ?"

Retried = bool | tuple[type[BaseException], ...]


class ItemRow(NamedTuple):
    """A row of the table ``items``."""

    item: int
    key: Any
    root: int | None
    branch: str
    stage: int
    input: Any
    input_hash: bytes
    run: int
    crc: int


class Found(NamedTuple):
    """What is known of an item.

    Attributes:
        row: Its row.
        known: How it ended, or where it goes on; ``None``: it is made again from its parent.
        has_outcome: Whether it had ended, although it goes on.
    """

    row: ItemRow
    known: Known | None
    has_outcome: bool = False


@dataclass(frozen=True, slots=True)
class Recall:
    """Reads what earlier runs have kept of items.

    Args:
        connection: Reads the journal.
        codec: Makes values of what is kept.
        positions: Number of a stage in the journal → its index, for those stages of the pipeline
            that are as they were, with all before them. What others have made does not count.
        last: Index of the last stage.
        retried: Which failed items go on.
    """

    connection: JournalConnection
    codec: Codec
    positions: Mapping[int, int]
    last: int
    retried: Retried

    def row_of(self, key: Any) -> ItemRow | None:
        """The row of an item that was fed; ``None`` if it is new."""
        rows = self._rows("SELECT * FROM items WHERE key = ? AND root IS NULL", key)
        return ItemRow(*rows[0]) if rows else None

    def family(
        self, envelope: Envelope, row: ItemRow, stage: int, counts: RecallCounts
    ) -> Iterator[Found]:
        """An item that was fed, and all that was made from it, each after what it was made from.

        Args:
            envelope: The item. Where it is now is set on it.
            row: Its row.
            stage: Index of the stage that it was fed to.
            counts: Where to count an item in which a stage has changed.
        """
        rows = self._rows("SELECT * FROM items WHERE root = ? ORDER BY item", row.item)
        family: dict[Branch, ItemRow] = {}
        # An item has reached the stages in which others were made from it, although of those that
        # it skipped nothing is kept.
        reached: dict[Branch, int] = {}
        for made in map(ItemRow._make, rows):
            branch = tuple(map(int, made.branch.split("/")))
            family[branch] = made
            where = self.positions.get(made.stage, 0)
            reached[branch[:-1]] = max(reached.get(branch[:-1], 0), where)
        yield self._place(envelope, row, max(stage, reached.get((), 0)), counts)
        parents = {envelope.branch: envelope}
        for branch, made in family.items():
            parent, position = parents.get(branch[:-1]), self.positions.get(made.stage)
            if parent is None or position is None or parent.position < position:
                yield Found(made, None)  # by a stage that has changed, or is repeated
                continue
            child = Envelope(
                envelope.sequence_id,
                id_of_key(made.key),
                self._value(made.input),
                dict(envelope.metadata) if envelope.has_metadata else None,
                envelope.input,
                envelope.priority,
                position,
                branch,
            )
            child.deadline = envelope.deadline
            parents[branch] = child
            if parent.position == position:
                parent.children = max(parent.children, branch[-1] + 1)
            yield self._place(child, made, max(position + 1, reached.get(branch, 0)), counts)

    def _place(self, envelope: Envelope, row: ItemRow, stage: int, counts: RecallCounts) -> Found:
        """Find out how an item ended, or where it goes on, and set that on it."""
        values: dict[int, str | bytes] = {}
        item, is_changed, has_outcome = row.item, False, False
        for _, number, value, *_ in self._rows("SELECT * FROM results WHERE item = ?", item):
            if (position := self.positions.get(number)) is None:
                is_changed = True
            else:
                values[position] = value
        known = Known(envelope, None)
        for ended in self._rows("SELECT * FROM outcomes WHERE item = ?", item):
            _, outcome, number, value, attempts, _, error, _, run, _ = ended
            has_outcome = True
            if (position := self.positions.get(number)) is None:
                is_changed = True
            elif outcome == "completed" and position < self.last:
                values[position] = value  # there are more stages now
            elif outcome == "failed" and self._is_retried(item, run, error):
                pass
            else:
                envelope.position, envelope.attempts = position, attempts
                known.outcome = outcome
                if outcome == "completed":
                    values[position] = value
                elif outcome == "failed":
                    known.error = read_error(error).as_error()
                    values = {each: values[each] for each in values if each < position}
                else:
                    made = int(value or 0)
                    envelope.fate = envelope.fate._replace(ending=outcome, children=made)
        reached = max(values, default=None)
        if reached is not None:
            envelope.value = self._value(values[reached])
        if known.outcome is None:
            envelope.position = stage if reached is None else max(stage, reached + 1)
            if envelope.position > self.last:  # the stages after it were removed
                envelope.position, known.outcome = self.last, "completed"
            else:
                counts.changed += is_changed
        return Found(row, known, has_outcome)

    def _is_retried(self, item: int, run: int, error: str) -> bool:
        """Whether an item that failed in a run goes on."""
        if read_error(error).is_any(self.retried):
            return True
        return any(row[1] == run for row in self._rows(SELECT_TO_RETRY, item))

    def _value(self, data: str | bytes) -> Any:
        return self.codec.decode(data.encode() if isinstance(data, str) else data)

    def _rows(self, query: str, value: Any) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = self.connection.execute(query, (value,)).fetchall()
        except UNREADABLE as error:
            raise as_journal_error(self.connection.path, error) from error
        for row in rows:
            if not is_sound(row):
                table = query.split()[3]
                told = f"a row of the table {table} is damaged (item {row[0]})"
                raise JournalCorruptError(f"journal {self.connection.path!r}: {told}")
        return rows
