"""A journal as a run uses it: which file or database, and how."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, get_args

from antflow._core.addresses import check_address
from antflow._core.checks import check_choice, check_count, check_flag, examine, refusal
from antflow._core.error_kinds import NAME
from antflow._core.foreign import is_a
from antflow._core.text import safe_repr
from antflow.journal.connections import Durability
from antflow.journal.databases import is_remote, journal_name
from antflow.journal.kept_errors import Retried

if TYPE_CHECKING:
    from antflow.journal.reader import JournalReader

OnInputChange = Literal["redo", "error", "reuse"]
"""What happens to an item that comes with a known key and another input."""

OnJournalError = Literal["pause", "fail"]
"""What a run does when its journal cannot be written."""

ErrorKind = type[BaseException] | str
"""A class of exceptions, or its name, alone or with its module."""

RetryFailed = bool | ErrorKind | tuple[ErrorKind, ...]
"""Which failed items are run again: none, all, or those of these errors."""


class Journal:
    """A journal for the runs of a pipeline: ``pipeline.run(items, journal=Journal("run.db"))``.

    A path alone means ``Journal(path)``.

    Args:
        path: The file; it is made if there is none. Its folder must exist. Or the address of a
            PostgreSQL database, ``"postgresql://user@host/name"``; its tables are made in the first
            schema of its search path (``?search_path=…``). That needs the extra
            ``antflow[postgres]``. A password that is not in it is read from the variable
            ``PGPASSWORD``, or from ``~/.pgpass``; it is in no message.
        codec: How values are kept: "json" (see `antflow.journal.JsonCodec`), "msgspec" (the same
            text, faster), "pickle" (anything, but only if it is ``trusted``), or a codec of your
            own.
        trusted: Whether a pickle in the file may be read: that runs whatever its bytes say.
        retry_failed: Run items again that failed in an earlier run, from the stage in which they
            failed: all (``True``), or those whose error is of one of these classes, which may be
            given by name: ``"TimeoutError"``, ``"shop.errors.AuthError"``. The others stay failed.
            Items that failed because a run was stopped by ``stop_on`` or ``max_failures`` are run
            again by themselves.
        durability: "process": what was committed outlives the process, however it ends. "power": it
            outlives a power failure too; each commit then waits for the disk. In PostgreSQL, each
            always waits for the server's disk, and with "power" for its synchronous standbys too.
        max_unflushed: How many finished results may be lost if the process is killed; these stages
            run again. 0: none, each result is committed before its item moves on.
        on_input_change: If an item comes with the key of an earlier one and another input: run it
            again ("redo"), end the run ("error"), or use what is known of the earlier one
            ("reuse"). An item that is fed to another stage than before has another input.
        on_error: If rows cannot be written, as when the disk is full or a server is away: wait and
            try again until they can, or until the run is cancelled ("pause"), or end the run
            ("fail"). It ends with `JournalWriteError`, which says what was not written: that is run
            again. An error that does not pass, as when the file was removed, ends it too.

    Attributes:
        path: The file's absolute path, or the database's address without the password.

    Raises:
        TypeError: An option is of the wrong type.
        ValueError: An option is not allowed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        codec: Any = "json",
        trusted: bool = False,
        retry_failed: RetryFailed = False,
        durability: Durability = "process",
        max_unflushed: int = 0,
        on_input_change: OnInputChange = "redo",
        on_error: OnJournalError = "pause",
    ) -> None:
        if not is_a(path, (str, os.PathLike)) or not examine(TypeError, "path", os.fspath, path):
            raise refusal(TypeError, "path", path, "must be the path of a file")
        if is_remote(path):
            check_address("path", os.fspath(path))
        check_choice(ValueError, "durability", durability, get_args(Durability))
        check_choice(ValueError, "on_input_change", on_input_change, get_args(OnInputChange))
        check_choice(ValueError, "on_error", on_error, get_args(OnJournalError))
        self._place = os.fspath(path) if is_remote(path) else os.path.abspath(os.fspath(path))
        self.path: str = journal_name(self._place)
        self.retry_failed: Retried = checked_retried(retry_failed)
        check_flag(TypeError, "trusted", trusted)
        self.codec: Any = codec
        self.trusted: bool = trusted
        self.durability: Durability = durability
        self.max_unflushed: int = check_count(
            ValueError, "max_unflushed", max_unflushed, 0, "must be a whole number >= 0"
        )
        self.on_input_change: OnInputChange = on_input_change
        self.on_error: OnJournalError = on_error

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, codec: Any = "json", trusted: bool = False
    ) -> JournalReader:
        """Open a journal to read it, also while a run writes it.

        ```python
        with Journal.open("run.db") as journal:
            print(journal.info)
            print(journal.error_summary())
        ```

        Args:
            path: The file, or the address of the database.
            codec: How its values are kept, as for a run.
            trusted: As for a run.

        Raises:
            TypeError: ``path`` is not a path.
            ValueError: It is the address of something else.
            JournalOpenError: There is no such journal, it is something else, or it cannot be read.
            JournalVersionError: A newer version of the library has written it.
            JournalCorruptError: It is damaged.
            ImportError: It is in PostgreSQL, and asyncpg is not installed.
        """
        from antflow.journal.codec_choice import codec_of  # SQLite only where a journal is used
        from antflow.journal.reader import JournalReader

        return JournalReader(path, codec_of(codec, path, trusted))

    def __repr__(self) -> str:
        return f"Journal({safe_repr(self.path)})"

    @property
    def is_remote(self) -> bool:
        """Whether it is in a database that must be waited for."""
        return is_remote(self._place)

    def reader(self) -> JournalReader:
        """Open it to read it: see `open`."""
        return Journal.open(self._place, codec=self.codec, trusted=self.trusted)

    def retrying(self, retry_failed: RetryFailed) -> Journal:
        """The same journal, with other items to run again."""
        other = object.__new__(Journal)
        other.__dict__ |= self.__dict__
        other.retry_failed = checked_retried(retry_failed)
        return other


def checked_retried(retry_failed: Any) -> Retried:
    """Which failed items are run again.

    Raises:
        TypeError: It is neither a bool nor classes of exceptions, nor their names.
    """
    if type(retry_failed) is bool:
        return retry_failed
    kinds = retry_failed if is_a(retry_failed, (tuple, list)) else (retry_failed,)
    if not kinds or not all(map(_is_kind, kinds)):
        allowed = "must be True, False, or a tuple of exception classes or their names"
        raise refusal(TypeError, "retry_failed", retry_failed, allowed)
    return tuple(kinds)


def _is_kind(kind: Any) -> bool:
    if is_a(kind, str):
        return NAME.fullmatch(kind) is not None
    return is_a(kind, type) and issubclass(kind, BaseException)
