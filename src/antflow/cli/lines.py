"""Lines of text from a file, a few kilobytes at a time.

The file is read unbuffered, and the lines are put together here. So an endless line is given up at
`LONGEST_LINE` instead of filling the memory; each line of a pipe is available as soon as it is
written; and a thread that still waits for standard input when the program ends holds no lock that
the interpreter would wait for.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import re
import select
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, NamedTuple

from antflow._core.same_file import are_one, status_of
from antflow._core.text import safe_str
from antflow.cli.refusals import refuse

STDIN = "-"
CHUNK_BYTES = 65_536
LONGEST_LINE = 16 * 1024 * 1024
"""Bytes of the longest line that is read."""

KEPT_OF_A_LONG_LINE = 1000
"""How many bytes of a too long line its dead letter keeps; other lines are kept whole."""

PACKED = re.compile(
    rb"(?P<gzip>\x1f\x8b\x08)|(?P<zip>PK\x03\x04)|(?P<bzip2>BZh[1-9]1AY&SY)|(?P<xz>\xfd7zXZ\0)"
    rb"|(?P<zstd>\x28\xb5\x2f\xfd)"
)
"""How packed files begin; those of Excel are packed with zip."""

UTF8 = "utf-8"
UNDECODED = "antflow.undecoded"
"""How `codecs` treats bytes that an encoding other than UTF-8 has no character for."""

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


_Read = Callable[[int], bytes | None]


class BadLine(ValueError):
    """A line that is not an item.

    Args:
        where: ``file:line:column``.
        reason: What is wrong with it.
        text: The line; undecodable bytes are lone surrogates, as usual in Python.
        number: Its number, from 1.
        is_letter: Whether the line is a dead letter already, to be kept as it is.
    """

    def __init__(
        self, where: str, reason: str, text: str = "", number: int = 0, is_letter: bool = False
    ) -> None:
        super().__init__(f"{where}: {reason}")
        self.text = text
        self.number = number
        self.is_letter = is_letter


class TextLine(NamedTuple):
    """One line; `end` is its end, and `fault` and `column` say why it is not text, if so.

    Of one that is too long, `text` is not the whole.
    """

    number: int
    text: str
    fault: str = ""
    column: int = 1
    end: str = "\n"
    is_whole: bool = True


class InputFile:
    """A file's lines.

    Args:
        path: Where it is; ``-`` for standard input. A name in ``.gz`` is unpacked.
        encoding: Its encoding.

    Attributes:
        name: Its name in messages.
        has_more: Whether the next line is available without waiting.

    Raises:
        Refusal: It does not exist, is a folder or cannot be read; or there is no such encoding.
    """

    def __init__(self, path: str, encoding: str = UTF8) -> None:
        self.name: str = "<stdin>" if path == STDIN else path
        # The program may change its folder before the file is opened again.
        self._path = path if path == STDIN else os.path.abspath(path)
        self.has_more: bool = False
        self._number = 0
        self._is_at_start = True
        try:
            self._encoding = codecs.lookup(encoding).name
            self._decoder = codecs.getincrementaldecoder(encoding)(UNDECODED)
            self._decoder.decode(b"")
        except Exception as error:  # why: a codec that is not for texts raises what it likes
            refuse(f"--encoding {encoding!r}: Python does not know this encoding of texts", error)
        try:
            self._file = _open(path)
        except OSError as error:
            refuse(f"--items {path!r}: {error.strerror}", error)
        # Only what is available: `read` of a packed file would wait for the full size.
        self._read_some: _Read = getattr(self._file, "read1", self._file.read)

    def is_same(self, other: os.stat_result | None) -> bool:
        """Whether another open or named file is this very file."""
        return are_one(status_of(self._file), other)

    def again(self) -> InputFile | None:
        """The same file from its beginning; ``None`` where it can be read only once.

        Raises:
            OSError: It cannot be opened.
        """
        try:
            mine = os.fstat(self._file.fileno())
        except (OSError, ValueError):
            return None
        if self._path == STDIN or not stat.S_ISREG(mine.st_mode):
            return None
        again = copy(self)
        again._file = _open(self._path)
        again._number = 0
        again._is_at_start = True
        again._read_some = getattr(again._file, "read1", again._file.read)
        again._decoder = codecs.getincrementaldecoder(self._encoding)(UNDECODED)
        if again.is_same(mine):
            return again
        again.close()
        return None

    def state(self) -> tuple[int, int]:
        """Its size and the time of its last change: they tell whether it has changed."""
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    @property
    def is_stdin(self) -> bool:
        """Whether it is standard input, by whatever name: ``-``, ``/dev/stdin``."""
        if self._path == STDIN:
            return True
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.fstat(0))
        except (OSError, ValueError):
            return False

    def where(self, number: int, column: int = 1) -> str:
        """``file:line:column``."""
        return f"{self.name}:{number}:{column}"

    def in_utf8(self, line: TextLine) -> TextLine:
        """A line whose bytes are taken for UTF-8, whatever the encoding; itself if they are not."""
        if self._encoding == UTF8 or line.text.isascii():
            return line
        try:
            text = line.text.encode(self._encoding, "surrogateescape").decode()
        except UnicodeError:
            return line
        return line._replace(text=text, fault="")

    def close(self) -> None:
        """Read no more."""
        self._file.close()

    def lines(self) -> Iterator[TextLine]:
        """Each line, with or without a newline at the end of the last one.

        One that is too long comes as soon as that is known, since its end may never come; the rest
        of it is skipped when the next line is asked for.

        Raises:
            BadLine: It cannot be read any further, or a packed file is cut short or damaged.
        """
        pending, is_lost = b"", False
        while chunk := self._read():
            *ended, pending = (pending + chunk).split(b"\n")
            if is_lost and ended:
                del ended[0]
                is_lost = False
            for index, line in enumerate(ended):
                self._number += 1
                self.has_more = index + 1 < len(ended)
                yield self._too_long(line) if _is_long(line) else self._decode(line)
            if not is_lost and _is_long(pending):
                self._number += 1
                is_lost = True
                yield self._too_long(pending)
            if is_lost:
                pending = b""
        if pending:
            self._number += 1
            yield self._decode(pending, "")

    def chunks(self) -> Iterator[bytes]:
        """All of it as it is read, in UTF-8.

        Raises:
            BadLine: It cannot be read any further, or a packed file is cut short or damaged.
        """
        return iter(self._read, b"")

    def rest(self, most: int) -> str:
        """All of a file that cannot be read line by line, as text.

        Args:
            most: Bytes that are read.

        Raises:
            BadLine: It is longer, not text, or cannot be read.
        """
        data = bytearray()
        while chunk := self._read():
            data += chunk
            if len(data) > most:
                raise BadLine(self.where(1), f"longer than {most:,} bytes; JSON lines may be")
        lines = bytes(data).removeprefix(codecs.BOM_UTF8)
        for number, line in enumerate(lines.split(b"\n"), 1):
            self._number = number
            if (text := self._decode(line)).fault:
                raise BadLine(self.where(number, text.column), text.fault)
        self.has_more = True
        return lines.decode()

    def _read(self) -> bytes:
        """The next bytes, as UTF-8; those that cannot be decoded as what UTF-8 does not allow."""
        while True:
            data = self._read_bytes()
            if self._encoding == UTF8:
                return data
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeError as error:  # all others have a stand-in, see `UNDECODED`
                name = self._encoding
                reason = f"no byte order mark; --encoding {name}-le or {name}-be needs none"
                raise BadLine(self.where(1), f"not {name.upper()} text: {reason}") from error
            if text or not data:  # else only a part of a character was there
                return text.encode(errors="surrogatepass")

    def _read_bytes(self) -> bytes:
        self.has_more = False
        try:
            # `None`: another process made standard input non-blocking, and nothing is there yet.
            while (data := self._read_some(CHUNK_BYTES)) is None:
                select.select([self._file], [], [])
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            where = self.where(self._number + 1)
            raise BadLine(where, f"the packed file is damaged: {safe_str(error)}") from error
        except OSError as error:
            where = self.where(self._number + 1)
            raise BadLine(where, f"cannot be read: {error.strerror or safe_str(error)}") from error
        if self._is_at_start:
            self._is_at_start = False
            if (packed := PACKED.match(data)) is not None:
                raise BadLine(self.where(1), self._hint_at(packed.lastgroup))
        return data

    def _hint_at(self, packer: str | None) -> str:
        hint = f"packed with {packer}: unpack it first"
        if packer == "zip":
            hint += ", or save it as CSV if it is one of Excel"
        elif packer == "gzip" and self._path != STDIN and not _is_gzipped(self._path):
            hint += ", or name it .gz"
        return hint

    def _decode(self, line: bytes, end: str = "\n") -> TextLine:
        if self._number == 1:
            if line.startswith(UTF16):
                text = line.decode(errors="surrogateescape")
                return TextLine(1, text, "this is UTF-16; --encoding utf-16 reads it")
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.endswith(b"\r"):
            line, end = line[:-1], f"\r{end}"
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            column = len(line[: error.start].decode()) + 1
            is_utf8 = self._encoding == UTF8
            text = line.decode(errors="surrogateescape" if is_utf8 else "surrogatepass")
            fault = f"not {self._encoding.upper()} text"
            if is_utf8:
                fault += "; --encoding names another encoding"
            return TextLine(self._number, text, fault, column, end)
        if (column := text.find("\0") + 1) > 0:
            return TextLine(self._number, text, "a null character: not text", column, end)
        return TextLine(self._number, text, end=end)

    def _too_long(self, line: bytes) -> TextLine:
        text = line[:KEPT_OF_A_LONG_LINE].decode(errors="surrogateescape")
        fault = f"longer than {LONGEST_LINE:,} bytes"
        return TextLine(self._number, text, fault, LONGEST_LINE, is_whole=False)


@contextmanager
def nothing_on_stdin(to_the_end: bool = False) -> Iterator[None]:
    """Leave nothing to read on standard input, for tasks and for the programs that they start.

    An `InputFile` that was opened before still reads what was there: it has its own descriptor,
    which programs do not inherit.

    Args:
        to_the_end: Whether it stays so until the program is over: a thread that was left behind
            may start others.
    """
    stdin: Any = sys.stdin
    with open(os.devnull, encoding="utf-8") as nothing:
        try:
            kept = os.dup(0) if stdin.fileno() == 0 else None
        except (OSError, ValueError, AttributeError):  # a stand-in, or closed
            kept = None
        try:
            sys.stdin = nothing
            if kept is not None:
                os.dup2(nothing.fileno(), 0)
            yield
        finally:
            sys.stdin = stdin
            if kept is not None:
                if not to_the_end:
                    os.dup2(kept, 0)
                os.close(kept)


def _undecoded(error: UnicodeError) -> tuple[str, int]:
    """A lone surrogate for each byte: "surrogateescape" has none for those below 128."""
    assert isinstance(error, UnicodeDecodeError)
    data = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) for byte in data), error.end


codecs.register_error(UNDECODED, _undecoded)


def _is_long(line: bytes) -> bool:
    return len(line) > LONGEST_LINE


def _is_gzipped(path: str) -> bool:
    return path.lower().endswith(".gz")


def _open(path: str) -> Any:
    if path == STDIN:
        return _open_stdin()
    if os.path.isdir(path):
        raise IsADirectoryError(0, "is a folder")
    if _is_gzipped(path):
        return gzip.open(path)
    return open(path, "rb", buffering=0)


def _open_stdin() -> Any:
    if sys.stdin is None:
        raise OSError(0, "there is no standard input")
    try:
        return io.FileIO(os.dup(sys.stdin.fileno()))
    except (OSError, ValueError):  # a stand-in without a file; also one that is closed
        return getattr(sys.stdin, "buffer", None) or io.BytesIO()
