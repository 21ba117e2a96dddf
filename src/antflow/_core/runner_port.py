"""Where the tasks of a stage are called: what the engine needs for that, and what it offers.

A `Runner` calls the tasks of one stage in one run. A `RunnerKind` makes one for each run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from antflow._core.counters import Counters
from antflow._core.item_facts import Checkpoints, ItemFacts
from antflow._core.ledger import WorkerBook
from antflow._core.stage import Stage, TaskFunc


class Runner(Protocol):
    """Calls the tasks of one stage, somewhere."""

    @property
    def takes_async(self) -> bool:
        """Whether it calls ``async`` tasks too; else they run on the event loop, without it."""
        ...

    @property
    def shares_memory(self) -> bool:
        """Whether functions are called with the very objects, not with copies of them."""
        ...

    @property
    def enters_resources(self) -> bool:
        """Whether it enters the stage's resources itself, where it calls the tasks."""
        ...

    @property
    def child_cpu_seconds(self) -> float:
        """Seconds of processor time that functions took in its own processes."""
        ...

    @property
    def thread_cpu_seconds(self) -> float:
        """Seconds of processor time that functions took in its own threads."""
        ...

    @property
    def nodes(self) -> int:
        """How many worker processes of a cluster it has, or had last; 0 if it calls tasks here."""
        ...

    @property
    def ready(self) -> Callable[[WorkerBook], Awaitable[Any]] | None:
        """Waits until it can call a task for a worker; ``None``: it always can.

        Waiting there does not count against a stage's ``timeout``.
        """
        ...

    async def call(self, worker: WorkerBook, task: TaskFunc, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``task`` for a worker, and await its answer if necessary."""
        ...

    async def leave(self, worker: WorkerBook) -> None:
        """A worker leaves: release what it alone had."""
        ...

    async def close(self) -> None:
        """The stage has no workers any more: release the rest."""
        ...


class HeldItem(Protocol):
    """An item that a try works on.

    Attributes:
        facts: What its task may ask about it, as it is now.
        checkpoints: The values that its tasks keep.
    """

    @property
    def facts(self) -> ItemFacts: ...
    @property
    def checkpoints(self) -> Checkpoints: ...


class StageHome(Protocol):
    """A stage of a run, as a runner sees it that calls the tasks in other processes.

    Attributes:
        stage: The stage as the user described it.
        counters: Adds up what its tasks count.
    """

    stage: Stage
    counters: Counters

    @property
    def is_left_behind(self) -> bool:
        """Whether the run's event loop has ended before the run: nothing can be awaited."""
        ...

    def held(self, worker: WorkerBook) -> Sequence[HeldItem]:
        """The items that a worker has in hand, in the order of the values it calls a task with."""
        ...

    def place(self, worker: WorkerBook, node: str) -> None:
        """From now on a worker's tasks run on this machine of a cluster."""
        ...

    def say(self, worker: WorkerBook, text: str) -> None:
        """A task says what it does: see `set_task_status`."""
        ...

    def abandon(self, worker: WorkerBook, call: Any) -> None:
        """A call goes on although it is no longer wanted: its worker waits for this future."""
        ...

    def fail(self, error: BaseException) -> None:
        """End the run with an error: it would be the same for every item."""
        ...
