"""Values as JSON lines, and dead letters."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow import PipelineResult
from antflow.cli.item_lines import parse_json
from antflow.cli.letters import (
    LETTER_KEYS,
    MOST_LEVELS,
    bad_line,
    json_text,
    letter_line,
    result_line,
    survives_json,
)


class Color(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: Any


class Model:
    """Like those of pydantic."""

    def __init__(self, fields: Any) -> None:
        self.fields = fields

    def __repr__(self) -> str:
        return "Model(…)"

    def model_dump(self, *, mode: str) -> Any:
        if self.fields is None:
            raise TypeError("cannot be serialized")
        return self.fields if mode == "json" else repr(self.fields)


class Attrs:
    """Like those of attrs."""

    __attrs_attrs__ = (SimpleNamespace(name="x"), SimpleNamespace(name="_y"))

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self._y, self.other = x, y, None

    def __repr__(self) -> str:
        return "Attrs(…)"


class Struct(Attrs):
    """Like those of msgspec."""

    __attrs_attrs__ = None  # type: ignore[assignment]
    __struct_fields__ = ("x",)


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


Pair = namedtuple("Pair", "a b")
LOOP: list[Any] = []
LOOP.append(LOOP)
LARGE_LOOP: list[Any] = [*range(1000), LOOP]
LARGE_LOOP.append(LARGE_LOOP)
AGAIN = {"type": "list", "repr": "…"}


class Cancelled(list[int]):
    def __iter__(self) -> Any:
        raise asyncio.CancelledError


class Slotted:
    __slots__ = ("empty", "slot")


class Plain(Slotted):
    def __init__(self, slot: Any, rest: Any) -> None:
        self.slot, self.rest = slot, rest


class Closed(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no")


class Array:
    """Like those of numpy."""

    def tolist(self) -> list[float]:
        return [1, float("nan")]


class Number(float):
    """Like the float64 of numpy."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)})"


class Long:
    """Like the long double of numpy."""

    def tolist(self) -> Long:
        return self

    def __repr__(self) -> str:
        return "np.longdouble('1.1')"


class Level(IntEnum):
    HIGH = 3


class Table:
    def __repr__(self) -> str:
        return "a   b\n1   2 3"


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_times_of_numpy_and_pandas_are_written_as_such() -> None:
    """No time is a bare number, however fine: alone, in arrays, in records and in columns."""
    np = pytest.importorskip("numpy")
    fine, text = np.datetime64("2024-01-02T03:04:05.123456789"), "2024-01-02T03:04:05.123456789"
    span = {"type": "timedelta64", "repr": repr(np.timedelta64(5, "ns"))}
    record = [("n", "i4"), ("at", "M8[ns]"), ("for", "m8[ns]")]
    assert plain(fine) == text
    assert plain(np.datetime64("2024-01-02T03:04:05")) == "2024-01-02T03:04:05"
    assert plain(np.array([[fine, np.datetime64("NaT", "ns")]])) == [[text, None]]
    assert plain(np.array(fine)) == text
    assert plain(np.array([(1, fine, 5)], record)) == [[1, text, span]]
    assert plain(np.array([(1, fine, 5)], record)[0]) == [1, text, span]
    assert plain(np.timedelta64(5, "ns")) == plain(np.array(5, "m8[ns]")) == span
    assert plain([np.datetime64("NaT", "ns"), np.timedelta64("NaT", "ns")]) == [None, None]
    assert plain(np.void(b"ab")) == {"type": "bytes", "base64": "YWI="}
    pandas = pytest.importorskip("pandas")
    assert plain([pandas.Timestamp(text), pandas.NaT]) == [text, None]
    assert plain(pandas.Series([pandas.Timestamp(text), pandas.NaT])) == [text, None]


def plain(value: Any) -> Any:
    """A value after it was written and read again."""
    lost: set[str] = set()
    read = json.loads(json_text(value, lost))
    assert not lost
    return read


@given(values)
def test_json_keeps_what_it_can_say(value: Any) -> None:
    """A value of JSON's own kinds comes back the same, from one line that is all printable."""
    text = json_text(value)
    assert text.isprintable()
    assert parse_json(text) == value
    assert survives_json(value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ((1, 2.5, True, None), [1, 2.5, True, None]),
        (Pair(1, 2), [1, 2]),
        ({2, 1}, [1, 2]),
        (Point(1, date(2024, 2, 29)), {"x": 1, "y": "2024-02-29"}),
        (Model({"a": 1, "b": float("nan")}), {"a": 1, "b": {"type": "float", "repr": "nan"}}),
        (Model([1, 2]), [1, 2]),
        (Model(None), {"type": "Model", "repr": "Model(…)"}),
        ([Point(1, Model({"a": 2}))], [{"x": 1, "y": {"a": 2}}]),
        (Attrs(1, Struct({2}, 3)), {"x": 1, "_y": {"x": [2]}}),
        (Model, {"type": "type", "repr": repr(Model)}),
        (Color.RED, "red"),
        (Decimal("1.10"), "1.10"),
        (PurePosixPath("/a"), "/a"),
        (UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (b"\x00\xff", {"type": "bytes", "base64": "AP8="}),
        (memoryview(b"ab"), {"type": "memoryview", "base64": "YWI="}),
        (deque([1]), [1]),
        (MappingProxyType({"a": b""}), {"a": {"type": "bytes", "base64": ""}}),
        ({"a": 1}.keys(), ["a"]),
        (Plain(1, {2}), {"slot": 1, "rest": [2]}),
        (Array(), [1, {"type": "float", "repr": "nan"}]),
        (Long(), {"type": "Long", "repr": "np.longdouble('1.1')"}),
        ({Number(1.5): 1, Level.HIGH: 2}, {"1.5": 1, "3": 2}),
        (
            {1: "a", Level.HIGH: "b", "3": "c"},
            {"type": "dict", "items": [[1, "a"], [3, "b"], ["3", "c"]]},
        ),
        ([10**5000], [{"type": "int", "repr": hex(10**5000)}]),
        ({None: 1, True: (2,)}, {"null": 1, "true": [2]}),
        ({1: "a", "1": "b"}, {"type": "dict", "items": [[1, "a"], ["1", "b"]]}),
        ({Color.RED: 1}, {"Color.RED": 1}),
        (timedelta(1), {"type": "timedelta", "repr": "datetime.timedelta(days=1)"}),
        (float("nan"), {"type": "float", "repr": "nan"}),
        ([1, {"a": float("inf")}], [1, {"a": {"type": "float", "repr": "inf"}}]),
        ({(1, 2): {3}}, {"(1, 2)": [3]}),
        (Hostile(), {"type": "Hostile", "repr": "<Hostile: repr() failed>"}),
        (["a", Hostile()], ["a", {"type": "Hostile", "repr": "<Hostile: repr() failed>"}]),
        ([1, Closed()], [1, {"type": "Closed", "repr": "{}"}]),
        (["a", Cancelled([1])], ["a", {"type": "Cancelled", "repr": "[1]"}]),
        (Point, {"type": "type", "repr": repr(Point)}),
        (Table(), {"type": "Table", "repr": "a   b\n1   2 3"}),
    ],
)
def test_json_of_what_it_cannot_say(value: Any, shown: Any) -> None:
    """What JSON has no form for is shown by what is nearest, or by type and repr."""
    assert json.loads(json_text(value)) == shown
    assert not survives_json(value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (LOOP, [AGAIN]),
        ({"a": LOOP}, {"a": [AGAIN]}),
        (Point(1, LOOP), {"x": 1, "y": [AGAIN]}),
        (LARGE_LOOP, [*range(1000), [AGAIN], AGAIN]),
        ([[1], [1]], [[1], [1]]),
    ],
    ids=["loop", "dict", "point", "large", "twice"],
)
def test_json_of_what_is_endless(value: Any, shown: Any) -> None:
    """Where a value is part of itself it is not written again, and all the rest is."""
    assert json.loads(json_text((value,))) == [shown]


def test_json_of_what_is_very_deep() -> None:
    """A value nested deeper than Python can walk makes a line, too, and is told as lost."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    lost: set[str] = set()
    text = json_text(value, lost)
    assert text == "[" * MOST_LEVELS + json.dumps(AGAIN, ensure_ascii=False) + "]" * MOST_LEVELS
    assert lost == {"list"}
    assert not survives_json(value)


@pytest.mark.parametrize("core", [5, {1}, LOOP])
def test_plain_json_of_many_levels_is_kept_whole(core: Any) -> None:
    """As deep as `json` goes, what is plain is written as it is; what is not, is told as lost."""
    value = core
    for _ in range(300):
        value = [{"a": value}]
    lost: set[str] = set()
    assert (json.loads(json_text(value, lost)) == value) is (core == 5)
    assert bool(lost) is (core != 5)
    assert survives_json(value) is (core == 5)


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, b"x" * 10**6, ("x" * 10**6,), KeyError("x" * 10**6)],
    ids=["text", "bytes", "tuple", "repr"],
)
def test_json_cuts_nothing(value: Any) -> None:
    """However long a value is, in whatever form it is written: all of it is there."""
    assert len(json_text(value)) > 10**6


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ((x for x in [1]), {"generator"}),
        ([1, {"a": object()}], {"object"}),
        (Hostile(), {"Hostile"}),
        ([b"", 1.5, {2}, float("nan"), timedelta(1), LOOP, Plain(1, 2)], set()),
    ],
)
def test_json_says_what_is_lost(value: Any, names: set[str]) -> None:
    """A value whose text says only where it is, or that has none, is told by its type."""
    lost: set[str] = set()
    json_text(value, lost)
    assert lost == names


@pytest.mark.parametrize(
    "value", [OrderedDict(a=1), True + 0.5j, {1: 2}, [(1,)], Color.RED, Pair(1, 2), {"a": {1}}]
)
def test_json_does_not_keep_other_types(value: Any) -> None:
    """What would come back as another type does not survive, also where it would compare equal."""
    assert not survives_json(value)


def test_json_drives_no_terminal() -> None:
    """Escape sequences, C1 controls, bidirectional marks and lone surrogates are escaped."""
    for character in "\x1b\x9b\u202e\u2028\ud800\x7f":
        text = json_text(f"ä{character}")
        assert text.isprintable()
        assert json.loads(text) == f"ä{character}"
    assert json_text("ä") == '"ä"'


def result(**more: Any) -> PipelineResult[Any]:
    fields: dict[str, Any] = {"id": "a", "value": 1, "sequence_id": 0, "stage": "Store"}
    return PipelineResult(**fields | more)


def test_result_line_has_id_and_value() -> None:
    """One object per line, with id and value."""
    assert result_line(result(value={"x": "ä"})) == '{"id": "a", "value": {"x": "ä"}}\n'
    assert json.loads(result_line(result(id=(1, 2)))) == {"id": [1, 2], "value": 1}


def test_letter_line_says_everything() -> None:
    """A dead letter has what entered the failing stage, why it failed, and what was fed."""
    failed = result(error=KeyError("x"), attempts=3, input={"url": 1}, value=[5])
    line = letter_line(failed)
    assert json.loads(line) == {
        "id": "a",
        "value": [5],
        "stage": "Store",
        "error_type": "KeyError",
        "error": "'x'",
        "attempts": 3,
        "input": {"url": 1},
        "restart": False,
        "accepted": None,
    }
    assert tuple(json.loads(line)) == (*LETTER_KEYS, "accepted")
    assert json.loads(letter_line(result(error=KeyError(), value=b"x")))["restart"] is True


def test_letter_of_an_error_without_an_end() -> None:
    """An error text of megabytes is cut, one that cannot be had is said to be so."""
    assert len(letter_line(result(error=KeyError("x" * 10**6)))) < 11_000

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert json.loads(letter_line(result(error=Broken())))["error"] == "<Broken: str() failed>"


def test_bad_line_has_the_same_keys() -> None:
    """A line that could not be read is a dead letter without a stage."""
    letter = json.loads(bad_line(ValueError("f:3:1: no JSON"), "{", 3))
    assert set(letter) == set(LETTER_KEYS)
    assert (letter["id"], letter["stage"], letter["value"]) == (3, None, "{")
    assert letter["error"] == "f:3:1: no JSON"
