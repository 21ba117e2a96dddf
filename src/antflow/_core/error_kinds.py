"""Kinds of errors, named by their class or by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from antflow._core.checks import Refuse, refusal
from antflow._core.foreign import class_names, is_a
from antflow._core.groups import parts
from antflow._core.text import original_of

ErrorKind = type[Exception] | str
"""An exception class, or its name, alone or with its module: ``"shop.errors.AuthError"``."""

ErrorKinds = ErrorKind | tuple[ErrorKind, ...]
"""One of them, or a tuple of them."""

NAME = re.compile(r"[^\W\d]\w*(\.([^\W\d]\w*|<locals>))*")
"""A class's name, perhaps with its module."""


class ErrorSet:
    """The errors of some kinds.

    A name stands for all classes that have it, and for those derived from them, as a class does. It
    also finds errors that only stand for one of that name: see `StandInError`.

    Args:
        kinds: Classes and names.
    """

    def __init__(self, kinds: Sequence[ErrorKind]) -> None:
        self._names = {kind for kind in kinds if is_a(kind, str)}
        self._classes = tuple(kind for kind in kinds if not is_a(kind, str))

    def found_in(self, error: BaseException) -> BaseException | None:
        """The error, if it is of one of these kinds; or the first one in a group that is."""
        return next((part for part in parts(error) if self._has(part)), None)

    def _has(self, error: BaseException) -> bool:
        if is_a(error, self._classes):
            return True
        if not self._names:
            return False
        names = class_names(type(error)) | class_names(type(original_of(error)))
        return not self._names.isdisjoint(names)


def error_set(*given: ErrorKinds) -> ErrorSet | None:
    """The errors of all these kinds; ``None`` if there are no kinds."""
    kinds: list[ErrorKind] = []
    for each in given:
        kinds += each if is_a(each, tuple) else (each,)
    return ErrorSet(kinds) if kinds else None


def loaded_names() -> set[str]:
    """The names of all exception classes that there are at present."""
    names: set[str] = set()
    seen: set[int] = set()
    todo: list[type] = [BaseException]
    while todo:
        kind = todo.pop()
        if id(kind) not in seen:
            seen.add(id(kind))
            names |= class_names(kind)
            todo += type.__subclasses__(kind)
    return names


def check_stop_on(refuse: Refuse, name: str, kinds: object) -> None:
    """Refuse what is neither an exception class, nor the name of one, nor a tuple of these."""
    given: tuple[Any, ...] = kinds if is_a(kinds, tuple) else (kinds,)
    for kind in given:
        is_name = is_a(kind, str) and NAME.fullmatch(kind) is not None
        if not (is_name or (is_a(kind, type) and issubclass(kind, Exception))):
            allowed = "must be an exception class, its name, or a tuple of these"
            if is_a(kind, type) and issubclass(kind, BaseException):
                allowed = f"{kind.__name__} is not a subclass of Exception"
            raise refusal(refuse, name, kinds, allowed)
