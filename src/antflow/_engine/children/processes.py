"""Calls plain functions in child processes: one per worker, kept while the worker lives.

A worker calls one function at a time, so a child that dies takes exactly one call with it, and it
is known which. That call is made again in a new child; a call that has cost three of them is given
up. A call that is no longer awaited is ended by killing its child, which serves no other worker.
"""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from antflow._core.counters import Counters
from antflow._core.errors import WorkerLostError
from antflow._core.foreign import is_a
from antflow._core.stage import task_name
from antflow._core.text import clean, safe_str
from antflow._core.value_or_error import ValueOrError, value_of
from antflow._engine.children.child import (
    Child,
    ChildLost,
    NoChild,
    ProcessorTime,
    Question,
)
from antflow._engine.children.child_main import refuse_unguarded

MOST_LOST = 3
"""Children that one call may cost."""

MOST_STARTS = 20
"""Children that may be killed while they start for one call: that is not the call's fault."""


def check_picklable(function: Callable[..., Any]) -> str | None:
    """Why a function cannot be called in a child process.

    Returns:
        What is wrong with it, to be read after its name; ``None`` if nothing is.
    """
    names = _Names()
    try:
        names.dump(function)
    except Exception as error:
        return (
            "cannot be sent to a child process; it must be defined at the top of a module, not a "
            f"lambda or an inner function: {safe_str(error)}"
        )
    if names.of_main is not None and not _has_file(sys.modules["__main__"]):
        return (
            f"is defined where no child process can import it from ({names.of_main} in a prompt, "
            "a notebook, a `-c` command or a `__main__.py`); it must be in another module"
        )
    return None


class _Names(pickle.Pickler):
    """Pickles, and finds what is defined in the program itself."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), pickle.HIGHEST_PROTOCOL)
        self.of_main: str | None = None

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, (type, FunctionType)) and value.__module__ == "__main__":
            self.of_main = value.__qualname__
        return NotImplemented


def _has_file(main: ModuleType) -> bool:
    if (spec := getattr(main, "__spec__", None)) is not None:  # `python -m`
        return str(spec.name).rpartition(".")[2] != "__main__"
    return os.path.isfile(getattr(main, "__file__", None) or "")


class ProcessSeat:
    """The child process of one worker, started for the first call.

    For one caller at a time.

    Args:
        name: Whose it is, ``"Fetch-W0"``; part of the process's name.
        processor_time: Adds up its children's processor time.
        counters: Adds up what the functions count; ``None``: that is not of interest.
    """

    def __init__(
        self, name: str, processor_time: ProcessorTime, counters: Counters | None = None
    ) -> None:
        self._name = clean(name)
        self._processor_time = processor_time
        self._counters = counters or Counters()
        self._child: Child | None = None
        self._killed: set[asyncio.Future[None]] = set()

    async def call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        resources: Mapping[str, Callable[..., Any]] | None = None,
        is_batch: bool = False,
    ) -> Any:
        """Call a function in the child process.

        Args:
            function: Plain and picklable: `check_picklable`.
            args: What it is called with.
            kwargs: What it is called with by keyword.
            resources: Keyword → function that makes a context manager. The child enters it before
                first use, keeps it for its life, and passes its value by that keyword.
            is_batch: Whether it returns a list of answers. An exception among them is copied as if
                it had been raised.

        Returns:
            A copy of what the function returned.

        Raises:
            WorkerLostError: The call cost `MOST_LOST` children. Another try would cost more.
            NoChild: No child can be started here: this call is not at fault.
            TypeError: An argument or the result cannot be sent between processes.
            BaseException: A copy of what the function raised, caused by an `OriginalTraceback`. If
                it cannot be copied, a `StandInError` of the same name with the same text.

        Cancellation: the child is killed, with all that the function started in it.
        """
        question = (function, args, dict(kwargs or {}), dict(resources or {}), is_batch)
        lost: Counter[str] = Counter()
        while True:
            child = self._seated()
            _, error = pair = await self._asked(child, question)
            if not is_a(error, ChildLost):
                break
            lost[error.phase] += 1
            if lost["at work"] == MOST_LOST:
                raise WorkerLostError(task_name(function), error)
            if lost["starting"] == MOST_STARTS:
                raise NoChild(f"no child process of {self._name} could be started: {error}")
        if is_a(error, StopIteration):  # no coroutine can raise that
            raise RuntimeError(f"task {task_name(function)} raised StopIteration") from error
        return value_of(pair)

    def kill(self) -> None:
        """End the child process now; the next call starts another one."""
        if self._child is not None:
            self._child.kill()
            self._killed.add(self._child.is_gone)
            self._child.is_gone.add_done_callback(self._killed.discard)
            self._child = None

    async def close(self) -> None:
        """Make the child leave its resources and end; wait until it and all killed ones are gone.

        May be called again, and then waits for the same end.

        Cancellation: the child is killed.
        """
        waits = set(self._killed)
        if self._child is not None:
            self._child.dismiss()
            waits.add(self._child.is_gone)
        if not waits:
            return
        try:
            await asyncio.wait(waits)
        except asyncio.CancelledError:
            self.kill()
            raise
        self._child = None

    def _seated(self) -> Child:
        if self._child is None or self._child.is_over:
            refuse_unguarded()
            self._child = Child(self._name, self._processor_time, self._counters)
        return self._child

    async def _asked(self, child: Child, question: Question) -> ValueOrError:
        answer = child.ask(question)
        try:
            await asyncio.wait([answer])  # unlike `await answer`, it leaves the future alone
        except asyncio.CancelledError:
            if not answer.done():
                self.kill()
            raise
        return answer.result()
