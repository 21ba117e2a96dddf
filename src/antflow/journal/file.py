"""Opens the file of a journal."""

from __future__ import annotations

import os
import sqlite3

from antflow.journal.schema import SCHEMA


def connect(path: str, durability: str) -> sqlite3.Connection:
    """A connection that writes."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
    return connection


def open_for_writing(path: str, durability: str) -> sqlite3.Connection:
    """Open the file for a run, and make its tables if it is new."""
    connection = connect(path, durability)
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        connection.executescript("BEGIN;" + SCHEMA + "COMMIT;")
        connection.execute(
            "INSERT INTO journal VALUES (?,?,unixepoch())", (os.urandom(8).hex(), "json")
        )
    return connection
