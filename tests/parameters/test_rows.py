"""Every parameter of the library: what it refuses and how, and what it takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from antflow import AntFlowError, Limit, Pipeline, Retry, RetryAfter, Stage, TooManyFailures
from antflow.testing import run_virtual

from . import rows_builder, rows_executor, rows_pipeline, rows_runners, rows_sinks, rows_stage
from .public import NO_ROW, has_no_row, public_callables, public_parameters
from .rows_stage import work
from .values import Measured, Row, Whole, shown

TABLES = (rows_stage, rows_pipeline, rows_builder, rows_executor, rows_runners, rows_sinks)
ROWS: dict[str, Row] = {name: row for table in TABLES for name, row in table.ROWS.items()}
USES = {name: use for table in TABLES for name, use in table.USES.items()}


def give(name: str, value: Any) -> None:
    """Give a parameter a value, in the way users do."""
    call, _, option = name.rpartition(".")
    use: Callable[..., Any] = USES[call]
    if inspect.iscoroutinefunction(use):
        run_virtual(lambda: use(**{option: value}), max_time=1e10, max_steps=100_000)
    else:
        use(**{option: value})


def shown_parts(value: Any) -> list[str]:
    """What a message may show of a value: itself, or what is wrong inside of it."""
    parts = [shown(value)]
    if isinstance(value, dict):
        parts += [shown(part) for pair in value.items() for part in pair]
    elif isinstance(value, (list, tuple, set, str)):
        parts += [shown(part) for part in value]
    return parts


def test_every_parameter_has_a_row() -> None:
    """No public parameter is without a row or a reason, and no row is about nothing."""
    public = set(public_parameters())
    assert sorted(name for name in public - ROWS.keys() if not has_no_row(name)) == []
    assert sorted(ROWS.keys() - public) == []
    assert sorted(name for name in ROWS if has_no_row(name)) == []
    assert sorted(NO_ROW.keys() - public - public_callables().keys()) == []
    assert {name.rpartition(".")[0] for name in ROWS} == USES.keys()


def test_every_row_has_values() -> None:
    """A row has something that is refused, and something that is taken."""
    assert [name for name, row in ROWS.items() if not (row.bad and row.good)] == []


def each(values: Iterable[Any], check: Callable[[Any], None]) -> None:
    """Check each value; an error says which one it was."""
    for number, value in enumerate(values):
        try:
            check(value)
        except BaseException as error:
            error.add_note(f"value {number}: {shown(value)}")
            raise


@pytest.mark.parametrize("name", ROWS)
def test_value_that_is_refused(name: str) -> None:
    """The message names the parameter, shows the value, and says what is allowed, on one line."""
    row: Row = ROWS[name]
    option = row.shown_as or name.rpartition(".")[2]

    def check(value: Any) -> None:
        with pytest.raises(row.error) as caught:
            give(name, value)
        message = str(caught.value)
        assert re.search(rf"{option}[\w\[\]'<>:() -]*(=|:)", message), message
        assert any(part in message for part in shown_parts(value)), message
        assert re.search(row.allowed, message), message
        if any(bad is None for bad in row.bad):
            assert not re.search(r"\bor None\b", message), message
        assert message.isprintable()
        assert len(message) < 400
        assert isinstance(caught.value, (TypeError, ValueError, AntFlowError))

    each(row.bad, check)


@pytest.mark.parametrize("name", ROWS)
def test_value_that_is_taken(name: str) -> None:
    """An allowed value raises nothing."""
    each(ROWS[name].good, lambda value: give(name, value))


def numbers(kind: type, allowed: str) -> list[Any]:
    """The parameters that take such numbers, each with those of its row."""
    return [
        pytest.param(name, values, id=name)
        for name, row in ROWS.items()
        if re.search(allowed, row.allowed)
        and (values := [value for value in row.good if type(value) is kind])
    ]


WHOLE = r"whole|at least 1 worker"
REAL = r"finite number|from 0|ratio above|292 years|number of seconds, or None"


@pytest.mark.parametrize(("name", "values"), numbers(int, WHOLE))
def test_whole_number_of_another_class(name: str, values: list[int]) -> None:
    """Where a whole number is asked for, anything with ``__index__`` is one."""
    each(values, lambda value: give(name, Whole(value)))


@pytest.mark.parametrize(("name", "values"), numbers(float, REAL))
def test_number_of_another_class(name: str, values: list[float]) -> None:
    """Where a number is asked for, any `numbers.Real` is one."""
    each(values, lambda value: give(name, Measured(value)))


def test_numbers_become_plain() -> None:
    """No number of another class gets into the arithmetic of the library."""
    second: Any = Measured(1.0)
    cost = Limit(rate=5, cost=lambda _: second).cost_of("a prompt")
    retry = Retry(wait=second, timeout=second)
    stages = [
        Stage("First", 1, [work], timeout=second, task_wait_seconds=second, wait=second),
        Stage("Other", 1, [work], retry=retry, call_rate=second, call_rate_period=second),
    ]
    first, other = Pipeline(stages).stages
    assert isinstance(other.retry, Retry)
    limit = Limit(rate=second, period=second, cost=second)
    kept = [first.timeout, first.task_wait_seconds, first.wait, other.call_rate, cost]
    kept += [other.call_rate_period, other.retry.wait, other.retry.timeout]
    kept += [limit.rate, limit.period, limit.cost, RetryAfter(second).seconds]
    assert {type(number) for number in kept} == {float}


def test_whole_numbers_become_int() -> None:
    """No number of another class gets into a pipeline, its results, or its messages."""
    numbers: list[Any] = [Whole(number) for number in range(1, 7)]
    stage = Stage(
        "Work",
        numbers[1],
        [work],
        retry=Retry(attempts=numbers[3]),
        queue_capacity=numbers[2],
        task_concurrency_limits={"work": numbers[0]},
        max_failures=numbers[4],
    )
    (kept,) = Pipeline([stage]).stages
    assert isinstance(kept.retry, Retry)
    kept_numbers = (kept.workers, kept.retry.attempts, kept.queue_capacity, kept.max_failures)
    assert kept_numbers == (2, 4, 3, 5)
    assert kept.task_concurrency_limits == {"work": 1}
    assert Limit(numbers[5]).concurrency == 6


@pytest.mark.parametrize("limit", [Whole(2), 2])
def test_max_failures_of_another_class_is_a_count(limit: Any) -> None:
    """A count of another class is a count, not a share."""

    async def fail(_: int) -> None:
        raise ValueError

    pipeline = Pipeline([Stage("Fail", 1, [fail], task_attempts=1)])
    with pytest.raises(TooManyFailures, match=r"max_failures=2\)"):
        run_virtual(lambda: pipeline.run(range(100), max_failures=limit))
