"""The listeners of a run: one list, contained by one guard, and free when there are none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, get_args

import pytest

from antflow import Stage
from antflow._core.envelope import Envelope
from antflow._core.events import TaskEventType
from antflow._core.ledger import Ledger, WorkerBook
from antflow._core.observers import RunEnd
from antflow._core.ports import Listener, TellTask
from antflow._core.result import PipelineResult
from antflow._core.run_facts import RunFacts
from antflow._core.step import Step
from antflow._core.transition import Kind
from antflow._engine.engine import Engine
from antflow._monitor.callbacks import CallbackGuard
from antflow.testing import run_virtual


class Ear:
    """A listener that notes what it hears, and raises in the methods it is told to raise in."""

    def __init__(self, name: str, *, raises: str = "", error: BaseException | None = None) -> None:
        self.name = name
        self.raises = raises
        self.error = OSError("deaf") if error is None else error
        self.hears_starts = True
        self.tasks: dict[TaskEventType, TellTask] = {
            kind: partial(self.task, kind) for kind in get_args(TaskEventType)
        }
        self.may_hold = False
        self.heard: list[Any] = []

    def hear(self, method: str, what: object) -> None:
        self.heard.append(what)
        if method in self.raises.split():
            raise self.error

    def opened(self, facts: RunFacts, ledger: Ledger, rewire: Callable[[], None]) -> None:
        self.hear("opened", "opened")

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> None:
        self.hear("admitted", Kind.ADMITTED)

    def entering(self, envelope: Envelope) -> None:
        self.hear("entering", "entering")

    def started(self, envelope: Envelope, worker: WorkerBook, now: float) -> None:
        self.hear("started", Kind.STARTED)

    def completed(
        self, envelope: Envelope, worker: WorkerBook, value: Any, began: float, now: float
    ) -> None:
        self.hear("completed", Kind.COMPLETED)

    def ended(self, step: Step) -> None:
        self.hear("ended", step.kind)

    def task(self, kind: TaskEventType, *what: object) -> None:
        self.hear("task", kind)

    def closed(self, end: RunEnd) -> None:
        self.hear("closed", "closed")


ALL = [
    "opened",
    Kind.ADMITTED,
    Kind.STARTED,
    "start",
    "complete",
    Kind.COMPLETED,
    "closed",
]


async def double(value: int) -> int:
    return 2 * value


def results_with(*listeners: Listener) -> list[Any]:
    """What comes out of a run of one item with these listeners."""
    results: list[PipelineResult[Any]] = []

    async def main() -> None:
        run = Engine(
            [Stage("A", 1, [double])],
            deliver=results.append,
            guard=CallbackGuard(),
            listeners=listeners,
        )
        run.intake.take_all([21])
        await run.supervisor.wait()

    run_virtual(main())
    return [result.value for result in results]


def test_every_listener_hears_every_step_in_order() -> None:
    """Each of several listeners is told of all that happens, from the beginning to the end."""
    first, second = Ear("first"), Ear("second")
    assert results_with(first, second) == [42]
    assert first.heard == second.heard == ALL


@pytest.mark.parametrize("beside", [0, 1])
@pytest.mark.parametrize(
    "error",
    [OSError("deaf"), asyncio.CancelledError(), ExceptionGroup("two", [OSError()])],
    ids=repr,
)
@pytest.mark.parametrize("method", ["admitted", "started", "completed", "task", "closed"])
def test_listener_that_raises_is_contained(
    method: str, error: BaseException, beside: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a listener raises, alone or beside others: the item is through, the log has it."""
    others = [Ear("other") for _ in range(beside)]
    broken = Ear("broken", raises=method, error=error)
    assert results_with(broken, *others) == [42]
    assert broken.heard == ALL
    assert all(other.heard == ALL for other in others)
    assert caplog.messages == [
        "broken failed; it is still called, and further failures are only counted"
    ]


def test_listener_that_raises_each_time_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first failure of a listener is logged, the others are only counted."""
    results_with(Ear("broken", raises="admitted started completed task closed"))
    assert len(caplog.messages) == 1


def test_listener_that_cannot_open_is_told_nothing_more() -> None:
    """A listener that has missed the beginning is left out; the others hear everything."""
    broken, other = Ear("broken", raises="opened"), Ear("other")
    assert results_with(broken, other) == [42]
    assert broken.heard == ["opened"]
    assert other.heard == ALL


def test_listener_that_interrupts_ends_the_run() -> None:
    """`KeyboardInterrupt` is not a failure of the listener: it comes out of the run."""
    with pytest.raises(KeyboardInterrupt):
        results_with(Ear("interrupted", raises="completed", error=KeyboardInterrupt()))
