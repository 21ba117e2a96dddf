"""An event loop with virtual time.

The loop is `asyncio.BaseEventLoop` with one method exchanged: `_run_once`, which takes the handles
that asyncio has put into `_ready` and runs them. Timers are kept here, by (time, order of making):
of two that are due at the same time the older comes first. Such pairs are rare with a real clock,
and common with a virtual one. There are no sockets, pipes, signals or subprocesses.

Time moves only when nothing is ready and no thread is at work. So a thread's work takes no virtual
time, however long it really takes, and a function in a thread cannot wait for virtual time to pass.
Only work given to ``run_in_executor`` (or ``asyncio.to_thread``) is waited for. The order in which
several threads end is up to them; no seed decides it.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import itertools
import math
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import Context
from pathlib import PurePath
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, TypeVar, TypeVarTuple

from antflow._core.checks import check_callback, check_count, refusal, whole

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THIRTY_DAYS = 30 * 24 * 3600.0


class Stalled(AssertionError):
    """The program cannot go on, or went on for too long; the message says where tasks wait."""


class LeftoverTasks(AssertionError):
    """Tasks were still pending when the main one had ended; the message says which, and where."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop with virtual time and a seeded schedule, which cannot hang silently.

    ``run_forever`` and ``run_until_complete`` raise `Stalled` when nothing is ready, no timer is
    set and no thread is at work; when a limit is reached; and when a thread takes too long.

    It has no sockets, pipes, signals or child processes: a stage with ``executor="process"``, or a
    real client, needs a real event loop.

    Args:
        seed: Deals the *task steps* that are ready in one iteration over the places they have in
            it; plain callbacks stay where they are. The same seed gives the same order in every
            version of Python. ``None``: asyncio's own order, first in, first out.
        on_step: Called with the number of the step, from 1, before each handle that is run. It may
            cancel tasks, look at the program, or raise, which ends the run.
        max_time: Virtual seconds that the clock may reach.
        max_steps: Handles that may be run; ``None`` = any number. A livelock that takes no time, as
            ``while True: await asyncio.sleep(0)``, is caught by this limit alone.
        thread_patience: Real seconds to wait for the threads at work, counted again whenever one of
            them delivers a result.

    Attributes:
        steps: Handles run so far; cancelled ones do not count.
        reported: Reports to the exception handler ("never retrieved" and the like), oldest first. A
            report without an exception is an `AssertionError` here. Reports that come after
            ``close()`` are logged too.

    Raises:
        TypeError: ``seed`` is not a whole number, or ``on_step`` not a function of one argument.
        ValueError: A limit is not a number, or not an allowed one.
    """

    _ready: deque[asyncio.Handle]
    _stopping: bool
    _default_executor: Executor | None

    # Until the loop is made: a refused option leaves no loop to close.
    _closed: bool = True

    def __init__(
        self,
        seed: int | None = None,
        *,
        on_step: Callable[[int], object] | None = None,
        max_time: float = THIRTY_DAYS,
        max_steps: int | None = None,
        thread_patience: float = 10.0,
    ) -> None:
        seed = check_schedule(seed, on_step)
        max_steps = check_limits(max_time, max_steps, thread_patience)
        super().__init__()
        self.seed = seed
        self.on_step = on_step
        self.max_time = max_time
        self.max_steps = max_steps
        self.thread_patience = thread_patience
        self.steps: int = 0
        self.reported: list[BaseException] = []
        self._random = None if seed is None else random.Random(seed)
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_made = itertools.count()
        self._sweep_at = 1000
        self._handed_in = threading.Condition()
        self._at_work: dict[Future[Any], Callable[..., object]] = {}

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back at a virtual time; at equal times, in the order of these calls."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        if math.isnan(when):
            raise ValueError("call_at: when=nan: must be a number of seconds")
        if len(self._timers) >= self._sweep_at:  # Timeouts that were met leave cancelled timers.
            self._timers = [entry for entry in self._timers if not entry[2].cancelled()]
            heapq.heapify(self._timers)
            self._sweep_at = max(1000, 2 * len(self._timers))
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._timers_made), timer))
        return timer

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a plain function for real; virtual time stands still until it has ended.

        Cancellation: the future is cancelled, the thread goes on and is still waited for.
        """
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        if executor is None:
            executor = self._default_executor
        if executor is None:
            executor = self._default_executor = ThreadPoolExecutor(thread_name_prefix="virtual")
        work = executor.submit(func, *args)
        self._at_work[work] = func
        future = asyncio.wrap_future(work, loop=self)
        work.add_done_callback(self._end_work)  # After the callback that hands in the result.
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the default executor's threads, as long as ``thread_patience`` allows.

        Args:
            timeout: Ignored: it would be in virtual seconds, and threads take none.
        """
        if self._default_executor is not None:
            joiner = ThreadPoolExecutor(1)
            await self.run_in_executor(joiner, self._default_executor.shutdown)
            joiner.shutdown()

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep the report in ``reported``."""
        message = context.get("message", "a report without a message")
        error = context.get("exception")
        if error is None:
            subject = context.get("task") or context.get("future") or context.get("handle")
            error = AssertionError(f"{message}: {subject!r}")
        else:
            error.add_note(f"reported to the event loop: {message}")
        self.reported.append(error)
        if self.is_closed():
            super().default_exception_handler(context)

    def _write_to_self(self) -> None:
        """Wake the loop up; asyncio calls this after a thread has put a handle into `_ready`."""
        with self._handed_in:
            self._handed_in.notify()

    def _end_work(self, work: Future[Any]) -> None:
        with self._handed_in:
            del self._at_work[work]
            self._handed_in.notify()

    def _run_once(self) -> None:
        """Run what is ready now; handles added meanwhile wait for the next iteration."""
        ready = self._ready
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if not (ready or self._stopping or (self._timers and self._timers[0][0] <= self._now)):
            self._wait()
        while self._timers and self._timers[0][0] <= self._now:
            ready.append(heapq.heappop(self._timers)[2])
        count = len(ready)
        if self._random is not None:
            self._deal(count, self._random)
        handle: asyncio.Handle | None = None
        for _ in range(count):
            handle = ready[0]  # It stays there until the hook has returned: no step may get lost.
            if not handle._cancelled:
                self._begin_step()
            ready.popleft()
            if not handle._cancelled:
                handle._run()
        handle = None  # Tracebacks may keep this frame, and an unwanted task must go.

    def _wait(self) -> None:
        """Wait for threads; if there are none, move the clock to the next timer."""
        with self._handed_in:
            in_time = self._handed_in.wait_for(
                lambda: self._ready or not self._at_work, self.thread_patience
            )
        if self._ready:
            return
        if not in_time:
            functions = ", ".join(f"{function!r:.200}" for function in [*self._at_work.values()])
            patience = f"{self.thread_patience} real s"
            raise self._stalled(f"a thread has not ended in {patience}: {functions}")
        if not self._timers or self._timers[0][0] == math.inf:  # that one never comes
            raise self._stalled("nothing is ready, no timer is set and no thread is at work")
        when = self._timers[0][0]
        if when > self.max_time:
            raise self._stalled(f"the next timer, at {when} s, is beyond max_time={self.max_time}")
        self._now = when

    def _deal(self, count: int, dealer: random.Random) -> None:
        batch = [self._ready.popleft() for _ in range(count)]
        steps = [handle for handle in batch if _is_task_step(handle)]
        dealer.shuffle(steps)
        dealt = iter(steps)
        order = [next(dealt) if _is_task_step(handle) else handle for handle in batch]
        self._ready.extendleft(reversed(order))

    def _begin_step(self) -> None:
        if self.max_steps is not None and self.steps >= self.max_steps:
            raise self._stalled(f"max_steps={self.max_steps} were run")
        self.steps += 1
        if self.on_step is not None:
            self.on_step(self.steps)

    def _stalled(self, why: str) -> Stalled:
        tasks = "\n".join(["pending tasks:", *pending_tasks(self)])
        return Stalled(f"{why} (step {self.steps}, {self._now} s, seed {self.seed}); {tasks}")


def check_schedule(seed: object, on_step: object) -> int | None:
    """Return the seed; refuse one that is not, and a hook that cannot be called with a step."""
    plain = whole(seed)
    if seed is not None and plain is None:
        raise refusal(TypeError, "seed", seed, "must be a whole number, or None")
    check_callback(TypeError, "on_step", on_step, "step")
    return plain


def check_limits(max_time: object, max_steps: object, thread_patience: object) -> int | None:
    """Return ``max_steps``; refuse limits that are not numbers above 0."""
    for name, seconds in (("max_time", max_time), ("thread_patience", thread_patience)):
        fits = isinstance(seconds, (int, float)) and seconds > 0
        if not fits or isinstance(seconds, bool):
            raise refusal(ValueError, name, seconds, "must be a number of seconds above 0")
    if max_steps is None:
        return None
    allowed = "must be a whole number >= 1, or None"
    return check_count(ValueError, "max_steps", max_steps, 1, allowed)


STEP_NAMES = (None, "task_wakeup", "__step", "__wakeup")  # Tasks written in C: 2, in Python: 2.


def _is_task_step(handle: asyncio.Handle) -> bool:
    callback = getattr(handle, "_callback", None)
    return (
        asyncio.isfuture(getattr(callback, "__self__", None))
        and getattr(callback, "__name__", None) in STEP_NAMES
    )


def pending_tasks(loop: VirtualLoop) -> list[str]:
    """A line for each pending task: its name and the frames it waits in, outermost first."""
    return sorted(
        f"  {task.get_name()}: {' > '.join(_frames(task.get_coro()))}"
        for task in asyncio.all_tasks(loop)
    )


FRAME_AND_AWAITED = {"cr_frame": "cr_await", "gi_frame": "gi_yieldfrom", "ag_frame": "ag_await"}
SUSPENDED = (CoroutineType, GeneratorType, AsyncGeneratorType)


def _frames(awaited: object) -> Iterator[str]:
    while awaited is not None:
        for frame_name, awaited_name in FRAME_AND_AWAITED.items():
            if frame := getattr(awaited, frame_name, None):
                code = frame.f_code
                yield f"{PurePath(code.co_filename).name}:{frame.f_lineno} {code.co_qualname}"
                awaited = getattr(awaited, awaited_name)
                break
        else:  # The object of a running `agen.__anext__()` hides the generator that it drives.
            is_driver = type(awaited).__module__ == "builtins"
            driven = gc.get_referents(awaited) if is_driver else []
            awaited = next((each for each in driven if isinstance(each, SUSPENDED)), None)
