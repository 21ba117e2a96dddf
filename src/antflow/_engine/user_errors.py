"""Turns what the user's code raises into failures, even unusual exceptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from antflow._core.cancellation import is_failure
from antflow._core.errors import TaskFailedError
from antflow._core.foreign import is_a, message_of, set_cause
from antflow._core.groups import leaves
from antflow._core.stage import task_name


def failure_of(error: BaseException, name: str) -> Exception:
    """The failure to report for an error raised by ``name``.

    Returns:
        The error itself if it is an `Exception`. For any other, alone or in a group, a failure
        whose cause it is.

    Raises:
        BaseException: The error, if it ends a program or is a group that contains one that does.
    """
    if is_a(error, Exception):
        return error
    if not is_failure(error):
        raise error
    if (grouped := group_failure(error, name)) is not None:
        return grouped
    failure = TaskFailedError(name, error)
    set_cause(failure, error)
    return failure


def group_failure(error: BaseException, name: str) -> Exception | None:
    """The failure to report for a group raised by the task called ``name``.

    A ``CancelledError`` in a group comes from something the task started, never from the worker's
    own cancellation. It counts as a `TaskFailedError`, like one that a task raises alone, and so
    does everything else that is not an `Exception`.

    Returns:
        The group if it is an ordinary exception, otherwise an `ExceptionGroup` whose cause it is.
        ``None`` if the error is not a group, or contains one that ends a program.
    """
    if is_a(error, ExceptionGroup):
        return error
    if not is_a(error, BaseExceptionGroup) or not is_failure(error):
        return None
    failures = [
        leaf if is_a(leaf, Exception) else TaskFailedError(name, leaf) for leaf in leaves(error)
    ]
    failure = ExceptionGroup(message_of(error), failures)
    set_cause(failure, error)
    return failure


def call_apart(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a user's plain function; ``StopIteration`` becomes `RuntimeError`, as in coroutines."""
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError(f"{task_name(function)} raised StopIteration") from error
