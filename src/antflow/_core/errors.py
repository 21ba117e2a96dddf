"""Every error of the library; `antflow.exceptions` draws how they are related."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from antflow._core.checks import check_seconds, refusal
from antflow._core.foreign import type_name
from antflow._core.options import named_options
from antflow._core.text import safe_str

if TYPE_CHECKING:
    from antflow._core.result import RunResults


class AntFlowError(Exception):
    """Base of every error this library raises."""


class PipelineError(AntFlowError, RuntimeError):
    """A pipeline was described or used in a way that cannot work."""


class StageValidationError(PipelineError, ValueError):
    """An option of a stage is not allowed; the message names stage, option, value and what is."""


class DuplicateItemError(PipelineError, ValueError):
    """An id came twice in one run, and the pipeline was made with ``duplicates="error"``.

    Attributes:
        results: The run's results: what was accepted before has finished.
    """

    results: RunResults[Any] | None = None


class WouldDeadlockError(PipelineError):
    """A task fed so many items back to its own or an earlier stage that the room for them is full.

    Waiting for room could wait for the very worker that has to make it.
    """


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

    Attributes:
        stands_for_original: Whether failures are counted under the original's name.
    """

    stands_for_original = True

    def __init__(self, task_name: str, original_exception: BaseException) -> None:
        super().__init__(task_name, original_exception)
        self.task_name = task_name
        self.original_exception = original_exception

    def __str__(self) -> str:
        return f"task {self.task_name!r} raised {type_name(self.original_exception)}"


class WorkerLostError(TaskFailedError):
    """An item's task ended the process it ran in, three times over.

    Args:
        task_name: The task's name.
        original_exception: What was noticed of it here.
    """

    stands_for_original = False

    def __str__(self) -> str:
        why = f"{type_name(self.original_exception)}: {safe_str(self.original_exception)}"
        return f"task {self.task_name!r} ended its process again and again ({why})"


class RetryAfter(AntFlowError, RuntimeError):
    """Raised by a task: too fast, try again in so many seconds.

    Everyone who shares a `Limit` of the stage waits that long, and the try is not counted. In a
    stage without limits the item alone waits, and its worker goes on with others.

    Args:
        seconds: How long, 0 or more, finite.
        message: Why, for people.

    Raises:
        ValueError: ``seconds`` is not such a number.
        TypeError: ``message`` is no string.
    """

    @named_options
    def __init__(self, seconds: float, message: str = "") -> None:
        check_seconds(ValueError, "seconds", seconds)
        if not isinstance(message, str):
            raise refusal(TypeError, "message", message, "must be a string")
        super().__init__(seconds, message)
        self.seconds = seconds
        self.message = message

    def __str__(self) -> str:
        return f"{self.message or 'too fast'}: try again in {self.seconds:g} s"


class Drop(AntFlowError):
    """Returned or raised by a task: this item ends here, well, and without a result.

    ``return Drop``, ``return Drop()`` and ``raise Drop`` are the same.
    """


class ExecutorShutdownError(AntFlowError, RuntimeError):
    """An `AsyncExecutor` was given work after its shutdown."""


class ItemCancelled(AntFlowError):
    """The item was accepted, and the run was cancelled or shut down before it was through."""
