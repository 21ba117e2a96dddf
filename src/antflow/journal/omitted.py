"""The stand-in for a value that is not in a journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from antflow._core.text import brief_repr

WhyOmitted = Literal["too large", "not serialisable", "redacted"]
"""Why a value is not in a journal."""


@dataclass(frozen=True, slots=True, repr=False)
class Omitted:
    """Stands for a value that is not in the journal, wherever a run or a reader would give it.

    Attributes:
        why: "too large", see ``max_result`` of `antflow.journal.Journal`; "not serialisable", see
            ``on_unserialisable``; or "redacted", see ``redact``.
        size: How many bytes it had, if it was too large; else ``None``.
        hash: Their BLAKE2b hash of 16 bytes in hexadecimal digits, likewise.
        kept: What ``redact`` returned for it; ``None`` if it was not redacted.
    """

    why: WhyOmitted
    size: int | None = None
    hash: str | None = None
    kept: Any = None

    def __repr__(self) -> str:
        more = "" if self.size is None else f", {self.size:,} bytes"
        if self.kept is not None:
            more += f": {brief_repr(self.kept)}"
        return f"<not in the journal: {self.why}{more}>"
