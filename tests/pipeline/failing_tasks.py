"""Tasks that fail, each in its own way, and what every face of a run has to say of them.

Child processes import them from here.
"""

from __future__ import annotations

import asyncio
import json
import linecache
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any

from antflow import Pipeline, Stage

# The line of each task that has to be named ends with `# here`.


def plain(value: Any) -> None:
    raise LookupError("no such page")  # here


async def awaited(value: Any) -> None:
    await asyncio.sleep(0)
    raise LookupError("no such page")  # here


def chained(value: Any) -> None:
    try:
        int("a")
    except ValueError as error:
        raise RuntimeError("no number") from error  # here


def in_a_library(value: Any) -> None:
    json.loads("{")  # here


@dataclass(frozen=True)
class Page:
    """Its methods are made from a text, called ``<string>``."""

    number: int


def generated(value: Any) -> None:
    Page(1).number = 2  # type: ignore[misc] # here


def in_a_comprehension(value: Any) -> int:
    return sum(int(digit) for digits in ["a"] for digit in digits)  # here


def built_as(filename: str) -> Callable[[Any], None]:
    """A function whose code says that it is from this file, where the package was built."""
    names: dict[str, Any] = {}
    exec(compile("def parse(value): raise LookupError('no such page')", filename, "exec"), names)
    function: Callable[[Any], None] = names["parse"]
    return function


parse_in_cython = built_as("src/lxml/parser.pxi")
parse_in_mypyc = built_as("src/tomli/_parser.py")
parse_of_attrs = built_as("<attrs generated methods app.Page>")
parse_checked = built_as("<@beartype(app.parse) at 0x7f4c50>")
parse_in_package = built_as("/venv/lib/python3/site-packages/tomli/main.py")


def in_cython(value: Any) -> None:
    parse_in_cython(value)  # here


def in_mypyc(value: Any) -> None:
    parse_in_mypyc(value)  # here


def in_attrs(value: Any) -> None:
    parse_of_attrs(value)  # here


async def together(value: Any) -> None:
    async def part() -> None:
        raise ValueError("a part is missing")  # here

    async with asyncio.TaskGroup() as group:
        group.create_task(part())
        group.create_task(part())


async def endless(value: Any) -> None:
    await asyncio.Event().wait()  # here


def mute(value: Any) -> None:
    raise LookupError  # here


def talkative(value: Any) -> None:
    raise LookupError("no page\n\x1b[31m" + "no page\n" * 100_000)  # here


def of_a_batch(values: list[Any]) -> None:
    raise LookupError("no such page")  # here


def unsendable(value: Any) -> Any:
    """Return what a child process cannot send."""
    return lambda: value


class Unprintable:
    """Its `repr()` raises."""

    def __repr__(self) -> str:
        raise RuntimeError


class Talkative:
    """Its `repr()` is long."""

    def __repr__(self) -> str:
        return "<" + "page " * 1_000_000


@dataclass(frozen=True)
class Kind:
    """A way to fail.

    Attributes:
        task: The task.
        error: The type it is counted under.
        message: What the error says, or its beginning.
        options: More options of the stage.
        items: What is fed.
        given: A pattern of the input, as it is shown.
        function: The function that has to be named, if not the task.
        title: How the task is named, if it has no line.
    """

    task: Callable[..., Any]
    error: str = "LookupError"
    message: str = "no such page"
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    items: tuple[Any, ...] = (1, 2, 3)
    given: str = "'?[123]'?"
    function: str = ""
    title: str = ""

    @property
    def location(self) -> str:
        """``failing_tasks.py:12 in plain``, or ``in json.loads``."""
        if self.title:
            return f"in {self.title}"
        number = self.task.__code__.co_firstlineno
        while not linecache.getline(__file__, number).rstrip().endswith("# here"):
            number += 1
        return f"failing_tasks.py:{number} in {self.function or self.task.__name__}"

    def pipeline(self, **options: Any) -> Pipeline[Any, Any]:
        """A pipeline in which all items fail like this."""
        stage = Stage("Fetch", 1, [self.task], task_attempts=1, **self.options)
        return Pipeline([stage], **options)


BAD_JSON = ("{", "{a", "{b")

KINDS = {
    "plain": Kind(plain),
    "awaited": Kind(awaited),
    "chained": Kind(chained, "RuntimeError", "no number"),
    "in a library": Kind(in_a_library, "JSONDecodeError", "Expecting property name"),
    "generated method": Kind(generated, "FrozenInstanceError", "cannot assign"),
    "comprehension": Kind(in_a_comprehension, "ValueError", "invalid literal"),
    "Cython": Kind(in_cython),
    "mypyc": Kind(in_mypyc),
    "attrs": Kind(in_attrs),
    "Cython in a child": Kind(in_cython, options={"executor": "process"}),
    "group": Kind(together, "ExceptionGroup[ValueError]", "unhandled errors", function="part"),
    "timeout": Kind(
        endless, "TimeoutError", "task endless not done after 0.05 s", {"timeout": 0.05}
    ),
    "builtin": Kind(
        int, "ValueError", "invalid literal", {}, ("a", "b", "c"), "'[abc]'", title="int"
    ),
    "standard library": Kind(
        json.loads, "JSONDecodeError", "Expecting", {}, BAD_JSON, r"'\{[ab]?'", title="json.loads"
    ),
    "object in C": Kind(itemgetter("id"), "TypeError", "", title="operator.itemgetter"),
    "partial": Kind(partial(divmod, "x"), "TypeError", "divmod", title="partial of divmod"),
    "object in C in a child": Kind(
        itemgetter("id"), "TypeError", "", {"executor": "process"}, title="operator.itemgetter"
    ),
    "standard library in a child": Kind(
        json.loads,
        "JSONDecodeError",
        "Expecting",
        {"executor": "process"},
        BAD_JSON,
        r"'\{[ab]?'",
        title="json.loads",
    ),
    "no message": Kind(mute, message=""),
    "huge message": Kind(talkative, message="no page ⏎ no page"),
    "batch": Kind(of_a_batch, options={"batch": 2}),
    "child process": Kind(plain, options={"executor": "process"}),
    "library in a child": Kind(
        in_a_library, "JSONDecodeError", "Expecting property name", {"executor": "process"}
    ),
    "mute in a child": Kind(mute, message="", options={"executor": "process"}),
    "unprintable input": Kind(plain, items=(Unprintable(),), given="<Unprintable: repr.. failed>"),
    "huge input": Kind(plain, items=(Talkative(),), given="<page page .{60,70}…"),
    "huge text": Kind(plain, items=({"page": "x" * 10_000_000},), given="{'page': 'x{60,70}…"),
}
