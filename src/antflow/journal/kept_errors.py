"""Errors in a journal: in words, as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from antflow._core.error_copies import Failure, copied, in_words
from antflow._core.places import Place

LONGEST_MESSAGE = 4_000

Retried = bool | tuple[type[BaseException] | str, ...]
"""Which failed items are run again: all, none, or those of some classes or names of classes."""


@dataclass(frozen=True, slots=True)
class KeptError:
    """An error that was kept.

    Attributes:
        bases: The full names of its class and of all that this is derived from.
        failure: The error in words.
    """

    bases: tuple[str, ...]
    failure: Failure

    def is_any(self, kinds: Retried) -> bool:
        """Whether it is of one of these classes, as far as their names tell; or what was given."""
        if isinstance(kinds, bool):
            return kinds
        names = {base.rpartition(".")[2] for base in self.bases}.union(self.bases)
        wanted = {kind if isinstance(kind, str) else _full_name(kind) for kind in kinds}
        return not wanted.isdisjoint(names)

    def as_error(self) -> Exception:
        """A stand-in for the error, with the name of its class, its text and its place."""
        error = copied(None, self.failure)
        assert isinstance(error, Exception)
        error.__notes__ = []  # that it could not be pickled
        return error


def error_text(error: Exception, redacted: Callable[[str], str]) -> str:
    """An error as JSON: ``type`` (its class and all bases), ``message`` and ``place``.

    Args:
        error: The error.
        redacted: Takes out of its message what is not to be kept.
    """
    words = in_words(error)
    kept: dict[str, Any] = {
        "type": [_full_name(kind) for kind in type(error).__mro__],
        "message": redacted(words.text)[:LONGEST_MESSAGE],
        "place": words.place,
    }
    return json.dumps(kept, ensure_ascii=True)


def read_error(text: str) -> KeptError:
    """The error that was made `error_text`."""
    kept = json.loads(text)
    module, _, name = kept["type"][0].rpartition(".")
    place = None if kept["place"] is None else Place(*kept["place"])
    return KeptError(tuple(kept["type"]), Failure(module, name, kept["message"], "", place=place))


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
