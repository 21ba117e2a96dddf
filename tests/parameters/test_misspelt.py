"""A misspelt option: which call, which option, and which one was most likely meant."""

from __future__ import annotations

import copy
import inspect
import re
from dataclasses import fields
from typing import Any

import pytest

from antflow import AsyncExecutor, Limit, Pipeline, Retry, Stage, StatusTracker, backoff
from antflow._core.misspellings import SYNONYMS, explained
from antflow.testing import run_virtual

from .public import parameters_of, public_callables
from .rows_stage import a_stage, work

BEGINNINGS = (
    *("Stage", "Pipeline", "Pipeline.run", "Pipeline.stream", "Pipeline.open", "Pipeline.quick"),
    *("PipelineBuilder.run", "Limit", "Retry", "backoff", "StatusTracker", "AsyncExecutor"),
    *("Pipeline.start", "AsyncExecutor.map", "AsyncExecutor.map_iter"),
)
"""The calls that promise it: where a pipeline is described, and where a run begins."""

MADE = {"Stage": Stage, "Retry": Retry}
"""Dataclasses, whose ``__init__`` is not written out."""

CALLED: dict[str, Any] = {
    "Limit": Limit,
    "Retry": Retry,
    "backoff": backoff,
    "StatusTracker": StatusTracker,
    "AsyncExecutor": AsyncExecutor,
}

BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


async def enter(manager: Any) -> None:
    async with manager:
        pass


def call_it(name: str, **options: Any) -> None:
    """Call one of them with what it needs and these options, and await what has to be awaited."""
    pipeline = Pipeline([a_stage()])
    if name == "Stage":
        a_stage(**options)
    elif name in CALLED:
        CALLED[name](**options)
    elif name == "Pipeline":
        Pipeline([a_stage()], **options)
    elif name == "Pipeline.open":
        run_virtual(enter(pipeline.open(**options)))
    elif name == "Pipeline.start":
        run_virtual(lambda: pipeline.start(**options))
    elif name == "AsyncExecutor.map":
        run_virtual(lambda: AsyncExecutor().map(work, [1], **options))
    elif name == "AsyncExecutor.map_iter":
        AsyncExecutor().map_iter(work, [1], **options)
    elif name == "Pipeline.quick":
        run_virtual(lambda: Pipeline.quick([1], work, **options))
    elif name == "Pipeline.stream":
        pipeline.stream([1], **options)
    else:
        owner: Any = Pipeline.create().add("A", work) if "Builder" in name else pipeline
        run_virtual(lambda: owner.run([1], **options))


def misspellings() -> list[Any]:
    """Each option of each of the calls, with its last letter twice."""
    return [
        pytest.param(name, parameter.name, id=f"{name}-{parameter.name}")
        for name in BEGINNINGS
        for parameter in parameters_of(MADE.get(name) or public_callables()[name]).values()
        if parameter.kind in BY_NAME
    ]


@pytest.mark.parametrize(("name", "option"), misspellings())
def test_option_with_a_letter_too_many(name: str, option: str) -> None:
    """Every option of these calls is recognised when a letter of it is wrong."""
    given = option + option[-1]
    shown = name.replace("Builder", "")
    expected = f"{shown}({given}=5): there is no such option; did you mean {option!r}?"
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
        call_it(name, **{given: 5})


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("Stage", "worker", "workers"),
        ("Stage", "task_attempt", "task_attempts"),
        ("Pipeline", "collect_result", "collect_results"),
        ("Pipeline.run", "dashbord", "dashboard"),
        ("Pipeline.run", "time_out", "timeout"),
        ("Pipeline.stream", "bufer_size", "buffer_size"),
        ("Pipeline.stream", "buffer", "buffer_size"),
        ("Pipeline.open", "time_out", "timeout"),
        ("Pipeline.quick", "worker", "workers"),
        # As they are called elsewhere.
        ("Stage", "batch_size", "batch"),
        ("Stage", "retries", "task_attempts"),
        ("Stage", "max_retries", "task_attempts"),
        ("Stage", "attempts", "task_attempts"),
        ("Stage", "concurrency", "workers"),
        ("Stage", "max_workers", "workers"),
        ("Stage", "queue_size", "queue_capacity"),
        ("Stage", "on_error", "on_failure"),
        ("Pipeline.stream", "queue_size", "buffer_size"),
        ("Pipeline.quick", "concurrency", "workers"),
        ("Pipeline.quick", "max_retries", "attempts"),
        ("Pipeline.run", "max_errors", "max_failures"),
        ("Stage", "batch_timeout", "batch_wait"),
        ("Stage", "rate", "limits"),
        ("Stage", "max_concurrent", "workers"),
        ("Limit", "max_concurrent", "concurrency"),
        ("Limit", "requests", "rate"),
        ("Limit", "per", "period"),
        ("Retry", "tries", "attempts"),
        ("Retry", "retry_delay", "wait"),
        ("backoff", "max", "maximum"),
        ("StatusTracker", "on_change", "on_status_change"),
        ("AsyncExecutor", "workers", "max_workers"),
        ("Stage", "backoff", "wait"),
        ("Stage", "exceptions", "retry_on"),
        ("Stage", "process", "executor"),
        ("Stage", "retry_wait", "task_wait_seconds"),
        ("Pipeline.run", "display", "dashboard"),
        ("Pipeline.run", "on_error", "on_failures"),
        ("Pipeline.stream", "preserve_order", "ordered"),
        ("Retry", "retry_on", "on"),
        ("Retry", "give_up_on", "give_up"),
        ("Retry", "task_attempts", "attempts"),
        ("Retry", "delay", "wait"),
        ("backoff", "base", "initial"),
        # Words were added to the name.
        ("Stage", "timeout_seconds", "timeout"),
        ("Stage", "task_timeout", "timeout"),
        ("Stage", "batch_wait_seconds", "batch_wait"),
        ("Pipeline.run", "timeout_seconds", "timeout"),
        ("Retry", "wait_seconds", "wait"),
    ],
)
def test_option_as_people_misspell_it(name: str, given: str, meant: str) -> None:
    """The likely mistakes are told what was meant."""
    with pytest.raises(TypeError, match=rf"\({given}=5\): .* did you mean '{meant}'\?$"):
        call_it(name, **{given: 5})


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("Pipeline", "workers", "Stage has it"),
        (
            "Pipeline",
            "max_failures",
            "Stage, Pipeline.run, Pipeline.stream and Pipeline.open have it",
        ),
        ("Pipeline", "dashboard", "Pipeline.run, Pipeline.stream and Pipeline.open have it"),
        ("Pipeline.run", "workers", "Stage has it"),
        ("Pipeline.run", "ordered", "Pipeline.stream has it"),
        ("Pipeline.run", "status_tracker", "Pipeline has it"),
        ("Pipeline.stream", "on_failures", "Pipeline.run and Pipeline.open have it"),
        ("Pipeline.start", "total", "Pipeline.run, Pipeline.stream and Pipeline.open have it"),
        ("Stage", "collect_results", "Pipeline has it"),
        # As it is called elsewhere.
        ("Pipeline.run", "retries", "Stage has 'task_attempts'"),
        ("Pipeline.run", "max_workers", "Stage has 'workers'"),
        ("Pipeline.stream", "max_retries", "Stage has 'task_attempts'"),
        ("Pipeline", "max_errors", "Stage has 'max_failures'"),
        ("AsyncExecutor", "retries", "the options are max_workers"),
        # Unless one of the call's own is its singular or plural.
        ("Pipeline.run", "retry", "Stage has it"),
        ("Pipeline.run", "on_failure", r"Stage has it; did you mean 'on_failures'\?"),
        ("Pipeline.open", "on_failure", r"Stage has it; did you mean 'on_failures'\?"),
        (
            "Stage",
            "on_failures",
            r"Pipeline.run and Pipeline.open have it; did you mean 'on_failure'\?",
        ),
    ],
)
def test_option_of_another_call(name: str, given: str, said: str) -> None:
    """An option that another of these calls has is not answered with one that looks like it."""
    with pytest.raises(TypeError, match=rf"\({given}=5\): there is no such option; {said}$"):
        call_it(name, **{given: 5})


def test_options_that_runs_share_are_in_their_signatures() -> None:
    """``help`` and notebooks show each option of a run, with its type and its default."""
    for name in ("run", "stream", "open", "quick"):
        signature = str(inspect.signature(public_callables()[f"Pipeline.{name}"]))
        assert "total: int | None = None, max_failures: float | " in signature
        assert "**" not in signature


# What it is made with


@explained
def plain(first: Any, *, second: int = 2) -> int:
    """A function."""
    return len(first) + second


@explained
def anything(first: int, **more: int) -> int:
    return first + len(more)


def test_option_like_no_other() -> None:
    """An option that is like none is answered with those there are."""
    unknown: Any = {"zzz": "x" * 200}
    with pytest.raises(
        TypeError, match=r"^plain\(zzz='x+…\): .*; the options are first, second$"
    ) as caught:
        plain(1, **unknown)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("call", "args", "message"),
    [
        (plain, (1,), "object of type 'int' has no len"),
        (plain, (), "missing 1 required positional argument: 'first'"),
        (plain, (1, 2), "takes 1 positional argument but 2 were given"),
        (Stage, (), "missing 3 required"),
    ],
)
def test_type_error_of_another_kind(call: Any, args: tuple[Any, ...], message: str) -> None:
    """A `TypeError` that is about no unknown option is left as it is."""
    with pytest.raises(TypeError, match=message):
        call(*args)


def test_functions_stay_what_they_are() -> None:
    """Names, signatures, kinds and copies are those of what was decorated."""
    assert plain.__name__ == "plain"
    assert plain.__doc__ == "A function."
    assert str(inspect.signature(plain)) == "(first: 'Any', *, second: 'int' = 2) -> 'int'"
    assert inspect.iscoroutinefunction(Pipeline.run)
    assert not inspect.iscoroutinefunction(Pipeline.stream)
    assert list(inspect.signature(Stage).parameters)[:3] == ["name", "workers", "tasks"]
    stage = Stage("A", 1, [work])
    assert stage == copy.copy(stage) == Stage(name="A", workers=1, tasks=[work])


@pytest.mark.parametrize(("given", "meant"), [("batch_size", "batch"), ("concurrency", "workers")])
def test_option_of_a_builders_stage_as_it_is_called_elsewhere(given: str, meant: str) -> None:
    """So does the builder: names of other libraries are translated."""
    unknown: Any = {given: 5}
    with pytest.raises(TypeError, match=rf"^add\({given}=5\): .* did you mean '{meant}'\?$"):
        Pipeline.create().add("A", work, **unknown)


def test_option_of_a_run_given_to_a_builders_stage() -> None:
    """The builder's stage says where an option belongs, as the others do."""
    unknown: Any = {"dashboard": "full"}
    have = "Pipeline.run, Pipeline.stream and Pipeline.open have it"
    with pytest.raises(TypeError, match=f"no such option; {have}$"):
        Pipeline.create().add("A", work, **unknown)


def test_synonyms_are_of_options_there_are() -> None:
    """Each name is that of no option, or not everywhere, and stands for one."""
    known = {
        parameter
        for call in public_callables().values()
        for parameter in inspect.signature(call).parameters
    } | {field.name for field in fields(Stage)}
    assert {name for names in SYNONYMS.values() for name in names} <= known
