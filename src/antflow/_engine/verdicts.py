"""What follows a failed try: decided once, before anybody is told of it.

Whoever listens must change nothing. So the functions of the user's that have a say, `wait` and
those of `hold_on`, are asked once for each failure, and what is told is what then happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from antflow._core.checks import check_seconds
from antflow._core.envelope import Envelope
from antflow._core.errors import ItemCancelled, RetryAfter, TaskFailedError, WorkerLostError
from antflow._core.foreign import is_a, number, set_cause
from antflow._core.stage import retry_policy
from antflow._engine.attempt import own_failure
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
        self._run = stage.run
        self._options = stage.description
        self._policy = retry_policy(stage.description)

    def verdict(self, envelope: Envelope, error: Exception, task: str) -> Verdict:
        """What follows a try of ``task`` that failed with ``error``; asked again, the same.

        Raises:
            asyncio.CancelledError: The worker is being cancelled.
        """
        earlier: Verdict | None = getattr(envelope, "verdict", None)
        if earlier is None or earlier.about is not error:
            earlier = envelope.verdict = self._decide(envelope, error, task)
        return earlier

    def hold(self, envelopes: Sequence[Envelope], seconds: float) -> None:
        """Hold everyone back who shares a limit, and count it for these items."""
        for envelope in envelopes:
            envelope.holds = (envelope.position, _holds(envelope) + 1)
            envelope.verdict = None
        for limit in self._options.limits:
            limit.hold(seconds)

    def _decide(self, envelope: Envelope, error: Exception, task: str) -> Verdict:
        about = error
        try:
            seconds = self._held(envelope, error)
        except Exception as fault:  # the user's `hold_on`
            set_cause(fault, error)
            error, seconds = fault, None
        except asyncio.CancelledError as fault:
            error, seconds = own_failure(fault, "hold_on"), None
        if seconds is not None:
            return Verdict(about, error, hold=seconds)
        if is_a(error, ItemCancelled):  # of another run, say: here it is a failure
            error = TaskFailedError(task, error)
        try:
            return Verdict(about, error, delay=self._delay(envelope, error))
        except Exception as fault:  # the user's `wait`
            set_cause(fault, error)
            return Verdict(about, fault)
        except asyncio.CancelledError as fault:
            return Verdict(about, own_failure(fault, "wait"))

    def _held(self, envelope: Envelope, error: Exception) -> float | None:
        if _holds(envelope) >= self._options.max_holds:
            return None
        if is_a(error, RetryAfter):
            return error.seconds
        for kind, seconds in self._options.hold_on.items():
            if is_a(error, kind):
                if not callable(seconds):
                    return seconds
                answer: float | None = call_apart(seconds, error)
                if answer is None:
                    return None
                check_seconds(ValueError, "hold_on", answer)
                return number(answer)
        return None

    def _delay(self, envelope: Envelope, error: Exception) -> float | None:
        if is_a(error, WorkerLostError):
            return None  # it has been tried often enough
        delay: float | None = call_apart(self._policy.next_delay, envelope.attempts, error)
        if delay is None or self._run.item_timeout is None:
            return delay
        comes_too_late = self._run.timers.now() + delay >= envelope.deadline
        return None if comes_too_late else delay


def _holds(envelope: Envelope) -> int:
    """How often an item was held back in the stage it is in."""
    stage, count = getattr(envelope, "holds", (-1, 0))
    return count if stage == envelope.position else 0
