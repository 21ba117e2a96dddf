"""Safe access to the user's objects, so that none of them can break a run.

Items, values, ids, errors and answers may be of any class, and ordinary questions about them run
code of that class: ``isinstance`` reads ``__class__``, a dict calls ``__hash__`` and ``__eq__``, an
attribute may be a property, and each of these may raise or answer nonsense. The library asks such
objects only through this module. If a question fails, the answer is the one that an object without
that ability would give.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from inspect import CO_ITERABLE_COROUTINE
from numbers import Complex, Number, Real
from operator import index
from types import GeneratorType, TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from antflow._core.type_variables import TypeIs

Kind = TypeVar("Kind")
Answer = TypeVar("Answer")
Instead = TypeVar("Instead")
Error = TypeVar("Error", bound=BaseException)

ENDS_THE_PROGRAM = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""Errors that always pass. Any other error is the object's own fault."""

# These bypass properties and setters of the class and of its metaclass.
_name_of = type.__dict__["__name__"].__get__
_qualified_name_of = type.__dict__["__qualname__"].__get__
_module_of = type.__dict__["__module__"].__get__
_line_of = type.__dict__["__mro__"].__get__
_cause_of = BaseException.__dict__["__cause__"].__get__
_context_of = BaseException.__dict__["__context__"].__get__
_traceback_of = BaseException.__dict__["__traceback__"].__get__
_add_note = BaseException.add_note
_set_attribute = BaseException.__setattr__
_set_cause = BaseException.__dict__["__cause__"].__set__
_members_of = BaseExceptionGroup.__dict__["exceptions"].__get__
_message_of = BaseExceptionGroup.__dict__["message"].__get__


def asked(question: Callable[..., Answer], *args: Any, instead: Instead) -> Answer | Instead:
    """Return ``question(*args)``, or ``instead`` if that raises."""
    try:
        return question(*args)
    except ENDS_THE_PROGRAM:
        raise
    except BaseException:  # why: a CancelledError from here is as meaningless as any other error
        return instead


def is_a(value: object, kind: type[Kind] | tuple[type[Kind], ...]) -> TypeIs[Kind]:
    """Whether an object is of a class, by its type alone, as ``except`` matches errors.

    ``isinstance`` would also trust ``__class__``, which may be a user's property.
    """
    try:
        return issubclass(type(value), kind)
    except ENDS_THE_PROGRAM:
        raise
    except BaseException:  # why: a metaclass raised; Python's own check does not ask it
        kinds = (kind,) if isinstance(kind, type) else kind
        return any(type.__subclasscheck__(each, type(value)) for each in kinds)


def is_plain(value: object) -> bool:
    """Whether an object runs none of the user's code, so that anything can be done with it."""
    kind = type(value)  # no lookup in a set: that would call a metaclass's __hash__
    return (
        kind is str
        or kind is int
        or value is None
        or kind is bool
        or kind is float
        or kind is bytes
    )


def is_awaitable(value: object) -> bool:
    """`inspect.isawaitable`, by the type alone."""
    if is_a(value, Awaitable):
        return True
    return is_a(value, GeneratorType) and bool(value.gi_code.co_flags & CO_ITERABLE_COROUTINE)


def attribute(value: object, name: str, default: Any = None) -> Any:
    """`getattr` with a default, even for attributes that raise."""
    return asked(getattr, value, name, default, instead=default)


def type_name(value: object) -> str:
    """The name of an object's class, as a plain string."""
    return str.__str__(_name_of(type(value)))


def class_names(kind: type) -> set[str]:
    """The names of a class and of its bases, alone and with their modules."""
    names: set[str] = set()
    for each in _line_of(kind):
        names.add(str.__str__(_name_of(each)))
        if is_a(module := asked(_module_of, each, instead=None), str):
            names.add(f"{str.__str__(module)}.{str.__str__(_qualified_name_of(each))}")
    return names


def number(value: Any) -> int | float | None:
    """A number as a plain ``int`` or ``float``; ``None`` for ``bool`` and anything else.

    It may be of a class that only behaves like one of these: numpy's integers have ``__index__``,
    and its floats are a `numbers.Real`. A `decimal.Decimal` counts as its ``float`` value.
    """
    if issubclass(type(value), bool):
        return None
    if issubclass(type(value), int):
        return int.__int__(value)
    if issubclass(type(value), float):
        return float.__float__(value)
    whole: int | None = asked(index, value, instead=None)
    if whole is not None:
        return whole
    # A `decimal.Decimal` is a `Number`, but no `Real`. A complex number has a part too many.
    is_one = is_a(value, Real) or (is_a(value, Number) and not is_a(value, Complex))
    return asked(float, value, instead=None) if is_one else None


# Errors


def traceback_of(error: BaseException) -> TracebackType | None:
    """An error's ``__traceback__``."""
    traceback: TracebackType | None = _traceback_of(error)
    return traceback


def with_traceback(error: Error, traceback: TracebackType | None) -> Error:
    """`BaseException.with_traceback`, even if the class overrides that method."""
    BaseException.with_traceback(error, traceback)
    return error


def members_of(group: BaseExceptionGroup[BaseException]) -> tuple[BaseException, ...]:
    """The exceptions in a group."""
    members: tuple[BaseException, ...] = _members_of(group)
    return members


def message_of(group: BaseExceptionGroup[BaseException]) -> str:
    """A group's own message."""
    return str.__str__(_message_of(group))


def cause_of(error: BaseException) -> BaseException | None:
    """An error's ``__cause__``."""
    cause: BaseException | None = _cause_of(error)
    return cause


def context_of(error: BaseException) -> BaseException | None:
    """An error's ``__context__``."""
    context: BaseException | None = _context_of(error)
    return context


class Note(str):
    """A note of this library on an error of the user's: it is part of the text that is told."""

    __slots__ = ()


def note(error: BaseException, text: str) -> None:
    """Add a `Note`, once; an error whose notes are not a list goes without."""
    if text in notes_of(error):
        return
    if attribute(error, "__notes__") is None:  # `add_note` would ask the class, which may be frozen
        asked(_set_attribute, error, "__notes__", [], instead=None)
    asked(_add_note, error, Note(text), instead=None)


def notes_of(error: BaseException) -> list[str]:
    """The texts of an error's `Note` objects."""
    notes = attribute(error, "__notes__")
    return [str(each) for each in notes if type(each) is Note] if type(notes) is list else []


def set_cause(error: BaseException, cause: BaseException | None) -> None:
    """Set an error's ``__cause__``, even if it is a frozen dataclass."""
    _set_cause(error, cause)


# Ids


class Key:
    """An id of the user's own class, as a key of a dict.

    Its hash is read once, so a later change of the hash does no harm. An id that cannot be compared
    is equal only to itself, and so is one whose ``==`` has no truth value.

    Args:
        item_id: The id.
    """

    __slots__ = ("_hash", "item_id")

    def __init__(self, item_id: Any) -> None:
        self.item_id: Final = item_id
        self._hash = asked(hash, item_id, instead=id(item_id))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return Key, (self.item_id,)  # in another process its hash may be another one

    def __eq__(self, other: object) -> bool:
        theirs = id_of(other)
        return self.item_id is theirs or asked(_are_equal, self.item_id, theirs, instead=False)


def key_of(item_id: Any) -> Hashable:
    """The key for an id in a dict or set: usually the id itself, otherwise a `Key`."""
    return item_id if is_plain(item_id) else Key(item_id)


def id_of(key: Any) -> Any:
    """The id that a key stands for."""
    return key.item_id if type(key) is Key else key


def is_hashable(value: object) -> bool:
    """Whether an object has a hash."""
    return asked(hash, value, instead=None) is not None


def _are_equal(one: Any, other: Any) -> bool:
    return bool(one == other)
