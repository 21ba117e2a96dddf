"""Starting an `asyncio.Task` under any task factory, and waiting for one despite cancellation.

Also: what such a task does about an error that ends the program.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextvars import Context
from math import inf
from typing import Any, TypeVar

T = TypeVar("T")

SHOWER_SECONDS = 0.1
"""Cancel requests within this many seconds of each other count as one."""


class CancelRequests:
    """Tells a second cancel request from repetitions of the first.

    One cause makes many requests: an event loop that ends cancels every task, and a cancel scope of
    anyio asks in each turn until it is exited. If all were passed on, they would cut off the
    clean-up that the first one began.

    Args:
        now: The clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last = -inf

    def is_new(self) -> bool:
        """Note a request; return whether it is more than a repetition of an earlier one."""
        last, self._last = self._last, self._now()
        return self._last - last > SHOWER_SECONDS


def begin_task(
    work: Coroutine[Any, Any, T], name: str, context: Context | None = None
) -> asyncio.Task[T]:
    """Start a task in the running event loop, in a copy of the context.

    The loop's task factory gets only the coroutine, because an old one takes no keyword arguments.

    Args:
        work: The coroutine. It is closed if the factory raises.
        name: The task's name.
        context: The context to copy; ``None`` = the current one.
    """
    create_task = asyncio.get_running_loop().create_task
    try:
        task = create_task(work) if context is None else context.copy().run(create_task, work)
    except BaseException:
        work.close()
        raise
    task.set_name(name)
    return task


async def in_order(
    work: Callable[[], Awaitable[None]], fail: Callable[[BaseException], object]
) -> None:
    """Do the work of one of a run's tasks; an error that ends the program ends the run cleanly.

    An `asyncio.Task` would raise such an error into the event loop, whatever the run is doing.

    Args:
        work: The work.
        fail: Ends the run with an error.
    """
    try:
        await work()
    except (KeyboardInterrupt, SystemExit) as error:
        fail(error)


async def outlast(
    futures: Collection[asyncio.Future[Any]], on_cancel: Callable[[], object] | None = None
) -> asyncio.CancelledError | None:
    """Wait until all futures are done, however often the wait is cancelled.

    Args:
        futures: The futures. Those added to the collection meanwhile count, too.
        on_cancel: Called at each cancellation.

    Returns:
        The last cancellation, for the caller to raise or drop; ``None`` if there was none.
    """
    cancelled: asyncio.CancelledError | None = None
    # Waiting for futures that are all done would return without giving the event loop a turn.
    while pending := [future for future in futures if not future.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
            if on_cancel is not None:
                on_cancel()
    return cancelled


async def outlast_shower(
    futures: Collection[asyncio.Future[Any]], outlasts_first: bool = False
) -> None:
    """Wait until all futures are done; in a clean-up, ignore repetitions of the cancellation.

    Args:
        futures: The futures.
        outlasts_first: Whether the first cancellation does not end the wait either.

    Cancellation: ends the wait; with ``outlasts_first`` it is raised at the end of the wait, and
        only a second one ends it. If the running task is already handling a cancellation, that was
        the first, and requests that repeat it do not end the wait: see `CancelRequests`.
    """
    requests = CancelRequests(asyncio.get_running_loop().time)
    cancelled: asyncio.CancelledError | None = None
    if isinstance(sys.exception(), asyncio.CancelledError):
        requests.is_new()
        outlasts_first = False
    pending = [*futures]
    while pending:
        try:
            await asyncio.wait(pending)  # gives the loop a turn even if all of them are done
        except asyncio.CancelledError as error:
            if requests.is_new():
                if not outlasts_first:
                    raise
                cancelled, outlasts_first = error, False
        pending = [future for future in pending if not future.done()]
    if cancelled is not None:
        raise cancelled


async def outlast_task(task: asyncio.Future[Any], stop: Callable[[], object]) -> None:
    """Wait until a task has ended. It does not raise the task's error.

    Args:
        task: The task.
        stop: Asks the task to end; called at each cancellation.

    Raises:
        asyncio.CancelledError: The wait was cancelled; raised once the task has ended.
    """
    cancelled = await outlast([task], stop)
    if not task.cancelled():
        task.exception()  # mark it as retrieved
    if cancelled is not None:
        raise cancelled
