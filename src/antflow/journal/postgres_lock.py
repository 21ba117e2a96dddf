"""Who uses the tables of a journal in PostgreSQL: one writer, which has a lock, and readers.

The lock is an advisory lock. It belongs to a connection of the server, and ends with it. So that
what is written is always written by the one that has the lock, it is taken with the connection that
writes, and with each that takes the place of one that was lost.

A connection may have been lost for a long time. The table ``writer`` says who took the lock last:
if that is another writer by now, items and runs have changed, and the run must end.
"""

from __future__ import annotations

import os
import secrets
import socket
from datetime import datetime
from typing import Any

from antflow._core.errors import JournalInUseError, JournalOpenError, JournalVersionError
from antflow._core.text import clean
from antflow.journal.connections import Durability, Trouble
from antflow.journal.postgres_text import TABLES

FORMAT = 1

MARK = f"antflow journal, format {FORMAT}"
"""The comment on the table ``writer``: it tells a journal's tables from others."""

LOCK = 0x616E744A
"""``antJ``: the upper half of the key of the lock; the lower one is the schema."""

MOST_TRIES = 5

LONGEST_NAME = 63
"""Bytes of a connection's name."""

WRITER = """
CREATE TABLE writer (                -- of one row: who wrote last, or is writing
    id text NOT NULL,
    host text NOT NULL,
    pid bigint NOT NULL,
    since double precision NOT NULL  -- Unix seconds
)"""

SYNCHRONOUS = {
    # What the server was told, but not less than its own disk.
    "process": ("off", "local"),
    "power": ("off|local", "on"),
}
"""Durability → settings that are not enough for it, and the one that is used in their place."""

HERE = "relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())"

FOUND = f"""
SELECT relname, obj_description(oid, 'pg_class') AS mark FROM pg_class
WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND {HERE} AND relname = ANY($1::text[])
"""  # noqa: S608
"""The tables that have the names of a journal's."""

NAMES = ("writer", *(table.split()[2] for table in TABLES if table.startswith("CREATE TABLE")))

HOLDER = """
SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1
AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND classid::bigint = $1 AND pg_locks.objid::bigint = $2
"""
"""Who holds the lock."""


class Lost(Trouble):
    """The connection was lost, so the request may or may not have been executed."""

    def __init__(self, text: str) -> None:
        super().__init__(text, passes=True)


class Tenancy:
    """How a connection uses the tables.

    Args:
        path: The journal, as messages call it.
        durability: What a commit of the writer survives; ``None``: it only reads.

    Attributes:
        name: The name of its connections: it tells other writers who has the lock.
    """

    def __init__(self, path: str, durability: Durability | None) -> None:
        self._path = path
        self._id = secrets.token_hex(4)
        self._durability = durability
        self._schema = 0
        self._is_used = False
        since, host = int(datetime.now().timestamp()), socket.gethostname()
        name = f"antflow journal {os.getpid()} {since} {self._id} {host}"
        self.name: str = name.encode("ascii", "replace")[:LONGEST_NAME].decode()

    async def begin(self, connection: Any) -> None:
        """Begin with a new connection.

        Raises:
            JournalError: It cannot be used.
            Lost: The server has not noticed yet that the last connection was lost.
        """
        await self._find_schema(connection)
        if self._durability is None:
            await self._check_tables(connection)
            return
        too_little, enough = SYNCHRONOUS[self._durability]
        await connection.execute(
            f"SELECT set_config('synchronous_commit', '{enough}', false) WHERE "
            f"current_setting('synchronous_commit') ~ '^({too_little})$'"
        )
        await self._take_lock(connection)
        if self._is_used:
            await self._check_is_ours(connection)
        else:
            async with connection.transaction():
                if not await self._check_tables(connection):
                    await connection.execute(WRITER)
                    await connection.execute(f"COMMENT ON TABLE writer IS '{MARK}'")
                await connection.execute("DELETE FROM writer")
                who = (self._id, socket.gethostname(), os.getpid(), datetime.now().timestamp())
                await connection.execute("INSERT INTO writer VALUES ($1, $2, $3, $4)", *who)
            self._is_used = True

    async def _find_schema(self, connection: Any) -> None:
        found = await connection.fetchval(
            "SELECT oid::bigint FROM pg_namespace WHERE nspname = current_schema()"
        )
        if found is None:
            (path,) = await connection.fetchrow("SHOW search_path")
            raise JournalOpenError(
                f"journal {self._path!r}: no schema of its search path ({path}) exists"
            )
        self._schema = found

    async def _check_tables(self, connection: Any) -> bool:
        """Find out whether there is a journal; refuse what is something else."""
        marks = dict(await connection.fetch(FOUND, list(NAMES)))
        mark = marks.get("writer") or ""
        if not marks:
            return False
        if not mark.startswith("antflow journal, format "):
            table = min(marks)
            told = f"its table {table!r} belongs to something else"
            if (marks.get("runs") or "").startswith("antflow runs,"):
                told = "the tables are those of an event log"
            raise JournalOpenError(
                f"journal {self._path!r}: {told}; use another schema, with ?search_path=…"
            )
        if mark != MARK:
            version = mark.rpartition(" ")[2]
            told = f"its format is {version}, and this version of antflow knows {FORMAT}"
            age = "a newer" if version.isdecimal() and int(version) > FORMAT else "another"
            raise JournalVersionError(f"journal {self._path!r}: {age} version wrote it: {told}")
        return True

    async def _take_lock(self, connection: Any) -> None:
        key = LOCK << 32 | self._schema
        holder = None
        for _ in range(MOST_TRIES):
            if await connection.fetchval("SELECT pg_try_advisory_lock($1)", key):
                return
            if (holder := await connection.fetchrow(HOLDER, LOCK, self._schema)) is not None:
                break  # else it has just been given back
        if holder is not None and holder["application_name"] == self.name:
            # The connection that we have lost, and the server has not noticed.
            await connection.execute("SELECT pg_terminate_backend($1)", holder["pid"])
            raise Lost("the server still has the lost connection")
        told = _told("" if holder is None else holder["application_name"])
        raise JournalInUseError(f"journal {self._path!r} {told}")

    async def _check_is_ours(self, connection: Any) -> None:
        """Refuse a journal that another has written while the connection was lost."""
        found = await connection.fetchrow("SELECT id, host, pid FROM writer")
        if found is None or found["id"] != self._id:
            who = "another process"
            if found is not None:
                who = f"process {found['pid']} on host {clean(found['host'])}"
            raise JournalInUseError(
                f"journal {self._path!r} was taken over by {who} while the connection to the "
                "server was lost"
            )


def _told(name: str) -> str:
    """Who has the lock, by the name of its connection, for a message."""
    advice = "wait for it, or use another schema"
    try:
        _, _, pid, since, _, host = name.split(" ", 5)
        at = datetime.fromtimestamp(int(since)).astimezone()
        is_own = (int(pid), host) == (os.getpid(), socket.gethostname()[: len(host)])
    except ValueError:
        return f"is open in another process; {advice}"
    process = f"this process ({pid})" if is_own else f"process {pid}"
    return f"is open in {process} on host {clean(host)} since {at:%Y-%m-%d %H:%M:%S}; {advice}"
