"""The thread in which one worker's plain functions run, one at a time.

    run ──▶ calls ──▶ thread ──▶ function
      ◀── future ◀── answers ◀─────┘

The thread starts with the first function and then waits for more, keeping nothing of the last one.
It ends when its owner says so, when its owner is collected, or when the event loop that it answers
to is closed.

It is not a daemon: at exit Python waits for a running function, so none is cut off midway. Idle
threads are told to end then, but only after the event loop they serve has ended, if Python waits
for that loop's thread too.

One `concurrent.futures.ThreadPoolExecutor` for all workers would not do: from Python 3.12 on it
loses count of its idle threads and starts thousands where four would be enough.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeGuard

from antflow._core.foreign import is_awaitable
from antflow._core.tracebacks import trimmed
from antflow._core.value_or_error import ValueOrError, call_for_pair, value_of
from antflow._engine.clock import clock_seconds, processor_clock

_Request = tuple[Callable[[], Any], "asyncio.Future[ValueOrError]", "asyncio.Future[None]"]

_Answer = tuple["asyncio.Future[ValueOrError]", "asyncio.Future[None]", ValueOrError]

_UNSET = object()

_is_exiting = False


class Answers:
    """The answers of several threads, on their way to the running event loop.

    Waking the loop takes a system call, during which other threads go on: that costs more than all
    the rest of a short function. So one wake-up is for all answers that have come by then.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._waiting: deque[_Answer] = deque()
        self._is_called = False

    def put(self, answer: _Answer) -> None:
        """Pass on an answer; called by a thread.

        Raises:
            RuntimeError: The event loop is closed.
        """
        self._waiting.append(answer)
        if not self._is_called or self.loop.is_closed():
            self._is_called = True
            self.loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._is_called = False  # first: what is put from here on calls again, perhaps in vain
        while self._waiting:
            _settle(*self._waiting.popleft())


class WorkerThread(Executor):
    """A thread, started for the first function. It belongs to the running event loop.

    Args:
        name: The thread's name.
        answers: Shared with other threads of this event loop.

    Attributes:
        at_work: Done when the last function has ended, even if its answer is no longer wanted;
            ``None`` before the first function.
    """

    def __init__(self, name: str, answers: Answers) -> None:
        self._thread: _Thread | None = None
        self._name = name
        self._answers = answers
        self._loop = answers.loop
        self.at_work: asyncio.Future[None] | None = None

    async def call(self, function: Callable[[], Any]) -> Any:
        """Call a function in the thread, in the caller's context; await its answer if awaitable.

        Raises:
            BaseException: The function's own error.

        Cancellation: the function goes on; see `at_work`.
        """
        context = copy_context()
        pair = await self.run(partial(context.run, function))
        take_over(context)
        result = value_of(pair)
        return await result if is_awaitable(result) else result

    def run(self, function: Callable[..., Any]) -> asyncio.Future[ValueOrError]:
        """Call a function in the thread, after the ones before it."""
        answer: asyncio.Future[ValueOrError] = self._loop.create_future()
        # An event loop with virtual time must stand still while a thread is at work. It learns of
        # the thread by this call.
        self.at_work = self._loop.run_in_executor(self, function, answer)
        return answer

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Used by `run`. Returns an asyncio future, which `asyncio.wrap_future` passes on as is."""
        (answer,) = args
        ended: asyncio.Future[None] = self._loop.create_future()
        thread = self._thread
        if thread is None or thread.is_leaving:
            thread = _Thread(self._name, self._answers)
            thread.start()
            self._thread = thread
        thread.calls.put((function, answer, ended))
        return ended

    @property
    def cpu_seconds(self) -> float:
        """Seconds of processor time that the thread has taken."""
        thread = self._thread
        return 0.0 if thread is None or thread.clock is None else clock_seconds(thread.clock)

    def end(self) -> None:
        """End the thread after the function at work."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.leave()

    __del__ = end


class _Thread(Thread):
    """The thread itself. It does not refer to its owner, so that the owner can be collected."""

    def __init__(self, name: str, answers: Answers) -> None:
        self.served = threading.current_thread()  # where the event loop runs
        # When Python exits, an event loop in a daemon thread must not hold it up with new threads.
        super().__init__(name=name, daemon=_is_exiting and self.served.daemon)
        self.calls: SimpleQueue[_Request | None] = SimpleQueue()
        self.answers = answers
        self.loop = answers.loop
        self.is_leaving = False
        self.clock: int | None = None

    def leave(self) -> None:
        """End after the calls so far."""
        self.is_leaving = True
        self.calls.put(None)

    def run(self) -> None:
        """Call functions until told to leave."""
        self.clock = processor_clock()
        while (call := self.calls.get()) is not None:
            function, answer, ended = call
            pair = call_for_pair(function)
            if pair[1] is not None:
                trimmed(pair[1])  # here, since perhaps nothing waits for it
            try:
                self.answers.put((answer, ended, pair))
            except RuntimeError:  # the loop is closed: no more calls will come
                return
            del call, function, answer, ended, pair  # the next one may take long to come


def _settle(
    answer: asyncio.Future[ValueOrError], ended: asyncio.Future[None], pair: ValueOrError
) -> None:
    if not ended.done():
        ended.set_result(None)
    if not answer.done():
        answer.set_result(pair)


def take_over(context: Context) -> None:
    """Set here the context variables that were set in a copy of this context.

    Later code then sees them as if the function that set them had been called here.
    """
    for variable, value in context.items():
        if variable.get(_UNSET) is not value:
            variable.set(value)


def _end_idle_threads() -> None:
    global _is_exiting
    _is_exiting = True
    while threads := [thread for thread in threading.enumerate() if _has_to_be_told(thread)]:
        for thread in threads:
            _tell_to_leave(thread)


def _has_to_be_told(thread: Thread) -> TypeGuard[_Thread]:
    return isinstance(thread, _Thread) and not (thread.is_leaving or thread.daemon)


def _tell_to_leave(thread: _Thread) -> None:
    if not (thread.served.daemon or thread.served is threading.current_thread()):
        thread.served.join()  # Python would do this next
    if thread.loop.is_running():  # in a daemon thread; only the loop knows its next calls
        thread.is_leaving = True
        with suppress(RuntimeError):  # it has just been closed
            thread.loop.call_soon_threadsafe(thread.leave)
            return
    thread.leave()


# This runs before Python waits for threads; `atexit` would come after.
getattr(threading, "_register_atexit", atexit.register)(_end_idle_threads)
