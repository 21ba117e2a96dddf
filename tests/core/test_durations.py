"""Durations in buckets: quantiles near the exact ones, in constant memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow import Durations
from antflow._core.durations import (
    RELATIVE_ERROR,
    SHORTEST_RUN,
    SHORTEST_WAIT,
    DurationCounter,
    durations_since,
)

SHAPES: dict[str, Callable[[random.Random], float]] = {
    "even": lambda dice: dice.uniform(0.001, 10),
    "normal": lambda dice: abs(dice.gauss(0.2, 0.05)) + 0.001,
    "long tail": lambda dice: dice.lognormvariate(-3, 2) + SHORTEST_RUN,
    "two kinds": lambda dice: dice.uniform(0.01, 0.02) if dice.random() < 0.9 else 30.0,
    "hours": lambda dice: dice.uniform(3600, 86_400),
}


def exact(durations: list[float], share: float) -> float:
    """The smallest duration that ``share`` of them do not exceed."""
    return sorted(durations)[max(ceil(share * len(durations)), 1) - 1]


@pytest.mark.parametrize("shape", SHAPES)
def test_quantiles_of_100_000(shape: str) -> None:
    """p50, p95 and p99 are within 5 % of the exact ones, whatever the durations look like."""
    dice, counter = random.Random(1), DurationCounter(SHORTEST_RUN)
    durations = [SHAPES[shape](dice) for _ in range(100_000)]
    for seconds in durations:
        counter.add(seconds)
    read = counter.read(len(durations))
    for share, seen in ((0.5, read.p50), (0.95, read.p95), (0.99, read.p99)):
        assert seen == pytest.approx(exact(durations, share), rel=0.05)


@given(st.lists(st.floats(SHORTEST_WAIT, 30 * 86_400), min_size=1), st.floats(0, 1))
def test_quantile_of_any(durations: list[float], share: float) -> None:
    """The error promised holds for every quantile of every list of durations."""
    counter = DurationCounter(SHORTEST_WAIT)
    for seconds in durations:
        counter.add(seconds)
    seen = counter.read(len(durations)).quantile(share)
    assert seen == pytest.approx(exact(durations, share), rel=RELATIVE_ERROR * 1.001)


def test_quantile_when_most_are_short() -> None:
    """Durations that were not told apart are there all the same: as 0.0, below all others."""
    counter = DurationCounter(SHORTEST_RUN)
    for _ in range(10):
        counter.add(2.0)
    read = counter.read(100)
    assert read.count == 100
    assert read.quantile(0.9) == 0.0
    assert read.quantile(0.91) == pytest.approx(2.0, rel=0.05)


def test_quantile_when_there_are_none() -> None:
    """No durations have no median."""
    assert Durations().p50 is None
    assert DurationCounter(SHORTEST_RUN).read(0).p99 is None


def test_durations_beyond_the_last_bucket() -> None:
    """A try of a year is counted as the longest there is room for, and nothing breaks."""
    counter = DurationCounter(SHORTEST_RUN)
    counter.add(365 * 86_400.0)
    counter.add(-1.0)  # a clock that was set back
    assert counter.read(2).quantile(1.0) == pytest.approx(30 * 86_400, rel=0.1)


def test_what_was_read_stays_as_it_was() -> None:
    """A reading is a copy; later durations do not change it."""
    counter = DurationCounter(SHORTEST_RUN)
    counter.add(1.0)
    read = counter.read(1)
    counter.add(9.0)
    assert read.quantile(1.0) == pytest.approx(1.0, rel=0.05)


def test_durations_as_text_are_short() -> None:
    """Printed, they say what people ask for, and not what is in which bucket."""
    assert repr(Durations()) == "Durations(count=0)"
    counter = DurationCounter(SHORTEST_RUN)
    counter.add(2.0)
    assert repr(counter.read(1)) == "Durations(count=1, p50=1.96, p95=1.96)"


@given(some=st.lists(st.floats(1e-3, 1e4)), more=st.lists(st.floats(1e-3, 1e4)))
def test_durations_since_an_earlier_reading(some: list[float], more: list[float]) -> None:
    """The difference of two readings is what was counted between them, short ones included."""
    both, alone = DurationCounter(SHORTEST_RUN), DurationCounter(SHORTEST_RUN)
    for each in some:
        both.add(each)
    earlier = both.read(len(some) + 2)
    for each in more:
        both.add(each)
        alone.add(each)
    added = durations_since(both.read(len(some) + 2 + len(more) + 5), earlier)
    expected = alone.read(len(more) + 5)
    assert added.count == expected.count
    for share in (0.0, 0.3, 0.5, 0.95, 1.0):
        assert added.quantile(share) == expected.quantile(share)
