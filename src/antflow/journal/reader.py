"""Reads a journal: what is in it, how items ended, and which runs there were."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from antflow._core.errors import (
    ItemCancelled,
    JournalCorruptError,
    JournalError,
    JournalOpenError,
)
from antflow._core.failures import FailureBook
from antflow._core.result import PipelineResult
from antflow._core.snapshot import ErrorSummary
from antflow._core.text import counted
from antflow.journal.cells import Cell, value_of
from antflow.journal.codec import Codec
from antflow.journal.databases import journal_name, open_for_reading
from antflow.journal.file import told_as
from antflow.journal.item_keys import id_of_key
from antflow.journal.kept_errors import read_error
from antflow.journal.recall import ItemRow
from antflow.journal.schema import is_sound
from antflow.journal.stage_code import FORMS
from antflow.journal.stage_lines import StageLines

__all__ = ["JournalInfo", "JournalReader", "JournalRun"]

AT_A_TIME = 500
"""Items that are read with one query."""

PENDING = "outcomes.item IS NULL AND NOT (items.root IS NOT NULL AND items.stage IN ({last}))"
PENDING_MADE = (
    "EXISTS (SELECT 1 FROM items AS made LEFT JOIN outcomes AS ended ON ended.item = made.item "
    "WHERE made.root = items.item AND ended.item IS NULL AND made.stage NOT IN ({last}))"
)
MADE_LAST = "outcomes.item IS NULL AND items.root IS NOT NULL AND items.stage IN ({last})"
COMPLETED = f"outcomes.outcome = 'completed' OR ({MADE_LAST})"
JOINED = "FROM items LEFT JOIN outcomes ON outcomes.item = items.item"


@dataclass(frozen=True, slots=True)
class JournalRun:
    """A run that kept a journal.

    Attributes:
        run_id: Its id, as in results and events.
        pipeline: The name of its pipeline.
        started: When it began, in Unix seconds.
        ended: When it ended; ``None``: it is under way, or its program was killed.
        how: How it ended: "finished", "stopped", "cancelled" or "failed"; ``None`` as above.
        error: What ended it, if an error did.
        outcomes: Outcome → how many items have it from this run.
        host: The machine.
        pid: The process.
        version: The version of the library.
    """

    run_id: str
    pipeline: str
    started: float
    ended: float | None
    how: str | None
    error: str | None
    outcomes: dict[str, int]
    host: str
    pid: int
    version: str


@dataclass(frozen=True, slots=True)
class JournalInfo:
    """A journal in numbers.

    Attributes:
        path: The file.
        journal_id: What its idempotency keys are unique in.
        codec: How values are kept.
        created: When it was made, in Unix seconds.
        size_bytes: The size of its files.
        runs: How many runs kept it.
        stages: Names of the stages.
        items: How many items were fed.
        made: How many items were made from others.
        outcomes: Outcome → how many items ended so.
        in_flight: How many items are accepted and have no outcome: the next run resumes them.
        code_forms: Stage → how many forms its source had in these runs, if more than one. Results
            of all of them are used.
    """

    path: str
    journal_id: str
    codec: str
    created: float
    size_bytes: int
    runs: int
    stages: tuple[str, ...]
    items: int
    made: int
    outcomes: dict[str, int]
    in_flight: int
    code_forms: dict[str, int] = field(default_factory=dict[str, int])

    def __str__(self) -> str:
        counts = [f"{count:,} {outcome}" for outcome, count in self.outcomes.items()]
        counts.append(f"{self.in_flight:,} in flight")
        made = f" and {self.made:,} made from them" if self.made else ""
        return "\n".join(
            (
                f"journal {self.path}: {counted(self.items, 'item')}{made} in "
                f"{counted(self.runs, 'run')}, {self.size_bytes / 1e6:,.1f} MB",
                f"stages: {', '.join(self.stages)}",
                ", ".join(counts),
                *(
                    f"the code of {stage} had {forms} forms; results of all of them are used"
                    for stage, forms in self.code_forms.items()
                ),
            )
        )


class JournalReader:
    """A journal opened for reading, even while a run writes it: see `Journal.open`.

    Use it in a ``with`` block, or call `close`. Each row is checked as it is read.

    Args:
        path: The file.
        codec: Makes values of what is kept.

    Attributes:
        path: The file.

    Raises:
        JournalOpenError: There is no such file, it is something else, or it cannot be read.
        JournalVersionError: A newer version of the library has written it.
        JournalCorruptError: SQLite finds it damaged.
    """

    def __init__(self, path: str | os.PathLike[str], codec: Codec) -> None:
        self.path: str = journal_name(path)
        self._codec = codec
        self._connection = open_for_reading(path)
        try:
            with told_as(self.path):
                if codec.name == "pickle":
                    self._connection.refuse_untrusted()
                if self._connection.is_new():  # killed as it was made
                    raise JournalOpenError(f"journal {self.path!r}: it is empty")
            found = self._rows("SELECT id, codec, created FROM journal")
        except BaseException:
            self._connection.close()
            raise
        self._id, self._kept_as, self._created = found[0]

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it. Does nothing if it is closed."""
        self._connection.close()

    def __repr__(self) -> str:
        return f"JournalReader({self.path!r})"

    @property
    def info(self) -> JournalInfo:
        """The journal in numbers, as it is now."""
        outcomes = dict(self._rows("SELECT outcome, count(*) FROM outcomes GROUP BY outcome"))
        lines = self._lines()
        made_last, pending = (
            self._count(f"SELECT count(*) {JOINED} WHERE {which}", lines)
            for which in (MADE_LAST, PENDING)
        )
        if made_last:
            outcomes["completed"] = outcomes.get("completed", 0) + made_last
        return JournalInfo(
            path=self.path,
            journal_id=self._id,
            codec=self._kept_as,
            created=self._created,
            size_bytes=self._size(),
            runs=self._count("SELECT count(*) FROM runs"),
            stages=tuple(lines.names()),
            items=self._count("SELECT count(*) FROM items WHERE root IS NULL"),
            made=self._count("SELECT count(*) FROM items WHERE root IS NOT NULL"),
            outcomes=outcomes,
            in_flight=pending,
            code_forms=dict(self._rows(FORMS)) if self._connection.has_table("code") else {},
        )

    def results(self) -> Iterator[PipelineResult[Any]]:
        """The results of items that were completed, in the order in which items were accepted.

        Each has the id, value, stage, attempts and input that it had in its run, and as its
        ``sequence_id`` its number in the journal. Items that are accepted after this has begun are
        not among them.

        Raises:
            JournalCorruptError: A row is damaged.
            JournalError: The values are kept with another codec.
            NotRestorable: A value cannot be read back.
        """
        lines = self._lines()
        for item, outcome in self._joined(COMPLETED, lines):
            if outcome is None:
                yield self._result(item, lines, item.stage, item.input, 1)
            else:
                yield self._result(item, lines, outcome[2], outcome[3], outcome[4])

    def failed(self) -> Iterator[PipelineResult[Any]]:
        """The results of items that failed, in the order in which items were accepted.

        Each has as its value what entered the stage in which it failed, and as its ``error`` a
        stand-in: of a class of the same name, with the text and the place of the error.

        Raises:
            JournalCorruptError: As in `results`, and so are the others.
        """
        lines = self._lines()
        for item, (_, _, stage, _, attempts, _, error, *_) in self._failures(lines):
            entered = self._entered(item, lines.before(stage))
            result = self._result(item, lines, stage, entered, attempts)
            result.error = read_error(error).as_error()
            yield result

    def unfinished(self) -> Iterator[PipelineResult[Any]]:
        """The items that were fed and have not ended, in the order in which they were accepted.

        A run goes on with an item when it is fed again. Feed items from here if their source, such
        as a queue, no longer has them; give such items ids, as equal ones without ids cannot be
        told apart:

        ```python
        for result in reader.unfinished():
            await run.feed([result.input], result.stage)
        ```

        Each is told as cancelled. Its ``input`` is the item as it was fed, and its ``stage`` the
        one that it was fed to.

        Raises:
            JournalCorruptError: As in `results`, and so are the others.
        """
        lines = self._lines()
        for item, _ in self._joined(
            f"items.root IS NULL AND (({PENDING}) OR {PENDING_MADE})", lines
        ):
            result = self._result(item, lines, item.stage, item.input, 0)
            result.error = ItemCancelled("it has not ended yet")
            yield result

    def ids(self, *, fed_only: bool = False) -> Iterator[tuple[Any, str | None]]:
        """The id of each item, and its outcome; ``None`` if it has none.

        Args:
            fed_only: Leave out items that were made from others.

        Raises:
            JournalCorruptError: As in `results`.
        """
        lines = self._lines()
        which = "items.root IS NULL" if fed_only else "TRUE"
        for item, outcome in self._joined(which, lines):
            is_made_last = item.root is not None and item.stage in lines.last
            without = "completed" if is_made_last else None
            yield id_of_key(item.key), without if outcome is None else outcome[1]

    def error_summary(self, *, before: str | None = None, run: str | None = None) -> ErrorSummary:
        """A summary of the items that failed.

        Args:
            before: The id of a run: only those that had failed before it.
            run: The id of a run: only those that failed in it.

        Raises:
            JournalCorruptError: As in `results`.
        """
        book, lines = FailureBook(), self._lines()
        first = None if before is None else self._number(before)
        only = None if run is None else self._number(run)
        for item, (_, _, stage, _, attempts, _, error, at, number, _) in self._failures(lines):
            if (first is None or number < first) and only in (None, number):
                kept = read_error(error).as_error()
                given = self._value(item.input) if self._can_decode else None
                book.add(id_of_key(item.key), kept, lines.name(stage), attempts, at, given)
        return book.summary()

    def runs(self) -> list[JournalRun]:
        """The runs that kept it, in the order in which they began."""
        outcomes: dict[int, dict[str, int]] = {}
        counts = "SELECT run, outcome, count(*) FROM outcomes GROUP BY run, outcome"
        for run, outcome, count in self._rows(counts):
            outcomes.setdefault(run, {})[outcome] = count
        return [
            JournalRun(
                run_id=run_id,
                pipeline=pipeline,
                started=started,
                ended=ended,
                how=how,
                error=error,
                outcomes=outcomes.get(run, {}),
                host=host,
                pid=pid,
                version=version,
            )
            for run, run_id, pipeline, host, pid, version, started, ended, how, error in self._rows(
                "SELECT run, id, pipeline, host, pid, antflow, started, ended, how, error "
                "FROM runs ORDER BY run"
            )
        ]

    # Inside

    def _lines(self) -> StageLines:
        return StageLines(self._rows("SELECT * FROM stages"))

    def _failures(self, lines: StageLines) -> Iterator[tuple[ItemRow, Any]]:
        return self._joined("outcomes.outcome = 'failed'", lines)

    def _joined(
        self, which: str, lines: StageLines
    ) -> Iterator[tuple[ItemRow, tuple[Any, ...] | None]]:
        """Items with their outcomes, if they have one.

        Some are read at a time: while a query is open, nothing of the WAL can be used again, and a
        run would make it longer and longer.
        """
        columns = len(ItemRow._fields)
        query = (
            f"SELECT items.*, outcomes.* {JOINED} WHERE ({which}) AND items.item > ? "
            f"AND items.item <= ? ORDER BY items.item LIMIT {AT_A_TIME}"
        ).format(last=_listed(lines.last))
        [(last,)] = self._rows("SELECT max(item) FROM items")
        after = -1
        while rows := self._rows(query, after, last):
            for row in rows:
                item, outcome = row[:columns], row[columns:]
                self._check("items", item)
                if outcome[0] is not None:
                    self._check("outcomes", outcome)
                yield ItemRow(*item), None if outcome[0] is None else outcome
            after = rows[-1][0]

    def _entered(self, item: ItemRow, before: Sequence[int]) -> Any:
        """What entered a stage, as it is kept: what one of those before it returned, or the item.

        Args:
            item: The item.
            before: The numbers of the stages before it.
        """
        query = "SELECT * FROM results WHERE item = ?"
        found = {row[1]: row for row in self._rows(query, item.item)}
        for stage in reversed(before):
            if stage in found:
                self._check("results", found[stage])
                return found[stage][2]
        return item.input

    def _result(
        self, item: ItemRow, lines: StageLines, stage: int, value: Any, attempts: int
    ) -> PipelineResult[Any]:
        branch = tuple(map(int, item.branch.split("/"))) if item.branch else ()
        return PipelineResult(
            id=id_of_key(item.key),
            value=self._value(value),
            sequence_id=item.item,
            stage=lines.name(stage),
            attempts=attempts,
            input=self._value(item.input),
            branch=branch,
        )

    def _value(self, data: Cell | None) -> Any:
        if data is None:
            return None
        if not self._can_decode:
            raise JournalError(
                f"journal {self.path!r}: its values are kept as {self._kept_as}; "
                f"use codec={self._kept_as!r}"
            )
        return value_of(data, self._codec)

    @property
    def _can_decode(self) -> bool:
        return bool(self._kept_as == self._codec.name)

    def _number(self, run_id: str) -> int:
        found = self._rows("SELECT run FROM runs WHERE id = ?", run_id)
        return int(found[0][0]) if found else 0

    def _count(self, query: str, lines: StageLines | None = None) -> int:
        if lines is not None:
            query = query.format(last=_listed(lines.last))
        return int(self._rows(query)[0][0])

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with told_as(self.path):
            rows: list[tuple[Any, ...]] = self._connection.execute(query, values).fetchall()
        return rows

    def _size(self) -> int:
        with told_as(self.path):
            return self._connection.size()

    def _check(self, table: str, row: tuple[Any, ...]) -> None:
        if not is_sound(row):
            told = f"a row of the table {table} is damaged (item {row[0]})"
            raise JournalCorruptError(f"journal {self.path!r}: {told}")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
