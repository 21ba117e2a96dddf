"""Expansion: in a stage with ``expand=True``, each value the last task returns becomes an item.

Items go on to the next stage as they are made, with backpressure. If a try fails midway, the items
made so far stay: the next try starts over, and skips as many values as there are items already.

An iterable may be endless. So once the run is being stopped, no further value is asked for: the
iterable is closed, and its item is cancelled. Values that exist already still become items.
"""

from __future__ import annotations

import asyncio
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
from antflow._core.items import STRINGS, is_model, is_table
from antflow._core.ledger import WorkerBook
from antflow._core.runner_port import Runner
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

CONTAINERS = (list, tuple, set, frozenset, deque)
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

NO_VALUE = (BaseException, *ENDS_HERE)
"""Types of answers of a batch task that may be other than values. The same is true of them."""


class Family:
    """The items that one try makes from an item.

    Args:
        worker: The worker that has the item.

    Attributes:
        worker: The same.
        parent: The item.
        name: Its id, as text.
        already: How many values earlier tries have passed on.
        made: How many values this try has come by, those of earlier tries included.
        emitted: How many of them are items.
    """

    __slots__ = ("already", "emitted", "made", "name", "parent", "worker")

    def __init__(self, worker: WorkerBook) -> None:
        self.worker = worker
        self.parent: Envelope = worker.item
        self.name: str = safe_str(self.parent.id)
        self.already: int = self.parent.children
        self.made: int = 0
        self.emitted: int = 0


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
        values = await (call(value) if in_time is None else in_time.call(call, value))
        if issubclass(type(values), ENDS_HERE):
            if is_drop(values):
                raise Drop
            if is_a(values, CoroutineType):
                raise forgotten_await(values, worker.task)
        family = Family(worker)
        turns = self.handover.run.turns
        if type(values) is list:  # as from most tasks: that needs no generator
            await self._pass_on(values, family)
            return Expanded(family.emitted)
        async with aclosing(self._each(values)) as steps:
            take = further = partial(anext, steps, None)
            while True:
                step = await (take() if in_time is None else in_time.call(take))
                take = further
                if step is None:
                    return Expanded(family.emitted)
                try:
                    await self._pass_on(step, family)
                except asyncio.CancelledError as error:
                    if self.handover.crew.is_called_off(worker):
                        raise
                    take = partial(steps.athrow, error)  # it may be the iterable's own
                step = None  # it may be long until the next one
                if turns.is_over():
                    await asyncio.sleep(0)

    async def _pass_on(self, values: Iterable[Any], family: Family) -> None:
        """Pass values on as items, one after the other."""
        parent, already, name = family.parent, family.already, family.name
        id_of, number = self.identity.child_id, family.made
        together: list[Envelope] = []
        most = self._most_together()
        others = iter(values)
        turns = self.handover.run.turns
        try:
            for value in others:
                if issubclass(type(value), ENDS_HERE):
                    if is_a(value, CoroutineType):
                        raise forgotten_await(value, family.worker.task, others)
                    if is_drop(value):
                        number += 1
                        continue
                family.emitted += 1
                number += 1  # first: what follows may be cancelled, and the iterable go on
                if number > already:
                    child = parent.child(number - 1, id_of(name, number - 1), value)
                    if most:
                        together.append(child)
                        if len(together) == most:
                            parent.children = number
                            if (room := self._emit_together(together, family.worker)) is not None:
                                await self._give_slots_back(family.worker, room)
                            most = self._most_together()
                    else:
                        parent.children = number
                        if (wait := self._emit(child, family.worker)) is not None:
                            await wait
                        if self.handover.settlement.reorder is not None:
                            await self._wait_for_turn(parent, family.worker)
                    del child
                value = None  # it may be long until the next one
                if number % LARGEST_CHUNK == 0 and turns.is_over():
                    await asyncio.sleep(0)
        finally:
            family.made = number
            if together:
                parent.children = number
                self._emit_together(together, family.worker)

    def _most_together(self) -> int:
        """How many children may be put into the next stage in one go; 0: one by one.

        Together they cost half. But listeners are told of each before it is put, and ordered
        results, and those of a last stage, may make the worker wait after each.
        """
        handover = self.handover
        channel = handover.next_channel
        if (
            channel is None
            or handover.recorder.on_ended is not None
            or handover.settlement.reorder is not None
        ):
            return 0
        if channel.capacity is None:
            return LARGEST_CHUNK
        return min(max(channel.capacity - len(channel), 1), LARGEST_CHUNK)

    def _emit_together(self, children: list[Envelope], worker: WorkerBook) -> Wait:
        """Pass items on to the next stage, for which there is room, and forget them here.

        Returns:
            What is left to wait for: room in the next stage.
        """
        channel = self.handover.next_channel
        assert channel is not None
        self.handover.recorder.emitted(children, worker, self.handover.now())
        for child in children:
            child.position += 1
        channel.put_all(children, children[0].priority)
        children.clear()
        return None if channel.has_room else channel.room()

    def _emit(self, child: Envelope, worker: WorkerBook) -> Wait:
        """Pass an item on to the next stage.

        Returns:
            What is left to wait for: listeners, or room in the next stage.
        """
        handover, value = self.handover, child.value
        if handover.settlement.reorder is not None:
            handover.settlement.reorder.expect(child, child.position + 1)
        wait = handover.recorder.emitted([child], worker, handover.now())
        if wait is not None:
            return self._put_on_after(wait, child, worker, value)
        if (room := handover.put_on(child, value)) is not None:
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

    def _check_not_stopping(self) -> None:
        """Called before each step of an iterable.

        Raises:
            asyncio.CancelledError: The run is being stopped; the worker is called off.
        """
        self.handover.crew.check_not_stopping(seat_here().worker, self.handover.run.is_stopping)

    async def _each(self, values: Any) -> AsyncGenerator[Iterable[Any], None]:
        """The values, a few at a time, as an async generator of lists."""
        if is_a(values, AsyncIterable):
            iterator = aiter(values)
            take = further = partial(anext, iterator)
            try:
                while True:
                    self._check_not_stopping()
                    try:
                        value = await take()
                    except StopAsyncIteration:
                        break
                    take = further
                    try:
                        yield [value]
                    except asyncio.CancelledError as error:  # see `AsyncSource.interrupt`
                        if (throw := attribute(iterator, "athrow")) is None:
                            raise
                        take = partial(throw, error)
                    value = None  # it may be long until the next one
            finally:
                # Only this code can close an iterator that it made, and it may have a thread.
                for each in (values,) if iterator is values else (iterator, values):
                    if (close := attribute(each, "aclose")) is not None:
                        with clean_up(CLEAN_UP_FAILED):
                            await close()
        elif (
            is_a(values, (*STRINGS, Mapping))
            or not is_a(values, Iterable)
            or is_model(values)
            or is_table(values)
        ):
            raise TypeError(
                f"a task of a stage with expand=True returned {safe_repr(values)}: must be an "
                "iterable or async iterable of values, and not a string, mapping, model or data "
                "frame"
            )
        elif is_a(values, CONTAINERS):
            yield values
        elif is_a(values, range):
            for start in range(0, len(values), LARGEST_CHUNK):
                self._check_not_stopping()
                yield values[start : start + LARGEST_CHUNK]
        else:
            context = copy_context()  # one for all chunks, wherever each is taken
            failure = partial(failure_of, name=seat_here().worker.task or "")
            begin = partial(IterableSource, values, self.handover.now, context, failure)
            if self.runner.shares_memory:
                source = await self.runner.call(seat_here().worker, begin)
            else:
                source = begin()
            try:
                self._check_not_stopping()
                while chunk := await self._taken(source, context):
                    yield chunk
                    self._check_not_stopping()
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
