"""The worker processes of a cluster, as one stage of a run uses them.

Each worker of the stage has a seat in one of them, and keeps it as long as that lasts. So a
worker's place is known, and each process has as many calls at a time as it has seated workers.
Processes that join get workers from those that have more; the workers of one that is lost find
another.

Orders of one turn of the event loop travel together, and while they travel, others gather: the next
pack. Answers come the same way. So packs are large where calls are short, and each answer comes
home as soon as there is one.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from antflow._core.error_copies import Parcel, copied, out_of_parcels, packed
from antflow._core.errors import PipelineError
from antflow._core.ledger import WorkerBook
from antflow._core.log import warn
from antflow._core.runner_port import HeldItem, StageHome
from antflow._core.text import clean, safe_str
from antflow._core.value_or_error import ValueOrError, unloadable
from antflow._engine.remote.far_host import facts_here
from antflow._engine.remote.links import LONGEST_SILENCE, Cluster, Link, NodeFacts, Start

LARGEST_PACK = 4 * 1024 * 1024
"""Bytes of orders that travel together, unless one alone has more."""

BETWEEN_LOOKS = 0.5
"""Seconds between two looks at which worker processes there are."""

LEAVE_SECONDS = 30.0

EPITAPH_SECONDS = 1.0


class NodeLost(ConnectionError):
    """A worker process of the cluster is gone, and with it the calls that it had.

    Args:
        address: Its address in the cluster.
        facts: What it has said of itself.
        how: What has become of it, as far as is known.
    """

    def __init__(self, address: str, facts: NodeFacts, how: str) -> None:
        super().__init__(address, facts, how)
        self.address = address
        self.facts = facts
        self.how = how

    def __str__(self) -> str:
        where = f"{self.facts.host} ({self.address})"
        return f"worker process {self.facts.pid} on {where} {self.how}"


class Call:
    """One call of a task, as the home sees it.

    Args:
        name: The task's name.
        order: Its number among the tasks, and the pickled arguments.
        held: The items in hand.
        worker: The worker that calls.

    Attributes:
        answer: How it ended. It is never cancelled, and holds no exception.
        is_unwanted: Whether its answer is no longer awaited.
    """

    def __init__(
        self, name: str, order: tuple[int, bytes], held: Sequence[HeldItem], worker: WorkerBook
    ) -> None:
        self.name = name
        self.order = order
        self.held = held
        self.worker = worker
        self.number = 0
        self.answer: asyncio.Future[ValueOrError] = asyncio.get_running_loop().create_future()
        self.is_unwanted = False

    def end(self, value: Any, error: BaseException | None) -> None:
        """It has ended."""
        if not self.answer.done():
            self.answer.set_result((value, error))


class Node:
    """A worker process with the far side of the stage.

    Args:
        address: Its address in the cluster.
        facts: What it has said of itself.
        link: The way to it.
        cluster: The cluster.
        home: The stage.
        on_lost: Called when it is lost.

    Attributes:
        address: The same.
        facts: What it has said of itself.
        seats: The numbers of the workers that have a seat in it.
        packs: How many packs of orders it was sent.
        orders: How many orders they had.
    """

    def __init__(
        self,
        address: str,
        facts: NodeFacts,
        link: Link,
        cluster: Cluster,
        home: StageHome,
        on_lost: Callable[[Node, BaseException], None],
    ) -> None:
        self.address = address
        self.facts = facts
        self.seats: set[int] = set()
        self.packs = 0
        self.orders = 0
        self.computed = 0.0
        self._link = link
        self._cluster = cluster
        self._home = home
        self._on_lost = on_lost
        self._numbers = 0
        self._calls: dict[int, Call] = {}
        self._orders: list[tuple[Any, ...]] = []
        self._has_orders = asyncio.Event()
        self._keeping: set[asyncio.Task[None]] = set()
        self.is_lost = False
        self.has_left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks = [
            _begin(self._guarded(self._send()), f"{address} send"),
            _begin(self._guarded(self._receive()), f"{address} receive"),
        ]

    def ask(self, call: Call) -> None:
        """Call a task there."""
        self._numbers += 1
        call.number = self._numbers
        self._calls[call.number] = call
        self._order("call", call.number, *call.order)

    def cancel(self, call: Call) -> None:
        """The answer of a call is no longer wanted; it comes all the same."""
        call.is_unwanted = True
        self._order("cancel", call.number)

    async def leave(self) -> None:
        """Make it close the stage's resources and end, and wait for that."""
        if not self.is_lost:
            self._order("leave")
            await asyncio.wait([self.has_left], timeout=LEAVE_SECONDS)
        await self.drop()

    async def drop(self) -> None:
        """End what waits for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def bury(self, error: BaseException) -> None:
        """It is lost: its calls end with this error."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.end(None, error)

    # Inside

    def _order(self, *order: Any) -> None:
        if not self.is_lost:
            self._orders.append(order)
            self._has_orders.set()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # why: the library's, of whatever kind
            if not self.is_lost:
                self.is_lost = True
                if not self.has_left.done():
                    self.has_left.set_result(None)
                self._on_lost(self, error)
                for task in self._tasks:
                    if task is not asyncio.current_task():
                        task.cancel()

    async def _send(self) -> None:
        while True:
            await self._has_orders.wait()
            await asyncio.sleep(0)  # others of this turn come along
            pack: list[tuple[Any, ...]] = []
            size = 0
            for order in self._orders:
                size += len(order[3]) if order[0] == "call" else 0
                if pack and size > LARGEST_PACK:
                    break
                pack.append(order)
            del self._orders[: len(pack)]
            if not self._orders:
                self._has_orders.clear()
            self.packs += 1
            self.orders += len(pack)
            await self._link.send(pickle.dumps(pack, pickle.HIGHEST_PROTOCOL))

    async def _receive(self) -> None:
        while True:
            async with asyncio.timeout(LONGEST_SILENCE):
                events = await self._link.receive()
            for kind, *details in self._cluster.loads(events):
                if kind == "value":
                    self._answered(*details)
                elif kind == "error":
                    self._failed(*details)
                elif kind == "say":
                    self._said(*details)
                elif kind == "keep":
                    self._keep(*details)
                elif kind == "counts":
                    self._counted(*details)
                else:
                    self._left(*details)
                    return

    def _answered(self, number: int, kind: str, body: bytes) -> None:
        if (call := self._calls.pop(number, None)) is None:
            return
        if call.is_unwanted:
            call.end(None, None)
            return
        try:
            value = self._cluster.loads(body)
        except BaseException as fault:  # why: the object's own code
            call.end(None, unloadable(call.name, kind, fault, "its worker process"))
        else:
            call.end(out_of_parcels(value), None)

    def _failed(self, number: int, parts: bytes, failure: Any) -> None:
        if (call := self._calls.pop(number, None)) is not None:
            try:
                made = self._cluster.loads(parts)
            except BaseException:  # why: the object's own code; there are words for it
                made = None
            call.end(None, copied(made, failure))

    def _said(self, number: int, text: str) -> None:
        call = self._calls.get(number)
        if call is not None and not call.is_unwanted:
            self._home.say(call.worker, text)

    def _keep(self, number: int, which: int, item: int, body: bytes) -> None:
        if (call := self._calls.get(number)) is not None:
            task = _begin(self._keep_at_home(call, which, item, body), f"{self.address} keeps")
            self._keeping.add(task)
            task.add_done_callback(self._keeping.discard)

    async def _keep_at_home(self, call: Call, which: int, item: int, body: bytes) -> None:
        parcel: Parcel | None = None
        try:
            await call.held[item].checkpoints.keep(self._cluster.loads(body))
        except BaseException as error:  # why: the task that keeps it is told
            parcel = packed(error)
        self._order("kept", call.number, which, parcel)

    def _counted(self, counts: Mapping[str, Any], seconds: float) -> None:
        self.computed += seconds
        try:
            self._home.counters.add_all(counts)
        except ValueError as error:  # all processes together use too many names
            warn("%s: %s", clean(self._home.stage.name), clean(str(error)))

    def _left(self, failure: Any) -> None:
        if failure is not None:
            warn(
                "%s: closing its resources: %s: %s",
                clean(self._home.stage.name),
                clean(failure.name),
                clean(failure.text),
            )
        if not self.has_left.done():
            self.has_left.set_result(None)


class Nodes:
    """The worker processes that a stage uses.

    Args:
        cluster: The cluster.
        home: The stage.
        start: What each of them is told.
        node_timeout: Seconds without any of them after which calls fail.

    Attributes:
        count: How many there are; when the run is over, how many there were.
        packs: How many packs of orders those had that are gone.
        orders: How many orders were in them.
    """

    def __init__(
        self, cluster: Cluster, home: StageHome, start: Start, node_timeout: float | None
    ) -> None:
        self._cluster = cluster
        self._home = home
        self._start = start
        self._node_timeout = node_timeout
        self._nodes: dict[str, Node] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._seats: dict[int, Node] = {}
        self._changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._report = "not asked yet"
        self._computed = 0.0
        self.count: int = 0
        self.packs: int = 0
        self.orders: int = 0

    @property
    def computed(self) -> float:
        """Seconds of processor time that all of them have taken for the run."""
        return self._computed + sum([node.computed for node in tuple(self._nodes.values())])

    async def seat(self, worker: WorkerBook) -> Node:
        """The node in which a worker has its seat.

        Raises:
            PipelineError: There has been none for `node_timeout`.
        """
        if self._looking is None:
            self._looking = _begin(self._look(), f"{self._home.stage.name} nodes")
        try:
            async with asyncio.timeout(self._node_timeout):
                while not self._nodes:
                    await self._changed.wait()
        except TimeoutError:
            raise PipelineError(
                f"stage {self._home.stage.name!r}: no worker of {self._cluster.address} for "
                f"{self._node_timeout:g} s (node_timeout); the cluster says: {self._report}"
            ) from None
        node = self._seats.get(worker.index)
        least = min(self._nodes.values(), key=lambda each: len(each.seats))
        if node is None or node.is_lost or len(node.seats) > len(least.seats) + 1:
            self.vacate(worker)
            node = self._seats[worker.index] = least
            node.seats.add(worker.index)
            self._home.place(worker, node.facts.host)
        return node

    def vacate(self, worker: WorkerBook) -> None:
        """A worker needs its seat no more."""
        if (node := self._seats.pop(worker.index, None)) is not None:
            node.seats.discard(worker.index)

    async def close(self) -> None:
        """Make all of them leave, and disconnect."""
        if self._looking is None:
            return
        tasks = [self._looking, *self._opening.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.gather(*[node.leave() for node in self._nodes.values()])
        for node in self._nodes.values():
            self._forget(node)
        await self._cluster.close()

    # Inside

    async def _look(self) -> None:
        is_connected = False
        while True:
            try:
                if not is_connected:
                    await self._cluster.connect()
                    is_connected = True
                workers = await self._cluster.workers()
                self._report = f"{len(workers)} workers, none usable" if workers else "no workers"
                for address, threads in workers.items():
                    if address not in self._nodes and address not in self._opening:
                        self._opening[address] = _begin(self._open(address, threads), address)
            except Exception as error:
                self._report = _in_words(error)
            await asyncio.sleep(BETWEEN_LOOKS)

    async def _open(self, address: str, threads: int) -> None:
        try:
            there = await self._cluster.facts(address)
            if (difference := _difference(facts_here(), there)) is not None:
                self._refuse(address, difference)
                return
            start = self._start._replace(threads=threads)
            link = await self._cluster.open(address, start)
        except (ImportError, AttributeError) as error:
            self._refuse(address, f"it cannot load what it needs: {safe_str(error)}")
        except Exception as error:  # it may just be coming or going
            self._report = f"worker {address}: {_in_words(error)}"
        else:
            node = Node(address, there, link, self._cluster, self._home, self._lose)
            self._nodes[address] = node
            self.count = len(self._nodes)
            self._change()
        finally:
            del self._opening[address]

    def _refuse(self, address: str, reason: str) -> None:
        stage = self._home.stage.name
        text = f"stage {stage!r}: worker {address} cannot be used: {reason}"
        self._home.fail(PipelineError(text))

    def _lose(self, node: Node, error: BaseException) -> None:
        self._nodes.pop(node.address, None)
        self.count = len(self._nodes)
        self._forget(node)
        for index in tuple(node.seats):
            self._seats.pop(index, None)
        node.bury(NodeLost(node.address, node.facts, f"is lost ({_in_words(error)})"))

    async def explained(self, lost: NodeLost) -> NodeLost:
        """The same error, with how the process has ended, if the cluster says so in time."""
        try:
            async with asyncio.timeout(EPITAPH_SECONDS):
                while True:
                    if how := await self._cluster.epitaph(lost.address, lost.facts.pid):
                        return NodeLost(lost.address, lost.facts, how)
                    await asyncio.sleep(EPITAPH_SECONDS / 10)
        except Exception:  # why: it is only to say more; the cluster may be gone as well
            return lost

    def _forget(self, node: Node) -> None:
        self._computed += node.computed
        node.computed = 0.0
        self.packs += node.packs
        self.orders += node.orders

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _difference(here: NodeFacts, there: NodeFacts) -> str | None:
    """Why a worker process cannot be used by this one, if so."""
    if (here.python, here.antflow) == (there.python, there.antflow):
        return None
    return (
        f"it has Python {there.python} and antflow {there.antflow}, and this process has Python "
        f"{here.python} and antflow {here.antflow}"
    )


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {safe_str(error)}"


def _begin(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=f"antflow {name}")
