"""Values that can be pickled and copied, whatever user objects are in them.

Errors are pickled by `antflow._core.error_copies`, so that none can keep the rest from being
loaded. A value is pickled as it is and never replaced: if it cannot be pickled, that raises an
error that names the item.

A copy shares its errors with the original. A deep copy also shares the values that cannot be
copied.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields
from reprlib import recursive_repr
from typing import Any, ClassVar, Self, SupportsIndex, TypeVar

from antflow._core.error_copies import Parcel, packed, unpacked
from antflow._core.foreign import asked, attribute, is_a, is_plain, type_name
from antflow._core.text import safe_repr, safe_str

V = TypeVar("V")

NOT_COPIED = object()


class Portable:
    """Base of dataclasses with slots that can be pickled with every protocol.

    Those that hold user objects are made with ``repr=False``.

    Attributes:
        FOREIGN: Names of the fields with such objects; the first one is the item's id.
        ERRORS: Names of the fields with an error, or with a dict in which some values are errors.
        MORE: Names of slots that are not fields but belong to the value if they are set.
    """

    __slots__ = ()

    FOREIGN: ClassVar[tuple[str, ...]] = ()
    ERRORS: ClassVar[tuple[str, ...]] = ()
    MORE: ClassVar[tuple[str, ...]] = ()

    def __dir__(self) -> list[str]:
        return public_names(self)

    @recursive_repr()
    def __repr__(self) -> str:
        # As dataclasses have it, but what cannot be shown costs its own field.
        itself: Any = self  # only its subclasses are dataclasses
        names = fields(itself)
        values = ((each.name, getattr(self, each.name, None)) for each in names)
        shown = ", ".join(f"{name}={safe_repr(value, sys.maxsize)}" for name, value in values)
        return f"{type(self).__qualname__}({shown})"

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        values = _values_of(self)
        for name in self.ERRORS:
            values[name] = _each_error(values[name], packed, BaseException)
        for name in self.FOREIGN:
            _check(self, name, values[name], protocol)
        return _restored, (type(self), values)

    def __copy__(self) -> Self:
        return _filled(object.__new__(type(self)), _values_of(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copy = memo[id(self)] = object.__new__(type(self))
        values = _values_of(self)
        for name, value in values.items():
            if name in self.ERRORS:
                values[name] = _each_error(value, lambda error: error, BaseException)
            elif name in self.FOREIGN:
                values[name] = _copied(value, memo)
            else:
                values[name] = deepcopy(value, memo)
        return _filled(copy, values)


def public_names(value: Any) -> list[str]:
    """The names that completion offers: what users read, and none of the machinery."""
    hidden = {*_MACHINERY, *getattr(value, "MORE", ())}
    names = object.__dir__(value)
    return [name for name in names if not name.startswith("_") and name not in hidden]


_MACHINERY = ("FOREIGN", "ERRORS", "MORE")


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of a value, or the value itself if it cannot be copied."""
    known = len(memo)
    copy = asked(deepcopy, value, memo, instead=NOT_COPIED)
    if copy is not NOT_COPIED:
        return copy
    while len(memo) > known:  # unfinished copies, which everything else that has them would get
        memo.popitem()
    return value


def _values_of(value: Any) -> dict[str, Any]:
    names = [*(each.name for each in fields(value)), *value.MORE]
    values = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return values | getattr(value, "__dict__", {})  # of a subclass


def _filled(value: V, values: dict[str, Any]) -> V:
    for name, each in values.items():
        object.__setattr__(value, name, each)  # some are frozen
    return value


def _restored(kind: type[Portable], values: dict[str, Any]) -> Any:
    for name in kind.ERRORS:
        values[name] = _each_error(values[name], unpacked, Parcel)
    return _filled(object.__new__(kind), values)


def _each_error(value: Any, change: Callable[[Any], Any], kind: type) -> Any:
    """Change a value of this kind, or the values of this kind in a dict."""
    if type(value) is dict:
        return {key: change(each) if is_a(each, kind) else each for key, each in value.items()}
    return change(value) if is_a(value, kind) else value


def _check(holder: Portable, name: str, value: object, protocol: SupportsIndex) -> None:
    if is_plain(value) or (type(value) is dict and not value):
        return
    import pickle

    try:
        pickle.dumps(value, int(protocol))
    except Exception as error:
        item = safe_repr(attribute(holder, holder.FOREIGN[0]))
        raise pickle.PicklingError(
            f"{type_name(holder)} of item {item}: its {name}, of type {type_name(value)}, "
            f"cannot be pickled: {safe_str(error)}"
        ) from error
