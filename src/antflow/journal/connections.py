"""Connections to a journal: to a file of SQLite, or to a PostgreSQL database.

What is particular to one of the two is behind these methods: `file.py` has SQLite,
`postgres_journal.py` PostgreSQL. Statements are written as SQLite has them; where PostgreSQL
differs, its connections translate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

Durability = Literal["process", "power"]
"""Whether a commit survives only the end of the process, or a power failure too."""

Values = Sequence[Any] | dict[str, Any]
Row = tuple[str, Any]
"""A statement, and the values for it."""


class Trouble(ConnectionError):
    """A server could not do what it was asked to do, or could not be asked.

    Attributes:
        passes: Whether that may pass.
        is_damage: Whether data is damaged.
    """

    def __init__(self, text: str, *, passes: bool = False, is_damage: bool = False) -> None:
        super().__init__(text)
        self.passes: bool = passes
        self.is_damage: bool = is_damage


class Found(Protocol):
    """The rows that a statement has found."""

    @property
    def rowcount(self) -> int:
        """How many rows a statement has changed."""
        ...

    def fetchone(self) -> Any:
        """The next row; ``None``: there are no more."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Reads(Protocol):
    """A way to read a journal.

    Attributes:
        path: The journal, as messages call it.
    """

    path: str

    def execute(self, statement: str, values: Any = ..., /) -> Found:
        """Execute a statement, with values for its ``?``, or for its ``:name``."""
        ...


class Connection(Reads, Protocol):
    """A connection to a journal.

    Threads may share it, one at a time; one that was made before a fork refuses to be used after
    it. Errors that are not a `JournalError` are told as one by `antflow.journal.file.told_as`.
    """

    def executemany(self, statement: str, rows: Any, /) -> Any:
        """Execute a statement with many rows."""
        ...

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows in one transaction, in their order: all of them, or none."""
        ...

    def passes(self, error: Exception) -> bool:
        """Whether an error that `write` has raised may pass."""
        ...

    def is_damage(self, error: Exception) -> bool:
        """Whether an error says that the journal is damaged."""
        ...

    def is_in_place(self) -> bool:
        """Whether it is still where it was opened."""
        ...

    def is_new(self) -> bool:
        """Whether it has no tables yet."""
        ...

    def has_table(self, name: str) -> bool:
        """Whether it has a table of this name."""
        ...

    def make_table(self, statement: str) -> None:
        """Make a table unless it exists."""
        ...

    def make_tables(self) -> None:
        """Make the tables of a new journal."""
        ...

    def size(self) -> int:
        """How much it takes, in bytes."""
        ...

    def shrink(self) -> None:
        """Give back the space of what was deleted."""
        ...

    def again(self, durability: Durability) -> Connection:
        """The connection with which rows are written, for the thread that does."""
        ...

    def beside(self, positions: Mapping[int, int], last: int) -> Reads:
        """A connection to read what earlier runs have kept, beside the thread that writes.

        Args:
            positions: Number of a stage in the journal → its index, as for a `Recall`.
            last: Index of the last stage.
        """
        ...

    def refuse_untrusted(self) -> None:
        """Refuse a database to which others can write.

        Raises:
            JournalOpenError: It is one.
        """
        ...

    def interrupt(self) -> None:
        """Make what is waited for in another thread fail, if a server is."""
        ...

    def discard(self) -> None:
        """Remove a journal that was just made, and close the connection."""
        ...

    def close(self) -> None:
        """Close it, and give back the lock."""
        ...
