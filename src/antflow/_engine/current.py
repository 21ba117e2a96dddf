"""The run and the item in hand, for code that runs inside a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from antflow._core.checks import check_seconds
from antflow._core.envelope import Envelope
from antflow._core.item_facts import Checkpoints, FarSeat, ItemFacts, far_seat
from antflow._core.ledger import WorkerBook
from antflow._core.stage import Stage
from antflow._core.text import safe_str
from antflow._core.waits import Wait
from antflow._engine.crew import Crew
from antflow._engine.run import Run


@dataclass(frozen=True, eq=False)
class Seat:
    """Where a worker works; what is called in it belongs to the item in hand.

    Attributes:
        run: The run.
        index: The stage's index.
        stage: The stage as the user described it.
        crew: Its workers.
        worker: The worker.
        outer: The seat in which the run was started, and those around it.
    """

    run: Run
    index: int
    stage: Stage
    crew: Crew
    worker: WorkerBook
    outer: tuple[ref[Seat], ...] = ()

    def with_outer(self) -> list[Seat]:
        """This seat, then those around it that still exist."""
        return [self, *(seat for outer in self.outer if (seat := outer()) is not None)]


current_seat: ContextVar[Seat | None] = ContextVar("antflow_seat", default=None)
"""The seat this code runs in. Set once per worker, not once per item."""


def seat_here() -> Seat:
    """The seat this code runs in, where it is known to run in one."""
    seat = current_seat.get()
    assert seat is not None
    return seat


def outer_seats() -> tuple[ref[Seat], ...]:
    """The seat this code runs in and those around it, for a run that begins here."""
    seat = current_seat.get()
    # Weakly: where each run begins the next, the last must not keep the first alive.
    return () if seat is None else tuple([ref(each) for each in seat.with_outer()])


@dataclass(frozen=True, slots=True)
class HomeCheckpoints:
    """The values that the tasks of a stage keep for later tries of an item.

    Args:
        run: The run.
        stage: The stage's index.
        envelope: The item.
    """

    run: Run
    stage: int
    envelope: Envelope

    def last(self) -> Any:
        """The value that was kept last, or ``None``."""
        kept = self.envelope.checkpoint
        return kept[1] if kept is not None and kept[0] == self.stage else None

    def keep(self, value: Any) -> Awaitable[None]:
        """Keep a value; see `CurrentItem.checkpoint`."""
        loop = self.run.timers.loop
        if asyncio._get_running_loop() is loop:
            return _Kept(self._keep(value))
        asyncio.run_coroutine_threadsafe(self._keep_and_wait(value), loop).result()
        return _Kept(None)

    def _keep(self, value: Any) -> Wait:
        memory = self.run.memory
        wait = None if memory is None else memory.checkpoint(self.envelope, value)
        self.envelope.checkpoint = self.stage, value
        return wait

    async def _keep_and_wait(self, value: Any) -> None:
        if (wait := self._keep(value)) is not None:
            await wait


class _Kept:
    """Awaited, it is over when the value is kept; if it is not awaited, the value is kept soon."""

    __slots__ = ("_wait",)

    def __init__(self, wait: Wait) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, None, None]:
        if self._wait is not None:
            yield from self._wait.__await__()


@dataclass(frozen=True, slots=True)
class CurrentItem:
    """The item a task works on.

    Attributes:
        id: The item's id.
        attempt: Number of this try, from 1.
        stage: Name of the stage.
        run_id: The run.
        idempotency_key: 32 hexadecimal digits for APIs that take an idempotency key: the same on
            every try of this item in this stage and `Stage.version`, also when the item goes on in
            a later run (``retry_failed``), and different for any other.
    """

    id: Any
    attempt: int
    stage: str
    run_id: str
    idempotency_key: str
    _checkpoints: Checkpoints = field(repr=False, compare=False)

    @property
    def checkpointed(self) -> Any:
        """The value that was kept last by `checkpoint` for this item in this stage, or ``None``.

        It is there on every later try. With a journal it is also there in every later run.
        """
        return self._checkpoints.last()

    def checkpoint(self, value: Any) -> Awaitable[None]:
        """Keep a value for later tries of this item in this stage, like the id of a batch job.

        ```python
        item = current_item()
        job = item.checkpointed
        if job is None:
            job = await submit(value, key=item.idempotency_key)
            await item.checkpoint(job)
        return await poll(job)
        ```

        Args:
            value: The value; with a journal, one that its codec can keep.

        Returns:
            Something to await: then the value is in the run's journal, if it keeps one. In a plain
            function, which runs in a thread, it is there when this returns.

        Raises:
            NotSerialisable: The journal's codec cannot keep it.
        """
        return self._checkpoints.keep(value)


def current_item() -> CurrentItem:
    """The item that the calling task works on, including plain functions in their threads.

    Raises:
        RuntimeError: If no task of a pipeline is running here, or it works on a batch.
    """
    items = _items_here("current_item()")
    if len(items) > 1:
        raise RuntimeError("current_item(): this task works on a batch; use current_batch()")
    return items[0]


def current_batch() -> list[CurrentItem]:
    """The items that the calling task works on, in the order of the values it was called with.

    Raises:
        RuntimeError: If no task of a pipeline is running here.
    """
    return _items_here("current_batch()")


def set_task_status(status: str, min_interval: float = 0.0) -> bool:
    """Say what the calling task does right now; dashboards show it beside the worker.

    Args:
        status: What it does. It is drawn as plain text, cut to fit.
        min_interval: Seconds after a change during which further ones are ignored: cheap enough for
            a tight loop.

    Returns:
        Whether it was taken: not if it came too soon or outside a task.

    Raises:
        ValueError: ``min_interval`` is not a finite number of seconds >= 0.
    """
    min_interval = check_seconds(ValueError, "min_interval", min_interval)
    seat = current_seat.get()
    if seat is None and (far := far_seat.get()) is not None:
        return _say_from_afar(far, status, min_interval)
    if seat is None or seat.worker.item is None:
        return False
    worker, now = seat.worker, seat.run.timers.now()
    key = worker.item.key
    if worker.status is not None:
        item, _, when = worker.status
        if item == key and now - when < min_interval:
            return False
    worker.status = (key, safe_str(status), now)
    return True


def _say_from_afar(seat: FarSeat, status: str, min_interval: float) -> bool:
    now = time.monotonic()
    if seat.said and now - seat.said[-1] < min_interval:
        return False
    seat.said[:] = [now]
    seat.say(safe_str(status))
    return True


def _items_here(name: str) -> list[CurrentItem]:
    seat = current_seat.get()
    if seat is None and (far := far_seat.get()) is not None:
        return [_current(facts, checkpoints) for facts, checkpoints in far.items]
    if seat is None or seat.worker.item is None:
        raise RuntimeError(f"{name} works only inside a task of a running pipeline")
    held = [HeldEnvelope(seat, each) for each in seat.worker.given or [seat.worker.item]]
    return [_current(each.facts, each.checkpoints) for each in held]


def _current(facts: ItemFacts, checkpoints: Checkpoints) -> CurrentItem:
    return CurrentItem(facts.id, facts.attempt, facts.stage, facts.run_id, facts.key, checkpoints)


class HeldEnvelope:
    """An item that a worker has in hand.

    Args:
        seat: Where the worker works.
        envelope: The item.

    Attributes:
        facts: What its task may ask about it, as it is now.
        checkpoints: The values that its tasks keep.
    """

    __slots__ = ("checkpoints", "facts")

    def __init__(self, seat: Seat, envelope: Envelope) -> None:
        self.checkpoints: Checkpoints = HomeCheckpoints(seat.run, seat.index, envelope)
        run_id, stage = seat.run.facts.run_id, seat.stage
        fate = envelope.fate
        if (memory := seat.run.memory) is not None:
            scope = memory.id
            place: Any = [type(envelope.id).__name__, safe_str(envelope.id)]
        else:
            scope = fate.scope or run_id
            place = fate.place or (envelope.sequence_id, *envelope.branch)
        self.facts = ItemFacts(
            envelope.id,
            envelope.attempts,
            stage.name,
            run_id,
            (scope, place, stage.name, stage.version),
            self.checkpoints.last(),
        )
