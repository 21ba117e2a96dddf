"""Classes of the user's own whose objects can be kept, and how these are taken apart and rebuilt.

They are found by their names, in the table that the user has given and nowhere else, so that a file
can choose no class. Objects are rebuilt as pickle does it, from their fields, without ``__init__``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cached_property, partial
from typing import Any

from antflow._core.checks import refusal
from antflow._core.errors import NotRestorable

Pack = Callable[[Any, int], Any]
"""Makes plain JSON of a value: ``pack(value, levels)``; its parts may be nested so deep."""


class Unpackable(Exception):
    """A value that cannot be kept.

    Attributes:
        problem: Which class is in the way, and what to do.
        path: Where in the value.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem: str = problem
        self.path: str = ""


class Registered:
    """One class.

    Args:
        kind: The class.

    Attributes:
        kind: The same.
        name: Its name, without the module: that of the module changes when it is run as a program.
    """

    def __init__(self, kind: Any) -> None:
        self.kind: Any = kind
        self.name: str = kind.__qualname__

    def pack_with(self, pack: Pack) -> Pack:
        """A function that makes plain JSON of an object, whose parts are packed with ``pack``."""
        raise NotImplementedError

    def restored(self, packed: Any) -> Any:
        """The object that was packed, of parts that are restored already."""
        raise NotImplementedError


def registered(types: Iterable[type]) -> dict[str, Registered]:
    """The classes by their names.

    Raises:
        TypeError: One of them is neither a dataclass, nor a named tuple, nor an Enum, or its
            objects cannot be rebuilt from their fields.
        ValueError: Two of them have one name.
    """
    found: dict[str, Registered] = {}
    for kind in types:
        if not can_be_registered(kind):
            raise refusal(TypeError, "types", kind, "must be dataclasses, named tuples and Enums")
        try:
            made = _registered(kind)
        except TypeError as error:
            told = f"objects cannot be rebuilt from their fields: {error}"
            raise refusal(TypeError, "types", kind, told) from error
        if found.setdefault(made.name, made).kind is not kind:
            raise refusal(ValueError, "types", kind, f"another one is called {made.name!r}, too")
    return found


def can_be_registered(kind: object) -> bool:
    """Whether it is a class of the kinds that `registered` takes."""
    return isinstance(kind, type) and (
        issubclass(kind, Enum) or is_dataclass(kind) or _is_named_tuple(kind)
    )


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def _registered(kind: type) -> Registered:
    if issubclass(kind, Enum):
        return _Enum(kind)
    return _NamedTuple(kind) if _is_named_tuple(kind) else _Dataclass(kind)


class _Enum(Registered):
    def pack_with(self, pack: Pack) -> Pack:
        name, members = self.name, self.kind.__members__

        def pack_member(value: Any, levels: int) -> Any:
            if value.name in members:
                return {"$enum": [name, value.name]}
            return {"$enum": [name, pack(value.value, levels)]}  # several flags

        return pack_member

    def restored(self, packed: Any) -> Any:
        return self.kind[packed] if type(packed) is str else self.kind(packed)


class _Fields(Registered):
    """A class whose objects are their fields.

    Attributes:
        fields: The names of the fields, each with a function that makes its default, if it has one.
    """

    fields: dict[str, Callable[[], Any] | None]

    def pack_with(self, pack: Pack) -> Pack:
        name = self.name

        def pack_object(value: Any, levels: int) -> Any:
            self._refuse_more(value)
            packed = {}
            for field in self.fields:
                try:
                    packed[field] = pack(getattr(value, field), levels)
                except Unpackable as error:
                    error.path = f".{field}{error.path}"
                    raise
                except AttributeError as error:
                    told = f"{an(name)} without a value in its field {field!r}"
                    raise Unpackable(told) from error
            if len(packed) == 1 and next(iter(packed)).startswith("$"):
                raise Unpackable(f"a field called {next(iter(packed))!r}")
            return {"$object": [name, packed]}

        return pack_object

    def restored(self, packed: Any) -> Any:
        if unknown := packed.keys() - self.fields.keys():
            raise NotRestorable(f"{self.name} has no field {min(unknown)!r} any more")
        values = {}
        for field, default in self.fields.items():
            if field in packed:
                values[field] = packed[field]
            elif default is not None:
                values[field] = default()
            else:
                told = f"{self.name} has a field {field!r} without default, and the value has none"
                raise NotRestorable(told)
        return self._made(values)

    def _made(self, values: dict[str, Any]) -> Any:
        raise NotImplementedError

    def _refuse_more(self, value: Any) -> None:
        """Refuse an object with attributes of its own, except results of a `cached_property`."""
        for name in getattr(value, "__dict__", {}):
            if name not in self.fields and not isinstance(
                getattr(self.kind, name, None), cached_property
            ):
                raise Unpackable(
                    f"{an(self.name)} with an attribute {name!r} that is not one of its fields"
                )


class _Dataclass(_Fields):
    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        object.__new__(kind)  # refuses subclasses of list and the like, and abstract classes
        self.fields = {field.name: _default_of(field) for field in fields(kind)}

    def _made(self, values: dict[str, Any]) -> Any:
        made = object.__new__(self.kind)
        for name, value in values.items():
            object.__setattr__(made, name, value)
        return made


class _NamedTuple(_Fields):
    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        defaults = kind._field_defaults
        self.fields = {
            name: partial(defaults.__getitem__, name) if name in defaults else None
            for name in kind._fields
        }

    def _made(self, values: dict[str, Any]) -> Any:
        return tuple.__new__(self.kind, values.values())


def _default_of(field: Any) -> Callable[[], Any] | None:
    if field.default_factory is not MISSING:
        factory: Callable[[], Any] = field.default_factory
        return factory
    return None if field.default is MISSING else lambda: field.default


def an(noun: str) -> str:
    """A noun with its article."""
    return f"{'an' if noun[:1] in 'AEIOUaeiou' else 'a'} {noun}"
