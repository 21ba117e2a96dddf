"""Optional waits: chained, or discarded."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any

from antflow._core.foreign import asked, attribute

Wait = Awaitable[None] | None
"""``None``, or something the worker has to await before it goes on with the item."""


def discard(wait: object) -> None:
    """Close something that is not going to be awaited."""
    close = attribute(wait, "close")
    if close is not None:
        asked(close, instead=None)


def both(first: Wait, second: Wait) -> Wait:
    """Both waits, one after the other."""
    if first is None or second is None:
        return second if first is None else first
    return _Both(first, second)


class _Both:
    def __init__(self, first: Awaitable[None], second: Awaitable[None]) -> None:
        self._first = first
        self._second = second

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            yield from self._first.__await__()
        except BaseException:
            discard(self._second)
            raise
        yield from self._second.__await__()

    def close(self) -> None:
        discard(self._first)
        discard(self._second)
