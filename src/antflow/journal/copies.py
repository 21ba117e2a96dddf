"""Copies a journal row by row, as far as it is sound.

Rows are copied as they are, with their checksums. A row is left out together with all that would be
wrong without it: outcomes and results of an item that is missing, and a whole family of items if
one that was made from another is missing. So a run with the copy runs again what the copy does not
know, and loses nothing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from antflow._core.errors import JournalCorruptError, JournalOpenError
from antflow.journal import schema
from antflow.journal.connections import Connection
from antflow.journal.databases import (
    is_remote,
    is_there,
    journal_name,
    open_for_reading,
    open_for_writing,
)
from antflow.journal.file import told_as
from antflow.journal.schema import is_sound

UNSEALED = ("journal", "runs", "stages")
SEALED = ("items", "results", "outcomes", "attempts", "checkpoints")
"""Tables whose rows have a checksum, items first."""

LARGEST_ITEM = 2**62

CLOSELY = 10_000
"""How many items are tried one by one behind a damaged page, before some are passed over."""


@dataclass(slots=True)
class Copied:
    """The rows that were copied, and those that are missing.

    Attributes:
        rows: Table → how many rows were copied.
        damaged: Table → the items of rows that are damaged or cannot be read; ``-1``: which ones is
            not known.
        forgotten: How many items that were fed are run again, with all that was made from them,
            because an item of theirs is missing.
    """

    rows: dict[str, int] = field(default_factory=dict[str, int])
    damaged: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    forgotten: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return not self.damaged


def copy_journal(source: str, target: str, *, repairs: bool = False) -> Copied:
    """Copy a journal to a file that does not exist yet. The source is only read.

    Args:
        source: The journal. It may be in use: it is copied as it is now.
        target: The new one.
        repairs: Whether damaged rows are left out.

    Raises:
        JournalOpenError: The source is not a journal, or there is something at the target.
        JournalCorruptError: A row is damaged, and that is not to be repaired.
    """
    if is_there(target) or os.path.exists(target):
        what = "a journal there" if is_remote(target) else "a file of this name"
        raise JournalOpenError(f"journal {journal_name(target)!r}: there is {what} already")
    with closing(open_for_reading(source)) as old, closing(open_for_writing(target)) as new:
        try:
            with told_as(old.path):
                old.execute("BEGIN")  # all tables as they are at one moment
                return _copied(old, new, repairs)
        except BaseException:
            new.discard()
            raise


def _copied(old: Connection, new: Connection, repairs: bool) -> Copied:
    copied = Copied()
    new.execute("BEGIN IMMEDIATE")
    new.make_tables()
    for table in UNSEALED:
        rows = old.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - a name of ours
        _put(new, table, rows)
        copied.rows[table] = len(rows)
    with suppress(sqlite3.DatabaseError):  # it is damaged: nothing depends on it
        if old.has_table("code"):
            new.make_table(schema.CODE)
            _put(new, "code", old.execute("SELECT * FROM code").fetchall())
    known: set[int] = set()
    for table in SEALED:
        damaged: list[int] = []
        count = 0
        for row in _rows(old, table, damaged):
            if not is_sound(row):
                damaged.append(row[0])
            elif table == "items" or row[0] in known:
                if table == "items":
                    known.add(row[0])
                _put(new, table, [row])
                count += 1
        copied.rows[table] = count
        if damaged and not repairs:
            told = f"a row of the table {table} is damaged (item {damaged[0]})"
            raise JournalCorruptError(f"journal {old.path!r}: {told}")
        if damaged:
            copied.damaged[table] = damaged
    if "items" in copied.damaged:
        copied.forgotten = _forget_families(new)
    new.execute("COMMIT")
    return copied


def _put(new: Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        marks = ",".join("?" * len(rows[0]))
        new.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608 - as above


def _rows(old: Connection, table: str, unreadable: list[int]) -> Iterator[tuple[Any, ...]]:
    """The rows of a table; where a page of it is damaged, those behind it."""
    start = failures = 0
    query = f"SELECT * FROM {table} WHERE item >= ? ORDER BY item"  # noqa: S608 - as above
    seen: set[tuple[Any, ...]] = set()
    while start < LARGEST_ITEM:
        try:
            for row in old.execute(query, (start,)):
                if row[0] != start:
                    seen.clear()
                start, failures = row[0], 0
                if row not in seen:  # an item has several rows in most tables
                    seen.add(row)
                    yield row
            return
        except sqlite3.DatabaseError:
            if not failures:
                unreadable.append(-1)
            failures += 1
            start += 2 ** max(0, failures - CLOSELY)


def _forget_families(new: Connection) -> int:
    """Forget what was made from items of which a part is missing, and how they ended."""
    families: dict[int, dict[tuple[int, ...], int]] = {}
    roots = {item for (item,) in new.execute("SELECT item FROM items WHERE root IS NULL")}
    broken: set[int] = set()
    for item, root, branch in new.execute("SELECT item, root, branch FROM items WHERE root > 0"):
        families.setdefault(root, {})[tuple(map(int, branch.split("/")))] = item
    query = "SELECT items.item, root, branch, value FROM outcomes JOIN items USING (item) "
    for item, root, branch, value in new.execute(f"{query} WHERE outcome = 'expanded'").fetchall():
        place = tuple(map(int, branch.split("/"))) if branch else ()
        family = families.get(item if root is None else root, {})
        if not all((*place, number) in family for number in range(int(value))):
            broken.add(item if root is None else root)
    for root, family in families.items():
        for place in family:
            before = [(*place[:-1], number) for number in range(place[-1])]
            if root not in roots or not all(each in family for each in before):
                broken.add(root)
            if len(place) > 1 and place[:-1] not in family:
                broken.add(root)
    for root in broken:
        for statement in schema.FORGET:
            new.execute(statement, {"item": root})
    return len(broken & roots)
