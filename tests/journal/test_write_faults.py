"""Journals that cannot be written: for a moment, for a while, or for ever."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, RunResults, Stage
from antflow.exceptions import JournalInUseError, JournalWriteError
from antflow.journal import Journal, store, writer
from antflow.journal.file import JournalConnection, connect_again
from tests.journal.crashing import rows_of
from tests.journal.test_resuming import Calls, run, two_stages

Fails = Callable[[int], bool]

pytestmark = pytest.mark.real_time


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def break_writes(patch: pytest.MonkeyPatch, fails: Fails) -> None:
    """Have the n-th statements of the writer, from 1, fail as on a full disk."""
    count = 0

    class Faulty(JournalConnection):
        def execute(self, *args: Any) -> sqlite3.Cursor:
            self._fail()
            return super().execute(*args)

        def executemany(self, *args: Any) -> sqlite3.Cursor:
            self._fail()
            return super().executemany(*args)

        def _fail(self) -> None:
            nonlocal count
            count += 1
            if fails(count):
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error

    def connect(*args: Any) -> JournalConnection:
        connection = connect_again(*args)
        connection.__class__ = Faulty
        return connection

    patch.setattr(store, "connect_again", connect)
    patch.setattr(writer, "FIRST_PAUSE", 0.001)


def assert_right(path: Path, items: int) -> None:
    """The journal has all of it, once."""
    assert rows_of(path, "SELECT count(*) FROM items") == [(items,)]
    assert rows_of(path, "SELECT count(*) FROM results") == [(items,)]
    completed = "SELECT count(*), min(outcome), max(outcome) FROM outcomes"
    assert rows_of(path, completed) == [(items, "completed", "completed")]
    assert rows_of(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("max_unflushed", [0, 1000])
def test_a_run_goes_on_when_any_statement_has_failed_once(
    max_unflushed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also BEGIN, COMMIT and ROLLBACK: what could not be written is written then."""
    for number in range(1, 40):
        path = tmp_path / f"{number}.db"
        with monkeypatch.context() as patch:
            break_writes(patch, {number, number + 1}.__contains__)
            kept = Journal(path, max_unflushed=max_unflushed)
            assert run(two_stages(Calls()), range(4), kept).values() == [10, 20, 30, 40]
        assert_right(path, 4)


def test_a_run_ends_when_a_statement_fails_and_that_is_to_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what was not written; the next run repeats that, and no more."""
    told: list[str] = []
    for number in range(1, 12):
        path, calls = tmp_path / f"{number}.db", Calls()
        with monkeypatch.context() as patch:
            break_writes(patch, number.__le__)
            with pytest.raises(JournalWriteError) as caught:
                run(two_stages(calls), range(4), Journal(path, on_error="fail"))
            assert f"journal {str(path)!r}: database or disk is full" in str(caught.value)
            told.append(str(caught.value).partition("; not written: ")[2])
        before = len(calls.new())
        assert run(two_stages(calls), range(4), path).values() == [10, 20, 30, 40]
        assert before + len(calls.new()) <= 8 + 4
        assert_right(path, 4)
    assert told[0].startswith("4 items")
    assert any("result" in each for each in told)
    assert any("outcome" in each for each in told)


@pytest.mark.parametrize("on_error", ["pause", "fail"])
def test_no_more_tries_begin_than_workers_have_in_hand_when_nothing_can_be_written(
    on_error: Any, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would have to be repeated. With "pause" the run goes on when there is room again."""
    is_full = threading.Event()
    calls = Calls()
    break_writes(monkeypatch, lambda _: is_full.is_set())

    def take(number: int) -> int:
        if number == 20:
            is_full.set()
            calls.new()
        return number

    stages = [Stage("Get", 2, [calls.task("Get", take)]), Stage("Put", 2, [calls.task("Put")])]

    async def main() -> RunResults[Any]:
        async def make_room() -> None:
            while not is_full.is_set():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            during.extend(calls.made)
            is_full.clear()

        making = asyncio.create_task(make_room())
        try:
            kept = Journal(journal, on_error=on_error)
            return await Pipeline[Any, Any](stages).run(range(60), journal=kept)
        finally:
            await making

    during: list[Any] = []
    if on_error == "pause":
        assert asyncio.run(main()).values() == list(range(60))
        assert_right(journal, 60)
    else:
        with pytest.raises(JournalWriteError):
            asyncio.run(main())
    assert len(during) <= 4 + 4


def test_a_run_that_is_cancelled_while_nothing_can_be_written_ends_at_once(
    journal: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not wait for the next attempt, and tells what is not in the journal.

    The journal is closed, and another run has it.
    """
    break_writes(monkeypatch, lambda count: count > 10)
    monkeypatch.setattr(writer, "FIRST_PAUSE", 30.0)

    async def main() -> None:
        async with asyncio.timeout(0.3):
            await Pipeline(two_stages(Calls())).run(range(50), journal=journal)

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert time.monotonic() - began < 3
    assert caplog.text.count("not written: ") == 1
    monkeypatch.undo()
    assert len(run(two_stages(Calls()), range(50), journal)) == 50


def test_a_run_whose_end_cannot_be_written_can_be_cancelled(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is done but the last commit."""
    done = threading.Event()
    break_writes(monkeypatch, lambda _: done.is_set())
    monkeypatch.setattr(writer, "FIRST_PAUSE", 30.0)

    async def last(number: int) -> int:
        done.set()
        return number

    async def main() -> None:
        async with asyncio.timeout(0.3):
            kept = Journal(journal, max_unflushed=100)
            await Pipeline([Stage("A", 1, [last])]).run([1], journal=kept)

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("replaces", [False, True])
def test_a_journal_that_is_removed_or_replaced_ends_its_run(replaces: bool, journal: Path) -> None:
    """What is written afterwards would be in no file."""
    calls = Calls()

    def take(number: int) -> int:
        if number == 20:
            journal.unlink()
            if replaces:
                journal.touch()
        return number

    stages = [Stage("Get", 1, [calls.task("Get", take)]), Stage("Put", 1, [calls.task("Put")])]
    with pytest.raises(JournalWriteError, match="removed or replaced"):
        run(stages, range(1000), journal)
    assert len(calls.made) < 60


def test_a_journal_is_closed_when_its_event_loop_is_closed_under_it(journal: Path) -> None:
    """What was committed stays, and another run of this process can have it."""
    calls = Calls()

    async def hang(number: int) -> None:
        if number == 10:
            asyncio.get_running_loop().stop()
        if number >= 10:
            await asyncio.sleep(100)

    stages = [Stage("Get", 1, [calls.task("Get")]), Stage("Hang", 1, [hang])]

    def close_under_it() -> None:
        loop = asyncio.new_event_loop()
        running = loop.create_task(Pipeline(stages).run(range(50), journal=journal))
        running.add_done_callback(lambda task: task.cancelled() or task.exception())
        loop.run_forever()
        loop.close()

    close_under_it()
    deadline = time.monotonic() + 5
    while Path(f"{journal}.lock").exists() and time.monotonic() < deadline:
        gc.collect()  # again and again: a commit that goes on has what waits for it
        time.sleep(0.01)
    calls.new()
    stages[1] = Stage("Hang", 1, [str])
    assert len(run(stages, range(50), journal)) == 50
    assert len(calls.new()) < 45


def test_a_journal_has_one_writer(journal: Path) -> None:
    """A second run at the same time is refused; the first one goes on."""

    async def main() -> RunResults[Any]:
        async def other(number: int) -> int:
            with pytest.raises(JournalInUseError, match="this process"):
                await Pipeline([Stage("B", 1, [str])]).run([1], journal=journal)
            return number

        return await Pipeline[Any, Any]([Stage("A", 2, [other])]).run(range(3), journal=journal)

    assert asyncio.run(main()).values() == [0, 1, 2]


PROGRAM = """
import asyncio, os, selectors, signal, sys, threading, time
from antflow import Pipeline, Stage
from antflow.journal import Journal

async def first(n):
    await asyncio.sleep(0.001)
    return "x" * 2000

async def second(text):
    await asyncio.sleep(0.001)
    return len(text)

def run(count, **options):
    stages = [Stage("A", 4, [first]), Stage("B", 4, [second])]
    return asyncio.run(Pipeline(stages).run(range(count), journal=Journal(sys.argv[1], **options)))
"""


def program(text: str, journal: Path) -> subprocess.Popen[str]:
    """Start a program that begins with `PROGRAM`."""
    command = [sys.executable, "-c", PROGRAM + text, str(journal)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


FULL_DISK = """
import resource
from antflow.journal import writer
writer.FIRST_PAUSE = 0.1
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, most))

def make_room():
    time.sleep(1.5)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

threading.Thread(target=make_room).start()
try:
    print(len(run(300, on_error=ON_ERROR)))
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of a file's size")
@pytest.mark.parametrize(("on_error", "told"), [("pause", "300"), ("fail", "JournalWriteError")])
def test_a_run_waits_for_room_on_a_full_disk_or_ends(
    on_error: str, told: str, journal: Path
) -> None:
    """Nothing that was committed is lost, whatever SQLite had written of the rest."""
    process = program(FULL_DISK.replace("ON_ERROR", repr(on_error)), journal)
    output, errors = process.communicate(timeout=60)
    assert output.strip() == told, errors
    process = program("print(len(run(300)))", journal)
    output, errors = process.communicate(timeout=60)
    assert output.strip() == "300", errors
    assert_right(journal, 300)


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP")
def test_a_run_that_is_halted_goes_on(journal: Path) -> None:
    """As with Ctrl-Z. Meanwhile it has the journal, and others are told who has it."""
    process = program("print(len(run(1500)))", journal)
    lock = Path(f"{journal}.lock")
    while not (lock.exists() and lock.read_text()):
        time.sleep(0.01)
    for _ in range(5):
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(JournalInUseError, match=f"in process {process.pid}"):
            run(two_stages(Calls()), [1], journal)
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.05)
    output, errors = process.communicate(timeout=60)
    assert output.strip() == "1500", errors
    assert_right(journal, 1500)


@pytest.mark.process
def test_a_program_that_ends_during_a_run_writes_what_the_run_has_done(journal: Path) -> None:
    """A run in a daemon thread: nothing is left of it but its journal."""
    text = """
thread = threading.Thread(target=run, args=(5000,), kwargs={"max_unflushed": 10_000}, daemon=True)
thread.start()
time.sleep(0.7)
"""
    process = program(text, journal)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    [(done,)] = rows_of(journal, "SELECT count(*) FROM outcomes")
    assert 0 < done < 5000
    output, errors = program("print(len(run(5000)))", journal).communicate(timeout=60)
    assert output.strip() == "5000", errors


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_is_forked_in_a_run_leaves_its_journal_alone(
    new_journal: Callable[[], Any],
) -> None:
    """Whatever it does; the parent goes on."""
    journal = new_journal()
    text = """
async def first(n):
    if n == 50 and not os.fork():
        print("child", flush=True)
        return n  # it goes on as if it were the run
    if n == 50:
        os.wait()
    return n

def make_loop():  # with epoll, both would have the same
    return asyncio.SelectorEventLoop(selectors.SelectSelector())

pid = os.getpid()
stages = [Stage("A", 4, [first]), Stage("B", 4, [str])]
try:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        results = runner.run(Pipeline(stages).run(range(100), journal=sys.argv[1]))
    print(os.getpid() == pid, len(results), flush=True)
except BaseException as error:
    print(os.getpid() == pid, type(error).__name__, flush=True)
"""
    process = program(text, journal)
    output, errors = process.communicate(timeout=60)
    assert sorted(output.splitlines()) == ["False JournalForkError", "True 100", "child"], errors
    assert rows_of(journal, "SELECT count(*) FROM outcomes") == [(100,)]
    if isinstance(journal, Path):
        assert rows_of(journal, "PRAGMA integrity_check") == [("ok",)]
