"""The item that a task works on, as the task can ask for it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from antflow import Observer, Pipeline, Stage, current_item, set_task_status
from antflow.testing import run_virtual


def test_current_item_is_the_same_in_async_tasks_and_threads() -> None:
    """Id, attempt, stage and run, in async tasks and in threads; one key for all tries."""
    seen: list[Any] = []

    async def first(value: int) -> int:
        seen.append(current_item())
        if current_item().attempt == 1:
            raise ValueError
        return value

    def second(value: int) -> int:
        seen.append((current_item(), threading.current_thread() is threading.main_thread()))
        return value

    async def main() -> str:
        stages = [Stage("A", 1, [first]), Stage("B", 1, [second])]
        return (await Pipeline(stages).run([{"id": "x", "value": 1}])).run_id

    run_id = run_virtual(main)
    one, two, (three, in_main_thread) = seen
    assert (one.id, one.attempt, one.stage, one.run_id) == ("x", 1, "A", run_id)
    assert (two.attempt, three.attempt, three.stage) == (2, 1, "B")
    assert one.idempotency_key == two.idempotency_key != three.idempotency_key
    assert not in_main_thread


def test_current_item_outside_a_task_is_an_error() -> None:
    """It says where it works."""
    with pytest.raises(RuntimeError, match="only inside a task"):
        current_item()


def test_run_inside_a_task_calls_nothing_on_behalf_of_its_item() -> None:
    """The source, display and observers of a run belong to no item of the run around it."""
    heard: dict[str, bool] = {}

    def ask(who: str) -> None:
        heard[who] = heard.get(who, False) or set_task_status(who)

    async def source() -> AsyncIterator[int]:
        ask("source")
        yield 1

    class Display:
        def on_update(self, snapshot: Any) -> None:
            ask("display")

    class Watcher(Observer):
        def opened(self, run: Any) -> None:
            ask("opened")

        def closed(self, end: Any) -> None:
            ask("closed")

    async def inner(value: int) -> int:
        return value

    async def outer(value: int) -> None:
        assert set_task_status("outer")
        pipeline = Pipeline([Stage("B", 1, [inner])], observers=[Watcher()])
        await pipeline.run(source(), custom_dashboard=Display())

    run_virtual(lambda: Pipeline([Stage("A", 1, [outer])]).run([1]))
    assert heard == dict.fromkeys(["opened", "source", "display", "closed"], False)


def test_idempotency_key_tells_42_from_its_text() -> None:
    """Items 42 and "42" of one run have different keys."""
    keys = []

    async def task(value: Any) -> None:
        keys.append(current_item().idempotency_key)

    async def main() -> None:
        await Pipeline([Stage("A", 1, [task])]).run([{"id": 42}, {"id": "42"}])

    run_virtual(main)
    assert len(set(keys)) == 2
