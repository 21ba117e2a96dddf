"""How an item's visit to a stage ends: through, passed by, after a failed try, dropped, given up.

Each way is the same three steps: record it, tell the listeners, put the item where it goes next.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import CoroutineType
from typing import Any

from antflow._core.envelope import Envelope
from antflow._core.foreign import is_a, is_awaitable
from antflow._core.ledger import WorkerBook
from antflow._core.ports import Caller
from antflow._core.stage import Stage
from antflow._core.tracebacks import named, trimmed
from antflow._core.waits import Wait, discard
from antflow._engine.attempt import Answer
from antflow._engine.expansion import Expanded, forgotten_await, is_drop
from antflow._engine.failure import FailedTries
from antflow._engine.handover import Handover
from antflow._engine.user_errors import call_apart


@dataclass(eq=False)
class Endings:
    """The rarer endings of one stage's visits.

    Args:
        stage: The stage.
        handover: The way out of the stage.
        failed_tries: Handles items after a failed try.
    """

    stage: Stage
    handover: Handover
    failed_tries: FailedTries

    def __post_init__(self) -> None:
        self._tell_success: Caller | None = None
        if (callback := self.stage.on_success) is not None:
            self._tell_success = self.handover.caller("on_success", callback)

    def through(
        self, envelope: Envelope, worker: WorkerBook, value: Any, began: float, now: float
    ) -> Wait:
        """Report that an item is through, then pass it on; the books have it already."""
        tell_success, wait = self._tell_success, None
        try:
            if (tell := self.handover.recorder.on_completed) is not None:
                wait = tell(envelope, worker, value, began, now)
            if wait is None and tell_success is not None:
                # Most callbacks have nothing to wait for: that saves a coroutine for each.
                wait = tell_success((envelope, value, value), worker.cancel_requests)
                tell_success = None
        except BaseException:  # what ends the program, or a fault: the books have it as through
            discard(self.handover.put_on(envelope, value))
            raise
        if wait is None:
            return self.handover.put_on(envelope, value)
        if tell_success is None:
            return self.handover.tell_and_put_on(envelope, worker, value, wait)
        return self.move_on(envelope, worker, value, wait)

    def batch_item_through(self, envelope: Envelope, worker: WorkerBook, value: Any) -> Wait:
        """Record that an item of a batch is through, report it, and pass it on."""
        wait = self.handover.recorder.completed(envelope, worker, value, self.handover.now())
        if wait is None and self.stage.on_success is None:
            return self.handover.put_on(envelope, value)
        return self.move_on(envelope, worker, value, wait)

    async def move_on(self, envelope: Envelope, worker: WorkerBook, value: Any, wait: Wait) -> None:
        """Report that an item is through, then pass it on."""
        await self.handover.tell_and_put_on(
            envelope, worker, value, wait, "on_success", self.stage.on_success
        )

    async def passes_by(self, envelope: Envelope, worker: WorkerBook) -> bool:
        """Whether ``skip_if`` took the item off the worker's hands: it passed by, or failed."""
        skip_if, handover = self.stage.skip_if, self.handover
        assert skip_if is not None
        try:
            answer: Any = call_apart(skip_if, envelope.value)
            if is_awaitable(answer):
                answer = await answer
            passes = bool(answer)
            # A cancel request that it left behind must not hit the task.
            await handover.crew.absorb_cancel(worker)
        except BaseException as error:  # why: it ends the run, in order; see `interrupt`
            failure = handover.failure_in_hand(error, envelope, worker, "skip_if")
            if failure is not None:
                await self._fail_in_skip_if(envelope, worker, failure)
            return True
        if passes:
            wait = handover.recorder.skipped(envelope, worker, handover.now())
            await handover.tell_and_put_on(
                envelope, worker, envelope.value, wait, "on_skip", self.stage.on_skip
            )
        return passes

    async def ends_here(self, envelope: Envelope, worker: WorkerBook, answer: Answer) -> bool:
        """Whether an answer of a type in `ENDS_HERE` ended the item's way."""
        if is_a(answer, CoroutineType):
            await self.failed_tries.after(forgotten_await(answer, worker.task), envelope, worker)
        elif is_a(answer, Expanded) or is_drop(answer):
            await self.answered(envelope, worker, answer)
        else:
            return False  # a class, and not `Drop`
        return True

    async def answered(self, envelope: Envelope, worker: WorkerBook, answer: Answer) -> None:
        """A try ended with an answer: a value, `Drop`, `Expanded`, or an exception of a batch."""
        handover = self.handover
        if is_a(answer, Expanded):
            wait = handover.recorder.expanded(envelope, worker, answer.children, handover.now())
            envelope.fate = envelope.fate._replace(ending="expanded")
            if wait is not None:
                await handover.tell_and_settle(envelope, worker, None, wait)
            elif (room := handover.settlement.settle(envelope, None)) is not None:
                await handover.room(worker, room)
        elif is_drop(answer):
            await self.failed_tries.drop(envelope, worker)
        elif self.stage.batch is not None and is_a(answer, Exception):
            await self.failed_tries.after(answer, envelope, worker)
        elif (wait := self.batch_item_through(envelope, worker, answer)) is not None:
            await handover.crew.see_through(worker, wait)

    async def fail_unread(self, envelope: Envelope) -> None:
        """Settle as failed an item that was taken in and could not be read."""
        assert envelope.error is not None
        with self.handover.settlement.delivery():
            await self.failed_tries.fail(envelope, None, envelope.error)

    async def _fail_in_skip_if(
        self, envelope: Envelope, worker: WorkerBook, error: Exception
    ) -> None:
        wait = self.handover.recorder.started(envelope, worker, self.handover.now())
        try:
            if wait is not None:
                await wait
        except asyncio.CancelledError:
            self.handover.give_up(envelope, worker)
            raise
        envelope.attempts = 0  # no task was called
        await self.failed_tries.fail(envelope, worker, named(trimmed(error), "skip_if"))
