"""What a run is fed with."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, cast

from antflow._core.checks import refusal
from antflow._core.foreign import asked

Items = Iterable[Any] | AsyncIterable[Any]
"""Items as they are handed in: see `antflow.Pipeline.run`."""


def check_items(items: object) -> None:
    """Refuse what is no collection of items, or most likely not the one that was meant."""
    if isinstance(items, (str, bytes, bytearray, Mapping)):
        what = "keys" if isinstance(items, Mapping) else "characters"
        raise refusal(
            TypeError, "items", items, f"would be taken apart into its {what}; wrap it in a list"
        )
    if not isinstance(items, (Iterable, AsyncIterable)) and not hasattr(items, "__getitem__"):
        raise refusal(TypeError, "items", items, "must be an iterable or an async iterable")


def count_of(items: Items, total: int | None, more: int = 0) -> int | None:
    """How many items there will be: ``total``, or as many as there are and ``more``.

    ``None`` where neither is known.
    """
    if total is not None:
        return total
    length = asked(len, cast("Any", items), instead=None)
    return None if length is None else length + more
