"""Values that are no good, and the row of a table that says where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

NAN, INF, HUGE = float("nan"), float("inf"), 10**400
YEARS_293 = 293 * 365 * 86_400.0


class Hostile:
    """A value that raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    def __len__(self) -> int:
        raise RuntimeError("len")

    def __lt__(self, other: object) -> bool:
        raise RuntimeError("lt")

    def __str__(self) -> str:
        raise RuntimeError("str")


class Whole:
    """A whole number of another class than ``int``, like one of numpy."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number


@Real.register
class Measured:
    """A real number of another class than ``float``, like one of numpy."""

    def __init__(self, number: float) -> None:
        self._number = number

    def __float__(self) -> float:
        return float(self._number)

    def __repr__(self) -> str:
        return f"Measured({self._number})"


@dataclass(frozen=True)
class Row:
    """What is said about one parameter.

    Attributes:
        error: What a bad value is refused with.
        allowed: What the message says is allowed.
        bad: Values that are refused.
        good: Values that are taken.
        shown_as: Name in the message, where that is another: of an option this one stands for.
    """

    error: type[Exception] | tuple[type[Exception], ...]
    allowed: str
    bad: Sequence[Any]
    good: Sequence[Any]
    shown_as: str = ""


def but(values: Sequence[Any], *these: Any) -> list[Any]:
    """The values without these, which are told apart by type too."""
    left_out = [(type(value), value) for value in these]
    return [
        value for value in values if not any(type(value) is t and value == v for t, v in left_out)
    ]


NO_COUNTS: list[Any] = [0, -1, 1.5, 1.0, "5", b"5", None, True, NAN, INF, [1], {}, Hostile()]
NO_SECONDS: list[Any] = [
    -1,
    -0.001,
    NAN,
    INF,
    -INF,
    "1",
    b"1",
    None,
    True,
    [1],
    {},
    HUGE,
    Hostile(),
]
NO_TIMEOUTS: list[Any] = [*but(NO_SECONDS, None), 0, 0.0, YEARS_293]
NO_FLAGS: list[Any] = [1, 0, "yes", "", None, [], Hostile()]
NO_CALLABLES: list[Any] = [5, "x", b"x", True, [print], {}, Hostile()]
NO_STRINGS: list[Any] = [None, 5, True, b"x", ["x"], Hostile()]
NO_WORDS: list[Any] = [None, 5, True, "", "x", b"x", ["x"], {}, Hostile()]


def shown(value: object) -> str:
    """What a message has to show of a value."""
    try:
        return repr(value)[:79]
    except Exception:
        return f"<{type(value).__name__}: repr() failed>"
