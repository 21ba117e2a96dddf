"""Codecs: every value comes back exactly as it was, or is refused with its place."""

from __future__ import annotations

import builtins
import json
import math
import pickle
import sqlite3
import subprocess
import sys
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from antflow import JournalOpenError, NotRestorable, NotRoundTrippable, NotSerialisable
from antflow.journal.codec import CHECKED_RESULTS, Codec, checked, fingerprint
from antflow.journal.codec_choice import codec_of
from antflow.journal.json_codec import JsonCodec, json_writer
from antflow.journal.msgspec_codec import MsgspecCodec
from antflow.journal.pickle_codec import PickleCodec
from tests.journal.values import (
    TYPES,
    Colour,
    Mode,
    Order,
    Pair,
    Point,
    are_the_same,
    plain_values,
    values,
)
from tests.support import SOURCE

CODECS: dict[str, Codec] = {"json": JsonCodec(TYPES), "msgspec": MsgspecCodec(TYPES)}


class Text(str):
    __slots__ = ()


class Moment(datetime):
    pass


class Zone(tzinfo):
    def utcoffset(self, _: datetime | None) -> None:
        return None

    tzname = dst = utcoffset


@dataclass
class Stranger:
    id: int


# What comes back


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@given(value=values())
@example(value=[math.nan, None, -math.inf])
@example(value="\ud83d\ude00")
def test_value_comes_back_the_same(codec: Codec, value: Any) -> None:
    """Decoding gives what was encoded, to the type, for all types that can be kept."""
    assert are_the_same(codec.decode(codec.encode(value)), value)


@given(value=values())
def test_journal_of_one_json_codec_can_be_read_with_the_other(value: Any) -> None:
    """``msgspec`` and the standard library make the same kind of text."""
    one, other = CODECS.values()
    assert are_the_same(one.decode(other.encode(value)), value)
    assert are_the_same(other.decode(one.encode(value)), value)


@given(value=values())
def test_text_is_strict_json_in_utf_8(value: Any) -> None:
    """Any program can parse it: no NaN, no lone surrogates, no doubled keys."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    for codec in CODECS.values():
        text = codec.encode(value).decode("utf-8")
        json.loads(text, parse_constant=refuse, object_pairs_hook=distinct)


@given(value=plain_values())
def test_plain_values_are_plain_json(value: Any) -> None:
    """A program that knows no tags reads the same value."""
    for codec in CODECS.values():
        assert are_the_same(json.loads(codec.encode(value)), value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"id": 1, "name": "Zoë"}, '{"id":1,"name":"Zoë"}'),
        ((1, [2]), '{"$tuple":[1,[2]]}'),
        ({2, 1}, '{"$set":[1,2]}'),
        (b"hi", '{"$bytes":"aGk="}'),
        (datetime(2026, 1, 2, tzinfo=UTC), '{"$datetime":"2026-01-02T00:00:00+00:00"}'),
        (Decimal("1.10"), '{"$decimal":"1.10"}'),
        (math.inf, '{"$float":"inf"}'),
        ({1: "a"}, '{"$dict":[[1,"a"]]}'),
        ({"$tuple": [1]}, '{"$dict":[["$tuple",[1]]]}'),
        (Point(1), '{"$object":["Point",{"x":1,"y":0}]}'),
        (Colour.RED, '{"$enum":["Colour","RED"]}'),
        (Mode.READ | Mode.RUN, '{"$enum":["Mode",5]}'),
    ],
)
def test_form_of_the_text(value: Any, text: str) -> None:
    """The text of each kind of value stays as it is: journals outlive versions of the library."""
    assert JsonCodec(TYPES).encode(value).decode() == text
    assert are_the_same(JsonCodec(TYPES).decode(text.encode()), value)


@given(value=plain_values())
def test_text_is_the_same_without_the_encoder_of_c(value: Any) -> None:
    """Other Pythons than CPython have none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("json.encoder.c_make_encoder", None)
        writers = [json_writer(sorts) for sorts in (False, True)]
        slow = [write(value) for write in writers]
    assert slow == [json_writer(sorts)(value) for sorts in (False, True)]


def test_object_is_rebuilt_without_its_constructor() -> None:
    """``__init__`` and ``__post_init__`` are not called again; caches are made anew."""
    calls = []

    @dataclass
    class Counted:
        number: int

        def __post_init__(self) -> None:
            calls.append(self.number)
            self.number += 1

        @cached_property
        def double(self) -> int:
            return self.number * 2

    codec = JsonCodec([Counted])
    one = Counted(1)
    assert one.double == 4
    again = codec.decode(codec.encode(one))
    assert (again, again.double, calls) == (one, 4, [1])


def test_object_of_a_class_that_has_changed() -> None:
    """A new field has its default; without one, or with a field less, the value is refused."""
    old = JsonCodec(TYPES).encode(Point(1, 2))
    assert JsonCodec([renamed_point(z=5)]).decode(old).z == 5
    with pytest.raises(NotRestorable, match="Point has a field 'z' without default"):
        JsonCodec([renamed_point()]).decode(old)
    with pytest.raises(NotRestorable, match="Pair has no field 'other' any more"):
        JsonCodec([Pair]).decode(b'{"$object":["Pair",{"left":1,"other":2}]}')
    assert JsonCodec([Pair]).decode(b'{"$object":["Pair",{"left":1}]}') == Pair(1)


def renamed_point(**defaults: Any) -> Any:
    @dataclass
    class Changed:
        x: Any
        y: Any
        z: Any

    Changed.__qualname__ = "Point"
    changed: Any = Changed
    if defaults:

        @dataclass
        class Point(changed):  # type: ignore[misc]
            z: Any = defaults["z"]

        Point.__qualname__ = "Point"
        return Point
    return changed


# What is refused


REFUSED: list[tuple[Any, str]] = [
    (Text("x"), "value: a str subclass (Text), which would come back as another type"),
    ({"rows": [1, 2, 3, Moment(2026, 1, 1)]}, "value at ['rows'][3]: a datetime subclass (Moment)"),
    ({Text("k"): 1}, "value at ['k']: a str subclass (Text)"),
    (OrderedDict(a=1), "value: a dict subclass (OrderedDict)"),
    ([defaultdict(list)], "value at [0]: a dict subclass (defaultdict)"),
    ((1, {"a": object()}), "value at [1]['a']: an object of class object: return what it"),
    (
        {"o": Stranger(1)},
        "value at ['o']: a Stranger, which is not registered: pass "
        "codec=JsonCodec(types=[Stranger])",
    ),
    (Order(1, [Point(1, {2: print})]), "value at .lines[0].y[2]: an object of class builtin"),
    (datetime(2026, 1, 1, tzinfo=Zone()), "value: a datetime with a time zone of class Zone"),
]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize(("value", "told"), REFUSED, ids=lambda part: repr(part)[:30])
def test_value_that_would_not_come_back_is_refused(codec: Codec, value: Any, told: str) -> None:
    """A subclass or an unknown class is refused, with its place and what to do."""
    with pytest.raises(NotSerialisable) as caught:
        codec.encode(value)
    assert str(caught.value).startswith(told)


def test_value_that_contains_itself_is_refused() -> None:
    """No endless recursion; a value nested a hundred deep is kept."""
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 1
    for _ in range(100):
        deep = {1: deep}
    for codec in CODECS.values():
        with pytest.raises(NotSerialisable, match="nested more than 100 deep, or contains itself"):
            codec.encode(loop)
        assert codec.decode(codec.encode(deep)) == deep
        with pytest.raises(NotSerialisable, match="nested more than 100 deep"):
            codec.encode([[deep]])


def test_object_with_more_than_its_fields_is_refused() -> None:
    """An attribute that is not a field would be lost, and a field may have no value."""
    order = Order(1)
    order.extra = 2  # type: ignore[attr-defined]
    with pytest.raises(NotSerialisable, match="an Order with an attribute 'extra'"):
        JsonCodec(TYPES).encode(order)
    with pytest.raises(NotSerialisable, match="a Point without a value in its field 'x'"):
        JsonCodec(TYPES).encode(object.__new__(Point))


def test_value_that_changes_while_it_is_encoded_is_refused() -> None:
    """A thread of the user's may do so; half of it would be written."""
    value: dict[str, Any] = {}

    @dataclass
    class Meddler:
        number: int

        def __getattribute__(self, name: str) -> Any:
            if name == "number":
                value["b"] = 2
            return super().__getattribute__(name)

    value["a"] = Meddler(1)
    with pytest.raises(NotSerialisable, match="cannot be encoded: dictionary changed size"):
        JsonCodec([Meddler]).encode(value)


class Hostile(type):
    def __hash__(cls) -> int:
        raise ValueError("no hash")


class Unasked(metaclass=Hostile):
    pass


def test_class_that_raises_when_asked_is_refused() -> None:
    """Its metaclass's ``__hash__`` raises."""
    with pytest.raises(NotSerialisable, match=r"at \['a'\]: an object of class Unasked"):
        JsonCodec().encode({"a": Unasked()})


@pytest.mark.parametrize(
    ("types", "told"),
    [
        ([int], "must be dataclasses, named tuples and Enums"),
        ([Order(1)], "must be dataclasses, named tuples and Enums"),
        ([dataclass(type("Rows", (list,), {}))], "objects cannot be rebuilt from their fields"),
        ([Point, renamed_point()], "another one is called 'Point', too"),
    ],
)
def test_types_that_cannot_be_registered(types: Any, told: str) -> None:
    """What is not such a class is refused when the codec is made."""
    with pytest.raises((TypeError, ValueError), match=told):
        JsonCodec(types)


# What cannot be read


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"a":', "cannot be decoded"),
        (b"\xff", "cannot be decoded"),
        (b'{"$later":1}', "'\\$later' is not a tag that this version"),
        (b'{"$set":[[1]]}', "cannot be decoded: TypeError"),
        (b'{"$object":["Stranger",{"id":1}]}', r"JsonCodec\(types=\[Stranger\]\)"),
        (b'{"$enum":["Colour","GREEN"]}', "cannot be decoded: KeyError"),
        (b'{"$enum":["Point",3]}', "cannot be decoded"),
        (b'{"$object":["Colour",{}]}', "cannot be decoded"),
        (b'{"$object":5}', "cannot be decoded"),
        (b'{"$datetime":["2026-01-01T00:00:00","../../etc/passwd",0]}', "cannot be decoded"),
        (b'{"$datetime":["2026-01-01T00:00:00","No/Where",0]}', "cannot be decoded"),
        (b"[" * 100_000, "cannot be decoded: RecursionError"),
    ],
)
def test_text_that_cannot_be_read(data: bytes, told: str) -> None:
    """Each is a `NotRestorable` that says why."""
    for codec in CODECS.values():
        with pytest.raises(NotRestorable, match=told):
            codec.decode(data)


@given(data=st.binary() | st.text().map(str.encode) | values().map(JsonCodec(TYPES).encode))
def test_reading_anything_raises_nothing_else(data: bytes) -> None:
    """Bytes from anywhere are a value or a `NotRestorable`."""
    for codec in CODECS.values():
        for each in (data, data[: len(data) // 2], data.replace(b"tuple", b"set")):
            try:
                codec.decode(each)
            except NotRestorable:
                pass


def test_reading_imports_nothing_and_makes_no_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file chooses no class: neither a module on the disk nor one that is imported."""
    imported: list[str] = []
    real = builtins.__import__

    def watch(name: str, *rest: Any) -> Any:
        imported.append(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", watch)
    for name in ("this", "os.system", "subprocess.Popen", "Stranger", f"{__name__}.Stranger"):
        for tag in ("object", "enum"):
            with pytest.raises(NotRestorable, match="is not registered"):
                JsonCodec(TYPES).decode(json.dumps({f"${tag}": [name, {"id": 1}]}).encode())
    assert "this" not in sys.modules
    assert not {"this", "os", "subprocess"} & {*imported}


# Checked codecs


class Plain:
    """A codec that forgets what JSON does not know."""

    name = "plain"

    def encode(self, value: Any) -> bytes:
        return json.dumps(value, default=str).encode()

    def decode(self, data: bytes) -> Any:
        return json.loads(data)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"rows": [1, (2, 3)]}, " at ['rows'][1]: a tuple came back as a list: [2, 3]"),
        ({"a": {1: 2}}, " at ['a'].keys()[0]: an int came back as a str: '1'"),
        (
            [datetime(2026, 1, 1)],
            " at [0]: a datetime came back as a str: '2026-01-01 00:00:00'",
        ),
        ("\ud83d\ude00", ": a str came back as '😀'"),
    ],
)
def test_result_that_comes_back_different_is_told(value: Any, told: str) -> None:
    """The error has the stage, the place in the value and both types."""
    with pytest.raises(NotRoundTrippable) as caught:
        checked(Plain(), "Parse").encode(value)
    assert str(caught.value) == f"result of stage 'Parse'{told}"


def test_only_the_first_results_are_compared() -> None:
    """Sixteen of each stage, so that it costs nothing later."""
    codec = checked(Plain(), "A")
    for _ in range(CHECKED_RESULTS - 1):
        codec.encode([1])
    with pytest.raises(NotRoundTrippable):
        codec.encode((1,))
    assert codec.decode(codec.encode((1,))) == [1]
    assert CHECKED_RESULTS == 16


class Unequal:
    """Equal only to itself; pickled all the same."""

    def __init__(self, number: int) -> None:
        self.number = number


@dataclass
class Careless:
    """Leaves a field out when it is pickled."""

    kept: int
    lost: Any

    def __reduce__(self) -> Any:
        return Careless, (self.kept, None)


def test_what_cannot_be_compared_is_compared_by_its_bytes() -> None:
    """NaN and objects without an ``==`` of their own pass, and a field that is lost does not."""
    codec = checked(PickleCodec(), "A")
    for value in (math.nan, [Unequal(1)], {"a": {1, "1"}}):
        codec.decode(codec.encode(value))
    with pytest.raises(NotRoundTrippable, match=r"at \[0\]\.lost: an int came back as a NoneType"):
        codec.encode([Careless(1, 2)])


class Short:
    """A codec that forgets the last part of a list."""

    name = "short"

    def encode(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def decode(self, data: bytes) -> Any:
        return pickle.loads(data)[:-1]


def test_parts_that_are_missing_are_told() -> None:
    """A list that is shorter is not taken for the same."""
    with pytest.raises(NotRoundTrippable, match="'A': of 2 parts, 1 came back"):
        checked(Short(), "A").encode([1, 2])


def test_value_that_is_too_deep_to_compare_is_told() -> None:
    """The check of a codec that takes it is no crash."""
    with pytest.raises(NotRoundTrippable, match="it is nested too deeply to be compared"):
        checked(Deep(), "A").encode(deep())


def deep() -> list[Any]:
    made: list[Any] = []
    for _ in range(3_000):
        made = [made]
    return made


class Deep:
    """A codec that takes a value of any depth."""

    name = "deep"

    def encode(self, value: Any) -> bytes:
        return b""

    def decode(self, data: bytes) -> Any:
        return deep()


@given(value=values())
def test_values_that_come_back_pass_the_check(value: Any) -> None:
    """The comparison finds no difference where there is none."""
    checked(CODECS["json"], "A").encode(value)


class Broken:
    """Fails."""

    name = "broken"

    def encode(self, value: Any) -> bytes:
        if value == "out":
            raise OSError("no")
        return b""

    def decode(self, data: bytes) -> Any:
        raise EOFError


def test_errors_of_a_codec_name_the_stage() -> None:
    """An error of the user's own codec is told as one of the journal, with its cause."""
    codec = checked(Broken(), "Parse")
    with pytest.raises(NotSerialisable, match=r"^result of stage 'Parse': OSError: no$") as caught:
        codec.encode("out")
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(NotRoundTrippable, match="stage 'Parse': it was encoded, but cannot be"):
        codec.encode("in")
    with pytest.raises(NotSerialisable, match=r"^result of stage 'Parse' at ") as caught:
        checked(JsonCodec(), "Parse").encode([print])
    assert (caught.value.path, caught.value.where) == ("[0]", "result of stage 'Parse'")


# Fingerprints


@given(value=plain_values(), data=st.data())
def test_fingerprint_of_equal_values_is_one(value: Any, data: st.DataObject) -> None:
    """The order of keys does not matter."""
    again = reordered(value, data.draw(st.randoms()))
    for codec in (*CODECS.values(), PickleCodec()):
        assert fingerprint(value, codec) == fingerprint(again, codec)
        assert len(fingerprint(value, codec)) == 16


def reordered(value: Any, random: Any) -> Any:
    if isinstance(value, dict):
        pairs = [(key, reordered(part, random)) for key, part in value.items()]
        random.shuffle(pairs)
        return dict(pairs)
    return [reordered(part, random) for part in value] if isinstance(value, list) else value


@given(one=values(), other=values())
def test_fingerprints_of_different_values_differ(one: Any, other: Any) -> None:
    """They are those of the values and their types."""
    for codec in CODECS.values():
        if fingerprint(one, codec) == fingerprint(other, codec):
            assert fingerprint([one], codec) == fingerprint([other], codec)
            again = codec.decode(codec.canonical(one))  # type: ignore[attr-defined]
            assert fingerprint(again, codec) == fingerprint(other, codec)
        assert fingerprint([one], codec) != fingerprint((one,), codec)


def test_fingerprint_tells_types_apart() -> None:
    """1, 1.0 and True are three inputs, and so are equal dicts with unlike keys."""
    different = [1, 1.0, True, "1", 0.0, -0.0, (1,), [1], {1}, {1: 2}, {"1": 2}, b"1", None]
    assert len({fingerprint(each, JsonCodec()) for each in different}) == len(different)


def test_fingerprint_of_what_only_pickle_knows() -> None:
    """It is that of the pickle, and that of JSON for all other values."""
    codec = PickleCodec()
    assert fingerprint(Unequal(1), codec) == fingerprint(Unequal(1), codec)
    assert fingerprint(Unequal(1), codec) != fingerprint(Unequal(2), codec)
    assert fingerprint({1, "a"}, codec) == fingerprint({1, "a"}, JsonCodec())
    with pytest.raises(NotSerialisable):
        fingerprint(lambda: 1, codec)


def test_fingerprint_is_the_same_in_every_process() -> None:
    """It does not depend on Python's hash seed, the order of a set, or the machine."""
    value = "{'b': {'x', 'y', 'z'}, 'a': {('k', 1): frozenset('abc')}, 'c': 'é'}"
    code = (
        "from antflow.journal.codec import fingerprint\n"
        "from antflow.journal.json_codec import JsonCodec\n"
        f"print(fingerprint({value}, JsonCodec()).hex())"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert made == {"6a7092f6beee4173135598bad81a7346\n"}


# The choice


def test_codec_by_name(tmp_path: Path) -> None:
    """Names are those of the docs, and an object with the two methods is taken as it is."""
    assert type(codec_of("json", tmp_path / "run.db")) is JsonCodec
    assert type(codec_of("msgspec", tmp_path / "run.db")) is MsgspecCodec
    own = Plain()
    assert codec_of(own, tmp_path / "run.db") is own


@pytest.mark.parametrize(
    ("codec", "told"),
    [
        ("yaml", "codec='yaml': must be one of 'json', 'msgspec', 'pickle', or an object"),
        (5, "codec=5: must be 'json'"),
        (Plain, "codec=<class"),
        (type("NoName", (), {"encode": print, "decode": print})(), "must have a name"),
        ("pickle", "trusted=True"),
    ],
)
def test_codec_that_is_none(codec: Any, told: str, tmp_path: Path) -> None:
    """The error has the value and what is allowed."""
    with pytest.raises((TypeError, ValueError)) as caught:
        codec_of(codec, tmp_path / "run.db")
    assert told in str(caught.value)


def test_msgspec_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error says how to install it."""
    monkeypatch.setitem(sys.modules, "msgspec", None)
    monkeypatch.delitem(sys.modules, "antflow.journal.msgspec_codec")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'antflow\[msgspec\]'"):
        codec_of("msgspec", tmp_path / "run.db")


def test_pickles_in_a_private_file_are_loaded(tmp_path: Path) -> None:
    """Where the user alone can write, and has said so."""
    tmp_path.chmod(0o700)
    codec = codec_of("pickle", tmp_path / "run.db", trusted=True)
    assert codec.decode(codec.encode({1: Unequal(5)}))[1].number == 5
    with pytest.raises(NotSerialisable, match="cannot be pickled"):
        codec.encode(lambda: 1)
    with pytest.raises(NotRestorable, match="a pickle cannot be loaded"):
        codec.decode(pickle.dumps([1])[:-2])


@pytest.mark.parametrize("name", ["", "run.db", "run.db-wal"])
@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_pickles_that_others_could_have_written_are_refused(
    name: str, mode: int, tmp_path: Path
) -> None:
    """The file, what SQLite keeps beside it, and the folder: none may be writable by others."""
    tmp_path.chmod(0o700)
    for each in ("run.db", "run.db-wal"):
        (tmp_path / each).touch(0o600)
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path / "run.db")
    paths = [tmp_path / "run.db", link]
    for path in paths:
        codec_of("pickle", path, trusted=True)
    (tmp_path / name).chmod(mode)
    for path in paths:
        with pytest.raises(JournalOpenError, match="can be written by others"):
            codec_of("pickle", path, trusted=True)


def test_pickles_of_another_user_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The owner must be the user that runs the program."""
    tmp_path.chmod(0o700)
    monkeypatch.setattr("antflow.journal.private_files._user_id", lambda: 12345)
    with pytest.raises(JournalOpenError, match="belongs to another user"):
        codec_of("pickle", tmp_path / "run.db", trusted=True)
    monkeypatch.setattr("antflow.journal.private_files._user_id", None)
    with pytest.raises(JournalOpenError, match="cannot be told who can write"):
        codec_of("pickle", tmp_path / "run.db", trusted=True)


def test_text_can_be_searched_in_sqlite() -> None:
    """SQLite's own functions for JSON read what is written."""
    data = JsonCodec(TYPES).encode({"a": [1, Point(2.5, "é")]}).decode()
    with sqlite3.connect(":memory:") as connection:
        row = "SELECT json_extract(?, '$.a[1].\"$object\"[1].x')"
        assert connection.execute(row, [data]).fetchone() == (2.5,)
    connection.close()


class Unfound(Enum):
    ONE = 1


class Third(NamedTuple):
    x: int


def test_types_that_are_not_registered_are_named() -> None:
    """An Enum and a named tuple need registering, too."""
    for value in (Unfound.ONE, Third(1)):
        with pytest.raises(NotSerialisable, match=rf"types=\[{type(value).__name__}\]"):
            JsonCodec().encode(value)
