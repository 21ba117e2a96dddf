"""Resources for tasks, by keyword: context managers, entered before first use and always left.

Some context managers (those with a task group or a cancel scope inside) must be left by the very
`asyncio.Task` that entered them, and no worker lives as long as they do. So a separate task, the
keeper, enters them, waits until it is told to leave them, and leaves them, last one first. Code
that wants their values only waits for that; when cancelled, it leaves the keeper alone.

Each entered context manager is left exactly once. When entering one fails, those before it are
left, then all waiters get the error; the next `Resources.get` starts over.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping
from contextvars import Context, copy_context
from functools import partial
from types import TracebackType
from typing import Any

from antflow._core.cancellation import absorb_requests, is_failure
from antflow._core.errors import PipelineError
from antflow._core.foreign import is_a, traceback_of, with_traceback
from antflow._core.held_time import Alarm
from antflow._core.ledger import WorkerBook
from antflow._core.log import warn
from antflow._core.stage import Stage
from antflow._core.text import clean, safe_repr
from antflow._core.tracebacks import trimmed
from antflow._core.value_or_error import ValueOrError, value_of
from antflow._engine.waiting import outlast

LEAVE_SECONDS = 30.0
"""How long leaving one context manager may take, before it is cancelled."""

CreateTask = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
InThread = Callable[[Callable[[], Any]], "asyncio.Future[ValueOrError]"]
Leave = Callable[..., Awaitable[Any]]


class Resources:
    """Context managers of one scope, entered before first use, left on every way out.

    Args:
        factories: Keyword → function without parameters that makes an async or sync context
            manager. One that is both is entered as an async one. They are entered in this order.
        name: Whose they are, for messages: ``"stage Fetch"``.
        create_task: Starts a task, given a coroutine and a name.
        in_thread: Runs a function in the thread that sync context managers are to be made, entered
            and left in; ``None``: all of it happens in the event loop's. The factory runs there
            too, unless it is a class with ``__aenter__``: many of those have to be made where the
            event loop runs. A function that makes one says so with ``@asynccontextmanager``, whose
            body runs there as well.
    """

    def __init__(
        self,
        factories: Mapping[str, Callable[..., Any]],
        name: str,
        create_task: CreateTask,
        in_thread: InThread | None = None,
    ) -> None:
        self._name = clean(name)
        self._begin = partial(Stay, dict(factories), self._name, create_task, in_thread)
        self._stay: Stay | None = None
        self._is_closed = False

    async def get(self) -> dict[str, Any]:
        """The values that the context managers gave, by keyword; entered if this is the first use.

        Returns:
            The same dict for all callers; do not change it.

        Raises:
            PipelineError: They were already closed, or the keeper was cancelled.
            TypeError: A factory returned something that is not a context manager.
            BaseException: What a factory or entering raised. All waiters get this same error.

        Cancellation: does not stop the entering; others may wait for it.
        """
        if self._is_closed:
            raise PipelineError(f"the resources of {self._name} were already closed")
        if self._stay is None or self._stay.keeper.done():
            self._stay = self._begin()
        return await self._stay.values()

    async def close(self) -> None:
        """Leave them all, last one first; one that is just being entered is cancelled.

        Errors of leaving are logged. May be called again, and then waits for the same end.

        Raises:
            BaseException: What leaving raised, if it is not an `Exception`: `KeyboardInterrupt`,
                for example.

        Cancellation: takes effect when they are left, at most `LEAVE_SECONDS` per context manager.
        """
        self._is_closed = True
        if self._stay is not None:
            await self._stay.end()


class RunResources:
    """The resources of scope "run", each entered once however many stages name it.

    Args:
        create_task: See `Resources`.
        clean_ups: Where to note how to leave them.
    """

    def __init__(
        self, create_task: CreateTask, clean_ups: list[Callable[[], Awaitable[None]]]
    ) -> None:
        self._create_task = create_task
        self._clean_ups = clean_ups
        self._resources: dict[object, Resources] = {}

    async def get(self, factories: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
        """The values that these factories' context managers gave; see `Resources.get`."""
        values: dict[str, Any] = {}
        for name, factory in factories.items():
            # By equality, not identity: a bound method is a new object each time it is accessed.
            key = factory if isinstance(factory, Hashable) else id(factory)
            resources = self._resources.get(key)
            if resources is None:
                resources = Resources({name: factory}, "the run", self._create_task)
                self._resources[key] = resources
                self._clean_ups.append(resources.close)
            [values[name]] = (await resources.get()).values()  # perhaps by another stage's name
        return values


class StageResources:
    """The resources of one stage's tasks, in the scope that the stage asks for.

    Args:
        stage: The stage.
        of_run: The run's resources.
        create_task: See `Resources`.
        thread_of: Gives a function that runs functions in a worker's own thread; ``None`` where
            workers have none.
        is_here: Whether they are entered here, and not where the tasks are called.
    """

    def __init__(
        self,
        stage: Stage,
        of_run: RunResources,
        create_task: CreateTask,
        thread_of: Callable[[WorkerBook], InThread] | None,
        *,
        is_here: bool = True,
    ) -> None:
        self._stage = stage
        self._is_here = is_here
        self._of_run = of_run
        self._create_task = create_task
        self._thread_of = thread_of
        self._resources: dict[int, Resources] = {}

    async def get(self, worker: WorkerBook) -> dict[str, Any]:
        """A worker's resources, by keyword; entered if this is the first use."""
        stage = self._stage
        if not self._is_here:
            return {}
        if stage.resource_scope == "run":
            return await self._of_run.get(stage.resources)
        is_workers_own = stage.resource_scope == "worker"
        key = worker.index if is_workers_own else -1
        resources = self._resources.get(key)
        if resources is None:
            in_thread = None
            if self._thread_of is not None and is_workers_own:
                in_thread = self._thread_of(worker)
            resources = self._resources[key] = Resources(
                stage.resources, f"stage {stage.name}", self._create_task, in_thread
            )
        return await resources.get()

    def taken_from(self, worker: WorkerBook) -> Resources | None:
        """A worker's own resources, to be closed as it leaves."""
        return self._resources.pop(worker.index, None)

    def rest(self) -> list[Resources]:
        """Resources still to be closed once no worker is left."""
        return list(self._resources.values())


class Stay:
    """From entering to leaving, once. Its arguments are those of `Resources`."""

    def __init__(
        self,
        factories: Mapping[str, Callable[..., Any]],
        name: str,
        create_task: CreateTask,
        in_thread: InThread | None,
    ) -> None:
        self._factories = factories
        self._name = name
        self._in_thread = in_thread
        self._context = Context()
        self._values: dict[str, Any] = {}
        self._leaves: list[tuple[str, Leave]] = []
        self._is_entering = True
        self._is_to_end = asyncio.Event()
        self._known: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting = 0
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._exit: BaseException | None = None  # not an Exception, and not raised yet
        self.keeper = create_task(self._keep(), f"resources of {name}")

    async def values(self) -> dict[str, Any]:
        """See `Resources.get`."""
        if not self._known.done():
            self._waiting += 1
            try:  # the keeper too: cancelled before its first step, it never answers
                either = [self._known, self.keeper]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._waiting -= 1
        if self._error is not None:
            self._exit = None
            # Each time from where it was raised: else it grows with each waiter.
            raise with_traceback(self._error, self._traceback)
        if not self._known.done():
            raise self._cancelled()
        return self._values

    async def end(self) -> None:
        """See `Resources.close`."""
        if self._is_entering and not self._is_to_end.is_set():
            self.keeper.cancel()
        self._is_to_end.set()
        cancelled = await outlast([self.keeper])
        error, self._exit = self._exit or cancelled, None
        if error is not None:
            raise error

    # The keeper

    async def _keep(self) -> None:
        self._context = copy_context()
        cause: BaseException | None = None
        try:
            await self._enter_all()
            self._is_entering = False
            self._known.set_result(None)
            await self._is_to_end.wait()
        except GeneratorExit:  # the event loop is gone: nothing can be awaited any more
            raise
        except BaseException as error:  # why: the waiters raise it
            self._is_entering = False
            self._fail(cause := error)
        await self._leave_all(cause)
        if not self._known.done():
            self._known.set_result(None)
            if not self._waiting and not is_a(cause, asyncio.CancelledError):
                message = "the resources of %s cannot be entered"
                warn(message, self._name, error=cause)

    async def _enter_all(self) -> None:
        for name, factory in self._factories.items():
            await self._enter(name, factory)
            await absorb_requests()  # requests it left behind must not end the stay
            # Entering it outlasted that, or swallowed it. How often the keeper was asked to cancel
            # says nothing: a client library may have asked, for its own timeout.
            if self._is_to_end.is_set():
                raise asyncio.CancelledError

    async def _enter(self, name: str, factory: Callable[..., Any]) -> None:
        if self._in_thread is None or _is_seen_to_be_async(factory):
            manager, value = self._open(name, factory)
        else:
            thread = self._start_in_thread(partial(self._open, name, factory))
            await outlast([thread])  # a thread cannot be cancelled: what it enters, we must leave
            manager, value = value_of(thread.result())
        if not _is_async(manager):
            self._leaves.append((name, partial(self._leave_sync, manager)))
        else:
            leave = type(manager).__aexit__
            value = await type(manager).__aenter__(manager)
            self._leaves.append((name, lambda *error: leave(manager, *error)))
        self._values[name] = value

    def _open(self, name: str, factory: Callable[..., Any]) -> tuple[Any, Any]:
        """Make a context manager, and enter it if it is a sync one."""
        manager = factory()
        if _is_async(manager):
            return manager, None
        if not (hasattr(type(manager), "__enter__") and hasattr(type(manager), "__exit__")):
            if inspect.iscoroutine(manager):
                manager.close()
            raise TypeError(
                f"the factory of resource {name} of {self._name} returned {safe_repr(manager)}: "
                "must be a context manager, async or sync"
            )
        return manager, type(manager).__enter__(manager)

    def _fail(self, cause: BaseException) -> None:
        self._error = cause
        if is_a(cause, asyncio.CancelledError):
            self._error = self._cancelled()
            self._error.__cause__ = cause
        elif not is_failure(cause):
            self._exit = cause
        self._traceback = traceback_of(self._error)

    def _cancelled(self) -> PipelineError:
        return PipelineError(f"the resources of {self._name} were cancelled")

    # Leaving

    async def _leave_all(self, cause: BaseException | None) -> None:
        details = (None,) * 3 if cause is None else (type(cause), cause, traceback_of(cause))
        while self._leaves:
            name, leave = self._leaves.pop()
            limit = asyncio.timeout(None)
            try:
                async with limit:
                    with Alarm(limit, LEAVE_SECONDS, asyncio.get_running_loop()):
                        await leave(*details)
            except GeneratorExit:
                raise
            except BaseException as error:  # why: logged, and if not an Exception raised in `end`
                if error is not cause:  # some raise again the error they are given
                    self._report(name, error, limit.expired())
            await absorb_requests()  # nor cut off the leaving of the next one

    async def _leave_sync(self, manager: Any, *error: Any) -> None:
        leave = partial(type(manager).__exit__, manager, *error)
        if self._in_thread is None:
            leave()
            return
        thread = self._start_in_thread(leave)
        await asyncio.wait([thread])
        value_of(thread.result())

    def _report(self, name: str, error: BaseException, is_late: bool) -> None:
        what = f"took more than {LEAVE_SECONDS:,g} s and was cancelled" if is_late else "failed"
        warn("closing resource %s of %s %s", name, self._name, what, error=error)
        if is_failure(error):
            trimmed(error)  # it may be raised each time
        else:
            self._exit = error

    # Threads

    def _start_in_thread(self, function: Callable[[], Any]) -> asyncio.Future[ValueOrError]:
        assert self._in_thread is not None
        # One context for entering and leaving: a context variable is reset where it was set.
        return self._in_thread(partial(self._context.run, function))


def _is_async(manager: Any) -> bool:
    return hasattr(type(manager), "__aenter__") and hasattr(type(manager), "__aexit__")


def _is_seen_to_be_async(factory: Callable[..., Any]) -> bool:
    """Whether a factory certainly makes an async context manager, known before it is called."""
    while isinstance(factory, partial):
        factory = factory.func
    return isinstance(factory, type) and hasattr(factory, "__aenter__")
