"""`input` and `getpass` while a display is up: it makes room for the question and the answer.

What is typed appears where the cursor is, so the display goes away while they read. `breakpoint()`
and other debuggers ask by `input`. Only the functions that are looked up meanwhile are known here;
`Keyboard` notices most of the others.
"""

from __future__ import annotations

import builtins
import getpass
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from typing import Any, Protocol

from antflow.display.environment import is_terminal


class Yielding(Protocol):
    """A terminal that is drawn on."""

    def question(self) -> AbstractContextManager[None]:
        """Make room for a question, until it is answered."""
        ...


_watched: list[Yielding] = []
_replaced: list[tuple[Any, str, Any, Any]] = []


def watch(screen: Yielding) -> None:
    """Make a screen yield to questions from now on."""
    _watched.append(screen)
    if not _replaced:
        for module, name in ((builtins, "input"), (getpass, "getpass")):
            function = getattr(module, name)
            asking = _asking(function)
            setattr(module, name, asking)
            _replaced.append((module, name, function, asking))


def unwatch(screen: Yielding) -> None:
    """Leave a screen alone; after the last one the functions are as before."""
    _watched.remove(screen)
    if not _watched:
        _restore()


def forget() -> None:
    """In a child process after a fork: the terminal is the parent's."""
    _watched.clear()
    _restore()


def _restore() -> None:
    for module, name, function, asking in _replaced:
        if getattr(module, name) is asking:
            setattr(module, name, function)
    _replaced.clear()


def _asking(function: Callable[..., str]) -> Callable[..., str]:
    @wraps(function)
    def asking(*args: Any, **options: Any) -> str:
        with ExitStack() as stack:
            for screen in tuple(_watched) if is_terminal(sys.stdin) else ():
                stack.enter_context(screen.question())
            return function(*args, **options)

    return asking
