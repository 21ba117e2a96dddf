"""Log records that tasks make say which item they are about."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from antflow import LogContextFilter, Pipeline, RunResults, Stage, log_context
from antflow.testing import run_virtual

logger = logging.getLogger("tests.shop")
FORMAT = "%(antflow_stage)s %(antflow_item)s %(antflow_attempt)s %(message)s"


@pytest.fixture
def text() -> Iterator[io.StringIO]:
    """Where the program's log goes."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(LogContextFilter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield written
    logger.removeHandler(handler)
    logger.propagate = True


def run(*stages: Stage[Any, Any], items: Any = range(3)) -> RunResults[Any]:
    async def main() -> RunResults[Any]:
        logger.info("begins")
        return await Pipeline(list(stages)).run(items, on_failures="ignore")

    return run_virtual(main)


async def ask(number: int) -> int:
    logger.info("asks")
    if number == 1 and log_context()["attempt"] == 1:
        raise ValueError
    await asyncio.sleep(0.1)
    await asyncio.create_task(answer())
    return number


async def answer() -> None:
    logger.info("answers")


def count(number: int) -> int:
    logger.info("counts")
    return number


def test_records_say_stage_item_and_attempt(text: io.StringIO) -> None:
    """In async tasks, in tasks they start, and in threads; outside they say "-"."""
    stages = [Stage("Ask", 1, [ask], task_wait_seconds=0), Stage("Count", 1, [count])]
    run(*stages, items=range(2))
    lines = text.getvalue().splitlines()
    assert lines[0] == "- - - begins"
    assert sorted(lines[1:]) == [
        "Ask 0 1 answers",
        "Ask 0 1 asks",
        "Ask 1 1 asks",
        "Ask 1 2 answers",
        "Ask 1 2 asks",
        "Count 0 1 counts",
        "Count 1 1 counts",
    ]


def test_a_batch_is_all_its_items(text: io.StringIO) -> None:
    """The task of a batch logs for all of its items."""
    seen: list[Any] = []

    async def save(numbers: list[int]) -> list[int]:
        logger.info("saves")
        seen.append(log_context()["item"])
        return numbers

    results = run(Stage("Save", 1, [save], batch=3))
    assert seen == [[0, 1, 2]]
    assert text.getvalue().splitlines()[1:] == ["Save 0, 1, 2 1 saves"]
    assert results.run_id


def test_fields_for_logs_that_take_them() -> None:
    """``log_context()`` has the ids themselves, and nothing outside a task."""
    seen: list[Any] = []

    async def look(value: str) -> str:
        seen.append(log_context())
        return value

    results = run(Stage("Look", 1, [look]), items=[{"id": (1, "x"), "value": "a"}])
    assert seen == [{"run": results.run_id, "stage": "Look", "item": (1, "x"), "attempt": 1}]
    assert log_context() == {}


def test_ids_are_one_line_of_plain_text(text: io.StringIO) -> None:
    """An id from outside can neither begin a new line in the log nor fill it."""

    class Hostile:
        def __hash__(self) -> int:
            return 1

        def __str__(self) -> str:
            raise RuntimeError

    items = [
        {"id": "a\nERROR fake\x1b[2J", "value": 2},
        {"id": "x" * 5_000, "value": 2},
        {"id": Hostile(), "value": 2},
    ]
    assert len(run(Stage("Count", 1, [count]), items=items)) == 3
    lines = text.getvalue().splitlines()
    assert len(lines) == 4
    assert all(line.isprintable() and len(line) < 300 for line in lines)
