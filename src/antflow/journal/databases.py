"""Where a journal is: in a file, or in a PostgreSQL database."""

from __future__ import annotations

import os

from antflow._core.addresses import SCHEMES, shown_address
from antflow.journal.connections import Connection, Durability


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a journal is in a database that must be waited for."""
    return isinstance(path, str) and path.startswith(SCHEMES)


def journal_name(path: str | os.PathLike[str]) -> str:
    """A journal, as messages call it: without a password."""
    if isinstance(path, str) and path.startswith(SCHEMES):
        return shown_address(path)
    return os.fspath(path)


def open_for_writing(
    path: str | os.PathLike[str], durability: Durability = "process"
) -> Connection:
    """Open a journal to write to it, and make it if needed. It has one writer.

    Raises:
        JournalInUseError: Another writer has it open, in this process or another.
        JournalOpenError: Something else is there, or it cannot be written.
        JournalVersionError: A newer version of the library has written it.
        JournalCorruptError: It is damaged.
        ImportError: It needs a package that is not installed.
    """
    if isinstance(path, str) and path.startswith(SCHEMES):
        from antflow.journal import postgres_journal  # asyncpg only where it is used

        return postgres_journal.open_for_writing(path, durability)
    from antflow.journal import file

    return file.open_for_writing(path, durability)


def open_for_reading(path: str | os.PathLike[str]) -> Connection:
    """Open a journal to read it, even while it is being written. It takes no lock.

    Raises:
        JournalOpenError: There is none, something else is there, or it cannot be read.
        JournalVersionError: A newer version of the library has written it.
        JournalCorruptError: It is damaged.
        ImportError: It needs a package that is not installed.
    """
    if isinstance(path, str) and path.startswith(SCHEMES):
        from antflow.journal import postgres_journal

        return postgres_journal.open_for_reading(path)
    from antflow.journal import file

    return file.open_for_reading(path)


def connect_again(connection: Connection, durability: Durability) -> Connection:
    """The connection with which a writer's thread writes: see `Connection.again`."""
    return connection.again(durability)


def is_journal(path: str) -> bool:
    """Whether a journal is there, of whatever version."""
    if path.startswith(SCHEMES):
        from antflow.journal import postgres_journal

        return postgres_journal.is_journal(path)
    from antflow.journal import file

    return file.is_journal(path)


def is_there(path: str) -> bool:
    """Whether there is anything where a journal is to be; a journal without tables is not.

    Raises:
        JournalOpenError: Something else is in the database, or that cannot be found out.
    """
    if path.startswith(SCHEMES):
        from antflow.journal import postgres_journal

        return postgres_journal.is_there(path)
    return os.path.exists(path) and bool(os.path.getsize(path))
