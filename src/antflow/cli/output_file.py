"""Files for results and dead letters, which lose nothing that was in them.

A file is opened when there is something for it: a mistake that shows in the first line of the input
changes no file. Lines are written to the file itself, so that a program that is killed leaves what
it had. Only a file that is to be replaced gets its successor written beside it, under a name in
``.part``, until the run has ended.

Runs that have one file at the same time would lose each other's lines, unless all of them add to
it. So each locks it, even to replace it: for itself alone, or shared, once it is known that the
file was in no other hands.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, NoReturn

from antflow._core.file_lock import lock, unlock
from antflow._core.file_names import is_at, is_gone
from antflow._core.same_file import are_one, is_same_file, status_of
from antflow.cli.lines import InputFile
from antflow.cli.refusals import RunFailed, refuse

SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))
"""What the name of a folder may end in."""

STDOUT = "-"
NAMES_OF_STDOUT = (STDOUT, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")

Old = Literal["refuse", "append", "replace", "complete"]
"""What happens to a file that is not empty; "complete": see `KeptFile`."""


class OutputFile:
    """A file to write to, opened with the first `write`.

    Args:
        path: Where it is.
        option: The option that names it, for messages.
        old: What happens to its old content.
        goes_on_in: Given the path of a file before lines are added to those that are there; a
            `ValueError` says why they do not belong together.
        has_header: Whether the file begins with a header. Where there is none yet, no other run may
            add to the file until it is written, so that there is only one.

    Attributes:
        path: Where it is.
        option: The option.

    Raises:
        Refusal: It cannot be written, or is not empty and may not be changed.
    """

    def __init__(
        self,
        path: str,
        option: str,
        old: Old,
        goes_on_in: Callable[[str], None] | None = None,
        has_header: bool = False,
    ) -> None:
        self.path: str = path
        self._place = path and os.path.abspath(path)  # the program may change its folder
        self.option: str = option
        self._old: Old = old
        self._goes_on_in = goes_on_in
        self._has_header = has_header
        self._descriptor: int | None = None
        self._replaced: int | None = None
        self._part = ""
        self._is_closed = False
        self._refuse_early()

    def write(self, data: bytes) -> None:
        """Write all of it; may block. Even of no bytes: opens the file.

        Raises:
            OSError: It cannot be opened or written.
        """
        if self._is_closed:
            raise ValueError("the file is closed")
        if self._descriptor is None:
            self._descriptor = self._open()
        write_fully(self._descriptor, data)

    @property
    def keeps_old(self) -> bool:
        """Whether what was to be replaced is still there, since nothing was written instead."""
        if self._old != "replace" or self._descriptor is not None:
            return False
        return _has_content(status_of(self._place))

    def take_back(self, count: int) -> None:
        """Take the last bytes off again, the beginning of a line that could not be written whole.

        Lines that are added later would be read as part of it: of CSV, it may have an open quote.
        If the lines of another run may stand behind it, it stays.

        Args:
            count: How many bytes.
        """
        descriptor = self._descriptor
        if descriptor is None:
            return
        with suppress(OSError):
            if lock(descriptor):
                size = os.fstat(descriptor).st_size
                if os.lseek(descriptor, 0, os.SEEK_CUR) == size:  # a pipe has no place
                    os.ftruncate(descriptor, size - count)
            lock(descriptor, shared=True)

    def close(self, makes: bool) -> None:
        """Put it in its place.

        Args:
            makes: Whether to make an empty file if there is none, and nothing was written.

        Raises:
            RunFailed: That failed.
        """
        try:
            if makes and self._descriptor is None and not os.path.exists(self._place):
                self.write(b"")
            self._is_closed = True
            descriptor, self._descriptor = self._descriptor, None
            is_lost = False
            if descriptor is not None:
                is_lost = is_gone(self._part or self._place, descriptor)
                unlock(descriptor)
                os.close(descriptor)
            if is_lost:
                text = "was removed during the run, and the lines of the run with it"
                raise RunFailed(f"{self.option} {self._part or self.path!r}: {text}")
            if self._part:
                os.replace(self._part, os.path.realpath(self._place))
        except OSError as error:
            kept = f"; the new lines are in {self._part!r}" if self._part else ""
            raise RunFailed(f"{self.option} {self.path!r}: {error.strerror}{kept}") from error
        finally:
            if self._replaced is not None:
                unlock(self._replaced)
                os.close(self._replaced)
                self._replaced = None

    def _refuse_early(self) -> None:
        """Refuse what is known to be wrong, before anything is done."""
        if self.path.lower().endswith(".gz"):  # `--items` would take it for packed
            refuse(f"{self.option} {self.path!r}: packed files can be read, but not written")
        where = os.path.dirname(os.path.realpath(self._place))
        status = None
        try:
            status = os.stat(self._place)
        except FileNotFoundError as error:
            if not self.path or not os.path.isdir(where):
                self._refuse(error)
        except OSError as error:
            self._refuse(error)
        is_folder = status is not None and stat.S_ISDIR(status.st_mode)
        if is_folder or self.path.endswith(SEPARATORS):
            self._refuse(IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
        if not os.access(where if status is None else self._place, os.W_OK):
            self._refuse(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        if self._old == "refuse" and _has_content(status):
            refuse(
                f"{self.option} {self.path!r}: is not empty; --append adds to it, "
                "--force replaces it"
            )
        if self._old == "append" and _has_content(status):
            self._check_old_lines()

    def _check_old_lines(self) -> None:
        if self._goes_on_in is not None:
            try:
                self._goes_on_in(self._place)
            except ValueError as error:
                refuse(f"{self.option} {self.path!r}: {error}", error)

    def _refuse(self, error: OSError) -> NoReturn:
        refuse(f"{self.option} {self.path!r}: {error.strerror}", error)

    def _open(self) -> int:
        """Open it where the lines go, and take it.

        A file is empty until the first result is ready, so its size does not show that another run
        has it.

        Raises:
            OSError: It cannot be opened, is not empty any more, or another run writes to it.
            Refusal: It has other lines.
        """
        descriptor = self._open_locked()
        if _has_content(status := os.fstat(descriptor)):
            if self._old == "replace":
                if os.name == "nt":  # Windows replaces no open file
                    os.close(descriptor)
                else:
                    self._replaced = descriptor  # locked, until the new one is in its place
                return self._open_part(status)
            if self._old == "refuse":
                os.close(descriptor)
                raise FileExistsError(errno.EEXIST, "another program has written to it meanwhile")
            try:
                self._check_old_lines()
            except BaseException:
                os.close(descriptor)
                raise
            if not _ends_in_newline(self._place):  # a program was killed while it wrote
                write_fully(descriptor, b"\n")
        lock(descriptor, shared=True)  # from here on others may add to it, below its header
        return descriptor

    def _open_locked(self) -> int:
        while True:
            descriptor = os.open(self._place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                shared = self._old == "append" and not self._lacks_header(descriptor)
                if lock(descriptor, shared=shared):
                    if is_at(self._place, descriptor):
                        return descriptor
                elif shared:
                    raise BlockingIOError(errno.EAGAIN, "another run is replacing it")
                elif self._old != "append":
                    raise BlockingIOError(errno.EAGAIN, "another run is writing to it")
                elif self._lacks_header(descriptor):
                    raise BlockingIOError(errno.EAGAIN, "another run is about to write its header")
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # another run has just replaced it, or written its header

    def _lacks_header(self, descriptor: int) -> bool:
        return self._has_header and not _has_content(os.fstat(descriptor))

    def _open_part(self, old: os.stat_result) -> int:
        folder, name = os.path.split(os.path.realpath(self._place))
        descriptor, self._part = tempfile.mkstemp(".part", f"{name}.", folder)
        with suppress(OSError):
            os.chmod(self._part, stat.S_IMODE(old.st_mode))
        return descriptor


@contextmanager
def kept_open(file: OutputFile) -> Iterator[OutputFile]:
    """Close a file at the end; if all went well it exists then, even if it is empty."""
    try:
        yield file
    except BaseException:
        file.close(makes=False)
        raise
    file.close(makes=True)


def write_fully(target: int, data: bytes) -> None:
    """Write all of it, however often that takes.

    Raises:
        OSError: That failed; its ``characters_written`` says how many bytes were written before.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(target, rest) :]
        except BlockingIOError:  # another process made the pipe non-blocking
            with suppress(OSError):
                select.select([], [target], [])
        except OSError as error:
            failure: Any = error
            failure.characters_written = len(data) - len(rest)
            raise


def _has_content(status: os.stat_result | None) -> bool:
    return status is not None and stat.S_ISREG(status.st_mode) and status.st_size > 0


def _ends_in_newline(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"
    except OSError:  # it may be written, but not read
        return True


# Two names for one file


class NamedFiles:
    """The files that options name: each has one use. Terminals, pipes and devices may be shared.

    Args:
        items: The file of ``--items``.
        stdout: The status of standard output.
    """

    def __init__(self, items: InputFile, stdout: os.stat_result | None) -> None:
        self._items = items
        self._streams = {"output": stdout, "error": status_of(sys.stderr)}
        self._named: dict[str, str] = {}

    def add(self, option: str, path: str) -> None:
        """Note one more.

        Raises:
            Refusal: It has another use already, whatever its name: the items come from it, a
                standard stream goes there, or another option names it.
        """
        status = self._streams["output"] if path == STDOUT else status_of(path)
        if self._items.is_same(status):
            refuse(f"{option} {path!r}: is the file that --items reads")
        if path == STDOUT:
            return
        for stream, its_status in self._streams.items():
            if are_one(status, its_status):
                refuse(f"{option} {path!r}: is the file that standard {stream} is written to")
        for other, its_path in self._named.items():
            if is_same_file(path, its_path):
                refuse(f"{option} {path!r}: is the file of {other}")
        self._named[option] = path
