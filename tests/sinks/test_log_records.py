"""Events as records of logging."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.sinks import LoggingSink

from .test_sink import run


def test_logs_each_event(caplog: pytest.LogCaptureFixture) -> None:
    """Each event is a record whose level tells failures from the rest, with its fields."""
    with caplog.at_level(logging.INFO, "antflow.events"):
        asyncio.run(run(LoggingSink()))
    records = [each for each in caplog.records if each.name == "antflow.events"]
    (failed,) = [each for each in records if each.levelno == logging.ERROR]
    assert failed.getMessage().startswith("item 3 failed in Halve: ValueError: three at ")
    fields: Any = vars(failed)["antflow"]
    assert (fields["kind"], fields["item"], fields["error"]) == ("failed", "3", "three")
    assert {each.levelno for each in records if each is not failed} == {logging.INFO}


def test_one_event_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A message cannot forge a line, nor drive a terminal."""

    def fail(value: object) -> None:
        raise ValueError("a\nb\x1b[2J")

    sink = LoggingSink(kinds=["failed"])
    with caplog.at_level(logging.INFO, "antflow.events"):
        pipeline = Pipeline([Stage("A", 1, [fail], task_attempts=1)], observers=[sink])
        asyncio.run(pipeline.run([1], on_failures="ignore"))
    (record,) = [each for each in caplog.records if each.name == "antflow.events"]
    assert record.getMessage().isprintable()


def test_failed_builtin_is_named_as_the_place(caplog: pytest.LogCaptureFixture) -> None:
    """A failure without a line of the user's own code is told with its task."""
    sink = LoggingSink(kinds=["failed"])
    with caplog.at_level(logging.INFO, "antflow.events"):
        pipeline = Pipeline([Stage("A", 1, [int], task_attempts=1)], observers=[sink])
        asyncio.run(pipeline.run(["x"], on_failures="ignore"))
    (record,) = [each for each in caplog.records if each.name == "antflow.events"]
    assert record.getMessage().endswith("with base 10: 'x' in int")


def test_levels_that_are_off_cost_no_record(caplog: pytest.LogCaptureFixture) -> None:
    """What the logger does not want is not logged."""
    with caplog.at_level(logging.ERROR, "mine"):
        asyncio.run(run(LoggingSink(logging.getLogger("mine"), level=logging.DEBUG)))
    assert [each.levelno for each in caplog.records if each.name == "mine"] == [logging.ERROR]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"logger": 3}, "logger=3: must be a logger or its name"),
        ({"level": "INFO"}, "level='INFO': must be a level, like logging.INFO"),
        ({"level": True}, "level=True"),
    ],
)
def test_logging_sink_refuses_wrong_arguments(arguments: Any, text: str) -> None:
    """A wrong logger or level is refused where it is given."""
    with pytest.raises(TypeError) as caught:
        LoggingSink(**arguments)
    assert text in str(caught.value)
