"""The limits and holds of one stage's tries in one run."""

from __future__ import annotations

from collections.abc import Callable

from antflow._core.inside import LimitLevel
from antflow._core.limit import Limit
from antflow._core.stage import Stage
from antflow._engine.limits.permits import Admission


class StageLimits:
    """The limits on a whole try, and those on its single tasks.

    Args:
        stage: The stage.
        now: The run's clock.

    Attributes:
        admission: The limits of a whole try; ``None`` while there are none.
        on_first_hold: Called when a stage without limits gets one, at its first hold.
        holds: How often it was told to hold.

    Raises:
        PipelineError: One of the limits is in use by another event loop.
    """

    def __init__(self, stage: Stage, now: Callable[[], float]) -> None:
        self._now = now
        self._gates: list[Admission] = []
        self.admission: Admission | None = None
        self.on_first_hold: Callable[[], None] = lambda: None
        self.holds: int = 0
        self._held = 0.0
        self._held_until = 0.0
        if stage.limits:
            self.admission = Admission(stage.limits, now)

    def gate(self, most: int) -> Admission:
        """A separate limit for one task: this many at once (``task_concurrency_limits``)."""
        gate = Admission([Limit(most)], self._now)
        self._gates.append(gate)
        return gate

    def hold(self, seconds: float) -> None:
        """Keep tries from beginning for this many seconds, in all stages that share the limits.

        A stage without limits gets one at its first hold, which costs nothing and only holds. A
        task of a running try that waits at its own gate is held, too.
        """
        if self.admission is None:
            self.admission = Admission([Limit(rate=1, cost=lambda _: 0)], self._now)
            self.on_first_hold()
        now = self._now()
        self.holds += 1
        until = max(self._held_until, now + seconds)
        self._held += until - max(self._held_until, now)
        self._held_until = until
        self.admission.hold(seconds)
        for gate in self._gates:
            gate.hold(seconds)

    def held_seconds(self) -> float:
        """How many seconds holds have let no try begin, until now."""
        return self._held - max(self._held_until - self._now(), 0.0) if self.holds else 0.0

    def levels(self) -> list[LimitLevel]:
        """The limits of a whole try, at this moment."""
        return [] if self.admission is None else self.admission.levels()

    def close(self) -> None:
        """Begin no more tries: another event loop may use the limits."""
        if self.admission is not None:
            self.admission.close()
