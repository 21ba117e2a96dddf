"""`Pipeline`: how it is made, what it says about itself, and what an item is."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import importlib
import inspect
import logging
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from antflow import AsyncExecutor, Pipeline, PipelineError, RunHandle, Stage, StatusTracker
from antflow.sinks import JsonlSink
from antflow.testing import Gate, run_virtual
from tests.support import (
    REQUIRED,
    assert_balanced,
    defaults,
    double,
    lasting,
    odd_only,
    positional,
    same,
    values,
)

pytestmark = pytest.mark.contract


def simple(**options: Any) -> Pipeline:
    """A pipeline of one stage that fails for even numbers."""
    return Pipeline([Stage("Odd", 2, [odd_only], task_attempts=1)], **options)


def test_pipeline_keeps_its_parameters() -> None:
    """``Pipeline(stages, collect_results=True, status_tracker=None)``, by place too."""
    assert positional(Pipeline) == ["stages", "collect_results", "status_tracker"]
    assert list(defaults(Pipeline).values())[:3] == [REQUIRED, True, None]


def test_pipeline_works_positionally() -> None:
    """All three can be given by their places."""
    tracker = StatusTracker()
    pipeline = Pipeline([Stage("A", 1, [same])], False, tracker)
    assert list(run_virtual(lambda: pipeline.run([5]))) == []
    assert tracker.get_stats()["completed"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "get_stats",
        "get_worker_names",
        "get_worker_states",
        "get_worker_metrics",
        "get_dashboard_snapshot",
        "get_error_summary",
    ],
)
def test_queries_are_plain_methods_without_parameters(name: str) -> None:
    """The queries are no coroutines, take nothing, and answer before the first run too."""
    query = getattr(simple(), name)
    assert not inspect.iscoroutinefunction(query)
    assert query() is not None


def test_stages_are_readable() -> None:
    """``pipeline.stages`` has the stages in their order."""
    stages = [Stage("A", 1, [same]), Stage("B", 2, [same])]
    assert [stage.name for stage in Pipeline(stages).stages] == ["A", "B"]


def test_workers_are_named_after_their_stage() -> None:
    """Workers are ``Fetch-W0``, ``Fetch-W1`` …, listed by stage."""
    pipeline = Pipeline([Stage("Fetch", 2, [same]), Stage("Save", 1, [same])])
    assert pipeline.get_worker_names() == {"Fetch": ["Fetch-W0", "Fetch-W1"], "Save": ["Save-W0"]}


def test_stats_after_a_run() -> None:
    """``get_stats()`` counts what was processed, what failed and what is in flight."""
    pipeline = simple()
    run_virtual(lambda: pipeline.run(range(10)))
    stats = pipeline.get_stats()
    assert (stats.items_processed, stats.items_failed, stats.items_in_flight) == (5, 5, 0)
    assert stats.queue_sizes == {"Odd": 0}


def test_stage_stats_after_a_run() -> None:
    """``stage_stats`` has the counts of each stage under its name."""
    pipeline = Pipeline(
        [Stage("Odd", 2, [odd_only], task_attempts=1), Stage("Double", 1, [double])]
    )
    run_virtual(lambda: pipeline.run(range(10)))
    odd, doubled = pipeline.get_stats().stage_stats.values()
    assert (odd.stage_name, odd.completed_items, odd.failed_items) == ("Odd", 5, 5)
    assert (doubled.stage_name, doubled.completed_items, doubled.failed_items) == ("Double", 5, 0)


def test_worker_metrics_add_up() -> None:
    """What the workers of a stage did adds up to what the stage did."""
    pipeline = simple()
    run_virtual(lambda: pipeline.run(range(10)))
    metrics = pipeline.get_worker_metrics()
    assert list(metrics) == ["Odd-W0", "Odd-W1"]
    assert sum(worker.items_processed for worker in metrics.values()) == 5
    assert sum(worker.items_failed for worker in metrics.values()) == 5


def test_worker_states_of_a_busy_worker() -> None:
    """``get_worker_states()`` says who is busy, with which item and which task."""

    async def main() -> Any:
        gate = Gate()

        async def wait(value: Any) -> Any:
            return await gate(value)

        pipeline = Pipeline([Stage("A", 2, [wait])])
        running = asyncio.create_task(pipeline.run([{"id": "x", "value": 1}]))
        await asyncio.sleep(1)
        during = [
            (state.stage, state.current_item_id, state.current_task)
            for state in pipeline.get_worker_states().values()
            if state.status == "busy" and state.processing_since is not None
        ]
        gate.open()
        await running
        return during, [state.status for state in pipeline.get_worker_states().values()]

    during, after = run_virtual(main)
    assert during == [("A", "x", "wait")]
    assert after == ["idle", "idle"]


def test_collect_results_off_keeps_counts() -> None:
    """With ``collect_results=False`` the list is empty and the counts are exact."""
    pipeline = simple(collect_results=False)
    assert list(run_virtual(lambda: pipeline.run(range(7)))) == []
    assert (pipeline.get_stats().items_processed, pipeline.get_stats().items_failed) == (3, 4)


def test_results_are_kept_at_the_pipeline() -> None:
    """``pipeline.results`` has the successful results in input order."""
    pipeline = simple()
    run_virtual(lambda: pipeline.run(range(6)))
    assert [(result.id, result.value) for result in pipeline.results] == [(1, 1), (3, 3), (5, 5)]


def test_items_get_running_ids() -> None:
    """Whatever is no dict with an id gets a running integer, 0 first, as id."""
    results = run_virtual(lambda: Pipeline([Stage("A", 1, [same])]).run(["x", (1, 2), {"k": 1}]))
    assert [(r.id, r.value) for r in results] == [(0, "x"), (1, (1, 2)), (2, {"k": 1})]


def test_dict_with_id_and_value() -> None:
    """A dict with an id gives id and value; its other keys become the metadata of the result."""
    items = [{"id": "a", "value": 3, "language": "en", "page": 7}]
    (result,) = run_virtual(lambda: Pipeline([Stage("A", 1, [double])]).run(items))
    assert (result.id, result.value) == ("a", 6)
    assert result.metadata == {"language": "en", "page": 7}


def test_dict_with_id_and_no_value_is_its_own_value() -> None:
    """Without a "value" the whole dict is the value, and its other keys are metadata too."""
    item = {"id": "a", "url": "u"}
    (result,) = run_virtual(lambda: Pipeline([Stage("A", 1, [same])]).run([item]))
    assert (result.value, result.metadata) == (item, {"url": "u"})


@pytest.mark.parametrize("item_id", ["a", 7, (1, "b")])
def test_ids_of_any_hashable_kind(item_id: Any) -> None:
    """Any hashable id is kept as it is."""
    items = [{"id": item_id, "value": 1}]
    (result,) = run_virtual(lambda: Pipeline([Stage("A", 1, [same])]).run(items))
    assert result.id == item_id


def test_id_of_none_gets_a_running_id() -> None:
    """An item whose id is ``None`` gets a running one; its value is its "value" all the same."""
    items = [{"id": None, "value": 5, "page": 7}]
    (result,) = run_virtual(lambda: Pipeline([Stage("A", 1, [same])]).run(items))
    assert (result.id, result.value, result.metadata) == (0, 5, {"page": 7})


def test_running_ids_count_items_with_ids_too() -> None:
    """An item that brings its own id uses up a number."""
    items = [{"id": "b", "value": 1}, 5, {"id": "a", "value": 1}, 7]
    results = run_virtual(lambda: Pipeline([Stage("A", 1, [same])]).run(items))
    assert [result.id for result in results] == ["b", 1, "a", 3]


def test_sequence_ids_are_places_in_the_input() -> None:
    """``sequence_id`` is the place in the input, from 0, whatever the ids."""
    items = [{"id": "z", "value": 1}, 5, {"id": "a", "value": 2}]
    results = run_virtual(lambda: Pipeline([Stage("A", 3, [same])]).run(items))
    assert [result.sequence_id for result in results] == [0, 1, 2]


@pytest.mark.parametrize("value", [None, 0, "", [], ValueError("a value")])
def test_tasks_may_return_anything(value: Any) -> None:
    """What a task returns is a result, also when it is empty or an exception object."""

    async def give(_: Any) -> Any:
        return value

    (result,) = run_virtual(lambda: Pipeline([Stage("A", 1, [give])]).run([1]))
    assert (result.value, result.is_success) == (value, True)


def test_one_stage_in_two_pipelines() -> None:
    """A `Stage` may be part of several pipelines."""
    stage = Stage("A", 1, [double])

    async def main() -> list[Any]:
        first, second = await asyncio.gather(
            Pipeline([stage]).run([1, 2]), Pipeline([stage]).run([3])
        )
        return values(first) + values(second)

    assert run_virtual(main) == [2, 4, 6]


def test_pipeline_inside_a_task() -> None:
    """A task may run another pipeline."""

    async def inner(value: int) -> int:
        return sum(values(await Pipeline([Stage("In", 2, [double])]).run(range(value))))

    results = run_virtual(lambda: Pipeline([Stage("Out", 2, [inner])]).run([2, 3]))
    assert values(results) == [2, 6]


# New since 0.10.0


@pytest.mark.parametrize(("name", "default"), [("name", "pipeline"), ("duplicates", "number")])
def test_pipeline_new_options_come_by_keyword(name: str, default: Any) -> None:
    """``name`` and ``duplicates`` are given by keyword and have defaults."""
    assert defaults(Pipeline)[name] == default


def test_each_run_counts_anew() -> None:
    """Automatic ids, ``sequence_id`` and counts start anew with each run."""
    pipeline = Pipeline([Stage("A", 1, [same])])

    async def main() -> Any:
        return await pipeline.run(["ab"]), await pipeline.run(["x", "y"])

    _, second = run_virtual(main)
    assert [(r.id, r.sequence_id, r.value) for r in second] == [(0, 0, "x"), (1, 1, "y")]
    assert pipeline.get_stats().items_processed == 2


def test_pipeline_runs_in_two_event_loops() -> None:
    """One pipeline can be run in one event loop after the other."""
    pipeline = Pipeline([Stage("A", 1, [same])])
    assert values(run_virtual(lambda: pipeline.run([1]))) == [1]
    assert values(run_virtual(lambda: pipeline.run([2]))) == [2]


def test_pipeline_runs_twice_at_once() -> None:
    """Two runs of one pipeline at the same time do not disturb each other."""
    pipeline = Pipeline([Stage("A", 2, [double])])

    async def main() -> Any:
        return await asyncio.gather(pipeline.run(range(20)), pipeline.run(range(100, 120)))

    first, second = run_virtual(main, seed=3)
    assert values(first) == [2 * n for n in range(20)]
    assert values(second) == [2 * n for n in range(100, 120)]


def test_duplicate_ids_are_numbered() -> None:
    """Of items with one id the later ones become ``"a#2"``, ``"a#3"``."""
    items = [{"id": "a", "value": n} for n in range(3)]
    pipeline = Pipeline([Stage("A", 1, [same])])
    results = run_virtual(lambda: pipeline.run(items))
    assert [(r.id, r.value) for r in results] == [("a", 0), ("a#2", 1), ("a#3", 2)]


def test_duplicate_ids_are_refused() -> None:
    """``duplicates="error"`` stops the intake with `DuplicateItemError`, results attached."""
    from antflow import DuplicateItemError

    pipeline = Pipeline([Stage("A", 1, [same])], duplicates="error")
    with pytest.raises(DuplicateItemError) as caught:
        run_virtual(lambda: pipeline.run([{"id": "a"}, {"id": "b"}, {"id": "a"}]))
    assert caught.value.results is not None
    assert [result.id for result in caught.value.results] == ["a", "b"]


def test_duplicate_ids_are_skipped() -> None:
    """``duplicates="skip"`` leaves the later one out and counts it."""
    pipeline = Pipeline([Stage("A", 1, [same])], duplicates="skip")
    items = [{"id": "a", "value": 1}, {"id": "a", "value": 2}]
    assert values(run_virtual(lambda: pipeline.run(items))) == [1]
    assert pipeline.get_stats().items_skipped_duplicates == 1


def test_unhashable_id_is_replaced_by_its_text() -> None:
    """An id that cannot be hashed becomes its text."""
    items = [{"id": ["a"], "value": 1}]
    (result,) = run_virtual(lambda: Pipeline([Stage("A", 1, [same])]).run(items))
    assert result.id == "['a']"


@pytest.mark.parametrize("items", ["abc", b"abc", {"a": 1}], ids=["str", "bytes", "mapping"])
def test_items_that_are_not_a_collection_are_refused(items: Any) -> None:
    """A text, bytes or a bare mapping is refused: "wrap it in a list"."""
    with pytest.raises(TypeError, match="wrap it in a list"):
        run_virtual(lambda: Pipeline([Stage("A", 1, [same])]).run(items))


def test_stage_list_is_copied() -> None:
    """Changing the list of stages afterwards changes no pipeline."""
    stages = [Stage("A", 1, [double])]
    pipeline = Pipeline(stages)
    stages.append(Stage("B", 1, [double]))
    assert values(run_virtual(lambda: pipeline.run([1]))) == [2]


def test_objects_that_are_not_trackers_are_refused() -> None:
    """A ``status_tracker`` that is none is a `TypeError` at construction."""
    wrong: Any = print
    with pytest.raises(TypeError, match="status_tracker"):
        Pipeline([Stage("A", 1, [same])], status_tracker=wrong)


@pytest.mark.parametrize("items", [0, 1, 57])
def test_books_balance(items: int) -> None:
    """Whatever is accepted ends as processed, failed, dropped, expanded or cancelled."""
    pipeline = simple()
    run_virtual(lambda: pipeline.run(range(items)))
    assert pipeline.get_stats().items_accepted == items
    assert_balanced(pipeline.get_stats())


def test_drop_ends_an_item_well() -> None:
    """A task that returns or raises `Drop` ends the item without result or failure."""
    from antflow import Drop

    async def keep_big(value: int) -> Any:
        if value == 0:
            raise Drop
        return value if value > 2 else Drop

    pipeline = Pipeline([Stage("A", 1, [keep_big]), Stage("B", 1, [same])])
    results = run_virtual(lambda: pipeline.run(range(5)))
    assert (values(results), results.failed) == ([3, 4], [])
    assert pipeline.get_stats().items_dropped == 3


def test_task_that_raises_cancelled_error_has_failed() -> None:
    """A task that raises `CancelledError` itself has failed; its worker goes on."""

    async def work(value: int) -> int:
        if value == 1:
            raise asyncio.CancelledError
        return value

    pipeline = Pipeline([Stage("A", 1, [work], task_attempts=1)])
    results = run_virtual(lambda: pipeline.run(range(3)))
    assert (values(results), len(results.failed)) == ([0, 2], 1)


def test_results_before_the_first_run() -> None:
    """Before any run there are no results, and nothing is in the books."""
    pipeline = simple()
    assert list(pipeline.results) == []
    assert pipeline.get_stats().items_accepted == 0


def test_run_from_its_own_task_is_refused() -> None:
    """A task that runs the pipeline it is part of fails with `PipelineError`; nothing hangs."""
    pipelines: list[Pipeline] = []

    async def again(value: int) -> Any:
        return await pipelines[0].run([value])

    pipelines.append(Pipeline([Stage("A", 1, [again], task_attempts=1)]))
    (failure,) = run_virtual(lambda: pipelines[0].run([1])).failed
    assert isinstance(failure.error, PipelineError)


def test_error_summary_without_a_tracker() -> None:
    """Without a tracker too the pipeline counts its failures exactly, by type and by stage."""
    pipeline = simple()
    run_virtual(lambda: pipeline.run(range(6)))
    summary = pipeline.get_error_summary()
    assert summary.total_failed == 3
    assert summary.errors_by_type == {"ValueError": 3}
    assert summary.errors_by_stage == {"Odd": 3}


def test_duplicate_ids_bring_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """However many ids come twice, a run warns once."""
    pipeline = Pipeline([Stage("A", 1, [same])])
    run_virtual(lambda: pipeline.run([{"id": "a", "value": n} for n in range(5)]))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_queries_in_a_run_are_about_that_run() -> None:
    """Inside a run's context the queries answer for that run, outside for the latest."""
    from antflow import current_item

    asked: set[bool] = set()

    async def ask(value: int) -> int:
        await asyncio.sleep(1)
        asked.add(pipeline.get_dashboard_snapshot().run_id == current_item().run_id)
        return value

    pipeline = Pipeline([Stage("A", 2, [ask])])

    async def main() -> None:
        await asyncio.gather(pipeline.run(range(5)), pipeline.run(range(5)))
        latest = await pipeline.run([1])
        assert pipeline.get_dashboard_snapshot().run_id == latest.run_id

    run_virtual(main)
    assert asked == {True}


@pytest.mark.contract
def test_collect_results_is_readable() -> None:
    """A pipeline says whether it keeps results."""
    stages = [Stage("A", 1, [same])]
    assert Pipeline(stages).collect_results
    assert not Pipeline(stages, collect_results=False).collect_results


def test_repr_of_a_pipeline_its_run_and_its_tracker() -> None:
    """Name, stages, state and counts, in one short line."""

    async def task(value: int) -> int:
        if value == 3:
            raise ValueError
        return value

    async def main() -> list[str]:
        tracker = StatusTracker()
        stages = [Stage("A", 20, [task], task_attempts=1), Stage("B", 1, [lasting(5)])]
        pipeline = Pipeline(stages, status_tracker=tracker, name="pages")
        texts = [repr(pipeline), repr(tracker)]
        async with pipeline.open() as run:
            await run.feed(range(4))
            await asyncio.sleep(1)
            texts += [repr(pipeline), repr(run).replace(run.run_id, "ID"), repr(tracker)]
        return [*texts, repr(pipeline), repr(tracker)]

    assert run_virtual(main) == [
        "<Pipeline 'pages': A ×20 → B ×1>",
        "<StatusTracker: 0 runs>",
        "<Pipeline 'pages': A ×20 → B ×1; running, 3 in flight, 0 ok, 1 failed>",
        "<RunHandle ID: running, 3 in flight, 0 ok, 1 failed>",
        "<StatusTracker: 1 run; 2 queued, 1 in_progress, 1 failed>",
        "<Pipeline 'pages': A ×20 → B ×1; finished, 3 ok, 1 failed>",
        "<StatusTracker: 1 run; 3 completed, 1 failed>",
    ]


@pytest.mark.parametrize("kind", [Pipeline, StatusTracker, AsyncExecutor, RunHandle])
def test_repr_never_raises(kind: Any) -> None:
    """A debugger shows objects that are half made, too."""
    odd: Any = kind.__new__(kind)
    odd._run = SimpleNamespace(is_under_way=False)  # for RunHandle.__del__
    assert repr(odd) == f"<{kind.__name__}>"


PUBLIC_MODULES = ("", ".display", ".executor", ".observers", ".pipeline", ".sinks", ".testing")


def public_classes() -> list[type]:
    """Those that have objects of their own: no errors, and nothing for type checkers alone."""
    modules = [importlib.import_module(f"antflow{name}") for name in PUBLIC_MODULES]
    found = {getattr(module, name) for module in modules for name in module.__all__}
    classes = [each for each in found if isinstance(each, type)]
    return sorted(
        (
            each
            for each in classes
            if not issubclass(each, (BaseException, logging.Filter, enum.Enum, dict, tuple))
            and not getattr(each, "_is_protocol", False)
            and not issubclass(each, asyncio.AbstractEventLoop)
            and not dataclasses.is_dataclass(each)
        ),
        key=lambda each: each.__name__,
    )


@pytest.mark.parametrize("kind", public_classes())
def test_every_public_object_says_what_it_is(kind: Any) -> None:
    """None prints its address, and none raises, even if it is half made."""
    abstract = getattr(kind, "__abstractmethods__", ())
    concrete: Any = type(kind.__name__, (kind,), dict.fromkeys(abstract)) if abstract else kind
    half = concrete.__new__(concrete)
    with suppress(AttributeError):
        half._run = SimpleNamespace(is_under_way=False)  # for RunHandle.__del__
        half._loop = None  # for Iteration.__del__
    assert kind.__name__ in repr(half)
    assert " at 0x" not in repr(half)


def test_repr_of_what_a_pipeline_hands_out(tmp_path: Path) -> None:
    """A builder, a run to be opened, and a stream say in a few words how they stand."""

    async def task(value: int) -> int:
        return value

    builder = Pipeline.create().add("A", task, workers=20).add("B", task)

    async def main() -> list[str]:
        pipeline = builder.build()
        stream = pipeline.stream(range(3))
        texts = [repr(builder), repr(pipeline.open()), repr(stream)]
        await anext(stream)
        texts.append(repr(stream))
        await stream.aclose()
        sink = JsonlSink(tmp_path / "events.jsonl")
        await pipeline.run(range(2), observers=[sink])
        return [*texts, repr(stream), repr(sink).replace(str(tmp_path), "…")]

    assert run_virtual(main) == [
        "<PipelineBuilder: A ×20 → B ×5>",
        "<Around of Pipeline.open(): write `async with`>",
        "<ResultStream: not begun>",
        "<ResultStream: draining, 3 ok, 0 failed>",
        "<ResultStream: finished, 3 ok, 0 failed>",
        "<JsonlSink '…/events.jsonl': 10 written, 0 lost>",
    ]


def test_repr_of_an_executor() -> None:
    """How many workers, whether it is at work, and whether it was shut down."""

    async def main() -> list[str]:
        texts = []
        async with AsyncExecutor(max_workers=3) as executor:
            texts.append(repr(executor))
            future = executor.submit(lasting(1), 1)
            texts.append(repr(executor))
            await future
        return [*texts, repr(executor)]

    assert run_virtual(main) == [
        "<AsyncExecutor: 3 workers, idle>",
        "<AsyncExecutor: 3 workers, 1 in progress>",
        "<AsyncExecutor: 3 workers, idle, shut down>",
    ]
