"""The history of the rate: all of it, in a fixed number of bins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow._monitor.throughput import MOST_BINS, Throughput


def test_steady_rate() -> None:
    """Ten a second are ten a second in every bin, however often one looks."""
    throughput = Throughput()
    for step in range(1, 101):
        throughput.add(3, step * 0.3)
    assert throughput.rates() == pytest.approx([10.0] * 120)


def test_rate_that_changes() -> None:
    """What came in the first second is told apart from what came in the second."""
    throughput = Throughput()
    throughput.add(40, 1.0)
    throughput.add(4, 2.0)
    assert throughput.rates() == pytest.approx([40.0] * 4 + [4.0] * 4)


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 20_000)), max_size=60))
def test_history_loses_nothing_and_stays_small(steps: list[tuple[int, float]]) -> None:
    """However long the run, the bins are few, and what they hold adds up to what was done."""
    throughput, elapsed, done = Throughput(), 0.0, 0
    for count, seconds in steps:
        elapsed += seconds
        done += count
        throughput.add(count, elapsed)
        rates = throughput.rates()
        assert len(rates) <= MOST_BINS
        assert all(rate >= 0 for rate in rates)
        assert sum(rates) * throughput.span <= done * (1 + 1e-6) + 1e-6
    throughput.add(0, elapsed + throughput.span)  # so that the last bin is whole
    if len(throughput.rates()) > 1:
        assert sum(throughput.rates()) * throughput.span == pytest.approx(done, abs=1e-3)


def test_a_week_is_remembered_from_its_beginning() -> None:
    """The bins get longer; the first hour is still to be seen at the end of the week."""
    throughput = Throughput()
    throughput.add(3600 * 100, 3600)
    for hour in range(2, 24 * 7 + 1):
        throughput.add(3600, hour * 3600)
    rates = throughput.rates()
    assert rates[0] > 10 * rates[-1]
    assert len(rates) * throughput.span == pytest.approx(7 * 24 * 3600, rel=0.02)
