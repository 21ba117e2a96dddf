"""Runs that keep a journal go on where an earlier one ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from antflow import Drop, Pipeline, RunResults, Stage, current_item
from antflow._core.journal_state import JournalState, journal_trouble
from antflow._monitor.view import Viewer
from antflow.display.bars import counts_line
from antflow.display.canvas import Canvas
from antflow.display.plain import progress_text
from tests.journal.crashing import rows_of

Task = Callable[[Any], Any]


class Calls:
    """Tasks that note how often they were called.

    Attributes:
        made: ``(stage, value)`` of each call, in order.
        broken: ``(stage, value)`` of calls that fail.
    """

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []
        self.broken: set[tuple[str, Any]] = set()

    def task(self, stage: str, answer: Task = lambda value: value) -> Task:
        async def call(value: Any) -> Any:
            self.made.append((stage, value))
            if self.broken and (stage, value) in self.broken:
                raise ValueError(f"no {value}")
            return answer(value)

        return call

    def new(self) -> list[tuple[str, Any]]:
        """The calls since the last time."""
        made, self.made = self.made, []
        return made


def run(stages: list[Stage], items: Iterable[Any], journal: Any, **options: Any) -> RunResults[Any]:
    async def main() -> RunResults[Any]:
        pipeline = Pipeline[Any, Any](stages)
        return await pipeline.run(items, journal=journal, on_failures="ignore", **options)

    return asyncio.run(main())


def two_stages(calls: Calls) -> list[Stage]:
    return [
        Stage("Get", 2, [calls.task("Get", lambda n: n + 1)]),
        Stage("Put", 2, [calls.task("Put", lambda n: n * 10)], task_attempts=1),
    ]


def test_settled_items_are_not_run_again(journal: Any) -> None:
    """The same run again calls nothing, and has the same results; new items are run."""
    calls = Calls()
    first = run(two_stages(calls), range(5), journal)
    assert (first.resumed, len(calls.new())) == (0, 10)
    second = run(two_stages(calls), range(6), journal)
    assert second.values() == [10, 20, 30, 40, 50, 60]
    assert calls.new() == [("Get", 5), ("Put", 6)]
    assert second.resumed == 5
    assert (second.stats.items_accepted, second.stats.items_processed) == (6, 6)


def test_failed_items_stay_failed_or_go_on_where_they_failed(journal: Any) -> None:
    """A failed item is run again only if that is asked for, and from the stage that failed."""
    calls = Calls()
    calls.broken = {("Put", 3)}
    run(two_stages(calls), range(5), journal)
    calls.new()
    again = run(two_stages(calls), range(5), journal)
    assert calls.new() == []
    [failed] = again.failed
    assert (str(failed.error), failed.stage, failed.value, failed.attempts) == ("no 3", "Put", 3, 1)
    assert "test_resuming.py:" in failed.location
    assert again.summary.errors_by_type == {"ValueError": 1}
    calls.broken.clear()
    assert run(two_stages(calls), range(5), journal, retry_failed=(OSError,)).failed
    assert calls.new() == []
    mended = run(two_stages(calls), range(5), journal, retry_failed=(ValueError,))
    assert calls.new() == [("Put", 3)]
    assert (mended.values(), mended.failed) == ([10, 20, 30, 40, 50], [])


def test_items_made_from_others_are_resumed_too(journal: Any) -> None:
    """Children are known with their parent: settled ones stay, the others go on."""
    calls = Calls()
    calls.broken = {("Put", 11)}

    def stages() -> list[Stage]:
        return [
            Stage(
                "Split",
                1,
                [calls.task("Split", lambda n: [n * 10 + i for i in range(3)])],
                expand=True,
            ),
            Stage(
                "Put", 1, [calls.task("Put", lambda n: Drop if n % 10 == 2 else n)], task_attempts=1
            ),
        ]

    run(stages(), [0, 1], journal)
    calls.new()
    calls.broken.clear()
    results = run(stages(), [0, 1], journal, retry_failed=True)
    assert calls.new() == [("Put", 11)]
    assert sorted(results.values()) == [0, 1, 10, 11]
    stats = results.stats
    assert (stats.items_accepted, stats.items_children, stats.items_expanded) == (2, 6, 2)
    assert (stats.items_dropped, stats.items_in_flight, results.resumed) == (2, 0, 7)


def test_another_input_under_a_known_key_is_run_again(journal: Any) -> None:
    """A stale result never comes back silently."""
    calls = Calls()
    run(two_stages(calls), [{"id": "a", "value": 1}, {"id": "b", "value": 2}], journal)
    calls.new()
    changed = [{"id": "a", "value": 1}, {"id": "b", "value": 7}]
    results = run(two_stages(calls), changed, journal)
    assert calls.new() == [("Get", 7), ("Put", 8)]
    assert (results.values(), results.changed, results.resumed) == ([20, 80], 1, 1)
    assert run(two_stages(calls), changed, journal).resumed == 2


def test_a_new_version_of_a_stage_uses_no_old_results_from_there_on(journal: Any) -> None:
    """Results of the stages before it are used, its own and later ones are made again."""
    calls = Calls()
    run(two_stages(calls), [1], journal)
    calls.new()
    get, put = two_stages(calls)
    newer = Stage("Put", 2, list(put.tasks), version="v2")
    assert run([get, newer], [1], journal).changed == 1
    assert calls.new() == [("Put", 2)]
    assert run([get, newer], [1], journal).resumed == 1


def test_the_idempotency_key_is_the_same_in_every_run_of_a_journal(
    new_journal: Callable[[], Any],
) -> None:
    """It depends on the journal, the item and the stage."""
    keys: list[str] = []
    journal = new_journal()

    async def ask(value: Any) -> Any:
        keys.append(current_item().idempotency_key)
        raise ValueError

    stages = [Stage("Ask", 1, [ask], task_attempts=2, task_wait_seconds=0.0)]
    run(stages, ["a"], journal)
    run(stages, ["a"], journal, retry_failed=True)
    run(stages, ["b", "a"], journal, retry_failed=True)
    assert len(set(keys)) == 2
    assert keys[:4] == [keys[0]] * 4
    run(stages, ["a"], new_journal())
    assert keys[-1] not in keys[:-2]


def test_equal_items_stay_two(journal: Any) -> None:
    """Without ids, an item is known by its content, and the second of two equal ones as such."""
    calls = Calls()
    assert run(two_stages(calls), [1, 1, 2], journal).values() == [20, 20, 30]
    calls.new()
    assert run(two_stages(calls), [2, 1, 1], journal).resumed == 3
    assert calls.new() == []


PROGRAM = """
import asyncio, os, sys
from antflow import Pipeline, Stage

log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

async def pay(n):
    await asyncio.sleep(0.002)
    os.write(log, f"{n}\\n".encode())
    return n

async def main():
    results = await Pipeline([Stage("Pay", 4, [pay]), Stage("Note", 4, [str])]).run(
        range(300), journal=sys.argv[1])
    print(len(results), results.resumed)

asyncio.run(main())
"""


@pytest.mark.process
def test_a_killed_run_repeats_at_most_one_attempt_per_worker(tmp_path: Path) -> None:
    """``kill -9``, then the same again: nothing is lost, and next to nothing paid twice."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run.db"), str(log)]
    log.touch()
    for kills in range(1, 4):
        process = subprocess.Popen(command)
        while log.read_bytes().count(b"\n") < 60 * kills:
            assert process.poll() is None
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    output = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    made = [int(line) for line in log.read_text().split()]
    assert set(made) == set(range(300))
    assert len(made) <= 300 + 3 * 4
    total, resumed = map(int, output.split())
    assert total == 300
    assert resumed >= 3 * 60 - 3 * 2 * 4  # all but those that were in one of the two stages


def test_a_checkpoint_is_there_on_later_tries_and_in_later_runs(journal: Any) -> None:
    """A batch job is submitted once, and polled on: by the next try, and by the next run."""
    submitted: list[Any] = []
    polled: list[Any] = []
    is_down = True

    async def ask(value: Any) -> Any:
        item = current_item()
        if (job := item.checkpointed) is None:
            submitted.append(value)
            job = f"job of {value}"
            await item.checkpoint(job)
        polled.append(job)
        if is_down:
            raise ConnectionError
        return job

    stages = [
        Stage("Ask", 1, [ask], task_attempts=2, task_wait_seconds=0.0),
        Stage("Note", 1, [lambda job: (job, current_item().checkpointed)]),
    ]
    run(stages, ["a", "b"], journal)
    is_down = False
    results = run(stages, ["a", "b"], journal, retry_failed=True)
    assert results.values() == [("job of a", None), ("job of b", None)]
    assert (submitted, len(polled)) == (["a", "b"], 6)


def test_a_checkpoint_of_a_plain_function_is_kept_when_the_call_returns(journal: Any) -> None:
    """In a thread there is nothing to await."""
    kept: list[Any] = []

    def ask(value: int) -> int:
        current_item().checkpoint(value + 1)
        kept.extend(rows_of(journal, "SELECT value FROM checkpoints"))
        return value

    run([Stage("Ask", 1, [ask])], [1], journal)
    assert kept == [("2",)]


def test_without_a_journal_a_checkpoint_lasts_as_long_as_the_run() -> None:
    """The next try finds it."""
    tries: list[Any] = []

    async def ask(value: int) -> int:
        tries.append(current_item().checkpointed)
        await current_item().checkpoint([value])
        if len(tries) < 3:
            raise ValueError
        return value

    stage = Stage("Ask", 1, [ask], task_attempts=3, task_wait_seconds=0.0)
    assert run([stage], [1], None).values() == [1]
    assert tries == [None, [1], [1]]


def test_displays_say_how_many_were_resumed(
    journal: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain lines and the summary of a display have the number, and a run without any has none."""
    calls = Calls()
    run(two_stages(calls), range(5), journal, dashboard="log")
    assert "resumed" not in capsys.readouterr().err
    run(two_stages(calls), range(5), journal, dashboard="log")
    assert "5 ok, 0 failed, 5 resumed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (None, ""),
        (JournalState("run.db", 3, 1.9), ""),
        (JournalState("run.db", 1, 3.2), "journal 3 s behind (1 row waits)"),
        (
            JournalState("run.db", 40, 12.2, "database or disk is full"),
            "journal stalled for 12 s: database or disk is full (40 rows wait)",
        ),
    ],
)
def test_displays_say_what_is_wrong_with_the_journal(state: JournalState | None, text: str) -> None:
    """A journal that lags or is stalled is named with how long, and how much waits."""
    assert journal_trouble(state) == text
    snapshot = Pipeline([Stage("Work", 1, [str])]).get_dashboard_snapshot()
    snapshot.journal = state
    view = Viewer().see(snapshot)
    plain = progress_text(view)
    drawn = counts_line(Canvas(120, 24, "utf-8"), view).plain
    assert (text in plain, text in drawn) == (True, True)
    assert ("journal" in plain, "journal" in drawn) == (bool(text), bool(text))


def test_an_item_does_not_wait_for_the_commit_of_its_admission(tmp_path: Path) -> None:
    """The first stage begins while the journal is locked; what it returned waits."""
    journal = tmp_path / "run.db"
    run([Stage("Get", 1, [lambda n: n])], [0], journal)
    lock = sqlite3.connect(journal, isolation_level=None)

    async def source() -> AsyncIterator[int]:
        lock.execute("BEGIN IMMEDIATE")
        yield 1

    async def get(number: int) -> int:
        lock.execute("ROLLBACK")
        return number

    async def main() -> list[int]:
        async with asyncio.timeout(3):
            return (
                await Pipeline([Stage("Get", 1, [get])]).run(source(), journal=journal)
            ).values()

    try:
        assert asyncio.run(main()) == [1]
    finally:
        lock.close()


@pytest.mark.parametrize("way", ["run", "stream", "ordered stream", "open"])
def test_failed_items_are_retried_however_a_run_is_begun(way: str, journal: Path) -> None:
    """With ``retry_failed`` of `run`, `stream` and `open`."""
    calls = Calls()
    calls.broken = {("Put", 3), ("Put", 5)}
    run(two_stages(calls), range(5), journal)
    calls.broken.clear()
    calls.new()

    async def main() -> list[Any]:
        pipeline = Pipeline[Any, Any](two_stages(calls), journal=journal)
        kinds = ("ValueError",)
        if way == "open":
            async with pipeline.open(retry_failed=kinds) as opened:
                await opened.feed(range(5))
            return opened.results.values()
        if way == "run":
            return (await pipeline.run(range(5), retry_failed=kinds)).values()
        ordered = way == "ordered stream"
        async with pipeline.stream(range(5), ordered=ordered, retry_failed=kinds) as results:
            return [result.value async for result in results]

    assert sorted(asyncio.run(main())) == [10, 20, 30, 40, 50]
    assert sorted(calls.new()) == [("Put", 3), ("Put", 5)]


@pytest.mark.parametrize("ordered", [False, True])
def test_a_stream_goes_on_with_results_of_an_earlier_run(ordered: bool) -> None:
    """As `run` does: at the stage that they ended in, before the items."""
    calls = Calls()
    calls.broken = {("Put", 3)}

    async def main() -> list[Any]:
        pipeline = Pipeline[Any, Any](two_stages(calls))
        failed = (await pipeline.run([1, 2], on_failures="ignore")).failed
        calls.broken.clear()
        calls.new()
        async with pipeline.stream([7], ordered=ordered, retry_failed=failed) as results:
            return [(result.id, result.value) async for result in results]

    # The id of the earlier item is taken, as its number is that of a new one.
    assert sorted(asyncio.run(main())) == [(0, 80), (1, 30)]
    assert sorted(calls.new()) == [("Get", 7), ("Put", 3), ("Put", 8)]


STAY = "2 items stay failed from earlier runs: 2 × ValueError; retry_failed=True runs them again"


def test_a_warning_says_that_items_stay_failed(
    journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, at the end of a run; not if failures are to be ignored, or all are run again."""
    calls = Calls()
    calls.broken = {("Put", 1), ("Put", 3)}

    def told(items: Iterable[Any], **options: Any) -> int:
        caplog.clear()
        asyncio.run(Pipeline[Any, Any](two_stages(calls)).run(items, journal=journal, **options))
        return caplog.text.count(STAY)

    assert told([0]) == 0
    assert told([0, 2, 4]) == 0
    assert "2 of 3 items failed: 2 × ValueError" in caplog.text
    assert "1 item stays failed from earlier runs: 1 × ValueError; " in caplog.text
    assert told([0, 2, 4]) == 1
    assert told([0, 2, 4], on_failures="ignore") == 0
    assert told([0, 2, 4], retry_failed=OSError) == 1
    assert told([0, 2, 4], retry_failed=True) == 0

    async def in_a_stream_and_by_hand() -> None:
        pipeline = Pipeline[Any, Any](two_stages(calls), journal=journal)
        async with pipeline.stream([0, 2, 4]) as results:
            assert len([result async for result in results if result.error]) == 2
        assert "stay failed" not in caplog.text
        async with pipeline.open() as opened:
            await opened.feed([0, 2, 4])

    caplog.clear()
    asyncio.run(in_a_stream_and_by_hand())
    assert caplog.text.count(STAY) == 1
