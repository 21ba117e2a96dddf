"""A run with all that a report can tell, and readers of its report."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from antflow import Drop, Pipeline, RetryAfter, Stage
from antflow.testing import run_virtual

HOSTILE = (
    "</script><img src=x onerror=alert(1)><!--<script>\u2028\u2029\u202e\x1b[2J'\"`|@all&amp;\n"
)
"""Text that would be markup, a new line, or an order for a terminal."""


async def fetch(number: int) -> int:
    await asyncio.sleep(0.1 + number % 7 / 100)
    if number % 10 == 3:
        raise TimeoutError("no answer")
    return number


class Check:
    """Drops fours, holds once, and fails for two reasons."""

    def __init__(self) -> None:
        self.held = False
        self.repeated: set[int] = set()

    async def check(self, number: int) -> int:
        await asyncio.sleep(0.05)
        if number == 8 and not self.held:
            self.held = True
            raise RetryAfter(2.0)
        if number % 10 == 4:
            raise Drop
        if number % 10 == 5:
            raise ValueError(f"number {number} is odd")
        if number % 10 == 6 and number not in self.repeated:
            self.repeated.add(number)
            raise KeyError("once")
        return number


async def twice(number: int) -> list[int]:
    await asyncio.sleep(0.001)
    return [number, -number]


async def together(numbers: list[int]) -> list[int]:
    await asyncio.sleep(0.01)
    return numbers


def a_pipeline(*observers: Any, name: str = "numbers") -> Pipeline[Any, Any]:
    """Retries, a hold, failures, dropped items, items that become others, batches."""
    stages: Sequence[Stage[Any, Any]] = [
        Stage("Fetch", 4, [fetch], task_attempts=1),
        Stage("Check", 3, [Check().check], task_attempts=2, task_wait_seconds=0.5),
        Stage("Split", 1, [twice], expand=True),
        Stage("Store", 2, [together], batch=5),
    ]
    return Pipeline(list(stages), observers=observers, name=name)


def run(pipeline: Pipeline[Any, Any], items: Any = range(100), **options: Any) -> Any:
    """Run it in virtual time; its results."""

    async def main() -> Any:
        return await pipeline.run(items, on_failures="ignore", **options)

    return run_virtual(main)


async def fail_for(number: int) -> int:
    if number % 2:
        raise ValueError(f"{HOSTILE}{number}")
    return number


def hostile_run(path: Path) -> Any:
    """A run whose every text is hostile."""
    kind = type("</td><script>alert(2)</script>", (Exception,), {})

    async def fail_first(number: int) -> int:
        if number == 0:
            raise kind(HOSTILE)
        if number == 2:
            raise ValueError("z" * 1_000_000)
        return number

    names = ["<b onclick=alert(3)>&amp;\"'", "`a|b`* _x_ @all <script>alert(4)</script>"]
    stages: list[Stage[Any, Any]] = [
        Stage(names[0], 2, [fail_first], task_attempts=1),
        Stage(names[1], 1, [fail_for], task_attempts=1),
    ]
    pipeline = Pipeline(stages, name="</title><svg onload=alert(5)>")
    items = [{"id": f"{HOSTILE}{number}\ud800", "value": number} for number in range(6)]
    return run(pipeline, items, report=path)


class Markup(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def counts_of(page: str) -> dict[str, int]:
    """The counts that a page shows."""
    found = re.findall(r'data-count="([\w ]+)">([\d,]+)<', page)
    return {name: int(count.replace(",", "")) for name, count in found}


def data_of(page: str) -> Any:
    """The data of the page's script."""
    found = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def tables_of(text: str) -> dict[str, list[str]]:
    """Heading → the lines under it, of a report in Markdown."""
    tables: dict[str, list[str]] = {"": []}
    heading = ""
    for line in text.splitlines():
        if line.startswith("### "):
            heading = line[4:]
        tables.setdefault(heading, []).append(line)
    return tables
