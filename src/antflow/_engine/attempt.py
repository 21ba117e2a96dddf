"""One try: the tasks of a stage, called one after the other on one item."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import Any

from antflow._core.envelope import Envelope
from antflow._core.errors import TaskFailedError
from antflow._core.events import TaskEventType
from antflow._core.ledger import WorkerBook
from antflow._core.ports import Wait
from antflow._core.stage import Stage, TaskFunc, retry_policy, task_name
from antflow._engine.recorder import Recorder

Call = Callable[[Any], Awaitable[Any]]
"""A task as the engine calls it: the value in, an awaitable of the next one out."""

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a function of no arguments in a thread."""


class Attempt:
    """How the items of one stage are tried.

    Args:
        stage: The stage.
        recorder: Told of each task's start and end, if somebody listens.
        now: The monotonic clock.
        in_thread: Where plain functions run.
        on_crash: Called with what the recorder raises.
    """

    def __init__(
        self,
        stage: Stage,
        recorder: Recorder,
        now: Callable[[], float],
        in_thread: InThread,
        on_crash: Callable[[Exception], None],
    ) -> None:
        self._on_crash = on_crash
        self._recorder = recorder
        self._now = now
        self._policy = retry_policy(stage)
        self.names = [task_name(task) for task in stage.tasks]
        self._calls = [_as_call(task, stage.unpack_args, in_thread) for task in stage.tasks]

    @property
    def direct(self) -> Call | None:
        """The task itself, where trying is nothing but calling it; else ``None``."""
        if len(self._calls) == 1 and not self._recorder.tells_tasks:
            return self._calls[0]
        return None

    async def run(self, envelope: Envelope, worker: WorkerBook) -> Any:
        """Run the tasks, from where the item is to go on.

        What a failed try leaves in the envelope is where the next one begins: under "per_task" the
        failed task with what it was given, under "per_stage" the first task.

        Returns:
            The last task's value.
        """
        value = envelope.carry if envelope.task else envelope.value
        for index in range(envelope.task, len(self._calls)):
            if index != envelope.task and not self._policy.whole_stage:
                envelope.task = index
                envelope.carry = value
                envelope.attempts = 1
            worker.task = self.names[index]
            if self._recorder.tells_tasks:
                value = await self._told(self._calls[index], value, envelope, worker)
            else:
                value = await self._calls[index](value)
        envelope.task = 0
        envelope.carry = None
        worker.task = self.names[0]
        return value

    async def _told(self, call: Call, value: Any, envelope: Envelope, worker: WorkerBook) -> Any:
        began = self._now()
        if (wait := self._tell("start", envelope, worker, began)) is not None:
            await wait
            began = self._now()
        try:
            try:
                value = await call(value)
            except asyncio.CancelledError as error:
                raise own_failure(error, worker.task or "") from error
        except Exception as error:
            is_last = self._policy.next_delay(envelope.attempts) is None
            kind: TaskEventType = "fail" if is_last else "retry"
            if (wait := self._tell(kind, envelope, worker, began, error)) is not None:
                await wait
            raise
        if (wait := self._tell("complete", envelope, worker, began)) is not None:
            await wait
        return value

    def _tell(
        self,
        kind: TaskEventType,
        envelope: Envelope,
        worker: WorkerBook,
        began: float,
        error: Exception | None = None,
    ) -> Wait:
        now = self._now()
        duration = None if kind == "start" else now - began
        try:
            return self._recorder.task(kind, envelope, worker, now, duration, error)
        except Exception as fault:
            self._on_crash(fault)  # it is not the task that failed
            return None


def own_failure(error: asyncio.CancelledError, name: str) -> TaskFailedError:
    """The failure that the own ``CancelledError`` of a task called ``name`` amounts to.

    Raises:
        asyncio.CancelledError: It is not the task's own: the worker itself is being cancelled.
    """
    running = asyncio.current_task()
    if running is None or running.cancelling():
        raise error
    return TaskFailedError(name, error)


def _as_call(task: TaskFunc, unpack: bool, in_thread: InThread) -> Call:
    call = task if _is_async(task) else partial(_call_in_thread, task, in_thread)
    return partial(_unpacked, call) if unpack else call


def _is_async(task: TaskFunc) -> bool:
    while isinstance(task, partial):
        task = task.func
    return inspect.iscoroutinefunction(task) or inspect.iscoroutinefunction(
        getattr(task, "__call__", None)  # noqa: B004 - the method itself is wanted
    )


def _unpacked(call: Callable[..., Awaitable[Any]], value: Any) -> Awaitable[Any]:
    if isinstance(value, dict):
        return call(**value)
    if isinstance(value, (list, tuple)):
        return call(*value)
    return call(value)


async def _call_in_thread(task: TaskFunc, in_thread: InThread, *args: Any, **kwargs: Any) -> Any:
    """Call a plain function in a thread; await what it returns if that must be awaited."""
    context = copy_context()
    call = partial(_result_or_error, task, args, kwargs)
    result, error = await in_thread(lambda: context.run(call))
    if error is not None:
        raise error
    return await result if inspect.isawaitable(result) else result


def _result_or_error(task: TaskFunc, args: Any, kwargs: Any) -> tuple[Any, Exception | None]:
    # A future is no good carrier of exceptions: it makes a TimeoutError anew, without traceback,
    # and with a StopIteration it is never done (before Python 3.12).
    try:
        return task(*args, **kwargs), None
    except StopIteration as error:
        failure = RuntimeError("task raised StopIteration")
        failure.__cause__ = error
        return None, failure
    except Exception as error:
        return None, error
