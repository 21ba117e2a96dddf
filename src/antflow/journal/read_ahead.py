"""Reads what a server knows of many items at once, before it is looked up one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from antflow.journal.connections import Reads
from antflow.journal.item_keys import ItemKey
from antflow.journal.postgres_text import kept_key
from antflow.journal.recall import (
    CHECKPOINTS,
    FIND,
    FIND_ALL,
    FIND_MADE,
    ITEM_COLUMNS,
    RESULTS,
    TO_RETRY,
)

OF_ITEMS = {query: query.replace("item = ?", "item = ANY(?)") for query in (RESULTS, CHECKPOINTS)}
OF_ITEMS[TO_RETRY] = TO_RETRY.replace("item = ?", "item = ANY(?)")
FOUND = f"{FIND_ALL} root IS NULL AND key = ANY(?)"
MADE = f"{FIND_ALL} root = ANY(?) ORDER BY items.item"

Row = tuple[Any, ...]


class Fetched:
    """The rows that were found of some items.

    Attributes:
        keys: Key → the row of the item that was fed with it; ``None``: it is not known.
        parts: Statement → item → the rows that it finds.
    """

    def __init__(self, keys: Iterable[ItemKey]) -> None:
        self.keys: dict[ItemKey, Row | None] = dict.fromkeys(keys)
        self.parts: dict[str, dict[int, list[Row]]] = {}


class Answers(list[Row]):
    """Rows that were read before, as a statement finds them."""

    rowcount: int = -1

    def fetchone(self) -> Row | None:
        """The next row."""
        return self.pop(0) if self else None

    def fetchall(self) -> list[Row]:
        """All that are left."""
        return self


class ReadAhead:
    """Answers the questions of a `Recall` from what was fetched; asks the server if it must.

    Args:
        connection: Asks the server.
        positions: As for `Recall`.
        last: Index of the last stage.

    Attributes:
        path: The journal, as messages call it.
    """

    def __init__(self, connection: Reads, positions: Mapping[int, int], last: int) -> None:
        self.path: str = connection.path
        self._connection = connection
        self._positions = positions
        self._last = last
        self._fetched = Fetched(())

    def fetch(self, keys: Sequence[ItemKey]) -> Fetched:
        """Fetch all that is known of these items, in whatever thread."""
        fetched = Fetched(keys)
        found = self._ask(FOUND, [list(map(kept_key, keys))])
        fetched.keys.update((row[1], row) for row in found)
        asked = [row[0] for row in found if not self._is_done(row)]
        made = fetched.parts[FIND_MADE] = {item: [] for item in asked}
        known = list(asked)
        for row in self._ask(MADE, [asked]) if asked else ():
            made[row[2]].append(row)
            if not self._is_done(row):
                known.append(row[0])
        for statement, query in OF_ITEMS.items():
            parts = fetched.parts[statement] = {item: [] for item in known}
            for row in self._ask(query, [known]) if known else ():
                parts[row[0]].append(row)
        return fetched

    def use(self, fetched: Fetched) -> None:
        """Answer from this."""
        self._fetched = fetched

    def execute(self, statement: str, values: Any = (), /) -> Any:
        """Answer a question."""
        if statement.startswith(FIND):
            if any(key not in self._fetched.keys for key in values):
                self.use(self.fetch(values))
            found = map(self._fetched.keys.get, values)
            return Answers(row for row in found if row is not None)
        part = self._fetched.parts.get(statement, {})
        if values and values[0] in part:
            return Answers(part[values[0]])
        return self._connection.execute(statement, values)

    def _is_done(self, row: Row) -> bool:
        """Whether no more is asked about an item: it has come out of the last stage."""
        outcome, stage = row[ITEM_COLUMNS + 1 : ITEM_COLUMNS + 3]
        return outcome == "completed" and self._positions.get(stage) == self._last

    def _ask(self, query: str, values: Sequence[Any]) -> list[Row]:
        return self._connection.execute(query, values).fetchall()
