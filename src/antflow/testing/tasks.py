"""Tasks to put into a pipeline under test."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from operator import length_hint
from typing import Any, TypeVar

from antflow._core.brief import Brief
from antflow._core.checks import check_callback, check_count, check_seconds, refusal
from antflow._core.text import counted

T = TypeVar("T")


class FailTimes(Brief):
    """A task that fails the first tries of each item, then returns it.

    Args:
        times: How many tries of each item fail. Items are told apart by their `repr`.
        error: Makes the exception from a message.

    Attributes:
        tries: Calls so far, by the item's `repr`.

    Raises:
        ValueError: ``times`` is not a whole number >= 0.
        TypeError: ``error`` cannot be called with one argument.
    """

    def __init__(self, times: int, error: Callable[[str], BaseException] = ValueError) -> None:
        times = check_count(ValueError, "times", times, 0, "must be a whole number >= 0")
        if not callable(error):
            raise refusal(TypeError, "error", error, "must be a class of exceptions")
        check_callback(TypeError, "error", error, "message")
        self.times = times
        self.error = error
        self.tries: Counter[str] = Counter()

    def _said(self) -> str:
        return f": fails {counted(self.times, 'time')}, {counted(self.tries.total(), 'call')}"

    async def __call__(self, value: T) -> T:
        """Raise, or return the item."""
        item = repr(value)
        self.tries[item] += 1
        if self.tries[item] <= self.times:
            raise self.error(f"planned failure {self.tries[item]} of {self.times} for {item}")
        return value


@dataclass(frozen=True, slots=True)
class Sleep:
    """In the outcomes of `Scripted`: a pause of this many seconds before the next outcome."""

    seconds: float

    def __post_init__(self) -> None:
        check_seconds(ValueError, "seconds", self.seconds)


class Scripted(Brief):
    """A task whose calls follow a script; after its end, a call returns the item.

    Args:
        outcomes: One for each call: an exception (instance or class) is raised, anything else is
            returned. `Sleep` is not an outcome, it delays the next.

    Example:
        >>> fetch = Scripted(TimeoutError, Sleep(2.5), {"status": 200})
    """

    def __init__(self, *outcomes: object) -> None:
        self._outcomes = iter(outcomes)

    def _said(self) -> str:
        return f": {counted(length_hint(self._outcomes), 'outcome')} left"

    async def __call__(self, value: object) -> Any:
        """Do what the script says next."""
        seconds = 0.0
        for outcome in self._outcomes:
            if not isinstance(outcome, Sleep):
                break
            seconds += float(outcome.seconds)
        else:
            outcome = value
        if seconds:
            await asyncio.sleep(seconds)
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, type) and issubclass(outcome, BaseException):
            raise outcome
        return outcome


class Gate(Brief):
    """A task that holds its callers while it is closed, then returns the item. Closed at first.

    Attributes:
        waiting: How many are held now.
        passed: How many went through.
    """

    def __init__(self) -> None:
        self.waiting: int = 0
        self.passed: int = 0
        self._opened = asyncio.Event()

    def _said(self) -> str:
        state = "open" if self._opened.is_set() else "closed"
        return f": {state}, {self.waiting:,} waiting, {self.passed:,} passed"

    def open(self) -> None:
        """Release waiting callers, and let later ones through."""
        self._opened.set()

    def close(self) -> None:
        """Hold callers from now on."""
        self._opened.clear()

    async def __call__(self, value: T) -> T:
        """Wait until the gate is open, then return the item."""
        self.waiting += 1
        try:
            await self._opened.wait()
        finally:
            self.waiting -= 1
        self.passed += 1
        return value


@dataclass(slots=True)
class Call:
    """One call of a task.

    Attributes:
        value: Its argument.
        start: When it began, in seconds of the loop's clock.
        end: When it ended, even if it failed; ``None`` while it runs.
    """

    value: Any
    start: float
    end: float | None = None


class Calls(Brief):
    """A task that does what another does, and notes its calls.

    Args:
        task: The other; ``None`` returns the item.
        seconds: Slept in each call before that.

    Attributes:
        made: The calls, in the order they began.
        running: How many run now.
        most_at_once: The most that ran at the same time.

    Raises:
        TypeError: ``task`` cannot be called with one argument.
        ValueError: ``seconds`` is not a finite number >= 0.
    """

    def __init__(
        self, task: Callable[[Any], Awaitable[Any]] | None = None, *, seconds: float = 0.0
    ) -> None:
        check_callback(TypeError, "task", task, "value")
        seconds = check_seconds(ValueError, "seconds", seconds)
        self.task = task
        self.seconds = seconds
        self.made: list[Call] = []
        self.running: int = 0
        self.most_at_once: int = 0

    def _said(self) -> str:
        return f": {counted(len(self.made), 'call')}, {self.running:,} running"

    async def __call__(self, value: Any) -> Any:
        """Note the call and pass it on."""
        clock = asyncio.get_running_loop().time
        call = Call(value, clock())
        self.made.append(call)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            if self.seconds:
                await asyncio.sleep(self.seconds)
            return value if self.task is None else await self.task(value)
        finally:
            self.running -= 1
            call.end = clock()
