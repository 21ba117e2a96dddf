"""Decides what follows a failed try, once, and then acts on it.

Listeners must change nothing. So the user's functions that decide, `wait` and those of `hold_on`,
are called once for each failure, and listeners are told exactly what then happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from antflow._core.envelope import UNTRIED, Envelope
from antflow._core.error_kinds import ErrorSet
from antflow._core.errors import (
    Drop,
    ItemCancelled,
    RetryAfter,
    TaskFailedError,
    WorkerLostError,
)
from antflow._core.failures import failed_item
from antflow._core.foreign import is_a, note, set_cause
from antflow._core.groups import consists_of, matches, parts
from antflow._core.hold_times import hold_seconds
from antflow._core.ledger import WorkerBook
from antflow._core.log import hears_info, info
from antflow._core.stage import Stage, retry_policy, task_name, task_title
from antflow._core.text import counted
from antflow._core.tracebacks import named, trimmed
from antflow._core.waits import Wait
from antflow._engine.failure_limits import FailureLimits
from antflow._engine.handover import Handover
from antflow._engine.retry_heap import RetryHeap
from antflow._engine.run import Run
from antflow._engine.user_errors import call_apart, failure_of

Action = Literal["retry", "hold", "fail", "drop"]


class Decision(NamedTuple):
    """How to go on after a failed try.

    Attributes:
        action: The item is tried again after a delay ("retry") or as if it had not been tried, with
            all other tries held back meanwhile ("hold"); or it ends here ("fail", "drop").
        about: The error the try failed with.
        error: The error it counts as: mostly the same; else what `wait` or `hold_on` raised.
        seconds: Until the next try.
    """

    action: Action
    about: Exception
    error: Exception
    seconds: float = 0.0

    @property
    def comes_again(self) -> bool:
        """Whether another try follows."""
        return self.action in ("retry", "hold")


class Judge:
    """Decides for the items of one stage.

    Args:
        stage: The stage.
        run: The run.
        hold: Lets no try begin for this many seconds.
        stop_on: Errors after which the run stops: no other try follows. ``None`` = none.

    Attributes:
        starts_over: Whether the next try begins with the stage's first task.
    """

    def __init__(
        self, stage: Stage, run: Run, hold: Callable[[float], None], stop_on: ErrorSet | None
    ) -> None:
        self._options = stage
        self._run = run
        self._hold = hold
        self._stop_on = stop_on
        self._policy = retry_policy(stage)
        self.starts_over: bool = self._policy.whole_stage

    def decide(self, envelope: Envelope, error: Exception, task: str) -> Decision:
        """Decide what follows a try of ``task`` that failed with ``error``; repeat calls agree.

        A hold begins with this decision, before any listener is told or anything awaited.

        Raises:
            asyncio.CancelledError: The worker is being cancelled.
        """
        earlier: Decision | None = envelope.decision
        if earlier is None or earlier.about is not error:
            earlier = envelope.decision = self._decide(envelope, error, task)
        return earlier

    def is_hopeless(self, error: Exception) -> bool:
        """Whether the run stops at an error, so that trying any item again is of no use."""
        return self._stop_on is not None and self._stop_on.found_in(error) is not None

    def is_last_chance(self, envelope: Envelope) -> bool:
        """Whether an item has failed here and has one more try."""
        return 0 < envelope.attempts == self._policy.attempts - 1

    def _decide(self, envelope: Envelope, error: Exception, task: str) -> Decision:
        if consists_of(error, Drop):
            return Decision("drop", error, error)
        if self.is_hopeless(error):
            return Decision("fail", error, _own(error, task))
        about = error
        holds, most = _holds(envelope), self._options.max_holds
        try:
            seconds = self._held(error)
        except BaseException as fault:  # why: the user's `hold_on`
            error, seconds = _fault(fault, "hold_on", error), None
        if seconds is not None and holds < most:
            envelope.holds = (envelope.position, holds + 1)
            self._hold(seconds)
            return Decision("hold", about, error, seconds)
        error = _own(error, task)
        try:
            delay = self._delay(envelope, error)
        except BaseException as fault:  # why: the user's `wait`
            return Decision("fail", about, _fault(fault, "wait", error))
        if delay is None:
            if seconds is not None:
                asked = f"the service asked to wait again, after {counted(holds, 'hold')}"
                note(error, f"{asked}: max_holds={most} allows no more; raise it, or send less")
            return Decision("fail", about, error)
        return Decision("retry", about, error, delay)

    def _held(self, error: Exception) -> float | None:
        """The longest hold that any part of the error asks for, unless another part gives up."""
        longest: float | None = None
        gives_up = False
        for part in parts(error):
            seconds = self._asked(part)
            if seconds is not None:
                longest = max(longest or 0.0, seconds)
            elif is_a(part, self._policy.give_up):
                gives_up = True
        return None if gives_up else longest

    def _asked(self, error: BaseException) -> float | None:
        """The hold that one error itself asks for, not the errors inside it."""
        if is_a(error, RetryAfter):
            # The attribute may have been set, or be a property of a subclass.
            return hold_seconds(ValueError, "seconds", error.seconds)
        for kind, seconds in self._options.hold_on.items():
            # Ask about a group only the functions for groups, not those for errors.
            is_about = not is_a(error, BaseExceptionGroup) or issubclass(kind, BaseExceptionGroup)
            if is_about and is_a(error, kind):
                answer = call_apart(seconds, error) if callable(seconds) else seconds
                if is_a(answer, RetryAfter):
                    answer = answer.seconds
                return None if answer is None else hold_seconds(ValueError, "hold_on", answer)
        return None

    def _delay(self, envelope: Envelope, error: Exception) -> float | None:
        if matches(error, WorkerLostError):
            return None  # no tries left
        tries = max(envelope.attempts, 1)  # 0: the try that failed had not called a task
        delay: float | None = call_apart(self._policy.next_delay, tries, error)
        if delay is None or self._run.item_timeout is None:
            return delay
        comes_too_late = self._run.timers.unheld() + delay >= envelope.deadline
        return None if comes_too_late else delay


@dataclass(eq=False)
class FailedTries:
    """Acts on the decisions about one stage's items.

    Args:
        stage: The stage.
        judge: Decides.
        handover: The way out of the stage.
        retries: Where items wait for their next try.
        failure_limits: Hear of each item that fails.
    """

    stage: Stage
    judge: Judge
    handover: Handover
    retries: RetryHeap
    failure_limits: FailureLimits

    def __post_init__(self) -> None:
        self._titles = {task_name(task): task_title(task) for task in self.stage.tasks}

    async def after(self, error: BaseException, envelope: Envelope, worker: WorkerBook) -> bool:
        """A try raised something: decide what follows, and act on it.

        Returns:
            Whether the run goes on; otherwise the item was given up.

        Raises:
            asyncio.CancelledError: The run has cancelled the worker; the item was given up.
        """
        handover = self.handover
        failure = handover.failure_in_hand(error, envelope, worker)
        if failure is None:
            return False
        try:
            decision = self.judge.decide(envelope, failure, worker.task or "")
        except asyncio.CancelledError:
            handover.give_up(envelope, worker)
            raise
        except BaseException as interruption:  # why: it ends the run, in order; see `interrupt`
            handover.interrupt(interruption, envelope, worker)
            return False
        envelope.decision = None
        error = trimmed(decision.error)  # one object may fail, or drop, all items
        if decision.action == "drop":
            await self.drop(envelope, worker)
            return True
        if decision.action == "hold":
            await self._wait_untried(envelope, worker, error, decision.seconds)
        elif decision.action == "retry":
            if self.judge.starts_over:
                envelope.task = 0
            await self._try_again(envelope, worker, error, decision.seconds)
        else:
            await self.fail(envelope, worker, error)
        if worker.index in handover.crew.abandoned:
            await handover.crew.outlast_thread(worker)
        return True

    async def drop(self, envelope: Envelope, worker: WorkerBook) -> None:
        """Settle an item that ends here successfully without a result."""
        wait = self.handover.recorder.dropped(envelope, worker, self.handover.now())
        envelope.fate = envelope.fate._replace(ending="dropped")
        await self.handover.tell_and_settle(envelope, worker, None, wait)

    async def fail(self, envelope: Envelope, worker: WorkerBook | None, error: Exception) -> None:
        """Settle an item as failed, in the worker's current task if it has one."""
        if worker is not None and worker.task is not None and envelope.attempts:
            named(error, self._titles.get(worker.task, worker.task))
        wait = self._record_failure(envelope, worker, error)
        callback = self.stage.on_failure
        await self.handover.tell_and_settle(envelope, worker, error, wait, "on_failure", callback)

    def _record_failure(
        self, envelope: Envelope, worker: WorkerBook | None, error: Exception
    ) -> Wait:
        limits, now = self.failure_limits, self.handover.now()
        wait = self.handover.recorder.failed(envelope, worker, error, now, limits.item_failed)
        if hears_info():
            name, tries = self.stage.name, envelope.attempts
            info("%s", failed_item(envelope.id, error, name, tries, envelope.input))
        limits.stop_if_hopeless()
        return wait

    async def _wait_untried(
        self, envelope: Envelope, worker: WorkerBook, error: Exception, seconds: float
    ) -> None:
        """Put an item back to wait, without its worker, as if it had not been tried."""
        run = self.handover.run
        if run.item_timeout is not None:  # then it is late, and the next try says so
            seconds = min(seconds, max(envelope.deadline - run.timers.unheld(), 0.0))
        envelope.attempts -= 1
        await self._try_again(envelope, worker, error, seconds)

    async def _try_again(
        self, envelope: Envelope, worker: WorkerBook, error: Exception, delay: float
    ) -> None:
        if envelope.attempts <= 0:
            envelope.attempts = UNTRIED
        wait = self.handover.recorder.retrying(envelope, worker, error, self.handover.now())
        try:
            if wait is not None:
                await self.handover.tell(worker, wait, envelope)
        finally:
            self.retries.push(envelope, delay)
        if self.retries.is_full:
            await self.handover.crew.wait_for(worker, "retrying", self.retries.room())


def _own(error: Exception, task: str) -> Exception:
    """The failure itself; another run's `ItemCancelled` is not how an item of this run ends."""
    return TaskFailedError(task, error) if is_a(error, ItemCancelled) else error


def _holds(envelope: Envelope) -> int:
    """How often an item was held back in the stage it is in."""
    stage, count = envelope.holds
    return count if stage == envelope.position else 0


def _fault(fault: BaseException, name: str, cause: Exception) -> Exception:
    """The failure of ``hold_on`` or ``wait``, caused by the task's."""
    failure = failure_of(fault, name)
    if failure is fault:  # otherwise it has a cause
        set_cause(failure, cause)
    return failure
