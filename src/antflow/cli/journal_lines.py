"""Lines of the items in a journal, in the three forms in which files have them.

An item is found again by its id in the file. A *mark* says whether its line is the one that it
should have.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol

from antflow import PipelineResult
from antflow._core.errors import JournalError
from antflow.cli.letters import LETTER_KEYS, RESULT_KEYS, json_text, letter_line, result_line
from antflow.cli.result_rows import ResultRows, id_cell
from antflow.journal.item_keys import id_of_key, item_key
from antflow.journal.omitted import Omitted

MARKED_OF_ERROR = 1000
"""Characters of an error's text that count: a journal keeps the beginning of a long one."""

BAD = "\0line "
"""How the id begins of a line that is not an item's."""

ANY_MARK = -1
"""The mark of a line whose value is not in the journal: one that is there is right.

Nothing has -1 as its hash.
"""

Lost = set[str] | None


class Line(NamedTuple):
    """A line of a file.

    Attributes:
        data: The line, with its end.
        id: Which item it is about.
        mark: A hash of what it says about it.
    """

    data: bytes
    id: str
    mark: int


class LineForm(Protocol):
    """How lines are read and written.

    Attributes:
        header: What a new file begins with, once that is known.
    """

    header: bytes

    def begin(self, path: str) -> bytes:
        """Take over the header of a file, before its lines are read or others are made.

        Returns:
            The header.

        Raises:
            ValueError: The file has something else.
        """
        ...

    def read(self, file: BinaryIO) -> Iterator[Line]:
        """The whole lines of a file. What is behind them was torn off when a program was killed.

        Raises:
            ValueError: One is something else.
        """
        ...

    def id_of(self, item_id: Any) -> str:
        """The id of a line about this item."""
        ...

    def line(self, result: PipelineResult[Any], lost: Lost = None) -> Line:
        """The line of an item.

        Args:
            result: The item.
            lost: Given the types of which something could not be written.
        """
        ...


class ResultLines:
    """Results as JSON lines."""

    def __init__(self) -> None:
        self.header: bytes = b""

    def begin(self, path: str) -> bytes:
        """There is no header."""
        return b""

    def read(self, file: BinaryIO) -> Iterator[Line]:
        """The whole lines of a file."""
        for data, value in _objects(file, set(RESULT_KEYS), "results"):
            yield Line(data, id_text(value["id"]), hash(data))

    def id_of(self, item_id: Any) -> str:
        """The id as text."""
        return id_text(item_id)

    def line(self, result: PipelineResult[Any], lost: Lost = None) -> Line:
        """The line of a result."""
        data = result_line(result, lost).encode()
        return Line(data, id_text(result.id), _mark_of(result, data))


class LetterLines:
    """Dead letters, and lines of the input that are none of an item's."""

    def __init__(self) -> None:
        self.header: bytes = b""

    def begin(self, path: str) -> bytes:
        """There is no header."""
        return b""

    def read(self, file: BinaryIO) -> Iterator[Line]:
        """The whole lines of a file."""
        for data, letter in _objects(file, set(LETTER_KEYS), "dead letters"):
            if letter["stage"] is None:
                yield bad(data, letter["id"])
            else:
                yield self._letter(data, id_text(letter["id"]), letter)

    def id_of(self, item_id: Any) -> str:
        """The id as text."""
        return id_text(item_id)

    def line(self, result: PipelineResult[Any], lost: Lost = None) -> Line:
        """The line of an item that failed."""
        text = letter_line(result, keeps_id=True)
        return self._letter(text.encode(), id_text(result.id), json.loads(text))

    @staticmethod
    def _letter(data: bytes, item: str, letter: dict[str, Any]) -> Line:
        error = str(letter["error"])[:MARKED_OF_ERROR]
        says = (letter["stage"], letter["error_type"], error, letter["attempts"])
        return Line(data, item, hash(json.dumps(says)))


class RowLines:
    """Results as rows of CSV.

    Args:
        rows: Makes them.
    """

    def __init__(self, rows: ResultRows) -> None:
        self._rows = rows
        self.header: bytes = b""

    def begin(self, path: str) -> bytes:
        """Take over the columns of a file."""
        with open(path, "rb") as file:
            header, _ = next(self._records(file), (b"", []))
        if header:
            self._rows.go_on_in(path)
            self.header = header
        return header

    def read(self, file: BinaryIO) -> Iterator[Line]:
        """The whole rows of a file, below its header."""
        records = self._records(file)
        next(records, None)
        for data, row in records:
            yield Line(data, row[0] if row else "", hash(data))

    def id_of(self, item_id: Any) -> str:
        """The text of the first cell."""
        return id_cell(plain_id(item_id))

    def line(self, result: PipelineResult[Any], lost: Lost = None) -> Line:
        """The row of a result."""
        header, row = self._rows.parts(result, lost)
        self.header = header.encode() or self.header
        data = row.encode()
        return Line(data, self.id_of(result.id), _mark_of(result, data))

    def _records(self, file: BinaryIO) -> Iterator[tuple[bytes, list[str]]]:
        csv.field_size_limit(2**31 - 1)
        taken: list[bytes] = []

        def texts() -> Iterator[str]:
            for line in file:
                taken.append(line)
                yield line.decode("utf-8", "surrogateescape")

        rows = csv.reader(texts(), strict=True, delimiter=self._rows.delimiter)
        while True:
            try:
                row = next(rows, None)
            except csv.Error:  # a quote that is not closed
                return
            data = b"".join(taken)
            taken.clear()
            if row is None or not data.endswith(b"\r\n"):
                return
            yield data, row


def bad(data: bytes, number: int) -> Line:
    """The dead letter of a line that is not an item, with its number instead of an id."""
    return Line(data, f"{BAD}{number}", hash(data))


def plain_id(item_id: Any) -> Any:
    """An id as a journal gives it back: of equal ones, there is one."""
    if type(item_id) is str or type(item_id) is int:
        return item_id
    try:
        return id_of_key(item_key(item_id))
    except JournalError:
        return item_id


def id_text(item_id: Any) -> str:
    """The text that stands for an id in a file of JSON lines."""
    return json_text(plain_id(item_id))


def _mark_of(result: PipelineResult[Any], data: bytes) -> int:
    return ANY_MARK if isinstance(result.value, Omitted) else hash(data)


def _objects(file: BinaryIO, keys: set[str], what: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
    for data in file:
        if not data.endswith(b"\n"):
            return
        try:
            value: Any = json.loads(data)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or not value.keys() >= keys:
            raise ValueError(f"has other lines than {what}")
        yield data, value
