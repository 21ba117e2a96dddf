"""A time limit that says which one it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from antflow._engine.contexts import around


@around
async def time_limit(seconds: float | None, message: str) -> AsyncGenerator[None, None]:
    """Cancel what is inside after so many seconds; ``None``: never.

    Raises:
        TimeoutError: With the message, when the time was over.
    """
    if seconds is not None and seconds <= 0:
        raise TimeoutError(message)
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise TimeoutError(message) from None
        raise
