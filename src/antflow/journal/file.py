"""Opening the file of a journal safely: it is ours, it is on a local disk, and it has one writer.

A file that is something else is not changed in any way: its header is read through a connection
that is ``immutable``, for which SQLite takes no locks, recovers nothing and makes no files. (To
read it with `open` would not do: closing that file would take away the locks that another
connection of this process may have on it.)

`APPLICATION_ID` and `FORMAT` are set by the first transaction, before the file goes into WAL mode.
A process that is killed before that leaves an empty file, which is a new journal.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from operator import itemgetter
from typing import Any
from urllib.parse import quote
from weakref import WeakSet

from antflow._core.checks import check_choice, refusal
from antflow._core.errors import (
    JournalCorruptError,
    JournalError,
    JournalForkError,
    JournalOpenError,
    JournalVersionError,
)
from antflow.journal import schema
from antflow.journal.connections import Durability, Row, Trouble
from antflow.journal.network_mounts import network_file_system
from antflow.journal.writer_lock import WriterLock

APPLICATION_ID = 0x616E744A
"""``antJ``: tells a journal from other SQLite files."""

EVENT_LOG_ID = 0x616E7466
"""``antf``: an event log, as a sink writes it."""

FORMAT = 1

BUSY_SECONDS = 5.0
"""How long to wait for another program that has locked the database."""

CHECKPOINT_PAGES = 4_000

PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}
"""Errors that may pass."""

FILES = ("", "-wal", "-shm")
"""Suffixes of the files of a journal."""

SYNCHRONOUS: dict[str, str] = {"process": "NORMAL", "power": "FULL"}


class JournalConnection(sqlite3.Connection):
    """A connection to a journal. A forked process cannot use it, and `close` gives back the lock.

    Threads may share it, one at a time. A cursor that was made before a fork is not guarded.

    Attributes:
        path: The journal, as the user calls it.
        lock: That of the writer; ``None`` for a reader.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.path: str = ""
        self.lock: WriterLock | None = None
        self._process = os.getpid()
        self._file: os.stat_result | None = None
        _connections.add(self)

    def is_in_place(self) -> bool:
        """Whether the file is still the one that the path leads to."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return False
        return self._file is None or os.path.samestat(self._file, found)

    def is_new(self) -> bool:
        """Whether it has no tables yet."""
        return bool(self.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,))

    def has_table(self, name: str) -> bool:
        """Whether it has a table of this name."""
        query = "SELECT count(*) FROM sqlite_master WHERE name = ?"
        return bool(self.execute(query, (name,)).fetchone() == (1,))

    def make_table(self, statement: str) -> None:
        """Make a table, if there is none of this name."""
        self.execute(statement)

    def make_tables(self) -> None:
        """Make the tables of a new journal."""
        for statement in schema.SCHEMA:
            self.execute(statement)

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows in one transaction, in their order: all of them, or none."""
        if self.in_transaction:  # the last error was such that it could not be rolled back
            self.execute("ROLLBACK")
        self.execute("BEGIN IMMEDIATE")
        try:
            for statement, some in groupby(rows, itemgetter(0)):
                self.executemany(statement, [schema.ready(row) for row in some])
            self.execute("COMMIT")
        except BaseException:
            if self.in_transaction:  # a full disk has ended it already
                with suppress(sqlite3.Error):
                    self.execute("ROLLBACK")
            raise

    def passes(self, error: Exception) -> bool:
        """Whether an error may pass."""
        return isinstance(error, sqlite3.OperationalError) and _code(error) in PASSING

    def is_damage(self, error: Exception) -> bool:
        """Whether an error says that the file is damaged."""
        damage = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        return isinstance(error, sqlite3.DatabaseError) and _code(error) in damage

    def size(self) -> int:
        """The size of its files, in bytes."""
        return sum(_size(f"{self.path}{suffix}") for suffix in FILES)

    def shrink(self) -> None:
        """Give back the space of what was deleted."""
        # It goes on a page at each step, and `execute` takes one step where no rows come.
        self.executescript("PRAGMA incremental_vacuum")
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def again(self, durability: Durability) -> JournalConnection:
        """Another connection, for the thread that writes: see `connect_again`."""
        return connect_again(self, durability)

    def beside(self, positions: Mapping[int, int], last: int) -> JournalConnection:
        """This one: the thread that writes has another."""
        del positions, last
        return self

    def refuse_untrusted(self) -> None:
        """Do nothing: the file was looked at before it was opened."""

    def interrupt(self) -> None:
        """Do nothing: no server is waited for."""

    def discard(self) -> None:
        """Remove the files of a journal that was just made, and close it."""
        self.close()
        for suffix in (*FILES, ".lock"):
            with suppress(OSError):
                os.remove(f"{self.path}{suffix}")

    def cursor(self, *args: Any, **options: Any) -> Any:
        """Make a cursor."""
        self._refuse_in_child()
        return super().cursor(*args, **options)

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Execute a statement."""
        self._refuse_in_child()
        return super().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        """Execute a statement with many rows."""
        self._refuse_in_child()
        return super().executemany(*args)

    def executescript(self, *args: Any) -> sqlite3.Cursor:
        """Execute several statements."""
        self._refuse_in_child()
        return super().executescript(*args)

    def commit(self) -> None:
        """Commit."""
        self._refuse_in_child()
        super().commit()

    def rollback(self) -> None:
        """Roll back."""
        self._refuse_in_child()
        super().rollback()

    def close(self) -> None:
        """Close it and give back the lock. Does nothing in a forked process."""
        if os.getpid() != self._process:
            return
        _connections.discard(self)
        try:
            super().close()
        finally:
            lock, self.lock = self.lock, None
            if lock is not None:
                lock.release()

    def _refuse_in_child(self) -> None:
        if os.getpid() != self._process:
            raise JournalForkError(
                f"journal {self.path!r} was opened by process {self._process}, and this is "
                f"process {os.getpid()}, forked from it: open it where it is used"
            )


_connections: WeakSet[JournalConnection] = WeakSet()

_abandoned: list[JournalConnection] = []
"""In a forked process, the connections of the parent: closing one could write to its files."""


def open_for_writing(
    path: str | os.PathLike[str], durability: Durability = "process"
) -> JournalConnection:
    """Open a journal to write to it, and make it if needed.

    A new file can be read by its owner alone, and so can a folder that is made for it.

    Args:
        path: The journal.
        durability: Whether a commit survives the end of the process (``"process"``), or also that
            of the machine (``"power"``): then each one waits for the disk.

    Returns:
        A connection in WAL mode that commits by itself unless there is a ``BEGIN``. `close` also
        gives back the lock.

    Raises:
        TypeError: ``path`` is not a path.
        ValueError: There is no such ``durability``.
        JournalInUseError: Another writer has it open, in this process or another.
        JournalOpenError: The file is something else, or it or its folder cannot be written, or
            other machines share the folder.
        JournalVersionError: A newer version of the library has written it.
        JournalCorruptError: SQLite finds it damaged.
    """
    check_choice(ValueError, "durability", durability, tuple(SYNCHRONOUS))
    name, real = _names(path)
    with told_as(name):
        _refuse_if_other(name, real)
        folder = os.path.dirname(real)
        _refuse_shared(name, folder)
        if not os.path.isdir(folder):
            os.makedirs(folder, 0o700)
        _probe(name, folder)
        lock = WriterLock(name, real)
        try:
            _make_private(real)
            connection = _connected(name, real, "rw")
        except BaseException:
            lock.release()
            raise
        connection.lock = lock  # from here on, closing gives it back
        try:
            _set_up(connection)
            _tune(connection, durability)
        except BaseException:
            connection.close()
            raise
    return connection


def connect_again(connection: JournalConnection, durability: Durability) -> JournalConnection:
    """Another connection of the same writer to its journal, for another thread.

    Checks the whole file, which takes some seconds for a million items: a damaged index would hide
    rows, and what they say would be done again.

    Raises:
        JournalCorruptError: It is damaged.
    """
    with told_as(connection.path):
        other = _connected(connection.path, os.path.realpath(connection.path), "rw")
        try:
            _tune(other, durability)
            (found,) = other.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise JournalCorruptError(f"journal {other.path!r}: it is damaged: {found}")
        except BaseException:
            other.close()
            raise
    return other


def open_for_reading(path: str | os.PathLike[str]) -> JournalConnection:
    """Open a journal to read it, even while it is being written. It takes no lock.

    Where there is no writer, SQLite leaves two files beside it, ``-shm`` and an empty ``-wal``; the
    next writer removes them.

    Args:
        path: The journal.

    Raises:
        TypeError: ``path`` is not a path.
        JournalOpenError: There is no such file, it is something else, or it cannot be read.
        JournalVersionError: A newer version of the library has written it.
        JournalCorruptError: SQLite finds it damaged.
    """
    name, real = _names(path)
    with told_as(name):
        os.stat(real)  # says best what is wrong with a path
        _refuse_if_other(name, real)
        _refuse_shared(name, os.path.dirname(real))
        try:
            return _reader(name, real, "ro")
        except sqlite3.OperationalError:
            # Readers and a writer share memory in a file beside it. Here it cannot be made, and
            # there is no writer, which would have a WAL.
            if os.access(os.path.dirname(real), os.W_OK) or os.path.exists(f"{real}-wal"):
                raise
            return _reader(name, real, "ro&immutable=1")


def is_journal(path: str) -> bool:
    """Whether a file is a journal, of whatever version."""
    if not os.path.isfile(path) or not os.path.getsize(path):
        return False
    connection = _connected(path, os.path.realpath(path), "ro&immutable=1")
    try:
        return _header(connection)[0] == APPLICATION_ID
    except sqlite3.DatabaseError:  # something else, or being changed
        return False
    finally:
        connection.close()


def _names(path: str | os.PathLike[str]) -> tuple[str, str]:
    """A path as the user has it, and what it leads to: links to one file share a lock."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise refusal(TypeError, "path", path, "must be the path of a file")
    if not (name := os.fspath(path)) or "\0" in name:
        raise refusal(ValueError, "path", path, "must be the path of a file")
    return name, os.path.realpath(name)


# What it is


def _refuse_if_other(name: str, real: str) -> None:
    """Refuse what is not a journal, before anything is done to it."""
    try:
        status = os.stat(real)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a file"
        raise JournalOpenError(f"journal {name!r}: it is {what}")
    if status.st_nlink > 1:
        told = (
            f"it has {status.st_nlink} names (hard links). SQLite keeps what is new in a file "
            "beside one of them, so another name would show another journal: remove the others"
        )
        raise JournalOpenError(f"journal {name!r}: {told}")
    if status.st_size == 0:
        return
    connection = _connected(name, real, "ro&immutable=1")
    try:
        _check_header(connection, _header(connection))
    except sqlite3.DatabaseError as error:
        if _code(error) == sqlite3.SQLITE_NOTADB:
            raise
        # It is being changed, or a process was killed as it did so. With locks it can be read.
    finally:
        connection.close()


def _header(connection: JournalConnection) -> tuple[int, int]:
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return found, version


def _check_header(connection: JournalConnection, header: tuple[int, int]) -> None:
    found, version = header
    if found != APPLICATION_ID:
        what = "an event log" if found == EVENT_LOG_ID else "an SQLite database of something else"
        raise JournalOpenError(f"journal {connection.path!r}: it is {what}, not a journal")
    if version != FORMAT:
        age = "a newer" if version > FORMAT else "another"
        told = f"its format is {version}, and this version of antflow knows {FORMAT}"
        raise JournalVersionError(f"journal {connection.path!r}: {age} version wrote it: {told}")


def _refuse_shared(name: str, folder: str) -> None:
    if (kind := network_file_system(folder)) is not None:
        raise JournalOpenError(
            f"journal {name!r}: {folder!r} is on a network file system ({kind}). SQLite's WAL "
            "needs memory that its processes share, and locks that hold: use a local disk"
        )


# Opening it


def _probe(name: str, folder: str) -> None:
    """Find out whether files can be made, written and removed: SQLite makes some beside it."""
    try:
        descriptor, probe = tempfile.mkstemp(prefix=".antflow-", dir=folder)
        try:
            os.write(descriptor, b"?")
        finally:
            os.close(descriptor)
            os.remove(probe)
    except OSError as error:
        told = f"its folder {folder!r} cannot be written: {error.strerror}"
        raise JournalOpenError(f"journal {name!r}: {told}") from error


def _make_private(real: str) -> None:
    """Make the file, for its owner alone; one that is there already stays as it is."""
    with suppress(FileExistsError):
        os.close(os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    if _size(real) == 0:
        os.chmod(real, 0o600)


def _connected(name: str, real: str, mode: str) -> JournalConnection:
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(real))}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        factory=JournalConnection,
    )
    connection.path = name
    with suppress(OSError):
        connection._file = os.stat(real)
    return connection


def _set_up(connection: JournalConnection) -> None:
    """Make a new file a journal; check an existing one again, now that it cannot change."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    if pages:
        _check_header(connection, _header(connection))
    connection.execute("BEGIN")
    try:  # also to find out whether it can be written: if not, SQLite opens it to be read
        if not pages:  # this writes the first page, so it belongs to the transaction
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("ROLLBACK" if pages else "COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        told = f"SQLite cannot use its WAL mode here (it answers {mode!r})"
        raise JournalOpenError(f"journal {connection.path!r}: {told}")


def _tune(connection: JournalConnection, durability: Durability) -> None:
    connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")


def _reader(name: str, real: str, mode: str) -> JournalConnection:
    connection = _connected(name, real, mode)
    try:
        header = _header(connection)
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            raise JournalOpenError(f"journal {name!r}: it is empty")
        _check_header(connection, header)
        # No functions with effects, for views in a file from elsewhere.
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


@contextmanager
def told_as(name: str) -> Iterator[None]:
    """Errors of the system and of SQLite, as errors of the journal."""
    try:
        yield
    except JournalError:
        raise
    except Trouble as error:
        kind = JournalCorruptError if error.is_damage else JournalOpenError
        raise kind(f"journal {name!r}: {error}") from error
    except OSError as error:
        where = f": {error.filename!r}" if error.filename else ""
        why = error.strerror or str(error)
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
            why = f"this file system has no locks ({why})"
        raise JournalOpenError(f"journal {name!r}: {why}{where}") from error
    except UNREADABLE as error:
        raise as_journal_error(name, error) from error


UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What is raised where a file cannot be read: where a name in it is damaged, SQLite's own error
cannot be decoded.
"""


def as_journal_error(name: str, error: Exception) -> JournalError:
    """What an error of SQLite says about a journal that is opened or read.

    Args:
        name: The journal, as the user calls it.
        error: One of `UNREADABLE`.
    """
    code = _code(error)
    if code in (sqlite3.SQLITE_OK, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT):
        return JournalCorruptError(f"journal {name!r}: it is damaged: {error}")
    if code == sqlite3.SQLITE_NOTADB:
        return JournalOpenError(f"journal {name!r}: it is not an SQLite database")
    why = "another program has locked it: " if code == sqlite3.SQLITE_BUSY else ""
    return JournalOpenError(f"journal {name!r}: {why}{error}")


def _code(error: Exception) -> int:
    """The kind of an error of SQLite; its higher bits say more."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _abandon_all() -> None:
    _abandoned.extend(_connections)
    _connections.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
