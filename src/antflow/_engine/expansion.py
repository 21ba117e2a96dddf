"""One item becomes many: what the last task of a stage with ``expand=True`` returns, item by item.

The items go on while they are made, with backpressure. When a try fails on the way, what was made
stays made: the next try makes its items anew, and as many as there are already are passed over.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, suppress
from contextvars import Context, copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from antflow._core.envelope import Envelope
from antflow._core.errors import Drop
from antflow._core.foreign import attribute, is_a
from antflow._core.ledger import WorkerBook
from antflow._core.text import safe_repr
from antflow._engine.current import seat_here
from antflow._engine.limits.permits import slots_given_back
from antflow._engine.source import IterableSource
from antflow._engine.time_limit import time_limit
from antflow._engine.worker_thread import take_over

if TYPE_CHECKING:
    from antflow._engine.stage_run import StageRun

LARGEST_CHUNK = 100
"""Values taken from a plain generator at a time, each time in a thread."""


class Expanded:
    """What a stage made of an item that became others.

    Attributes:
        children: How many.
    """

    __slots__ = ("children",)

    def __init__(self, children: int) -> None:
        self.children = children


ENDS_HERE = (Drop, type, Expanded, CoroutineType)
"""The types of answers with which an item may end. None of them has a metaclass of the user's, so
``issubclass(type(answer), ENDS_HERE)`` runs none of their code."""


async def expand(
    stage: StageRun, call: Callable[[Any], Awaitable[Any]], timeout: float | None, value: Any
) -> Expanded:
    """Call a task and let each value of what it returns go on as an item of its own.

    Args:
        stage: The stage.
        call: The task.
        timeout: Seconds for the call, and for each value; waiting for room does not count.
        value: What it is called with.
    """
    worker = seat_here()[1]
    envelope: Envelope = worker.item
    too_late = "" if timeout is None else f"not done after {timeout:g} s (timeout)"
    async with time_limit(timeout, too_late):
        values = await call(value)
    if is_drop(values):
        raise Drop
    made, emitted = 0, 0
    already = getattr(envelope, "children", 0)
    async with aclosing(_each(stage, values)) as steps:
        while True:
            async with time_limit(timeout, too_late):
                step = await anext(steps, None)
            if step is None:
                return Expanded(emitted)
            for child in step:
                if not is_drop(child):
                    emitted += 1
                    if made >= already:
                        envelope.children = made + 1
                        await stage.endings.emit(envelope, worker, child, made)
                        await _in_turn(stage, envelope, worker)
                made += 1
                child = None
            step = None  # it may be long until the next one


async def _in_turn(stage: StageRun, envelope: Envelope, worker: WorkerBook) -> None:
    """Wait while too many results wait for those before them, where they are to be in order."""
    reorder, now = stage.run.reorder, stage.run.timers.now
    if reorder is None or (turn := reorder.hold(envelope, lambda: stage.worker_count)) is None:
        return
    worker.wait_begins("room", now())
    try:
        async with slots_given_back():
            await turn
    finally:
        worker.wait_ends(now())


def is_drop(value: Any) -> bool:
    """Whether a task's answer is `Drop`, the class or an instance of it."""
    return value is Drop or is_a(value, Drop)


async def _taken(stage: StageRun, source: IterableSource, context: Context) -> list[Any]:
    if stage.runner.shares_memory:
        taken: list[Any] = await stage.runner.call(seat_here()[1], source.take, LARGEST_CHUNK)
    else:
        taken = source.take(LARGEST_CHUNK)  # elsewhere a copy would be taken from
    take_over(context)
    return taken


async def _each(stage: StageRun, values: Any) -> AsyncGenerator[Iterable[Any], None]:
    """The values, some at a time, as an async generator of lists."""
    if is_a(values, AsyncIterable):
        try:
            async for value in values:
                yield [value]
                value = None  # it may be long until the next one
        finally:
            if (close := attribute(values, "aclose")) is not None:
                await close()
    elif is_a(values, (str, bytes, bytearray, Mapping)) or not is_a(values, Iterable):
        raise TypeError(
            f"a task of a stage with expand=True returned {safe_repr(values)}: must be an "
            "iterable or async iterable of values, and no string or mapping"
        )
    elif is_a(values, Iterator):
        context = copy_context()  # one for all chunks, wherever each is taken
        source = IterableSource(values, stage.run.timers.now, context)
        try:
            while chunk := await _taken(stage, source, context):
                yield chunk
        finally:
            with suppress(Exception):
                source.close()
    else:
        yield values
