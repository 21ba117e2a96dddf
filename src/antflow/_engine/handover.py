"""How an item leaves a worker's hands: listeners are told, then it is put where it goes next.

An item whose step was recorded is always put, even if the worker is cancelled in between.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from antflow._core.cancellation import requests_of
from antflow._core.envelope import Envelope
from antflow._core.errors import ItemCancelled
from antflow._core.foreign import is_a
from antflow._core.ledger import WorkerBook
from antflow._core.ports import Caller, Guard
from antflow._core.stage import StageCallback
from antflow._core.waits import Wait, discard
from antflow._engine.channel import Channel
from antflow._engine.crew import Crew
from antflow._engine.recorder import Recorder
from antflow._engine.run import Run
from antflow._engine.settlement import Settlement
from antflow._engine.supervisor import Supervisor


@dataclass(eq=False)
class Handover:
    """The way out of one stage.

    Args:
        name: The stage's name.
        run: The run.
        supervisor: Ends the run.
        settlement: Where items leave the run.
        recorder: The stage's recorder.
        crew: The stage's workers.
        guard: Calls stage callbacks.
        next_channel: The next stage's channel; ``None`` after the last stage.
        gathering: The stage's own channel, if the stage works in batches. When an item goes on, a
            batch that waits to be filled looks again: perhaps nothing more can come.
    """

    name: str
    run: Run
    supervisor: Supervisor
    settlement: Settlement
    recorder: Recorder
    crew: Crew
    guard: Guard
    next_channel: Channel[Envelope] | None = None
    gathering: Channel[Envelope] | None = None

    def now(self) -> float:
        """The run's time."""
        return self.run.timers.now()

    def put_on(self, envelope: Envelope, value: Any) -> Wait:
        """Put an item whose completion was recorded and reported where it goes next."""
        envelope.value = value
        if self.next_channel is None:
            return self.settlement.settle(envelope, None)
        if self.gathering is not None:
            self.gathering.wake_all()
        envelope.position += 1
        envelope.attempts = 0
        if self.next_channel.put(envelope, envelope.priority):
            return self.next_channel.room()
        return None

    async def tell_and_put_on(
        self,
        envelope: Envelope,
        worker: WorkerBook,
        value: Any,
        wait: Wait,
        name: str = "",
        callback: StageCallback | None = None,
    ) -> None:
        """Wait for the listeners and a callback, then put an item where it goes next."""
        try:
            await self.tell(worker, wait, envelope, name, callback, value, value)
        except BaseException:  # cancelled meanwhile: it was recorded, so it must be put
            discard(self.put_on(envelope, value))
            raise
        await self.room(worker, self.put_on(envelope, value))

    async def tell_and_settle(
        self,
        envelope: Envelope,
        worker: WorkerBook | None,
        error: Exception | None,
        wait: Wait,
        name: str = "",
        callback: StageCallback | None = None,
    ) -> None:
        """Wait for the listeners and a callback, then let an item leave the run."""
        try:
            await self.tell(worker, wait, envelope, name, callback, error, envelope.value)
        except BaseException:
            discard(self.settlement.settle(envelope, error))
            raise
        await self.room(worker, self.settlement.settle(envelope, error))

    async def tell(
        self,
        worker: WorkerBook | None,
        wait: Wait,
        envelope: Envelope,
        name: str = "",
        callback: StageCallback | None = None,
        subject: Any = None,
        value: Any = None,
    ) -> None:
        """Wait for the listeners, then call ``callback(id, subject, payload)``.

        Args:
            worker: The worker that waits; ``None`` where none has the item.
            wait: What is left to await for the listeners.
            envelope: The item.
            name: The callback's name, for the log.
            callback: One of the stage's callbacks.
            subject: Its second argument: a value or an error.
            value: The item's value, for the payload.
        """
        try:
            # A cancel request that the try left behind must not hit the callbacks and listeners.
            # Asked here as well, because most have none: that saves a coroutine for each.
            if worker is not None and requests_of(self.crew.running(worker)):
                await self.crew.absorb_cancel(worker)
        except BaseException:
            discard(wait)
            raise
        with self.settlement.delivery():
            if wait is not None:
                await self.room(worker, wait)
            if callback is not None:
                label = f"callback {name} of stage {self.name}"
                told = self.guard.call(label, _call_back, callback, envelope, subject, value)
                if told is not None:
                    await self.room(worker, told)

    def caller(self, name: str, callback: StageCallback) -> Caller:
        """Calls one of the stage's callbacks, given an item, a value or an error, and a value."""

        def call(told: tuple[Envelope, Any, Any]) -> Any:
            return _call_back(callback, *told)

        return self.guard.caller(f"callback {name} of stage {self.name}", call)

    async def hear_out(self, worker: WorkerBook, wait: Wait) -> None:
        """Wait for the listeners; the run does not end meanwhile."""
        with self.settlement.delivery():
            await self.room(worker, wait)

    async def room(self, worker: WorkerBook | None, room: Wait) -> None:
        """Wait for room, or for whatever else holds the item up behind the worker."""
        if room is None:
            return
        if worker is None:
            await room
        else:
            await self.crew.wait_for(worker, "blocked", room)

    # Stopped

    def failure_in_hand(
        self,
        error: BaseException,
        envelope: Envelope,
        worker: WorkerBook,
        name: str | None = None,
    ) -> Exception | None:
        """The failure that something raised by the user's code amounts to.

        Args:
            error: What was raised.
            envelope: The item in hand.
            worker: The worker that has it.
            name: Name of the code that raised it; ``None`` = the worker's current task.

        Returns:
            ``None`` if it ends the run; the item is given up.

        Raises:
            asyncio.CancelledError: The run has cancelled the worker; the item is given up.
            GeneratorExit: The event loop was closed; this is only an error in cleaning up.
        """
        if self.run.is_left_behind:
            self.give_up(envelope, worker)
            raise GeneratorExit from error
        try:
            return self.crew.failure_of(error, worker, name)
        except asyncio.CancelledError:
            self.give_up(envelope, worker)
            raise
        except BaseException as ending:  # why: it ends the run, in order; see `interrupt`
            self.interrupt(ending, envelope, worker)
            return None

    def interrupt(self, error: BaseException, envelope: Envelope, worker: WorkerBook) -> None:
        """User's code raised `KeyboardInterrupt`, `SystemExit` or their like: end the run with it.

        Raised here it would tear the event loop down in the middle of things; instead
        `Supervisor.wait` raises it when everything is settled. `GeneratorExit` alone cannot wait.
        """
        self.give_up(envelope, worker)
        self.supervisor.fail(error)
        if is_a(error, GeneratorExit):
            raise error

    def give_up(self, envelope: Envelope, worker: WorkerBook | None) -> Wait:
        """Settle as cancelled an item that a worker, or none, has in hand. Never waits.

        Returns:
            What is left to await for the listeners; ``None`` if it was discarded, because the run
            is being cancelled or a worker had the item.
        """
        error = ItemCancelled(f"the run was {self.run.how_stopped} before the item was through")
        wait = self.recorder.cancelled(envelope, worker, error, self.now())
        discard(self.settlement.settle(envelope, error))
        if self.run.is_cancelling or worker is not None:
            discard(wait)
            return None
        return wait


def _call_back(callback: StageCallback, envelope: Envelope, subject: Any, value: Any) -> Any:
    payload = {"id": envelope.id, "value": value, "_sequence_id": envelope.sequence_id}
    if envelope.has_metadata:
        payload |= envelope.metadata
    return callback(envelope.id, subject, payload)
