"""Tasks of `asyncio`: begun under any task factory, and waited for whatever comes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def begin_task(
    work: Coroutine[Any, Any, T], name: str, context: Context | None = None
) -> asyncio.Task[T]:
    """Start a task in the running event loop, in a copy of the context.

    The loop's task factory is given nothing but the coroutine: one of the old form takes no more.

    Args:
        work: What it does; closed where the factory makes no task of it.
        name: The task's name.
        context: Which context; ``None`` = the one that is current.
    """
    create_task = asyncio.get_running_loop().create_task
    try:
        task = create_task(work) if context is None else context.copy().run(create_task, work)
    except BaseException:
        work.close()
        raise
    task.set_name(name)
    return task


async def absorb_requests() -> None:
    """Take back all requests to cancel the running task, one that has not arrived included."""
    running = asyncio.current_task()
    assert running is not None
    if not running.cancelling():
        return
    while running.uncancel():
        pass
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


async def outlast(task: asyncio.Future[Any], stop: Callable[[], object]) -> None:
    """Wait until a task has ended, however often the wait is cancelled.

    What the task raises is not raised here.

    Args:
        task: What to wait for.
        stop: Called at each cancellation: asks the task to end.

    Raises:
        asyncio.CancelledError: The wait was cancelled; when the task has ended.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
            stop()
    if not task.cancelled():
        task.exception()  # it counts as heard
    if cancelled is not None:
        raise cancelled
