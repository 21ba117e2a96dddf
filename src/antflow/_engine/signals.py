"""Ending a run on SIGINT and SIGTERM in good order."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antflow._engine.run import Run

logger = logging.getLogger("antflow")

SIGNALS = (signal.SIGINT, signal.SIGTERM)

MOST_UNHEARD = 2
"""Signals that may wait for an event loop. Who sends one more does not want to wait for it."""

TIME_TO_CANCEL = 2.0
"""Seconds for which a run that was cancelled may go on, whatever signals come meanwhile."""


def check_main_thread() -> None:
    """Signals are delivered to the main thread only.

    Raises:
        RuntimeError: This is another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("graceful_signals works only in the main thread")


_under_way: list[_GracefulEnd] = []
"""The runs that hear the signals. The handlers belong to all of them together."""

_before: dict[signal.Signals, Any] = {}
"""What handled the signals before the first of them."""


@contextmanager
def graceful(run: Run, seconds: float) -> Iterator[None]:
    """The first signal stops the intake and drains; the second, or the time, cancels the run.

    Several runs at once all hear the signals. When the last is over, whatever handled them before
    does so again. One more ends the program where two were in vain: the event loop has not come to
    them because something blocks it (a task, or the end of a display on a terminal that is halted),
    or a task does not let itself be cancelled.

    Args:
        run: The run.
        seconds: How long draining may take.
    """
    ending = _GracefulEnd(run, seconds)
    _under_way.append(ending)
    try:
        if len(_under_way) == 1:
            for number in SIGNALS:
                _before[number] = signal.signal(number, _on_signal)
        yield
    finally:
        ending.over()
        _under_way.remove(ending)
        if not _under_way:
            for number, handler in _before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            _before.clear()


def _on_signal(number: int, frame: FrameType | None) -> None:
    if any(ending.is_in_vain for ending in _under_way):
        _end_at_once(signal.Signals(number), frame)
        return
    for ending in tuple(_under_way):
        with suppress(RuntimeError):  # its event loop was closed under it
            ending.loop.call_soon_threadsafe(ending.hear, signal.Signals(number))
            ending.unheard += 1


def _end_at_once(number: signal.Signals, frame: FrameType | None) -> None:
    """Do what this signal does to a program that has no plan."""
    handler = _before.get(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt  # asyncio's own handler would ask the event loop first
    if callable(handler):
        handler(number, frame)
    elif handler is not signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


class _GracefulEnd:
    """How one run hears signals.

    Attributes:
        unheard: Signals that its event loop has been told of and has not come to.
    """

    def __init__(self, run: Run, seconds: float) -> None:
        self.loop = asyncio.get_running_loop()
        self._run = run
        self._seconds = seconds
        self._timer: Any = None
        self._cancelled_at = inf
        self.unheard = 0

    @property
    def is_in_vain(self) -> bool:
        """Whether it is no use to ask the run any more."""
        return self.unheard >= MOST_UNHEARD or monotonic() - self._cancelled_at >= TIME_TO_CANCEL

    def hear(self, number: signal.Signals) -> None:
        self.unheard -= 1
        if self._run.stopped_by is not None:
            self._cancel()
            return
        self._run.stopped_by = number
        logger.warning(
            "%s: no more items are taken in; what is in flight has %g s, a second signal cancels",
            number.name,
            self._seconds,
        )
        self._timer = self._run.timers.call_later(self._seconds, self._cancel)
        self._run.intake.is_closed = True
        self._run.close_intake()

    def over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _cancel(self) -> None:
        assert self._run.stopped_by is not None
        self._cancelled_at = min(self._cancelled_at, monotonic())
        is_interrupt = self._run.stopped_by is signal.SIGINT
        self._run.fail(
            KeyboardInterrupt() if is_interrupt else SystemExit(128 + self._run.stopped_by)
        )


class _Apart:
    """Keeps Ctrl-C out of the event loop's own steps, in a program that `asyncio.run` runs.

    `asyncio.run` cancels the main task at the first SIGINT and raises `KeyboardInterrupt` at the
    second, wherever the program is. If that comes between taking a step from the event loop's queue
    and running it, the step is lost and its task never ends: asyncio itself then hangs when it
    closes the loop. Here such a signal becomes a step of its own. Anywhere else, for example in a
    task that blocks the event loop, it is raised at once.
    """

    def __init__(self) -> None:
        self._count = 0
        self._handler: Any = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Active while a run is under way; several runs may be at the same time."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handler = signal.getsignal(signal.SIGINT)
        if handler != self._on_interrupt:
            owner = getattr(getattr(handler, "func", None), "__self__", None)
            if not isinstance(owner, asyncio.Runner):
                yield
                return
            self._count, self._handler = 0, handler
            signal.signal(signal.SIGINT, self._on_interrupt)
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            if not self._count and signal.getsignal(signal.SIGINT) == self._on_interrupt:
                with suppress(ValueError):  # the garbage collector came here in another thread
                    signal.signal(signal.SIGINT, self._handler)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        loop = asyncio._get_running_loop()
        module = "" if frame is None else str(frame.f_globals.get("__name__"))
        if loop is not None and module.partition(".")[0] in ("asyncio", "selectors"):
            loop.call_soon_threadsafe(self._pass_on, number)
        else:
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        try:
            self._handler(number, None)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, self._handler)  # `asyncio.run` puts its own away itself
            raise


interrupts_apart = _Apart().kept
