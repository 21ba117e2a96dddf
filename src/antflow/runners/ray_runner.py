"""A Ray cluster as a place for a stage's tasks.

Each run of a stage has actors of its own, one in each worker process. They are async actors, so one
call can wait for events while others bring orders. A call fails at once when its actor dies; then
another actor is asked for.
"""

from __future__ import annotations

import asyncio
import pickle
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args
from uuid import uuid4

from antflow._core.checks import check_choice, check_count, check_number, check_timeout, refusal
from antflow._core.runner_port import StageHome
from antflow._core.stage import Stage
from antflow._engine.remote.far_host import FarHost, facts_here
from antflow._engine.remote.links import NodeFacts, Start
from antflow._engine.remote.remote_runner import Redelivery, RemoteRunner
from antflow.runners.remote_checks import check_remote, pickled

CALLS_AT_ONCE = 100
"""Calls that an actor takes at once: three are enough, and cancelled ones may linger."""

loads = pickle.loads


def dumps(value: Any) -> bytes:
    """Pickle a value; with its code if the workers cannot import that."""
    return pickled(value, _pickled_whole)


def _pickled_whole(value: Any) -> bytes:
    import ray.cloudpickle  # pyright: ignore[reportMissingImports]

    whole: Any = ray.cloudpickle
    data: bytes = whole.dumps(value)
    return data


class RayRunner:
    """Runs the tasks of a stage, async and plain, on a Ray cluster.

    ``Stage("Embed", workers=64, tasks=[embed], executor=RayRunner())`` uses the connection that the
    program has made with ``ray.init``. An address makes one: ``executor="ray://head:10001"`` for
    Ray's client, or ``"ray://auto"`` on a machine of the cluster.

    Args:
        address: ``"ray://…"`` as above; ``None`` = the connection that there is, or "auto".
        actors: How many worker processes each run of a stage has, at least 1; ``None`` = as many as
            fit into the processors of the cluster, which may grow.
        cpus: Processors that each of them asks Ray for, 0 or more.
        node_timeout: Seconds without any worker process, above 0, after which the run fails;
            ``None`` = it waits for one.
        redelivery: What becomes of a try whose worker process is lost: see `DaskRunner`.

    Raises:
        ImportError: The package `ray` is not installed.
        TypeError: ``address`` is not a string.
        ValueError: An argument is not allowed.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        actors: int | None = None,
        cpus: float = 1.0,
        node_timeout: float | None = 60.0,
        redelivery: Redelivery = "repeat",
    ) -> None:
        if address is not None and not isinstance(address, str):
            raise refusal(TypeError, "address", address, "must be an address, or None")
        if address is not None and not re.fullmatch(r"ray://[^\s/]+", address):
            allowed = 'must be an address like "ray://head:10001", or "ray://auto"'
            raise refusal(ValueError, "address", address, allowed)
        if actors is not None:
            allowed = "must be a whole number of worker processes >= 1, or None"
            check_count(ValueError, "actors", actors, 1, allowed)
        check_timeout(ValueError, "node_timeout", node_timeout)
        check_choice(ValueError, "redelivery", redelivery, get_args(Redelivery))
        self._address = address
        self._actors = actors
        self._cpus = check_number(ValueError, "cpus", cpus)
        self._node_timeout = node_timeout
        self._redelivery: Redelivery = redelivery
        _library()

    def __str__(self) -> str:
        return self._address or "ray://auto"

    def __repr__(self) -> str:
        return f"RayRunner({str(self)!r})"

    def check(self, stage: Stage) -> None:
        """Refuse a stage whose tasks cannot be called there; see `RunnerKind.check`."""
        check_remote(stage, str(self), dumps)

    def runner(self, home: StageHome) -> RemoteRunner:
        """The runner for one run of a stage; see `RunnerKind.runner`."""
        cluster = _RayCluster(str(self), self._actors, self._cpus)
        token = uuid4().hex
        return RemoteRunner(home, cluster, token, self._node_timeout, self._redelivery)


def _library() -> Any:
    """The package `ray`.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as missing:
        raise ImportError("Ray needs the package ray: pip install 'antflow[ray]'") from missing
    return ray


class _RayCluster:
    """See `antflow._engine.remote.links.Cluster`."""

    dumps = staticmethod(dumps)
    loads = staticmethod(loads)

    def __init__(self, address: str, most: int | None, cpus: float) -> None:
        self.address = address
        self._most = most
        self._cpus = cpus
        self._ray = _library()
        self._actors: dict[str, Any] = {}
        self._made = 0
        self._epitaphs: dict[str, str] = {}

    async def connect(self) -> None:
        if self._ray.is_initialized():
            return
        where = self.address if ":" in self.address[6:] else self.address[6:]
        with ThreadPoolExecutor(1) as thread:  # it takes seconds, and does not let go meanwhile
            connecting = thread.submit(self._ray.init, address=where, log_to_driver=False)
            await asyncio.wrap_future(connecting)

    async def workers(self) -> Mapping[str, int]:
        wanted = self._most
        if wanted is None:
            processors = self._ray.cluster_resources().get("CPU", 0.0)
            wanted = int(processors / self._cpus) if self._cpus else 1
        while len(self._actors) < wanted:
            self._made += 1
            options = {"num_cpus": self._cpus, "max_concurrency": CALLS_AT_ONCE}
            make = self._ray.remote(FarActor).options(**options)
            self._actors[f"actor-{self._made}"] = make.remote()
        threads = max(int(self._cpus), 1)
        return dict.fromkeys(self._actors, threads)

    async def facts(self, address: str) -> NodeFacts:
        return NodeFacts(*await self._call(address, "facts"))

    async def open(self, address: str, start: Start) -> _RayLink:
        await self._call(address, "open", start)
        return _RayLink(self, address)

    async def epitaph(self, address: str, pid: int) -> str:
        return self._epitaphs.get(address, "")

    async def close(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)

    async def _call(self, address: str, method: str, *args: Any) -> Any:
        """Call a method of an actor.

        Raises:
            Exception: What it raised, or the actor is lost. Then another one is made.
        """
        try:
            return await getattr(self._actors[address], method).remote(*args)
        except self._ray.exceptions.RayActorError as error:
            self._actors.pop(address, None)
            said = re.search(r"Worker exit detail: (.*?)\.? Some common causes", str(error))
            self._epitaphs[address] = f"has ended: {said[1]}" if said else ""
            raise


class _RayLink:
    """See `antflow._engine.remote.links.Link`."""

    def __init__(self, cluster: _RayCluster, address: str) -> None:
        self._cluster = cluster
        self._address = address

    async def send(self, pack: bytes) -> None:
        await self._cluster._call(self._address, "send", pack)

    async def receive(self) -> bytes:
        events: bytes = await self._cluster._call(self._address, "receive")
        return events


# -- in the worker process -------------------------------------------------------------------------


class FarActor:
    """The far side of a stage, as an actor."""

    def __init__(self) -> None:
        self._host: FarHost | None = None

    async def facts(self) -> tuple[Any, ...]:
        """What this process says of itself, as plain values."""
        return tuple(facts_here(str(_library().util.get_node_ip_address())))

    async def open(self, start: Start) -> None:
        """Begin with a stage in this process."""
        self._host = FarHost(start, dumps, loads, lambda: None)

    async def send(self, pack: bytes) -> None:
        """Bring orders."""
        assert self._host is not None
        await self._host.send(pack)

    async def receive(self) -> bytes:
        """Wait for events."""
        assert self._host is not None
        return await self._host.receive()
