"""How a run waits for a journal in a database: never in the event loop.

It is opened in a thread, while the run begins, and what earlier runs have kept of items is read
there before they are looked up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

from antflow._core.log import warn
from antflow._core.waits import Wait
from antflow.journal.connections import Trouble
from antflow.journal.file import told_as
from antflow.journal.item_keys import ItemKey
from antflow.journal.read_ahead import Fetched, ReadAhead
from antflow.journal.writer import FIRST_PAUSE, LONGEST_PAUSE


class Remote:
    """The journal of one run, in a database.

    Args:
        begins: Opens it, and begins the run; called in a thread.
        goes_on: Given what that returns, in the event loop. It returns what reads the journal.
        pauses: Whether to try again until it can be read.

    Attributes:
        stalled: Why it cannot be read for the moment; "": it can.
    """

    def __init__(
        self, begins: Callable[[], Any], goes_on: Callable[..., Any], pauses: bool
    ) -> None:
        self._goes_on = goes_on
        self._pauses = pauses
        self._thread = ThreadPoolExecutor(1, "antflow-journal-reader")
        self._loop = asyncio.get_running_loop()
        self._opening = self._loop.run_in_executor(self._thread, begins)
        self._reader: ReadAhead | None = None
        self._since = 0.0
        self.stalled: str = ""

    @property
    def behind(self) -> float:
        """Seconds since it could be read last, if it cannot."""
        return monotonic() - self._since if self.stalled else 0.0

    async def opened(self) -> None:
        """Wait until it is open.

        Raises:
            JournalError: It cannot be opened.
        """
        await self._opened()

    async def look_up(self, keys: Sequence[ItemKey]) -> None:
        """Read what is known of items; a look-up that follows at once is answered from that.

        Raises:
            JournalError: It cannot be opened, or read.
        """
        reader = await self._opened()
        reader.use(await self._fetched(reader, keys))

    async def then(self, ends: Callable[[], Wait]) -> None:
        """Wait until it is open, and do something.

        Raises:
            JournalError: It cannot be opened.
        """
        try:
            await self._opened()
        finally:
            self.close()
        if (wait := ends()) is not None:
            await wait

    def close(self) -> None:
        """End the thread, when it has done what it is doing."""
        self._thread.shutdown(wait=False)

    async def _opened(self) -> ReadAhead:
        begun = await asyncio.shield(self._opening)
        if self._reader is not None:
            return self._reader
        reader: ReadAhead = self._goes_on(*begun)
        self._reader = reader
        return reader

    async def _fetched(self, reader: ReadAhead, keys: Sequence[ItemKey]) -> Fetched:
        pause = FIRST_PAUSE
        while True:
            try:
                with told_as(reader.path):
                    try:
                        fetched = await self._loop.run_in_executor(self._thread, reader.fetch, keys)
                    except Trouble as error:
                        if not (self._pauses and error.passes):
                            raise
                        self._stall(error)
                        await asyncio.sleep(pause)
                        pause = min(2 * pause, LONGEST_PAUSE)
                        continue
            except asyncio.CancelledError:
                self.stalled = ""
                raise
            self._go_on()
            return fetched

    def _stall(self, error: Trouble) -> None:
        if not self.stalled:
            warn("the journal cannot be read, and the run waits: %s", error)
            self._since = monotonic()
        self.stalled = str(error)

    def _go_on(self) -> None:
        if self.stalled:
            self.stalled = ""
            warn("the journal can be read again, and the run goes on")
