r"""Values as JSON text, with tags for what JSON does not know.

| value | text |
|---|---|
| ``None``, bool, str, int, finite float; lists of these; dicts with str as keys | plain JSON |
| a dict with another kind of key, or one key that begins with ``$`` | ``{"$dict":[[key,value]]}`` |
| tuple, set, frozenset; sets are sorted by the texts | ``{"$tuple":[…]}``, ``{"$set":[…]}`` |
| bytes, bytearray | ``{"$bytes":"base64"}`` |
| datetime, time | ``{"$datetime":"2026-01-02T03:04:05+00:00"}`` |
| the same with a ``ZoneInfo``, or with ``fold=1`` | ``{"$datetime":["2026-…","Europe/Paris",0]}`` |
| date, timedelta | ``{"$date":"2026-01-02"}``, ``{"$timedelta":[days,seconds,microseconds]}`` |
| Decimal, UUID | ``{"$decimal":"1.10"}``, ``{"$uuid":"…"}`` |
| complex, Path | ``{"$complex":[1.0,2.0]}``, ``{"$path":"a/b"}`` |
| NaN, infinity | ``{"$float":"nan"}`` |
| an int of more than 2,000 bits (Python limits their decimal form) | ``{"$int":"0x…"}`` |
| a str with lone surrogates, which UTF-8 has not | ``{"$str":"caf\\udce9"}`` |
| a registered dataclass or named tuple | ``{"$object":["Order",{"id":1}]}`` |
| a member of a registered Enum | ``{"$enum":["Colour","RED"]}`` |
| several flags of a registered Flag | ``{"$enum":["Mode",6]}`` |

Everything else is refused, subclasses of these types too: they would come back as the base.

Decoding runs no code that the text could choose. A class is found only if the user has registered
it. Its objects are rebuilt as pickle does it, from their fields, without ``__init__``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from json import encoder as json_encoder
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from antflow._core.errors import NotRestorable, NotSerialisable
from antflow._core.foreign import asked, type_name
from antflow._core.text import brief_repr, clean, error_type_name, safe_str
from antflow.journal.registered_types import Pack, Unpackable, an, can_be_registered, registered

MOST_LEVELS = 100
"""How deep values may be nested. Their text is up to three times as deep, and has to be decoded."""

MOST_BITS = 2_000
"""Larger ints are written in base 16, since Python may refuse to read longer decimal numbers."""

SMALL_INT = 2**63

_KEYS = frozenset({str})
_LEAVES = frozenset({str, int, float, bool, type(None)})

Writer = Callable[[Any], bytes]
"""Makes text of a plain value, as UTF-8."""

Unpack = Callable[[Any], Any]


class JsonCodec:
    """The default codec: ``journal="run.db"``, or ``codec=JsonCodec(types=[Order, Colour])``.

    Args:
        types: Dataclasses, named tuples and Enums of your own whose objects are to be kept. Each
            goes by its name without its module, so that a module may be moved.

    Attributes:
        name: ``"json"``.

    Raises:
        TypeError: One of the types is of another kind.
        ValueError: Two of them have one name.
    """

    name: str = "json"

    def __init__(self, types: Iterable[type] = ()) -> None:
        self._kinds = registered(types)
        self._in_order = self._packer(self._writer())
        self._canonical = self._packer(json_writer(sorts=True), sorts=True)

    def encode(self, value: Any) -> bytes:
        """Return the text of a value, as UTF-8. Dicts keep their order.

        Raises:
            NotSerialisable: It has something in it that would not come back the same.
        """
        data = _leaf_text(value)
        return self._encoded(value, self._in_order) if data is None else data

    def canonical(self, value: Any) -> bytes:
        """Return the text that all equal values have: keys are sorted. For hashes.

        Raises:
            NotSerialisable: As in `encode`.
        """
        data = _leaf_text(value)
        return self._encoded(value, self._canonical) if data is None else data

    def decode(self, data: bytes) -> Any:
        """Return the value of a text.

        Raises:
            NotRestorable: It is not such a text, or has an object of a class that is not
                registered.
        """
        try:
            if b'"$' not in data:  # as every tag begins, and few texts
                return self._read(data)
            return json.loads(data.decode(), object_hook=self._unpacked)
        except NotRestorable:
            raise
        except Exception as error:
            told = f"{error_type_name(error)}: {safe_str(error)}"
            shown = brief_repr(bytes(data[:200]))
            raise NotRestorable(f"{shown}: cannot be decoded: {told}") from error

    # Inside

    def _writer(self) -> Writer:
        """What writes plain values: `ValueError` for those that JSON does not know."""
        return json_writer(sorts=False)

    def _read(self, data: bytes) -> Any:
        """Read a text without tags."""
        return json.loads(data.decode())  # of bytes it would look for their encoding

    def _packer(self, write: Writer, sorts: bool = False) -> _Packer:
        packer = _Packer(write, sorts)
        for each in self._kinds.values():
            packer.packs[each.kind] = each.pack_with(packer.pack)
        return packer

    def _encoded(self, value: Any, packer: _Packer) -> bytes:
        try:
            try:
                if _is_plain(value, MOST_LEVELS):
                    return packer.write(value)
            except Exception:  # noqa: S110 - NaN, a long int, a lone surrogate; a user's metaclass
                pass
            return packer.write(packer.pack(value, MOST_LEVELS))
        except Unpackable as error:
            raise NotSerialisable(error.problem, error.path) from error.__cause__
        except RuntimeError as error:  # a thread of the user's changes it; or the stack is full
            raise NotSerialisable(f"cannot be encoded: {error}") from error

    def _unpacked(self, found: dict[str, Any]) -> Any:
        if len(found) != 1:
            return found
        ((tag, content),) = found.items()
        if not tag.startswith("$"):
            return found
        if tag in _OF_TYPES:
            name, packed = content
            if (kind := self._kinds.get(name)) is None:
                name = clean(name)
                raise NotRestorable(f"{an(name)}, which is not registered: {_register(name)}")
            return kind.restored(packed)
        if (unpack := _UNPACKERS.get(tag)) is None:
            raise NotRestorable(f"{tag!r} is not a tag that this version of the library knows")
        return unpack(content)


# Plain values


def _is_plain(value: Any, levels: int) -> bool:
    """Whether JSON says all there is to a value; NaN, long ints and surrogates are found later."""
    kind = type(value)
    if kind is dict:
        if not _KEYS.issuperset(map(type, value)):
            return False
        if len(value) == 1 and next(iter(value)).startswith("$"):
            return False
        parts = value.values()
    elif kind is list:
        parts = value
    else:
        return kind in _LEAVES
    if _LEAVES.issuperset(map(type, parts)):
        return levels > 0
    return levels > 0 and all(
        _is_plain(part, levels - 1)
        if type(part) is dict or type(part) is list
        else type(part) in _LEAVES
        for part in parts
    )


def _leaf_text(value: Any) -> bytes | None:
    """The text of most ints and strs: the same with every writer. ``None`` = ask one."""
    if type(value) is int and -SMALL_INT < value < SMALL_INT:
        return b"%d" % value
    if type(value) is str and value.isascii():
        return json_encoder.encode_basestring(value).encode()
    return None


def json_writer(sorts: bool) -> Writer:
    """A function that writes plain values as JSON.

    `json.dumps` and ``JSONEncoder.encode`` make a new encoder of C for each call, which takes as
    long as writing a small dict.
    """
    slow = json.JSONEncoder(
        ensure_ascii=False,
        check_circular=False,
        allow_nan=False,
        separators=(",", ":"),
        sort_keys=sorts,
    )
    make: Any = getattr(json_encoder, "c_make_encoder", None)
    write: Any = getattr(json_encoder, "encode_basestring", None)
    if make is None:  # not CPython
        return lambda value: slow.encode(value).encode()
    fast = make(None, slow.default, write, None, ":", ",", sorts, False, False)
    return lambda value: "".join(fast(value, 0)).encode()


# Packing


class _Packer:
    """Makes plain values of others.

    Args:
        write: Writes a plain value.
        sorts: Whether dicts are sorted.

    Attributes:
        write: The same.
        packs: How to pack the objects of each class that can be kept.
    """

    def __init__(self, write: Writer, sorts: bool) -> None:
        self.write = write
        self._sorts = sorts
        self.packs: dict[type, Pack] = {
            **{kind: _leaf(tag, pack) for kind, (tag, pack) in _PACKED.items()},
            bool: _itself,
            type(None): _itself,
            str: _pack_str,
            int: _pack_int,
            float: _pack_float,
            dict: self._pack_dict,
            list: self._pack_list,
            tuple: lambda value, levels: {"$tuple": self._pack_list(value, levels)},
            set: lambda value, levels: {"$set": self._pack_set(value, levels)},
            frozenset: lambda value, levels: {"$frozenset": self._pack_set(value, levels)},
        }

    def pack(self, value: Any, levels: int) -> Any:
        """The plain value that stands for another.

        Args:
            value: The value.
            levels: How deep it may be nested.

        Raises:
            Unpackable: It cannot be kept.
        """
        try:
            pack = self.packs.get(type(value))
        except Exception:  # from a metaclass of the user's
            pack = None
        if pack is None:
            raise Unpackable(_why_not(value))
        if levels < 0:
            raise Unpackable(f"it is nested more than {MOST_LEVELS} deep, or contains itself")
        return pack(value, levels - 1)

    def _pack_list(self, value: Iterable[Any], levels: int) -> list[Any]:
        packed: list[Any] = []
        try:
            for part in value:
                packed.append(self.pack(part, levels))  # noqa: PERF401 - to know which one failed
        except Unpackable as error:
            error.path = f"[{len(packed)}]{error.path}"
            raise
        return packed

    def _pack_set(self, value: Iterable[Any], levels: int) -> list[Any]:
        return sorted((self.pack(part, levels) for part in value), key=self.write)

    def _pack_dict(self, value: dict[Any, Any], levels: int) -> dict[str, Any]:
        pairs: list[list[Any]] = []
        key: Any = None
        try:
            for key, part in value.items():
                pairs.append([self.pack(key, levels), self.pack(part, levels)])
        except Unpackable as error:
            error.path = f"[{brief_repr(key)}]{error.path}"
            raise
        is_plain = all(type(key) is str for key, _ in pairs)
        if is_plain and not (len(pairs) == 1 and pairs[0][0].startswith("$")):
            return dict(pairs)
        if self._sorts:
            pairs.sort(key=lambda pair: self.write(pair[0]))
        return {"$dict": pairs}


def _leaf(tag: str, pack: Callable[[Any], Any]) -> Pack:
    return lambda value, _: {tag: pack(value)}


def _itself(value: Any, _: int) -> Any:
    return value


def _pack_str(value: str, _: int) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return {"$str": value.encode("unicode_escape").decode("ascii")}
    return value


def _pack_int(value: int, _: int) -> Any:
    return value if value.bit_length() <= MOST_BITS else {"$int": hex(value)}


def _pack_float(value: float, _: int) -> Any:
    return value if value - value == 0 else {"$float": repr(value)}


def _pack_complex(value: complex) -> Any:
    return [_pack_float(value.real, 0), _pack_float(value.imag, 0)]


def _pack_moment(value: datetime | time) -> Any:
    zone = value.tzinfo
    name = None
    if zone is None or type(zone) is timezone:
        text = value.isoformat()
    elif type(zone) is ZoneInfo and zone.key is not None:
        name, text = zone.key, value.replace(tzinfo=None).isoformat()
    else:
        raise Unpackable(
            f"a {type_name(value)} with a time zone of class {type_name(zone)}: only those of "
            "datetime.timezone and zoneinfo.ZoneInfo can be kept"
        )
    return text if name is None and not value.fold else [text, name, value.fold]


_PACKED: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: ("$bytes", lambda value: base64.b64encode(value).decode("ascii")),
    bytearray: ("$bytearray", lambda value: base64.b64encode(value).decode("ascii")),
    datetime: ("$datetime", _pack_moment),
    time: ("$time", _pack_moment),
    date: ("$date", date.isoformat),
    timedelta: ("$timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("$decimal", str),
    UUID: ("$uuid", str),
    complex: ("$complex", _pack_complex),
    type(Path()): ("$path", lambda value: _pack_str(str(value), 0)),
}


def _why_not(value: Any) -> str:
    kind, name = type(value), type_name(value)
    if asked(can_be_registered, kind, instead=False):
        return f"{an(name)}, which is not registered: {_register(name)}"
    for base in type.mro(kind)[1:]:
        if any(base is known for known in (str, int, float, dict, list, tuple, set, frozenset)) or (
            any(base is known for known in _PACKED)
        ):
            told = f"which would come back as another type: return {an(base.__name__)}"
            return f"{an(base.__name__)} subclass ({name}), {told}"
    return (
        f"an object of class {name}: return what it consists of (a dict, a list, text, numbers), "
        "or use a codec that knows it"
    )


def _register(name: str) -> str:
    return f"pass codec=JsonCodec(types=[{name}])"


# Unpacking


def _unpack_moment(kind: Any) -> Unpack:
    def unpack(found: Any) -> Any:
        if type(found) is str:
            return kind.fromisoformat(found)
        text, name, fold = found
        value = kind.fromisoformat(text).replace(fold=fold)
        return value if name is None else value.replace(tzinfo=ZoneInfo(name))

    return unpack


_UNPACKERS: dict[str, Unpack] = {
    "$dict": lambda pairs: {key: value for key, value in pairs},  # noqa: C416 - pairs may be lists
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$str": lambda text: text.encode("ascii").decode("unicode_escape"),
    "$int": lambda text: int(text, 16),
    "$float": float,
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$bytearray": lambda text: bytearray(base64.b64decode(text, validate=True)),
    "$datetime": _unpack_moment(datetime),
    "$time": _unpack_moment(time),
    "$date": date.fromisoformat,
    "$timedelta": lambda parts: timedelta(*parts),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$complex": lambda parts: complex(*parts),
    "$path": Path,
}

_OF_TYPES = {"$object", "$enum"}
