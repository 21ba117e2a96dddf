"""How often something is tried, and how long to wait between tries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Whether a failed try is followed by another.

    Attributes:
        attempts: Total tries, the first included.
        wait_seconds: Pause before the next one.
        whole_stage: What is tried again: the stage from its first task, or the failed task alone.
    """

    attempts: int
    wait_seconds: float
    whole_stage: bool

    def next_delay(self, attempt: int) -> float | None:
        """Seconds until the try after try number ``attempt``; ``None``: there is none."""
        return self.wait_seconds if attempt < self.attempts else None
