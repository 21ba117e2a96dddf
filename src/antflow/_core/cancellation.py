"""Tells the library's own cancellations from those made up by the user's code.

The library notes each `asyncio.Task` of a run that it cancels, and only that counts. The requests
that the task counts say nothing: client libraries cancel the task that calls them, for their own
timeouts, and some do not take that back. So wherever the user's code is called, a `CancelledError`
is a failure of that code unless `is_called_off` says otherwise, and the requests that it left are
taken back before anything else is awaited.

The one file of `_core` that knows asyncio: the engine, the watch and telemetry share the rule.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

from antflow._core.foreign import ENDS_THE_PROGRAM, is_a
from antflow._core.groups import matches

ENDS_IN_GROUPS = (KeyboardInterrupt, SystemExit)
"""Errors that end the program, inside a group. A generator that yields inside a task group is
closed by a ``GeneratorExit``, and the group passes that on as one of its errors."""

has_called_off_caller: ContextVar[Callable[[], bool] | None] = ContextVar(
    "antflow_has_called_off_caller", default=None
)
"""In the tasks of a run: says whether the run is cancelling the task that asks."""


def is_failure(error: BaseException) -> bool:
    """Whether an error of the user's code, alone or a group, does not end the program.

    It need not be an `Exception`: a ``CancelledError`` is not, nor is what a library in Rust raises
    when it panics.
    """
    if is_a(error, BaseExceptionGroup):
        return not matches(error, ENDS_IN_GROUPS)
    return not is_a(error, ENDS_THE_PROGRAM)


def is_called_off() -> bool:
    """Whether the running task is being cancelled by the library, and not by what it called."""
    ask = has_called_off_caller.get()
    if ask is not None:
        return ask()
    running = _running()
    return running is None or running.cancelling() > 0


def cancel_requests() -> int:
    """How many requests to cancel the running task has; see `requests_of`."""
    running = _running()
    return 0 if running is None else requests_of(running)


def requests_of(task: asyncio.Task[Any]) -> int:
    """How many requests to cancel a task has.

    Before Python 3.13, a request that was taken back before it arrived still arrives, although the
    task no longer counts it: a failing `asyncio.TaskGroup` with eager tasks leaves such a request.
    """
    count = task.cancelling()
    if sys.version_info < (3, 13) and not count:
        return int(getattr(task, "_must_cancel", False))
    return count


def request_counter(task: asyncio.Task[Any] | None = None) -> Callable[[], int]:
    """`requests_of` a task, by default the running one, for code that asks often.

    Without a task factory no task is eager. Then no library leaves a request that the task does not
    count, and the task's own method, which costs a tenth, is enough.
    """
    if task is None and (task := _running()) is None:
        return cancel_requests
    is_enough = sys.version_info >= (3, 13) or task.get_loop().get_task_factory() is None
    return task.cancelling if is_enough else partial(requests_of, task)


def _running() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop is running
        return None


async def absorb_requests(before: int = 0) -> None:
    """Take back requests to cancel the running task, one that has not arrived included.

    Args:
        before: How many are left: those that came earlier.
    """
    running = _running()
    if running is None or requests_of(running) <= before:
        return
    while running.uncancel() > before:
        pass
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


async def awaited_failure(work: Awaitable[Any] | None, before: int = 0) -> BaseException | None:
    """Await the user's code, and take back the requests to cancel that it leaves.

    Args:
        work: What to await; ``None``: it was called, and only its requests are left.
        before: The requests that the task counted when the code was called.

    Returns:
        What it raised, if that does not end the program.

    Raises:
        asyncio.CancelledError: The running task was called off.
        BaseException: What ends the program.
    """
    failure: BaseException | None = None
    try:
        if work is not None:
            await work
    except BaseException as error:  # why: also a group with a CancelledError in it
        if not is_failure(error):
            raise
        failure = error
    if is_called_off():
        if failure is not None and not is_a(failure, Exception):
            raise asyncio.CancelledError from failure
        return failure
    await absorb_requests(before)
    if is_called_off():
        raise asyncio.CancelledError
    return failure
