"""Calls of one function with many arguments, for `map` and `map_iter`.

Workers pull from one iterator. A worker is an `asyncio.Task` that has a slot and makes one call
after the other, so a call that does not suspend costs no task, no future and no turn of the event
loop. As long as calls do not suspend, there is one worker. Soon after they do, there are as many as
slots: each worker that begins recruits others.

Nothing that a call leaves behind reaches the next. A worker ends, and another takes its place, if
its call has bound a context variable, has failed, or has left a request to cancel. It also ends if
other calls want its slot, so that all get their turn.

A call that may be tried again, runs in a thread, or is traced is made like a submitted one. Its
worker has no slot, and only waits.

Results are numbered in the order of the input. `PENDING` stands for a result that has not come yet.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextvars import Context, copy_context
from itertools import chain
from typing import Any, Final

from antflow._core.cancellation import absorb_requests, request_counter
from antflow._core.errors import ExecutorShutdownError
from antflow._core.stage_checks import is_async
from antflow._core.tracebacks import trimmed
from antflow._core.value_or_error import value_of
from antflow._core.waits import discard
from antflow._engine.iteration import END, NOTHING
from antflow.executor.future import AsyncFuture
from antflow.executor.pool import Pool, Submission, until_ended
from antflow.sinks.opentelemetry import tells_of_executors

LOOK_AHEAD = 2
"""How many calls may be begun per slot: one that runs, and one that waits for its next try or for
the reader of its result."""

LONGEST_TURN = 0.005
"""Seconds after which workers whose calls do not suspend give the event loop a turn."""

CALLS_PER_LOOK = 16
"""A worker looks at the clock once in this many calls: a look takes a fifth of a call's time."""

PENDING: Final[Any] = object()


class Raised(AsyncFuture[Any]):
    """An error in place of a result."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(-1)
        self._complete(None, trimmed(error))  # at once: other calls may raise the same object


class MappedCalls:
    """The workers of one `map` or `map_iter`.

    Args:
        pool: The executor's pool.
        function: The function.
        iterables: Iterables of its arguments.
        retries: How many more tries each call has.
        retry_delay: Seconds before the second try.

    Attributes:
        error: Raised in place of the results that have not come yet.
    """

    _results: Any  # a list, or a `Window`

    def __init__(
        self,
        pool: Pool,
        function: Callable[..., Any],
        iterables: Sequence[Iterable[Any]],
        retries: int,
        retry_delay: float,
    ) -> None:
        self._pool = pool
        self._function = function
        self._iterables = iterables
        self._retries = retries
        self._retry_delay = retry_delay
        self._source: Iterator[Any] = iter(())  # where they come from
        self._calls = self._source
        self._seen = -1  # the number of a call that was taken from the iterables ahead of time
        self._limit = self._most = sys.maxsize  # calls that may begin so far, and in all
        self._context: Context | None = None
        self._is_exhausted = False
        self._is_left = False
        self._workers: dict[asyncio.Task[Any], None] = {}  # in the order of their start
        self._most_workers = pool.workers
        self._coming = 0  # workers that have not begun
        self._ending: list[asyncio.Task[Any]] = []
        self._news = asyncio.Event()
        self._turn_ends = 0.0
        self.error: Raised | None = None

    def begin(self) -> None:
        """Begin the calls, in the context of the caller.

        Raises:
            Exception: `Pool.enter` or an iterable raised it.
        """
        self._pool.enter()
        self._context = copy_context()
        # The options are looked at once: without any, the function is called directly.
        self._is_direct = is_async(self._function) and not (self._retries or tells_of_executors())
        if not self._is_direct:
            self._most_workers *= LOOK_AHEAD
        if self._iterables:  # `zip` would keep the arguments of its first step alive
            call = self._function if self._is_direct else self._submission
            self._source = self._calls = map(call, *self._iterables)
            self._iterables = ()
        self._recruit()

    def cut(self, waiting: int) -> None:
        """After the executor was shut down: begin only ``waiting`` more calls."""
        if self._context is None:  # `begin` will be refused
            return
        self._most = min(self._most, len(self._results) + waiting)
        self._limit = min(self._limit, self._most)
        self._settle()

    def break_off(self, error: BaseException) -> None:
        """End everything with an error, unless it is over."""
        if not (self._is_left or self._is_over()):
            self._end_with(error)

    def leave(self) -> None:
        """Cancel what is in progress, and wake everything that waits. May be called twice."""
        if self._is_left:
            return  # a second cancellation would hit the clean-up that the first one began
        self._is_left = True
        self._exhaust()
        if self._pool.is_left_behind:
            return  # a closed event loop cancels no task, and never ends one
        self._ending = [*self._workers]
        for worker in self._ending:
            worker.cancel()
        self._news.set()

    async def left(self) -> None:
        """After `leave`: wait until nothing is in progress.

        Cancellation: raised at the end of the wait; a second one ends it, and any wait after it.
        """
        try:
            await until_ended(self._ending, outlasts_first=True)
        except asyncio.CancelledError:
            self._ending = []  # `async with` asks again when `anext` was cancelled
            raise

    def forget_error(self) -> None:
        """Keep no error, which may have the frames that it came out through."""
        self.error = None

    # Workers

    def _recruit(self) -> None:
        """Double the number of workers, if there are calls for them."""
        at_work = len(self._workers) - self._coming
        if not at_work and self._limit > len(self._results):
            self._look_for_a_call()
        for _ in range(
            min(
                max(at_work, 1) - self._coming,
                self._limit - len(self._results) - self._coming,
                self._most_workers - len(self._workers),
            )
        ):
            self._coming += 1
            name = "AsyncExecutor worker"
            try:
                worker = self._pool.start(self._work(), name, self._ended, self._context)
            except BaseException as error:  # why: from a task factory; raised to the reader
                self._end_with(error)
                return
            if not worker.done():  # an eager task may be
                self._workers[worker] = None

    def _look_for_a_call(self) -> None:
        """See whether there is another call, before a worker waits for a slot to make it."""
        number = len(self._results)
        if number == self._seen:
            return
        assert self._context is not None
        try:
            call = self._context.copy().run(next, self._source, END)
        except BaseException as error:  # why: it belongs to the code that asks for results
            self._fail_in_iterable(error)
        else:
            if call is END:
                self._exhaust()
            else:
                # Not around `_calls`: they would become one around the other.
                self._calls = chain(_released([call]), self._source)
                self._seen = number

    async def _work(self) -> None:
        if self._is_direct:
            slots = self._pool.slots
            slot = await slots.take()
            try:
                await self._pull(slots.queue)
            finally:
                slots.pass_on(slot)
        else:
            await self._pull(())
        await absorb_requests()

    async def _pull(self, wanted: Collection[Any]) -> None:
        """Make calls until there are no more, or one has failed or left something behind.

        Args:
            wanted: What waits for the worker's slot.
        """
        self._coming -= 1
        running, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert running is not None
        loop.call_soon(self._recruit)
        now, cancel_requests, context = loop.time, request_counter(running), copy_context()
        self._turn_ends = now() + LONGEST_TURN
        results, is_direct = self._results, self._is_direct
        if (number := len(results)) >= self._limit:
            return
        try:
            for call in self._calls:
                number = len(results)
                results.append(PENDING)
                try:
                    results[number] = await (call if is_direct else self._made(call))
                except BaseException as error:  # why: it belongs to the code that asks for results
                    self._fail(number, error)
                    return
                try:  # if nothing was bound, this compares one pointer
                    if cancel_requests() or context != (context := copy_context()):
                        return
                except Exception:  # values that cannot be compared, like arrays of numpy
                    return
                if wanted and len(wanted) > self._coming:  # by other calls
                    return
                if not number % CALLS_PER_LOOK and now() >= self._turn_ends:
                    await asyncio.sleep(0)
                    self._turn_ends = now() + LONGEST_TURN
                if len(results) >= self._limit:
                    return
            self._exhaust()
        except BaseException as error:  # why: as above; an iterable raised, or the loop was closed
            self._fail_in_iterable(error)

    def _submission(self, *args: Any) -> Submission:
        number, delay = self._pool.number(), self._retry_delay
        return Submission(number, self._function, args, {}, None, self._retries, delay)

    async def _made(self, call: Submission) -> Any:
        return value_of(await self._pool.run(call, lambda: self._is_left))

    def _ended(self, worker: asyncio.Task[Any]) -> None:
        self._workers.pop(worker, None)
        if worker.cancelled():  # before its first call, or between two
            self.break_off(asyncio.CancelledError())
        self._settle()

    # The end

    def _fail_in_iterable(self, error: BaseException) -> None:
        self._exhaust()
        self._results.append(PENDING)
        self._fail(len(self._results) - 1, error)

    def _fail(self, number: int, error: BaseException) -> None:
        """Note that a call has failed, or an iterable in place of a call."""
        if not (self._is_left or self._pool.is_left_behind):
            self._end_with(error)

    def _end_with(self, error: BaseException) -> None:
        self.error = Raised(error)
        self.leave()

    def _exhaust(self) -> None:
        self._is_exhausted = True
        self._limit = 0
        if self._seen == len(self._results):
            discard(next(self._calls, None))
        self._source = self._calls = iter(())

    def _is_at_work(self) -> bool:
        """Whether a worker makes calls: others wait for a slot, or have not begun."""
        return len(self._workers) > self._coming

    def _is_over(self) -> bool:
        return self._is_exhausted and not self._is_at_work()

    def _settle(self) -> None:
        """After something has ended: do what follows."""
        self._recruit()
        if self._is_at_work():
            return
        if len(self._results) >= self._most and not self._is_exhausted:
            self._look_for_more()
        self._news.set()

    def _look_for_more(self) -> None:
        """After the executor was shut down: that is an error only if there are more calls."""
        self._look_for_a_call()
        if not self._is_exhausted:
            self.error = Raised(ExecutorShutdownError("the executor was shut down"))
            self._exhaust()


def _released(calls: list[Any]) -> Iterator[Any]:
    """Calls of which none is kept when it has been taken."""
    while calls:
        yield calls.pop(0)


class AllCalls(MappedCalls):
    """The calls of a `map` without a time limit."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._results: list[Any] = []

    async def results(self) -> list[Any]:
        """Make the calls, and wait for their results."""
        self.begin()
        while not (self._is_left or self._is_over()):
            self._news.clear()
            await self._news.wait()
        if self.error is not None:
            self.error._outcome()
        return self._results

    async def left(self) -> None:
        """After `leave`: wait until nothing is in progress, and keep nothing."""
        await super().left()
        self._results = []
        self.forget_error()


class CallsAhead(MappedCalls):
    """Calls that are made ahead of the reader of their results. See `Steps`.

    Args:
        timeout: The longest to wait for each result, in seconds; ``None`` = any time.
        is_map: Whether it is read for a `map`: calls are made as far ahead as there are workers,
            and the first failure to happen ends everything. Otherwise a failure is raised in place
            of its result.
        *args: As for `MappedCalls`.
    """

    def __init__(self, timeout: float | None, is_map: bool, *args: Any) -> None:
        super().__init__(*args)
        self._timeout = timeout
        self._is_map = is_map
        self._results: Window = Window(self._news.set)

    def begin(self) -> None:
        """See `Steps`."""
        self._look_ahead()
        super().begin()

    def take(self) -> Any:
        """See `Steps`."""
        if not self._is_exhausted:
            self._look_ahead()
            if not self._coming:
                self._recruit()
        if self._is_left and self.error is not None:
            self.error._outcome()
        if (result := self._results.first()) is not PENDING:
            self._results.drop_first()
            return result._outcome() if type(result) is Raised else result
        if not self._has_news():
            return NOTHING
        return END if self.error is None else self.error._outcome()

    async def wait(self) -> None:
        """See `Steps`."""
        try:
            async with asyncio.timeout(self._timeout):
                while not self._has_news():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            if not self._has_news():  # else it came just as time was up
                raise

    async def left(self) -> None:
        """See `Steps`."""
        await super().left()
        self._results.clear()
        self.forget_error()

    def _look_ahead(self) -> None:
        if not self._is_map:
            self._limit = min(self._results.taken + LOOK_AHEAD * self._pool.workers, self._most)

    def _has_news(self) -> bool:
        if self._results.first() is not PENDING or self._is_left:
            return True
        return self._is_over() and len(self._results) == self._results.taken

    def _fail(self, number: int, error: BaseException) -> None:
        if self._is_map:
            super()._fail(number, error)
        else:
            self._results[number] = Raised(error)


class Window:
    """Results of calls that have begun, until they are taken.

    Args:
        ready: Called when the next result is there.

    Attributes:
        taken: How many have been taken.
    """

    def __init__(self, ready: Callable[[], None]) -> None:
        self.taken: int = 0
        self._ready = ready
        self._results: deque[Any] = deque()

    def __len__(self) -> int:
        """How many calls have begun, in all."""
        return self.taken + len(self._results)

    def append(self, result: Any) -> None:
        """Note that another call has begun."""
        self._results.append(result)

    def __setitem__(self, number: int, result: Any) -> None:
        self._results[number - self.taken] = result
        if number == self.taken:
            self._ready()

    def first(self) -> Any:
        """The next result; `PENDING` if it is not there yet."""
        return self._results[0] if self._results else PENDING

    def drop_first(self) -> None:
        """Drop the first result: it has been taken."""
        self.taken += 1
        self._results.popleft()

    def clear(self) -> None:
        """Drop all."""
        self._results.clear()
