"""`input` and `getpass` while a display is up: it makes room for the question and the answer.

What is typed appears where the cursor is, so the display goes away while they read. `breakpoint()`
and other debuggers ask by `input`. Modules may have the functions under names of their own, as
`click` does. Those that a function or an object holds are not known here; `Keyboard` notices most.
"""

from __future__ import annotations

import builtins
import getpass
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from types import ModuleType
from typing import Any, Protocol

from antflow.display.environment import is_terminal


class Yielding(Protocol):
    """A terminal that is drawn on."""

    def question(self) -> AbstractContextManager[None]:
        """Make room for a question, until it is answered."""
        ...


_watched: list[Yielding] = []
_open: list[object] = []
_replaced: list[tuple[dict[str, Any], str, Any, Any]] = []


def watch(screen: Yielding) -> None:
    """Make a screen yield to questions from now on."""
    _watched.append(screen)
    if not _replaced:
        for function in (builtins.input, getpass.getpass):
            asking = _asking(function)
            for module_names, name in _all_names_of(function):
                module_names[name] = asking
                _replaced.append((module_names, name, function, asking))


def unwatch(screen: Yielding) -> None:
    """Leave a screen alone; after the last one the functions are as before."""
    _watched.remove(screen)
    if not _watched:
        _restore()


def are_open() -> bool:
    """Whether a question waits for its answer, perhaps since an earlier display."""
    return bool(_open)


def forget() -> None:
    """In a child process after a fork: the terminal is the parent's."""
    _watched.clear()
    _open.clear()
    _restore()


def _restore() -> None:
    for module_names, name, function, asking in _replaced:
        if module_names.get(name) is asking:
            module_names[name] = function
    _replaced.clear()


def _all_names_of(function: Any) -> list[tuple[dict[str, Any], str]]:
    """Where the modules have a function: the names of a module, and one of them."""
    return [
        (names, name)
        for module in list(sys.modules.values())
        if isinstance(module, ModuleType)
        # Not `vars`: that would load a module that is going to be loaded when it is used.
        for names in [ModuleType.__getattribute__(module, "__dict__")]
        for name, value in list(names.items())
        if value is function
    ]


def _asking(function: Callable[..., str]) -> Callable[..., str]:
    @wraps(function)
    def asking(*args: Any, **options: Any) -> str:
        if not is_terminal(sys.stdin):
            return function(*args, **options)
        question = object()
        with ExitStack() as stack:
            _open.append(question)
            stack.callback(_close, question)
            for screen in tuple(_watched):
                stack.enter_context(screen.question())
            return function(*args, **options)

    return asking


def _close(question: object) -> None:
    if question in _open:  # not in a child process
        _open.remove(question)
