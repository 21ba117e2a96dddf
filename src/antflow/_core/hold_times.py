"""How long a service asks to wait, parsed from the forms that services use.

`hold_seconds` reads a time to wait, `header_seconds` finds one in the headers of an answer.

Dates need the wall clock. No other file of this layer reads it, and this one (`wall_clock`) only if
the caller has not passed ``now``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from antflow._core.checks import Refuse, refusal
from antflow._core.foreign import number

HoldTime = float | str | timedelta | datetime
"""Seconds, text as in a ``Retry-After`` header, a time span, or a moment; see `RetryAfter`."""


class HasItems(Protocol):
    """A mapping, or something like one: `http.client.HTTPMessage`."""

    def items(self) -> Iterable[tuple[Any, Any]]: ...


Headers = HasItems | Iterable[tuple[Any, Any]]
"""The headers of an answer, as HTTP clients give them."""

ALLOWED = (
    'must be a finite number of seconds, text such as "2", "6m0s" or an HTTP date, a timedelta, or '
    "a datetime with a time zone"
)

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
PART = r"(\d+(?:\.\d*)?|\.\d+)(ms|us|µs|ns|d|h|m|s)"
DURATION = f"(?:{PART})+"
"""A duration as Go, and with it most services, prints it: "1h2m3.5s", "20ms"."""
UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}

FIRST_MOMENT = 1e9
"""From this number on a header has Unix seconds, not a time to wait (it would be 31 years)."""
FIRST_MOMENT_IN_MS = 1e11


def wall_clock() -> float:
    """Unix seconds, now."""
    return datetime.now(UTC).timestamp()


def hold_seconds(refuse: Refuse, name: str, value: object, now: float | None = None) -> float:
    """Read a time to wait; a negative one, or a date in the past, is 0.

    Args:
        refuse: Makes the error to raise.
        name: What the error calls the value.
        value: A `HoldTime`.
        now: The current time in Unix seconds; ``None`` = the wall clock's.

    Raises:
        Exception: The value is not a time to wait, or not finite.
    """
    seconds = _seconds(value, now)
    # Compare, do not convert: an int may be too large for a float.
    if seconds is None or not abs(seconds) <= sys.float_info.max:
        raise refusal(refuse, name, value, ALLOWED)
    return max(float(seconds), 0.0)


def header_fields(headers: Headers) -> dict[str, str]:
    """Names in lower case → values; if a name appears twice, the first value.

    Raises:
        TypeError: These are not headers.
    """
    fields: dict[str, str] = {}
    try:
        items: Any = getattr(headers, "items", None)
        pairs: Any = headers if items is None else items()
        for name, value in pairs:
            # Some clients give a list for each name, since a header may come several times.
            first = next(iter(value), "") if isinstance(value, (list, tuple)) else value
            fields.setdefault(_text(name).strip().lower(), _text(first).strip())
    except (TypeError, ValueError) as error:
        allowed = "must be the headers of an answer: a mapping or a list of pairs of strings"
        raise refusal(TypeError, "headers", headers, allowed) from error
    return fields


def header_seconds(fields: dict[str, str], now: float | None = None) -> float | None:
    """How long headers ask to wait: see `RetryAfter.from_headers`.

    Returns:
        Seconds; ``None`` if no header gives a time that can be read.
    """
    now = wall_clock() if now is None else now
    for name in "retry-after-ms", "x-ms-retry-after-ms", "retry-after":
        if (seconds := _wait(name, fields.get(name, ""), now)) is not None:
            return seconds
    resets = [
        reset
        for name, value in fields.items()
        if (reset := _reset(name, value, fields, now)) is not None
    ]
    return max(resets, default=None)


def _seconds(value: object, now: float | None) -> float | None:
    if isinstance(value, str):
        return _text_seconds(value.strip(), now)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            return None  # without a time zone it is not a moment
        return value.timestamp() - (wall_clock() if now is None else now)
    return number(value)


def _text_seconds(text: str, now: float | None) -> float | None:
    if re.fullmatch(NUMBER, text, re.ASCII):
        return float(text)
    if re.fullmatch(DURATION, text, re.ASCII):
        return sum(float(count) * UNITS[unit] for count, unit in re.findall(PART, text, re.ASCII))
    for read in (datetime.fromisoformat, _http_date):
        try:
            moment = read(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return _seconds(moment, now)
    return None


def _http_date(text: str) -> datetime:
    """RFC 9110, 5.6.7: the current form and the two obsolete ones, all in UTC."""
    from email.utils import parsedate_to_datetime  # a fifth of the time of `import antflow`

    moment = parsedate_to_datetime(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _text(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return value.decode("latin-1")
    return str(value)


def _read(value: object, now: float) -> float | None:
    try:
        return hold_seconds(ValueError, "", value, now)
    except ValueError:
        return None


def _wait(name: str, value: str, now: float) -> float | None:
    """The seconds to wait that a header gives, or the seconds until the moment that it gives."""
    if not re.fullmatch(NUMBER, value, re.ASCII):
        return _read(value, now)
    seconds = float(value)
    if seconds >= FIRST_MOMENT_IN_MS or name.endswith("-ms"):
        seconds /= 1e3
    return _read(seconds - now if seconds >= FIRST_MOMENT else seconds, now)


def _reset(name: str, value: str, fields: dict[str, str], now: float) -> float | None:
    """Seconds until a used-up limit allows more; ``None``: this header does not say so."""
    if name == "ratelimit":
        return _longest_window(value)
    words = name.replace("rate-limit", "ratelimit").split("-")
    if "ratelimit" not in words or "reset" not in words:
        return None
    left = name.replace("reset", "remaining").removesuffix("-ms").removesuffix("-after")
    if (_read(_bare(fields.get(left, "")), now) or 0.0) > 0:
        return None  # this limit is not used up
    return _wait(name, _bare(value), now)


def _bare(value: str) -> str:
    """A header's value without parameters: 10 of ``10;w=60``."""
    return value.partition(";")[0].strip()


def _longest_window(value: str) -> float | None:
    """The longest wait among the limits of a ``RateLimit`` header that have nothing left.

    Of draft-ietf-httpapi-ratelimit-headers, it reads version 7 (``limit=9, remaining=0, reset=30``)
    and later ones (``"default";r=0;t=30``).
    """
    only = dict(re.findall(r"(?:^|,)\s*(remaining|reset)=(\d{1,15})\b", value, re.ASCII))
    windows = [(only.get("remaining"), only.get("reset"))]
    for window in value.split(","):
        parameters = dict(re.findall(r";\s*([rt])=(\d{1,15})\b", window, re.ASCII))
        windows.append((parameters.get("r"), parameters.get("t")))
    waits = [float(reset) for left, reset in windows if reset and float(left or 0) == 0]
    return max(waits, default=None)
