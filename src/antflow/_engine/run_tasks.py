"""The `asyncio.Task` objects of a run.

They are few: the supervisor; the workers; a *feeder*, where items are not pulled; one that fails
unreadable items, while there are any; a keeper for those resources that are entered and left
together, and one more while a thread does that; at the end one that waits for listeners of items
that no worker had; and one for a display. None belongs to an item, but a worker moves to a new one
if an item left context variables behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar
from weakref import WeakSet

from antflow._engine.waiting import begin_task, outlast

T = TypeVar("T")


class RunTasks:
    """Starts the tasks of one run, and knows those that the run waits for.

    Args:
        run_id: The run; part of each task's name.
        on_end: Called with a task that has ended, and that the run waits for.

    Attributes:
        context: The context variables that each task begins with.
    """

    def __init__(self, run_id: str, on_end: Callable[[asyncio.Task[None]], None]) -> None:
        self._prefix = f"antflow {run_id[:4]}"
        self._on_end = on_end
        self._tasks: set[asyncio.Task[None]] = set()
        self._own: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._works: WeakSet[Coroutine[Any, Any, Any]] = WeakSet()
        self._called_off: set[asyncio.Task[Any]] = set()
        self.context: Context = copy_context()

    def create(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that the run waits for before it ends."""
        task = self.create_side(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def create_side(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task in the run's context that its creator looks after."""
        self._works.add(work)  # first: an eager task takes its first step before it is known
        task = begin_task(work, f"{self._prefix} {name}", self.context)
        self._own.add(task)
        return task

    def call_off(self, task: asyncio.Task[Any]) -> None:
        """Cancel one of the run's own tasks, and note it: cancel requests are anonymous."""
        self._called_off.add(task)
        task.cancel()

    def is_called_off(self, task: asyncio.Task[Any]) -> bool:
        """Whether it was cancelled by `call_off`."""
        return task in self._called_off

    def __contains__(self, task: asyncio.Task[Any]) -> bool:
        return task in self._own or task.get_coro() in self._works

    def cancel(self, *, again: bool = True) -> None:
        """Cancel them all, or only those that have not been asked yet."""
        for task in tuple(self._tasks):
            if again or not task.cancelling():
                task.cancel()

    async def until_ended(self, on_cancel: Callable[[], None]) -> None:
        """Wait until the run has no task left, however often the wait is cancelled.

        Args:
            on_cancel: Called at each cancellation.
        """
        await outlast(self._tasks, on_cancel)
        # If an interrupt pre-empted `_ended`, tasks that are done are still here.
        for task in tuple(self._tasks):
            self._ended(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task in self._tasks:
            self._tasks.discard(task)
            self._on_end(task)
