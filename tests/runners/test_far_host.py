"""The far side of a stage, here in the test's own process."""

from __future__ import annotations

import asyncio
import pickle
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from antflow._core.item_facts import ItemFacts
from antflow._engine.remote import far_host
from antflow._engine.remote.far_host import FarHost, FarTasks
from antflow._engine.remote.links import Start
from tests.runners import remote_tasks as tasks

pytestmark = pytest.mark.real_time

dumps = partial(pickle.dumps, protocol=pickle.HIGHEST_PROTOCOL)


class Far:
    """A far side for some tasks, and whether it has ended."""

    def __init__(self, *functions: Any, **resources: Any) -> None:
        far = FarTasks(functions, resources, False)
        self.has_ended = threading.Event()
        start = Start("Work", "token", dumps(far), 1)
        self.host = FarHost(start, dumps, pickle.loads, self.has_ended.set)

    async def call(self, number: int, task: int, *args: Any) -> None:
        facts = [ItemFacts(number, 1, "Work", "run", ("run", number))]
        order = ("call", number, task, dumps((args, {}, facts, False)))
        await self.host.send(dumps([order]))

    async def events(self) -> list[tuple[Any, ...]]:
        events: list[tuple[Any, ...]] = pickle.loads(await self.host.receive())
        return [event for event in events if event[0] != "counts"]


def test_far_side_that_hears_nothing_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the home does not call for a while, running tasks are cancelled and resources left."""
    monkeypatch.setattr(far_host, "LEASE", 0.5)
    session = tasks.Session(tmp_path / "session")
    far = Far(tasks.with_session_until_cancelled, session=session.later)

    async def begin() -> None:
        await far.call(1, 0, str(tmp_path / "notes"))

    asyncio.run(begin())
    assert far.has_ended.wait(20)
    assert tasks.noted(tmp_path / "notes") == ["begun", "cancelled"]
    assert [each.split("-")[0] for each in tasks.noted(tmp_path / "session")] == ["enter", "leave"]


def test_far_side_that_is_told_to_leave_says_that_it_has() -> None:
    """After the order to leave, the last event says so, and the thread of the far side ends."""
    far = Far(tasks.double)

    async def talk() -> list[tuple[Any, ...]]:
        await far.call(1, 0, 21)
        events = await far.events()
        await far.host.send(dumps([("leave",)]))
        while events[-1][0] != "left":
            events += await far.events()
        return events

    events = asyncio.run(talk())
    assert [event[0] for event in events] == ["value", "left"]
    assert pickle.loads(events[0][3]) == 42
    assert far.has_ended.wait(20)


def test_far_side_fails_calls_that_it_cannot_load() -> None:
    """An order whose arguments cannot be loaded is an error of its own call, and others go on."""
    far = Far(tasks.double)

    async def talk() -> list[tuple[Any, ...]]:
        await far.host.send(dumps([("call", 1, 0, b"not a pickle")]))
        await far.call(2, 0, 4)
        events: list[tuple[Any, ...]] = []
        while len(events) < 2:
            events += await far.events()
        await far.host.send(dumps([("leave",)]))
        await far.events()
        return events

    failed, answered = asyncio.run(talk())
    assert failed[:2] == ("error", 1)
    assert "the call of task double could not be loaded in its worker process" in failed[3].text
    assert answered[:2] == ("value", 2)
    assert far.has_ended.wait(20)
