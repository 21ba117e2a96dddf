"""A misspelt option: which call, which option, and which one was most likely meant."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from antflow import (
    AsyncExecutor,
    Limit,
    Pipeline,
    Retry,
    RetryAfter,
    Stage,
    StatusTracker,
    backoff,
    configure_telemetry,
)
from antflow._core.options import named_fields, named_options
from antflow.testing import run_virtual

from .public import NO_ROW, parameters_of, public_callables
from .rows_stage import a_stage, work

BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def misspellings() -> list[Any]:
    """Each option of each public callable, with its last letter twice."""
    found: list[Any] = []
    for name, call in public_callables().items():
        parameters = parameters_of(call).values()
        if name in NO_ROW or any(p.kind is p.VAR_KEYWORD for p in parameters):
            continue
        found += [
            pytest.param(name, p.name, id=f"{name}-{p.name}")
            for p in parameters
            if p.kind in BY_NAME
        ]
    return found


def call_it(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call, and await what has to be awaited."""
    answer = call(*args, **options)
    return run_virtual(answer) if inspect.iscoroutine(answer) else answer


@pytest.mark.parametrize(("name", "option"), misspellings())
def test_option_with_a_letter_too_many(name: str, option: str) -> None:
    """Every option of every public callable is recognised when a letter of it is wrong."""
    call = public_callables()[name]
    if inspect.isclass(call):  # an abstract one cannot be made at all
        call = call.__init__
    takes_self = "self" in inspect.signature(call).parameters
    given = option + option[-1]
    expected = f"{name}({given}=5): there is no such option; did you mean {option!r}?"
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
        call_it(call, *[None] * takes_self, **{given: 5})


@pytest.mark.parametrize(
    ("call", "given", "meant"),
    [
        (a_stage, "worker", "workers"),
        (a_stage, "task_attempt", "task_attempts"),
        (Pipeline, "collect_result", "collect_results"),
        (Pipeline([a_stage()]).run, "dashbord", "dashboard"),
        (Pipeline([a_stage()]).stream, "bufer_size", "buffer_size"),
        (Pipeline([a_stage()]).feed, "stage", "target_stage"),
        (Pipeline([a_stage()]).open, "time_out", "timeout"),
        (Limit, "concurency", "concurrency"),
        (Retry, "attempt", "attempts"),
        (backoff, "inital", "initial"),
        (RetryAfter, "second", "seconds"),
        (RetryAfter.from_headers, "header", "headers"),
        (AsyncExecutor, "max_worker", "max_workers"),
        (StatusTracker, "on_status_changed", "on_status_change"),
        (configure_telemetry, "sample_rate", "sample_ratio"),
    ],
)
def test_option_as_people_misspell_it(call: Callable[..., Any], given: str, meant: str) -> None:
    """The likely mistakes are told what was meant."""
    with pytest.raises(TypeError, match=rf"\({given}=5\): .* did you mean '{meant}'\?$"):
        call_it(call, **{given: 5})


# What it is made with


@named_options
def plain(first: Any, *, second: int = 2) -> int:
    """A function."""
    return len(first) + second


@named_options
async def asynchronous(first: Any) -> int:
    return len(first)


@named_options
async def generator(first: int) -> AsyncIterator[int]:
    yield first


@named_options
@asynccontextmanager
async def context(first: int) -> AsyncIterator[int]:
    yield first


@named_options
def anything(first: int, **more: int) -> int:
    return first + len(more)


@named_fields
@dataclass(frozen=True, slots=True)
class Fields:
    first: int
    second: int = 2


@pytest.mark.parametrize("call", [plain, asynchronous, generator, context, Fields])
def test_option_of_every_kind_of_function(call: Callable[..., Any]) -> None:
    """Functions, coroutine functions, generators, context managers and dataclasses have it."""
    with pytest.raises(TypeError, match=r"\(furst=1\): there is .* did you mean 'first'\?$") as c:
        call_it(call, furst=1)
    assert c.value.__suppress_context__


def test_option_like_no_other() -> None:
    """An option that is like none is answered with those there are."""
    with pytest.raises(TypeError, match=r"^plain\(zzz='x+…\): .*; the options are first, second$"):
        call_it(plain, 1, zzz="x" * 200)


@pytest.mark.parametrize(
    ("call", "args", "message"),
    [
        (plain, (1,), "object of type 'int' has no len"),
        (plain, (), "missing 1 required positional argument: 'first'"),
        (plain, (1, 2), "takes 1 positional argument but 2 were given"),
        (asynchronous, (1,), "object of type 'int' has no len"),
        (asynchronous, (), "missing 1 required"),
        (partial(anything, second=5), (None,), "unsupported operand"),
        (Fields, (), "missing 1 required"),
    ],
)
def test_type_error_of_another_kind(call: Any, args: tuple[Any, ...], message: str) -> None:
    """A `TypeError` that is about no unknown option is left as it is."""
    with pytest.raises(TypeError, match=message):
        call_it(call, *args)


def test_functions_stay_what_they_are() -> None:
    """Names, signatures, kinds, copies and pickles are those of what was decorated."""
    assert anything(1, second=5, third=6) == 3
    assert plain.__name__ == "plain"
    assert plain.__doc__ == "A function."
    assert str(inspect.signature(plain)) == "(first: 'Any', *, second: 'int' = 2) -> 'int'"
    assert inspect.iscoroutinefunction(asynchronous)
    assert inspect.iscoroutinefunction(Pipeline.run)
    assert not inspect.iscoroutinefunction(plain)
    assert pickle.loads(pickle.dumps(plain)) is plain
    assert copy.copy(Fields(1)) == Fields(1)
    assert list(inspect.signature(Stage).parameters)[:3] == ["name", "workers", "tasks"]
    assert Stage("A", 1, [work]) == Stage(name="A", workers=1, tasks=[work])
