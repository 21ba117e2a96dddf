"""The columns of a log's tables, with the types they have in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Database = Literal["sqlite", "postgres"]


class Type(NamedTuple):
    """The type of a column.

    Attributes:
        sqlite: How SQLite calls it.
        postgres: How PostgreSQL does.
        unit: Its unit where it is a mere number.
    """

    sqlite: str
    postgres: str
    unit: str = ""


TEXT = Type("TEXT", "text")
JSON = Type("TEXT", "jsonb")
COUNT = Type("INTEGER", "bigint")
SMALL = Type("INTEGER", "integer")
SECONDS = Type("REAL", "double precision", "seconds")
TIME = Type("REAL", "timestamptz", "Unix seconds")

NUMBERS = ("REAL", "double precision")


class Column(NamedTuple):
    """A column.

    Attributes:
        name: Its name.
        type: Its type.
        is_optional: Whether it may be NULL.
        note: What a reader of the schema should know.
    """

    name: str
    type: Type
    is_optional: bool = False
    note: str = ""


RUNS = (
    Column("run", TEXT),
    Column("pipeline", TEXT),
    Column("stages", JSON, note="an array of names"),
    Column("per_task_stages", JSON, note="those in which only the failed task is tried again"),
    Column("started", TIME),
    Column("ended", TIME, True, "NULL: it is under way, or its program was killed"),
    Column("how", TEXT, True, "finished, stopped, cancelled, failed"),
    Column("accepted", COUNT, True, "items; accepted + children = the sum of the next five"),
    Column("children", COUNT, True),
    Column("completed", COUNT, True),
    Column("failed", COUNT, True),
    Column("dropped", COUNT, True),
    Column("expanded", COUNT, True),
    Column("cancelled", COUNT, True),
    Column("dropped_events", COUNT, True, "events that the sink lost"),
    Column("error_type", TEXT, True),
    Column("error", TEXT, True),
)
"""The columns of ``runs``; ``run`` is its key."""

EVENTS = (
    Column("run", TEXT),
    Column("seq", COUNT),
    Column("timestamp", TIME),
    Column("kind", TEXT),
    Column("stage", TEXT),
    Column("item", TEXT),
    Column("sequence_id", COUNT),
    Column("branch", TEXT),
    Column("worker", TEXT, True),
    Column("attempt", SMALL),
    Column("duration", SECONDS),
    Column("waited", SECONDS, note="of the duration"),
    Column("error_type", TEXT, True),
    Column("error", TEXT, True),
    Column("place", TEXT, True),
    Column("value", JSON, True),
)
"""The columns of ``events``: the fields of `EventRecord`. Its key is ``run`` and ``seq``."""


def names(columns: Sequence[Column]) -> str:
    """The names of columns, for a query."""
    return ", ".join(column.name for column in columns)


def definitions(columns: Sequence[Column], database: Database, key: str = "") -> str:
    """Columns, and the primary key if there is one, as they stand in ``CREATE TABLE``."""
    lines = [_definition(column, database) for column in columns]
    if key:
        lines.append((f"PRIMARY KEY ({key})", ""))
    last = len(lines) - 1
    return "\n".join(
        f"    {text}{',' if number < last else ''}{f'  -- {note}' if note else ''}"
        for number, (text, note) in enumerate(lines)
    )


def _definition(column: Column, database: Database) -> tuple[str, str]:
    """A column, and the note on it."""
    kind = getattr(column.type, database)
    unit = column.type.unit if kind in NUMBERS else ""
    return (
        f"{column.name} {kind}{'' if column.is_optional else ' NOT NULL'}",
        "; ".join(filter(None, (unit, column.note))),
    )
