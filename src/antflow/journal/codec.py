"""How values become bytes, and come back as the same values.

A run that goes on after a crash is given the results that an earlier process recorded. They must be
what the tasks had returned, to the type: a tuple that comes back as a list would give the next
stage another value than in an unbroken run. Each codec here restores exactly what it was given, or
refuses it with `NotSerialisable`.

- `JsonCodec` (`json_codec.py`), the default: text that any program can read. Plain values are
  ordinary JSON. Other types of the standard library, and classes that the user has registered, are
  objects with one key, their tag: ``{"$tuple":[1,2]}``. Reading it runs no code but that of
  registered classes, so a file from anywhere is safe to open.
- `MsgspecCodec` (`msgspec_codec.py`): the same text, written and read by the package ``msgspec``,
  which is faster. Journals written with one of the two can be read with the other.
- `PickleCodec` (`pickle_codec.py`): anything that can be pickled. Reading a pickle runs whatever
  its bytes say, so it has to be asked for by name, with ``trusted=True``, and the file and its
  folder must belong to the user and be writable by no other.

A codec of the user's own is any object with a name, ``encode`` and ``decode``. Its first results
are decoded again and compared, as those of the codecs here are: see `checked`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from typing import Any, Protocol

from antflow._core.errors import NotRoundTrippable, NotSerialisable
from antflow._core.foreign import asked, is_a, type_name
from antflow._core.text import brief_repr, error_type_name, safe_str
from antflow.journal.registered_types import an

CHECKED_RESULTS = 16
"""How many results of each stage are decoded again and compared."""

FINGERPRINT_BYTES = 16

_IDENTITY: Any = object.__eq__


class Codec(Protocol):
    """Turns values into bytes, and bytes into equal values of the same types.

    Attributes:
        name: The name of the form of the bytes. A journal that was written with one codec is read
            with one of the same name.
    """

    name: str

    def encode(self, value: Any) -> bytes:
        """Return the bytes for a value.

        Raises:
            NotSerialisable: The value cannot be encoded. Other errors are taken for the same.
        """
        ...

    def decode(self, data: bytes) -> Any:
        """Return the value of these bytes.

        Raises:
            NotRestorable: They cannot be decoded.
        """
        ...


def fingerprint(value: Any, codec: Codec) -> bytes:
    """The 16-byte hash (BLAKE2b) of a value, the same in every process and on every machine.

    Equal plain values of equal types have one fingerprint: the order of a dict's keys does not
    matter, nor that of a set. ``1``, ``1.0`` and ``True`` are three values, and so are ``0.0`` and
    ``-0.0``. Of a codec of the user's own, the bytes that it makes are hashed; a method
    ``canonical(value)`` may give others.

    Raises:
        NotSerialisable: The codec cannot encode the value.
    """
    canonical = getattr(codec, "canonical", codec.encode)
    return blake2b(canonical(value), digest_size=FINGERPRINT_BYTES).digest()


def checked(codec: Codec, stage: str) -> CheckedCodec:
    """The codec for the results of one stage; the first ones are decoded again and compared.

    Args:
        codec: The codec.
        stage: The stage's name, for messages.
    """
    return CheckedCodec(codec, f"result of stage {stage!r}")


class CheckedCodec:
    """A codec that finds out early if values do not come back the same, and says which one it is.

    Args:
        codec: What encodes and decodes.
        where: Which values it is for, for messages: ``"result of stage 'Parse'"``.
        count: How many of the first values are compared.

    Attributes:
        name: The name of the codec.
    """

    def __init__(self, codec: Codec, where: str, count: int = CHECKED_RESULTS) -> None:
        self.name: str = codec.name
        self._codec = codec
        self._where = where
        self._left = count

    def encode(self, value: Any) -> bytes:
        """Return the bytes for a value.

        Raises:
            NotSerialisable: It cannot be encoded.
            NotRoundTrippable: It is one of the first, and did not come back the same.
        """
        try:
            data = self._codec.encode(value)
        except NotSerialisable as error:
            raise NotSerialisable(error.problem, error.path, self._where) from error.__cause__
        except Exception as error:
            raise NotSerialisable(_told(error), "", self._where) from error
        if self._left > 0:
            self._left -= 1
            self._compare(value, data)
        return data

    def decode(self, data: bytes) -> Any:
        """Return the value of these bytes."""
        return self._codec.decode(data)

    def _compare(self, value: Any, data: bytes) -> None:
        try:
            restored = self._codec.decode(data)
        except Exception as error:
            problem = f"it was encoded, but cannot be decoded: {_told(error)}"
            raise NotRoundTrippable(problem, "", self._where) from error
        try:
            found = next(_differences(value, restored, self._codec), None)
        except RecursionError:
            found = ("", "it is nested too deeply to be compared")
        if found is not None:
            raise NotRoundTrippable(found[1], found[0], self._where)


def _differences(value: Any, restored: Any, codec: Codec, path: str = "") -> Iterator[Any]:
    """The paths at which a restored value is not what it was, each with a sentence about it."""
    kind: Any = type(value)
    if type(restored) is not kind:
        yield path, _changed(value, restored)
    elif value is restored:
        return
    elif issubclass(kind, (list, tuple)):
        if len(value) != len(restored):
            yield path, f"of {len(value):,} parts, {len(restored):,} came back"
        for index, (part, other) in enumerate(zip(value, restored, strict=False)):
            yield from _differences(part, other, codec, f"{path}[{index}]")
    elif issubclass(kind, dict):
        yield from _differences([*value], [*restored], codec, f"{path}.keys()")
        for (key, part), other in zip(value.items(), restored.values(), strict=False):
            yield from _differences(part, other, codec, f"{path}[{brief_repr(key)}]")
    elif is_dataclass(kind):
        for name in (field.name for field in fields(kind)):
            part, other = getattr(value, name, None), getattr(restored, name, None)
            yield from _differences(part, other, codec, f"{path}.{name}")
    elif kind is set or kind is frozenset:
        are_alike = Counter(map(type_name, value)) == Counter(map(type_name, restored))
        if not are_alike or (value != restored and codec.encode(value) != codec.encode(restored)):
            yield path, _changed(value, restored)  # the bytes are for NaN, as below
    elif not _are_equal(value, restored):
        # The bytes decide for NaN, arrays, and objects that are equal only to themselves.
        has_equal = kind.__eq__ is not _IDENTITY and _are_equal(value, value)
        if has_equal or codec.encode(value) != codec.encode(restored):
            yield path, _changed(value, restored)


def _changed(value: Any, restored: Any) -> str:
    came = brief_repr(restored)
    if type(restored) is not type(value):
        came = f"{an(type_name(restored))}: {came}"
    return f"{an(type_name(value))} came back as {came}"


def _are_equal(value: Any, restored: Any) -> bool:
    return asked(lambda: bool(value == restored), instead=False)


def _told(error: Exception) -> str:
    text = safe_str(error)
    if is_a(error, NotSerialisable):
        return text
    return f"{error_type_name(error)}: {text}" if text else error_type_name(error)
