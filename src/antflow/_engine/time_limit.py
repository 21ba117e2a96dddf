"""A time limit whose error says which one it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from antflow._core.cancellation import has_called_off_caller
from antflow._core.held_time import Alarm
from antflow._engine.contexts import around


@around
async def time_limit(seconds: float | None, message: str) -> AsyncGenerator[None, None]:
    """Cancel the body after this many seconds; ``None``: never.

    Seconds for which a source of items holds the event loop do not count.

    Raises:
        TimeoutError: With the message, when time ran out.
    """
    if seconds is None:
        yield
        return
    if seconds <= 0:
        raise TimeoutError(message)
    limit = asyncio.timeout(None)
    try:
        async with limit:
            with Alarm(limit, seconds, asyncio.get_running_loop()):
                yield
    except TimeoutError:
        if limit.expired():
            raise TimeoutError(message) from None
        raise
    except asyncio.CancelledError:
        # Where a client library has left its own request, `asyncio.timeout` cannot tell.
        is_called_off = has_called_off_caller.get()
        if limit.expired() and is_called_off is not None and not is_called_off():
            raise TimeoutError(message) from None
        raise
