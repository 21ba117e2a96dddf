"""The polling half of the watch: snapshots to a dashboard, at regular intervals.

One `asyncio.Task` per display does everything: ``on_start``, an update at once, one per interval,
a last one, ``on_finish``. Nothing a display does reaches the run: what it raises switches its
updates off, with one warning; a call that does not finish in time is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from antflow._core.cancellation import awaited_failure
from antflow._core.foreign import is_awaitable
from antflow._core.held_time import Alarm
from antflow._core.log import alert, warn
from antflow._core.places import location_of
from antflow._core.ports import Blockable, SnapshotSource
from antflow._core.result import RunResults
from antflow._core.text import clean, cut, error_text, error_type_name
from antflow._core.tracebacks import trimmed
from antflow._core.waits import discard
from antflow._monitor.block_poller import BlockPoller, ShowsBlocks

LONGEST_TOLD = 400
"""Characters about the failure of a display."""

LONGEST_CALL = 5.0
"""Seconds one call of an async method of a display may take."""


_in_use: set[int] = set()
"""The displays of this library that show a run now, by identity: each can show one."""


class Poller:
    """Polls snapshots for one display.

    Args:
        display: An object with any of ``on_start``, ``on_update``, ``on_finish``, sync or async.
        pipeline: Where snapshots come from; given to ``on_start``.
        total: Number of items, 0 if not known.
        interval: Seconds between updates.
        results: Gives the arguments of ``on_finish``.
        watched: The event loop, if it is watched: displays of this library show what blocks it.
        stand_in: Called at the end if the display failed: says what else nothing would.
    """

    def __init__(
        self,
        display: Any,
        pipeline: SnapshotSource,
        total: int,
        interval: float,
        results: Callable[[], RunResults[Any]],
        watched: Blockable | None = None,
        stand_in: Callable[[], None] | None = None,
    ) -> None:
        self._display = display
        self._pipeline = pipeline
        self._total = total
        self._interval = interval
        self._results = results
        self._stand_in = stand_in
        self._blocks: BlockPoller | None = None
        if watched is not None and isinstance(display, ShowsBlocks):
            self._blocks = BlockPoller(watched, display._show_block)
        self._is_broken = False
        self._limit: asyncio.Timeout | None = None
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[None] = self._loop.create_future()
        self._ending: asyncio.Future[None] = self._loop.create_future()

    async def begin(self) -> None:
        """Wait until ``on_start`` is done and the first update was called: feeding may start."""
        await asyncio.wait([self._begun])

    def end(self, *, at_once: bool) -> None:
        """Say that the run is over: a last update and ``on_finish`` follow, then the task ends.

        Args:
            at_once: The run was cancelled: what the display is awaiting is given up.
        """
        if not self._ending.done():
            self._ending.set_result(None)
        if at_once and self._limit is not None:
            self._limit.reschedule(self._loop.time())

    async def poll(self) -> None:
        """The task. Ends soon after `end`."""
        if not isinstance(self._display, ShowsBlocks):  # one of the user's may show several
            await self._poll()
        elif id(self._display) in _in_use:
            alert("this display shows another run, and not this one: each run needs one of its own")
            self._let_begin()
            await self._ending
            if self._stand_in is not None:
                self._stand_in()
        else:
            _in_use.add(id(self._display))
            try:
                await self._poll()
            finally:
                _in_use.discard(id(self._display))

    async def _poll(self) -> None:
        try:
            if self._blocks is not None:
                self._blocks.begin()
            await self._call("on_start", self._pipeline, self._total)
            await self._update()
            self._let_begin()  # even if the display is broken, or has no on_update
            over = False
            while not over:
                await asyncio.wait([self._ending], timeout=self._interval)
                over = self._ending.done()
                await self._update()
        finally:  # exactly once, even when the event loop itself is ending
            self._let_begin()
            if self._blocks is not None:
                self._blocks.end()
            results = self._results()
            await self._call("on_finish", results, results.summary)
            if self._is_broken and self._stand_in is not None:
                self._stand_in()

    async def _update(self) -> None:
        if not self._is_broken:
            await self._call("on_update")

    async def _call(self, name: str, *args: Any) -> None:
        if (error := await awaited_failure(self._made(name, *args))) is not None:
            # The first is printed if it is not logged: else the screen stays empty for no reason.
            tell, self._is_broken = (warn if self._is_broken else alert), True
            text = "the display failed in %s; the run goes on without it: %s"
            tell(text, name, _told(error), error=error)
            trimmed(error)  # it may be the error of an item

    async def _made(self, name: str, *args: Any) -> None:
        method: Callable[..., Any] | None = getattr(self._display, name, None)
        if method is None:
            return
        if name == "on_update":
            args = (self._pipeline.get_dashboard_snapshot(),)
        answer = method(*args)
        if name != "on_start":
            self._let_begin()
        if self._loop.is_closed():
            discard(answer)
        elif is_awaitable(answer):
            try:
                async with asyncio.timeout(None) as self._limit:
                    with Alarm(self._limit, LONGEST_CALL, self._loop):
                        await answer
            finally:
                self._limit = None

    def _let_begin(self) -> None:
        if not self._begun.done() and not self._loop.is_closed():
            self._begun.set_result(None)


def _told(error: BaseException) -> str:
    """``KeyError at app.py:3 in render: 'x'``."""
    place, message = location_of(error), error_text(error)
    text = f"{error_type_name(error)}{f' at {place}' if place else ''}"
    return clean(cut(f"{text}: {message}" if message else text, LONGEST_TOLD))
