"""Items that are fed by hand are in the journal when `feed` returns."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.exceptions import JournalError
from antflow.journal import Journal
from tests.journal.crashing import rows_of

PROGRAM = """
import asyncio, os, signal, sys
from antflow import Pipeline, Stage

path, most, way = sys.argv[1], int(sys.argv[2]), sys.argv[3]

async def hang(item):
    await asyncio.sleep(1000)

async def main():
    async with Pipeline([Stage("Hang", 2, [hang], queue_capacity=100)]).open(journal=path) as run:
        async def feed(number):
            items = [{"id": number, "value": -number}]
            async def later():
                yield items[0]
            await run.feed(later() if way == "async" else items)
            os.write(1, f"{number}\\n".encode())  # it is acknowledged
            if number == most:
                os.kill(os.getpid(), signal.SIGKILL)
        if way == "at once":
            await asyncio.gather(*map(feed, range(most + 1)))
        for number in range(most + 1):
            await feed(number)

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


@pytest.mark.process
@pytest.mark.parametrize("way", ["one by one", "at once", "async"])
@pytest.mark.parametrize("most", [0, 1, 40])
def test_what_was_fed_survives_a_kill_at_once(way: str, most: int, path: Path) -> None:
    """What `feed` has returned for is there, and can be fed again from the journal."""
    command = [sys.executable, "-c", PROGRAM, str(path), str(most), way]
    done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    acknowledged = {int(line) for line in done.stdout.split()}
    assert most in acknowledged
    with Journal.open(path) as reader:
        unfinished = [*reader.unfinished()]
    assert {each.id for each in unfinished} >= acknowledged
    assert {each.outcome for each in unfinished} == {"cancelled"}
    assert {each.stage for each in unfinished} == {"Hang"}

    async def again() -> list[int]:
        async with Pipeline([Stage("Hang", 2, [abs])]).open(journal=path) as run:
            for each in unfinished:
                await run.feed([each.input], each.stage)
        return run.results.values()

    assert {*asyncio.run(again())} >= acknowledged
    with Journal.open(path) as reader:
        assert [*reader.unfinished()] == []


def test_a_family_is_unfinished_while_a_part_of_it_is(path: Path) -> None:
    """It is fed again as the item that was fed."""

    async def put(number: int) -> int:
        if number == 1:
            await asyncio.sleep(1000)
        return number

    async def main() -> None:
        stages = [Stage("Split", 1, [lambda n: [n, n + 1]], expand=True), Stage("Put", 2, [put])]
        async with asyncio.timeout(0.3):
            await Pipeline[Any, Any](stages).run(
                [{"id": n, "value": n} for n in (0, 5)], journal=path
            )

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    with Journal.open(path) as reader:
        assert [(each.id, each.input) for each in reader.unfinished()] == [
            (0, {"id": 0, "value": 0})
        ]


def test_feed_waits_for_the_commit_and_run_does_not(path: Path) -> None:
    """While the journal is locked, what is fed by hand waits; with ``max_unflushed`` less does."""
    lock = sqlite3.connect(path, isolation_level=None)

    async def main(most: int, item: int) -> bool:
        journal = Journal(path, max_unflushed=most)
        pipeline = Pipeline[int, int]([Stage("Get", 1, [abs])])
        async with pipeline.open(journal=journal) as run:
            await run.feed([0])
            lock.execute("BEGIN IMMEDIATE")
            try:
                async with asyncio.timeout(0.2):
                    await run.feed([item])
                return False
            except TimeoutError:
                return True
            finally:
                lock.execute("ROLLBACK")

    try:
        assert asyncio.run(main(0, 1))
        assert not asyncio.run(main(100, 2))
    finally:
        lock.close()
    assert rows_of(path, "SELECT count(*) FROM outcomes") == [(3,)]


def test_feed_raises_when_the_journal_cannot_keep_the_items(path: Path) -> None:
    """It does not return as if they were kept."""

    async def main() -> None:
        pipeline = Pipeline[int, int]([Stage("Get", 1, [abs])])
        journal = Journal(path, on_error="fail")
        async with pipeline.open(journal=journal) as run:
            await run.feed([0])
            os.rename(path, f"{path}.moved")
            await run.feed([1])
            returned.append(1)

    returned: list[int] = []
    with pytest.raises(JournalError):
        asyncio.run(main())
    assert returned == []
