"""Limits of failures: among all items, and among the last ones."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow import Failures
from antflow._core.failure_limit import FailureLimit, FailureWindow
from tests.parameters.values import Measured, Whole

LIMITS = st.one_of(
    st.integers(1, 8),
    st.floats(0.05, 1.0),
    st.builds(
        lambda share, of_last, part: Failures(
            count=max(int(part * of_last), 1), share=share, of_last=of_last
        ),
        st.none() | st.floats(0.05, 1.0),
        st.integers(1, 25),
        st.floats(0.1, 1.0),
    ),
)


def naively(limit: FailureLimit, outcomes: list[bool]) -> list[int]:
    """The places of all failures at which the limit is reached, from 0."""
    reached: list[int] = []
    for place, has_failed in enumerate(outcomes):
        seen = outcomes[: place + 1]
        count, share, fewest = None, None, 20
        if isinstance(limit, Failures):
            seen = seen[-limit.of_last :]
            count, share, fewest = limit.count, limit.share, min(limit.of_last, 20)
        elif isinstance(limit, int):
            count = limit
        else:
            share = limit
        is_share = share is not None and len(seen) >= fewest and sum(seen) >= share * len(seen)
        if has_failed and ((count is not None and sum(seen) >= count) or is_share):
            reached.append(place)
    return reached


@given(LIMITS, st.lists(st.booleans(), min_size=40, max_size=120))
def test_window_counts_what_it_would_with_all_outcomes_at_hand(
    limit: FailureLimit, outcomes: list[bool]
) -> None:
    """It is told of failures only, and still knows which of them are among the last items."""
    window: FailureWindow[int] = FailureWindow(limit)
    tripped: list[int] = []
    for place, has_failed in enumerate(outcomes):
        failed = sum(outcomes[: place + 1])
        if has_failed and window.is_tripped_by(place, failed, place + 1):
            tripped.append(place)
        if has_failed and window.of_last is not None:
            first = max(place + 1 - window.of_last, 0)
            inside = [each for each in range(first, place + 1) if outcomes[each]]
            assert list(window.failures) == inside
            assert (window.failed, window.settled) == (len(inside), place + 1 - first)
    assert tripped == naively(limit, outcomes)


def test_limit_without_a_window_keeps_no_item() -> None:
    """However many fail: a share of a large run would keep as many."""
    window: FailureWindow[int] = FailureWindow(0.5)
    assert not any(window.is_tripped_by(place, place, place * 3) for place in range(1, 1000))
    assert not window.failures


def test_failures_are_a_value() -> None:
    """Equal by their fields, which are plain numbers; copied, pickled, and told in short."""
    numbers: dict[str, Any] = {"count": Whole(3), "share": Measured(0.5), "of_last": Whole(9)}
    limit = Failures(**numbers)
    assert [type(each) for each in (limit.count, limit.share, limit.of_last)] == [int, float, int]
    assert limit == pickle.loads(pickle.dumps(limit)) == copy.deepcopy(limit)
    assert hash(limit) == hash(replace(limit))
    assert repr(limit) == "Failures(count=3, share=0.5, of_last=9)"
    assert repr(Failures(share=0.1)) == "Failures(share=0.1, of_last=200)"
    assert repr(replace(limit, share=None)) == "Failures(count=3, of_last=9)"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "count=None, share=None: at least one of them must be given"),
        ({"of_last": 50}, "at least one of them must be given"),
        ({"count": 51, "of_last": 50}, "from 1 to 50, which is of_last"),
    ],
)
def test_failures_that_could_never_be_reached_are_refused(given: Any, said: str) -> None:
    """Neither a count nor a share, or more failures than the window has items."""
    with pytest.raises(ValueError, match=said):
        Failures(**given)


def test_failures_with_a_misspelt_option_say_which_was_meant() -> None:
    """As everywhere."""
    wrong: Any = {"ratio": 0.5, "shar": 0.1}
    with pytest.raises(TypeError, match=r"there is no such option"):
        Failures(**wrong)
