"""A Dask cluster as a place for a stage's tasks.

The home calls functions in the worker processes themselves (what `Client.run` does), beside Dask's
own scheduling of tasks: an attempt that is one of hundreds in an event loop is not a task that
Dask could place. Each call goes through the scheduler, so workers behind it need not be reachable;
with ``Client(direct_to_workers=True)`` it goes straight there. When a worker is lost its connection
closes, and the calls in it fail at once.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args
from uuid import uuid4

from antflow._core.checks import check_choice, check_timeout, refusal
from antflow._core.runner_port import StageHome
from antflow._core.stage import Stage
from antflow._engine.remote.far_host import FarHost, facts_here
from antflow._engine.remote.links import NodeFacts, Start
from antflow._engine.remote.remote_runner import Redelivery, RemoteRunner
from antflow.runners.remote_checks import check_remote, pickled

if TYPE_CHECKING:
    from distributed import Security

CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 2.0

loads = pickle.loads


def dumps(value: Any) -> bytes:
    """Pickle a value; with its code if the workers cannot import that."""
    return pickled(value, _pickled_whole)


def _pickled_whole(value: Any) -> bytes:
    import cloudpickle  # `distributed` needs it, too

    data: bytes = cloudpickle.dumps(value)
    return data


class DaskRunner:
    """Runs the tasks of a stage, async and plain, on the workers of a Dask cluster.

    ``Stage("Embed", workers=64, tasks=[embed], executor=DaskRunner(client))``, or with the address
    alone: ``executor="dask://scheduler:8786"``.

    Args:
        cluster: A `distributed.Client`, sync or async; a cluster, like `LocalCluster`; or the
            address of a scheduler (``"dask://host:8786"``, ``"tcp://host:8786"``). Each run makes
            its own connection there, with the same certificates.
        node_timeout: Seconds without any worker process, above 0, after which the run fails;
            ``None`` = it waits for one.
        redelivery: What becomes of a try whose worker process is lost. "repeat": it is made again
            in another, without counting as a try; the third one that is lost is a failure. "fail":
            the first one is, for work that must not be done twice. The failure is a
            `WorkerLostError`, after which the item is not tried again.

    Raises:
        ImportError: The package `distributed` is not installed.
        TypeError: ``cluster`` is not one of these.
        ValueError: Another argument is not allowed.
    """

    def __init__(
        self, cluster: Any, *, node_timeout: float | None = 60.0, redelivery: Redelivery = "repeat"
    ) -> None:
        self._address, self._security, self._direct = _whereabouts(cluster)
        check_timeout(ValueError, "node_timeout", node_timeout)
        self._node_timeout = node_timeout
        check_choice(ValueError, "redelivery", redelivery, get_args(Redelivery))
        self._redelivery: Redelivery = redelivery

    def __str__(self) -> str:
        return re.sub(r"^\w+://", "dask://", self._address)

    def __repr__(self) -> str:
        return f"DaskRunner({str(self)!r})"

    def check(self, stage: Stage) -> None:
        """Refuse a stage whose tasks cannot be called there; see `RunnerKind.check`."""
        check_remote(stage, str(self), dumps)

    def runner(self, home: StageHome) -> RemoteRunner:
        """The runner for one run of a stage; see `RunnerKind.runner`."""
        cluster = _DaskCluster(str(self), self._address, self._security, self._direct)
        token = uuid4().hex
        return RemoteRunner(home, cluster, token, self._node_timeout, self._redelivery)


def _library() -> Any:
    """The package `distributed`.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import distributed
    except ImportError as missing:
        text = "Dask needs the package distributed: pip install 'antflow[dask]'"
        raise ImportError(text) from missing
    return distributed


def _whereabouts(cluster: Any) -> tuple[str, Security | None, bool]:
    """The address of a scheduler, how to prove who one is, and whether workers can be reached."""
    if isinstance(cluster, str):
        if not re.fullmatch(r"(dask|tcp|tls|ucx|ws|wss)://[^\s/]+", cluster):
            allowed = 'must be an address like "dask://scheduler:8786"'
            raise refusal(ValueError, "cluster", cluster, allowed)
        _library()
        return cluster.replace("dask://", "tcp://"), None, False
    if isinstance(cluster, _library().Client):
        scheduler: Any = cluster.scheduler
        if scheduler is None:
            raise refusal(ValueError, "cluster", cluster, "must be connected")
        return scheduler.address, cluster.security, bool(cluster.direct_to_workers)
    address = getattr(cluster, "scheduler_address", None)
    if not isinstance(address, str) or not address:
        allowed = "must be a distributed.Client, a cluster, or the address of a scheduler"
        raise refusal(TypeError, "cluster", cluster, allowed)
    return address, getattr(cluster, "security", None), False


class _DaskCluster:
    """See `antflow._engine.remote.links.Cluster`."""

    dumps = staticmethod(dumps)
    loads = staticmethod(loads)

    def __init__(self, name: str, address: str, security: Security | None, direct: bool) -> None:
        self.address = name
        self._address = address
        self._options = {"security": security, "direct_to_workers": direct}
        self._direct = direct
        self._client: Any = None
        self._scheduler: Any = None
        self._nannies: dict[str, str | None] = {}

    async def connect(self) -> None:
        make: Any = _library().Client  # its own types do not say that it can be awaited
        client = make(
            self._address,
            asynchronous=True,
            set_as_default=False,
            timeout=CONNECT_SECONDS,
            name="antflow",
            **self._options,
        )
        try:
            await client
        except BaseException:
            await client.close(timeout=1)
            raise
        self._client, self._scheduler = client, client.scheduler

    async def workers(self) -> Mapping[str, int]:
        workers: dict[str, int] = await self._scheduler.ncores()
        return workers

    async def open(self, address: str, start: Start) -> _DaskLink:
        link = _DaskLink(self._calls_to(address), start.token)
        await link.call(far_open, start)
        return link

    async def facts(self, address: str) -> NodeFacts:
        link = _DaskLink(self._calls_to(address), "")
        host = re.sub(r"^\w+://|:\d+$", "", address)
        facts, nanny = await link.call(far_facts, host)
        self._nannies[address] = nanny
        return NodeFacts(*facts)

    async def epitaph(self, address: str, pid: int) -> str:
        # A nanny looks after the worker process, and logs how it has ended.
        if (nanny := self._nannies.get(address)) is None:
            return ""
        logs = await self._scheduler.proxy(worker=nanny, msg={"op": "get_logs", "n": 50})
        for _, line in logs:
            if (found := re.search(rf"[Ww]orker process {pid} (.*)", line)) is not None:
                return str(found[1])
        return ""

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close(timeout=CLOSE_SECONDS)

    def _calls_to(self, address: str) -> Any:
        if self._direct:
            return self._client.rpc(address).run
        proxy = self._scheduler.proxy

        async def call(**details: Any) -> Any:
            return await proxy(worker=address, msg={"op": "run", **details})

        return call


class _DaskLink:
    """See `antflow._engine.remote.links.Link`."""

    def __init__(self, run: Any, token: str) -> None:
        self._run = run
        self._token = token

    async def call(self, function: Any, *args: Any) -> Any:
        """Call a function in the worker process, in its event loop.

        Raises:
            Exception: What it raised, or the worker is lost.
        """
        answer = await self._run(
            function=dumps(function), args=dumps(args), kwargs=dumps({}), wait=True
        )
        if answer["status"] != "OK":
            error = answer["exception"]
            raise loads(error) if isinstance(error, bytes) else getattr(error, "data", error)
        return answer["result"]

    async def send(self, pack: bytes) -> None:
        await self.call(far_send, self._token, pack)

    async def receive(self) -> bytes:
        events: bytes = await self.call(far_receive, self._token)
        return events


# -- in the worker process -------------------------------------------------------------------------

_hosts: dict[str, FarHost] = {}


def far_facts(host: str, dask_worker: Any) -> tuple[tuple[Any, ...], str | None]:
    """What this process says of itself, as plain values, and the address of its nanny."""
    return tuple(facts_here(host)), dask_worker.nanny


def far_open(start: Start) -> None:
    """Begin with a stage in this process."""
    _hosts[start.token] = FarHost(start, dumps, loads, lambda: _forget(start.token))


def _forget(token: str) -> None:
    _hosts.pop(token, None)


async def far_send(token: str, pack: bytes) -> None:
    """Bring orders to a stage in this process."""
    await _hosts[token].send(pack)


async def far_receive(token: str) -> bytes:
    """Wait for events of a stage in this process."""
    return await _hosts[token].receive()
