"""Expansion: in a stage with ``expand=True``, each value the last task returns becomes an item.

Items go on to the next stage as they are made, with backpressure. If a try fails midway, the items
made so far stay: the next try starts over, and skips as many values as there are items already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import aclosing
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from types import CoroutineType
from typing import Any

from antflow._core.envelope import Envelope
from antflow._core.errors import Drop
from antflow._core.foreign import attribute, is_a
from antflow._core.items import STRINGS
from antflow._core.ledger import WorkerBook
from antflow._core.ports import Runner
from antflow._core.text import safe_repr, safe_str
from antflow._core.waits import Wait, discard
from antflow._engine.current import seat_here
from antflow._engine.handover import Handover
from antflow._engine.identity import Identity
from antflow._engine.limits.permits import slots_given_back
from antflow._engine.source import IterableSource, clean_up
from antflow._engine.time_limit import TimeLimit
from antflow._engine.user_errors import failure_of
from antflow._engine.worker_thread import take_over

LARGEST_CHUNK = 100
"""How many values to take from a plain generator at a time, in a thread."""

CONTAINERS = (list, tuple, range, set, frozenset, deque)
"""Types whose values exist already. Any other iterable may be slow, like a query."""

CLEAN_UP_FAILED = "the clean-up of an expanded iterable failed"


class Expanded:
    """Marks an item that became others.

    Attributes:
        children: How many items it became.
    """

    __slots__ = ("children",)

    def __init__(self, children: int) -> None:
        self.children = children


ENDS_HERE = (Drop, type, Expanded, CoroutineType)
"""Types of answers with which an item may end. None of them has a user's metaclass, so
``issubclass(type(answer), ENDS_HERE)`` runs none of their code."""


@dataclass(eq=False)
class Expansion:
    """Turns the items of one stage into others.

    Args:
        handover: The way out of the stage.
        identity: Gives the new items their ids.
        runner: Where the stage's plain functions run.
        worker_count: Says how many workers the stage has.
    """

    handover: Handover
    identity: Identity
    runner: Runner
    worker_count: Callable[[], int]

    async def expand(
        self, call: Callable[[Any], Awaitable[Any]], in_time: TimeLimit | None, value: Any
    ) -> Expanded:
        """Call a task and pass each value it returns on as a separate item.

        Args:
            call: The task.
            in_time: The time limit of the call, and of each value; waiting for room does not count.
            value: The task's argument.
        """
        worker = seat_here().worker
        envelope: Envelope = worker.item
        values = await (call(value) if in_time is None else in_time.call(call, value))
        if is_drop(values):
            raise Drop
        if is_a(values, CoroutineType):
            raise forgotten_await(values, worker.task)
        made, emitted = 0, 0
        already = envelope.children
        async with aclosing(self._each(values)) as steps:
            while True:
                further = partial(anext, steps, None)
                step = await (further() if in_time is None else in_time.call(further))
                if step is None:
                    return Expanded(emitted)
                children = iter(step)
                for child in children:
                    if is_a(child, CoroutineType):
                        raise forgotten_await(child, worker.task, children)
                    if not is_drop(child):
                        emitted += 1
                        if made >= already:
                            envelope.children = made + 1
                            if (wait := self._emit(envelope, worker, child, made)) is not None:
                                await wait
                            if self.handover.settlement.reorder is not None:
                                await self._wait_for_turn(envelope, worker)
                    made += 1
                    child = None
                del children
                step = None  # it may be long until the next one

    def _emit(self, parent: Envelope, worker: WorkerBook, value: Any, number: int) -> Wait:
        """Pass an item made from another on to the next stage.

        Args:
            parent: The item it was made from.
            worker: The worker that made it.
            value: The new item's value.
            number: Its number among the items made from the parent, from 0.

        Returns:
            What is left to wait for: listeners, or room in the next stage.
        """
        child = Envelope(
            parent.sequence_id,
            self.identity.free_id(f"{safe_str(parent.id)}/{number}"),
            value,
            dict(parent.metadata) or None,
            parent.input,
            parent.priority,
            parent.position,
            (*parent.branch, number),
        )
        child.deadline = parent.deadline
        if (place := parent.fate.place) is not None:
            scope = parent.fate.scope
            child.fate = child.fate._replace(scope=scope, place=(*place, number))
        if self.handover.settlement.reorder is not None:
            self.handover.settlement.reorder.expect(child)
        wait = self.handover.recorder.emitted(child, worker, value, self.handover.now())
        if wait is not None:
            return self._put_on_after(wait, child, worker, value)
        if (room := self.handover.put_on(child, value)) is not None:
            return self._give_slots_back(worker, room)
        return None

    async def _put_on_after(
        self, wait: Wait, child: Envelope, worker: WorkerBook, value: Any
    ) -> None:
        try:
            await self.handover.hear_out(worker, wait)
        except BaseException:
            discard(self.handover.put_on(child, value))
            raise
        if (room := self.handover.put_on(child, value)) is not None:
            await self._give_slots_back(worker, room)

    async def _wait_for_turn(self, envelope: Envelope, worker: WorkerBook) -> None:
        """With ordered results: wait while too many of them wait for earlier ones."""
        reorder = self.handover.settlement.reorder
        if reorder is None:
            return
        if (turn := reorder.hold(envelope, self.worker_count)) is not None:
            await self._give_slots_back(worker, turn)

    async def _give_slots_back(self, worker: WorkerBook, wait: Wait) -> None:
        """Wait with the try's slots given back, and take them again afterwards."""
        async with slots_given_back():
            await self.handover.room(worker, wait)

    async def _each(self, values: Any) -> AsyncGenerator[Iterable[Any], None]:
        """The values, a few at a time, as an async generator of lists."""
        if is_a(values, AsyncIterable):
            iterator = aiter(values)
            try:
                while True:
                    try:
                        value = await anext(iterator)
                    except StopAsyncIteration:
                        break
                    yield [value]
                    value = None  # it may be long until the next one
            finally:
                # Only this code can close an iterator that it made, and it may have a thread.
                for each in (values,) if iterator is values else (iterator, values):
                    if (close := attribute(each, "aclose")) is not None:
                        with clean_up(CLEAN_UP_FAILED):
                            await close()
        elif is_a(values, (*STRINGS, Mapping)) or not is_a(values, Iterable):
            raise TypeError(
                f"a task of a stage with expand=True returned {safe_repr(values)}: must be an "
                "iterable or async iterable of values, and not a string or mapping"
            )
        elif is_a(values, CONTAINERS):
            yield values
        else:
            context = copy_context()  # one for all chunks, wherever each is taken
            failure = partial(failure_of, name=seat_here().worker.task or "")
            begin = partial(IterableSource, values, self.handover.now, context, failure)
            if self.runner.shares_memory:
                source = await self.runner.call(seat_here().worker, begin)
            else:
                source = begin()
            try:
                while chunk := await self._taken(source, context):
                    yield chunk
            finally:
                with clean_up(CLEAN_UP_FAILED):
                    source.close()

    async def _taken(self, source: IterableSource, context: Context) -> list[Any]:
        if self.runner.shares_memory:
            taken: list[Any] = await self.runner.call(
                seat_here().worker, source.take, LARGEST_CHUNK
            )
        else:
            taken = source.take(LARGEST_CHUNK)  # a child process would get a copy
        take_over(context)
        return taken


def forgotten_await(
    answer: CoroutineType[Any, Any, Any], task: str | None, others: Iterable[Any] = ()
) -> TypeError:
    """Close a coroutine found among a task's answers, and return the error for it.

    Args:
        answer: The coroutine.
        task: The task's name.
        others: Answers that are discarded with it; coroutines among them are closed, too.
    """
    for each in (answer, *others):
        if is_a(each, CoroutineType):
            each.close()
    return TypeError(f"task {task} returned a coroutine: is an await missing?")


def is_drop(value: Any) -> bool:
    """Whether a task's answer is `Drop`, the class or an instance of it."""
    return value is Drop or is_a(value, Drop)
