"""What follows a failed try: decided once, before anybody is told of it.

Whoever listens must change nothing. So the functions of the user's that have a say, `wait` and
those of `hold_on`, are asked once for each failure, and what is told is what then happens.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from antflow._core.envelope import Envelope
from antflow._core.errors import ItemCancelled, RetryAfter, TaskFailedError, WorkerLostError
from antflow._core.foreign import is_a, set_cause
from antflow._core.groups import matches, parts
from antflow._core.hold_times import hold_seconds
from antflow._core.stage import retry_policy
from antflow._engine.attempt import failure_of
from antflow._engine.tracebacks import call_apart

if TYPE_CHECKING:
    from antflow._engine.stage_run import StageRun


class Verdict(NamedTuple):
    """What follows a failed try.

    Attributes:
        about: What the try failed with.
        error: What that counts as: mostly the same; what `wait` or `hold_on` raised, if they did.
        hold: Seconds for which everyone is held back (`RetryAfter`), the try not counted.
        delay: Seconds until the next try.
    """

    about: Exception
    error: Exception
    hold: float | None = None
    delay: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether the item has failed for good."""
        return self.hold is None and self.delay is None


class Judge:
    """Decides for the items of one stage.

    Args:
        stage: The stage.
    """

    def __init__(self, stage: StageRun) -> None:
        self._stage = stage
        self._run = stage.run
        self._options = stage.description
        self._policy = retry_policy(stage.description)

    def verdict(self, envelope: Envelope, error: Exception, task: str) -> Verdict:
        """What follows a try of ``task`` that failed with ``error``; asked again, the same.

        A hold begins with this decision, before anything is told or awaited.

        Raises:
            asyncio.CancelledError: The worker is being cancelled.
        """
        earlier: Verdict | None = getattr(envelope, "verdict", None)
        if earlier is None or earlier.about is not error:
            earlier = envelope.verdict = self._decide(envelope, error, task)
        return earlier

    def _decide(self, envelope: Envelope, error: Exception, task: str) -> Verdict:
        about = error
        try:
            seconds = self._held(envelope, error)
        except Exception as fault:  # the user's `hold_on`
            set_cause(fault, error)
            error, seconds = fault, None
        except (asyncio.CancelledError, BaseExceptionGroup) as fault:
            error, seconds = failure_of(fault, "hold_on"), None
        if seconds is not None:
            envelope.holds = (envelope.position, _holds(envelope) + 1)
            self._stage.hold(seconds)
            return Verdict(about, error, hold=seconds)
        if is_a(error, ItemCancelled):  # for example of another run: here it is a failure
            error = TaskFailedError(task, error)
        try:
            return Verdict(about, error, delay=self._delay(envelope, error))
        except Exception as fault:  # the user's `wait`
            set_cause(fault, error)
            return Verdict(about, fault)
        except (asyncio.CancelledError, BaseExceptionGroup) as fault:
            return Verdict(about, failure_of(fault, "wait"))

    def _held(self, envelope: Envelope, error: Exception) -> float | None:
        """The longest hold that any part of the error asks for, unless another part gives up."""
        if _holds(envelope) >= self._options.max_holds:
            return None
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
        """The hold that one error asks for, itself and not what is in it."""
        if is_a(error, RetryAfter):
            return error.seconds
        for kind, seconds in self._options.hold_on.items():
            # Ask about a group only the functions for groups, not those for errors.
            is_about = not is_a(error, BaseExceptionGroup) or issubclass(kind, BaseExceptionGroup)
            if is_about and is_a(error, kind):
                answer = call_apart(seconds, error) if callable(seconds) else seconds
                if is_a(answer, RetryAfter):
                    return answer.seconds
                return None if answer is None else hold_seconds(ValueError, "hold_on", answer)
        return None

    def _delay(self, envelope: Envelope, error: Exception) -> float | None:
        if matches(error, WorkerLostError):
            return None  # it has been tried often enough
        delay: float | None = call_apart(self._policy.next_delay, envelope.attempts, error)
        if delay is None or self._run.item_timeout is None:
            return delay
        comes_too_late = self._run.timers.unheld() + delay >= envelope.deadline
        return None if comes_too_late else delay


def _holds(envelope: Envelope) -> int:
    """How often an item was held back in the stage it is in."""
    stage, count = getattr(envelope, "holds", (-1, 0))
    return count if stage == envelope.position else 0
