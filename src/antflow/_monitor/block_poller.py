"""What a display is told while something blocks the event loop.

The poller is a task of that loop and stands as well, so a thread does its work meanwhile. The watch
over the loop says when a block begins. Then the thread starts, and asks once a second, at each
whole second of the block, what goes on. It ends with the block. A loop that is never blocked has no
such thread.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from threading import Event, Lock

from antflow._core.log import warn
from antflow._core.ports import Blockable
from antflow._core.snapshot import LoopStall

SHORTEST_SHOWN = 1.0
"""Seconds that the loop must be blocked before a display says so."""


class ShowsBlocks(ABC):
    """A display that may be called from another thread while the event loop is blocked.

    Only classes of this library are: other displays are called in the event loop alone.
    """

    @abstractmethod
    def _show_block(self, stall: LoopStall | None) -> None:
        """Show the block that goes on; or, ``None``, that it is over."""


class BlockPoller:
    """Polls the blocks of an event loop for a display, in a thread.

    Args:
        loop: The event loop.
        show: Shows a block, or that it is over.
        wait: Waits for this many seconds, or until the end; returns whether the end has come.
    """

    def __init__(
        self,
        loop: Blockable,
        show: Callable[[LoopStall | None], None],
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._loop = loop
        self._show = show
        self._ended = Event()
        self._wait: Callable[[float], bool] = self._ended.wait if wait is None else wait
        self._guard = Lock()
        self._runs = False
        self._is_new = False

    def begin(self) -> None:
        """Listen for blocks from now on."""
        self._loop.on_block = self._on_block

    def end(self) -> None:
        """Show nothing more: a thread that goes on ends soon, without being waited for."""
        self._loop.on_block = None
        self._ended.set()

    def _on_block(self) -> None:
        with self._guard:
            self._is_new = True
            if self._runs or self._ended.is_set():
                return
            thread = threading.Thread(target=self.poll, name="antflow-block", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # too many threads, or Python is ending: go without
                return
            self._runs = True

    def poll(self) -> None:
        """The thread. Ends with the block."""
        is_shown = False
        while True:
            stall, goes_on = self._look()
            is_long = stall is not None and stall.seconds >= SHORTEST_SHOWN
            if is_long or is_shown:
                try:
                    self._show(stall if is_long else None)
                except Exception as error:
                    warn("the display failed while the event loop was blocked", error=error)
                    self._ended.set()
            is_shown = is_long
            if not goes_on or self._wait(1.0 - (stall.seconds if stall else 0.0) % 1.0):
                return

    def _look(self) -> tuple[LoopStall | None, bool]:
        """The block that goes on, and whether the thread does: it, or the next one, may."""
        with self._guard:
            stall = self._loop.block()
            self._runs = stall is not None or self._is_new
            self._is_new = False
            return stall, self._runs
