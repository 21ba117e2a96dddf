"""The counts that tasks keep: sums, rates, names."""

from __future__ import annotations

import sys
import threading
from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest

from antflow._core.counters import (
    MOST_NAMES,
    Counters,
    CounterStats,
    count,
    counters_here,
    summed,
)


def totals_of(counters: Counters, elapsed: float = 1.0) -> dict[str, float]:
    return {name: each.total for name, each in counters.read(elapsed, False).items()}


def test_amounts_are_added_exactly() -> None:
    """Whole numbers stay whole, however large; others are added as floats."""
    counters = Counters()
    for amount in (1, 10**20, -3):
        counters.add("whole", amount)
    others: list[Any] = [0.5, 2, Fraction(1, 4)]
    for amount in others:
        counters.add("any", amount)
    assert totals_of(counters) == {"whole": 10**20 - 2, "any": 2.75}
    assert type(totals_of(counters)["whole"]) is int


@pytest.mark.parametrize("amount", [nan, inf, -inf, 10**400, True, "1", None, 1j])
def test_amount_that_is_no_finite_number(amount: Any) -> None:
    """It is refused, and changes nothing."""
    counters = Counters()
    counters.add("x", 1)
    with pytest.raises(ValueError, match=r"amount=.*: must be a finite number"):
        counters.add("x", amount)
    assert totals_of(counters) == {"x": 1}


@pytest.mark.parametrize("amount", [1e308, 10**308], ids=["float", "int"])
def test_total_that_gets_too_large(amount: float) -> None:
    """It can be shown at any time: what would make it infinite is refused."""
    counters = Counters()
    counters.add("x", amount)
    with pytest.raises(ValueError, match="the total of 'x' gets too large"):
        counters.add("x", amount)
    assert totals_of(counters) == {"x": amount}


def test_names_are_few() -> None:
    """One too many is refused; those that are known go on, also after they were taken."""
    counters = Counters()
    for number in range(MOST_NAMES):
        counters.add(f"name {number}", 1)
    assert len(counters.taken()) == MOST_NAMES
    with pytest.raises(
        ValueError, match=r"count\('more'\): this stage counts under 32 other names"
    ):
        counters.add("more", 1)
    counters.add("name 7", 1)
    assert totals_of(counters)["name 7"] == 1


def test_what_cannot_be_added_keeps_nothing_else_back() -> None:
    """Of the counts of a child process all that can be counted is."""
    counters = Counters()
    for number in range(MOST_NAMES - 1):
        counters.add(f"name {number}", 1)
    with pytest.raises(ValueError, match="32 other names"):
        counters.add_all({"first": 1, "second": 1, "name 3": 1})
    assert totals_of(counters)["name 3"] == 2
    assert totals_of(counters)["first"] == 1


def test_rate_is_that_of_the_last_seconds() -> None:
    """It follows a change within five seconds, and is the mean when all is over."""
    counters = Counters()
    counters.read(10.0, False)
    for second in range(11, 31):
        counters.add("x", 10 if second <= 20 else 100)
        rate = counters.read(float(second), False)["x"].per_second
        if second in (11, 20):
            assert rate == pytest.approx(10)
        if second >= 25:
            assert rate == pytest.approx(100)
    assert counters.read(55.0, True)["x"].per_second == pytest.approx(1100 / 55)


def test_notes_are_few() -> None:
    """However often it is read, it remembers five seconds."""
    counters = Counters()
    counters.add("x", 1)
    for step in range(20_000):
        counters.read(step / 1000, False)
    assert len(counters._notes) <= 60


def test_threads_lose_nothing() -> None:
    """What several threads count at once is all there, whatever is taken meanwhile."""
    counters, collected = Counters(), Counters()
    large = 10**16  # its check gives other threads a chance

    def work() -> None:
        for _ in range(20_000):
            counters.add("x", large)

    threads = [threading.Thread(target=work) for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            collected.add_all(counters.taken())
    finally:
        sys.setswitchinterval(before)
    collected.add_all(counters.taken())
    assert totals_of(collected) == {"x": 80_000 * large}


def test_sums_of_stages() -> None:
    """Name by name; a sum is projected if all of its parts are."""
    one = {"x": CounterStats(1, 2.0, 3.0), "y": CounterStats(1, 1.0, 1.0)}
    two = {"x": CounterStats(10, 20.0, 30.0), "y": CounterStats(1)}
    assert summed([one, {}, two]) == {
        "x": CounterStats(11, 22.0, 33.0),
        "y": CounterStats(2, 1.0, None),
    }


def test_count_outside_a_task() -> None:
    """Nothing is counted, and it says so; but what is wrong is still refused."""
    assert counters_here.get() is None
    assert count("x") is False
    with pytest.raises(ValueError, match="name=''"):
        count("")
    with pytest.raises(ValueError, match="amount=nan"):
        count("x", nan)
