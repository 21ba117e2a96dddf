"""Whatever a task raises fails its item and nothing else; what ends a program ends it in order."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from antflow import ItemCancelled, Pipeline, Stage, StatusTracker, TaskEvent
from antflow.testing import Calls, FailTimes, run_virtual
from tests.support import (
    HANG_GUARD,
    assert_balanced,
    assert_works,
    lasting,
    now,
    raising,
    run_program,
    same,
    start_program,
    virtual,
)

# Plain functions


def double(value: int) -> int:
    return value * 2


class Doubling:
    def __call__(self, value: int) -> int:
        return value * 2

    def method(self, value: int) -> int:
        return value * 2


class AsyncDoubling:
    async def __call__(self, value: int) -> int:
        return value * 2

    async def method(self, value: int) -> int:
        return value * 2


async def times(factor: int, value: int) -> int:
    return value * factor


TASKS: dict[str, Callable[[int], Any]] = {
    "function": double,
    "lambda": lambda value: value * 2,
    "object": Doubling(),
    "method": Doubling().method,
    "partial": partial(lambda factor, value: factor * value, 2),
    "lambda of coroutine": lambda value: times(2, value),
    "async object": AsyncDoubling(),
    "async method": AsyncDoubling().method,
    "async partial": partial(times, 2),
    "partial of partial": partial(partial(times), 2),
    "builtin": (2).__mul__,
}


@pytest.mark.fault
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_anything_that_can_be_called_is_a_task(task: Callable[[int], Any]) -> None:
    """A task is anything that can be called, sync or async."""
    stages = [Stage("A", 2, [task, task]), Stage("B", 2, [task])]
    assert virtual(lambda: Pipeline(stages).run([1, 2, 3])).values() == [8, 16, 24]


@pytest.mark.fault
def test_plain_function_is_called_once() -> None:
    """A plain function is called once per item where it does not fail."""
    called: list[int] = []
    virtual(lambda: Pipeline([Stage("Work", 2, [called.append])]).run(range(5)))
    assert sorted(called) == [0, 1, 2, 3, 4]


@pytest.mark.fault
def test_plain_function_does_not_hold_up_the_loop() -> None:
    """Plain functions run in threads of their own, as many at a time as there are workers."""
    together = threading.Barrier(4, timeout=HANG_GUARD)
    threads: set[int] = set()

    def meet(value: int) -> int:
        threads.add(threading.get_ident())
        together.wait()
        return value

    results = virtual(lambda: Pipeline([Stage("Meet", 4, [meet])]).run(range(8)))
    assert results.values() == list(range(8))
    assert threading.get_ident() not in threads


@pytest.mark.fault
def test_stop_iteration_of_a_plain_function_fails_its_item() -> None:
    """A plain function that raises StopIteration fails its item."""

    def work(value: int) -> int:
        return next(iter([]))

    stage = Stage("Work", 1, [work], task_attempts=1)
    results = virtual(lambda: Pipeline([stage]).run([1]))
    assert results.summary.errors_by_type == {"RuntimeError": 1}


# Exceptions


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __str__


class SlottedError(Exception):
    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


class WantsArguments(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__()


class ComparesBadly(Exception):
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")


def a_group() -> ExceptionGroup[Any]:
    return ExceptionGroup("two", [ValueError("a"), ExceptionGroup("in", [KeyError("b")])])


ERRORS: dict[str, Callable[[], Exception]] = {
    "ValueError": lambda: ValueError("no"),
    "ExceptionGroup[KeyError, ValueError]": a_group,
    "Unprintable": Unprintable,
    "SlottedError": SlottedError,
    "WantsArguments": lambda: WantsArguments(1, 2),
    "ComparesBadly": ComparesBadly,
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "TimeoutError": TimeoutError,
    "StopAsyncIteration": StopAsyncIteration,
}


@pytest.mark.fault
@pytest.mark.parametrize("is_plain", [False, True])
@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
@pytest.mark.parametrize("name", ERRORS)
def test_what_a_task_raises_fails_its_item(name: str, retry: str, is_plain: bool) -> None:
    """What a task raises fails its item, is kept whole, and is counted under its name."""
    error = ERRORS[name]()

    def work(value: int) -> int:
        if value == 1:
            raise error
        return value

    async def work_later(value: int) -> int:
        return work(value)

    async def main() -> None:
        tracker = StatusTracker()
        task = work if is_plain else work_later
        stage = Stage("Work", 1, [task], retry, task_attempts=2, stage_attempts=2)
        results = await Pipeline([stage], status_tracker=tracker).run(range(3))
        assert results.values() == [0, 2]
        [failed] = results.failed
        if not is_plain:
            assert failed.error is error
        assert type(failed.error) is type(error)
        assert failed.error.args == error.args
        assert failed.attempts == 2
        assert results.summary.errors_by_type == {name: 1}
        [item] = tracker.get_failed_items()
        assert (item.item_id, item.error_type, item.stage, item.attempts) == (1, name, "Work", 2)
        assert isinstance(item.error, str)

    virtual(main)


async def with_task_group(value: int) -> int:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise ValueError("inner")

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
        group.create_task(asyncio.sleep(1000))
    return value


async def with_timeout(value: int) -> int:
    async with asyncio.timeout(1):
        await asyncio.sleep(1000)
    return value


async def with_next(value: int) -> Any:
    return next(iter([]))


async def awaiting_a_cancelled_one(value: int) -> int:
    inner = asyncio.ensure_future(asyncio.sleep(1000))
    await asyncio.sleep(1)
    inner.cancel()
    await inner
    return value


@pytest.mark.fault
@pytest.mark.parametrize(
    ("task", "name"),
    [
        (with_task_group, "ExceptionGroup[ValueError]"),
        (with_timeout, "TimeoutError"),
        (with_next, "RuntimeError"),
        (awaiting_a_cancelled_one, "CancelledError"),
    ],
)
def test_groups_timeouts_and_cancellations_of_a_task_fail_its_item(
    task: Callable[[int], Any], name: str
) -> None:
    """A task's own groups, time limits and cancellations fail the item and leave nothing behind."""
    stage = Stage("Work", 2, [task], task_attempts=2)
    results = virtual(lambda: Pipeline([stage]).run(range(3)))
    assert results.summary.errors_by_type == {name: 3}
    assert_balanced(results.stats)


@pytest.mark.fault
def test_async_generator_is_a_result_like_others() -> None:
    """An async generator that a task returns is a value like others."""

    async def numbers() -> AsyncIterator[int]:
        yield 1

    async def work(value: int) -> AsyncIterator[int]:
        return numbers()

    async def main() -> None:
        [result] = await Pipeline([Stage("Work", 1, [work])]).run([1])
        assert [number async for number in result.value] == [1]

    virtual(main)


@pytest.mark.fault
@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
def test_failed_item_says_how_often_it_was_tried(retry: str) -> None:
    """A failed item says how often it was tried: the task that failed, or the stage."""
    tracker = StatusTracker()
    stage = Stage("Work", 1, [FailTimes(1), FailTimes(9)], retry, task_attempts=3, stage_attempts=4)
    results = virtual(lambda: Pipeline([stage], status_tracker=tracker).run(["x"]))
    expected = 3 if retry == "per_task" else 4
    assert results.summary.failed_items[0].attempts == expected
    assert results.failed[0].attempts == expected
    assert tracker.get_failed_items()[0].attempts == expected


@pytest.mark.fault
def test_each_task_of_a_stage_has_all_its_tries() -> None:
    """Two tasks that both need the last of three tries: the first leaves the second as many."""
    stage = Stage("Work", 1, [FailTimes(2), FailTimes(2)], task_attempts=3)
    results = virtual(lambda: Pipeline([stage]).run(["x"]))
    assert (results.values(), results[0].attempts) == (["x"], 3)


@pytest.mark.fault
def test_pauses_between_tries_are_those_of_the_stage() -> None:
    """Between tries a task waits as its stage says, and a stage too, by an option of its own."""

    async def starts(retry: str) -> list[float]:
        calls = Calls(FailTimes(2))
        own: dict[str, Any] = {"stage_wait_seconds": 5} if retry == "per_stage" else {}
        stage = Stage("W", 1, [calls], retry, task_wait_seconds=3, **own)
        begin = now()
        await Pipeline([stage]).run([1])
        return [call.start - begin for call in calls.made]

    assert virtual(lambda: starts("per_task")) == [0, 3, 6]
    assert virtual(lambda: starts("per_stage")) == [0, 5, 10]


@pytest.mark.fault
def test_what_is_tried_again() -> None:
    """per_task repeats the failed task alone, per_stage the stage with what had entered it."""

    async def made(retry: str) -> tuple[list[int], list[int]]:
        first, flaky = Calls(lambda value: times(10, value)), FailTimes(1)
        second = Calls(flaky)
        await Pipeline([Stage("W", 1, [first, second], retry)]).run([1])
        return [call.value for call in first.made], [call.value for call in second.made]

    assert virtual(lambda: made("per_task")) == ([1], [10, 10])
    assert virtual(lambda: made("per_stage")) == ([1, 1], [10, 10])


@pytest.mark.fault
def test_value_of_a_failed_item_is_what_entered_the_stage() -> None:
    """A failed item's value is what entered the stage that it failed in."""
    stages = [
        Stage("A", 1, [lambda value: value + 1]),
        Stage("B", 1, [lambda value: value * 100, raising(ValueError("no"))], task_attempts=1),
    ]
    [failed] = virtual(lambda: Pipeline(stages).run([1])).failed
    assert (failed.value, failed.stage, failed.input) == (2, "B", 1)


@pytest.mark.fault
def test_traceback_of_a_failure_shows_the_task() -> None:
    """A failure's traceback shows the task and keeps nothing of the engine alive."""
    stage = Stage("Work", 1, [raising(ValueError("no"))], task_attempts=1)
    [failed] = virtual(lambda: Pipeline([stage]).run([1])).failed
    assert failed.error is not None
    traceback = failed.error.__traceback__
    assert traceback is not None
    assert traceback.tb_frame.f_code.co_name == "work"


# What ends a program


@pytest.mark.fault
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("is_plain", [False, True])
def test_task_that_ends_the_program_comes_out_of_the_run(
    error: type[BaseException], is_plain: bool
) -> None:
    """What ends a program comes out of the run, once everything is cleaned up and counted."""

    def work(value: int) -> int:
        if value == 3:
            raise error(3)
        return value

    async def work_later(value: int) -> int:
        await asyncio.sleep(0.01)
        return work(value)

    async def main() -> None:
        stages = [Stage("A", 1, [work if is_plain else work_later]), Stage("B", 1, [lasting(100)])]
        pipeline = Pipeline(stages)
        with pytest.raises(error) as caught:
            await pipeline.run(range(100))
        assert type(caught.value) is error
        assert caught.value.args == (3,)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        stats = pipeline.get_stats()
        assert stats.items_cancelled > 0
        assert_balanced(stats)

    virtual(main)


PROGRAM = """
    import asyncio, os, signal, sys
    from antflow import Pipeline, Stage

    async def work(value):
        if value == 5:
            {what}
        try:
            print("at work", flush=True)
            await asyncio.sleep({seconds})
        finally:
            print("cleaned up", value, flush=True)
        return value

    async def main():
        pipeline = Pipeline([Stage("Work", 2, [work], task_attempts=1)])
        try:
            await pipeline.run(range(100))
        finally:
            stats = pipeline.get_stats()
            print("in flight", stats.items_in_flight, flush=True)

    print("begun", flush=True)
    asyncio.run(main())
"""


@pytest.mark.fault
def test_system_exit_in_a_task_ends_the_program() -> None:
    """SystemExit in a task ends the program with its code."""
    done = run_program(PROGRAM.format(what="sys.exit(3)", seconds=0.001))
    assert done.returncode == 3
    assert "in flight 0" in done.stdout
    assert done.stderr == ""


@pytest.mark.fault
@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_keyboard_interrupt_in_a_task_ends_the_program() -> None:
    """KeyboardInterrupt in a task ends the program as Ctrl-C does."""
    done = run_program(PROGRAM.format(what="raise KeyboardInterrupt", seconds=0.001))
    assert done.returncode == -signal.SIGINT
    assert "in flight 0" in done.stdout
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"


@pytest.mark.fault
@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_program_when_it_is_interrupted() -> None:
    """Ctrl-C ends a program whose tasks are long at once; the tasks have cleaned up."""
    text = PROGRAM.format(what="pass", seconds=100 * HANG_GUARD)
    with start_program(text) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        while next(lines) != "at work\n":
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG_GUARD)
    assert process.returncode == -signal.SIGINT
    assert "cleaned up 0" in out
    assert "in flight 0" in out
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert "never" not in err


@pytest.mark.fault
def test_pipeline_runs_again_after_a_task_raised_system_exit() -> None:
    """A pipeline can be run again after a task of it raised SystemExit, if somebody caught it."""

    async def work(value: Any) -> Any:
        if value == 1:
            raise SystemExit(3)
        return value

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [work]), Stage("B", 1, [same])])
        with pytest.raises(SystemExit):
            await pipeline.run([1])
        await assert_works(pipeline)

    virtual(main)


def test_cancelled_error_of_skip_if_names_skip_if() -> None:
    """The failure says where it was raised, not in a task that never ran."""

    async def skip_if(value: int) -> bool:
        raise asyncio.CancelledError

    async def main() -> str:
        results = await Pipeline([Stage("A", 1, [Calls()], skip_if=skip_if)]).run([1])
        return str(results.failed[0].error)

    assert run_virtual(main) == "task 'skip_if' raised CancelledError"


def test_task_that_raises_item_cancelled_has_failed() -> None:
    """What another run raised is an ordinary failure here, in the list as in the counts."""

    async def task(value: int) -> int:
        raise ItemCancelled("of another run")

    async def main() -> None:
        results = await Pipeline([Stage("A", 1, [task], task_attempts=1)]).run([1])
        assert len(results.failed) == results.stats.items_failed == 1

    run_virtual(main)


@pytest.mark.fault
@pytest.mark.parametrize("retry", ["per_task", "per_stage"])
def test_cancelled_error_of_a_task_fails_its_item(retry: str) -> None:
    """A task that raises CancelledError has failed its item; the worker goes on."""
    stage = Stage(
        "Work",
        1,
        [raising(asyncio.CancelledError(), 2)],
        retry,
        task_attempts=1,
        stage_attempts=1,
    )
    results = virtual(lambda: Pipeline([stage]).run(range(6)))
    assert results.values() == [0, 1, 3, 4, 5]
    assert results.summary.errors_by_type == {"CancelledError": 1}


@pytest.mark.fault
def test_no_worker_dies_when_tasks_all_raise_cancelled_error() -> None:
    """However many tasks raise CancelledError, no worker dies of it."""
    calls = Calls(raising(asyncio.CancelledError()))
    stage = Stage("Work", 2, [calls], task_attempts=2)
    results = virtual(lambda: Pipeline([stage]).run(range(10)))
    assert len(results.failed) == 10
    assert len(calls.made) == 20
    assert_balanced(results.stats)


@pytest.mark.fault
def test_cancelled_error_of_skip_if_fails_the_item() -> None:
    """What a ``skip_if`` raises fails the item, a CancelledError too."""

    def skip(value: int) -> bool:
        if value == 1:
            raise asyncio.CancelledError
        return False

    stage = Stage("Work", 1, [same], task_attempts=1, skip_if=skip)
    results = virtual(lambda: Pipeline([stage]).run(range(3)))
    assert results.values() == [0, 2]
    assert_balanced(results.stats)


class Panic(BaseException):
    """As a library in Rust raises it."""


def panics_at(bad: Any) -> Any:
    """A function that returns what it is given, and panics at one value."""

    def call(value: Any, *_: Any) -> Any:
        if value == bad:
            raise Panic("index out of bounds")
        return value

    return call


def panics_in_batch(values: list[Any]) -> Any:
    """A batch task that panics for all its values if it does for one."""
    return [panics_at(3)(value) for value in values]


def answers_panic(values: list[Any]) -> list[Any]:
    """A batch task that returns the panic, as `asyncio.gather` does."""
    return [Panic("index out of bounds") if value == 3 else value for value in values]


def makes_two_and_panics(value: Any) -> Any:
    """A generator that panics after two values."""
    yield from (value, value)
    panics_at(3)(value)


async def panics_in_a_group(value: Any) -> Any:
    """A task that starts another, which panics."""
    async with asyncio.TaskGroup() as group:
        return await group.create_task(asyncio.to_thread(panics_at(3), value))


def stage_of(task: Any, **options: Any) -> Stage:
    return Stage("Work", 2, [task], task_attempts=1, **options)


@pytest.mark.parametrize(
    ("stage", "key"),
    [
        (stage_of(panics_at(3)), None),
        (stage_of(panics_at(3), executor="inline"), None),
        (stage_of(panics_in_a_group), None),
        (stage_of(panics_in_batch, batch=3), None),
        (stage_of(answers_panic, batch=3), None),
        (stage_of(makes_two_and_panics, expand=True), None),
        (stage_of(str, skip_if=panics_at(3)), None),
        (stage_of(str), panics_at(3)),
    ],
)
@pytest.mark.parametrize("is_tracked", [False, True])
def test_error_that_is_no_exception_costs_its_own_item(
    stage: Stage, key: Any, is_tracked: bool
) -> None:
    """It does not end the program, so it does not end the run, wherever it was raised."""
    told: list[TaskEvent] = []
    tracker = StatusTracker(on_task_fail=told.append) if is_tracked else None
    results = run_virtual(lambda: Pipeline([stage], status_tracker=tracker).run(range(6), key=key))
    (failure,) = results.failed
    assert (failure.input, failure.outcome) == (3, "failed")
    assert {result.input for result in results} >= {0, 1, 2, 4, 5}
    assert "raised Panic: index out of bounds" in str(failure)
    if stage.expand:
        assert [result.input for result in results].count(3) == 2
    if is_tracked and not failure.attempts:
        assert not told
    elif is_tracked:
        assert [event.error for event in told] == [failure.error]


def test_callback_with_an_error_that_is_no_exception_changes_nothing() -> None:
    """It is logged, as any error of a callback is."""
    stage = stage_of(str, on_success=panics_at(3))
    assert len(run_virtual(lambda: Pipeline([stage]).run(range(6)))) == 6
