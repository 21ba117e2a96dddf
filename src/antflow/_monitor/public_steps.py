"""The user's observers of one run, as one listener: each step becomes one frozen value for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, cast

from antflow._core.cancellation import request_counter
from antflow._core.envelope import Envelope
from antflow._core.events import TaskEventType
from antflow._core.foreign import attribute, is_awaitable, type_name
from antflow._core.ledger import Ledger, WorkerBook
from antflow._core.observers import ItemStep, RunEnd, StepKind, UnfrozenStep
from antflow._core.ports import Caller, Guard, TellTask
from antflow._core.run_facts import RunFacts
from antflow._core.step import Step
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
    tasks: Mapping[TaskEventType, TellTask] = {}
    may_hold = False

    def __init__(self, observers: Sequence[Any], guard: Guard) -> None:
        self._guard = guard
        self._opened: list[tuple[str, Method]] = []
        self._closed: list[tuple[str, Method]] = []
        self._happened: list[tuple[str, Method, bool]] = []
        self._tells: list[tuple[Caller, bool]] = []
        self._gives_values = False
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
        for name, method, wants_values in self._happened:
            tell = self._guard.caller(name, partial(_in_line, method))
            self._tells.append((tell, wants_values))
            self._gives_values |= wants_values
        for name, method in self._opened:
            discard(self._guard.call(name, _in_line, method, facts))

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> Wait:
        wait: Wait = None
        for envelope in envelopes:
            wait = both(wait, self._tell("admitted", envelope, None, now, value=envelope.value))
        return wait

    def entering(self, envelope: Envelope) -> None:
        pass

    def started(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        return self._tell("started", envelope, worker, now)

    def completed(
        self, envelope: Envelope, worker: WorkerBook, value: Any, began: float, now: float
    ) -> Wait:
        return self._tell("completed", envelope, worker, now, now - began, None, value)

    def ended(self, step: Step) -> Wait:
        return self._tell(
            NAMES[step.kind],
            step.envelope,
            step.worker,
            step.now,
            0.0 if step.began is None else step.now - step.began,
            step.error,
            step.value,
        )

    def closed(self, end: RunEnd) -> Wait:
        told = [(name, self._guard.call(name, method, end)) for name, method in self._closed]
        waits = {name: wait for name, wait in told if wait is not None}
        return _Closing(self._guard, waits) if waits else None

    def _tell(
        self,
        kind: StepKind,
        envelope: Envelope,
        worker: WorkerBook | None,
        now: float,
        duration: float = 0.0,
        error: Exception | None = None,
        value: Any = None,
    ) -> Wait:
        if not self._tells:
            return None
        facts = self._facts
        step = valued = item_step(facts, kind, envelope, worker, now, duration, error)
        if value is not None and self._gives_values:
            valued = item_step(facts, kind, envelope, worker, now, duration, error, value)
        requests = request_counter() if worker is None else worker.cancel_requests
        wait: Wait = None
        for tell, wants_values in self._tells:
            told = tell(valued if wants_values else step, requests)
            if told is not None:
                wait = both(wait, told)
        return wait


def item_step(
    facts: RunFacts,
    kind: StepKind,
    envelope: Envelope,
    worker: WorkerBook | None,
    now: float,
    duration: float = 0.0,
    error: Exception | None = None,
    value: Any = None,
) -> ItemStep:
    """A step as observers see it."""
    attempts = envelope.attempts
    step: Any = UnfrozenStep()
    step.run_id = facts.run_id
    step.kind = kind
    step.item_id = envelope.id
    step.sequence_id = envelope.sequence_id
    step.branch = envelope.branch
    step.stage = facts.stage_names[envelope.position]
    step.worker = None if worker is None else worker.name
    step.attempt = attempts if attempts > 0 else 0
    step.timestamp = facts.started_wall + (now - facts.started_mono)
    step.mono = now
    step.duration = duration
    step.waited = worker.held_up if worker is not None and duration else 0.0
    step.error = error
    step.value = value
    step.__class__ = ItemStep
    made: ItemStep = step
    return made


def _in_line(method: Method, what: Any) -> None:
    """Call a method that is not waited for."""
    answer = method(what)
    if answer is not None and is_awaitable(answer):
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
            text = f"closed() took more than {LONGEST_CLOSE:,g} s and was cancelled"
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
