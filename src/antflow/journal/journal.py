"""A journal as a run uses it: which file or database, and how."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

from antflow._core.addresses import check_address
from antflow._core.checks import (
    check_callback,
    check_choice,
    check_count,
    check_flag,
    examine,
    refusal,
)
from antflow._core.error_kinds import NAME
from antflow._core.file_names import check_home
from antflow._core.foreign import is_a
from antflow._core.stage_checks import is_async
from antflow._core.text import safe_repr
from antflow.journal.connections import Durability
from antflow.journal.databases import is_remote, journal_name
from antflow.journal.kept_errors import Retried

if TYPE_CHECKING:
    from antflow.journal.reader import JournalReader

OnInputChange = Literal["redo", "error", "reuse"]
"""Whether an item with a known key and another input is redone, an error, or taken as it was."""

OnJournalError = Literal["pause", "fail"]
"""Whether a run waits or ends when its journal cannot be written."""

OnUnserialisable = Literal["error", "omit"]
"""Whether a result that the codec cannot keep ends the run, or is left out."""

Redact = Callable[[Any, Literal["input", "result", "checkpoint", "error"], str], Any]
"""``redact(value, what, stage)`` returns what may be kept of a value."""

LARGEST_RESULT = 1 << 20

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
            ``PGPASSWORD``, or from ``~/.pgpass``; it never appears in messages.
        codec: How values are kept: "json" (see `antflow.journal.JsonCodec`), "msgspec" (the same
            text, faster), "pickle" (anything, but only if ``trusted``), or your own codec.
        trusted: Whether a pickle in the file may be read: that runs whatever its bytes say.
        retry_failed: Run items again that failed in an earlier run, from the stage in which they
            failed: all (``True``), or those whose error is of one of these classes, which may be
            given by name: ``"TimeoutError"``, ``"shop.errors.AuthError"``. The others stay failed.
            Items that failed because a run was stopped by ``stop_on`` or ``max_failures`` are run
            again automatically.
        durability: "process": what was committed outlives the process, however it ends. "power": it
            outlives a power failure too; each commit then waits for the disk. In PostgreSQL, each
            always waits for the server's disk, and with "power" for its synchronous standbys too.
        max_unflushed: How many finished results may be lost if the process is killed; these stages
            run again. 0: none, each result is committed before its item moves on.
        on_input_change: If an item comes with the key of an earlier one and another input: run it
            again ("redo"), end the run ("error"), or use what is known of the earlier one
            ("reuse"). An item that is fed to another stage than before has another input.
        redact: Called as ``redact(value, what, stage)`` before anything is kept; returns what may
            be. ``what`` says what the value is: "input" (the item as it was fed), "result",
            "checkpoint", or "error" (the text of one: a text must be returned). ``stage`` is the
            stage's name; "" for the error that ends a run. If it returns the value itself, or one
            whose bytes are the same, that is kept. Otherwise what it returned is kept for people to
            read, and never given to a task: see `Omitted`. It must not change the value, which the
            run goes on with. If it raises, nothing of that value is kept, and the run ends with
            `JournalError`. Keys, and hashes of inputs, are kept as they are.
        max_result: The largest result to keep, in bytes; ``None``: any size. A larger one is left
            out, see `Omitted`. If it is of the last stage, its item has still ended; if it is of an
            earlier one, that stage is run again if the item has to go on later.
        on_unserialisable: If the codec cannot keep a result: end the run ("error"), or leave the
            result out as if it were too large ("omit").
        on_error: If rows cannot be written, for example because the disk is full or a server is
            away: try again until they can, or until the run is cancelled ("pause"), or end the run
            ("fail"). It ends with `JournalWriteError`, which says what was not written: that is run
            again. A permanent error, such as a removed file, ends it too.

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
        redact: Redact | None = None,
        max_result: int | None = LARGEST_RESULT,
        on_unserialisable: OnUnserialisable = "error",
        on_error: OnJournalError = "pause",
    ) -> None:
        if not is_a(path, (str, os.PathLike)) or not examine(TypeError, "path", os.fspath, path):
            raise refusal(TypeError, "path", path, "must be the path of a file")
        if is_remote(path):
            check_address("path", os.fspath(path))
        else:
            check_home("path", os.fspath(path))
        check_choice(ValueError, "durability", durability, get_args(Durability))
        check_choice(ValueError, "on_input_change", on_input_change, get_args(OnInputChange))
        check_choice(ValueError, "on_error", on_error, get_args(OnJournalError))
        check_choice(ValueError, "on_unserialisable", on_unserialisable, get_args(OnUnserialisable))
        if redact is not None and is_async(redact):
            raise refusal(TypeError, "redact", redact, "must be a plain function")
        check_callback(TypeError, "redact", redact, "value", "what", "stage")
        if max_result is not None:
            allowed = "must be a whole number >= 0, or None"
            max_result = check_count(ValueError, "max_result", max_result, 0, allowed)
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
        self.redact: Redact | None = redact
        self.max_result: int | None = max_result
        self.on_unserialisable: OnUnserialisable = on_unserialisable
        self.on_error: OnJournalError = on_error

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, codec: Any = "json", trusted: bool = False
    ) -> JournalReader:
        """Open a journal to read it, even while a run writes it.

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
            JournalOpenError: The journal does not exist, is something else, or cannot be read.
            JournalVersionError: A newer version of the library has written it.
            JournalCorruptError: It is damaged.
            ImportError: It is in PostgreSQL, and asyncpg is not installed.
        """
        from antflow.journal.codec_choice import codec_of  # SQLite only where a journal is used
        from antflow.journal.reader import JournalReader

        if is_a(path, (str, os.PathLike)) and not is_remote(path):
            check_home("path", path)
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

    def moved_to(self, other: Journal) -> Journal:
        """The place of another journal, with the options of this one."""
        moved = object.__new__(Journal)
        moved.__dict__ |= self.__dict__ | {"path": other.path, "_place": other._place}
        return moved

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
