"""How an item's visit to a stage ends: through, passed by, tried again, failed, dropped, given up.

Each way is the same three steps: record it, let those who listen hear of it, put the item where it
goes next. What was recorded is always put, also when the worker is cancelled between the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from antflow._core.envelope import UNTRIED, Envelope
from antflow._core.errors import Drop, ItemCancelled
from antflow._core.foreign import is_a, is_awaitable
from antflow._core.groups import is_all_drops
from antflow._core.ledger import WorkerBook
from antflow._core.log import warn
from antflow._core.result import Outcome
from antflow._core.stage import StageCallback, retry_policy
from antflow._core.text import clean, cut, error_type_name, safe_repr, safe_str
from antflow._core.waits import Wait, discard
from antflow._engine.attempt import Answer, group_failure
from antflow._engine.expansion import Expanded, is_drop
from antflow._engine.limits.permits import slots_given_back
from antflow._engine.tracebacks import call_apart, trimmed
from antflow._engine.verdicts import Judge, Verdict

if TYPE_CHECKING:
    from antflow._engine.stage_run import StageRun

LONGEST_ERROR = 1000
"""Characters of an error's text in the log; the item's result has all of it."""


class Endings:
    """The endings of one stage's visits.

    Args:
        stage: The stage.
    """

    def __init__(self, stage: StageRun) -> None:
        self._stage = stage
        self._run = stage.run
        self._recorder = stage.recorder
        self._options = stage.description
        self._policy = retry_policy(stage.description)
        self._judge = Judge(stage)
        self._now = stage.run.timers.now

    # Through

    def put_on(self, envelope: Envelope, value: Any) -> Wait:
        """Put an item whose completion was recorded, and told, where it goes next."""
        envelope.value = value
        channel = self._stage.next_channel
        if channel is None:
            return self._run.settle(envelope, None)
        if self._stage.batches is not None:
            self._stage.channel.wake_all()  # whose batch waits to be filled waits for one less
        envelope.position += 1
        envelope.attempts = 0
        return channel.room() if channel.put(envelope, envelope.priority) else None

    async def move_on(self, envelope: Envelope, worker: WorkerBook, value: Any, wait: Wait) -> None:
        """Tell that an item is through, then put it on."""
        await self._move_on(envelope, worker, value, wait, "on_success", self._options.on_success)

    async def passes_by(self, envelope: Envelope, worker: WorkerBook) -> bool:
        """Whether ``skip_if`` took the item off the worker's hands: it passed by, or failed."""
        skip_if = self._options.skip_if
        assert skip_if is not None
        try:
            answer: Any = call_apart(skip_if, envelope.value)
            if is_awaitable(answer):
                answer = await answer
            passes = bool(answer)
            # A request to cancel that it has left must not hit the task.
            await self._stage.absorb_cancel(worker)
        except Exception as error:
            await self._fail_in_skip_if(envelope, worker, error)
            return True
        except asyncio.CancelledError as error:
            failure = self.own_failure(error, envelope, worker, "skip_if")
            await self._fail_in_skip_if(envelope, worker, failure)
            return True
        except BaseException as error:  # why: it ends the run, in order; see `interrupt`
            if (grouped := group_failure(error, "skip_if")) is None:
                self.interrupt(error, envelope, worker)
            else:
                await self._fail_in_skip_if(envelope, worker, grouped)
            return True
        if passes:
            wait = self._recorder.skipped(envelope, worker, self._now())
            callback = self._options.on_skip
            await self._move_on(envelope, worker, envelope.value, wait, "on_skip", callback)
            await self._give_way(worker)
        return passes

    async def ends_here(self, envelope: Envelope, worker: WorkerBook, answer: Answer) -> bool:
        """Whether an answer with a type of `ENDS_HERE` ended the item's way, as it was told."""
        if is_a(answer, CoroutineType):
            answer.close()
            forgotten = TypeError(f"task {worker.task} returned a coroutine: is an await missing?")
            await self.tried_in_vain(envelope, worker, forgotten)
        elif is_a(answer, Expanded) or is_drop(answer):
            await self.answered(envelope, worker, answer)
        else:
            return False  # a class, and not `Drop`
        await self._give_way(worker)
        return True

    async def answered(self, envelope: Envelope, worker: WorkerBook, answer: Answer) -> None:
        """A try ended with an answer: a value, `Drop`, `Expanded`, or an exception of a batch."""
        if is_a(answer, Expanded):
            wait = self._recorder.expanded(envelope, worker, answer.children, self._now())
            await self._end(envelope, worker, "expanded", wait)
        elif is_drop(answer):
            wait = self._recorder.dropped(envelope, worker, self._now())
            await self._end(envelope, worker, "dropped", wait)
        elif self._options.batch is not None and is_a(answer, Exception):
            await self.tried_in_vain(envelope, worker, answer)
        else:
            wait = self._recorder.completed_in_batch(envelope, worker, answer, self._now())
            await self.move_on(envelope, worker, answer, wait)

    async def emit(self, parent: Envelope, worker: WorkerBook, value: Any, number: int) -> None:
        """Let an item that was made from another go on to the next stage, waiting for room there.

        Args:
            parent: What it was made from.
            worker: Who made it.
            value: Its value.
            number: Which one it is of those made from the parent, from 0.
        """
        child = Envelope(
            parent.sequence_id,
            self._run.intake.free_id(f"{safe_str(parent.id)}/{number}"),
            value,
            dict(parent.metadata),
            parent.input,
            parent.priority,
            parent.position,
            (*parent.branch, number),
        )
        if self._run.item_timeout is not None:
            child.deadline = parent.deadline
        if self._run.reorder is not None:
            self._run.reorder.expect(child)
        wait = self._recorder.emitted(child, worker, value, self._now())
        try:
            await self._hear_out(worker, wait)
        except BaseException:
            discard(self.put_on(child, value))
            raise
        if (room := self.put_on(child, value)) is not None:
            async with slots_given_back():  # the try goes on, and may have some
                await self._room(worker, room)

    # Not through

    async def tried_in_vain(self, envelope: Envelope, worker: WorkerBook, error: Exception) -> None:
        """A try failed: have the item wait for the next one, or settle it as dropped or failed."""
        if is_all_drops(error):
            trimmed(error)  # one object may drop all items
            await self.answered(envelope, worker, Drop)
            return
        verdict = self._judged(envelope, worker, error)
        if verdict is None:
            return
        envelope.verdict = None
        error = trimmed(verdict.error)
        if verdict.hold is not None:
            await self._wait_untried(envelope, worker, error, verdict.hold)
        elif verdict.delay is not None:
            if self._policy.whole_stage:
                envelope.task = 0
            await self._try_again(envelope, worker, error, verdict.delay)
        else:
            await self._fail(envelope, worker, error)
        await self.outlast_thread(worker)

    async def outlast_thread(self, worker: WorkerBook) -> None:
        """Wait for a worker's thread that goes on although the time of its task is over."""
        if (thread := self._stage.abandoned.get(worker.index)) is not None:
            await self._wait_for(worker, "thread", asyncio.wait([thread]))
            self._stage.abandoned.pop(worker.index, None)

    def will_try_again(self, envelope: Envelope, error: Exception, task: str) -> bool:
        """Whether a failed try of an item is going to be followed by another."""
        return not self._judge.verdict(envelope, error, task).is_final

    def is_last_chance(self, envelope: Envelope) -> bool:
        """Whether an item has failed here and has one more try."""
        return 0 < envelope.attempts == self._policy.attempts - 1

    def _judged(self, envelope: Envelope, worker: WorkerBook, error: Exception) -> Verdict | None:
        """What follows; ``None`` where a function of the user's that was asked ended the run."""
        try:
            return self._judge.verdict(envelope, error, worker.task or "")
        except asyncio.CancelledError:
            self.give_up(envelope, worker)
            raise
        except BaseException as interruption:  # why: it ends the run, in order; see `interrupt`
            self.interrupt(interruption, envelope, worker)
            return None

    async def _wait_untried(
        self, envelope: Envelope, worker: WorkerBook, error: Exception, seconds: float
    ) -> None:
        """Let an item wait, without its worker, as if it had not been tried."""
        if self._run.item_timeout is not None:  # then it is late, and the next try says so
            seconds = min(seconds, max(envelope.deadline - self._run.timers.unheld(), 0.0))
        envelope.attempts = envelope.attempts - 1 or UNTRIED
        await self._try_again(envelope, worker, error, seconds)

    async def _try_again(
        self, envelope: Envelope, worker: WorkerBook, error: Exception, delay: float
    ) -> None:
        wait = self._recorder.retrying(envelope, worker, error, self._now())
        retries = self._stage.retries
        try:
            if wait is not None:
                await self._tell(worker, wait, "", None, envelope, None, None)
        finally:
            retries.push(envelope, delay)
        if retries.is_full:
            await self._wait_for(worker, "retries", retries.room())

    async def fail_unread(self, envelope: Envelope) -> None:
        """Settle as failed an item that was taken in and could not be read."""
        error = envelope.error
        assert error is not None
        with self._run.delivery():
            wait = self._record_failure(envelope, None, error)
            room = self._run.settle(envelope, error)
            try:
                callback = self._options.on_failure
                await self._tell(
                    None, wait, "on_failure", callback, envelope, error, envelope.value
                )
            except BaseException:
                discard(room)
                raise
            await self._room(None, room)

    def _record_failure(
        self, envelope: Envelope, worker: WorkerBook | None, error: Exception
    ) -> Wait:
        wait = self._recorder.failed(envelope, worker, error, self._now())
        warn(
            "item %s failed in stage %s after %d %s: %s: %s",
            clean(safe_repr(envelope.id)),
            clean(self._stage.name),
            envelope.attempts,
            "attempt" if envelope.attempts == 1 else "attempts",
            error_type_name(error),
            clean(cut(safe_str(error), LONGEST_ERROR)),
        )
        return wait

    async def _fail(self, envelope: Envelope, worker: WorkerBook, error: Exception) -> None:
        wait = self._record_failure(envelope, worker, error)
        try:
            callback = self._options.on_failure
            await self._tell(worker, wait, "on_failure", callback, envelope, error, envelope.value)
        except BaseException:
            discard(self._run.settle(envelope, error))
            raise
        await self._room(worker, self._run.settle(envelope, error))

    async def _fail_in_skip_if(
        self, envelope: Envelope, worker: WorkerBook, error: Exception
    ) -> None:
        wait = self._recorder.started_in_batch(envelope, worker, self._now())
        try:
            if wait is not None:
                await wait
        except asyncio.CancelledError:
            self.give_up(envelope, worker)
            raise
        await self._fail(envelope, worker, trimmed(error))

    # Stopped

    def own_failure(
        self,
        error: asyncio.CancelledError,
        envelope: Envelope,
        worker: WorkerBook,
        name: str | None = None,
    ) -> Exception:
        """The failure that a ``CancelledError`` of the user's code amounts to.

        Raises:
            asyncio.CancelledError: It is not theirs, the run has cancelled the worker; the item is
                given up.
        """
        try:
            return self._stage.failure_of(error, worker, name)
        except asyncio.CancelledError:
            self.give_up(envelope, worker)
            raise

    def interrupt(self, error: BaseException, envelope: Envelope, worker: WorkerBook) -> None:
        """User's code raised `KeyboardInterrupt`, `SystemExit` or their like: end the run with it.

        Raised here it would tear the event loop down in the middle of things; instead it comes out
        of `Run.wait`, when everything is settled. `GeneratorExit` alone cannot wait.
        """
        self.give_up(envelope, worker)
        self._run.fail(error)
        if is_a(error, GeneratorExit):
            raise error

    def give_up(self, envelope: Envelope, worker: WorkerBook | None) -> Wait:
        """Settle as cancelled an item that a worker, or nobody, has in hand. Never waits.

        Returns:
            The observers' wait, which a run that is being cancelled discards.
        """
        error = ItemCancelled(f"the run was {self._run.how_stopped} before the item was through")
        wait = self._recorder.cancelled(envelope, worker, error, self._now())
        discard(self._run.settle(envelope, error))
        if self._run.is_cancelling or worker is not None:
            discard(wait)
            return None
        return wait

    # Inside

    async def _move_on(
        self,
        envelope: Envelope,
        worker: WorkerBook,
        value: Any,
        wait: Wait,
        name: str,
        callback: StageCallback | None,
    ) -> None:
        try:
            await self._tell(worker, wait, name, callback, envelope, value, value)
        except BaseException:  # cancelled meanwhile: it was recorded, so it must be put
            discard(self.put_on(envelope, value))
            raise
        await self._room(worker, self.put_on(envelope, value))

    async def _end(
        self, envelope: Envelope, worker: WorkerBook, ending: Outcome, wait: Wait
    ) -> None:
        """Settle an item that ends here, well."""
        envelope.ending = ending
        try:
            await self._tell(worker, wait, "", None, envelope, None, None)
        except BaseException:
            discard(self._run.settle(envelope, None))
            raise
        await self._room(worker, self._run.settle(envelope, None))

    async def _give_way(self, worker: WorkerBook) -> None:
        if self._now() >= self._run.turn_ends:
            await self._stage.give_way(worker)

    async def _room(self, worker: WorkerBook | None, room: Wait) -> None:
        if room is None:
            return
        if worker is None:
            await room
        else:
            await self._wait_for(worker, "room", room)

    async def _wait_for(self, worker: WorkerBook, reason: Any, wait: Awaitable[Any]) -> None:
        worker.wait_begins(reason, self._now())
        try:
            await wait
        finally:
            worker.wait_ends(self._now())

    async def _hear_out(self, worker: WorkerBook | None, wait: Wait) -> None:
        """Wait for the observers; the run does not end meanwhile."""
        with self._run.delivery():
            await self._room(worker, wait)

    async def _tell(
        self,
        worker: WorkerBook | None,
        wait: Wait,
        name: str,
        callback: StageCallback | None,
        envelope: Envelope,
        subject: Any,
        value: Any,
    ) -> None:
        """Wait for the observers, then call ``callback(id, subject, payload)``."""
        try:
            # A cancel request that the try left behind must not hit the callbacks and observers.
            if worker is not None:
                await self._stage.absorb_cancel(worker)
        except BaseException:
            discard(wait)
            raise
        with self._run.delivery():
            await self._room(worker, wait)
            if callback is not None:
                label = f"{name} of stage {self._stage.name}"
                told = self._run.guard.call(label, _call_back, callback, envelope, subject, value)
                await self._room(worker, told)


def _call_back(callback: StageCallback, envelope: Envelope, subject: Any, value: Any) -> Any:
    own = {"id": envelope.id, "value": value, "_sequence_id": envelope.sequence_id}
    return callback(envelope.id, subject, {**own, **envelope.metadata})
