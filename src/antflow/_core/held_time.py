"""The seconds for which a source of items holds an event loop, and time limits that leave them out.

A plain iterator that blocks (a database cursor, a file on a slow disk) stops everything else on its
event loop. The tasks that wait there are not to blame: their time limits give them those seconds
back.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakKeyDictionary


class HeldTime:
    """The total time for which sources have held one event loop.

    Attributes:
        seconds: The total so far; it only grows.
    """

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds: float = 0.0


_held: WeakKeyDictionary[Any, HeldTime] = WeakKeyDictionary()


def held_time_of(loop: object) -> HeldTime:
    """The `HeldTime` of an event loop."""
    held = _held.get(loop)
    if held is None:
        held = _held.setdefault(loop, HeldTime())
    return held


class _Timer(Protocol):
    def cancel(self) -> None: ...


class _Loop(Protocol):
    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], None], /) -> _Timer: ...


class _Scope(Protocol):
    """An ``asyncio.timeout`` that is under way."""

    def expired(self) -> bool: ...
    def reschedule(self, when: float | None) -> None: ...


class Alarm:
    """Lets a scope time out, later by the seconds for which sources hold the loop meanwhile.

    While no source blocks, it costs no more than one of the loop's own timers.

    ```python
    async with asyncio.timeout(None) as scope:
        with Alarm(scope, seconds, loop):
            ...
    ```

    Args:
        scope: The scope, made without a timeout.
        seconds: How long it may last.
        loop: Its event loop.
    """

    __slots__ = ("_at_start", "_held", "_loop", "_scope", "_timer", "_when")

    def __init__(self, scope: _Scope, seconds: float, loop: _Loop) -> None:
        self._scope = scope
        self._loop = loop
        self._held = held_time_of(loop)
        self._at_start = self._held.seconds
        self._when = loop.time() + seconds

    def __enter__(self) -> None:
        self._timer = self._loop.call_at(self._when, self._ring)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()

    def _ring(self) -> None:
        held = self._held.seconds - self._at_start
        if held > 0:
            self._at_start += held
            self._when += held
            self._timer = self._loop.call_at(self._when, self._ring)
        elif not self._scope.expired():  # it may have been ended early
            self._scope.reschedule(self._loop.time())
