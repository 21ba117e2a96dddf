"""The far side of a stage: calls its tasks in one worker process of a cluster.

It has an event loop of its own, in a thread, because the worker's loop must not be held up by what
tasks do. ``async`` tasks run there, many at a time, and plain functions in `FarThreads`.

Orders, from home:

    ("call", number, task, body)       call a task; the body: arguments and what it may ask
    ("cancel", number)                 its answer is no longer wanted
    ("kept", number, which, parcel)    a checkpoint is kept, or an error says that it is not
    ("leave",)                         leave the resources, and end

Events, to home:

    ("value", number, kind, body)      what a task returned, and the name of its type
    ("error", number, parts, failure)  what it raised
    ("say", number, text)              what a task does
    ("keep", number, which, item, body)  a value to be kept for an item
    ("counts", counts, seconds)        what tasks counted; the processor time they have taken
    ("left", failure)                  the resources are left

A body is pickled on its own, so that one that cannot be loaded costs its own call only.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextvars import copy_context
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from antflow._core.counters import Counters, counters_here
from antflow._core.error_copies import Failure, Parcel, in_parts, in_words, packed, unpacked
from antflow._core.foreign import is_awaitable
from antflow._core.item_facts import Checkpoints, FarSeat, ItemFacts, far_seat
from antflow._core.stage import task_name
from antflow._core.stage_checks import is_async
from antflow._core.text import safe_str
from antflow._core.value_or_error import sendable
from antflow._core.version import __version__
from antflow._engine.remote.far_threads import FarThreads
from antflow._engine.remote.links import LONGEST_POLL, NodeFacts, Start
from antflow._engine.resources import Resources

LEASE = 60.0
"""Seconds without a call from home after which the far side gives up, as if told to leave."""

BETWEEN_COUNTS = 0.5

Dumps = Callable[[Any], bytes]
Loads = Callable[[bytes], Any]
Event = tuple[Any, ...]


class FarTasks(NamedTuple):
    """The part of a stage that its tasks need.

    Attributes:
        tasks: The tasks.
        resources: Keyword → function that makes a context manager.
        is_batch: Whether the tasks are given lists.
    """

    tasks: tuple[Callable[..., Any], ...]
    resources: Mapping[str, Callable[..., Any]]
    is_batch: bool


def facts_here(host: str = "") -> NodeFacts:
    """The facts about this process.

    Args:
        host: Its machine, by the name that the cluster uses; "": its own name for itself.
    """
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return NodeFacts(host or socket.gethostname(), os.getpid(), python, __version__)


class FarHost:
    """Calls the tasks of one run of a stage in this process.

    Its `send` and `receive` may be called in any event loop.

    Args:
        start: The stage.
        dumps: Pickles values for the way home.
        loads: Loads what the home has pickled.
        on_end: Called when it has ended.
    """

    def __init__(
        self, start: Start, dumps: Dumps, loads: Loads, on_end: Callable[[], None]
    ) -> None:
        self._name = f"antflow-{start.stage}"
        self._dumps = dumps
        self._loads = loads
        self._on_end = on_end
        self._stage: FarTasks = loads(start.tasks)
        self._are_async = [is_async(task) for task in self._stage.tasks]
        self._counters = Counters()
        self._calls: dict[int, FarCall] = {}
        self._events: list[Event] = []
        self._heard = time.monotonic()
        self._loop = asyncio.new_event_loop()
        self._has_events = asyncio.Event()
        self._is_leaving = False
        self._has_left = False
        self._is_over = asyncio.Event()
        self._processor_time = time.process_time()
        self._threads = FarThreads(self._name, start.threads, self._loop)
        threading.Thread(target=self._live, name=self._name, daemon=True).start()

    # From the worker's event loop

    async def send(self, pack: bytes) -> None:
        """Take orders."""
        self._loop.call_soon_threadsafe(self._take, pack)

    async def receive(self) -> bytes:
        """Wait for events; an empty list after `LONGEST_POLL`."""
        collecting = asyncio.run_coroutine_threadsafe(self._collect(), self._loop)
        return await asyncio.wrap_future(collecting)

    # In its own thread

    def _live(self) -> None:
        counters_here.set(self._counters)
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._host())
        self._on_end()

    async def _host(self) -> None:
        self._resources = Resources(self._stage.resources, f"stage {self._name}", _create_task)
        while not self._is_over.is_set():
            try:
                async with asyncio.timeout(BETWEEN_COUNTS):
                    await self._is_over.wait()
            except TimeoutError:
                self._report()
                if time.monotonic() - self._heard > LEASE:
                    if self._has_left:  # and the home does not ask whether it has
                        break
                    self._leave()

    def _report(self) -> None:
        counts = {name: total for name, total in self._counters.taken().items() if total}
        now = time.process_time()
        if counts or now - self._processor_time > BETWEEN_COUNTS / 100:
            self.tell("counts", counts, now - self._processor_time)
            self._processor_time = now

    async def _collect(self) -> bytes:
        self._heard = time.monotonic()
        if not self._events:
            try:
                async with asyncio.timeout(LONGEST_POLL):
                    await self._has_events.wait()
            except TimeoutError:
                pass
        events, self._events = self._events, []
        self._has_events.clear()
        self._heard = time.monotonic()
        if any(event[0] == "left" for event in events):
            self._loop.call_later(1.0, self._is_over.set)  # when this has been delivered
        return pickle.dumps(events, pickle.HIGHEST_PROTOCOL)

    def tell(self, *event: Any) -> None:
        """Send an event home; in its own thread."""
        self._events.append(event)
        self._has_events.set()

    def tell_from_thread(self, *event: Any) -> None:
        """Send an event home; from any thread."""
        self._in_loop(self.tell, *event)

    # Orders

    def _take(self, pack: bytes) -> None:
        # From home, which sends the tasks themselves too.
        orders: list[tuple[Any, ...]] = self._loads(pack)
        for kind, *details in orders:
            if kind == "call":
                self._begin(*details)
            elif kind == "cancel":
                self._cancel(*details)
            elif kind == "kept":
                self._note_kept(*details)
            else:
                self._leave()

    def _begin(self, number: int, task: int, body: bytes) -> None:
        call = self._calls[number] = FarCall(self, number, self._stage.tasks[task], body)
        if self._are_async[task]:
            call.running = _create_task(self._call_async(call), f"{self._name} {number}")
        elif self._stage.resources:
            call.running = _create_task(self._call_plain(call), f"{self._name} {number}")
        else:
            self._threads.put(partial(self._call_in_thread, call, {}))

    async def _call_plain(self, call: FarCall) -> None:
        try:
            values = await self._resources.get()
        except BaseException as error:  # why: the home judges it
            self._end(call, _raised(error))
        else:
            call.running = None
            self._threads.put(partial(self._call_in_thread, call, values))

    async def _call_async(self, call: FarCall) -> None:
        counters_here.set(self._counters)
        try:
            values = await self._resources.get() if self._stage.resources else {}
            args, kwargs = call.enter(self._loads)
            value = await call.task(*args, **kwargs, **values)
            event = self._answered(call, value)
        except BaseException as error:  # why: the home judges it
            event = _raised(error)
        self._end(call, event)

    def _call_in_thread(self, call: FarCall, values: Mapping[str, Any]) -> None:
        event = copy_context().run(self._called, call, values)
        self._in_loop(self._end, call, event)

    def _in_loop(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # its event loop is closed: the run is over
            pass

    def _called(self, call: FarCall, values: Mapping[str, Any]) -> Event:
        counters_here.set(self._counters)
        if call.is_unwanted:
            return ("error", in_parts(TimeoutError()), in_words(TimeoutError()))
        try:
            args, kwargs = call.enter(self._loads)
            value = call.task(*args, **kwargs, **values)
            if is_awaitable(value):
                value = asyncio.run_coroutine_threadsafe(_awaited(value), self._loop).result()
            return self._answered(call, value)
        except BaseException as error:  # why: the home judges it
            return _raised(error)

    def _answered(self, call: FarCall, value: Any) -> Event:
        name = task_name(call.task)
        body, kind = sendable(name, value, self._stage.is_batch, self._dumps, "its worker process")
        return ("value", kind, body)

    def _end(self, call: FarCall, event: Event) -> None:
        if self._calls.pop(call.number, None) is not None:
            kind, *rest = event
            counts = {name: total for name, total in self._counters.taken().items() if total}
            if counts:
                self.tell("counts", counts, 0.0)
            self.tell(kind, call.number, *rest)

    def _cancel(self, number: int) -> None:
        if (call := self._calls.get(number)) is None:
            return
        call.is_unwanted = True
        if call.running is not None:
            call.running.cancel()

    def _note_kept(self, number: int, which: int, parcel: Parcel | None) -> None:
        if (call := self._calls.get(number)) is not None:
            call.kept(which, parcel)

    def _leave(self) -> None:
        if self._is_leaving:
            return
        self._is_leaving = True
        self._threads.end()
        for call in tuple(self._calls.values()):
            self._cancel(call.number)
            call.forsake()
        self._leaving = _create_task(self._leave_all(), f"{self._name} leaves")

    async def _leave_all(self) -> None:
        failure: Failure | None = None
        running = [call.running for call in self._calls.values() if call.running is not None]
        if running:
            await asyncio.wait(running, timeout=LONGEST_POLL)
        try:
            await self._resources.close()
        except BaseException as error:  # why: the home logs it
            failure = in_words(error, own_frames=1)
        self._report()
        self.tell("left", failure)
        self._has_left = True


class FarCall:
    """One call of a task, in the worker process.

    Attributes:
        number: Its number, given at home.
        task: The task.
        running: The `asyncio.Task` of an ``async`` task.
        is_unwanted: Whether the home has cancelled it.
    """

    def __init__(self, host: FarHost, number: int, task: Callable[..., Any], body: bytes) -> None:
        self._host = host
        self.number = number
        self.task = task
        self._body = body
        self.running: asyncio.Task[None] | None = None
        self.is_unwanted = False
        self._numbers = count(1)
        self._kept: dict[int, Callable[[Parcel | None], None]] = {}

    def enter(self, loads: Loads) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Load the arguments, and make the item in hand known to the code that runs here."""
        try:
            args, kwargs, facts, is_batch = loads(self._body)
        except Exception as fault:
            raise TypeError(
                f"the call of task {task_name(self.task)} could not be loaded in its worker "
                f"process: {type(fault).__name__}: {safe_str(fault)}"
            ) from fault
        finally:
            self._body = b""
        items = [(each, FarCheckpoints(self, i, each)) for i, each in enumerate(facts)]
        far_seat.set(FarSeat(items, self._say, [], is_batch))
        return args, kwargs

    def _say(self, text: str) -> None:
        self._host.tell_from_thread("say", self.number, text)

    def keep(self, item: int, value: Any, on_kept: Callable[[Parcel | None], None]) -> None:
        """Ask the home to keep a value; ``on_kept`` is called in the event loop of the host."""
        body = self._host._dumps(value)  # a friend
        number = next(self._numbers)
        self._kept[number] = on_kept
        self._host.tell_from_thread("keep", self.number, number, item, body)

    def kept(self, which: int, parcel: Parcel | None) -> None:
        """The home says that a value is kept, or why not."""
        if (on_kept := self._kept.pop(which, None)) is not None:
            on_kept(parcel)

    def forsake(self) -> None:
        """The home answers no more: what waits for that fails."""
        for number in tuple(self._kept):
            self.kept(number, packed(ConnectionError("the run has ended")))


class FarCheckpoints(Checkpoints):
    """The checkpoints of an item whose task runs here."""

    def __init__(self, call: FarCall, index: int, facts: ItemFacts) -> None:
        self._call = call
        self._index = index
        self._last = facts.checkpointed

    def last(self) -> Any:
        return self._last

    def keep(self, value: Any) -> Awaitable[None]:
        self._last = value
        loop = asyncio._get_running_loop()
        if loop is not None:
            future: asyncio.Future[Parcel | None] = loop.create_future()
            self._call.keep(self._index, value, partial(_settle, future))
            return FarKept(future)
        answer: list[Parcel | None] = []
        is_kept = threading.Event()

        def on_kept(parcel: Parcel | None) -> None:
            answer.append(parcel)
            is_kept.set()

        self._call.keep(self._index, value, on_kept)
        is_kept.wait()
        _raise(answer[0])
        return FarKept(None)


class FarKept:
    """Awaited, it is over when the home has kept the value."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[Parcel | None] | None) -> None:
        self._future = future

    def __await__(self) -> Generator[Any, None, None]:
        if self._future is not None:
            _raise((yield from self._future.__await__()))


def _settle(future: asyncio.Future[Parcel | None], parcel: Parcel | None) -> None:
    if not future.done():
        future.set_result(parcel)


def _raise(parcel: Parcel | None) -> None:
    if parcel is not None:
        raise unpacked(parcel)


def _raised(error: BaseException) -> Event:
    return ("error", in_parts(error), in_words(error, own_frames=1))


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def _create_task(work: Any, name: str) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(work, name=name)
