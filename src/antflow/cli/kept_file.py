"""Files that have one line for each item of a journal that ended so, however often it was killed.

When the first item of a run has been read, a file is compared with the journal: a torn line at its
end is cut off, lines that are no longer true are taken out, missing ones are added. After that, a
line is written when its item has ended, unless it is there. If some line was replaced, or there are
more lines than items, the file is compared once more when the run is over.

To take lines out, the others are written to a file beside it, which then takes its place. So a
program that is killed leaves the file as it was, or as it should be.

Lines about items that the journal does not know stay.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any, Literal

from antflow import PipelineResult
from antflow._core.errors import JournalError
from antflow._core.file_lock import lock, unlock
from antflow.cli.journal_lines import ANY_MARK, BAD, Line, LineForm, bad
from antflow.cli.output_file import Old, OutputFile, write_fully
from antflow.cli.refusals import RunFailed, refuse
from antflow.journal.reader import JournalReader

Ended = Literal["completed", "failed"]

AT_ONCE = 1 << 20
"""Bytes that are written at a time."""


class KeptFile(OutputFile):
    """A file of the items of a journal that were completed, or of those that failed.

    Args:
        path: Where it is.
        option: The option that names it, for messages.
        old: What happens to a file that is not empty: "refuse" refuses one only if the journal is
            new, or if none of its lines is the journal's.
        form: The form of its lines.
        ended: Which items it is about.
        journal: Opens the journal.
        is_new: Whether the journal is new.
    """

    def __init__(
        self,
        path: str,
        option: str,
        old: Old,
        form: LineForm,
        ended: Ended,
        journal: Callable[[], JournalReader],
        is_new: bool,
    ) -> None:
        self._form = form
        self._ended: Ended = ended
        self._journal = journal
        self._is_anew = old == "replace"
        self._may_be_another = old == "refuse" and ended == "completed"
        self._lines: dict[str, int] = {}
        self._seen: set[str] = set()
        self._untrue: set[str] = set()
        self._is_untidy = self._needs_header = False
        self.strangers: int = 0
        super().__init__(path, option, old if is_new and old == "refuse" else "complete")

    def line(self, result: PipelineResult[Any], lost: set[str] | None = None) -> str:
        """The line of a result, to be written; "" if it is there."""
        return self._new(self._form.line(result, lost))

    def bad_line(self, text: str, number: int) -> str:
        """The same for the dead letter of a line of the input that is not an item."""
        line = bad(text.encode(), number)
        self._seen.add(line.id)
        return self._new(line)

    def _new(self, line: Line) -> str:
        if self._lines.get(line.id) == line.mark or (
            line.mark == ANY_MARK and line.id in self._lines
        ):
            return ""
        self._is_untidy |= line.id in self._lines
        self._lines[line.id] = line.mark
        header = self._form.header if self._needs_header else b""
        self._needs_header = False
        return (header + line.data).decode()

    def all_was_read(self) -> None:
        """The whole input was read: a bad line that was not met again is none any more."""
        all_bad = {each for each in self._lines if each.startswith(BAD)}
        self._untrue = all_bad - self._seen
        self._is_untidy |= bool(self._untrue)

    def close(self, makes: bool) -> None:
        """Compare it with the journal, if there is need to, and put it in its place."""
        failure: Exception | None = None
        try:
            if (descriptor := self._descriptor) is not None and self._may_be_untrue(descriptor):
                self._descriptor = self._completed(descriptor)
        except (OSError, ValueError, JournalError) as error:
            failure = error
        super().close(makes)
        if makes and failure is not None:
            reason = getattr(failure, "strerror", None) or str(failure)
            text = f"{self.option} {self.path!r}: {reason}; the next run completes it"
            raise RunFailed(text) from failure

    def _may_be_untrue(self, descriptor: int) -> bool:
        if not _is_regular(descriptor):
            return False
        if self._is_untidy:
            return True
        with self._journal() as journal:
            count = journal.info.outcomes.get(self._ended, 0)
        others = sum(each.startswith(BAD) for each in self._lines)
        return count != len(self._lines) - others - self.strangers

    def _open(self) -> int:
        descriptor = self._open_locked()
        try:
            return self._completed(descriptor) if _is_regular(descriptor) else descriptor
        except JournalError as error:
            os.close(descriptor)
            refuse(str(error), error)
        except ValueError as error:
            os.close(descriptor)
            refuse(f"{self.option} {self.path!r}: {error}", error)
        except BaseException:
            os.close(descriptor)
            raise

    def _completed(self, descriptor: int) -> int:
        """Make the file what the journal says.

        Returns:
            The descriptor by which it is open.

        Raises:
            OSError: It cannot be read or written.
            ValueError: It has other lines.
            JournalError: The journal cannot be read.
        """
        with self._journal() as journal:
            header = b"" if self._is_anew else self._form.begin(self._place)
            wanted = {line.id: line.mark for line in self._wanted(journal)}
            if ANY_MARK in wanted.values():
                wanted |= self._last_marks(wanted)
            successor = _Successor(os.path.realpath(self._place), descriptor)
            with closing(successor):
                successor.keep(header)
                self._keep(journal, wanted, successor)
                if self._lines.keys() & wanted.keys() != wanted.keys():
                    for line in self._wanted(journal):
                        if line.id not in self._lines:
                            self._lines[line.id] = line.mark
                            begin = b"" if successor.size else self._form.header
                            successor.add(begin + line.data)
                descriptor = successor.takes_over(self._open_locked)
            self._needs_header = not successor.size
        self._is_anew = self._is_untidy = self._may_be_another = False
        return descriptor

    def _keep(self, journal: JournalReader, wanted: dict[str, int], successor: _Successor) -> None:
        """Keep the lines that are true, and those that are no line of the journal's."""
        known: set[str] | None = None
        self._lines, self.strangers = {}, 0
        agreeing = others = 0
        with open(self._place, "rb") as file:
            for line in () if self._is_anew else self._form.read(file):
                if line.id in wanted:
                    is_kept = wanted[line.id] == line.mark and line.id not in self._lines
                    agreeing += is_kept
                elif line.id.startswith(BAD):
                    is_kept = line.id not in self._untrue and line.id not in self._lines
                else:
                    if known is None:
                        known = {self._form.id_of(each) for each, _ in journal.ids()}
                    is_kept = line.id not in known
                    self.strangers += is_kept
                others += not is_kept
                if is_kept:
                    self._lines[line.id] = line.mark
                    successor.keep(line.data)
                else:
                    successor.leave_out()
        if self._may_be_another and not agreeing and self.strangers + others > 1:
            raise ValueError(
                "has none of the journal's lines; name another file, or --force makes it anew"
            )

    def _last_marks(self, wanted: dict[str, int]) -> dict[str, int]:
        """The marks of the last lines of those items whose values are not in the journal."""
        with open(self._place, "rb") as file:
            lines = () if self._is_anew else self._form.read(file)
            return {line.id: line.mark for line in lines if wanted.get(line.id) == ANY_MARK}

    def _wanted(self, journal: JournalReader) -> Iterator[Line]:
        results = journal.results() if self._ended == "completed" else journal.failed()
        return map(self._form.line, results)


class _Successor:
    """What a file becomes: itself, or if lines are left out, another that takes its place.

    Args:
        path: Where the file is.
        descriptor: The file.

    Attributes:
        size: How many bytes it has so far.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._part = f"{path}.part"
        self._old = descriptor
        self._new: int | None = None
        self._waiting = bytearray()
        self.size: int = 0

    def keep(self, data: bytes) -> None:
        """Keep the next bytes of the file."""
        if self._new is None:
            self.size += len(data)
        else:
            self.add(data)

    def leave_out(self) -> None:
        """Leave some out."""
        if self._new is not None:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        self._new = os.open(self._part, flags, stat.S_IMODE(os.fstat(self._old).st_mode))
        size, self.size = self.size, 0
        with open(self._path, "rb") as file:
            while size:
                data = file.read(min(size, AT_ONCE))
                self.add(data)
                size -= len(data)

    def add(self, data: bytes) -> None:
        """Add some."""
        if self._new is None and not self._waiting:
            self._cut()
        self._waiting += data
        self.size += len(data)
        if len(self._waiting) >= AT_ONCE:
            self._write()

    def takes_over(self, opened: Callable[[], int]) -> int:
        """Put it in the place of the file; returns the descriptor to go on with.

        Args:
            opened: Opens it once more.
        """
        if self._new is None and not self._waiting:
            self._cut()
        self._write()
        new, self._new = self._new, None
        if new is None:
            return self._old
        if os.name == "nt":  # Windows replaces no open file
            os.close(new)
            os.close(self._old)
            os.replace(self._part, self._path)
            return opened()
        lock(new)
        os.replace(self._part, self._path)
        unlock(self._old)
        os.close(self._old)
        return new

    def close(self) -> None:
        """Give up what has not taken over."""
        if self._new is not None:
            os.close(self._new)
            with suppress(OSError):
                os.remove(self._part)

    def _cut(self) -> None:
        """Cut off what is torn."""
        if os.fstat(self._old).st_size > self.size:
            os.ftruncate(self._old, self.size)

    def _write(self) -> None:
        write_fully(self._old if self._new is None else self._new, bytes(self._waiting))
        self._waiting.clear()


def _is_regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)
