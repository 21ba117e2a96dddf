"""Where plain functions run: in threads, in child processes, on the event loop, or elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from antflow._core.errors import PipelineError
from antflow._core.foreign import is_awaitable
from antflow._core.ledger import WorkerBook
from antflow._core.stage import TaskFunc
from antflow._engine.child import NoChild, ProcessorTime
from antflow._engine.child_main import refuse_unguarded
from antflow._engine.current import seat_here
from antflow._engine.processes import ProcessSeat
from antflow._engine.tracebacks import call_apart

if TYPE_CHECKING:
    from antflow._engine.stage_run import StageRun


class Runner(Protocol):
    """Calls plain functions for the workers of one stage."""

    @property
    def shares_memory(self) -> bool:
        """Whether functions are called with the very objects, not with copies of them."""
        ...

    @property
    def child_cpu_seconds(self) -> float:
        """Seconds of processor time that functions took in processes of its own."""
        ...

    async def call(self, task: TaskFunc, *args: Any, **kwargs: Any) -> Any:
        """Call ``task`` for the worker this is called in, and await its answer if need be."""
        ...

    async def leave(self, worker: WorkerBook) -> None:
        """A worker leaves: let go of what it alone had."""
        ...


def runner_for(stage: StageRun) -> Runner:
    """The runner that a stage asks for."""
    executor = stage.description.executor
    if executor == "process":
        return Processes(stage)
    if executor == "inline":
        return Inline()
    if isinstance(executor, Executor):
        return Elsewhere(executor)
    return Threads(stage)


class Inline:
    """Functions that do not block, on the event loop."""

    shares_memory = True
    child_cpu_seconds = 0.0

    async def call(self, task: TaskFunc, *args: Any, **kwargs: Any) -> Any:
        answer = call_apart(task, *args, **kwargs)
        return await answer if is_awaitable(answer) else answer

    async def leave(self, worker: WorkerBook) -> None:
        pass


class Threads:
    """The usual place: threads of the run, one per busy worker.

    A thread cannot be stopped. One whose task ran into its timeout goes on, and its worker waits
    for it before it takes anything new: there are never more threads than workers.

    A worker with resources of its own has a thread of its own for them, because some, like a
    connection of `sqlite3`, are bound to the thread they were made in.
    """

    shares_memory = True
    child_cpu_seconds = 0.0

    def __init__(self, stage: StageRun) -> None:
        self._stage = stage
        options = stage.description
        self._keeps_threads = bool(options.resources) and options.resource_scope == "worker"
        self._own: dict[int, ThreadPoolExecutor] = {}

    async def call(self, task: TaskFunc, *args: Any, **kwargs: Any) -> Any:
        worker = seat_here()[1]
        context = copy_context()
        future = self._stage.run.in_thread(
            lambda: context.run(_result_or_error, task, args, kwargs), self._own_thread(worker)
        )
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            if not future.done():
                self._stage.abandon(worker, future)
            raise
        result, error = future.result()
        if error is not None:
            raise error
        return await result if is_awaitable(result) else result

    def in_own_thread(self, worker: WorkerBook) -> Callable[[Callable[[], Any]], Any] | None:
        """Runs a function in the very thread that a worker's tasks run in."""
        own = self._own_thread(worker)
        return None if own is None else partial(_in, self._stage, own)

    async def leave(self, worker: WorkerBook) -> None:
        if (own := self._own.pop(worker.index, None)) is not None:
            own.shutdown(wait=False)

    def _own_thread(self, worker: WorkerBook) -> ThreadPoolExecutor | None:
        if not self._keeps_threads:
            return None
        own = self._own.get(worker.index)
        if own is None:
            name = f"antflow-{self._stage.name}-W{worker.index}"
            own = self._own[worker.index] = ThreadPoolExecutor(1, name)
        return own


def _in(stage: StageRun, own: ThreadPoolExecutor, function: Callable[[], Any]) -> Any:
    return stage.run.in_thread(function, own)


class Elsewhere:
    """An executor of the user's own."""

    child_cpu_seconds = 0.0  # nobody says, if it has processes

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        # What runs in another process or interpreter cannot be handed a context.
        self.shares_memory = type(executor) is ThreadPoolExecutor

    async def call(self, task: TaskFunc, *args: Any, **kwargs: Any) -> Any:
        work: Callable[[], Any] = partial(_result_or_error, task, args, kwargs)
        if self.shares_memory:
            work = partial(copy_context().run, work)
        result, error = await asyncio.get_running_loop().run_in_executor(self._executor, work)
        if error is not None:
            raise error
        return await result if is_awaitable(result) else result

    async def leave(self, worker: WorkerBook) -> None:
        pass


class Processes:
    """Child processes, one per busy worker."""

    shares_memory = False

    def __init__(self, stage: StageRun) -> None:
        refuse_unguarded()
        self._stage = stage
        self._seats: dict[int, ProcessSeat] = {}
        self._processor_time = ProcessorTime()

    @property
    def child_cpu_seconds(self) -> float:
        return self._processor_time.seconds

    async def call(self, task: TaskFunc, *args: Any, **kwargs: Any) -> Any:
        worker = seat_here()[1]
        seat = self._seats.get(worker.index)
        if seat is None:
            name = f"{self._stage.name}-W{worker.index}"
            seat = self._seats[worker.index] = ProcessSeat(name, self._processor_time)
        try:
            return await seat.call(task, args, kwargs, self._stage.description.resources)
        except NoChild as error:  # it will be so for every item
            failure = PipelineError(str(error))
            self._stage.run.fail(failure)
            raise failure from error

    async def leave(self, worker: WorkerBook) -> None:
        if (seat := self._seats.pop(worker.index, None)) is not None:
            await seat.close()


def _result_or_error(task: TaskFunc, args: Any, kwargs: Any) -> tuple[Any, Exception | None]:
    # A future is no good carrier of exceptions: it makes a TimeoutError anew, without traceback.
    try:
        return call_apart(task, *args, **kwargs), None
    except Exception as error:
        return None, error
