"""Calls whose end is kept as a pair."""

from __future__ import annotations

import pytest

from antflow._core.value_or_error import (
    call_elsewhere,
    call_for_pair,
    value_from_elsewhere,
    value_of,
)


@pytest.mark.parametrize(
    "error", [ValueError(), StopIteration(), KeyboardInterrupt(), SystemExit()]
)
def test_pair_keeps_any_error(error: BaseException) -> None:
    """Whatever a function raises is kept, and comes out as the very same object."""

    def fail() -> None:
        raise error

    pair = call_for_pair(fail)
    assert pair == (None, error)
    with pytest.raises(type(error)) as caught:
        value_of(pair)
    assert caught.value is error


def test_pair_keeps_a_value_that_is_an_error() -> None:
    """An exception that a function returns is a value."""
    error = ValueError()
    assert value_of(call_for_pair(lambda: error)) is error


def test_pair_of_a_call_elsewhere_is_not_a_copy_in_the_same_process() -> None:
    """An executor of the user's need not have processes: its errors are the very same objects."""
    error = LookupError()

    def fail() -> None:
        raise error

    with pytest.raises(LookupError) as caught:
        value_from_elsewhere(call_elsewhere(fail))
    assert caught.value is error
    assert caught.value.__cause__ is None
