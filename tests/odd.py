"""Objects of odd classes: ordinary questions about them raise, or are answered with nonsense."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from antflow import Drop


class Refused(Exception):
    """What odd objects raise."""


def refuse(*args: Any, **kwargs: Any) -> NoReturn:
    """Stands for any method."""
    raise Refused


def cancel(*args: Any, **kwargs: Any) -> NoReturn:
    """Stands for any method, and raises what is no `Exception`."""
    raise asyncio.CancelledError


def odd_class(name: str, *bases: type, meta: Any = type, **methods: Any) -> Any:
    """A class with these methods."""
    return meta(name, bases or (object,), methods)


def odd_type(**methods: Any) -> Any:
    """A class whose class has these methods."""
    meta = odd_class("Meta", type, **methods)
    return odd_class("OddType", meta=meta)


def without_attributes(self: Any, name: str) -> NoReturn:
    """A ``__getattribute__`` that refuses everything."""
    raise Refused(name)


REFUSED = property(refuse)
ALL_METHODS = [
    *("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__bool__"),
    *("__len__", "__iter__", "__contains__", "__getitem__", "__str__", "__repr__", "__format__"),
    *("__int__", "__float__", "__index__", "__reduce_ex__", "__await__", "__aiter__", "__call__"),
    *("__dir__", "__sizeof__", "__copy__", "__deepcopy__", "__mul__", "__add__", "__sub__"),
]
ALL_REFUSED: dict[str, Any] = dict.fromkeys(ALL_METHODS, refuse)
_hashes = itertools.count()


class Text(str):
    """A string with ideas of its own."""

    __str__ = __repr__ = __len__ = __eq__ = __format__ = refuse
    __hash__ = __getitem__ = __iter__ = refuse


class Answer:
    """``==`` gives something without a truth."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> Any:
        return odd_class("NoTruth", __bool__=refuse)()


class OddKey:
    """Has the hash of "id", and cannot be compared with it."""

    def __hash__(self) -> int:
        return hash("id")

    def __eq__(self, other: object) -> NoReturn:
        raise Refused


def endless() -> Iterator[Any]:
    """A generator that is never asked for anything."""
    yield from ()


VALUES: dict[str, Callable[[], Any]] = {
    "__class__ raises": odd_class("A", __class__=REFUSED),
    "__class__ raises CancelledError": odd_class("A", __class__=property(cancel)),
    "__class__ lies": odd_class("A", __class__=property(lambda self: dict)),
    "__hash__ raises": odd_class("B", __hash__=refuse),
    "__hash__ raises CancelledError": odd_class("B", __hash__=cancel),
    "__hash__ changes": odd_class("B", __hash__=lambda self: next(_hashes)),
    "__eq__ raises": odd_class("C", __eq__=refuse, __hash__=lambda self: 1),
    "__eq__ raises CancelledError": odd_class("C", __eq__=cancel, __hash__=lambda self: 1),
    "__eq__ has no truth": Answer,
    "__eq__ is always true": odd_class("C", __eq__=lambda *_: True, __hash__=lambda self: 2),
    "__bool__ raises": odd_class("D", __bool__=refuse),
    "__bool__ is no bool": odd_class("D", __bool__=lambda self: 3),
    "__len__ raises": odd_class("E", __len__=refuse),
    "__iter__ raises": odd_class("E", __iter__=refuse),
    "__str__ raises": odd_class("F", __str__=refuse, __repr__=refuse),
    "__str__ raises CancelledError": odd_class("F", __str__=cancel, __repr__=cancel),
    "__str__ is no text": odd_class("F", __str__=lambda self: 3, __repr__=lambda self: None),
    "__str__ is odd text": odd_class(
        "F", __str__=lambda self: Text("x"), __repr__=lambda s: Text()
    ),
    "no attributes": odd_class("G", __getattribute__=without_attributes),
    "nothing works": odd_class("H", __class__=REFUSED, **ALL_REFUSED),
    "metaclass without hash": lambda: odd_type(__hash__=refuse)(),
    "metaclass that is equal to all": lambda: odd_type(
        __eq__=lambda *_: True, __hash__=lambda self: 1
    )(),
    "metaclass that cannot compare": lambda: odd_type(
        __eq__=refuse, __hash__=lambda self: hash(int)
    )(),
    "metaclass without a name": lambda: odd_type(__name__=REFUSED)(),
    "metaclass that refuses isinstance": lambda: odd_type(
        __instancecheck__=refuse, __subclasscheck__=refuse, __getattribute__=without_attributes
    )(),
    "dict without in": odd_class("I", dict, __contains__=refuse),
    "dict that says it has an id": odd_class("I", dict, __contains__=lambda *_: True),
    "dict that cannot be copied": lambda: odd_class("I", dict, __iter__=refuse, keys=refuse)(id=7),
    "dict with an odd key": lambda: {OddKey(): 1},
    "str": lambda: Text("x"),
    "int": lambda: odd_class("J", int, **ALL_REFUSED)(5),
    "float": lambda: odd_class("J", float, __le__=refuse, __ge__=refuse, __float__=refuse)(5),
    "list": lambda: odd_class("K", list, __iter__=refuse, __len__=refuse)([1]),
    "tuple": lambda: odd_class("K", tuple, __iter__=refuse, __hash__=refuse)([1]),
    "set": lambda: {77},
    "tuple with a set": lambda: (77, {78}),
    "bytearray": lambda: bytearray(b"x"),
    "nan": lambda: float("nan"),
    "complex": lambda: complex(1),
    "awaitable that raises": odd_class("L", __await__=refuse),
    "close raises": odd_class("M", close=refuse, __await__=refuse, aclose=refuse),
    "iterator that raises": odd_class("N", __iter__=lambda self: self, __next__=refuse),
    "async iterator that raises": odd_class("N", __aiter__=lambda s: s, __anext__=refuse),
    "generator": endless,
    "class": lambda: odd_type(__call__=refuse),
    "error": lambda: odd_class("O", Exception, __class__=REFUSED)(),
}
"""What is odd → makes one."""


@dataclass(frozen=True)
class Frozen(Exception):
    """None of its attributes can be set."""

    code: int = 3


class Needy(Exception):
    """Its constructor wants more than it hands on."""

    def __init__(self, status: int, *, reason: str) -> None:
        super().__init__(f"{status} {reason}")


class Group(ExceptionGroup[Exception]):
    """A group that hides what is in it."""

    exceptions = REFUSED
    message = REFUSED


def odd_error(**methods: Any) -> Callable[[], Exception]:
    """Makes exceptions of a class with these methods."""
    kind = odd_class("OddError", Exception, **methods)
    return lambda: kind("no")


def its_own_cause() -> Exception:
    """An exception that was caused by itself."""
    error = Refused("round")
    error.__cause__ = error
    return error


ERRORS: dict[str, Callable[[], BaseException]] = {
    "original_exception is a text": odd_error(original_exception="HTTP 429"),
    "original_exception is a class": odd_error(original_exception=ValueError),
    "original_exception raises": odd_error(original_exception=REFUSED),
    "original_exception is odd": odd_error(original_exception=odd_error(__class__=REFUSED)()),
    "stands_for_original raises": odd_error(
        original_exception=ValueError("no"), stands_for_original=REFUSED
    ),
    "__class__ raises": odd_error(__class__=REFUSED),
    "__class__ raises CancelledError": odd_error(__class__=property(cancel)),
    "__class__ lies": odd_error(__class__=property(lambda self: Drop)),
    "with_traceback raises": odd_error(with_traceback=refuse),
    "with_traceback is no method": odd_error(with_traceback="no"),
    "__traceback__ raises": odd_error(__traceback__=REFUSED),
    "__cause__ raises": odd_error(__cause__=REFUSED, __context__=REFUSED),
    "__notes__ raises": odd_error(__notes__=REFUSED),
    "args raises": odd_error(args=REFUSED),
    "__str__ raises": odd_error(__str__=refuse, __repr__=refuse),
    "__str__ raises CancelledError": odd_error(__str__=cancel, __repr__=cancel),
    "__str__ is no text": odd_error(__str__=lambda self: 3),
    "__str__ is odd text": odd_error(__str__=lambda self: Text("x")),
    "__eq__ raises": odd_error(__eq__=refuse, __hash__=lambda self: 1),
    "__hash__ raises": odd_error(__hash__=refuse),
    "__bool__ raises": odd_error(__bool__=refuse, __len__=refuse),
    "__reduce__ raises": odd_error(__reduce__=refuse, __reduce_ex__=refuse),
    "nothing can be set": odd_error(__setattr__=refuse),
    "no attributes": odd_error(__getattribute__=without_attributes),
    "nothing works": odd_error(__class__=REFUSED, **ALL_REFUSED),
    "frozen": Frozen,
    "constructor wants more": lambda: Needy(429, reason="slow down"),
    "metaclass without a name": lambda: odd_class(
        "OddError", Exception, meta=odd_class("Meta", type, __name__=REFUSED, __hash__=refuse)
    )("no"),
    "metaclass that refuses isinstance": lambda: odd_class(
        "OddError",
        Exception,
        meta=odd_class("Meta", type, __instancecheck__=refuse, __subclasscheck__=refuse),
    )("no"),
    "group": lambda: Group("no", [ValueError()]),
    "group of odd ones": lambda: ExceptionGroup("no", [odd_error(__class__=REFUSED)()]),
    "its own cause": its_own_cause,
    "StopIteration": StopIteration,
    "CancelledError": asyncio.CancelledError,
}
"""What is odd → makes one."""
