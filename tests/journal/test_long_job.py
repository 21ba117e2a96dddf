"""A long paid job over HTTP: killed at 60 %, and the same command again."""

from __future__ import annotations

import asyncio

import pytest

from tests.journal.long_job import check, kill_and_go_on


@pytest.mark.process
def test_a_job_that_was_killed_costs_nothing_twice() -> None:
    """The sums are exact, settled items cause no call, and memory stays the same."""
    check(asyncio.run(kill_and_go_on(3_000)), 3_000)


@pytest.mark.slow
@pytest.mark.process
def test_a_job_of_200_000_items_that_was_killed_costs_nothing_twice() -> None:
    """The same for as many items as a night has."""
    check(asyncio.run(kill_and_go_on(200_000)), 200_000)
