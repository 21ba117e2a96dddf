"""Keys of items: ids that the engine tells apart have different ones, in SQLite too."""

from __future__ import annotations

import datetime as dt
import sqlite3
import sys
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antflow import JournalKeyError, NotSerialisable
from antflow.journal.item_keys import content_key, id_of_key, item_key
from antflow.journal.json_codec import JsonCodec

Table = sqlite3.Connection


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """A table with a key without a type."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, key NOT NULL UNIQUE)")
    yield connection
    connection.close()


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another"


class Size(IntEnum):
    SMALL = 3


class Plain(Enum):
    ONE = 1


class Pair(NamedTuple):
    left: Any
    right: Any


@pytest.mark.parametrize(
    ("item_id", "key", "stored_as"),
    [
        ("a", "a", "text"),
        ("5", "5", "text"),
        (5, 5, "integer"),
        (-(2**63) + 1, -(2**63) + 1, "integer"),
        (2**63, '{"$int":"0x8000000000000000"}', "text"),
        (b"5", b"5", "blob"),
        (True, 1, "integer"),
        (5.0, 5, "integer"),
        (2.5, 2.5, "real"),
        (float("inf"), float("inf"), "real"),
        (Decimal("5.00"), 5, "integer"),
        (Decimal("0.5"), 0.5, "real"),
        (Fraction(1, 2), 0.5, "real"),
        (Size.SMALL, 3, "integer"),
        (Text("x"), "x", "text"),
        (("a", True, (2.0,)), '{"$tuple":["a",1,{"$tuple":[2]}]}', "text"),
        (Pair(1, "b"), '{"$tuple":[1,"b"]}', "text"),
        (frozenset({True, "b"}), '{"$frozenset":["b",1]}', "text"),
        (UUID(int=5), '{"$uuid":"00000000-0000-0000-0000-000000000005"}', "text"),
        (dt.date(2026, 1, 2), '{"$date":"2026-01-02"}', "text"),
        ('{"$uuid":"x"}', '{"$str":"{\\"$uuid\\":\\"x\\"}"}', "text"),
        ("caf\udce9", '{"$str":"caf\\\\udce9"}', "text"),
        ("", "", "text"),
        ("a\0b", "a\0b", "text"),
    ],
    ids=repr,
)
def test_key_of_an_id(item_id: Any, key: Any, stored_as: str, table: Table) -> None:
    """The form of each key stays as it is, and SQLite gives it back unchanged."""
    made = item_key(item_id)
    assert (made, type(made)) == (key, type(key))
    table.execute("DELETE FROM items")
    table.execute("INSERT INTO items (key) VALUES (?)", [made])
    ((found, kind),) = table.execute("SELECT key, typeof(key) FROM items WHERE key = ?", [made])
    assert (found, kind) == (key, stored_as)
    assert id_of_key(found) == item_id


def clock_changes() -> st.SearchStrategy[dt.datetime]:
    """Times that a clock in Paris shows twice, once or never, and the same in UTC."""
    hours = st.sampled_from([dt.datetime(2026, 3, 29), dt.datetime(2026, 10, 25)])
    return st.builds(
        lambda day, hour, fold, zone: day.replace(hour=hour, minute=30, fold=fold, tzinfo=zone),
        hours,
        st.integers(0, 4),
        st.integers(0, 1),
        st.sampled_from([ZoneInfo("Europe/Paris"), dt.UTC, None]),
    )


def ids() -> st.SearchStrategy[Any]:
    """Ids of all kinds, many of them near each other."""
    near = st.sampled_from([0, 1, 5, 2**53, 2**63, 2**64])
    numbers = near | near.map(float) | near.map(Decimal) | near.map(str) | st.booleans()
    texts = (
        st.text() | st.text(st.characters(categories=["Cs"])) | st.sampled_from(["é", "e\u0301"])
    )
    zones = st.timezones() | st.sampled_from([None, dt.UTC, dt.timezone(dt.timedelta(hours=2))])
    leaves = st.one_of(
        numbers,
        st.integers(),
        st.floats(allow_nan=False),
        texts,
        st.binary(),
        st.uuids() | st.uuids().map(str),
        st.datetimes(timezones=zones),
        clock_changes(),
        st.dates(),
        texts.map(lambda text: str(item_key(text[:50]))),
        numbers.map(lambda number: str(item_key((number,)))),
    )
    return st.recursive(leaves, lambda part: st.tuples(part) | st.frozensets(part), max_leaves=3)


@given(one=clock_changes(), other=clock_changes())
@settings(max_examples=300)
def test_times_when_clocks_change_have_one_key_if_they_are_equal(
    one: dt.datetime, other: dt.datetime
) -> None:
    """A time that a clock shows twice, or never, is equal to none of another zone."""
    assert (one == other) == (item_key(one) == item_key(other))


@given(one=ids(), other=ids())
def test_ids_have_one_key_if_they_are_equal(table: Table, one: Any, other: Any) -> None:
    """Just as the engine tells ids apart, and in SQLite as in Python."""
    try:
        keys = [item_key(one), item_key(other)]
    except JournalKeyError:
        return  # too long
    assert (one == other) == (keys[0] == keys[1])
    ((is_one,),) = table.execute("SELECT ? = ?", keys)
    assert bool(is_one) == (one == other)


@given(item_id=ids())
def test_id_of_a_key_is_equal_to_it(item_id: Any) -> None:
    """A key can be turned back."""
    try:
        key = item_key(item_id)
    except JournalKeyError:
        return
    assert id_of_key(key) == item_id
    assert item_key(id_of_key(key)) == key


def test_case_and_normal_forms_are_kept(table: Table) -> None:
    """Upper case is not lower case, and composed letters are not decomposed ones."""
    table.execute("DELETE FROM items")
    for item_id in ("A", "a", "é", "e\u0301", "a ", " a"):
        table.execute("INSERT INTO items (key) VALUES (?)", [item_key(item_id)])
    ((count,),) = table.execute("SELECT count(*) FROM items")
    assert count == 6


@pytest.mark.parametrize(
    ("item_id", "told"),
    [
        ("x" * 513, "it has 513 bytes, and the limit is 512"),
        ("é" * 257, "it has 514 bytes"),
        (b"x" * 513, "it has 513 bytes"),
        (10**700, "bytes, and the limit is 512"),
        (object(), "an object cannot be a key"),
        (Plain.ONE, "a Plain cannot be a key"),
        ((1, Plain.ONE), "a tuple cannot be a key"),
        (float("nan"), "a number that equals neither an int nor a float"),
        (Decimal("0.1"), "a number that equals neither an int nor a float"),
        (Decimal("1e999999"), "a number that is too large"),
        (5j, "a number that equals neither"),
    ],
    ids=lambda part: repr(part)[:20],
)
def test_id_that_cannot_be_a_key(item_id: Any, told: str) -> None:
    """It is refused with the id, the reason, and the option that helps."""
    with pytest.raises(JournalKeyError) as caught:
        item_key(item_id)
    assert str(caught.value).startswith("item id ")
    assert told in str(caught.value)
    assert str(caught.value).endswith("; give it a key for the journal with key=")
    assert len(str(caught.value)) < 300


def test_longest_keys() -> None:
    """512 bytes are allowed, however many characters they are."""
    for item_id in ("x" * 512, "é" * 256, b"x" * 512):
        assert item_key(item_id) == item_id


def test_time_at_the_edge_of_the_calendar_has_a_key() -> None:
    """It cannot be converted to UTC."""
    zone = dt.timezone(dt.timedelta(hours=5))
    assert (
        item_key(dt.datetime(1, 1, 1, tzinfo=zone)) == '{"$datetime":"0001-01-01T00:00:00+05:00"}'
    )


def test_content_is_the_key_of_an_item_without_an_id() -> None:
    """Equal items have one key; it is the same in every process."""
    one = content_key({"a": 1, "b": (2,)}, JsonCodec())
    assert one == content_key({"b": (2,), "a": 1}, JsonCodec())
    assert one != content_key({"a": 1, "b": [2]}, JsonCodec())
    assert one == "3b5f6407efc5c85af0dddcf8598529f7"
    with pytest.raises(NotSerialisable):
        content_key(sys, JsonCodec())
    assert content_key(Path("a"), JsonCodec()) != content_key("a", JsonCodec())
