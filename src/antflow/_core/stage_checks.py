"""What the options of a stage may be."""

from __future__ import annotations

import inspect
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Any

from antflow._core.checks import (
    Refuse,
    check_callback,
    check_choice,
    check_count,
    check_flag,
    check_max_failures,
    check_seconds,
    check_timeout,
    examine,
    refusal,
)
from antflow._core.errors import StageValidationError
from antflow._core.hold_times import hold_seconds
from antflow._core.limit import Limit
from antflow._core.options import did_you_mean
from antflow._core.retry import Retry, check_errors, check_retry, check_wait
from antflow._core.text import safe_repr

if TYPE_CHECKING:
    from antflow._core.stage import Stage

MOST_WORKERS = 100_000
LONGEST_NAME = 100


def check_stage(stage: Stage, refuse: Refuse) -> None:
    """Refuse the first option of a stage that is not allowed."""
    _check_name(stage.name, refuse)
    check_count(
        refuse,
        "workers",
        stage.workers,
        1,
        f"a stage must have at least 1 worker and at most {MOST_WORKERS:,} (a whole number)",
        MOST_WORKERS,
    )
    for name in ("unpack_args", "pull", "expand", "isolate_context"):
        check_flag(refuse, name, getattr(stage, name))
    _check_resources(stage, refuse)
    _check_tasks(stage, refuse)
    _check_retries(stage, refuse)
    for name in ("on_success", "on_failure", "on_skip"):
        check_callback(refuse, name, getattr(stage, name))
    check_callback(refuse, "skip_if", stage.skip_if, "value")
    if stage.queue_capacity is not None:
        allowed = "must be a whole number >= 0 (0 = unbounded), or None for 10 per worker"
        check_count(refuse, "queue_capacity", stage.queue_capacity, 0, allowed)
    _check_calls(stage, refuse)
    _check_limits(stage, refuse)
    _check_executor(stage, refuse)
    _check_batches(stage, refuse)
    check_max_failures(refuse, "max_failures", stage.max_failures)
    if not isinstance(stage.version, str):
        raise refusal(refuse, "version", stage.version, "must be a string")
    if stage.pull and stage.retry == "per_stage":
        raise refuse("pull=True: not together with retry='per_stage'")


def _check_name(name: object, refuse: Refuse) -> None:
    fits = (
        isinstance(name, str)
        and 1 <= len(name) <= LONGEST_NAME
        and not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    )
    if not fits:
        allowed = f"must be a string of 1 to {LONGEST_NAME} characters, no control characters"
        raise refusal(refuse, "name", name, allowed)


def _check_tasks(stage: Stage, refuse: Refuse) -> None:
    tasks: object = stage.tasks
    if callable(tasks):
        raise refusal(refuse, "tasks", tasks, "must be a list: write tasks=[function]")
    if not isinstance(tasks, Sequence) or isinstance(tasks, (str, bytes)):
        raise refusal(refuse, "tasks", tasks, "must be a list of functions")
    if not tasks:
        raise refusal(refuse, "tasks", tasks, "a stage must have at least one task")
    strange = [
        refusal(refuse, f"tasks[{index}]", task, "must be a function")
        for index, task in enumerate(tasks)
        if not callable(task)
    ]
    if strange:  # all were looked at: several may be coroutines, and are closed now
        raise strange[0]
    for index, task in enumerate(tasks):
        name = f"tasks[{index}]"
        is_last = index == len(tasks) - 1
        label = f"{name}={safe_repr(task)}"
        check = partial(_check_task, stage, name, task, is_last, refuse)
        examine(refuse, label, check, passes=(StageValidationError,))


def _check_task(
    stage: Stage, name: str, task: Callable[..., Any], is_last: bool, refuse: Refuse
) -> None:
    if is_generator(task) and not (stage.expand and is_last):
        allowed = "is a generator function: it must return one value, or be the last task"
        raise refusal(refuse, name, task, f"{allowed} of a stage with expand=True")
    if not stage.unpack_args:
        _check_signature(stage, name, task, refuse)


def _check_signature(stage: Stage, name: str, task: Callable[..., Any], refuse: Refuse) -> None:
    try:
        signature = inspect.signature(task)
    except (TypeError, ValueError):  # some builtins have none
        return
    try:
        signature.bind(None, **dict.fromkeys(stage.resources))
    except TypeError as error:
        with_these = "".join(f", {resource}=…" for resource in stage.resources)
        call = f"cannot be called as f(value{with_these})"
        raise refusal(refuse, name, task, f"{call}: {error}; it is f{signature}") from None


def is_generator(task: Any) -> bool:
    """Whether a task is a generator function, sync or async."""
    while isinstance(task, partial):
        task = task.func
    call = getattr(type(task), "__call__", None)  # noqa: B004 - the method itself is wanted
    return any(
        inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
        for function in (task, call)
    )


def _check_retries(stage: Stage, refuse: Refuse) -> None:
    retry: object = stage.retry
    if isinstance(retry, Retry):
        check_retry(refuse, "retry", retry)
        for name, default in (
            ("task_attempts", 3),
            ("task_wait_seconds", 1.0),
            ("stage_attempts", 3),
            ("stage_wait_seconds", 0.0),
            ("retry_on", Exception),
            ("give_up_on", ()),
            ("wait", None),
            ("timeout", None),
        ):
            if getattr(stage, name) != default:
                raise refuse(f"{name}: say it in retry=Retry(...), not in both")
    else:
        policies = ("per_task", "per_stage")
        check_choice(_policy(refuse), "retry", retry, policies, " or a Retry")
    for name in ("task_attempts", "stage_attempts"):
        check_count(refuse, name, getattr(stage, name), 1, "must be a whole number of tries >= 1")
    check_seconds(refuse, "task_wait_seconds", stage.task_wait_seconds)
    check_seconds(refuse, "stage_wait_seconds", stage.stage_wait_seconds)
    check_timeout(refuse, "timeout", stage.timeout)
    check_errors(refuse, "retry_on", stage.retry_on)
    check_errors(refuse, "give_up_on", stage.give_up_on, may_be_empty=True)
    if stage.wait is not None:
        check_wait(refuse, "wait", stage.wait)


def _check_calls(stage: Stage, refuse: Refuse) -> None:
    from antflow._core.stage import task_name

    limits: object = stage.task_concurrency_limits
    if not isinstance(limits, Mapping):
        raise refusal(
            refuse, "task_concurrency_limits", limits, "must be a dict: task name → calls at once"
        )
    names = [task_name(task) for task in stage.tasks]
    for name, most in limits.items():
        label = f"task_concurrency_limits[{safe_repr(name)}]"
        if name not in names:
            meant = did_you_mean(name, names)
            raise refuse(f"{label}: unknown task; the tasks are {', '.join(names)}{meant}")
        check_count(refuse, label, most, 1, "must be a whole number of calls >= 1")
    if stage.call_concurrency is not None:
        allowed = "must be a whole number of calls >= 1, or None"
        check_count(refuse, "call_concurrency", stage.call_concurrency, 1, allowed)
    for name in ("call_rate", "call_rate_period"):
        value = getattr(stage, name)
        if value is not None or name == "call_rate_period":
            check_seconds(_number(refuse), name, value)
            if not value:
                raise refusal(refuse, name, value, "must be above 0")


def _policy(refuse: Refuse) -> Refuse:
    return lambda message: refuse(f"Invalid retry policy: {message}")


def _number(refuse: Refuse) -> Refuse:
    return lambda message: refuse(message.replace(" of seconds", ""))


def _check_limits(stage: Stage, refuse: Refuse) -> None:
    limits: object = stage.limits
    if isinstance(limits, Limit):
        raise refusal(refuse, "limits", limits, "must be a list: write limits=[limit]")
    if not isinstance(limits, Sequence) or not all(isinstance(limit, Limit) for limit in limits):
        raise refusal(refuse, "limits", limits, "must be a list of Limit objects")
    if len({id(limit) for limit in limits}) != len(limits):
        raise refusal(refuse, "limits", limits, "names one Limit twice")
    hold_on: object = stage.hold_on
    if not isinstance(hold_on, Mapping):
        allowed = "must be a dict: exception class → seconds, or a function error -> seconds"
        raise refusal(refuse, "hold_on", hold_on, allowed)
    for error, seconds in hold_on.items():
        if not isinstance(error, type):
            raise refusal(refuse, "hold_on", error, "each key must be an exception class")
        check_errors(refuse, "hold_on", error)
        if not callable(seconds):
            hold_seconds(refuse, f"hold_on[{error.__name__}]", seconds)
    check_count(refuse, "max_holds", stage.max_holds, 0, "must be a whole number >= 0")


def _check_executor(stage: Stage, refuse: Refuse) -> None:
    if not isinstance(stage.executor, Executor):
        names = ("auto", "thread", "process", "inline")
        more = ", or a concurrent.futures.Executor"
        check_choice(refuse, "executor", stage.executor, names, more)


def _check_batches(stage: Stage, refuse: Refuse) -> None:
    if stage.batch is None:
        if stage.batch_wait is not None:
            raise refusal(refuse, "batch_wait", stage.batch_wait, "has no meaning without batch")
        return
    check_count(refuse, "batch", stage.batch, 1, "must be a whole number of items >= 1, or None")
    if stage.batch_wait is not None:
        check_seconds(refuse, "batch_wait", stage.batch_wait)
    for name in ("expand", "unpack_args"):
        if getattr(stage, name):
            raise refuse(f"batch={stage.batch}: not together with {name}=True")


def _check_resources(stage: Stage, refuse: Refuse) -> None:
    resources: object = stage.resources
    if not isinstance(resources, Mapping):
        allowed = "must be a dict: keyword → function that makes a context manager"
        raise refusal(refuse, "resources", resources, allowed)
    for name, factory in resources.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise refusal(refuse, "resources", name, "each name must be usable as a keyword")
        if not callable(factory):
            allowed = "must be a function that makes a context manager"
            raise refusal(refuse, f"resources[{name!r}]", factory, allowed)
    check_choice(refuse, "resource_scope", stage.resource_scope, ("worker", "stage", "run"))
