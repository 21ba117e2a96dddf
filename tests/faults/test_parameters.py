"""Bad options are refused where they are given, naming where, which, what and what is allowed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from antflow import (
    Pipeline,
    PipelineError,
    Stage,
    StageValidationError,
    StatusTracker,
)

from .pieces import assert_works, give_back, raising, virtual

NAN, INF, HUGE = float("nan"), float("inf"), 10**400


class Hostile:
    """A value that raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    def __len__(self) -> int:
        raise RuntimeError("len")

    def __lt__(self, other: object) -> bool:
        raise RuntimeError("lt")


async def numbers(value: int) -> Any:
    yield value


def more_numbers(value: int) -> Any:
    yield value


NO_COUNTS = [0, -1, 1.5, 1.0, "5", None, True, NAN, [1], Hostile()]
NO_SECONDS = [-1, -0.001, NAN, INF, -INF, "1", None, True, [1], HUGE, Hostile()]
NO_FLAGS = [1, 0, "yes", None, Hostile()]
NO_CALLABLES = [5, "x", [give_back], Hostile()]

REFUSED_BY_STAGE: dict[str, list[Any]] = {
    "name": [
        None,
        5,
        "",
        b"A",
        "x" * 101,
        "a\nb",
        "a\x1b[2Jb",
        "a\0",
        "a\x9b",
        "\ud800",
        Hostile(),
    ],
    "workers": [*NO_COUNTS, HUGE, 100_001],
    "tasks": [
        give_back,
        None,
        [],
        (),
        "x",
        5,
        [None],
        ["x"],
        [give_back, 5],
        iter([give_back]),
        {give_back},
        [numbers],
        [more_numbers],
        Hostile(),
    ],
    "retry": ["per_item", "", None, 5, True, ["per_task"], Hostile()],
    "task_attempts": NO_COUNTS,
    "task_wait_seconds": NO_SECONDS,
    "stage_attempts": NO_COUNTS,
    "unpack_args": NO_FLAGS,
    "on_success": NO_CALLABLES,
    "on_failure": NO_CALLABLES,
    "on_skip": NO_CALLABLES,
    "skip_if": [*NO_CALLABLES, True],
    "queue_capacity": [-1, -5, 1.5, "x", True, NAN, [1], Hostile()],
    "stage_wait_seconds": NO_SECONDS,
    "version": [None, 5, b"1", Hostile()],
}

ALLOWED_BY_STAGE: dict[str, list[Any]] = {
    "name": ["x" * 100, "[red]", "a/b", "名前", " ", "[/tch]"],
    "workers": [1, 100_000],
    "tasks": [[give_back], (give_back,), [print, len]],
    "retry": ["per_task", "per_stage"],
    "task_attempts": [1, HUGE],
    "task_wait_seconds": [0, 0.0, 1e9],
    "stage_attempts": [1, HUGE],
    "unpack_args": [True, False],
    "on_success": [None, print],
    "on_failure": [None, print],
    "on_skip": [None, print],
    "skip_if": [None, bool],
    "queue_capacity": [None, 0, 1],
    "stage_wait_seconds": [0, 0.5],
    "version": ["", "2"],
}


def rows(table: dict[str, list[Any]]) -> list[Any]:
    """One parameter set per option and value."""
    return [
        pytest.param(name, value, id=f"{name}-{number}")
        for name, values in table.items()
        for number, value in enumerate(values)
    ]


def a_stage(**options: Any) -> Stage:
    defaults: dict[str, Any] = {"name": "Work", "workers": 1, "tasks": [give_back]}
    return Stage(**defaults | options)


@pytest.mark.parametrize(("name", "value"), rows(REFUSED_BY_STAGE))
def test_stage_option_that_is_refused(name: str, value: Any) -> None:
    """An option that is not allowed is refused when the pipeline is made, and not before."""
    stage = a_stage(**{name: value})
    with pytest.raises(StageValidationError, match=name) as caught:
        Pipeline([a_stage(name="First"), stage])
    assert isinstance(caught.value, ValueError)
    message = str(caught.value)
    assert len(message) < 400
    assert message.isprintable()
    if name != "name":
        assert "Work" in message
    with pytest.raises(StageValidationError):
        stage.validate()


@pytest.mark.parametrize(("name", "value"), rows(ALLOWED_BY_STAGE))
def test_stage_option_that_is_allowed(name: str, value: Any) -> None:
    """An option that is allowed is taken."""
    stage = a_stage(**{name: value})
    stage.validate()
    taken = getattr(Pipeline([stage]).stages[0], name)
    assert taken == (tuple(value) if name == "tasks" else value)


def test_stage_options_are_all_here() -> None:
    """Every option of a stage has its bad and its good values in these tables."""
    options = set(inspect.signature(Stage).parameters)
    assert options == set(REFUSED_BY_STAGE) == set(ALLOWED_BY_STAGE)


def test_coroutine_in_place_of_a_task() -> None:
    """A coroutine among the tasks is refused with the likely mistake, and closed."""
    with pytest.raises(StageValidationError, match=r"tasks\[1\].*not function\(\)"):
        Pipeline([a_stage(tasks=[give_back, give_back(1)])])


def test_stage_option_that_is_unknown() -> None:
    """An unknown option is refused by name."""
    with pytest.raises(TypeError, match="worker"):
        a_stage(worker=5)


# Pipeline


NO_STAGES: dict[str, list[Any]] = {
    "stages": [
        None,
        5,
        "stages",
        a_stage(),
        {"Work": a_stage()},
        [give_back],
        [a_stage(), None],
        [[a_stage()]],
        [Stage],
        Hostile(),
    ]
}


@pytest.mark.parametrize(("name", "stages"), rows(NO_STAGES))
def test_stages_that_are_none(name: str, stages: Any) -> None:
    """What is no list of stages is refused."""
    with pytest.raises(TypeError, match=name):
        Pipeline(stages)


def test_stages_from_a_generator() -> None:
    """A generator of stages is refused, not half read."""
    with pytest.raises(TypeError, match="stages"):
        Pipeline(a_stage() for _ in range(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("stages", [[], ()])
def test_stages_that_are_missing(stages: Any) -> None:
    """A pipeline without stages is refused."""
    with pytest.raises(PipelineError, match="at least one stage"):
        Pipeline(stages)


def test_stages_of_one_name() -> None:
    """Two stages of one name are refused, with the places of both."""
    with pytest.raises(PipelineError, match=r"Duplicate stage name 'Work'.*\[0\].*\[2\]"):
        Pipeline([a_stage(), a_stage(name="Other"), a_stage()])


PIPELINE_OPTIONS: dict[str, list[Any]] = {
    "collect_results": NO_FLAGS,
    "status_tracker": [5, "x", StatusTracker, True, {}, Hostile()],
    "name": [None, 5, b"x", Hostile()],
    "store": [5, "x", object(), Hostile()],
}


@pytest.mark.parametrize(("name", "value"), rows(PIPELINE_OPTIONS))
def test_pipeline_option_that_is_refused(name: str, value: Any) -> None:
    """An option that is not allowed is refused when the pipeline is made."""
    with pytest.raises(TypeError, match=name):
        Pipeline([a_stage()], **{name: value})


def test_pipeline_options_are_all_here() -> None:
    """Every option of a pipeline has its bad values in this table."""
    assert set(inspect.signature(Pipeline).parameters) == {"stages", *PIPELINE_OPTIONS}


# run, stream


RUN_OPTIONS: dict[str, list[Any]] = {
    "progress": NO_FLAGS,
    "total": [-1, 1.5, "5", True, NAN, Hostile()],
    "max_failures": [0, -1, 0.0, -0.5, 1.5, NAN, INF, "5", True, [1], Hostile()],
}
STREAM_OPTIONS: dict[str, list[Any]] = RUN_OPTIONS | {
    "buffer_size": [-1, 1.5, "5", True, NAN, Hostile()],
}
ELSEWHERE = {"self", "items", "dashboard", "custom_dashboard", "dashboard_update_interval"}


@pytest.mark.parametrize(("name", "value"), rows(RUN_OPTIONS))
def test_run_option_that_is_refused(name: str, value: Any) -> None:
    """An option that is not allowed is refused before anything begins."""

    async def main() -> None:
        pipeline = Pipeline([a_stage()])
        with pytest.raises((ValueError, TypeError), match=name):
            await pipeline.run(must_not_be_read(), **{name: value})
        assert pipeline.get_dashboard_snapshot().state == "idle"
        await assert_works(pipeline)

    virtual(main)


@pytest.mark.parametrize(("name", "value"), rows(STREAM_OPTIONS))
def test_stream_option_that_is_refused(name: str, value: Any) -> None:
    """An option of a stream that is not allowed is refused where the stream is made."""

    async def main() -> None:
        pipeline = Pipeline([a_stage()])
        with pytest.raises((ValueError, TypeError), match=name):
            pipeline.stream(must_not_be_read(), **{name: value})
        await assert_works(pipeline)

    virtual(main)


def must_not_be_read() -> Any:
    raise AssertionError("the items were read")
    yield


@pytest.mark.parametrize(
    ("method", "table"), [(Pipeline.run, RUN_OPTIONS), (Pipeline.stream, STREAM_OPTIONS)]
)
def test_run_options_are_all_here(method: Callable[..., Any], table: dict[str, Any]) -> None:
    """Every option of run and stream has its bad values in a table."""
    assert set(inspect.signature(method).parameters) - ELSEWHERE == set(table)


@pytest.mark.parametrize(("limit", "accepted"), [(1, 1), (3, 3), (0.5, 20), (1.0, 20)])
def test_max_failures(limit: float, accepted: int) -> None:
    """Intake stops when so many items have failed, or such a share of at least twenty."""

    async def main() -> None:
        stage = a_stage(tasks=[raising(ValueError("no"))], task_attempts=1, queue_capacity=1)
        pipeline = Pipeline([stage])
        with pytest.raises(PipelineError, match="max_failures"):
            await pipeline.run(range(1000), max_failures=limit)
        assert accepted <= pipeline.get_stats().items_accepted <= accepted + 3

    virtual(main)


# StatusTracker


TRACKER_OPTIONS: dict[str, list[Any]] = {
    "on_status_change": NO_CALLABLES,
    "on_task_start": NO_CALLABLES,
    "on_task_complete": NO_CALLABLES,
    "on_task_retry": NO_CALLABLES,
    "on_task_fail": NO_CALLABLES,
    "callback_timeout": [0, *NO_SECONDS],
}


@pytest.mark.parametrize(("name", "value"), rows(TRACKER_OPTIONS))
def test_tracker_option_that_is_refused(name: str, value: Any) -> None:
    """An option of a tracker that is not allowed is refused when it is made."""
    with pytest.raises((TypeError, ValueError), match=name):
        StatusTracker(**{name: value})


def test_tracker_options_are_all_here() -> None:
    """Every option of a tracker has its bad values in this table."""
    assert set(inspect.signature(StatusTracker).parameters) == set(TRACKER_OPTIONS)


@pytest.mark.parametrize("status", ["faild", "", None, 5, []])
def test_status_that_is_none(status: Any) -> None:
    """Asking a tracker for a status there is none of is an error, with those there are."""
    with pytest.raises((ValueError, TypeError), match="'failed'"):
        StatusTracker().get_by_status(status)


@pytest.mark.parametrize("item_id", [[], {}, Hostile()])
def test_id_that_cannot_be_looked_up(item_id: Any) -> None:
    """Asking a tracker for an id that cannot be looked up says so."""
    for query in (StatusTracker().get_status, StatusTracker().get_history):
        with pytest.raises(TypeError, match="item_id"):
            query(item_id)


def test_id_that_is_unknown() -> None:
    """A tracker knows nothing of an id it has not seen."""
    tracker = StatusTracker()
    assert tracker.get_status("x") is None
    assert tracker.get_history("x") == []


# A run that is open


@pytest.mark.parametrize(
    "count", [pytest.param(count, id=str(n)) for n, count in enumerate(NO_COUNTS)]
)
def test_workers_that_are_none(count: Any) -> None:
    """A number of workers that is none is refused, and nothing changes."""

    async def main() -> None:
        pipeline = Pipeline([a_stage()])
        async with pipeline.open() as run:
            with pytest.raises(ValueError, match="count"):
                run.set_workers("Work", count)
            with pytest.raises(ValueError, match="not found"):
                run.set_workers("Other", 1)
            assert pipeline.get_worker_names() == {"Work": ["Work-W0"]}

    virtual(main)


def test_pipeline_without_a_loop() -> None:
    """A pipeline is made, and asked, where no event loop runs."""
    pipeline = Pipeline([a_stage()], status_tracker=StatusTracker())
    assert pipeline.get_stats().items_accepted == 0
    assert pipeline.results == []
    assert pipeline.get_error_summary().total_failed == 0
    assert asyncio.run(pipeline.run([1])).values() == [1]
    assert pipeline.get_stats().items_processed == 1
