"""What an exception group means: what each error in it means alone, the strongest first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from antflow import (
    AsyncExecutor,
    Drop,
    Limit,
    Pipeline,
    RetryAfter,
    RunResults,
    Stage,
    StatusTracker,
)
from antflow.exceptions import PipelineError, TaskFailedError
from antflow.testing import record_events, run_virtual
from tests.support import now

from .process_tasks import fail_in_group


def run(stage: Stage, items: Any = (0,), **options: Any) -> RunResults[Any]:
    """Run items through a stage in virtual time."""
    return run_virtual(lambda: Pipeline([stage], **options).run(items), max_time=100_000.0)


def group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    """The errors, one of them in a group of its own."""
    *others, last = errors
    return BaseExceptionGroup("together", [*others, BaseExceptionGroup("inside", [last])])


class Failing:
    """A task whose first tries raise.

    Args:
        errors: What they raise.
        times: How many do.
    """

    def __init__(self, *errors: BaseException, times: int = 1) -> None:
        self.errors = errors
        self.times = times
        self.starts: list[float] = []

    async def __call__(self, value: Any) -> Any:
        """Fail, or return the value."""
        self.starts.append(now())
        if len(self.starts) <= self.times:
            raise group(*self.errors)
        return value


class Busy(Exception):
    """Means a hold, in these tests."""


# -- what follows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [[], [Limit(concurrency=1)]], ids=["free", "limited"])
@pytest.mark.parametrize(
    ("errors", "starts"),
    [
        pytest.param([RetryAfter(30)], [0, 30], id="hold"),
        pytest.param([RetryAfter(30), RetryAfter(50), RetryAfter(40)], [0, 50], id="longest hold"),
        pytest.param([Busy(), RetryAfter(5)], [0, 20], id="hold_on"),
        pytest.param([ConnectionError(), RetryAfter(30)], [0, 30], id="hold beats retry"),
        pytest.param([ValueError(), RetryAfter(30)], [0, 30], id="hold beats nothing"),
        pytest.param([LookupError(), RetryAfter(30)], [0], id="give up beats hold"),
        pytest.param([KeyError(), ConnectionError()], [0], id="give up beats retry"),
        pytest.param([ConnectionError(), ValueError()], [0, 7], id="one is worth it"),
        pytest.param([ValueError(), OSError()], [0], id="none is worth it"),
        pytest.param([Drop(), ConnectionError()], [0, 7], id="drop beside a retry"),
        pytest.param([Drop(), RetryAfter(30)], [0, 30], id="drop beside a hold"),
    ],
)
def test_group_is_decided_by_what_is_in_it(
    errors: list[Exception], starts: list[float], limits: list[Limit]
) -> None:
    """Giving up beats a hold, the longest hold counts, a hold beats another try."""
    task = Failing(*errors)
    stage = Stage(
        "A",
        1,
        [task],
        task_wait_seconds=7.0,
        retry_on=ConnectionError,
        give_up_on=LookupError,
        hold_on={Busy: 20.0},
        limits=limits,
    )
    results = run(stage)
    assert task.starts == starts
    assert len(results) == len(starts) - 1
    if not results:
        assert isinstance(results.failed[0].error, ExceptionGroup)


def test_hold_in_a_group_does_not_count_as_a_try() -> None:
    """Held with one try in all: the item is through, on its first attempt."""
    results = run(Stage("A", 1, [Failing(RetryAfter(1), times=3)], task_attempts=1))
    assert results[0].attempts == 1


def test_holds_in_groups_are_counted() -> None:
    """After ``max_holds`` the group is an ordinary failure."""
    task = Failing(RetryAfter(1), times=99)
    results = run(Stage("A", 1, [task], task_attempts=1, max_holds=2))
    assert (len(task.starts), len(results.failed)) == (3, 1)


def test_error_that_holds_may_be_one_to_give_up_on() -> None:
    """Alone and in a group: what is held does not give up, here 429 and not 404."""
    for error in (Busy(429), group(Busy(429), ValueError())):
        errors = [error]

        async def task(value: int, errors: list[Any] = errors) -> int:
            if errors:
                raise errors.pop()
            return value

        stage = Stage("A", 1, [task], hold_on={Busy: 1.0}, give_up_on=Busy)
        assert len(run(stage)) == 1


def test_hold_on_is_asked_about_each_error_and_not_about_the_group() -> None:
    """A function for `Exception` sees what is in the group; one for groups sees those."""
    asked: list[str] = []

    def seconds(error: Exception) -> None:
        asked.append(type(error).__name__)

    hold_on: Any = {ExceptionGroup: seconds, Exception: seconds}
    run(Stage("A", 1, [Failing(ValueError(), KeyError())], task_attempts=1, hold_on=hold_on))
    assert asked == ["ExceptionGroup", "ValueError", "ExceptionGroup", "KeyError"]


def test_error_that_is_in_a_group_twice_is_asked_about_once() -> None:
    """One object is one error, however many children of a task group raised it."""
    asked: list[Exception] = []
    error = ValueError()
    stage = Stage(
        "A", 1, [Failing(error, error)], task_attempts=1, hold_on={ValueError: asked.append}
    )
    run(stage)
    assert asked == [error]


@pytest.mark.parametrize("options", [{}, {"batch": 2}, {"timeout": 9.0}])
def test_group_of_nothing_but_drops_drops_the_item(options: dict[str, Any]) -> None:
    """Every leaf is a `Drop`: outcome dropped, told as "complete" and not as a failure."""
    events = record_events()
    results = run(
        Stage("A", 1, [Failing(Drop(), Drop())], task_attempts=1, **options),
        status_tracker=events,
    )
    assert results.stats.items_dropped == 1
    assert "complete Failing 1" in [text.split(" @")[0] for text in events.of(0)]


def test_drop_that_has_a_cause_drops_the_item() -> None:
    """``raise Drop from error`` in a child of a task group is a `Drop` like any other."""

    async def child() -> None:
        raise Drop from ValueError("not wanted")

    async def task(value: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child())

    assert run(Stage("A", 1, [task])).stats.items_dropped == 1


# -- cancellation and the end of the program ------------------------------------------------------


def cancelled_in_skip_if(value: Any) -> bool:
    """Leave a cancellation behind."""
    raise group(asyncio.CancelledError())


@pytest.mark.parametrize("options", [{}, {"batch": 1}, {"limits": [Limit(concurrency=1)]}])
@pytest.mark.parametrize("tracked", [False, True])
def test_cancellation_in_a_group_is_a_failure(options: dict[str, Any], tracked: bool) -> None:
    """It ends neither worker nor run: the item is tried again, as for one that is raised alone."""
    events = {"status_tracker": record_events()} if tracked else {}
    task = Failing(asyncio.CancelledError(), ValueError())
    stage = Stage("A", 1, [task], retry_on=TaskFailedError, **options)
    assert run(stage, range(3), **events).values() == [0, 1, 2]
    assert len(task.starts) == 4


def test_cancellation_in_a_group_keeps_the_group_as_its_cause() -> None:
    """The error is an `ExceptionGroup` of failures, caused by what the task raised."""
    raised = group(asyncio.CancelledError(), ValueError())

    async def task(value: int) -> None:
        raise raised

    error = run(Stage("A", 1, [task], task_attempts=1)).failed[0].error
    assert isinstance(error, ExceptionGroup)
    assert [type(leaf) for leaf in error.exceptions] == [TaskFailedError, ValueError]
    assert error.__cause__ is raised


def test_cancellation_in_a_group_in_skip_if_fails_the_item() -> None:
    """The same for the other function that is asked about each item."""
    results = run(Stage("A", 1, [Failing()], skip_if=cancelled_in_skip_if), range(2))
    assert len(results.failed) == 2


@pytest.mark.parametrize("options", [{}, {"batch": 1}, {"limits": [Limit(concurrency=1)]}])
@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_end_of_the_program_in_a_group_ends_the_run(
    end: type[BaseException], options: dict[str, Any]
) -> None:
    """What ends a program still does when other errors stand beside it."""
    task = Failing(ValueError(), end())
    with pytest.raises(BaseExceptionGroup) as caught:
        run(Stage("A", 1, [task], **options), range(3))
    assert caught.value.subgroup(end) is not None
    assert len(task.starts) == 1


# -- every kind of stage --------------------------------------------------------------------------


def test_groups_as_answers_of_a_batch() -> None:
    """Each answer is decided by itself: held, tried again, dropped, failed."""
    seen: list[list[int]] = []
    bad: dict[int, BaseException] = {
        1: group(RetryAfter(30)),
        2: group(ConnectionError(), ValueError()),
        3: group(Drop(), Drop()),
        4: group(LookupError(), RetryAfter(9)),
        5: group(asyncio.CancelledError()),
    }

    async def task(values: list[int]) -> list[Any]:
        seen.append(values)
        return [bad.pop(value, value) for value in values]

    stage = Stage("A", 1, [task], batch=9, give_up_on=LookupError, task_wait_seconds=60.0)
    results = run(stage, range(6))
    assert sorted(results.values()) == [0, 1, 2, 5]
    assert results.stats.items_dropped == 1
    assert [failed.id for failed in results.failed] == [4]
    assert [sorted(values) for values in seen] == [[0, 1, 2, 3, 4, 5], [1], [2, 5]]


def test_batch_task_that_raises_a_group() -> None:
    """It is about all of the batch: held together, and no try is counted."""
    task = Failing(RetryAfter(10), ValueError(), times=2)
    results = run(Stage("A", 1, [task], task_attempts=1, batch=2, batch_wait=1), range(2))
    assert (results.values(), task.starts) == ([0, 1], [0, 10, 20])


def test_group_in_a_stage_that_tries_the_whole_stage_again() -> None:
    """Under "per_stage" the same rules, from the first task on."""
    first, second = Failing(times=0), Failing(ConnectionError(), ValueError())
    stage = Stage("A", 1, [first, second], "per_stage", retry_on=ConnectionError)
    assert len(run(stage)) == 1
    assert (len(first.starts), len(second.starts)) == (2, 2)


def test_group_from_a_plain_function_and_from_a_generator() -> None:
    """Raised in a thread, or between the values of an expanding stage: held all the same."""

    def plain(value: int) -> int:
        if not tries:
            tries.append(value)
            raise group(RetryAfter(5))
        return value

    async def values(value: int) -> Any:
        yield 1
        if not tries:
            tries.append(value)
            raise group(RetryAfter(5))
        yield 2

    stages: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (plain, {"executor": "inline"}),
        (plain, {}),
        (values, {"expand": True}),
    ]
    for task, options in stages:
        tries: list[int] = []
        stage = Stage("A", 1, [task], task_attempts=1, **options)
        assert not run(stage).failed
        assert tries


@pytest.mark.process
@pytest.mark.parametrize("name", ["Plain", "MoreArguments", "PoisonedLoad", "PoisonedReduce"])
def test_group_from_a_child_process_keeps_what_it_means(name: str) -> None:
    """One error that cannot be copied takes no other down: the hold in the group is seen."""
    stage = Stage("A", 1, [fail_in_group], executor="process", task_attempts=1, max_holds=1)
    results = asyncio.run(Pipeline([stage]).run([name]))
    error = results.failed[0].error
    assert isinstance(error, ExceptionGroup)
    assert [type(leaf).__name__ for leaf in error.exceptions] == ["RetryAfter", name]
    assert results.stats.stage_stats["A"].retried_items == 1


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
def test_executor_tries_a_group_again(error: type[BaseException]) -> None:
    """A group is a failed try like any other, also with a cancellation in it."""
    task = Failing(error())

    async def main() -> Any:
        async with AsyncExecutor(1) as executor:
            return await executor.submit(task, 7, retries=1).result()

    assert run_virtual(main) == 7


def test_executor_does_not_try_the_end_of_the_program_again() -> None:
    """`KeyboardInterrupt` in a group belongs to whoever asks for the result."""
    task = Failing(KeyboardInterrupt())

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            with pytest.raises(BaseExceptionGroup):
                await executor.submit(task, 7, retries=1).result()

    run_virtual(main)
    assert len(task.starts) == 1


# Of what is none of an item's tasks


def own() -> BaseExceptionGroup[BaseException]:
    """What a task group of some libraries raises when a part of it was cancelled."""
    return group(asyncio.CancelledError(), OSError("hung up"))


def fail(*_: Any) -> Any:
    """Raise that."""
    raise own()


async def fail_async(*_: Any) -> Any:
    """Raise that when awaited."""
    raise own()


async def same(value: Any, **_: Any) -> Any:
    """Return the value."""
    return value


@contextmanager
def fails_to_leave() -> Iterator[int]:
    """A resource that cannot be left."""
    yield 1
    raise own()


class Display:
    """A dashboard that fails."""

    on_start = on_update = on_finish = fail


@pytest.mark.parametrize("callback", [fail, fail_async])
def test_cancelled_error_in_a_group_of_a_callback(callback: Callable[..., Any]) -> None:
    """A callback's group with a `CancelledError` in it changes no outcome."""
    stage = Stage("Same", 1, [same], on_success=callback)
    tracker = StatusTracker(on_status_change=callback, on_task_start=callback)
    results = run(stage, [1, 2], status_tracker=tracker)
    assert results.values() == [1, 2]
    assert tracker.callback_errors == 8


def test_cancelled_error_in_a_group_of_a_resource() -> None:
    """A resource that raises one when it is left changes no outcome."""
    assert run(Stage("Same", 1, [same], resources={"door": fails_to_leave}), [1]).values() == [1]


def test_cancelled_error_in_a_group_of_a_display(caplog: pytest.LogCaptureFixture) -> None:
    """A dashboard that raises one changes no outcome, and is told of."""
    pipeline = Pipeline([Stage("Same", 1, [same])])
    results = run_virtual(lambda: pipeline.run([1], custom_dashboard=Display()))
    assert results.values() == [1]
    assert "the display failed in on_start" in caplog.text


def test_cancelled_error_in_a_group_of_an_item() -> None:
    """An item that raises one while it is read fails alone."""

    class Odd(dict[str, int]):
        __contains__ = fail

    results = run(Stage("Same", 1, [same]), [1, Odd(), 3])
    assert (results.values(), len(results.failed)) == ([1, 3], 1)


@pytest.mark.parametrize("is_async", [False, True])
def test_cancelled_error_in_a_group_of_a_source(is_async: bool) -> None:
    """A source that raises one has failed; what it gave before is finished."""

    def rows() -> Iterator[int]:
        yield 1
        yield 2
        raise own()

    async def async_rows() -> AsyncIterator[int]:
        for row in (1, 2):
            yield row
        raise own()

    pipeline = Pipeline([Stage("Same", 1, [same])])
    with pytest.raises(PipelineError, match="the source raised BaseExceptionGroup"):
        run_virtual(lambda: pipeline.run(async_rows() if is_async else rows()))
    assert pipeline.results.values() == [1, 2]


@pytest.mark.parametrize(("depth", "copies"), [(3000, 1), (60, 2)])
def test_group_of_any_depth_costs_only_its_own_item(depth: int, copies: int) -> None:
    """Groups in groups, and groups that share what is in them, are a failure like any other."""
    error: Exception = ValueError("deep")
    for _ in range(depth):
        error = ExceptionGroup("again", [error] * copies)
    crashed = ""
    try:
        results = run(Stage("A", 1, [Failing(error)], task_attempts=1), range(3))
    except PipelineError as fault:  # with all it stands for, it is too much for pytest
        crashed = str(fault)
    assert not crashed
    assert len(results) == 2
    assert results.summary.errors_by_type == {"ExceptionGroup[ValueError]": 1}
