"""Items as they were fed: by its hash, another input under a known key is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from json.encoder import encode_basestring
from typing import Any

from antflow._core.errors import NotSerialisable
from antflow._core.foreign import is_a
from antflow._core.items import content_of
from antflow._core.log import warn
from antflow._core.text import clean
from antflow.journal.cells import cell_of
from antflow.journal.codec import Codec, fingerprint
from antflow.journal.json_codec import JsonCodec

NOT_KEPT = object()


class Inputs:
    """Hashes and encodes items. It warns once of those that the codec cannot encode.

    Args:
        codec: Makes bytes of them.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._has_warned = False

    def hash_of(self, given: Any) -> bytes:
        """The hash of an item; an empty one if it cannot be encoded."""
        try:
            return fingerprint(content_of(given), self._codec)
        except NotSerialisable as error:
            self._warn(error)
            return b""

    def kept(self, given: Any) -> tuple[bytes | None, bytes]:
        """An item as it is kept, and its hash. It need not be kept: it is fed again."""
        if not (found := self.hash_of(given)):
            return None, b""
        try:
            return self._codec.encode(content_of(given)), found
        except NotSerialisable as error:
            self._warn(error)
            return None, b""

    def texts(self, given: Sequence[Any]) -> Sequence[Any]:
        """Items as they are kept; `NOT_KEPT` for one that cannot be."""
        if is_a(self._codec, JsonCodec):
            kinds = [type(each) for each in given]
            if all(kind is str for kind in kinds):
                return list(map(encode_basestring, given))
            if all(kind is int for kind in kinds):
                with suppress(ValueError):  # one that is too large
                    return list(map(int.__repr__, given))
        return list(map(self._text, given))

    def _text(self, given: Any) -> Any:
        try:
            return cell_of(self._codec.encode(content_of(given)))
        except Exception:  # `kept` raises it, if that is called
            return NOT_KEPT

    def _warn(self, error: NotSerialisable) -> None:
        if not self._has_warned:
            self._has_warned = True
            told = "an item cannot be kept, so the journal does not notice if it changes: %s"
            warn(told, clean(str(error)))
