"""Calls the tasks of a stage on the workers of a cluster."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from antflow._core.errors import PipelineError, WorkerLostError
from antflow._core.foreign import is_a
from antflow._core.ledger import WorkerBook
from antflow._core.runner_port import StageHome
from antflow._core.stage import TaskFunc, task_name
from antflow._core.text import safe_str
from antflow._core.value_or_error import ValueOrError, value_of
from antflow._engine.remote.far_host import FarTasks
from antflow._engine.remote.links import Cluster, Start
from antflow._engine.remote.nodes import Call, Node, NodeLost, Nodes

MOST_LOST = 3
"""Worker processes that one call may cost."""

Redelivery = Literal["repeat", "fail"]


class RemoteRunner:
    """Calls tasks, async and plain, on the workers of a cluster.

    Args:
        home: The stage.
        cluster: The cluster; it is connected with the first call.
        token: Names this run of the stage on the cluster.
        node_timeout: Seconds without any worker process after which the run fails.
        redelivery: What becomes of a call whose worker process is lost: it is made again in another
            ("repeat"), up to `MOST_LOST` times, or fails ("fail").
    """

    takes_async = True
    shares_memory = False
    enters_resources = True
    thread_cpu_seconds = 0.0

    def __init__(
        self,
        home: StageHome,
        cluster: Cluster,
        token: str,
        node_timeout: float | None,
        redelivery: Redelivery,
    ) -> None:
        stage = home.stage
        self._home = home
        self._cluster = cluster
        self._redelivery = redelivery
        # Of the calls in a process that is lost, one may be to blame, and nothing says which. So
        # those that have one chance left take it one after the other.
        self._alone = asyncio.Lock()
        self._is_batch = stage.batch is not None
        self._tasks = tuple(stage.tasks)
        self._numbers = {id(task): index for index, task in enumerate(self._tasks)}
        tasks = cluster.dumps(FarTasks(self._tasks, dict(stage.resources), self._is_batch))
        start = Start(stage.name, token, tasks, 1)
        self._nodes = Nodes(cluster, home, start, node_timeout)

    @property
    def child_cpu_seconds(self) -> float:
        return self._nodes.computed

    @property
    def nodes(self) -> int:
        return self._nodes.count

    async def call(self, worker: WorkerBook, task: TaskFunc, /, *args: Any, **kwargs: Any) -> Any:
        name = task_name(task)
        held = self._home.held(worker)
        facts = [each.facts for each in held]
        try:
            body = self._cluster.dumps((args, kwargs, facts, self._is_batch))
        except Exception as error:
            raise TypeError(
                f"the arguments of task {name} cannot be sent to a worker process: "
                f"{safe_str(error)}"
            ) from error
        order = self._numbers[id(task)], body
        lost = 0
        while True:
            call = Call(name, order, held, worker)
            if lost == MOST_LOST - 1:
                async with self._alone:
                    pair = await self._delivered(call)
            else:
                pair = await self._delivered(call)
            _, raised = pair
            if not isinstance(raised, NodeLost):
                break
            lost += 1
            if lost == MOST_LOST or self._redelivery == "fail":
                raise WorkerLostError(name, await self._nodes.explained(raised), lost)
        if is_a(raised, StopIteration):  # no coroutine can raise that
            raise RuntimeError(f"task {name} raised StopIteration") from raised
        return value_of(pair)

    async def ready(self, worker: WorkerBook) -> Node:
        """Wait until there is a worker process for a worker: the one in which it has its seat."""
        try:
            return await self._nodes.seat(worker)
        except PipelineError as failure:
            self._home.fail(failure)
            raise

    async def _delivered(self, call: Call) -> ValueOrError:
        """Make a call where its worker has its seat, and return how it ended."""
        node = await self.ready(call.worker)
        node.ask(call)
        try:
            await asyncio.wait([call.answer])  # unlike `await`, it leaves the future alone
        except asyncio.CancelledError:
            if not call.answer.done():
                node.cancel(call)
                self._home.abandon(call.worker, asyncio.shield(call.answer))
            raise
        return call.answer.result()

    async def leave(self, worker: WorkerBook) -> None:
        self._nodes.vacate(worker)

    async def close(self) -> None:
        if not self._home.is_left_behind:
            await self._nodes.close()
