"""The polling half of the watch: snapshots to a dashboard, every so many seconds.

One `asyncio.Task` per display does everything: ``on_start``, an update at once, one per interval,
a last one, ``on_finish``. Nothing a display does reaches the run: what it raises switches its
updates off, with one log record; what it does not finish in time is given up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from antflow._core.ports import SnapshotSource
from antflow._core.result import RunResults

logger = logging.getLogger("antflow")

LONGEST_CALL = 5.0
"""Seconds an async ``on_start`` or ``on_finish`` may take, and so hold up a run."""


class Poller:
    """Polls snapshots for one display.

    Args:
        display: An object with any of ``on_start``, ``on_update``, ``on_finish``, each sync or
            async.
        pipeline: Where snapshots come from; given to ``on_start``.
        total: Number of items, 0 if not known.
        interval: Seconds between updates.
    """

    def __init__(self, display: Any, pipeline: SnapshotSource, total: int, interval: float) -> None:
        self._display = display
        self._pipeline = pipeline
        self._total = total
        self._interval = interval
        self._is_broken = False
        loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[None] = loop.create_future()
        self._ending: asyncio.Future[None] = loop.create_future()
        self._results: RunResults[Any] | None = None

    async def begin(self) -> None:
        """Wait until ``on_start`` and the first update are done: polling starts before feeding."""
        await asyncio.wait([self._begun])

    def end(self, results: RunResults[Any]) -> None:
        """Say that the run is over: a last update and ``on_finish`` follow, then the task ends."""
        self._results = results
        if not self._ending.done():
            self._ending.set_result(None)

    async def poll(self) -> None:
        """The task. Ends soon after `end`."""
        try:
            await self._call("on_start", self._pipeline, self._total)
            await self._update()
        finally:
            self._begun.set_result(None)
        over = False
        while not over:
            await asyncio.wait([self._ending], timeout=self._interval)
            over = self._ending.done()
            await self._update()
        assert self._results is not None
        await self._call("on_finish", self._results, self._results.summary)

    async def _update(self) -> None:
        if not self._is_broken:
            await self._call("on_update", take_snapshot=True)

    async def _call(self, name: str, *args: Any, take_snapshot: bool = False) -> None:
        method: Callable[..., Any] | None = getattr(self._display, name, None)
        if method is None:
            return
        try:
            if take_snapshot:
                args = (self._pipeline.get_dashboard_snapshot(),)
            answer = method(*args)
            if isawaitable(answer):
                await self._finish(name, answer)
        except (Exception, asyncio.CancelledError) as error:
            running = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and running and running.cancelling():
                raise
            self._is_broken = True
            logger.warning(
                "the display failed in %s; the run goes on without it", name, exc_info=error
            )

    async def _finish(self, name: str, answer: Awaitable[Any]) -> None:
        if name != "on_update":
            async with asyncio.timeout(LONGEST_CALL):
                await answer
            return
        # An update may take as long as the run does; it is given up when the run is over.
        update = asyncio.ensure_future(answer)
        try:
            await asyncio.wait([update, self._ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not update.done():
                update.cancel()
                await asyncio.wait([update])
        if not update.cancelled():
            update.result()
