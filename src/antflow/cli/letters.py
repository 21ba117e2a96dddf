"""One line of JSON per item: its result, or its dead letter.

Values that JSON has no form for are written in the form that says the most (`_Tamer`), and nothing
is cut off: a set becomes a list, a dataclass or a model an object, a date, a path, a UUID or a
Decimal a text, bytes ``{"type": "bytes", "base64": "…"}``, and anything else, NaN included,
``{"type": "float", "repr": "nan"}``. A result that is not in a journal is ``{"type": "Omitted",
"why": "too large", …}``. If even that does not say what was in the value, as with a
generator, the caller is given the name of the type, and can say so.

A dead letter is fed back as an item. It continues at the stage it ended in, with the value that had
entered that stage, so that nothing that worked is done again. For that the value must be the very
same after JSON; if it would not be (bytes, a tuple, an object), the letter says ``"restart":
true``, and the item starts over at the first stage, with the value read from the input.
"""

from __future__ import annotations

import json
import re
import sys
from base64 import b64encode
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Callable, ItemsView, KeysView, Mapping, Set, ValuesView
from dataclasses import fields, is_dataclass
from datetime import date, time
from decimal import Decimal
from enum import Enum
from math import isfinite
from pathlib import PurePath
from typing import Any
from uuid import UUID

from antflow import PipelineResult
from antflow._core.foreign import ENDS_THE_PROGRAM, asked, type_name
from antflow._core.result import fate_of, first_accepted
from antflow._core.text import error_text, error_type_name, safe_repr, safe_str
from antflow.cli.item import Item
from antflow.journal.omitted import Omitted

LETTER_KEYS = ("id", "value", "stage", "error_type", "error", "attempts", "input", "restart")
"""The keys of a dead letter; a line that has all of them is one."""

RESULT_KEYS = ("id", "value")
"""The keys of a result."""

LONGEST_FIRST_LINE = 1 << 20
"""Bytes of the first line of a file that are looked at."""

MOST_LEVELS = 100
"""Levels of nested lists and objects that are not plain JSON anyway."""

LONGEST_ERROR = 10_000
MOST_BITS = 14_000
"""Bits of an int that Python still turns into text (4300 digits)."""


def result_line(result: PipelineResult[Any], lost: set[str] | None = None) -> str:
    """``{"id": …, "value": …}`` and a newline.

    Args:
        result: The result.
        lost: Given the types of which something could not be written.
    """
    return f'{{"id": {json_text(result.id)}, "value": {json_text(result.value, lost)}}}\n'


def letter_line(result: PipelineResult[Any], keeps_id: bool = False) -> str:
    """An item that failed, or was cancelled, as one line.

    Its keys are `LETTER_KEYS`, and ``"accepted"``: the run that first accepted it, and its place
    there. So its idempotency keys are repeated when it goes on. If items were made from it before
    it failed, ``"made"`` says how many: these are not made again. If it was made from another,
    ``"origin"`` is the id of the item in the file that this goes back to, which may have to start
    over later.

    Args:
        result: The item.
        keeps_id: Whether an item that was made from another has its own id even if that other one
            is to start over: a journal knows it by this id.
    """
    value, item, error = result.value, result.input, result.error
    if isinstance(item, Item) and result.stage == item.stage:
        value, _ = item.as_read()
    name = None if error is None else error_type_name(error)
    text = "None" if error is None else error_text(error)
    return _letter(result, value, name, text, not survives_json(value), keeps_id)


def unwritten_line(result: PipelineResult[Any], why: str) -> str:
    """A result that could not be written, as a dead letter.

    It has the result as its value. Fed back, the item starts over: an item cannot begin after the
    last stage.
    """
    error = f"done, but the result was not written to {why}"
    return _letter(result, result.value, "NotWritten", error, restarts=True)


def bad_line(error: Exception, text: str, number: int) -> str:
    """A line of the input that is not an item, as a dead letter without a stage."""
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


def is_letter(text: str) -> bool:
    """Whether a line is a dead letter, as `letter_line` writes it."""
    if not text.startswith(f'{{"{LETTER_KEYS[0]}":'):  # nearly all others: read no further
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return all(key in value for key in LETTER_KEYS)


def check_results(path: str) -> None:
    """Refuse a file whose first line is not a result.

    Raises:
        ValueError: It is something else.
    """
    if not _begins_with(path, lambda keys: keys == set(RESULT_KEYS)):
        raise ValueError("has other lines than results")


def check_letters(path: str) -> None:
    """Refuse a file whose first line is not a dead letter.

    Raises:
        ValueError: It is something else.
    """
    if not _begins_with(path, lambda keys: keys >= set(LETTER_KEYS)):
        raise ValueError("has other lines than dead letters")


def survives_json(value: Any) -> bool:
    """Whether a value is the same, including types, after it was written as JSON and read again."""
    try:
        return _survives(value)
    except RecursionError:
        return _survives_deep(value)


def json_text(value: Any, lost: set[str] | None = None) -> str:
    """A value as one line of printable JSON, whatever it is.

    Args:
        value: The value.
        lost: Given the types of which something could not be written.
    """
    tamer = _Tamer(set() if lost is None else lost)
    try:
        return _printable(value if survives_json(value) else tamer.tame(value))
    except Exception:  # an int of more digits than this Python writes
        return _printable(tamer.tame(safe_repr(value, sys.maxsize)))


def named_parts(value: Any) -> dict[str, Any] | None:
    """The parts of a mapping or of `_declared` fields by name; ``None`` if it has none."""
    try:
        declared = _declared(value)
        if not isinstance(declared, Mapping) or isinstance(value, Omitted):
            return None
        parts: dict[Any, Any] = dict(declared)
    except ENDS_THE_PROGRAM:
        raise
    except BaseException:  # why: as in `_Tamer.tame`, which also tells what is lost
        return None
    return parts if all(type(key) is str for key in parts) else None


def _letter(
    result: PipelineResult[Any],
    value: Any,
    error_type: str | None,
    error: str,
    restarts: bool,
    keeps_id: bool = False,
) -> str:
    item, accepted = result.input, first_accepted(result)
    is_item, place = isinstance(item, Item), accepted.place or ()
    is_child = is_item and len(place) > 1
    letter = {
        "id": item.origin if is_child and restarts and not keeps_id else result.id,
        "value": value,
        "stage": result.stage,
        "error_type": error_type,
        "error": error[:LONGEST_ERROR],
        "attempts": result.attempts,
        "input": item.as_read()[1] if is_item else item,
        "restart": restarts,
        "accepted": f"{accepted.scope}:{'.'.join(map(str, place))}" if accepted.scope else None,
    }
    if not restarts and (made := fate_of(result).children):
        letter["made"] = made
    if is_child and not restarts:
        letter["origin"] = item.origin
    return _line(letter)


def _begins_with(path: str, are_keys: Callable[[Set[str]], bool]) -> bool:
    """Whether the first line has such keys, or is only the beginning of a line of ours."""
    try:
        with open(path, "rb") as file:
            line = file.readline(LONGEST_FIRST_LINE).removeprefix(BOM_UTF8).rstrip()
    except OSError:  # it may be written, but not read
        return True
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        begin = f'{{"{LETTER_KEYS[0]}": '.encode()
        return begin.startswith(line[: len(begin)])
    return isinstance(value, dict) and are_keys(value.keys())


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


def _survives_deep(value: Any) -> bool:
    """The same for a value of more levels than `_survives` can go down, or one inside itself."""
    waiting, seen = [value], {id(value)}
    while waiting:
        part = waiting.pop()
        if type(part) is dict and any(type(key) is not str for key in part):
            return False
        if type(part) is dict or type(part) is list:
            inside = part.values() if type(part) is dict else part
            new = [each for each in inside if id(each) not in seen]
            seen.update(map(id, new))
            waiting += new
        elif not _survives(part):
            return False
    try:
        json.loads(json.dumps(value))
    except (ValueError, RecursionError):  # inside itself, or too deep for `json`
        return False
    return True


# From values that JSON can express to those it cannot


class _Tamer:
    """Turns a value into one that JSON can express.

    A part that fails when it is asked for its contents spoils no other part: each has its own
    stand-in.

    Args:
        lost: Given the types of which something is lost.
    """

    def __init__(self, lost: set[str]) -> None:
        self._lost = lost
        self._inside: set[int] = set()
        """The values being taken apart, to notice one that is part of itself."""

    def tame(self, value: Any) -> Any:
        """The stand-in for a value. Never raises."""
        if value is None or type(value) in (bool, str):
            return value
        if id(value) in self._inside:
            return _stand_in(value, "…")
        if len(self._inside) >= MOST_LEVELS:
            self._lost.add(type(value).__name__)
            return _stand_in(value, "…")
        self._inside.add(id(value))
        try:
            return self._contents(value)
        except ENDS_THE_PROGRAM:
            raise
        except BaseException:  # why: RecursionError, or the value's own CancelledError
            return self._by_repr(value)
        finally:
            self._inside.discard(id(value))

    def _contents(self, value: Any) -> Any:
        for kinds, form in FORMS:
            if isinstance(value, kinds):
                return form(value)
        if isinstance(value, Enum):
            return self.tame(value.value)
        if isinstance(value, Mapping):
            return self._object(value)
        if isinstance(value, SEVERAL):
            return [self.tame(part) for part in value]
        if isinstance(value, (set, frozenset)):
            return [self.tame(part) for part in sorted(value, key=safe_repr)]
        if isinstance(value, type):
            return self._by_repr(value)
        if isinstance(value, Omitted):
            note = {name: part for name, part in _declared(value).items() if part is not None}
            return self._object({"type": "Omitted", **note})
        if (declared := _declared(value)) is not value:
            is_object = isinstance(declared, dict)
            return self._object(declared) if is_object else self.tame(declared)
        if callable(listed := getattr(type(value), "tolist", None)):  # of numpy, for example
            return self._listed(value, listed)
        kind: Any = type(value)
        if kind.__repr__ is object.__repr__ and (attributes := _attributes(value)):
            return self._object(attributes)
        return self._by_repr(value)

    def _listed(self, value: Any, listed: Callable[[Any], Any]) -> Any:
        """An array of numpy, a column of pandas, or one of their numbers, dates and records."""
        dtype = getattr(value, "dtype", None)
        kind = getattr(dtype, "kind", None)
        if kind in DATED:  # their times of nanoseconds are listed as bare numbers
            if getattr(value, "shape", None):
                return [self.tame(part) for part in value]
            if type(inner := value[()]) is not type(value):  # an array without dimensions
                return self.tame(inner)
            if names := getattr(dtype, "names", None):
                return [self.tame(value[name]) for name in names]
        parts = listed(value)
        if kind == "M" and type(parts) is int:
            return str(value)
        if type(parts) is type(value) or (kind == "m" and type(parts) is int):
            return self._by_repr(value)  # a long double is its own
        return self.tame(parts)

    def _object(self, value: Mapping[Any, Any]) -> Any:
        pairs = [(_key_text(key), self.tame(part)) for key, part in value.items()]
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        # Keys that differ in Python and would not in JSON: 1 and "1".
        items = [[self.tame(key), self.tame(part)] for key, part in value.items()]
        return {"type": type(value).__name__, "items": items}

    def _by_repr(self, value: Any) -> dict[str, str]:
        nothing = f"<{type_name(value)}: repr() failed>"
        text = str.__str__(asked(repr, value, instead=nothing))  # `safe_repr` joins its lines
        if text == nothing or ADDRESS.search(text):
            self._lost.add(type_name(value))
        return _stand_in(value, text)


def _declared(value: Any) -> Any:
    """The fields that an object's class declares, as a dict; else the object itself.

    A model of pydantic says itself how it looks in JSON. A dataclass, an attrs class and a Struct
    of msgspec name their fields.
    """
    kind: Any = type(value)
    if callable(dump := getattr(kind, "model_dump", None)):
        return dump(value, mode="json")
    if is_dataclass(kind):
        names = [field.name for field in fields(kind)]
    elif isinstance(attributes := getattr(kind, "__attrs_attrs__", None), tuple):
        names = [attribute.name for attribute in attributes]
    elif isinstance(names_of_struct := getattr(kind, "__struct_fields__", None), tuple):
        names = [*names_of_struct]
    else:
        return value
    return {name: getattr(value, name) for name in names}


def _stand_in(value: Any, text: str) -> dict[str, str]:
    return {"type": type(value).__name__, "repr": text}


def _integer(value: int) -> Any:
    plain = int(value)
    return plain if survives_json(plain) else _stand_in(value, hex(plain))


def _float(value: float) -> Any:
    plain = float(value)
    return plain if isfinite(plain) else _stand_in(value, repr(plain))


def _iso(value: Any) -> str | None:
    # Only the NaT of pandas is unequal to itself. That of numpy becomes null as well.
    return value.isoformat() if value == value else None


def _bytes(value: Any) -> dict[str, str]:
    return {"type": type(value).__name__, "base64": b64encode(bytes(value)).decode()}


def _key_text(key: Any) -> str:
    """A key of an object; None, bools and numbers as `json` has them."""
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, (int, float)) and type(key) is not bool:
        key = float(key) if isinstance(key, float) else int(key)  # of a subclass: numpy's float64
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key) if survives_json(key) else safe_repr(key)
    return safe_str(key)


def _attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object, as far as they are known without asking it."""
    slots = [
        name
        for kind in type(value).__mro__
        for name in _names(getattr(kind, "__slots__", ()))
        if name not in ("__dict__", "__weakref__")
    ]
    found = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return found | getattr(value, "__dict__", {})


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


SEVERAL = (list, tuple, deque, KeysView, ValuesView, ItemsView)

DATED = ("M", "m", "V")
"""Kinds of numpy's data that are times, durations or records, which may have some."""

ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+>")
"""In the repr of an object that says where it is rather than what."""

FORMS: list[tuple[Any, Callable[[Any], Any]]] = [
    (str, str.__str__),
    (bool, bool),
    (int, _integer),
    (float, _float),
    ((bytes, bytearray, memoryview), _bytes),
    ((date, time), _iso),
    ((Decimal, PurePath, UUID), str),
]


def _printable(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # Characters a terminal would obey, or no encoding can hold, become \u escapes.
    return text if text.isprintable() else json.dumps(value, allow_nan=False)
