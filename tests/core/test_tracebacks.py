"""Errors that are kept: printed as they were raised, without the frames they were raised in."""

from __future__ import annotations

import asyncio
import gc
import traceback
import weakref
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import pytest

from antflow import Pipeline, PipelineResult, Stage
from antflow.testing import record_events, run_virtual


class Page:
    """A large thing that can be watched."""


alive: weakref.WeakSet[Page] = weakref.WeakSet()


async def fetch(value: int) -> None:
    """Fail with a large thing at hand."""
    page = Page()
    alive.add(page)
    await asyncio.sleep(1)
    raise KeyError(value, type(page).__name__)


async def alone(value: int) -> None:
    await fetch(value)


async def as_cause(value: int) -> None:
    try:
        await fetch(value)
    except KeyError as error:
        raise ValueError from error


async def as_context(value: int) -> None:
    try:
        await fetch(value)
    except KeyError:
        raise ValueError  # noqa: B904 - that is the case


async def in_a_group(value: int) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fetch(value))
        group.create_task(fetch(value))


async def in_a_group_in_a_cause(value: int) -> None:
    try:
        await in_a_group(value)
    except ExceptionGroup as error:
        raise ValueError from error


TASKS = [alone, as_cause, as_context, in_a_group, in_a_group_in_a_cause]


Task = Callable[[int], Awaitable[None] | None]


def failures(task: Task, items: Any = (0,)) -> list[PipelineResult[Any]]:
    """The failed items of a run."""
    stage = Stage("Work", 1, [task], task_attempts=1)
    return run_virtual(lambda: Pipeline([stage]).run(items)).failed


def frames_of(error: BaseException) -> list[TracebackType]:
    """The traceback, entry by entry."""
    entries, entry = [], error.__traceback__
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    return entries


def printed(error: BaseException) -> list[str]:
    """The lines that Python would print, without those of the memory's addresses."""
    return "".join(traceback.format_exception(error)).splitlines()


@pytest.mark.parametrize("task", TASKS)
def test_kept_error_keeps_no_variables_of_what_led_to_it(task: Task) -> None:
    """Neither its own frames are kept, nor those of its cause, its context or its members."""
    alive.clear()
    [failed] = failures(task)
    gc.collect()
    assert failed.error is not None
    assert len(alive) == 0


@pytest.mark.parametrize("task", TASKS)
def test_kept_error_shows_the_tasks_own_lines(task: Task) -> None:
    """The lines of the user's functions are there, with their positions, and none of ours."""
    [failed] = failures(task)
    assert failed.error is not None
    lines = printed(failed.error)
    assert any("raise KeyError(value, type(page).__name__)" in line for line in lines)
    files = [line for line in lines if 'File "' in line]
    assert all(__file__ in line for line in files), files


def test_kept_error_is_printed_as_python_would_print_it() -> None:
    """Line for line, with the marks below that say which part of a line it was."""

    async def main() -> BaseException:
        try:
            await as_cause(0)
        except ValueError as error:
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            return error
        raise AssertionError

    [failed] = failures(as_cause)
    assert failed.error is not None
    assert printed(failed.error) == printed(run_virtual(main))


def test_each_place_of_a_kept_error_is_that_of_the_real_frame() -> None:
    """Also for what walks the frames: file, function, line, and the columns in it."""
    [failed] = failures(alone)
    assert failed.error is not None
    entries = frames_of(failed.error)
    assert [each.tb_frame.f_code.co_name for each in entries] == ["alone", "fetch"]
    real = [alone.__code__, fetch.__code__]
    for entry, code in zip(entries, real, strict=True):
        mine, positions = entry.tb_frame.f_code, list(code.co_positions())
        assert mine.co_filename == code.co_filename
        assert list(mine.co_positions()) == positions
        assert positions[entry.tb_lasti // 2][0] == entry.tb_lineno
        assert entry.tb_lasti < len(mine.co_code)  # debug builds of Python insist on it
        assert not entry.tb_frame.f_locals
        assert entry.tb_frame.f_back is None


@pytest.mark.parametrize("is_plain", [False, True])
def test_error_that_is_raised_again_and_again_does_not_grow(is_plain: bool) -> None:
    """One object, raised for a thousand items: its traceback is as long as after the first."""
    error = ValueError("always the same")

    async def work(value: int) -> None:
        raise error

    def plain(value: int) -> None:
        raise error

    lengths: list[int] = []
    for count in (1, 100):
        failed = failures(plain if is_plain else work, range(count))
        assert {id(each.error) for each in failed} == {id(error)}
        lengths.append(len(frames_of(error)))
    assert lengths == [1, 1]


def test_error_that_a_later_stage_raises_again_shows_both_places() -> None:
    """What was kept before stays below what raised it now."""
    [kept] = failures(alone)
    assert kept.error is not None
    before = kept.error

    async def again(value: int) -> None:
        raise before

    [failed] = failures(again)
    assert failed.error is before
    names = [each.tb_frame.f_code.co_name for each in frames_of(before)]
    assert names == ["again", "alone", "fetch"]


def test_failed_items_keep_no_frame_of_the_engine() -> None:
    """A kept error's traceback begins in the task: it does not keep the run alive."""

    async def task(value: int) -> int:
        raise ValueError(value)

    events = record_events()

    async def main() -> None:
        stage = Stage("A", 1, [task], task_attempts=2, task_wait_seconds=0)
        (failed,) = (await Pipeline([stage], status_tracker=events).run([1])).failed
        assert failed.error is not None
        assert failed.error.__traceback__ is not None
        assert failed.error.__traceback__.tb_frame.f_code.co_name == "task"

    run_virtual(main)
    assert events.of(0) == [
        "queued @ A",
        "in_progress @ A",
        "start task 1",
        "retry task 1",
        "start task 2",
        "fail task 2",
        "failed @ A",
    ]
