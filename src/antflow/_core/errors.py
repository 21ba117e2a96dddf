"""Every error of the library; `antflow.exceptions` draws how they are related."""

from __future__ import annotations

from typing import Any, Self

from antflow._core.checks import check_seconds, refusal
from antflow._core.foreign import type_name
from antflow._core.hold_times import (
    Headers,
    HoldTime,
    header_fields,
    header_seconds,
    hold_seconds,
)
from antflow._core.text import safe_str


class AntFlowError(Exception):
    """Base of every error this library raises."""


class PipelineError(AntFlowError, RuntimeError):
    """A pipeline was described or used in a way that cannot work."""


class StageValidationError(PipelineError, ValueError):
    """An option of a stage is not allowed; the message says which, and what is."""


class WouldDeadlockError(PipelineError):
    """A task fed more items back to its own or an earlier stage than there is room for.

    Waiting for room could wait for the very worker that has to make it.
    """


class TaskFailedError(AntFlowError, RuntimeError):
    """A task ended with something other than an ordinary exception.

    It raised ``CancelledError``, or an error that is not an `Exception`, like the panics of
    libraries in Rust.

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
        text = safe_str(self.original_exception)
        raised = f"task {self.task_name!r} raised {type_name(self.original_exception)}"
        return f"{raised}: {text}" if text else raised


class WorkerLostError(TaskFailedError):
    """The process in which an item's task ran has ended, three times over.

    Or once, where a task must not be repeated; see `antflow.runners.DaskRunner`.

    Args:
        task_name: The task's name.
        original_exception: The error noticed here.
        times: How many processes were lost.

    Attributes:
        times: The same.
    """

    stands_for_original = False

    def __init__(self, task_name: str, original_exception: BaseException, times: int = 3) -> None:
        super().__init__(task_name, original_exception)
        self.args = (task_name, original_exception, times)
        self.times = times

    def __str__(self) -> str:
        why = f"{type_name(self.original_exception)}: {safe_str(self.original_exception)}"
        how = "ended its process again and again" if self.times > 1 else "was lost with its process"
        return f"task {self.task_name!r} {how} ({why})"


class RetryAfter(AntFlowError, RuntimeError):
    """Raised by a task: too fast, try again in this many seconds.

    It holds the stage, and every stage that shares its limits, for that long: no new try begins,
    and running tries go on. It does not use up an attempt, up to ``max_holds`` times (default 20)
    per item and stage; after that it is a failure like any other.

    Args:
        seconds: How long, in one of these forms. A negative time or a date in the past is 0.

            - seconds, finite;
            - text as services write it: seconds (``"2"``, ``"1.5"``), a duration (``"6m0s"``,
              ``"20ms"``), an HTTP date, or a date of ISO 8601 with a time zone;
            - a `datetime.timedelta`;
            - a `datetime.datetime` with a time zone: until then.
        message: Why, for people.
        now: The current time in Unix seconds, for dates; ``None`` = the wall clock's.

    Attributes:
        seconds: How long, in seconds.
        message: The message.

    Raises:
        ValueError: ``seconds`` is not such a time, or ``now`` is not a number.
        TypeError: ``message`` is not a string.

    Example:
        >>> raise RetryAfter(30)
        >>> raise RetryAfter.from_headers(response.headers, default=30)
    """

    def __init__(self, seconds: HoldTime, message: str = "", *, now: float | None = None) -> None:
        now = _checked_now(now)
        self.seconds: float = hold_seconds(ValueError, "seconds", seconds, now)
        if not isinstance(message, str):
            raise refusal(TypeError, "message", message, "must be a string")
        super().__init__(self.seconds, message)
        self.message = message

    @classmethod
    def from_headers(
        cls,
        headers: Headers,
        default: HoldTime | None = None,
        message: str = "",
        *,
        now: float | None = None,
    ) -> Self:
        """Read how long to wait from the headers of an answer: from the first of these it can read.

        1. ``Retry-After-Ms`` (also ``X-Ms-Retry-After-Ms``), in milliseconds.
        2. ``Retry-After``: seconds, an HTTP date, or a moment in Unix seconds (from a billion on).
        3. The longest reset of all limits that are used up: headers with "ratelimit" (or
           "rate-limit") and "reset" in their names, such as ``x-ratelimit-reset-tokens``,
           ``anthropic-ratelimit-requests-reset``, ``x-ratelimit-reset`` and ``RateLimit-Reset``.
           A reset counts unless the header with "remaining" instead of "reset" says that something
           is left. A number is seconds to wait; from a billion on it is a moment in Unix seconds,
           from a hundred billion on in milliseconds. Text is a duration or a date. The
           ``RateLimit`` header of the IETF draft counts too, with its ``r`` and ``t``, or
           ``remaining`` and ``reset``.

        Headers that cannot be read are skipped.

        Args:
            headers: A mapping or a list of pairs, of strings or bytes, as any HTTP client gives
                them. A value may also be a list of these, of which the first one counts. Upper and
                lower case are the same.
            default: How long to wait if the headers do not say; ``None`` = raise `ValueError`, so
                that the try fails as with any other error.
            message: Why, for people.
            now: The current time in Unix seconds, for dates; ``None`` = the wall clock's.

        Raises:
            TypeError: ``headers`` are not headers, or ``message`` is not a string.
            ValueError: The headers give no time and there is no ``default``, or ``default`` is not
                a time to wait.
        """
        now = _checked_now(now)
        fields = header_fields(headers)
        seconds: HoldTime | None = header_seconds(fields, now)
        if default is not None:
            default = hold_seconds(ValueError, "default", default, now)
        if seconds is None:
            seconds = default
        if seconds is None:
            allowed = "give no time to wait: neither Retry-After nor the reset of a limit"
            raise refusal(ValueError, "headers", list(fields), f"{allowed}; pass default=seconds")
        return cls(seconds, message)

    def __str__(self) -> str:
        return f"{self.message or 'too fast'}: try again in {self.seconds:,g} s"


def _checked_now(now: object) -> float | None:
    return None if now is None else check_seconds(_refuse_now, "now", now)


def _refuse_now(message: str) -> ValueError:
    return ValueError(f"{message} since 1970, or None")


class Drop(AntFlowError):
    """Returned or raised by a task: this item ends here, successfully and without a result.

    ``return Drop``, ``return Drop()`` and ``raise Drop`` are the same.
    """


class ExecutorShutdownError(AntFlowError, RuntimeError):
    """An `AsyncExecutor` was given work after its shutdown."""


class HistoryNotKept(AntFlowError, LookupError):
    """A tracker was asked for something that its ``history`` option did not let it keep."""


class ItemCancelled(AntFlowError):
    """The item was accepted, and the run was cancelled or shut down before it was through."""


class JournalError(PipelineError):
    """A journal cannot be used as asked; the kinds below say why."""


class _JournalSystemError(JournalError, OSError):
    # What rebuilds exceptions (tblib, which Dask installs) calls `__new__` of the class, and would
    # find that of `RuntimeError`, which cannot make an `OSError`.
    def __new__(cls, *args: Any) -> Self:
        return OSError.__new__(cls, *args)


class JournalOpenError(_JournalSystemError):
    """A file or database cannot be a journal: it holds something else, or cannot be opened."""


class JournalInUseError(JournalError):
    """A journal is open already; the message says in which process. It can have one writer."""


class JournalVersionError(JournalError, ValueError):
    """A journal was written by a version of the library whose format this one does not know."""


class JournalCorruptError(JournalError, ValueError):
    """A journal is damaged; the message says where. Nothing in it was changed."""


class JournalWriteError(_JournalSystemError):
    """A journal could not be written, for example because the disk is full."""


class JournalForkError(JournalError):
    """A forked process used the journal of its parent, which would damage it."""


class JournalInputMismatch(JournalError, ValueError):
    """The items are not those that the journal was begun with."""


class JournalKeyError(JournalError, ValueError):
    """An item's id cannot be its key in a journal: it is too long, or of a class without a text."""


LONGEST_PATH = 200
"""Characters that a message shows of a path into a value."""


class NotSerialisable(JournalError, TypeError):
    """A value cannot be written to a journal.

    Args:
        problem: Which class is in the way, and what to do.
        path: Where in the value, as ``['rows'][3]``; "" = the value itself.
        where: Which value it is: ``"result of stage 'Parse'"``.

    Attributes:
        problem: The same.
        path: The same.
        where: The same.
    """

    def __init__(self, problem: str, path: str = "", where: str = "value") -> None:
        super().__init__(problem, path, where)
        self.problem = problem
        self.path = path
        self.where = where

    def __str__(self) -> str:
        path = self.path
        if len(path) > LONGEST_PATH:
            path = f"{path[: LONGEST_PATH // 2]}…{path[-LONGEST_PATH // 2 :]}"
        place = f" at {path}" if path else ""
        return f"{self.where}{place}: {self.problem}"


class NotRoundTrippable(NotSerialisable):
    """A value was written to a journal, and did not come back the same."""


class NotRestorable(JournalError, ValueError):
    """A value of a journal cannot be read back, for example because its class is not registered."""
