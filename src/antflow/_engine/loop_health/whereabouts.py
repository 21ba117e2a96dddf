"""Sees from another thread what runs on an event loop at this moment.

Read from the stack of the loop's thread, which goes on running meanwhile: a glance may catch two
moments at once. To be sure, look twice, and keep what is the same (`agreed`).
"""

from __future__ import annotations

import asyncio
import gc
import linecache
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import get_ident
from types import FrameType
from typing import Any, Protocol

from antflow._core.ledger import WorkerBook
from antflow._core.places import Place, function_name, is_pythons, telling
from antflow._engine.run import Run


class SeenStage(Protocol):
    """A stage as seen from another thread."""

    @property
    def run(self) -> Run: ...
    @property
    def name(self) -> str: ...
    @property
    def index(self) -> int: ...


SeenWorker = tuple[SeenStage, WorkerBook]
"""A worker, and the stage it works in."""

COLLECTS_ANYWHERE = sys.version_info < (3, 12)
"""Whether a garbage collection may start inside Python's own functions, not just between two lines.

Where that is so, one that starts while another thread's stack is read may let other threads run in
the middle of it. Then the process can hang for good (python/cpython#106883), or a frame is read
that no longer exists.
"""


@dataclass(frozen=True, slots=True)
class Sight:
    """The code that a glance at an event loop saw running.

    Attributes:
        place: Where; ``None`` if no line of Python could be seen.
        task: Identity of the `asyncio.Task` that runs; 0 = none, it is a callback.
        stage: The stage whose worker it is, ``None`` if it is none.
        worker: That worker.
        item: What the worker had in hand: an envelope.
    """

    place: Place | None
    task: int = 0
    stage: SeenStage | None = None
    worker: WorkerBook | None = None
    item: Any = None


@dataclass(frozen=True, slots=True)
class Footing:
    """Where in a thread's stack an event loop runs.

    Attributes:
        thread: The thread's identity.
        depth: How many frames at the bottom of its stack are the loop's own, or below.
        exchanged: How many of these, at the top, change over time.
        base: Identity of the one below, which stays the same until the loop is started again.
    """

    thread: int
    depth: int = sys.maxsize
    exchanged: int = 0
    base: int = 0

    @classmethod
    def below(cls, frame: FrameType, loop: asyncio.AbstractEventLoop) -> Footing:
        """The footing of a loop that has called a function, in this frame, in this thread."""
        frames = _with_callers(frame.f_back)
        # In asyncio these are the call of a handle, and the loop's turn. A loop that is not written
        # in Python has no frames.
        exchanged = 2 if isinstance(loop, asyncio.BaseEventLoop) else 0
        if len(frames) <= exchanged:
            return cls(get_ident())
        return cls(get_ident(), len(frames), exchanged, id(frames[exchanged]))

    def running(self, stack: Sequence[FrameType]) -> Sequence[FrameType] | None:
        """The frames on top of the loop's own; ``None`` if these have changed."""
        above = len(stack) - self.depth
        base = above + self.exchanged
        if not (0 <= base < len(stack) and id(stack[base]) == self.base):
            return None
        return stack[: max(above, 0)]


def glance(
    loop: asyncio.AbstractEventLoop,
    footing: Footing,
    worker_of: Callable[[asyncio.Task[Any]], SeenWorker | None],
) -> Sight | None:
    """Look at what runs on an event loop.

    Args:
        loop: The event loop.
        footing: Where it runs.
        worker_of: Says which worker an `asyncio.Task` is.

    Returns:
        What runs there; ``None`` if nothing does.
    """
    task = _current_task(loop)
    stack = stack_of(footing.thread)
    running = footing.running(stack)
    if (
        running is not None
        and task is None
        and all(is_pythons(each.f_code.co_filename) for each in running)
    ):
        return None  # it waits, or runs itself
    place = None if running is None else _place(running)
    seen = None if task is None else worker_of(task)
    if seen is None or (item := seen[1].item) is None:
        return Sight(place, id(task) if task is not None else 0)
    return Sight(place, id(task), *seen, item)


def agreed(first: Sight | None, second: Sight | None) -> Sight | None:
    """Combine two glances at a loop that did not move on in between.

    One task that blocks is seen twice. Many that hold the loop up together, each for a short time,
    may have the function in common, or the stage; none of them is named.
    """
    if first is None or second is None:
        return None
    is_one_step = first.task == second.task != 0 and first.item is second.item
    if is_one_step:
        return second
    if not (first.place and second.place and first.place.is_in_function_of(second.place)):
        return None
    if first.stage is not second.stage:
        return Sight(second.place)
    return replace(second, task=0, worker=None, item=None)


def _current_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task(loop)
    except Exception:
        return None


def stack_of(thread: int) -> list[FrameType]:
    """A thread's frames, the innermost first."""
    # Another thread that switches collection on or off in these microseconds is overruled.
    collects = COLLECTS_ANYWHERE and gc.isenabled()
    if collects:
        gc.disable()
    try:
        # Not kept: it has the frames of all threads, this one among them.
        return _with_callers(sys._current_frames().get(thread))
    finally:
        if collects:
            gc.enable()


def _with_callers(frame: FrameType | None) -> list[FrameType]:
    """A frame and its callers."""
    stack: list[FrameType] = []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return stack


def _place(running: Sequence[FrameType]) -> Place | None:
    """Where to look for the cause: see `telling`."""
    if not running:
        return None
    frame = running[telling([each.f_code.co_filename for each in running])]
    code = frame.f_code
    linecache.lazycache(code.co_filename, frame.f_globals)  # for files in an archive
    number = frame.f_lineno or code.co_firstlineno
    return Place(code.co_filename, number, function_name(code.co_qualname))
