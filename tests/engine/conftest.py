"""Fixtures of the tests of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.engine.blocking import LOOPS, Run


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a program in an event loop of either kind."""
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run
