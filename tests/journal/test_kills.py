"""Real kills of real processes that keep a journal: see `tests.journal.kills`."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked"),
]


def killed(kills: int, timeout: float, *options: str) -> str:
    """Run campaigns with this many kills; return their last line."""
    command = [sys.executable, "-m", "tests.journal.kills", "--kills", str(kills), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_300_kills_lose_nothing_and_repeat_little() -> None:
    """At any moment, and at each point of a transaction: no outcome is lost or changes."""
    told = re.match("([0-9,]+) campaigns, ([0-9,]+) kills, ([0-9,]+) redone", killed(300, 240))
    assert told is not None
    assert int(told[2]) >= 300


@pytest.mark.slow
def test_10_000_kills_lose_nothing_and_repeat_little() -> None:
    """The same, over half an hour."""
    killed(10_000, 7_200)


@pytest.mark.usefixtures("postgres")  # skipped where it is not installed
def test_kills_of_a_run_with_a_journal_in_a_database_lose_nothing() -> None:
    """No outcome is lost or changes, and little is repeated."""
    killed(25, 240, "--journal", "postgres")


@pytest.mark.usefixtures("postgres")
def test_kills_of_the_server_of_a_journal_lose_and_repeat_nothing() -> None:
    """A run goes on, however often and at whatever moment its server is killed."""
    killed(4, 240, "--journal", "postgres", "--server")


@pytest.mark.slow
@pytest.mark.usefixtures("postgres")
@pytest.mark.parametrize("options", [[], ["--server"]])
def test_many_kills_with_a_journal_in_a_database_lose_nothing(options: list[str]) -> None:
    """The same, thousands of times."""
    killed(2_000, 7_200, "--journal", "postgres", *options)
