"""The keys by which a resumed run recognises the items in its journal.

A key is an item's id in a form that a column of SQLite without a type can hold. Ids that the engine
takes for different have different keys, and ids that it takes for equal have one:

| id | key | in SQLite |
|---|---|---|
| str | itself: neither folded nor normalised | TEXT |
| int of 64 bits | itself | INTEGER |
| any other number that equals such an int: ``True``, ``5.0``, ``Decimal(5)`` | that int | INTEGER |
| any other number that equals a float | that float | REAL |
| bytes | itself | BLOB |
| UUID, tuple, frozenset, date, datetime, a larger int … | its text: ``{"$uuid":"…"}`` | TEXT |
| a str that looks like such a text, or has lone surrogates | its text: ``{"$str":"…"}`` | TEXT |

So ``5`` and ``"5"`` are two items, as in the engine, and the text of a UUID is not the UUID. The
texts are those of `JsonCodec`. An id of another class is refused, and so are NaN and an Enum that
is neither a str nor an int: ``key=`` can give another one.

An item without an id has its content as its key: the hash of the item. Of several equal items, the
engine renames the later ones: ``"…#2"``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from numbers import Number
from typing import Any, cast

from antflow._core.errors import JournalKeyError, NotSerialisable
from antflow._core.foreign import asked, is_a, type_name
from antflow._core.text import clean, is_encodable, safe_repr
from antflow.journal.codec import Codec, fingerprint
from antflow.journal.json_codec import JsonCodec
from antflow.journal.registered_types import an

ItemKey = str | int | float | bytes

LONGEST_KEY = 512
"""Bytes."""

LARGEST_INT = 2**63 - 1

MOST_DIGITS = 400
"""Of a Decimal: its int may be far larger than its text."""

TAG = '{"$'
"""How the text of an id begins that is not its own key."""

_texts = JsonCodec()


def item_key(item_id: Any) -> ItemKey:
    """The key for an item's id.

    Raises:
        JournalKeyError: It has more than 512 bytes, or is of a class whose ids have no text.
    """
    kind = type(item_id)
    is_short = kind is str and len(item_id) <= LONGEST_KEY
    if is_short and item_id.isascii() and not item_id.startswith(TAG):
        return cast(str, item_id)  # most
    if kind is int and -LARGEST_INT <= item_id <= LARGEST_INT:
        return cast(int, item_id)
    try:
        key = _key(_plain(item_id))
    except JournalKeyError as error:
        raise _refusal(item_id, str(error)) from None
    except NotSerialisable as error:
        raise _refusal(item_id, f"{an(type_name(item_id))} cannot be a key") from error
    size = len(key.encode() if type(key) is str else key) if is_a(key, (str, bytes)) else 0
    if size > LONGEST_KEY:
        raise _refusal(item_id, f"it has {size:,} bytes, and the limit is {LONGEST_KEY}")
    return key


def item_keys(ids: Sequence[str | int]) -> Sequence[ItemKey]:
    """`item_key` of many ids.

    Raises:
        JournalKeyError: One of them has no key.
    """
    return ids if _are_own_keys(ids) else list(map(item_key, ids))


def id_of_key(key: ItemKey) -> Any:
    """An id that has this key: equal to the one that it was made of.

    Raises:
        NotRestorable: There is none.
    """
    if type(key) is str and key.startswith(TAG):
        return _texts.decode(key.encode())
    return key


def content_key(item: Any, codec: Codec) -> str:
    """The key of an item that has no id: the hash of the item, in hexadecimal digits.

    Raises:
        NotSerialisable: The codec cannot encode it.
    """
    return fingerprint(item, codec).hex()


def _are_own_keys(ids: Sequence[Any]) -> bool:
    """Whether ids of one class are such that most are: each is its own key."""
    kinds = set(map(type, ids))
    if kinds == {int}:
        return bool(min(ids) >= -LARGEST_INT and max(ids) <= LARGEST_INT)
    if kinds == {str} and max(map(len, ids)) <= LONGEST_KEY:
        text = "".join(ids)
        return text.isascii() and TAG not in text
    return False


def _key(plain: Any) -> ItemKey:
    kind = type(plain)
    key: ItemKey = plain
    if kind is str:
        escaped = plain.encode("unicode_escape").decode("ascii")
        is_own = not plain.startswith(TAG) and is_encodable(plain)
        return key if is_own else f'{{"$str":{json.dumps(escaped)}}}'
    if kind is int:
        return key if -LARGEST_INT <= plain <= LARGEST_INT else f'{{"$int":"{plain:#x}"}}'
    if kind is float or kind is bytes:
        return key
    return _texts.canonical(plain).decode()


def _plain(item_id: Any) -> Any:
    """The value that stands for all ids that are equal to one.

    Raises:
        JournalKeyError: A number has none.
    """
    if is_a(item_id, str):
        return str.__str__(item_id)
    if is_a(item_id, bytes):
        return bytes(memoryview(item_id))
    if is_a(item_id, tuple):
        return tuple(map(_plain, tuple.__iter__(item_id)))
    if is_a(item_id, frozenset):
        return frozenset(map(_plain, frozenset.__iter__(item_id)))
    if type(item_id) is datetime:
        return asked(_moment, item_id, instead=item_id)
    if is_a(item_id, Number):
        return _number(item_id)
    return item_id


def _moment(item_id: datetime) -> datetime:
    """The same moment in UTC: equal times of two zones are one id.

    A time that a clock shows twice a year, or never, is equal to none of another zone.
    """
    first, second = item_id.replace(fold=0), item_id.replace(fold=1)
    is_clear = first.tzinfo is not None and first.utcoffset() == second.utcoffset()
    return first.astimezone(UTC) if is_clear else first


def _number(item_id: Any) -> int | float:
    if is_a(item_id, Decimal) and item_id.is_finite() and item_id.adjusted() > MOST_DIGITS:
        raise JournalKeyError("a number that is too large")
    for kind in (int, float):  # numpy's numbers, Fraction and Decimal are equal to one, or to none
        plain: int | float | None = asked(kind, item_id, instead=None)
        if plain is not None and asked(_are_equal, plain, item_id, instead=False):
            return plain
    raise JournalKeyError("a number that equals neither an int nor a float")


def _are_equal(one: Any, other: Any) -> bool:
    return bool(one == other)


def _refusal(item_id: Any, why: str) -> JournalKeyError:
    told = f"item id {clean(safe_repr(item_id))}: {why}"
    return JournalKeyError(f"{told}; give it a key for the journal with key=")
