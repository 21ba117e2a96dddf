"""The grammar of numbers on the command line."""

from __future__ import annotations

from typing import Any

import click
import pytest

from antflow import Failures
from antflow.cli.parameters import Count, ErrorNames, FailureLimit, StageWorkers

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
        (FailureLimit(), "0.025", 0.025),
        (FailureLimit(), "50/200", Failures(count=50)),
        (FailureLimit(), "20%/1000", Failures(share=0.2, of_last=1000)),
        (FailureLimit(), "0.5/50", Failures(share=0.5, of_last=50)),
        (ErrorNames(), "AuthError", ("AuthError",)),
        (ErrorNames(), "AuthError, shop.errors.Sold", ("AuthError", "shop.errors.Sold")),
    ],
)
def test_count_that_is_taken(kind: Any, text: str, value: object) -> None:
    """A number, a stage with its workers, a limit as a count or as a share, names of errors."""
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
        (FailureLimit(), "0%", "a share like"),
        (FailureLimit(), "100.1%", "a share like"),
        (FailureLimit(), "-1%", "a share like"),
        (FailureLimit(), "%", "a share like"),
        (FailureLimit(), "0.0", "a share like"),
        (FailureLimit(), ".5", "a share like"),
        (FailureLimit(), "5/", "50/200"),
        (FailureLimit(), "/5", "50/200"),
        (FailureLimit(), "5/50%", "50/200"),
        (FailureLimit(), "5/5/5", "50/200"),
        (FailureLimit(), "5/0", "of_last=0: must be a whole number"),
        (FailureLimit(), "60/50", "from 1 to 50"),
        (ErrorNames(), "", "names of exception classes"),
        (ErrorNames(), "AuthError,", "names of exception classes"),
        (ErrorNames(), "Auth Error", "names of exception classes"),
        (ErrorNames(), "errors.AuthError()", "names of exception classes"),
    ],
)
def test_count_out_of_range(kind: Any, text: str, reason: str) -> None:
    """What is too small or too large is refused with what is allowed."""
    with pytest.raises(click.BadParameter, match=reason):
        kind.convert(text, None, None)
