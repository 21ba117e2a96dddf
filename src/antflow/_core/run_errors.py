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
    """Too many items failed, and the run stopped taking in more (``max_failures``).

    Attributes:
        results: The run's results: what was accepted before the limit was reached has finished.
    """

    results: RunResults[Any] | None = None


class InternalError(PipelineError):
    """The library caught itself in a fault: its books do not balance, or a worker crashed.

    Attributes:
        results: What the run had settled by then.
    """

    results: RunResults[Any] | None = None
