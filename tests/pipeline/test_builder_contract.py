"""`Pipeline.create` and `Pipeline.quick`."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import antflow
from antflow import Pipeline, PipelineError, StatusTracker
from antflow.testing import Calls, FailTimes, run_virtual
from tests.support import REQUIRED, defaults, double, odd_only, positional, same, values

pytestmark = pytest.mark.contract


def test_create_needs_no_pipeline() -> None:
    """``Pipeline.create()`` needs no pipeline and takes nothing."""
    assert defaults(Pipeline.create) == {}
    assert type(Pipeline.create()).__name__ == "PipelineBuilder"


def test_add_keeps_its_parameters() -> None:
    """``add(name, *tasks, workers=5, retries=3, retry_policy="per_task")``."""
    add = type(Pipeline.create()).add
    options = defaults(add)
    assert list(options)[:5] == ["name", "tasks", "workers", "retries", "retry_policy"]
    assert list(options.values())[2:5] == [5, 3, "per_task"]
    parameter = inspect.signature(add).parameters["tasks"]
    assert parameter.kind is inspect.Parameter.VAR_POSITIONAL


def test_quick_keeps_its_parameters() -> None:
    """``quick(items, tasks, workers=5, retries=3, progress=False, dashboard=None)``, by place."""
    names = ["items", "tasks", "workers", "retries", "progress", "dashboard"]
    assert positional(Pipeline.quick)[:6] == names
    options = list(defaults(Pipeline.quick).values())[:6]
    assert options == [REQUIRED, REQUIRED, 5, 3, False, None]


def test_run_of_a_builder_keeps_its_parameters() -> None:
    """``run(items, progress=False, dashboard=None)`` of a builder, by place."""
    run = type(Pipeline.create()).run
    assert positional(run)[:3] == ["items", "progress", "dashboard"]
    assert list(defaults(run).values())[:3] == [REQUIRED, False, None]


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


def test_build_makes_a_pipeline_of_the_stages() -> None:
    """``build()`` makes a `Pipeline` with the stages in the order they were added."""
    pipeline = Pipeline.create().add("A", same).add("B", same, double, workers=2).build()
    assert isinstance(pipeline, Pipeline)
    first, second = pipeline.stages
    assert (first.name, first.workers, list(first.tasks)) == ("A", 5, [same])
    assert (second.name, second.workers, list(second.tasks)) == ("B", 2, [same, double])


@pytest.mark.parametrize("policy", ["per_task", "per_stage"])
def test_retries_of_a_builder_are_total_tries(policy: str) -> None:
    """``retries`` in ``add`` counts the first try too, under either policy."""
    flaky = FailTimes(100)
    builder = Pipeline.create().add("A", flaky, workers=1, retries=3, retry_policy=policy)
    results = run_virtual(lambda: builder.run([7, 8, 9]))
    assert len(results) == 0
    assert flaky.tries["7"] == 3


def test_with_tracker_follows_the_run() -> None:
    """``with_tracker`` gives the tracker to the pipeline."""
    tracker = StatusTracker()
    builder = Pipeline.create().add("A", same).with_tracker(tracker)
    run_virtual(lambda: builder.run([1, 2]))
    assert tracker.get_stats()["completed"] == 2


@pytest.mark.parametrize(("arguments", "count"), [((), 2), ((True,), 2), ((False,), 0)])
def test_collect_results_of_a_builder(arguments: tuple[bool, ...], count: int) -> None:
    """``collect_results(False)`` keeps no results, ``collect_results()`` does."""
    builder = Pipeline.create().add("A", same).collect_results(*arguments)
    assert len(run_virtual(lambda: builder.run([1, 2]))) == count


def test_run_of_a_builder_returns_the_results() -> None:
    """``.run(items)`` builds and runs."""
    builder = Pipeline.create().add("A", double).add("B", double)
    assert values(run_virtual(lambda: builder.run([1, 2]))) == [4, 8]


def test_empty_builder_is_refused() -> None:
    """Building without a stage is a `PipelineError`: "must have at least one stage"."""
    with pytest.raises(PipelineError, match="must have at least one stage"):
        Pipeline.create().build()


def test_quick_with_one_task() -> None:
    """``Pipeline.quick(items, task)`` runs one task over the items."""
    assert values(run_virtual(lambda: Pipeline.quick([1, 2], double))) == [2, 4]


def test_quick_with_several_tasks() -> None:
    """With a list of tasks there is one stage per task."""
    assert values(run_virtual(lambda: Pipeline.quick([1, 2], [double, same]))) == [2, 4]


def test_quick_uses_workers() -> None:
    """``workers`` items are under way at once, five by default."""
    default, two = Calls(seconds=1), Calls(seconds=1)
    run_virtual(lambda: Pipeline.quick(range(20), default))
    run_virtual(lambda: Pipeline.quick(range(20), two, workers=2))
    assert (default.most_at_once, two.most_at_once) == (5, 2)


@pytest.mark.parametrize("retries", [1, 4])
def test_retries_of_quick_are_total_tries(retries: int) -> None:
    """``retries`` in ``quick`` counts the first try too."""
    flaky = FailTimes(100)
    run_virtual(lambda: Pipeline.quick([7], flaky, retries=retries))
    assert flaky.tries["7"] == retries


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


# New since 0.10.0


def test_builder_is_a_public_name() -> None:
    """``Pipeline.create()`` makes a ``PipelineBuilder`` of the package."""
    assert isinstance(Pipeline.create(), antflow.PipelineBuilder)


def test_attempts_is_another_name_of_retries() -> None:
    """``attempts`` is what ``retries`` means here: total tries."""
    first, second = FailTimes(100), FailTimes(100)
    run_virtual(lambda: Pipeline.create().add("A", first, attempts=2).run([7]))
    run_virtual(lambda: Pipeline.quick([7], second, attempts=2))
    assert (first.tries["7"], second.tries["7"]) == (2, 2)


@pytest.mark.parametrize("policy", ["per_task", "per_stage"])
@pytest.mark.parametrize("retries", [1, 2, 5])
def test_retries_hold_for_both_policies(policy: str, retries: int) -> None:
    """``retries`` is the number of tries under "per_stage" too, whatever it is."""
    flaky = FailTimes(100)
    builder = Pipeline.create().add("A", flaky, retries=retries, retry_policy=policy)
    results = run_virtual(lambda: builder.run([7]))
    assert (len(results), flaky.tries["7"]) == (0, retries)


def test_add_takes_every_stage_option() -> None:
    """``add`` passes every other option on to the stage."""
    builder = Pipeline.create().add("A", same, queue_capacity=3, timeout=5.0, unpack_args=True)
    (stage,) = builder.build().stages
    assert (stage.queue_capacity, stage.timeout, stage.unpack_args) == (3, 5.0, True)


@pytest.mark.parametrize("name", [name for name in defaults(Pipeline.run) if name != "items"])
def test_run_of_a_builder_takes_every_option(name: str) -> None:
    """``.run`` of a builder has every option of ``Pipeline.run``, with its default."""
    options = defaults(type(Pipeline.create()).run)
    assert options[name] == defaults(Pipeline.run)[name]


def test_quick_names_stages_after_tasks() -> None:
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
