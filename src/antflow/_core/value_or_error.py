"""How a call ended: a plain pair of its value and the error that it raised instead.

Such a pair is the *result* of a future or an `asyncio.Task`, because both mangle some exceptions: a
future refuses `StopIteration` and copies `TimeoutError`, and a task lets `KeyboardInterrupt` out
into the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from antflow._core.error_copies import Parcel, packed, unpacked
from antflow._core.tracebacks import trimmed

ValueOrError = tuple[Any, BaseException | None]
"""The value and ``None``, or ``None`` and the error."""


def call_for_pair(function: Callable[[], Any]) -> ValueOrError:
    """Call a function and catch whatever it raises."""
    try:
        return function(), None
    except BaseException as error:  # why: raised again by the code that unpacks the pair
        return None, error


def value_of(pair: ValueOrError) -> Any:
    """The value; raises the error if there is one."""
    value, error = pair
    if error is not None:
        raise error
    return value


class Sendable:
    """An error that keeps its traceback, as text, if it is pickled; see `error_copies`.

    Args:
        error: The error; where it is not pickled, it stays this object.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (packed(trimmed(self.error)),)


def call_elsewhere(function: Callable[[], Any]) -> tuple[Any, Sendable | None]:
    """`call_for_pair` for a function that may be called in another process."""
    value, error = call_for_pair(function)
    return value, None if error is None else Sendable(error)


def value_from_elsewhere(pair: tuple[Any, Sendable | None]) -> Any:
    """The value of `call_elsewhere`; raises the error if there is one."""
    value, sent = pair
    if sent is not None:
        raise sent.error
    return value


def _received(parcel: Parcel) -> Sendable:
    return Sendable(unpacked(parcel))
