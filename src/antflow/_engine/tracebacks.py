"""Errors that are kept, and nothing of the engine with them.

A failed item's error is kept by its result and by a tracker, long after its run is over. The frames
in its traceback hold their local variables, and a finished frame holds the one that called it: with
one frame of the engine the whole run would be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from antflow._core.stage import task_name

E = TypeVar("E", bound=BaseException)

PASSED_THROUGH = ("antflow._engine", "asyncio", "contextlib", "contextvars", "concurrent")
"""Modules whose frames stand between the user's, or before them."""


def trimmed(error: E) -> E:
    """Cut the engine's frames, and asyncio's, off an error and off all that led to it."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        each.with_traceback(_without_engine(each.__traceback__))
        todo += [each.__cause__, each.__context__, getattr(each, "original_exception", None)]
        if isinstance(each, BaseExceptionGroup):
            todo += each.exceptions
    return error


def call_apart(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of the user's from a frame that, when it has ended, leads no further back."""
    return next(_apart(function, args, kwargs))


def _apart(function: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[Any]:
    # A generator that has ended has no caller. It cannot raise StopIteration, nor can a coroutine.
    try:
        yield function(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError(f"{task_name(function)} raised StopIteration") from error


def _without_engine(traceback: TracebackType | None) -> TracebackType | None:
    kept: list[TracebackType] = []
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if not any(module == name or module.startswith(f"{name}.") for name in PASSED_THROUGH):
            kept.append(traceback)
        traceback = traceback.tb_next
    following: TracebackType | None = None
    for each in reversed(kept):
        following = TracebackType(following, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return following
