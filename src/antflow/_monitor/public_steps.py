"""The user's observers of one run, as one listener: each step becomes one frozen value for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import replace
from typing import Any, cast

from antflow._core.envelope import Envelope
from antflow._core.foreign import attribute, is_awaitable, type_name
from antflow._core.ledger import Ledger
from antflow._core.observers import ItemStep, RunEnd, StepKind
from antflow._core.ports import Guard
from antflow._core.run_facts import RunFacts
from antflow._core.step import Step, TaskStep, new_step
from antflow._core.transition import Kind
from antflow._core.waits import Wait, both, discard

LONGEST_CLOSE = 10.0
"""Seconds that observers have in all to write out what they hold when a run is over."""

SHORTEST_CLOSE = 1.0
"""Seconds that late ones then have to end."""

NAMES: dict[Kind, StepKind] = {kind: cast("StepKind", kind.name.lower()) for kind in Kind}

Method = Callable[[Any], Any]


class Observers:
    """Tells the observers of one run.

    Args:
        observers: The user's objects.
        guard: Calls their methods.
    """

    name = "the observers"
    hears_starts = True
    hears_tasks = False
    may_hold = False

    def __init__(self, observers: Sequence[Any], guard: Guard) -> None:
        self._guard = guard
        self._opened: list[tuple[str, Method]] = []
        self._closed: list[tuple[str, Method]] = []
        self._happened: list[tuple[str, Method, bool]] = []
        for index, observer in enumerate(observers):
            name = f"observers[{index}] ({type_name(observer)})"
            wants_values = attribute(observer, "wants_values") is True
            if callable(method := attribute(observer, "opened")):
                self._opened.append((name, method))
            if callable(method := attribute(observer, "happened")):
                self._happened.append((name, method, wants_values))
            if callable(method := attribute(observer, "closed")):
                self._closed.append((name, method))

    def opened(self, facts: RunFacts, ledger: Ledger, rewire: Callable[[], None]) -> None:
        self._facts = facts
        for name, method in self._opened:
            discard(self._guard.call(name, _in_line, method, facts))

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> Wait:
        wait: Wait = None
        for envelope in envelopes:
            step = new_step(Kind.ADMITTED, envelope, None, now, value=envelope.value)
            wait = both(wait, self._tell(step))
        return wait

    def started(self, step: Step) -> Wait:
        return self._tell(step)

    def ended(self, step: Step) -> Wait:
        return self._tell(step)

    def task(self, step: TaskStep) -> Wait:
        return None

    def closed(self, end: RunEnd) -> Wait:
        told = [(name, self._guard.call(name, method, end)) for name, method in self._closed]
        waits = {name: wait for name, wait in told if wait is not None}
        return _Closing(self._guard, waits) if waits else None

    def _tell(self, step: Step) -> Wait:
        wait: Wait = None
        if self._happened:
            shown = _shown(step, self._facts)
            valued: ItemStep | None = None
            for name, method, wants_values in self._happened:
                if wants_values and valued is None:
                    valued = shown if step.value is None else replace(shown, value=step.value)
                given = valued if wants_values else shown
                wait = both(wait, self._guard.call(name, _in_line, method, given))
        return wait


def _shown(step: Step, facts: RunFacts) -> ItemStep:
    """A step as observers see it, without the value."""
    envelope, worker = step.envelope, step.worker
    return ItemStep(
        facts.run_id,
        NAMES[step.kind],
        envelope.id,
        envelope.sequence_id,
        envelope.branch,
        facts.stage_names[envelope.position],
        None if worker is None else facts.worker_name(worker.stage, worker.index),
        max(envelope.attempts, 0),
        facts.timestamp(step.now),
        step.now,
        0.0 if step.began is None else step.now - step.began,
        step.error,
    )


def _in_line(method: Method, what: Any) -> None:
    """Call a method that is not waited for."""
    if is_awaitable(answer := method(what)):
        discard(answer)
        raise TypeError(
            "opened() and happened() must be plain functions: what they return is not awaited; "
            "only closed() may be async"
        )


class _Closing:
    """Waits for all observers at once, for as long as they may take."""

    def __init__(self, guard: Guard, waits: dict[str, Awaitable[None]]) -> None:
        self._guard = guard
        self._waits = waits

    def __await__(self) -> Generator[Any, Any, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        tasks = {asyncio.create_task(_until(wait)): name for name, wait in self._waits.items()}
        try:
            await asyncio.wait(tasks, timeout=LONGEST_CLOSE)
        finally:
            late = [task for task in tasks if not task.done()]
            for task in late:
                task.cancel()
        for task in late:
            text = f"closed() took more than {LONGEST_CLOSE:g} s and was cancelled"
            self._guard.contain(tasks[task], TimeoutError(text))
        if late:
            await asyncio.wait(late, timeout=SHORTEST_CLOSE)
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.result()) is not None:
                raise error

    def close(self) -> None:
        for wait in self._waits.values():
            discard(wait)


async def _until(wait: Awaitable[None]) -> BaseException | None:
    """Return what ends the program: raised in a task, it would end the event loop."""
    try:
        await wait
    except (KeyboardInterrupt, SystemExit) as error:
        return error
    return None
