"""Stages and limits are values: what cannot be assigned says what to do instead."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from antflow import Limit, Pipeline, Retry, Stage, StageValidationError, StatusTracker
from antflow.testing import Calls, run_virtual

from .rows_stage import a_stage, work

NAMES = [field.name for field in fields(Stage)]


@pytest.mark.parametrize("name", NAMES)
def test_option_of_a_stage_cannot_be_assigned(name: str) -> None:
    """Assigning or deleting any option is an error that names the way, and changes nothing."""
    stage = a_stage()
    before = getattr(stage, name)
    way = "with_workers.*set_workers" if name == "workers" else rf"replace\(stage, {name}=\.\.\.\)"
    with pytest.raises(FrozenInstanceError, match=rf"^Stage\.{name} cannot be assigned: .*{way}"):
        setattr(stage, name, 5)
    with pytest.raises(FrozenInstanceError, match=way):
        delattr(stage, name)
    assert getattr(stage, name) is before


def test_misspelt_option_of_a_stage_cannot_be_assigned() -> None:
    """A stage takes no other attributes either: assigning one would change nothing."""
    stage: Any = Stage[Any, Any]("Work", 1, [work])
    with pytest.raises(
        AttributeError, match=r"^Stage has no attribute 'worker'; did you mean 'wor"
    ):
        stage.worker = 5


@pytest.mark.parametrize("name", [field.name for field in fields(Retry)])
def test_field_of_a_retry_cannot_be_assigned(name: str) -> None:
    """The error names the way; copies are made as ever."""
    retry = Retry(attempts=5)
    way = rf"^Retry\.{name} cannot be assigned: .*replace\(retry, {name}="
    with pytest.raises(FrozenInstanceError, match=way):
        setattr(retry, name, 7)
    with pytest.raises(FrozenInstanceError, match=way):
        delattr(retry, name)
    assert retry == copy.deepcopy(retry) == pickle.loads(pickle.dumps(retry)) == Retry(attempts=5)
    assert replace(retry, attempts=2).attempts == 2


def test_callback_of_a_stage_cannot_be_assigned_during_a_run() -> None:
    """The stages that a pipeline shows are its own, and as frozen as all others."""
    told: list[Any] = []
    pipeline = Pipeline([a_stage(on_success=lambda *args: told.append(args))])
    with pytest.raises(FrozenInstanceError):
        pipeline.stages[0].on_success = None  # type: ignore[misc]
    run_virtual(pipeline.run([1]))
    assert len(told) == 1


def test_stage_is_replaced() -> None:
    """``dataclasses.replace`` makes another stage, which is checked like any other."""
    stage = a_stage(task_attempts=2)
    other = replace(stage, workers=7)
    assert (stage.workers, other.workers, other.task_attempts) == (1, 7, 2)
    assert other != stage
    assert replace(other, workers=1) == stage
    with pytest.raises(StageValidationError, match="workers=0"):
        replace(stage, workers=0).validate()
    unknown: Any = {"worker": 1}
    with pytest.raises(TypeError, match="did you mean 'workers'"):
        replace(stage, **unknown)


class Named(Stage[Any, Any]):
    """A stage with an attribute of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 1, [work])
        self.note = "mine"


def test_subclass_of_a_stage_may_have_attributes_of_its_own() -> None:
    """They can be assigned and deleted, and a pipeline keeps them; the options stay frozen."""
    stage = Named("A")
    stage.note = "changed"
    with pytest.raises(FrozenInstanceError):
        stage.workers = 5  # type: ignore[misc]
    pipeline = Pipeline([stage]).with_workers(A=3)
    for kept in (*pipeline.stages, copy.deepcopy(stage), pickle.loads(pickle.dumps(stage))):
        assert isinstance(kept, Named)
        assert kept.note == "changed"
    del stage.note
    assert not hasattr(stage, "note")


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("rate", r"limit\.set_rate\(rate, period=None\)"),
        ("period", r"limit\.set_rate\(rate, period=None\)"),
        ("concurrency", "another Limit"),
        ("cost", "another Limit"),
    ],
)
def test_attribute_of_a_limit_cannot_be_assigned(name: str, way: str) -> None:
    """Assigning one is an error that names the way, and changes nothing."""
    limit = Limit(concurrency=3, rate=5)
    before = repr(limit)
    with pytest.raises(AttributeError, match=rf"^Limit\.{name} cannot be assigned: .*{way}"):
        setattr(limit, name, 7)
    assert repr(limit) == before


# Pipelines with other numbers of workers


def test_pipeline_with_other_workers() -> None:
    """The new pipeline has them, and everything else of the old one, which stays as it was."""
    tracker = StatusTracker()
    stages = [a_stage(name="Fetch pages"), a_stage(name="Store", task_attempts=5)]
    pipeline = Pipeline(stages, False, tracker, name="pages", duplicates="skip")
    wider = pipeline.with_workers({"Fetch pages": 4}, Store=3)
    assert [stage.workers for stage in wider.stages] == [4, 3]
    assert [stage.workers for stage in pipeline.stages] == [1, 1]
    assert wider.stages[1].task_attempts == 5
    assert wider.name == "pages"
    run_virtual(wider.run([1]))
    assert (tracker.get_stats()["completed"], len(wider.results)) == (1, 0)
    assert wider.get_stats().items_processed == 1
    assert pipeline.get_stats().items_processed == 0


def test_pipeline_with_other_workers_uses_them() -> None:
    """That many items are worked on at once."""
    calls = Calls(seconds=1)
    pipeline = Pipeline([Stage("Work", 1, [calls])]).with_workers(Work=4)
    run_virtual(pipeline.run(range(8)))
    assert calls.most_at_once == 4


@pytest.mark.parametrize("ask", [copy.copy, lambda pipeline: pipeline.with_workers(Work=2)])
def test_code_in_a_run_may_know_the_pipeline_it_was_derived_from(
    ask: Callable[[Pipeline], Pipeline],
) -> None:
    """A task that feeds the old pipeline feeds the run of the new one; a plain copy is another."""

    async def task(value: int) -> int:
        if value == 1:
            await pipeline.feed([10])
        return value

    async def main() -> list[Any]:
        results = await other.run([1])
        if pipeline.get_stats().items_accepted:
            await pipeline.join()
        return results.values()

    pipeline = Pipeline([a_stage(tasks=[task])])
    other = ask(pipeline)
    is_copy = ask is copy.copy
    assert run_virtual(main) == ([1] if is_copy else [1, 10])


def test_stages_with_limits_are_shared_and_others_compared() -> None:
    """A limit stays one object in all pipelines that are derived from one."""
    limit = Limit(concurrency=1)
    pipeline = Pipeline([a_stage(limits=[limit])])
    assert pipeline.with_workers(Work=3).stages[0].limits[0] is limit


def test_pickled_pipeline_with_other_workers() -> None:
    """It can be pickled and copied as every pipeline."""
    pipeline = pickle.loads(pickle.dumps(Pipeline([a_stage()]).with_workers(Work=3)))
    assert pipeline.stages[0].workers == 3
    assert asyncio.run(pipeline.run([1])).values() == [1]
