"""Checks of options: one message form for all of them.

A message says where, which argument, its value, and what is allowed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, cast

from antflow._core.text import safe_repr

Refuse = Callable[[str], Exception]
"""Makes the exception to raise from the end of the message: ``"workers=0: must be …"``."""


def refusal(refuse: Refuse, name: str, value: object, allowed: str) -> Exception:
    """The error that says that ``name=value`` is not ``allowed``."""
    return refuse(f"{name}={safe_repr(value)}: {allowed}")


def check_count(
    refuse: Refuse,
    name: str,
    value: object,
    minimum: int,
    allowed: str,
    maximum: int | None = None,
) -> None:
    """Refuse what is not a whole number of at least ``minimum`` (``True`` is not a number)."""
    if type(value) is not int or value < minimum or (maximum is not None and value > maximum):
        raise refusal(refuse, name, value, allowed)


def check_seconds(refuse: Refuse, name: str, value: object, minimum: float = 0.0) -> None:
    """Refuse what is not a finite number of seconds of at least ``minimum``."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Compared, not converted: an int may be too large for a float.
    if not (is_number and minimum <= cast("float", value) <= sys.float_info.max):
        raise refusal(refuse, name, value, f"must be a finite number of seconds >= {minimum:g}")


def check_flag(refuse: Refuse, name: str, value: object) -> None:
    """Refuse what is neither ``True`` nor ``False``."""
    if not isinstance(value, bool):
        raise refusal(refuse, name, value, "must be True or False")


def check_callback(refuse: Refuse, name: str, value: Any) -> None:
    """Refuse what is neither ``None`` nor callable."""
    if value is not None and not callable(value):
        raise refusal(refuse, name, value, "must be a function or None")
