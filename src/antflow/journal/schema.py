"""The tables of a journal, and the rows that are written to them.

Each row of data ends with a checksum of its own, see `sealed`: SQLite itself notices few of the
bits that a disk changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final
from zlib import crc32

SCHEMA: Final = tuple(
    """
CREATE TABLE journal (
    id TEXT NOT NULL,                -- of this journal: the scope of its idempotency keys
    codec TEXT NOT NULL,
    created REAL NOT NULL,           -- Unix seconds, like all times here
    crc INTEGER NOT NULL
) STRICT;
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    id TEXT NOT NULL,                -- as in results and events
    pipeline TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    antflow TEXT NOT NULL,           -- its version
    started REAL NOT NULL,
    ended REAL,                      -- NULL: it is under way, or its program was killed
    how TEXT,                        -- finished, stopped, cancelled, failed
    error TEXT
) STRICT;
CREATE TABLE stages (
    stage INTEGER PRIMARY KEY,
    recipe TEXT NOT NULL UNIQUE,     -- of the names and versions up to and with this stage
    position INTEGER NOT NULL,       -- from 0
    name TEXT NOT NULL,
    version TEXT NOT NULL            -- JSON: Stage(version=...)
) STRICT;
CREATE TABLE items (
    item INTEGER PRIMARY KEY,
    key ANY NOT NULL,                -- the item's id
    root INTEGER,                    -- the item that was fed, if this one was made from it
    branch TEXT NOT NULL,            -- '': it was fed; '2/0': the first made from the third of it
    stage INTEGER NOT NULL,          -- where it was made; of one that was fed, the first it entered
    input ANY,                       -- the item as it was fed, or the value it was made with
    input_hash BLOB NOT NULL,
    run INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX items_key ON items (key) WHERE root IS NULL;
CREATE UNIQUE INDEX items_root ON items (root, branch) WHERE root IS NOT NULL;
CREATE TABLE results (               -- what each stage but the last returned
    item INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    value ANY,
    attempts INTEGER NOT NULL,
    seconds REAL NOT NULL,
    run INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (item, stage)
) STRICT, WITHOUT ROWID;
CREATE TABLE outcomes (
    item INTEGER PRIMARY KEY,
    outcome TEXT NOT NULL,           -- completed, failed, dropped, expanded
    stage INTEGER NOT NULL,          -- the one it ended in
    value ANY,                       -- completed: the result; expanded: how many it became
    attempts INTEGER NOT NULL,
    seconds REAL NOT NULL,
    error TEXT,                      -- failed: JSON, see the documentation
    at REAL NOT NULL,
    run INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE TABLE to_retry (              -- failed items that are run again: their run was stopped by
    item INTEGER PRIMARY KEY,        -- stop_on or max_failures, and they are not to blame
    run INTEGER NOT NULL,            -- the one of their outcome
    crc INTEGER NOT NULL
) STRICT;
CREATE TABLE attempts (              -- tries that failed
    item INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    task TEXT NOT NULL,
    seconds REAL NOT NULL,
    error TEXT NOT NULL,             -- JSON
    at REAL NOT NULL,
    run INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE INDEX attempts_item ON attempts (item);
CREATE TABLE checkpoints (           -- the last of each item and stage
    item INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    value ANY,
    run INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (item, stage)
) STRICT, WITHOUT ROWID;
""".strip().split(";\n")
)
"""The statements that make the tables."""

CODE: Final = """
CREATE TABLE IF NOT EXISTS code (    -- which source a stage had
    stage INTEGER NOT NULL,
    hash TEXT NOT NULL,              -- of the text of its tasks
    run INTEGER NOT NULL,            -- the last one that it had this in
    PRIMARY KEY (stage, hash)
) STRICT
""".strip()
"""The statement that makes one more table, which old journals lack."""

NEW_JOURNAL: Final = "INSERT INTO journal VALUES (?,?,?,?)"
STAGE: Final = "INSERT INTO stages VALUES (?,?,?,?,?)"
STAGE_NUMBER: Final = "SELECT stage FROM stages WHERE recipe = ?"
BEGIN_RUN: Final = (
    "INSERT INTO runs (run, id, pipeline, host, pid, antflow, started) VALUES (?,?,?,?,?,?,?)"
)
END_RUN: Final = "UPDATE runs SET ended = ?, how = ?, error = ? WHERE run = ?"
ITEM: Final = "INSERT OR REPLACE INTO items VALUES (?,?,?,?,?,?,?,?,?)"
RESULT: Final = "INSERT OR REPLACE INTO results VALUES (?,?,?,?,?,?,?)"
OUTCOME: Final = "INSERT OR REPLACE INTO outcomes VALUES (?,?,?,?,?,?,?,?,?,?)"
ATTEMPT: Final = "INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?,?)"
TO_RETRY: Final = "INSERT OR REPLACE INTO to_retry VALUES (?,?,?)"
CHECKPOINT: Final = "INSERT OR REPLACE INTO checkpoints VALUES (?,?,?,?,?)"
SEALED: Final = frozenset({ITEM, RESULT, OUTCOME, TO_RETRY, ATTEMPT, CHECKPOINT})
"""Statements whose rows are sealed as they are written."""

FORGET: Final = (
    "DELETE FROM results WHERE item IN (SELECT item FROM items WHERE item = :item OR root = :item)",
    "DELETE FROM outcomes WHERE item IN "
    "(SELECT item FROM items WHERE item = :item OR root = :item)",
    "DELETE FROM checkpoints WHERE item IN "
    "(SELECT item FROM items WHERE item = :item OR root = :item)",
    "DELETE FROM items WHERE root = :item",
)
"""Delete what is known of an item, given as ``item``, and all that was made from it."""

FORGET_OUTCOME: Final = "DELETE FROM outcomes WHERE item = :item"
"""An item goes on: it has no outcome any more."""

FORGET_MADE: Final = (
    "DELETE FROM results WHERE item = :item",
    FORGET_OUTCOME,
    "DELETE FROM checkpoints WHERE item = :item",
    "DELETE FROM items WHERE item = :item",
)
"""Delete an item that was made from another, and is made again."""

TOLD: Final = {
    ITEM: "item",
    RESULT: "result",
    OUTCOME: "outcome",
    ATTEMPT: "failed attempt",
    CHECKPOINT: "checkpoint",
}
"""Statement → what it writes, for messages."""


def recipes_of(stages: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """The recipe of each of a pipeline's stages, its name, and its version as JSON.

    Args:
        stages: Their names and versions, in order.
    """
    line: list[tuple[str, str]] = []
    for name, version in stages:
        line.append((name, json.dumps(version, sort_keys=True)))
        yield recipe(line), *line[-1]


def recipe(line: Sequence[tuple[str, str]]) -> str:
    """The recipe of the last of these stages, given by their names and versions (JSON)."""
    return blake2b(json.dumps(line).encode(), digest_size=16).hexdigest()


def checksum(row: Sequence[Any]) -> int:
    """The checksum of a row without its last column."""
    return crc32(repr(row).encode("utf-8", "backslashreplace"))


def sealed(row: Any) -> tuple[Any, ...]:
    """A row with its checksum as the last column."""
    return (*row, checksum(row))


def ready(row: tuple[str, Any]) -> Any:
    """The values of a row that is written, sealed if its statement wants that."""
    statement, values = row
    return sealed(values) if statement in SEALED else values


def is_sound(row: tuple[Any, ...]) -> bool:
    """Whether a row that was read is the one that was written."""
    return bool(row[-1] == checksum(row[:-1]))
