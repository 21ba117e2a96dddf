"""Every error of the library; `antflow.exceptions` draws how they are related."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antflow._core.result import RunResults


class AntFlowError(Exception):
    """Base of every error this library raises."""


class PipelineError(AntFlowError, RuntimeError):
    """A pipeline was described or used in a way that cannot work."""


class StageValidationError(PipelineError, ValueError):
    """An option of a stage is not allowed; the message names stage, option, value and what is."""


class TooManyFailures(PipelineError):
    """So many items failed that the run stopped taking in more (``max_failures``).

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


class TaskFailedError(AntFlowError, RuntimeError):
    """A task ended with something that is no ordinary exception (it raised ``CancelledError``).

    Args:
        task_name: The task's name.
        original_exception: What it raised.
    """

    def __init__(self, task_name: str, original_exception: BaseException) -> None:
        super().__init__(task_name, original_exception)
        self.task_name = task_name
        self.original_exception = original_exception

    def __str__(self) -> str:
        return f"task {self.task_name!r} raised {type(self.original_exception).__name__}"


class ItemCancelled(AntFlowError):
    """The item was accepted, and the run was cancelled or shut down before it was through."""
