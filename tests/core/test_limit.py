"""The arithmetic of limits: the bound holds in every window, and nothing is let in too late."""

from __future__ import annotations

import copy
import math
import pickle
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow._core.errors import PipelineError
from antflow._core.limit import Limit, LimitStatistics, Meter

RATES = st.integers(1, 50)
PERIODS = st.sampled_from([0.25, 1.0, 8.0, 60.0])
COSTS = st.one_of(st.integers(0, 60), st.floats(0, 60))
PAUSES = st.one_of(st.just(0.0), st.floats(0, 20))


class Bucket:
    """What a meter is, written down naively: it is filled bit by bit, and never above the brim."""

    def __init__(self, rate: float, period: float) -> None:
        self.rate, self.period = rate, period
        self.content, self.filled_at = rate, 0.0

    def fill(self, now: float) -> None:
        self.content += (now - self.filled_at) * self.rate / self.period
        self.content = min(self.content, self.rate)
        self.filled_at = now

    def due(self, cost: float) -> float:
        missing = max(min(cost, self.rate) - self.content, 0.0) if cost else 0.0
        return self.filled_at + missing * self.period / self.rate


@given(RATES, PERIODS, st.lists(st.tuples(PAUSES, COSTS), max_size=60))
def test_meter_keeps_its_bound_in_every_window(
    rate: int, period: float, arrivals: list[tuple[float, float]]
) -> None:
    """However attempts arrive: a full bucket and what flows in, no more, and a debt at the end."""
    meter, now = Meter(rate, period), 0.0
    starts: list[tuple[float, float]] = []
    for pause, cost in arrivals:
        now = max(now + pause, meter.due(cost))
        meter.charge(cost, now)
        starts.append((now, cost))
    for first, (begin, _) in enumerate(starts):
        before = 0.0
        for time, cost in starts[first:]:
            if cost:  # what is free may start in any debt
                assert before + min(cost, rate) <= rate * (1 + (time - begin) / period) + 1e-6
            before += cost


@given(RATES, PERIODS, st.lists(st.tuples(st.sampled_from(["start", "refund"]), PAUSES, COSTS)))
def test_meter_equals_its_model(
    rate: int, period: float, operations: list[tuple[str, float, float]]
) -> None:
    """Any starts and refunds: what is in the bucket, and when what may start, as in the model."""
    meter, model, now = Meter(rate, period), Bucket(rate, period), 0.0
    for operation, pause, cost in operations:
        now += pause
        if operation == "start":
            now = max(now, meter.due(cost))
        change = -cost if operation == "refund" else cost
        model.fill(now)
        model.content = min(model.content - change, rate)
        meter.charge(change, now)
        assert meter.available(now) == pytest.approx(model.content, abs=1e-6)
        for wanted in (0, 1, cost, rate, 3 * rate):
            due, right = max(meter.due(wanted), now), model.due(wanted)
            assert due == pytest.approx(right, abs=1e-6)


@given(RATES, PERIODS, st.lists(st.tuples(PAUSES, COSTS), max_size=30))
def test_meter_is_monotone(rate: int, period: float, arrivals: list[tuple[float, float]]) -> None:
    """More cost is never due earlier, and no start makes anything due earlier."""
    meter, now = Meter(rate, period), 0.0
    dues: list[float] = []
    for pause, cost in arrivals:
        now = max(now + pause, meter.due(cost))
        before, dues = dues, [meter.due(wanted) for wanted in range(rate + 5)]
        assert all(small <= large for small, large in pairwise(dues))
        assert all(max(old, now) <= max(new, now) for old, new in zip(before, dues, strict=False))
        meter.charge(cost, now)


def test_meter_spends_all_of_its_rate() -> None:
    """1000 units at 100 per second: 100 at once, then one each 10 ms, without any drift."""
    meter, now = Meter(100, 1.0), 0.0
    times = []
    for _ in range(1000):
        now = max(now, meter.due(1))
        meter.charge(1, now)
        times.append(now)
    assert times == [max(number - 99, 0) / 100 for number in range(1000)]


def test_meter_when_a_cost_is_above_the_rate() -> None:
    """It waits for a full bucket, not for ever, and the next one for the debt."""
    meter = Meter(10, 10.0)
    meter.charge(4, 0.0)
    assert meter.due(25) == 4.0
    meter.charge(25, 4.0)
    assert meter.available(4.0) == -15
    assert meter.due(1) == 20.0
    assert meter.due(0) == -math.inf, "what costs nothing does not wait for a debt"


def test_meter_when_refunded_above_the_brim() -> None:
    """A refund gives back no more than fits: the next period sees no more than a full bucket."""
    meter = Meter(10, 10.0)
    meter.charge(10, 0.0)
    meter.charge(-10, 9.0)
    assert meter.available(9.0) == 10
    meter.charge(10, 9.0)
    assert meter.due(1) == 10.0


FITS_NUMBER = "must be a finite number > 0"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "Limit: concurrency=None, rate=None: at least one"),
        ({"concurrency": 0}, ValueError, "Limit: concurrency=0: must be a whole number >= 1"),
        ({"concurrency": True}, TypeError, "Limit: concurrency=True: must be"),
        ({"concurrency": 2.0}, TypeError, "Limit: concurrency=2.0: must be"),
        ({"rate": 0}, ValueError, f"Limit: rate=0: {FITS_NUMBER}"),
        ({"rate": -1.5}, ValueError, f"Limit: rate=-1.5: {FITS_NUMBER}"),
        ({"rate": math.nan}, ValueError, f"Limit: rate=nan: {FITS_NUMBER}"),
        ({"rate": math.inf}, ValueError, f"Limit: rate=inf: {FITS_NUMBER}"),
        ({"rate": 10**400}, ValueError, f": {FITS_NUMBER}"),
        ({"rate": True}, TypeError, f"Limit: rate=True: {FITS_NUMBER}"),
        ({"rate": "60"}, TypeError, f"Limit: rate='60': {FITS_NUMBER}"),
        ({"rate": 1, "period": 0}, ValueError, f"Limit: period=0: {FITS_NUMBER}"),
        ({"concurrency": 1, "period": None}, TypeError, f"Limit: period=None: {FITS_NUMBER}"),
        ({"rate": 1, "cost": 0}, ValueError, f"Limit: cost=0: {FITS_NUMBER}"),
        ({"rate": 1, "cost": False}, TypeError, f"Limit: cost=False: {FITS_NUMBER}"),
        ({"concurrency": 1, "cost": "1"}, TypeError, f"Limit: cost='1': {FITS_NUMBER}"),
        ({"rate": 1, "cost": lambda: 1}, TypeError, ": cannot be called with one argument, the"),
    ],
)
def test_limit_when_an_argument_is_wrong(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The error names the argument, its value and what is allowed."""
    with pytest.raises(error) as raised:
        Limit(**options)
    assert message in str(raised.value)


def test_limit_when_its_cost_is_a_coroutine_function() -> None:
    """It would have to be awaited before anything starts: it is refused at once."""

    async def cost(value: object) -> int:
        return 1

    with pytest.raises(TypeError, match="must be a number or a plain function"):
        Limit(rate=1, cost=cost)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cost", "error"),
    [(-1, ValueError), (math.nan, ValueError), (math.inf, ValueError), (None, TypeError)],
)
def test_limit_when_a_cost_function_gives_no_cost(cost: Any, error: type[Exception]) -> None:
    """What it returned is checked when it is computed."""
    with pytest.raises(error, match=r"Limit: cost\(value\)=.*: must be a finite number >= 0"):
        Limit(rate=1, cost=lambda value: cost).cost_of("value")


def test_limit_computes_costs() -> None:
    """A number is the cost of anything, a function is asked, and without a rate nothing costs."""
    assert Limit(5, 60, 30.0, 2).cost_of("abc") == 2
    assert Limit(rate=60, cost=len).cost_of("abc") == 3
    assert Limit(rate=60, cost=len).cost_of("") == 0
    assert Limit(concurrency=1, cost=len).cost_of("abc") == 0


@pytest.mark.parametrize("actual", [-1, math.nan, "3", True])
def test_correct_when_the_number_is_wrong(actual: Any) -> None:
    """A cost is a finite number, 0 or more."""
    with pytest.raises((TypeError, ValueError), match=r"Limit: actual=.*: must be a finite number"):
        Limit(rate=1).correct(actual)


def test_correct_outside_a_task() -> None:
    """There is nothing to settle: the error is a RuntimeError that says so."""
    with pytest.raises(RuntimeError, match="only inside a task"):
        Limit(rate=1).correct(1)


def test_hold_before_any_run() -> None:
    """Without a clock there is no now to count from; a wrong number is told first."""
    with pytest.raises(PipelineError, match="ran"):
        Limit(rate=1).hold(1)
    with pytest.raises(ValueError, match=r"Limit: seconds=-1: must be"):
        Limit(rate=1).hold(-1)


def test_statistics_before_any_run() -> None:
    """The bucket is full and nobody is there."""
    assert Limit(rate=60).statistics() == LimitStatistics(0, 0, 60, 0.0)
    assert Limit(concurrency=1).statistics() == LimitStatistics(0, 0, None, 0.0)


def test_limit_when_copied() -> None:
    """Whatever a stage is copied with, its limit stays the same; another process gets none."""
    limit = Limit(concurrency=1)
    assert copy.copy(limit) is limit
    assert copy.deepcopy([limit])[0] is limit
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(limit)


def test_limit_shows_its_options() -> None:
    """The repr is the call that makes one."""
    assert repr(Limit(2, 60)) == "Limit(concurrency=2, rate=60, period=60.0, cost=1)"


@given(RATES, RATES, PERIODS, PERIODS, st.lists(st.tuples(PAUSES, COSTS), max_size=10), PAUSES)
def test_meter_of_another_rate_keeps_what_is_in_the_bucket(
    rate: int,
    other: int,
    period: float,
    other_period: float,
    arrivals: list[tuple[float, float]],
    pause: float,
) -> None:
    """A new rate starts no burst and forgives no debt, and refills at its own speed."""
    meter, now = Meter(rate, period), 0.0
    for gap, cost in arrivals:
        now += gap
        meter.charge(cost, now)
    before = meter.available(now)
    meter = meter.retuned(other, other_period, now)
    assert meter.available(now) == pytest.approx(min(before, other))
    expected = min(before, other) + pause * other / other_period
    assert meter.available(now + pause) == pytest.approx(min(expected, other), abs=1e-6)


def test_rate_of_a_limit_that_was_never_used() -> None:
    """Its rate and period can be set, and what is not given stays."""
    limit = Limit(concurrency=2, cost=3)
    assert limit.cost_of("x") == 0
    limit.set_rate(5)
    assert (limit.rate, limit.period, limit.cost_of("x")) == (5, 60.0, 3)
    limit.set_rate(7, period=1)
    limit.set_rate(8)
    assert (limit.rate, limit.period) == (8, 1)
    assert limit.statistics().available == 8


def test_rate_that_is_refused_changes_nothing() -> None:
    """Neither the rate nor the period."""
    limit = Limit(rate=5, period=10)
    with pytest.raises(ValueError, match="rate=0"):
        limit.set_rate(0, 1)
    with pytest.raises(ValueError, match="period=-1"):
        limit.set_rate(1, -1)
    assert (limit.rate, limit.period) == (5, 10)
