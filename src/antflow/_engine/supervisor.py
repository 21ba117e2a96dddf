"""Ends a run, always in the same way, whatever the reason.

Something sets *finishing*: the intake is closed and nothing is in flight; or the run was cancelled,
shut down, or something broke. The supervisor then closes the channels, waits for workers and
feeder, settles what is left as cancelled, leaves the resources, audits the books, and only then is
the run over. Waiting for a run means waiting for that, however often the wait is cancelled; so
nothing of a run is ever left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from math import inf
from typing import Any, Protocol

from antflow._core.envelope import Envelope
from antflow._core.foreign import is_a, type_name
from antflow._core.log import warn
from antflow._core.ports import Timer
from antflow._core.run_errors import InternalError
from antflow._core.text import clean, counted, safe_str
from antflow._core.waits import discard
from antflow._engine.current import current_seat
from antflow._engine.listeners import Listeners
from antflow._engine.run import Run
from antflow._engine.run_tasks import RunTasks
from antflow._engine.waiting import CancelRequests, in_order, outlast_task


class Supervised(Protocol):
    """A stage as seen by the supervisor."""

    def stop(self) -> None:
        """Stop anything from starting. May be called twice."""
        ...

    def settle_all(self) -> list[Awaitable[None]]:
        """Settle waiting items as cancelled; return what to await for the listeners."""
        ...

    def begin_no_more(self) -> None:
        """Cancel workers that wait for a try to begin; running tries may end."""
        ...

    def put(self, envelope: Envelope) -> None:
        """Put an item into the stage's channel."""
        ...

    async def close(self) -> None:
        """Release what the stage's tasks used."""
        ...

    def forget_threads(self) -> None:
        """Stop waiting for threads that go on."""
        ...


class Inlet(Protocol):
    """The way in, as seen by the supervisor."""

    def close(self) -> None:
        """No more items but those that the run's own tasks feed. May be called twice."""
        ...

    def close_source(self) -> None:
        """Dismiss the feeder and close the source. May be called twice."""
        ...

    def end(self) -> None:
        """Note that no more items come from the source or by hand. May be called twice."""
        ...

    def seal(self) -> list[Envelope]:
        """Admit nothing more; return the items recorded and not put yet."""
        ...


class Outlet(Protocol):
    """The way out, as seen by the supervisor."""

    def stop(self) -> None:
        """Stop making results wait for each other. May be called twice."""
        ...

    def flush(self) -> None:
        """Deliver the results that still wait."""
        ...

    def close(self) -> None:
        """Forget what was delivered."""
        ...


class Supervisor:
    """Stops a run, and brings it to its end.

    Args:
        run: The run.

    Attributes:
        requests: Those to cancel the run.
        tasks: The run's tasks.
        on_over: Called when the run is over, each in turn.
        on_cancel: Called when the run is cancelled.
        clean_ups: Awaited when no worker is left, the last one first.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stages: Sequence[Supervised] = ()
        self._inlet: Inlet | None = None
        self._outlet: Outlet | None = None
        self.requests: CancelRequests = CancelRequests(run.timers.now)
        self.tasks: RunTasks = RunTasks(run.facts.run_id, self._task_ended)
        self.clean_ups: list[Callable[[], Awaitable[None]]] = []
        self.on_over: list[Callable[[], None]] = []
        self.on_cancel: list[Callable[[], None]] = []
        self._alarm: Timer | None = None
        self._waits: list[Awaitable[None]] = []
        self._crashes: list[Exception] = []
        self._finishing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        run.timers.on_crash = self.crash

    def begin(
        self,
        stages: Sequence[Supervised],
        inlet: Inlet,
        outlet: Outlet,
        listeners: Listeners,
        timeout: float | None,
    ) -> None:
        """Look after the run from now on.

        Args:
            stages: The stages.
            inlet: Where items come in.
            outlet: Where results go.
            listeners: Told of the end.
            timeout: Seconds after which the run is cancelled, with `TimeoutError`.
        """
        self._stages, self._inlet, self._outlet = stages, inlet, outlet
        self._listeners = listeners
        self._supervising = self.tasks.create_side(self._supervise(), "supervisor")
        # It is set even if it never rings: the event loop refers to tasks weakly, to timers not. So
        # a run that waits for its user, and that the user drops, is still there to be stopped.
        seconds = inf if timeout is None else timeout
        late = TimeoutError(f"the run was not over after {seconds:,g} s")
        self._alarm = self._run.timers.call_later(seconds, partial(self.fail, late))

    # Stopping

    def stop_intake(self, error: BaseException) -> None:
        """No more items: what was accepted finishes, then ``error`` is raised."""
        assert self._inlet is not None
        if self._run.error is None:
            self._run.error = error
        self._run.is_closed = True
        self._inlet.close()

    def cancel(self) -> None:
        """Stop now: cancel running tasks, settle everything else.

        May be called again: that cancels tasks that linger in a clean-up. See `CancelRequests`.
        """
        run = self._run
        if run.is_over or run.is_left_behind:
            return
        if not run.is_cancelling:
            run.is_cancelling = True
            run.how_stopped = "cancelled"
            for tell in self.on_cancel:
                tell()
        try:
            self._begin_to_stop()
            # An event loop that ends has asked each task itself.
            is_new = self.requests.is_new() and not self._supervising.cancelling()
            self.tasks.cancel(again=is_new)
            self._stop()
        except BaseException as interruption:  # why: `wait` raises it, too
            if run.error is None or isinstance(run.error, Exception):
                run.error = interruption
            raise

    def shut_down(self, how_stopped: str = "shut down") -> None:
        """Finish running attempts, settle everything that waits. May be called twice.

        Args:
            how_stopped: For the items that are cancelled.
        """
        if not self._run.is_stopping:
            self._run.how_stopped = how_stopped
        self._stop()
        for stage in self._stages:
            stage.begin_no_more()

    def fail(self, error: BaseException) -> None:
        """Something broke that is not an item's fault: cancel, and raise ``error`` at the end."""
        if self._run.error is None or not is_a(error, Exception):
            self._run.error = error
        self.cancel()

    def crash(self, error: BaseException, where: str = "the engine") -> None:
        """A fault of the library itself: end the run, loudly."""
        if is_a(error, Exception):
            broken = InternalError(f"{where} crashed: {type_name(error)}: {safe_str(error)}")
            broken.__cause__ = error
            error = broken
        self.fail(error)  # KeyboardInterrupt and its like are not the library's fault

    def finish(self) -> None:
        """End the run: all is settled and nothing more can come. May be called twice."""
        self._run.is_closed = True
        if not self._finishing.done():
            self._finishing.set_result(None)

    def spawn(self, worker: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None] | None:
        """Start a worker, or nothing while the run is ending."""
        if self._finishing.done():  # a bell that rang while the run was ending
            worker.close()
            return None
        try:
            return self.tasks.create(worker, name)
        except BaseException as error:  # why: the user's task factory raised, in a callback
            self.crash(error, "the task factory")
            return None

    async def outlive(self, close: Callable[[], Awaitable[None]]) -> None:
        """Wait for a clean-up; what it raises ends the run, in order."""
        try:
            await close()
        except asyncio.CancelledError:
            if self.has_called_off_caller():  # else an item of the worker that leaves asked late
                self.cancel()
        except BaseException as error:  # why: `wait` raises it when everything is settled
            self.fail(error)

    # Waiting

    async def wait(self) -> None:
        """Wait until the run is over.

        Cancellation: cancels the run, and still waits until it is over.

        Raises:
            BaseException: What made the run end, if not the end of its input.
        """
        await self.wait_until_over()
        if self._run.error is not None:
            raise self._run.error

    async def wait_until_over(self) -> None:
        """Like `wait`, but do not raise the error that ended the run."""
        # For the task, not for its last step: an interrupt may hit it there.
        try:
            await outlast_task(self._supervising, self.cancel)
        finally:
            if self._supervising.done():
                self._close_books()

    # Cancelled, and by whom

    @property
    def is_called_off(self) -> bool:
        """Whether everything in the run is being cancelled, by the run or with its loop."""
        run = self._run
        return run.is_cancelling or run.is_left_behind or self._supervising.cancelling() > 0

    def has_called_off_caller(self) -> bool:
        """Whether the run is cancelling the `asyncio.Task` that asks."""
        if self.is_called_off:
            return True
        running = asyncio.current_task()
        if running is None or self.tasks.is_called_off(running):
            return True
        seat = current_seat.get()
        if seat is not None and seat.crew.is_served_by(seat.worker, running):
            return seat.crew.is_called_off(seat.worker)
        # A user's own task, for example one that feeds the run: only the user cancels it.
        return running not in self.tasks and running.cancelling() > 0

    # Inside

    def _begin_to_stop(self) -> None:
        """The supervisor goes on from here, even if an interrupt comes in between."""
        assert self._inlet is not None
        self._run.is_stopping = True
        self._inlet.end()
        self.finish()

    def _stop(self) -> None:
        assert self._inlet is not None
        assert self._outlet is not None
        self._begin_to_stop()
        self._inlet.close_source()
        self._outlet.stop()
        self._stop_stages()

    def _stop_stages(self) -> None:
        """Stop anything from starting, and settle everything that waits as cancelled."""
        for stage in self._stages:
            stage.stop()
        if not self._run.ledger.in_flight:
            return
        for stage in self._stages:
            try:
                self._waits += self.tasks.context.copy().run(stage.settle_all)
            except Exception as error:
                self._crashes.append(error)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            # A feeder that was dismissed before its first step ends like this as well. Any other
            # task does when the event loop is closing, or when other code cancels it.
            if not self._run.is_stopping and not self.tasks.is_called_off(task):
                self.fail(InternalError(f"{task.get_name()} was cancelled from outside the run"))
            return
        error = task.exception()
        if error is not None:
            self.crash(error, task.get_name())

    async def _supervise(self) -> None:
        try:
            try:
                await self._bring_to_an_end()
            except BaseException as error:  # why: code that waits for the run must not hang
                if self._run.is_left_behind:
                    raise
                self.crash(error, "the supervisor")
                await self.tasks.until_ended(self.cancel)
            await self._tell_of_the_end()
        finally:
            self._close_books()

    async def _tell_of_the_end(self) -> None:
        try:
            if (wait := self._listeners.closed(self._run.how_it_ended)) is not None:
                await wait
        except asyncio.CancelledError:
            self.cancel()
        except Exception as error:  # the store's: listeners are contained
            if self._run.error is None:
                self._run.error = error
            if self._run.is_cancelling or self._run.error is not error:  # it ends with that
                warn("%s", clean(safe_str(error)))
        except (KeyboardInterrupt, SystemExit) as error:
            self._run.error = error

    def _close_books(self) -> None:
        """Mark the run as over. May be called again if an interrupt came half way."""
        if self._alarm is not None:  # it rings no more, also where the end went wrong
            self._alarm.cancel()
        if not self._run.is_over:
            while self.on_over:
                self.on_over[0]()
                del self.on_over[0]
            discard(self._listeners.closed(self._run.how_it_ended))
            self._crashes.clear()
            self._run.end()

    async def _bring_to_an_end(self) -> None:
        assert self._inlet is not None
        assert self._outlet is not None
        run = self._run
        try:
            await self._finishing
        except asyncio.CancelledError:
            self.cancel()
        run.is_closed = True
        if run.is_cancelling or run.is_stopping:
            self._stop()  # once more: an interrupt may have come in between
        if run.is_cancelling:
            self.tasks.cancel(again=False)
        self._stop_stages()
        await self.tasks.until_ended(self.cancel)
        for envelope in self._inlet.seal():
            self._stages[envelope.position].put(envelope)
        self._stop_stages()  # once more, for what was put meanwhile
        if self._waits:
            self.tasks.create(in_order(self._hear_listeners_out, self.fail), "listeners")
            await self.tasks.until_ended(self.cancel)
        for wait in self._waits:  # the run was cancelled meanwhile
            discard(wait)
        await self._let_go()
        self._outlet.flush()
        if self._crashes:
            raise self._crashes[0]
        if (discrepancy := self._audit()) is not None and run.error is None:
            run.error = InternalError(f"the books of run {run.facts.run_id}: {discrepancy}")

    async def _let_go(self) -> None:
        """Release what the tasks used, now that no task is left."""
        if self._alarm is not None:
            self._alarm.cancel()
        for stage in self._stages:
            await stage.close()
        for clean_up in self.clean_ups[::-1]:
            await self.outlive(clean_up)
        for stage in self._stages:
            stage.forget_threads()

    async def _hear_listeners_out(self) -> None:
        """Wait for the listeners of items that were settled without a worker."""
        while self._waits and not self._run.is_cancelling:
            await self._waits.pop(0)

    def _audit(self) -> str | None:
        if self._run.ledger.in_flight:
            return f"still in flight: {counted(self._run.ledger.in_flight, 'item')}"
        return self._run.ledger.discrepancy()
