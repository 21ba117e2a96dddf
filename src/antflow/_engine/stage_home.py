"""A stage, as a runner sees it that calls the tasks in other processes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from antflow._core.counters import Counters
from antflow._core.ledger import WorkerBook
from antflow._core.stage import Stage
from antflow._core.text import clean
from antflow._engine.crew import Crew
from antflow._engine.current import HeldEnvelope, seat_here
from antflow._engine.run import Run
from antflow._engine.supervisor import Supervisor


class EngineHome:
    """See `antflow._core.runner_port.StageHome`."""

    def __init__(
        self, stage: Stage, run: Run, crew: Crew, supervisor: Supervisor, counters: Counters
    ) -> None:
        self.stage: Stage = stage
        self.counters: Counters = counters
        self._run = run
        self._crew = crew
        self._supervisor = supervisor

    @property
    def is_left_behind(self) -> bool:
        return self._run.is_left_behind

    def held(self, worker: WorkerBook) -> Sequence[HeldEnvelope]:
        seat = seat_here()
        return [HeldEnvelope(seat, each) for each in worker.given or [worker.item]]

    def place(self, worker: WorkerBook, node: str) -> None:
        worker.node = clean(node)
        worker.name = self._run.facts.worker_name(worker.stage, worker.index, worker.node)

    def say(self, worker: WorkerBook, text: str) -> None:
        if worker.item is not None:
            worker.status = (worker.item.key, text, self._run.timers.now())

    def abandon(self, worker: WorkerBook, call: asyncio.Future[Any]) -> None:
        self._crew.abandon(worker, call)

    def fail(self, error: BaseException) -> None:
        self._supervisor.fail(error)
