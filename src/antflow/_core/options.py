"""Misspelt options: what the caller is told, and what was most likely meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from typing import Any, NoReturn, TypeVar, cast

from antflow._core.text import safe_repr

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)

SHORTEST_PART = 4
"""Letters that a part of a name must have to stand for it, as "stage" for "target_stage"."""


def named_options(function: Function) -> Function:
    """Have a call with an unknown option say so, and what was most likely meant.

    ``Limit(concurency=3)`` is then a `TypeError` that reads ``Limit(concurency=3): there is no such
    option; did you mean 'concurrency'?``. To the type checkers the function stays what it is; so it
    does to `inspect`, except that an async generator function becomes a plain one that returns an
    async generator.
    """
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            try:
                coroutine = function(*args, **kwargs)
            except TypeError:
                _refuse_unknown(function, kwargs)
                raise
            del args, kwargs  # what is raised keeps this frame
            return await coroutine

        return cast("Function", call_async)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError:
            _refuse_unknown(function, kwargs)
            raise

    return cast("Function", call)


def named_fields(kind: Class) -> Class:
    """`named_options` for a dataclass: the options are its fields."""
    kind.__init__ = named_options(kind.__init__)  # type: ignore[misc]
    return kind


def did_you_mean(given: object, names: Iterable[str]) -> str:
    """``"; did you mean 'workers'?"``, or ``""`` where no name is close."""
    if not isinstance(given, str):
        return ""
    names = list(names)
    likely = get_close_matches(given, names, 1)
    if not likely and len(given) >= SHORTEST_PART:
        likely = [name for name in names if given in name]
    return f"; did you mean {likely[0]!r}?" if likely else ""


def _refuse_unknown(function: Callable[..., Any], given: dict[str, Any]) -> None:
    """Raise if an option was given that there is none of: then nothing has been called yet."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    names = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in ("self", "cls")
    ]
    for name, value in given.items():
        if name not in names:
            _refuse(function, name, value, names)


def _refuse(function: Callable[..., Any], name: str, value: object, names: list[str]) -> NoReturn:
    where = function.__qualname__.removesuffix(".__init__").rpartition("<locals>.")[2]
    meant = did_you_mean(name, names) or f"; the options are {', '.join(names)}"
    raise TypeError(f"{where}({name}={safe_repr(value)}): there is no such option{meant}") from None
