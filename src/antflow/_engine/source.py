"""Items from the user's iterable, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context
from itertools import islice
from types import GeneratorType
from typing import Any

from antflow._core.cancellation import is_failure
from antflow._core.errors import PipelineError
from antflow._core.foreign import is_a
from antflow._core.log import warn
from antflow._core.text import error_type_name

LONGEST_PULL = 0.005
"""Seconds after which one pull ends, so that a slow generator does not hold the event loop."""

CLEAN_UP_FAILED = "the source's clean-up failed"


@contextmanager
def clean_up(failed: str = CLEAN_UP_FAILED) -> Iterator[None]:
    """Log what the clean-up of an iterable raises: all of its values have been taken by then.

    A ``CancelledError`` passes: it may be meant for the caller.

    Args:
        failed: The message to log.
    """
    try:
        yield
    except (Exception, BaseExceptionGroup) as error:
        if not is_failure(error):
            raise
        warn(failed, error=error)


def source_failure(error: BaseException) -> PipelineError:
    """The failure that a source's own ``CancelledError``, alone or in a group, amounts to.

    Raises:
        BaseException: A group with something in it that ends a program.
    """
    if not is_failure(error):
        raise error
    failure = PipelineError(f"the source raised {error_type_name(error)}")
    failure.__cause__ = error
    return failure


class IterableSource:
    """Takes items from any iterable; it is never materialised.

    Args:
        items: The iterable. Its iterator is made at once, so what cannot be iterated fails here.
        now: A monotonic clock, in seconds.
        context: The context in which the iterable runs, and which it may change, wherever it is
            taken from; ``None`` = always the caller's. Needed where the caller varies: a token
            resets a variable only in the context that it was set in.
        failure_of: Makes the failure that a ``CancelledError``, or a group, of the iterable amounts
            to; see `source_failure`.

    Attributes:
        items: The iterable.
        is_plain: Whether it is a list or its like, whose steps take no time.
        left_over: Items that it gave before it raised something that ends the program.
    """

    def __init__(
        self,
        items: Iterable[Any],
        now: Callable[[], float],
        context: Context | None = None,
        failure_of: Callable[[BaseException], Exception] = source_failure,
    ) -> None:
        self.items = items
        self._context = context
        self._iterator: Iterator[Any] = self._run(iter, items)
        self._now = now
        self._failure_of = failure_of
        self._error: Exception | None = None
        self._has_ended = False
        self.left_over: list[Any] = []
        self._is_taking = self._closes_later = False
        self.is_plain: bool = type(items) in (list, tuple, range)

    def take(self, most: int) -> list[Any]:
        """Up to ``most`` items, fewer when it takes longer than `LONGEST_PULL`; ``[]``: no more.

        Raises:
            Exception: What the iterable raised. Items it gave before that were returned by an
                earlier call.
        """
        if self.is_plain:
            return list(islice(self._iterator, most))
        self._is_taking = True
        try:
            taken: list[Any] = self._run(self._take, most)
        finally:
            self._is_taking = False
            if self._closes_later:
                with clean_up():
                    self.close()
        return taken

    @property
    def is_lent(self) -> bool:
        """Whether it is an iterator that the user made, like an open file, and not a generator."""
        return self._iterator is self.items and not is_a(self._iterator, GeneratorType)

    def close(self) -> None:
        """Close a generator, which runs its clean-up; raise what that raises.

        A source that ends its own run is closed when its step is over.
        """
        self._closes_later = self._is_taking
        if self._is_taking:
            return
        close = getattr(self._iterator, "close", None)
        if close is not None:
            self._run(close)

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args) if self._context is None else self._context.run(function, *args)

    def _take(self, most: int) -> list[Any]:
        if self._error is not None:
            raise self._error
        if self._has_ended:
            return []  # as in a `for` loop: a growing file would go on
        taken: list[Any] = []
        deadline = self._now() + LONGEST_PULL
        try:
            for item in self._iterator:
                taken.append(item)
                if len(taken) >= most or self._now() >= deadline:
                    break
            else:
                self._has_ended = True
        except Exception as error:
            self._error = error
        except (asyncio.CancelledError, BaseExceptionGroup) as error:
            # The source's own: a call that never awaits cannot be cancelled.
            self._error = self._failure_of(error)
        except BaseException:
            self.left_over = taken
            raise
        if self._error is not None and not taken:
            raise self._error
        return taken  # items before the error are taken in first
