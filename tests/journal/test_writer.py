"""The thread that writes a journal's rows."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from antflow.journal import writer as writer_module
from antflow.journal.file import JournalConnection, connect_again, open_for_writing
from antflow.journal.schema import RESULT, SCHEMA
from antflow.journal.writer import WriterThread

pytestmark = pytest.mark.real_time


class Commits:
    """Commits that wait until they are allowed.

    Attributes:
        begun: Released by each commit that begins.
        allowed: Acquired by each commit before it goes on.
    """

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)

    def connect(self, connection: JournalConnection) -> JournalConnection:
        """Another connection, whose commits wait."""
        commits = self

        class Slow(JournalConnection):
            def execute(self, statement: str, *args: Any) -> sqlite3.Cursor:
                if statement == "COMMIT":
                    commits.begun.release()
                    commits.allowed.acquire()
                return super().execute(statement, *args)

        other = connect_again(connection, "process")
        other.__class__ = Slow
        return other


@contextmanager
def opened(path: Path) -> Iterator[JournalConnection]:
    connection = open_for_writing(path)
    try:
        for statement in SCHEMA:
            connection.execute(statement)
        yield connection
    finally:
        connection.close()


def test_nothing_is_told_to_be_committed_before_it_is(tmp_path: Path) -> None:
    """A row that comes during a commit belongs to the next one, and so does what waits for it."""

    async def main(connection: JournalConnection) -> None:
        commits = Commits()
        writer = WriterThread(lambda: commits.connect(connection), 0, print, True, lambda: None)
        put = writer.put
        put(RESULT, (1, 1, "a", 1, 0.0, 1))
        first = asyncio.ensure_future(writer.durable() or asyncio.sleep(0))
        await asyncio.to_thread(commits.begun.acquire)
        put(RESULT, (2, 1, "b", 1, 0.0, 1))
        second = asyncio.ensure_future(writer.durable() or asyncio.sleep(0))
        await asyncio.sleep(0.02)
        assert not first.done()
        commits.allowed.release()
        await first
        await asyncio.to_thread(commits.begun.acquire)
        await asyncio.sleep(0.02)
        assert not second.done()
        assert connection.execute("SELECT value FROM results").fetchall() == [("a",)]
        commits.allowed.release()
        await second
        assert connection.execute("SELECT value FROM results").fetchall() == [("a",), ("b",)]
        assert writer.durable() is None
        await (writer.end() or asyncio.sleep(0))

    with opened(tmp_path / "run.db") as connection:
        asyncio.run(main(connection))


def test_rows_of_one_moment_share_a_commit(tmp_path: Path) -> None:
    """A thousand rows that come during a commit are the next one."""

    async def main(connection: JournalConnection) -> None:
        commits = Commits()
        writer = WriterThread(lambda: commits.connect(connection), 0, print, True, lambda: None)
        writer.put(RESULT, (0, 1, "a", 1, 0.0, 1))
        await asyncio.to_thread(commits.begun.acquire)
        for number in range(1, 1001):
            writer.put(RESULT, (number, 1, "a", 1, 0.0, 1))
        commits.allowed.release(2)
        await (writer.durable() or asyncio.sleep(0))
        await (writer.end() or asyncio.sleep(0))
        assert connection.execute("SELECT count(*) FROM results").fetchone() == (1001,)

    with opened(tmp_path / "run.db") as connection:
        asyncio.run(main(connection))


def test_rows_gather_until_something_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then they are committed at once, all together."""
    monkeypatch.setattr(writer_module, "GATHERING", 60.0)

    async def main(connection: JournalConnection) -> None:
        commits = Commits()
        commits.allowed.release(9)
        writer = WriterThread(lambda: commits.connect(connection), 9, print, True, lambda: None)
        for number in range(3):
            writer.put(RESULT, (number, 1, "a", 1, 0.0, 1))
            assert writer.durable() is None
            await asyncio.sleep(0.02)
        assert not commits.begun.acquire(blocking=False)
        async with asyncio.timeout(10):
            await (writer.durable(0) or asyncio.sleep(0))
        assert commits.begun.acquire(blocking=False)
        assert connection.execute("SELECT count(*) FROM results").fetchone() == (3,)
        writer.put(RESULT, (3, 1, "a", 1, 0.0, 1))
        async with asyncio.timeout(10):
            await (writer.end() or asyncio.sleep(0))
        assert connection.execute("SELECT count(*) FROM results").fetchone() == (4,)

    with opened(tmp_path / "run.db") as connection:
        asyncio.run(main(connection))


def test_a_commit_for_which_nothing_waits_does_not_wake_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that is woken early sleeps longer afterwards, and timers are late."""
    woken: list[str] = []

    async def main(connection: JournalConnection) -> None:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe

        def noted(callback: Any, *args: Any) -> Any:
            woken.append(callback.__module__)
            return wake(callback, *args)

        monkeypatch.setattr(loop, "call_soon_threadsafe", noted)
        opens = partial(connect_again, connection, "process")
        writer = WriterThread(opens, 9, print, True, lambda: None)
        writer.put(RESULT, (1, 1, "a", 1, 0.0, 1))
        async with asyncio.timeout(10):
            while writer.waiting:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.02)
        assert writer_module.__name__ not in woken
        await (writer.end() or asyncio.sleep(0))
        assert writer_module.__name__ in woken

    with opened(tmp_path / "run.db") as connection:
        asyncio.run(main(connection))
