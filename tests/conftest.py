"""What holds for every test: its markers, and that it waits for nothing real unless it says so."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.garbage import collect_and_freeze, keep_frozen
from tests.real import counted, mark, without_slow
from tests.shared_run import share

if TYPE_CHECKING:
    from tests.postgres_server import PostgresServer

EXAMPLES, EXAMPLES_WITH_SLOW = 100, 300
"""Examples that Hypothesis tries of each property: daily, and where slow tests are asked for."""


def pytest_configure(config: pytest.Config) -> None:
    """Leave the slow tests out, unless asked for; let a loaded machine take its time."""
    is_daily = "slow" not in config.option.markexpr
    config.option.markexpr = without_slow(config.option.markexpr)
    examples = EXAMPLES if is_daily else EXAMPLES_WITH_SLOW
    hypothesis.settings.register_profile("any speed", deadline=None, max_examples=examples)
    hypothesis.settings.load_profile("any speed")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test with what it implies."""
    mark(item)


def pytest_collection_finish() -> None:
    """Keep the garbage collections of a test to its own objects: there are many before it."""
    collect_and_freeze()
    keep_frozen()


def pytest_runtest_logfinish() -> None:
    """Collect what a test has left: asyncio looks at each task there is whenever a loop ends."""
    collect_and_freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Have two processes share a run of all tests: half of the time they wait."""
    share(config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Fail a test that leaves a handler of Ctrl-C behind: it could end the tests that follow."""
    result = yield
    handler = signal.getsignal(signal.SIGINT)
    if handler not in (signal.default_int_handler, signal.SIG_IGN):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        pytest.fail(f"left a handler of SIGINT: {handler!r}")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that waits for real without a marker."""
    if item.get_closest_marker("real_time"):
        return (yield)
    with counted() as waited:
        result = yield
    waited.check()
    return result


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; a test that needs one is skipped where there is none."""
    from tests.postgres_server import Missing, postgres_server  # most tests need neither

    try:
        with postgres_server() as server:
            yield server
    except Missing as reason:
        pytest.skip(str(reason))
