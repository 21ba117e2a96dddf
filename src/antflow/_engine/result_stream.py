"""The results of a run, one by one as they come out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, Generic

from antflow._core.cancellation import absorb_requests, cancel_requests
from antflow._core.result import PipelineResult, run_text
from antflow._core.type_variables import T
from antflow._core.waits import Wait
from antflow._engine.channel import Channel
from antflow._engine.engine import Engine
from antflow._engine.iteration import END, NOTHING, Iteration
from antflow._engine.reorder import Deliver
from antflow._engine.run_handle import RunHandle
from antflow._engine.signals import check_main_thread, graceful, interrupts_apart
from antflow._engine.waiting import begin_task, outlast_task

YIELDED = ("completed", "failed")
"""The outcomes of the items that a stream yields."""

OpenRun = Callable[[Deliver, list[PipelineResult[Any]]], RunHandle[Any]]
"""Opens a run, given the function that takes its results and the list of those not yielded."""

DriveRun = Callable[[RunHandle[Any]], Coroutine[Any, Any, None]]
"""Feeds a run and waits until it is over."""


class ResultStream(Iteration[PipelineResult[T]], Generic[T]):
    """The results of a run, one by one. Made by `Pipeline.stream`.

    ``async for result in stream`` gives each result as soon as it is ready. If the loop is left
    early, ``async with stream``, ``contextlib.aclosing(stream)`` or `aclose` stop the run at once;
    a stream that is simply dropped stops its run soon after. Inside the run (in a task, a callback,
    a display) `aclose` asks for that and returns at once.

    ``anext(stream)`` may be cancelled, for example by ``asyncio.wait_for`` or ``asyncio.timeout``,
    and called again: no result is lost, and the run goes on. Several tasks may call it at the same
    time: each result goes to one of them. After the last result, the error that made the run fail
    comes out once, then `StopAsyncIteration` every time.

    It belongs to the event loop it began in, and raises `RuntimeError` in any other.
    """

    def _said(self) -> str:
        engine: Engine | None = getattr(self._steps, "_engine", None)
        if engine is None:
            return super()._said()
        return f": {run_text(engine.run.state, engine.run.stats())}"


class Outcomes:
    """The run behind a stream. See `Steps`.

    Args:
        open_run: Opens the run.
        drive: Feeds it, and waits until it is over.
        buffer_size: Results that may wait for the consumer.
        graceful_signals: Seconds that items in flight get after a signal; ``None`` = not handled.
    """

    _results: Channel[PipelineResult[Any]]
    _engine: Engine
    _driver: asyncio.Task[None] | None = None

    def __init__(
        self,
        open_run: OpenRun,
        drive: DriveRun,
        buffer_size: int,
        graceful_signals: float | None,
    ) -> None:
        self._open_run = open_run
        self._drive = drive
        self._buffer_size = buffer_size
        self._graceful_signals = graceful_signals
        self._signals = ExitStack()
        self._kept: list[PipelineResult[Any]] = []  # not yielded: no more than were in flight
        self._has_left = False
        self._waiting_to_leave = 0
        self._requests_before: int | None = None
        self._interruption: BaseException | None = None

    def begin(self) -> None:
        if self._graceful_signals is not None:
            check_main_thread()
        self._results = Channel(self._buffer_size)
        handle = self._open_run(self._deliver, self._kept)
        self._engine = handle._engine
        # Before the driver, which may begin at once, and a display with it that handles them too.
        if self._graceful_signals is not None:
            self._signals.enter_context(graceful(self._engine, self._graceful_signals))
        # Until the reader goes on: in between, it waits for the event loop and not for the run.
        self._signals.enter_context(interrupts_apart())
        try:
            driving = self._drive_on(handle, self._drive)
            self._driver = begin_task(driving, f"antflow {handle.run_id[:4]} stream")
        except BaseException:  # the user's task factory raised
            self._signals.close()
            self._engine.supervisor.cancel()
            raise
        self._driver.add_done_callback(self._run_is_over)
        del self._open_run, self._drive  # and the items with them

    def take(self) -> Any:
        if (result := self._results.take()) is not None:
            return result
        if not self._results.is_closed:
            return NOTHING
        assert self._driver is not None
        self._driver.result()
        self._raise_interruption()
        self._engine.run.raise_late_error()
        return END

    async def wait(self) -> None:
        await self._results.wait()

    def leave(self) -> None:
        self._has_left = True
        while (result := self._results.take()) is not None:
            self._kept.append(result)
        self._results.close()
        if self._driver is not None:
            self._driver.cancel()
        before = cancel_requests()
        self._engine.supervisor.cancel()  # the driver does so too, unless it has not begun
        if cancel_requests() > before and not self._engine.run.contains_caller:
            self._requests_before = before
        self._let_go()

    async def left(self) -> None:
        if self._engine.run.contains_caller:  # the run would wait for it
            return
        self._waiting_to_leave += 1
        try:
            if (before := self._requests_before) is not None:
                self._requests_before = None
                await absorb_requests(before)  # from the callback of an item
            if self._driver is not None:
                await outlast_task(self._driver, self._driver.cancel)
            await self._engine.supervisor.wait_until_over()
        finally:
            self._waiting_to_leave -= 1
            self._let_go()
        self._raise_interruption()

    async def _drive_on(self, handle: RunHandle[Any], drive: DriveRun) -> None:
        """Drive the run; keep for the reader what a task would let out into the event loop."""
        try:
            await drive(handle)
        except (KeyboardInterrupt, SystemExit) as error:
            if self._has_left:
                raise
            self._interruption = error

    def _raise_interruption(self) -> None:
        interruption, self._interruption = self._interruption, None
        if interruption is not None:
            try:
                raise interruption
            finally:
                del interruption  # its traceback has this frame

    def _deliver(self, result: PipelineResult[Any]) -> Wait:
        outcome = result.outcome
        if outcome in YIELDED and not self._has_left:
            return self._results.room() if self._results.put(result) else None
        if outcome in YIELDED or outcome == "cancelled":
            self._kept.append(result)
        return None

    def _run_is_over(self, driver: asyncio.Task[None]) -> None:
        self._results.close()
        if not driver.cancelled():
            driver.exception()  # mark it as retrieved: `take` raises it, unless the loop was left
        self._let_go()

    def _let_go(self) -> None:
        if not self._has_left or self._waiting_to_leave:
            return
        if self._driver is not None and self._driver.done():
            self._signals.close()
            # It has the error that came out, with the frames it came out through.
            self._driver = None
