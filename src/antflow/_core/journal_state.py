"""How far a run's journal has got."""

from __future__ import annotations

from dataclasses import dataclass

from antflow._core.text import counted

LONG_BEHIND = 2.0
"""Seconds from which on displays say that a journal lags behind."""


@dataclass(frozen=True, slots=True)
class JournalState:
    """How far a run's journal has got.

    Attributes:
        path: The file.
        waiting: Rows that are not committed yet.
        behind: Seconds since all rows were committed last, or would have been if there had been
            any: what happened before is durable.
        stalled: Why rows cannot be written for the moment: ``"database or disk is full"``; "": they
            can.
    """

    path: str
    waiting: int = 0
    behind: float = 0.0
    stalled: str = ""


def journal_trouble(journal: JournalState | None) -> str:
    """``journal stalled for 12 s: database or disk is full (40 rows wait)``, or ""."""
    if journal is None or not (journal.stalled or journal.behind >= LONG_BEHIND):
        return ""
    rows = f"{counted(journal.waiting, 'row')} wait{'s' if journal.waiting == 1 else ''}"
    if journal.stalled:
        return f"journal stalled for {journal.behind:.0f} s: {journal.stalled} ({rows})"
    return f"journal {journal.behind:.0f} s behind ({rows})"
