"""From lines to items: plain lines, JSON lines, CSV, and the dead letters of an earlier run.

An item that brings no id gets the number of its line, so that a failure says where it came from.
"""

from __future__ import annotations

import asyncio
import csv
import json
import re
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from math import isinf
from typing import Any, Literal

from antflow import Pipeline
from antflow._core.misspellings import did_you_mean
from antflow._core.result import ORDINARY, Fate
from antflow._core.text import clean, counted, safe_repr, safe_str
from antflow.cli.item import Item
from antflow.cli.item_count import count_again, count_lines
from antflow.cli.letters import LETTER_KEYS, is_letter
from antflow.cli.lines import LONGEST_LINE, BadLine, InputFile, TextLine
from antflow.cli.shard import WHOLE, Shard
from antflow.cli.threads import SOON, in_daemon_thread

Format = Literal["lines", "jsonl", "json", "csv"]
FORMATS: tuple[Format, ...] = ("lines", "jsonl", "json", "csv")
SUFFIXES: dict[str, Format] = {
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
    "csv": "csv",
    "tsv": "csv",
    "tab": "csv",
}

DELIMITERS = "\t;|,"
"""Characters that divide columns: the one that a header has most often does, the earlier if two."""

SAID_DELIMITER = re.compile(r'"?sep=([^" ])"?', re.IGNORECASE)
"""How programs tell Excel what stands between the columns."""

LONGEST_JSON = 256 * 1024 * 1024
"""Bytes of the longest file that is read as a whole."""

ACCEPTED = re.compile(r"(?P<run>[0-9a-f]{1,64}):(?P<place>[0-9]{1,18}(\.[0-9]{1,18})*)")

MOST_AT_A_TIME = 1000
"""Items that are read ahead, at most."""

CSV_FAULTS = {
    "new-line character seen in unquoted field": "a carriage return that is not in quotes",
    "unexpected end of data": "a quote that is not closed takes in all lines to the end",
    "field larger than field limit": "a cell of more than {:,} characters",
}
"""How an error of `csv` begins → what is wrong with the file."""

NO_SPACE = re.compile(r"[^ \t\n\r]")
CONSTANTS = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)')


Entry = Item | BadLine


def format_of(path: str) -> Format:
    """The format that a file's name stands for: by its suffix, else plain lines."""
    return SUFFIXES.get(path.lower().removesuffix(".gz").rpartition(".")[2], "lines")


class ItemSource:
    """The items of a file, read as they are asked for, in a thread.

    Args:
        file: The file.
        format: The format of its lines.
        pipeline: Where the items go: dead letters continue at one of its stages.
        limit: How many items are taken; ``None`` = all.
        delimiter: What stands between the columns of CSV; ``None`` = what the header says.
        is_guess: Whether the format was not asked for: then dead letters are no lines of text.
        skip: How many items are passed over first, and the bad lines among them.
        key: The field that has an item's id.
        id_of: Makes the id of an item that brings none; ``None`` = the number of its line.
        shard: The share of the items that is taken; others are passed over.

    Attributes:
        skipped: How many items have been passed over.
        on_bad_line: Given each line that is not an item; ``None``: the first one is raised.
        on_first_item: Called before the first item is taken in.
        taken_to: The number of the last line that was taken in or put aside; ``None`` if there are
            no more, or a bad one has ended the intake.
        feeds: Whether items for a later stage are fed to it, and not given like the others.
        has_journal: Whether a journal knows what is done already.
        counts: Whether the run is told how many items there will be, as far as that can be known.
    """

    def __init__(
        self,
        file: InputFile,
        format: Format,
        pipeline: Pipeline,
        limit: int | None = None,
        delimiter: str | None = None,
        is_guess: bool = False,
        skip: int = 0,
        key: str = "id",
        id_of: Callable[[Any], Any] | None = None,
        shard: Shard = WHOLE,
    ) -> None:
        self._file = file
        self._shard = shard
        self._key = key
        self._id_of = id_of
        self._is_guess = is_guess
        self._delimiter = delimiter
        self._pipeline = pipeline
        self._first = pipeline.stages[0].name
        self._restarted: set[tuple[str, int]] = set()
        """Items that start over because of one made from them: each does so once."""
        self._limit = self._most = limit
        self._skip = skip
        self.skipped: int = 0
        self._format: Format = format
        self._counted: int | None = None
        self._taken = self._left_out = 0
        self._handed_on = 0
        self._unused = 0  # of what `_take` has returned
        self._lock = threading.Lock()  # of `_take`
        self._is_at_end = self._is_unreadable = False
        self._told: int | None = None
        self.counts: bool = False
        self.feeds: bool = True
        self.has_journal: bool = False
        self.on_bad_line: Callable[[BadLine], Awaitable[None]] | None = None
        self.on_first_item: Callable[[], Awaitable[None]] | None = None
        self.taken_to: int | None = None
        self._entries = self._read(format)
        self._error: Exception | None = None

    @property
    def was_read_whole(self) -> bool:
        """Whether the input was taken in from its beginning to its end."""
        return self._is_at_end and not self._skip and self._most is None

    @property
    def rest(self) -> str | None:
        """How far the input was taken in, if not to its end, in words."""
        name = clean(self._file.name)
        if self.taken_to is None:
            if self._is_at_end or self._is_unreadable:
                return None
            again = "" if self._file.is_stdin else "; the same command does all of it"
            return f"nothing of {name} was taken in{again}"
        if not self._is_unreadable and not self._has_rest():
            return None
        what = "element" if self._format == "json" else "line"
        upto = f"{name} was taken in only up to {what} {self.taken_to:,}; "
        if self.has_journal:
            return f"{upto}the same command goes on with the rest"
        return (
            f"{upto}the rest is not done; --skip {self.skipped + self._handed_on} goes on with it"
        )

    def _has_rest(self) -> bool:
        """Whether something was not taken in. A pipe that is still open may have more."""
        answers: list[bool] = []

        def look() -> None:
            with self._lock:  # the last `_take` may be under way
                if not self._unused and self._limit != 0 and self._error is None:
                    self._unused = next(self._entries, None) is not None
                answers.append(self._unused > 0 or self._error is not None)

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        looking.join(SOON)
        return answers != [False]

    def check_header(self) -> None:
        """Look at the header of a CSV file before anything is done. A pipe is not read yet.

        Raises:
            BadLine: It cannot be used.
        """
        if self._format != "csv":
            return
        try:
            again = self._file.again()
        except OSError:  # the reader says so, when it comes to it
            return
        if again is not None:
            try:
                next(self._entries_of(again), None)
            finally:
                again.close()

    async def items(self) -> AsyncGenerator[Item, None]:
        """Each item for the first stage; those for a later one are fed to it meanwhile.

        Raises:
            BadLine: A line is not an item, and there is no ``on_bad_line``; or the file cannot be
                read any further.
        """
        counting = asyncio.create_task(self._count()) if self.counts else None
        try:
            while entries := await in_daemon_thread(self._take):
                self._tell()
                for entry in entries:
                    self._unused -= 1
                    if isinstance(entry, BadLine):
                        if self.on_bad_line is None:
                            raise entry
                        self.taken_to = entry.number
                        await self.on_bad_line(entry)
                        continue
                    if self.on_first_item is not None:
                        begin, self.on_first_item = self.on_first_item, None
                        await begin()
                    self.taken_to = entry.number
                    self._handed_on += 1
                    if entry.stage == self._first or not self.feeds:
                        yield entry
                    else:
                        await self._pipeline.feed([entry], target_stage=entry.stage)
            self.taken_to = None
            self._is_at_end = True
            self._tell()
        except BadLine:
            self._is_unreadable = True
            raise
        finally:
            if counting is not None:
                self.counts = False
                counting.cancel()

    async def _count(self) -> None:
        """Count the items in a thread, while the run begins with the first of them."""
        if self._format != "json":  # that is read as a whole before its first item
            is_read = self._format == "csv" or not self._shard.is_whole
            count = self._count_entries if is_read else count_lines
            goes_on = partial(getattr, self, "counts")
            self._counted = await in_daemon_thread(partial(count_again, self._file, count, goes_on))
            self._tell()

    def _count_entries(self, file: InputFile, goes_on: Callable[[], bool]) -> int | None:
        count = 0
        for entry in self._entries_of(file):
            if not goes_on():
                return None
            count += self._shard.takes(entry)
        return count

    def _entries_of(self, file: InputFile) -> Iterator[Entry]:
        """The items and bad lines of the same file, opened again."""
        again = ItemSource(
            file,
            self._format,
            self._pipeline,
            delimiter=self._delimiter,
            key=self._key,
        )
        return again._entries

    def _tell(self) -> None:
        """Tell the run how many items there will be, if that is known now, or no longer."""
        if self._is_at_end:
            total: int | None = self._taken
        elif self._counted is None:
            return
        else:
            yet_to_skip = self._skip - self.skipped
            total = max(self._counted - self._left_out - yet_to_skip, 0)
            if total < self._taken:  # the file has grown
                total = self._counted = None
            elif self._most is not None:
                total = min(total, self._most)
        run = self._pipeline.current_run
        if self.counts and run is not None and total != self._told:
            self._told = total
            run.expect(total)

    def _take(self) -> list[Entry]:
        """The items available once the first has been waited for; ``[]``: no more."""
        with self._lock:
            entries = self._taken_entries()
            self._unused = len(entries)
        return entries

    def _taken_entries(self) -> list[Entry]:
        entries: list[Entry] = []
        try:
            while len(entries) < MOST_AT_A_TIME and self._limit != 0:
                if self._error is not None:
                    raise self._error
                entry = next(self._entries, None)
                if entry is None:
                    break
                if not self._shard.takes(entry):
                    continue
                if self.skipped < self._skip:
                    self.skipped += isinstance(entry, Item)
                    self._left_out += 1
                    continue
                entries.append(entry)
                if isinstance(entry, Item):
                    self._taken += 1
                else:
                    self._left_out += 1
                if self._limit is not None and isinstance(entry, Item):
                    self._limit -= 1
                if not self._file.has_more:
                    break
        except Exception as error:
            if not entries:
                raise
            self._error = error  # items before it are taken in first
        return entries

    # Formats

    def _read(self, format: Format) -> Iterator[Entry]:
        if format == "csv":
            return self._read_csv()
        if format == "json":
            return self._read_json()
        return self._read_lines(self._from_json if format == "jsonl" else self._from_text)

    def _read_lines(self, parse: Callable[[TextLine], Entry | None]) -> Iterator[Entry]:
        for line in map(self._in_its_encoding, self._file.lines()):
            if line.fault:
                yield self._bad(line, line.fault, line.column)
            elif line.text.strip():
                if (entry := parse(line)) is not None:
                    yield entry
                elif self._shard.is_whole:  # else its line was not counted
                    self._left_out += 1

    def _in_its_encoding(self, line: TextLine) -> TextLine:
        """A dead letter is UTF-8, whatever the encoding of the first run's items."""
        found = self._file.in_utf8(line)
        return found if found is not line and is_letter(found.text) else line

    def _from_text(self, line: TextLine) -> Entry:
        if self._is_guess and is_letter(line.text):
            reason = "a dead letter: --format jsonl reads it, --format lines takes it for text"
            return self._bad(line, reason, is_letter=True)
        fields = self._fields(line.text, line.number)
        return Item(fields, partial(_same, line.text), line.number, self._first)

    def _from_json(self, line: TextLine) -> Entry | None:
        try:
            value = parse_json(line.text)
        except json.JSONDecodeError as error:
            return self._bad(line, f"not JSON: {error.msg}", error.colno)
        except _NotFinite as error:
            return self._bad(line, safe_str(error), _place_of_constant(line.text) + 1)
        except (ValueError, RecursionError) as error:  # also a number of too many digits
            return self._bad(line, safe_str(error))
        return self._from_value(line, value)

    def _read_json(self) -> Iterator[Entry]:
        """The elements of one array, numbered from 1."""
        text = self._file.rest(LONGEST_JSON)
        if not text.strip():
            return
        try:
            values = parse_json(text)
        except json.JSONDecodeError as error:
            hint = "; --format jsonl reads JSON lines" if error.msg == "Extra data" else ""
            where = self._file.where(error.lineno, error.colno)
            raise BadLine(where, f"not JSON: {error.msg}{hint}") from error
        except (ValueError, RecursionError) as error:
            place = _place_of_fault(text, error)
            number, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
            raise BadLine(self._file.where(number, column), safe_str(error)) from error
        if not isinstance(values, list):
            hint = "must be an array of items; --format jsonl reads JSON lines"
            raise BadLine(self._file.where(1), hint)
        self._counted = len(values) if self._shard.is_whole else None
        for number, value in enumerate(values, 1):
            entry = self._from_value(TextLine(number, json.dumps(value)), value)
            if entry is not None:
                yield entry
            else:
                self._left_out += 1

    def _from_value(self, line: TextLine, value: Any) -> Entry | None:
        if isinstance(value, dict) and value.keys() >= set(LETTER_KEYS):
            return self._from_letter(line, value)
        if self._key != "id" and (not isinstance(value, dict) or self._key not in value):
            return self._bad(line, f"has no field {safe_repr(self._key)}, which --key asks for")
        fields, again = self._fields(value, line.number), partial(_parsed, line.text)
        return Item(fields, again, line.number, self._first, own_id=self._own_id(value))

    def _from_letter(self, line: TextLine, letter: dict[str, Any]) -> Entry | None:
        """An item of an earlier run: it continues at the stage it failed in, if it can.

        ``None`` if it starts over already, because of another that was made from it.
        """
        origin, stage = letter["input"], letter["stage"]
        if stage is None:
            reason = f"a line that could not be read before: {safe_str(letter['error'])}"
            return self._bad(line, reason, is_letter=True)
        names = [known.name for known in self._pipeline.stages]
        if stage not in names:
            known = ", ".join(map(repr, names)) + did_you_mean(stage, names)
            reason = f"stage {safe_repr(stage)} not found; the stages are {known}"
            return self._bad(line, reason, is_letter=True)
        fields = {"id": letter["id"], "value": origin}
        fate = ORDINARY
        if (text := letter.get("accepted")) is not None:
            if (accepted := ACCEPTED.fullmatch(safe_str(text))) is None:
                reason = f'"accepted": {safe_repr(text)}: must be a run and a place, as in "3f:6"'
                return self._bad(line, reason, is_letter=True)
            place = tuple(map(int, accepted["place"].split(".")))
            if letter["restart"] and len(place) > 1:
                # It was made from another, which starts over as it did the first time.
                place = place[:1]
                if (parent := (accepted["run"], place[0])) in self._restarted:
                    return None
                self._restarted.add(parent)
            fate = Fate(scope=accepted["run"], place=place)
        made = letter.get("made", 0)
        if type(made) is not int or made < 0:
            reason = f'"made": {safe_repr(made)}: must be a whole number of 0 or more'
            return self._bad(line, reason, is_letter=True)
        again = partial(_parsed_letter, line.text)
        own_id = self._own_id(origin) if len(fate.place or ()) < 2 else None  # children have none
        if letter["restart"]:
            return Item(fields, again, line.number, self._first, fate, own_id)
        fate = fate._replace(children=made)
        fields = fields | {"value": letter["value"]}
        return Item(fields, again, line.number, stage, fate, own_id, letter.get("origin"))

    def _read_csv(self) -> Iterator[Entry]:
        csv.field_size_limit(LONGEST_LINE)
        lines = _CsvLines(self._file.lines())
        said = lines.said_delimiter()
        delimiter = self._delimiter or said or lines.delimiter()
        rows = csv.reader(lines, strict=True, delimiter=delimiter)
        header: list[str] = []
        while True:
            number = lines.number + 1
            row: list[str] | None = []
            reason = ""
            try:
                row = next(rows, None)
            except csv.Error as error:
                reason = f"not CSV: {_fault_of_csv(error)}"
            except _CutShort:
                pass
            line, broken = lines.taken(number)
            column = 1
            if not reason and broken is not None:
                line = line._replace(number=broken.number)
                reason, column = broken.fault, broken.column
            if not reason and header and row and len(row) != len(header):
                reason = f"has {counted(len(row), 'field')}; the header has {len(header):,}"
            if reason:
                bad = self._bad(line, reason, column)
                if not header:  # else the row below it would be taken for it
                    raise bad
                yield bad
            elif row is None:
                return
            elif not header:
                header = self._checked_header(line, row, delimiter)
            elif row:
                record = dict(zip(header, row, strict=True))
                again = partial(_copies, tuple(record.items()))
                fields, own_id = self._fields(record, number), self._own_id(record)
                yield Item(fields, again, number, self._first, own_id=own_id)

    def _checked_header(self, line: TextLine, names: list[str], delimiter: str) -> list[str]:
        unnamed = [number for number, name in enumerate(names, 1) if not name.strip()]
        if names and len(unnamed) == len(names):
            raise self._bad(line, "the header is blank: it must have a name for each column")
        if unnamed:
            where = f", after the last {delimiter!r}," if unnamed == [len(names)] else ""
            reason = f"column {unnamed[0]} of the header{where} has no name: give it one"
            raise self._bad(line, reason)
        if (twice := next((name for name, n in Counter(names).items() if n > 1), None)) is not None:
            one, other, *_ = (number for number, name in enumerate(names, 1) if name == twice)
            both = f"columns {one} and {other} of the header are both named"
            raise self._bad(line, f"{both} {safe_repr(twice)}")
        if self._key != "id" and self._key not in names:
            raise self._bad(line, f"no column is named {safe_repr(self._key)}, as --key asks for")
        return names

    def _fields(self, origin: Any, number: int) -> dict[str, Any]:
        """The keys of an item for a value in a file; see `Pipeline.run`."""
        item_id = self._own_id(origin)
        if item_id is None:
            item_id = number if self._id_of is None else self._id_of(origin)
        return {"id": item_id, "value": origin}

    def _own_id(self, origin: Any) -> Any:
        """The id in a value in a file, or ``None``; an empty cell of CSV is none."""
        found = origin.get(self._key) if isinstance(origin, dict) else None
        return None if found == "" and self._format == "csv" else found

    def _bad(
        self, line: TextLine, reason: str, column: int = 1, is_letter: bool = False
    ) -> BadLine:
        where = self._file.where(line.number, column)
        return BadLine(where, reason, line.text, line.number, is_letter)


def _fault_of_csv(error: csv.Error) -> str:
    """What is wrong with a row; `csv` may say what is wrong with the program that reads it."""
    text = safe_str(error)
    ours = next((CSV_FAULTS[theirs] for theirs in CSV_FAULTS if text.startswith(theirs)), None)
    return text if ours is None else ours.format(LONGEST_LINE)


class _CsvLines:
    """Lines for `csv.reader`, also those that are not text: their quotes count all the same.

    If it did not read these, the rest of a row of several lines would be taken for rows.
    """

    def __init__(self, lines: Iterator[TextLine]) -> None:
        self._lines = lines
        self._row: list[TextLine] = []
        self.line = TextLine(0, "")

    @property
    def number(self) -> int:
        return self.line.number

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        self.line = next(self._lines)
        self._row.append(self.line)
        if not self.line.is_whole:
            raise _CutShort
        return self.line.text + self.line.end

    def said_delimiter(self) -> str | None:
        """The delimiter in a first line like ``sep=;``, which is no header: it is taken off."""
        first = next(self._lines, None)
        if first is None:
            return None
        if (found := SAID_DELIMITER.fullmatch(first.text)) is not None:
            self.line = first
            return found[1]
        self._lines = chain([first], self._lines)
        return None

    def delimiter(self) -> str:
        """What stands between the columns, judged by the header, which is still to be read."""
        begin: list[TextLine] = []
        for line in self._lines:
            begin.append(line)
            if line.text:
                break
        self._lines = chain(begin, self._lines)
        if not begin:
            return ","
        first = begin[-1]
        unquoted = re.sub('"[^"]*"?', "", first.text)
        found = max(DELIMITERS, key=unquoted.count)
        return found if found in unquoted else ","

    def taken(self, number: int) -> tuple[TextLine, TextLine | None]:
        """The lines since the last call, a row that began at line ``number``, as one.

        With it comes the first of them that is not text, if there is one.
        """
        text = "".join(line.text + line.end for line in self._row)
        broken = next((line for line in self._row if line.fault), None)
        self._row.clear()
        return TextLine(number, text.removesuffix("\n").removesuffix("\r")), broken


class _CutShort(Exception):
    pass


class _NotFinite(ValueError):
    pass


def _same(text: str) -> tuple[Any, Any]:
    return text, text


def _parsed(text: str) -> tuple[Any, Any]:
    value = parse_json(text)
    return value, value


def _parsed_letter(text: str) -> tuple[Any, Any]:
    letter = parse_json(text)
    return letter["input" if letter["restart"] else "value"], letter["input"]


def _copies(cells: tuple[tuple[str, str], ...]) -> tuple[Any, Any]:
    record = dict(cells)
    return record, record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"key {safe_repr(twice)} appears twice in one object")
    return found


def _refuse_constant(text: str) -> None:
    raise _NotFinite(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError(f"{safe_repr(text)} is too large a number")
    return number


DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
)
parse_json: Callable[[str], Any] = DECODER.decode


def _place_of_constant(text: str, begin: int = 0) -> int:
    found = (match.start() for match in CONSTANTS.finditer(text, begin) if match[1])
    return next(found, begin)


def _place_of_fault(text: str, fault: Exception) -> int:
    """Where the element of an array begins that raised this, though it is JSON.

    For a constant, like NaN, where that is.
    """
    begin = _after_space(text, 0)
    if text.startswith("[", begin):
        with suppress(ValueError, RecursionError):
            while True:
                begin = _after_space(text, begin + 1)
                _, end = DECODER.raw_decode(text, begin)
                begin = text.index(",", end)  # the only thing behind it but space
    return _place_of_constant(text, begin) if isinstance(fault, _NotFinite) else begin


def _after_space(text: str, begin: int) -> int:
    found = NO_SPACE.search(text, begin)
    return len(text) if found is None else found.start()
