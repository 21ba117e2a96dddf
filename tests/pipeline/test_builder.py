"""The fluent form and `Pipeline.quick`: what they make, and what they refuse and where."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import pytest

from antflow import Pipeline, PipelineError, StageValidationError, StatusTracker
from antflow._core.retry import Retry
from antflow.builder import PipelineBuilder, one_stage_each
from antflow.testing import FailTimes, run_virtual


async def fetch_page(number: int) -> int:
    return number + 1


def double(number: int) -> int:
    return 2 * number


def names_of(*tasks: Any) -> list[str]:
    """The names that the stages of `Pipeline.quick` get."""
    return [stage.name for stage in one_stage_each(tasks).build().stages]


def test_builder_runs() -> None:
    """What was added runs in that order."""
    builder = Pipeline.create().add("Fetch", fetch_page, workers=2).add("Double", double)
    assert run_virtual(lambda: builder.run(range(3))).values() == [2, 4, 6]


def test_builder_when_built_twice() -> None:
    """A pipeline stays what it was when it was built, whatever is added later."""
    builder: PipelineBuilder = PipelineBuilder().add("Fetch", fetch_page)
    first = builder.build()
    assert builder.add("Double", double) is builder
    assert len(first.stages) == 1
    assert [stage.name for stage in builder.build().stages] == ["Fetch", "Double"]


def test_builder_run_has_every_option() -> None:
    """`PipelineBuilder.run` takes what `Pipeline.run` takes, with the same defaults."""
    taken = {
        name: parameter.replace(annotation=None)
        for name, parameter in inspect.signature(PipelineBuilder.run).parameters.items()
    }
    assert taken == {
        name: parameter.replace(annotation=None)
        for name, parameter in inspect.signature(Pipeline.run).parameters.items()
    }


def test_builder_passes_options_of_a_run_on() -> None:
    """An option of `run` does what it says there."""
    failing = Pipeline.create().add("Fetch", FailTimes(9), workers=1, retries=1)
    with pytest.raises(PipelineError, match="max_failures"):
        run_virtual(lambda: failing.run(range(9), max_failures=2))


def test_builder_with_options_and_tracker() -> None:
    """Name, duplicates, tracker and collecting arrive at the pipeline."""
    tracker = StatusTracker()
    builder = Pipeline.create().with_options(name="pages", duplicates="skip").add("A", double)
    builder.with_tracker(tracker).collect_results(False)
    items = [{"id": 1, "value": 2}, {"id": 1, "value": 3}]
    results = run_virtual(lambda: builder.run(items))
    assert (builder.build().name, len(results), results.stats.items_processed) == ("pages", 0, 1)
    assert tracker.get_stats()["completed"] == 1


@pytest.mark.parametrize(
    ("options", "tries"),
    [
        ({}, ("per_task", 3, 3)),
        ({"retries": 5}, ("per_task", 5, 3)),
        ({"attempts": 5}, ("per_task", 5, 3)),
        ({"attempts": 5, "retry_policy": "per_stage"}, ("per_stage", 3, 5)),
        ({"retries": 2, "retry": "per_stage"}, ("per_stage", 3, 2)),
        ({"task_attempts": 7}, ("per_task", 7, 3)),
    ],
)
def test_retries_go_where_the_policy_says(
    options: dict[str, Any], tries: tuple[str, int, int]
) -> None:
    """Total tries are those of the task or of the stage, by the retry policy."""
    (stage,) = Pipeline.create().add("A", double, **options).build().stages
    assert (stage.retry, stage.task_attempts, stage.stage_attempts) == tries


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, r"'A'.*workers=0"),
        ({"retries": 0}, r"'A'.*retries=0: must be a whole number of tries"),
        ({"attempts": True}, r"'A'.*attempts=True"),
        ({"retries": 2, "attempts": 2}, r"'A'.*retries=2, attempts=2.*give one"),
        ({"retries": 2, "task_attempts": 2}, r"'A'.*retries=2: say it in task_attempts"),
        ({"retries": 2, "retry": Retry()}, r"'A'.*say it in retry=Retry"),
        ({"retry_policy": "per_stage", "retry": "per_task"}, r"'A'.*give one"),
        ({"retry_policy": "never"}, r"'A'.*Invalid retry policy"),
    ],
)
def test_add_when_an_option_is_wrong(options: dict[str, Any], message: str) -> None:
    """A wrong option is refused where it stands, with the name of the stage."""
    builder = Pipeline.create()
    with pytest.raises(StageValidationError, match=message):
        builder.add("A", double, **options)
    with pytest.raises(PipelineError, match="at least one stage"):
        builder.build()


def test_add_when_an_option_is_misspelt() -> None:
    """An unknown option is a `TypeError` that says what was meant."""
    builder: Any = Pipeline.create()
    with pytest.raises(TypeError, match=r"worker=5.*did you mean 'workers'\?"):
        builder.add("A", double, worker=5)
    with pytest.raises(TypeError, match=r"retry_polcy='x'.*did you mean 'retry_policy'\?"):
        builder.add("A", double, retry_polcy="x")


def test_add_when_the_stage_cannot_stand_there() -> None:
    """A second stage of a name, and a first one with ``pull``, are refused at once."""
    builder: PipelineBuilder = Pipeline.create().add("A", double)
    with pytest.raises(PipelineError, match="Duplicate stage name 'A'"):
        builder.add("A", fetch_page)
    assert len(builder.build().stages) == 1
    with pytest.raises(PipelineError, match="first stage"):
        Pipeline.create().add("A", double, pull=True)


def test_options_of_the_pipeline_when_wrong() -> None:
    """They are refused by the method that was given them, and nothing is changed."""
    builder: Any = Pipeline.create().add("A", double)
    with pytest.raises(TypeError, match="status_tracker"):
        builder.with_tracker("tracker")
    with pytest.raises(TypeError, match="collect_results"):
        builder.collect_results("no")
    with pytest.raises(ValueError, match="duplicates"):
        builder.with_options(duplicates="twice")
    builder.build()


def test_quick_names_stages_after_tasks() -> None:
    """Names are in CamelCase, whatever kind of callable it is, and each is there once."""

    class HTMLReader:
        def __call__(self, value: int) -> int:
            return value

    async def fetch(value: int) -> int:
        return value

    async def _(value: int) -> int:
        return value

    assert names_of(fetch_page, partial(double), HTMLReader()) == [
        "FetchPage",
        "Double",
        "HTMLReader",
    ]
    assert names_of(lambda value: value, _) == ["Lambda", "Task"]
    assert names_of(fetch, fetch, fetch) == ["Fetch", "Fetch2", "Fetch3"]
    fetch.__name__ = "f" * 200
    assert [len(name) for name in names_of(fetch, fetch)] == [90, 91]


def test_quick_runs_one_stage_per_task() -> None:
    """A task, or several in order, are run over the items."""
    assert run_virtual(lambda: Pipeline.quick([1, 2], double)).values() == [2, 4]
    assert run_virtual(lambda: Pipeline.quick([1, 2], [double, fetch_page])).values() == [3, 5]


@pytest.mark.parametrize(
    ("tasks", "options", "error", "message"),
    [
        ([], {}, PipelineError, "at least one stage"),
        ("tasks", {}, StageValidationError, "must be a function"),
        (double, {"retries": 2, "attempts": 2}, StageValidationError, "'Double'.*give one"),
        (double, {"worker": 2}, TypeError, "did you mean 'workers'"),
    ],
)
def test_quick_when_something_is_wrong(
    tasks: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What is no task and what is no option is refused before anything runs."""
    with pytest.raises(error, match=message):
        run_virtual(lambda: Pipeline.quick([1], tasks, **options))
