"""Wherever the tasks of a stage run, they behave the same: one suite for all runners."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, RunResults, Stage
from antflow._core.error_copies import StandInError
from antflow.journal import Journal
from tests.runners import remote_tasks as tasks

pytestmark = pytest.mark.real_time


def run(items: Any, *stage_tasks: Any, workers: int = 2, **options: Any) -> RunResults[Any]:
    """Run one stage, with one try for each item unless said otherwise."""
    options = {"task_attempts": 1, "task_wait_seconds": 0.0} | options
    stage = Stage("Work", workers, list(stage_tasks), **options)
    return asyncio.run(Pipeline([stage]).run(items, on_failures="ignore"))


def test_plain_functions_return_their_values(executor: str) -> None:
    """A plain function is called with each value; answers come in the order of the input."""
    results = run(range(20), tasks.double, executor=executor)
    assert results.values() == [2 * value for value in range(20)]


def test_async_tasks_return_their_values(executor: str) -> None:
    """An async task is awaited, wherever that is."""
    results = run(range(20), tasks.double_later, executor=executor)
    assert results.values() == [2 * value for value in range(20)]


def test_one_task_after_the_other_on_each_item(executor: str) -> None:
    """Async and plain tasks of one stage take turns on an item."""
    results = run(range(5), tasks.double, tasks.double_later, executor=executor)
    assert results.values() == [4 * value for value in range(5)]


def test_errors_come_home_with_traceback_place_and_notes(executor: str) -> None:
    """An error is of its own class, with its attributes, notes, traceback and line of code."""
    results = run([7], tasks.fail_oddly, executor=executor)
    [failure] = results.failed
    error = failure.error
    assert isinstance(error, tasks.Odd)
    assert (error.code, str(error)) == (7, "7: so it is")
    assert "from afar" in error.__notes__
    [told] = results.summary.failed_items
    assert re.search(r"remote_tasks\.py:\d+ in fail_oddly", told.location)


def test_errors_that_cannot_be_sent_keep_name_and_text(executor: str) -> None:
    """An error that cannot be pickled comes as it is, or as a stand-in with its name and text."""
    results = run([7], tasks.fail_unsendably, executor=executor)
    [failure] = results.failed
    assert type(failure.error).__name__ == "Unsendable"
    assert str(failure.error) == "locked"
    assert executor == "thread" or isinstance(failure.error, (StandInError, tasks.Unsendable))


def test_values_that_cannot_be_sent_fail_their_item(executor: str) -> None:
    """A return value that cannot be pickled fails its own item, and says which task returned it."""
    results = run([7], tasks.give_lock, executor=executor)
    if executor == "thread":
        assert not results.failed
    else:
        [failure] = results.failed
        assert "task give_lock returned a lock, which cannot be sent" in str(failure.error)


def test_dropped_items_end_well(executor: str) -> None:
    """`Drop` is known again after the way home."""
    results = run(range(6), tasks.drop_odd, executor=executor)
    assert results.values() == [0, 2, 4]
    assert not results.failed


def test_holds_use_up_no_try(executor: str, tmp_path: Path) -> None:
    """`RetryAfter` holds the stage and is no failure."""
    results = run([str(tmp_path / "calls")], tasks.hold_once, executor=executor)
    assert results.values() == ["done"]


def test_counts_are_added_up(executor: str) -> None:
    """What tasks count is in the statistics of the run, wherever they count it."""
    results = run(range(10), tasks.count_bytes, executor=executor)
    assert results.counters["bytes"] == sum(range(10))


def test_values_of_a_list_become_items(executor: str) -> None:
    """In a stage with expand=True, each value of a returned list is an item."""
    results = run([1, 2], tasks.three, executor=executor, expand=True)
    assert sorted(results.values()) == [10, 11, 12, 20, 21, 22]


def test_batches_have_an_answer_for_each_item(executor: str) -> None:
    """A batch's answers, errors among them, go to their own items."""
    results = run(range(4), tasks.halves, executor=executor, batch=4, workers=1)
    assert results.values() == [0, 1]
    assert sorted(str(each.error) for each in results.failed) == ["odd 1", "odd 3"]


def test_tries_that_take_too_long_time_out(executor: str) -> None:
    """A try that is not done in time fails with `TimeoutError`, and others go on."""
    limit = 4.0 if executor == "process" else 0.5  # the start of a child process counts
    results = run([0.0, 2 * limit, 0.0], tasks.sleep, executor=executor, timeout=limit)
    assert len(results.values()) == 2
    [failure] = results.failed
    assert isinstance(failure.error, TimeoutError)


def test_resources_are_given_by_keyword(executor: str, tmp_path: Path) -> None:
    """A resource is entered where the task runs, and left at the end, once each."""
    session = tasks.Session(tmp_path / "notes")
    results = run(
        range(8),
        tasks.with_session,
        executor=executor,
        resources={"session": session.plain},
        resource_scope="worker",
    )
    assert all(entered == called for entered, called in results.values())
    notes = tasks.noted(tmp_path / "notes")
    assert len(notes) == 2 * len([each for each in notes if each.startswith("enter")])


def elsewhere(executor: str) -> bool:
    """Whether tasks of a stage can ask for their item in this executor's processes."""
    return executor != "process"


def test_tasks_ask_for_their_item(executor: str) -> None:
    """`current_item` and `log_context` know the item, its try and its stage."""
    if not elsewhere(executor):
        pytest.skip("child processes do not know their item")
    results = run([5], tasks.describe, executor=executor)
    [(item, attempt, stage, key, logged)] = results.values()
    assert (item, attempt, stage, logged) == (0, 1, "Work", "Work")
    assert re.fullmatch("[0-9a-f]{32}", key)


def test_tasks_ask_for_the_items_of_their_batch(executor: str) -> None:
    """`current_batch` knows the items of a batch in the order of the values."""
    if not elsewhere(executor):
        pytest.skip("child processes do not know their items")
    results = run([5, 6], tasks.keys_of_batch, executor=executor, batch=2, workers=1)
    assert results.values() == [(0, 1), (1, 1)]


@pytest.mark.parametrize("task", [tasks.remember, tasks.remember_later])
def test_checkpoints_are_in_the_journal(executor: str, task: Any, tmp_path: Path) -> None:
    """A checkpoint is kept at home before it returns, and there at the next try."""
    if not elsewhere(executor):
        pytest.skip("child processes do not know their item")
    stage = Stage("Work", 1, [task], executor=executor, task_attempts=2, task_wait_seconds=0.0)
    journal = Journal(tmp_path / "journal")
    results = asyncio.run(Pipeline([stage]).run([5], journal=journal))
    assert results.values() == [({"job": 5}, 2)]


def test_tasks_say_what_they_do(executor: str, tmp_path: Path) -> None:
    """`set_task_status` is seen in snapshots while the task runs."""
    if not elsewhere(executor):
        pytest.skip("child processes cannot say")
    file = tmp_path / "go"
    pipeline = Pipeline([Stage("Work", 1, [tasks.report_and_wait], executor=executor)])

    async def watched() -> None:
        running = asyncio.create_task(pipeline.run([str(file)]))
        async with asyncio.timeout(20):
            while "half way" not in [
                each.task_status for each in pipeline.get_worker_states().values()
            ]:
                await asyncio.sleep(0.01)
            file.touch()
            await running

    asyncio.run(watched())


def test_runs_that_are_cancelled_end_their_tries(executor: str, tmp_path: Path) -> None:
    """Cancelling a run cancels the async tasks that are under way, wherever they run."""
    file = tmp_path / "notes"
    pipeline = Pipeline([Stage("Work", 1, [tasks.sleep_until_cancelled], executor=executor)])

    async def cancelled() -> None:
        running = asyncio.create_task(pipeline.run([str(file)]))
        async with asyncio.timeout(20):
            while not tasks.noted(file):
                await asyncio.sleep(0.01)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(cancelled())
    assert tasks.noted(file) == ["begun", "cancelled"]


def test_tasks_run_in_other_processes(dask: str) -> None:
    """On a cluster, neither plain nor async tasks run at home, and all workers have some."""
    for task in (tasks.where, tasks.where_async):
        results = run(range(400), task, executor=dask, workers=8)
        assert os.getpid() not in results.values()
