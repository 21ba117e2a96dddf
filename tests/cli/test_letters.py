"""Values as JSON lines, and dead letters."""

from __future__ import annotations

import json
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow import PipelineResult
from antflow.cli.items import parse_json
from antflow.cli.letters import (
    LETTER_KEYS,
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


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


Pair = namedtuple("Pair", "a b")
LOOP: list[Any] = []
LOOP.append(LOOP)
LARGE_LOOP: list[Any] = [10**5000, LOOP]
LARGE_LOOP.append(LARGE_LOOP)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


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
        ((1, 2), [1, 2]),
        (Pair(1, 2), [1, 2]),
        ({2, 1}, [1, 2]),
        (Point(1, date(2024, 2, 29)), {"x": 1, "y": "2024-02-29"}),
        (Color.RED, "red"),
        (Decimal("1.10"), "1.10"),
        (PurePosixPath("/a"), "/a"),
        (UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (b"\x00", {"type": "bytes", "repr": "b'\\x00'"}),
        (float("nan"), {"type": "float", "repr": "nan"}),
        ([1, {"a": float("inf")}], [1, {"a": {"type": "float", "repr": "inf"}}]),
        ({(1, 2): {3}}, {"(1, 2)": [3]}),
        (Hostile(), {"type": "Hostile", "repr": "<Hostile: repr() failed>"}),
        ([Hostile()], [{"type": "Hostile", "repr": "<Hostile: repr() failed>"}]),
        (Point, {"type": "type", "repr": repr(Point)}),
    ],
)
def test_json_of_what_it_cannot_say(value: Any, shown: Any) -> None:
    """What JSON has no form for is shown by what is nearest, or by type and repr."""
    assert json.loads(json_text(value)) == shown
    assert not survives_json(value)


@pytest.mark.parametrize(
    "value",
    [LOOP, [10**5000], {"a": LOOP}, Point(1, LOOP), LARGE_LOOP],
    ids=["loop", "int", "dict", "point", "both"],
)
def test_json_of_what_is_endless(value: Any) -> None:
    """A value that is part of itself, or too large, makes one line like any other."""
    text = json_text(value)
    assert "\n" not in text
    assert len(text) < 2000
    assert not survives_json(value)


def test_json_of_what_is_very_deep() -> None:
    """A value nested deeper than Python can walk makes a line, too."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert json.loads(json_text(value))
    assert not survives_json(value)


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
    }
    assert tuple(json.loads(line)) == LETTER_KEYS
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
