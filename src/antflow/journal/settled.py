"""Counts settled items many at a time, without looking at each result.

A run that goes on is mostly fed in the order in which its items were taken in. So the completed
items after those that were read last are read first (`NEXT`), and only items that are not among
them are looked up by their keys. That an input is the same shows without a hash: the texts are
equal.

Of each row of ``outcomes`` the checksum is compared. A row of ``items`` that `NEXT` gives needs
none: all that is used of it is compared with what it must be, and its number with that of the
outcome.

Whatever takes more than counting is left to `Recall`, which then finds the rows here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any
from zlib import crc32

from antflow._core.errors import JournalKeyError
from antflow._core.recalled import Counted
from antflow.journal.cells import MARK, is_omitted
from antflow.journal.inputs import Inputs
from antflow.journal.item_keys import ItemKey, item_key, item_keys
from antflow.journal.recall import FIND_ALL, ITEM_COLUMNS, Found, ItemRow, Recall

NEXT = f"""\
SELECT outcomes.item, value, attempts, seconds, at, outcomes.run, outcomes.crc, key, input
FROM items JOIN outcomes ON outcomes.item = items.item
WHERE items.item > ? AND items.item < ? AND root IS NULL AND branch = '' AND items.stage = ?
AND outcome = 'completed' AND outcomes.stage = ? AND error IS NULL
AND (typeof(value) <> 'text' OR substr(value, 1, {len(MARK)}) <> '{MARK}')
ORDER BY items.item LIMIT ?"""  # noqa: S608

FIND_NUMBER = f"{FIND_ALL} items.item = ?"
MADE_ANY = "SELECT 1 FROM items WHERE root = ? LIMIT 1"

COMPLETED = "(%r, 'completed', {}, %r, %r, %r, None, %r, %r)"
"""The text of which the checksum of an outcome is made, of one that `NEXT` gives."""

CHECKSUM, KEY, TEXT = map(itemgetter, (6, 7, 8))
CHECKED = itemgetter(slice(6))

ITEM, ITS_KEY, STAGE, INPUT = map(ItemRow._fields.index, ("item", "key", "stage", "input"))
OUTCOME, ENDED_IN, VALUE = ITEM_COLUMNS + 1, ITEM_COLUMNS + 2, ITEM_COLUMNS + 3
COLUMNS = ITEM_COLUMNS + 10

Row = tuple[Any, ...]
"""A row of `NEXT`, or a longer one of `FIND_ALL`: one of ``items``, and that of ``outcomes``."""


class Settled:
    """Counts the items of one run that had ended.

    Args:
        recall: Reads the journal.
        inputs: Makes texts of items.
        next_item: The number of the next new item. This run's own items are not asked for.
        takes_any_input: Whether an item counts as the same whatever its input is.
    """

    def __init__(
        self, recall: Recall, inputs: Inputs, next_item: int, *, takes_any_input: bool
    ) -> None:
        self._recall = recall
        self._inputs = inputs
        self._next_item = next_item
        self._takes_any_input = takes_any_input
        self._stages = {position: number for number, position in recall.positions.items()}
        self._text_of = COMPLETED.format(self._stages[recall.last]).__mod__
        self._counted = bytearray(next_item)  # by their numbers
        self._has_counted = False
        self._last_item = 0
        self._is_in_order = True
        self._looked_up: dict[ItemKey, Row | None] = {}

    def count(self, ids: Sequence[str | int], raws: Sequence[Any], stage: int) -> Counted | None:
        """Count the items that had ended, see `antflow._core.ports.Memory.count_settled`."""
        self._looked_up = {}
        try:
            keys = item_keys(ids)
        except JournalKeyError:
            return None
        texts = self._inputs.texts(raws)
        rows = self._next(stage, len(keys)) if self._is_in_order else []
        if not (list(map(KEY, rows)) == keys and self._are_equal(map(TEXT, rows), texts)):
            return self._count_some(keys, texts, stage, rows)
        items = [row[ITEM] for row in rows]
        if self._were_counted(items):
            return None
        self._check_completed(rows)
        self._note(items)
        return Counted({"completed": len(items)}, [])

    def was_counted(self, item_id: Any) -> bool:
        """Whether an item with an id that equals this one was counted."""
        if not self._has_counted:
            return False
        try:
            key = item_key(item_id)
        except JournalKeyError:
            return False
        if key in self._looked_up:
            row = self._looked_up[key]
            return row is not None and self._were_counted([row[ITEM]])
        return self._were_counted([each.row.item for each in self._recall.find([key]).values()])

    def found(self, keys: Sequence[ItemKey]) -> dict[ItemKey, Found]:
        """`Recall.find`, for items that are not counted."""
        if self._next_item == 1:
            return {}
        looked_up, self._looked_up = self._looked_up, {}  # from now on they may change
        rows = [row for key in keys if (row := looked_up.get(key)) is not None]
        found = {each.row.key: each for each in map(self._recall.checked, rows)}
        return found | self._recall.find([key for key in keys if key not in looked_up])

    # Inside

    def _next(self, stage: int, most: int) -> list[Row]:
        """The completed items after the last that were found."""
        first, last = self._stages[stage], self._stages[self._recall.last]
        values = self._last_item, self._next_item, first, last, most
        return self._recall.select(NEXT, values)

    def _are_equal(self, kept: Iterable[Any], texts: Sequence[Any]) -> bool:
        return self._takes_any_input or list(kept) == texts

    def _count_some(
        self, keys: Sequence[ItemKey], texts: Sequence[Any], stage: int, following: Sequence[Row]
    ) -> Counted | None:
        """Count the items that had ended, of which not all follow in the journal's order."""
        completed = dict(zip(map(KEY, following), following, strict=True))
        looked_up = dict.fromkeys([key for key in keys if key not in completed])
        looked_up.update((row[ITS_KEY], row) for row in self._recall.rows_of(list(looked_up)))
        self._looked_up = looked_up
        items: list[int] = []
        counted: list[Row] = []
        others: list[int] = []
        for index, (key, text) in enumerate(zip(keys, texts, strict=True)):
            row = completed.get(key) or looked_up.get(key)
            if row is not None:
                items.append(row[ITEM])
                if self._is_to_be_counted(row, text, stage):
                    counted.append(row)
                    continue
            others.append(index)
        if items:
            self._last_item = items[-1]
            self._is_in_order = 0 <= items[-1] - items[0] <= 2 * len(keys)
        if not counted or max(items) >= self._next_item or self._were_counted(items):
            return None
        whole = [row for row in counted if len(row) == COLUMNS]
        self._check_completed([row for row in counted if len(row) < COLUMNS])
        for row in whole:
            self._recall.checked(row)
        self._note([row[ITEM] for row in counted])
        ended = Counter(row[OUTCOME] for row in whole)
        ended["completed"] += len(counted) - len(whole)
        return Counted(ended, _in_a_row(others))

    def _is_to_be_counted(self, row: Row, text: Any, stage: int) -> bool:
        """Whether a row is of an item that had ended, and of which nothing else matters."""
        if len(row) < COLUMNS:
            return self._takes_any_input or TEXT(row) == text
        if not (self._takes_any_input or (row[INPUT], row[STAGE]) == (text, self._stages[stage])):
            return False
        if row[OUTCOME] == "completed":
            is_last = bool(row[ENDED_IN] == self._stages[self._recall.last])
            return is_last and not is_omitted(row[VALUE])
        is_dropped = row[OUTCOME] == "dropped" and row[ENDED_IN] in self._recall.positions
        return is_dropped and not self._recall.select(MADE_ANY, (row[ITEM],))

    def _check_completed(self, rows: Sequence[Row]) -> None:
        """Check that rows of `NEXT` are what was written."""
        texts = map(self._text_of, map(CHECKED, rows))
        if list(map(crc32, map(str.encode, texts))) != list(map(CHECKSUM, rows)):
            for row in rows:
                for whole in self._recall.select(FIND_NUMBER, (row[ITEM],)):
                    self._recall.checked(whole)  # one of them is damaged

    def _were_counted(self, items: Sequence[int]) -> bool:
        return any(map(self._counted.__getitem__, items))

    def _note(self, items: Sequence[int]) -> None:
        """Note that items were counted."""
        self._has_counted = True
        self._last_item, first, count = items[-1], items[0], len(items)
        if list(range(first, first + count)) == items:
            self._counted[first : first + count] = b"\1" * count
        else:
            for item in items:
                self._counted[item] = 1


def _in_a_row(indexes: Sequence[int]) -> list[tuple[int, int]]:
    """Indexes that follow each other, as ``(first, how many)``."""
    rows: list[tuple[int, int]] = []
    for index in indexes:
        if rows and sum(rows[-1]) == index:
            rows[-1] = rows[-1][0], rows[-1][1] + 1
        else:
            rows.append((index, 1))
    return rows
