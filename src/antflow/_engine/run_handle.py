"""The run that `antflow.Pipeline.open` hands out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, NoReturn

from antflow._core.checks import check_count, refusal, whole
from antflow._core.envelope import DEFAULT_PRIORITY
from antflow._core.foreign import asked, is_a
from antflow._core.items import Items, Key, check_items, check_key
from antflow._core.log import warn
from antflow._core.result import PipelineResult, RunResults, failure_of, run_text
from antflow._core.snapshot import DashboardSnapshot, PipelineStats
from antflow._core.stage_checks import MOST_WORKERS, stage_index
from antflow._core.type_variables import Out
from antflow._engine.engine import Engine
from antflow._engine.run import past_run
from antflow._engine.submission import begin_submission


class RunHandle(Generic[Out]):
    """A run in progress: feed it, read it, end it.

    Made by `Pipeline.open`. Its methods belong to the event loop it was made in: called from
    another one, or from a thread, those that change the run raise `PipelineError`.

    Attributes:
        takes_keys: Whether the run was begun with ``keys=True``: a display may read keys for it.
    """

    def __init__(
        self,
        engine: Engine,
        collected: list[PipelineResult[Any]],
        raises_failures: bool = False,
    ) -> None:
        self._engine = engine
        self._run = engine.run
        self._collected = collected
        self._raises_failures = raises_failures
        self.takes_keys: bool = False
        # Called when the run is left with another error than that items failed.
        self._tell_failures: Callable[[], None] = _say_nothing
        # Called when a display that should have shown what failed has failed itself.
        self._tell_unshown: Callable[[], None] = _say_nothing

    def __del__(self) -> None:
        # The pipeline has it, and so does all code that feeds the run or waits for it: without it,
        # nothing can end the run. The garbage collector may run in any thread.
        if self._run.is_under_way:
            with suppress(RuntimeError):  # the event loop was closed meanwhile
                self._run.timers.call_soon(partial(_stop, self._engine))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a RunHandle cannot be copied or pickled: it is one run in one event loop")

    def __repr__(self) -> str:
        return asked(self._told, instead="<RunHandle>")

    def _told(self) -> str:
        return f"<RunHandle {self.run_id}: {run_text(self._run.state, self._run.stats())}>"

    @property
    def run_id(self) -> str:
        """Unique name of the run; on all its events, snapshots and results."""
        return self._run.facts.run_id

    @property
    def results(self) -> RunResults[Out]:
        """The results so far: a copy, final once the run is over."""
        stats = self._run.stats()
        return RunResults(
            tuple(self._collected),
            self._run.failures.summary(),
            stats,
            self.run_id,
            self._run.stopped_by,
            past_run(self._run, stats),
        )

    async def feed(
        self,
        items: Items,
        target_stage: str | None = None,
        priority: int = DEFAULT_PRIORITY,
        *,
        key: Key | None = None,
    ) -> None:
        """Take in items, waiting for room as often as it takes.

        With a journal, all of them are in it when this returns, so that a message of a queue can be
        acknowledged then: see `JournalReader.unfinished`. Whatever is fed meanwhile shares the
        commit; feeding several items at once, or in several tasks, takes hardly longer than one.

        Args:
            items: As in `Pipeline.run`.
            target_stage: The stage to begin with; ``None`` = the first.
            priority: Lower goes first; items of one priority keep their order.
            key: What gives these items' ids, see `RunOptions`; ``None`` = the run's ``key``.

        Raises:
            PipelineError: The run was joined or shut down, perhaps while this was waiting for room.
            JournalError: The journal cannot keep them.
            ValueError: There is no such stage, or ``key`` is not allowed.
            TypeError: ``items`` cannot be iterated, or would be taken apart; or ``priority`` is not
                a whole number.

        Cancellation: accepted items go on, and no more are taken in.
        """
        check_items(items)
        stage, plain = self._place("feed()", target_stage, priority)
        check_key(ValueError, "key", key)
        await self._engine.feed(items, stage, plain, key)

    def submit(
        self,
        item: Any,
        target_stage: str | None = None,
        priority: int = DEFAULT_PRIORITY,
        *,
        key: Key | None = None,
    ) -> asyncio.Future[PipelineResult[Out]]:
        """Take in one item, and return a future with its result.

        ```python
        result = await run.submit(request)
        ```

        The item waits for room if there is none, and so does the future; `join` waits for both.
        Failed and cancelled items have a result too, with their ``error``; so have dropped ones. Of
        an item that becomes others (``expand=True``) it is its own, which comes when the last of
        them was made. `results` has all of these results as well.

        A task that awaits an item of its own stage or an earlier one keeps its worker meanwhile.
        If all workers wait like that, none is left for those items.

        Args:
            item: As in `Pipeline.run`.
            target_stage: As in `feed`.
            priority: As in `feed`.
            key: As in `feed`.

        Raises:
            PipelineError: At the call: the run was joined or shut down. From the future: it was
                shut down or cancelled, or its intake was stopped, before there was room.
            DuplicateItemError: From the future: the item's id is taken, with ``duplicates="error"``
                or ``"skip"``.
            ValueError: At the call: there is no such stage, or ``key`` is not allowed.
            TypeError: At the call: ``priority`` is not a whole number.

        Cancellation: of the future, while the item waits for room: it is not taken in. After that,
            the item goes on.
        """
        stage, plain = self._place("submit()", target_stage, priority)
        check_key(ValueError, "key", key)
        return begin_submission(self._engine, item, stage, plain, key)

    async def join(self) -> None:
        """Take in nothing more, and wait until everything accepted is settled.

        From inside the run (a task, a callback, a display) it asks for that and returns at once.

        Raises:
            Exception: The error that ended the run, with ``.results``; later calls raise a copy.
            ExceptionGroup: Items failed, and the run was opened with ``on_failures="raise"``; see
                `RunResults.raise_for_failures`.

        Cancellation: cancels the run, and waits until it is over.
        """
        self._run.check_caller("join()")
        self._engine.intake.close()
        await self._end(self._raises_failures)

    async def shutdown(self) -> None:
        """Finish running attempts, and settle everything that waits as cancelled.

        From inside the run (a task, a callback, a display) it asks for that and returns at once.

        Raises:
            Exception: As in `join`.

        Cancellation: cancels the run, and waits until it is over.
        """
        self._run.check_caller("shutdown()")
        self._engine.supervisor.shut_down()
        await self._end(self._raises_failures)

    def pause(self) -> None:
        """Start nothing new: workers finish what they have begun and leave.

        Waiting items keep waiting, those that wait for a limit or for the end of a hold included. A
        worker's own resources are closed, and made again after `resume`.
        """
        self._run.check_caller("pause()")
        self._engine.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._run.check_caller("resume()")
        self._engine.resume()

    def drain(self) -> None:
        """Take in nothing more, and finish what was accepted. Does not wait: see `join`.

        Unlike after `join`, the tasks of the run cannot feed it any more either. A source is left
        where it is, and a paused run stays paused.
        """
        self._run.check_caller("drain()")
        if not self._run.is_over:
            self._engine.drain()

    def cancel(self) -> None:
        """Cancel running tasks and settle everything as cancelled. Does not wait: see `join`."""
        self._run.check_caller("cancel()")
        self._engine.supervisor.cancel()

    def set_workers(self, stage: str, count: int) -> None:
        """Set the number of workers of a stage; those that leave finish their item first.

        Raises:
            ValueError: There is no such stage, or ``count`` is not from 1 to 100,000.
        """
        allowed = f"must be a whole number from 1 to {MOST_WORKERS:,}"
        count = check_count(ValueError, "count", count, 1, allowed, MOST_WORKERS)
        self._run.check_caller("set_workers()")
        index = stage_index("stage", stage, self._run.facts.stage_names)
        self._engine.set_workers(index, count)

    def expect(self, total: int | None) -> None:
        """Say how many items there will be, where that is known only now, or has changed.

        Displays, snapshots and the ETA go by it from now on, instead of by ``total`` or the length
        of the items.

        Args:
            total: How many, those included that were accepted already; ``None`` = not known.

        Raises:
            ValueError: It is not a whole number, or below 0.
        """
        if total is not None:
            allowed = "must be a whole number >= 0, or None"
            total = check_count(ValueError, "total", total, 0, allowed)
        self._run.check_caller("expect()")
        self._run.expect(total)

    def _place(self, call: str, target_stage: str | None, priority: int) -> tuple[int, int]:
        """Where items go that are taken in by a call: the stage's index, and the priority."""
        names = self._run.facts.stage_names
        stage = 0 if target_stage is None else stage_index("target_stage", target_stage, names)
        if (plain := whole(priority)) is None:
            raise refusal(TypeError, "priority", priority, "must be a whole number")
        self._run.check_caller(call)
        return stage, plain

    async def _end(self, raises_failures: bool) -> None:
        if self._run.contains_caller:
            return
        await self._engine.supervisor.wait_until_over()
        await self._engine.until_shown()
        error = self._run.take_error()
        if error is not None:
            attach_results(error, self.results)
        elif raises_failures:
            error = failure_of(self.results)
            self._run.has_told_failures = True
        if error is not None:
            try:
                raise error
            finally:
                del error  # it has this frame

    def stats(self) -> PipelineStats:
        """The counts, at this moment."""
        return self._run.stats()

    def snapshot(self) -> DashboardSnapshot:
        """Everything a dashboard shows, at this moment; a true copy."""
        return self._run.snapshot()


def _say_nothing() -> None:
    """Tells failures where they are shown, or may be ignored."""


def _stop(engine: Engine) -> None:
    """End a run that was dropped."""
    run = engine.run
    if run.ledger.in_flight and not run.is_stopping:
        warn(
            "a run was cancelled with %s items in flight, because its pipeline and its handle were "
            "dropped; keep one of them, and use `await pipeline.join()`",
            f"{run.ledger.in_flight:,}",
        )
    engine.supervisor.cancel()


def attach_results(error: BaseException, results: RunResults[Any]) -> None:
    """Attach a run's results to the error that ended it."""
    if is_a(error, Exception):
        # Some errors cannot have attributes, or refuse; `Pipeline.results` has them too.
        asked(setattr, error, "results", results, instead=None)
