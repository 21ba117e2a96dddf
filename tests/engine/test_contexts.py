"""Context variables: what the user's code sees, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from antflow import Pipeline, Stage
from tests.support import virtual

pytestmark = pytest.mark.fault


language: ContextVar[str] = ContextVar("language", default="none")


def read_language(value: Any) -> str:
    return language.get()


async def read_language_later(value: Any) -> str:
    return language.get()


@pytest.mark.parametrize("task", [read_language, read_language_later])
def test_tasks_see_the_context_of_the_caller(task: Callable[[Any], Any]) -> None:
    """Tasks see the context variables of who called `run`, in threads too."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [task])])
        language.set("eo")
        assert set((await pipeline.run(range(4))).values()) == {"eo"}
        language.set("ia")
        assert set((await pipeline.run(range(4))).values()) == {"ia"}

    virtual(main)


def test_context_of_a_task_is_seen_by_no_other() -> None:
    """What a task sets in its context is seen neither by the caller nor by other workers."""

    async def main() -> None:
        async def change(value: str) -> str:
            seen = language.get()
            language.set(value)
            await asyncio.sleep(1)
            return seen

        language.set("eo")
        results = await Pipeline([Stage("Work", 3, [change])]).run(["a", "b", "c"])
        assert results.values() == ["eo", "eo", "eo"]
        assert language.get() == "eo"

    virtual(main)


def test_context_of_a_plain_function_is_not_seen_by_the_next() -> None:
    """What a plain function sets in its context is not seen by the next one in that thread."""

    def change(value: str) -> str:
        seen = language.get()
        language.set(value)
        return seen

    async def main() -> None:
        results = await Pipeline([Stage("Work", 1, [change])]).run(["a", "b", "c"])
        assert results.values() == ["none", "none", "none"]

    virtual(main)
