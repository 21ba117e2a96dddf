"""`Journal.open`: reading a journal, also while a run writes it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from antflow import Drop, Pipeline, Stage
from antflow.exceptions import (
    JournalCorruptError,
    JournalError,
    JournalOpenError,
    JournalVersionError,
)
from antflow.journal import Journal
from tests.journal.crashing import change


async def get(number: int) -> int:
    if number == 3:
        raise ValueError("no 3")
    return number + 1


async def put(number: int) -> Any:
    if number == 8:
        raise OSError("the disk is away")
    return Drop if number == 6 else number * 10


def stages() -> list[Stage]:
    return [Stage("Get", 2, [get], task_attempts=1), Stage("Put", 2, [put], task_attempts=1)]


def run(path: Any, items: Any, stages: list[Stage], **options: Any) -> None:
    async def main() -> None:
        pipeline = Pipeline[Any, Any](stages, name="numbers")
        await pipeline.run(items, journal=Journal(path, **options), on_failures="ignore")

    asyncio.run(main())


@pytest.fixture
def journal(new_journal: Callable[[], Any]) -> Any:
    path = new_journal()
    run(path, [{"id": f"n{n}", "value": n} for n in range(9)], stages())
    return path


def test_results_and_failures_are_read_as_they_were(journal: Any) -> None:
    """Ids, values, stages, attempts and inputs come back; of failures type, text and place too."""
    with Journal.open(journal) as reader:
        results = {each.id: each for each in reader.results()}
        failed = {each.id: each for each in reader.failed()}
    assert {each: results[each].value for each in results} == {
        f"n{n}": (n + 1) * 10 for n in (0, 1, 2, 4, 6, 8)
    }
    one = results["n4"]
    assert (one.stage, one.attempts, one.input, one.outcome) == (
        *("Put", 1, {"id": "n4", "value": 4}, "completed"),
    )
    assert [(each.id, each.stage, each.value, str(each.error)) for each in failed.values()] == [
        ("n3", "Get", {"id": "n3", "value": 3}, "no 3"),
        ("n7", "Put", 8, "the disk is away"),
    ]
    assert type(failed["n7"].error).__name__ == "OSError"
    assert "test_reader.py:" in failed["n7"].location


def test_a_journal_is_summed_up(journal: Any) -> None:
    """Its numbers, its failures and its runs."""
    run(journal, [{"id": "n3", "value": 3}, {"id": "m", "value": 1}], stages())
    with Journal.open(journal) as reader:
        info, summary, runs = reader.info, reader.error_summary(), reader.runs()
        old = reader.error_summary(before=runs[1].run_id)
        assert reader.error_summary(before=runs[0].run_id).total_failed == 0
    assert (info.items, info.made, info.in_flight, info.runs) == (10, 0, 0, 2)
    assert info.outcomes == {"completed": 7, "failed": 2, "dropped": 1}
    assert info.stages == ("Get", "Put")
    assert info.size_bytes > 10_000
    assert "10 items in 2 runs" in str(info)
    assert summary.errors_by_type == {"ValueError": 1, "OSError": 1} == old.errors_by_type
    assert summary.errors_by_stage == {"Get": 1, "Put": 1}
    first, second = runs
    assert (first.pipeline, first.how, second.outcomes) == ("numbers", "finished", {"completed": 1})
    assert first.ended is not None
    assert first.started <= first.ended <= second.started


def test_children_are_read_with_their_ids(new_journal: Callable[[], Any]) -> None:
    """Items that were made in the last stage are completed; one whose parent goes on is not."""
    path = new_journal()

    async def split(number: int) -> list[int]:
        return [number * 10, number * 10 + 1]

    run(path, [{"id": "a", "value": 1}], [Stage("Split", 1, [split], expand=True)])
    with Journal.open(path) as reader:
        assert [(each.id, each.value) for each in reader.results()] == [("a/0", 10), ("a/1", 11)]
        assert reader.info.outcomes == {"expanded": 1, "completed": 2}
        assert (reader.info.made, reader.info.in_flight) == (2, 0)
        assert dict(reader.ids()) == {"a": "expanded", "a/0": "completed", "a/1": "completed"}


def test_a_journal_is_read_while_a_run_writes_it(new_journal: Callable[[], Any]) -> None:
    """What is committed is seen; the run is not held up."""
    path = new_journal()
    seen: list[tuple[int, int, Any]] = []

    async def look(number: int) -> int:
        if number == 5:
            with Journal.open(path) as reader:
                info = reader.info
                seen.append((len([*reader.results()]), info.in_flight, reader.runs()[0].ended))
        return number

    run(path, range(8), [Stage("Look", 1, [look])])
    [(completed, in_flight, ended)] = seen
    assert completed == 5
    assert in_flight >= 1
    assert ended is None


def test_what_is_wrong_with_a_journal_is_said(tmp_path: Path) -> None:
    """Another file, a newer one, one that is not there, one that was killed as it was made."""
    with pytest.raises(JournalOpenError, match="No such file"):
        Journal.open(tmp_path / "none.db")
    (tmp_path / "text").write_text("not a database, but long enough to be read as one" * 9)
    with pytest.raises(JournalOpenError, match="not an SQLite database"):
        Journal.open(tmp_path / "text")
    from antflow.journal.file import open_for_writing

    open_for_writing(tmp_path / "begun.db").close()
    with pytest.raises(JournalOpenError, match="is empty"):
        Journal.open(tmp_path / "begun.db")
    journal = tmp_path / "run.db"
    run(journal, [1], stages())
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalVersionError, match="a newer version"):
        Journal.open(journal)


@pytest.mark.parametrize("table", ["items", "outcomes", "results"])
def test_a_damaged_row_is_not_read_over(journal: Any, table: str) -> None:
    """A bit that has changed is noticed, with the table and the item; the others can be read."""
    column = "input" if table == "items" else "value"
    where = "item = 8" if table == "results" else "item = 5"
    change(journal, f"UPDATE {table} SET {column} = '77' WHERE {where}")
    told = f"a row of the table {table} is damaged"
    with Journal.open(journal) as reader, pytest.raises(JournalCorruptError, match=told):
        assert [*reader.results(), *reader.failed()]


def test_pickles_are_only_read_if_they_are_trusted(tmp_path: Path) -> None:
    """The codec must be asked for; counts and failures can be read without."""
    path = tmp_path / "run.db"
    tmp_path.chmod(0o700)
    run(path, range(4), stages(), codec="pickle", trusted=True)
    with Journal.open(path) as reader:
        assert reader.info.outcomes == {"completed": 3, "failed": 1}
        assert reader.error_summary().total_failed == 1
        with pytest.raises(JournalError, match="its values are kept as pickle"):
            next(reader.results())
    with Journal.open(path, codec="pickle", trusted=True) as reader:
        assert sorted(each.value for each in reader.results()) == [10, 20, 30]


def test_failed_items_are_retried_by_the_names_of_their_errors(journal: Any) -> None:
    """A name stands for its class and those derived from it, alone or with its module."""

    async def fine(number: int) -> int:
        return number

    def retry(*names: str) -> set[str]:
        items = [{"id": f"n{n}", "value": n} for n in (3, 7)]
        new = [Stage("Get", 2, [fine], task_attempts=1), Stage("Put", 2, [fine], task_attempts=1)]
        run(journal, items, new, retry_failed=names)
        with Journal.open(journal) as reader:
            return {each.id for each in reader.failed()}

    assert retry("KeyError", "other.OSError") == {"n3", "n7"}
    assert retry("builtins.OSError") == {"n3"}
    assert retry("Exception") == set()
    refused: list[Any] = ["not a name", ("KeyError", 5), ()]
    for wrong in refused:
        with pytest.raises(TypeError, match="exception classes or their names"):
            Journal(journal, retry_failed=wrong)
