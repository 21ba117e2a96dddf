"""What a stage, or a word, may be: the rules that take more than one value to show."""

from __future__ import annotations

import gc
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest

from antflow import (
    AsyncExecutor,
    Pipeline,
    StageValidationError,
    StatusTracker,
    backoff,
)
from antflow.display import create
from antflow.testing import run_virtual

from .rows_stage import a_stage, numbers, work


def test_stages_of_one_name() -> None:
    """Two stages of one name are refused, with the places of both."""
    with pytest.raises(StageValidationError, match=r"Duplicate stage name 'Work'.*\[0\].*\[2\]"):
        Pipeline([a_stage(), a_stage(name="Other"), a_stage()])


def test_stages_whose_names_look_the_same() -> None:
    """Names that are two spellings of one Unicode text are one name; upper case makes another."""
    composed = "caf\u00e9"
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    with pytest.raises(StageValidationError, match=r"stages\[0\] and stages\[1\]"):
        Pipeline([a_stage(name=composed), a_stage(name=decomposed)])
    pipeline = Pipeline([a_stage(name="fetch"), a_stage(name="Fetch")])
    assert [stage.name for stage in pipeline.stages] == ["fetch", "Fetch"]


def test_bool_is_not_a_number_of_workers() -> None:
    """``True`` is not taken for one worker, and says so as every other value does."""
    with pytest.raises(StageValidationError, match=r"Stage 'Work': workers=True: .*whole number"):
        Pipeline([a_stage(workers=True)])


def called() -> Any:
    return work(1)


CALLED: dict[str, Callable[[], Any]] = {
    "task": lambda: Pipeline([a_stage(tasks=[work(1)])]),
    "tasks": lambda: Pipeline([a_stage(tasks=[work, work(1), work(2)])]),
    "no list": lambda: Pipeline([a_stage(tasks=work(1))]),
    "skip_if": lambda: Pipeline([a_stage(skip_if=work(1))]),
    "on_success": lambda: Pipeline([a_stage(on_success=work(1))]),
    "tracker": lambda: StatusTracker(on_task_fail=called()),
    "executor": lambda: run_virtual(AsyncExecutor().map(called(), [])),
}


@pytest.mark.parametrize("where", CALLED)
def test_coroutine_in_place_of_a_function(where: str) -> None:
    """A coroutine is refused with the likely mistake, and closed: Python has nothing to add."""
    with pytest.raises((TypeError, ValueError), match=r"coroutine: write function, not function"):
        CALLED[where]()
    gc.collect()  # what was never awaited would be a warning now


def test_coroutine_in_place_of_items() -> None:
    """A coroutine that would return the items is refused with the advice to await it."""
    with pytest.raises(TypeError, match=r"items=<coroutine .*coroutine: await it, or write"):
        Pipeline([a_stage()]).stream(called())
    gc.collect()


def test_generator_as_a_task_is_named() -> None:
    """A generator function among the tasks is refused by name, with what to do."""
    with pytest.raises(StageValidationError, match=r"tasks\[1\]=<function numbers.*expand=True"):
        Pipeline([a_stage(tasks=[work, numbers])])


def test_task_with_parameters_that_do_not_fit() -> None:
    """A task that cannot be called with a value is refused with its signature."""

    async def compare(left: int, right: int) -> bool:
        return left < right

    with pytest.raises(
        StageValidationError, match=r"'right'; it is f\(left: 'int', right: 'int'\)"
    ):
        Pipeline([a_stage(tasks=[compare])])
    assert len(Pipeline([a_stage(tasks=[compare], unpack_args=True)]).stages) == 1


def test_backoff_that_would_overflow() -> None:
    """A pause stops at its maximum however large the numbers are."""
    assert backoff(1, 10.0**300, 60, jitter=False)(2**2000) == 60
    assert backoff(10.0**300, 2, 60, jitter=False)(5) == 60
    assert backoff(0, 2, 60, jitter=False)(2**2000) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry": "per_stag"}, "'per_stage'"),
        ({"resource_scope": "workers"}, "'worker'"),
        ({"executor": "treads"}, "'thread'"),
        ({"task_concurrency_limits": {"wrk": 1}}, "'work'"),
    ],
    ids=["retry", "resource_scope", "executor", "task_concurrency_limits"],
)
def test_word_that_is_misspelt(options: dict[str, Any], message: str) -> None:
    """Where an option is one of some words, a misspelt one is told what was meant."""
    with pytest.raises(StageValidationError, match=rf"; did you mean {message}\?$"):
        Pipeline([a_stage(**options)])


def a_pipeline(**options: Any) -> Pipeline:
    return Pipeline([a_stage()], **options)


async def feed_to(stage: str) -> None:
    async with a_pipeline().open() as run:
        await run.feed([1], stage)


WORDS: dict[str, Callable[[Any], Any]] = {
    "number": lambda word: a_pipeline(duplicates=word),
    "failed": lambda word: StatusTracker().get_by_status(word),
    "compact": create,
    "full": lambda word: run_virtual(a_pipeline().run([1], dashboard=word)),
    "Work": lambda word: run_virtual(feed_to(word)),
}


@pytest.mark.parametrize("word", WORDS)
def test_word_that_is_misspelt_elsewhere(word: str) -> None:
    """The same goes for pipelines, trackers and displays, and for names of stages."""
    with pytest.raises(ValueError, match=rf"; did you mean '{word}'\?$"):
        WORDS[word](word[:-2] + word[-1])
