"""The statements of a journal, and its values, as PostgreSQL has them.

Statements are written as SQLite has them. What differs is here: placeholders, the names of types,
and that a row that is there is replaced.

A column of PostgreSQL has one type, and that of keys and values is ``text``:

- a key is JSON: ``5``, ``"5"``; bytes are ``{"$bytes":"…"}`` (base64), which no other key is;
- a value that is bytes, a pickle, is ``base64:…``;
- a text that PostgreSQL cannot keep, because of NUL or half of a surrogate pair, or that begins
  like one of these two, is ``escaped:`` and the text with escapes of Python.

The checksum of a row is that of the values that are read back. So a row is the same as in SQLite.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, Final

from antflow._core.text import is_encodable
from antflow.journal import schema

KEYS: Final = {
    "journal": "id",
    "runs": "run",
    "stages": "stage",
    "items": "item",
    "results": "item, stage",
    "outcomes": "item",
    "to_retry": "item",
    "attempts": "item, stage, run, attempt, task, at",
    "checkpoints": "item, stage",
    "code": "stage, hash",
}
"""Table → what makes a row of it one of a kind."""

TYPES: Final = {
    " STRICT, WITHOUT ROWID": "",
    " STRICT": "",
    "INTEGER": "bigint",
    "BLOB": "bytea",
    "REAL": "double precision",
    "ANY": "text",
    "TEXT": "text",
}


def made_of(statement: str) -> str:
    """The statement that makes a table, with the types that it has here."""
    return re.sub("|".join(TYPES), lambda found: TYPES[found[0]], statement)


TABLES: Final = (
    *map(made_of, schema.SCHEMA),
    made_of(schema.CODE).replace("IF NOT EXISTS ", ""),
    # A row is written again if it is not known whether it was. That makes no second one.
    f"CREATE UNIQUE INDEX attempts_once ON attempts ({KEYS['attempts']})",
    "CREATE UNIQUE INDEX journal_once ON journal (id)",
)
"""The statements that make the tables."""

IN_POSTGRES: Final = {"BEGIN IMMEDIATE": "BEGIN"}

INSERT: Final = re.compile(r"INSERT (?:OR REPLACE )?INTO (\w+) VALUES")
BYTES, ESCAPED = "base64:", "escaped:"
BYTES_KEY = "$bytes"

Convert = Callable[[Any], Any]


@lru_cache
def translated(statement: str) -> tuple[str, tuple[Convert, ...] | None]:
    """A statement with ``?``, and for each of its values, how it is kept.

    ``None``: its values need not be converted.
    """
    found = INSERT.match(statement)
    if found is not None and found[1] in COLUMNS:
        columns = COLUMNS[found[1]]
        key = KEYS[found[1]].split(", ")
        marks = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        rest = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
        what = f"DO UPDATE SET {rest}"
        if found[1] == "attempts":
            what = "DO NOTHING"
        return (
            f"INSERT INTO {found[1]} VALUES ({marks}) ON CONFLICT ({', '.join(key)}) {what}",  # noqa: S608
            tuple(columns.values()),
        )
    numbers = iter(range(1, statement.count("?") + 1))
    query = re.sub(r"\?", lambda _: f"${next(numbers)}", statement)
    return IN_POSTGRES.get(query, query), None


def numbered(statement: str, values: Sequence[Any] | Mapping[str, Any]) -> tuple[str, list[Any]]:
    """A statement and its values, as asyncpg takes them."""
    if isinstance(values, Mapping):
        names: dict[str, int] = {}
        query = re.sub(
            r":(\w+)", lambda found: f"${names.setdefault(found[1], len(names) + 1)}", statement
        )
        return query, [kept_text(values[name]) for name in names]
    query, converts = translated(statement)
    if converts is None:
        return query, list(map(kept_text, values))
    return query, [convert(value) for convert, value in zip(converts, values, strict=True)]


def batches(rows: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """The rows of a transaction, by statement: each is a question to the server.

    Rows of different tables may change places, but not with statements that delete or update.
    """
    for _, some in groupby(rows, lambda row: row[0] in schema.SEALED):
        parts: dict[str, list[Any]] = {}
        for row in some:
            query, values = numbered(row[0], schema.ready(row))
            parts.setdefault(query, []).append(values)
        yield from parts.items()


# Values


def kept_key(key: Any) -> str:
    """A key as it is kept."""
    if isinstance(key, bytes):
        return f'{{"{BYTES_KEY}":"{b64encode(key).decode()}"}}'
    return json.dumps(key, ensure_ascii=False)


def key_of(text: str) -> Any:
    """The key that is kept so."""
    key = json.loads(text)
    return b64decode(key[BYTES_KEY]) if isinstance(key, dict) else key


def kept_text(value: Any) -> Any:
    """A text as it is kept; other values as they are."""
    if not isinstance(value, str):
        return value
    if "\0" in value or value.startswith((BYTES, ESCAPED)) or not is_encodable(value):
        return ESCAPED + value.encode("unicode_escape").decode("ascii")
    return value


def kept_value(value: Any) -> Any:
    """A value of a task as it is kept: text or bytes."""
    return BYTES + b64encode(value).decode() if isinstance(value, bytes) else kept_text(value)


def value_of(value: Any) -> Any:
    """The value that is kept so; other values as they are."""
    if isinstance(value, str):
        if value.startswith(ESCAPED):
            return value.removeprefix(ESCAPED).encode("ascii").decode("unicode_escape")
        if value.startswith(BYTES):
            return b64decode(value.removeprefix(BYTES))
    return value


def read_rows(records: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Rows as they were written."""
    if not records:
        return []
    keys = {index for index, name in enumerate(records[0].keys()) if name == "key"}
    return [
        tuple(
            key_of(value) if index in keys and value is not None else value_of(value)
            for index, value in enumerate(record)
        )
        for record in records
    ]


def _as_it_is(value: Any) -> Any:
    return value


def _columns() -> Iterator[tuple[str, dict[str, Convert]]]:
    for statement in (*schema.SCHEMA, schema.CODE):
        if (found := re.match(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", statement)) is not None:
            converts: dict[str, Convert] = {}
            for name, kind in re.findall(r"^    (\w+) (\w+)", statement, re.MULTILINE):
                if name == "key":
                    converts[name] = kept_key
                elif kind == "ANY":
                    converts[name] = kept_value
                elif kind == "TEXT":
                    converts[name] = kept_text
                elif kind in ("INTEGER", "REAL", "BLOB"):
                    converts[name] = _as_it_is
            yield found[1], converts


COLUMNS: Final = dict(_columns())
"""Table → column → how a value of it is kept."""
