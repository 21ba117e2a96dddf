"""How an item's visit to a stage ends: through, passed by, after a failed try, dropped, given up.

Each way is the same three steps: record it, let listeners hear of it, put the item where it goes
next.
"""

from __future__ import annotations

import asyncio
from types import CoroutineType
from typing import Any

from antflow._core.envelope import Envelope
from antflow._core.errors import ItemCancelled
from antflow._core.foreign import is_a, is_awaitable
from antflow._core.ledger import WorkerBook
from antflow._core.result import Outcome
from antflow._core.stage import Stage
from antflow._core.waits import Wait, discard
from antflow._engine.attempt import Answer
from antflow._engine.crew import Crew
from antflow._engine.expansion import Expanded, is_drop
from antflow._engine.failure import FailedTries, Judge
from antflow._engine.handover import Handover
from antflow._engine.recorder import Recorder
from antflow._engine.run import Run
from antflow._engine.settlement import Settlement
from antflow._engine.supervisor import Supervisor
from antflow._engine.task_failures import group_failure
from antflow._engine.tracebacks import call_apart, trimmed


class Endings:
    """The endings of one stage's visits.

    Args:
        stage: The stage.
        run: The run.
        supervisor: Ends the run.
        settlement: Where items leave the run.
        recorder: The stage's recorder.
        crew: The stage's workers.
        judge: Decides what follows a failed try.
        handover: The way out of the stage.
        failed_tries: Acts on what was decided.
    """

    def __init__(
        self,
        stage: Stage,
        run: Run,
        supervisor: Supervisor,
        settlement: Settlement,
        recorder: Recorder,
        crew: Crew,
        judge: Judge,
        handover: Handover,
        failed_tries: FailedTries,
    ) -> None:
        self._options = stage
        self._run = run
        self._now = run.timers.now
        self._supervisor = supervisor
        self._settlement = settlement
        self._recorder = recorder
        self._crew = crew
        self._judge = judge
        self._handover = handover
        self._failed_tries = failed_tries

    # Through

    async def move_on(self, envelope: Envelope, worker: WorkerBook, value: Any, wait: Wait) -> None:
        """Tell that an item is through, then put it on."""
        await self._handover.tell_and_put_on(
            envelope, worker, value, wait, "on_success", self._options.on_success
        )

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
            await self._crew.absorb_cancel(worker)
        except BaseException as error:  # why: it ends the run, in order; see `interrupt`
            if (failure := self.failure_in_hand(error, envelope, worker, "skip_if")) is not None:
                await self._fail_in_skip_if(envelope, worker, failure)
            return True
        if passes:
            wait = self._recorder.skipped(envelope, worker, self._now())
            await self._handover.tell_and_put_on(
                envelope, worker, envelope.value, wait, "on_skip", self._options.on_skip
            )
        return passes

    async def ends_here(self, envelope: Envelope, worker: WorkerBook, answer: Answer) -> bool:
        """Whether an answer with a type of `ENDS_HERE` ended the item's way, as it was told."""
        if is_a(answer, CoroutineType):
            answer.close()
            forgotten = TypeError(f"task {worker.task} returned a coroutine: is an await missing?")
            await self.on_failed_try(envelope, worker, forgotten)
        elif is_a(answer, Expanded) or is_drop(answer):
            await self.answered(envelope, worker, answer)
        else:
            return False  # a class, and not `Drop`
        return True

    async def answered(self, envelope: Envelope, worker: WorkerBook, answer: Answer) -> None:
        """A try ended with an answer: a value, `Drop`, `Expanded`, or an exception of a batch."""
        if is_a(answer, Expanded):
            wait = self._recorder.expanded(envelope, worker, answer.children, self._now())
            await self._end(envelope, worker, "expanded", wait)
        elif is_drop(answer):
            await self._drop(envelope, worker)
        elif self._options.batch is not None and is_a(answer, Exception):
            await self.on_failed_try(envelope, worker, answer)
        else:
            wait = self._recorder.completed_in_batch(envelope, worker, answer, self._now())
            await self.move_on(envelope, worker, answer, wait)

    # Not through

    async def on_failed_try(self, envelope: Envelope, worker: WorkerBook, error: Exception) -> None:
        """A try failed: decide what follows, and let it follow."""
        try:
            decision = self._judge.decide(envelope, error, worker.task or "")
        except asyncio.CancelledError:
            self.give_up(envelope, worker)
            raise
        except BaseException as interruption:  # why: it ends the run, in order; see `interrupt`
            self.interrupt(interruption, envelope, worker)
            return
        envelope.decision = None
        if decision.action == "drop":
            await self._drop(envelope, worker)
            return
        await self._failed_tries.act(decision, envelope, worker)
        await self._crew.outlast_thread(worker)

    async def fail_unread(self, envelope: Envelope) -> None:
        """Settle as failed an item that was taken in and could not be read."""
        assert envelope.error is not None
        with self._settlement.delivery():
            await self._failed_tries.fail(envelope, None, envelope.error)

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
        await self._failed_tries.fail(envelope, worker, trimmed(error))

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
            worker: Who has it.
            name: Of the code that raised it; ``None`` = the worker's current task.

        Returns:
            ``None`` if it ends the run; the item is given up.

        Raises:
            asyncio.CancelledError: The run has cancelled the worker; the item is given up.
        """
        if is_a(error, asyncio.CancelledError):
            try:
                return self._crew.failure_of(error, worker, name)
            except asyncio.CancelledError:
                self.give_up(envelope, worker)
                raise
        if is_a(error, Exception):
            return error
        if (grouped := group_failure(error, name or worker.task or "")) is None:
            self.interrupt(error, envelope, worker)
        return grouped

    def interrupt(self, error: BaseException, envelope: Envelope, worker: WorkerBook) -> None:
        """User's code raised `KeyboardInterrupt`, `SystemExit` or their like: end the run with it.

        Raised here it would tear the event loop down in the middle of things; instead it comes out
        of `Supervisor.wait`, when everything is settled. `GeneratorExit` alone cannot wait.
        """
        self.give_up(envelope, worker)
        self._supervisor.fail(error)
        if is_a(error, GeneratorExit):
            raise error

    def give_up(self, envelope: Envelope, worker: WorkerBook | None) -> Wait:
        """Settle as cancelled an item that a worker, or none, has in hand. Never waits.

        Returns:
            The observers' wait, which a run that is being cancelled discards.
        """
        error = ItemCancelled(f"the run was {self._run.how_stopped} before the item was through")
        wait = self._recorder.cancelled(envelope, worker, error, self._now())
        discard(self._settlement.settle(envelope, error))
        if self._run.is_cancelling or worker is not None:
            discard(wait)
            return None
        return wait

    # Inside

    async def _drop(self, envelope: Envelope, worker: WorkerBook) -> None:
        wait = self._recorder.dropped(envelope, worker, self._now())
        await self._end(envelope, worker, "dropped", wait)

    async def _end(
        self, envelope: Envelope, worker: WorkerBook, ending: Outcome, wait: Wait
    ) -> None:
        """Settle an item that ends here, well."""
        envelope.ending = ending
        await self._handover.tell_and_settle(envelope, worker, None, wait)
