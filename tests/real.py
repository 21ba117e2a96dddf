"""Tests that need the real world: what marks them, and a guard over all others.

A test is `real_time` if it says so, or if it reaches one of `IMPLIES`: in its fixtures, in its own
code, or in the helpers of the tests that it calls. Where a value leads there, as to the child
processes of a stage, the test has to say it. The guard makes sure that it does: without a marker a
test may sleep for `MOST_SLEEP` altogether, and start no process.
"""

from __future__ import annotations

import multiprocessing.util
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from inspect import isclass, isfunction, ismodule, isroutine, unwrap
from types import CodeType
from typing import Any

import pytest

MOST_SLEEP = 0.2
"""Seconds that a test may sleep altogether if it is not `real_time`."""

IMPLIES = {
    "process": ("subprocess", "multiprocessing", "posix.fork", "posix.posix_spawn"),
    "pty": ("tests.pty_screen.PtyScreen", "pty", "posix.openpty", "posix.forkpty"),
    "notebook": ("nbclient", "ipykernel"),
    "browser": ("tests.browser.a_browser",),
    "cluster": ("tests.runners.clusters.start_dask", "tests.runners.clusters.start_ray"),
}
"""Marker → modules, or names in them, that imply it. Each of these markers implies `real_time`."""

STARTS: list[tuple[Any, str]] = [
    *((os, name) for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp")),
    (subprocess.Popen, "__init__"),
    (multiprocessing.util, "spawnv_passfds"),
]
"""The functions that start processes."""


def without_slow(expression: str) -> str:
    """A marker expression that leaves the slow tests out, unless it says something about them."""
    if "slow" in expression:
        return expression
    return f"({expression}) and not slow" if expression else "not slow"


# -- the markers ------------------------------------------------------------------------------


def mark(item: pytest.Item) -> None:
    """Give a test the markers that it implies."""
    if isinstance(item, pytest.Function):
        fixtures = item._fixtureinfo.name2fixturedefs.values()
        functions = {item.function, *(each.func for defs in fixtures for each in defs)}
        for marker in set().union(*map(implied_by, functions)):
            item.add_marker(marker)
    if any(item.get_closest_marker(marker) for marker in IMPLIES):
        item.add_marker("real_time")


@cache
def implied_by(function: Callable[..., object]) -> frozenset[str]:
    """The markers that a test or a fixture implies by what it reaches."""
    reached = _reached(function)
    return frozenset(each for each in IMPLIES if any(_implies(each, name) for name in reached))


def _implies(marker: str, name: str) -> bool:
    return any(f"{name}.".startswith(f"{each}.") for each in IMPLIES[marker])


def _reached(function: Any) -> set[str]:
    """The full names of what a function uses, directly or through helpers of the tests."""
    names: set[str] = set()
    to_read = [function]
    for reader in to_read:
        for name, used in _used_by(reader):
            is_known = name in names or any(_implies(marker, name) for marker in IMPLIES)
            if name.startswith("tests.") and not is_known:
                to_read.append(used)
            names.add(name)
    return names


def _used_by(reader: Any) -> Iterator[tuple[str, Any]]:
    """The modules, classes and functions that the code of a function, or of a class, names."""
    if isclass(reader):
        for base in reader.__mro__[1:]:
            yield _full_name(base), base
        for member in vars(reader).values():
            member = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
            if isfunction(member):
                yield from _used_by(member)
    elif isfunction(reader := unwrap(reader)):
        names = set(_names_in(reader.__code__))
        values = [reader.__globals__[name] for name in names & reader.__globals__.keys()]
        modules = [value for value in values if ismodule(value)]
        values += [getattr(module, name, None) for module in modules for name in names]
        yield from ((_full_name(value), value) for value in values if _full_name(value))
        # Imported inside the function: the names of modules alone have dots.
        imported = [name for name in names if "." in name]
        yield from ((f"{module}.{name}", None) for module in imported for name in names)


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _full_name(value: Any) -> str:
    """The name of a module, class or function with its module's; "" of anything else."""
    if ismodule(value):
        return value.__name__
    module = getattr(value, "__module__", None)
    is_named = (isclass(value) or isroutine(value)) and isinstance(module, str)
    return f"{module}.{value.__qualname__}" if is_named else ""


# -- the guard --------------------------------------------------------------------------------


class Waited:
    """The waiting of a test so far.

    A sleep counts as long as it was to be, and a wait that ends because something happened does not
    count: so it is the same on a busy machine.

    Attributes:
        seconds: How long it has slept.
        processes: How often it called what starts processes; one call may be by way of another.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.processes = 0

    def check(self) -> None:
        """Fail where that is too much."""
        if self.processes:
            pytest.fail("it started a process; mark it `process`", pytrace=False)
        if self.seconds > MOST_SLEEP:
            advice = "use virtual time, or mark it `real_time`"
            pytest.fail(f"slept for {self.seconds:.2f} s; {advice}", pytrace=False)


@contextmanager
def counted() -> Iterator[Waited]:
    """Count the waiting in a block: in sleeps and event loops; in the main thread, in locks."""
    waited = Waited()
    sleep, wait = time.sleep, threading.Condition.wait
    selector = selectors.DefaultSelector
    select = selector.select

    def counted_sleep(seconds: float) -> None:
        waited.seconds += seconds
        sleep(seconds)

    def counted_select(self: Any, timeout: float | None = None) -> Any:
        began = time.monotonic()
        ready = select(self, timeout)
        if not ready and timeout is not None and timeout > 0:
            waited.seconds += min(timeout, time.monotonic() - began)
        return ready

    def counted_wait(self: threading.Condition, timeout: float | None = None) -> bool:
        notified = wait(self, timeout)
        if not notified and timeout and threading.current_thread() is threading.main_thread():
            waited.seconds += timeout
        return notified

    def counting(start: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(start)
        def counted_start(*args: Any, **options: Any) -> Any:
            waited.processes += 1
            return start(*args, **options)

        return counted_start

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", counted_sleep)
        patch.setattr(selector, "select", counted_select)
        patch.setattr(threading.Condition, "wait", counted_wait)
        for place, name in STARTS:
            if hasattr(place, name):
                patch.setattr(place, name, counting(getattr(place, name)))
        yield waited
