"""Runs plain functions in child processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from antflow._core.counters import Counters
from antflow._core.errors import PipelineError
from antflow._core.ledger import WorkerBook
from antflow._core.stage import Stage, TaskFunc
from antflow._engine.children.child import NoChild, ProcessorTime
from antflow._engine.children.child_main import refuse_unguarded
from antflow._engine.children.processes import ProcessSeat
from antflow._engine.run import Run


class Processes:
    """Child processes, one per busy worker."""

    takes_async = False
    shares_memory = False
    enters_resources = True
    nodes = 0
    ready = None

    def __init__(
        self,
        stage: Stage,
        run: Run,
        fail: Callable[[BaseException], None],
        counters: Counters,
    ) -> None:
        refuse_unguarded()
        self._run = run
        self._stage = stage
        self._fail = fail
        self._counters = counters
        self._seats: dict[int, ProcessSeat] = {}
        self._processor_time = ProcessorTime()

    thread_cpu_seconds = 0.0

    @property
    def child_cpu_seconds(self) -> float:
        return self._processor_time.seconds

    async def call(self, worker: WorkerBook, task: TaskFunc, /, *args: Any, **kwargs: Any) -> Any:
        seat = self._seats.get(worker.index)
        if seat is None:
            name = f"{self._stage.name}-W{worker.index}"
            seat = ProcessSeat(name, self._processor_time, self._counters)
            self._seats[worker.index] = seat
        try:
            is_batch = self._stage.batch is not None
            return await seat.call(task, args, kwargs, self._stage.resources, is_batch)
        except NoChild as error:  # it will be the same for every item
            failure = PipelineError(str(error))
            self._fail(failure)
            raise failure from error

    async def leave(self, worker: WorkerBook) -> None:
        if (seat := self._seats.pop(worker.index, None)) is not None:
            if self._run.is_left_behind:
                seat.kill()
            else:
                await seat.close()

    async def close(self) -> None:
        pass
