"""The file of a journal gives back what is removed, and its WAL does not grow without bound."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.journal import Journal
from antflow.journal.pruning import prune
from antflow.journal.reader import AT_A_TIME, JournalReader
from antflow.testing import run_virtual


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def run(path: Path, count: int, fails: bool = False) -> None:
    async def get(number: int) -> str:
        if fails and number % 2:
            raise ValueError("odd")
        return f"{number}" * 100

    stages = [Stage("Get", 2, [get], task_attempts=1), Stage("Put", 2, [len])]
    items = [{"id": f"{path.name} {n}", "value": n} for n in range(count)]
    pipeline = Pipeline[Any, Any](stages)
    run_virtual(pipeline.run(items, journal=path, on_failures="ignore"), max_steps=10_000_000)


def test_a_journal_that_is_pruned_becomes_smaller(path: Path) -> None:
    """By all that was removed, not by a page."""
    run(path, 2_000)
    before = path.stat().st_size
    prune(str(path), 0, "runs")
    without_results = path.stat().st_size
    prune(str(path), 0, "runs", items=True)
    assert before > 1_000_000
    assert without_results < 0.6 * before
    assert path.stat().st_size < 0.1 * before


WAYS = ["results", "failed", "unfinished", "ids"]


@pytest.mark.parametrize("way", WAYS)
def test_a_reader_that_takes_its_time_does_not_hold_up_the_wal(way: str, path: Path) -> None:
    """Between two items, all of it can be written back: SQLite says so."""
    run(path, 20, fails=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("DELETE FROM outcomes WHERE item IN (3, 4)")
        with Journal.open(path) as reader:
            some = iter(getattr(reader, way)())
            next(some)
            writer.execute("DELETE FROM outcomes WHERE item = 5")
            busy, *_ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert busy == 0
            assert [*some]


def test_many_items_are_read_some_at_a_time(path: Path) -> None:
    """Each once, in order, and none that came after the first."""
    count = 2 * AT_A_TIME + 3
    run(path, count)

    def ids(reader: JournalReader) -> list[Any]:
        return [item for item, _ in reader.ids()]

    with Journal.open(path) as reader:
        assert ids(reader) == [f"run.db {n}" for n in range(count)]
        some = reader.ids()
        next(some)
        with closing(sqlite3.connect(path)) as writer, writer:
            writer.execute(
                "INSERT INTO items SELECT item + 10000, 'new ' || item, root, branch, stage, "
                "input, input_hash, run, crc FROM items"
            )
        assert len([*some]) == count - 1
