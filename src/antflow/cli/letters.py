"""One line of JSON per item: its result, or its dead letter.

What JSON has no form for is written as well as can be, and a result says so: a set becomes a list,
a dataclass an object, a date, a path, a UUID or a Decimal a text, and anything else (bytes, not a
number) ``{"type": "bytes", "repr": "b'…'"}``.

A dead letter is fed back as an item. It goes on at the stage it failed in, with what had entered
that stage, so that nothing that worked is done again. For that the value must be the very same
after JSON; where it would not be (bytes, a tuple, an object), the letter says ``"restart": true``,
and the item begins anew at the first stage, with what was read from the input.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, time
from decimal import Decimal
from enum import Enum
from math import isfinite
from pathlib import PurePath
from typing import Any
from uuid import UUID

from antflow import PipelineResult
from antflow._core.text import error_type_name, safe_repr, safe_str

LETTER_KEYS = ("id", "value", "stage", "error_type", "error", "attempts", "input", "restart")
"""The keys of a dead letter; a line that has all of them is one."""

LONGEST_REPR = 1000
CUT_EARLY = (dict, list, tuple, set, frozenset)
LONGEST_ERROR = 10_000
MOST_BITS = 14_000
"""Of an int that Python still turns into text (4300 digits)."""


def result_line(result: PipelineResult[Any]) -> str:
    """``{"id": …, "value": …}`` and a newline."""
    return f'{{"id": {json_text(result.id)}, "value": {json_text(result.value)}}}\n'


def letter_line(result: PipelineResult[Any]) -> str:
    """A failed item as one line: the keys are `LETTER_KEYS`."""
    origin = getattr(result.input, "origin", result.input)
    error = result.error
    letter = {
        "id": result.id,
        "value": result.value,
        "stage": result.stage,
        "error_type": None if error is None else error_type_name(error),
        "error": safe_str(error)[:LONGEST_ERROR],
        "attempts": result.attempts,
        "input": origin,
        "restart": not survives_json(result.value),
    }
    return _line(letter)


def bad_line(error: Exception, text: str, number: int) -> str:
    """A line of the input that is no item, as a dead letter without a stage."""
    letter: dict[str, Any] = dict.fromkeys(LETTER_KEYS) | {
        "id": number,
        "value": text,
        "error_type": "BadLine",
        "error": safe_str(error)[:LONGEST_ERROR],
        "attempts": 0,
        "input": text,
        "restart": True,
    }
    return _line(letter)


def survives_json(value: Any) -> bool:
    """Whether a value is the same, types and all, after it was written as JSON and read again."""
    try:
        return _survives(value)
    except RecursionError:  # too deep, or part of itself
        return False


def json_text(value: Any) -> str:
    """A value as one line of printable JSON, whatever it is."""
    for attempt in (_as_it_is, _tamed):
        try:
            return _printable(attempt(value))
        except Exception:  # noqa: S112 - the next one asks less of the value
            continue
    return _printable(_stand_in(value))


def _line(letter: dict[str, Any]) -> str:
    pairs = (f"{json.dumps(key)}: {json_text(value)}" for key, value in letter.items())
    return f"{{{', '.join(pairs)}}}\n"


def _survives(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and _survives(part) for key, part in value.items())
    if kind is list:
        return all(map(_survives, value))
    if kind is float:
        return isfinite(value)
    if kind is int:
        return bool(value.bit_length() <= MOST_BITS)
    return value is None or kind is bool or kind is str


# From what JSON can say to what it cannot


def _as_it_is(value: Any) -> Any:
    """The value; `_printable` will say whether that is enough."""
    return value


def _tamed(value: Any) -> Any:
    """The value with text for keys, and stand-ins for numbers that are none.

    Raises:
        RecursionError: It is part of itself, or too deep.
    """
    if isinstance(value, dict):
        return {safe_str(key): _tamed(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_tamed(part) for part in value]
    if isinstance(value, (float, int)) and not survives_json(value):
        return _stand_in(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    return _tamed(_plain(value))


def _plain(value: Any) -> Any:
    """What stands for a value that JSON has no form for."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    for kinds, form in FORMS:
        if isinstance(value, kinds):
            return form(value)
    return _stand_in(value)


def _stand_in(value: Any) -> dict[str, str]:
    try:
        # Cut while it is made, where the standard library can: a value may be very large.
        text = (
            _SHORT.repr(value) if isinstance(value, CUT_EARLY) else safe_repr(value, LONGEST_REPR)
        )
    except Exception:  # an int of too many digits, say
        text = f"<{type(value).__name__}: repr() failed>"
    return {"type": type(value).__name__, "repr": text}


FORMS: list[tuple[Any, Callable[[Any], Any]]] = [
    (Enum, lambda value: value.value),
    ((date, time), lambda value: value.isoformat()),
    ((Decimal, PurePath, UUID), str),
    ((set, frozenset), lambda value: sorted(value, key=repr)),
]

_SHORT = reprlib.Repr()


def _printable(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    # What a terminal would obey, or no encoding can hold, goes as \u escapes.
    return text if text.isprintable() else json.dumps(value, allow_nan=False, default=_plain)
