"""How items enter a run: recorded, told, and put into a stage's channel, in this order.

What was recorded is always put, also when the code that waits in between is cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from antflow._core.envelope import Envelope
from antflow._core.errors import PipelineError
from antflow._core.ports import Store
from antflow._core.waits import Wait, discard
from antflow._engine.channel import Channel
from antflow._engine.recorder import Recorder
from antflow._engine.run import Run, current_run
from antflow._engine.settlement import Settlement
from antflow._engine.supervisor import Supervisor


class Entered(Protocol):
    """A stage, for items that enter it from outside."""

    @property
    def channel(self) -> Channel[Envelope]:
        """Where its items wait."""
        ...

    @property
    def recorder(self) -> Recorder:
        """Its recorder."""
        ...

    async def fail_unread(self, envelope: Envelope) -> None:
        """Settle as failed an item that could not be read."""
        ...


class Entrance:
    """The way into the stages of one run.

    Args:
        run: The run.
        supervisor: Hears of what breaks.
        settlement: Keeps the run from ending while observers are told.
        store: Keeps the items before they enter, or ``None``.

    Attributes:
        stages: The stages, once they are made.
    """

    def __init__(
        self, run: Run, supervisor: Supervisor, settlement: Settlement, store: Store | None
    ) -> None:
        self._run = run
        self._supervisor = supervisor
        self._settlement = settlement
        self._store = store
        self.stages: Sequence[Entered] = ()
        self._announced: dict[int, Sequence[Envelope]] = {}
        self._unread: deque[Envelope] = deque()
        self._failing: asyncio.Task[None] | None = None
        self._is_sealed = False

    async def admit(self, envelopes: Sequence[Envelope], stage: int) -> None:
        """Let items enter.

        Raises:
            PipelineError: The store could not keep them, or the run has ended meanwhile.
            Exception: A fault of the library; the run ends with it.
        """
        if not envelopes:
            return
        outside = current_run.set(self._run)  # what is called meanwhile is inside this run
        try:
            if (wait := self.begin_to_admit(envelopes, stage)) is not None:
                await wait
        except PipelineError:
            raise
        except Exception as error:
            self._supervisor.crash(error)  # it is not the source that failed
            raise
        finally:
            current_run.reset(outside)

    def begin_to_admit(self, envelopes: Sequence[Envelope], stage: int) -> Wait:
        """Record items and put them into their stage's channel.

        Returns:
            ``None`` if they are in, else what must be awaited until they are.
        """
        if self._store is not None:
            return self._admit_slowly(self._store, envelopes, stage)
        wait = self._record(envelopes, stage)
        if wait is None:
            return self._until_unread_have_failed() if self._unread else None
        return self._put_after(wait, envelopes, stage)

    def seal(self) -> list[Envelope]:
        """Let nothing enter any more, not even what waits to be admitted; for the end of a run.

        Returns:
            The items that were recorded and not put yet, for the run to settle.
        """
        self._is_sealed = True
        envelopes = [envelope for batch in self._announced.values() for envelope in batch]
        envelopes += self._unread
        self._announced.clear()
        self._unread.clear()
        return envelopes

    async def _admit_slowly(self, store: Store, envelopes: Sequence[Envelope], stage: int) -> None:
        try:
            if (wait := store.admit(envelopes)) is not None:
                await wait
        except asyncio.CancelledError:
            # They left the source, and perhaps are in the store: they must have an outcome.
            if not self._is_sealed and (wait := self._record(envelopes, stage)) is not None:
                discard(wait)
                self._put(envelopes, stage)
            raise
        except Exception as error:
            self._supervisor.stop_intake(error)
            raise PipelineError("the store could not keep the items") from error
        if self._is_sealed:
            raise PipelineError("the run ended before the items were admitted")
        if (wait := self._record(envelopes, stage)) is not None:
            await self._put_after(wait, envelopes, stage)
        await self._until_unread_have_failed()

    def _record(self, envelopes: Sequence[Envelope], stage: int) -> Wait:
        """Record items and, unless an observer is waited for, put them."""
        try:
            wait = self.stages[stage].recorder.admitted(envelopes, self._run.timers.now())
        except BaseException:  # a callback raised KeyboardInterrupt or its like
            self._put(envelopes, stage)
            raise
        if wait is None:
            self._put(envelopes, stage)
        return wait

    async def _put_after(self, wait: Wait, envelopes: Sequence[Envelope], stage: int) -> None:
        key = envelopes[0].sequence_id
        self._announced[key] = envelopes
        try:
            with self._settlement.delivery():
                if wait is not None:
                    await wait
        finally:  # also when cancelled meanwhile: they were recorded, so they must be put
            if self._announced.pop(key, None) is not None:
                self._put(envelopes, stage)
        await self._until_unread_have_failed()

    def _put(self, envelopes: Sequence[Envelope], stage: int) -> None:
        channel = self.stages[stage].channel
        for envelope in envelopes:
            if envelope.error is None:
                channel.put(envelope, envelope.priority)
            else:
                self._unread.append(envelope)
        if self._unread and (self._failing is None or self._failing.done()):
            # In a task of its own: the feeder may be gone before all of them are told.
            self._failing = self._supervisor.spawn(self._fail_unread(), "unread items")

    async def _fail_unread(self) -> None:
        while self._unread:
            envelope = self._unread.popleft()
            await self.stages[envelope.position].fail_unread(envelope)

    async def _until_unread_have_failed(self) -> None:
        failing = self._failing
        if failing is not None and failing is not asyncio.current_task():
            await asyncio.wait([failing])
