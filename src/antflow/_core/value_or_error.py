"""How a call ended: a plain pair of its value and the error that it raised instead.

Such a pair is the *result* of a future or an `asyncio.Task`, because both mangle some exceptions: a
future refuses `StopIteration` and copies `TimeoutError`, and a task lets `KeyboardInterrupt` out
into the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
