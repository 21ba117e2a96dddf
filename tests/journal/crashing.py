"""Journals as a crash leaves them: the state of the file after each of its commits."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from antflow.journal import store, writer
from antflow.journal.connections import Row


@dataclass
class Crashes:
    """A run that might have crashed after any of its commits.

    In virtual time rows are written in the event loop, so the files after a commit are those that
    a kill at that moment would leave, and what the tasks had done by the next commit is all that
    could have been done by then. The WAL only grows: each state of it begins the last one.

    Attributes:
        path: The journal.
        database: The file of the journal itself, which is written only at the end.
        wal: The longest WAL.
        ends: How long the WAL was after each commit.
        effects: What ``effect`` said when the commit after that one began.
        effect: Says what the tasks have done so far.
    """

    path: Path
    effect: Callable[[], Any] = lambda: None
    database: bytes = b""
    wal: bytes = b""
    ends: list[int] = field(default_factory=list[int])
    effects: list[Any] = field(default_factory=list[Any])

    def before_commit(self) -> None:
        """Note what has been done since the last commit."""
        if not self.ends:
            self.after_commit()  # of the transaction that began the run
        self.effects.append(self.effect())

    def after_commit(self) -> None:
        """Note the state of the files."""
        self.database = self.path.read_bytes()
        self.wal = Path(f"{self.path}-wal").read_bytes()
        self.ends.append(len(self.wal))

    def over(self) -> None:
        """The run is over."""
        if self.ends:
            self.effects.append(self.effect())

    def restore(self, number: int, path: Path) -> None:
        """Make the journal at ``path`` what it was after a commit."""
        self.restore_wal(self.wal[: self.ends[number]], path)

    def restore_wal(self, wal: bytes, path: Path) -> None:
        """Make a journal at ``path`` with this WAL."""
        remove(path)
        path.write_bytes(self.database)
        Path(f"{path}-wal").write_bytes(wal)


def remove(path: Path) -> None:
    """Remove a journal, and the files beside it."""
    for end in ("", "-wal", "-shm", ".lock"):
        Path(f"{path}{end}").unlink(missing_ok=True)


@contextmanager
def watched(crashes: Crashes) -> Iterator[Crashes]:
    """Note the state after each commit of the runs in this block, which are in virtual time."""

    class Watched(writer.Writer):
        def _write(self, connection: Any, rows: Sequence[Row]) -> None:
            crashes.before_commit()
            super()._write(connection, rows)
            crashes.after_commit()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "Writer", Watched)
        yield crashes
    crashes.over()


def write_to(path: Path, statement: str) -> None:
    """Change a journal that no run has open."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def rows_of(journal: Any, query: str) -> list[tuple[Any, ...]]:
    """What a query finds in a journal that no run has open."""
    if isinstance(journal, str):
        from tests import postgres_server  # few journals are in a database

        return postgres_server.rows_of(journal, query)
    connection = sqlite3.connect(f"file:{os.fspath(journal)}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def change(journal: Any, statement: str) -> None:
    """Change the rows of a journal that no run has open."""
    if isinstance(journal, str):
        rows_of(journal, f"{statement};")
    else:
        with closing(sqlite3.connect(journal)) as connection, connection:
            connection.execute(statement)
