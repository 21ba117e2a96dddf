"""Numbers for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow import RetryAfter
from antflow._core.estimates import Eta
from antflow.display import numbers


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (99_999, "99,999"),
        (100_000, "100k"),
        (123_456, "123k"),
        (1_234_567, "1.23M"),
        (45_600_000, "45.6M"),
        (7_000_000_000, "7G"),
        (12 * 10**15, "12,000T"),
    ],
)
def test_counts(count: int, text: str) -> None:
    """Exact as long as anybody compares the last digit, then three digits and a letter."""
    assert numbers.count_text(count) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (3.0, "3"),
        (0.00123, "0.00123"),
        (12.345, "12.3"),
        (-12.345, "-12.3"),
        (1234.5, "1,234"),
        (12_345, "12,345"),
        (123_456.7, "123k"),
        (-2_440_000, "-2.44M"),
        (5 * 10**15, "5e+15"),
        (1e300, "1e+300"),
    ],
)
def test_amounts(amount: float, text: str) -> None:
    """Whole numbers as counts are, others with three digits."""
    assert numbers.amount_text(amount) == text


@pytest.mark.parametrize(
    ("amount", "text"), [(12.0, "12"), (5612.4, "5,610"), (30_897, "30,900"), (5_612_000, "5.61M")]
)
def test_amounts_that_are_guesses(amount: float, text: str) -> None:
    """No digit is written that means nothing."""
    assert numbers.amount_text(amount, digits=3) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, "<0.1ms"),
        (0.00042, "0.42ms"),
        (0.182, "182ms"),
        (0.9994, "999ms"),
        (0.9996, "1s"),
        (4.314, "4.31s"),
        (17.52, "17.5s"),
        (99.96, "1:39"),
        (3723.0, "1:02:03"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    """Three digits, in the unit that is read most easily."""
    assert numbers.duration_text(seconds) == text


@given(st.floats(0, 1e7))
def test_durations_are_short(seconds: float) -> None:
    """No duration takes more room than a column has, and none is told as less than a tenth off."""
    assert len(numbers.duration_text(seconds)) <= 10


@pytest.mark.parametrize(
    ("shortest", "longest", "text"),
    [
        (12.2, 15.4, "0:12–0:15"),
        (12.2, 12.4, "0:12"),
        (164, 176, "2:45–2:55"),
        (55, 62, "0:55–1:00"),
        (630, 900, "10–15 min"),
        (1800, 1801, "30 min"),
        (1500, 4900, "0:25–1:20 h"),
        (7100, 7300, "2:00 h"),
        (3 * 86_400, 4.2 * 86_400, "3–4 days"),
    ],
)
def test_etas(shortest: float, longest: float, text: str) -> None:
    """A range no finer than it is known, in one unit; without seconds from ten minutes on."""
    assert numbers.eta_text(Eta(shortest, longest)) == text


def test_eta_in_ascii() -> None:
    """The dash is whatever can be written."""
    assert numbers.eta_text(Eta(164, 176), "-") == "2:45-2:55"


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1.0, "0s ago"), (43.2, "43s ago"), (86.0, "1:26 ago")]
)
def test_ages(seconds: float, text: str) -> None:
    """How long ago; what is a little in the future is now."""
    assert numbers.ago_text(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.0, "0.0"),
        (0.003, "<0.01"),
        (0.0222, "0.02"),
        (0.0949, "0.09"),
        (0.0951, "0.1"),
        (9.87, "9.9"),
        (99.96, "100"),
        (154.4, "154"),
        (12_345.6, "12,346"),
    ],
)
def test_rates(rate: float, text: str) -> None:
    """As many digits as are worth reading; 0.0 is only what did not happen."""
    assert numbers.rate_text(rate) == text


def test_seconds_in_messages() -> None:
    """Errors and warnings have commas in their seconds, too."""
    assert "try again in 3,600 s" in str(RetryAfter(3600))
