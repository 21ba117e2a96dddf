"""Numbers for people: as many digits as are worth reading, in as few cells as will do."""

from __future__ import annotations

from antflow._core.estimates import Eta
from antflow._core.text import clock

LONGEST_EXACT = 99_999
"""Counts up to here are written out: beyond, the last digits tell nothing."""

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count_text(count: int) -> str:
    """``24,400``, ``244k``, ``2.44M``."""
    if abs(count) <= LONGEST_EXACT:
        return f"{count:,}"
    for unit, letter in UNITS:
        if abs(count) >= unit:
            return f"{_three_digits(count / unit)}{letter}"
    raise AssertionError


def amount_text(amount: float, digits: int = 5) -> str:
    """``0.0123``, ``12.3``, ``12,345``, ``2.44M``: any number; a whole one of few digits exactly.

    Args:
        amount: The number.
        digits: How many digits a whole number has at most that is written out.
    """
    size = abs(amount)
    if size < 10**digits and amount == int(amount):
        return f"{int(amount):,}"
    if size < 999.5:
        return f"{amount:.3g}"
    if size < LONGEST_EXACT:
        return f"{amount:,.0f}" if digits > 3 else f"{round(amount, -1 if size < 1e4 else -2):,.0f}"
    for unit, letter in UNITS:
        if unit <= size < 1000 * UNITS[0][0]:
            return f"{'-' if amount < 0 else ''}{_three_digits(size / unit)}{letter}"
    return f"{amount:.3g}"


def rate_text(per_second: float) -> str:
    """``154``, ``9.9``, ``0.02``, ``<0.01``: 0.0 is said only of what did not happen at all."""
    if per_second >= 99.95:
        return f"{per_second:,.0f}"
    if per_second >= 0.095 or not per_second:
        return f"{per_second:.1f}"
    return f"{per_second:.2f}" if per_second >= 0.0095 else "<0.01"


def duration_text(seconds: float | None) -> str:
    """``0.4ms``, ``182ms``, ``4.31s``, ``2:05``; "" for ``None``."""
    if seconds is None:
        return ""
    if seconds < 0.0001:
        return "<0.1ms"
    if seconds < 0.9995:
        return f"{_three_digits(seconds * 1000)}ms"
    return f"{_three_digits(seconds)}s" if seconds < 99.95 else clock(seconds)


def ago_text(seconds: float) -> str:
    """``3s ago``, ``2:05 ago``."""
    seconds = max(seconds, 0.0)
    return f"{seconds:.0f}s ago" if seconds < 60 else f"{clock(seconds)} ago"


def eta_text(eta: Eta, dash: str = "–") -> str:
    """``2:45–2:55``, ``12–14 min``, ``1:20–1:40 h``, ``3–4 days``: no finer than it is known."""
    shortest, longest = eta.shortest, eta.longest
    if longest < 60:
        ends, unit = [clock(round(shortest)), clock(round(longest))], ""
    elif longest < 600:
        ends, unit = [clock(5 * round(shortest / 5)), clock(5 * round(longest / 5))], ""
    elif longest < 3600:
        ends, unit = [f"{shortest / 60:.0f}", f"{longest / 60:.0f}"], " min"
    elif longest < 48 * 3600:
        ends, unit = [_hours(shortest), _hours(longest)], " h"
    else:
        ends, unit = [f"{shortest / 86_400:,.0f}", f"{longest / 86_400:,.0f}"], " days"
    return (ends[0] if ends[0] == ends[1] else dash.join(ends)) + unit


def _hours(seconds: float) -> str:
    hours, minutes = divmod(5 * round(seconds / 300), 60)
    return f"{hours}:{minutes:02d}"


def _three_digits(number: float) -> str:
    if number >= 99.95:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 9.995 else f"{number:.2f}".rstrip("0").rstrip(".")
