"""How long a service asks to wait: every form in which it may say that, and no other."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from http.client import HTTPMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow import Limit, Pipeline, RetryAfter, RunResults, Stage, StageValidationError
from antflow.testing import run_virtual
from tests.support import without_address

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NOW = NOON.timestamp()
EAST = timezone(timedelta(hours=9))


class Nowhere(tzinfo):
    """A time zone that does not know how far it is from UTC."""

    def utcoffset(self, dt: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


class Refused(Exception):
    """An answer 429 of some client."""


def run(stage: Stage, count: int = 3) -> RunResults[Any]:
    """Run items through a stage in virtual time."""
    return run_virtual(lambda: Pipeline([stage]).run(range(count)), max_time=100_000.0)


# -- one time -------------------------------------------------------------------------------------

FORMS: list[tuple[Any, float]] = [
    (2, 2.0),
    (1.5, 1.5),
    (0, 0.0),
    (-0.4, 0.0),
    (1e300, 1e300),
    ("2", 2.0),
    (" 1.5 ", 1.5),
    ("+3.", 3.0),
    ("-0.4", 0.0),
    ("1s", 1.0),
    ("6m0s", 360.0),
    ("20ms", 0.02),
    ("1h2m3.5s", 3723.5),
    ("1d", 86_400.0),
    ("Sun, 01 Mar 2026 12:00:07 GMT", 7.0),
    ("Sunday, 01-Mar-26 12:00:07 GMT", 7.0),
    ("Sun Mar  1 12:00:07 2026", 7.0),
    ("Sun, 01 Mar 2026 11:59:59 GMT", 0.0),
    ("2026-03-01T12:00:07Z", 7.0),
    ("2026-03-01T21:00:07.5+09:00", 7.5),
    (timedelta(minutes=1, milliseconds=500), 60.5),
    (timedelta(seconds=-1), 0.0),
    (NOON + timedelta(seconds=7), 7.0),
    ((NOON + timedelta(seconds=7)).astimezone(EAST), 7.0),
    (NOON - timedelta(seconds=7), 0.0),
]

NONSENSE: list[Any] = [
    *[float("nan"), float("inf"), float("-inf"), 10**400, True, None, b"2", [2], Decimal("NaN")],
    *["", " ", "soon", "nan", "inf", "1e5", "1_000", "2 3", "s", "5 s", "5x", "12:00", "Mon"],
    *["9" * 400, "9" * 400 + "s", "Sun, 99 Mar 2026 12:00:00 GMT", "2026-03-01", "٣"],
    *["2026-03-01T12:00:00", datetime(2026, 3, 1), date(2026, 3, 1)],
    datetime(2026, 3, 1, tzinfo=Nowhere()),
]


@pytest.mark.parametrize(("given", "seconds"), FORMS, ids=repr)
def test_time_in_every_form(given: Any, seconds: float) -> None:
    """A number, text, a date, a time span, a moment; what is over already is 0."""
    error = RetryAfter(given, "slower", now=NOW)
    assert error.seconds == pytest.approx(seconds)
    assert type(error.seconds) is float
    for twin in copy.copy(error), pickle.loads(pickle.dumps(error)):
        assert (twin.seconds, twin.message, str(twin)) == (error.seconds, "slower", str(error))


@pytest.mark.parametrize("given", NONSENSE, ids=lambda given: without_address(given)[-30:])
def test_nonsense_is_refused_with_what_is_allowed(given: Any) -> None:
    """What no one can wait for is a `ValueError` that names all forms."""
    with pytest.raises(ValueError, match=r"^seconds=.*: must be a finite number of seconds, text"):
        RetryAfter(given, now=NOW)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever a service sends: finite seconds, or a `ValueError`."""
    try:
        seconds = RetryAfter(text, now=NOW).seconds
    except ValueError:
        return
    assert 0 <= seconds < float("inf")


def test_date_is_counted_from_the_wall_clock() -> None:
    """Without ``now`` a date is taken as it is here."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert 3500 < RetryAfter(soon).seconds <= 3600


@pytest.mark.parametrize("now", [True, "noon", float("nan"), NOON])
def test_now_is_a_number(now: Any) -> None:
    """Anything else is a `ValueError`, whatever the form that is read."""
    with pytest.raises(ValueError, match=r"^now="):
        RetryAfter(2, now=now)
    with pytest.raises(ValueError, match=r"^now="):
        RetryAfter.from_headers({}, 1, now=now)


# -- hold_on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["raised", "answer", "RetryAfter", "static"])
@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize(
    ("given", "seconds"),
    [(-0.4, 0.0), ("2", 2.0), ("1.5", 1.5), ("1m", 60.0), (timedelta(seconds=3), 3.0)],
)
def test_hold_in_every_form(given: Any, seconds: float, by: str, limited: bool) -> None:
    """Raised, as the answer of a ``hold_on``, and as its value: the same time, and no try."""
    starts: list[float] = []

    async def task(value: int) -> int:
        starts.append(asyncio.get_running_loop().time())
        if len(starts) > 1:
            return value
        raise RetryAfter(given) if by == "raised" else Refused

    def answer(error: Refused) -> Any:
        return RetryAfter(given) if by == "RetryAfter" else given

    hold_on: Any = {} if by == "raised" else {Refused: given if by == "static" else answer}
    limits = [Limit(concurrency=9)] if limited else []
    results = run(Stage("A", 1, [task], task_attempts=1, limits=limits, hold_on=hold_on))
    assert len(results) == 3
    assert starts == [0.0, seconds, seconds, seconds]


@pytest.mark.parametrize("answer", ["soon", float("nan"), float("inf"), True, datetime(2026, 3, 1)])
def test_hold_on_that_answers_nonsense_fails_the_item(answer: Any) -> None:
    """The error says what was answered and what is allowed, and the task's own is its cause."""

    async def task(value: int) -> int:
        raise Refused

    results = run(Stage("A", 1, [task], task_attempts=1, hold_on={Refused: lambda _: answer}), 1)
    error = results.failed[0].error
    assert str(error).startswith("hold_on=")
    assert "text such as" in str(error)
    assert isinstance(error and error.__cause__, Refused)


def test_hold_on_is_checked_with_the_stage() -> None:
    """A value that cannot be read is refused before anything runs."""
    hold_on: Any = {Refused: "soon"}
    with pytest.raises(StageValidationError, match=r"hold_on\[Refused\]='soon': must be"):
        Pipeline([Stage("A", 1, [run], hold_on=hold_on)])


# -- headers --------------------------------------------------------------------------------------

EPOCH = str(int(NOW) + 90)

HEADERS: dict[str, tuple[dict[str, str], float]] = {
    "seconds": ({"Retry-After": "7"}, 7),
    "date": ({"retry-after": "Sun, 01 Mar 2026 12:00:07 GMT"}, 7),
    "milliseconds": ({"retry-after-ms": "1500"}, 1.5),
    "milliseconds come first": ({"Retry-After": "2", "Retry-After-Ms": "1500"}, 1.5),
    "Unix seconds": ({"Retry-After": EPOCH}, 90),
    "Unix milliseconds to retry after": ({"Retry-After-Ms": f"{EPOCH}500"}, 90.5),
    "a very short time": ({"Retry-After-Ms": "0.01"}, 0.00001),
    "Azure": ({"x-ms-retry-after-ms": "250"}, 0.25),
    "Retry-After comes before a reset": ({"x-ratelimit-reset": EPOCH, "Retry-After": "2"}, 2),
    "unreadable, then a reset": ({"Retry-After": "soon", "x-ratelimit-reset": EPOCH}, 90),
    "OpenAI": (
        {
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "1h",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        360,
    ),
    "OpenAI, short": ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
    "the longest": (
        {"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "2m59.56s"},
        179.56,
    ),
    "Anthropic": (
        {
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2026-03-01T12:00:05Z",
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": "2026-03-01T12:00:09Z",
            "anthropic-ratelimit-input-tokens-remaining": "4000",
            "anthropic-ratelimit-input-tokens-reset": "2026-03-01T12:30:00Z",
        },
        9,
    ),
    "GitHub": ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": EPOCH}, 90),
    "just past": ({"X-RateLimit-Reset": str(int(NOW) - 1)}, 0),
    "Unix milliseconds": ({"X-RateLimit-Reset": f"{EPOCH}500"}, 90.5),
    "X": ({"x-rate-limit-remaining": "0", "x-rate-limit-reset": EPOCH}, 90),
    "BigCommerce": ({"X-Rate-Limit-Time-Reset-Ms": "15000"}, 15),
    "in ms, with something left": (
        {
            "x-ratelimit-remaining": "5",
            "x-ratelimit-reset-ms": "15000",
            "x-ratelimit-reset-requests": "2s",
        },
        2,
    ),
    "Discord": ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "1.25"}, 1.25),
    "IETF, up to draft 6": ({"RateLimit-Remaining": "0", "RateLimit-Reset": "50"}, 50),
    "IETF, draft 7": ({"RateLimit": "limit=100, remaining=0, reset=50"}, 50),
    "IETF, with parameters": (
        {"RateLimit-Remaining": "0;w=60", "RateLimit-Reset": "50;w=60"},
        50,
    ),
    "IETF": ({"RateLimit": '"burst";r=0;t=30, "daily";r=900;t=36000'}, 30),
}

USELESS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "others": {"Content-Type": "text/plain", "x-ratelimit-limit-requests": "60"},
    "unreadable": {"Retry-After": "soon", "Retry-After-Ms": "nan", "x-ratelimit-reset": "later"},
    "not used up": {"X-RateLimit-Remaining": "4000", "X-RateLimit-Reset": EPOCH},
    "not used up, with parameters": {"RateLimit-Remaining": "10;w=60", "RateLimit-Reset": "50"},
    "draft 7 with something left": {"RateLimit": "limit=100, remaining=4, reset=50"},
    "an empty list": {"Retry-After": []},
    "window with something left": {"RateLimit": '"daily";r=900;t=36000'},
    "hostile": {"RateLimit": 't=9 ;r=" , ;;t=;r', "x-ratelimit-reset": "9" * 400},
}


class Multi(Mapping[str, str]):
    """As httpx, aiohttp and requests have them: a mapping, with its own upper and lower case."""

    def __init__(self, pairs: dict[str, str]) -> None:
        self._pairs = pairs

    def __getitem__(self, name: str) -> str:
        return self._pairs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


def message(pairs: dict[str, str]) -> HTTPMessage:
    """As `urllib` has them."""
    made = HTTPMessage()
    for name, value in pairs.items():
        made[name] = value
    return made


CLIENTS: dict[str, Any] = {
    "dict": dict,
    "mapping": Multi,
    "HTTPMessage": message,
    "pairs": lambda pairs: list(pairs.items()),
    "one pass": lambda pairs: iter(pairs.items()),
    "bytes": lambda pairs: [(name.encode(), value.encode()) for name, value in pairs.items()],
    "lists": lambda pairs: {name: [value, "900"] for name, value in pairs.items()},
    "Scrapy": lambda pairs: {name.encode(): [value.encode()] for name, value in pairs.items()},
    "upper case": lambda pairs: {name.upper(): value for name, value in pairs.items()},
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("case", HEADERS)
def test_headers_of_every_service(case: str, client: str) -> None:
    """What they say comes before ``default``, in the order that is documented."""
    headers, seconds = HEADERS[case]
    error = RetryAfter.from_headers(CLIENTS[client](headers), 1234, "slower", now=NOW)
    assert error.seconds == pytest.approx(seconds)
    assert error.message == "slower"


def test_header_that_comes_twice() -> None:
    """The first one counts, as HTTP clients that give one value per name have it."""
    pairs = [("Retry-After", "2"), ("retry-after", "900")]
    assert RetryAfter.from_headers(pairs, now=NOW).seconds == 2


@pytest.mark.parametrize("case", USELESS)
def test_headers_that_say_nothing(case: str) -> None:
    """Then ``default``, in any form; without one it is a `ValueError` with the names, no values."""
    assert RetryAfter.from_headers(USELESS[case], default="1m", now=NOW).seconds == 60
    with pytest.raises(ValueError, match=r"give no time to wait.*pass default=") as caught:
        RetryAfter.from_headers(USELESS[case], now=NOW)
    assert not any(str(value) in str(caught.value) for value in USELESS[case].values() if value)


@pytest.mark.parametrize("headers", [None, 5, "Retry-After: 2", b"x", object(), ["Retry-After"]])
def test_refuses_what_is_not_headers(headers: Any) -> None:
    """A response instead of its headers, say, is a `TypeError`."""
    with pytest.raises(TypeError, match=r"^headers=.*: must be the headers of an answer"):
        RetryAfter.from_headers(headers, 5)


def test_default_is_checked_in_any_case() -> None:
    """A mistake in it is seen at once, and not with the first answer that says nothing."""
    with pytest.raises(ValueError, match=r"^default='soon'"):
        RetryAfter.from_headers({"Retry-After": "2"}, "soon")


def test_subclass_reads_headers_too() -> None:
    """``from_headers`` makes what it is called on."""

    class Slower(RetryAfter):
        pass

    assert type(Slower.from_headers({"Retry-After": "2"})) is Slower


def test_headers_without_a_time_fail_the_try() -> None:
    """``hold_on`` with ``from_headers`` and no default: another try follows, as for any error."""
    errors = [Refused({}), Refused({"Retry-After": "9"})]

    async def task(value: int) -> float:
        if errors:
            raise errors.pop(0)
        return asyncio.get_running_loop().time()

    def held(error: Refused) -> RetryAfter:
        return RetryAfter.from_headers(error.args[0])

    results = run(Stage("A", 1, [task], hold_on={Refused: held}, task_wait_seconds=1.0), 1)
    assert (results.values(), results[0].attempts) == ([10.0], 2)
