"""Errors that end a run and bring its results along."""

from __future__ import annotations

from typing import Any

from antflow._core.errors import PipelineError
from antflow._core.result import RunResults


class DuplicateItemError(PipelineError, ValueError):
    """An id appears twice in one run, and the pipeline was made with ``duplicates="error"``.

    Attributes:
        results: The run's results: what was accepted before has finished.
    """

    results: RunResults[Any] | None = None


class TooManyFailures(PipelineError):
    """Too many items failed, and the run was stopped (``max_failures``, ``stop_on``).

    Its text says in one line how many had failed by then, with which errors, where, an example, and
    how to go on.

    Args:
        reason: How many of how many, and the limit; or the error of ``stop_on``.
        failures: What failed, where, and an example.
        how_to_go_on: How to do the rest later.

    Attributes:
        reason: The same.
        failures: The same.
        results: The run's results. Tries that had begun have ended; the items that still waited are
            cancelled. To go on later, pass ``retry_failed=[*results.failed, *results.cancelled]``.
    """

    results: RunResults[Any] | None = None

    def __init__(self, reason: str, failures: str = "", how_to_go_on: str = "") -> None:
        super().__init__(reason, failures, how_to_go_on)
        self.reason = reason
        self.failures = failures

    def __str__(self) -> str:
        reason, failures, how_to_go_on = self.args
        told = ": ".join(part for part in (reason, failures) if part)
        return f"{told}; {how_to_go_on}" if how_to_go_on else told


class InternalError(PipelineError):
    """The library caught itself in a fault: its books do not balance, or a worker crashed.

    Attributes:
        results: What the run had settled by then.
    """

    results: RunResults[Any] | None = None
