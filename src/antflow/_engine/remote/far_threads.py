"""The threads of a worker process in which plain functions run.

A few threads take one function after the other, so that short ones do not get in each other's way.
A function that has waited for `PATIENCE` behind slow ones gets a thread of its own. Threads that
have had nothing to do for a while end.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable

PATIENCE = 0.05
"""Seconds that a function waits for a thread before there is one thread more."""

IDLE_SECONDS = 10.0


class FarThreads:
    """Threads for plain functions, in order of their arrival.

    Args:
        name: Part of the threads' names.
        usual: How many functions run at the same time as long as none is slow.
        loop: The event loop that gives functions to it.
    """

    def __init__(self, name: str, usual: int, loop: asyncio.AbstractEventLoop) -> None:
        self._name = name
        self._usual = usual
        self._loop = loop
        self._state = threading.Condition()
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._at_work = 0
        self._granted = 0
        self._idle = 0
        self._is_over = False
        self._alarm: asyncio.TimerHandle | None = None

    def put(self, function: Callable[[], None]) -> None:
        """Run a function that raises nothing. Only the event loop's thread may call this."""
        with self._state:
            self._waiting.append((time.monotonic(), function))
            if self._at_work < self._usual:
                self._grant()
        if self._alarm is None:
            self._alarm = self._loop.call_later(PATIENCE, self._look)

    def end(self) -> None:
        """Start no more functions. Running ones go on."""
        with self._state:
            self._is_over = True
            self._waiting.clear()
            self._state.notify_all()
        if self._alarm is not None:
            self._alarm.cancel()

    def _look(self) -> None:
        self._alarm = None
        now = time.monotonic()
        with self._state:
            late = sum(1 for since, _ in self._waiting if now - since >= PATIENCE * 0.9)
            for _ in range(late - self._granted):
                self._grant()
            if self._waiting and not self._is_over:
                self._alarm = self._loop.call_later(PATIENCE, self._look)

    def _grant(self) -> None:
        """Let one more thread be at work."""
        self._at_work += 1
        self._granted += 1
        if self._idle >= self._granted:
            self._state.notify()
        else:
            threading.Thread(target=self._live, name=self._name, daemon=True).start()

    def _live(self) -> None:
        while True:
            with self._state:
                self._idle += 1
                while not self._granted and not self._is_over:
                    if not self._state.wait(IDLE_SECONDS):
                        break
                self._idle -= 1
                if not self._granted:
                    return
                self._granted -= 1
            self._work()

    def _work(self) -> None:
        while True:
            with self._state:
                if not self._waiting:
                    self._at_work -= 1
                    return
                _, function = self._waiting.popleft()
            function()
            del function  # it may hold large values
