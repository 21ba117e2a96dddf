"""Ending a run on SIGINT and SIGTERM in good order."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from math import inf
from time import monotonic
from types import FrameType
from typing import Any

from antflow._core.log import warn
from antflow._engine.contexts import plainly_around
from antflow._engine.engine import Engine

SIGNALS = (signal.SIGINT, signal.SIGTERM)

MOST_UNHEARD = 2
"""Signals that may wait for an event loop. A sender of one more does not want to wait."""

TIME_TO_CANCEL = 2.0
"""Seconds for which a run that was cancelled may go on, whatever signals come meanwhile."""

LOOP = ("asyncio.", "selectors.")
"""Where the event loop has a step in hand."""

ENGINE = ("antflow._core.", "antflow._engine.", "antflow._monitor.")
"""Where the engine may have an item in hand."""

CALLERS = (
    "antflow._engine.source.",
    "antflow._engine.user_errors.call_apart",
    "antflow._engine.handover._call_back",
    "antflow._monitor.callbacks.CallbackGuard.call",
)
"""Where it calls the user's code. That may block without a frame of its own, like a read from a
terminal; and what it raises is handled."""


def check_main_thread() -> None:
    """Signals are delivered to the main thread only.

    Raises:
        RuntimeError: This is another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("graceful_signals works only in the main thread")


_under_way: list[_GracefulEnd] = []
"""The runs that hear the signals. The handlers belong to all of them together."""

if hasattr(os, "register_at_fork"):
    # A forked process has a copy of the runs, and their handlers: it would survive SIGTERM, with
    # which `multiprocessing.Pool` ends its processes.
    os.register_at_fork(after_in_child=_under_way.clear)

_before: dict[signal.Signals, Any] = {}
"""The handlers of the signals before the first of them."""


@plainly_around
def graceful(engine: Engine, seconds: float) -> Generator[None, None, None]:
    """The first signal stops the intake and drains; the second, or the time, cancels the run.

    Several runs at once all hear the signals. When the last is over, the earlier handlers are back.
    One more signal ends the program if two had no effect: the event loop has not handled them
    because something blocks it (a task, or the end of a display on a halted terminal), or a task
    cannot be cancelled.

    Args:
        engine: The run.
        seconds: How long draining may take.
    """
    _forget_closed_loops()
    if not _under_way:
        _hear_no_more()
    ending = _GracefulEnd(engine, seconds)
    _under_way.append(ending)
    try:
        if len(_under_way) == 1:
            for number in SIGNALS:
                # One that is ignored, as in a shell script's background job, stays so.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    _before[number] = signal.signal(number, _on_signal)
            if (main_task := _main_task_of(_before.get(signal.SIGINT))) is not None:
                _tell_once(main_task, _hear_no_more)
        yield
    finally:
        if ending in _under_way:
            _under_way.remove(ending)
        if not _under_way:
            _hear_no_more()
        ending.over()  # now that no more signals come


def _forget_closed_loops() -> None:
    """A run in an event loop that was closed under it hears nothing, and never ends."""
    _under_way[:] = [ending for ending in _under_way if not ending.loop.is_closed()]


def _hear_no_more(_: object = None) -> None:
    """No run is under way, or the main task of `asyncio.run` has ended, which ends them all."""
    _under_way.clear()
    for number, handler in _before.items():
        if signal.getsignal(number) is _on_signal:
            _put_back(number, signal.SIG_DFL if handler is None else handler)
    _before.clear()


def _put_back(number: int, handler: Any) -> None:
    """Restore the handler that stood aside for a run.

    The handler of `asyncio.run` is restored until the main task has ended. The run may end later
    than that, for example a stream that was dropped; then Python's own is, or the next
    `asyncio.run` would not set another.
    """
    main_task = _main_task_of(handler)
    if main_task is not None and main_task.done():
        handler = signal.default_int_handler
    signal.signal(number, handler)
    if main_task is not None:
        _tell_once(main_task, _main_task_ended)


def _main_task_of(handler: Any) -> asyncio.Task[Any] | None:
    """The task that this handler cancels, if it is that of `asyncio.run`."""
    if not isinstance(getattr(getattr(handler, "func", None), "__self__", None), asyncio.Runner):
        return None
    main_task: asyncio.Task[Any] = handler.keywords["main_task"]
    return main_task


def _tell_once(main_task: asyncio.Task[Any], callback: Callable[[Any], None]) -> None:
    """Call back once when a task ends, however many runs want to know."""
    main_task.remove_done_callback(callback)
    main_task.add_done_callback(callback)


def _main_task_ended(main_task: asyncio.Task[Any]) -> None:
    if _main_task_of(signal.getsignal(signal.SIGINT)) is main_task:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _on_signal(number: int, frame: FrameType | None) -> None:
    _forget_closed_loops()
    if not _under_way:
        _as_before(signal.Signals(number), frame)
    elif any(ending.is_in_vain for ending in _under_way):
        _end_at_once(signal.Signals(number), frame)
    else:
        for ending in tuple(_under_way):
            ending.unheard.append(signal.Signals(number))
            ending.loop.call_soon_threadsafe(ending.hear)


def _end_at_once(number: signal.Signals, frame: FrameType | None) -> None:
    """Do what this signal does to a program that has no plan."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt  # asyncio's own handler would ask the event loop first
    _as_before(number, frame)


def _as_before(number: signal.Signals, frame: FrameType | None) -> None:
    """Do what this signal did before a run heard it."""
    handler = _before.get(number)
    if callable(handler):
        handler(number, frame)
    elif handler is not signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


class _GracefulEnd:
    """How one run hears signals.

    Attributes:
        unheard: Signals handed to its event loop and not handled yet.
    """

    def __init__(self, engine: Engine, seconds: float) -> None:
        self.loop = asyncio.get_running_loop()
        self._engine = engine
        self._run = engine.run
        self._seconds = seconds
        self._timer: Any = None
        self._cancelled_at = inf
        self.unheard: list[signal.Signals] = []

    @property
    def is_in_vain(self) -> bool:
        """Whether there is no point in asking the run again."""
        return (
            len(self.unheard) >= MOST_UNHEARD or monotonic() - self._cancelled_at >= TIME_TO_CANCEL
        )

    def hear(self) -> None:
        if not self.unheard:  # the run was over before
            return
        number = self.unheard.pop(0)
        if self._run.stopped_by is not None:
            self._cancel()
            return
        self._run.stopped_by = number
        if self._run.is_over:
            warn(
                "%s: the run is over, and its results are still being read or shown; a second "
                "signal ends that too",
                number.name,
            )
            return
        warn(
            "%s: no more items are taken in; what is in flight has %s s, a second signal cancels",
            number.name,
            f"{self._seconds:,g}",
        )
        self._timer = self._run.timers.call_later(self._seconds, self._time_is_up)
        self._engine.drain()

    def _time_is_up(self) -> None:
        if not self._run.is_over:
            self._cancel()

    def over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.unheard:  # it came after the run had ended, and must not be lost
            self._run.stopped_by = self._run.stopped_by or self.unheard[0]
            self.unheard.clear()

    def _cancel(self) -> None:
        assert self._run.stopped_by is not None
        self._cancelled_at = min(self._cancelled_at, monotonic())
        is_interrupt = self._run.stopped_by is signal.SIGINT
        self._engine.supervisor.fail(
            KeyboardInterrupt() if is_interrupt else SystemExit(128 + self._run.stopped_by)
        )


class _Apart:
    """Keeps Ctrl-C out of the event loop's own steps, in a program that `asyncio.run` runs.

    `asyncio.run` cancels the main task at the first SIGINT and raises `KeyboardInterrupt` at the
    second, wherever the program is. If that comes between taking a step from the event loop's queue
    and running it, the step is lost and its task never ends: asyncio itself then hangs when it
    closes the loop. In the engine it could lose an item that has left one place and is not in the
    next. Here such a signal becomes a separate step. Anywhere else, for example in a task that
    blocks the event loop, it is raised at once.

    When the main task has ended, the event loop has a step left that stops it. An interrupt before
    that step would leave it to the loop's next turn, in which asyncio cancels all other tasks: it
    would not wait for them. So from then on an interrupt waits for `_main_task_ended`, which comes
    after that step.
    """

    def __init__(self) -> None:
        self._count = 0
        self._handler: Any = None
        self._unheard: list[int] = []

    @plainly_around
    def kept(self) -> Generator[None, None, None]:
        """While a run is under way. Several may be at the same time."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handler = signal.getsignal(signal.SIGINT)
        if self._handler is None or handler != self._on_interrupt:
            main_task = _main_task_of(handler)
            if main_task is None:
                yield
                return
            self._count, self._handler = 0, handler
            self._unheard.clear()
            _tell_once(main_task, self._main_task_ended)
            signal.signal(signal.SIGINT, self._on_interrupt)
        self._count += 1
        counted_for = self._handler
        try:
            yield
        finally:
            self._count -= counted_for is self._handler
            if not self._count:
                with suppress(ValueError):  # the garbage collector came here in another thread
                    self._end()

    def _end(self) -> None:
        if signal.getsignal(signal.SIGINT) == self._on_interrupt:
            _put_back(signal.SIGINT, self._handler)

    def _main_task_ended(self, main_task: asyncio.Task[Any]) -> None:
        if _main_task_of(self._handler) is main_task:  # a run may go on, but has no more say
            self._end()
            self._handler = None  # it keeps the task, which may have the results
            if self._unheard:
                self._unheard.clear()
                raise KeyboardInterrupt

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        loop = asyncio._get_running_loop()
        where = "" if frame is None else _place_of(frame)
        if loop is not None and (where.startswith(LOOP) or self._may_lose_an_item(where)):
            self._unheard.append(number)
            loop.call_soon_threadsafe(self._hear)
        else:
            self._pass_on(number, self._handler)

    def _may_lose_an_item(self, where: str) -> bool:
        # If the event loop has not heard the last one, perhaps something blocks it.
        return where.startswith(ENGINE) and not where.startswith(CALLERS) and not self._unheard

    def _hear(self) -> None:
        main_task = _main_task_of(self._handler)
        if self._unheard and not (main_task is not None and main_task.done()):
            self._pass_on(self._unheard.pop(0), self._handler)

    def _pass_on(self, number: int, handler: Any) -> None:
        try:
            (handler or signal.default_int_handler)(number, None)
        except KeyboardInterrupt:
            self._end()  # `asyncio.run` puts its own away itself
            raise


def _place_of(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"


interrupts_apart = _Apart().kept
