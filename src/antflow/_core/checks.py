"""Checks of options: one message form for all of them.

A message says where, which argument, its value, and what is allowed.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from math import isfinite
from operator import index
from types import CoroutineType
from typing import Any, TypeVar

from antflow._core.foreign import ENDS_THE_PROGRAM, asked, is_a, number
from antflow._core.misspellings import did_you_mean
from antflow._core.text import error_type_name, safe_repr, safe_str

Answer = TypeVar("Answer")

Refuse = Callable[[str], Exception]
"""Makes the exception to raise from the end of the message: ``"workers=0: must be …"``."""

Check = Callable[[Refuse, str, Any], Any]
"""Refuses the value of an option that is not allowed: ``check(refuse, name, value)``.

Returns the value to use instead, a plain ``int`` or ``float`` for a number; ``None``: the value as
it is.
"""

LONGEST_SECONDS = 292 * 365 * 86_400.0
"""A timer of more than 292 years counts more nanoseconds than 64 bits hold."""


def refusal(
    refuse: Refuse,
    name: str,
    value: object,
    allowed: str,
    advice: str = "write function, not function()",
) -> Exception:
    """The error that says that ``name=value`` is not ``allowed``.

    A coroutine is closed: a warning that it was never awaited would mislead. ``advice`` is for it.
    """
    if is_a(value, CoroutineType):
        value.close()
        allowed += f" (this is a coroutine: {advice})"
    return refuse(f"{name}={safe_repr(value)}: {allowed}")


def class_hint(value: object, fits: Callable[[type], object]) -> str:
    """The hint for a message if a class was given instead of an object of it; else "".

    Args:
        value: What was given.
        fits: Whether objects of a class would be allowed.
    """
    if is_a(value, type) and asked(fits, value, instead=False):
        return "; pass an instance, not the class"
    return ""


def examine(
    refuse: Refuse,
    name: str,
    question: Callable[..., Answer],
    *args: Any,
    passes: tuple[type[BaseException], ...] = (),
) -> Answer:
    """Return ``question(*args)``; refuse the argument if a user's object raises there.

    For items, a question that fails gets a substitute answer, so that it costs no run. An argument
    is refused instead: the fault shows now, with a name, and not in a worker.

    Args:
        refuse: Makes the error.
        name: The argument.
        question: Asks the object.
        args: What the question is called with.
        passes: Errors that the question raises by itself.
    """
    try:
        return question(*args)
    except BaseException as error:  # why: any code of the object may have run
        through: tuple[type[BaseException], ...] = (*ENDS_THE_PROGRAM, *passes)
        if is_a(error, through):
            raise
        text = f"{name}: cannot be examined: {error_type_name(error)}: {safe_str(error)}"
        raise refuse(text) from error


def check_count(
    refuse: Refuse,
    name: str,
    value: object,
    minimum: int,
    allowed: str,
    maximum: int | None = None,
) -> int:
    """Return a whole number of at least ``minimum`` as an ``int``; refuse anything else."""
    count = whole(value)
    if count is None or count < minimum or (maximum is not None and count > maximum):
        raise refusal(refuse, name, value, allowed)
    return count


def whole(value: object) -> int | None:
    """A whole number as a plain ``int``, by its ``__index__`` (an integer of numpy has one).

    ``None`` for ``bool`` and anything else: a ``float`` is not a count, even if it is 3.0.
    """
    if type(value) is int:
        return value
    return None if type(value) is bool else asked(index, value, instead=None)


def check_number(
    refuse: Refuse, name: str, value: object, minimum: float = 0.0, what: str = "number"
) -> int | float:
    """Return a finite number of at least ``minimum`` as a plain one; refuse anything else."""
    plain = number(value)
    # Compared, not converted: an int may be too large for a float.
    if plain is None or not minimum <= plain <= sys.float_info.max:
        raise refusal(refuse, name, value, f"must be a finite {what} >= {minimum:,g}")
    return plain


def check_seconds(refuse: Refuse, name: str, value: object, minimum: float = 0.0) -> int | float:
    """Return a finite number of seconds of at least ``minimum``; refuse anything else."""
    return check_number(refuse, name, value, minimum, "number of seconds")


def check_share(refuse: Refuse, name: str, value: object) -> int | float:
    """Return a number from 0 to 1; refuse anything else."""
    share = number(value)
    if share is None or not 0 <= share <= 1:
        raise refusal(refuse, name, value, "must be a number from 0 to 1")
    return share


def check_timeout(refuse: Refuse, name: str, value: object) -> int | float | None:
    """Return ``None``, or a time that can pass; refuse anything else."""
    if value is None:
        return None
    seconds = number(value)
    if seconds is None or not 0 < seconds <= LONGEST_SECONDS:
        allowed = "must be a number of seconds above 0 and at most 292 years; None = no limit"
        raise refusal(refuse, name, value, allowed)
    return seconds


def or_none(check: Check) -> Check:
    """The same check, with ``None`` allowed too."""

    def check_or_none(refuse: Refuse, name: str, value: object) -> Any:
        return None if value is None else check(refuse, name, value)

    return check_or_none


def check_flag(refuse: Refuse, name: str, value: object) -> None:
    """Refuse what is neither ``True`` nor ``False``."""
    if type(value) is not bool:
        raise refusal(refuse, name, value, "must be True or False")


def check_text(refuse: Refuse, name: str, value: object) -> None:
    """Refuse what is not a string."""
    if not isinstance(value, str):
        raise refusal(refuse, name, value, "must be a string")


def check_json(refuse: Refuse, name: str, value: object) -> None:
    """Refuse what is not made of plain dicts, lists, tuples, strings, numbers, bools and None."""
    try:
        is_json = _is_json(value)
    except RecursionError:  # too deep, or part of itself
        is_json = False
    if not is_json:
        allowed = "must be a JSON value: a string, a number, or a list or dict of such values"
        raise refusal(refuse, name, value, allowed)


def _is_json(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and _is_json(part) for key, part in value.items())
    if kind is list or kind is tuple:
        return all(map(_is_json, value))
    if kind is float:
        return isfinite(value)
    return value is None or is_a(value, (str, int))


def check_callback(refuse: Refuse, name: str, value: Any, *arguments: str) -> None:
    """Refuse what is neither ``None`` nor callable with these positional arguments."""
    if value is not None and not callable(value):
        raise refusal(refuse, name, value, "must be a function or None")
    if value is not None and arguments and not takes(value, len(arguments)):
        allowed = f"must be a function that can be called as f({', '.join(arguments)})"
        raise refusal(refuse, name, value, allowed)


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with this many arguments, as far as its signature tells."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def check_choice(
    refuse: Refuse, name: str, value: object, choices: Sequence[str], more: str = ""
) -> None:
    """Refuse what is not one of these words; ``more``: what else the caller allows."""
    if not examine(refuse, name, lambda: isinstance(value, str) and value in choices):
        allowed = f"must be one of {', '.join(map(repr, choices))}{more}"
        raise refusal(refuse, name, value, allowed + did_you_mean(value, choices))
