"""Waiting for an end, whatever comes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


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
