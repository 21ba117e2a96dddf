"""Values of all kinds that a journal keeps, and an equality that sees every difference."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, timedelta, timezone
from enum import Enum, Flag, IntEnum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from hypothesis import strategies as st


class Colour(Enum):
    RED = "r"
    BLUE = ("b", 2)


class Mode(Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Size(IntEnum):
    SMALL = 1


class Word(StrEnum):
    YES = "yes"


@dataclass
class Order:
    id: Any
    lines: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Point:
    x: Any
    y: Any = 0


class Pair(NamedTuple):
    left: Any
    right: Any = None


TYPES: list[type] = [Colour, Mode, Size, Word, Order, Point, Pair]


def words() -> st.SearchStrategy[str]:
    """Text, with lone surrogates, and with what tags look like."""
    return st.text() | st.text(st.characters(categories=["Cs", "Ll"])) | st.sampled_from(["$tuple"])


def hashable_leaves() -> st.SearchStrategy[Any]:
    named = st.sampled_from(["Europe/Paris", "America/New_York"]).map(ZoneInfo)
    zones = st.sampled_from([None, UTC, timezone(timedelta(hours=-3, seconds=7))]) | named
    return st.one_of(
        st.none(),
        st.booleans(),
        words(),
        st.integers() | st.integers().map(lambda number: number**99),
        st.floats(),
        st.binary(),
        st.complex_numbers(),
        st.dates(),
        st.times(timezones=zones),
        st.datetimes(timezones=zones, allow_imaginary=False),
        st.timedeltas(),
        st.decimals().filter(lambda number: not number.is_snan()),  # has no hash
        st.uuids(),
        st.sampled_from([Path("a/b"), Path("/"), Path("caf\udce9")]),
        st.sampled_from([*Colour, *Size, *Word, Mode.READ, Mode.READ | Mode.RUN, Mode(0)]),
    )


def values() -> st.SearchStrategy[Any]:
    """Values of all kinds, nested."""
    keys = st.recursive(
        hashable_leaves(), lambda part: st.tuples(part) | st.frozensets(part), max_leaves=3
    )
    leaves = keys | st.binary().map(bytearray) | st.sets(keys, max_size=3)
    return st.recursive(
        leaves,
        lambda part: st.one_of(
            st.lists(part, max_size=4),
            st.lists(part, max_size=4).map(tuple),
            st.dictionaries(words(), part, max_size=4),
            st.dictionaries(st.sampled_from(["$tuple", "$dict", "$"]), part, max_size=1),
            st.dictionaries(keys, part, max_size=4),
            st.builds(Order, part, st.lists(part, max_size=2)),
            st.builds(Point, part, part),
            st.builds(Pair, part, part),
        ),
        max_leaves=8,
    )


def plain_values() -> st.SearchStrategy[Any]:
    """Values that JSON knows."""
    finite = st.floats(allow_nan=False, allow_infinity=False)
    leaves = st.none() | st.booleans() | st.integers() | st.text() | finite
    keys = st.text(st.characters(exclude_characters="$", codec="utf-8"))
    return st.recursive(
        leaves, lambda part: st.lists(part) | st.dictionaries(keys, part), max_leaves=8
    )


def are_the_same(one: Any, other: Any) -> bool:
    """Whether two values are equal, to the type and the bit, with the same order of keys."""
    kind = type(one)
    if type(other) is not kind:
        return False
    if kind is float:
        return repr(one) == repr(other)
    if kind is complex:
        return are_the_same((one.real, one.imag), (other.real, other.imag))
    if issubclass(kind, list | tuple):
        return len(one) == len(other) and all(map(are_the_same, one, other))
    if kind is dict:
        return are_the_same([*one.items()], [*other.items()])
    if is_dataclass(kind):
        return all(
            are_the_same(getattr(one, each.name), getattr(other, each.name))
            for each in fields(kind)
        )
    return _shown(one) == _shown(other)


def _shown(value: Any) -> str:
    """What tells a value from others, but for the order of a set."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__} of {sorted(map(_shown, value))}"
    return f"({[*map(_shown, value)]})" if type(value) is tuple else repr(value)
