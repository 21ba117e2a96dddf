"""The grammar of numbers on the command line."""

from __future__ import annotations

from typing import Any

import click
import pytest

from antflow.cli.parameters import Count, FailureLimit, StageWorkers

# Each of them is a number to `int` or `float`.
NO_DIGITS = [
    "1e3",
    "\uff10",
    "\u0663",
    "-0",
    "+5",
    "1_000",
    " 5",
    "5 ",
    "5\n",
    "0x10",
    "1.0",
    "",
    "nan",
]


@pytest.mark.parametrize("text", [*NO_DIGITS, "9" * 16])
def test_count_that_is_refused(text: str) -> None:
    """Only the digits 0 to 9 make a number, wherever one is asked for."""
    for kind, given in [(Count(), text), (StageWorkers(), f"A={text}"), (FailureLimit(), text)]:
        with pytest.raises(click.BadParameter, match="must be"):
            kind.convert(given, None, None)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Count(), "0", 0),
        (Count(1, 100), "100", 100),
        (Count(), "007", 7),
        (StageWorkers(), "Fetch=3", ("Fetch", 3)),
        (StageWorkers(), "a=b=3", ("a=b", 3)),
        (FailureLimit(), "3", 3),
        (FailureLimit(), "100%", 1.0),
        (FailureLimit(), "2.5%", 0.025),
    ],
)
def test_count_that_is_taken(kind: Any, text: str, value: object) -> None:
    """A number, a stage with its workers, a limit as a count or as a share."""
    found = kind.convert(text, None, None)
    assert (found, type(found)) == (value, type(value))
    assert kind.convert(found, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (Count(1, 100), "0", "from 1 to 100"),
        (Count(1, 100), "101", "from 1 to 100"),
        (StageWorkers(), "Fetch", "must be STAGE=N"),
        (StageWorkers(), "=3", "must be STAGE=N"),
        (StageWorkers(), "Fetch=0", "1 or more"),
        (FailureLimit(), "0", "1 or more"),
        (FailureLimit(), "0%", "a percentage"),
        (FailureLimit(), "100.1%", "a percentage"),
        (FailureLimit(), "-1%", "a percentage"),
        (FailureLimit(), "%", "a percentage"),
    ],
)
def test_count_out_of_range(kind: Any, text: str, reason: str) -> None:
    """What is too small or too large is refused with what is allowed."""
    with pytest.raises(click.BadParameter, match=reason):
        kind.convert(text, None, None)
