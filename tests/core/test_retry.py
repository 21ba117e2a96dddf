"""Tries: which failure is followed by another one, when, and what the options may be."""

from __future__ import annotations

import asyncio
import pickle
import random
from fractions import Fraction
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from antflow import Stage, StageValidationError
from antflow._core.retry import (
    AttemptNumber,
    Retry,
    RetryPolicy,
    backoff,
    check_errors,
    check_retry,
    check_wait,
)

seconds = st.floats(0.0, 1e6)


class Late(ConnectionError):
    """A kind of `ConnectionError`."""


async def task(value: Any) -> Any:
    return value


async def slow(attempt: int) -> float:
    return 1.0


def policy(wait: Any = 1.0, attempts: int = 10_000, **options: Any) -> RetryPolicy:
    return RetryPolicy(attempts, wait, whole_stage=False, **options)


# -- which failures, how often ------------------------------------------------------------------


@given(st.integers(1, 50), st.integers(1, 50))
def test_policy_gives_as_many_tries_as_it_says(attempts: int, attempt: int) -> None:
    """A failed try is followed by another while fewer than ``attempts`` were made."""
    delay = policy(2.5, attempts).next_delay(attempt, ValueError())
    assert delay == (2.5 if attempt < attempts else None)


@pytest.mark.parametrize(
    ("on", "give_up", "error", "expected"),
    [
        (Exception, (), ValueError(), True),
        (ConnectionError, (), Late(), True),
        (ConnectionError, (), ValueError(), False),
        ((KeyError, ConnectionError), (), Late(), True),
        (ConnectionError, Late, Late(), False),
        (ConnectionError, Late, ConnectionError(), True),
        (Late, (KeyError, ConnectionError), Late(), False),
        (ConnectionError, (), ExceptionGroup("two", [Late(), ValueError()]), True),
        (ConnectionError, (), ExceptionGroup("two", [ExceptionGroup("in", [Late()])]), True),
        (ConnectionError, (), ExceptionGroup("two", [ValueError(), KeyError()]), False),
        (Exception, ValueError, ExceptionGroup("two", [Late(), ValueError()]), False),
        (ExceptionGroup, (), ExceptionGroup("two", [ValueError()]), True),
        (Exception, ExceptionGroup, ExceptionGroup("two", [Late()]), False),
        (Exception, (), asyncio.CancelledError(), False),
        (Exception, (), KeyboardInterrupt(), False),
    ],
)
def test_policy_tries_again_after_the_errors_it_names(
    on: Any, give_up: Any, error: BaseException, expected: bool
) -> None:
    """A subclass counts, and what is in a group; ``give_up`` is stronger than ``on``."""
    chosen = policy(0.0, on=on, give_up=give_up)
    assert chosen.may_retry(error) is expected
    assert chosen.next_delay(1, error) == (0.0 if expected else None)


def test_wait_function_is_called_only_when_another_try_follows() -> None:
    """A wait function hears of each failed try that is followed by another, and of no other."""
    heard: list[int] = []

    def wait(attempt: int) -> float:
        heard.append(attempt)
        return attempt / 4

    chosen = policy(wait, 3, on=ConnectionError)
    assert [chosen.next_delay(attempt, Late()) for attempt in (1, 2, 3)] == [0.25, 0.5, None]
    assert chosen.next_delay(1, KeyError()) is None
    assert heard == [1, 2]


def test_wait_function_is_given_a_number_that_knows_the_error() -> None:
    """What a wait function gets is the try's number, and tells what the try failed with."""
    error = ValueError("bad")
    number = AttemptNumber(3, error)
    assert number == number.attempt_number == number.outcome.attempt_number == 3
    assert [10, 20, 30, 40][number] == 40
    assert f"{number} {number!r}" == "3 3"
    assert number.outcome.failed
    assert number.outcome.exception() is error
    with pytest.raises(ValueError, match="bad"):
        number.outcome.result()


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (-1, ValueError, r"wait\(2\)=-1: must be a finite number of seconds >= 0"),
        (float("nan"), ValueError, r"wait\(2\)=nan"),
        (float("inf"), ValueError, r"wait\(2\)=inf"),
        (10**400, ValueError, "must be a finite number"),
        (None, TypeError, r"wait\(2\)=None: must be a number of seconds"),
        ("3", TypeError, r"wait\(2\)='3'"),
        (True, TypeError, r"wait\(2\)=True"),
    ],
)
def test_wait_function_that_returns_no_seconds_is_an_error(
    answer: Any, kind: type[Exception], message: str
) -> None:
    """What cannot be waited raises, with the try, the answer and what is allowed."""
    with pytest.raises(kind, match=message):
        policy(lambda attempt: answer).next_delay(2, ValueError())


def test_wait_function_that_is_async_after_all_is_an_error() -> None:
    """A coroutine for an answer is refused, and closed: it does not warn that nobody awaited it."""
    with pytest.raises(TypeError, match="must be a number of seconds"):
        policy(lambda attempt: slow(attempt)).next_delay(1, ValueError())


def test_wait_function_that_raises_is_heard() -> None:
    """What a wait function raises comes out as it is."""
    with pytest.raises(ZeroDivisionError):
        policy(lambda attempt: 1 / 0).next_delay(1, ValueError())


# -- backoff ------------------------------------------------------------------------------------


@given(
    st.floats(1e-3, 10.0),
    st.floats(1.0, 4.0),
    st.floats(1.0, 1e9),
    st.one_of(st.integers(1, 12), st.integers(1, 10_000)),
)
def test_backoff_without_jitter_grows_up_to_its_maximum(
    initial: float, factor: float, maximum: float, attempt: int
) -> None:
    """The smaller of ``maximum`` and ``initial * factor ** (attempt - 1)``, and no overflow."""
    pause = backoff(initial, factor, maximum, jitter=False)(attempt)
    grown = Fraction(initial) * Fraction(factor) ** min(attempt - 1, 60)
    least = float(min(grown, Fraction(maximum)))
    assert least * (1 - 1e-9) <= pause <= maximum
    if attempt <= 61:
        assert pause == pytest.approx(least, rel=1e-9)


@given(seconds, st.floats(1.0, 100.0), seconds, st.integers(1, 10_000), st.integers(0, 9))
def test_backoff_with_jitter_is_drawn_from_zero_up_to_the_longest(
    initial: float, factor: float, maximum: float, attempt: int, seed: int
) -> None:
    """A draw of the given generator, scaled to the pause without jitter."""
    longest = backoff(initial, factor, maximum, jitter=False)(attempt)
    drawn = backoff(initial, factor, maximum, rng=random.Random(seed))(attempt)
    assert 0.0 <= drawn <= longest <= maximum
    assert drawn == random.Random(seed).uniform(0.0, longest)


def test_backoff_draws_from_the_shared_generator() -> None:
    """Without a generator of its own, it follows ``random.seed``."""
    state = random.getstate()
    try:
        random.seed(11)
        drawn = backoff(8.0)(2)
        random.seed(11)
        assert drawn == random.uniform(0.0, 16.0)
    finally:
        random.setstate(state)


@pytest.mark.parametrize("attempt", [1, 5000, 10**6])
def test_backoff_of_nothing_is_nothing(attempt: int) -> None:
    """An initial pause of 0 never becomes one, however late the try."""
    assert backoff(0, 10, 60, jitter=False)(attempt) == 0.0


def test_backoff_can_be_compared_and_pickled() -> None:
    """A copy from another process is equal and draws the same."""
    original = backoff(0.5, 3, maximum=9, jitter=False)
    copied = pickle.loads(pickle.dumps(original))
    assert copied == original == backoff(0.5, 3, 9, False)
    assert [copied(attempt) for attempt in (1, 2, 3, 4)] == [0.5, 1.5, 4.5, 9.0]
    seeded = backoff(rng=random.Random(5))
    again = pickle.loads(pickle.dumps(seeded))
    assert [again(attempt) for attempt in (1, 2)] == [seeded(attempt) for attempt in (1, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": -1}, r"initial=-1: must be a finite number of seconds >= 0"),
        ({"initial": "1"}, "initial='1'"),
        ({"maximum": float("inf")}, "maximum=inf"),
        ({"maximum": float("nan")}, "maximum=nan"),
        ({"factor": 0.5}, r"factor=0.5: must be a finite number >= 1"),
        ({"factor": 10**400}, "factor="),
        ({"jitter": 0.5}, r"jitter=0.5: must be True or False"),
    ],
)
def test_backoff_refuses_what_cannot_be_waited(options: dict[str, Any], message: str) -> None:
    """A bad argument is refused where it is written, with what is allowed."""
    with pytest.raises(ValueError, match=message):
        backoff(**options)


# -- tenacity -----------------------------------------------------------------------------------


def after_seconds(error: BaseException) -> float:
    return 7.0 if isinstance(error, Late) else 1.0


def two_seconds(state: Any) -> float:
    return 2.0


TENACITY = {
    "none": tenacity.wait_none(),
    "fixed": tenacity.wait_fixed(1.5),
    "random": tenacity.wait_random(1, 3),
    "incrementing": tenacity.wait_incrementing(start=1, increment=2, max=9),
    "exponential": tenacity.wait_exponential(multiplier=0.5, min=1, max=20),
    "random exponential": tenacity.wait_random_exponential(multiplier=0.5, max=60),
    "exponential with jitter": tenacity.wait_exponential_jitter(max=30, jitter=2),
    "chain": tenacity.wait_chain(*[tenacity.wait_fixed(pause) for pause in (1, 2, 5)]),
    "combined": tenacity.wait_fixed(3) + tenacity.wait_random(0, 2),
    "sum": sum([tenacity.wait_fixed(3), tenacity.wait_incrementing(1, 1)]),
    "by exception": tenacity.wait_exception(after_seconds),
    "function of its state": two_seconds,
}


def as_tenacity_does(wait: Any, attempt: int, error: BaseException) -> float:
    """Call a wait object as tenacity itself calls it."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempt
    state.set_exception((type(error), error, None))
    return float(wait(state))


@pytest.mark.parametrize("attempt", [1, 2, 3, 7, 5000])
@pytest.mark.parametrize("name", TENACITY)
def test_wait_of_tenacity_gives_what_it_gives_there(name: str, attempt: int) -> None:
    """A wait object of tenacity waits as long here as in tenacity, random or not."""
    wait = TENACITY[name]
    check_wait(ValueError, "wait", wait)
    state = random.getstate()
    try:
        random.seed(3)
        expected = as_tenacity_does(wait, attempt, Late())
        random.seed(3)
        assert policy(wait).next_delay(attempt, Late()) == expected
    finally:
        random.setstate(state)


# -- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait",
    [0, 2.5, 10**6, backoff(), lambda attempt: 1.0, {1: 2.0}.get, max, tenacity.wait_fixed(1)],
)
def test_wait_may_be_seconds_or_a_function(wait: Any) -> None:
    """Seconds, and whatever can be called with the number of the try, are accepted."""
    check_wait(ValueError, "wait", wait)


@pytest.mark.parametrize(
    ("wait", "message"),
    [
        (-1, r"wait=-1: must be a finite number of seconds >= 0"),
        (True, "wait=True"),
        (float("nan"), "wait=nan"),
        ("1s", r"wait='1s': must be .* or a function attempt -> seconds"),
        (None, "wait=None"),
        (backoff, r"write backoff\(\.\.\.\)"),
        (tenacity.wait_exponential, r"write wait_exponential\(\.\.\.\)"),
        (slow, "must be a plain function attempt -> seconds, not async"),
        (lambda: 1.0, "cannot be called with one argument"),
        (lambda attempt, error: 1.0, "one argument, the attempt"),
    ],
)
def test_wait_refuses_what_is_neither(wait: Any, message: str) -> None:
    """What cannot be called with a try's number is refused before anything is tried."""
    with pytest.raises(ValueError, match=message):
        check_wait(ValueError, "wait", wait)


@pytest.mark.parametrize("errors", [Exception, Late, (Late, KeyError), ExceptionGroup])
def test_errors_may_be_a_class_or_a_tuple(errors: Any) -> None:
    """Exception classes are accepted, one or several."""
    check_errors(ValueError, "on", errors)


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ((), "one attempt is how to try only once"),
        ("ValueError", r"on='ValueError': must be an exception class, or a tuple of"),
        (None, "on=None"),
        (ValueError("bad"), "must be an exception class"),
        ([ValueError], "must be an exception class"),
        ((ValueError, "KeyError"), "must be an exception class"),
        ((ValueError, (KeyError,)), "must be an exception class"),
        (int, "must be an exception class"),
        (lambda error: True, "must be an exception class"),
        (BaseException, "BaseException would retry cancellation: must be a subclass of Exception"),
        (asyncio.CancelledError, "CancelledError would retry cancellation"),
        ((ValueError, KeyboardInterrupt), "KeyboardInterrupt would retry cancellation"),
        (BaseExceptionGroup, "BaseExceptionGroup would retry cancellation"),
    ],
)
def test_errors_refuse_what_is_not_an_exception_class(errors: Any, message: str) -> None:
    """What is no exception class, and what would retry a cancellation, is refused."""
    with pytest.raises(ValueError, match=message):
        check_errors(ValueError, "on", errors)


def test_errors_to_give_up_on_may_be_none_at_all() -> None:
    """Giving up on nothing in particular is fine; giving up on cancellation goes without saying."""
    check_errors(ValueError, "give_up", (), may_be_empty=True)
    with pytest.raises(ValueError, match="CancelledError is never retried anyway"):
        check_errors(ValueError, "give_up", asyncio.CancelledError, may_be_empty=True)


def test_retry_and_backoff_have_the_documented_defaults() -> None:
    """Three tries a second apart, after any exception; a pause from 1 s up to 60 s, with jitter."""
    assert Retry() == Retry(3, 1.0, Exception, (), None)
    assert backoff() == backoff(1.0, 2.0, 60.0, True, rng=None)
    assert RetryPolicy(3, 1.0, False) == RetryPolicy(3, 1.0, False, Exception, ())


@pytest.mark.parametrize(
    "retry",
    [
        Retry(),
        Retry(attempts=1, wait=0, timeout=1e-3),
        Retry(5, backoff(0.5), (Late, KeyError), Late, 30),
    ],
)
def test_retry_may_be_what_it_says(retry: Retry) -> None:
    """What the documentation of `Retry` allows is accepted, and is a value: it can be compared."""
    check_retry(ValueError, "retry", retry)
    assert retry == pickle.loads(pickle.dumps(retry))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attempts": 0}, r"retry\.attempts=0: must be a whole number of tries >= 1"),
        ({"attempts": True}, r"retry\.attempts=True"),
        ({"wait": -1}, r"retry\.wait=-1"),
        ({"on": ()}, r"retry\.on=\(\)"),
        ({"on": BaseException}, r"retry\.on=.* would retry cancellation"),
        ({"give_up": "no"}, r"retry\.give_up='no'"),
        ({"timeout": 0}, r"retry\.timeout=0: must be a number of seconds above 0"),
        ({"timeout": 1e12}, r"retry\.timeout=1000000000000.0: must be .* at most 292 years"),
        ({"timeout": float("inf")}, r"retry\.timeout=inf"),
    ],
)
def test_stage_refuses_a_retry_that_cannot_be(options: dict[str, Any], message: str) -> None:
    """The error names the stage, the part of the retry, its value and what is allowed."""
    stage = Stage("Fetch", 1, [task], retry=Retry(**options))
    with pytest.raises(StageValidationError, match=rf"^Stage 'Fetch': {message}"):
        stage.validate()
