"""How a call ended: a plain pair of its value and the error that it raised instead.

Such a pair is the *result* of a future or an `asyncio.Task`, because both mangle some exceptions: a
future refuses `StopIteration` and copies `TimeoutError`, and a task lets `KeyboardInterrupt` out
into the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CoroutineType
from typing import Any

from antflow._core.error_copies import Parcel, in_parcels, out_of_parcels, packed, unpacked
from antflow._core.foreign import is_a, is_awaitable
from antflow._core.text import safe_str
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


class Answer:
    """How a call ended that may have been made in another process.

    If it is pickled, its errors keep their tracebacks, as text; see `error_copies`.

    Args:
        value: The value.
        error: The error that was raised instead.
        is_batch: Whether the value is a list that may have errors in it.
    """

    def __init__(self, value: Any, error: BaseException | None, is_batch: bool) -> None:
        self.pair: ValueOrError = value, error
        self._is_batch = is_batch

    def __reduce__(self) -> tuple[Any, ...]:
        value, error = self.pair
        if self._is_batch:
            value = in_parcels(value)
        return _received, (value, None if error is None else packed(trimmed(error)), self._is_batch)


def call_elsewhere(function: Callable[[], Any], is_batch: bool) -> Answer:
    """`call_for_pair` for a function that may be called in another process."""
    return Answer(*call_for_pair(function), is_batch)


def _received(value: Any, parcel: Parcel | None, is_batch: bool) -> Answer:
    if is_batch:
        value = out_of_parcels(value)
    return Answer(value, None if parcel is None else unpacked(parcel), is_batch)


def sendable(
    name: str, value: Any, is_batch: bool, dumps: Callable[[Any], bytes], place: str
) -> tuple[bytes, str]:
    """The answer of a task, pickled, to be sent from another process.

    Args:
        name: The task's name.
        value: What it returned.
        is_batch: Whether that is a list that may have errors in it.
        dumps: Pickles it.
        place: The process, in the words of a message: ``"its child process"``.

    Returns:
        The pickled value, and the name of its type.

    Raises:
        TypeError: It cannot be pickled, or is an awaitable.
    """
    kind = type(value).__qualname__
    if is_awaitable(value):
        if is_a(value, CoroutineType):
            value.close()
        raise TypeError(f"task {name} returned an awaitable ({kind}) in {place}")
    try:
        return dumps(in_parcels(value) if is_batch else value), kind
    except Exception as error:
        raise TypeError(
            f"task {name} returned a {kind}, which cannot be sent from {place}: {safe_str(error)}"
        ) from error


def unloadable(name: str, kind: str, fault: BaseException, place: str) -> TypeError:
    """The error for what a task returned in another process, and cannot be loaded in this one."""
    error = TypeError(
        f"task {name} returned a {kind}, which cannot be loaded from {place}: "
        f"{type(fault).__name__}: {safe_str(fault)}"
    )
    error.__cause__ = fault
    return error
