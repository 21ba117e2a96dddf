"""The fluent form and `Pipeline.quick`: what they make, and what they refuse and where."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import pytest

import antflow
from antflow import Pipeline, PipelineError, StageValidationError, StatusTracker
from antflow._core.retry import Retry
from antflow.builder import PipelineBuilder, one_stage_each
from antflow.testing import Calls, FailTimes, run_virtual
from tests.support import REQUIRED, defaults, double, odd_only, positional, same, values


async def fetch_page(number: int) -> int:
    return number + 1


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
        ({"retries": 2, "attempts": 2}, r"'A'.*retries=2, attempts=2.*give only one"),
        ({"retries": 2, "task_attempts": 2}, r"'A'.*retries=2: say it in task_attempts"),
        ({"retries": 2, "retry": Retry()}, r"'A'.*say it in retry=Retry"),
        ({"retry_policy": "per_stage", "retry": "per_task"}, r"'A'.*give only one"),
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
        (double, {"retries": 2, "attempts": 2}, StageValidationError, "'Double'.*give only one"),
        (double, {"worker": 2}, TypeError, "did you mean 'workers'"),
    ],
)
def test_quick_when_something_is_wrong(
    tasks: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What is no task and what is no option is refused before anything runs."""
    with pytest.raises(error, match=message):
        run_virtual(lambda: Pipeline.quick([1], tasks, **options))


# -- as in 0.10.0 ----------------------------------------------------------------------------------


@pytest.mark.contract
def test_create_needs_no_pipeline() -> None:
    """``Pipeline.create()`` needs no pipeline and takes nothing."""
    assert defaults(Pipeline.create) == {}
    assert type(Pipeline.create()).__name__ == "PipelineBuilder"


@pytest.mark.contract
def test_add_keeps_its_parameters() -> None:
    """``add(name, *tasks, workers=5, retries=3, retry_policy="per_task")``."""
    add = type(Pipeline.create()).add
    options = defaults(add)
    assert list(options)[:5] == ["name", "tasks", "workers", "retries", "retry_policy"]
    assert list(options.values())[2:5] == [5, 3, "per_task"]
    parameter = inspect.signature(add).parameters["tasks"]
    assert parameter.kind is inspect.Parameter.VAR_POSITIONAL


@pytest.mark.contract
def test_quick_keeps_its_parameters() -> None:
    """``quick(items, tasks, workers=5, retries=3, progress=False, dashboard=None)``, by place."""
    names = ["items", "tasks", "workers", "retries", "progress", "dashboard"]
    assert positional(Pipeline.quick)[:6] == names
    options = list(defaults(Pipeline.quick).values())[:6]
    assert options == [REQUIRED, REQUIRED, 5, 3, False, None]


@pytest.mark.contract
def test_run_of_a_builder_keeps_its_parameters() -> None:
    """``run(items, progress=False, dashboard=None)`` of a builder, by place."""
    run = type(Pipeline.create()).run
    assert positional(run)[:3] == ["items", "progress", "dashboard"]
    assert list(defaults(run).values())[:3] == [REQUIRED, False, None]


@pytest.mark.contract
@pytest.mark.parametrize("call", ["add", "with_tracker", "collect_results"])
def test_builder_methods_can_be_chained(call: str) -> None:
    """Each method of a builder returns the builder."""
    builder = Pipeline.create()
    arguments: dict[str, tuple[Any, ...]] = {
        "add": ("A", same),
        "with_tracker": (StatusTracker(),),
        "collect_results": (),
    }
    assert getattr(builder, call)(*arguments[call]) is builder


@pytest.mark.contract
def test_build_makes_a_pipeline_of_the_stages() -> None:
    """``build()`` makes a `Pipeline` with the stages in the order they were added."""
    pipeline = Pipeline.create().add("A", same).add("B", same, double, workers=2).build()
    assert isinstance(pipeline, Pipeline)
    first, second = pipeline.stages
    assert (first.name, first.workers, list(first.tasks)) == ("A", 5, [same])
    assert (second.name, second.workers, list(second.tasks)) == ("B", 2, [same, double])


@pytest.mark.contract
@pytest.mark.parametrize("policy", ["per_task", "per_stage"])
def test_retries_of_a_builder_are_total_tries(policy: str) -> None:
    """``retries`` in ``add`` counts the first try too, under either policy."""
    flaky = FailTimes(100)
    builder = Pipeline.create().add("A", flaky, workers=1, retries=3, retry_policy=policy)
    results = run_virtual(lambda: builder.run([7, 8, 9]))
    assert len(results) == 0
    assert flaky.tries["7"] == 3


@pytest.mark.contract
def test_with_tracker_follows_the_run() -> None:
    """``with_tracker`` gives the tracker to the pipeline."""
    tracker = StatusTracker()
    builder = Pipeline.create().add("A", same).with_tracker(tracker)
    run_virtual(lambda: builder.run([1, 2]))
    assert tracker.get_stats()["completed"] == 2


@pytest.mark.contract
@pytest.mark.parametrize(("arguments", "count"), [((), 2), ((True,), 2), ((False,), 0)])
def test_collect_results_of_a_builder(arguments: tuple[bool, ...], count: int) -> None:
    """``collect_results(False)`` keeps no results, ``collect_results()`` does."""
    builder = Pipeline.create().add("A", same).collect_results(*arguments)
    assert len(run_virtual(lambda: builder.run([1, 2]))) == count


@pytest.mark.contract
def test_run_of_a_builder_returns_the_results() -> None:
    """``.run(items)`` builds and runs."""
    builder = Pipeline.create().add("A", double).add("B", double)
    assert values(run_virtual(lambda: builder.run([1, 2]))) == [4, 8]


@pytest.mark.contract
def test_empty_builder_is_refused() -> None:
    """Building without a stage is a `PipelineError`: "must have at least one stage"."""
    with pytest.raises(PipelineError, match="must have at least one stage"):
        Pipeline.create().build()


@pytest.mark.contract
def test_quick_with_one_task() -> None:
    """``Pipeline.quick(items, task)`` runs one task over the items."""
    assert values(run_virtual(lambda: Pipeline.quick([1, 2], double))) == [2, 4]


@pytest.mark.contract
def test_quick_with_several_tasks() -> None:
    """With a list of tasks there is one stage per task."""
    assert values(run_virtual(lambda: Pipeline.quick([1, 2], [double, same]))) == [2, 4]


@pytest.mark.contract
def test_quick_uses_workers() -> None:
    """``workers`` items are under way at once, five by default."""
    default, two = Calls(seconds=1), Calls(seconds=1)
    run_virtual(lambda: Pipeline.quick(range(20), default))
    run_virtual(lambda: Pipeline.quick(range(20), two, workers=2))
    assert (default.most_at_once, two.most_at_once) == (5, 2)


@pytest.mark.contract
@pytest.mark.parametrize("retries", [1, 4])
def test_retries_of_quick_are_total_tries(retries: int) -> None:
    """``retries`` in ``quick`` counts the first try too."""
    flaky = FailTimes(100)
    run_virtual(lambda: Pipeline.quick([7], flaky, retries=retries))
    assert flaky.tries["7"] == retries


@pytest.mark.contract
def test_script_with_a_builder() -> None:
    """A script as users have it: stages added in a chain, a tracker, build, run, statistics."""
    tracker = StatusTracker()

    async def main() -> tuple[Pipeline, Any]:
        pipeline = (
            Pipeline.create()
            .add("Odd", odd_only, workers=3, retries=1)
            .add("Double", double, workers=1, retries=2, retry_policy="per_stage")
            .with_tracker(tracker)
            .build()
        )
        return pipeline, await pipeline.run([1, 2, 3, 4])

    pipeline, results = run_virtual(main)
    assert values(results) == [2, 6]
    assert pipeline.get_worker_names()["Odd"] == ["Odd-W0", "Odd-W1", "Odd-W2"]
    assert (tracker.get_stats()["completed"], tracker.get_stats()["failed"]) == (2, 2)


# -- new since 0.10.0 ------------------------------------------------------------------------------


@pytest.mark.contract
def test_builder_is_a_public_name() -> None:
    """``Pipeline.create()`` makes a ``PipelineBuilder`` of the package."""
    assert isinstance(Pipeline.create(), antflow.PipelineBuilder)


@pytest.mark.contract
def test_attempts_is_another_name_of_retries() -> None:
    """``attempts`` is what ``retries`` means here: total tries."""
    first, second = FailTimes(100), FailTimes(100)
    run_virtual(lambda: Pipeline.create().add("A", first, attempts=2).run([7]))
    run_virtual(lambda: Pipeline.quick([7], second, attempts=2))
    assert (first.tries["7"], second.tries["7"]) == (2, 2)


@pytest.mark.contract
@pytest.mark.parametrize("policy", ["per_task", "per_stage"])
@pytest.mark.parametrize("retries", [1, 2, 5])
def test_retries_hold_for_both_policies(policy: str, retries: int) -> None:
    """``retries`` is the number of tries under "per_stage" too, whatever it is."""
    flaky = FailTimes(100)
    builder = Pipeline.create().add("A", flaky, retries=retries, retry_policy=policy)
    results = run_virtual(lambda: builder.run([7]))
    assert (len(results), flaky.tries["7"]) == (0, retries)


@pytest.mark.contract
def test_add_takes_every_stage_option() -> None:
    """``add`` passes every other option on to the stage."""
    builder = Pipeline.create().add("A", same, queue_capacity=3, timeout=5.0, unpack_args=True)
    (stage,) = builder.build().stages
    assert (stage.queue_capacity, stage.timeout, stage.unpack_args) == (3, 5.0, True)


@pytest.mark.contract
@pytest.mark.parametrize("name", [name for name in defaults(Pipeline.run) if name != "items"])
def test_run_of_a_builder_takes_every_option(name: str) -> None:
    """``.run`` of a builder has every option of ``Pipeline.run``, with its default."""
    options = defaults(type(Pipeline.create()).run)
    assert options[name] == defaults(Pipeline.run)[name]


@pytest.mark.contract
def test_add_with_a_list_of_tasks_is_refused_in_words() -> None:
    """``add("A", [fetch, parse])``, as `Stage` takes it, says how the fluent form does."""
    with pytest.raises(StageValidationError, match="a list: pass each of its functions by itself"):
        Pipeline.create().add("A", [fetch_page, double])  # type: ignore[call-overload]


def test_names_of_quick_stages_tell_equal_tasks_apart() -> None:
    """Stages of ``quick`` have their task's name in CamelCase, numbered when it comes twice."""
    stages: list[str] = []

    class Look:
        def on_start(self, pipeline: Any, total_items: int) -> None:
            stages.extend(pipeline.get_stats().stage_stats)

    display: Any = Look()
    run_virtual(
        lambda: Pipeline.quick([1], [odd_only, double, odd_only], retries=1, dashboard=display)
    )
    assert len(set(stages)) == 3
    assert stages[:2] == ["OddOnly", "Double"]
    assert stages[2].startswith("OddOnly")
