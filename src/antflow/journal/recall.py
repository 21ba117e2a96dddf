"""Finds out what a journal knows of an item: how it ended, or where it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from antflow._core.envelope import Envelope
from antflow._core.errors import JournalCorruptError
from antflow._core.recall_counts import RecallCounts
from antflow._core.recalled import Known
from antflow.journal.cells import Cell, is_omitted, value_of
from antflow.journal.codec import Codec
from antflow.journal.connections import Reads
from antflow.journal.file import told_as
from antflow.journal.item_keys import ItemKey, id_of_key
from antflow.journal.kept_errors import Retried, read_error
from antflow.journal.omitted import Omitted
from antflow.journal.schema import is_sound

Branch = tuple[int, ...]


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
    """An item that was found.

    Attributes:
        row: Its row.
        outcome: Its row of the table ``outcomes``; ``None`` if it has none.
    """

    row: ItemRow
    outcome: tuple[Any, ...] | None


class Member(NamedTuple):
    """An item that was fed, or was made from one.

    Attributes:
        row: Its row.
        known: How it ended, or where it goes on; ``None``: it is made again from its parent.
        has_outcome: Whether it had ended, although it goes on.
    """

    row: ItemRow
    known: Known | None
    has_outcome: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether it should go on, and what it was made with was left out.

        Then the item that was fed is run from the start.
        """
        known = self.known
        return known is not None and known.outcome is None and type(known.envelope.value) is Omitted


ITEM_COLUMNS = len(ItemRow._fields)
MOST_KEYS = 500
"""Keys to look up with one statement."""

FIND_ALL = "SELECT * FROM items LEFT JOIN outcomes ON outcomes.item = items.item WHERE"
FIND = f"{FIND_ALL} root IS NULL AND key IN"
FIND_MADE = f"{FIND_ALL} root = ? ORDER BY items.item"
RESULTS = "SELECT * FROM results WHERE item = ?"
CHECKPOINTS = "SELECT * FROM checkpoints WHERE item = ?"
TO_RETRY = "SELECT * FROM to_retry WHERE item = ?"


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

    connection: Reads
    codec: Codec
    positions: Mapping[int, int]
    last: int
    retried: Retried

    def find(self, keys: Sequence[ItemKey]) -> dict[ItemKey, Found]:
        """The items that were fed with these keys, of those that are known."""
        found = map(self.checked, self.rows_of(keys))
        return {each.row.key: each for each in found}

    def rows_of(self, keys: Sequence[ItemKey]) -> list[tuple[Any, ...]]:
        """The rows of these items, of those that are known, as `FIND_ALL` gives them."""
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(keys), MOST_KEYS):
            some = keys[start : start + MOST_KEYS]
            marks = ",".join("?" * len(some))
            rows += self.select(f"{FIND} ({marks})", some)
        return rows

    def select(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Rows of the journal, unchecked."""
        with told_as(self.connection.path):
            rows: list[tuple[Any, ...]] = self.connection.execute(query, values).fetchall()
        return rows

    def checked(self, row: tuple[Any, ...]) -> Found:
        """A row of `FIND_ALL`, if it is the one that was written."""
        item, outcome = row[:ITEM_COLUMNS], row[ITEM_COLUMNS:]
        self._check("items", item)
        if outcome[0] is None:
            return Found(ItemRow._make(item), None)
        self._check("outcomes", outcome)
        return Found(ItemRow._make(item), outcome)

    def family(
        self, envelope: Envelope, found: Found, stage: int, counts: RecallCounts
    ) -> Iterator[Member]:
        """An item that was fed, and all that was made from it, each after what it was made from.

        Args:
            envelope: The item. Where it is now is set on it.
            found: It, as it was found.
            stage: Index of the stage that it was fed to.
            counts: Where to count an item in which a stage has changed.
        """
        outcome = found.outcome
        if outcome and outcome[1] == "completed" and self.positions.get(outcome[2]) == self.last:
            yield self._place(envelope, found, stage, counts)
            return  # nothing was made from it
        family: dict[Branch, Found] = {}
        # An item has reached the stages in which others were made from it, although of those that
        # it skipped nothing is kept.
        reached: dict[Branch, int] = {}
        for each in map(self.checked, self.select(FIND_MADE, (found.row.item,))):
            branch = tuple(map(int, each.row.branch.split("/")))
            family[branch] = each
            where = self.positions.get(each.row.stage, 0)
            reached[branch[:-1]] = max(reached.get(branch[:-1], 0), where)
        yield self._place(envelope, found, max(stage, reached.get((), 0)), counts)
        parents = {envelope.branch: envelope}
        for branch, each in family.items():
            made = each.row
            parent, position = parents.get(branch[:-1]), self.positions.get(made.stage)
            if parent is None or position is None or parent.position < position:
                yield Member(made, None)  # by a stage that has changed, or is repeated
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
            yield self._place(child, each, max(position + 1, reached.get(branch, 0)), counts)

    def _place(self, envelope: Envelope, found: Found, stage: int, counts: RecallCounts) -> Member:
        """Find out how an item ended, or where it goes on, and set that on it."""
        item, is_changed = found.row.item, False
        values: dict[int, Cell] = {}
        known = Known(envelope, None)
        if found.outcome is not None:
            _, outcome, number, value, attempts, _, error, _, run, _ = found.outcome
            if (position := self.positions.get(number)) is None:
                is_changed = True
            elif outcome == "completed" and position < self.last:
                values[position] = value  # there are more stages now
            elif outcome != "failed" or not self._is_retried(item, run, error):
                envelope.position, envelope.attempts = position, attempts
                known.outcome = outcome
                if outcome == "completed":
                    envelope.value = self._value(value)
                    return Member(found.row, known, has_outcome=True)
                if outcome == "failed":
                    known.error = read_error(error).as_error()
                else:
                    made = int(value or 0)
                    envelope.fate = envelope.fate._replace(ending=outcome, children=made)
        for _, number, value, *_ in self._rows(RESULTS, item):
            if (position := self.positions.get(number)) is None:
                is_changed = True
            elif known.outcome is None or position < envelope.position:
                values[position] = value
        if known.outcome is None:
            values = {each: kept for each, kept in values.items() if not is_omitted(kept)}
        reached = max(values, default=None)
        if reached is not None:
            envelope.value = self._value(values[reached])
        if known.outcome is None:
            envelope.position = stage if reached is None else max(stage, reached + 1)
            if envelope.position > self.last:  # the stages after it were removed
                envelope.position, known.outcome = self.last, "completed"
            else:
                counts.changed += is_changed
                for _, number, value, *_ in self._rows(CHECKPOINTS, item):
                    if self.positions.get(number) == envelope.position and not is_omitted(value):
                        envelope.checkpoint = envelope.position, self._value(value)
        return Member(found.row, known, found.outcome is not None)

    def _is_retried(self, item: int, run: int, error: str) -> bool:
        """Whether an item that failed in a run goes on."""
        if read_error(error).is_any(self.retried):
            return True
        return any(row[1] == run for row in self._rows(TO_RETRY, item))

    def _value(self, data: Cell) -> Any:
        return value_of(data, self.codec)

    def _rows(self, query: str, item: int) -> list[tuple[Any, ...]]:
        rows = self.select(query, (item,))
        for row in rows:
            self._check(query.split()[3], row)
        return rows

    def _check(self, table: str, row: tuple[Any, ...]) -> None:
        if not is_sound(row):
            told = f"a row of the table {table} is damaged (item {row[0]})"
            raise JournalCorruptError(f"journal {self.connection.path!r}: {told}")
