"""One stage of one run: its channel, workers and waiting retries, and an item's rarer turns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from antflow._core.envelope import Envelope
from antflow._core.errors import ItemCancelled, TaskFailedError
from antflow._core.ledger import WorkerBook
from antflow._core.ports import Wait
from antflow._core.readings import StageGauge
from antflow._core.stage import (
    DEFAULT_CAPACITY_PER_WORKER,
    Stage,
    StageCallback,
    capacity,
    retry_policy,
)
from antflow._core.text import clean, error_type_name, safe_repr
from antflow._engine.attempt import Attempt, Call, own_failure
from antflow._engine.channel import Channel
from antflow._engine.current import current_seat
from antflow._engine.recorder import Recorder, discard
from antflow._engine.retries import RetryHeap
from antflow._engine.worker import work

if TYPE_CHECKING:
    from antflow._engine.run import Run

logger = logging.getLogger("antflow")


class StageRun:
    """The machinery of one stage.

    Args:
        run: The run it belongs to.
        index: The stage's index.
        description: The stage as the user described it.
        recorder: The stage's recorder.
    """

    def __init__(self, run: Run, index: int, description: Stage, recorder: Recorder) -> None:
        self.run = run
        self.index = index
        self.name = description.name
        self.description = description
        self.recorder = recorder
        self.next_channel: Channel[Envelope] | None = None
        self.worker_count = description.workers
        self._alive: set[int] = set()
        self._vacant = list(reversed(range(description.workers)))
        self._policy = retry_policy(description)
        self.channel: Channel[Envelope] = Channel(
            capacity(description), recruit=self._recruit, has_more=run.intake_is_hungry(index)
        )
        self.take: Callable[[], Envelope | None] = self.channel.take
        self.retries = RetryHeap(
            self.channel,
            run.timers,
            capacity(description) or description.workers * DEFAULT_CAPACITY_PER_WORKER,
        )
        self._attempt = Attempt(description, recorder, run.timers.now, run.in_thread, run.crash)
        self.attempt = self._attempt.run
        self.direct: Call | None = None
        self.rewire()

    def rewire(self) -> None:
        """Find out again who listens."""
        self.recorder.rewire()
        self.direct = self._attempt.direct

    # Workers

    def set_worker_count(self, count: int) -> None:
        """Have ``count`` workers. New ones start when there is work; the last ones leave first."""
        self.worker_count = count
        self._vacant = [index for index in reversed(range(count)) if index not in self._alive]
        self.channel.wake_all()  # those who are to leave are among them
        self.channel.ring()

    def gauge(self) -> StageGauge:
        """What the books of the stage do not know."""
        return StageGauge(self.worker_count, self.channel.capacity, self.channel.blocked)

    def _recruit(self) -> bool:
        if not self._vacant:
            return False
        index = self._vacant.pop()
        self._alive.add(index)
        worker = self.run.ledger.stages[self.index].worker(index)
        worker.task = self._attempt.names[0]
        self.run.spawn(self._serve(worker), f"{self.name}-W{index}")
        return True

    async def _serve(self, worker: WorkerBook) -> None:
        current_seat.set((self, worker))
        try:
            await work(self, worker)
        finally:
            self._alive.discard(worker.index)
            if worker.index < self.worker_count:
                self._vacant.append(worker.index)

    async def receive(self, worker: WorkerBook) -> Envelope | None:
        """The next item for a worker that found none, or ``None`` when it is to leave."""
        while not self.channel.is_closed and worker.index < self.worker_count:
            if (envelope := self.channel.take()) is not None:
                return envelope
            if self.index == 0 and self.run.intake.is_hungry:
                await self.run.intake.pull()
            else:
                await self.channel.wait()
        return None

    # An item that is through

    def put_on(self, envelope: Envelope, value: Any) -> Wait:
        """Put an item whose completion was recorded, and told, where it goes next."""
        envelope.value = value
        channel = self.next_channel
        if channel is None:
            return self.run.settle(envelope, None)
        envelope.position += 1
        envelope.attempts = 0
        return channel.room() if channel.put(envelope, envelope.priority) else None

    async def move_on(self, envelope: Envelope, value: Any, wait: Wait) -> None:
        """Tell that an item is through, then put it on."""
        await self._move_on(envelope, value, wait, "on_success", self.description.on_success)

    async def _move_on(
        self, envelope: Envelope, value: Any, wait: Wait, name: str, callback: StageCallback | None
    ) -> None:
        try:
            await self._tell(wait, name, callback, envelope, value, value)
        except BaseException:  # cancelled meanwhile: it was recorded, so it must be put
            discard(self.put_on(envelope, value))
            raise
        if (following := self.put_on(envelope, value)) is not None:
            await following

    async def passes_by(self, envelope: Envelope, worker: WorkerBook) -> bool:
        """Whether ``skip_if`` took the item off the worker's hands: it passed by, or failed."""
        skip_if = self.description.skip_if
        assert skip_if is not None
        try:
            answer: Any = skip_if(envelope.value)
            if isawaitable(answer):
                answer = await answer
            passes = bool(answer)
        except Exception as error:
            await self._fail_in_skip_if(envelope, worker, error)
            return True
        except asyncio.CancelledError as error:
            failure = self.own_failure(error, envelope, worker, "skip_if")
            await self._fail_in_skip_if(envelope, worker, failure)
            return True
        except BaseException as error:  # why: it ends the run, in order; see `interrupt`
            self.interrupt(error, envelope, worker)
            return True
        if passes:
            wait = self.recorder.skipped(envelope, worker, self.run.timers.now())
            await self._move_on(envelope, envelope.value, wait, "on_skip", self.description.on_skip)
        return passes

    async def _fail_in_skip_if(
        self, envelope: Envelope, worker: WorkerBook, error: Exception
    ) -> None:
        wait = self.recorder.started(envelope, worker, self.run.timers.now())
        try:
            if wait is not None:
                await wait
        except asyncio.CancelledError:
            self.give_up(envelope, worker)
            raise
        await self._fail(envelope, worker, _trimmed(error))

    # An item that is not

    async def tried_in_vain(self, envelope: Envelope, worker: WorkerBook, error: Exception) -> None:
        """A try failed: have the item wait for the next one, or settle it as failed."""
        error = _trimmed(error)
        if isinstance(error, ItemCancelled):  # of another run, say: here it is a failure
            error = TaskFailedError(worker.task or "", error)
        delay = self._policy.next_delay(envelope.attempts)
        if delay is None:
            await self._fail(envelope, worker, error)
            return
        if self._policy.whole_stage:
            envelope.task = 0
        wait = self.recorder.retrying(envelope, worker, error, self.run.timers.now())
        try:
            if wait is not None:
                await self._tell(wait, "", None, envelope, None, None)
        finally:
            self.retries.push(envelope, delay)
        if self.retries.is_full:
            await self.retries.room()

    async def _fail(self, envelope: Envelope, worker: WorkerBook, error: Exception) -> None:
        wait = self.recorder.failed(envelope, worker, error, self.run.timers.now())
        logger.warning(
            "item %s failed in stage %s after %d attempts: %s: %s",
            clean(safe_repr(envelope.id)),
            clean(self.name),
            envelope.attempts,
            error_type_name(error),
            clean(error),
        )
        try:
            callback = self.description.on_failure
            await self._tell(wait, "on_failure", callback, envelope, error, envelope.value)
        except BaseException:
            discard(self.run.settle(envelope, error))
            raise
        if (following := self.run.settle(envelope, error)) is not None:
            await following

    def own_failure(
        self,
        error: asyncio.CancelledError,
        envelope: Envelope,
        worker: WorkerBook,
        name: str | None = None,
    ) -> TaskFailedError:
        """The failure that a ``CancelledError`` of the user's code amounts to.

        Raises:
            asyncio.CancelledError: It is not theirs, the worker is cancelled; the item is given up.
        """
        try:
            return own_failure(error, name or worker.task or "")
        except asyncio.CancelledError:
            self.give_up(envelope, worker)
            raise

    def interrupt(self, error: BaseException, envelope: Envelope, worker: WorkerBook) -> None:
        """User's code raised `KeyboardInterrupt`, `SystemExit` or their like: end the run with it.

        Raised here it would tear the event loop down in the middle of things; instead it comes out
        of `Run.wait`, when everything is settled. `GeneratorExit` alone cannot wait.
        """
        self.give_up(envelope, worker)
        self.run.fail(error)
        if isinstance(error, GeneratorExit):
            raise error

    def give_up(self, envelope: Envelope, worker: WorkerBook | None) -> Wait:
        """Settle as cancelled an item that a worker, or nobody, has in hand. Never waits.

        Returns:
            The observers' wait, which a run that is being cancelled discards.
        """
        error = ItemCancelled(f"the run was {self.run.how_stopped} before the item was through")
        wait = self.recorder.cancelled(envelope, worker, error, self.run.timers.now())
        discard(self.run.settle(envelope, error))
        if self.run.is_cancelling or worker is not None:
            discard(wait)
            return None
        return wait

    def settle_all(self) -> list[Awaitable[None]]:
        """Settle as cancelled everything that waits here.

        Returns:
            The observers' waits.
        """
        envelopes = self.channel.drain() + self.retries.drain()
        waits = [self.give_up(envelope, None) for envelope in envelopes]
        return [wait for wait in waits if wait is not None]

    async def _tell(
        self,
        wait: Wait,
        name: str,
        callback: StageCallback | None,
        envelope: Envelope,
        subject: Any,
        value: Any,
    ) -> None:
        """Wait for the observers, then call ``callback(id, subject, payload)``."""
        with self.run.delivery():
            if wait is not None:
                await wait
            if callback is not None:
                payload = {
                    "id": envelope.id,
                    "value": value,
                    "_sequence_id": envelope.sequence_id,
                    **envelope.metadata,
                }
                label = f"{name} of stage {self.name}"
                told = self.run.guard.call(label, callback, envelope.id, subject, payload)
                if told is not None:
                    await told


def _trimmed(error: Exception) -> Exception:
    """Cut the engine's own frames off a traceback: they would keep the whole run alive."""
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__", "").startswith(
        "antflow._engine"
    ):
        traceback = traceback.tb_next
    error.with_traceback(traceback)
    return error
