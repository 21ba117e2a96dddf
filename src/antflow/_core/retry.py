"""How often something is tried, after which errors, and how long to wait between tries."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from antflow._core.checks import (
    Refuse,
    check_count,
    check_flag,
    check_number,
    check_seconds,
    check_timeout,
    refusal,
    takes,
)
from antflow._core.foreign import number
from antflow._core.groups import matches
from antflow._core.misspellings import explained

Errors = type[Exception] | tuple[type[Exception], ...]
"""An exception class, or a tuple of them."""

RetryWait = float | Callable[[Any], float]
"""Seconds, or a function ``attempt -> seconds``; see `Retry`."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Everything about the tries of a task in one value: ``Stage(..., retry=Retry(attempts=5))``.

    Making one never raises; the stage it is given to checks it.

    Attributes:
        attempts: Total tries of each task, the first included, at least 1.
        wait: Pause before the next try: finite seconds >= 0, or a function that is given the number
            of the try that failed, from 1, and returns such seconds. `backoff` makes one, and the
            wait objects of tenacity are some (see `AttemptNumber`). If it raises, or returns
            anything else, the item fails with that error.
        on: Exception classes after which another try is worth it. In an exception group, one such
            error is enough.
        give_up: Exception classes after which it is not; overrides `on`, even for a single error of
            a group.
        timeout: Seconds for one try of one task, above 0 and at most 292 years; then it fails with
            `TimeoutError`. ``None`` = no limit.

    Example:
        >>> from antflow import Retry, backoff
        >>> retry = Retry(attempts=5, wait=backoff(0.5), on=(ConnectionError, TimeoutError))
    """

    attempts: int = 3
    wait: RetryWait = 1.0
    on: Errors = Exception
    give_up: Errors = ()
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Backoff:
    """A pause that grows from try to try, as `backoff` makes it.

    Attributes:
        initial: Longest pause after the first try, in seconds.
        factor: By how much it grows from try to try.
        maximum: Where it stops growing, in seconds.
        jitter: Whether the pause is drawn from 0 up to the longest, or is the longest.
        rng: Where it is drawn from; ``None`` = the generator the `random` module shares.

    Raises:
        ValueError: An argument is not what `backoff` allows.
    """

    initial: float
    factor: float
    maximum: float
    jitter: bool
    rng: random.Random | None = None

    def __post_init__(self) -> None:
        check_seconds(ValueError, "initial", self.initial)
        check_seconds(ValueError, "maximum", self.maximum)
        check_flag(ValueError, "jitter", self.jitter)
        check_number(ValueError, "factor", self.factor, 1.0)

    def __call__(self, attempt: int) -> float:
        """Seconds until the try after try number ``attempt``."""
        try:
            growth = float(self.factor) ** (attempt - 1)
            longest = min(float(self.initial) * growth, float(self.maximum))
        except OverflowError:
            longest = float(self.maximum) if self.initial else 0.0
        if not self.jitter:
            return longest
        # Full jitter: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
        uniform = random.uniform if self.rng is None else self.rng.uniform
        return uniform(0.0, longest)


@explained
def backoff(
    initial: float = 1.0,
    factor: float = 2.0,
    maximum: float = 60.0,
    jitter: bool = True,
    *,
    rng: random.Random | None = None,
) -> Backoff:
    """Make a pause that grows from try to try: ``initial``, ``initial * factor``, and so on.

    With jitter, each pause is drawn evenly from 0 up to that, so that items that failed together do
    not come back together.

    Args:
        initial: Longest pause after the first try, in seconds, 0 or more.
        factor: By how much it grows from try to try, 1 or more.
        maximum: The longest possible pause, in seconds, 0 or more.
        jitter: ``False`` pauses for the longest instead of drawing.
        rng: Where to draw from, for pauses that can be repeated; ``None`` = the generator the
            `random` module shares.

    Returns:
        A function ``attempt -> seconds`` for `wait`; it can be pickled and compared.

    Raises:
        ValueError: An argument is not such a number.
        TypeError: ``rng`` is not a `random.Random`.

    Example:
        ```python
        pause = backoff(0.5, jitter=False)
        assert [pause(attempt) for attempt in (1, 2, 3, 4, 5000)] == [0.5, 1.0, 2.0, 4.0, 60.0]
        ```
    """
    if rng is not None and not isinstance(rng, random.Random):
        raise refusal(TypeError, "rng", rng, "must be a random.Random or None")
    return Backoff(initial, factor, maximum, jitter, rng)


@dataclass(frozen=True, slots=True)
class FailedTry:
    """How a try ended, in the form of a done future that holds an exception.

    Attributes:
        attempt_number: Which try, from 1.
        error: The error it failed with.
    """

    attempt_number: int
    error: BaseException

    @property
    def failed(self) -> bool:
        """True: only failed tries are repeated."""
        return True

    def exception(self) -> BaseException:
        """The error the try failed with."""
        return self.error

    def result(self) -> NoReturn:
        """Raise the error the try failed with."""
        raise self.error


class AttemptNumber(int):
    """The argument of a `wait` function: the number of the try that failed, from 1.

    The wait objects of tenacity look for it, and for the error, in attributes of their argument.
    These two are there; the rest of tenacity's own state is missing, rather than made up.

    Attributes:
        attempt_number: The number once more.
        outcome: The error, as ``outcome.exception()``.
    """

    attempt_number: int
    outcome: FailedTry

    def __new__(cls, attempt: int, error: BaseException) -> AttemptNumber:
        """Make one of a try's number and error."""
        number = super().__new__(cls, attempt)
        number.attempt_number = attempt
        number.outcome = FailedTry(attempt, error)
        return number


def _refuse_to_change(retry: Retry, name: str, value: object = None) -> NoReturn:
    way = f"dataclasses.replace(retry, {name}=...) makes another Retry, for another Stage"
    raise FrozenInstanceError(f"Retry.{name} cannot be assigned: {way}")


if not TYPE_CHECKING:
    Retry.__init__ = explained(Retry.__init__)
    Retry.__setattr__ = Retry.__delattr__ = _refuse_to_change


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Whether a failed try is followed by another, and when.

    Attributes:
        attempts: Total tries, the first included.
        wait: Pause before the next one: seconds, or ``attempt -> seconds``.
        whole_stage: Whether the stage is tried again from its first task, or the failed task alone.
        on: Exception classes that are tried again.
        give_up: Exception classes that are not; overrides `on`.
    """

    attempts: int
    wait: RetryWait
    whole_stage: bool
    on: Errors = Exception
    give_up: Errors = ()

    def may_retry(self, error: BaseException) -> bool:
        """Whether an error, or one in a group, is worth another try, and none of them gives up."""
        return matches(error, self.on) and not matches(error, self.give_up)

    def next_delay(self, attempt: int, error: BaseException) -> float | None:
        """How long to wait after try number ``attempt`` failed with ``error``.

        Returns:
            Seconds until the next try; ``None``: there is none.

        Raises:
            TypeError: `wait` returned something that is not a number.
            ValueError: It returned a number that is negative or not finite.
            Exception: Whatever else it raised. In all three cases the item fails with that.
        """
        if attempt >= self.attempts or not self.may_retry(error):
            return None
        if callable(self.wait):
            return _seconds(self.wait(AttemptNumber(attempt, error)), f"wait({attempt})")
        return self.wait


def check_retry(refuse: Refuse, name: str, retry: Retry) -> Retry:
    """Refuse a `Retry` with a field that is not allowed."""
    allowed = "must be a whole number of tries >= 1"
    plain = {
        "attempts": check_count(refuse, f"{name}.attempts", retry.attempts, 1, allowed),
        "wait": check_wait(refuse, f"{name}.wait", retry.wait),
        "timeout": check_timeout(refuse, f"{name}.timeout", retry.timeout),
    }
    check_errors(refuse, f"{name}.on", retry.on)
    check_errors(refuse, f"{name}.give_up", retry.give_up, may_be_empty=True)
    is_plain = all(value is getattr(retry, option) for option, value in plain.items())
    return retry if is_plain else replace(retry, **plain)


def check_wait(refuse: Refuse, name: str, wait: Any) -> Any:
    """Return finite seconds >= 0, or a function ``attempt -> seconds``; refuse anything else."""
    if number(wait) is not None:
        return check_seconds(refuse, name, wait)
    if not callable(wait):
        allowed = "must be a finite number of seconds >= 0, or a function attempt -> seconds"
        raise refusal(refuse, name, wait, allowed)
    if wait is backoff or isinstance(wait, type):
        allowed = f"makes a function attempt -> seconds: write {wait.__name__}(...)"
        raise refusal(refuse, name, wait, allowed)
    if inspect.iscoroutinefunction(wait):
        raise refusal(refuse, name, wait, "must be a plain function attempt -> seconds, not async")
    if not takes(wait, 1):
        raise refusal(refuse, name, wait, "cannot be called with one argument, the attempt")
    return wait


def check_errors(refuse: Refuse, name: str, errors: object, *, may_be_empty: bool = False) -> None:
    """Refuse what is neither an exception class nor a tuple of them.

    Cancellation and its like, which are not an `Exception`, are refused too. ``may_be_empty`` is
    for the classes after which there is no other try.
    """
    kinds = errors if isinstance(errors, tuple) else (errors,)
    if not kinds and not may_be_empty:
        allowed = "names no exception class; one attempt is how to try only once"
        raise refusal(refuse, name, errors, allowed)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            allowed = "must be an exception class, or a tuple of exception classes"
            raise refusal(refuse, name, errors, allowed)
        if not issubclass(kind, Exception):
            effect = "is never retried anyway" if may_be_empty else "would retry cancellation"
            allowed = f"{kind.__name__} {effect}: must be a subclass of Exception"
            raise refusal(refuse, name, errors, allowed)


def _seconds(answer: Any, name: str) -> float:
    """The answer of a wait function, checked to be a possible number of seconds."""
    seconds = number(answer)
    if seconds is not None:
        check_seconds(ValueError, name, seconds)
        return float(seconds)
    raise refusal(TypeError, name, answer, "must be a number of seconds")
