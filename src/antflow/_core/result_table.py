"""The table that a notebook shows of results."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from antflow._core.failures import failed_item, told_alone
from antflow._core.text import clean, safe_repr

MOST_OK = 10
MOST_FAILED = 5
HEADINGS = ("id", "outcome", "stage", "value or error")


def results_table(counts: str, completed: Sequence[Any], failed: Sequence[Any]) -> str:
    """The counts and a few rows, as HTML in which nothing can run.

    Args:
        counts: The counts, in words.
        completed: Results.
        failed: More of them; shown last.
    """
    rows: list[str] = []
    for most, group in ((MOST_OK, completed), (MOST_FAILED, failed)):
        rows += [_row(*_texts(result)) for result in group[:most]]
        if len(group) > most:
            rows.append(_row("…", f"{len(group) - most:,} more {group[0].outcome}", "", ""))
    caption = f"<caption>{_safe(counts)}</caption>"
    head = "".join(f"<th>{heading}</th>" for heading in HEADINGS)
    table = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>" if rows else ""
    return f"<table>{caption}{table}</table>"


def _texts(result: Any) -> tuple[str, str, str, str]:
    if result.error is None:
        shown = safe_repr(result.value)
    else:
        shown = told_alone(
            failed_item(result.id, result.error, result.stage, result.attempts, result.input)
        )
    return safe_repr(result.id), result.outcome, result.stage, shown


def _row(*texts: str) -> str:
    return f"<tr>{''.join(f'<td>{_safe(text)}</td>' for text in texts)}</tr>"


def _safe(text: str) -> str:
    return escape(clean(text))
