"""How many events a sink has heard, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from antflow._core.foreign import attribute, type_name
from antflow._core.text import counted


@dataclass(frozen=True, slots=True)
class SinkCounts:
    """How many events a sink has heard, and what became of them.

    Attributes:
        emitted: Heard. It is ``delivered + dropped + waiting``.
        delivered: Written.
        dropped: Lost: the buffer was full, or the sink is off.
        waiting: In the buffer, or being written.
        error: Why the sink is off: ``"OSError: No space left on device"``; ``None`` = it is on.
        failures: How often writing failed; each attempt counts.
    """

    emitted: int
    delivered: int
    dropped: int
    waiting: int
    error: str | None
    failures: int = 0


def counts_of(observers: Sequence[Any]) -> dict[str, SinkCounts]:
    """Those of the observers that are sinks: ``{"JsonlSink": …, "JsonlSink 2": …}``."""
    found: dict[str, SinkCounts] = {}
    seen: dict[str, int] = {}
    for observer in observers:
        counts = attribute(observer, "counts")
        if isinstance(counts, SinkCounts):
            kind = type_name(observer)
            seen[kind] = seen.get(kind, 0) + 1
            found[kind if seen[kind] == 1 else f"{kind} {seen[kind]}"] = counts
    return found


def lost_text(sinks: Mapping[str, SinkCounts]) -> str:
    """``JsonlSink lost 1,234 events, SqliteSink is off and lost 7 events``; "" if none did."""
    texts: list[str] = []
    for name, counts in sinks.items():
        if counts.dropped or counts.error is not None:
            is_off = "" if counts.error is None else " is off and"
            texts.append(f"{name}{is_off} lost {counted(counts.dropped, 'event')}")
    return ", ".join(texts)
