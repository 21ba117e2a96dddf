"""The items a run is fed with."""

from __future__ import annotations

from collections import UserString, deque
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence, Set, Sized
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any

from antflow._core.checks import Refuse, examine, refusal, takes
from antflow._core.foreign import asked, attribute, is_a
from antflow._core.result import ORDINARY, Fate
from antflow._core.text import safe_repr, safe_str

Items = Iterable[Any] | AsyncIterable[Any]
"""Items as they are handed in: see `antflow.Pipeline.run`."""


Key = str | Callable[[Any], Any]
"""What gives an item's id: the name of a field, or a function of the item."""


def check_key(refuse: Refuse, name: str, value: Any) -> None:
    """Refuse what is neither ``None``, nor a name, nor a function of one argument."""
    if value is None or (is_a(value, str) and value):
        return
    if not callable(value) or not examine(refuse, name, _is_plain_function, value):
        allowed = "must be the name of a field, or a plain function that is called with an item"
        raise refusal(refuse, name, value, allowed)


def _is_plain_function(function: Callable[..., Any]) -> bool:
    return takes(function, 1) and not iscoroutinefunction(function)


def field_reader(name: str) -> Callable[[Any], Any]:
    """A function that reads a field of an item: of a mapping or a row by key, else an attribute."""

    def read(item: Any) -> Any:
        try:
            return item[name] if hasattr(type(item), "keys") else getattr(item, name)
        except (LookupError, AttributeError) as error:
            text = f"key={name!r}: the item has no such field: {safe_repr(item)}"
            raise ValueError(text) from error

    return read


class Returned(dict[str, Any]):
    """An item, with ``id`` and ``value``, that an earlier run may have accepted.

    Args:
        fields: Its keys.
        fate: The run and the place at which it was accepted, and how many items were made from it
            in the stage where it goes on.
        own_id: The id that it brought; ``None`` if its ``id`` was made for it, like a running
            number. It may have another name by now.
    """

    def __init__(self, fields: dict[str, Any], fate: Fate = ORDINARY, own_id: Any = None) -> None:
        super().__init__(fields)
        self.fate: Fate = fate
        self.own_id: Any = own_id

    @property
    def content(self) -> Any:
        """The item, whatever its id: its value as it came first."""
        return self["value"]


def content_of(item: Any) -> Any:
    """The item as a journal knows it: what the user has fed."""
    return item.content if is_a(item, Returned) else item


STRINGS = (str, bytes, bytearray, memoryview, UserString)
"""Types of one value each, although they can be iterated."""

KNOW_THEIR_LENGTH = (list, tuple, range, set, frozenset, deque)
"""Types whose length is at hand. A subclass may count in its own way, so it is not one of them."""


def check_items(items: object, name: str = "items") -> None:
    """Refuse an argument that does not give items, or hardly the intended ones."""
    if what := examine(TypeError, name, _parts_of, items):
        raise refusal(
            TypeError, name, items, f"would be taken apart into its {what}; wrap it in a list"
        )
    if is_table(items):
        allowed = "would be taken apart into its columns; pass its rows, such as frame.itertuples()"
        raise refusal(TypeError, name, items, f"{allowed} or frame.iter_rows()")
    if not examine(TypeError, name, _gives_items, items):
        allowed = "must be an iterable or an async iterable"
        if examine(TypeError, name, _generates, items):
            function = safe_str(attribute(items, "__name__", "function"))
            allowed = f"is a generator function: call it: {function}()"
        raise refusal(TypeError, name, items, allowed, "await it, or write an async generator")


def is_like_a_list(value: object) -> bool:
    """Whether an object is an ordered collection of values: a list, an array, a series.

    It is judged by its class: an array of NumPy is no `Sequence`.
    """
    if is_a(value, (*STRINGS, Mapping, Set)) or is_table(value):
        return False
    if not is_a(value, Sized) or not (is_a(value, Iterable) or is_a(value, Sequence)):
        return False
    return asked(len, value, instead=None) is not None  # an array of no dimension has no length


def is_table(value: object) -> bool:
    """Whether an object is a data frame (pandas, Polars, Arrow): it iterates over its columns."""
    kind = type(value)
    return attribute(kind, "columns") is not None and attribute(kind, "shape") is not None


def is_model(value: object) -> bool:
    """Whether an object is a model of pydantic that iterates over its fields, as most do.

    One with an ``__iter__`` of its own may be a collection.
    """
    where = attribute(attribute(type(value), "__iter__"), "__module__")
    return type(where) is str and where.startswith("pydantic.")


def _parts_of(items: object) -> str:
    """The parts that would be taken for items, though hardly intended."""
    if isinstance(items, STRINGS):
        return "characters" if isinstance(items, (str, UserString)) else "bytes"
    if isinstance(items, Mapping):
        return "keys"
    return "fields" if is_model(items) else ""


def _generates(items: object) -> bool:
    return isasyncgenfunction(items) or isgeneratorfunction(items)


def _gives_items(items: object) -> bool:
    return isinstance(items, (Iterable, AsyncIterable)) or hasattr(type(items), "__getitem__")


def expected_count(
    items: Items, total: int | None, more: int = 0
) -> tuple[int | None, Callable[[], int] | None]:
    """How many items there will be: the number, or how to ask the items for it.

    An object may have to ask a database for its length, so it is asked only if that is needed.

    Args:
        items: The items.
        total: The user's ``total=``.
        more: How many items there are in addition.
    """
    if total is not None:
        return total, None
    if type(items) in KNOW_THEIR_LENGTH:
        return _length(items) + more, None
    return None, (lambda: _length(items) + more) if isinstance(items, Sized) else None


def _length(items: Any) -> int:
    return len(items)
