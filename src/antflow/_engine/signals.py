"""Ending a run on SIGINT and SIGTERM in good order."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antflow._engine.run import Run

logger = logging.getLogger("antflow")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def check_main_thread() -> None:
    """Signals are delivered to the main thread only.

    Raises:
        RuntimeError: This is another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("graceful_signals works only in the main thread")


@contextmanager
def graceful(run: Run, seconds: float) -> Iterator[None]:
    """The first signal stops the intake and drains; the second, or the time, cancels the run.

    Whatever handled the signals before does so again afterwards.

    Args:
        run: The run.
        seconds: How long draining may take.
    """
    loop = asyncio.get_running_loop()
    ending = _Ending(run, seconds)

    def on_signal(number: int, _: FrameType | None) -> None:
        loop.call_soon_threadsafe(ending.hear, signal.Signals(number))

    before: dict[signal.Signals, Any] = {}
    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, on_signal)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        ending.over()


class _Ending:
    def __init__(self, run: Run, seconds: float) -> None:
        self._run = run
        self._seconds = seconds
        self._timer: Any = None

    def hear(self, number: signal.Signals) -> None:
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
        is_interrupt = self._run.stopped_by is signal.SIGINT
        self._run.fail(
            KeyboardInterrupt() if is_interrupt else SystemExit(128 + self._run.stopped_by)
        )
