"""Tests that need the real world are marked, and the others are watched."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nbclient import NotebookClient

from antflow.testing import run_virtual

if sys.platform == "win32":
    pytest.skip("no terminals of this kind", allow_module_level=True)

from tests.pty_screen import PtyScreen
from tests.real import MOST_SLEEP, counted, implied_by, without_slow

HERE = Path(__file__).parent


# -- the markers ------------------------------------------------------------------------------


def runs() -> None:
    subprocess.run(["true"], check=True)


def forks() -> None:
    def inside() -> None:
        os.fork()

    inside()


def through_helpers() -> None:
    list(a_generator())


def a_generator() -> Iterator[None]:
    runs()
    yield


class Starter:
    def start(self) -> None:
        runs()

    @staticmethod
    def is_needed() -> bool:
        return True


def through_a_class() -> None:
    Starter().start()


def draws() -> PtyScreen:
    return PtyScreen()


def imports_inside() -> None:
    from tests.pty_screen import PtyScreen

    PtyScreen()


class Client(NotebookClient):
    pass


def executes() -> type[Client]:
    return Client


def goes_round() -> None:
    goes_round()
    time.sleep(os.getpid())


@pytest.mark.parametrize(
    ("function", "markers"),
    [
        (runs, {"process"}),
        (forks, {"process"}),
        (through_helpers, {"process"}),
        (through_a_class, {"process"}),
        (draws, {"pty"}),
        (imports_inside, {"pty"}),
        (executes, {"notebook"}),
        (goes_round, set()),
    ],
)
def test_markers_are_implied_by_what_a_test_reaches(
    function: Callable[[], object], markers: set[str]
) -> None:
    """Directly, in a function inside, through helpers of helpers, a class, or its base."""
    assert implied_by(function) == markers


@pytest.fixture
def needs_a_process() -> Callable[[], None]:
    return runs


def test_markers_come_with_a_fixture(
    needs_a_process: Callable[[], None], request: pytest.FixtureRequest
) -> None:
    """What a fixture reaches marks the test, and each finer marker means `real_time`."""
    assert {mark.name for mark in request.node.iter_markers()} == {"process", "real_time"}


@pytest.mark.parametrize(
    ("asked", "understood"),
    [
        ("", "not slow"),
        ("not real_time", "(not real_time) and not slow"),
        ("pty or process", "(pty or process) and not slow"),
        ("slow", "slow"),
        ("slow or not slow", "slow or not slow"),
    ],
)
def test_slow_tests_run_only_when_asked_for(asked: str, understood: str) -> None:
    """Whatever else is selected, they are left out unless the expression names them."""
    assert without_slow(asked) == understood


# -- the guard --------------------------------------------------------------------------------


def wait_for_a_thread() -> None:
    happened = threading.Event()
    threading.Thread(target=happened.set).start()
    happened.wait(60)


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        (lambda: time.sleep(0.01), 0.01),
        (lambda: asyncio.run(asyncio.sleep(0.01)), 0.01),
        (lambda: threading.Event().wait(0.01), 0.01),
        (lambda: run_virtual(asyncio.sleep(3600)), 0.0),
        (lambda: asyncio.run(asyncio.wait_for(asyncio.to_thread(list), 60)), 0.0),
        (wait_for_a_thread, 0.0),
    ],
    ids=["sleep", "event loop", "lock", "virtual time", "thread", "event"],
)
def test_waiting_is_counted(wait: Callable[[], object], seconds: float) -> None:
    """Real sleep counts, of any kind; virtual time and a wait for what happens do not."""
    with counted() as waited:
        wait()
    assert waited.seconds == pytest.approx(seconds, abs=0.005)
    assert waited.processes == 0


TESTS = f"""
import asyncio, time, subprocess, sys, threading
import pytest

def test_sleeps(): time.sleep({MOST_SLEEP} + 0.01)
def test_sleeps_a_little(): time.sleep(0.01)
def test_sleeps_often():
    for _ in range(30): asyncio.run(asyncio.sleep(0.01))
def test_sleeps_in_a_thread():
    thread = threading.Thread(target=time.sleep, args=[{MOST_SLEEP} + 0.01])
    thread.start()
    thread.join()
@pytest.mark.real_time
def test_says_that_it_sleeps(): time.sleep({MOST_SLEEP} + 0.01)
def test_starts(start): start()
@pytest.mark.process
def test_says_that_it_starts(start): start()
def test_is_seen_to_start(): subprocess.run([sys.executable, "-c", ""])

START = [lambda: subprocess.run([sys.executable, "-c", ""])]
@pytest.fixture
def start(): return START[0]
"""


def test_guard_fails_a_test_that_waits_without_a_marker(tmp_path: Path) -> None:
    """In a real run: too much sleep or a process fails a test, unless it is marked."""
    (tmp_path / "tests").mkdir()
    for name in ("conftest.py", "garbage.py", "real.py", "shared_run.py", "__init__.py"):
        shutil.copy(HERE / name, tmp_path / "tests")
    shutil.copy(HERE.parent / "pyproject.toml", tmp_path)
    (tmp_path / "tests" / "test_them.py").write_text(TESTS, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "tests/test_them.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ends = dict(re.findall(r"::test_(\w+) (PASSED|FAILED)", done.stdout))
    assert ends == {
        "sleeps": "FAILED",
        "sleeps_a_little": "PASSED",
        "sleeps_often": "FAILED",
        "sleeps_in_a_thread": "FAILED",
        "says_that_it_sleeps": "PASSED",
        "starts": "FAILED",
        "says_that_it_starts": "PASSED",
        "is_seen_to_start": "PASSED",
    }, done.stdout + done.stderr
    assert "slept for 0.21 s; use virtual time, or mark it `real_time`" in done.stdout
    assert "it started a process; mark it `process`" in done.stdout
