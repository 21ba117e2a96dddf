"""Finds out what a journal knows of an item: how it ended, or where it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from antflow._core.envelope import Envelope
from antflow._core.errors import JournalCorruptError
from antflow._core.recall_counts import RecallCounts
from antflow._core.recalled import Known
from antflow.journal.codec import Codec
from antflow.journal.file import JournalConnection
from antflow.journal.item_keys import ItemKey, id_of_key
from antflow.journal.kept_errors import Retried, read_error
from antflow.journal.schema import is_sound


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
    """An item that is known.

    Attributes:
        row: Its row.
        outcome: Its row of the table ``outcomes``; ``None`` if it has none.
    """

    row: ItemRow
    outcome: tuple[Any, ...] | None


ITEM_COLUMNS = len(ItemRow._fields)
MOST_KEYS = 500
"""Keys to look up with one statement."""

FIND_ALL = "SELECT * FROM items LEFT JOIN outcomes ON outcomes.item = items.item WHERE"
FIND = f"{FIND_ALL} key IN"
FIND_MADE = f"{FIND_ALL} root = ? ORDER BY items.item"
RESULTS = "SELECT * FROM results WHERE item = ?"
CHECKPOINTS = "SELECT * FROM checkpoints WHERE item = ?"


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

    def find(self, keys: Sequence[ItemKey]) -> dict[ItemKey, Found]:
        """The items with these keys, of those that are known."""
        found: dict[ItemKey, Found] = {}
        for start in range(0, len(keys), MOST_KEYS):
            some = keys[start : start + MOST_KEYS]
            marks = ",".join("?" * len(some))
            for row in self.connection.execute(f"{FIND} ({marks})", some):
                each = self._found(row)
                found[each.row.key] = each
        return found

    def family(
        self, envelope: Envelope, found: Found, stage: int, counts: RecallCounts
    ) -> Iterator[tuple[ItemRow, Known]]:
        """An item that was fed, and all that was made from it, each after what it was made from.

        Args:
            envelope: The item. Where it is now is set on it.
            found: It, as it was found.
            stage: Index of the stage that it was fed to.
            counts: Where to count an item in which a stage has changed.
        """
        row = found.row
        known = self._place(envelope, found, stage, counts)
        yield row, known
        if known.outcome in ("completed", "dropped"):
            return  # nothing was made from it
        parents = {envelope.branch: envelope}
        rows = self.connection.execute(FIND_MADE, (row.item,)).fetchall()
        for each in map(self._found, rows):
            made = each.row
            branch = tuple(map(int, made.branch.split("/")))
            parent, position = parents.get(branch[:-1]), self.positions.get(made.stage)
            if parent is None or position is None or parent.position < position:
                continue  # it is made again, by a stage that has changed or goes on
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
            parents[branch] = child
            if parent.position == position:
                parent.children = max(parent.children, branch[-1] + 1)
            if position == self.last:
                yield made, Known(child, "completed")
            else:
                yield made, self._place(child, each, position + 1, counts)

    def _place(self, envelope: Envelope, found: Found, stage: int, counts: RecallCounts) -> Known:
        """Find out how an item ended, or where it goes on, and set that on it."""
        known = Known(envelope, None)
        is_changed = False
        values: dict[int, str | bytes] = {}
        if found.outcome is not None:
            _, outcome, number, value, attempts, _, error, *_ = found.outcome
            if (position := self.positions.get(number)) is None:
                is_changed = True
            elif outcome == "completed":
                if position == self.last:
                    envelope.position, envelope.attempts = position, attempts
                    envelope.value = self._value(value)
                    known.outcome = outcome
                    return known
                values[position] = value  # there are more stages now
            elif outcome != "failed" or not read_error(error).is_any(self.retried):
                envelope.position, envelope.attempts = position, attempts
                known.outcome = outcome
                if outcome == "failed":
                    known.error = read_error(error).as_error()
                else:
                    made = int(value or 0)
                    envelope.fate = envelope.fate._replace(ending=outcome, children=made)
        for _, number, value, *_ in self._rows(RESULTS, found.row.item):
            if (position := self.positions.get(number)) is None:
                is_changed = True
            elif known.outcome is None or position < envelope.position:
                values[position] = value
        reached = max(values, default=None)
        if reached is not None:
            envelope.value = self._value(values[reached])
        if known.outcome is None:
            envelope.position = stage if reached is None else reached + 1
            counts.changed += is_changed
            for _, number, value, *_ in self._rows(CHECKPOINTS, found.row.item):
                if self.positions.get(number) == envelope.position:
                    envelope.checkpoint = envelope.position, self._value(value)
        return known

    def _found(self, row: tuple[Any, ...]) -> Found:
        item, outcome = row[:ITEM_COLUMNS], row[ITEM_COLUMNS:]
        self._check("items", item)
        if outcome[0] is None:
            return Found(ItemRow._make(item), None)
        self._check("outcomes", outcome)
        return Found(ItemRow._make(item), outcome)

    def _check(self, table: str, row: tuple[Any, ...]) -> None:
        if not is_sound(row):
            told = f"a row of the table {table} is damaged (item {row[0]})"
            raise JournalCorruptError(f"journal {self.connection.path!r}: {told}")

    def _value(self, data: str | bytes) -> Any:
        return self.codec.decode(data.encode() if isinstance(data, str) else data)

    def _rows(self, query: str, item: int) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self.connection.execute(query, (item,)).fetchall()
        for row in rows:
            self._check(query.split()[3], row)
        return rows
