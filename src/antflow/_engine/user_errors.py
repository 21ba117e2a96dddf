"""Turns what the user's code raises into failures: a ``CancelledError``, or a group of errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from antflow._core.errors import TaskFailedError
from antflow._core.foreign import is_a, message_of, set_cause
from antflow._core.groups import leaves
from antflow._core.stage import task_name

INSIDE = (asyncio.CancelledError, GeneratorExit)
"""In a group, these end no more than the part of the program that the group is about."""


def failure_of(error: BaseException, name: str) -> Exception:
    """The failure to report for an error raised by ``name``.

    Returns:
        The error itself if it is an `Exception`. For a ``CancelledError``, or a group that contains
        one, a failure whose cause it is.

    Raises:
        BaseException: The error, if it ends a program or is a group that contains one that does.
    """
    if is_a(error, Exception):
        return error
    if is_a(error, asyncio.CancelledError):
        failure = TaskFailedError(name, error)
        failure.__cause__ = error
        return failure
    if (grouped := group_failure(error, name)) is None:
        raise error
    return grouped


def group_failure(error: BaseException, name: str) -> Exception | None:
    """The failure to report for a group raised by the task called ``name``.

    A ``CancelledError`` in a group comes from something the task started, never from the worker's
    own cancellation; a ``GeneratorExit`` from a generator that was closed inside a task group. Each
    counts as a `TaskFailedError`, like a ``CancelledError`` that a task raises alone.

    Returns:
        The group if it is an ordinary exception, otherwise an `ExceptionGroup` whose cause it is.
        ``None`` if the error is not a group, or contains one that ends a program.
    """
    if is_a(error, ExceptionGroup):
        return error
    if not is_a(error, BaseExceptionGroup):
        return None
    failures = [
        TaskFailedError(name, leaf) if is_a(leaf, INSIDE) else leaf for leaf in leaves(error)
    ]
    ordinary = [failure for failure in failures if is_a(failure, Exception)]
    if len(ordinary) < len(failures):
        return None
    failure = ExceptionGroup(message_of(error), ordinary)
    set_cause(failure, error)
    return failure


def call_apart(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a user's plain function; ``StopIteration`` becomes `RuntimeError`, as in coroutines."""
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError(f"{task_name(function)} raised StopIteration") from error
