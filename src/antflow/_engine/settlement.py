"""Lets items leave the run, and sees when the run has nothing left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from antflow._core.envelope import Envelope
from antflow._core.recalled import Known
from antflow._core.result import Fate, PipelineResult, branch_of
from antflow._core.waits import Wait
from antflow._engine.contexts import plainly_around
from antflow._engine.identity import Identity
from antflow._engine.reorder import Deliver, Reorder
from antflow._engine.run import Run
from antflow._engine.supervisor import Supervisor


class Settlement:
    """Delivers results, and sees when no more can come.

    Args:
        run: The run.
        supervisor: Ends it.
        identity: The ids of its items.
        deliver: Where results go.
        reorder: Puts the results in the order of the items, or ``None``.

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
        deliver: Deliver,
        reorder: Reorder | None,
    ) -> None:
        self._run = run
        self._ledger = run.ledger
        self._item_times = run.ledger.item_times
        self._stage_names = run.facts.stage_names
        self._supervisor = supervisor
        self._identity = identity
        self._deliver = deliver if reorder is None else reorder.deliver
        self.reorder = reorder
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
        if self._item_times is not None:
            self._item_times.add(self._run.timers.now() - envelope.entered)
        result = envelope.result(self._stage_names[envelope.position], error, self._ordinary)
        deliver = self._deliver
        wait = deliver(result)
        if self._forgets_ids:
            self._identity.release(result.id)  # ids are compared with those in flight only
        for wake in self.wakes:
            wake()
        if not self._ledger.in_flight:
            self.check_finished()
        return wait

    def deliver_known(self, known: Known) -> Wait:
        """Deliver the outcome that an item had in an earlier run."""
        envelope, error = known.envelope, known.error
        stage = self._stage_names[envelope.position]
        if error is not None:
            self._run.failures.add(
                envelope.id,
                error,
                stage,
                envelope.attempts,
                self._run.facts.started_wall,
                envelope.input,
            )
        wait = self._deliver(envelope.result(stage, error, self._ordinary))
        if self._forgets_ids:
            self._identity.release(envelope.id)
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


def _nowhere(_: PipelineResult[Any]) -> None:
    """Takes the results of a run that is over: there are none."""
