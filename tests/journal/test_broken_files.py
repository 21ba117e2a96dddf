"""Journals whose file is damaged, or ends in the middle."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from antflow import Drop, Pipeline, Stage
from antflow.exceptions import JournalError
from antflow.testing import run_virtual
from tests.journal.crashing import Crashes, remove, rows_of, watched
from tests.journal.test_resuming import Calls

WAL_HEADER, FRAME_HEADER, PAGE = 32, 24, 4096
TABLES = ("items", "results", "outcomes")


def stages(calls: Calls) -> list[Stage]:
    """Stages in which everything happens that a journal keeps."""

    def put(number: int) -> Any:
        if number % 7 == 3:
            raise ValueError(number)
        return Drop if number % 5 == 0 else number

    split = calls.task("Split", lambda n: [n * 10 + i for i in range(n % 3)])
    return [
        Stage("Get", 2, [calls.task("Get", lambda n: n + 1)]),
        Stage("Split", 2, [split], expand=True),
        Stage("Put", 2, [calls.task("Put", put)], task_attempts=1),
    ]


def outcome(path: Path, calls: Calls, count: int = 40) -> tuple[Any, ...]:
    """Run the stages over the same items as always; return what came of them."""

    async def main() -> Any:
        pipeline = Pipeline[Any, Any](stages(calls))
        return await pipeline.run(range(count), journal=path, on_failures="ignore")

    results = run_virtual(main)
    failed = Counter(str(each.error) for each in results.failed)
    return Counter(results.values()), failed, results.stats.items_dropped


def test_no_changed_bit_goes_unnoticed(tmp_path: Path) -> None:
    """Of 400, each is an error of the journal, or changes nothing: not even what is run again."""
    path, broken = tmp_path / "run.db", tmp_path / "broken.db"
    expected = outcome(path, Calls())
    data, choose = path.read_bytes(), random.Random(1)
    noticed = 0
    for _ in range(400):
        bit = choose.randrange(8 * len(data))
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        remove(broken)
        broken.write_bytes(changed)
        calls = Calls()
        try:
            assert outcome(broken, calls) == expected, f"bit {bit}"
            assert not calls.made, f"bit {bit}"
        except JournalError:
            noticed += 1
    assert noticed > 40


def counted(path: Path, calls: Calls) -> tuple[Any, ...]:
    """Run stages that keep no results; return what they count."""

    def put(number: int) -> Any:
        return Drop if number % 9 == 4 else number

    async def main() -> Any:
        parts = [Stage("Get", 9, [calls.task("Get")]), Stage("Put", 9, [calls.task("Put", put)])]
        pipeline = Pipeline[Any, Any](parts, collect_results=False)
        return await pipeline.run(range(80), journal=path, key=lambda number: number)

    stats = run_virtual(main).stats
    return stats.items_processed, stats.items_dropped


def test_no_changed_bit_goes_unnoticed_where_items_are_only_counted(tmp_path: Path) -> None:
    """Of 400, each is an error of the journal, or changes nothing."""
    path, broken = tmp_path / "run.db", tmp_path / "broken.db"
    expected = counted(path, Calls())
    data, choose = path.read_bytes(), random.Random(1)
    noticed = 0
    for _ in range(400):
        bit = choose.randrange(8 * len(data))
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        remove(broken)
        broken.write_bytes(changed)
        calls = Calls()
        try:
            assert counted(broken, calls) == expected, f"bit {bit}"
            assert not calls.made, f"bit {bit}"
        except JournalError:
            noticed += 1
    assert noticed > 40


@pytest.fixture
def crashes(tmp_path: Path) -> Crashes:
    """A journal that was not closed."""
    crashes = Crashes(tmp_path / "run.db")
    with watched(crashes):
        outcome(crashes.path, Calls(), 12)
    return crashes


def rows(path: Path) -> list[Any]:
    return [rows_of(path, f"SELECT * FROM {table}") for table in TABLES]


def test_of_a_wal_that_ends_anywhere_all_that_was_committed_before_is_left(
    crashes: Crashes, tmp_path: Path
) -> None:
    """Cut after each frame and at random bytes: the state is that of the last whole commit."""
    path = tmp_path / "cut.db"
    states = []
    for number in range(len(crashes.ends)):
        crashes.restore(number, path)
        states.append(rows(path))
    frames = range(crashes.ends[0], len(crashes.wal) + 1, FRAME_HEADER + PAGE)
    choose = random.Random(1)
    anywhere = [choose.randrange(crashes.ends[0], len(crashes.wal)) for _ in range(100)]
    for length in (*frames, *anywhere):
        crashes.restore_wal(crashes.wal[:length], path)
        last = sum(end <= length for end in crashes.ends) - 1
        assert rows(path) == states[last]


def test_a_run_goes_on_from_a_wal_that_ends_anywhere(crashes: Crashes, tmp_path: Path) -> None:
    """Even one that ends before the tables were made, or has a changed bit."""
    path, choose = tmp_path / "cut.db", random.Random(2)
    expected = outcome(tmp_path / "other.db", Calls(), 12)
    for _ in range(30):
        crashes.restore_wal(crashes.wal[: choose.randrange(len(crashes.wal))], path)
        assert outcome(path, Calls(), 12) == expected
    for _ in range(30):
        changed = bytearray(crashes.wal)
        changed[choose.randrange(len(changed))] ^= 1 << choose.randrange(8)
        crashes.restore_wal(bytes(changed), path)
        assert outcome(path, Calls(), 12) == expected
