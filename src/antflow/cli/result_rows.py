"""Results as rows of CSV.

The columns are ``id``, the keys of the first value (``value`` if that is not an object), and
``rest``: what later values have beside them, as JSON. So no part of a result is left out.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from antflow import PipelineResult
from antflow.cli.letters import json_text, named_parts

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
"""Suffix → what stands between the columns."""


class ResultRows:
    """Turns results into lines of CSV; text is written as it is, all else as JSON.

    Args:
        delimiter: What stands between the columns.

    Attributes:
        delimiter: The same.
    """

    def __init__(self, delimiter: str) -> None:
        self.delimiter: str = delimiter
        self._columns: list[str] = []
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, delimiter=delimiter, lineterminator="\r\n")

    def go_on_in(self, path: str) -> None:
        """Take over the columns of a file to which lines are to be added, if it has any.

        Raises:
            ValueError: Its columns are not those that this command writes.
        """
        columns: list[str] = []
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                columns = next(csv.reader(file, delimiter=self.delimiter), [])
        except OSError:
            pass  # there is none yet
        except (ValueError, csv.Error) as error:
            raise ValueError("is not CSV in UTF-8") from error
        if columns and (columns[0], columns[-1]) != ("id", "rest"):
            raise ValueError("has other columns than this command writes: id … rest")
        self._columns = columns

    def line(self, result: PipelineResult[Any], lost: set[str] | None = None) -> str:
        """The line of a result, after the header if it is the first.

        Args:
            result: The result.
            lost: Given the types of which something could not be written.
        """
        return "".join(self.parts(result, lost))

    def parts(self, result: PipelineResult[Any], lost: set[str] | None = None) -> tuple[str, str]:
        """The header, "" if there is one already, and the line of a result."""
        fields = named_parts(result.value)
        if fields is None:
            fields = {"value": result.value}
        if _is_same(fields.get("id"), result.id):
            del fields["id"]
        header = ""
        if not self._columns:
            names = [name for name in fields if name not in ("", "id", "rest")]
            self._columns = ["id", *names, "rest"]
            header = self._row([_cell(name, lost) for name in self._columns])
        cells = [_cell(fields.pop(name, ""), lost) for name in self._columns[1:-1]]
        rest = json_text(fields, lost) if fields else ""
        return header, self._row([_cell(result.id, lost), *cells, rest])

    def _row(self, cells: list[str]) -> str:
        self._text.seek(0)
        self._text.truncate()
        self._writer.writerow(cells)
        return self._text.getvalue()


def id_cell(item_id: Any) -> str:
    """The cell with an item's id."""
    return _cell(item_id, None)


def rows_for(path: str) -> ResultRows | None:
    """Rows for a file, if its suffix asks for CSV."""
    delimiter = next((DELIMITERS[each] for each in DELIMITERS if path.lower().endswith(each)), None)
    return None if delimiter is None else ResultRows(delimiter)


def _is_same(value: Any, item_id: Any) -> bool:
    """Whether a value is an item's id. Only a plain one is asked: 1 is no True, and NA raises."""
    return type(value) is type(item_id) and type(value) in (str, int, float) and value == item_id


def _cell(value: Any, lost: set[str] | None) -> str:
    text: str = value if type(value) is str else json_text(value, lost)
    if type(value) is not str:
        if not text.startswith('"'):
            return text
        text = json.loads(text)  # a date, a Decimal: what is text in JSON is text here, too
    return text.encode(errors="backslashreplace").decode()  # UTF-8 has no lone surrogates
