"""Checks of each option of a stage. The stage itself checks which options fit together.

The fields of `Stage` name these checks. Each is ``check(refuse, name, value)``.
"""

from __future__ import annotations

import inspect
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from types import FunctionType
from typing import Any

from antflow._core.checks import (
    Refuse,
    check_callback,
    check_choice,
    check_count,
    check_number,
    or_none,
    refusal,
    takes,
)
from antflow._core.executor_kind import RunnerKind
from antflow._core.foreign import is_a
from antflow._core.hold_times import hold_seconds
from antflow._core.limit import Limit
from antflow._core.misspellings import did_you_mean
from antflow._core.retry import Retry, check_errors, check_retry
from antflow._core.text import safe_repr

MOST_WORKERS = 100_000
LONGEST_NAME = 100
GENERATES = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

UNDECORATED = (
    (inspect.isgeneratorfunction, "contextlib.contextmanager"),
    (inspect.isasyncgenfunction, "contextlib.asynccontextmanager"),
)
"""Functions that are a context manager once they are decorated."""

check_workers = partial(
    check_count,
    minimum=1,
    maximum=MOST_WORKERS,
    allowed=f"a stage must have at least 1 worker and at most {MOST_WORKERS:,} (a whole number)",
)
check_tries = partial(check_count, minimum=1, allowed="must be a whole number of tries >= 1")
check_holds = partial(check_count, minimum=0, allowed="must be a whole number >= 0")
check_capacity = or_none(
    partial(
        check_count,
        minimum=0,
        allowed="must be a whole number >= 0 (0 = unbounded), or None for 10 per worker",
    )
)
check_calls = or_none(
    partial(check_count, minimum=1, allowed="must be a whole number of calls >= 1, or None")
)
check_batch = or_none(
    partial(check_count, minimum=1, allowed="must be a whole number of items >= 1, or None")
)
check_scope = partial(check_choice, choices=("worker", "stage", "run"))
check_give_up = partial(check_errors, may_be_empty=True)


def check_name(refuse: Refuse, name: str, value: object) -> None:
    """Refuse names that are too long, or cannot be drawn."""
    fits = (
        isinstance(value, str)
        and 1 <= len(value) <= LONGEST_NAME
        and not any(unicodedata.category(character) in ("Cc", "Cs") for character in value)
    )
    if not fits:
        allowed = f"must be a string of 1 to {LONGEST_NAME} characters, no control characters"
        raise refusal(refuse, name, value, allowed)


def check_tasks(refuse: Refuse, name: str, tasks: object) -> None:
    """Refuse everything but a list of functions, with at least one in it."""
    if callable(tasks):
        raise refusal(refuse, name, tasks, "must be a list: write tasks=[function]")
    if not isinstance(tasks, Sequence) or isinstance(tasks, (str, bytes)):
        raise refusal(refuse, name, tasks, "must be a list of functions")
    if not tasks:
        raise refusal(refuse, name, tasks, "a stage must have at least one task")
    in_list = " (this is a list: pass each of its functions by itself)"
    strange = [
        refusal(
            refuse,
            f"{name}[{index}]",
            task,
            f"must be a function{in_list if is_a(task, (list, tuple)) else ''}",
        )
        for index, task in enumerate(tasks)
        if not callable(task)
    ]
    if strange:  # all were checked: several may be coroutines, and are closed now
        raise strange[0]


def check_call(
    refuse: Refuse, name: str, task: Callable[..., Any], resources: Mapping[str, Any]
) -> None:
    """Refuse a task that cannot be called with a value, and its resources by keyword."""
    try:
        signature = inspect.signature(task)
    except (TypeError, ValueError):  # some builtins have none
        return
    try:
        signature.bind(None, **dict.fromkeys(resources))
    except TypeError as error:
        with_these = "".join(f", {resource}=…" for resource in resources)
        call = f"cannot be called as f(value{with_these})"
        raise refusal(refuse, name, task, f"{call}: {error}; it is f{signature}") from None


def is_ordinary(task: Any) -> bool:
    """Whether a task is a function of one value and nothing else, so that it fits every stage.

    Most are. Their code says so at once; `inspect.signature` takes twenty times as long.
    """
    if type(task) is not FunctionType or task.__dict__:  # attributes may change the signature
        return False
    code, defaults = task.__code__, task.__defaults__ or ()
    takes_one = code.co_argcount - len(defaults) <= 1 <= code.co_argcount
    return takes_one and not (code.co_kwonlyargcount or code.co_flags & GENERATES)


def is_async(task: Any) -> bool:
    """Whether calling a task gives a coroutine."""
    if type(task) is FunctionType and task.__code__.co_flags & inspect.CO_COROUTINE:
        return True
    while isinstance(task, partial):
        task = task.func
    return inspect.iscoroutinefunction(task) or inspect.iscoroutinefunction(
        getattr(task, "__call__", None)  # noqa: B004 - the method itself is wanted
    )


def is_generator(task: Any) -> bool:
    """Whether a task is a generator function, sync or async."""
    if is_ordinary(task):
        return False
    while isinstance(task, partial):
        task = task.func
    call = getattr(type(task), "__call__", None)  # noqa: B004 - the method itself is wanted
    return any(
        inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
        for function in (task, call)
    )


def check_policy(refuse: Refuse, name: str, retry: object) -> Retry | None:
    """Refuse what is neither one of the two policies nor a `Retry` that is allowed."""
    if isinstance(retry, Retry):
        return check_retry(refuse, name, retry)
    policies = ("per_task", "per_stage")
    check_choice(
        lambda message: refuse(f"Invalid retry policy: {message}"),
        name,
        retry,
        policies,
        " or a Retry",
    )
    return None


def check_task_limits(refuse: Refuse, name: str, limits: object) -> dict[str, int]:
    """Refuse what is not a dict of counts."""
    if not isinstance(limits, Mapping):
        raise refusal(refuse, name, limits, "must be a dict: task name → calls at once")
    allowed = "must be a whole number of calls >= 1"
    return {
        task: check_count(refuse, f"{name}[{safe_repr(task)}]", most, 1, allowed)
        for task, most in limits.items()
    }


def check_skip_if(refuse: Refuse, name: str, value: object) -> None:
    """Refuse what cannot be called with a value, except ``None``."""
    check_callback(refuse, name, value, "value")


def check_listener(refuse: Refuse, name: str, value: object) -> None:
    """Refuse what cannot be called as a stage's callback is, except ``None``."""
    check_callback(refuse, name, value, "item_id", "value", "payload")


def check_failure_listener(refuse: Refuse, name: str, value: object) -> None:
    """The same, for the one that is given an error."""
    check_callback(refuse, name, value, "item_id", "error", "payload")


def check_rate(refuse: Refuse, name: str, value: object) -> int | float:
    """Return a finite number above 0; refuse anything else."""
    rate = check_number(refuse, name, value)
    if not rate:
        raise refusal(refuse, name, value, "must be above 0")
    return rate


def check_limits(refuse: Refuse, name: str, limits: object) -> None:
    """Refuse what is not a list of different limits."""
    if isinstance(limits, Limit):
        raise refusal(refuse, name, limits, "must be a list: write limits=[limit]")
    if not isinstance(limits, Sequence) or not all(isinstance(limit, Limit) for limit in limits):
        raise refusal(refuse, name, limits, "must be a list of Limit objects")
    if len({id(limit) for limit in limits}) != len(limits):
        raise refusal(refuse, name, limits, "names one Limit twice")


def check_hold_on(refuse: Refuse, name: str, hold_on: object) -> None:
    """Refuse what is not a dict of exception classes and times."""
    if not isinstance(hold_on, Mapping):
        allowed = "must be a dict: exception class → seconds, or a function error -> seconds"
        raise refusal(refuse, name, hold_on, allowed)
    for error, seconds in hold_on.items():
        if not isinstance(error, type):
            raise refusal(refuse, name, error, "each key must be an exception class")
        check_errors(refuse, name, error)
        which = f"{name}[{error.__name__}]"
        if not callable(seconds):
            hold_seconds(refuse, which, seconds)
        elif inspect.iscoroutinefunction(seconds):
            allowed = "must be a plain function error -> seconds, not async"
            raise refusal(refuse, which, seconds, allowed)
        elif not takes(seconds, 1):
            allowed = "cannot be called with one argument, the error"
            raise refusal(refuse, which, seconds, allowed)


def check_executor(refuse: Refuse, name: str, executor: object) -> None:
    """Refuse what is neither one of the words, nor an address, nor an executor or runner."""
    if isinstance(executor, str) and "://" in executor:
        return  # `antflow.runners` knows the schemes
    if not isinstance(executor, (Executor, RunnerKind)):
        names = ("auto", "thread", "process", "inline")
        others = ', a concurrent.futures.Executor, or a cluster ("dask://…", DaskRunner(…))'
        check_choice(refuse, name, executor, names, others)


def check_resources(refuse: Refuse, name: str, resources: object) -> None:
    """Refuse what is not a dict of functions with names that can be keywords."""
    if not isinstance(resources, Mapping):
        allowed = "must be a dict: keyword → function that makes a context manager"
        raise refusal(refuse, name, resources, allowed)
    for keyword, factory in resources.items():
        if not isinstance(keyword, str) or not keyword.isidentifier():
            raise refusal(refuse, name, keyword, "each name must be usable as a keyword")
        made_early = ""
        if is_a(factory, AbstractContextManager) or is_a(factory, AbstractAsyncContextManager):
            made_early = "; this is a context manager: pass the function that makes it"
        if not callable(factory):
            allowed = f"must be a function that makes a context manager{made_early}"
            raise refusal(refuse, f"{name}[{keyword!r}]", factory, allowed)
        if not takes(factory, 0):
            allowed = f"cannot be called without arguments{made_early}"
            raise refusal(refuse, f"{name}[{keyword!r}]", factory, allowed)
        for is_one, decorator in UNDECORATED:
            if is_one(factory):
                allowed = f"is a generator function: decorate it with {decorator}"
                raise refusal(refuse, f"{name}[{keyword!r}]", factory, allowed)


def stage_index(option: str, stage: object, names: Sequence[str]) -> int:
    """The index of the stage with the name given as ``option``.

    Raises:
        ValueError: None of them.
    """
    if not isinstance(stage, str) or stage not in names:
        known = f"the stages are {', '.join(map(repr, names))}{did_you_mean(stage, names)}"
        raise ValueError(f"{option}={safe_repr(stage)} not found; {known}")
    return names.index(stage)


def checked_workers(workers: object, names: Sequence[str]) -> dict[str, int]:
    """Stage name → how many workers it is to have, checked.

    Raises:
        TypeError: It is not a dict.
        ValueError: There is no such stage, or a number is not allowed.
    """
    if not isinstance(workers, Mapping):
        raise refusal(TypeError, "workers", workers, "must be a dict: stage name → workers")
    for name, count in workers.items():
        stage_index("stage", name, names)
        check_workers(ValueError, f"workers[{safe_repr(name)}]", count)
    return dict(workers)
