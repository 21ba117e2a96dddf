"""Lets items leave the run, and sees when the run has nothing left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

from antflow._core.envelope import Envelope
from antflow._core.result import Fate, PipelineResult, branch_of
from antflow._core.run_errors import TooManyFailures
from antflow._core.stage import Stage
from antflow._core.text import counted
from antflow._core.waits import Wait
from antflow._engine.contexts import plainly_around
from antflow._engine.identity import Identity
from antflow._engine.reorder import Deliver, Reorder
from antflow._engine.run import Run
from antflow._engine.supervisor import Supervisor

FEWEST_FOR_A_RATIO = 20
"""A ratio of failures is judged once this many items are settled."""

HOW_TO_GO_ON = (
    "To go on, run the items that were not taken in yet, with retry_failed="
    "[*error.results.failed, *error.results.cancelled]; or allow more with max_failures."
)
HOW_WITHOUT_RESULTS = (
    "To go on, run the items that were not taken in yet, with those that failed or were cancelled "
    "as retry_failed. The failed ones are not in error.results: a stream has given them to its "
    "loop, and with collect_results=False none are kept. Or allow more with max_failures."
)


class Settlement:
    """Delivers results, and sees when no more can come.

    Args:
        run: The run.
        supervisor: Ends it.
        identity: The ids of its items.
        stages: The stages, as the user described them.
        deliver: Where results go.
        reorder: Puts the results in the order of the items, or ``None``.
        max_failures: Failed items at which the run is stopped: a count (int), or a ratio (float,
            once 20 items are settled); ``None`` = no limit.

    Attributes:
        reorder: The same.
        wakes: Called whenever an item leaves: batches that wait for more check whether they can
            still be filled.
    """

    def __init__(
        self,
        run: Run,
        supervisor: Supervisor,
        identity: Identity,
        stages: Sequence[Stage],
        deliver: Deliver,
        reorder: Reorder | None,
        max_failures: float | None,
    ) -> None:
        self._run = run
        self._ledger = run.ledger
        self._item_times = run.ledger.item_times
        self._stage_names = run.facts.stage_names
        self._supervisor = supervisor
        self._identity = identity
        self._deliver = deliver if reorder is None else reorder.deliver
        self.reorder = reorder
        self._max_failures = max_failures
        self._stages_limits = [stage.max_failures for stage in stages]
        self._limits_failures = any(
            limit is not None for limit in (max_failures, *self._stages_limits)
        )
        self._ordinary = Fate(scope=run.facts.run_id)
        self._forgets_ids = not run.keeps_results
        self._delivering = 0
        self.wakes: list[Callable[[], None]] = []
        self._hears_results = False
        self._awaited: dict[int, asyncio.Future[PipelineResult[Any]]] = {}

    def result_of(self, envelope: Envelope) -> asyncio.Future[PipelineResult[Any]]:
        """A future with the result of an item that is about to enter."""
        if not self._hears_results:  # runs in which this is not used pay nothing for it
            self._hears_results = True
            self._deliver = partial(self._tell_and_deliver, self._deliver)
        future = asyncio.get_running_loop().create_future()
        self._awaited[envelope.sequence_id] = future
        return future

    def settle(self, envelope: Envelope, error: Exception | None) -> Wait:
        """An item leaves the run, its outcome recorded: deliver its result."""
        position = envelope.position
        if self._item_times is not None:
            self._item_times.add(self._run.timers.now() - envelope.entered)
        result = envelope.result(self._stage_names[position], error, self._ordinary)
        deliver = self._deliver
        wait = deliver(result)
        if self._forgets_ids:
            self._identity.release(result.id)  # ids are compared with those in flight only
        if error is not None and self._limits_failures:
            self._check_failures(position)
        for wake in self.wakes:
            wake()
        if not self._ledger.in_flight:
            self.check_finished()
        return wait

    @plainly_around
    def delivery(self) -> Generator[None, None, None]:
        """Keep the run from ending while it waits for listeners and callbacks: they may feed it."""
        self._delivering += 1
        try:
            yield
        finally:
            self._delivering -= 1
            self.check_finished()

    def check_finished(self) -> None:
        """End the run if nothing is in flight and nothing more can come."""
        run = self._run
        is_done = run.has_all_items and not run.ledger.in_flight and not self._delivering
        if is_done and not run.is_left_behind:
            self._supervisor.finish()

    def stop(self) -> None:
        """Stop making results wait for each other."""
        if self.reorder is not None:
            self.reorder.end()

    def flush(self) -> None:
        """Deliver the results that still wait for earlier ones, which never came."""
        if self.reorder is not None:
            self.reorder.flush()

    def close(self) -> None:
        """Forget what was delivered: tasks that outlive the run may keep this."""
        self._deliver = _nowhere
        self.reorder = None

    def _tell_and_deliver(self, deliver: Deliver, result: PipelineResult[Any]) -> Wait:
        is_own = not branch_of(result)  # of the item itself, and not of one made from it
        future = self._awaited.pop(result.sequence_id, None) if is_own else None
        if future is not None and not (future.done() or self._run.is_left_behind):
            future.set_result(result)
        return deliver(result)

    def _check_failures(self, position: int) -> None:
        run = self._run
        if run.error is not None or run.is_stopping:
            return
        book = run.ledger.stages[position]
        settled = run.ledger.accepted + run.ledger.children - run.ledger.in_flight
        for limit, failed, of, stage in (
            (self._max_failures, run.ledger.failed, settled, None),
            (self._stages_limits[position], book.failed, book.left, self._stage_names[position]),
        ):
            if limit is not None and _too_many(failed, of, limit):
                where = "" if stage is None else f" in stage {stage!r}"
                reason = f"{failed:,} of {counted(of, 'item')} failed{where} (max_failures={limit})"
                error = TooManyFailures(reason, run.failures.kinds_told(stage))
                error.add_note(HOW_TO_GO_ON if run.keeps_results else HOW_WITHOUT_RESULTS)
                self._supervisor.stop_intake(error)
                self._supervisor.shut_down("stopped by max_failures")
                return


def _nowhere(_: PipelineResult[Any]) -> None:
    """Takes the results of a run that is over: there are none."""


def _too_many(failed: int, settled: int, limit: float) -> bool:
    if isinstance(limit, int):
        return failed >= limit
    return settled >= FEWEST_FOR_A_RATIO and failed >= limit * settled
