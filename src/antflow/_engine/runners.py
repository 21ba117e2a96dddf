"""Runs plain functions: in threads, on the event loop, or elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from antflow._core.counters import Counters
from antflow._core.foreign import is_awaitable
from antflow._core.ledger import WorkerBook
from antflow._core.runner_port import Runner
from antflow._core.stage import Stage, TaskFunc
from antflow._core.value_or_error import ValueOrError, call_elsewhere, value_of
from antflow._engine.crew import Crew
from antflow._engine.run import Run
from antflow._engine.stage_home import EngineHome
from antflow._engine.supervisor import Supervisor
from antflow._engine.user_errors import call_apart
from antflow._engine.worker_thread import Answers, WorkerThread, take_over


def runner_for(
    stage: Stage, run: Run, crew: Crew, supervisor: Supervisor, counters: Counters
) -> Runner:
    """The runner that a stage asks for.

    Args:
        stage: The stage.
        run: The run.
        crew: Its workers.
        supervisor: Starts tasks, and ends the run with an error.
        counters: What its tasks count.
    """
    if stage.executor == "process":
        from antflow._engine.process_runner import Processes  # few have a use for pickle and pipes

        return Processes(stage, run, supervisor.fail, counters)
    if stage.executor == "inline":
        return Inline()
    if isinstance(stage.executor, Executor):
        return Elsewhere(stage.executor, stage.batch is not None)
    if not isinstance(stage.executor, str):
        runner: Runner = stage.executor.runner(EngineHome(stage, run, crew, supervisor, counters))
        return runner
    return Threads(stage.name, crew)


class Inline:
    """Functions that do not block, on the event loop."""

    takes_async = False
    enters_resources = False
    nodes = 0
    ready = None
    shares_memory = True
    child_cpu_seconds = 0.0
    thread_cpu_seconds = 0.0

    async def call(self, worker: WorkerBook, task: TaskFunc, /, *args: Any, **kwargs: Any) -> Any:
        answer = call_apart(task, *args, **kwargs)
        return await answer if is_awaitable(answer) else answer

    async def leave(self, worker: WorkerBook) -> None:
        pass

    async def close(self) -> None:
        pass


class Threads:
    """The default: a thread for each worker, started when it is first needed.

    A thread cannot be stopped. If its task times out it goes on, and its worker waits for it before
    taking anything new: there are never more threads than workers.

    A worker's own resources are entered and left in its thread, because some, like a connection of
    `sqlite3`, are bound to the thread they were made in.
    """

    takes_async = False
    enters_resources = False
    nodes = 0
    ready = None
    shares_memory = True
    child_cpu_seconds = 0.0

    def __init__(self, name: str, crew: Crew) -> None:
        self._name = name
        self._crew = crew
        self._threads: dict[int, WorkerThread] = {}
        self._answers = Answers()
        self._ended = 0.0

    @property
    def thread_cpu_seconds(self) -> float:
        """See `antflow._core.ports.Runner`."""
        if not self._threads:
            return self._ended
        return self._ended + sum([each.cpu_seconds for each in tuple(self._threads.values())])

    async def call(self, worker: WorkerBook, task: TaskFunc, /, *args: Any, **kwargs: Any) -> Any:
        thread = self.thread_of(worker)
        try:
            return await thread.call(partial(call_apart, task, *args, **kwargs))
        except asyncio.CancelledError:
            if thread.at_work is not None and not thread.at_work.done():
                # A shield: the run may stop waiting for the thread, which is at work all the same.
                self._crew.abandon(worker, asyncio.shield(thread.at_work))
            raise

    def thread_of(self, worker: WorkerBook) -> WorkerThread:
        """The thread that a worker's plain functions run in."""
        thread = self._threads.get(worker.index)
        if thread is None:
            name = f"antflow-{self._name}-W{worker.index}"
            thread = self._threads[worker.index] = WorkerThread(name, self._answers)
        return thread

    def in_thread_of(self, worker: WorkerBook) -> Callable[..., asyncio.Future[ValueOrError]]:
        """A function that runs functions in a worker's thread."""
        return self.thread_of(worker).run

    async def leave(self, worker: WorkerBook) -> None:
        if (thread := self._threads.pop(worker.index, None)) is not None:
            self._ended += thread.cpu_seconds
            thread.end()

    async def close(self) -> None:
        pass


class Elsewhere:
    """The user's own executor."""

    takes_async = False
    enters_resources = False
    nodes = 0
    ready = None
    child_cpu_seconds = 0.0  # unknown, if it has processes
    thread_cpu_seconds = 0.0

    def __init__(self, executor: Executor, is_batch: bool) -> None:
        self._executor = executor
        self._is_batch = is_batch
        # A function in another process or interpreter cannot be handed a context.
        self.shares_memory = type(executor) is ThreadPoolExecutor

    async def call(self, worker: WorkerBook, task: TaskFunc, /, *args: Any, **kwargs: Any) -> Any:
        work: Callable[[], Any] = partial(call_apart, task, *args, **kwargs)
        context = copy_context()
        if self.shares_memory:
            work = partial(context.run, work)
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._executor, call_elsewhere, work, self._is_batch)
        take_over(context)
        result = value_of(answer.pair)
        return await result if is_awaitable(result) else result

    async def leave(self, worker: WorkerBook) -> None:
        pass

    async def close(self) -> None:
        pass
