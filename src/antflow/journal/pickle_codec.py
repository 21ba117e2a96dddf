"""Values as pickles, for journals that only the user can write to."""

from __future__ import annotations

import pickle
from typing import Any

from antflow._core.errors import NotRestorable, NotSerialisable
from antflow._core.text import error_type_name, safe_str
from antflow.journal.json_codec import JsonCodec

PROTOCOL = 5


class PickleCodec:
    """Keeps whatever can be pickled. Made by `codec_of`, which looks at the file first.

    Attributes:
        name: ``"pickle"``.
    """

    name: str = "pickle"

    def __init__(self) -> None:
        self._plain = JsonCodec()

    def encode(self, value: Any) -> bytes:
        """Return the pickle of a value.

        Raises:
            NotSerialisable: It cannot be pickled.
        """
        try:
            return pickle.dumps(value, PROTOCOL)
        except Exception as error:
            told = f"cannot be pickled: {error_type_name(error)}: {safe_str(error)}"
            raise NotSerialisable(told) from error

    def canonical(self, value: Any) -> bytes:
        """Return the same text for equal values of plain types; of others, the pickle.

        Equal objects may have different pickles: parts may be one object or two.

        Raises:
            NotSerialisable: It cannot be pickled.
        """
        try:
            return self._plain.canonical(value)
        except NotSerialisable:
            return self.encode(value)

    def decode(self, data: bytes) -> Any:
        """Return the value of a pickle.

        Raises:
            NotRestorable: That failed, for example because a class does not exist any more.
        """
        try:
            return pickle.loads(data)  # noqa: S301 - `codec_of` has looked at the file
        except Exception as error:
            told = f"a pickle cannot be loaded: {error_type_name(error)}: {safe_str(error)}"
            raise NotRestorable(told) from error
