"""Errors: their family, and the words in them that existing programs look for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import antflow
from antflow import (
    AntFlowError,
    ExecutorShutdownError,
    Pipeline,
    PipelineError,
    Stage,
    StageValidationError,
    StatusTracker,
    TaskFailedError,
)
from antflow.display import CompactDashboard
from antflow.testing import MemoryStore, run_virtual
from tests.support import odd_only, same

pytestmark = pytest.mark.contract


def stage(**options: Any) -> Stage:
    """A good stage but for these options."""
    good: dict[str, Any] = {"name": "A", "workers": 1, "tasks": [same]}
    return Stage(**(good | options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retry": "never"}, "Invalid retry policy"),
        ({"workers": 0}, "must have at least 1 worker"),
        ({"workers": -3}, "must have at least 1 worker"),
        ({"tasks": []}, "must have at least one task"),
        ({"task_concurrency_limits": {"other": 1}}, "unknown task"),
        ({"task_attempts": 0}, "task_attempts"),
        ({"stage_attempts": 0}, "stage_attempts"),
    ],
)
def test_words_of_stage_errors(options: dict[str, Any], words: str) -> None:
    """A wrong option is a `StageValidationError` in the words programs look for."""
    with pytest.raises(StageValidationError, match=words):
        Pipeline([stage(**options)])


@pytest.mark.parametrize("options", [{"workers": 0}, {"tasks": []}, {"retry": "x"}])
def test_stage_errors_name_the_stage(options: dict[str, Any]) -> None:
    """The message says which stage it is."""
    with pytest.raises(StageValidationError, match="Fetch"):
        Pipeline([stage(name="Fetch", **options)])


def test_pipeline_without_stages() -> None:
    """No stage at all is a `PipelineError`: "must have at least one stage"."""
    with pytest.raises(PipelineError, match="must have at least one stage"):
        Pipeline([])


def test_pull_on_the_first_stage() -> None:
    """``pull`` on the first stage is a `PipelineError`: "first stage"."""
    with pytest.raises(PipelineError, match="first stage"):
        Pipeline([stage(pull=True)])


def test_pull_with_per_stage() -> None:
    """``pull`` together with "per_stage" is a `StageValidationError` that says so."""
    with pytest.raises(StageValidationError, match="per_stage"):
        Pipeline([stage(), stage(name="B", pull=True, retry="per_stage")])


@pytest.mark.parametrize("caught", [PipelineError, StageValidationError])
def test_two_stages_of_one_name(caught: type[Exception]) -> None:
    """Two stages of one name are refused: "Duplicate stage name"."""
    with pytest.raises(caught, match="Duplicate stage name"):
        Pipeline([stage(), stage()])


def test_unknown_target_stage() -> None:
    """An unknown ``target_stage`` is a `ValueError`: "not found"."""

    async def main() -> None:
        pipeline = Pipeline([stage()])
        await pipeline.start()
        try:
            await pipeline.feed([1], target_stage="B")
        finally:
            await pipeline.shutdown()

    with pytest.raises(ValueError, match="not found"):
        run_virtual(main)


def test_two_displays() -> None:
    """Two displays are a `ValueError`: "Cannot use both"."""
    with pytest.raises(ValueError, match="Cannot use both"):
        run_virtual(lambda: Pipeline([stage()]).run([1], progress=True, dashboard="full"))


@pytest.mark.parametrize(
    ("error", "parents"),
    [
        (AntFlowError, (Exception,)),
        (PipelineError, (AntFlowError,)),
        (StageValidationError, (PipelineError, AntFlowError)),
        (ExecutorShutdownError, (AntFlowError,)),
        (TaskFailedError, (AntFlowError,)),
    ],
)
def test_family_of_errors(error: type[Exception], parents: tuple[type[Exception], ...]) -> None:
    """Who catches a parent catches the child, as in 0.10.0."""
    assert all(issubclass(error, parent) for parent in parents)


@pytest.mark.parametrize("by_place", [True, False])
def test_task_failed_error_keeps_its_parameters(by_place: bool) -> None:
    """``TaskFailedError(task_name, original_exception)`` has both as attributes."""
    cause = ValueError("x")
    error = (
        TaskFailedError("fetch", cause)
        if by_place
        else TaskFailedError(task_name="fetch", original_exception=cause)
    )
    assert (error.task_name, error.original_exception) == ("fetch", cause)
    assert "fetch" in str(error)


def test_one_failing_item_stops_no_other() -> None:
    """The error of one item stays with that item."""
    results = run_virtual(lambda: Pipeline([stage(tasks=[odd_only])]).run([1, 2, 3]))
    assert [result.value for result in results] == [1, 3]


class Brokenly(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error",
    [ExceptionGroup("two", [ValueError(1), KeyError(2)]), Brokenly(), TimeoutError()],
    ids=["group", "broken text", "timeout"],
)
def test_errors_of_every_kind_fail_one_item(error: Exception) -> None:
    """Groups, exceptions without text and timeouts fail the item they came from, no other."""

    async def work(value: int) -> int:
        if value == 1:
            raise error
        return value

    pipeline = Pipeline([stage(tasks=[work], task_attempts=1)])
    results = run_virtual(lambda: pipeline.run(range(3)))
    assert [result.value for result in results] == [0, 2]
    assert pipeline.get_stats().items_failed == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exits_come_out(error: type[BaseException]) -> None:
    """`KeyboardInterrupt` and `SystemExit` in a task end the program."""

    async def work(_: Any) -> None:
        raise error

    with pytest.raises(error):
        run_virtual(lambda: Pipeline([stage(tasks=[work])]).run([1]), leftovers="cancel")


# New since 0.10.0


@pytest.mark.parametrize(
    ("name", "parents"),
    [
        ("PipelineError", (RuntimeError,)),
        ("StageValidationError", (ValueError,)),
        ("DuplicateItemError", (PipelineError, ValueError)),
        ("TooManyFailures", (PipelineError,)),
        ("InternalError", (PipelineError,)),
        ("WouldDeadlockError", (PipelineError,)),
        ("TaskFailedError", (RuntimeError,)),
        ("WorkerLostError", (TaskFailedError,)),
        ("ExecutorShutdownError", (RuntimeError,)),
        ("ItemCancelled", (AntFlowError,)),
        ("HistoryNotKept", (LookupError,)),
        ("RetryAfter", (AntFlowError,)),
        ("JournalError", (PipelineError,)),
        ("JournalOpenError", (PipelineError, OSError)),
        ("JournalInUseError", (PipelineError,)),
        ("JournalVersionError", (PipelineError, ValueError)),
        ("JournalCorruptError", (PipelineError, ValueError)),
        ("JournalWriteError", (PipelineError, OSError)),
        ("JournalForkError", (PipelineError,)),
        ("JournalInputMismatch", (PipelineError, ValueError)),
        ("JournalKeyError", (PipelineError, ValueError)),
        ("NotSerialisable", (PipelineError, TypeError)),
        ("NotRoundTrippable", (PipelineError, TypeError)),
        ("NotRestorable", (PipelineError, ValueError)),
    ],
)
def test_family_of_new_errors(name: str, parents: tuple[type[Exception], ...]) -> None:
    """Every error is an `AntFlowError` at its place and the builtin that fits."""
    assert all(issubclass(getattr(antflow, name), parent) for parent in (*parents, AntFlowError))


WRONG: list[dict[str, Any]] = [
    {"workers": 1.5},
    {"workers": "5"},
    {"workers": None},
    {"workers": float("nan")},
    {"workers": True},
    {"tasks": same},
    {"tasks": [None]},
    {"tasks": ["x"]},
    {"tasks": iter([same])},
    {"task_attempts": 2.5},
    {"task_attempts": "3"},
    {"task_wait_seconds": -1},
    {"task_wait_seconds": float("nan")},
    {"skip_if": 5},
    {"on_success": 5},
    {"on_failure": "x"},
    {"on_skip": 1.0},
    {"call_concurrency": 0},
    {"call_concurrency": -1},
    {"call_rate": 0},
    {"call_rate": -5},
    {"call_rate_period": 0},
    {"queue_capacity": 1.5},
    {"queue_capacity": -1},
    {"timeout": 0},
    {"batch": 0},
    {"executor": "threads"},
    {"resource_scope": "item"},
    {"max_failures": 0},
]


@pytest.mark.parametrize(
    "options", WRONG, ids=lambda options: " ".join(f"{k} {v!r:.12}" for k, v in options.items())
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any]) -> None:
    """A wrong value or type is refused when the pipeline is made; the message names the option."""
    (name,) = options
    with pytest.raises(StageValidationError, match=name):
        Pipeline([stage(**options)])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pipeline(stage()),  # type: ignore[call-overload]
        lambda: Pipeline([same]),  # type: ignore[type-var]
        lambda: Pipeline("stages"),  # type: ignore[arg-type]
    ],
    ids=["stage", "function", "text"],
)
def test_refuses_what_is_not_a_list_of_stages(make: Callable[[], Pipeline]) -> None:
    """What is no list of stages is a `TypeError`."""
    with pytest.raises(TypeError, match="stages"):
        make()


def test_one_record_per_failed_item(caplog: pytest.LogCaptureFixture) -> None:
    """The logger ``antflow`` gets one record for each failed item, and one for the run."""
    with caplog.at_level(logging.DEBUG, "antflow"):
        pipeline = Pipeline([stage(tasks=[odd_only], task_attempts=3, task_wait_seconds=0)])
        run_virtual(lambda: pipeline.run(range(4)))
    levels = [each.levelname for each in caplog.records if each.name.startswith("antflow")]
    assert levels == ["INFO", "INFO", "WARNING"]


def test_cancelled_error_of_a_task_is_a_task_failed_error() -> None:
    """A task that raised `CancelledError` itself has failed with `TaskFailedError`."""

    async def work(_: Any) -> None:
        raise asyncio.CancelledError

    pipeline = Pipeline([stage(tasks=[work], task_attempts=1)])
    (failure,) = run_virtual(lambda: pipeline.run([1])).failed
    assert isinstance(failure.error, TaskFailedError)
    assert failure.error.task_name == "work"


async def pages() -> AsyncIterator[int]:
    """An async generator function."""
    yield 1


def rows() -> Iterator[int]:
    """A generator function."""
    yield 1


@pytest.mark.parametrize("source", [pages, rows])
def test_generator_function_that_was_not_called_is_refused_with_the_call(source: Any) -> None:
    """The message says how to call it."""
    pipeline = Pipeline([Stage("A", 1, [str])])
    with pytest.raises(TypeError, match=rf"call it: {source.__name__}\(\)"):
        run_virtual(lambda: pipeline.run(source))


def test_value_whose_repr_has_several_lines_is_shown_in_one() -> None:
    """A message that shows an array or a data frame is one line."""

    class Lines:
        def __repr__(self) -> str:
            return "  a  b\n0  1  2\r\n1  3  4"

    with pytest.raises(TypeError) as caught:
        run_virtual(lambda: Pipeline([Stage("A", 1, [str])]).run(Lines()))  # type: ignore[arg-type]
    assert str(caught.value).startswith("items=a b 0 1 2 1 3 4: ")


class Observer:
    """Hears of each step."""

    def happened(self, step: Any) -> None: ...


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: begin_with(custom_dashboard=CompactDashboard), "custom_dashboard"),
        (lambda: begin_with(dashboard=CompactDashboard), "dashboard"),
        (lambda: Pipeline([Stage]), "stages[0]"),  # type: ignore[list-item, type-var]
        (lambda: made_with(status_tracker=StatusTracker), "status_tracker"),
        (lambda: made_with(store=MemoryStore), "store"),
        (lambda: made_with(observers=[Observer]), "observers[0]"),
    ],
)
def test_class_in_place_of_its_object(make: Any, name: str) -> None:
    """The message says that an instance is wanted; it says nothing of that to another class."""
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    assert str(caught.value).startswith(f"{name}=<class ")
    assert str(caught.value).endswith("; pass an instance, not the class")


def test_class_of_something_else_gets_no_advice() -> None:
    """An instance of it would not do either."""
    for options in ({"custom_dashboard": int}, {"dashboard": int}):
        with pytest.raises((TypeError, ValueError), match="must be") as caught:
            begin_with(**options)
        assert "instance" not in str(caught.value)


def made_with(**options: Any) -> Pipeline:
    return Pipeline([Stage("Same", 1, [str])], **options)


def begin_with(**options: Any) -> Any:
    return made_with().stream([1], **options)
